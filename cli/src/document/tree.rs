//! A document as a tree of which every node knows where it stands, whatever it was written in.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Number;

/// Bytes of the file.
pub type Span = Range<usize>;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: Value,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order in which they are written, duplicates too.
    Object(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    pub name_span: Span,
    pub node: Node,
}

/// Where things of one document stand, by the paths that the core calls them by.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, Place>);

#[derive(Clone, Debug)]
pub struct Place {
    /// The name, where it is a member of an object.
    pub name: Option<Span>,
    pub value: Span,
    pub is_scalar: bool,
}

/// What is wrong with a text that is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub message: String,
    pub span: Span,
}

impl Node {
    pub fn get(&self, name: &str) -> Option<&Node> {
        let Value::Object(members) = &self.value else {
            return None;
        };
        let member = members.iter().find(|member| member.name == name)?;
        Some(&member.node)
    }

    /// As JSON, with what is written twice written twice: the core refuses it.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write(&mut json, 0);
        json.push('\n');
        json
    }

    fn write(&self, json: &mut String, depth: usize) {
        let line = |json: &mut String, depth: usize| {
            json.push('\n');
            json.extend(std::iter::repeat_n("  ", depth));
        };
        match &self.value {
            Value::Null => json.push_str("null"),
            Value::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => json.push_str(&number.to_string()),
            Value::Text(text) => json.push_str(&serde_json::Value::from(text.as_str()).to_string()),
            Value::List(list) if list.is_empty() => json.push_str("[]"),
            Value::Object(members) if members.is_empty() => json.push_str("{}"),
            Value::List(list) => {
                json.push('[');
                for (place, node) in list.iter().enumerate() {
                    if place > 0 {
                        json.push(',');
                    }
                    line(json, depth + 1);
                    node.write(json, depth + 1);
                }
                line(json, depth);
                json.push(']');
            }
            Value::Object(members) => {
                json.push('{');
                for (place, member) in members.iter().enumerate() {
                    if place > 0 {
                        json.push(',');
                    }
                    line(json, depth + 1);
                    json.push_str(&serde_json::Value::from(member.name.as_str()).to_string());
                    json.push_str(": ");
                    member.node.write(json, depth + 1);
                }
                line(json, depth);
                json.push('}');
            }
        }
    }

    /// The same tree elsewhere in a file.
    pub fn moved(self, to: &impl Fn(&Span) -> Span) -> Node {
        let value = match self.value {
            Value::List(list) => Value::List(list.into_iter().map(|node| node.moved(to)).collect()),
            Value::Object(members) => {
                let members = members.into_iter().map(|member| Member {
                    name_span: to(&member.name_span),
                    node: member.node.moved(to),
                    name: member.name,
                });
                Value::Object(members.collect())
            }
            scalar => scalar,
        };
        Node {
            value,
            span: to(&self.span),
        }
    }
}

impl Places {
    pub fn of(root: &Node, name: &str) -> Places {
        let mut places = Places::default();
        places.add(root, name.to_owned(), None);
        places
    }

    fn add(&mut self, node: &Node, path: String, name: Option<&Span>) {
        let is_scalar = match &node.value {
            Value::List(list) => {
                for (place, node) in list.iter().enumerate() {
                    self.add(node, format!("{path}[{place}]"), None);
                }
                false
            }
            Value::Object(members) => {
                for member in members {
                    let path = member_path(&path, &member.name);
                    self.add(&member.node, path, Some(&member.name_span));
                }
                false
            }
            _ => true,
        };
        let place = Place {
            name: name.cloned(),
            value: node.span.clone(),
            is_scalar,
        };
        self.0.insert(path, place);
    }

    /// The place of a path, or of the nearest thing around it that is written.
    pub fn find(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(place);
            }
            let end = path.rfind(['.', '['])?;
            path = &path[..end];
        }
    }
}

/// As the core writes paths.
fn member_path(path: &str, name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => format!("{path}.{name}"),
        false => format!("{path}[{name:?}]"),
    }
}
