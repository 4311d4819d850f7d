use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::policy::OnStoreFailure;
use crate::policy::soft_limit::SoftLimit;
use crate::quota::cost::Cost;
use crate::quota::packed::Terms;
use crate::quota::period::{Calendar, UtcOffset};
use crate::store::probe::of_probe;
use crate::store::slot::Slot;

fn quota(algorithm: Algorithm, window: u64) -> Quota {
    Quota::try_new(algorithm, 10, window, None).unwrap()
}

fn limit(scope: Scope, algorithm: Algorithm, window: u64, nth: usize) -> Limit {
    let quota = quota(algorithm, window);
    written(scope, quota, &counter(&quota, None, nth), None)
}

fn written(scope: Scope, quota: Quota, counter: &str, variant: Option<&str>) -> Limit {
    Limit {
        rule: "general_api".to_string(),
        label: String::new(),
        scope,
        name: None,
        counter: counter.to_string(),
        variant: variant.map(str::to_string),
        key_end: end("general_api", scope, counter, variant),
        terms: Terms::new(quota),
        cost: Cost::ONE,
        soft_limit: SoftLimit::default(),
        lease: None,
        on_store_failure: OnStoreFailure::Allow,
        keyed: None,
    }
}

fn key(limit: &Limit, subject: &Subject, client: Option<IpAddr>) -> String {
    let key = of(
        &Namespace::default(),
        limit,
        Counting::Enforced,
        subject,
        client,
    );
    String::from_utf8(key).unwrap()
}

#[test]
fn keys_read_as_what_they_count() {
    let client: Option<IpAddr> = "192.0.2.7".parse().ok();
    let v6: Option<IpAddr> = "2001:db8::".parse().ok();
    let user = |id: &[u8]| Subject::User(id.to_vec());
    for (limit, subject, client, expected) in [
        (
            limit(Scope::User, Algorithm::SlidingWindow, 3600, 1),
            user(b"ann"),
            client,
            "weir:2:{u:ann}:general_api:user:sl3600s",
        ),
        (
            limit(Scope::User, Algorithm::TokenBucket, 60, 2),
            user(b"a:{b} %\xff"),
            client,
            "weir:2:{u:a%3A%7Bb%7D%20%25%FF}:general_api:user:tb60s.2",
        ),
        (
            limit(Scope::Global, Algorithm::FixedWindow, 86_400, 1),
            user(b"ann"),
            client,
            "weir:2:{g:general_api}:general_api:all:fw86400s",
        ),
        (
            limit(Scope::Ip, Algorithm::LeakyBucket, 1, 1),
            user(b"ann"),
            client,
            "weir:2:{a:192.0.2.7}:general_api:ip:lb1s",
        ),
        (
            limit(Scope::User, Algorithm::LeakyBucket, 1, 1),
            Subject::Address(v6),
            v6,
            "weir:2:{a:2001:db8::}:general_api:user:lb1s",
        ),
        (
            limit(Scope::Ip, Algorithm::LeakyBucket, 1, 1),
            Subject::Address(None),
            None,
            "weir:2:{a:-}:general_api:ip:lb1s",
        ),
    ] {
        assert_eq!(key(&limit, &subject, client), expected);
    }
}

#[test]
fn a_name_stands_where_else_the_window_does() {
    let quota = quota(Algorithm::TokenBucket, 60);
    assert_eq!(counter(&quota, Some("burst"), 3), "tb.burst");
    assert_eq!(counter(&quota, None, 1), "tb60s");
    assert_eq!(counter(&quota, None, 12), "tb60s.12");
    let month = Calendar::new(Unit::Month, UtcOffset::read("+09:00").unwrap());
    let month = Quota::try_calendar(10, month).unwrap();
    assert_eq!(counter(&month, None, 1), "fwmonth+0900");
    assert_eq!(counter(&month, None, 2), "fwmonth+0900.2");
    assert_eq!(counter(&month, Some("plan"), 1), "fw.plan");
}

