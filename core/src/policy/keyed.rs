//! A limit that counts by its `key`: what becomes of a request that lacks a part of it, and for whom there
//! is another number. The values of a request come from [`crate::decide`]; here is what they mean.

use std::collections::HashMap;

use super::ids::LimitId;
use super::key_part::Part;
use crate::quota::limit::{Algorithm, Quota};

/// What a keyed limit is besides its numbers.
#[derive(Debug)]
pub struct Keyed {
    pub parts: Vec<Part>,
    pub missing: Missing,
    pub unbelieved: Unbelieved,
    /// By the first values of a key, joined as [`joined`] has them.
    overrides: HashMap<Vec<u8>, Override>,
    /// The numbers of values that overrides name, the most first.
    lengths: Vec<usize>,
}

/// What becomes of a request that lacks a part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The limit is not for it.
    Skip,
    /// All such requests share a count.
    Share,
    /// It is answered with 400.
    Refuse,
}

/// What becomes of a request whose peer is not believed, where the key has something that only a believed
/// peer may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbelieved {
    /// It counts in the same limit under its address.
    Address,
    Skip,
}

/// What holds for some values instead of the limit's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// These numbers, in the same counter.
    Limit(LimitId),
    Unlimited,
    /// None of these requests passes.
    Deny,
}

impl Keyed {
    pub fn new(parts: Vec<Part>, missing: Missing, unbelieved: Unbelieved) -> Keyed {
        Keyed {
            parts,
            missing,
            unbelieved,
            overrides: HashMap::new(),
            lengths: Vec::new(),
        }
    }

    /// Whether these values had an override already.
    pub fn add(&mut self, values: &[&[u8]], instead: Override) -> bool {
        self.note_length(values.len());
        let values = joined(values.iter().copied());
        self.overrides.insert(values, instead).is_some()
    }

    /// Adds it for these values too, unless they have an override.
    pub fn add_too(&mut self, values: &[&[u8]], instead: Override) {
        self.note_length(values.len());
        let values = joined(values.iter().copied());
        self.overrides.entry(values).or_insert(instead);
    }

    fn note_length(&mut self, length: usize) {
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
            self.lengths
                .sort_unstable_by_key(|length| std::cmp::Reverse(*length));
        }
    }

    /// The override that says most of these values.
    pub fn instead(&self, values: &[Option<&[u8]>]) -> Option<Override> {
        let mut lengths = self.lengths.iter();
        lengths.find_map(|length| {
            let values: Option<Vec<&[u8]>> = values.get(..*length)?.iter().copied().collect();
            self.overrides.get(&joined(values?.into_iter())).copied()
        })
    }

    pub fn has_overrides(&self) -> bool {
        !self.overrides.is_empty()
    }

    /// Whether it does not hold for some values.
    pub fn lets_anybody_through(&self) -> bool {
        self.overrides
            .values()
            .any(|instead| *instead == Override::Unlimited)
    }

    /// The limits that stand in the place of the keyed one.
    pub fn instead_limits(&self) -> impl Iterator<Item = LimitId> {
        self.overrides.values().filter_map(|instead| match instead {
            Override::Limit(id) => Some(*id),
            Override::Unlimited | Override::Deny => None,
        })
    }
}

/// Values as bytes that no other values have.
fn joined<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for value in values {
        joined.extend((value.len() as u64).to_le_bytes());
        joined.extend_from_slice(value);
    }
    joined
}

/// A caller who chooses a part of a key makes no more counters than another limit lets them pass while one
/// of these counters lives. More than so many would be a load on Redis.
pub const MOST_COUNTERS: u64 = 10_000;

/// How many permits pass at most while a counter of `of` lives: its window, and a quarter. What is given
/// back at the end of a stream bounds nothing.
pub fn passes(quota: &Quota, of: &Quota) -> Option<u64> {
    let life = u128::from(of.window_seconds()) * 5 / 4;
    let window = u128::from(quota.window_seconds().max(1));
    let limit = u128::from(quota.limit());
    let passes = match quota.algorithm() {
        Algorithm::Concurrency => return None,
        // Windows that it touches.
        Algorithm::FixedWindow | Algorithm::SlidingWindow => limit * (life.div_ceil(window) + 1),
        Algorithm::TokenBucket | Algorithm::LeakyBucket => {
            u128::from(quota.capacity()) + (limit * life).div_ceil(window)
        }
    };
    Some(u64::try_from(passes).unwrap_or(u64::MAX))
}
