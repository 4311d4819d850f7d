use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn rule(name: &str) -> By {
    By::Rule(name.into())
}

fn user(number: u32) -> Name {
    Name::of(&Subject::User(format!("user{number}").into_bytes()))
}

/// What a list of everybody would say.
#[derive(Default)]
struct Everybody {
    counts: HashMap<Name, f64>,
    all: f64,
}

impl Everybody {
    fn add(&mut self, name: Name) {
        *self.counts.entry(name).or_default() += 1.0;
        self.all += 1.0;
    }

    fn halve(&mut self) {
        self.counts.values_mut().for_each(|count| *count /= 2.0);
        self.all /= 2.0;
    }
}

/// Nobody is underestimated, nobody's error exceeds what is said, and whoever has more than a
/// part in MOST (for each sketch) is there.
fn holds(sketch: &HeavyHitters, everybody: &Everybody, sketches: f64) {
    let whole = WHOLE as f64;
    // What halving rounds.
    let grain = 0.02 * sketches;
    for entry in &sketch.entries {
        let true_count = everybody.counts.get(&entry.name).copied().unwrap_or(0.0);
        let (count, error) = (entry.count as f64 / whole, entry.error as f64 / whole);
        assert!(count + grain >= true_count, "{entry:?}: {true_count}");
        assert!(
            count - error <= true_count + grain,
            "{entry:?}: {true_count}"
        );
    }
    let missed = sketch.missed as f64 / whole;
    assert!(missed <= everybody.all / MOST as f64 + grain, "{missed}");
    for (name, &true_count) in &everybody.counts {
        if !sketch.holds(name) {
            assert!(true_count <= missed + grain, "{name:?} has {true_count}");
        }
    }
}

/// Who is refused: a few often, many seldom; 0 stands for time that passes.
fn refusals() -> impl Strategy<Value = Vec<u32>> {
    let who = prop_oneof![
        1 => Just(0u32),
        40 => 1..6u32,
        60 => 6..300u32,
    ];
    prop::collection::vec(who, 0..900)
}

fn run(refusals: &[u32]) -> (HeavyHitters, Everybody) {
    let (mut sketch, mut everybody) = (HeavyHitters::default(), Everybody::default());
    let rule = rule("api");
    for &who in refusals {
        if who == 0 {
            sketch.halve();
            everybody.halve();
        } else {
            sketch.add(&user(who).0, &rule);
            everybody.add(user(who));
        }
    }
    (sketch, everybody)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_errs_by_no_more_than_it_says(refusals in refusals()) {
        let (sketch, everybody) = run(&refusals);
        prop_assert!(sketch.entries.len() <= MOST);
        prop_assert_eq!(sketch.entries.len(), sketch.hashes.len());
        holds(&sketch, &everybody, 1.0);
    }

    #[test]
    fn workers_together_err_by_no_more_than_they_say(
        one in refusals(), other in refusals()
    ) {
        let (mut sketch, mut everybody) = run(&one);
        let (others, of_others) = run(&other);
        sketch.merge(&others);
        for (name, count) in of_others.counts {
            *everybody.counts.entry(name).or_default() += count;
        }
        everybody.all += of_others.all;
        holds(&sketch, &everybody, 2.0);
    }

    #[test]
    fn what_is_packed_comes_out_again(refusals in refusals()) {
        let (sketch, _) = run(&refusals);
        prop_assert_eq!(HeavyHitters::from(sketch.packed()), sketch);
    }
}

#[test]
fn the_worst_comes_first_and_in_the_end_all_is_forgotten() {
    let mut sketch = HeavyHitters::default();
    let (api, other) = (rule("api"), rule("other"));
    for _ in 0..100 {
        sketch.refused(&Subject::User(b"bob".to_vec()), &api);
    }
    for number in 0..1000 {
        sketch.add(&user(number).0, &other);
    }
    let worst = sketch.top(3).remove(0);
    assert_eq!(
        (worst.name.text(), worst.name.kind()),
        ("bob".to_string(), "user")
    );
    assert_eq!((worst.at_least, worst.at_most, &worst.by), (100, 100, &api));
    for (span, at_most) in [(1000, 100), (1000, 100), (1002, 25)] {
        sketch.age(WallTime(span * HALVING.as_micros()));
        assert_eq!(sketch.top(1).remove(0).at_most, at_most);
    }
    sketch.age(WallTime(1020 * HALVING.as_micros()));
    assert_eq!((sketch.is_empty(), sketch.missed), (true, 0));
}

#[test]
fn subjects_are_shown_as_the_status_call_shows_them() {
    let key = format!("api_key_sha256={}", hex_digest(b"secret"));
    for (subject, kind, text, query) in [
        (
            Subject::User("é \"b\"".into()),
            "user",
            "é \"b\"",
            "user_id=%C3%A9%20%22b%22",
        ),
        (
            Subject::User(b"a\xff".to_vec()),
            "user",
            "a%FF",
            "user_id=a%FF",
        ),
        (
            Subject::User(b"a%FF".to_vec()),
            "user",
            "a%FF",
            "user_id=a%25FF",
        ),
        (
            Subject::ApiKey(hex_digest(b"secret")),
            "api_key",
            "api-key:2bb80d537b1d",
            key.as_str(),
        ),
        (
            Subject::Address("192.0.2.7".parse().ok()),
            "address",
            "192.0.2.7",
            "address=192.0.2.7",
        ),
        (Subject::Address(None), "address", "", ""),
    ] {
        let name = Name::of(&subject);
        assert_eq!((name.kind(), name.text().as_str()), (kind, text));
        assert_eq!(name.query().unwrap_or_default(), query);
    }
    let long = Name::of(&Subject::User(vec![b'x'; 10_000]));
    assert!(long.text().starts_with("sha256:") && long.0.len() < 80);
    assert_eq!(long.query(), None);
}
