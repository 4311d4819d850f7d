//! What an operator does with weirctl, against a real Redis.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use weir_cli::publication::{Note, Outcome, PREVIOUS, Shelf};
use weir_core::codec::namespace::Namespace;
use weir_lab::deadline;
use weir_lab::redis::Redis;
use weir_lab::redis_cluster::{RedisCluster, Replicas};
use weir_lab::scratch::Scratch;

struct Desk {
    scratch: Scratch,
    redis: Redis,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            scratch: Scratch::try_new("ctl").unwrap(),
            redis: Redis::start().unwrap(),
        }
    }

    fn file(&self, text: &str) -> PathBuf {
        let file = self.scratch.file("policy.json");
        fs::write(&file, text).unwrap();
        file
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&self.redis.address().to_string(), arguments)
    }

    /// What is printed where all goes well.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is complained about.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The version that a command's words end in.
    fn version(&self, told: &str) -> u64 {
        let words = told.trim_end().strip_suffix(" is published");
        let version = words.and_then(|told| told.rsplit_once("version "));
        version
            .unwrap_or_else(|| panic!("{told}"))
            .1
            .parse()
            .unwrap()
    }

    fn push(&self, limit: u64, comment: &str) -> String {
        let file = self.file(&policy(limit));
        self.ok(&["push", file.to_str().unwrap(), "--comment", comment])
    }
}

fn run(redis: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    command
        .args(arguments)
        .env("WEIR_REDIS_URL", redis)
        .env("WEIR_AUTHOR", "ann@desk")
        .env_remove("WEIR_NAMESPACE")
        .env_remove("WEIR_REDIS_PASSWORD");
    command.output().unwrap()
}

fn policy(limit: u64) -> String {
    format!(
        r#"{{"rules": [{{"name": "api", "pattern": "/api/*", "user_limits":
            {{"default": {{"type": "fixed_window", "limit": {limit}, "window": 60}}}}}}]}}"#
    )
}

#[test]
fn a_policy_is_checked_without_a_redis() {
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    let check = |file: &PathBuf| run("127.0.0.1:1", &["check", file.to_str().unwrap()]);
    let good = check(&file);
    assert!(good.status.success());
    assert_eq!(
        String::from_utf8(good.stdout).unwrap(),
        format!(
            "  api  /api/*  any tier 5/min fixed window\nok: {} is a policy\n",
            file.display()
        )
    );
    let bad = check(&desk.file(&policy(0)));
    let told = String::from_utf8(bad.stderr).unwrap();
    assert!(
        !bad.status.success()
            && told.contains("policy.rules[0].user_limits.default.limit: is 0")
            && told.contains("policy.json:2:59"),
        "{told}"
    );
    let gone = check(&PathBuf::from("/nowhere/policy.json"));
    let told = String::from_utf8(gone.stderr).unwrap();
    assert!(told.contains("cannot read /nowhere/policy.json"), "{told}");
}

/// Without `default`, a tier that is spelt otherwise has no limit.
fn doubtful() -> String {
    policy(5).replace("default", "premium")
}

const DOUBT: &str = "warning: rule api: callers of other tiers than premium have no limit of their own; add \
                     \"default\" to \"user_limits\"\n";

#[test]
fn what_is_probably_not_meant_is_warned_of_and_to_who_is_strict_an_error() {
    let desk = Desk::new();
    let file = desk.file(&doubtful());
    let file = file.to_str().unwrap();
    assert!(desk.ok(&["check", file]).contains(DOUBT));
    let told = desk.fails(&["check", "--strict", file]);
    assert_eq!(
        told,
        "error: there is 1 warning, and --strict takes each for an error\n"
    );
    desk.fails(&["push", "--strict", file]);
    assert!(desk.ok(&["history"]).contains("nothing is published now"));
    let told = desk.ok(&["push", file]);
    let version = desk.version(&told);
    assert!(
        told.ends_with(&format!("{DOUBT}version {version} is published\n")),
        "{told}"
    );
    // It is said again of what differs, and of what does not.
    let changed = desk.file(&doubtful().replace('5', "6"));
    let told = desk.ok(&["push", "--dry-run", changed.to_str().unwrap()]);
    assert!(told.contains("5 → 6") && told.ends_with(DOUBT), "{told}");
    let plain = desk.file(&policy(5));
    desk.ok(&["check", "--strict", plain.to_str().unwrap()]);
}

#[test]
fn a_policy_may_come_by_the_input() {
    let desk = Desk::new();
    let file = fs::File::open(desk.file(&policy(5))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    let output = command.args(["check", "-"]).stdin(file).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.ends_with("ok: the input is a policy\n"), "{told}");
}

