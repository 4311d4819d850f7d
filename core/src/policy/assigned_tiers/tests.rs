use super::*;
use crate::codec::json::{At, Json};
use crate::policy::Policy;

fn policy(tiers: &str) -> Policy {
    let text = format!(r#"{{"rules": [], "tiers": {tiers}}}"#);
    let json = Json::parse(&text, "policy").unwrap();
    Policy::judge(&At::new(&json, "policy")).unwrap()
}

fn caller(subject: Subject, address: &str) -> Caller {
    let address = address.parse().ok();
    Caller {
        subject,
        tier: "free".to_string(),
        client: address,
        address,
    }
}

fn user(id: &str) -> Subject {
    Subject::User(id.as_bytes().to_vec())
}

const CHRISTMAS: WallTime = WallTime(1_798_070_400_000_000);

#[test]
fn the_first_entry_in_force_that_names_a_caller_wins() {
    let digest = hex_digest(b"secret");
    let policy = policy(&format!(
        r#"[{{"tier": "penalty", "users": ["mallory"], "networks": ["203.0.113.0/24", "2001:db8::/32"]}},
            {{"tier": "vip", "users": ["acme", "mallory"], "until": "2026-12-24T00:00:00Z"}},
            {{"tier": "silver", "users": ["acme"], "api_keys": ["{}"]}},
            {{"tier": "office", "networks": ["203.0.113.7", "10.0.0.0/8"]}}]"#,
        digest.to_ascii_uppercase()
    ));
    let before = WallTime(CHRISTMAS.0 - 1);
    for (subject, key, address, now, tier) in [
        (user("mallory"), None, "192.0.2.1", before, Some("penalty")),
        (user("acme"), None, "192.0.2.1", before, Some("vip")),
        (user("acme"), None, "192.0.2.1", CHRISTMAS, Some("silver")),
        (user("ann"), None, "192.0.2.1", before, None),
        // Whoever comes without an identity is in the network all the same.
        (user("acme"), None, "203.0.113.7", before, Some("penalty")),
        (
            Subject::Address(None),
            None,
            "10.1.2.3",
            before,
            Some("office"),
        ),
        (
            Subject::Address(None),
            None,
            "::ffff:10.1.2.3",
            before,
            Some("office"),
        ),
        (
            Subject::Address(None),
            None,
            "2001:db8:1::1",
            before,
            Some("penalty"),
        ),
        (Subject::Address(None), None, "2001:db9::1", before, None),
        (
            Subject::ApiKey(digest),
            None,
            "192.0.2.1",
            before,
            Some("silver"),
        ),
        (
            user("ann"),
            Some(&b"secret"[..]),
            "192.0.2.1",
            before,
            Some("silver"),
        ),
        (user("ann"), Some(b"other"), "192.0.2.1", before, None),
        (user("ann"), Some(b""), "192.0.2.1", before, None),
    ] {
        let caller = caller(subject, address);
        let told = policy.assigned_tiers.tier(&caller, key, || now);
        assert_eq!(told, tier, "{caller:?} {key:?}");
    }
}

#[test]
fn nobody_asks_what_time_it_is_where_no_entry_ends() {
    let clock = || panic!("asked for the time");
    let policies = [
        policy("[]"),
        policy(
            r#"[{"tier": "vip", "users": ["acme"]},
                {"tier": "brief", "users": ["bob"], "until": "2026-12-24T00:00:00Z"}]"#,
        ),
    ];
    for policy in policies {
        for id in ["acme", "ann"] {
            let caller = caller(user(id), "192.0.2.1");
            policy.assigned_tiers.tier(&caller, None, clock);
        }
    }
}

#[test]
fn an_entry_that_has_ended_is_no_mistake_and_is_told_to_whoever_has_a_clock() {
    let policy = policy(r#"[{"tier": "vip", "users": ["acme"], "until": "2026-12-24T00:00:00Z"}]"#);
    let ended = |now| policy.assigned_tiers.ended(now).collect::<Vec<_>>();
    assert!(ended(WallTime(CHRISTMAS.0 - 1)).is_empty());
    let words = "tiers[0]: it ended at 2026-12-24T00:00:00Z, and nobody is in tier \"vip\" by it any more; take \
                 it out";
    assert_eq!(ended(CHRISTMAS), [words]);
}
