//! The path that the router sees. Envoy's own order, so that whatever reaches a route also meets
//! the rules for that route: the query is cut, escapes of unreserved characters are decoded and
//! characters that no URL holds are escaped, `\` becomes `/`, dot segments are resolved, and only
//! then are repeated slashes merged. `%2F` stays.
//!
//! Where Envoy has normalised a path already, nothing changes any more. That is why `..;x` is an
//! ordinary segment here: the newest Envoy resolves it, but lets `%2e%2e;x` through as `..;x`, and
//! routes by that.

use std::borrow::Cow;

/// Normalises a request target. Whatever the bytes, the answer is a path and never an error:
/// a target that Envoy refuses does not get here.
pub fn normalise(target: &[u8]) -> Cow<'_, [u8]> {
    let end = target
        .iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(target.len());
    let path = target.get(..end).unwrap_or(target);
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(merge_slashes(&resolve_dots(&decode(path))))
}

/// The common case needs no copy: nothing in it could change.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            _ if is_foreign(byte) => return false,
            b'/' | b'.' if previous == b'/' => return false,
            _ => previous = byte,
        }
    }
    true
}

/// Escapes are decoded once, and only where they were written: `%%32e` must not become `%2e`, which
/// the next in line would take for a dot.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    // Where a `%` stands that began no escape.
    let mut bare_percent = None;
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) if escaped(*high, *low).is_some() => {
                rest = after;
                match escaped(*high, *low) {
                    Some(decoded) if is_unreserved(decoded) => out.push(decoded),
                    _ => out.extend([byte, *high, *low]),
                }
            }
            (b'%', _) => {
                bare_percent = Some(out.len());
                out.push(byte);
            }
            (b'\\', _) => out.push(b'/'),
            _ if is_foreign(byte) => escape(&mut out, byte),
            _ => out.push(byte),
        }
        if let Some(at) = bare_percent
            && let Some([_, high, low]) = out.get(at..)
            && escaped(*high, *low).is_some()
        {
            out.splice(at..=at, *b"%25");
            bare_percent = None;
        }
    }
    out
}

/// The byte that an escape of these digits stands for.
pub(crate) fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| match nibble {
        0..10 => b'0' + nibble,
        _ => b'A' + nibble - 10,
    };
    out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// RFC 3986 §2.3: only these mean the same escaped and bare.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a URL's path holds only escaped, as the WHATWG's URL standard has it, and yet is sent bare.
pub(crate) fn is_foreign(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// RFC 3986 §5.2.4 for an absolute path. An empty segment is a segment: `/a//../b` is `/a/b`.
pub(crate) fn resolve_dots(path: &[u8]) -> Vec<u8> {
    let Some(relative) = path.strip_prefix(b"/") else {
        return path.to_vec();
    };
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_directory = false;
    for segment in relative.split(|byte| *byte == b'/') {
        ends_in_directory = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    if ends_in_directory {
        segments.push(b"");
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    out
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(target: &str) -> String {
        String::from_utf8(normalise(target.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn every_spelling_of_a_path_is_that_path() {
        for spelling in [
            "/api/v1/auth/login",
            "/api/v1/auth/login?x=1",
            "/api/v1/auth/login?x=/../..",
            "/api/v1/auth/../auth/login",
            "/api/v1/auth/%2e%2E/auth/login",
            "/api/v1/./auth/login",
            "//api/v1/auth/login",
            "/api//../v1/auth/login",
            "/api///v1//auth/login",
            "/api/v1/%61uth/login",
            "/api/v1\\auth/login",
            "/../api/v1/auth/login",
            "/x/..//api/v1/auth/login",
        ] {
            assert_eq!(normal(spelling), "/api/v1/auth/login", "{spelling}");
        }
    }

    #[test]
    fn what_means_something_else_stays() {
        for (target, path) in [
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2fb"),
            ("/a%5Cb", "/a%5Cb"),
            ("/a%", "/a%"),
            ("/a%6", "/a%6"),
            ("/a%zz", "/a%zz"),
            ("/a%+6", "/a%+6"),
            ("/a%2561", "/a%2561"),
            ("/a/..;x/b", "/a/..;x/b"),
            ("/a/.b", "/a/.b"),
            ("/a/b./", "/a/b./"),
            ("/a/...", "/a/..."),
            ("/", "/"),
            ("", ""),
            ("*", "*"),
        ] {
            assert_eq!(normal(target), path, "{target}");
        }
    }

    /// As Envoy has it: a second look must not find an escape that the first one made.
    #[test]
    fn decoding_makes_no_new_escape() {
        for (target, path) in [
            ("/a/%%32e%%32e/b", "/a/%252e%252e/b"),
            ("/a/%2%65%2e/b", "/a/%252e./b"),
            ("/a/%%32%65", "/a/%252e"),
            ("/%%%32e", "/%%252e"),
            ("/%2%%65e", "/%2%25ee"),
            ("/%%30%30", "/%2500"),
        ] {
            assert_eq!(normal(target), path, "{target}");
        }
    }

    #[test]
    fn what_no_url_holds_is_escaped() {
        assert_eq!(normal("/a<b>{}|^`\"c"), "/a%3Cb%3E%7B%7D%7C%5E%60%22c");
    }

    #[test]
    fn a_trailing_dot_segment_leaves_a_directory() {
        for (target, path) in [
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/.", "/"),
        ] {
            assert_eq!(normal(target), path, "{target}");
        }
    }

    #[test]
    fn normalising_again_changes_nothing() {
        for target in [
            "/a//b/../c",
            "/%%32e%%32e/",
            "/%61%2e/..",
            "\\\\x",
            "/a/%2e%2e%2f/b",
            "/%2e%2e/%2e",
        ] {
            let once = normal(target);
            assert_eq!(normal(&once), once, "{target}");
        }
    }
}
