//! A policy in words, for whoever starts the demonstration. It reads leniently and judges nothing:
//! what is wrong with a policy is for the filter to say.

use std::fmt::Write;

use serde_json::Value;

/// One line for each rule, in the order they apply; empty where the text is no policy.
pub fn in_words(policy: &str) -> String {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let mut rules: Vec<&Value> = policy["rules"].as_array().into_iter().flatten().collect();
    // A stable sort: equal priorities keep the order of the file.
    rules.sort_by_key(|rule| rule["priority"].as_u64().unwrap_or(100));
    let width = |field| {
        rules
            .iter()
            .map(|rule| text(&rule[field]).len())
            .max()
            .unwrap_or(0)
    };
    let (name_width, pattern_width) = (width("name"), width("pattern"));
    let mut words = String::new();
    for rule in &rules {
        let (name, pattern) = (text(&rule["name"]), text(&rule["pattern"]));
        let limits = limits(rule).join(" · ");
        let _ = writeln!(
            words,
            "  {name:name_width$}  {pattern:pattern_width$}  {limits}"
        );
    }
    words
}

fn limits(rule: &Value) -> Vec<String> {
    let mut limits = scoped("everyone", &rule["global_limit"]);
    let mut tiers: Vec<_> = rule["user_limits"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    tiers.sort_by_key(|(_, limit)| limit["limit"].as_u64());
    for (tier, limit) in tiers {
        limits.extend(scoped(tier, limit));
    }
    for (network, limit) in rule["ip_limits"].as_object().into_iter().flatten() {
        let scope = if network == "default" {
            "an address"
        } else {
            network
        };
        limits.extend(scoped(scope, limit));
    }
    limits
}

/// One limit or a list of them.
fn scoped(scope: &str, limit: &Value) -> Vec<String> {
    match limit {
        Value::Null => Vec::new(),
        Value::Array(limits) => limits
            .iter()
            .flat_map(|limit| scoped(scope, limit))
            .collect(),
        limit => {
            let amount = limit["limit"].as_u64().unwrap_or(0);
            let seconds = limit["window"].as_u64().unwrap_or(0);
            let algorithm = text(&limit["type"]).replace('_', " ");
            vec![format!(
                "{scope} {amount}/{} {algorithm}",
                duration(seconds)
            )]
        }
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        3600 => "h".to_owned(),
        60 => "min".to_owned(),
        1 => "s".to_owned(),
        _ if seconds.is_multiple_of(60) => format!("{}min", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_policy_reads_in_order_of_priority() {
        let words = in_words(include_str!("../../envoy/policy.json"));
        let names: Vec<_> = words
            .lines()
            .filter_map(|l| l.split_whitespace().next())
            .collect();
        assert_eq!(
            names,
            ["auth_api", "upload_api", "search_api", "general_api"]
        );
        let auth = "anonymous 5/5min fixed window · an address 20/h sliding window";
        assert!(words.lines().next().unwrap().ends_with(auth), "{words}");
    }

    #[test]
    fn what_is_no_policy_has_no_words() {
        for text in ["", "{", "[]", r#"{"rules": 5}"#] {
            assert_eq!(in_words(text), "");
        }
    }
}
