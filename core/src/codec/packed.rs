//! Values as bytes, for the other workers of a process (postcard). They may run another version of the
//! filter, whose values have another shape: so the bytes begin with a [`Layout`], which is made of the
//! types themselves, and bytes of another layout are not read. It knows no meaning.

use std::fmt;

use postcard_schema::Schema;
use postcard_schema::key::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Tells the shape of one type from that of every other: a hash over the names and types of its fields
/// and over its enums' members, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout([u8; 8]);

impl Layout {
    /// Of a type. What its bytes depend on besides (an enum that counts are listed by) is made part of it
    /// in a tuple.
    pub const fn of<T: Schema>() -> Layout {
        Layout(Key::for_path::<T>("weir").to_bytes())
    }

    pub fn pack(self, value: &impl Serialize) -> Vec<u8> {
        // Only what cannot tell its length beforehand cannot be packed: nothing that is derived.
        postcard::to_extend(value, self.0.to_vec()).unwrap_or_default()
    }

    /// Nothing of what is not whole, or of another layout. Lists may be as long as the bytes allow.
    pub fn unpack<T: DeserializeOwned>(self, bytes: &[u8]) -> Option<T> {
        postcard::from_bytes(bytes.strip_prefix(&self.0)?).ok()
    }
}

/// For names of what workers share.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
    struct Seen {
        at: u64,
        counts: [u32; 3],
        names: Vec<String>,
    }

    mod other {
        use super::*;

        #[derive(Serialize, Schema)]
        pub struct Seen {
            pub at: u64,
            pub counts: [u32; 4],
            pub names: Vec<String>,
        }

        #[derive(Schema)]
        #[allow(dead_code)]
        pub enum Count {
            Denied,
            Allowed,
        }
    }

    #[derive(Schema)]
    #[allow(dead_code)]
    enum Count {
        Allowed,
        Denied,
    }

    #[test]
    fn whatever_changes_a_shape_changes_its_layout() {
        assert_eq!(Layout::of::<Seen>(), Layout::of::<Seen>());
        assert_ne!(Layout::of::<Seen>(), Layout::of::<other::Seen>());
        assert_ne!(
            Layout::of::<(Seen, Count)>(),
            Layout::of::<(Seen, other::Count)>()
        );
        let strangers = Layout::of::<other::Seen>().pack(&other::Seen {
            at: 1,
            counts: [0; 4],
            names: Vec::new(),
        });
        assert_eq!(Layout::of::<Seen>().unpack::<Seen>(&strangers), None);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(at: u64, counts: [u32; 3], names: Vec<String>) {
            let layout = Layout::of::<Seen>();
            let seen = Seen { at, counts, names };
            let bytes = layout.pack(&seen);
            for end in 0..bytes.len() {
                prop_assert_eq!(layout.unpack::<Seen>(&bytes[..end]), None);
            }
            prop_assert_eq!(layout.unpack(&bytes), Some(seen));
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let layout = Layout::of::<Seen>();
            layout.unpack::<Seen>(&bytes);
            layout.unpack::<Seen>(&[&layout.0[..], &bytes].concat());
        }
    }
}
