//! Every decision of Weir, pure: no proxy-wasm, no sockets, no clock, no randomness.

pub mod address;
pub mod identity;
pub mod json;
pub mod key;
pub mod limit;
pub mod path;
pub mod policy;
pub mod units;
pub mod wire;
