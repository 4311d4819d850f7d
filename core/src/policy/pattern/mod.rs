//! Which paths a rule is for: a glob over whole paths. `read` takes it apart, `possible` refuses what no
//! path can be, `mend` offers what was meant, `index` finds the patterns that a path meets, `capture`
//! takes segments out of it, and `except` knows the paths that a rule leaves out.
//!
//! It knows paths as [`crate::request::path`] makes them and how else servers read them ([`crate::request::reading`]). It
//! knows rules only by their places.

mod capture;
mod except;
mod index;
mod mend;
mod possible;
mod read;

use std::fmt;

pub(super) use capture::Captures;
pub(super) use except::Exceptions;
use index::LONGEST_MIXED;
pub use index::LONGEST_PATH;
pub(super) use index::{Index, IndexBuilder};
pub(super) use read::is_capture_name;

use crate::request::path::escaped;

/// How closely a path has to be what a pattern says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// Any way in which a server may read the path will do.
    Loose,
    /// Only the path as the router sees it.
    Exact,
}

/// A pattern that some path can meet, in each of its alternatives.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    branches: Vec<Branch>,
    /// Whether it has a class that leaves letters out, as `[!a-z]` does.
    excludes_letters: bool,
    /// The names of the segments that it captures.
    captures: Vec<String>,
}

/// One way through a pattern, alternatives written out.
type Branch = Vec<Token>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One byte of these; never a slash.
    Class(Class),
    /// Any bytes, slashes among them. No two stand side by side.
    Star,
    /// A whole segment, of one byte at least, that is no `.` and no `..`.
    Capture(String),
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class([u64; 4]);

impl Pattern {
    /// Reads a pattern, or says why no path can meet it and what to write instead.
    pub fn try_new(text: &str) -> Result<Pattern, String> {
        Pattern::plainly(text).map_err(|why| match mend::mended(text) {
            Some(mended) => format!("{text:?} {why}; write {mended:?}"),
            None => format!("{text:?} {why}"),
        })
    }

