//! Which paths a rule is for: a glob over whole paths. `read` takes it apart, `possible` refuses what no
//! path can be, `mend` offers what was meant, and `index` finds the patterns that a path meets.
//!
//! It knows paths as [`crate::request::path`] makes them and how else servers read them ([`crate::request::reading`]). It
//! knows rules only by their places.

mod index;
mod mend;
mod possible;
mod read;

use std::fmt;

use index::LONGEST_MIXED;
pub use index::LONGEST_PATH;
pub(super) use index::{Index, IndexBuilder};

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
        })
    }

    pub fn as_str(&self) -> &str {
        &self.written
    }

    pub fn excludes_letters(&self) -> bool {
        self.excludes_letters
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
                Token::Star => {}
            }
        }
        reading.dedup_by(|one, other| one == other && matches!(one, Token::Byte(b'/')));
        if !reading.is_empty() && !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
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
mod tests {
    use super::*;

    fn index(patterns: &[&str], matching: Matching) -> Index {
        let mut index = IndexBuilder::default();
        for pattern in patterns {
            index.add(&Pattern::try_new(pattern).unwrap(), matching);
        }
        index.build()
    }

    fn meets(pattern: &str, path: &[u8], matching: Matching) -> bool {
        !index(&[pattern], matching).rules(path).is_empty()
    }

    #[test]
    fn a_pattern_is_a_glob_over_the_whole_path() {
        for (pattern, meets_it, does_not) in [
            ("/a", &["/a"][..], &["/", "/ab", "/a/b", "/b/a"][..]),
            ("*", &["/", "/a", "/a/b", "", "*"], &[]),
            ("/*", &["/", "/a", "/a/b"], &["", "*"]),
            ("/a/*", &["/a/", "/a/b", "/a/b/c"], &["/a", "/ab", "/b/a/"]),
            ("/a*", &["/a", "/ab", "/a/b"], &["/", "/b"]),
            ("/a/**", &["/a/", "/a/b/c"], &["/a"]),
            (
                "/a/**/b",
                &["/a/b", "/a/x/b", "/a/x/y/b"],
                &["/ab", "/a/xb", "/a/b/c"],
            ),
            ("**/b", &["/b", "/a/b", "/a/c/b"], &["/ab", "/b/a"]),
            (
                "*.json",
                &["/a.json", "/a/b.json", "/.json"],
                &["/a.jso", "/a.json/b"],
            ),
            ("/a?c", &["/abc", "/a%c"], &["/ac", "/a/c", "/abbc"]),
            ("/[a-c]x", &["/ax", "/cx"], &["/dx", "//x", "/x"]),
            ("/a[!b]c", &["/axc", "/a;c"], &["/abc", "/a/c", "/ac"]),
            ("/a[+-9]c", &["/a.c", "/a0c", "/a-c"], &["/a/c", "/axc"]),
            ("/a[]x]", &["/a]", "/ax"], &["/a"]),
            ("/a[/]b", &["/a/b"], &["/ab"]),
            ("/a[x-]", &["/a-", "/ax"], &["/a"]),
            ("{/a,/b}/*", &["/a/x", "/b/"], &["/a", "/c/x"]),
            ("/a{,/x}", &["/a", "/a/x"], &["/a/", "/a/y"]),
            ("/{a{1,2},b}", &["/a1", "/a2", "/b"], &["/a", "/ab"]),
            (
                "/a/*/b",
                &["/a/x/b", "/a/x/y/b", "/a//b"],
                &["/a/b", "/a/x/bc"],
            ),
            (
                "/a/*/b/*",
                &["/a/x/b/", "/a/x/b/y/b/z"],
                &["/a/b/x", "/a/x/c/b"],
            ),
            (
                "*/x/*/y/*",
                &["/x/1/y/", "/a/x/b/y/c"],
                &["/x/y/", "/y/1/x/2"],
            ),
            ("/*[0-9]z*", &["/a1z", "/1zz9z"], &["/z", "/az1"]),
            (
                "/*a?c*e",
                &["/abce", "/xxaacabcxe"],
                &["/abc", "/ace", "/a/ce"],
            ),
            (
                "/v1/models/*:generateContent",
                &["/v1/models/x:generateContent"],
                &["/v1/models/x"],
            ),
            ("/\\*", &["/*"], &["/a"]),
            ("/[:]id", &["/:id"], &["/x"]),
            ("/a[,]/b", &["/a,/b"], &["/a", "/b"]),
            ("/.git/*", &["/.git/config"], &["/git/config"]),
        ] {
            for path in meets_it {
                assert!(
                    meets(pattern, path.as_bytes(), Matching::Exact),
                    "{pattern} {path}"
                );
                assert!(
                    meets(pattern, path.as_bytes(), Matching::Loose),
                    "{pattern} {path}"
                );
            }
            for path in does_not {
                assert!(
                    !meets(pattern, path.as_bytes(), Matching::Exact),
                    "{pattern} {path}"
                );
            }
        }
    }

