//! Permits that a worker took in advance: it spends them from memory, without a round trip, and gives
//! back what it did not use. A state machine over events (a request wants permits, the store granted
//! some, time passes) that says what to ask the store; it asks nothing and reads no clock.
//!
//! What is leased is counted by the store already, as if it were used at the lease's last moment. So
//! windows are never exceeded as long as no permit is spent after that moment, by the store's clock;
//! the worker's own clock runs from before the store was asked, less an allowance for how much faster
//! the store's may run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use crate::local::two_generations::Generations;
use crate::policy::lease_terms::{LeaseTerms, Size};
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Share};
use crate::quota::operation::{Kind, Reading, Retry};
use crate::store::check::{Check, CheckRequest, ShardRequest};
use crate::store::config::StoreConfig;
use crate::store::fan_in::Outcome;
use crate::store::slot::Topology;
use crate::time::{Span, StoreInstant, WorkerInstant};

/// Callers who hold a lease at the same time. With keys of about 80 bytes they stay below 4 MB; who
/// comes when it is full is counted without a lease.
const MOST_HELD: usize = 10_000;
/// Callers whose pace is remembered, in each of two generations.
const MOST_PACES: usize = 10_000;
/// The first lease of a caller whose rate is not known, in requests.
const FIRST: u64 = 4;
/// How much larger than the last a lease may be: a burst must not take the rest of a limit.
const GROWTH: u64 = 4;
/// Of what is left of a limit, all workers together keep three quarters out of their leases.
const AUTO_PARTS: f64 = 4.0;
/// A lease of one permit saves nothing over asking.
const LEAST: u64 = 2;
/// A window's end is told in whole ms, and a clock that is disciplined by NTP may be stepped a little.
const STEP_ALLOWANCE: Span = Span::millis(5);
/// NTP makes a clock run faster by at most 500 in a million, and there are two.
const RATE_ALLOWANCE: u64 = 1_000;
/// As many as share a call, so often that Redis and the requests that wait hardly notice: ten thousand
/// at once would go out one call after another, and most would time out before their turn, as would
/// the requests behind them.
const MOST_RETURNS: usize = 64;
const BETWEEN_RETURNS: Span = Span::millis(10);
/// So many ends of leases that are gone are not worth clearing away.
const SPARE_ENDS: usize = 64;

/// All that one worker holds.
#[derive(Debug)]
pub struct Leases {
    topology: Topology,
    /// What this worker may lease of what is left of a limit, where it chooses the size itself.
    share: Share,
    held: HashMap<Vec<u8>, Held>,
    /// When leases end, and whose they are. A lease that is gone by then leaves its entry here.
    ends: BinaryHeap<Reverse<(WorkerInstant, Vec<u8>)>>,
    /// Before that nothing goes back of leases that have ended: so much went just now.
    next_return: WorkerInstant,
    paces: Generations<Pace>,
    /// How often all was refunded.
    revocations: u64,
}

#[derive(Debug)]
enum Held {
    /// The store is being asked.
    Asked,
    Lease(Lease),
}

#[derive(Clone, Debug)]
struct Lease {
    /// The limit; its cost is what was granted.
    check: Check,
    terms: LeaseTerms,
    receipt: Receipt,
    left: u64,
    /// What the store had left when it had granted this.
    remaining: i64,
    reset_at: WorkerInstant,
    /// When it was asked for, and from when on nothing is spent any more.
    since: WorkerInstant,
    until: WorkerInstant,
    ending: Ending,
}

/// What names a lease: the store's time of the call that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Receipt(StoreInstant);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Unused permits go back.
    Returns,
    /// The window ends too, and what was used in it with it.
    Lapses,
    /// Another policy is in force; the permits go back, and what they tell of the caller is forgotten.
    Revoked,
}

/// How fast a caller lately used what a limit grants.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// What the next lease should hold; nothing yet for a caller who was seen once.
    size: u64,
    seen: WorkerInstant,
    /// What the store last said is left.
    remaining: u64,
}

