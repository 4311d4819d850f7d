//! Who is in which tier by the operator's word, whatever identity tells: the policy's `tiers`. Callers are
//! looked up, so that a long list costs a request no more than a short one. It knows no clock.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::Hash;

use super::document::{self, Items, Place};
use super::lists::MOST_ENTRIES;
use crate::codec::json::{Mistakes, Path};
use crate::request::address::Cidr;
use crate::request::identity::Caller;
use crate::request::subject::{Subject, hex_digest};
use crate::time::{WallTime, rfc3339};

#[derive(Debug, Default)]
pub struct AssignedTiers {
    entries: Vec<Entry>,
    users: HashMap<Vec<u8>, Places>,
    api_keys: HashMap<String, Places>,
    networks: HashMap<Cidr, Places>,
    /// Those that networks have, of either family.
    prefixes: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    tier: String,
    until: Option<Until>,
}

/// The entries that name a caller by one credential, ascending.
type Places = Vec<usize>;

/// When an entry ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    at: WallTime,
    written: String,
}

impl Until {
    pub(super) fn read(text: &str) -> Result<Until, String> {
        match rfc3339::read(text) {
            Some(at) => Ok(Until {
                at,
                written: text.to_string(),
            }),
            None => Err(format!(
                "{text:?} is no time; write date, time and offset, such as \"2026-12-24T00:00:00Z\""
            )),
        }
    }
}

impl AssignedTiers {
    pub(super) fn compile(
        written: Items<document::Assignment>,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> AssignedTiers {
        let mut tiers = AssignedTiers::default();
        let mut count = 0;
        for (place, assignment) in written {
            let at = place.of(at);
            let own = tiers.add(assignment);
            if own == 0 && !mistakes.touch(&at) {
                mistakes.add(at.error("names nobody; add \"users\", \"api_keys\" or \"networks\""));
            }
            count += own;
        }
        if count > MOST_ENTRIES {
            mistakes.add(at.error(format!(
                "name {count} callers, and every worker holds them all; keep it to {MOST_ENTRIES}, or let \
                 identity tell the tier"
            )));
        }
        tiers.prefixes = tiers.networks.keys().map(Cidr::prefix).collect();
        tiers.prefixes.sort_unstable();
        tiers.prefixes.dedup();
        tiers
    }

    /// Whom it names, counted.
    fn add(&mut self, written: document::Assignment) -> usize {
        let document::Assignment {
            tier,
            users,
            api_keys,
            networks,
            until,
        } = written;
        let count = users.len() + api_keys.len() + networks.len();
        let entry = self.entries.len();
        self.entries.push(Entry { tier, until });
        let users = users.into_iter().map(|(at, id)| (at, id.into_bytes()));
        note(&mut self.users, entry, users);
        note(&mut self.api_keys, entry, api_keys.into_iter());
        note(&mut self.networks, entry, networks.into_iter());
        count
    }

    /// The tier of the first entry in force that names a caller: by user, by the API key that they sent,
    /// or by address. What time it is is asked where an entry ends.
    pub fn tier(
        &self,
        caller: &Caller,
        api_key: Option<&[u8]>,
        now: impl Fn() -> WallTime,
    ) -> Option<&str> {
        // As in most policies.
        if self.entries.is_empty() {
            return None;
        }
        let time = OnceCell::new();
        let is_in_force = |place: &usize| {
            let until = self.entries.get(*place).map(|entry| &entry.until);
            let is_over = |until: &Until| *time.get_or_init(&now) >= until.at;
            until.is_some_and(|until| !until.as_ref().is_some_and(is_over))
        };
        let first = |places: Option<&Places>| places?.iter().copied().find(is_in_force);
        let user = match &caller.subject {
            Subject::User(id) => first(self.users.get(id)),
            Subject::ApiKey(_) | Subject::Address(_) => None,
        };
        let key = match (&caller.subject, api_key) {
            _ if self.api_keys.is_empty() => None,
            (Subject::ApiKey(digest), _) => first(self.api_keys.get(digest)),
            (_, Some(key)) if !key.is_empty() => first(self.api_keys.get(&hex_digest(key))),
            _ => None,
        };
        let networks = self.prefixes.iter().filter_map(|prefix| {
            let network = Cidr::around(caller.address?, *prefix)?;
            first(self.networks.get(&network))
        });
        let place = user.into_iter().chain(key).chain(networks).min()?;
        self.entries.get(place).map(|entry| entry.tier.as_str())
    }

    pub fn tiers(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.tier.as_str())
    }

    /// Callers whom an earlier entry that never ends names too, once for each later entry.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = self.named_twice(&self.users, |id| {
            format!("user {:?}", String::from_utf8_lossy(id))
        });
        doubts.extend(self.named_twice(&self.api_keys, |digest| {
            format!("API key {:?}", digest.get(..12).unwrap_or(digest))
        }));
        doubts.extend(self.named_twice(&self.networks, |network| format!("network {network}")));
        doubts.sort_unstable();
        doubts.dedup_by_key(|(later, _)| *later);
        doubts.into_iter().map(|(_, words)| words).collect()
    }

    fn named_twice<K>(
        &self,
        named: &HashMap<K, Places>,
        name: impl Fn(&K) -> String,
    ) -> Vec<(usize, String)> {
        let twice = named.iter().filter_map(|(caller, places)| {
            let for_ever = |place: &&usize| {
                let entry = self.entries.get(**place);
                entry.is_some_and(|entry| entry.until.is_none())
            };
            let winner = *places.iter().find(for_ever)?;
            let later = *places.iter().find(|place| **place > winner)?;
            let words = format!(
                "tiers[{later}]: {} is in tiers[{winner}] too, which comes first and never ends; take it out of \
                 one of them",
                name(caller)
            );
            Some((later, words))
        });
        twice.collect()
    }

    /// The entries that have ended, in a sentence each, for whoever has a clock.
    pub fn ended(&self, now: WallTime) -> impl Iterator<Item = String> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(move |(place, entry)| {
            let until = entry.until.as_ref().filter(|until| now >= until.at)?;
            Some(format!(
                "tiers[{place}]: it ended at {}, and nobody is in tier {:?} by it any more; take it out",
                until.written, entry.tier
            ))
        })
    }
}

fn note<K: Hash + Eq>(
    named: &mut HashMap<K, Places>,
    entry: usize,
    callers: impl Iterator<Item = (Place, K)>,
) {
    for (_, caller) in callers {
        let places = named.entry(caller).or_default();
        if places.last() != Some(&entry) {
            places.push(entry);
        }
    }
}

#[cfg(test)]
mod tests;
