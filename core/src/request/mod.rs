//! Who asks for what: identity, address and path of a request, and the subject whose usage is counted.
//! It knows no policy.

pub mod address;
pub mod identity;
pub mod path;
pub mod reading;
pub mod subject;
