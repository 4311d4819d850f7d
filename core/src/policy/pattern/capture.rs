//! The segments of a path that a rule's patterns name. The index takes a capture for a star; here a path
//! is compared closely, and what was captured is told.

use std::borrow::Cow;

use super::index::Middle;
use super::{LONGEST_PATH, Matching, Pattern, Token};
use crate::request::reading;

/// What a path beyond the bound has for each capture: it is not looked at and meets every rule, so all
/// such paths share a count. No segment is called so.
const BEYOND: &[u8] = b"/";

#[derive(Debug)]
pub struct Captures {
    ways: Vec<Way>,
    matching: Matching,
}

impl Captures {
    /// Nothing where nothing is captured.
    pub fn of(patterns: &[Pattern], matching: Matching) -> Option<Captures> {
        let captures = |pattern: &Pattern| !pattern.captures.is_empty();
        patterns.iter().any(captures).then(|| Captures {
            ways: patterns
                .iter()
                .flat_map(|pattern| pattern.sought(matching))
                .map(|branch| Way::new(&branch))
                .collect(),
            matching,
        })
    }

    /// Whether a path that the index has found meets one of the patterns.
    pub fn hold(&self, path: &[u8]) -> bool {
        let meets = |text: &[u8]| self.ways.iter().any(|way| way.is_met(text));
        path.len() > LONGEST_PATH
            || meets(path)
            || self.matching == Matching::Loose
                && reading::others(path).iter().any(|other| meets(other))
    }

    /// The segment that a capture has of a path. Of a loose rule it is the loose reading's; where only
    /// another reading meets a pattern, that one's, or nobody would count there.
    pub fn value<'p>(&self, name: &str, path: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        if path.len() > LONGEST_PATH {
            return Some(BEYOND.into());
        }
        if self.matching == Matching::Exact {
            return self.of_reading(name, path).map(Cow::Borrowed);
        }
        let of_owned = |text: Vec<u8>| Some(Cow::Owned(self.of_reading(name, &text)?.to_vec()));
        let of_loose = match reading::loose(path) {
            Cow::Borrowed(text) => self.of_reading(name, text).map(Cow::Borrowed),
            Cow::Owned(text) => of_owned(text),
        };
        of_loose
            .or_else(|| reading::others(path).into_iter().find_map(of_owned))
            .or_else(|| self.of_reading(name, path).map(Cow::Borrowed))
    }

    fn of_reading<'t>(&self, name: &str, text: &'t [u8]) -> Option<&'t [u8]> {
        let mut ways = self.ways.iter();
        ways.find_map(|way| {
            let mut value = None;
            let is_met = way.meet(text, &mut |own, segment| {
                if own == name {
                    value = Some(segment);
                }
            });
            if is_met { value } else { None }
        })
    }
}

/// A branch as it is compared: what it begins with, and what stands behind each star.
#[derive(Debug)]
struct Way {
    head: Vec<Token>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    tokens: Vec<Token>,
    /// What stands before its first capture, and how long that is. It finds the places to look at, so
    /// that a path of many equal bytes is not compared anew from each of them.
    opening: Middle,
    opening_length: usize,
}

impl Way {
    fn new(branch: &[Token]) -> Way {
        let mut pieces = branch.split(|token| *token == Token::Star);
        Way {
            head: pieces.next().unwrap_or_default().to_vec(),
            pieces: pieces.map(Piece::new).collect(),
        }
    }

    fn is_met(&self, text: &[u8]) -> bool {
        self.meet(text, &mut |_, _| {})
    }

    /// Whether it is all of a text, and what its captures are then; where it is not, what was told of them
    /// is nothing. Between two stars nothing can be taken in two ways, and what begins first ends first: so
    /// no star has to be tried again.
    fn meet<'t>(&self, text: &'t [u8], found: &mut impl FnMut(&str, &'t [u8])) -> bool {
        let Some(mut rest) = follow(&self.head, text, found) else {
            return false;
        };
        let Some((last, middles)) = self.pieces.split_last() else {
            return rest.is_empty();
        };
        for piece in middles {
            let Some(start) = piece.first_in(rest, |_| true) else {
                return false;
            };
            let Some(after) = follow(&piece.tokens, start, found) else {
                return false;
            };
            rest = after;
        }
        let start = last.last_in(rest);
        start.is_some_and(|start| follow(&last.tokens, start, found).is_some())
    }
}

