//! weirctl, as a library. [`commands`] is what an operator types, a module for each verb; the other
//! modules know no command line.
//!
//! A policy is judged by the parser that the gateways run, so what they would refuse is refused here
//! first. [`document`] reads it, [`difference`] compares two, and [`publication`] is what lies in Redis.
//! [`manifests`] has what a gateway is installed with.
//! [`suite`] runs a policy's tests. [`log`] reads access logs, and [`simulate`] replays them through the code that decides in Envoy;
//! [`recommend`] finds limits that fit them.

pub mod commands;
mod console;
pub mod difference;
pub mod document;
mod exit;
pub mod grammar;
mod import;
pub mod log;
pub mod manifests;
mod moment;
mod place;
pub mod publication;
mod recommend;
mod request_line;
pub mod simulate;
mod suite;
