//! weir-policy: publishes a policy in Redis, where running gateways find it.
//!
//! [`shelf`] is what lies in Redis: the policy that is published, and those before it. [`changes`]
//! says in words what one policy changes about another, and [`anew`] which counts that begins anew. A policy is judged by the same parser that
//! the gateways run ([`weir_core::live::poller::Document`]), so what is refused there is refused here first.

pub mod anew;
pub mod changes;
pub mod shelf;
pub mod time;
