//! YAML, with places: all documents of a file. Scalars are what YAML 1.2 takes them for, so `on` and a
//! date are text. What an alias stands for is written out, up to a bound.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marked};
use serde_json::Number;

use super::tree::{Member, Node, Span, Unreadable, Value};

/// A policy has some thousands of nodes. Aliases of aliases could make a million of a line.
const MOST_NODES: usize = 500_000;
/// As deep as the reader of JSON goes.
const DEEPEST: usize = 128;

pub fn parse(text: &str) -> Result<Vec<Node>, Unreadable> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        bytes: byte_of_each_char(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    reader.documents()
}

struct Reader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// The parser counts characters.
    bytes: Vec<usize>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn documents(&mut self) -> Result<Vec<Node>, Unreadable> {
        let mut documents = Vec::new();
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd | Event::Nothing => break,
                event => documents.push(self.node(event, span, 0)?),
            }
        }
        Ok(documents)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Unreadable> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let span = self.span(span);
                Ok(Some((event, span)))
            }
            Some(Err(error)) => {
                let at = self.byte(error.marker().index());
                Err(Unreadable {
                    message: format!("is not YAML: {}", error.info()),
                    span: at..at,
                })
            }
        }
    }

    fn expect(&mut self) -> Result<(Event<'a>, Span), Unreadable> {
        self.next()?.ok_or_else(|| Unreadable {
            message: "is not YAML: it ends too early".to_owned(),
            span: 0..0,
        })
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Unreadable> {
        self.count(1, &span)?;
        if depth > DEEPEST {
            return Err(Unreadable {
                message: format!("is nested more than {DEEPEST} deep"),
                span,
            });
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let value = match style {
                    ScalarStyle::Plain if !is_text => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                (anchor, Node { value, span })
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                let end = loop {
                    match self.expect()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                };
                let span = span.start..end.end;
                let value = Value::List(list);
                (anchor, Node { value, span })
            }
            Event::MappingStart(anchor, _) => {
                let mut members = Vec::new();
                let end = loop {
                    match self.expect()? {
                        (Event::MappingEnd, end) => break end,
                        (event, span) => self.member(event, span, depth, &mut members)?,
                    }
                };
                let span = span.start..end.end;
                let value = Value::Object(members);
                (anchor, Node { value, span })
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| Unreadable {
                    message: "is not YAML: an alias of what is not written yet".to_owned(),
                    span: span.clone(),
                })?;
                self.count(size(&node), &span)?;
                (0, node)
            }
            other => {
                return Err(Unreadable {
                    message: format!("is not YAML: {other:?} where a value is expected"),
                    span,
                });
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn member(
        &mut self,
        event: Event<'a>,
        name_span: Span,
        depth: usize,
        members: &mut Vec<Member>,
    ) -> Result<(), Unreadable> {
        let Event::Scalar(name, style, ..) = event else {
            return Err(Unreadable {
                message: "is no name: a member's name is text".to_owned(),
                span: name_span,
            });
        };
        let (event, span) = self.expect()?;
        let node = self.node(event, span, depth + 1)?;
        match (&*name, style, node.value) {
            ("<<", ScalarStyle::Plain, Value::Object(merged)) => {
                let is_new = |member: &Member| members.iter().all(|own| own.name != member.name);
                let merged: Vec<Member> = merged.into_iter().filter(is_new).collect();
                members.extend(merged);
            }
            (_, _, value) => members.push(Member {
                name: name.into_owned(),
                name_span,
                node: Node {
                    value,
                    span: node.span,
                },
            }),
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Unreadable> {
        self.nodes += nodes;
        match self.nodes > MOST_NODES {
            false => Ok(()),
            true => Err(Unreadable {
                message: format!("has more than {MOST_NODES} values, its aliases written out"),
                span: span.clone(),
            }),
        }
    }

    fn span(&self, span: Marked) -> Span {
        self.byte(span.start.index())..self.byte(span.end.index())
    }

    fn byte(&self, index: usize) -> usize {
        let end = self.bytes.last().copied().unwrap_or(0);
        self.bytes.get(index).copied().unwrap_or(end)
    }
}

/// The last is the end of the text.
fn byte_of_each_char(text: &str) -> Vec<usize> {
    let chars = text.char_indices().map(|(byte, _)| byte);
    chars.chain([text.len()]).collect()
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.iter().map(|one| size(&one.node)).sum::<usize>(),
        _ => 1,
    }
}

/// A plain scalar by YAML's core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let of_base = |prefix: &str, base| {
        let digits = text.strip_prefix(prefix)?;
        u64::from_str_radix(digits, base).ok().map(Number::from)
    };
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let is_decimal = unsigned
        .starts_with(|first: char| first.is_ascii_digit() || "-.".contains(first))
        && unsigned.chars().any(|char| char.is_ascii_digit())
        && unsigned
            .chars()
            .all(|char| char.is_ascii_digit() || "-+.eE".contains(char));
    let decimal = || {
        let whole = unsigned.parse::<u64>().ok().map(Number::from);
        let negative = || unsigned.parse::<i64>().ok().map(Number::from);
        let fraction = || unsigned.parse::<f64>().ok().and_then(Number::from_f64);
        whole.or_else(negative).or_else(fraction)
    };
    of_base("0x", 16)
        .or_else(|| of_base("0o", 8))
        .or_else(|| is_decimal.then(decimal).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Vec<serde_json::Value> {
        let documents = parse(text).unwrap();
        let read = |node: &Node| serde_json::from_str(&node.to_json()).unwrap();
        documents.iter().map(read).collect()
    }

    #[test]
    fn scalars_are_what_yaml_takes_them_for() {
        for (text, expected) in [
            (
                "{a: 5, b: '5', c: 0.5, d: true}",
                r#"{"a":5,"b":"5","c":0.5,"d":true}"#,
            ),
            (
                "[on, off, yes, 2026-12-24, ~, 0x10]",
                r#"["on","off","yes","2026-12-24",null,16]"#,
            ),
            (
                "a: 10.0.0.0/8\nb: -5\nc: 1e3\nd: +9:00",
                r#"{"a":"10.0.0.0/8","b":-5,"c":1000.0,"d":"+9:00"}"#,
            ),
            (
                "x: &a {l: 1}\ny: *a\nz: {<<: *a, m: 2}",
                r#"{"x":{"l":1},"y":{"l":1},"z":{"l":1,"m":2}}"#,
            ),
            ("a: |\n  one\n  two\n", r#"{"a":"one\ntwo\n"}"#),
        ] {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            assert_eq!(json(text), [expected], "{text}");
        }
        assert_eq!(json("a: 1\n---\nb: 2\n").len(), 2);
    }

    #[test]
    fn places_are_bytes_though_the_text_is_not_ascii() {
        let text = "# é\nrules:\n- name: ü\n";
        let documents = parse(text).unwrap();
        let Value::List(rules) = &documents[0].get("rules").unwrap().value else {
            panic!("{documents:?}");
        };
        let name = rules[0].get("name").unwrap();
        assert_eq!(&text[name.span.clone()], "ü");
    }

    #[test]
    fn aliases_of_aliases_do_not_fill_the_memory() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        let error = parse(&text).unwrap_err();
        assert!(
            error.message.contains("more than 500000 values"),
            "{error:?}"
        );
        assert!(parse("a: [").is_err() && parse("a: *b").is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
