//! Every decision of Weir. No proxy-wasm, no sockets, no clock, no randomness: what a decision needs of
//! the world it is told, by way of [`worker::Host`].
//!
//! The life of a request:
//!
//! 1. [`worker`] takes its head, and the policy snapshot that [`live`] has in force.
//! 2. [`request`] reads who is calling, from where, and the path that the router will see.
//! 3. [`policy`] tells which rules are for it, which limits they set, what it costs of each, and the
//!    names of their counters.
//! 4. [`decide`] makes one check of each limit out of it.
//! 5. [`local`] answers at once what the worker knows: an over-limit caller, or a lease that covers it.
//! 6. [`store`] puts the other checks of this moment into one batch, and the batch into one call.
//! 7. The script in `lua/` decides it, by the arithmetic that [`quota`] has as a plain model.
//! 8. [`store`] reads the reply, fans in what several shards said, and times out what is late; then the
//!    circuit breaker opens, and [`local`] keeps the limits.
//! 9. [`decide`] comes to a verdict: on with the request, later, or an answer.
//! 10. [`worker`] lets it go on or answers it, and settles what it owes when its response comes.
//! 11. [`observe`] counts it.
//!
//! [`codec`] and [`time`] are what all of them stand on. `tests/rooms.rs` holds who may use whom.

pub mod codec;
pub mod decide;
pub mod live;
pub mod local;
pub mod observe;
pub mod policy;
pub mod quota;
pub mod request;
pub mod store;
pub mod time;
pub mod worker;
