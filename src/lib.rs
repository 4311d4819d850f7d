//! What Envoy loads: one wasm file with two roles, chosen by the plugin configuration.
//!
//! The *limiter* is an HTTP filter. [`http`] reads a request's head, asks `weir-core` what to do and
//! does it; where the store must be asked, [`root`] sends the questions of all waiting requests of
//! this worker in one call, by way of [`store`], and hands each its outcome. The *bridge* ([`bridge`]) is a
//! network filter that lets these calls through to `redis_proxy`. [`live`] keeps the policy in force and looks for the
//! next. [`metrics`] is what operators see of the store; [`vm`] is what the proxy calls, [`host`] makes
//! every call to it, and [`pools`] is the memory of both.
//!
//! Nothing is decided here: events go in, `weir-core` says what they mean, effects come out.

mod bridge;
mod eviction;
mod host;
mod http;
mod live;
mod metrics;
#[cfg(target_family = "wasm")]
mod pools;
mod root;
mod store;
mod ticker;
mod vm;

#[cfg(target_family = "wasm")]
#[global_allocator]
static POOLS: pools::Pools = pools::Pools::new();
