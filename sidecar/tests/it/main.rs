//! The sidecar in front of a real Redis, as raw bytes over real sockets.

mod cluster;
mod door;
mod places;
mod support;
mod tls;
mod trouble;
mod wire;
