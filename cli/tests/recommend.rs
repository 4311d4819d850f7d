//! What is recommended for traffic that was made to be of one kind.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use weir_lab::scratch::Scratch;

fn recommend(log: &str, arguments: &[&str]) -> Output {
    let scratch = Scratch::try_new("recommend").unwrap();
    let file = scratch.file("access.log");
    fs::write(&file, log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let command = command.arg("recommend").arg(file).args(arguments);
    command.output().unwrap()
}

fn json(log: &str) -> Value {
    let output = recommend(log, &["--output", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Lines in order of time, from (second, user, path).
fn log(mut requests: Vec<(u32, String, &str)>) -> String {
    requests.sort();
    let mut log = String::new();
    for (second, user, path) in requests {
        let (minute, second) = (second / 60, second % 60);
        let _ = writeln!(
            log,
            r#"{{"time": "2026-11-27T00:{minute:02}:{second:02}Z", "path": "{path}", "user": "{user}"}}"#
        );
    }
    log
}

/// Each of 30 users asks in these seconds.
fn users(path: &'static str, seconds: &[u32]) -> Vec<(u32, String, &'static str)> {
    let of = |user: u32| {
        seconds
            .iter()
            .map(move |second| (*second, format!("u{user}"), path))
    };
    (0..30).flat_map(of).collect()
}

fn group<'a>(report: &'a Value, prefix: &str) -> &'a Value {
    let groups = report["groups"].as_array().unwrap();
    let found = groups.iter().find(|group| group["prefix"] == prefix);
    found.unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn each_kind_of_traffic_has_its_algorithm_and_numbers() {
    let evenly: Vec<u32> = (0..60).map(|nth| nth * 2).collect();
    let at_once: Vec<u32> = (0..20).map(|nth| nth / 10).collect();
    let mut requests = users("/even", &evenly);
    requests.extend(users("/burst/7", &at_once));
    requests.extend(users("/abused", &evenly));
    requests.extend((0..1000).map(|nth| (nth / 10, "mallory".to_owned(), "/abused")));
    requests.extend(users(
        "/rare",
        &(0..20).map(|nth| nth * 60).collect::<Vec<_>>(),
    ));
    let report = json(&log(requests));
    for (prefix, traffic, algorithm, limit) in [
        ("/even", "steady", "leaky_bucket", 8),
        ("/burst", "bursty", "token_bucket", 30),
        ("/abused", "abusive", "sliding_window", 45),
        ("/rare", "rare", "fixed_window", 30),
    ] {
        let advice = &group(&report, prefix)["advice"];
        assert_eq!(advice["traffic"], traffic, "{prefix}: {advice}");
        assert_eq!(advice["limit"]["type"], algorithm, "{prefix}: {advice}");
        assert_eq!(advice["limit"]["limit"], limit, "{prefix}: {advice}");
    }
    // The simulation says whom it hits: the abuser, and nobody else.
    for (prefix, hit) in [("/even", 0), ("/burst", 0), ("/abused", 1), ("/rare", 0)] {
        assert_eq!(
            group(&report, prefix)["advice"]["callers_hit"],
            hit,
            "{prefix}: {report}"
        );
    }
    let worst = group(&report, "/abused")["advice"]["worst"]
        .as_str()
        .unwrap();
    assert!(worst.starts_with("user mallory "), "{worst}");
}

#[test]
fn the_policy_is_one_on_trial_and_its_groups_do_not_overlap() {
    let evenly: Vec<u32> = (0..60).map(|nth| nth * 2).collect();
    let mut requests = users("/users/42", &evenly);
    requests.extend(users("/users/me", &evenly));
    let output = recommend(&log(requests), &[]);
    let policy = String::from_utf8(output.stdout).unwrap();
    let scratch = Scratch::try_new("recommended").unwrap();
    let file = scratch.file("policy.yaml");
    fs::write(&file, &policy).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let checked = command.arg("check").arg(&file).output().unwrap();
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{policy}\n{told}");
    assert!(
        told.contains("/users,/users/* except /users/me,/users/me/*") && told.contains("shadow: "),
        "{told}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let command = command
        .arg("explain")
        .arg(&file)
        .args(["/users/me", "--user", "u1"]);
    let explained = command.args(["--output", "json"]).output().unwrap();
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    let rules = explained["limits"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]["rule"]), (1, &"users.me".into()));
}

#[test]
fn too_little_is_told_and_nothing_said() {
    let output = recommend(&log(users("/a", &[0, 1, 2])), &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(1), 0),
        "{told}"
    );
    assert!(
        told.contains("90 requests of 30 callers are too little"),
        "{told}"
    );
}