    #[test]
    fn a_loose_pattern_meets_every_spelling() {
        for (pattern, spellings) in [
            (
                "/api/v1/auth/*",
                &[
                    "/API/v1/auth/login",
                    "/api/v1/auth%2flogin",
                    "/api%2Fv1%2fauth/login",
                    "/api/v1/auth/login/",
                    "/api;x=1/v1/auth;y/login",
                    "/api%3bx/v1/auth/login",
                    "/api/v1/auth",
                    "/api/v1/AUTH/",
                    "/api/v1/x%2f..%2fauth/login",
                    "/api/v1/x/..;/auth/login",
                    "/api/v1%5cauth%5Clogin",
                ][..],
            ),
            (
                "/API/Login/",
                &["/api/login", "/API/LOGIN", "/api/login/", "/Api/Login"],
            ),
            ("/caf%C3%A9", &["/caf%c3%a9", "/CAF%C3%A9/"]),
            ("/a%2Fb", &["/a%2fb", "/a/b", "/A/B"]),
            ("/a;v=1/b", &["/a/b", "/a;v=2/b", "/A;V=1/B"]),
            ("/x[A-C]", &["/xa", "/XB"]),
            // A server that ignores case, and decodes and cuts nothing before it routes.
            ("/items/*", &["/ITEMS/x%2f..%2f..%2f..%2fq", "/ITEMS/..;/q"]),
            (
                "*.csv",
                &["/A.CSV", "/a.csv;v=1", "/a;v.csv", "/export%2ecsv/"],
            ),
        ] {
            for path in spellings {
                assert!(
                    meets(pattern, path.as_bytes(), Matching::Loose),
                    "{pattern} {path}"
                );
            }
        }
        // None of these is another spelling.
        for (pattern, path) in [
            ("/api/v1/*", "/api/v10/x"),
            ("/api/v1/*", "/api"),
            ("/login", "/login/x"),
            ("/login", "/log%252fin"),
            ("/a", "/"),
        ] {
            assert!(
                !meets(pattern, path.as_bytes(), Matching::Loose),
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn of_many_patterns_all_that_a_path_meets_are_found_in_order() {
        let patterns = [
            "/a/*", "*", "/a/b", "*b", "/a/*b", "/a/b/*", "/A/B", "/x", "/a/[bc]", "/a/b*", "/*/b",
        ];
        let index = index(&patterns, Matching::Loose);
        assert_eq!(index.rules(b"/a/b"), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]);
        assert_eq!(index.rules(b"/a/c"), [0, 1, 8]);
        assert_eq!(index.rules(b"/"), [1]);
        assert_eq!(index.rules(b"/A%2FB/"), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]);
    }

    #[test]
    fn an_exact_rule_beside_a_loose_one_stays_exact() {
        let mut index = IndexBuilder::default();
        for matching in [Matching::Exact, Matching::Loose] {
            index.add(&Pattern::try_new("/a/*").unwrap(), matching);
        }
        let index = index.build();
        assert_eq!(index.rules(b"/a/x"), [0, 1]);
        assert_eq!(index.rules(b"/A/x"), [1]);
        assert_eq!(index.rules(b"/a"), [1]);
    }

    #[test]
    fn a_path_beyond_the_bound_meets_every_rule() {
        let index = index(&["/a/*", "/b"], Matching::Loose);
        let path = |length: usize| [b"/a/".as_slice(), &vec![b'x'; length - 3]].concat();
        assert_eq!(index.rules(&path(LONGEST_PATH)), [0]);
        assert_eq!(index.rules(&path(LONGEST_PATH + 1)), [0, 1]);
    }

    #[test]
    fn patterns_that_have_to_be_gone_through_are_counted_where_they_begin_alike() {
        for (patterns, most) in [
            (&["/a/*", "/b", "*.x", "/a?b", "/a/*/b"][..], 0),
            (&["/a/*/x/*", "/a/b/*/x/*", "/c/*/x/*"], 2),
            (&["*/x/*", "/c/*/x/*"], 2),
        ] {
            assert_eq!(
                index(patterns, Matching::Exact).most_gone_through(),
                most,
                "{patterns:?}"
            );
        }
    }
}
