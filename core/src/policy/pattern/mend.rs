//! What somebody meant who wrote a pattern that no path can meet: one that is offered in its place. The
//! steps are guesses; what comes of them is offered only where it is a pattern.

use super::Pattern;
use super::read::is_capture_name;
use crate::request::path::{is_foreign, normalise};

/// A character as a path holds it.
pub(super) fn escaped(char: char) -> String {
    let mut bytes = [0; 4];
    let bytes = char.encode_utf8(&mut bytes).bytes();
    bytes.map(|byte| format!("%{byte:02X}")).collect()
}

pub(super) fn mended(text: &str) -> Option<String> {
    let steps = [
        without_origin,
        without_query,
        from_regular_expression,
        from_placeholders,
        from_a_list,
        with_escapes,
        from_the_root,
        normal,
    ];
    let mut mended = text.trim().to_string();
    for step in steps {
        mended = step(&mended);
    }
    (mended != text && Pattern::plainly(&mended).is_ok()).then_some(mended)
}

/// `https://example.com/api` and `example.com/api`: a pattern is for the path.
fn without_origin(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let top = host.rsplit('.').next().unwrap_or("");
    let is_name = host.contains('.') && !path.is_empty() && top.len() > 1;
    let is_host = is_name
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    match (scheme, is_host) {
        (Some(_), _) if path.is_empty() => "/".to_string(),
        (Some(_), _) | (None, true) => path.to_string(),
        (None, false) => text.to_string(),
    }
}

fn without_query(text: &str) -> String {
    let text = text.split('#').next().unwrap_or(text);
    let query = text.match_indices('?').find(|(at, _)| {
        let after = text.get(at + 1..).unwrap_or("");
        after
            .split(['&', '/'])
            .next()
            .is_some_and(|pair| pair.contains('='))
    });
    let end = query.map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text).to_string()
}

fn from_regular_expression(text: &str) -> String {
    let is_one = text.starts_with('^')
        || text.ends_with('$')
        || ["/.*", "/.+", "(.", "(?", "\\", "]+", ")+", "|"]
            .iter()
            .any(|mark| text.contains(mark));
    if !is_one {
        return text.to_string();
    }
    let text = text.strip_prefix('^').unwrap_or(text);
    let text = text.strip_suffix('$').unwrap_or(text);
    if text.contains('|') && !text.contains('(') {
        return format!("{{{}}}", text.replace('|', ","));
    }
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('d' | 'w' | 'S' | 'D' | 'W' | 's') => out.push('?'),
                Some('\\') => out.push('/'),
                Some(other) => out.push(other),
                None => {}
            },
            '.' => out.push(if matches!(chars.peek(), Some('*' | '+')) {
                '?'
            } else {
                '.'
            }),
            '(' => {
                let inside: String = chars.by_ref().take_while(|char| *char != ')').collect();
                let inside = inside.trim_start_matches("?:");
                match inside.contains('|') {
                    true => out.push_str(&format!("{{{}}}", inside.replace('|', ","))),
                    false => out.push_str(&from_regular_expression(&format!("^{inside}"))),
                }
            }
            '[' => {
                let inside: String = chars.by_ref().take_while(|char| *char != ']').collect();
                match chars.peek() {
                    Some('*' | '+') => out.push('?'),
                    _ => out.push_str(&format!("[{inside}]")),
                }
            }
            '+' | '*' => {
                if out.ends_with('?') {
                    out.pop();
                    out.push('*');
                } else if char == '*' {
                    out.push('*');
                }
            }
            _ => out.push(char),
        }
    }
    out
}

/// `:id`, `<id>`, and `{id}` where it captures nothing, as routes have them.
fn from_placeholders(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let (_, after) = rest.split_at(char.len_utf8());
        let close = match char {
            '{' => Some('}'),
            '<' => Some('>'),
            _ => None,
        };
        let inside = close.and_then(|close| after.split_once(close));
        if let Some((name, after)) = inside.filter(|(inside, _)| !inside.contains([',', '{'])) {
            let is_segment = out.ends_with('/') && (after.is_empty() || after.starts_with('/'));
            let capture = format!("{{{name}}}");
            if char == '{' && is_segment && is_capture_name(name) && !out.contains(&capture) {
                out.push_str(&capture);
                rest = after;
                continue;
            }
            out.push('*');
            rest = after;
            continue;
        }
        if char == ':' && out.ends_with('/') && after.starts_with(|c: char| c.is_alphabetic()) {
            out.push('*');
            rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            continue;
        }
        out.push(char);
        rest = after;
    }
    out
}

/// `/a, /b` is two paths.
fn from_a_list(text: &str) -> String {
    let mut parts: Vec<&str> = text.split(',').map(str::trim).collect();
    parts.retain(|part| !part.is_empty());
    let is_list =
        parts.len() > 1 && parts.iter().all(|part| part.starts_with('/')) && !text.contains('{');
    match is_list {
        true => format!("{{{}}}", parts.join(",")),
        false => text.to_string(),
    }
}

fn with_escapes(text: &str) -> String {
    // An escape is three bytes, and a class stands for one.
    if text.contains('[') {
        return text.to_string();
    }
    let is_kept = |char: char| {
        let byte = u8::try_from(char).unwrap_or(u8::MAX);
        byte.is_ascii_graphic() && (!is_foreign(byte) || matches!(char, '{' | '}'))
    };
    let kept = |char: char| match is_kept(char) {
        true => char.to_string(),
        false => escaped(char),
    };
    text.chars().map(kept).collect()
}

fn from_the_root(text: &str) -> String {
    match text.chars().next() {
        // A `!` says "not", which no pattern can.
        Some('/' | '*' | '{' | '!') | None => text.to_string(),
        Some(_) => format!("/{text}"),
    }
}

fn normal(text: &str) -> String {
    // Normalising knows no braces: it would escape them.
    if text.contains(['{', '[', '\\', '?']) || !text.starts_with('/') {
        let mut text = text.to_string();
        while text.contains("//") || text.contains("/./") {
            text = text.replace("//", "/").replace("/./", "/");
        }
        return text;
    }
    String::from_utf8(normalise(text.as_bytes()).into_owned()).unwrap_or_default()
}
