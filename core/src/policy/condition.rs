//! What else a request has to be for a rule: the policy's `when`. Here is what a condition asks for and which
//! values it takes; [`crate::decide`] reads them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use memchr::memmem;

use super::document;
use super::key_part::Part;
use crate::codec::json::{Mistakes, Path};
use crate::request::address::{Cidr, Networks};

/// One condition of a rule.
#[derive(Debug)]
pub struct Condition {
    pub part: Part,
    /// Where the proxy keeps it, if it is asked for there.
    pub property: Option<Vec<String>>,
    test: Test,
    sense: Sense,
    /// The test in words.
    written: String,
}

#[derive(Debug)]
enum Test {
    Present,
    OneOf(HashSet<Vec<u8>>),
    Prefix(Vec<u8>),
    /// What stands between the stars.
    Glob(Vec<Vec<u8>>),
    Within(Networks),
}

/// Whether one of the values has to pass the test, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sense {
    Any,
    None,
}

impl Condition {
    pub(super) fn compile(
        written: document::Condition,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<Condition> {
        // What is left out of it would look like another mistake.
        if mistakes.touch(at) {
            return None;
        }
        let document::Condition {
            part,
            header,
            cookie,
            query,
            claim,
            metadata,
            is,
            one_of,
            prefix,
            glob,
            not,
            present,
        } = written;
        let texts = |items: document::Items<String>| -> Vec<String> {
            items.into_iter().map(|(_, text)| text).collect()
        };
        let parts = [
            part,
            header.map(Part::Header),
            cookie.map(Part::Cookie),
            query.map(Part::Query),
            claim.map(|path| Part::Claim(texts(path))),
            metadata.map(|path| Part::Metadata(texts(path))),
        ];
        let Some(part) = only(parts) else {
            mistakes.add(at.error(
                "has to ask for one thing; name one of \"part\", \"header\", \"cookie\", \"query\", \"claim\" and \
                 \"metadata\"",
            ));
            return None;
        };
        if part == Part::Header("host".to_string()) {
            mistakes.add(
                at.member("header")
                    .error("is \"host\", which Envoy names otherwise; write \"part\": \"host\""),
            );
            return None;
        }
        if let Part::Claim(path) | Part::Metadata(path) = &part
            && path.len() < 2
        {
            mistakes.add(at.error(
                "names too little; write the payload_in_metadata of the JWT provider or the namespace, then \
                 the key",
            ));
            return None;
        }
        let tests = [
            is.map(|text| Written::OneOf(vec![text], Sense::Any)),
            one_of.map(|items| Written::OneOf(texts(items), Sense::Any)),
            not.map(|items| Written::OneOf(texts(items), Sense::None)),
            prefix.map(Written::Prefix),
            glob.map(Written::Glob),
            present.map(Written::Present),
        ];
        let Some(test) = only(tests) else {
            mistakes.add(at.error(
                "has to say one thing of it; write one of \"is\", \"in\", \"not\", \"prefix\", \"glob\" and \
                 \"present\"",
            ));
            return None;
        };
        let words = test.to_string();
        let (test, sense) = mistakes.note(test.compile(&part).map_err(|why| at.error(why)))?;
        Some(Condition {
            property: part.property(),
            part,
            test,
            sense,
            written: words,
        })
    }

    /// Whether it holds for these values: all that were sent.
    pub fn holds<'a>(&self, mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> bool {
        let is_met = values.any(|value| match &self.test {
            Test::Present => true,
            Test::OneOf(texts) => texts.contains(value.as_ref()),
            Test::Prefix(prefix) => value.starts_with(prefix),
            Test::Glob(pieces) => is_like(&value, pieces),
            Test::Within(_) => false,
        });
        is_met == (self.sense == Sense::Any)
    }

    /// The same of the client's address.
    pub fn holds_of(&self, address: Option<IpAddr>) -> bool {
        let Test::Within(networks) = &self.test else {
            return false;
        };
        let is_within = address.is_some_and(|address| networks.find(address).is_some());
        is_within == (self.sense == Sense::Any)
    }

