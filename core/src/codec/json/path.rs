//! The way to a value in a document: a chain on the stack, written out only where something is wrong.

use std::fmt;

use super::ConfigError;

#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    step: Step<'a>,
    before: Option<&'a Path<'a>>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// The document, by the name that messages have for it.
    Root(&'a str),
    Member(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    pub fn root(name: &'a str) -> Path<'a> {
        Path {
            step: Step::Root(name),
            before: None,
        }
    }

    pub fn member(&'a self, name: &'a str) -> Path<'a> {
        Path {
            step: Step::Member(name),
            before: Some(self),
        }
    }

    pub fn item(&'a self, place: usize) -> Path<'a> {
        Path {
            step: Step::Item(place),
            before: Some(self),
        }
    }

    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.to_string(),
            message: message.into(),
        }
    }
}

/// `a.b[0]` for plain names, `a["10.0.0.0/8"]` for those that would read as a path themselves.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            write!(f, "{before}")?;
        }
        match self.step {
            Step::Root(name) => f.write_str(name),
            Step::Item(place) => write!(f, "[{place}]"),
            Step::Member(name) if is_plain(name) => write!(f, ".{name}"),
            Step::Member(name) => write!(f, "[{name:?}]"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.bytes().all(plain)
}