/// A lease that is being asked for.
#[derive(Clone, Debug)]
pub struct Bid {
    /// The limit; its cost is what is asked for.
    check: Check,
    terms: LeaseTerms,
    part: ShardRequest,
    revocations: u64,
}

/// What a request spent of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    receipt: Receipt,
    /// Where the caller stands now.
    pub reading: Reading,
}

impl Leases {
    pub fn new(config: &StoreConfig) -> Leases {
        Leases {
            topology: config.topology,
            share: config.local_share.divided(AUTO_PARTS),
            held: HashMap::new(),
            ends: BinaryHeap::new(),
            next_return: WorkerInstant(0),
            paces: Generations::new(MOST_PACES),
            revocations: 0,
        }
    }

    /// Whether a lease covers this check.
    pub fn covers(&self, check: &Check, now: WorkerInstant) -> bool {
        match self.held.get(&check.key) {
            Some(Held::Lease(lease)) => lease.covers(check, now),
            Some(Held::Asked) | None => false,
        }
    }

    /// Spends what [`Leases::covers`] said is there.
    pub fn spend(&mut self, check: &Check, now: WorkerInstant) -> Option<Spent> {
        let Some(Held::Lease(lease)) = self.held.get_mut(&check.key) else {
            return None;
        };
        if !lease.covers(check, now) {
            return None;
        }
        lease.left -= check.cost.get();
        let spent = Spent {
            receipt: lease.receipt,
            reading: lease.reading(now),
        };
        if lease.left == 0 {
            let pace = lease.used_up(now);
            self.paces.insert(&check.key, pace);
            self.held.remove(&check.key);
        }
        Some(spent)
    }

    /// A request was refused elsewhere: its permits are in the lease again. Where that has gone
    /// meanwhile they go back to the store.
    pub fn restore(&mut self, check: &Check, spent: Spent) -> Option<ShardRequest> {
        let Spent { receipt, .. } = spent;
        match self.held.get_mut(&check.key) {
            Some(Held::Lease(lease)) if lease.receipt == receipt => {
                lease.left += check.cost.get();
                None
            }
            _ => self.refund(check.clone(), receipt),
        }
    }

    /// A request asks the store about this check because no lease covers it. The lease to ask for
    /// along with it, if one is worth while.
    pub fn bid(&mut self, check: &Check, terms: LeaseTerms, now: WorkerInstant) -> Option<Bid> {
        let leftover = match self.held.get(&check.key) {
            Some(Held::Asked) => return None,
            Some(Held::Lease(lease)) => Cost::try_new(lease.left).map(|cost| {
                let check = &lease.check;
                (
                    lease.receipt,
                    Check {
                        cost,
                        ..check.clone()
                    },
                )
            }),
            None if self.held.len() >= MOST_HELD => return None,
            None => None,
        };
        let size = match terms.size {
            Size::Fixed(size) => size,
            Size::Auto => self.pace(check, terms, now),
        };
        let cost = Cost::try_new(size).filter(|cost| *cost >= check.cost)?;
        let mut check_request = CheckRequest::default();
        // What is left of the last lease was not enough, or another limit's, and two at once would
        // hold more than the user allowed.
        if let Some((Receipt(receipt), check)) = leftover {
            check_request.ask(Kind::Refund { receipt }, [check]);
        }
        let check = Check {
            cost,
            ..check.clone()
        };
        check_request.ask(Kind::Lease { ttl: terms.ttl }, [check.clone()]);
        let part = self.part(check_request)?;
        self.held.insert(check.key.clone(), Held::Asked);
        Some(Bid {
            check,
            terms,
            part,
            revocations: self.revocations,
        })
    }