    /// As [`Pattern::try_new`], without an offer.
    fn plainly(text: &str) -> Result<Pattern, String> {
        let read::Read {
            branches,
            excludes_letters,
            captures,
        } = read::read(text)?;
        for branch in &branches {
            let mut pieces = branch.split(|token| *token == Token::Star);
            let is_mixed = |piece: &&[Token]| piece.iter().any(|t| matches!(t, Token::Class(_)));
            if pieces.any(|piece| piece.len() > LONGEST_MIXED && is_mixed(&piece)) {
                return Err(format!(
                    "has more than {LONGEST_MIXED} characters between two stars, some of them \"?\" or \
                     [a-z]; take a star instead"
                ));
            }
            let mut behind_stars = branch.split(|token| *token == Token::Star).skip(1);
            let captures = |piece: &&[Token]| piece.iter().any(|t| matches!(t, Token::Capture(_)));
            if behind_stars.any(|piece| piece.len() > LONGEST_MIXED && captures(&piece)) {
                return Err(format!(
                    "has a star and more than {LONGEST_MIXED} characters behind it, with a capture among \
                     them; begin with what is known"
                ));
            }
            possible::check(branch).map_err(|why| match branches.as_slice() {
                [_] => format!("can match no path: {why}"),
                _ => format!(
                    "has an alternative that can match no path, {:?}: {why}",
                    Shown(branch).to_string()
                ),
            })?;
        }
        Ok(Pattern {
            written: text.to_string(),
            branches,
            excludes_letters,
            captures,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.written
    }

    pub fn excludes_letters(&self) -> bool {
        self.excludes_letters
    }

    /// The names of the segments that it captures, in order.
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// Whether no path meets both, as their beginnings tell. It may be so where they do not.
    pub fn begins_apart_from(&self, other: &Pattern) -> bool {
        let begun = |pattern: &Pattern| -> Vec<Vec<u8>> {
            let branches = pattern.sought(Matching::Loose);
            branches.iter().map(|branch| beginning(branch)).collect()
        };
        let (own, others) = (begun(self), begun(other));
        own.iter().all(|own| {
            let mut others = others.iter();
            others.all(|other| !own.starts_with(other) && !other.starts_with(own))
        })
    }

    /// What the index looks for: of a loose pattern every reading of it, with and without a last slash.
    fn sought(&self, matching: Matching) -> Vec<Branch> {
        let mut sought: Vec<Branch> = Vec::new();
        let mut add = |branch: Branch| {
            if !sought.contains(&branch) {
                sought.push(branch);
            }
        };
        for branch in &self.branches {
            match matching {
                Matching::Exact => add(branch.clone()),
                Matching::Loose => {
                    for reading in readings(branch) {
                        let slashless = without_last_slash(&reading);
                        let is_root = matches!(reading.as_slice(), [Token::Byte(b'/')]);
                        if is_root || !matches!(reading.last(), Some(Token::Byte(b'/'))) {
                            add(reading);
                        }
                        slashless.into_iter().for_each(&mut add);
                    }
                }
            }
        }
        sought
    }
}

/// A branch as the readings of a path have it: in lower case, with escapes and parameters as they are
/// and decoded and cut. Dot segments that decoding lays bare stay: a path has them in a reading, too.
fn readings(branch: &[Token]) -> Vec<Branch> {
    let kept = branch.to_vec();
    let decoded = decode(branch);
    let (cut, cut_decoded) = (cut_parameters(&kept), cut_parameters(&decoded));
    let mut readings: Vec<Branch> = Vec::new();
    for mut reading in [kept, decoded, cut, cut_decoded] {
        for token in &mut reading {
            match token {
                Token::Byte(byte) => byte.make_ascii_lowercase(),
                Token::Class(class) => *class = class.with_lowercase(),
                Token::Star | Token::Capture(_) => {}
            }
        }
        reading.dedup_by(|one, other| one == other && matches!(one, Token::Byte(b'/')));
        if !reading.is_empty() && !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

/// The bytes before the first wildcard.
fn beginning(branch: &[Token]) -> Vec<u8> {
    let bytes = branch.iter().map_while(|token| match token {
        Token::Byte(byte) => Some(*byte),
        Token::Class(_) | Token::Star | Token::Capture(_) => None,
    });
    bytes.collect()
}

/// All that a branch would match with a slash after it.
fn without_last_slash(branch: &[Token]) -> Option<Branch> {
    let rest = match branch {
        // Whatever the star takes besides the slash, the whole branch takes already.
        [rest @ .., Token::Byte(b'/'), Token::Star] | [rest @ .., Token::Byte(b'/')] => rest,
        _ => return None,
    };
    (!rest.is_empty()).then(|| rest.to_vec())
}

fn decode(branch: &[Token]) -> Branch {
    let mut out = Vec::with_capacity(branch.len());
    let mut rest = branch;
    while let Some((token, tail)) = rest.split_first() {
        rest = tail;
        let mut token = token.clone();
        if token == Token::Byte(b'%')
            && let [Token::Byte(high), Token::Byte(low), after @ ..] = tail
            && let Some(byte) = escaped(*high, *low)
        {
            token = Token::Byte(if byte == b'\\' { b'/' } else { byte });
            rest = after;
        }
        out.push(token);
    }
    out
}

/// Without what stands between a `;` and the next slash.
fn cut_parameters(branch: &[Token]) -> Branch {
    let mut is_cut = false;
    let tokens = branch.iter().filter(|token| {
        is_cut = match token {
            Token::Byte(b';') => true,
            Token::Byte(b'/') => false,
            _ => is_cut,
        };
        !is_cut
    });
    let mut out: Branch = Vec::with_capacity(branch.len());
    for token in tokens {
        push(&mut out, token.clone());
    }
    out
}

/// Keeps stars apart.
fn push(branch: &mut Branch, token: Token) {
    if token != Token::Star || branch.last() != Some(&Token::Star) {
        branch.push(token);
    }
}

impl Class {
    const NONE: Class = Class([0; 4]);
    /// What `?` stands for.
    const ANY: Class = Class([!(1 << b'/'), u64::MAX, u64::MAX, u64::MAX]);

    fn place(byte: u8) -> (usize, u64) {
        (usize::from(byte >> 6), 1 << (byte & 63))
    }

    fn insert(&mut self, byte: u8) {
        let (word, bit) = Class::place(byte);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn contains(&self, byte: u8) -> bool {
        let (word, bit) = Class::place(byte);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|byte| self.contains(*byte))
    }

    /// All others but the slash.
    fn negated(self) -> Class {
        let Class([a, b, c, d]) = self;
        Class([!a & !(1 << b'/'), !b, !c, !d])
    }

    /// With the small letter of each capital in it: what it matches, it matches in lower case.
    fn with_lowercase(mut self) -> Class {
        for byte in b'A'..=b'Z' {
            if self.contains(byte) {
                self.insert(byte.to_ascii_lowercase());
            }
        }
        self
    }
}

/// A branch as a pattern that says the same.
struct Shown<'a>(&'a [Token]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(mut rest) = *self;
        while let Some((token, tail)) = rest.split_first() {
            rest = tail;
            match token {
                Token::Star => f.write_str("*")?,
                Token::Capture(name) => write!(f, "{{{name}}}")?,
                Token::Class(Class::ANY) => f.write_str("?")?,
                Token::Class(_) => f.write_str("[…]")?,
                Token::Byte(byte) if byte.is_ascii() => write!(f, "{}", char::from(*byte))?,
                Token::Byte(first) => {
                    let mut bytes = vec![*first];
                    while let Some((Token::Byte(byte @ 0x80..), tail)) = rest.split_first() {
                        bytes.push(*byte);
                        rest = tail;
                    }
                    f.write_str(&String::from_utf8_lossy(&bytes))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
