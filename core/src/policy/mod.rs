//! What the operator decided: rules, limits, lists, experiments. `parse` turns JSON into what the
//! filter runs on, which is [`compiled`](Policy). It knows neither a request nor what was counted.

mod compiled;
pub mod cost_rule;
mod doubts;
mod experiment;
pub mod ids;
pub mod key;
pub mod lease_terms;
pub mod lists;
pub mod name;
mod parse;
mod pattern;
pub mod rollout;
pub mod soft_limit;
mod table;
mod titles;

pub use compiled::{
    Answers, Body, Described, Limit, OnStoreFailure, OperatorHeader, Policy, Rule, Status, Target,
};
pub use experiment::{Arm, Experiment, Variant};
pub use pattern::{LONGEST_PATH, Matching, Pattern};
pub use table::Table;
