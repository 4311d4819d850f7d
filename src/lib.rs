//! What Envoy loads: one wasm file with two roles, chosen by the plugin configuration.
//!
//! The *limiter* is an HTTP filter: [`contexts`] hands Envoy's callbacks to a `weir_core` worker, and
//! [`host`] makes the calls that the worker wants. The *bridge* ([`bridge`]) is a network filter that lets
//! the worker's calls through to `redis_proxy`. [`pools`] is the memory of both.
//!
//! Nothing is decided here: events go in, `weir_core` says what they mean, effects come out.

mod bridge;
mod contexts;
mod host;
#[cfg(target_family = "wasm")]
mod pools;

#[cfg(target_family = "wasm")]
#[global_allocator]
static POOLS: pools::Pools = pools::Pools::new();

proxy_wasm::main! {{
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(contexts::Root::new(id)));
}}
