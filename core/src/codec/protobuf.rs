//! A `google.protobuf.Struct` as JSON: what Envoy hands over, as the bytes of protobuf, where an
//! operator writes the plugin's configuration as YAML and not as a string of JSON. It knows the wire
//! of the three messages that a Struct is made of, and no other.

use crate::codec::json::Json;

/// How deep values may be nested: what a JSON document may be.
const DEEPEST: usize = 128;

/// The wire types that are used here.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// The largest whole number of which a double has all digits.
const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The Struct, if these bytes are one.
pub fn read_struct(bytes: &[u8]) -> Option<Json> {
    object(bytes, DEEPEST)
}

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field off the message.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(message)?;
    let field = match tag & 7 {
        VARINT => Field::Varint(varint(message)?),
        FIXED64 => {
            let (number, rest) = message.split_first_chunk()?;
            *message = rest;
            Field::Fixed64(u64::from_le_bytes(*number))
        }
        BYTES => {
            let length = usize::try_from(varint(message)?).ok()?;
            let (bytes, rest) = message.split_at_checked(length)?;
            *message = rest;
            Field::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// `message Struct { map<string, Value> fields = 1; }`; a map is entries of a key and a value.
fn object(mut message: &[u8], depth: usize) -> Option<Json> {
    let mut members = Vec::new();
    while !message.is_empty() {
        let (1, Field::Bytes(mut entry)) = field(&mut message)? else {
            return None;
        };
        let (mut key, mut member) = ("", Json::Null);
        while !entry.is_empty() {
            match field(&mut entry)? {
                (1, Field::Bytes(name)) => key = std::str::from_utf8(name).ok()?,
                (2, Field::Bytes(bytes)) => member = value(bytes, depth.checked_sub(1)?)?,
                _ => return None,
            }
        }
        members.push((key.to_owned(), member));
    }
    Some(Json::Object(members))
}

/// `message Value`: one of null 1, number 2, string 3, bool 4, struct 5, list 6.
fn value(mut message: &[u8], depth: usize) -> Option<Json> {
    let mut read = Json::Null;
    while !message.is_empty() {
        read = match field(&mut message)? {
            (1, Field::Varint(_)) => Json::Null,
            (2, Field::Fixed64(bits)) => number(f64::from_bits(bits)),
            (3, Field::Bytes(text)) => Json::Text(std::str::from_utf8(text).ok()?.to_owned()),
            (4, Field::Varint(flag)) => Json::Bool(flag != 0),
            (5, Field::Bytes(bytes)) => object(bytes, depth.checked_sub(1)?)?,
            (6, Field::Bytes(bytes)) => list(bytes, depth.checked_sub(1)?)?,
            _ => return None,
        };
    }
    Some(read)
}

/// `message ListValue { repeated Value values = 1; }`
fn list(mut message: &[u8], depth: usize) -> Option<Json> {
    let mut values = Vec::new();
    while !message.is_empty() {
        let (1, Field::Bytes(bytes)) = field(&mut message)? else {
            return None;
        };
        values.push(value(bytes, depth)?);
    }
    Some(Json::List(values))
}

/// All numbers of a Struct are doubles.
fn number(number: f64) -> Json {
    let is_whole = number.fract() == 0.0 && (0.0..MOST_WHOLE).contains(&number);
    match is_whole {
        true => Json::Whole(number as u64),
        false => Json::OtherNumber(number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while number >= 0x80 {
            out.push(0x80 | (number & 0x7f) as u8);
            number >>= 7;
        }
        out.push(number as u8);
        out
    }

    fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
        [&[field << 3 | 2], &varint(bytes.len() as u64)[..], bytes].concat()
    }

    /// The naive way round: as protobuf writes it.
    fn write_value(json: &Json) -> Vec<u8> {
        match json {
            Json::Null => vec![1 << 3, 0],
            Json::Bool(flag) => vec![4 << 3, u8::from(*flag)],
            Json::Whole(number) => write_number(*number as f64),
            Json::OtherNumber(number) => write_number(*number),
            Json::Text(text) => bytes(3, text.as_bytes()),
            Json::List(values) => {
                let values = values.iter().map(|value| bytes(1, &write_value(value)));
                bytes(6, &values.collect::<Vec<_>>().concat())
            }
            Json::Object(_) => bytes(5, &write_struct(json)),
        }
    }

    fn write_number(number: f64) -> Vec<u8> {
        [&[2 << 3 | 1], &number.to_bits().to_le_bytes()[..]].concat()
    }

    fn write_struct(json: &Json) -> Vec<u8> {
        let Json::Object(members) = json else {
            panic!("{json:?} is no object");
        };
        let entries = members.iter().map(|(key, value)| {
            let entry = [bytes(1, key.as_bytes()), bytes(2, &write_value(value))].concat();
            bytes(1, &entry)
        });
        entries.collect::<Vec<_>>().concat()
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            (0u64..1 << 53).prop_map(Json::Whole),
            (-1e9..-0.5f64).prop_map(Json::OtherNumber),
            ".{0,300}".prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
                proptest::collection::vec((".{0,9}", inner), 0..4).prop_map(Json::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(json in any_json()) {
            let whole = Json::Object(vec![("a".to_owned(), json)]);
            prop_assert_eq!(read_struct(&write_struct(&whole)), Some(whole));
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            read_struct(&bytes);
        }
    }

    #[test]
    fn what_is_nested_beyond_a_documents_depth_is_none() {
        let nested = |depth: usize| {
            let list = (0..depth).fold(Json::Null, |inner, _| Json::List(vec![inner]));
            read_struct(&write_struct(&Json::Object(vec![("a".to_owned(), list)])))
        };
        assert!(nested(100).is_some());
        assert!(nested(1000).is_none());
    }
}
