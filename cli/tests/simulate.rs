//! Logs of every format, replayed: what is refused is counted by hand.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use weir_lab::scratch::Scratch;

/// Two a minute for each user, three for each address.
const POLICY: &str = r#"{"rules": [{"name": "api", "pattern": "/api/*",
    "user_limits": {"default": {"type": "fixed_window", "limit": 2, "window": 60}},
    "ip_limits": {"default": {"type": "fixed_window", "limit": 3, "window": 60}}}]}"#;

struct Bench(Scratch);

impl Bench {
    fn new() -> Bench {
        Bench(Scratch::try_new("simulate").unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.file(name);
        fs::write(&file, content).unwrap();
        file
    }

    /// The arguments behind `simulate POLICY`.
    fn run(&self, arguments: &[&str]) -> Output {
        let policy = self.file("policy.json", POLICY);
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
        command.arg("simulate").arg(policy).args(arguments);
        command.output().unwrap()
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn simulate(&self, log: &str, arguments: &[&str]) -> Value {
        let file = self.file("access.log", log);
        self.report(&[&[file.to_str().unwrap()], arguments].concat())
    }
}

fn refused(report: &Value) -> u64 {
    outcome(report, "denied")
}

fn outcome(report: &Value, what: &str) -> u64 {
    let outcomes = report["outcomes"].as_array().unwrap();
    let found = outcomes.iter().find(|one| one["what"] == what);
    found.unwrap_or_else(|| panic!("{report}"))["count"]
        .as_u64()
        .unwrap()
}

/// Four requests of one address within a minute: one above its three.
fn four(line: impl Fn(usize) -> String) -> String {
    (0..4).map(|second| line(second) + "\n").collect()
}

#[test]
fn every_format_is_seen_and_read() {
    let bench = Bench::new();
    let envoy = |second| {
        format!(
            "[2026-11-27T00:00:{second:02}.250Z] \"GET /api/x?q=1 HTTP/1.1\" 200 - 0 12 3 2 \"192.0.2.7\" \
             \"curl/8 (a \\\"b\\\")\" \"id-{second}\" \"api.example.com\" \"10.0.0.1:80\""
        )
    };
    let istio = |second| {
        format!(
            "[2026-11-27T00:00:{second:02}.250Z] \"GET /api/x HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 3 2 \
             \"192.0.2.7\" \"curl/8\" \"id-{second}\" \"api.example.com\" \"10.0.0.1:80\" outbound|80||x \
             10.0.0.2:1 10.0.0.3:80 192.0.2.7:5000 - default"
        )
    };
    let gateway = |second| {
        format!(
            r#"{{"start_time":"2026-11-27T00:00:{second:02}.250Z","method":"GET","x-envoy-origin-path":"/api/x","protocol":"HTTP/1.1","response_code":200,"x-forwarded-for":"192.0.2.7","downstream_remote_address":"192.0.2.7:5000",":authority":"api.example.com"}}"#
        )
    };
    let weir = |second| {
        format!(
            r#"{{"time":"2026-11-27T00:00:{second:02}.250Z","client":"192.0.2.7","method":"GET","path":"/api/x","status":200,"weir":"outcome=allowed source=store rule=api scope=ip remaining=1 subject=address:0123456789ab"}}"#
        )
    };
    let nginx = |second| {
        format!(
            "192.0.2.7 - - [27/Nov/2026:00:00:{second:02} +0000] \"GET /api/x HTTP/1.1\" 200 12 \"-\" \"curl\""
        )
    };
    let csv = four(|second| format!("2026-11-27T00:00:{second:02}Z,\"/api/x,y\",192.0.2.7"));
    for (name, log) in [
        ("envoy-text", four(envoy)),
        ("istio-text", four(istio)),
        ("envoy-gateway-json", four(gateway)),
        ("weir-json", four(weir)),
        ("nginx-combined", four(nginx)),
        ("csv", format!("ts,url,remote_addr\n{csv}")),
    ] {
        let report = bench.simulate(&log, &[]);
        assert_eq!(report["log"]["formats"][0], name, "{report}");
        assert_eq!(
            (report["requests"].as_u64(), refused(&report)),
            (Some(4), 2),
            "{name}"
        );
        assert_eq!(report["log"]["broken"]["count"], 0, "{name}: {report}");
    }
}

#[test]
fn a_format_may_be_given_and_members_mapped() {
    let bench = Bench::new();
    let log = four(|second| format!("179573760{second}.5 ann|gold /api/x 203.0.113.{second} 200"));
    let format = "%START_TIME(%s.%3f)% %REQ(x-user-id)%|%REQ(x-user-tier)% %REQ(:PATH)% \
                  %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %RESPONSE_CODE%";
    let report = bench.simulate(&log, &["--format", format]);
    assert_eq!(
        (refused(&report), &report["hit"][0]["caller"]),
        (2, &"user ann".into())
    );
    let log = four(|second| {
        format!(r#"{{"when": 179573760{second}, "u": "/api/x", "who": {{"a": 1}}, "sub": "ann"}}"#)
    });
    let report = bench.simulate(&log, &["--map", "time=when,path=u,user=sub"]);
    assert_eq!(refused(&report), 2);
    let file = bench.file("access.log", "what is this\n");
    let output = bench.run(&[file.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(4) && told.contains("--map") && told.contains("what is this"),
        "{told}"
    );
}

fn at(second: u32, user: &str) -> String {
    format!(
        "{{\"time\": \"2026-11-27T00:{:02}:{:02}Z\", \"path\": \"/api/x\", \"user\": \"{user}\"}}\n",
        second / 60,
        second % 60
    )
}

/// Lines are written when requests end.
#[test]
fn lines_out_of_order_files_and_gzip_come_into_one_order() {
    let bench = Bench::new();
    // Two in the first minute and two in the second, told backwards.
    let backwards: String = [70, 65, 20, 10].map(|second| at(second, "ann")).concat();
    assert_eq!(refused(&bench.simulate(&backwards, &[])), 0);
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(at(30, "ann").as_bytes()).unwrap();
    let zipped = bench.file("b.log.gz", zipped.finish().unwrap());
    let plain = bench.file("a.log", backwards);
    let files = [plain.to_str().unwrap(), zipped.to_str().unwrap()];
    let report = bench.report(&files);
    assert_eq!(
        (report["requests"].as_u64(), refused(&report)),
        (Some(5), 1),
        "{report}"
    );
}

#[test]
fn the_input_is_a_log_too() {
    let bench = Bench::new();
    let policy = bench.file("policy.json", POLICY);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    command
        .arg("simulate")
        .arg(policy)
        .args(["-", "--output", "json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let log: String = (0..4).map(|second| at(second, "ann")).collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(log.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(refused(&serde_json::from_slice(&output.stdout).unwrap()), 2);
}

#[test]
fn what_cannot_be_read_or_known_is_counted_and_named() {
    let bench = Bench::new();
    let mut log: String = (0..3).map(|second| at(second, "ann")).collect();
    log.push_str("{\"time\": \"yesterday\", \"path\": \"/api/x\"}\nhalf a li\n");
    let _ = writeln!(
        log,
        "{{\"time\": \"2026-11-27T00:00:09Z\", \"path\": \"/api/x\"}}"
    );
    let _ = writeln!(log, "{}", "x".repeat(100_000));
    let report = bench.simulate(&log, &[]);
    assert_eq!(report["log"]["broken"]["count"], 3, "{report}");
    let first = report["log"]["broken"]["examples"][0].as_str().unwrap();
    assert!(
        first.ends_with("access.log:4: has a time that is none"),
        "{first}"
    );
    let told = report["not_looked_at"].to_string();
    assert!(told.contains("neither user, API key nor address"), "{told}");
    assert_eq!(
        (report["requests"].as_u64(), refused(&report)),
        (Some(4), 1)
    );
}

#[test]
fn two_policies_stand_beside_each_other_and_the_log_is_held_against_the_one_in_force() {
    let bench = Bench::new();
    let wide = bench.file("wide.json", POLICY.replace("\"limit\": 2", "\"limit\": 3"));
    let log: String = (0..6)
        .map(|second| {
            let status = if second < 3 { 200 } else { 429 };
            let line = at(second, "ann");
            line.replace('}', &format!(", \"status\": {status}}}"))
        })
        .collect();
    let report = bench.simulate(&log, &["--against", wide.to_str().unwrap()]);
    assert_eq!(refused(&report), 4);
    let calibration = &report["calibration"];
    assert_eq!(
        (
            &calibration["refused_by_log"],
            &calibration["refused_by_both"],
            &calibration["agreement"]
        ),
        (&3.into(), &3.into(), &1.0.into())
    );
    let limit = &report["limits"][0];
    assert_eq!(
        (&limit["limit"], &limit["against"]["limit"]),
        (&2.into(), &3.into())
    );
    assert_eq!(
        (&limit["refused"], &limit["against"]["refused"]),
        (&4.into(), &3.into())
    );
    assert_eq!(report["hit"][0]["refused_against"], 3);
    let file = bench.file("access.log", log);
    let file = file.to_str().unwrap();
    let strict = bench.run(&[file, "--max-denied", "50%"]);
    assert_eq!(strict.status.code(), Some(1), "{strict:?}");
    assert_eq!(
        bench.run(&[file, "--max-denied", "0.7"]).status.code(),
        Some(0)
    );
}

#[test]
fn the_page_holds_whatever_clients_sent_as_text() {
    let bench = Bench::new();
    let evil = "</script><script>alert(1)</script>";
    let log: String = (0..4).map(|second| at(second, evil)).collect();
    let page = bench.0.file("page.html");
    bench.simulate(&log, &["--html", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(!page.contains(evil) && page.contains("\\u003c/script>"));
    // Nothing from elsewhere.
    assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("<link"));
}