    /// What the store said to a bid.
    pub fn settle(&mut self, bid: Bid, outcome: &Outcome) -> Option<ShardRequest> {
        let Bid {
            check,
            terms,
            revocations,
            ..
        } = bid;
        let told = match outcome {
            Outcome::Answered { now, asked, told } => told
                .last()
                .and_then(|told| told.limits.first())
                .map(|reading| (Receipt(*now), *asked, *reading)),
            // Should it have been granted it stays counted, as every take that timed out.
            Outcome::Failed => None,
        };
        let granted = told.and_then(|told| Some((told, Cost::try_new(told.2.granted())?)));
        // Another policy is in force, and it may have no use for this.
        if revocations != self.revocations {
            let ((receipt, ..), cost) = granted?;
            return self.refund(Check { cost, ..check }, receipt);
        }
        self.held.remove(&check.key);
        if let Some((.., reading)) = told {
            self.note_left(&check, terms, reading.remaining);
        }
        let ((receipt, asked, reading), cost) = granted?;
        let lease = Lease::new(Check { cost, ..check }, terms, receipt, reading, asked);
        let key = lease.check.key.clone();
        self.ends.push(Reverse((lease.until, key.clone())));
        self.held.insert(key, Held::Lease(lease));
        if self.ends.len() > 2 * self.held.len() + SPARE_ENDS {
            self.forget_stale_ends();
        }
        None
    }

    /// What the store said is left of a limit that it was asked about.
    pub fn note_left(&mut self, check: &Check, terms: LeaseTerms, remaining: i64) {
        if terms.size == Size::Auto
            && let Some(pace) = self.paces.get(&check.key)
        {
            let remaining = u64::try_from(remaining).unwrap_or(0);
            let pace = Pace { remaining, ..*pace };
            self.paces.insert(&check.key, pace);
        }
    }

    /// Time has passed: what goes back of the leases that have ended. Of many, the first; the others
    /// when [`Leases::next`] says.
    pub fn expire(&mut self, now: WorkerInstant) -> Vec<ShardRequest> {
        let mut back = Vec::new();
        if now < self.next_return {
            return back;
        }
        while let Some(Reverse((until, _))) = self.ends.peek()
            && *until <= now
            && back.len() < MOST_RETURNS
            && let Some(Reverse((until, key))) = self.ends.pop()
        {
            let ended = matches!(
                self.held.get(&key),
                Some(Held::Lease(lease)) if lease.until == until
            );
            if ended && let Some(Held::Lease(lease)) = self.held.remove(&key) {
                if lease.ending != Ending::Revoked {
                    self.paces.insert(&key, lease.ended(now));
                }
                if lease.ending != Ending::Lapses
                    && let Some(cost) = Cost::try_new(lease.left)
                {
                    let Lease { check, receipt, .. } = lease;
                    back.extend(self.refund(Check { cost, ..check }, receipt));
                }
            }
        }
        if back.len() == MOST_RETURNS {
            self.next_return = now + BETWEEN_RETURNS;
        }
        back
    }

    /// Another policy is in force: all leases have ended, and go back as if their time were over.
    pub fn revoke(&mut self) {
        self.revocations += 1;
        self.paces.clear();
        self.held.retain(|_, held| match held {
            Held::Lease(lease) => {
                lease.until = WorkerInstant(0);
                lease.ending = Ending::Revoked;
                true
            }
            Held::Asked => false,
        });
        self.forget_stale_ends();
    }

    /// When the next of them ends, or may go back.
    pub fn next(&self) -> Option<WorkerInstant> {
        let next = self.ends.peek();
        next.map(|Reverse((until, _))| (*until).max(self.next_return))
    }

    /// How many permits the next lease of this caller should hold.
    fn pace(&mut self, check: &Check, terms: LeaseTerms, now: WorkerInstant) -> u64 {
        let known = self.paces.get(&check.key).copied();
        let mut pace = known.unwrap_or(Pace::unknown(now));
        // Twice within a lease's time: there is something to save.
        let soon = now.since(pace.seen) < terms.ttl;
        if pace.size == 0 && known.is_some() && soon {
            pace.size = check.cost.get().saturating_mul(FIRST);
        }
        pace.seen = now;
        self.paces.insert(&check.key, pace);
        let left = pace.remaining.min(check.terms.quota.capacity());
        let size = pace.size.min(self.share.of(left));
        if size < LEAST { 0 } else { size }
    }

