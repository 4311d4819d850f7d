//! What only some may know: compared without telling how much of a guess was right, and never
//! printed.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::codec::json::{At, ConfigError};

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

/// Hex digits of a SHA-256.
pub const DIGEST_DIGITS: usize = 64;

/// A secret that travels as a header's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A secret's SHA-256: enough to know the secret by, and nothing to come in with for who reads it.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

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
        self.0.as_bytes().ct_eq(given).into()
    }

    /// For whoever sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Fingerprint {
    pub fn of(secret: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(secret).into())
    }

    /// From 64 hex digits. What is none is not told: it may be the secret itself.
    pub fn try_new(text: &str) -> Result<Fingerprint, String> {
        let wrong = || {
            "is no SHA-256 in hex; write what `printf %s SECRET | sha256sum` prints, 64 digits"
                .to_string()
        };
        if text.len() != DIGEST_DIGITS {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for digit in digits {
                let digit = char::from(*digit).to_digit(16).ok_or_else(wrong)?;
                *byte = (*byte << 4) | u8::try_from(digit).map_err(|_| wrong())?;
            }
        }
        let fingerprint = Fingerprint(bytes);
        if fingerprint.is(&Fingerprint::of(b"")) {
            return Err(
                "is the SHA-256 of nothing: the variable that held the secret was empty; write \
                 what `printf %s SECRET | sha256sum` prints"
                    .to_string(),
            );
        }
        Ok(fingerprint)
    }

    /// Takes the same time wherever the two differ, and however long the secrets are that they are of.
    pub fn is(&self, other: &Fingerprint) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A few of its bytes, which tell it from others.
    pub fn short(&self) -> u64 {
        self.0
            .iter()
            .take(8)
            .fold(0, |short, byte| (short << 8) | u64::from(*byte))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
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
    fn a_fingerprint_is_of_one_secret() {
        let read = Fingerprint::try_new;
        // printf %s 0123456789abcdef | sha256sum
        let digits = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        for digits in [digits.to_string(), digits.to_uppercase()] {
            let known = read(&digits).unwrap();
            assert!(known.is(&Fingerprint::of(b"0123456789abcdef")));
            assert!(!known.is(&Fingerprint::of(b"0123456789abcdeg")));
            assert!(!known.is(&Fingerprint::of(b"")));
        }
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, reason) in [
            (digits.strip_prefix('9').unwrap(), "is no SHA-256"),
            (&digits.replace('9', "g"), "is no SHA-256"),
            ("the-secret-itself", "is no SHA-256"),
            (of_nothing, "of nothing"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("the-secret-itself"), "{error}");
        }
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
