//! The tests are in `e2e/` and `models/`; this crate has no code of its own.
