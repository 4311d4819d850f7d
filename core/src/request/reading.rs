//! What an upstream may take a path for. Servers differ: one ignores case, one decodes escapes before it
//! routes, one cuts what follows a `;`, one resolves dot segments once more. A rule that is to hold
//! whatever stands behind the gateway is compared with each of these readings.
//!
//! It knows paths that are normal already (see [`crate::request::path`]), and no rules.

use std::borrow::Cow;

use crate::request::path::{escaped, resolve_dots};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameters {
    Kept,
    Cut,
}

/// What becomes of dot segments that decoding and cutting have laid bare. Servers disagree about an
/// empty segment before `..`: it is one to RFC 3986, and none to those who merge slashes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dots {
    Kept,
    Resolved,
    ResolvedAfterMerging,
}

/// Whether every server takes this path for what it says.
pub fn is_plain(path: &[u8]) -> bool {
    let is_plain = |byte: &u8| !(byte.is_ascii_uppercase() || matches!(byte, b'%' | b';'));
    path.iter().all(is_plain) && !ends_in_slash(path)
}

/// The loose reading: lower case, escapes decoded once, parameters cut, dot segments resolved, no last
/// slash. What a rule counts by a part of the path, it takes from here.
pub fn loose(path: &[u8]) -> Cow<'_, [u8]> {
    match is_plain(path) {
        true => Cow::Borrowed(path),
        false => {
            let text = if path.contains(&b'%') {
                decode(path)
            } else {
                path.to_vec()
            };
            Cow::Owned(finish(text, Parameters::Cut, Dots::Resolved))
        }
    }
}

/// Every way to read a path besides the one in which it is written, each once; none where it is plain.
/// All are in lower case and end in no slash: what matches with a last slash, patterns say themselves.
pub fn others(path: &[u8]) -> Vec<Vec<u8>> {
    let mut readings: Vec<Vec<u8>> = Vec::new();
    if is_plain(path) {
        return readings;
    }
    let mut texts = vec![path.to_vec()];
    if path.contains(&b'%') {
        texts.push(decode(path));
        // A server may cut parameters first: then what was escaped in one is gone.
        if path.contains(&b';') {
            let mut cut = path.to_vec();
            cut_parameters(&mut cut);
            texts.push(decode(&cut));
        }
    }
    for text in texts {
        for parameters in [Parameters::Kept, Parameters::Cut] {
            if parameters == Parameters::Cut && !text.contains(&b';') {
                continue;
            }
            for dots in [Dots::Kept, Dots::Resolved, Dots::ResolvedAfterMerging] {
                let reading = finish(text.clone(), parameters, dots);
                let has_dots = has_dot_segment(&reading);
                if reading != path && !readings.contains(&reading) {
                    readings.push(reading);
                }
                if dots == Dots::Kept && !has_dots {
                    break;
                }
            }
        }
    }
    readings
}

fn finish(mut text: Vec<u8>, parameters: Parameters, dots: Dots) -> Vec<u8> {
    if parameters == Parameters::Cut {
        cut_parameters(&mut text);
    }
    text.make_ascii_lowercase();
    match dots {
        Dots::Kept => merge_slashes(&mut text),
        Dots::Resolved => {
            text = resolve_dots(&text);
            merge_slashes(&mut text);
        }
        Dots::ResolvedAfterMerging => {
            merge_slashes(&mut text);
            text = resolve_dots(&text);
        }
    }
    if ends_in_slash(&text) {
        text.pop();
    }
    text
}

/// The root is all slash, and stays.
fn ends_in_slash(path: &[u8]) -> bool {
    path.len() > 1 && path.ends_with(b"/")
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|segment| matches!(segment, b"." | b".."))
}

/// Once, as a server does that decodes what it was sent. A `\` is a slash to some.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let mut decoded = byte;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let Some(byte) = escaped(*high, *low)
        {
            (decoded, rest) = (byte, after);
        }
        out.push(if decoded == b'\\' { b'/' } else { decoded });
    }
    out
}

fn cut_parameters(path: &mut Vec<u8>) {
    let mut is_cut = false;
    path.retain(|byte| {
        is_cut = match byte {
            b';' => true,
            b'/' => false,
            _ => is_cut,
        };
        !is_cut
    });
}

fn merge_slashes(path: &mut Vec<u8>) {
    path.dedup_by(|one, other| *one == b'/' && *other == b'/');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others_of(path: &str) -> Vec<String> {
        let texts = others(path.as_bytes()).into_iter();
        texts.map(|one| String::from_utf8(one).unwrap()).collect()
    }

    fn loose_of(path: &str) -> String {
        String::from_utf8(loose(path.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn a_path_that_says_one_thing_has_one_reading() {
        for path in ["/", "/a", "/a/b.c", "/a-b_c~d/1,2:3@4", "*", ""] {
            assert!(is_plain(path.as_bytes()), "{path}");
            assert!(others_of(path).is_empty(), "{path}");
            assert_eq!(loose_of(path), path);
        }
    }

    #[test]
    fn each_server_s_way_is_a_reading() {
        for (path, readings) in [
            ("/A/b", &["/a/b"][..]),
            ("/a/", &["/a"]),
            ("/a%20b", &["/a b"]),
            ("/a%2Fb", &["/a%2fb", "/a/b"]),
            ("/a%5cb", &["/a/b"]),
            ("/a;x=1/b;y", &["/a/b"]),
            ("/a%3Bx/b", &["/a%3bx/b", "/a;x/b", "/a/b"]),
            ("/a%2541", &["/a%41"]),
            ("/a%2f..%2fb", &["/a/../b", "/b"]),
            ("/a/..;/b", &["/a/../b", "/b"]),
            ("/a/;x/..;y/b", &["/a/../b", "/a/b", "/b"]),
            ("/%2F", &["/%2f", "/"]),
            ("/;x", &["/"]),
            ("/a%", &[]),
        ] {
            assert_eq!(others_of(path), readings, "{path}");
        }
    }

    #[test]
    fn the_loose_reading_is_what_the_most_lenient_server_sees() {
        for (path, loose) in [
            ("/API/v1/Auth/", "/api/v1/auth"),
            ("/api%2Fv1;x=1/auth", "/api/v1/auth"),
            ("/x/%2e%2e/api", "/api"),
            ("/x/..;/api", "/api"),
            ("/a%252fb", "/a%2fb"),
        ] {
            assert_eq!(loose_of(path), loose);
        }
    }

    /// What a segment is read as must not depend on what was read before.
    #[test]
    fn a_reading_ends_in_no_slash_and_has_no_upper_case() {
        for path in ["/A/", "/a;/", "/a%2F", "/a/..%2F", "/%2F%2F/", "/A;B/C;D/"] {
            for reading in others_of(path) {
                assert!(reading == "/" || !reading.ends_with('/'), "{reading}");
                assert_eq!(reading, reading.to_lowercase());
                assert!(!reading.contains("//"), "{reading}");
            }
        }
    }
}
