//! The RESP2 parser against a plain one, under every split of the bytes.

use weir_core::codec::resp::{Reader, Replies, Token};

use crate::Target;
use crate::input::{Input, pieces};

pub const TARGET: Target = Target {
    name: "resp",
    run,
    words: &[
        "\r\n",
        "*2\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "$5\r\nhello\r\n",
        ":-9223372036854775808\r\n",
        "-NOSCRIPT no\r\n",
        "+OK\r\n",
        "*0\r\n",
        "9999999999",
        "$0\r\n\r\n",
    ],
};

/// Zeros in front count too: a number without end is not a number.
const MOST_DIGITS: usize = 20;

fn run(data: &[u8]) {
    let mut input = Input(data);
    let cuts = input.bytes(2);
    let stream = input.0;

    let mut whole = Replies::new();
    let at_once = whole.push(stream);
    let mut cut = Replies::new();
    let in_pieces = pieces(stream, cuts).try_fold(0, |_, piece| cut.push(piece));
    assert_eq!(in_pieces, at_once);
    if at_once.is_ok() {
        assert_eq!(cut.at_boundary(), whole.at_boundary());
    }

    let (values, end) = plainly(stream);
    match at_once {
        Ok(complete) => {
            assert_ne!(end, End::Malformed);
            assert_eq!(complete, values);
            assert_eq!(whole.at_boundary(), end == End::Boundary);
        }
        Err(_) => assert_ne!(end, End::Boundary),
    }
    tokens_are_what_was_written(stream);
}

/// Every token, written again, is the bytes it was read from.
fn tokens_are_what_was_written(stream: &[u8]) {
    let mut reader = Reader::new(stream);
    loop {
        let before = reader.rest();
        let Ok(Some(token)) = reader.token() else {
            assert_eq!(reader.rest(), before, "nothing is consumed without a token");
            return;
        };
        let read = &before[..before.len() - reader.rest().len()];
        let end = read.windows(2).position(|two| two == b"\r\n");
        let (line, body) = read.split_at(end.expect("a line") + 2);
        let line = &line[..line.len() - 2];
        let expected = match token {
            Token::Simple(text) => [b"+", text].concat(),
            Token::Error(text) => [b"-", text].concat(),
            _ => line.to_vec(),
        };
        assert_eq!(line, expected);
        match token {
            Token::Bulk(Some(text)) => assert_eq!(body, [text, b"\r\n"].concat()),
            _ => assert!(body.is_empty()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Exactly behind a value.
    Boundary,
    Inside,
    Malformed,
}

/// How many values there are, and how it ends: RESP2 as one would read it aloud.
fn plainly(mut rest: &[u8]) -> (usize, End) {
    let mut values = 0;
    while !rest.is_empty() {
        match value(rest, 0) {
            Ok(after) => rest = after,
            Err(end) => return (values, end),
        }
        values += 1;
    }
    (values, End::Boundary)
}

/// What follows the value at the front.
fn value(bytes: &[u8], depth: usize) -> Result<&[u8], End> {
    use weir_core::codec::resp::{MAX_BULK, MAX_DEPTH, MAX_ITEMS};
    let Some((kind, bytes)) = bytes.split_first() else {
        return Err(End::Inside);
    };
    let end = bytes.windows(2).position(|two| two == b"\r\n");
    let end = end.ok_or(End::Inside)?;
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let number = || {
        let text = std::str::from_utf8(line).map_err(|_| End::Malformed)?;
        if text.trim_start_matches(['+', '-']).len() > MOST_DIGITS {
            return Err(End::Malformed);
        }
        text.parse::<i64>().map_err(|_| End::Malformed)
    };
    let length = |most: u32| match number()? {
        -1 => Ok(None),
        length if (0..=i64::from(most)).contains(&length) => Ok(Some(length as usize)),
        _ => Err(End::Malformed),
    };
    match kind {
        b'+' | b'-' if line.contains(&b'\n') || line.contains(&b'\r') => Err(End::Malformed),
        b'+' | b'-' => Ok(rest),
        b':' => number().map(|_| rest),
        b'$' => match length(MAX_BULK)? {
            None => Ok(rest),
            Some(length) => match rest.get(length..length + 2) {
                None => Err(End::Inside),
                Some(b"\r\n") => Ok(&rest[length + 2..]),
                Some(_) => Err(End::Malformed),
            },
        },
        b'*' => {
            let mut rest = rest;
            let items = length(MAX_ITEMS)?.unwrap_or(0);
            if items > 0 && depth == MAX_DEPTH {
                return Err(End::Malformed);
            }
            for _ in 0..items {
                rest = value(rest, depth + 1)?;
            }
            Ok(rest)
        }
        _ => Err(End::Malformed),
    }
}
