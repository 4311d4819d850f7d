//! Keys: two counters have one key exactly if they are one counter, and a key has one hash tag.

use std::net::IpAddr;

use weir_core::approach::Approach;
use weir_core::identity::{Subject, hex_digest};
use weir_core::key;
use weir_core::limit::{Algorithm, Quota};
use weir_core::policy::{Limit, OnStoreFailure, Scope};
use weir_core::question::Terms;
use weir_core::rollout::Counting;
use weir_core::units::Cost;

use crate::Target;
use crate::input::Input;

pub const TARGET: Target = Target {
    name: "key",
    run,
    words: &[
        "}:",
        "{",
        "%",
        "%25",
        "u:",
        "a:",
        ":user:fw:0",
        ":shadow",
        "\0",
        "\u{1}",
    ],
};

/// Rules whose names are each other's beginnings and ends.
const RULES: [&str; 4] = ["a", "a.b", "b", "a.b-c_user"];

/// What is counted, as the caller sees it.
#[derive(Debug, PartialEq)]
enum Counter {
    Global(Rest),
    User(Subject, Rest),
    Ip(Option<IpAddr>, Rest),
    Status(Subject),
}

#[derive(Debug, PartialEq)]
struct Rest {
    rule: &'static str,
    algorithm: Algorithm,
    place: usize,
    counting: Counting,
}

fn run(data: &[u8]) {
    let mut input = Input(data);
    let (one, one_key) = counter(&mut input);
    let (other, other_key) = counter(&mut input);
    assert_eq!(one_key == other_key, one == other, "{one:?} {other:?}");
    for key in [one_key, other_key] {
        assert!(key.starts_with(b"weir:1:{"));
        assert!(key.len() < 600, "{}", key.len());
        for brace in b"{}" {
            assert_eq!(key.iter().filter(|byte| *byte == brace).count(), 1);
        }
    }
}

fn counter(input: &mut Input<'_>) -> (Counter, Vec<u8>) {
    let scope = [Scope::Global, Scope::User, Scope::Ip][input.below(3)];
    let algorithm = Algorithm::ALL[input.below(4)];
    let place = input.below(12);
    let rule = RULES[input.below(4)];
    let client = address(input);
    let subject = subject(input);
    let counting = [Counting::Enforced, Counting::Shadow][input.below(2)];
    let rest = Rest {
        rule,
        algorithm,
        place,
        counting,
    };
    if input.below(8) == 7 {
        let key = key::of_status(&subject, Algorithm::FixedWindow);
        return (Counter::Status(subject), key);
    }
    let limit = Limit {
        rule: rule.to_string(),
        whom: String::new(),
        scope,
        place,
        variant: None,
        key_end: key::end(rule, scope, algorithm, place, None),
        terms: Terms::new(Quota::try_new(algorithm, 1, 1, None).expect("a quota")),
        cost: Cost::ONE,
        approach: Approach::default(),
        lease: None,
        on_store_failure: OnStoreFailure::Allow,
    };
    let key = key::of(&limit, counting, &subject, client);
    let counter = match scope {
        Scope::Global => Counter::Global(rest),
        Scope::User => Counter::User(subject, rest),
        Scope::Ip => Counter::Ip(client, rest),
    };
    (counter, key)
}

fn subject(input: &mut Input<'_>) -> Subject {
    match input.below(3) {
        0 => Subject::User(input.piece().to_vec()),
        1 => Subject::ApiKey(hex_digest(input.piece())),
        _ => Subject::Address(address(input)),
    }
}

fn address(input: &mut Input<'_>) -> Option<IpAddr> {
    match input.below(3) {
        0 => Some(IpAddr::from(<[u8; 4]>::try_from(input.bytes(4)).ok()?)),
        1 => Some(IpAddr::from(<[u8; 16]>::try_from(input.bytes(16)).ok()?)),
        _ => None,
    }
}
