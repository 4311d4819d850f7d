//! Every defect of a policy is a file in `tests/config`, and beside it what is said of it, a line for each
//! mistake; those of patterns, which are many, in a folder below, where the end-to-end tests do not look.
//! `WEIR_BLESS=1` writes the messages anew; read what it changed.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_core::worker::config::Config;

fn defects() -> Vec<PathBuf> {
    // cargo runs tests in their package's folder.
    let folders = ["../tests/config", "../tests/config/patterns"];
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(Path::new(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files
}

fn configuration(policy: &str) -> String {
    format!(r#"{{"role": "limiter", "identity": {{"trust": "never"}}, "policy": {policy}}}"#)
}

#[test]
fn every_defect_is_refused_with_its_message() {
    let defects = defects();
    assert!(defects.len() > 30, "{} defects", defects.len());
    let mut wrong = Vec::new();
    for file in defects {
        let policy = fs::read_to_string(&file).unwrap();
        let told = match Config::parse(&configuration(&policy)) {
            Ok(_) => "accepted".to_string(),
            Err(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                lines.join("\n")
            }
        };
        let message = file.with_extension("txt");
        if std::env::var_os("WEIR_BLESS").is_some() {
            fs::write(&message, format!("{told}\n")).unwrap();
        }
        let expected = fs::read_to_string(&message).unwrap_or_default();
        if told != expected.trim_end() {
            wrong.push(format!(
                "{}\n  told     {told}\n  expected {expected}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a message tells to write is accepted where it is written.
#[test]
fn every_pattern_that_a_message_offers_is_one() {
    let mut offers = 0;
    for file in defects() {
        let message = fs::read_to_string(file.with_extension("txt")).unwrap();
        let offered = message.trim_end().rsplit_once("; write ");
        let Some(offered) = offered.and_then(|(_, offered)| serde_json::from_str(offered).ok())
        else {
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        let mut policy: serde_json::Value = serde_json::from_str(&text).unwrap();
        policy["rules"][0]["pattern"] = offered;
        let config = Config::parse(&configuration(&policy.to_string()));
        assert!(config.is_ok(), "{message}: {config:?}");
        offers += 1;
    }
    assert!(offers > 20, "{offers}");
}

#[test]
fn the_shipped_policy_is_accepted() {
    let policy = fs::read_to_string("../envoy/policy.json").unwrap();
    let Ok(Config::Limiter(limiter)) = Config::parse(&configuration(&policy)) else {
        panic!("{:?}", Config::parse(&configuration(&policy)));
    };
    let names: Vec<&str> = limiter
        .policy
        .rules()
        .iter()
        .map(|rule| rule.name())
        .collect();
    assert_eq!(
        names,
        ["auth_api", "upload_api", "search_api", "general_api"]
    );
}

/// Puts a description into every object; says how many there are.
fn describe(value: &mut Value) -> usize {
    match value {
        Value::Object(members) => {
            let within: usize = members.values_mut().map(describe).sum();
            members.insert("description".to_string(), json!("why \u{1b}[31m it is so"));
            within + 1
        }
        Value::Array(items) => items.iter_mut().map(describe).sum(),
        _ => 0,
    }
}

#[test]
fn every_object_of_a_policy_may_be_described_and_is_the_same() {
    let table = |policy: &Value| {
        let configuration = configuration(&policy.to_string());
        match Config::parse(&configuration) {
            Ok(Config::Limiter(limiter)) => limiter.policy.table().to_string(),
            other => panic!("{other:?}"),
        }
    };
    for file in [
        "envoy/policy.json",
        "tests/e2e/fragile.json",
        "tests/e2e/leases.json",
        "tests/e2e/no_wall.json",
        "tests/e2e/rollout.json",
        "tests/e2e/workshop.json",
    ] {
        let policy = fs::read_to_string(Path::new("..").join(file)).unwrap();
        let policy: Value = serde_json::from_str(&policy).unwrap();
        let mut described = policy.clone();
        let count = describe(&mut described);
        assert!(count > 10, "{file} has {count} objects");
        assert_eq!(table(&described), table(&policy), "{file}");
    }
}

#[test]
fn the_policy_in_the_readme_is_accepted() {
    let readme = fs::read_to_string("../README.md").unwrap();
    let examples = readme.split("```json\n").skip(1);
    let examples: Vec<&str> = examples
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .filter(|example| example.contains("\"rules\""))
        .collect();
    assert_eq!(examples.len(), 1);
    let config = Config::parse(&configuration(examples[0]));
    assert!(config.is_ok(), "{config:?}");
}
