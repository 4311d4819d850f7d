//! What lies in Redis: the policy that is published, and those before it. [`shelf`] reads and writes
//! them, [`rollback`] finds the one to go back to. A document is bytes here; `document` judges it.

mod author;
pub mod rollback;
mod shelf;

pub use author::author;
pub use shelf::{Note, Outcome, PREVIOUS, Publication, Shelf};
