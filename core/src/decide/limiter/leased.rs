//! A request's dealings with its worker's leases: what it spends of them, which it makes the worker ask
//! for, and what becomes of its permits if another limit refuses it.

use super::{Memory, Passage, Pending, Wants};
use crate::local::lease::{Bid, Spent};
use crate::policy::ids::LimitId;
use crate::policy::lease_terms::LeaseTerms;
use crate::quota::operation::Reading;
use crate::store::check::{Check, ShardRequest};
use crate::store::fan_in::CheckReply;
use crate::time::WorkerInstant;

impl Passage {
    pub(super) fn has_spent(&self, place: usize) -> bool {
        self.spent.iter().any(|(spent, _)| *spent == place)
    }

    /// What need not be asked.
    pub(super) fn known(&self) -> impl Iterator<Item = (usize, Reading)> {
        let spent = self.spent.iter();
        spent.map(|(place, spent)| (*place, spent.reading))
    }

    /// Whether leases covered all of its limits.
    pub(super) fn is_covered(&self) -> bool {
        !self.limits.is_empty() && self.spent.len() == self.limits.len()
    }
}

impl Pending {
    /// Whether its policy has workers take permits in advance.
    pub fn is_leased(&self) -> bool {
        self.snapshot.policy.is_leased()
    }

    /// Whether leases are for this request: those of a policy that is no longer in force are gone.
    pub(super) fn may_lease(&self, memory: &Memory) -> bool {
        self.is_leased() && memory.generation == self.snapshot.generation
    }

    /// The leases to ask for along with this request: for the next ones like it.
    pub fn bids(&self, memory: &mut Memory, now: WorkerInstant) -> Vec<Bid> {
        if !self.may_lease(memory) {
            return Vec::new();
        }
        let asked = self.leased_and_asked();
        let bid = |(_, check, terms)| memory.leases.bid(check, terms, now);
        asked.filter_map(bid).collect()
    }

    /// What the store said is left of the limits that are leased.
    pub(super) fn note_left(&self, replies: &[CheckReply], memory: &mut Memory) {
        for (place, check, terms) in self.leased_and_asked() {
            if let Some(CheckReply::Read(reading)) = replies.get(place) {
                memory.leases.note_left(check, terms, reading.remaining);
            }
        }
    }

    /// A request that does not pass consumes nothing: what goes back of what it spent.
    pub(super) fn restore(&self, memory: &mut Memory) -> Vec<ShardRequest> {
        let spent = self.spent();
        let back = spent.filter_map(|(check, spent)| memory.leases.restore(check, spent));
        back.collect()
    }

    /// What came out of leases.
    pub(super) fn spent(&self) -> impl Iterator<Item = (&Check, Spent)> {
        let checks = self.fan_in.check_request().checks();
        let spent = match &self.wants {
            Wants::Passage(passage) => passage.spent.as_slice(),
            Wants::Status(_) => &[],
        };
        let check = |(place, spent): &(usize, Spent)| Some((checks.get(*place)?, *spent));
        spent.iter().filter_map(check)
    }

    /// The limits that could have been covered, and were not, with their places.
    fn leased_and_asked(&self) -> impl Iterator<Item = (usize, &Check, LeaseTerms)> {
        let passage = match &self.wants {
            Wants::Passage(passage) => Some(passage),
            Wants::Status(_) => None,
        };
        let checks = self.fan_in.check_request().checks();
        passage.into_iter().flat_map(move |passage| {
            let limits = passage.limits.iter().zip(checks).enumerate();
            let asked = limits.filter(|(place, _)| !passage.has_spent(*place));
            let leased = |(place, (limit, check)): (usize, (&LimitId, _))| {
                Some((place, check, self.snapshot.policy.limit(*limit)?.lease?))
            };
            asked.filter_map(leased)
        })
    }
}

#[cfg(test)]
mod tests;
