//! The proxy's names for calls to the store.

/// The proxy's name for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(pub u32);
