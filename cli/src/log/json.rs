//! Lines of JSON: objects whose members have the names that logs commonly use, or those of `--map`.

use std::borrow::Cow;
use std::fmt;

use anyhow::Result;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::format::{COMMON, Place, Slots, Writing};

#[derive(Clone, Debug)]
pub struct JsonLines {
    /// By name; a log has a dozen members, and most lengths are of one name.
    places: Vec<(String, Place)>,
}

impl JsonLines {
    pub fn try_new(map: &[(String, String)], slots: &mut Slots) -> Result<JsonLines> {
        let mut places = Vec::new();
        for (what, name) in map {
            places.push((name.clone(), slots.what(what)?));
        }
        let common = COMMON
            .iter()
            .filter(|(what, _)| map.iter().all(|(mapped, _)| mapped != what));
        for (what, names) in common {
            for name in *names {
                places.push(((*name).to_owned(), slots.what(what)?));
            }
        }
        Ok(JsonLines { places })
    }

    fn place(&self, name: &str) -> &Place {
        let found = self.places.iter().find(|(own, _)| own == name);
        found.map_or(&Place::Nowhere, |(_, place)| place)
    }

    pub fn read(&self, line: &[u8], writing: &mut Writing<'_>) -> Result<(), &'static str> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let mut wrong = None;
        let seed = Object {
            lines: self,
            writing,
            wrong: &mut wrong,
        };
        let read = seed.deserialize(&mut json).and_then(|()| json.end());
        match (wrong, read) {
            (Some(wrong), _) => Err(wrong),
            (None, Ok(())) => Ok(()),
            (None, Err(_)) => Err("is no JSON object"),
        }
    }
}

struct Object<'a, 'b> {
    lines: &'a JsonLines,
    writing: &'a mut Writing<'b>,
    wrong: &'a mut Option<&'static str>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = members.next_key()? {
            match self.lines.place(&name) {
                Place::Nowhere => {
                    members.next_value::<IgnoredAny>()?;
                }
                place => {
                    let Scalar(value) = members.next_value()?;
                    if let Err(wrong) = self.writing.put(place, value.as_bytes()) {
                        self.wrong.get_or_insert(wrong);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(AnyScalar)
            .map(|Scalar(text)| Text(text))
    }
}

/// A scalar as text; anything else is nothing.
struct Scalar<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Owned(format!("{number:.6}"))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(Cow::Borrowed("")))
    }
}
