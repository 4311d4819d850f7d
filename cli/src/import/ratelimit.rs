//! envoyproxy/ratelimit: descriptors with limits. A descriptor names what Envoy's routes send, which only
//! Envoy's configuration knows; which paths a value stands for, the operator says.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Imported, Left};
use crate::document::tree::{Node, Value};
use crate::document::{Message, yaml};

/// What the paths of a value are: `generic_key` values, or any other.
pub type Patterns = BTreeMap<String, String>;

struct Reader<'a> {
    text: &'a str,
    patterns: &'a Patterns,
    mode: &'static str,
    rules: Vec<Json>,
    converted: usize,
    left: Vec<Left>,
}

/// What the descriptors around one say of its requests.
#[derive(Clone, Default)]
struct Around {
    names: Vec<String>,
    pattern: Option<String>,
    is_by_address: bool,
}

/// Reads a configuration; `mode` is that of the rules.
pub fn read(text: &str, patterns: &Patterns, mode: &'static str) -> Result<Imported, Box<Message>> {
    let documents = yaml::parse(text).map_err(|error| Message::unreadable(error, text))?;
    let mut reader = Reader {
        text,
        patterns,
        mode,
        rules: Vec::new(),
        converted: 0,
        left: Vec::new(),
    };
    for root in &documents {
        let Some(descriptors) = root.get("descriptors") else {
            let message = "lacks \"descriptors\": it is no configuration of envoyproxy/ratelimit";
            let span = root.span.clone();
            return Err(Message::error("config".to_owned(), message.to_owned(), span, text).into());
        };
        reader.descriptors(descriptors, &Around::default());
    }
    Ok(Imported {
        policy: json!({ "rules": reader.rules }),
        converted: reader.converted,
        left: reader.left,
    })
}

impl Reader<'_> {
    fn descriptors(&mut self, list: &Node, around: &Around) {
        let Value::List(list) = &list.value else {
            return self.leave(list, "descriptors", "write a list of them");
        };
        for node in list {
            self.descriptor(node, around.clone());
        }
    }

    fn descriptor(&mut self, node: &Node, mut around: Around) {
        let key = text(node.get("key")).unwrap_or_default();
        let value = text(node.get("value"));
        let what = match &value {
            Some(value) => format!("descriptor {key}={value}"),
            None => format!("descriptor {key}"),
        };
        match (key.as_str(), value) {
            ("remote_address", None) if !around.is_by_address => around.is_by_address = true,
            ("path" | "PATH", Some(path)) if around.pattern.is_none() && path.starts_with('/') => {
                around.names.push(path.clone());
                around.pattern = Some(path);
            }
            (_, Some(value)) if around.pattern.is_none() && self.patterns.contains_key(&value) => {
                around.pattern = self.patterns.get(&value).cloned();
                around.names.push(value);
            }
            ("generic_key" | "header_match", Some(value)) => {
                let instead = format!("say which paths it stands for: --pattern '{value}=/path/*'");
                return self.leave(node, &what, &instead);
            }
            _ => {
                let instead =
                    "a limit by user or address, if one of them tells it; or a rule with `when`";
                return self.leave(node, &what, instead);
            }
        }
        if let Some(limit) = node.get("rate_limit") {
            self.limit(node, limit, &around, &what);
        }
        if let Some(inner) = node.get("descriptors") {
            self.descriptors(inner, &around);
        }
    }

    fn limit(&mut self, node: &Node, limit: &Node, around: &Around, what: &str) {
        for (field, instead) in [
            (
                "unlimited",
                "leave the limit out, or put its callers into `allow`",
            ),
            ("replaces", "a tier with a limit of its own"),
        ] {
            if limit.get(field).is_some() {
                return self.leave(limit, &format!("{what}: {field}"), instead);
            }
        }
        let unit = text(limit.get("unit"))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let window = match unit.as_str() {
            "second" => json!(1),
            "minute" => json!(60),
            "hour" => json!(3600),
            "day" => json!(86_400),
            "week" => json!(604_800),
            "month" => json!("month"),
            _ => {
                return self.leave(
                    limit,
                    &format!("{what}: unit {unit:?}"),
                    "a window in seconds",
                );
            }
        };
        let count = text(limit.get("requests_per_unit")).and_then(|text| text.parse::<u64>().ok());
        let count = match count {
            Some(0) => {
                return self.leave(
                    limit,
                    &format!("{what}: 0 requests"),
                    "a route that answers 403",
                );
            }
            Some(count) => count,
            None => {
                return self.leave(
                    limit,
                    &format!("{what}: no requests_per_unit"),
                    "write how many",
                );
            }
        };
        let is_trial = text(node.get("shadow_mode")).as_deref() == Some("true");
        let limit = json!({"type": "fixed_window", "limit": count, "window": window});
        let mut rule = json!({
            "name": self.name(around),
            "pattern": around.pattern.as_deref().unwrap_or("*"),
            "mode": if is_trial { "shadow" } else { self.mode },
        });
        match around.is_by_address {
            true => rule["ip_limits"] = json!({ "default": limit }),
            false => rule["global_limit"] = limit,
        }
        self.rules.push(rule);
        self.converted += 1;
    }

    /// A name that no rule has yet.
    fn name(&self, around: &Around) -> String {
        let mut name = around.names.join(".");
        if around.is_by_address {
            name.push_str(".address");
        }
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "_-.".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = name
            .trim_matches(['.', '/'])
            .chars()
            .map(plain)
            .take(56)
            .collect();
        let is_taken = |name: &str| self.rules.iter().any(|rule| rule["name"] == name);
        let mut numbered = name.clone();
        let mut next = 2;
        while is_taken(&numbered) {
            numbered = format!("{name}-{next}");
            next += 1;
        }
        numbered
    }

    fn leave(&mut self, node: &Node, what: &str, instead: &str) {
        self.left.push(Left {
            line: self.text[..node.span.start].matches('\n').count() + 1,
            what: what.to_owned(),
            instead: instead.to_owned(),
        });
    }
}

fn text(node: Option<&Node>) -> Option<String> {
    match &node?.value {
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}
