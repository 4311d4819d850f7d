use proptest::prelude::*;

use super::*;
use crate::codec::json::{At, Json};
use crate::policy::Policy;

const KEY: &str = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";

fn exemptions(lists: &str) -> Result<Exemptions, Mistakes> {
    let rest = lists.strip_prefix('{').unwrap();
    let text = match rest.trim() {
        "}" => r#"{"rules": []}"#.to_string(),
        rest => format!(r#"{{"rules": [], {rest}"#),
    };
    let json = Json::parse(&text, "policy").unwrap();
    Policy::try_new(&At::new(&json, "policy")).map(|policy| policy.exemptions)
}

fn caller(subject: Subject, tier: &str, address: &str) -> Caller {
    let address = address.parse().ok();
    Caller {
        subject,
        tier: tier.to_string(),
        client: address,
        address,
    }
}

fn user(id: &str, tier: &str, address: &str) -> Caller {
    caller(Subject::User(id.as_bytes().to_vec()), tier, address)
}

/// The list and the entry that say how a caller is treated.
fn told(exemptions: &Exemptions, caller: &Caller, key: Option<&str>) -> String {
    let treatment = exemptions.treatment(caller, key.map(str::as_bytes));
    let listed = treatment.listed(caller.clone());
    listed.map_or_else(String::new, |listed| listed.text())
}

#[test]
fn a_caller_is_known_by_network_user_tier_or_key() {
    let lists = format!(
        r#"{{"allow": {{"networks": ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"],
                        "users": ["ann"], "tiers": ["staff"], "api_keys": ["{}"]}}}}"#,
        KEY.to_uppercase()
    );
    let exemptions = exemptions(&lists).unwrap();
    assert!(!exemptions.block());
    let anonymous = |address| caller(Subject::Address(None), "anonymous", address);
    let key = format!("allow.api_keys {KEY}");
    for (caller, sent, expected) in [
        (user("bob", "free", "192.0.2.1"), None, ""),
        (user("ann", "free", "192.0.2.1"), None, "allow.users"),
        (user("bob", "staff", "192.0.2.1"), None, "allow.tiers staff"),
        (anonymous("10.1.2.3"), None, "allow.networks 10.0.0.0/8"),
        (anonymous("11.1.2.3"), None, ""),
        (
            anonymous("2001:db8::7"),
            None,
            "allow.networks 2001:db8::/32",
        ),
        (anonymous("-"), None, ""),
        // Whoever counts by a user id sent the key all the same.
        (user("bob", "free", "192.0.2.1"), Some("k"), key.as_str()),
        (user("bob", "free", "192.0.2.1"), Some("other"), ""),
        (
            caller(Subject::ApiKey(KEY.to_string()), "free", "-"),
            None,
            key.as_str(),
        ),
        // The id of a user is not the hash of a key.
        (user(KEY, "free", "-"), None, ""),
    ] {
        let told = told(&exemptions, &caller, sent);
        assert_eq!(told, expected, "{caller:?} {sent:?}");
    }
}

#[test]
fn deny_wins() {
    let exemptions = exemptions(
        r#"{"allow": {"networks": ["10.0.0.0/8"], "users": ["ann"]},
            "deny": {"networks": ["10.6.6.0/24"], "users": ["ann"]}}"#,
    )
    .unwrap();
    assert!(exemptions.block());
    for (id, address, expected) in [
        ("bob", "10.1.1.1", "allow.networks 10.0.0.0/8"),
        ("bob", "10.6.6.6", "deny.networks 10.6.6.0/24"),
        ("bob", "11.1.1.1", ""),
        ("ann", "10.1.1.1", "deny.users"),
    ] {
        let told = told(&exemptions, &user(id, "free", address), None);
        assert_eq!(told, expected, "{address}");
    }
}

#[test]
fn a_key_may_be_denied_by_what_the_page_shows_of_it_and_is_allowed_by_all() {
    let key = |key: &str| caller(Subject::ApiKey(hex_digest(key.as_bytes())), "free", "-");
    let begin = |digits| KEY.get(..digits).unwrap();
    let (short, longer) = (begin(12), begin(20));
    for (list, k, other) in [
        (vec![short], short, ""),
        (vec![longer], longer, ""),
        // The shorter says it all.
        (vec![KEY, longer, short], short, ""),
        (vec!["000000000000", short, "ffffffffffff"], short, ""),
        (vec!["8254c329a929"], "", ""),
        // SHA-256 of "kk".
        (vec![short, "24b8b52b2e08"], short, ""),
    ] {
        let text = format!(r#"{{"deny": {{"api_keys": {list:?}}}}}"#);
        let exemptions = exemptions(&text).unwrap();
        let of = |digits: &str| match digits {
            "" => String::new(),
            digits => format!("deny.api_keys {digits}"),
        };
        assert_eq!(told(&exemptions, &key("k"), None), of(k), "{text}");
        assert_eq!(told(&exemptions, &key("other"), None), of(other), "{text}");
    }
    for (text, reason) in [
        (
            format!(r#"{{"deny": {{"api_keys": ["{}"]}}}}"#, begin(11)),
            "12 digits",
        ),
        (
            format!(r#"{{"deny": {{"api_keys": ["{KEY}0"]}}}}"#),
            "12 digits",
        ),
        (
            r#"{"deny": {"api_keys": ["8254c329a92g"]}}"#.to_string(),
            "12 digits",
        ),
        (
            format!(r#"{{"allow": {{"api_keys": ["{longer}"]}}}}"#),
            "64 digits",
        ),
    ] {
        let error = exemptions(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

proptest! {
    /// Compared with a look at each of them.
    #[test]
    fn a_hash_is_found_by_what_it_begins_with(
        digests in prop::collection::vec("[0-2]{1,4}", 0..12), hash in "[0-2]{5}",
    ) {
        let holding = digests.iter().filter(|digits| hash.starts_with(digits.as_str()));
        let shortest = holding.min_by_key(|digits| digits.len());
        let found = Digests::new(digests.clone());
        prop_assert_eq!(found.find(&hash), shortest.map(String::as_str));
    }
}

#[test]
fn lists_are_bounded() {
    let users: Vec<String> = (0..=MOST_ENTRIES).map(|i| format!("\"{i}\"")).collect();
    let text = format!(r#"{{"deny": {{"users": [{}]}}}}"#, users.join(","));
    let error = exemptions(&text).unwrap_err();
    assert!(error.to_string().contains("has 100001 entries"), "{error}");
}

#[test]
fn a_key_that_was_written_as_it_is_is_not_told_in_the_message() {
    let error = exemptions(r#"{"deny": {"api_keys": ["secret"]}}"#).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}
