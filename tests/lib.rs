//! The tests are in the folders beside this file; this crate has no code of its own.
