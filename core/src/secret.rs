//! What only some may know: compared without telling how much of a guess was right, and never
//! printed.

use std::fmt;

use crate::json::{At, ConfigError};

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

/// A secret that travels as a header's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    TooShort,
    /// Something that a header's value does not carry unchanged.
    NotPlain,
}

impl Secret {
    pub fn try_new(text: &str) -> Result<Secret, SecretError> {
        if text.len() < SHORTEST {
            return Err(SecretError::TooShort);
        }
        let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !plain || text.trim() != text {
            return Err(SecretError::NotPlain);
        }
        Ok(Secret(text.to_string()))
    }

    pub fn read(at: &At<'_>) -> Result<Secret, ConfigError> {
        Secret::try_new(at.text()?).map_err(|error| at.error(error.to_string()))
    }

    /// Takes the same time wherever the two differ, so that it cannot be found byte by byte.
    pub fn is(&self, given: &[u8]) -> bool {
        let expected = self.0.as_bytes();
        let differ = expected
            .iter()
            .zip(given)
            .fold(0, |differ, (a, b)| differ | (a ^ b));
        expected.len() == given.len() && differ == 0
    }

    /// For whoever sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretError::TooShort => "is shorter than 16 bytes and could be guessed; lengthen it",
            SecretError::NotPlain => {
                "has bytes that a header does not carry; use ASCII, without spaces at its ends"
            }
        })
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_and_nothing_else() {
        let secret = Secret::try_new("0123456789abcdef").unwrap();
        for (given, is) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeg", false),
            ("1123456789abcdef", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(secret.is(given.as_bytes()), is, "{given}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for (text, error) in [
            ("0123456789abcde", SecretError::TooShort),
            ("0123456789abcdef\n", SecretError::NotPlain),
            (" 0123456789abcdef", SecretError::NotPlain),
            ("0123456789abcdefé", SecretError::NotPlain),
        ] {
            assert_eq!(Secret::try_new(text), Err(error), "{text:?}");
        }
    }
}
