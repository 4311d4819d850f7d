//! One file for each place where bytes of others come in.

pub mod admission;
pub mod bridge;
pub mod front_door;
pub mod key;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod published;
pub mod reply;
pub mod resp;
