//! Which policy is in force: how a published one is found, and which version each worker has. It does
//! not know what a policy says.

pub mod last_refusal;
pub mod poller;
pub mod snapshot;
pub mod versions;
