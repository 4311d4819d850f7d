//! Strict reading of a JSON document: every field is asked for by name, what nobody asked for is an
//! error, and every error carries the path to what it speaks of. Any object may hold a description,
//! which is for whoever reads the document and is skipped here. It knows JSON, not policies.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// How many bytes of a line an error shows: enough to find the place by, and few enough for a log.
const SHOWN: usize = 120;

/// The member that says why, in any object: JSON has no comments.
const DESCRIPTION: &str = "description";
/// A paragraph. A document has its own bound, and descriptions should not use it up.
const LONGEST_DESCRIPTION: usize = 1024;

/// What some editors put before a text. Nobody sees it, and JSON does not allow it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// 2^50: reading a fraction may be off by a digit of the double, which below this is less than a quarter, so
/// that no whole number is taken for another.
const SURELY_WHOLE: f64 = 1_125_899_906_842_624.0;

/// A JSON value as written: objects keep the order of their members, and duplicates.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Whole(u64),
    /// A number that is negative, fractional or beyond 64 bits; kept for the message only.
    OtherNumber(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What is wrong, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub path: String,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// A value together with the path that leads to it.
#[derive(Clone, Debug)]
pub struct At<'a> {
    pub value: &'a Json,
    pub path: String,
}

/// The members of one object, taken one by one; [`Fields::finish`] refuses what is left.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    members: Vec<(&'a str, &'a Json, Taken)>,
    asked: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
}

impl Json {
    /// Parses a whole document. `root` names it in paths and messages.
    pub fn parse(text: &str, root: &str) -> Result<Json, ConfigError> {
        serde_json::from_str(text).map_err(|error| {
            let line = text.lines().nth(error.line().saturating_sub(1));
            let line = line.unwrap_or("");
            let shown = around(line, error.column());
            let rest = line.as_bytes().get(error.column().saturating_sub(1)..);
            let hint = match rest.is_some_and(|rest| rest.starts_with(BYTE_ORDER_MARK)) {
                true => {
                    ", before which there is an invisible byte order mark; save the file without it"
                }
                false => "",
            };
            ConfigError {
                path: root.to_string(),
                message: format!("is not JSON: {error}, in the line `{shown}`{hint}"),
            }
        })
    }

    fn kind(&self) -> String {
        match self {
            Json::Null => "null".to_string(),
            Json::Bool(value) => value.to_string(),
            Json::Whole(number) => number.to_string(),
            Json::OtherNumber(number) => number.to_string(),
            Json::Text(text) => format!("the string {text:?}"),
            Json::List(_) => "a list".to_string(),
            Json::Object(_) => "an object".to_string(),
        }
    }
}