    /// A busy caller uses up many leases before the first of them would have ended.
    fn forget_stale_ends(&mut self) {
        let ends = self.held.iter().filter_map(|(key, held)| match held {
            Held::Lease(lease) => Some(Reverse((lease.until, key.clone()))),
            Held::Asked => None,
        });
        self.ends = ends.collect();
    }

    fn refund(&self, check: Check, Receipt(receipt): Receipt) -> Option<ShardRequest> {
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Refund { receipt }, [check]);
        self.part(check_request)
    }

    /// One key is in one place.
    fn part(&self, check_request: CheckRequest) -> Option<ShardRequest> {
        Rc::new(check_request).split(self.topology).pop()
    }
}

impl Lease {
    fn new(
        check: Check,
        terms: LeaseTerms,
        receipt: Receipt,
        reading: Reading,
        asked: WorkerInstant,
    ) -> Lease {
        let ends_with_window =
            check.terms.quota.algorithm() == Algorithm::FixedWindow && reading.reset <= terms.ttl;
        let (span, ending) = match ends_with_window {
            true => (reading.reset, Ending::Lapses),
            false => (terms.ttl, Ending::Returns),
        };
        Lease {
            left: check.cost.get(),
            check,
            terms,
            receipt,
            remaining: reading.remaining,
            reset_at: asked + reading.reset,
            since: asked,
            until: asked + safe(span),
            ending,
        }
    }

    /// Only for the limit that it was granted by: in another tier, less may be allowed of what the key
    /// counts.
    fn covers(&self, check: &Check, now: WorkerInstant) -> bool {
        now < self.until
            && self.left >= check.cost.get()
            && self.check.terms.quota == check.terms.quota
    }

    /// What the store had left besides this lease, and what the lease has.
    fn reading(&self, now: WorkerInstant) -> Reading {
        let left = i64::try_from(self.left).unwrap_or(i64::MAX);
        Reading {
            remaining: self.remaining.saturating_add(left),
            retry: Retry::Now,
            reset: self.reset_at.since(now).ceil_millis(),
        }
    }

    /// The next lease should last its whole time at the rate at which this one was used.
    fn used_up(&self, now: WorkerInstant) -> Pace {
        let granted = self.check.cost.get();
        let lasted = now.since(self.since).as_micros().max(1);
        let ttl = self.terms.ttl.as_micros();
        let wanted = u128::from(granted) * u128::from(ttl) / u128::from(lasted);
        let most = granted.saturating_mul(GROWTH);
        self.pace(
            u64::try_from(wanted).map_or(most, |wanted| wanted.clamp(granted, most)),
            now,
        )
    }

    /// The next one should hold what was used of this, and a quarter more.
    fn ended(&self, now: WorkerInstant) -> Pace {
        let used = self.check.cost.get().saturating_sub(self.left);
        self.pace(used.saturating_add(used.div_ceil(4)), now)
    }

    fn pace(&self, size: u64, now: WorkerInstant) -> Pace {
        let left = i64::try_from(self.left).unwrap_or(i64::MAX);
        Pace {
            size,
            seen: now,
            remaining: u64::try_from(self.remaining.saturating_add(left)).unwrap_or(0),
        }
    }
}

impl Pace {
    /// Of a caller who was never seen.
    fn unknown(now: WorkerInstant) -> Pace {
        Pace {
            size: 0,
            seen: now,
            remaining: u64::MAX,
        }
    }
}

impl Bid {
    pub fn part(&self) -> &ShardRequest {
        &self.part
    }
}

/// How long the worker may spend by its own clock what lasts so long by the store's.
fn safe(span: Span) -> Span {
    span - span.divided(RATE_ALLOWANCE) - STEP_ALLOWANCE
}

#[cfg(test)]
mod tests;
