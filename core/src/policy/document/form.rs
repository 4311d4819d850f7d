//! What the fields of a document are made of. Each form reads a value strictly and says what the value may
//! be; [`document!`](super::document) makes objects of them. It knows nothing of rules or limits.

use super::grammar::{About, Shape, Word};
use crate::codec::json::{At, Fields, Json, Mistakes, Path};

/// Reads a value, or notes what is wrong with it.
pub(super) trait Form {
    type Value;
    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Self::Value>;
    fn shape(&self) -> Shape;
}

/// An object whose fields are declared by [`document!`](super::document).
pub trait Object: Sized {
    /// Takes its own fields out of an object's.
    fn take(fields: &mut Fields<'_>, mistakes: &mut Mistakes) -> Option<Self>;
    fn about() -> About;

    fn read(at: &At<'_>, mistakes: &mut Mistakes) -> Option<Self> {
        let mut fields = at.members(mistakes)?;
        let object = Self::take(&mut fields, mistakes);
        fields.close(mistakes);
        object
    }
}

/// What was read of a list. Values that could not be read are left out, and the others keep their places.
#[derive(Clone, Debug)]
pub struct Items<T> {
    items: Vec<(Place, T)>,
    is_whole: bool,
}

/// Where a value stands that may also stand without a list around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Alone,
    Nth(usize),
}

// === Simple values ===

/// A whole number in a range.
pub(super) struct Whole {
    pub least: u64,
    pub most: u64,
    /// What ends the message about one that is too small, and about one that is too large.
    pub why: [&'static str; 2],
}

/// A number in a range.
pub(super) struct Number {
    pub least: f64,
    pub most: f64,
    pub ends: Ends,
    /// What ends the message about one that is outside.
    pub why: &'static str,
}

/// Whether a range holds its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Within,
    Outside,
}

pub(super) struct Flag;

/// One of some words: each with its value, and what it means.
pub(super) struct Words<T: 'static>(pub &'static [(&'static str, T, &'static str)]);

/// A text that has to be of some kind.
pub(super) struct Text<T> {
    pub read: fn(&str) -> Result<T, String>,
    /// What it is, in words.
    pub kind: &'static str,
    /// A regular expression that every such text meets, for editors.
    pub pattern: Option<&'static str>,
}

// === Values made of others ===

/// A list. `empty` is the message about one without items, where that is a mistake.
pub(super) struct ListOf<F> {
    pub of: F,
    pub empty: Option<&'static str>,
}

/// One value, or a list of one at least.
pub(super) struct OneOrMore<F> {
    pub of: F,
    pub empty: &'static str,
}

/// An object whose member names are data.
pub(super) struct MapOf<F> {
    pub name: Text<()>,
    pub of: F,
}

pub(super) struct ObjectOf<T>(pub std::marker::PhantomData<T>);

pub(super) const fn object<T>() -> ObjectOf<T> {
    ObjectOf(std::marker::PhantomData)
}

