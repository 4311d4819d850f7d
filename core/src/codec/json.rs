//! Strict reading of a JSON document: every field is asked for by name, what nobody asked for is an
//! error, and every error carries the path to what it speaks of. Any object may hold a description,
//! which is for whoever reads the document and is skipped here. It knows JSON, not policies.

mod mistakes;
mod path;

use std::collections::HashSet;
use std::fmt;

pub use mistakes::{ConfigError, Mistakes};
pub use path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// How many bytes of a line an error shows: enough to find the place by, and few enough for a log.
const SHOWN: usize = 120;

/// The member that says why, in any object: JSON has no comments.
const DESCRIPTION: &str = "description";
/// A paragraph. A document has its own bound, and descriptions should not use it up.
const LONGEST_DESCRIPTION: usize = 1024;

/// Names of so few members are compared with each other; of more there is a set.
const FEW_MEMBERS: usize = 16;

/// No field and no word is nearly as long.
const LONGEST_MISSPELLED: usize = 40;

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

/// A value together with the path that leads to it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    pub value: &'a Json,
    pub path: Path<'a>,
}

/// The members of one object, taken one by one; [`Fields::finish`] refuses what is left.
#[derive(Debug)]
pub struct Fields<'a> {
    path: &'a Path<'a>,
    members: Vec<(&'a str, &'a Json, Taken)>,
    asked: Vec<&'static str>,
    lacking: Vec<&'static str>,
}

/// The names of an object's members that came before.
enum Seen<'a> {
    /// As they were kept.
    Few,
    Many(HashSet<&'a str>),
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
            let message = format!("is not JSON: {error}, in the line `{shown}`{hint}");
            Path::root(root).error(message)
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
    /// A whole document, by the name that messages have for it.
    pub fn new(value: &'a Json, root: &'a str) -> Self {
        At {
            value,
            path: Path::root(root),
        }
    }

    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.path.error(message)
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

    pub fn list(&self) -> Result<Vec<At<'_>>, ConfigError> {
        self.items().map(Iterator::collect)
    }

    pub fn items(&self) -> Result<impl Iterator<Item = At<'_>>, ConfigError> {
        let Json::List(items) = self.value else {
            return Err(self.expected("a list"));
        };
        Ok(items.iter().enumerate().map(|(place, value)| At {
            value,
            path: self.path.item(place),
        }))
    }

    /// An object whose member names are data (tiers, networks), in order of writing. A description is
    /// none of them: it is text, which no such member ever is. Of two members of one name the first stays.
    pub fn entries(&self, mistakes: &mut Mistakes) -> Option<Vec<(&'a str, At<'_>)>> {
        let Json::Object(members) = self.value else {
            mistakes.add(self.expected("an object"));
            return None;
        };
        let mut seen = Seen::of(members.len());
        let mut entries: Vec<(&str, At<'_>)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            let is_new = match &mut seen {
                Seen::Few => !entries.iter().any(|(other, _)| other == name),
                Seen::Many(names) => names.insert(name),
            };
            if !is_new {
                mistakes.add(self.error(format!("{name:?} stands here twice; keep one of them")));
                continue;
            }
            let path = self.path.member(name);
            entries.push((name, At { value, path }));
        }
        let is_description =
            |(name, at): &(&str, At<'_>)| *name == DESCRIPTION && matches!(at.value, Json::Text(_));
        if let Some(place) = entries.iter().position(is_description) {
            let (_, at) = entries.remove(place);
            let length = at.text().map_or(0, str::len);
            if length > LONGEST_DESCRIPTION {
                mistakes.add(at.error(format!(
                    "is {length} bytes long; keep it to {LONGEST_DESCRIPTION}"
                )));
            }
        }
        Some(entries)
    }

    /// An object whose member names are fixed.
    pub fn fields(&self) -> Result<Fields<'_>, ConfigError> {
        let mut mistakes = Mistakes::at_most(1);
        let fields = self.members(&mut mistakes);
        match (fields, mistakes.into_first()) {
            (Some(fields), None) => Ok(fields),
            (_, Some(error)) => Err(error),
            (None, None) => Err(self.expected("an object")),
        }
    }

    /// As [`At::fields`], with all that is wrong.
    pub fn members(&self, mistakes: &mut Mistakes) -> Option<Fields<'_>> {
        let entries = self.entries(mistakes)?;
        Some(Fields {
            path: &self.path,
            members: entries
                .into_iter()
                .map(|(name, at)| (name, at.value, Taken::No))
                .collect(),
            asked: Vec::new(),
            lacking: Vec::new(),
        })
    }

    /// The value that this text names among `choices`.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let place = self.word(choices.iter().map(|(name, _)| *name))?;
        let chosen = choices.get(place).map(|(_, value)| *value);
        chosen.ok_or_else(|| self.expected("one of the words"))
    }

    /// The place among `words` of the one that this text is. YAML's `off` and `on` are false and true when
    /// they come as JSON.
    pub fn word<'w>(
        &self,
        words: impl Iterator<Item = &'w str> + Clone,
    ) -> Result<usize, ConfigError> {
        let switch = match self.value {
            Json::Bool(false) => Some("off"),
            Json::Bool(true) => Some("on"),
            _ => None,
        };
        if let Some(place) = words.clone().position(|word| Some(word) == switch) {
            return Ok(place);
        }
        let text = self.text()?;
        words.clone().position(|word| word == text).ok_or_else(|| {
            let all: Vec<String> = words.clone().map(|word| format!("{word:?}")).collect();
            let meant = closest(text, words.clone());
            let meant = meant.map(|meant| format!(" (did you mean {meant:?}?)"));
            self.error(format!(
                "is {text:?}{}; expected one of {}",
                meant.unwrap_or_default(),
                all.join(", ")
            ))
        })
    }
}

