//! What a rule, a tier, an experiment or a variant may be called.

use crate::codec::json::{At, ConfigError};

/// Names end up in keys, metrics and structured fields; 64 keeps all of them short.
const LONGEST_NAME: usize = 64;

pub(crate) fn check_name(name: &str, at: &At<'_>) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() {
        return Err(at.error("has an empty name; use 1 to 64 of A-Z a-z 0-9 _ . -"));
    }
    if name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        return Err(at.error(format!(
            "{name:?} is no name; use 1 to 64 of A-Z a-z 0-9 _ . -"
        )));
    }
    Ok(())
}
