//! Finds the rules whose patterns a path meets, in one walk over its bytes, whatever the number of rules.
//! Patterns are sorted by what they begin with; of those that begin as the path does most have nothing
//! more to ask (`/api/*`), and the others are gone through once.
//!
//! No pattern costs more than one look at each byte, because a path is written by a stranger.

use std::collections::BTreeMap;

use memchr::memmem::Finder;

use super::{Branch, Class, Matching, Pattern, Token, beginning};
use crate::request::reading;

/// A longer path meets every pattern: what it costs to look at it is bounded so, and no rule is walked
/// around. Few servers take a path half as long.
pub const LONGEST_PATH: usize = 4096;

/// How many of a pattern's characters may stand between two stars where `?` or a class is among them:
/// as many as a machine word has bits.
pub(super) const LONGEST_MIXED: usize = 64;

#[derive(Debug, Default)]
pub struct Index {
    /// By what the path begins with, and by what it ends in, read backwards.
    beginnings: Vec<Entry>,
    endings: Vec<Entry>,
    rests: Vec<Rest>,
    rules: usize,
    is_loose: bool,
}

#[derive(Debug, Default)]
pub struct IndexBuilder {
    beginnings: BTreeMap<Vec<u8>, Vec<Member>>,
    endings: BTreeMap<Vec<u8>, Vec<Member>>,
    rests: Vec<Rest>,
    rules: usize,
    is_loose: bool,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    rule: usize,
    matching: Matching,
    then: Then,
}

/// What has to follow.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    Anything,
    /// The rest of this number.
    Rest(usize),
}

/// What follows a pattern's first literal text.
#[derive(Debug)]
struct Rest {
    head: Vec<Class>,
    /// What stands between stars, in order.
    middles: Vec<Middle>,
    /// What stands behind the last star; nothing where there is no star.
    tail: Option<Vec<Class>>,
}

#[derive(Debug)]
pub(super) enum Middle {
    Literal(Box<Finder<'static>>),
    Mixed(Shifts),
}

/// Finds a run of classes bit by bit, all places at once: bit n of `at` is whether what was read last is
/// the run's first n + 1 (Baeza-Yates and Gonnet's Shift-And). So no input makes it look back.
#[derive(Debug)]
pub(super) struct Shifts {
    /// For each byte the places that it may stand at.
    places: Vec<u64>,
    last: u64,
}

impl IndexBuilder {
    /// Adds the next rule, which is for all of these.
    pub fn add(&mut self, patterns: &[Pattern], matching: Matching) {
        let rule = self.rules;
        self.rules += 1;
        self.is_loose |= matching == Matching::Loose;
        for pattern in patterns {
            for branch in pattern.sought(matching) {
                self.add_branch(rule, matching, &widened(branch));
            }
        }
    }

    fn add_branch(&mut self, rule: usize, matching: Matching, branch: &Branch) {
        let text = beginning(branch);
        let rest = branch.get(text.len()..).unwrap_or_default();
        let member = |entries: &mut BTreeMap<Vec<u8>, Vec<Member>>, text: Vec<u8>, then| {
            entries.entry(text).or_default().push(Member {
                rule,
                matching,
                then,
            });
        };
        match rest {
            [] => member(&mut self.beginnings, text, Then::Nothing),
            [Token::Star] => member(&mut self.beginnings, text, Then::Anything),
            [Token::Star, tail @ ..] if text.is_empty() && literal(tail).is_some() => {
                let mut ending = literal(tail).unwrap_or_default();
                ending.reverse();
                member(&mut self.endings, ending, Then::Anything);
            }
            _ => {
                let number = self.rests.len();
                self.rests.push(Rest::new(rest));
                member(&mut self.beginnings, text, Then::Rest(number));
            }
        }
    }