impl Piece {
    fn new(tokens: &[Token]) -> Piece {
        let captured = |token: &Token| matches!(token, Token::Capture(_));
        let end = tokens.iter().position(captured).unwrap_or(tokens.len());
        let (opening, _) = tokens.split_at_checked(end).unwrap_or_default();
        Piece {
            tokens: tokens.to_vec(),
            opening: Middle::new(opening),
            opening_length: opening.len(),
        }
    }

    /// The text from the first place on where it stands, and something that will do behind it.
    fn first_in<'t>(&self, text: &'t [u8], will_do: impl Fn(&[u8]) -> bool) -> Option<&'t [u8]> {
        let mut text = text;
        loop {
            let end = self.opening.end_in(text)?;
            let start = text.get(end.checked_sub(self.opening_length)?..)?;
            if follow(&self.tokens, start, &mut |_, _| {}).is_some_and(&will_do) {
                return Some(start);
            }
            text = start.get(1..)?;
        }
    }

    /// The text from the place on where it stands, and nothing behind it.
    fn last_in<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        if self.opening_length < self.tokens.len() {
            return self.first_in(text, <[u8]>::is_empty);
        }
        let start = text.get(text.len().checked_sub(self.opening_length)?..)?;
        follow(&self.tokens, start, &mut |_, _| {}).map(|_| start)
    }
}

