//! The tests are in `compose/`, `e2e/` and `models/`; this crate has no code of its own.
