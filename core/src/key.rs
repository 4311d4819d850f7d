//! The names of counters in Redis: `weir:1:{subject}:rule:scope:algorithm:place`, and after it
//! `:x:experiment:variant` for what callers of a variant share, and `:shadow` where a rule is on trial.
//!
//! Injective whatever bytes an id holds, and all limits of one subject share a hash slot. A key
//! names what is counted, never how much is allowed: raising a limit or moving a caller to another
//! tier keeps the usage, and another algorithm never meets a state that is not its own.

use std::io::Write;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};

use crate::identity::{Subject, hex_digest};
use crate::limit::Algorithm;
use crate::policy::{Limit, Scope};
use crate::rollout::Counting;
use crate::wire::resp::push_decimal;

/// The layout's version: a state with another meaning gets another number here.
const PREFIX: &[u8] = b"weir:1:{";
/// Longer ids are hashed, so that a 10 KB header does not become a 30 KB key.
const LONGEST_ID: usize = 128;

/// The place in a key of the status call's own limit, where rules have their name. No rule's name
/// is empty.
const STATUS_RULE: &str = "";

/// What comes before a variant's `experiment:variant`.
const VARIANT: &[u8] = b":x:";

/// What a counter on trial is called besides. It shares the slot of the one that is enforced, and so
/// its call.
const SHADOW: &[u8] = b":shadow";

/// Room for a subject of ordinary length without growing.
const TYPICAL: usize = 48;

/// The key of a limit's counter for a subject at an address.
pub fn of(limit: &Limit, counting: Counting, subject: &Subject, client: Option<IpAddr>) -> Vec<u8> {
    let mut key = Vec::with_capacity(TYPICAL + limit.key_end.len());
    key.extend_from_slice(PREFIX);
    match limit.scope {
        Scope::Global => {
            key.extend_from_slice(b"g:");
            key.extend_from_slice(limit.rule.as_bytes());
        }
        Scope::User => write_subject(&mut key, subject),
        Scope::Ip => write_address(&mut key, client),
    }
    key.extend_from_slice(&limit.key_end);
    if counting == Counting::Shadow {
        key.extend_from_slice(SHADOW);
    }
    key
}

/// What all keys of a limit end in. A variant of an experiment has counters of its own for what callers
/// share: they share it with those of their own variant. A caller is in one variant, and takes what
/// they have used along, into the experiment and out of it.
pub fn end(
    rule: &str,
    scope: Scope,
    algorithm: Algorithm,
    place: usize,
    variant: Option<&str>,
) -> Vec<u8> {
    let mut end = Vec::new();
    write_rest(&mut end, rule, scope, algorithm, place);
    if let (Scope::Global | Scope::Ip, Some(variant)) = (scope, variant) {
        end.extend_from_slice(VARIANT);
        end.extend_from_slice(variant.as_bytes());
    }
    end
}

/// The key of the status call's own limit.
pub fn of_status(subject: &Subject, algorithm: Algorithm) -> Vec<u8> {
    let mut key = Vec::new();
    key.extend_from_slice(PREFIX);
    write_subject(&mut key, subject);
    write_rest(&mut key, STATUS_RULE, Scope::User, algorithm, 0);
    key
}

/// The key of what looks whether the store takes again, in the slot of this key of Weir's: its first
/// part, whatever stands before the hash tag. No limit has it, for a rule's name is followed by more.
pub fn of_probe(key: &[u8]) -> Vec<u8> {
    let slot = key.split_inclusive(|byte| *byte == b'}').next();
    let mut probe = slot.unwrap_or_default().to_vec();
    probe.extend_from_slice(b":probe");
    probe
}

fn write_rest(out: &mut Vec<u8>, rule: &str, scope: Scope, algorithm: Algorithm, place: usize) {
    for part in ["}:", rule, ":", scope.name(), ":", algorithm.code(), ":"] {
        out.extend_from_slice(part.as_bytes());
    }
    push_decimal(out, place as u64);
}

