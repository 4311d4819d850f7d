//! From the text of a pattern to its branches. What is a pattern by the letter and surely meant as
//! something else (a route template, a regular expression, a query, two paths) is refused here.

use super::{Branch, Class, Token, push};

/// No path is written out at greater length.
const LONGEST: usize = 1024;
/// Alternatives multiply: `{a,b}/{c,d}` are four.
const MOST_BRANCHES: usize = 256;
const DEEPEST: usize = 4;
const MOST_CAPTURES: usize = 8;
const LONGEST_NAME: usize = 64;

pub(super) struct Read {
    pub branches: Vec<Branch>,
    pub excludes_letters: bool,
    /// The names of what it captures, in order.
    pub captures: Vec<String>,
}

pub(super) fn read(text: &str) -> Result<Read, String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes; shorten it"));
    }
    let chars: Vec<char> = text.chars().collect();
    let mut reader = Reader {
        chars: &chars,
        at: 0,
        depth: 0,
        excludes_letters: false,
        captures: Vec::new(),
    };
    let branches = reader.sequence()?;
    Ok(Read {
        branches,
        excludes_letters: reader.excludes_letters,
        captures: reader.captures,
    })
}

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
    /// How many braces are open.
    depth: usize,
    excludes_letters: bool,
    captures: Vec<String>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.peek(0)?;
        self.at += 1;
        Some(next)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[char] {
        self.chars.get(self.at..).unwrap_or_default()
    }

    /// Up to the end, or to the comma or brace that ends an alternative.
    fn sequence(&mut self) -> Result<Vec<Branch>, String> {
        let mut branches: Vec<Branch> = vec![Vec::new()];
        while let Some(char) = self.peek(0) {
            if self.depth > 0 && matches!(char, ',' | '}') {
                break;
            }
            let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at));
            let before = before.copied();
            self.at += 1;
            self.refuse_other_languages(before, char)?;
            match char {
                '*' => self.star(&mut branches),
                '?' => extend(&mut branches, Token::Class(Class::ANY)),
                '[' => {
                    let token = self.class()?;
                    extend(&mut branches, token);
                }
                '{' => match self.lone() {
                    Some(inside) => {
                        let name = self.captured(before, &inside)?;
                        extend(&mut branches, Token::Capture(name));
                    }
                    None => {
                        let alternatives = self.alternatives()?;
                        branches = product(&branches, &alternatives)?;
                    }
                },
                '}' => return Err("has a \"}\" that closes nothing; take it out, or \\}".into()),
                '\\' => match self.next() {
                    Some(escaped) => extend_by_char(&mut branches, escaped),
                    None => return Err("ends in a \"\\\", which would escape what follows".into()),
                },
                _ => extend_by_char(&mut branches, char),
            }
        }
        Ok(branches)
    }

    /// `**` is any directories where it is a whole segment, and else a star.
    fn star(&mut self, branches: &mut Vec<Branch>) {
        let mut is_double = false;
        while self.peek(0) == Some('*') {
            self.at += 1;
            is_double = true;
        }
        let is_followed = is_double && self.peek(0) == Some('/');
        if is_followed {
            self.at += 1;
        }
        for mut branch in std::mem::take(branches) {
            let is_segment = branch.last() == Some(&Token::Byte(b'/'));
            if is_followed && is_segment {
                branches.push(branch.clone());
            }
            push(&mut branch, Token::Star);
            if is_followed {
                branch.push(Token::Byte(b'/'));
            }
            branches.push(branch);
        }
    }

    /// What stands in the braces that were opened, where it is no alternatives.
    fn lone(&self) -> Option<String> {
        let end = self.rest().iter().position(|char| *char == '}')?;
        let inside = self.rest().get(..end)?;
        let is_lone = !inside
            .iter()
            .any(|char| matches!(char, ',' | '{' | '[' | '\\'));
        is_lone.then(|| inside.iter().collect())
    }

    /// Steps over `name}`. A capture is a whole segment, so that no two readers of a pattern disagree about
    /// where it ends.
    fn captured(&mut self, before: Option<char>, name: &str) -> Result<String, String> {
        let shown = format!("{{{name}}}");
        if !is_capture_name(name) {
            return Err(format!(
                "holds {shown:?}, which names nothing; {{name}} captures a segment (1 to {LONGEST_NAME} of \
                 A-Z a-z 0-9 _ -, a letter first), \"*\" stands for anything, and {{a,b}} for one of several"
            ));
        }
        self.at += name.len() + 1;
        if self.depth > 0 {
            return Err(format!(
                "captures {shown:?} in one of several alternatives; capture outside of them, or write two \
                 patterns"
            ));
        }
        if before != Some('/') || !matches!(self.peek(0), None | Some('/')) {
            return Err(format!(
                "captures {shown:?}, which is not a whole segment; put it between slashes, or take \"*\""
            ));
        }
        if self.captures.iter().any(|other| other == name) {
            return Err(format!(
                "captures {shown:?} twice; give each segment a name of its own"
            ));
        }
        if self.captures.len() == MOST_CAPTURES {
            return Err(format!(
                "captures more than {MOST_CAPTURES} segments; take \"*\" for those that no key needs"
            ));
        }
        self.captures.push(name.to_string());
        Ok(name.to_string())
    }

    fn alternatives(&mut self) -> Result<Vec<Branch>, String> {
        let inside: String = self.rest().iter().take_while(|c| **c != '}').collect();
        if self.depth == DEEPEST {
            return Err(format!(
                "has braces more than {DEEPEST} deep; take them apart"
            ));
        }
        self.depth += 1;
        let (mut branches, mut count) = (Vec::new(), 0);
        loop {
            branches.extend(self.sequence()?);
            count += 1;
            match self.next() {
                Some(',') => {}
                Some(_) => break,
                None => return Err("has a \"{\" that is not closed; close it, or \\{".into()),
            }
        }
        self.depth -= 1;
        match count {
            1 => Err(format!(
                "holds {:?}, which is no placeholder here; \"*\" stands for anything, and {{a,b}} for \
                 one of several",
                format!("{{{inside}}}")
            )),
            _ => Ok(branches),
        }
    }

    fn class(&mut self) -> Result<Token, String> {
        let unclosed = || "has a \"[\" that is not closed; close it, or write [[]".to_string();
        let is_negated = matches!(self.peek(0), Some('!' | '^'));
        if is_negated {
            self.at += 1;
        }
        let mut class = Class::NONE;
        let mut first = true;
        loop {
            let start = self.next().ok_or_else(unclosed)?;
            if start == ']' && !first {
                break;
            }
            first = false;
            let mut end = start;
            if self.peek(0) == Some('-') && self.peek(1).is_some_and(|after| after != ']') {
                self.at += 1;
                end = self.next().ok_or_else(unclosed)?;
            }
            let (Ok(low @ 0..0x80), Ok(high @ 0..0x80)) = (u8::try_from(start), u8::try_from(end))
            else {
                return Err(format!(
                    "has {:?} in a class, which stands for one byte; a path holds it as {}",
                    if start.is_ascii() { end } else { start },
                    super::mend::escaped(if start.is_ascii() { end } else { start })
                ));
            };
            if low > high {
                return Err(format!(
                    "has the range {start}-{end} in a class, which is empty; turn it round"
                ));
            }
            (low..=high).for_each(|byte| class.insert(byte));
        }
        if is_negated {
            self.excludes_letters |= class.bytes().any(|byte| byte.is_ascii_alphabetic());
            return Ok(Token::Class(class.negated()));
        }
        let mut bytes = class.bytes();
        if let (Some(byte), None) = (bytes.next(), bytes.next()) {
            return Ok(Token::Byte(byte));
        }
        // A class is one character of a segment.
        Ok(Token::Class(class.negated().negated()))
    }

    /// What a pattern could mean by the letter, and nobody means. In a class or after a `\` it stands for
    /// itself.
    fn refuse_other_languages(&self, before: Option<char>, char: char) -> Result<(), String> {
        let after = self.peek(0);
        let is_regular = match char {
            '^' => before.is_none(),
            '$' => after.is_none(),
            '.' => matches!(before, Some('/' | '(')) && matches!(after, Some('*' | '+')),
            '+' => matches!(before, Some(']' | ')')),
            '(' => after == Some('?'),
            '\\' => after.is_some_and(|after| after.is_ascii_alphanumeric()),
            _ => false,
        };
        if is_regular {
            let shown: String = [char].iter().chain(self.rest()).take(2).collect();
            return Err(format!(
                "reads like a regular expression ({shown:?}), and is a glob: \"*\" stands for anything"
            ));
        }
        match char {
            ':' if before == Some('/') && after.is_some_and(|after| after.is_ascii_alphabetic()) => {
                let name: String = self.rest().iter().take_while(|c| c.is_alphanumeric()).collect();
                Err(format!(
                    "holds \":{name}\", which is no placeholder here; \"*\" stands for anything (and \
                     [:] for a colon that begins a segment)"
                ))
            }
            '?' if is_query(self.rest()) => Err(
                "holds a query, which is cut before rules are looked at (and \"?\" stands for one \
                 character: [!/])"
                    .into(),
            ),
            ',' if self.depth == 0 && begins_a_path(self.rest()) => Err(
                "holds two paths; alternatives stand in braces, or in two rules (and [,] is a comma)"
                    .into(),
            ),
            _ => Ok(()),
        }
    }
}

