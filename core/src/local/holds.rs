//! What this worker's own requests hold of limits until it is known what they cost: it may come back at any
//! moment, so a refusal for it is soon out of date. There is an entry for each limit of a request that is
//! under way, and no other.

use std::collections::HashMap;

use crate::quota::operation::{Reading, Retry};
use crate::store::check::Check;
use crate::time::Span;

/// The wait of a refusal that may be out of date at any moment.
const SOON: Retry = Retry::After(Span::seconds(1));

#[derive(Debug, Default)]
pub struct Holds(HashMap<Vec<u8>, u64>);

impl Holds {
    pub fn add(&mut self, check: &Check, permits: u64) {
        if permits > 0 {
            let held = self.0.entry(check.key.clone()).or_default();
            *held = held.saturating_add(permits);
        }
    }

    pub fn release(&mut self, check: &Check, permits: u64) {
        if permits > 0
            && let Some(held) = self.0.get_mut(&check.key)
        {
            *held = held.saturating_sub(permits);
            if *held == 0 {
                self.0.remove(&check.key);
            }
        }
    }

    /// Whether this reading is of a debt that stays one when all comes back.
    pub fn is_debt(&self, check: &Check, reading: Reading) -> bool {
        self.freed(check, reading) < 0
    }

    /// The wait, where it is no longer than until something comes back that would do.
    pub fn wait(&self, check: &Check, reading: Reading) -> Retry {
        let cost = i64::try_from(check.cost.get()).unwrap_or(i64::MAX);
        match self.freed(check, reading) >= cost {
            true => reading.retry.min(SOON),
            false => reading.retry,
        }
    }

    /// What remains when all comes back.
    fn freed(&self, check: &Check, reading: Reading) -> i64 {
        let held = self.0.get(&check.key).copied().unwrap_or(0);
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        reading.remaining.saturating_add(held)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