/// A port without a host was taken for a host, and a port of Envoy's for a Redis that stammers.
#[test]
fn what_is_no_redis_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream
                .unwrap()
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for (redis, told) in [
        ("17002", "expected HOST:PORT"),
        (
            &*address,
            &*format!("what answers at {address} is no Redis; is it the right port?"),
        ),
    ] {
        let output = run(redis, &["history"]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(told), "{complaint}");
    }
}

#[test]
fn what_is_pushed_is_told_rule_by_rule_and_can_be_shown() {
    let desk = Desk::new();
    let told = desk.push(5, "begin");
    assert!(
        told.starts_with("nothing is published now, and this Redis knows of nothing before"),
        "{told}"
    );
    let first = desk.version(&told);
    let second = first + 1;
    assert_eq!(
        desk.push(7, "more; it's \"quoted\""),
        format!("~ rule api: user_limits.default.limit: 5 → 7\nversion {second} is published\n")
    );
    assert_eq!(
        desk.push(7, ""),
        format!("nothing changes: version {second} says the same\n")
    );
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(7)));
    assert_eq!(
        desk.ok(&["show", "--version", &first.to_string()]),
        format!("{}\n", policy(5))
    );
    let history = desk.ok(&["history"]);
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 2, "{history}");
    assert!(
        lines[0].starts_with(&format!("version {second}  20")),
        "{history}"
    );
    assert!(
        lines[0].ends_with(" UTC  ann@desk  more; it's \"quoted\" <- published now"),
        "{history}"
    );
    assert!(
        lines[1].starts_with(&format!("version {first}  20")),
        "{history}"
    );
    assert!(lines[1].ends_with(" UTC  ann@desk  begin"), "{history}");
}

#[test]
fn what_no_gateway_would_adopt_is_not_published() {
    let desk = Desk::new();
    desk.push(5, "");
    for (text, told) in [
        (policy(0), "policy.rules[0].user_limits.default.limit: is 0"),
        ("{".to_owned(), "policy: is not JSON"),
        (
            format!("{}{}", policy(6), " ".repeat(600_000)),
            "at most 524288 are read from Redis",
        ),
    ] {
        let file = desk.file(&text);
        let complaint = desk.fails(&["push", file.to_str().unwrap()]);
        assert!(complaint.contains(told), "{complaint}");
    }
    let file = desk.file(&policy(8));
    let told = desk.ok(&["push", "--dry-run", file.to_str().unwrap()]);
    assert_eq!(told, "~ rule api: user_limits.default.limit: 5 → 8\n");
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(5)));
}

#[test]
fn a_policy_in_yaml_is_published_as_gateways_read_it() {
    let desk = Desk::new();
    let file = desk.scratch.file("policy.yaml");
    let yaml = "# why\nrules:\n- name: api\n  pattern: /api/*\n  user_limits:\n    default: \
                { type: fixed_window, limit: 5, window: 60 }\n";
    fs::write(&file, yaml).unwrap();
    let file = file.to_str().unwrap();
    desk.ok(&["push", file]);
    let shown: serde_json::Value = serde_json::from_str(&desk.ok(&["show"])).unwrap();
    let same: serde_json::Value = serde_json::from_str(&policy(5)).unwrap();
    assert_eq!(shown, same);
    assert!(desk.ok(&["push", file]).starts_with("nothing changes"));
}

#[test]
fn a_rollback_publishes_what_was_before_or_what_is_named() {
    let desk = Desk::new();
    let complaint = desk.fails(&["rollback"]);
    assert!(
        complaint.contains("there is nothing to go back to"),
        "{complaint}"
    );
    let pushed = [1, 2, 3].map(|limit| desk.version(&desk.push(limit, "")));
    let [first, second, third] = pushed;
    let fourth = third + 1;
    assert_eq!(
        desk.ok(&["rollback"]),
        format!(
            "~ rule api: user_limits.default.limit: 3 → 2\nversion {fourth} is published; it says what version \
             {second} said\nto undo this: `weirctl rollback --to {third}` (`make policy-rollback TO={third}`)\n"
        )
    );
    let fifth = fourth + 1;
    assert_eq!(
        desk.ok(&["rollback", "--to", &first.to_string()]),
        format!(
            "~ rule api: user_limits.default.limit: 2 → 1\nversion {fifth} is published; it says what version \
             {first} said\nto undo this: `weirctl rollback --to {second}` (`make policy-rollback TO={second}`)\n"
        )
    );
    assert!(
        desk.ok(&["history"])
            .contains(&format!("rollback to version {first} <- published now"))
    );
    let complaint = desk.fails(&["rollback", "--to", "9"]);
    let kept = format!("{fourth}, {third}, {second}, {first}");
    assert!(
        complaint.contains(&format!("version 9 is not kept; those before are {kept}")),
        "{complaint}"
    );
    let told = desk.ok(&["withdraw"]);
    let withdrawn = fifth + 1;
    assert!(
        told.ends_with(&format!(
            "version {withdrawn} is published; the gateways run the policies of their configurations\n"
        )),
        "{told}"
    );
    // It was a version more, and a rollback went back to that.
    let again = desk.ok(&["withdraw"]);
    assert_eq!(
        again,
        format!("nothing changes: version {withdrawn} says the same\n")
    );
    assert_eq!(desk.ok(&["show"]), "\"configured\"\n");
    let told = desk.ok(&["rollback"]);
    assert!(
        told.starts_with("~ the policy of the gateways' configuration → a policy"),
        "{told}"
    );
}

