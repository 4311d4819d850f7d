//! What a document or a message names as a value, the parser accepts: a word that somebody reads at night and
//! types must not be refused.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_core::worker::config::Config;

/// The fields with a fixed set of words, as documents write them beside each other.
const WORDS: [&str; 8] = [
    "on_store_failure",
    "mode",
    "match",
    "type",
    "body",
    "transport",
    "topology",
    "role",
];

/// A configuration with a field set to a value, where that field belongs; nothing where it is not one of
/// those that can stand alone.
fn configuration(field: &str, value: &Value) -> Option<Value> {
    let mut limit = json!({ "type": "leaky_bucket", "limit": 100, "window": 60 });
    let mut rule = json!({ "name": "r", "pattern": "/r" });
    let mut policy = json!({});
    let mut store = json!({});
    let mut whole = json!({ "role": "limiter", "identity": { "trust": "never" } });
    match field {
        "type" | "limit" | "window" | "on_store_failure" | "warn_at" => {
            limit[field] = value.clone();
            if field == "window" && value.is_string() {
                limit["type"] = "fixed_window".into();
            }
        }
        "missing" | "unbelieved" => {
            limit["key"] = json!(["user"]);
            limit[field] = value.clone();
            rule["limits"] = json!([limit]);
            limit = json!({ "type": "fixed_window", "limit": 9, "window": 30 });
        }
        "burst_limit" => {
            limit["type"] = "token_bucket".into();
            limit[field] = value.clone();
        }
        "slow_from" => {
            limit[field] = value.clone();
            limit["max_delay_ms"] = 100.into();
        }
        "max_delay_ms" => {
            limit[field] = value.clone();
            limit["slow_from"] = 0.5.into();
        }
        "shape" => {
            limit[field] = value.clone();
            limit["max_wait_ms"] = 2000.into();
        }
        "max_wait_ms" => {
            limit[field] = value.clone();
            limit["shape"] = true.into();
        }
        "lease" => {
            limit["window"] = 3600.into();
            limit["limit"] = 1000.into();
            limit[field] = value.clone();
        }
        "pattern" | "mode" | "match" | "priority" | "enforce_percent" | "methods" | "hosts"
        | "cost" => {
            // Room for whatever an example costs.
            limit["limit"] = 1_000_000.into();
            rule[field] = value.clone();
        }
        // A rule's own refusals have fields of the same names.
        "headers" | "body" if !is_policys(field, value) => {
            rule["respond"] = json!({});
            rule["respond"][field] = value.clone();
        }
        "headers" | "body" | "degraded_header" | "warning_header" | "delay_header"
        | "shadow_header" | "variant_header" => policy[field] = value.clone(),
        "transport" | "topology" | "policy_poll_ms" | "timeout_ms" | "denial_cache_ms"
        | "gateways" | "workers" | "local_share" => store[field] = value.clone(),
        "trust" => whole["identity"][field] = value.clone(),
        "access_log" => whole[field] = value.clone(),
        "role" if *value == "bridge" => return Some(json!({ "role": "bridge" })),
        "role" => whole[field] = value.clone(),
        _ => return None,
    }
    rule["global_limit"] = limit;
    policy["rules"] = json!([rule]);
    whole["store"] = store;
    whole["policy"] = policy;
    Some(whole)
}

/// Whether a policy's field of that name may have this value at all.
fn is_policys(field: &str, value: &Value) -> bool {
    match field {
        "headers" => value.is_array(),
        _ => ["json", "problem"].iter().any(|word| value == word),
    }
}

/// What of this is refused.
fn refused(named: &[(String, Value, String)]) -> Vec<String> {
    let mut refused = Vec::new();
    for (field, value, place) in named {
        let Some(configuration) = configuration(field, value) else {
            continue;
        };
        if let Err(error) = Config::parse(&configuration.to_string()) {
            refused.push(format!("{place}: {field} {value}: {error}"));
        }
    }
    refused
}

