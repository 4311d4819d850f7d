//! Tests of policies: each wish is met once and missed once, so that none holds whatever happens.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use weir_lab::scratch::Scratch;

const POLICY: &str = r#"{"deny": {"users": ["eve"]}, "allow": {"networks": ["198.51.100.0/24"]}, "rules": [
    {"name": "api", "pattern": "/api/*", "user_limits": {
        "gold": {"type": "fixed_window", "limit": 3, "window": 60},
        "default": {"type": "fixed_window", "limit": 2, "window": 60}}},
    {"name": "trial", "pattern": "/api/*", "mode": "shadow",
        "user_limits": {"default": {"type": "fixed_window", "limit": 1, "window": 60}}},
    {"name": "tokens", "pattern": "/llm", "cost": {"response_header": "x-tokens", "default": 1, "max": 100},
        "global_limit": {"type": "fixed_window", "limit": 10, "window": 60}}]}"#;

fn test(steps: &str, arguments: &[&str]) -> Output {
    let scratch = Scratch::try_new("suites").unwrap();
    fs::write(scratch.file("policy.json"), POLICY).unwrap();
    let suite = format!(
        "policy: policy.json\ncases:\n- name: <a> & \"b\"\n  caller: {{ user: ann, ip: 192.0.2.7 }}\n  steps:\n{steps}"
    );
    let file = scratch.file("api.test.yaml");
    fs::write(&file, suite).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let command = command.arg("test").arg(file).args(arguments);
    command.output().unwrap()
}

fn failure(steps: &str) -> Option<String> {
    let output = test(steps, &["--output", "json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let failure = &report["suites"][0]["cases"][0]["failure"];
    let code = if failure.is_null() { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    failure.as_str().map(str::to_owned)
}

#[test]
fn what_is_wanted_is_met() {
    let steps = "  \
  - { request: /api/x, times: 2, want: allowed, rule: api }
  - { request: /api/x, want: denied, rule: api, retry_after: 60 }
  - { after: 59.999s, request: /api/x, want: denied, retry_after: 1..1 }
  - { after: 1ms, request: /api/x, want: allowed }
  - { request: /api/x, times: 3, caller: { user: bo, tier: gold }, want: allowed }
  - { request: /api/x, caller: { user: bo, tier: gold }, want: denied, would_deny: trial }
  - { request: /api/x, caller: { user: eve }, want: blocked }
  - { request: /api/x, caller: { ip: 198.51.100.1 }, want: exempt }
  - { request: /other, want: unmatched }
  - { request: /api/x, caller: { user: a, headers: { X-User-Id: b } }, want: bad }
  - { request: /llm, response: { X-Tokens: 9 }, want: allowed }
  - { request: /llm, response: { X-Tokens: 9 }, want: allowed }
  - { request: /llm, want: denied, rule: tokens }
  - { after: 1h }
";
    assert_eq!(failure(steps), None);
}

#[test]
fn what_is_wanted_and_does_not_happen_is_told() {
    for (step, told) in [
        (
            "{ request: /api/x, times: 3, want: allowed }",
            "step 1 at line 6, request 3 of 3: want allowed, got denied by api.user.default, retry_after 60",
        ),
        (
            "{ request: /api/x, want: denied }",
            "want denied, got allowed",
        ),
        ("{ request: /api/x, rule: tokens }", "want rule tokens"),
        (
            "{ request: /api/x, would_deny: trial }",
            "want trial on trial to deny",
        ),
        (
            "{ request: /api/x, retry_after: 1..2 }",
            "want retry_after 1..2, got allowed",
        ),
        (
            "{ request: /other, want: exempt }",
            "want exempt, got unmatched",
        ),
    ] {
        let failure = failure(&format!("  - {step}\n")).unwrap_or_default();
        assert!(failure.contains(told), "{step}: {failure}");
    }
}

#[test]
fn a_mistake_in_a_test_has_its_place() {
    for (step, line, told) in [
        (
            "{ request: /api/x, wants: allowed }",
            ":6:",
            "is not a field",
        ),
        ("{ request: /api/x, want: fine }", ":6:", "is no outcome"),
        ("{ request: api, want: denied }", ":6:", "is no URL"),
        ("{ request: /a, after: soon }", ":6:", "is no span of time"),
        ("{ request: /a, retry_after: 9..1 }", ":6:", "is no range"),
        (
            "{ request: /a, times: 0 }",
            ":6:",
            "is no number of requests",
        ),
        (
            "{ request: /a, caller: { ip: here } }",
            ":6:",
            "is no address",
        ),
        ("{ want: denied }", ":6:", "has no \"request\""),
    ] {
        let output = test(&format!("  - {step}\n"), &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{step}: {errors}");
        assert!(
            errors.contains(told) && errors.contains(line),
            "{step}: {errors}"
        );
    }
}

#[test]
fn continuous_integration_is_told_in_its_own_forms() {
    let step = "  - { request: /api/x, want: denied }\n";
    let printed = |arguments: &[&str]| String::from_utf8(test(step, arguments).stdout).unwrap();
    let tap = printed(&["--format", "tap"]);
    assert!(
        tap.starts_with("TAP version 13\n1..1\nnot ok 1 - api: <a> & \"b\"\n"),
        "{tap}"
    );
    let junit = printed(&["--format", "junit"]);
    assert!(
        junit.contains(r#"<testsuite name="api" tests="1" failures="1">"#),
        "{junit}"
    );
    assert!(
        junit.contains(r#"name="&lt;a&gt; &amp; &quot;b&quot;"><failure"#),
        "{junit}"
    );
}

#[test]
fn coverage_counts_rules_and_limits_and_may_be_asked_for() {
    let step = "  - { request: /api/x, want: allowed }\n";
    let printed = String::from_utf8(test(step, &[]).stdout).unwrap();
    let told = "coverage: rules 2/3, limits 2/4 (never met: api.user.gold, tokens.global)";
    assert!(printed.contains(told), "{printed}");
    assert_eq!(test(step, &["--min-coverage", "50"]).status.code(), Some(0));
    assert_eq!(test(step, &["--min-coverage", "51"]).status.code(), Some(1));
}