    /// Whether a client can leave the rule, or come into it, by what it sends.
    pub fn is_clients_choice(&self) -> bool {
        self.part.needs_belief()
    }
}

/// A test as the policy has it.
enum Written {
    OneOf(Vec<String>, Sense),
    Prefix(String),
    Glob(String),
    Present(bool),
}

impl Written {
    fn compile(self, part: &Part) -> Result<(Test, Sense), String> {
        if *part == Part::Ip {
            let Written::OneOf(texts, sense) = self else {
                return Err(
                    "asks for the address; write \"in\" or \"not\" with networks such as \"10.0.0.0/8\""
                        .to_string(),
                );
            };
            let networks = texts.iter().map(|text| {
                let network: Result<Cidr, _> = text.parse();
                network.map_err(|error| format!("asks for the address, and {text:?} {error}"))
            });
            return Ok((Test::Within(networks.collect::<Result<_, _>>()?), sense));
        }
        let text = |text: String| match part {
            Part::Method => text.to_ascii_uppercase().into_bytes(),
            Part::Host => text.to_ascii_lowercase().into_bytes(),
            _ => text.into_bytes(),
        };
        Ok(match self {
            Written::OneOf(texts, sense) => {
                (Test::OneOf(texts.into_iter().map(text).collect()), sense)
            }
            Written::Prefix(prefix) => (Test::Prefix(text(prefix)), Sense::Any),
            Written::Glob(glob) => {
                let glob = text(glob);
                let pieces = glob.split(|byte| *byte == b'*').map(<[u8]>::to_vec);
                (Test::Glob(pieces.collect()), Sense::Any)
            }
            Written::Present(true) => (Test::Present, Sense::Any),
            Written::Present(false) => (Test::Present, Sense::None),
        })
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::OneOf(texts, Sense::Any) => write!(f, "is {}", texts.join("|")),
            Written::OneOf(texts, Sense::None) => write!(f, "is not {}", texts.join("|")),
            Written::Prefix(text) => write!(f, "is {text}*"),
            Written::Glob(text) => write!(f, "is {text}"),
            Written::Present(true) => f.write_str("is there"),
            Written::Present(false) => f.write_str("is not there"),
        }
    }
}

/// `header x-plan is free|trial`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Header(name) => write!(f, "header {name}")?,
            Part::Cookie(name) => write!(f, "cookie {name}")?,
            Part::Query(name) => write!(f, "query {name}")?,
            Part::Claim(path) => write!(f, "claim {}", path.join("."))?,
            Part::Metadata(path) => write!(f, "metadata {}", path.join("."))?,
            part => write!(f, "{part}")?,
        }
        write!(f, " {}", self.written)
    }
}

/// What is there, if no more is.
fn only<T, const N: usize>(given: [Option<T>; N]) -> Option<T> {
    let mut given = given.into_iter().flatten();
    given.next().filter(|_| given.next().is_none())
}

/// Whether a value has these pieces in order, with anything between two of them. The first place that will
/// do leaves most for those that follow, so nothing is looked at twice.
fn is_like(value: &[u8], pieces: &[Vec<u8>]) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return value.is_empty();
    };
    let Some((last, middles)) = rest.split_last() else {
        return value == first;
    };
    let Some(mut value) = value.strip_prefix(first.as_slice()) else {
        return false;
    };
    for middle in middles {
        let found = memmem::find(value, middle);
        match found.and_then(|place| value.get(place + middle.len()..)) {
            Some(after) => value = after,
            None => return false,
        }
    }
    value.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_pieces_in_order() {
        for (glob, value, is_met) in [
            ("free", "free", true),
            ("free", "freed", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("a*b*c", "axbyc", true),
            ("a*b*c", "axcyb", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("curl/*", "Curl/8", false),
        ] {
            let pieces: Vec<Vec<u8>> = glob.split('*').map(|piece| piece.into()).collect();
            assert_eq!(is_like(value.as_bytes(), &pieces), is_met, "{glob} {value}");
        }
    }
}
