//! Policies as people keep them: in YAML, and among other things.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_lab::scratch::Scratch;

/// One file's part of `check --output json`.
fn check(name: &str, text: &str) -> Value {
    let scratch = Scratch::try_new("documents").unwrap();
    let file = scratch.file(name);
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let output = command
        .args(["check", "--output", "json"])
        .arg(&file)
        .output();
    let output = output.unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    report["files"][0].clone()
}

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Line, column and words of the first message.
fn first(checked: &Value) -> (u64, u64, &str) {
    let message = &checked["messages"][0];
    let number = |name: &str| {
        message[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{checked}"))
    };
    (
        number("line"),
        number("column"),
        message["message"].as_str().unwrap(),
    )
}

#[test]
fn a_mistake_is_placed_whatever_the_policy_stands_in() {
    let policy = |limit: &str| {
        format!(
            "{{\"rules\": [\n{{\"name\": \"a\", \"pattern\": \"/a\", \"global_limit\":\n  \
             {{\"type\": \"fixed_window\", \"limit\": {limit}, \"window\": 60}}}}]}}"
        )
    };
    let envoy = format!(
        "static_resources:\n  listeners:\n  - filters:\n    - typed_config:\n        configuration:\n          \
         value: |\n            {{ \"role\": \"limiter\", \"policy\":\n            {}\n            }}\n",
        policy("0").replace('\n', "\n            ")
    );
    for (name, text, line, column) in [
        ("a.json", policy("0"), 3, 37),
        (
            "a.json",
            policy("5, \"description\": \"ü\", \"e\": 0"),
            3,
            60,
        ),
        ("a.yaml", format!("# ü\n{}", policy("0")), 4, 37),
        ("a.yaml", file("misspelled.yaml"), 6, 46),
        ("a.yaml", file("configmap.yaml"), 8, 59),
        ("a.yaml", file("wasmplugin.yaml"), 11, 51),
        ("a.yaml", envoy, 10, 49),
    ] {
        let checked = check(name, &text);
        let (found_line, found_column, message) = first(&checked);
        assert_eq!(
            (found_line, found_column),
            (line, column),
            "{text}\n{message}"
        );
    }
}

#[test]
fn what_holds_no_policy_or_several_says_so() {
    for (text, told) in [
        ("a: 1\n---\nb: 2\n", "no document has \"rules\""),
        (
            "- policy: {rules: []}\n- policy: {rules: []}\n",
            "stands here 2 times, at lines 1, 2",
        ),
        ("a: [1\nb: 2", "is not YAML"),
        ("just words", "is \"just words\""),
    ] {
        let checked = check("a.yaml", text);
        let message = checked["messages"][0]["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
    }
}

/// An object of Kubernetes may have rules of its own.
#[test]
fn the_rules_of_others_are_no_policy() {
    let role =
        "apiVersion: v1\nkind: Role\nrules: []\n---\nspec: {config: {policy: {rules: []}}}\n";
    assert_eq!(check("a.yaml", role)["is_policy"], true);
}

#[test]
fn the_shipped_policy_says_the_same_in_yaml() {
    let json =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/policy.json"))
            .unwrap();
    let yaml = format!("# The demo's.\n{json}");
    assert_eq!(
        check("a.yaml", &yaml)["messages"],
        check("a.json", &json)["messages"]
    );
}

/// Three mistakes took three runs.
#[test]
fn five_mistakes_are_told_at_once_each_in_its_place() {
    let checked = check("a.yaml", &file("five-mistakes.yaml"));
    let messages = checked["messages"].as_array().unwrap();
    let lines: Vec<u64> = messages
        .iter()
        .map(|message| {
            message["line"]
                .as_u64()
                .unwrap_or_else(|| panic!("{message}"))
        })
        .collect();
    let mut lines = lines;
    lines.sort_unstable();
    assert_eq!(lines, [4, 5, 8, 12, 13], "{checked}");
}