#[test]
fn the_first_rollback_says_what_to_do_instead() {
    let desk = Desk::new();
    let version = desk.version(&desk.push(1, ""));
    let complaint = desk.fails(&["rollback"]);
    let told = format!("nothing is kept from before version {version}");
    assert!(complaint.contains(&told), "{complaint}");
    assert!(complaint.contains("`weirctl withdraw`"), "{complaint}");
}

/// The second brought the mistake back that the first had taken away.
#[test]
fn a_second_rollback_goes_further_back_and_a_third_says_that_there_is_no_further() {
    let desk = Desk::new();
    let [first, second, third] = [1, 2, 3].map(|limit| desk.version(&desk.push(limit, "")));
    desk.ok(&["rollback"]);
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(2)));
    let told = desk.ok(&["rollback"]);
    assert!(
        told.contains(&format!("it says what version {first} said"))
            && told.contains(&format!("rollback --to {second}`")),
        "{told}"
    );
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(1)));
    let complaint = desk.fails(&["rollback"]);
    assert!(
        complaint.contains(&format!("nothing is kept from before version {first}"))
            && complaint.contains(&format!(
                "`weirctl rollback --to {third}` brings version {third}"
            )),
        "{complaint}"
    );
}

#[test]
fn scripts_are_answered_in_json_under_a_schema() {
    let desk = Desk::new();
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = desk.run(&[arguments, &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let file = desk.file(&doubtful());
    let file = file.to_str().unwrap();
    let pushed = json(&["push", file, "--comment", "why"]);
    assert_eq!(pushed["schema"], "weirctl.published/1");
    assert!(
        pushed["warnings"][0]["message"]
            .as_str()
            .unwrap()
            .contains("premium")
    );
    let version = pushed["version"].as_u64().unwrap();
    let history = json(&["history"]);
    let current = &history["current"];
    assert_eq!(current["version"], version.to_string());
    assert_eq!(
        (&current["author"], &current["comment"]),
        (&"ann@desk".into(), &"why".into())
    );
    assert_eq!(json(&["show"])["policy"]["rules"][0]["name"], "api");
    let broken = desk.file(&policy(0));
    let broken = broken.to_str().unwrap();
    for verb in ["check", "push"] {
        let checked = json(&[verb, broken]);
        let message = &checked["files"][0]["messages"][0];
        assert_eq!(message["severity"], "error", "{checked}");
    }
}

/// A script that asks whether a policy is good must not take a Redis that is away for an answer.
#[test]
fn the_exit_code_tells_a_no_from_a_failure() {
    let desk = Desk::new();
    let code = |arguments: &[&str]| desk.run(arguments).status.code();
    let good = desk.scratch.file("good.json");
    fs::write(&good, policy(5)).unwrap();
    let bad = desk.file(&policy(0));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    assert_eq!(code(&["check", good]), Some(0));
    assert_eq!(code(&["check", good, bad]), Some(1));
    assert_eq!(code(&["push", bad]), Some(1));
    assert_eq!(code(&["check"]), Some(2));
    assert_eq!(code(&["check", "/nowhere"]), Some(4));
    assert_eq!(code(&["push", good, "--redis", "127.0.0.1:1"]), Some(4));
}

#[test]
fn colour_is_for_terminals_unless_it_is_asked_for() {
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    let check = ["check", file.to_str().unwrap()];
    assert!(!desk.ok(&check).contains('\u{1b}'));
    let coloured = desk.ok(&[&check[..], &["--color", "always"]].concat());
    assert!(coloured.contains("\u{1b}["), "{coloured}");
}

#[test]
fn a_shell_is_told_what_completes() {
    let desk = Desk::new();
    let script = desk.ok(&["completion", "bash"]);
    assert!(script.contains("weirctl") && script.contains("rollback"));
}

/// Scripts from before the tool had its name.
#[test]
fn the_old_name_has_the_same_verbs() {
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-policy"));
    let output = command.args(["check", file.to_str().unwrap()]).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn a_push_says_which_counts_begin_anew() {
    let desk = Desk::new();
    desk.push(5, "");
    let file = desk.file(&policy(5).replace("60}", "3600}"));
    let told = desk.ok(&["push", "--dry-run", file.to_str().unwrap()]);
    assert_eq!(
        told,
        "~ rule api: user_limits.default.window: 60 → 3600\n\
         ! rule api: the count of user default begins anew, as fw3600s\n\
         ! rule api: what was counted of user default as fw60s is left behind\n"
    );
}

/// The tool said that gateways ran their configurations, while they kept what they had found.
#[test]
fn after_a_loss_it_is_not_told_what_is_not_known() {
    let desk = Desk::new();
    let [first, _] = [1, 2].map(|limit| desk.version(&desk.push(limit, "")));
    desk.redis.command(&["DEL", "weir:policy"]).unwrap();
    let told = desk.push(3, "");
    let gone =
        format!("nothing is published now; after version {first} there was one that is gone");
    assert!(told.starts_with(&gone), "{told}");
    desk.redis.command(&["FLUSHALL"]).unwrap();
    let told = desk.push(3, "");
    assert!(
        told.contains("if this Redis has lost its data, they keep what they found last"),
        "{told}"
    );
}

#[test]
fn every_task_says_which_redis_it_speaks_to() {
    let desk = Desk::new();
    let output = desk.run(&["history", "--namespace", "staging"]);
    let told = String::from_utf8(output.stderr).unwrap();
    let address = desk.redis.address();
    assert_eq!(told, format!("Redis at {address}, namespace staging\n"));
}

#[test]
fn the_number_of_a_deleted_policy_is_not_given_to_another() {
    let desk = Desk::new();
    desk.push(1, "");
    let deleted = desk.version(&desk.push(2, ""));
    desk.redis.command(&["DEL", "weir:policy"]).unwrap();
    assert!(desk.fails(&["show"]).contains("nothing is published"));
    assert_eq!(desk.version(&desk.push(3, "")), deleted + 1);
}

/// It was 1 again, so that two policies had one number in history, metric and page.
#[test]
fn a_redis_that_lost_its_data_gives_no_number_again() {
    let desk = Desk::new();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let first = desk.version(&desk.push(1, ""));
    assert!((now..now + 60).contains(&first), "{first}");
    let last = desk.version(&desk.push(2, ""));
    let later = deadline::poll(Duration::from_secs(10), "another second", || {
        desk.redis.command(&["FLUSHALL"])?;
        let version = desk.version(&desk.push(3, ""));
        Ok((version > last).then_some(version))
    });
    later.unwrap();
}

/// A push that was meant for staging replaced production's policy.
#[test]
fn each_namespace_has_a_policy_and_a_history_of_its_own() {
    let desk = Desk::new();
    desk.push(1, "production");
    let file = desk.file(&policy(2));
    let file = file.to_str().unwrap();
    let staging = [
        "push",
        file,
        "--namespace",
        "staging",
        "--comment",
        "staging",
    ];
    let told = desk.ok(&staging);
    assert!(told.starts_with("nothing is published now"), "{told}");
    let version = desk.version(&told);
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(1)));
    let show = ["show", "--namespace", "staging"];
    assert_eq!(desk.ok(&show), format!("{}\n", policy(2)));
    let desk_of = |name: &str| desk.ok(&["history", "--namespace", name]);
    assert!(desk_of("staging").contains("staging") && !desk_of("staging").contains("production"));
    assert!(desk_of("").contains("production") && !desk_of("").contains("staging"));
    let by_variable = Command::new(env!("CARGO_BIN_EXE_weirctl"))
        .args(["history", "--redis", &desk.redis.address().to_string()])
        .env("WEIR_NAMESPACE", "staging")
        .output()
        .unwrap();
    let told = String::from_utf8(by_variable.stdout).unwrap();
    assert!(told.contains(&version.to_string()), "{told}");
    let complaint = desk.fails(&["show", "--namespace", "Staging"]);
    assert!(
        complaint.contains("use 1 to 32 of a-z 0-9 -"),
        "{complaint}"
    );
}

#[test]
fn of_two_who_publish_at_once_the_second_is_told() {
    let desk = Desk::new();
    desk.push(1, "");
    let mut redis = desk.redis.connection().unwrap();
    let mut shelf = Shelf::new(&mut redis, &Namespace::default());
    let seen = shelf.current().unwrap();
    desk.push(2, "");
    for seen in [seen, None] {
        let outcome = shelf.publish(seen.as_ref(), policy(9).as_bytes(), &Note::default());
        assert_eq!(outcome.unwrap(), Outcome::Overtaken);
    }
    assert_eq!(desk.ok(&["show"]), format!("{}\n", policy(2)));
    assert_eq!(shelf.history().unwrap().len(), 1);
}

#[test]
fn twenty_previous_ones_are_kept_byte_for_byte() {
    let desk = Desk::new();
    let mut redis = desk.redis.connection().unwrap();
    let mut shelf = Shelf::new(&mut redis, &Namespace::default());
    let document = |number: u64| {
        let text =
            format!("{{\"rules\": [],\r\n\t\"status\": {{\"limit\": {number}}}}}  é/\\u0041\n");
        text.replace("é/\\u0041", "")
    };
    for number in 1..=25 {
        let seen = shelf.current().unwrap();
        let text = document(number);
        let note = Note {
            comment: "naïve \"/\\",
            ..Note::default()
        };
        shelf
            .publish(seen.as_ref(), text.as_bytes(), &note)
            .unwrap();
    }
    let last: u64 = shelf.current().unwrap().unwrap().version.parse().unwrap();
    let history = shelf.history().unwrap();
    let versions: Vec<u64> = history
        .iter()
        .map(|one| one.version.parse().unwrap())
        .collect();
    assert_eq!(versions, (last - 20..last).rev().collect::<Vec<_>>());
    assert_eq!(versions.len(), PREVIOUS);
    for (number, one) in (5..25).rev().zip(history) {
        assert_eq!(String::from_utf8(one.document).unwrap(), document(number));
        assert_eq!(one.comment, "naïve \"/\\");
    }
}

#[test]
fn a_password_comes_from_the_environment() {
    let redis = Redis::start_with_password("sesame opens").unwrap();
    let with = |password: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
        command.args(["history", "--redis", &redis.address().to_string()]);
        command
            .env("WEIR_REDIS_PASSWORD", password)
            .output()
            .unwrap()
    };
    assert!(with("sesame opens").status.success());
    assert!(!with("sesame").status.success());
    let told = String::from_utf8(with("").stderr).unwrap();
    let mend = "asks for a password: put it in WEIR_REDIS_PASSWORD";
    assert!(told.contains(mend), "{told}");
}

