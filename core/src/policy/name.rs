//! What a rule, a tier, an experiment or a variant may be called.

/// Names end up in keys, metrics and structured fields; 64 keeps all of them short.
const LONGEST_NAME: usize = 64;

pub(super) const NAME_PATTERN: &str = "^[A-Za-z0-9_.-]{1,64}$";

pub(super) fn read(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() {
        return Err("has an empty name; use 1 to 64 of A-Z a-z 0-9 _ . -".to_string());
    }
    if name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        return Err(format!(
            "{name:?} is no name; use 1 to 64 of A-Z a-z 0-9 _ . -"
        ));
    }
    Ok(name.to_string())
}
