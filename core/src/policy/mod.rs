//! What the operator decided: rules, limits, lists, experiments. [`document`] is the policy as written, [`Policy`]
//! what the filter runs on, and `compile` the way from the one to the other. It knows neither a request nor
//! what was counted.

mod assigned_tiers;
mod compile;
mod compiled;
pub mod condition;
pub mod cost_rule;
pub mod document;
mod doubts;
mod experiment;
pub mod ids;
pub mod key;
pub mod key_part;
pub mod keyed;
pub mod lease_terms;
pub mod lists;
pub mod name;
mod pattern;
pub mod response;
pub mod rollout;
pub mod soft_limit;
mod table;
pub mod tariff;
mod titles;

pub(crate) use compiled::host_name;
pub use compiled::{
    Answers, Body, Described, Host, Limit, Mismatch, OnStoreFailure, OperatorHeader, Policy, Rule,
    Status, Target,
};
pub use experiment::{Arm, Experiment, Variant};
pub use pattern::{LONGEST_PATH, Matching, Pattern};
pub use table::Table;
