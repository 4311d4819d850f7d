//! The path that the router sees. Envoy's own order, so that whatever reaches a route also meets
//! the rules for that route: the query is cut, escapes of unreserved characters are decoded, `\`
//! becomes `/`, dot segments are resolved, and only then are repeated slashes merged. `%2F` stays.

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
            b'/' | b'.' if previous == b'/' => return false,
            _ => previous = byte,
        }
    }
    true
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match unreserved(*high, *low) {
                Some(decoded) => {
                    out.push(decoded);
                    rest = after;
                }
                None => out.push(byte),
            },
            (b'\\', _) => out.push(b'/'),
            _ => out.push(byte),
        }
    }
    out
}

/// RFC 3986 §2.3: only these mean the same escaped and bare.
fn unreserved(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    let same = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    same.then_some(byte)
}

/// RFC 3986 §5.2.4 for an absolute path. An empty segment is a segment: `/a//../b` is `/a/b`.
fn resolve_dots(path: &[u8]) -> Vec<u8> {
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
