//! What `explain` says of requests, whose reasons are known by construction.

use std::fs;
use std::process::Command;

use serde_json::Value;
use weir_lab::scratch::Scratch;

const LIMIT: &str =
    r#""user_limits": {"default": {"type": "fixed_window", "limit": 2, "window": 60}}"#;

fn policy() -> String {
    format!(
        r#"{{"rules": [
        {{"name": "put", "pattern": "/a/*", "methods": ["PUT"], {LIMIT}}},
        {{"name": "host", "pattern": "/a/*", "hosts": ["*.example.org"], {LIMIT}}},
        {{"name": "path", "pattern": "/b", {LIMIT}}},
        {{"name": "except", "pattern": "/a/*", "except": ["/a/health"], {LIMIT}}},
        {{"name": "when", "pattern": "/a/*", "when": [{{"header": "x-plan", "is": "gold"}}], {LIMIT}}},
        {{"name": "off", "pattern": "/a/*", "mode": "off", {LIMIT}}},
        {{"name": "tier", "pattern": "/a/*", "user_limits": {{"gold": {{"type": "fixed_window", "limit": 2, "window": 60}}}}}},
        {{"name": "trial", "pattern": "/a/*", "mode": "shadow", "cost": 2, {LIMIT}}},
        {{"name": "met", "pattern": "/a/*", "priority": 1, {LIMIT}}}]}}"#
    )
}

fn explain(text: &str, arguments: &[&str]) -> Value {
    let scratch = Scratch::try_new("explain").unwrap();
    let file = scratch.file("policy.json");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    command.arg("explain").arg(&file).args(arguments);
    let output = command.args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn why(report: &Value, rule: &str) -> String {
    let others = report["others"].as_array().unwrap();
    let other = others.iter().find(|other| other["rule"] == rule);
    let why = other.unwrap_or_else(|| panic!("{rule}: {report}"))["why"].as_str();
    why.unwrap().to_owned()
}

#[test]
fn every_rule_that_sets_no_limit_has_its_reason() {
    let report = explain(
        &policy(),
        &["https://x.example.com/a/health", "--user", "ann"],
    );
    for (rule, reason) in [
        ("put", "method is not PUT"),
        ("host", "host is not *.example.org"),
        ("path", "path is not /b"),
        ("except", "path is among its except /a/health"),
        ("when", "does not hold: when header x-plan"),
        ("off", "its mode is off"),
        ("tier", "no limit for tier free"),
    ] {
        let told = why(&report, rule);
        assert!(told.contains(reason), "{rule}: {told}");
    }
}

#[test]
fn limits_are_told_in_order_with_counter_cost_and_trial() {
    let report = explain(&policy(), &["/a/b", "--user", "ann", "-H", "X-Plan: gold"]);
    let met: Vec<(&str, &str, u64, bool)> = report["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|met| {
            (
                met["rule"].as_str().unwrap(),
                met["counter"].as_str().unwrap(),
                met["cost"].as_u64().unwrap(),
                met["is_on_trial"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        met,
        [
            ("met", "weir:2:{u:ann}:met:user:fw60s", 1, false),
            ("except", "weir:2:{u:ann}:except:user:fw60s", 1, false),
            ("when", "weir:2:{u:ann}:when:user:fw60s", 1, false),
            ("trial", "weir:2:{u:ann}:trial:user:fw60s:shadow", 2, true),
        ]
    );
}

/// A filter's configuration says whom to believe.
#[test]
fn headers_of_strangers_are_not_believed_where_the_configuration_says_so() {
    let rules = format!(r#"[{{"name": "met", "pattern": "/a/*", {LIMIT}}}]"#);
    let configuration = format!(
        r#"{{"identity": {{"trust": ["10.0.0.0/8"]}}, "policy": {{"rules": {rules}}},
            "store": {{"sidecar": "weir"}}}}"#
    );
    let ask = |peer: &str| {
        let arguments = ["/a/b", "--user", "ann", "--ip", "192.0.2.7", "--peer", peer];
        explain(&configuration, &arguments)
    };
    let (known, stranger) = (ask("10.1.2.3"), ask("192.0.2.7"));
    assert_eq!(
        known["limits"][0]["counter"],
        "weir:2:{u:ann}:met:user:fw60s"
    );
    assert_eq!(
        stranger["limits"][0]["counter"],
        "weir:2:{a:192.0.2.7}:met:user:fw60s"
    );
    let told = stranger["belief"].as_str().unwrap();
    assert!(told.contains("not believed"), "{told}");
}

#[test]
fn lists_and_assigned_tiers_are_told() {
    let text = policy().replacen(
        r#"{"rules""#,
        r#"{"deny": {"users": ["eve"]}, "tiers": [{"tier": "gold", "users": ["ann"]}], "rules""#,
        1,
    );
    let eve = explain(&text, &["/a/b", "--user", "eve"]);
    let told = eve["outcome"].as_str().unwrap();
    assert!(
        told.contains("403") && told.contains("deny.users"),
        "{told}"
    );
    let ann = explain(&text, &["/a/b", "--user", "ann"]);
    assert_eq!(ann["tier"], "gold");
    assert!(ann["belief"].as_str().unwrap().contains("`tiers`"), "{ann}");
}

#[test]
fn a_limit_by_a_key_is_told_where_the_request_has_the_key() {
    let text = format!(
        r#"{{"rules": [{{"name": "org", "pattern": "/a/*", {LIMIT}, "limits": [{{"name": "each",
            "key": [{{"header": "x-org"}}], "type": "fixed_window", "limit": 2, "window": 60}}]}}]}}"#
    );
    let counters = |arguments: &[&str]| -> Vec<String> {
        let report = explain(&text, arguments);
        let limits = report["limits"].as_array().unwrap().iter();
        limits
            .map(|met| met["counter"].as_str().unwrap().to_owned())
            .collect()
    };
    let met = counters(&["/a/b", "--user", "ann", "-H", "x-org: acme"]);
    assert_eq!(met.len(), 2, "{met:?}");
    assert!(
        met[1].contains("acme") && met[1].contains(":org:"),
        "{met:?}"
    );
    assert_eq!(counters(&["/a/b", "--user", "ann"]), met[..1]);
}