impl<T> Items<T> {
    pub fn new(items: impl IntoIterator<Item = T>) -> Items<T> {
        let items = items.into_iter().enumerate();
        Items {
            items: items.map(|(nth, item)| (Place::Nth(nth), item)).collect(),
            is_whole: true,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing was left out.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

impl<T> Default for Items<T> {
    fn default() -> Items<T> {
        Items::new([])
    }
}

impl<T> IntoIterator for Items<T> {
    type Item = (Place, T);
    type IntoIter = std::vec::IntoIter<(Place, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl Place {
    /// The path of a value that stands here, by the path of the field.
    pub fn of<'a>(self, field: &'a Path<'a>) -> Path<'a> {
        match self {
            Place::Alone => *field,
            Place::Nth(nth) => field.item(nth),
        }
    }
}

impl Form for Whole {
    type Value = u64;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<u64> {
        let number = mistakes.note(at.whole())?;
        let [too_small, too_large] = self.why;
        let expected = if number < self.least {
            format!("at least {}{too_small}", self.least)
        } else if number > self.most {
            format!("at most {}{too_large}", self.most)
        } else {
            return Some(number);
        };
        mistakes.add(at.error(format!("is {number}; expected {expected}")));
        None
    }

    fn shape(&self) -> Shape {
        Shape::Whole {
            least: self.least,
            most: self.most,
        }
    }
}

impl Form for Number {
    type Value = f64;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<f64> {
        let number = mistakes.note(at.number())?;
        let Number { least, most, .. } = *self;
        let (is_within, [from, to]) = match self.ends {
            Ends::Within => (number >= least && number <= most, ["from", "to"]),
            Ends::Outside => (number > least && number < most, ["above", "and below"]),
        };
        if is_within {
            return Some(number);
        }
        mistakes.add(at.error(format!(
            "is {number}; expected a number {from} {least} {to} {most}{}",
            self.why
        )));
        None
    }

    fn shape(&self) -> Shape {
        Shape::Number {
            least: self.least,
            most: self.most,
            ends: self.ends,
        }
    }
}

impl Form for Flag {
    type Value = bool;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<bool> {
        mistakes.note(at.flag())
    }

    fn shape(&self) -> Shape {
        Shape::Flag
    }
}

impl<T: Copy> Form for Words<T> {
    type Value = T;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<T> {
        let place = mistakes.note(at.word(self.0.iter().map(|(word, ..)| *word)))?;
        self.0.get(place).map(|(_, value, _)| *value)
    }

    fn shape(&self) -> Shape {
        let words = self.0.iter().map(|(word, _, about)| Word { word, about });
        Shape::Words(words.collect())
    }
}

impl<T> Form for Text<T> {
    type Value = T;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<T> {
        let text = mistakes.note(at.text())?;
        mistakes.note((self.read)(text).map_err(|why| at.error(why)))
    }

    fn shape(&self) -> Shape {
        Shape::Text {
            kind: self.kind,
            pattern: self.pattern,
        }
    }
}

impl<F: Form> ListOf<F> {
    fn items<'a>(
        of: &F,
        items: impl Iterator<Item = At<'a>>,
        mistakes: &mut Mistakes,
    ) -> Items<F::Value> {
        let mut read = Items::default();
        for (nth, at) in items.enumerate() {
            match of.read(&at, mistakes) {
                Some(item) => read.items.push((Place::Nth(nth), item)),
                None => read.is_whole = false,
            }
        }
        read
    }
}

impl<F: Form> Form for ListOf<F> {
    type Value = Items<F::Value>;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Items<F::Value>> {
        let items = mistakes.note(at.items())?;
        let read = ListOf::items(&self.of, items, mistakes);
        if let (Some(empty), true, true) = (self.empty, read.is_empty(), read.is_whole) {
            mistakes.add(at.error(empty));
            return None;
        }
        Some(read)
    }

    fn shape(&self) -> Shape {
        Shape::List {
            of: Box::new(self.of.shape()),
            least: usize::from(self.empty.is_some()),
        }
    }
}

impl<F: Form> Form for OneOrMore<F> {
    type Value = Items<F::Value>;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Items<F::Value>> {
        let Ok(items) = at.items() else {
            let item = self.of.read(at, mistakes);
            return Some(Items {
                is_whole: item.is_some(),
                items: item.map(|item| (Place::Alone, item)).into_iter().collect(),
            });
        };
        let read = ListOf::items(&self.of, items, mistakes);
        if read.is_empty() && read.is_whole {
            mistakes.add(at.error(self.empty));
        }
        Some(read)
    }

    fn shape(&self) -> Shape {
        Shape::OneOrMore(Box::new(self.of.shape()))
    }
}

impl<F: Form> Form for MapOf<F> {
    type Value = Vec<(String, F::Value)>;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut read = Vec::new();
        for (name, at) in at.entries(mistakes)? {
            let is_good = mistakes.note((self.name.read)(name).map_err(|why| at.error(why)));
            let value = self.of.read(&at, mistakes);
            if let (Some(()), Some(value)) = (is_good, value) {
                read.push((name.to_string(), value));
            }
        }
        Some(read)
    }

    fn shape(&self) -> Shape {
        Shape::Map {
            name: self.name.kind,
            of: Box::new(self.of.shape()),
        }
    }
}

impl<T: Object> Form for ObjectOf<T> {
    type Value = T;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<T> {
        T::read(at, mistakes)
    }

    fn shape(&self) -> Shape {
        Shape::Object(T::about)
    }
}

// === What becomes of a field that is there, or is not ===

pub(super) fn required<F: Form>(
    fields: &mut Fields<'_>,
    name: &'static str,
    form: &F,
    mistakes: &mut Mistakes,
) -> Option<F::Value> {
    form.read(&fields.needed(name)?, mistakes)
}

/// One that cannot be read is as if it were not there: its mistake is noted, and what else is wrong is still
/// looked for.
pub(super) fn optional<F: Form>(
    fields: &mut Fields<'_>,
    name: &'static str,
    form: &F,
    mistakes: &mut Mistakes,
) -> Option<Option<F::Value>> {
    Some(
        fields
            .optional(name)
            .and_then(|at| form.read(&at, mistakes)),
    )
}

pub(super) fn default<F: Form>(
    fields: &mut Fields<'_>,
    name: &'static str,
    form: &F,
    mistakes: &mut Mistakes,
    value: impl FnOnce() -> F::Value,
) -> Option<F::Value> {
    let read = fields
        .optional(name)
        .and_then(|at| form.read(&at, mistakes));
    Some(read.unwrap_or_else(value))
}

/// Without it, it is what an empty object is.
pub(super) fn filled<F: Form>(
    fields: &mut Fields<'_>,
    name: &'static str,
    form: &F,
    mistakes: &mut Mistakes,
) -> Option<F::Value> {
    const NOTHING: &Json = &Json::Object(Vec::new());
    match fields.optional(name) {
        Some(at) => form.read(&at, mistakes),
        None => form.read(&At::new(NOTHING, name), mistakes),
    }
}