/// Whether it can be the name of a captured segment.
pub fn is_capture_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(is_word)
}

/// `name=`, as after the `?` of a URL.
fn is_query(after: &[char]) -> bool {
    let is_name = |char: &&char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.');
    let name = after.iter().take_while(is_name).count();
    name > 0 && after.get(name) == Some(&'=')
}

fn begins_a_path(after: &[char]) -> bool {
    after.iter().find(|char| **char != ' ') == Some(&'/')
}

fn extend(branches: &mut [Branch], token: Token) {
    for branch in branches {
        branch.push(token.clone());
    }
}

fn extend_by_char(branches: &mut [Branch], char: char) {
    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
        extend(branches, Token::Byte(byte));
    }
}

fn product(branches: &[Branch], alternatives: &[Branch]) -> Result<Vec<Branch>, String> {
    let count = branches.len() * alternatives.len();
    if count > MOST_BRANCHES {
        return Err(format!(
            "has {count} alternatives, each of which is looked for; keep it to {MOST_BRANCHES}, or write \
             several rules"
        ));
    }
    let mut all = Vec::with_capacity(count);
    for branch in branches {
        for alternative in alternatives {
            let mut branch = branch.clone();
            for token in alternative {
                push(&mut branch, token.clone());
            }
            all.push(branch);
        }
    }
    Ok(all)
}