/// What follows a piece without stars that a text begins with.
fn follow<'t>(
    piece: &[Token],
    text: &'t [u8],
    found: &mut impl FnMut(&str, &'t [u8]),
) -> Option<&'t [u8]> {
    let mut rest = text;
    for token in piece {
        rest = match token {
            Token::Byte(byte) => rest.strip_prefix(&[*byte])?,
            Token::Class(class) => {
                let (first, after) = rest.split_first()?;
                class.contains(*first).then_some(after)?
            }
            Token::Capture(name) => {
                let end = rest.iter().position(|byte| *byte == b'/');
                let (segment, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
                if matches!(segment, b"" | b"." | b"..") {
                    return None;
                }
                found(name, segment);
                after
            }
            Token::Star => return None,
        };
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(patterns: &[&str], matching: Matching) -> Captures {
        let patterns: Vec<Pattern> = patterns
            .iter()
            .map(|text| Pattern::try_new(text).unwrap())
            .collect();
        Captures::of(&patterns, matching).unwrap()
    }

    fn value(pattern: &str, name: &str, path: &str, matching: Matching) -> Option<String> {
        let captures = captures(&[pattern], matching);
        let value = captures.value(name, path.as_bytes());
        assert_eq!(
            captures.hold(path.as_bytes()),
            value.is_some(),
            "{pattern} {path}"
        );
        value.map(|value| String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn a_capture_is_one_whole_segment() {
        for (pattern, name, path, expected) in [
            ("/v2/{id}", "id", "/v2/x", Some("x")),
            ("/v2/{id}", "id", "/v2/x-1.json", Some("x-1.json")),
            ("/v2/{id}", "id", "/v2/x/y", None),
            ("/v2/{id}", "id", "/v2/", None),
            ("/v2/{id}", "id", "/v2", None),
            ("/v2/{id}/y", "id", "/v2//y", None),
            ("/v2/{id}", "id", "/v2//x", None),
            ("/v2/{id}/y", "id", "/v2/../y", None),
            ("/v2/{id}/y", "id", "/v2/./y", None),
            ("/v2/{id}/y", "id", "/v2/.../y", Some("...")),
            ("/v2/{id}/y", "id", "/v2/x/y", Some("x")),
            ("/v2/{id}/y", "id", "/v2/x/z/y", None),
            ("/v2/{id}/*", "id", "/v2/x/y/z", Some("x")),
            ("/v2/{id}/*", "id", "/v2/x/", Some("x")),
            ("/{a}/{b}", "a", "/x/y", Some("x")),
            ("/{a}/{b}", "b", "/x/y", Some("y")),
            ("/{a,b}/{c}", "c", "/b/y", Some("y")),
            ("/{a,b}/{c}", "c", "/c/y", None),
            ("/v[12]/{id}", "id", "/v2/x", Some("x")),
            ("/v[12]/{id}", "id", "/v3/x", None),
            ("*/{id}", "id", "/a/b/c", Some("c")),
            ("/**/{id}", "id", "/c", Some("c")),
            (
                "/*/of/{id}/*/in/{to}",
                "id",
                "/a/of/b/c/of/d/in/e",
                Some("b"),
            ),
            (
                "/*/of/{id}/*/in/{to}",
                "to",
                "/a/of/b/c/of/d/in/e",
                Some("e"),
            ),
            ("/*/of/{id}", "id", "/a/of/b/of/c", Some("c")),
            ("*/{id}/x", "id", "/a/b/x", Some("b")),
            ("*/{id}/*.js", "id", "/a/b/x.js", Some("a")),
            ("*/{id}/*.js", "id", "/a.js", None),
            ("/*[0-9]/{id}/*", "id", "/a/b1/c/d", Some("c")),
            ("/*aab/{id}", "id", "/aaaab/aab/c", Some("c")),
        ] {
            let value = value(pattern, name, path, Matching::Exact);
            assert_eq!(value.as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn loose_spellings_of_a_segment_are_one_value() {
        for path in [
            "/v2/acme",
            "/v2/ACME",
            "/V2/acme/",
            "/v2/acme;1",
            "/v2%2Facme",
            "/v2/acm%65",
            "/v2/x%2f..%2facme",
            "/v2/x/..;/acme",
        ] {
            let value = value("/v2/{id}", "id", path, Matching::Loose);
            assert_eq!(value.as_deref(), Some("acme"), "{path}");
        }
        for path in ["/v2/ACME", "/v2/acme;1", "/v2/acm%65"] {
            let value = value("/v2/{id}", "id", path, Matching::Exact);
            assert_eq!(value.as_deref(), path.strip_prefix("/v2/"));
        }
    }

    /// Some server takes it for a path that the rule is for: it has to count there.
    #[test]
    fn whatever_meets_a_loose_rule_has_a_value() {
        for (path, expected) in [
            ("/v2/a%2fb", "a%2fb"),
            ("/v2/..%2fadmin", "..%2fadmin"),
            ("/v2/A%2FB", "a%2fb"),
        ] {
            let value = value("/v2/{id}", "id", path, Matching::Loose);
            assert_eq!(value.as_deref(), Some(expected), "{path}");
        }
        let long = format!("/v2/{}", "a/".repeat(LONGEST_PATH));
        assert_eq!(
            value("/v2/{id}", "id", &long, Matching::Loose).as_deref(),
            Some("/")
        );
    }

    #[test]
    fn of_several_patterns_the_one_that_is_met_captures() {
        let captures = captures(&["/a/{id}", "/b/{x}/{id}"], Matching::Loose);
        let value = |path: &'static str| captures.value("id", path.as_bytes());
        assert_eq!(value("/a/1").as_deref(), Some(&b"1"[..]));
        assert_eq!(value("/b/1/2").as_deref(), Some(&b"2"[..]));
        assert_eq!(value("/c/1"), None);
    }

    /// The index may find too much, and must not find too little.
    #[test]
    fn the_index_finds_each_path_that_is_captured_from() {
        for matching in [Matching::Loose, Matching::Exact] {
            for pattern in [
                "/v2/{id}",
                "/{a}/{b}",
                "*/{id}/x",
                "/v2/{id}/",
                "/v2/{id}/*",
            ] {
                let patterns = [Pattern::try_new(pattern).unwrap()];
                let captures = Captures::of(&patterns, matching).unwrap();
                let mut index = super::super::IndexBuilder::default();
                index.add(&patterns, matching);
                let index = index.build();
                for path in [
                    "/v2/a",
                    "/V2/A/",
                    "/v2/a/x",
                    "/v2%2fa;b/x",
                    "/v2/",
                    "/v2/a/b/x",
                ] {
                    let is_found = !index.rules(path.as_bytes()).is_empty();
                    assert!(
                        is_found || !captures.hold(path.as_bytes()),
                        "{pattern} {path}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_whole_segment_with_a_name_of_its_own_is_refused() {
        for (pattern, why) in [
            ("/v2/{id}.json", "not a whole segment"),
            ("/v2/x{id}", "not a whole segment"),
            ("/v2/{id}*", "not a whole segment"),
            ("/v2/{id}{a,b}", "not a whole segment"),
            ("/{id}/{id}", "twice"),
            ("/{}", "names nothing"),
            ("/{1}", "names nothing"),
            ("/{a.b}", "names nothing"),
            ("/{x,/{id}}", "alternatives"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "more than 8"),
        ] {
            let refused = Pattern::try_new(pattern).map(drop).unwrap_err();
            assert!(refused.contains(why), "{pattern}: {refused}");
        }
    }
}