#[test]
fn names_that_read_as_unnamed_counters_are_known() {
    for (name, expected) in [
        ("fw60s", true),
        ("tb86400s.2", true),
        ("fwweek", true),
        ("fwmonth-0330.2", true),
        ("fwmonth-", false),
        ("fwmonthly", false),
        ("month", false),
        ("daily", false),
        ("fw", false),
        ("fws", false),
        ("fw.60s", false),
        ("fw60", false),
        ("fw60s.", false),
        ("fw60s.x", false),
        ("60s", false),
    ] {
        assert_eq!(is_like_unnamed(name), expected, "{name}");
    }
}

#[test]
fn a_namespace_begins_every_key() {
    let namespace: Namespace = "staging".parse().unwrap();
    let limit = limit(Scope::User, Algorithm::FixedWindow, 60, 1);
    let subject = Subject::User(b"ann".to_vec());
    assert_eq!(
        of(&namespace, &limit, Counting::Enforced, &subject, None),
        b"weir@staging:2:{u:ann}:general_api:user:fw60s"
    );
    assert_eq!(
        of_status(&namespace, &subject, &quota(Algorithm::FixedWindow, 60)),
        b"weir@staging:2:{u:ann}::user:fw60s"
    );
}

#[test]
fn a_counter_on_trial_is_another_in_the_same_slot() {
    let limit = limit(Scope::Global, Algorithm::FixedWindow, 60, 1);
    let subject = Subject::Address(None);
    let key = of(
        &Namespace::default(),
        &limit,
        Counting::Shadow,
        &subject,
        None,
    );
    assert_eq!(key, b"weir:2:{g:general_api}:general_api:all:fw60s:shadow");
}

#[test]
fn a_variant_has_counters_of_its_own_where_callers_share_them() {
    let subject = Subject::User(b"ann".to_vec());
    for (scope, expected) in [
        (
            Scope::Global,
            "weir:2:{g:general_api}:general_api:all:fw60s:x:pricing:low",
        ),
        (Scope::User, "weir:2:{u:ann}:general_api:user:fw60s"),
        (Scope::Ip, "weir:2:{a:-}:general_api:ip:fw60s:x:pricing:low"),
    ] {
        let quota = quota(Algorithm::FixedWindow, 60);
        let limit = written(scope, quota, "fw60s", Some("pricing:low"));
        assert_eq!(key(&limit, &subject, None), expected);
        let shadow = of(
            &Namespace::default(),
            &limit,
            Counting::Shadow,
            &subject,
            None,
        );
        assert_eq!(shadow, format!("{expected}:shadow").into_bytes());
    }
}

#[test]
fn an_id_that_is_long_as_it_is_or_as_it_is_written_is_hashed() {
    let limit = limit(Scope::User, Algorithm::FixedWindow, 60, 1);
    for (id, is_hashed) in [
        (vec![b'x'; 128], false),
        (vec![b'x'; 129], true),
        (vec![b'x'; 10_000], true),
        (vec![0xff; 66], false),
        (vec![0xff; 67], true),
        ([vec![0xff; 36], vec![b'x'; 92]].concat(), false),
        ([vec![0xff; 37], vec![b'x'; 91]].concat(), true),
    ] {
        let length = id.len();
        let key = key(&limit, &Subject::User(id), None);
        assert_eq!(key.starts_with("weir:2:{U:"), is_hashed, "{length} {key}");
        assert!(key.len() < 240, "{key}");
    }
}

#[test]
fn a_probe_is_in_the_slot_of_what_failed_and_shares_no_key_with_a_limit() {
    let subject = Subject::User(b"ann".to_vec());
    let namespace: Namespace = "staging".parse().unwrap();
    for key in [
        of_status(&namespace, &subject, &quota(Algorithm::FixedWindow, 60)),
        of(
            &namespace,
            &limit(Scope::User, Algorithm::FixedWindow, 60, 1),
            Counting::Shadow,
            &subject,
            None,
        ),
    ] {
        let probe = of_probe(&key);
        assert!(probe.ends_with(b":{u:ann}:probe") && namespace.holds(&probe));
        assert_eq!(Slot::of(&probe), Slot::of(&key));
        assert_eq!(of_probe(&probe), probe);
    }
}

