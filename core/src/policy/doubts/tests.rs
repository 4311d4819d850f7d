use crate::codec::json::{At, Json};
use crate::policy::Policy;

fn doubts(policy: &str) -> Vec<String> {
    let json = Json::parse(policy, "policy").unwrap();
    Policy::try_new(&At::new(&json, "policy")).unwrap().warnings
}

fn limit(limit: u64, window: u64) -> String {
    format!(r#"{{"type": "sliding_window", "limit": {limit}, "window": {window}}}"#)
}

#[test]
fn what_is_legal_and_probably_not_meant_is_told() {
    let (one, ten) = (limit(1, 60), limit(10, 60));
    let all = format!(r#""global_limit": {ten}"#);
    let rule = |fields: String| format!(r#""rules": [{{"name": "r", "pattern": "/r", {fields}}}]"#);
    let tiers = |tiers: &str| rule(format!(r#""user_limits": {{{tiers}, "default": {ten}}}"#));
    for (policy, told) in [
        (
            rule(format!(
                r#""cost": {{"response_status": {{"401": 1}}, "default": 0, "unfinished": 0}}, {all}"#
            )),
            "rule r: \"unfinished\" is 0, so whoever leaves before it is known what a request costs pays nothing; \
             give it a cost",
        ),
        (
            rule(format!(
                r#""cost": {{"metadata": ["ns", "tokens"], "default": 1, "max": 11}}, {all}"#
            )),
            "rule r: whoever leaves before it is known what a request costs pays 11, and a limit of it holds 10 at \
             most: leaving once uses it up; lower \"unfinished\" or raise the limit",
        ),
        (
            r#""rules": []"#.to_string(),
            "the policy has no rules, so no request meets a limit; add one",
        ),
        (
            rule(format!(r#""mode": "off", {all}"#)),
            "every rule is off, so no request meets a limit; switch one on",
        ),
        (
            rule(r#""priority": 1"#.to_string()),
            "rule r: it has no limits, so it does nothing; add \"global_limit\", \"user_limits\", \
             \"ip_limits\" or \"limits\", or take it out",
        ),
        (
            rule(format!(r#""user_limits": {{"free": {one}, "pro": {ten}}}"#)),
            "rule r: callers of other tiers than free, pro have no limit of their own; add \"default\" to \
             \"user_limits\"",
        ),
        (
            rule(format!(
                r#""enforce_percent": 0.1, "user_limits": {{"default": {ten}}}"#
            )),
            "rule r: enforce_percent 0.1 is 0.1 in a hundred callers; write 10 if that share of all is meant",
        ),
        (
            format!(r#""rules": [{{"name": "r", "pattern": "/[!a-z]", {all}}}]"#),
            "rule r: \"/[!a-z]\" leaves letters out, and a loose rule takes capitals for small letters, so \
             it may hold for more than is meant; add \"match\": \"exact\"",
        ),
        (
            format!(r#""mode": "shadow", {}"#, rule(all.clone())),
            "mode: it is \"shadow\", so every rule is on trial and refuses nobody; take it out once that is over",
        ),
        (
            format!(
                r#""tiers": [{{"tier": "vip", "users": ["acme"]}}], {}"#,
                rule(all.clone())
            ),
            "tiers[0]: no rule names tier \"vip\", so its callers have the limits of \"default\"; name it in \
             \"user_limits\"",
        ),
        (
            format!(
                r#""tiers": [{{"tier": "vip", "users": ["acme"], "until": "2026-12-24T00:00:00Z"}},
                             {{"tier": "vip", "networks": ["10.0.0.0/8"], "users": ["acme"]}},
                             {{"tier": "vip", "users": ["acme"]}}], {}"#,
                tiers(&format!(r#""vip": {one}"#))
            ),
            "tiers[2]: user \"acme\" is in tiers[1] too, which comes first and never ends; take it out of one of \
             them",
        ),
        (
            format!(
                r#""tiers": [{{"tier": "ops", "users": ["acme"]}}], "status": {{"operator_tier": "ops"}}, {}"#,
                tiers(&format!(r#""ops": {one}"#))
            ),
            "tiers[0]: \"ops\" is the operators' tier, and \"tiers\" makes nobody an operator; let identity tell it",
        ),
        (
            rule(format!(
                r#""when": [{{"part": "tier", "is": "free"}}, {{"header": "x-plan", "is": "free"}}], {all}"#
            )),
            "rule r: a client can leave it by what it sends, since it holds only when header x-plan is free; add a \
             rule for the same patterns without such a condition",
        ),
        (
            rule(format!(r#""except": ["/r"], {all}"#)),
            "rule r: \"/r\" in \"except\" leaves out all that the rule is for, so it does nothing; take one of \
             them out",
        ),
        (
            rule(format!(r#""except": ["/q/*"], {all}"#)),
            "rule r: \"/q/*\" in \"except\" leaves out nothing, since the rule is for other paths; take it out",
        ),
        (
            tiers(&format!(r#""u7": {one}"#)),
            "rule r: \"u7\" in \"user_limits\" is the name of a tier, and looks like a user's id; a user \
             cannot be named there: give them a tier of their own",
        ),
        (
            tiers(&format!(r#""Pro": {one}, "pro": {one}"#)),
            "rule r: tier \"pro\" is \"Pro\" elsewhere, and tiers are compared with case; spell it as it is \
             sent",
        ),
        (
            format!(
                r#"{}, "allow": {{"tiers": ["pro"]}}"#,
                tiers(&format!(r#""pro": {one}"#))
            ),
            "rule r: its limits for tier \"pro\" never hold, since the tier is on \"allow\"; take it off \
             one of them",
        ),
        (
            rule(format!(
                r#""user_limits": {{"pro": {}, "default": {one}}}, "ip_limits": {{"default": {ten}}}"#,
                limit(600, 60)
            )),
            "rule r: callers of pro (600/60s) never reach their limit, since that of their address (10/60s, \
             for default) comes first, and all behind one address share it; raise it, or limit strangers by \
             \"anonymous\" in \"user_limits\" instead",
        ),
        (
            rule(format!(r#""global_limit": [{ten}, {}]"#, limit(600, 3600))),
            "rule r: the limit 600/3600s of everybody never holds anybody back, since 10/60s of everybody is \
             always reached first; take one of them out",
        ),
        (
            rule(format!(
                r#""global_limit": {one}, "user_limits": {{"default": {ten}}}"#
            )),
            "rule r: the limit 10/60s of tier default never holds anybody back, since 1/60s of everybody is \
             always reached first; take one of them out",
        ),
        (
            rule(
                r#""user_limits": {"default": [
                    {"type": "token_bucket", "limit": 100, "window": 60, "burst_limit": 10},
                    {"type": "token_bucket", "limit": 50, "window": 60, "burst_limit": 40}]}"#
                    .to_string(),
            ),
            "rule r: two limits of one list are a token_bucket of 60 seconds, and only their order tells \
             their counts apart: give each a \"name\", and they can be moved",
        ),
        (
            rule(format!(
                r#""ip_limits": {{"default": [{ten}, {}]}}"#,
                ten.replacen('{', r#"{"name": "again", "#, 1)
            )),
            "rule r: the limit 10/60s of addresses in default never holds anybody back, since 10/60s of \
             addresses in default is always reached first; take one of them out",
        ),
        (
            format!(
                r#"{}, "deny": {{"networks": ["0.0.0.0/0"]}}"#,
                rule(all.clone())
            ),
            "deny.networks: they leave no IPv4 address out, so everybody is refused with 403; narrow them",
        ),
        (
            format!(
                r#"{}, "allow": {{"networks": ["::/1", "8000::/1"]}}"#,
                rule(all.clone())
            ),
            "allow.networks: they leave no IPv6 address out, so everybody meets no limit; narrow them",
        ),
        (
            format!(r#"{}, "allow": {{"tiers": ["free"]}}"#, rule(all.clone())),
            "allow.tiers: \"free\" is the tier of whoever comes without one, and each of them meets no limit; \
             name another tier",
        ),
        (
            format!(
                r#"{}, "allow": {{"users": ["ann", "bob"]}}, "deny": {{"users": ["bob"]}}"#,
                rule(all.clone())
            ),
            "allow, deny: user \"bob\" is on both lists, and \"deny\" wins; take it off \"allow\"",
        ),
        (
            format!(
                r#"{}, "status": {{"operator_tier": "anonymous"}}"#,
                rule(all.clone())
            ),
            "status.operator_tier: \"anonymous\" is the tier of whoever comes without one, so everybody is an \
             operator; name a tier that only operators have",
        ),
    ] {
        let policy = format!("{{{policy}}}");
        // No more than that.
        assert_eq!(doubts(&policy), [told], "{policy}");
    }
}

#[test]
fn an_ordinary_policy_is_not_doubted() {
    let policy = format!(
        r#"{{"rules": [{{"name": "r", "pattern": "/r/*", "enforce_percent": 10,
            "user_limits": {{"tier1": [{}, {}], "gold-2": {}, "anonymous": {}, "default": {}}},
            "ip_limits": {{"10.0.0.0/8": {}, "default": {}}}}}],
            "allow": {{"networks": ["10.0.0.0/8"], "tiers": ["staff"]}},
            "deny": {{"users": ["bob"], "tiers": ["banned"]}},
            "status": {{"operator_tier": "staff"}}}}"#,
        limit(10, 1),
        limit(100, 60),
        limit(20, 60),
        limit(5, 60),
        limit(10, 60),
        limit(1000, 60),
        limit(200, 60)
    );
    assert_eq!(doubts(&policy), [""; 0]);
}

#[test]
fn a_rule_that_clients_can_leave_for_another_is_not_doubted() {
    let rule = |name: &str, when: &str| {
        let limit = limit(1, 60);
        format!(
            r#"{{"name": "{name}", "pattern": "/r", "when": [{when}], "global_limit": {limit}}}"#
        )
    };
    let free = rule("free", r#"{"header": "x-plan", "is": "free"}"#);
    for other in [
        rule("all", ""),
        rule("tier", r#"{"part": "tier", "not": "vip"}"#),
    ] {
        let policy = format!(r#"{{"rules": [{free}, {other}]}}"#);
        assert_eq!(doubts(&policy), [] as [&str; 0]);
    }
    let paid = rule("paid", r#"{"header": "x-plan", "not": "free"}"#);
    assert_eq!(
        doubts(&format!(r#"{{"rules": [{free}, {paid}]}}"#)).len(),
        2
    );
}

#[test]
fn a_limit_beside_one_with_overrides_may_hold_somebody_back() {
    let policy = |rest: &str| {
        format!(
            r#"{{"rules": [{{"name": "r", "pattern": "/r", "limits": [
                {{"key": ["user"], "type": "fixed_window", "limit": 10, "window": 60{rest}}},
                {{"key": ["user"], "type": "fixed_window", "limit": 500, "window": 60, "name": "cap"}}]}}]}}"#
        )
    };
    let told = doubts(&policy(""));
    assert!(
        told.iter()
            .any(|doubt| doubt.contains("never holds anybody")),
        "{told:?}"
    );
    let raised = r#", "overrides": [{"is": ["ann"], "limit": 1000}]"#;
    assert_eq!(doubts(&policy(raised)), Vec::<String>::new());
}

#[test]
fn a_rule_that_holds_only_for_those_who_say_more_is_doubted() {
    let policy = |key: &str, rest: &str| {
        format!(
            r#"{{"rules": [{{"name": "r", "pattern": "/r", "limits": [
                {{"key": [{key}], "type": "fixed_window", "limit": 10, "window": 60{rest}}}]}}]}}"#
        )
    };
    let org = r#"{"claim": ["jwt", "org"]}"#;
    let expected = "rule r: a request that lacks a part of the key (j/jwt/org) meets no limit of it; add \"missing\": \
                    \"share\" or \"refuse\", or a limit that holds for everybody";
    assert_eq!(doubts(&policy(org, "")), [expected]);
    for (key, rest) in [
        (org, r#", "missing": "refuse""#),
        (org, r#", "missing": "share""#),
        (r#""user""#, ""),
        ("", ""),
        (
            org,
            r#"}, {"key": ["ip"], "type": "fixed_window", "limit": 10, "window": 60"#,
        ),
    ] {
        assert_eq!(
            doubts(&policy(key, rest)),
            Vec::<String>::new(),
            "{key} {rest}"
        );
    }
}
