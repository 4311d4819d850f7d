//! What operators see: counters, the last fifteen minutes, the heaviest callers, the report, the page
//! and the access log. It reads decisions and changes none.

pub mod access_log;
pub mod advice;
pub mod counters;
pub mod notice;
pub mod page;
pub mod report;
pub mod time_series;
pub mod top_k;
