//! A gateway without Envoy and Redis: heads of requests in, conclusions out, with the plain statement
//! of the scripts for a store. What a policy lets happen over several requests is claimed here.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod costs;
mod experiments;
mod gateway;
mod modes;