    pub fn build(self) -> Index {
        let entries = |entries: BTreeMap<Vec<u8>, Vec<Member>>| {
            let entry = |(text, members): (Vec<u8>, Vec<Member>)| Entry {
                text: text.into(),
                members,
            };
            entries.into_iter().map(entry).collect()
        };
        Index {
            beginnings: entries(self.beginnings),
            endings: entries(self.endings),
            rests: self.rests,
            rules: self.rules,
            is_loose: self.is_loose,
        }
    }
}

impl Index {
    /// The rules for a path, by their places, in order.
    pub fn rules(&self, path: &[u8]) -> Vec<usize> {
        if path.len() > LONGEST_PATH {
            return (0..self.rules).collect();
        }
        let mut rules = Vec::new();
        self.look(path, |member| rules.push(member.rule));
        if self.is_loose {
            for other in reading::others(path) {
                self.look(&other, |member| {
                    if member.matching == Matching::Loose {
                        rules.push(member.rule);
                    }
                });
            }
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Whether these bytes meet any of the patterns as they are, and by no other reading.
    pub fn is_met(&self, path: &[u8]) -> bool {
        let mut is_met = false;
        if path.len() <= LONGEST_PATH {
            self.look(path, |_| is_met = true);
        }
        is_met
    }

    /// How many patterns one path may have to be gone through for, at most: those that begin alike and
    /// have a star in their middle.
    pub fn most_gone_through(&self) -> usize {
        let mut most = 0;
        // The beginnings of the entry at hand, each with what they add up to.
        let mut open: Vec<(&[u8], usize)> = Vec::new();
        for Entry { text, members } in &self.beginnings {
            while open
                .last()
                .is_some_and(|(start, _)| !text.starts_with(start))
            {
                open.pop();
            }
            let own = members.iter().filter_map(|member| match member.then {
                Then::Rest(number) => self.rests.get(number),
                Then::Nothing | Then::Anything => None,
            });
            let own = own.filter(|rest| !rest.middles.is_empty()).count();
            let sum = own + open.last().map_or(0, |(_, sum)| *sum);
            most = most.max(sum);
            open.push((text, sum));
        }
        most
    }

    fn look(&self, path: &[u8], mut found: impl FnMut(&Member)) {
        along(
            &self.beginnings,
            |place| path.get(place).copied(),
            |entry| {
                let rest = path.get(entry.text.len()..).unwrap_or_default();
                for member in &entry.members {
                    let is_met = match member.then {
                        Then::Nothing => rest.is_empty(),
                        Then::Anything => true,
                        Then::Rest(number) => {
                            self.rests.get(number).is_some_and(|own| own.is_met(rest))
                        }
                    };
                    if is_met {
                        found(member);
                    }
                }
            },
        );
        along(
            &self.endings,
            |place| path.iter().rev().nth(place).copied(),
            |entry| entry.members.iter().for_each(&mut found),
        );
    }
}

/// Tells of all entries whose text these bytes begin with. Entries are sorted, so those that go on alike
/// stand together.
fn along<'a>(
    entries: &'a [Entry],
    byte: impl Fn(usize) -> Option<u8>,
    mut found: impl FnMut(&'a Entry),
) {
    let mut alike = entries;
    for place in 0.. {
        if let [first, others @ ..] = alike
            && first.text.len() == place
        {
            found(first);
            alike = others;
        }
        let (Some(first), Some(last), Some(next)) = (alike.first(), alike.last(), byte(place))
        else {
            return;
        };
        let at = |entry: &Entry| entry.text.get(place).copied();
        if at(first) != Some(next) || at(last) != Some(next) {
            let start = alike.partition_point(|entry| at(entry) < Some(next));
            let end = alike.partition_point(|entry| at(entry) <= Some(next));
            alike = alike.get(start..end).unwrap_or_default();
        }
    }
}

/// The text of tokens that are all bytes.
fn literal(tokens: &[Token]) -> Option<Vec<u8>> {
    let bytes = tokens.iter().map(|token| match token {
        Token::Byte(byte) => Some(*byte),
        Token::Class(_) | Token::Star | Token::Capture(_) => None,
    });
    bytes.collect()
}

/// With a star for each capture: the index finds too much, and [`super::Captures`] looks closely.
fn widened(mut branch: Branch) -> Branch {
    for token in &mut branch {
        if matches!(token, Token::Capture(_)) {
            *token = Token::Star;
        }
    }
    branch
}

impl Rest {
    fn new(tokens: &[Token]) -> Rest {
        let mut pieces: Vec<&[Token]> = tokens.split(|token| *token == Token::Star).collect();
        let tail = match pieces.len() {
            1 => None,
            _ => pieces.pop().map(classes),
        };
        let mut pieces = pieces.into_iter();
        Rest {
            head: pieces.next().map(classes).unwrap_or_default(),
            middles: pieces.map(Middle::new).collect(),
            tail,
        }
    }

    fn is_met(&self, text: &[u8]) -> bool {
        let Some((head, mut text)) = text.split_at_checked(self.head.len()) else {
            return false;
        };
        let Some(tail) = &self.tail else {
            return text.is_empty() && is_of(head, &self.head);
        };
        if !is_of(head, &self.head) {
            return false;
        }
        let Some(before) = text.len().checked_sub(tail.len()) else {
            return false;
        };
        let Some((middle, end)) = text.split_at_checked(before) else {
            return false;
        };
        if !is_of(end, tail) {
            return false;
        }
        text = middle;
        // The first place that will do leaves most for those that follow.
        for middle in &self.middles {
            match middle.end_in(text).and_then(|end| text.get(end..)) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        true
    }
}

impl Middle {
    pub(super) fn new(tokens: &[Token]) -> Middle {
        match literal(tokens) {
            Some(text) => Middle::Literal(Box::new(Finder::new(&text).into_owned())),
            None => Middle::Mixed(Shifts::new(&classes(tokens))),
        }
    }

    /// Where it ends first.
    pub(super) fn end_in(&self, text: &[u8]) -> Option<usize> {
        match self {
            Middle::Literal(finder) => Some(finder.find(text)? + finder.needle().len()),
            Middle::Mixed(shifts) => shifts.end_in(text),
        }
    }
}

impl Shifts {
    fn new(classes: &[Class]) -> Shifts {
        let mut places = vec![0; 256];
        for (place, class) in classes.iter().enumerate().take(LONGEST_MIXED) {
            for byte in class.bytes() {
                if let Some(places) = places.get_mut(usize::from(byte)) {
                    *places |= 1 << place;
                }
            }
        }
        let last = classes.len().min(LONGEST_MIXED).saturating_sub(1);
        Shifts {
            places,
            last: 1 << last,
        }
    }

    fn end_in(&self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        let ends = text.iter().position(|byte| {
            let places = self.places.get(usize::from(*byte)).copied().unwrap_or(0);
            at = (at << 1 | 1) & places;
            at & self.last != 0
        });
        ends.map(|place| place + 1)
    }
}

fn classes(tokens: &[Token]) -> Vec<Class> {
    let class = |token: &Token| match token {
        Token::Byte(byte) => {
            let mut class = Class::NONE;
            class.insert(*byte);
            class
        }
        Token::Class(class) => *class,
        // Tokens are split at stars, and have no captures any more.
        Token::Star | Token::Capture(_) => Class::NONE,
    };
    tokens.iter().map(class).collect()
}

fn is_of(text: &[u8], classes: &[Class]) -> bool {
    text.len() == classes.len()
        && text
            .iter()
            .zip(classes)
            .all(|(byte, class)| class.contains(*byte))
}
