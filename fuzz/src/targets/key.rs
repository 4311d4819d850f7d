//! Keys: two counters have one key exactly if they are one counter, and a key has one hash tag.

use std::net::IpAddr;

use weir_core::codec::namespace::Namespace;
use weir_core::policy::ids::Scope;
use weir_core::policy::rollout::Counting;
use weir_core::policy::soft_limit::SoftLimit;
use weir_core::policy::{Limit, OnStoreFailure, key};
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::packed::Terms;
use weir_core::request::subject::{Subject, hex_digest};

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
        ":user:fw60s",
        "60s",
        "fw60s",
        "2",
        ":x:",
        ":shadow",
        "\0",
        "\u{1}",
    ],
};

/// Rules whose names are each other's beginnings and ends.
const RULES: [&str; 4] = ["a", "a.b", "b", "a.b-c_user"];

/// One that is another's beginning, and none.
const NAMESPACES: [&str; 3] = ["", "a", "a-b"];

/// What is counted, as the caller sees it.
#[derive(Debug, PartialEq)]
enum Counter {
    Global(Rest),
    User(Subject, Rest),
    Ip(Option<IpAddr>, Rest),
    Status(Subject),
}

/// A counter of some environment.
type Counted = (&'static str, Counter);

#[derive(Debug, PartialEq)]
struct Rest {
    rule: &'static str,
    algorithm: Algorithm,
    called: Called,
    counting: Counting,
}

/// What tells a limit from those with the same algorithm.
#[derive(Debug, PartialEq)]
enum Called {
    Name(String),
    Window { seconds: u64, nth: usize },
}

fn run(data: &[u8]) {
    let mut input = Input(data);
    let (one, one_key) = counter(&mut input);
    let (other, other_key) = counter(&mut input);
    assert_eq!(one_key == other_key, one == other, "{one:?} {other:?}");
    for ((namespace, _), key) in [(one, one_key), (other, other_key)] {
        let namespace: Namespace = namespace.parse().expect("a namespace");
        assert!(key.starts_with(namespace.counters().as_bytes()));
        for other in NAMESPACES {
            let other: Namespace = other.parse().expect("a namespace");
            assert_eq!(other.holds(&key), other == namespace);
        }
        assert!(key.len() < 600, "{}", key.len());
        for brace in b"{}" {
            assert_eq!(key.iter().filter(|byte| *byte == brace).count(), 1);
        }
    }
}

fn counter(input: &mut Input<'_>) -> (Counted, Vec<u8>) {
    let scope = [Scope::Global, Scope::User, Scope::Ip][input.below(3)];
    let algorithm = Algorithm::ALL[input.below(4)];
    let called = called(input);
    let rule = RULES[input.below(4)];
    let client = address(input);
    let subject = subject(input);
    let counting = [Counting::Enforced, Counting::Shadow][input.below(2)];
    let is_status = input.below(8) == 7;
    let name = NAMESPACES[input.below(3)];
    let namespace: Namespace = name.parse().expect("a namespace");
    let (window, nth) = match called {
        Called::Name(_) => (60, 1),
        Called::Window { seconds, nth } => (seconds, nth),
    };
    let quota = |algorithm, window| Quota::try_new(algorithm, 1, window, None).expect("a quota");
    if is_status {
        let own = quota(Algorithm::FixedWindow, 60);
        let key = key::of_status(&namespace, &subject, &own);
        return ((name, Counter::Status(subject)), key);
    }
    let quota = quota(algorithm, window);
    let counter = match &called {
        Called::Name(name) => key::counter(&quota, Some(name), nth),
        Called::Window { .. } => key::counter(&quota, None, nth),
    };
    let limit = Limit {
        rule: rule.to_string(),
        label: String::new(),
        scope,
        name: None,
        variant: None,
        key_end: key::end(rule, scope, &counter, None),
        counter,
        terms: Terms::new(quota),
        cost: Cost::ONE,
        soft_limit: SoftLimit::default(),
        lease: None,
        on_store_failure: OnStoreFailure::Allow,
        keyed: None,
    };
    let rest = Rest {
        rule,
        algorithm,
        called,
        counting,
    };
    let key = key::of(&namespace, &limit, counting, &subject, client);
    let counter = match scope {
        Scope::Global => Counter::Global(rest),
        Scope::User => Counter::User(subject, rest),
        Scope::Ip => Counter::Ip(client, rest),
        Scope::Key => unreachable!("it has a key of its own"),
    };
    ((name, counter), key)
}

/// A name of what names may hold, or a window.
fn called(input: &mut Input<'_>) -> Called {
    if input.below(2) == 0 {
        return Called::Window {
            seconds: 1 + input.below(4) as u64,
            nth: 1 + input.below(4),
        };
    }
    let allowed = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let name: String = input
        .piece()
        .iter()
        .filter(allowed)
        .take(64)
        .map(|byte| char::from(*byte))
        .collect();
    match name.is_empty() {
        true => Called::Name("60s".to_string()),
        false => Called::Name(name),
    }
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
