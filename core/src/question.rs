//! What one request asks of the store: script operations, encoded when the request arrives, so that
//! a batch only concatenates them. `lua/README.md` has the contract.

use crate::limit::Quota;
use crate::script::{self, Kind};
use crate::units::Cost;
use crate::wire::resp;

/// Some operations, in order, ready to be sent together with others.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// How many limits each operation has: what its part of a reply is read by.
    shape: Vec<usize>,
    keys: Bulks,
    /// Heads and quotas.
    arguments: Bulks,
}

/// RESP bulk strings, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Bulks {
    count: usize,
    bytes: Vec<u8>,
}

/// One operation, waiting for its limits.
#[derive(Debug)]
pub struct Operation<'a> {
    question: &'a mut Question,
    key: Vec<u8>,
}

impl Question {
    /// Adds an operation over `limits` limits, which the caller then gives one by one.
    pub fn operation(&mut self, kind: Kind, cost: Cost, limits: usize) -> Operation<'_> {
        self.shape.push(limits);
        self.arguments
            .push(script::head_argument(kind, cost, limits).as_bytes());
        Operation {
            question: self,
            key: Vec::with_capacity(64),
        }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn keys(&self) -> &Bulks {
        &self.keys
    }

    pub fn arguments(&self) -> &Bulks {
        &self.arguments
    }
}

impl Operation<'_> {
    pub fn limit(&mut self, quota: &Quota, write_key: impl FnOnce(&mut Vec<u8>)) {
        self.key.clear();
        write_key(&mut self.key);
        self.question.keys.push(&self.key);
        self.question
            .arguments
            .push(script::quota_argument(quota).as_bytes());
    }
}

impl Bulks {
    pub fn push(&mut self, bytes: &[u8]) {
        self.count += 1;
        resp::push_bulk(&mut self.bytes, bytes);
    }

    pub fn append(&mut self, other: &Bulks) {
        self.count += other.count;
        self.bytes.extend_from_slice(&other.bytes);
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
