//! RESP2, as raw bytes in and values out.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use proptest::prelude::*;
use weir_core::codec::resp::{
    Command, MAX_BULK, MAX_DEPTH, MAX_ITEMS, MAX_LINE, Malformed, Reader, Replies, Token, command,
};

fn tokens(bytes: &[u8]) -> Result<Vec<Token<'_>>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut tokens = Vec::new();
    while let Some(token) = reader.token()? {
        tokens.push(token);
    }
    assert_eq!(reader.rest(), b"", "incomplete");
    Ok(tokens)
}

#[test]
fn raw_bytes_are_read_as_tokens() {
    use Token::*;
    let table: &[(&[u8], &[Token])] = &[
        (b"", &[]),
        (b"+OK\r\n", &[Simple(b"OK")]),
        (b"+\r\n", &[Simple(b"")]),
        (
            b"-NOSCRIPT No matching script.\r\n",
            &[Error(b"NOSCRIPT No matching script.")],
        ),
        (b":0\r\n", &[Integer(0)]),
        (b":-0\r\n", &[Integer(0)]),
        (b":+7\r\n", &[Integer(7)]),
        (b":-1\r\n", &[Integer(-1)]),
        (b":9223372036854775807\r\n", &[Integer(i64::MAX)]),
        (b":-9223372036854775808\r\n", &[Integer(i64::MIN)]),
        (b"$-1\r\n", &[Bulk(None)]),
        (b"$0\r\n\r\n", &[Bulk(Some(b""))]),
        (b"$4\r\n\r\n\r\n\r\n", &[Bulk(Some(b"\r\n\r\n"))]),
        (b"$1\r\n\xff\r\n", &[Bulk(Some(b"\xff"))]),
        (b"*-1\r\n", &[Array(None)]),
        (b"*0\r\n", &[Array(Some(0))]),
        (
            b"*2\r\n:1\r\n*1\r\n+x\r\n",
            &[Array(Some(2)), Integer(1), Array(Some(1)), Simple(b"x")],
        ),
        (b":1\r\n:2\r\n", &[Integer(1), Integer(2)]),
    ];
    for (bytes, expected) in table {
        assert_eq!(
            tokens(bytes).as_deref(),
            Ok(*expected),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn malformed_bytes_are_told_by_their_defect() {
    let long_line = [b"+", &[b'x'; MAX_LINE as usize + 1][..]].concat();
    let table: &[(&[u8], Malformed)] = &[
        (b"HTTP/1.1 200 OK\r\n", Malformed::Kind),
        (b"\r\n", Malformed::Kind),
        (b"_\r\n", Malformed::Kind),
        (b":\r\n", Malformed::Number),
        (b":-\r\n", Malformed::Number),
        (b":--1\r\n", Malformed::Number),
        (b":1-\r\n", Malformed::Number),
        (b":1.5\r\n", Malformed::Number),
        (b":9223372036854775808\r\n", Malformed::Number),
        (b":-9223372036854775809\r\n", Malformed::Number),
        (b":000000000000000000000", Malformed::Number),
        (b"$-2\r\n", Malformed::Number),
        (b"*-2\r\n", Malformed::Number),
        (b"$1048577\r\n", Malformed::TooLong),
        (b"*1048577\r\n", Malformed::TooLong),
        (b"*4294967297\r\n", Malformed::TooLong),
        (b"+a\rb\r\n", Malformed::Ending),
        (b"+a\n", Malformed::Ending),
        (b":1\n", Malformed::Number),
        (b":1\r\r", Malformed::Ending),
        (b"$1\r\nab\r\n", Malformed::Ending),
        (b"$1\r\na\rb", Malformed::Ending),
        (&long_line, Malformed::TooLong),
    ];
    assert_eq!(
        (MAX_BULK, MAX_ITEMS),
        (1_048_576, 1_048_576),
        "the table's numbers"
    );
    for (bytes, defect) in table {
        assert_eq!(tokens(bytes), Err(*defect), "{}", bytes.escape_ascii());
        assert_eq!(
            Replies::new().push(bytes),
            Err(*defect),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_line_may_be_exactly_as_long_as_the_cap() {
    let text = vec![b'x'; MAX_LINE as usize];
    let line = [b"-", &text[..], b"\r\n"].concat();
    assert_eq!(tokens(&line), Ok(vec![Token::Error(&text)]));
}

#[test]
fn arrays_nest_as_deep_as_the_cap() {
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert_eq!(Replies::new().push(&nested(MAX_DEPTH)), Ok(1));
    assert_eq!(
        Replies::new().push(&nested(MAX_DEPTH + 1)),
        Err(Malformed::TooDeep)
    );
}

#[test]
fn a_reader_that_needs_more_consumes_nothing() {
    let whole = b"$5\r\nhello\r\n";
    for end in 0..whole.len() {
        let mut reader = Reader::new(&whole[..end]);
        assert_eq!(reader.token(), Ok(None));
        assert_eq!(reader.rest(), &whole[..end]);
    }
}

#[test]
fn commands_are_written_as_arrays_of_bulk_strings() {
    let mut out = Vec::new();
    Command::new(&mut out, 3)
        .arg(b"GET")
        .arg(b"")
        .number(u64::MAX);
    assert_eq!(
        out,
        b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$20\r\n18446744073709551615\r\n"
    );
}

#[derive(Clone, Debug)]
enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Option<Vec<Value>>),
}

impl Value {
    /// The naive encoder.
    fn bytes(&self) -> Vec<u8> {
        let line = |kind: &str, text: &[u8]| [kind.as_bytes(), text, b"\r\n"].concat();
        match self {
            Value::Simple(text) => line("+", text),
            Value::Error(text) => line("-", text),
            Value::Integer(value) => line(":", value.to_string().as_bytes()),
            Value::Bulk(None) => line("$-1", b""),
            Value::Bulk(Some(text)) => line(&format!("${}\r\n", text.len()), text),
            Value::Array(None) => line("*-1", b""),
            Value::Array(Some(values)) => {
                let head = line("*", values.len().to_string().as_bytes());
                values
                    .iter()
                    .fold(head, |out, value| [out, value.bytes()].concat())
            }
        }
    }

    fn tokens(&self) -> Vec<Token<'_>> {
        match self {
            Value::Simple(text) => vec![Token::Simple(text)],
            Value::Error(text) => vec![Token::Error(text)],
            Value::Integer(value) => vec![Token::Integer(*value)],
            Value::Bulk(text) => vec![Token::Bulk(text.as_deref())],
            Value::Array(None) => vec![Token::Array(None)],
            Value::Array(Some(values)) => {
                let head = Token::Array(Some(values.len() as u32));
                [head]
                    .into_iter()
                    .chain(values.iter().flat_map(Value::tokens))
                    .collect()
            }
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let line = || "[ -~]{0,12}".prop_map(String::into_bytes);
    prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)).prop_map(Value::Bulk),
    ]
    .prop_recursive(MAX_DEPTH as u32, 24, 4, |element| {
        prop::option::of(prop::collection::vec(element, 0..4)).prop_map(Value::Array)
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(value in value()) {
        let bytes = value.bytes();
        prop_assert_eq!(tokens(&bytes), Ok(value.tokens()));
    }

    #[test]
    fn commands_are_read_back(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..9)) {
        let mut out = Vec::new();
        command(&mut out, args.iter().map(Vec::as_slice));
        let bulks = args.into_iter().map(|arg| Value::Bulk(Some(arg))).collect();
        prop_assert_eq!(out, Value::Array(Some(bulks)).bytes());
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does(number: u64) {
        let (mut fast, mut naive) = (Vec::new(), Vec::new());
        Command::new(&mut fast, 1).number(number);
        Command::new(&mut naive, 1).arg(number.to_string().as_bytes());
        prop_assert_eq!(fast, naive);
    }

    /// After each byte the scanner knows how many values are complete, and whether one is open.
    #[test]
    fn any_split_counts_the_same(values in prop::collection::vec(value(), 1..6), cuts: u64) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for value in &values {
            bytes.extend(value.bytes());
            ends.push(bytes.len());
        }
        let mut replies = Replies::new();
        let mut pushed = 0;
        for end in 1..=bytes.len() {
            if end < bytes.len() && cuts.rotate_left(end as u32) & 1 == 0 {
                continue;
            }
            let complete = ends.iter().filter(|at| **at <= end).count();
            prop_assert_eq!(replies.push(&bytes[pushed..end]), Ok(complete));
            prop_assert_eq!(replies.complete(), complete);
            prop_assert_eq!(replies.at_boundary(), ends.contains(&end));
            pushed = end;
        }
    }

    #[test]
    fn values_are_cut_apart_where_they_end(values in prop::collection::vec(value(), 1..6)) {
        let stream: Vec<u8> = values.iter().flat_map(Value::bytes).collect();
        let mut rest = &stream[..];
        let mut replies = Replies::new();
        for value in &values {
            let end = replies.push_one(rest).unwrap().unwrap();
            let (one, others) = rest.split_at(end);
            prop_assert_eq!(one, value.bytes());
            rest = others;
        }
        prop_assert_eq!(replies.push_one(rest), Ok(None));
    }

    /// Noise over the grammar's own alphabet reaches every state; any split judges it alike.
    #[test]
    fn any_split_judges_noise_alike(noise in "[-+:$*0-2x\r\n]{0,40}", cut: prop::sample::Index) {
        let noise = noise.as_bytes();
        let whole = Replies::new().push(noise);
        let (left, right) = noise.split_at(cut.index(noise.len() + 1));
        let mut replies = Replies::new();
        let split = replies.push(left).and_then(|_| replies.push(right));
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = Replies::new().push(&bytes);
        let mut reader = Reader::new(&bytes);
        while let Ok(Some(_)) = reader.token() {}
    }
}
