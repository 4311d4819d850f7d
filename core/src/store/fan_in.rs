//! The answers to a check request that was asked in parts, until all are in. It knows which checks were
//! told of, which operations were refused, and what must be refunded if the whole fails.

use std::rc::Rc;

use crate::quota::operation::{Kind, OperationReply, Reading, Verdict};
use crate::store::check::{CheckRequest, ShardRequest};
use crate::store::clock::Exchange;
use crate::store::slot::Topology;
use crate::time::{StoreInstant, WorkerInstant};

/// What the store had to say to one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        now: StoreInstant,
        asked: WorkerInstant,
        told: Vec<OperationReply>,
    },
    /// It could not be asked, or did not answer in time.
    Failed,
}

/// One check's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckReply {
    Read(Reading),
    /// The store could not be asked about it, or the key holds something that is not Weir's.
    Unknown,
}

/// A check request on its way to the store.
#[derive(Debug)]
pub struct FanIn {
    check_request: Rc<CheckRequest>,
    parts: Vec<ShardRequest>,
    waiting: usize,
    replies: Vec<CheckReply>,
    /// Of each operation: refused where any part of it was.
    verdicts: Vec<Verdict>,
    taken: Vec<Taken>,
    now: StoreInstant,
    /// The earliest that a part was asked at.
    asked: Option<WorkerInstant>,
}

/// What a part has taken for one of its operations.
#[derive(Debug)]
struct Taken {
    part: usize,
    /// The operation's place in the part, and in the whole.
    nth: usize,
    operation: usize,
    receipt: StoreInstant,
}

impl FanIn {
    pub fn new(check_request: CheckRequest) -> FanIn {
        FanIn {
            check_request: Rc::new(check_request),
            parts: Vec::new(),
            waiting: 0,
            replies: Vec::new(),
            verdicts: Vec::new(),
            taken: Vec::new(),
            now: StoreInstant(0),
            asked: None,
        }
    }

    /// The parts to ask about, each of which will have an outcome. Of some checks, by their places,
    /// the answers are `known`.
    pub fn split(&mut self, topology: Topology, known: &[(usize, Reading)]) -> Vec<ShardRequest> {
        self.replies = vec![CheckReply::Unknown; self.check_request.checks().len()];
        self.parts = if known.is_empty() {
            self.check_request.split(topology)
        } else if known.len() == self.replies.len() {
            Vec::new()
        } else {
            let places: Vec<usize> = known.iter().map(|(place, _)| *place).collect();
            self.check_request.split_without(topology, &places)
        };
        for (place, reading) in known {
            if let Some(replies) = self.replies.get_mut(*place) {
                *replies = CheckReply::Read(*reading);
            }
        }
        self.waiting = self.parts.len();
        let schema = self.check_request.schema();
        self.verdicts = schema.map(|_| Verdict::Passed).collect();
        self.parts.clone()
    }

