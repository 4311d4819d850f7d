//! Globs as slowly as they can be matched: braces written out, and then every way tried.

/// Whether a pattern that Weir accepts matches all of a path.
pub fn matches(pattern: &str, path: &[u8]) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let written_out = written_out(&pattern);
    written_out.iter().any(|glob| rest_matches(glob, 0, path))
}

/// The pattern without braces, once for each way through them.
fn written_out(pattern: &[char]) -> Vec<Vec<char>> {
    let Some(open) = find(pattern, 0, |char| char == '{') else {
        return vec![pattern.to_vec()];
    };
    let mut depth = 0;
    let (mut alternatives, mut start, mut at) = (Vec::new(), open + 1, open);
    loop {
        at = find(pattern, at, |char| "{,}".contains(char)).expect("an accepted pattern");
        match pattern[at] {
            '{' => depth += 1,
            ',' if depth > 1 => {}
            other => {
                if depth == 1 {
                    alternatives.push(&pattern[start..at]);
                    start = at + 1;
                }
                depth -= usize::from(other == '}');
            }
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    let whole = |alternative: &[char]| [&pattern[..open], alternative, &pattern[at..]].concat();
    let wholes = alternatives.into_iter().map(whole);
    wholes.flat_map(|whole| written_out(&whole)).collect()
}

/// The first such character from a place on that stands for itself.
fn find(pattern: &[char], from: usize, is_wanted: impl Fn(char) -> bool) -> Option<usize> {
    let mut at = from;
    while at < pattern.len() {
        if pattern[at] == '{'
            && let Some(end) = capture_end(pattern, at)
        {
            at = end;
            continue;
        }
        match pattern[at] {
            char if is_wanted(char) => return Some(at),
            '\\' => at += 2,
            '[' => at = class_end(pattern, at),
            _ => at += 1,
        }
    }
    None
}

/// The place after a capture, if the brace opens one: it has no alternatives.
fn capture_end(pattern: &[char], open: usize) -> Option<usize> {
    let inside = &pattern[open + 1..];
    let end = inside.iter().position(|char| *char == '}')?;
    let is_name = !inside[..end].iter().any(|char| "{,[\\".contains(*char));
    is_name.then_some(open + 1 + end + 1)
}

/// The place after a class.
fn class_end(pattern: &[char], open: usize) -> usize {
    let mut at = open + 1;
    at += usize::from(matches!(pattern[at], '!' | '^'));
    // The first may be a bracket.
    at += 1;
    while pattern[at] != ']' {
        at += 1;
    }
    at + 1
}

fn rest_matches(glob: &[char], at: usize, path: &[u8]) -> bool {
    let Some(char) = glob.get(at) else {
        return path.is_empty();
    };
    match char {
        '*' => {
            let mut end = at;
            while glob.get(end) == Some(&'*') {
                end += 1;
            }
            let is_directories =
                end - at > 1 && at > 0 && glob[at - 1] == '/' && glob.get(end) == Some(&'/');
            is_directories && rest_matches(glob, end + 1, path)
                || (0..=path.len()).any(|taken| rest_matches(glob, end, &path[taken..]))
        }
        '[' => {
            let end = class_end(glob, at);
            let Some((byte, rest)) = path.split_first() else {
                return false;
            };
            class_holds(&glob[at + 1..end - 1], *byte) && rest_matches(glob, end, rest)
        }
        '{' => {
            let end = capture_end(glob, at).expect("alternatives are written out");
            let segment = path.split(|byte| *byte == b'/').next().unwrap_or_default();
            !matches!(segment, b"" | b"." | b"..")
                && rest_matches(glob, end, &path[segment.len()..])
        }
        '?' => match path.split_first() {
            Some((byte, rest)) => *byte != b'/' && rest_matches(glob, at + 1, rest),
            None => false,
        },
        '\\' => literal_matches(glob[at + 1], glob, at + 2, path),
        char => literal_matches(*char, glob, at + 1, path),
    }
}

fn literal_matches(char: char, glob: &[char], next: usize, path: &[u8]) -> bool {
    let mut bytes = [0; 4];
    let bytes = char.encode_utf8(&mut bytes).as_bytes();
    path.strip_prefix(bytes)
        .is_some_and(|rest| rest_matches(glob, next, rest))
}

fn class_holds(class: &[char], byte: u8) -> bool {
    let (is_negated, members) = match class {
        ['!' | '^', members @ ..] => (true, members),
        members => (false, members),
    };
    let byte = char::from(byte);
    let mut is_in = false;
    let mut at = 0;
    while at < members.len() {
        let (low, mut high) = (members[at], members[at]);
        if members.get(at + 1) == Some(&'-') && at + 2 < members.len() {
            high = members[at + 2];
            at += 2;
        }
        // Latin-1 is what a byte is as a character; a class holds ASCII alone.
        is_in |= byte.is_ascii() && (low..=high).contains(&byte);
        at += 1;
    }
    let is_slash_itself = members == ['/'] && !is_negated;
    is_in != is_negated && (byte != '/' || is_slash_itself)
}
