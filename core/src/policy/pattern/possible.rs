//! Whether any path can meet a branch. All normal paths are the language of a small automaton; a branch
//! that has no word in common with it is one that no request ever meets.

use super::{Branch, Token};
use crate::request::path::{is_foreign, is_unreserved};

/// Where in a path one may be, as a set of bits.
type States = u32;

/// Nothing is read yet: a path begins with a slash.
const START: States = 1;
/// After a slash, which no second one follows.
const SLASH: States = 1 << 1;
/// After `.` and `..` that began a segment, and are not all of it.
const DOT: States = 1 << 2;
const DOT_DOT: States = 1 << 3;
const WITHIN: States = 1 << 4;
const PERCENT: States = 1 << 5;
/// After `%` and a hex digit: one bit for each.
const HEX_AT: u32 = 6;
const ALL: States = (1 << (HEX_AT + 16)) - 1;
const ENDS: States = ALL & !(START | DOT | DOT_DOT);

/// Refuses a branch that no path can meet, and says why.
pub(super) fn check(branch: &Branch) -> Result<(), String> {
    let mut states = START;
    for token in branch {
        let next = match token {
            Token::Byte(byte) => step(states, *byte),
            Token::Class(class) => class
                .bytes()
                .map(|byte| step(states, byte))
                .fold(0, |all, one| all | one),
            // From anywhere all but the start can be reached.
            Token::Star => states | (ALL & !START),
            Token::Capture(_) if states & SLASH != 0 => WITHIN,
            Token::Capture(_) => 0,
        };
        if next == 0 {
            return Err(why(states, token));
        }
        states = next;
    }
    match states & ENDS {
        0 if states & START != 0 => Err("it is empty".into()),
        0 => Err(DOTS.into()),
        _ => Ok(()),
    }
}

const DOTS: &str = "\".\" and \"..\" are resolved before rules are looked at";

/// Where all of these states are after a byte.
fn step(states: States, byte: u8) -> States {
    if !byte.is_ascii_graphic() || is_foreign(byte) || matches!(byte, b'?' | b'#' | b'\\') {
        return 0;
    }
    let mut next = 0;
    if states & START != 0 && byte == b'/' {
        next |= SLASH;
    }
    let digit = char::from(byte).to_digit(16);
    if states & PERCENT != 0
        && let Some(digit) = digit
    {
        next |= 1 << (HEX_AT + digit);
    }
    for high in 0..16 {
        if states & (1 << (HEX_AT + high)) == 0 {
            continue;
        }
        match digit.and_then(|low| u8::try_from(high * 16 + low).ok()) {
            // Escapes of these are decoded.
            Some(decoded) if is_unreserved(decoded) => {}
            Some(_) => next |= WITHIN,
            None => next |= within(byte),
        }
    }
    if states & PERCENT != 0 && digit.is_none() || states & WITHIN != 0 {
        next |= within(byte);
    }
    if states & (SLASH | DOT | DOT_DOT) != 0 && byte != b'/' {
        next |= match byte {
            b'.' if states & SLASH != 0 => DOT,
            b'.' => 0,
            _ => within(byte),
        };
        if byte == b'.' {
            next |= if states & DOT != 0 { DOT_DOT } else { 0 };
            next |= if states & DOT_DOT != 0 { WITHIN } else { 0 };
        }
    }
    next
}

/// After a byte of a segment that is not only dots.
fn within(byte: u8) -> States {
    match byte {
        b'/' => SLASH,
        b'%' => PERCENT,
        _ => WITHIN,
    }
}

/// Why nothing can follow from these states by this token.
fn why(states: States, token: &Token) -> String {
    let byte = match token {
        Token::Byte(byte) => *byte,
        Token::Class(_) if states & START != 0 => return "it does not begin with \"/\"".into(),
        Token::Class(_) => return "a class holds no character that a path can have there".into(),
        Token::Capture(_) => return "a capture follows no slash".into(),
        Token::Star => return String::new(),
    };
    match byte {
        b'?' | b'#' => "a query and what follows \"#\" are cut before rules are looked at".into(),
        b'\\' => "\"\\\" is a slash to Envoy".into(),
        0x80.. => "it holds a character that paths hold only escaped".into(),
        b' ' => "it holds a blank, which paths hold as %20".into(),
        b'|' => "it holds '|', which paths hold as %7C (alternatives are {a,b})".into(),
        _ if !byte.is_ascii_graphic() => {
            format!("it holds a control character, which paths hold as %{byte:02X}")
        }
        _ if is_foreign(byte) => format!(
            "it holds {:?}, which paths hold as %{byte:02X}",
            char::from(byte)
        ),
        _ if states & START != 0 => "it does not begin with \"/\"".into(),
        b'/' if states & SLASH != 0 => "repeated slashes are merged to one".into(),
        b'/' => DOTS.into(),
        _ => format!(
            "the escape that ends in {:?} is decoded before rules are looked at",
            char::from(byte)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::path::normalise;

    /// The automaton takes a text exactly when it is a path's normal form.
    #[test]
    fn the_automaton_knows_normal_paths() {
        let pieces = [
            "/", ".", "..", "a", "%", "%2", "%2e", "%2F", "%41", "%%", "4", "1", "?", "#", "\\",
            "\"", "{", "|", " ", "\u{e9}", ":", "*", ";", "[",
        ];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = texts
                .iter()
                .flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}")));
            let longer: Vec<String> = longer.collect();
            texts.extend(longer);
            texts.sort_unstable();
            texts.dedup();
            if texts.len() > 60_000 {
                break;
            }
        }
        for text in &texts {
            let branch: Branch = text.bytes().map(Token::Byte).collect();
            // That these are escaped or refused before Weir sees a path, Envoy takes care of.
            let is_graphic = text.bytes().all(|byte| byte.is_ascii_graphic());
            let is_path = text.starts_with('/')
                && is_graphic
                && normalise(text.as_bytes()) == text.as_bytes();
            assert_eq!(check(&branch).is_ok(), is_path, "{text}");
        }
    }
}
