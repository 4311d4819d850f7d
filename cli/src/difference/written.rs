//! What one policy changes about another, in words: rule by rule, and within a rule by the path to
//! what differs. It compares what is written, so a field that is new to it is not missed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One line for each difference; none where there is none.
pub fn between(before: &Value, after: &Value) -> Vec<String> {
    let (Value::Object(before), Value::Object(after)) = (&veiled(before), &veiled(after)) else {
        return match before == after {
            true => Vec::new(),
            false => vec![format!("~ {} → {}", whole(before), whole(after))],
        };
    };
    let (old, new) = (rules(before), rules(after));
    let mut lines = Vec::new();
    for (name, rule) in &old {
        match new.iter().find(|(other, _)| other == name) {
            None => lines.push(format!("- rule {name}")),
            Some((_, after)) => {
                let mut within = Vec::new();
                differences(Some(*rule), Some(*after), "", &mut within);
                lines.extend(within.iter().map(|line| format!("~ rule {name}: {line}")));
            }
        }
    }
    for (name, rule) in &new {
        if old.iter().all(|(other, _)| other != name) {
            lines.push(format!("+ rule {name}: {}", without_name(rule)));
        }
    }
    let kept = |these: &[(String, &Value)], others: &[(String, &Value)]| -> Vec<String> {
        let names = these.iter().map(|(name, _)| name.clone());
        let is_kept = |name: &String| others.iter().any(|(other, _)| other == name);
        names.filter(is_kept).collect()
    };
    let (order, order_after) = (kept(&old, &new), kept(&new, &old));
    if order != order_after {
        let order = order_after.join(", ");
        lines.push(format!("~ the order of the rules: {order}"));
    }
    let mut others = Vec::new();
    let beside = |policy: &Map<String, Value>| {
        let fields = policy.iter().filter(|(name, _)| *name != "rules");
        Value::Object(
            fields
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    };
    differences(Some(&beside(before)), Some(&beside(after)), "", &mut others);
    lines.extend(others.iter().map(|line| format!("~ {line}")));
    lines
}

fn whole(policy: &Value) -> &'static str {
    match policy {
        Value::Object(_) => "a policy of its own",
        _ => "the policy of the gateways' configuration",
    }
}

/// The rules with their names; one without a name (no policy has it) counts by its place.
fn rules(policy: &Map<String, Value>) -> Vec<(String, &Value)> {
    let rules = policy.get("rules").and_then(Value::as_array);
    let rules = rules.into_iter().flatten().enumerate();
    rules
        .map(|(place, rule)| {
            let name = rule["name"].as_str().map(str::to_owned);
            (name.unwrap_or_else(|| place.to_string()), rule)
        })
        .collect()
}

fn without_name(rule: &Value) -> String {
    let mut rule = rule.clone();
    if let Some(fields) = rule.as_object_mut() {
        fields.remove("name");
    }
    rule.to_string()
}

fn differences(before: Option<&Value>, after: Option<&Value>, path: &str, lines: &mut Vec<String>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                differences(before.get(name), after.get(name), &path, lines);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (place, (before, after)) in before.iter().zip(after).enumerate() {
                let path = format!("{path}[{place}]");
                differences(Some(before), Some(after), &path, lines);
            }
        }
        (before, after) => {
            let shown = |value: Option<&Value>| {
                value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
            };
            let mut line = String::new();
            let _ = write!(line, "{path}: {} → {}", shown(before), shown(after));
            lines.push(line);
        }
    }
}

/// The operators' secret is nobody's to read on a screen: only that it differs is told.
fn veiled(policy: &Value) -> Value {
    let mut policy = policy.clone();
    if let Some(secret) = policy.pointer_mut("/status/operator_header/value") {
        let bytes = secret.to_string();
        let print = weir_core::request::subject::hex_digest(bytes.as_bytes());
        *secret = Value::String(format!("(secret {})", &print[..8]));
    }
    policy
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(rules: Value) -> Value {
        json!({ "rules": rules })
    }

    #[test]
    fn a_policy_changes_nothing_about_itself() {
        let policy = policy(json!([{ "name": "a", "global_limit": { "limit": 1 } }]));
        assert_eq!(between(&policy, &policy), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_told_with_its_rule_and_path() {
        let before = json!({
            "headers": ["x-ratelimit"],
            "rules": [
                { "name": "a", "priority": 1, "user_limits": { "free": { "limit": 1 } } },
                { "name": "b", "user_limits": { "free": [{ "limit": 1 }, { "limit": 2 }] } },
                { "name": "c" },
            ],
        });
        let after = json!({
            "rules": [
                { "name": "d", "pattern": "/x" },
                { "name": "b", "user_limits": { "free": [{ "limit": 1 }, { "limit": 3 }] } },
                { "name": "a", "user_limits": { "free": { "limit": 5 } } },
            ],
        });
        assert_eq!(
            between(&before, &after),
            [
                "~ rule a: priority: 1 → nothing",
                "~ rule a: user_limits.free.limit: 1 → 5",
                "~ rule b: user_limits.free[1].limit: 2 → 3",
                "- rule c",
                "+ rule d: {\"pattern\":\"/x\"}",
                "~ the order of the rules: b, a",
                "~ headers: [\"x-ratelimit\"] → nothing",
            ]
        );
    }

    #[test]
    fn the_way_back_to_the_configuration_is_told_as_such() {
        let told = between(&policy(json!([])), &json!("configured"));
        assert_eq!(
            told,
            ["~ a policy of its own → the policy of the gateways' configuration"]
        );
    }

    #[test]
    fn a_secret_is_not_shown_though_its_change_is() {
        let with = |value: &str| {
            let header = json!({ "name": "X-Ops", "value": value });
            json!({ "rules": [], "status": { "operator_header": header } })
        };
        let told = between(&with("0123456789abcdef"), &with("fedcba9876543210")).concat();
        assert!(
            told.starts_with("~ status.operator_header.value: \"(secret "),
            "{told}"
        );
        assert!(!told.contains("0123456789abcdef") && !told.contains("fedcba9876543210"));
    }
}
