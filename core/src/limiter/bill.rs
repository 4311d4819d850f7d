//! What a request that passed still costs when its response comes: rules whose cost a response header
//! tells hold a part of it, and the difference is charged or given back then, without anybody waiting.

use std::ops::Range;

use super::{Passage, Pending, Worker};
use crate::cost::{Balance, Meter, Said};
use crate::question::{Check, Part, Question};
use crate::script::Kind;
use crate::units::Micros;
use crate::verdict::Decided;

/// A rule whose requests cost what their response says.
#[derive(Debug)]
pub(super) struct Due {
    pub meter: Meter,
    /// The trial that it is; none where it is enforced.
    pub trial: Option<usize>,
    /// The places of its limits among those of its operation.
    pub places: Range<usize>,
}

/// All that is due for one request.
#[derive(Debug)]
pub struct Bill {
    items: Vec<Item>,
}

/// What one rule holds for the request, and where.
#[derive(Debug)]
struct Item {
    meter: Meter,
    held: Vec<Held>,
    /// In the worker's memory.
    local: Option<HeldLocal>,
}

/// What a part of the question took, by its receipt.
#[derive(Debug)]
struct Held {
    part: Part,
    checks: Vec<Check>,
    receipt: Micros,
}

#[derive(Debug)]
struct HeldLocal {
    checks: Vec<Check>,
    receipt: Micros,
}

impl Worker {
    /// Settles a bill; what to ask of the store, without waiting. `header` tells what the response's
    /// header of this name says; of a request that has no response nothing is said. `now` is the time
    /// of day.
    pub fn settle(
        &mut self,
        bill: &Bill,
        header: impl Fn(&str) -> Option<Vec<u8>>,
        now: impl Fn() -> Micros,
    ) -> Vec<Part> {
        let mut parts = Vec::new();
        for item in &bill.items {
            let told = header(&item.meter.header);
            let said = told.as_deref().map_or(Said::Nothing, Said::Once);
            let balance = item.meter.balance(said);
            let (cost, is_owed) = match balance {
                Balance::Even => continue,
                Balance::Owed(cost) => (cost, true),
                Balance::Over(cost) => (cost, false),
            };
            let kind = |receipt| match is_owed {
                true => Kind::Charge,
                false => Kind::GiveBack { receipt },
            };
            for held in &item.held {
                let checks = held.checks.iter().map(|check| Check {
                    cost,
                    ..check.clone()
                });
                let mut question = Question::default();
                question.ask(kind(held.receipt), checks);
                parts.push(held.part.asking(question));
            }
            if let Some(held) = &item.local {
                let kind = kind(held.receipt);
                self.local.settle(kind, &held.checks, cost, now());
            }
        }
        parts
    }
}

impl Pending {
    /// The bill of a request that passes. `receipt` is when it took what it took in the worker's
    /// memory.
    pub(super) fn bill(
        &self,
        passage: &Passage,
        decided: &Decided,
        receipt: Micros,
    ) -> Option<Bill> {
        if passage.dues.is_empty() {
            return None;
        }
        let items = passage.dues.iter().filter_map(|due| {
            let operation = passage.operation(due.trial);
            // A trial that would have refused the request has taken nothing.
            if self.gathering.is_refused(operation) {
                return None;
            }
            let before: usize = self.gathering.question().shape().take(operation).sum();
            let (start, end) = (before + due.places.start, before + due.places.end);
            let whole = self.gathering.question().checks();
            let held = self
                .gathering
                .taken(operation)
                .map(|(part, places, receipt)| {
                    let own = places
                        .into_iter()
                        .filter(|place| (start..end).contains(place));
                    Held {
                        part: part.clone(),
                        checks: own.filter_map(|place| whole.get(place)).cloned().collect(),
                        receipt,
                    }
                });
            let local = match due.trial {
                Some(_) => Vec::new(),
                None => {
                    let own = decided
                        .local
                        .iter()
                        .filter(|place| due.places.contains(place));
                    own.filter_map(|place| whole.get(*place)).cloned().collect()
                }
            };
            Some(Item {
                meter: due.meter.clone(),
                held: held.filter(|held| !held.checks.is_empty()).collect(),
                local: (!local.is_empty()).then_some(HeldLocal {
                    checks: local,
                    receipt,
                }),
            })
        });
        let items: Vec<Item> = items.collect();
        (!items.is_empty()).then_some(Bill { items })
    }
}

impl Passage {
    /// The place of an operation in the question: that of a trial, or of what is enforced.
    fn operation(&self, trial: Option<usize>) -> usize {
        trial.map_or(0, |trial| trial + usize::from(!self.limits.is_empty()))
    }
}