/// `u` a user, `U` the hash of a long user id, `k` the hash of an API key, `a` an address.
fn write_subject(out: &mut Vec<u8>, subject: &Subject) {
    match subject {
        Subject::User(id) if id.len() <= LONGEST_ID => {
            out.extend_from_slice(b"u:");
            for part in escaped(id) {
                out.extend_from_slice(part.as_bytes());
            }
        }
        Subject::User(id) => {
            out.extend_from_slice(b"U:");
            out.extend_from_slice(hex_digest(id).as_bytes());
        }
        Subject::ApiKey(hash) => {
            out.extend_from_slice(b"k:");
            out.extend_from_slice(hash.as_bytes());
        }
        Subject::Address(address) => write_address(out, *address),
    }
}

fn write_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    out.extend_from_slice(b"a:");
    match address {
        // What `write!` would write, in a tenth of the time.
        Some(IpAddr::V4(address)) => {
            let [first, others @ ..] = address.octets();
            push_decimal(out, first.into());
            for octet in others {
                out.push(b'.');
                push_decimal(out, octet.into());
            }
        }
        // Writing to a Vec cannot fail.
        Some(IpAddr::V6(address)) => drop(write!(out, "{address}")),
        // A client without an address (a unix socket) is the one client called so.
        None => out.push(b'-'),
    }
}

/// All but letters, digits and `_ . @ -`: no brace, colon or percent sign survives, so that an id
/// can neither end its part of the key nor look like another id's escape.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'@')
    .remove(b'-');

