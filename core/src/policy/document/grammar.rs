//! What may stand in a document, as data: for those who write it down (a schema, a reference, a seed). The
//! filter asks for none of it, so the linker leaves it out.

use super::form::Ends;

/// An object: what it is, and its fields in the order in which people write them.
#[derive(Clone, Debug)]
pub struct About {
    pub name: &'static str,
    pub about: String,
    pub fields: Vec<Field>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    pub about: String,
    /// Of a number.
    pub unit: Option<&'static str>,
    pub presence: Presence,
    pub shape: Shape,
    /// A value, as JSON.
    pub example: &'static str,
    /// Members that the example needs beside it, as JSON.
    pub beside: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Required,
    /// What holds without it, in words; nothing where it then says nothing.
    Optional(&'static str),
    /// What it is without being written, as JSON.
    Default(&'static str),
}

/// What a value may be.
#[derive(Clone, Debug)]
pub enum Shape {
    Whole {
        least: u64,
        most: u64,
    },
    Number {
        least: f64,
        most: f64,
        ends: Ends,
    },
    Flag,
    Words(Vec<Word>),
    Text {
        kind: &'static str,
        pattern: Option<&'static str>,
    },
    List {
        of: Box<Shape>,
        least: usize,
    },
    OneOrMore(Box<Shape>),
    Map {
        /// What its names are.
        name: &'static str,
        of: Box<Shape>,
    },
    Object(fn() -> About),
    Either(Vec<Shape>),
}

#[derive(Clone, Debug)]
pub struct Word {
    pub word: &'static str,
    pub about: &'static str,
}

impl About {
    /// This object and all that stand in it, each once, in the order in which they are met.
    pub fn all(self) -> Vec<About> {
        let mut all: Vec<About> = vec![self];
        let mut next = 0;
        while let Some(object) = all.get(next) {
            let mut within = Vec::new();
            for field in &object.fields {
                field.shape.objects(&mut within);
            }
            for about in within {
                if !all.iter().any(|known| known.name == about.name) {
                    all.push(about);
                }
            }
            next += 1;
        }
        all
    }
}

impl Shape {
    /// The objects that it is made of.
    pub fn objects(&self, out: &mut Vec<About>) {
        match self {
            Shape::Object(about) => out.push(about()),
            Shape::List { of, .. } | Shape::OneOrMore(of) | Shape::Map { of, .. } => {
                of.objects(out);
            }
            Shape::Either(shapes) => shapes.iter().for_each(|shape| shape.objects(out)),
            Shape::Whole { .. }
            | Shape::Number { .. }
            | Shape::Flag
            | Shape::Words(_)
            | Shape::Text { .. } => {}
        }
    }
}

/// The lines of a doc comment as one text.
pub(super) fn sentence(lines: &str) -> String {
    lines.split_whitespace().collect::<Vec<_>>().join(" ")
}
