//! Whose usage is counted, and every form in which that is written.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};
use sha2::{Digest, Sha256};

use crate::request::subject;

/// A user's id as text: bytes that JSON text cannot carry are percent-escaped.
pub fn user_text(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) => text.to_string(),
        Err(_) => subject::escaped(id).to_string(),
    }
}

/// An API key as operators see it: as much of its hash as tells it from others.
pub fn key_text(hash: &str) -> String {
    format!("api-key:{}", hash.get(..12).unwrap_or(hash))
}

/// Any subject as text.
pub fn id_text(subject: &Subject) -> String {
    match subject {
        Subject::User(id) => user_text(id),
        Subject::ApiKey(hash) => key_text(hash),
        Subject::Address(Some(address)) => address.to_string(),
        Subject::Address(None) => String::new(),
    }
}

/// Whose usage counts together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User(Vec<u8>),
    /// The key's SHA-256, in hex: the key itself goes nowhere.
    ApiKey(String),
    Address(Option<IpAddr>),
}

impl Subject {
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Subject::Address(_))
    }
}

/// SHA-256 in lower-case hex.
pub fn hex_digest(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(nibble.into(), 16));
        }
    }
    hex
}

/// All but letters, digits and `_ . @ -`: no brace, colon or percent sign survives, so that an id
/// can neither end its part of the key nor look like another id's escape.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'@')
    .remove(b'-');

/// An id as text that only this id has.
pub fn escaped(id: &[u8]) -> PercentEncode<'_> {
    percent_encode(id, ESCAPED)
}
