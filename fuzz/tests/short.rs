//! A short run of every target, on any Rust: its corpus as it is, and then edited at random.
//! `WEIR_FUZZ_CASES` makes it longer.

use std::env;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use weir_fuzz::{TARGETS, Target};

/// All targets together stay below ten seconds without optimisation.
const CASES: u32 = 2_000;

macro_rules! short {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(weir_fuzz::target(stringify!($name)).unwrap());
        })*

        #[test]
        fn every_target_has_its_run() {
            let named = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), named);
        }
    };
}

short! { admission bridge front_door key path pattern policy published reply resp }

fn run(target: Target) {
    let seeds = seeds(target.name);
    for (name, seed) in &seeds {
        println!("{name}");
        (target.run)(seed);
    }
    let cases = env::var("WEIR_FUZZ_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let edited = (
        any::<Index>(),
        prop::collection::vec(edits(target.words, seeds.clone()), 0..12),
    );
    TestRunner::new(config)
        .run(&edited, |(seed, edits)| {
            let mut bytes = seed.get(&seeds).1.clone();
            for edit in &edits {
                edit.apply(&mut bytes);
            }
            // proptest shrinks the edits; the bytes are what goes into the corpus.
            println!("{}", bytes.escape_ascii());
            (target.run)(&bytes);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    // cargo runs tests in their package's folder.
    let folder = Path::new("corpus").join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(&path).unwrap())
        })
        .collect();
    assert!(!seeds.is_empty(), "{target} begins from nothing");
    seeds.sort();
    seeds
}

/// A change of a seed; a place beyond its end is its end.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    /// What follows this place in one input follows that place in another.
    Graft(Index, Vec<u8>, Index),
}

fn edits(
    words: &'static [&'static str],
    seeds: Vec<(String, Vec<u8>)>,
) -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let bytes = prop::collection::vec(any::<u8>(), 1..4);
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let other = prop::sample::select(seeds).prop_map(|(_, seed)| seed);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (at(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), word).prop_map(|(at, word)| Edit::Insert(at, word)),
        (at(), 1..20usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (at(), 1..40usize).prop_map(|(at, count)| Edit::Repeat(at, count)),
        (at(), other, at()).prop_map(|(at, other, from)| Edit::Graft(at, other, from)),
    ]
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match self {
            Edit::Replace(at, byte) => {
                let at = place(at, bytes);
                if let Some(replaced) = bytes.get_mut(at) {
                    *replaced = *byte;
                }
            }
            Edit::Insert(at, inserted) => {
                let at = place(at, bytes);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Edit::Remove(at, count) => {
                let at = place(at, bytes);
                bytes.drain(at..bytes.len().min(at + count));
            }
            Edit::Repeat(at, count) => {
                let at = place(at, bytes);
                let repeated = bytes[at..bytes.len().min(at + count)].to_vec();
                bytes.splice(at..at, repeated);
            }
            Edit::Graft(at, other, from) => {
                let at = place(at, bytes);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
    }
}
