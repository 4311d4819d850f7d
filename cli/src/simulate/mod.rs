//! What a policy would have done with yesterday's requests. Every decision is the core's: [`gate`] hands
//! it requests as a worker of a gateway does, and keeps its counters in memory where a gateway asks Redis.
//! [`tally`] counts what came of it, [`curve`] what other numbers would do, and [`report`] is the result.

mod curve;
mod gate;
mod page;
mod report;
mod series;
mod tally;

pub use gate::{Arrival, Caller, Gate, Verdict, What};
pub use page::page;
pub use report::{Assumptions, Named, OfLimit, Report, count_of, simulate};
pub use tally::Curves;