impl<'a> Seen<'a> {
    fn of(members: usize) -> Seen<'a> {
        match members {
            ..=FEW_MEMBERS => Seen::Few,
            _ => Seen::Many(HashSet::with_capacity(members)),
        }
    }
}

impl<'a> Fields<'a> {
    pub fn optional(&mut self, name: &'static str) -> Option<At<'a>> {
        self.asked.push(name);
        let mut members = self.members.iter_mut();
        let member = members.find(|(member, ..)| *member == name)?;
        member.2 = Taken::Yes;
        Some(At {
            value: member.1,
            path: self.path.member(name),
        })
    }

    pub fn required(&mut self, name: &'static str) -> Result<At<'a>, ConfigError> {
        self.optional(name).ok_or_else(|| lacks(self.path, name))
    }

    /// As [`Fields::required`]; that it lacks, [`Fields::close`] tells.
    pub fn needed(&mut self, name: &'static str) -> Option<At<'a>> {
        let member = self.optional(name);
        if member.is_none() {
            self.lacking.push(name);
        }
        member
    }

    /// Refuses a field that nobody asked for: a misspelled one must never become a default.
    pub fn finish(self) -> Result<(), ConfigError> {
        let mut mistakes = Mistakes::at_most(1);
        self.close(&mut mistakes);
        mistakes.into_first().map_or(Ok(()), Err)
    }

    /// As [`Fields::finish`], with all that is wrong. What lacks and is probably there under a misspelled
    /// name is told once.
    pub fn close(mut self, mistakes: &mut Mistakes) {
        let untaken = |(_, _, taken): &&(&str, &Json, Taken)| *taken == Taken::No;
        for (name, value, _) in self.members.iter().filter(untaken) {
            let path = self.path.member(name);
            if *name == DESCRIPTION {
                mistakes.add(At { value, path }.expected("a string"));
                continue;
            }
            let is_there = |field: &str| self.members.iter().any(|(own, ..)| *own == field);
            let free = self.asked.iter().filter(|field| !is_there(field));
            let message = match closest(name, free.copied()) {
                Some(meant) => {
                    self.lacking.retain(|field| *field != meant);
                    format!("is not a field here; did you mean {meant:?}?")
                }
                None => format!(
                    "is not a field here; the fields are {}, {DESCRIPTION}",
                    self.asked.join(", ")
                ),
            };
            mistakes.add(path.error(message));
        }
        for name in self.lacking {
            mistakes.add(lacks(self.path, name));
        }
    }
}

fn lacks(path: &Path<'_>, name: &str) -> ConfigError {
    path.error(format!("lacks the field {name:?}"))
}

/// The word that was probably meant. A word of the right letters in another case, or with another stroke
/// between its parts, is always near.
pub fn closest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() > LONGEST_MISSPELLED {
        return None;
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    let most = (word.len() / 3).min(2);
    words
        .map(|other| (strsim::osa_distance(&word, &plain(other)), other))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
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
