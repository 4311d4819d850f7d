//! What no input may break. A target is a plain function over bytes that panics where a promise is
//! broken; `corpus/` holds what each begins from.
//!
//! The same functions are driven in two ways: by `tests/short.rs`, a part of `cargo test`, which
//! replays the corpora and then edits them at random; and by `make fuzz`, where libFuzzer looks for
//! inputs that reach new code. An input that broke something becomes a file in the corpus.

#![allow(clippy::panic)]

mod glob;
mod input;
mod targets;

/// A place where the bytes of others come in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder in `corpus/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What random edits could hardly spell.
    pub words: &'static [&'static str],
}

pub const TARGETS: [Target; 10] = [
    targets::admission::TARGET,
    targets::bridge::TARGET,
    targets::front_door::TARGET,
    targets::key::TARGET,
    targets::path::TARGET,
    targets::pattern::TARGET,
    targets::policy::TARGET,
    targets::published::TARGET,
    targets::reply::TARGET,
    targets::resp::TARGET,
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
