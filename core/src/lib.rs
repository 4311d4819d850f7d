//! Every decision of Weir, pure: no proxy-wasm, no sockets, no clock, no randomness.

pub mod limit;
pub mod memory;
pub mod script;
pub mod units;
