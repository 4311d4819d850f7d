//! One worker of the proxy: its event loop, from a request's head to the counters, over any proxy.
//! It owns the order in which things happen. It refuses to know which proxy that is ([`Host`] is all
//! that it asks of one), and what a limit, a policy or a reply means.

pub mod config;
mod event_loop;
mod eviction_watch;
#[cfg(test)]
mod fake_host;
mod host;
mod policy_watch;
mod request;
mod seats;
pub mod shared;
mod store_calls;
mod telemetry;
#[cfg(test)]
mod tests;
mod ticker;

pub use event_loop::Worker;
pub use host::{Host, Level, MetricId, MetricKind, NotDone, NotSent, SharedState};
pub use request::{Flow, HeaderList};
