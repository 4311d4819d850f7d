//! Other limiters' configurations as policies. What cannot be said is listed with its line, and never
//! guessed: [`ratelimit`] reads that of envoyproxy/ratelimit.

pub mod ratelimit;

use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Serialize)]
pub struct Imported {
    pub policy: Value,
    /// Limits that were converted.
    pub converted: usize,
    pub left: Vec<Left>,
}

/// What was not converted.
#[derive(Debug, Serialize)]
pub struct Left {
    pub line: usize,
    pub what: String,
    /// The nearest thing that could be done.
    pub instead: String,
}
