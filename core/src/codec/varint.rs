//! Numbers and bytes one after the other, small numbers in few bytes (LEB128): how workers leave one
//! another what they have counted. It knows no meaning, and reading past an end is nothing.

/// Writes.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

/// Reads.
#[derive(Clone, Debug)]
pub struct Packed<'a>(&'a [u8]);

impl Packer {
    pub fn number(&mut self, mut number: u64) {
        while let more @ 1.. = number >> 7 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number = more;
        }
        self.0.push(number as u8);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Packed<'a> {
    pub fn new(bytes: &'a [u8]) -> Packed<'a> {
        Packed(bytes)
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(number: u64, small in 0..300u64, bytes: Vec<u8>) {
            let mut packer = Packer::default();
            packer.number(number);
            packer.bytes(&bytes);
            packer.number(small);
            let packed = packer.finish();
            let mut reader = Packed::new(&packed);
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.bytes(), Some(&bytes[..]));
            prop_assert_eq!(reader.number(), Some(small));
            prop_assert_eq!(reader.number(), None);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let mut reader = Packed::new(&bytes);
            while reader.number().is_some() && reader.bytes().is_some() {}
        }
    }
}
