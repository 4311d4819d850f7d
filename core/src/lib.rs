//! Every decision of Weir, pure: no proxy-wasm, no sockets, no clock, no randomness.
//!
//! The life of a request, module by module: [`identity`] says who is calling, [`exempt`] whether any
//! limit is for them, [`path`] what the router will see, [`reading`] how else a server may take it, [`policy`] which limits apply, [`rollout`] whether
//! they are enforced or on trial, [`cost`] what the request takes of them, [`key`] where each is counted, in its
//! [`namespace`]. [`limiter`] puts
//! these together into a [`question`], unless [`denials`] or a [`lease`] knows the answer (both bounded by
//! [`generations`]); [`batch`] sends the questions of concurrent requests in one
//! call, one [`program`], which may travel on one of a worker's [`links`], and reads the reply by the contract of [`script`]; where a question spans several [`slot`]s
//! of a cluster its answers meet again in a [`gathering`]. [`verdict`] weighs them; where a limit does
//! something before it refuses, [`approach`] says what, and [`delays`] who goes on when, by
//! [`store_clock`]. [`answer`]
//! words the result; a [`record`] of it is what operators are told: in a [`tally`], by [`traffic`] over time, and by
//! who are the worst [`offenders`], all of which a [`gateway`] can tell of itself, with [`advice`] on its store, and in an [`access_log`]. When the store fails, the [`breaker`] spares it and [`local`] keeps the limits
//! in [`memory`]. [`status`] is the same for the call that only looks, and [`guesses`] keeps those from the operators' calls who try secrets. [`wire`] is the language spoken
//! with the store, on both sides. Under all of it lies the policy that is in force, which is [`live`]'s;
//! [`roll`] tells whether a process's workers agree on it, and [`seats`] which these are.

pub mod access_log;
pub mod address;
pub mod advice;
pub mod answer;
pub mod approach;
pub mod batch;
pub mod breaker;
pub mod config;
pub mod cost;
pub mod delays;
pub mod denials;
pub mod eviction;
pub mod exempt;
pub mod gateway;
pub mod gathering;
pub mod generations;
pub mod guesses;
pub mod identity;
pub mod json;
pub mod key;
pub mod lease;
pub mod limit;
pub mod limiter;
pub mod links;
pub mod live;
pub mod local;
pub mod memory;
pub mod namespace;
pub mod notice;
pub mod offenders;
pub mod pack;
pub mod page;
pub mod path;
pub mod policy;
pub mod program;
pub mod protobuf;
pub mod question;
pub mod reading;
pub mod record;
pub mod roll;
pub mod rollout;
pub mod script;
pub mod seats;
pub mod secret;
pub mod slot;
pub mod status;
pub mod store_clock;
pub mod tally;
pub mod traffic;
pub mod units;
pub mod verdict;
pub mod wire;
