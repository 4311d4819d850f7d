//! Who is refused most, in bounded memory whatever the number of callers: the Space-Saving sketch of
//! Metwally, Agrawal and El Abbadi ("Efficient computation of frequent and top-k elements in data
//! streams", 2005). A newcomer takes the place of whoever was refused least and inherits that count,
//! as a possible error; so nobody is ever underestimated, and whoever has more than one part in
//! [`MOST`] of all refusals is on the list. Counts halve every few minutes, so that it tells of now.

use std::io::Write;
use std::rc::Rc;

use postcard_schema::Schema;
use postcard_schema::schema::NamedType;
use serde::{Deserialize, Serialize, Serializer};

use crate::codec::fnv;
use crate::decide::status;
use crate::request::subject::{self, Subject, hex_digest};
use crate::time::{Span, WallTime};

/// Callers that a worker keeps. One with more than a 64th of a worker's refusals is never missed; a
/// refused request pays for a glance at so many numbers.
pub const MOST: usize = 64;
/// Longer ids are kept as their hash.
const LONGEST_ID: usize = 128;
/// Counts are kept in parts of a refusal, so that halving loses nothing that matters.
const WHOLE: u64 = 1 << 20;
/// Whoever has less than this is forgotten: eight halvings after a single refusal.
const LEAST: u64 = WHOLE >> 8;
/// After a quarter of an hour a refusal counts for a thirty-second.
const HALVING: Span = Span::seconds(180);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Packed")]
pub struct HeavyHitters {
    /// By place: a hash of the name, which is what is searched. Nothing hangs on its strength, since
    /// names are compared besides.
    hashes: Vec<u64>,
    entries: Vec<Entry>,
    /// Nobody who is not on the list can have more.
    missed: u64,
    /// The span of [`HALVING`] that is counted in, from the Unix epoch; 0 before it is known.
    span: u64,
    /// Where names are written before it is known whether they are new.
    draft: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Name,
    count: u64,
    /// By how much the count may be too high.
    error: u64,
    /// What refused last.
    by: By,
}

/// What somebody is refused by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum By<T = Rc<str>> {
    /// A rule, by its name.
    Rule(T),
    /// A list, and the entry of it that they are on it by.
    List(T),
    /// That what they sent is not the operators' secret.
    Secret,
}

/// A subject in few bytes: its kind, and its id or the id's hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Schema)]
pub struct Name(Vec<u8>);

/// A sketch as workers leave it to each other.
#[derive(Debug, Serialize, Deserialize, Schema)]
struct Packed {
    span: u64,
    missed: u64,
    entries: Vec<PackedEntry>,
}

#[derive(Debug, Serialize, Deserialize, Schema)]
struct PackedEntry {
    name: Name,
    count: u64,
    error: u64,
    by: By<String>,
}

/// A caller that is refused much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeavyHitter {
    pub name: Name,
    /// Refusals of late, older ones counting less: no fewer than `at_least`, no more than `at_most`.
    pub at_least: u64,
    pub at_most: u64,
    pub by: By,
}

impl HeavyHitters {
    /// A request was refused.
    pub fn refused(&mut self, subject: &Subject, by: &By) {
        let mut name = std::mem::take(&mut self.draft);
        name.clear();
        write_name(&mut name, subject);
        self.add(&name, by);
        self.draft = name;
    }

    fn add(&mut self, name: &[u8], by: &By) {
        let hash = fnv::of(name);
        let same = |(entry, own): (&Entry, &u64)| *own == hash && entry.name.0 == name;
        let known = self.entries.iter().zip(&self.hashes).position(same);
        if let Some(entry) = known.and_then(|place| self.entries.get_mut(place)) {
            entry.count = entry.count.saturating_add(WHOLE);
            entry.by = by.clone();
            return;
        }
        if self.entries.len() >= MOST {
            self.drop_least();
        }
        self.hashes.push(hash);
        self.entries.push(Entry {
            name: Name(name.to_vec()),
            count: self.missed.saturating_add(WHOLE),
            error: self.missed,
            by: by.clone(),
        });
    }

    fn drop_least(&mut self) {
        let counts = self.entries.iter().map(|entry| entry.count).enumerate();
        if let Some((place, least)) = counts.min_by_key(|&(_, count)| count) {
            self.entries.swap_remove(place);
            self.hashes.swap_remove(place);
            self.missed = self.missed.max(least);
        }
    }

    /// Tells the time of day: what was counted in earlier spans counts half for each that has passed.
    pub fn age(&mut self, now: WallTime) {
        let span = now.0 / HALVING.as_micros();
        let passed = match self.span {
            // What was counted before the time was told is of now.
            0 => 0,
            before => span.saturating_sub(before),
        };
        self.span = span;
        // After so many nothing is left.
        for _ in 0..passed.min(64) {
            self.halve();
        }
    }

