//! The end of a request that passes near a limit: with a warning, or delayed for a while. What it has
//! taken is refunded should it end before it went on.

use super::{Action, Decision, Memory, Passage, Pending, Wants};
use crate::decide::near_limit::{Delay, NearLimit};
use crate::decide::shadow::ShadowVerdict;
use crate::decide::verdict::{Decided, LimitStatus, Verdict};
use crate::decide::{answer, decision};
use crate::local::lease::Spent;
use crate::local::timer_queue::{StreamId, Turn};
use crate::policy::soft_limit::Pace;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::request::subject::Subject;
use crate::store::check::{Check, ShardRequest};
use crate::store::clock::Exchange;
use crate::store::fan_in::Outcome;
use crate::time::{Span, StoreInstant, WorkerInstant};

/// What a worker needs in order to delay a request, and to forget it.
#[derive(Debug)]
pub struct DelayedRequest {
    caller: Subject,
    wait: Span,
    /// When that was decided; by the worker itself if nothing.
    decided: Option<Exchange>,
    /// The key of the limit whose turn it waits for, and the longest wait of the others.
    turn: Option<(Vec<u8>, Span)>,
    refunds: Vec<ShardRequest>,
    local: TakenLocal,
    leased: Vec<(Check, Spent)>,
}

/// What a request has taken in the worker's memory.
#[derive(Debug)]
struct TakenLocal {
    checks: Vec<Check>,
    receipt: StoreInstant,
}

impl Memory {
    /// Delays a request, and says until when. It goes on when
    /// [`crate::local::timer_queue::Delays::pop`] gives it; should it end before, that is told to [`Memory::leave`].
    pub fn delay(
        &mut self,
        stream: StreamId,
        now: WorkerInstant,
        delayed: &DelayedRequest,
    ) -> WorkerInstant {
        let from = delayed
            .decided
            .map_or(now, |decided| self.store_clock.locate(decided, now));
        let turn = delayed.turn.as_ref().map(|(queue, others)| Turn {
            queue: queue.clone(),
            not_before: from + *others,
        });
        let due = from + delayed.wait;
        self.delays.delay(stream, delayed.caller.clone(), due, turn);
        due
    }

    /// A request that was delayed has ended; what to ask of the store, so that one that went before
    /// it was let through has consumed nothing.
    pub fn leave(
        &mut self,
        stream: StreamId,
        delayed: DelayedRequest,
        now: impl FnOnce() -> WorkerInstant,
    ) -> Vec<ShardRequest> {
        if !self.delays.leave(stream) {
            return Vec::new();
        }
        let time = self.store_time;
        self.release_local(delayed.local, || time.at(now()));
        let leased = delayed.leased.iter();
        let mut refunds = delayed.refunds;
        refunds.extend(leased.filter_map(|(check, spent)| self.leases.restore(check, *spent)));
        refunds
    }

    /// A request has ended while the store is asked about it. If a turn may come of it, that is not to
    /// be lost: nobody would take it, and everybody would wait for it. Others stay counted, as what was
    /// asked for.
    pub fn abandon(&mut self, stream: StreamId, pending: Box<Pending>) {
        if pending.stands_in_line() {
            self.abandoned.insert(stream, pending);
        }
    }

    /// Takes the outcome of a part for a request that has ended; with the last, what refunds all
    /// that was taken.
    pub fn receive_abandoned(
        &mut self,
        stream: StreamId,
        part: usize,
        outcome: &Outcome,
    ) -> Vec<ShardRequest> {
        let Some(pending) = self.abandoned.get_mut(&stream) else {
            return Vec::new();
        };
        if !pending.receive(part, outcome) {
            return Vec::new();
        }
        let Some(pending) = self.abandoned.remove(&stream) else {
            return Vec::new();
        };
        let mut refunds = pending.fan_in.refunds();
        refunds.extend(pending.restore(self));
        refunds
    }

    /// What the limit of that place was read by.
    pub(super) fn quota(&self, decided: &Decided, place: usize, check: &Check) -> Quota {
        match decided.local.contains(&place) {
            true => self.local.quota(check),
            false => check.terms.quota,
        }
    }

