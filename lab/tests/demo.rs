//! The demonstration, as somebody meets it who breaks it.

use std::{path::PathBuf, process::Command, time::Duration};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use weir_lab::{
    client::{Answer, Client},
    deadline, place, port,
    process::Process,
    redis::Redis,
    scratch::Scratch,
};

const SOON: Duration = Duration::from_secs(60);

struct Demo {
    run: Process,
    client: Client,
    redis_port: u16,
    _scratch: Scratch,
}

impl Demo {
    fn start() -> Demo {
        Demo::start_with(&[])
    }

    /// With these variables besides.
    fn start_with(variables: &[(&str, &str)]) -> Demo {
        weir_lab::artifact::wasm().unwrap();
        let scratch = Scratch::try_new("demo").unwrap();
        let [port, admin_port, redis_port] = [(); 3].map(|()| port::free().unwrap());
        let mut command = lab();
        command
            .arg("run")
            .env("PORT", port.to_string())
            .env("ADMIN_PORT", admin_port.to_string())
            .env("REDIS_PORT", redis_port.to_string())
            .env_remove("REDIS")
            .env_remove("NAMESPACE")
            .envs(variables.iter().copied());
        let run = Process::spawn("the demo", command, &scratch.file("log")).unwrap();
        let ready = || run.log().contains("weir is ready");
        run.wait_ready(2 * SOON, ready).unwrap();
        Demo {
            run,
            client: Client::new(([127, 0, 0, 1], port).into()),
            redis_port,
            _scratch: scratch,
        }
    }

    fn ask(&self) -> Answer {
        let request = self
            .client
            .get("/api/v1/items")
            .header("X-User-ID", "alice");
        request.send().unwrap()
    }

    /// Whether requests pass, and by whose count.
    fn soon_counts(&self, by: CountedBy) {
        deadline::poll(SOON, &format!("{by:?}"), || {
            let answer = self.ask();
            assert_eq!(answer.status, 200);
            let found = match answer.header("x-weir-degraded").as_deref() {
                None => CountedBy::Redis,
                Some("local") => CountedBy::Worker,
                Some(other) => panic!("x-weir-degraded: {other}"),
            };
            Ok((found == by).then_some(()))
        })
        .unwrap();
    }

    fn soon_says(&self, words: &str) {
        let says = || Ok(self.run.log().contains(words).then_some(()));
        deadline::poll(SOON, words, says).unwrap_or_else(|_| panic!("{}", self.run.log()));
    }

    /// What another terminal is told.
    fn command(&self, name: &str) -> String {
        let redis_port = self.redis_port.to_string();
        let output = lab().arg(name).env("REDIS_PORT", redis_port).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn redis_pid(&self) -> Pid {
        let url = format!("redis://127.0.0.1:{}", self.redis_port);
        let mut redis = redis::Client::open(url).unwrap();
        let info: String = redis::cmd("INFO").arg("server").query(&mut redis).unwrap();
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"));
        Pid::from_raw(pid.unwrap().trim().parse().unwrap())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CountedBy {
    Redis,
    Worker,
}

fn lab() -> Command {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_weir-lab"));
    lab.current_dir(place::project());
    lab
}

/// The demo used to end here, and took Envoy's log with it.
#[test]
fn the_demo_goes_on_without_its_redis_and_gets_it_back() {
    let demo = Demo::start();
    demo.soon_counts(CountedBy::Redis);
    let log = demo.run.log();
    let port = demo.redis_port;
    for command in [
        "policy-push FILE=envoy/policy.json",
        "demo-outage",
        "demo-recovery",
    ] {
        let command = format!("make {command} REDIS_PORT={port}\n");
        assert!(log.contains(&command), "{command} is not in {log}");
    }
    let envoys_log = log
        .lines()
        .find_map(|line| line.strip_prefix("Envoy's log"));
    let envoys_log = PathBuf::from(envoys_log.unwrap().trim());

    signal::kill(demo.redis_pid(), Signal::SIGKILL).unwrap();
    demo.soon_says("Redis has ended (signal: 9 (SIGKILL)). The demo goes on without it");
    demo.soon_counts(CountedBy::Worker);
    assert!(demo.command("outage").starts_with("Redis was gone before."));
    assert!(envoys_log.is_file());

    let told = demo.command("recovery");
    assert!(
        told.contains(&format!("Redis is back on 127.0.0.1:{port}, empty")),
        "{told}"
    );
    demo.soon_counts(CountedBy::Redis);

    let told = demo.command("outage");
    let again = format!("make demo-recovery REDIS_PORT={port}");
    assert!(
        told.starts_with("Redis is killed.") && told.contains(&again),
        "{told}"
    );
    demo.soon_counts(CountedBy::Worker);

    demo.run.signal(Signal::SIGTERM).unwrap();
    let ended = deadline::poll(SOON, "end", || Ok(demo.run.exited())).unwrap();
    assert!(ended.success(), "{}", demo.run.log());
    assert!(!envoys_log.exists());
}

#[test]
fn where_no_demo_runs_nothing_is_ended() {
    let redis_port = port::free().unwrap().to_string();
    let output = lab().arg("outage").env("REDIS_PORT", redis_port).output();
    let output = output.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && told.contains("no demo runs"),
        "{told}"
    );
}

/// It printed the rules of the file while others were in force.
#[test]
fn what_is_published_in_a_redis_that_runs_is_what_is_printed() {
    let redis = Redis::start().unwrap();
    let policy = r#"{"rules": [{"name": "by_push", "pattern": "/pushed/*",
        "global_limit": {"type": "fixed_window", "limit": 7, "window": 60}}]}"#;
    let publish = [
        "HSET",
        "weir@staging:policy",
        "version",
        "7",
        "policy",
        policy,
    ];
    redis.command(&publish).unwrap();
    let address = redis.address().to_string();
    let staging = Demo::start_with(&[("REDIS", &address), ("NAMESPACE", "staging")]);
    staging
        .soon_says("Rules (version 7, which is published in this Redis; not envoy/policy.json):");
    staging.soon_says("by_push");
    staging.soon_says(&format!("REDIS={address} NAMESPACE=staging"));
    let log = staging.run.log();
    assert!(!log.contains("general_api"), "{log}");
    // In another environment nothing is published.
    let other = Demo::start_with(&[("REDIS", &address), ("NAMESPACE", "other")]);
    other.soon_says("Rules (envoy/policy.json):");
    other.soon_says("general_api");
}