impl<'a> At<'a> {
    pub fn new(value: &'a Json, path: impl Into<String>) -> Self {
        At {
            value,
            path: path.into(),
        }
    }

    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            message: message.into(),
        }
    }

    pub fn expected(&self, what: &str) -> ConfigError {
        self.error(format!("is {}; expected {what}", self.value.kind()))
    }

    pub fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value {
            Json::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// However it is written: `10.0` and `1e3`, as converters write them, are whole.
    pub fn whole(&self) -> Result<u64, ConfigError> {
        match self.value {
            Json::Whole(number) => Ok(*number),
            Json::OtherNumber(number)
                if number.fract() == 0.0 && (0.0..SURELY_WHOLE).contains(number) =>
            {
                Ok(*number as u64)
            }
            _ => Err(self.expected("a whole number below 2^64")),
        }
    }

    pub fn number(&self) -> Result<f64, ConfigError> {
        match self.value {
            Json::Whole(number) => Ok(*number as f64),
            Json::OtherNumber(number) => Ok(*number),
            _ => Err(self.expected("a number")),
        }
    }

    pub fn flag(&self) -> Result<bool, ConfigError> {
        match self.value {
            Json::Bool(flag) => Ok(*flag),
            _ => Err(self.expected("true or false")),
        }
    }

    pub fn list(&self) -> Result<Vec<At<'a>>, ConfigError> {
        match self.value {
            Json::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(i, item)| At::new(item, format!("{}[{i}]", self.path)))
                .collect()),
            _ => Err(self.expected("a list")),
        }
    }

    /// One value, or a list of them.
    pub fn one_or_list(&self) -> Result<Vec<At<'a>>, ConfigError> {
        match self.value {
            Json::List(_) => self.list(),
            _ => Ok(vec![self.clone()]),
        }
    }

    /// An object whose member names are data (tiers, networks), in order of writing. A description is
    /// none of them: it is text, which no such member ever is.
    pub fn entries(&self) -> Result<Vec<(&'a str, At<'a>)>, ConfigError> {
        let Json::Object(members) = self.value else {
            return Err(self.expected("an object"));
        };
        let mut entries: Vec<(&str, At<'_>)> = Vec::with_capacity(members.len());
        let mut seen = HashSet::with_capacity(members.len());
        for (name, value) in members {
            if !seen.insert(name) {
                return Err(self.error(format!("{name:?} stands here twice; keep one of them")));
            }
            entries.push((name, At::new(value, member_path(&self.path, name))));
        }
        let description = entries
            .iter()
            .position(|(name, at)| *name == DESCRIPTION && matches!(at.value, Json::Text(_)));
        if let Some(place) = description {
            let (_, at) = entries.remove(place);
            let length = at.text()?.len();
            if length > LONGEST_DESCRIPTION {
                return Err(at.error(format!(
                    "is {length} bytes long; keep it to {LONGEST_DESCRIPTION}"
                )));
            }
        }
        Ok(entries)
    }

    /// An object whose member names are fixed.
    pub fn fields(&self) -> Result<Fields<'a>, ConfigError> {
        let entries = self.entries()?;
        Ok(Fields {
            path: self.path.clone(),
            members: entries
                .into_iter()
                .map(|(name, at)| (name, at.value, Taken::No))
                .collect(),
            asked: Vec::new(),
        })
    }

    /// The value that this text names among `choices`. YAML's `off` and `on` are false and true when
    /// they come as JSON.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let switch = match self.value {
            Json::Bool(false) => Some("off"),
            Json::Bool(true) => Some("on"),
            _ => None,
        };
        let switch = switch.and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, value)) = switch {
            return Ok(*value);
        }
        let text = self.text()?;
        choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let names: Vec<String> = choices
                    .iter()
                    .map(|(name, _)| format!("{name:?}"))
                    .collect();
                self.error(format!("is {text:?}; expected one of {}", names.join(", ")))
            })
    }
}

impl<'a> Fields<'a> {
    pub fn optional(&mut self, name: &'static str) -> Option<At<'a>> {
        self.asked.push(name);
        let member = self
            .members
            .iter_mut()
            .find(|(member, ..)| *member == name)?;
        member.2 = Taken::Yes;
        Some(At::new(member.1, member_path(&self.path, name)))
    }

    pub fn required(&mut self, name: &'static str) -> Result<At<'a>, ConfigError> {
        self.optional(name).ok_or_else(|| ConfigError {
            path: self.path.clone(),
            message: format!("lacks the field {name:?}"),
        })
    }

    /// Refuses a field that nobody asked for: a misspelled one must never become a default.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self
            .members
            .iter()
            .find(|(_, _, taken)| *taken == Taken::No)
        {
            None => Ok(()),
            Some((DESCRIPTION, value, _)) => {
                Err(At::new(value, member_path(&self.path, DESCRIPTION)).expected("a string"))
            }
            Some((name, ..)) => Err(ConfigError {
                path: member_path(&self.path, name),
                message: format!(
                    "is not a field here; the fields are {}, {DESCRIPTION}",
                    self.asked.join(", ")
                ),
            }),
        }
    }
}

/// `a.b` for plain names, `a["10.0.0.0/8"]` for those that would read as a path themselves.
fn member_path(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain {
        format!("{path}.{name}")
    } else {
        format!("{path}[{name:?}]")
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::OtherNumber(value as f64), Json::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}

/// A line around a column (in bytes, from 1): a document may be one line, and half a megabyte would
/// bury what is wrong.
fn around(line: &str, column: usize) -> String {
    let place = |wanted: usize| {
        let mut before = (0..=wanted.min(line.len())).rev();
        before.find(|at| line.is_char_boundary(*at)).unwrap_or(0)
    };
    let centred = column.saturating_sub(SHOWN / 2);
    let start = place(centred.min(line.len().saturating_sub(SHOWN)));
    let end = place(start.saturating_add(SHOWN));
    let shown = line.get(start..end).unwrap_or("").trim();
    let (before, after) = (
        if start > 0 { "…" } else { "" },
        if end < line.len() { "…" } else { "" },
    );
    format!("{before}{shown}{after}")
}

#[cfg(test)]
mod tests;