#[test]
fn a_redis_that_evicts_is_warned_of_when_a_policy_is_published() {
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    let push = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
        command.args(["push", file.to_str().unwrap(), "--redis"]);
        let output = command.arg(desk.redis.address().to_string()).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    let warning = "warning: this Redis evicts keys when its memory is full";
    assert!(!push().contains(warning));
    let set = |name, value| {
        let words = ["CONFIG", "SET", name, value];
        desk.redis.command(&words).unwrap();
    };
    set("maxmemory", "100mb");
    set("maxmemory-policy", "allkeys-lru");
    let told = push();
    assert!(
        told.contains(warning) && told.contains("allkeys-lru"),
        "{told}"
    );
}

/// Redis said WRONGTYPE, and neither of what nor what to do.
#[test]
fn a_key_of_another_kind_is_named_with_the_mend() {
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    let push = ["push", file.to_str().unwrap()];
    for key in ["{weir:policy}:history", "weir:policy"] {
        desk.redis.command(&["SET", key, "x"]).unwrap();
        let complaint = desk.fails(&push);
        assert!(
            complaint.contains(&format!("`redis-cli DEL {key}`")),
            "{complaint}"
        );
    }
}

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password() {
    let output = run("redis://:secret@127.0.0.1:1", &["history"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("Redis at 127.0.0.1:1") && !told.contains("secret"),
        "{told}"
    );
}

#[test]
fn a_cluster_is_published_to_through_any_node() {
    let cluster = RedisCluster::start(Replicas::None).unwrap();
    let desk = Desk::new();
    let file = desk.file(&policy(5));
    for number in 0..3 {
        let node = cluster.node(number).address().to_string();
        let pushed = desk.file(&policy(number as u64 + 1));
        assert_eq!(pushed, file);
        let output = run(&node, &["push", "--cluster", file.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let output = run(&node, &["rollback", "--cluster"]);
        assert_eq!(output.status.success(), number > 0, "{output:?}");
    }
}
