//! Every decision of Weir, pure: no proxy-wasm, no sockets, no clock, no randomness.

pub mod limit;
pub mod units;
pub mod wire;