/// An id as text that only this id has.
pub fn escaped(id: &[u8]) -> PercentEncode<'_> {
    percent_encode(id, ESCAPED)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::approach::Approach;
    use crate::limit::Quota;
    use crate::policy::OnStoreFailure;
    use crate::question::Terms;
    use crate::slot::Slot;
    use crate::units::Cost;

    fn limit(scope: Scope, algorithm: Algorithm, place: usize) -> Limit {
        variant(None, scope, algorithm, place)
    }

    fn variant(variant: Option<&str>, scope: Scope, algorithm: Algorithm, place: usize) -> Limit {
        Limit {
            rule: "general_api".to_string(),
            whom: String::new(),
            scope,
            place,
            variant: variant.map(str::to_string),
            key_end: end("general_api", scope, algorithm, place, variant),
            terms: Terms::new(Quota::try_new(algorithm, 10, 60, None).unwrap()),
            cost: Cost::ONE,
            approach: Approach::default(),
            lease: None,
            on_store_failure: OnStoreFailure::Allow,
        }
    }

    fn key(limit: &Limit, subject: &Subject, client: Option<IpAddr>) -> String {
        String::from_utf8(of(limit, Counting::Enforced, subject, client)).unwrap()
    }

    #[test]
    fn keys_read_as_what_they_count() {
        let client: Option<IpAddr> = "192.0.2.7".parse().ok();
        let v6: Option<IpAddr> = "2001:db8::".parse().ok();
        let user = |id: &[u8]| Subject::User(id.to_vec());
        for (scope, algorithm, place, subject, client, expected) in [
            (
                Scope::User,
                Algorithm::SlidingWindow,
                0,
                user(b"ann"),
                client,
                "weir:1:{u:ann}:general_api:user:sl:0",
            ),
            (
                Scope::User,
                Algorithm::TokenBucket,
                1,
                user(b"a:{b} %\xff"),
                client,
                "weir:1:{u:a%3A%7Bb%7D%20%25%FF}:general_api:user:tb:1",
            ),
            (
                Scope::Global,
                Algorithm::FixedWindow,
                0,
                user(b"ann"),
                client,
                "weir:1:{g:general_api}:general_api:global:fw:0",
            ),
            (
                Scope::Ip,
                Algorithm::LeakyBucket,
                0,
                user(b"ann"),
                client,
                "weir:1:{a:192.0.2.7}:general_api:ip:lb:0",
            ),
            (
                Scope::User,
                Algorithm::LeakyBucket,
                0,
                Subject::Address(v6),
                v6,
                "weir:1:{a:2001:db8::}:general_api:user:lb:0",
            ),
            (
                Scope::Ip,
                Algorithm::LeakyBucket,
                0,
                Subject::Address(None),
                None,
                "weir:1:{a:-}:general_api:ip:lb:0",
            ),
        ] {
            assert_eq!(
                key(&limit(scope, algorithm, place), &subject, client),
                expected
            );
        }
    }

    #[test]
    fn a_counter_on_trial_is_another_in_the_same_slot() {
        let limit = limit(Scope::Global, Algorithm::FixedWindow, 0);
        let subject = Subject::Address(None);
        let key = of(&limit, Counting::Shadow, &subject, None);
        assert_eq!(
            key,
            b"weir:1:{g:general_api}:general_api:global:fw:0:shadow"
        );
    }

    #[test]
    fn a_variant_has_counters_of_its_own_where_callers_share_them() {
        let subject = Subject::User(b"ann".to_vec());
        for (scope, expected) in [
            (
                Scope::Global,
                "weir:1:{g:general_api}:general_api:global:fw:0:x:pricing:low",
            ),
            (Scope::User, "weir:1:{u:ann}:general_api:user:fw:0"),
            (Scope::Ip, "weir:1:{a:-}:general_api:ip:fw:0:x:pricing:low"),
        ] {
            let limit = variant(Some("pricing:low"), scope, Algorithm::FixedWindow, 0);
            assert_eq!(key(&limit, &subject, None), expected);
            let shadow = of(&limit, Counting::Shadow, &subject, None);
            assert_eq!(shadow, format!("{expected}:shadow").into_bytes());
        }
    }

    #[test]
    fn a_long_id_is_hashed() {
        let limit = limit(Scope::User, Algorithm::FixedWindow, 0);
        let long = key(&limit, &Subject::User(vec![b'x'; 10_000]), None);
        assert!(long.starts_with("weir:1:{U:") && long.len() < 120, "{long}");
    }

    #[test]
    fn a_probe_is_in_the_slot_of_what_failed_and_shares_no_key_with_a_limit() {
        let subject = Subject::User(b"ann".to_vec());
        for key in [
            of_status(&subject, Algorithm::FixedWindow),
            of(
                &limit(Scope::User, Algorithm::FixedWindow, 0),
                Counting::Shadow,
                &subject,
                None,
            ),
        ] {
            let probe = of_probe(&key);
            assert!(probe.ends_with(b":{u:ann}:probe") && probe.starts_with(b"weir"));
            assert_eq!(Slot::of(&probe), Slot::of(&key));
            assert_eq!(of_probe(&probe), probe);
        }
    }

    #[test]
    fn the_status_call_shares_no_key_with_a_rule() {
        let subject = Subject::User(b"ann".to_vec());
        assert_eq!(
            of_status(&subject, Algorithm::FixedWindow),
            b"weir:1:{u:ann}::user:fw:0"
        );
    }

    fn subjects() -> impl Strategy<Value = Subject> {
        // Short strings over the separators, so that collisions would be likely if there were any.
        let id = prop::collection::vec(prop::sample::select(b"a%2:{}uU-\xff".to_vec()), 1..5);
        prop_oneof![
            id.prop_map(Subject::User),
            prop::collection::vec(any::<u8>(), 125..132).prop_map(Subject::User),
            any::<[u8; 4]>().prop_map(|bytes| Subject::ApiKey(hex_digest(&bytes))),
            any::<[u8; 4]>().prop_map(|bytes| Subject::Address(Some(IpAddr::from(bytes)))),
        ]
    }

    proptest! {
        #[test]
        fn different_subjects_have_different_keys(all in prop::collection::vec(subjects(), 2..40)) {
            let limit = limit(Scope::User, Algorithm::FixedWindow, 0);
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
    }
}