    /// Takes the outcome of a part; whether all are in.
    pub fn receive(&mut self, at: usize, outcome: &Outcome) -> bool {
        if let Outcome::Answered { now, asked, told } = outcome {
            self.now = self.now.max(*now);
            self.asked = Some(self.asked.map_or(*asked, |earliest| earliest.min(*asked)));
            self.read(at, *now, told);
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting == 0
    }

    fn read(&mut self, at: usize, now: StoreInstant, told: &[OperationReply]) {
        let Some(part) = self.parts.get(at) else {
            return;
        };
        let mut check = 0;
        for (nth, ((operation, checks), told)) in
            part.check_request.operations().zip(told).enumerate()
        {
            let whole = part.operation(nth).unwrap_or(nth);
            match (told.verdict, self.verdicts.get_mut(whole)) {
                (Verdict::Refused, Some(verdict)) => *verdict = Verdict::Refused,
                (Verdict::Passed, _) if operation.kind == Kind::Take => self.taken.push(Taken {
                    part: at,
                    nth,
                    operation: whole,
                    receipt: now,
                }),
                _ => {}
            }
            if told.verdict != Verdict::Unreadable {
                for (nth, reading) in told.limits.iter().enumerate() {
                    let replies = part
                        .check(check + nth)
                        .and_then(|whole| self.replies.get_mut(whole));
                    if let Some(replies) = replies {
                        *replies = CheckReply::Read(*reading);
                    }
                }
            }
            check += checks.len();
        }
    }

    pub fn check_request(&self) -> &CheckRequest {
        &self.check_request
    }

    /// The latest that a part was told at.
    pub fn now(&self) -> StoreInstant {
        self.now
    }

    /// When all of it was asked and decided; nothing where several decided.
    pub fn decided(&self) -> Option<Exchange> {
        let asked = self.asked.filter(|_| self.parts.len() == 1)?;
        Some(Exchange {
            asked,
            told: self.now,
        })
    }

    /// The earliest that a part was asked at; nothing where none was answered.
    pub fn asked(&self) -> Option<WorkerInstant> {
        self.asked
    }

    /// Each operation's verdict and answers. It is refused where any part of it was, else passed.
    pub fn operations(&self) -> impl Iterator<Item = (Verdict, &[CheckReply])> {
        let mut rest = self.replies.as_slice();
        self.check_request
            .schema()
            .zip(&self.verdicts)
            .map(move |(checks, verdict)| {
                let (own, others) = rest.split_at_checked(checks).unwrap_or((rest, &[]));
                rest = others;
                (*verdict, own)
            })
    }

    /// Whether any part of this operation was refused.
    pub fn is_refused(&self, operation: usize) -> bool {
        self.verdicts.get(operation) == Some(&Verdict::Refused)
    }

    /// What was taken for an operation: by which part, of which of the whole's checks, and when.
    pub fn taken(
        &self,
        operation: usize,
    ) -> impl Iterator<Item = (&ShardRequest, Vec<usize>, StoreInstant)> {
        let own = move |taken: &&Taken| taken.operation == operation;
        self.taken.iter().filter(own).filter_map(|taken| {
            let part = self.parts.get(taken.part)?;
            let before: usize = part.check_request.schema().take(taken.nth).sum();
            let count = part.check_request.schema().nth(taken.nth)?;
            let places = (before..before + count).filter_map(|nth| part.check(nth));
            Some((part, places.collect(), taken.receipt))
        })
    }

    /// What refunds all that was taken: a request that does not pass consumes nothing.
    pub fn refunds(&self) -> Vec<ShardRequest> {
        self.giving_back(|_| true)
    }

    /// What refunds what was taken for operations of which another part was refused.
    pub fn refunds_of_refused(&self) -> Vec<ShardRequest> {
        self.giving_back(|taken| self.is_refused(taken.operation))
    }

    /// What refunds all the rest.
    pub fn refunds_of_passed(&self) -> Vec<ShardRequest> {
        self.giving_back(|taken| !self.is_refused(taken.operation))
    }

    fn giving_back(&self, wanted: impl Fn(&Taken) -> bool) -> Vec<ShardRequest> {
        let mut refunds: Vec<ShardRequest> = Vec::new();
        let mut rest = self.taken.as_slice();
        // What a part has taken stands together, and has one receipt.
        while let Some(first) = rest.first() {
            let of_part = rest.iter().take_while(|taken| taken.part == first.part);
            let (own, others) = rest
                .split_at_checked(of_part.count())
                .unwrap_or((rest, &[]));
            rest = others;
            let operations: Vec<usize> = own
                .iter()
                .filter(|taken| wanted(taken))
                .map(|taken| taken.nth)
                .collect();
            if let Some(part) = self.parts.get(first.part)
                && !operations.is_empty()
            {
                let check_request = part.check_request.giving_back(first.receipt, &operations);
                refunds.push(part.asking(check_request));
            }
        }
        refunds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::cost::Cost;
    use crate::quota::limit::{Algorithm, Quota};
    use crate::quota::operation::Retry;
    use crate::quota::packed::Terms;
    use crate::store::check::Check;
    use crate::time::Span;

    fn check(key: &str) -> Check {
        let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
        Check {
            key: key.as_bytes().to_vec(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        }
    }

    fn keys(refunds: &[ShardRequest]) -> Vec<String> {
        let check_requests = refunds.iter().map(|part| &part.check_request);
        let keys = check_requests.flat_map(|check_request| check_request.checks());
        let mut keys: Vec<String> = keys
            .map(|check| String::from_utf8_lossy(&check.key).into_owned())
            .collect();
        keys.sort_unstable();
        keys
    }

    /// What passes first and is given up later would else be refunded twice.
    #[test]
    fn what_was_taken_is_given_back_once_whether_its_operation_passed_or_not() {
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Take, ["{a}1", "{b}1"].map(check));
        check_request.ask(Kind::Take, ["{a}2", "{b}2"].map(check));
        let mut fan_in = FanIn::new(check_request);
        let parts = fan_in.split(Topology::Cluster, &[]);
        let told = |verdict| OperationReply {
            verdict,
            limits: vec![Reading {
                remaining: 0,
                retry: Retry::Now,
                reset: Span::ZERO,
            }],
        };
        for (number, part) in parts.iter().enumerate() {
            let refused = part.check_request.checks()[0].key.starts_with(b"{b}");
            let second = match refused {
                true => Verdict::Refused,
                false => Verdict::Passed,
            };
            let told = vec![told(Verdict::Passed), told(second)];
            let (now, asked) = (StoreInstant(7), WorkerInstant(0));
            fan_in.receive(number, &Outcome::Answered { now, asked, told });
        }
        assert_eq!(keys(&fan_in.refunds_of_refused()), ["{a}2"]);
        assert_eq!(keys(&fan_in.refunds_of_passed()), ["{a}1", "{b}1"]);
        assert_eq!(keys(&fan_in.refunds()), ["{a}1", "{a}2", "{b}1"]);
    }
}
