//! FNV-1a of 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): a quick hash of short texts that is
//! the same everywhere and in every version. Whoever chooses the text chooses the hash.

/// The hash of nothing.
pub const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

pub fn of(bytes: &[u8]) -> u64 {
    extend(EMPTY, bytes)
}

/// The hash of what was hashed before and these bytes behind it.
pub fn extend(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_that_others_compute() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(of(text.as_bytes()), hash, "{text}");
        }
        assert_eq!(extend(of(b"foo"), b"bar"), of(b"foobar"));
    }
}
