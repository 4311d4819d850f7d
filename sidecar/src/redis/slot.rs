//! Hash slots of Redis Cluster
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).

/// A hash slot, below [`SLOTS`].
pub type Slot = u16;

pub const SLOTS: usize = 16384;

/// The slot of a key: of what stands between its first `{` and the next `}`, if anything does.
pub fn slot(key: &[u8]) -> Slot {
    crc16(tag(key)) % SLOTS as u16
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let inner = &key[open + 1..];
    match inner.iter().position(|byte| *byte == b'}') {
        Some(close) if close > 0 => &inner[..close],
        _ => key,
    }
}

/// CRC-16/XMODEM, bit by bit: a hundred bytes of key beside a round trip to Redis.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            let carry = crc & 0x8000 != 0;
            (crc << 1) ^ if carry { 0x1021 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        let table: &[(&[u8], Slot)] = &[
            (b"123456789", 0x31C3),
            (b"foo", 12182),
            (b"{foo}bar", 12182),
            (b"x{foo}{bar}", 12182),
            (b"foo{}{bar}", slot(b"foo{}{bar}")),
        ];
        for (key, expected) in table {
            assert_eq!(slot(key), *expected, "{}", key.escape_ascii());
        }
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
        assert_ne!(slot(b"a{foo"), slot(b"foo"));
    }
}
