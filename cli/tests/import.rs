//! Configurations of envoyproxy/ratelimit as policies, and what cannot be said.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use weir_lab::scratch::Scratch;

fn import(descriptors: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let scratch = Scratch::try_new("import").unwrap();
    let file = scratch.file("config.yaml");
    fs::write(&file, format!("domain: x\ndescriptors:\n{descriptors}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    command.args(["import", "ratelimit", "--output", "json"]);
    let output = command.arg(&file).args(arguments).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), report)
}

#[test]
fn what_can_be_said_is_converted() {
    let (code, report) = import(
        "- key: remote_address\n  rate_limit: { unit: second, requests_per_unit: 10 }\n\
         - key: PATH\n  value: /a\n  rate_limit: { unit: MONTH, requests_per_unit: 7 }\n  shadow_mode: true\n\
         - key: generic_key\n  value: b\n  descriptors:\n  - key: remote_address\n    \
         rate_limit: { unit: hour, requests_per_unit: 3 }\n",
        &["--enforce", "--pattern", "b=/b/*"],
    );
    let limit =
        |limit, window: Value| json!({"type": "fixed_window", "limit": limit, "window": window});
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(
        report["policy"]["rules"],
        json!([
            {"name": "address", "pattern": "*", "mode": "enforce", "ip_limits": {"default": limit(10, 1.into())}},
            {"name": "a", "pattern": "/a", "mode": "shadow", "global_limit": limit(7, "month".into())},
            {"name": "b.address", "pattern": "/b/*", "mode": "enforce", "ip_limits": {"default": limit(3, 3600.into())}},
        ])
    );
}

#[test]
fn what_cannot_be_said_is_listed_with_its_line_and_never_guessed() {
    for (descriptor, line, what) in [
        (
            "- key: generic_key\n  value: b\n  rate_limit: { unit: day, requests_per_unit: 1 }\n",
            3,
            "generic_key=b",
        ),
        (
            "- key: tenant\n  rate_limit: { unit: day, requests_per_unit: 1 }\n",
            3,
            "descriptor tenant",
        ),
        (
            "- key: remote_address\n  value: 192.0.2.7\n  rate_limit: { unit: day, requests_per_unit: 1 }\n",
            3,
            "192.0.2.7",
        ),
        (
            "- key: remote_address\n  rate_limit:\n    unlimited: true\n",
            5,
            "unlimited",
        ),
        (
            "- key: remote_address\n  rate_limit: { unit: year, requests_per_unit: 1 }\n",
            4,
            "unit \"year\"",
        ),
        (
            "- key: remote_address\n  rate_limit: { unit: day, requests_per_unit: 0 }\n",
            4,
            "0 requests",
        ),
    ] {
        let (code, report) = import(descriptor, &[]);
        assert_eq!(
            (code, &report["converted"]),
            (Some(3), &0.into()),
            "{report}"
        );
        assert_eq!(report["left"][0]["line"], line, "{report}");
        let told = report["left"][0]["what"].as_str().unwrap();
        assert!(told.contains(what), "{told}");
    }
}
