//! One request from its head to the answer: who is let in, what is asked, what the readings mean, what
//! the client is told, what a request owes afterwards. It sends nothing and reads no clock.

pub mod answer;
pub mod decision;
pub mod limiter;
pub mod near_limit;
pub mod shadow;
pub mod status;
pub mod verdict;