    fn release_local(&mut self, taken: TakenLocal, now: impl FnOnce() -> StoreInstant) {
        if !taken.checks.is_empty() {
            let checks: Vec<&Check> = taken.checks.iter().collect();
            self.local.refund(&checks, taken.receipt, now());
        }
    }
}

impl Pending {
    /// Whether a limit that is enforced makes requests wait for their turn.
    fn stands_in_line(&self) -> bool {
        let Wants::Passage(passage) = &self.wants else {
            return false;
        };
        let policy = &self.snapshot.policy;
        let mut limits = passage.limits.iter().filter_map(|id| policy.limit(*id));
        policy.has_soft_limits()
            && limits.any(|limit| matches!(limit.soft_limit.pace, Pace::Shaped { .. }))
    }

    /// The end of a request that passes, of a policy whose limits do something before they refuse.
    pub(super) fn end_near(
        &self,
        passage: &Passage,
        decided: &Decided,
        source: decision::Source,
        (known, would): (&[LimitStatus], &[Option<ShadowVerdict>]),
        receipt: StoreInstant,
        memory: &mut Memory,
    ) -> Decision {
        let near_limit = self.near_limit(decided, memory);
        let Delay { wait, queue } = near_limit.delay;
        let waits = wait > Span::ZERO;
        let is_held = waits && memory.delays.has_room(&passage.subject);
        let is_crowded = waits && !is_held;
        // Where there is no place, who is only slowed down is let go: it is within its limits.
        if is_crowded
            && let Some(queue) = queue
            && let Some(Some(status)) = decided.statuses.get(queue.place)
        {
            memory.release_local(self.taken_local(decided, receipt), || receipt);
            let retry = Retry::After(queue.wait);
            let reading = Reading {
                remaining: 0,
                retry,
                ..status.reading
            };
            let shown = LimitStatus { reading, ..*status };
            let mut decision = self.end(Verdict::Refused { shown, retry }, source, known, would);
            if let Some(record) = &mut decision.record {
                record.is_crowded = true;
            }
            return decision;
        }
        let mut decision = self.end(decided.verdict.clone(), source, known, would);
        if let Action::Pass(headers) = &mut decision.action {
            let policy = &self.snapshot.policy;
            headers.extend(answer::warning_header(policy, &near_limit.warned));
            headers.extend(
                is_held
                    .then(|| answer::delay_header(policy, wait))
                    .flatten(),
            );
        }
        if let Some(record) = &mut decision.record {
            record.is_crowded = is_crowded;
            record.warned = near_limit.warned.iter().map(|(limit, _)| *limit).collect();
            if is_held {
                record.outcome = decision::Outcome::Delayed;
                record.delay = wait;
            }
        }
        let checks = self.fan_in.check_request().checks();
        let turn = queue.filter(|queue| queue.wait >= queue.others);
        decision.delayed = is_held.then(|| {
            Box::new(DelayedRequest {
                caller: passage.subject.clone(),
                wait,
                decided: self.fan_in.decided(),
                turn: turn
                    .and_then(|queue| Some((checks.get(queue.place)?.key.clone(), queue.others))),
                refunds: self.fan_in.refunds_of_passed(),
                local: self.taken_local(decided, receipt),
                leased: self
                    .spent()
                    .map(|(check, spent)| (check.clone(), spent))
                    .collect(),
            })
        });
        decision
    }

    fn near_limit(&self, decided: &Decided, memory: &Memory) -> NearLimit {
        let checks = self.fan_in.check_request().checks();
        let mut near_limit = NearLimit::default();
        for (place, (status, check)) in decided.statuses.iter().zip(checks).enumerate() {
            if let Some(status) = status
                && let Some(limit) = self.snapshot.policy.limit(status.limit)
                && !limit.soft_limit.is_plain()
            {
                let quota = memory.quota(decided, place, check);
                near_limit.add((place, *status), limit.soft_limit, &quota, check.cost);
            }
        }
        near_limit
    }

    fn taken_local(&self, decided: &Decided, receipt: StoreInstant) -> TakenLocal {
        let checks = self.fan_in.check_request().checks();
        let checks = decided.local.iter().filter_map(|place| checks.get(*place));
        TakenLocal {
            checks: checks.cloned().collect(),
            receipt,
        }
    }
}

#[cfg(test)]
mod tests;
