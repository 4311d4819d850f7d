//! Two policies beside each other, as files: what changes, what is counted anew, whom it hits.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use weir_lab::scratch::Scratch;

fn policy(limit: u64, window: u64) -> String {
    format!(
        r#"{{"rules": [{{"name": "api", "pattern": "/api/*",
        "user_limits": {{"default": {{"type": "fixed_window", "limit": {limit}, "window": {window}}}}}}}]}}"#
    )
}

fn diff(before: &str, after: &str, arguments: &[&str]) -> Output {
    let scratch = Scratch::try_new("diff").unwrap();
    for (name, text) in [("before", before), ("after", after)] {
        fs::write(scratch.file(name), text).unwrap();
    }
    let log: String = (0..5)
        .map(|second| {
            format!("{{\"time\": \"2026-11-27T00:00:0{second}Z\", \"path\": \"/api/x\", \"user\": \"ann\"}}\n")
        })
        .collect();
    fs::write(scratch.file("access.log"), log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let command = command.current_dir(scratch.file("before").parent().unwrap());
    command
        .args(["diff", "before", "after"])
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_exit_code_tells_same_different_and_no_policy_apart() {
    for (after, code, said) in [
        // Written otherwise.
        (
            "rules:\n- name: api\n  pattern: /api/*\n  user_limits: { default: { type: fixed_window, limit: 2, window: 60 } }\n",
            0,
            "they say the same",
        ),
        (
            &policy(3, 60),
            1,
            "~ rule api: user_limits.default.limit: 2 → 3\n",
        ),
        (
            &policy(2, 30),
            1,
            "! rule api: the count of user default begins anew, as fw30s",
        ),
        (&policy(0, 60), 4, ""),
    ] {
        let output = diff(&policy(2, 60), after, &[]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_log_tells_whom_the_change_hits() {
    let arguments = ["--simulate", "access.log", "--output", "json"];
    let output = diff(&policy(4, 60), &policy(2, 60), &arguments);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let limit = &report["simulation"]["limits"][0];
    assert_eq!(
        (&limit["refused"], &limit["against"]["refused"]),
        (&3.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["simulation"]["hit"][0]["caller"], "user ann");
}