    /// Rounded against the caller, so that nobody is underestimated by it.
    fn halve(&mut self) {
        for entry in &mut self.entries {
            entry.count = entry.count.div_ceil(2);
            entry.error = entry.error.div_ceil(2);
        }
        let mut missed = self.missed / 2;
        let mut hashes = self.hashes.iter();
        let mut kept = Vec::with_capacity(self.hashes.len());
        self.entries.retain(|entry| {
            let hash = hashes.next().copied().unwrap_or_default();
            let keep = entry.count >= LEAST;
            if keep {
                kept.push(hash);
            } else {
                missed = missed.max(entry.count);
            }
            keep
        });
        self.hashes = kept;
        // Parts of a refusal that nobody can have made.
        self.missed = if self.entries.is_empty() { 0 } else { missed };
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds what another worker saw.
    pub fn merge(&mut self, other: &HeavyHitters) {
        let (own, others) = (self.bound(), other.bound());
        for entry in &mut self.entries {
            if !other.holds(&entry.name) {
                entry.count = entry.count.saturating_add(others);
                entry.error = entry.error.saturating_add(others);
            }
        }
        for entry in &other.entries {
            let known = self.entries.iter_mut().find(|own| own.name == entry.name);
            match known {
                Some(known) => {
                    known.count = known.count.saturating_add(entry.count);
                    known.error = known.error.saturating_add(entry.error);
                }
                None => {
                    self.hashes.push(fnv::of(&entry.name.0));
                    self.entries.push(Entry {
                        name: entry.name.clone(),
                        count: entry.count.saturating_add(own),
                        error: entry.error.saturating_add(own),
                        by: entry.by.clone(),
                    });
                }
            }
        }
        self.missed = own.saturating_add(others);
    }

    /// The most that somebody can have who is not on the list.
    fn bound(&self) -> u64 {
        self.missed
    }

    fn holds(&self, name: &Name) -> bool {
        self.entries.iter().any(|entry| entry.name == *name)
    }

    /// The most refused, most first.
    pub fn top(&self, most: usize) -> Vec<HeavyHitter> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|one, other| {
            let rank = |entry: &Entry| (entry.count.saturating_sub(entry.error), entry.count);
            rank(other)
                .cmp(&rank(one))
                .then_with(|| one.name.cmp(&other.name))
        });
        let heavy_hitter = |entry: &&Entry| HeavyHitter {
            name: entry.name.clone(),
            at_least: entry.count.saturating_sub(entry.error) / WHOLE,
            at_most: entry.count.div_ceil(WHOLE),
            by: entry.by.clone(),
        };
        entries.iter().take(most).map(heavy_hitter).collect()
    }

    /// For the other workers.
    fn packed(&self) -> Packed {
        let entries = self.entries.iter().map(|entry| PackedEntry {
            name: entry.name.clone(),
            count: entry.count,
            error: entry.error,
            by: entry.by.map(|text| text.to_string()),
        });
        Packed {
            span: self.span,
            missed: self.missed,
            entries: entries.collect(),
        }
    }
}

impl Serialize for HeavyHitters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.packed().serialize(serializer)
    }
}

impl Schema for HeavyHitters {
    const SCHEMA: &'static NamedType = Packed::SCHEMA;
}

impl From<Packed> for HeavyHitters {
    /// No more than a worker keeps, whoever packed it.
    fn from(packed: Packed) -> HeavyHitters {
        let entries = packed.entries.into_iter().take(MOST).map(|entry| Entry {
            name: entry.name,
            count: entry.count,
            error: entry.error,
            by: entry.by.map(|text| text.as_str().into()),
        });
        let entries: Vec<Entry> = entries.collect();
        HeavyHitters {
            hashes: entries.iter().map(|entry| fnv::of(&entry.name.0)).collect(),
            entries,
            missed: packed.missed,
            span: packed.span,
            draft: Vec::new(),
        }
    }
}

impl<T> By<T> {
    fn map<S>(&self, change: impl FnOnce(&T) -> S) -> By<S> {
        match self {
            By::Rule(name) => By::Rule(change(name)),
            By::List(entry) => By::List(change(entry)),
            By::Secret => By::Secret,
        }
    }
}

impl Name {
    pub fn of(subject: &Subject) -> Name {
        let mut name = Vec::new();
        write_name(&mut name, subject);
        Name(name)
    }

    /// What kind of subject it is.
    pub fn kind(&self) -> &'static str {
        match self.0.first() {
            Some(b'u' | b'U') => "user",
            Some(b'k') => "api_key",
            _ => "address",
        }
    }

    /// What the status call is to be asked, to tell of them; nothing where it could not: a long id is not
    /// known, nor what has no address.
    pub fn query(&self) -> Option<String> {
        let (kind, id) = self.0.split_first()?;
        let parameter = match kind {
            b'u' => status::USER_ID,
            b'k' => status::API_KEY,
            b'a' if !id.is_empty() => status::ADDRESS,
            _ => return None,
        };
        Some(format!("{parameter}={}", subject::escaped(id)))
    }

    /// As the status call shows ids. A long id is told by its hash.
    pub fn text(&self) -> String {
        let Some((kind, id)) = self.0.split_first() else {
            return String::new();
        };
        match kind {
            b'k' => subject::key_text(&String::from_utf8_lossy(id)),
            b'U' => format!("sha256:{}", String::from_utf8_lossy(id)),
            _ => subject::user_text(id),
        }
    }
}

fn write_name(out: &mut Vec<u8>, subject: &Subject) {
    match subject {
        Subject::User(id) if id.len() <= LONGEST_ID => {
            out.push(b'u');
            out.extend_from_slice(id);
        }
        Subject::User(id) => {
            out.push(b'U');
            out.extend_from_slice(hex_digest(id).as_bytes());
        }
        Subject::ApiKey(hash) => {
            out.push(b'k');
            out.extend_from_slice(hash.as_bytes());
        }
        Subject::Address(address) => {
            out.push(b'a');
            // Writing to a Vec cannot fail.
            let _ = address.map(|address| write!(out, "{address}"));
        }
    }
}

#[cfg(test)]
mod tests;