fn documents() -> Vec<(PathBuf, String)> {
    // cargo runs tests in their package's folder.
    let docs = fs::read_dir("../docs")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let others = ["../README.md", "../SECURITY.md", "../DESIGN.md"].map(PathBuf::from);
    let texts = docs
        .chain(others)
        .filter(|path| path.extension().is_some_and(|it| it == "md"));
    texts
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Every `"field": value` in a text, whose value is JSON.
fn pairs(text: &str) -> impl Iterator<Item = (String, Value)> {
    text.match_indices("\": ").filter_map(|(end, between)| {
        let start = text[..end].rfind('"')?;
        let after = &text[end + between.len()..];
        let value = serde_json::Deserializer::from_str(after)
            .into_iter::<Value>()
            .next()?
            .ok()?;
        Some((text[start + 1..end].to_string(), value))
    })
}

#[test]
fn every_value_that_a_document_writes_beside_its_field_is_accepted() {
    let mut named = Vec::new();
    for (path, text) in documents() {
        let place = path.display().to_string();
        named.extend(pairs(&text).map(|(field, value)| (field, value, place.clone())));
        // `field: word`
        for quoted in text.split('`').skip(1).step_by(2) {
            if let Some((field, word)) = quoted.split_once(": ")
                && WORDS.contains(&field)
            {
                named.push((
                    field.to_string(),
                    word.trim_matches('"').into(),
                    place.clone(),
                ));
            }
        }
    }
    let tried = named
        .iter()
        .filter(|(field, value, _)| configuration(field, value).is_some());
    assert!(tried.count() > 40, "{named:?}");
    assert_eq!(refused(&named), Vec::<String>::new());
}

/// `` `mode` is `enforce` (the default), `shadow` or `off` ``: the words up to the end of the clause.
fn words_of(field: &str, paragraph: &str) -> Vec<String> {
    let marker = format!("`{field}`");
    let Some((_, after)) = paragraph.split_once(&marker) else {
        return Vec::new();
    };
    let clause = after.split([';', '.', '|']).next().unwrap_or("");
    let words = clause.split('`').skip(1).step_by(2);
    let is_word = |word: &&str| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    words
        .map(|word| word.trim_matches('"'))
        .filter(is_word)
        .map(str::to_string)
        .collect()
}

#[test]
fn every_word_that_a_sentence_gives_a_field_is_accepted() {
    let mut named = Vec::new();
    for (path, text) in documents() {
        for paragraph in text.split("\n- ").flat_map(|part| part.split("\n\n")) {
            let paragraph = paragraph.replace('\n', " ");
            for field in WORDS.into_iter().filter(|field| *field != "type") {
                let words = words_of(field, &paragraph).into_iter();
                let place = path.display().to_string();
                named.extend(words.map(|word| (field.to_string(), word.into(), place.clone())));
            }
        }
    }
    for (field, word) in [("on_store_failure", "local"), ("mode", "off")] {
        assert!(
            named
                .iter()
                .any(|(own, value, _)| own == field && *value == word),
            "{named:?}"
        );
    }
    assert_eq!(refused(&named), Vec::<String>::new());
}

/// `expected one of "local", "allow"` is about the field that the message begins with.
#[test]
fn every_choice_that_a_message_offers_is_accepted() {
    let mut named = Vec::new();
    for entry in fs::read_dir(Path::new("../tests/config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for message in fs::read_to_string(&path).unwrap().lines() {
            let Some((before, choices)) = message.split_once("; expected one of ") else {
                continue;
            };
            let place = before.split(": ").next().unwrap();
            let field = place.rsplit('.').next().unwrap();
            let field = field.split('[').next().unwrap();
            for choice in choices.split(", ") {
                let mut value: Value = serde_json::from_str(choice).unwrap();
                if field == "headers" {
                    value = json!([value]);
                }
                named.push((field.to_string(), value, path.display().to_string()));
            }
        }
    }
    assert!(named.len() > 8, "{named:?}");
    assert_eq!(refused(&named), Vec::<String>::new());
}