#[test]
fn the_status_call_shares_no_key_with_a_rule() {
    let subject = Subject::User(b"ann".to_vec());
    let quota = quota(Algorithm::FixedWindow, 60);
    assert_eq!(
        of_status(&Namespace::default(), &subject, &quota),
        b"weir:2:{u:ann}::user:fw60s"
    );
}

fn subjects() -> impl Strategy<Value = Subject> {
    // Short strings over the separators, so that collisions would be likely if there were any.
    let id = prop::collection::vec(prop::sample::select(b"a%2:{}uU-\xff".to_vec()), 1..5);
    prop_oneof![
        id.prop_map(Subject::User),
        prop::collection::vec(any::<u8>(), 125..132).prop_map(Subject::User),
        prop::collection::vec(128..=255u8, 60..70).prop_map(Subject::User),
        any::<[u8; 4]>().prop_map(|bytes| Subject::ApiKey(hex_digest(&bytes))),
        any::<[u8; 4]>().prop_map(|bytes| Subject::Address(Some(IpAddr::from(bytes)))),
    ]
}

/// All that tells a counter from another of the same rule and subject.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    scope: Scope,
    algorithm: Algorithm,
    /// The name, or window and place among equals.
    called: Result<String, (u64, usize)>,
    variant: Option<String>,
    shadow: bool,
}

fn counters() -> impl Strategy<Value = Told> {
    // Names that are written as windows, places and what may follow a counter.
    let name = prop_oneof![
        (1..4u64).prop_map(|window| format!("{window}s")),
        (1..4u64, 2..4u64).prop_map(|(window, nth)| format!("{window}s.{nth}")),
        (1..4u64).prop_map(|window| format!("fw{window}s")),
        prop::sample::select(vec!["x", "shadow", "s", "2", ".", "s.2", "fw", "fw.x"])
            .prop_map(str::to_string),
    ];
    let window = (1..4u64, 1..4usize);
    let called = prop_oneof![name.prop_map(Ok), window.prop_map(Err)];
    let scope = prop::sample::select(vec![Scope::Global, Scope::User, Scope::Ip]);
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let variant = prop::option::of(prop::sample::select(vec!["x:shadow", "x:x", "a:b"]));
    (scope, algorithm, called, variant, any::<bool>()).prop_map(
        |(scope, algorithm, called, variant, shadow)| Told {
            scope,
            algorithm,
            called,
            // A user takes their count along, into an experiment and out of it.
            variant: variant.filter(|_| scope != Scope::User).map(str::to_string),
            shadow,
        },
    )
}

proptest! {
    #[test]
    fn different_subjects_have_different_keys(all in prop::collection::vec(subjects(), 2..40)) {
        let limit = limit(Scope::User, Algorithm::FixedWindow, 60, 1);
        let mut seen: HashMap<String, Subject> = HashMap::new();
        for subject in all {
            let key = key(&limit, &subject, None);
            let tag = key.split_once('{').unwrap().1;
            prop_assert_eq!(tag.matches('}').count(), 1);
            if let Some(other) = seen.insert(key, subject.clone()) {
                prop_assert_eq!(other, subject);
            }
        }
    }

    #[test]
    fn different_limits_have_different_keys(all in prop::collection::vec(counters(), 2..40)) {
        let subject = Subject::Address(None);
        let mut seen: HashMap<Vec<u8>, Told> = HashMap::new();
        for told in all {
            let (name, (window, nth)) = match &told.called {
                Ok(name) => (Some(name.as_str()), (60, 1)),
                Err(unnamed) => (None, *unnamed),
            };
            let quota = quota(told.algorithm, window);
            let counter = counter(&quota, name, nth);
            let limit = written(told.scope, quota, &counter, told.variant.as_deref());
            let counting = if told.shadow { Counting::Shadow } else { Counting::Enforced };
            let key = of(&Namespace::default(), &limit, counting, &subject, None);
            if let Some(other) = seen.insert(key, told.clone()) {
                prop_assert_eq!(other, told);
            }
        }
    }
}
