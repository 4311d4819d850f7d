//! The language of policies, written down from its declaration in the core: as a JSON Schema for editors and as
//! a reference for people. It adds nothing to what the declaration says.

mod reference;
mod schema;

pub use reference::reference;
pub use schema::schema;
