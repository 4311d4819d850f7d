//! `weirctl simulate` beside a real Envoy and a real Redis: what it says of the log that Envoy wrote is
//! what they decided, over all algorithms.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use weir_cli::document::Source;
use weir_cli::log::{Log, Merged, Progress};
use weir_cli::simulate::{Assumptions, Caller, Curves, Named, Report, simulate};
use weir_core::live::poller::Document;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;

const POLICY: &str = include_str!("policy.json");
const REQUESTS: usize = 2400;
const SOON: Duration = Duration::from_secs(30);

/// Nothing becomes free while the test runs, or much does.
const PATHS: [&str; 8] = [
    "/still/windows/a",
    "/still/Windows/costly?x=1",
    "/still/buckets/a",
    "/still/else",
    "/timed/fixed/a",
    "/timed/sliding/a",
    "/timed/token/a",
    "/timed/leaky/a",
];

#[test]
fn a_simulation_of_the_log_says_what_envoy_and_redis_decided() {
    let redis = Redis::start().unwrap();
    let scratch = Scratch::try_new("simulate").unwrap();
    let log = scratch.file("access.log");
    let gateway = Gateway::builder()
        .redis(&redis)
        .timeout_ms(1000)
        .policy(Policy::Text(POLICY.to_owned()))
        .variable("ACCESS_LOG", log.to_str().unwrap())
        .start()
        .unwrap();
    let client = gateway.client();
    let mut random = 88_172_645_463_325_252u64;
    let mut draw = |below: usize| {
        // Xorshift: repeatable.
        for shift in [13i32, -7, 17] {
            random ^= match shift {
                left @ 0.. => random << left,
                right => random >> -right,
            };
        }
        (random % below as u64) as usize
    };
    for _ in 0..REQUESTS {
        let path = PATHS[draw(PATHS.len())];
        let address = format!("127.0.0.{}", 1 + draw(3));
        let request = client.get(path).from(&address);
        let request = match draw(10) {
            0 => request,
            user => request.header("X-User-ID", format!("user{}", user * user)),
        };
        request.send().unwrap();
    }
    let lines = deadline::poll(SOON, "the whole access log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Ok((lines.len() >= REQUESTS).then_some(lines))
    })
    .unwrap();
    let of = |prefix: &str| {
        let is_own = |line: &&String| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["path"].as_str().unwrap().starts_with(prefix)
        };
        let own: Vec<&str> = lines.iter().filter(is_own).map(String::as_str).collect();
        let file = scratch.file(&format!("{}.log", prefix.trim_matches('/')));
        fs::write(&file, own.join("\n")).unwrap();
        report(file)
    };

    let still = of("/still/");
    let agreement = still.calibration.clone().unwrap();
    assert_eq!(
        agreement.refused_by_both, agreement.refused_by_log,
        "{agreement:?}"
    );
    assert_eq!(
        agreement.refused_by_both, agreement.refused_by_simulation,
        "{agreement:?}"
    );
    for rule in ["windows", "buckets", "costly", "tried"] {
        let refused =
            |limit: &&weir_cli::simulate::OfLimit| limit.rule == rule && limit.refused > 0;
        assert!(
            still.limits.iter().any(|limit| refused(&limit)),
            "{rule} refuses nobody"
        );
    }
    // A gateway does not ask what a rule in shadow mode would do where it refuses from memory; the
    // simulation has no such memory, and asks.
    let lines_with = |word: &str| lines.iter().filter(|line| line.contains(word)).count() as u64;
    let (told, from_memory) = (
        lines_with("shadow_denied=tried/global"),
        lines_with("source=cached"),
    );
    let tried = still
        .limits
        .iter()
        .find(|limit| limit.rule == "tried")
        .unwrap();
    assert!(
        (told..=told + from_memory).contains(&tried.refused),
        "{} of {told} to {}",
        tried.refused,
        told + from_memory
    );

    // Envoy tells when a request came, to the millisecond, and Redis decides a moment later: what becomes
    // free in between is seen by one of them only.
    let timed = of("/timed/");
    let agreement = timed.calibration.clone().unwrap();
    let difference = agreement
        .refused_by_log
        .abs_diff(agreement.refused_by_simulation);
    assert!(
        agreement.agreement > 0.95 && difference * 50 <= agreement.refused_by_log,
        "{agreement:?}"
    );
    for limit in timed.limits.iter().filter(|limit| limit.requests > 0) {
        assert!(
            limit.refused > 0 && limit.refused < limit.requests,
            "{limit:?}"
        );
    }
}

fn report(log: PathBuf) -> Report {
    let file = log.with_extension("policy.json");
    fs::write(&file, POLICY).unwrap();
    let Some(Document::Policy(policy)) = Source::read(&file).unwrap().judge().document else {
        panic!("a policy");
    };
    let log = Log::open(&log, None, &[], &Progress::hidden()).unwrap();
    assert_eq!(log.format.name, "weir-json");
    let policy = Named {
        name: "policy.json".to_owned(),
        policy: *policy,
    };
    let assumptions = Assumptions {
        caller: Caller {
            identity: None,
            tier: None,
            trusted_hops: 0,
        },
        curves: Curves::Left,
    };
    simulate(&mut Merged::of(vec![log]), policy, None, &assumptions).unwrap()
}
