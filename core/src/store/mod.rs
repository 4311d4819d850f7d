//! How checks reach Redis and come back: what is asked, the script's language, batches, the breaker, the
//! links and the bridge. It knows keys and quotas, never rules or callers.

pub mod batch;
pub mod breaker;
pub mod bridge;
pub mod call;
pub mod check;
pub mod clock;
pub mod config;
pub mod encode;
pub mod error;
pub mod eviction;
pub mod fan_in;
pub mod links;
pub mod probe;
pub mod reply;
pub mod script;
pub mod slot;
pub mod wire;
