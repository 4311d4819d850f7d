//! The real parts that Weir meets, started and stopped: for `make run`, tests and benchmarks alike.
//!
//! ```no_run
//! use weir_lab::{gateway::{Gateway, Policy, Store}, redis::Redis};
//!
//! # fn main() -> anyhow::Result<()> {
//! let redis = Redis::start()?;
//! let gateway = Gateway::builder().store(Store::Bridge).redis(&redis).start()?;
//! let answer = gateway.client().get("/api/v1/search").header("X-User-ID", "alice").send()?;
//! assert_eq!(answer.status, 200);
//! assert_eq!(gateway.upstream().requests(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! - [`parts`] brings the programs, [`artifact`] builds our own, [`exports`] cuts the filter to size;
//! - [`redis`], [`gateway`], [`sidecar`], [`upstream`] are one running part each, gone when dropped;
//! - [`redis_cluster`] is several Redis as one, and [`proxy`] a network that can be made to fail;
//! - [`client`] asks, byte by byte; [`load`] asks steadily, [`crowd`] as fast as it is answered;
//! - [`recorder`] keeps what a Redis was told and what it replied;
//! - [`process`], [`scratch`], [`port`], [`deadline`], [`place`] are what they stand on.
//!
//! Nothing here knows what Weir decides.

pub mod artifact;
pub mod client;
pub mod crowd;
pub mod deadline;
pub mod exports;
pub mod gateway;
pub mod load;
pub mod parts;
pub mod place;
pub mod port;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod redis;
pub mod redis_cluster;
pub mod scratch;
pub mod sidecar;
pub mod upstream;
