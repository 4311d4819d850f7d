//! What operators see: Envoy's statistics as Prometheus reads them, and the gateway's word on itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_lab::client::Answer;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;
use weir_lab::{deadline, place};

use crate::live_policy::{follows, publish};
use crate::visitor::{Visitor, unique};
use crate::world::{SOON, World};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    requests_are_counted_by_rule_scope_and_outcome_whatever_a_rule_is_called,
    what_a_rule_on_trial_would_have_done_is_counted,
    variants_of_an_experiment_are_counted_apart,
    warnings_and_delays_are_counted,
    what_passes_by_a_lease_is_counted,
    whoever_meets_no_limit_is_counted_as_such,
    a_tier_that_the_policy_does_not_name_is_counted,
    calls_are_told_with_their_time_and_size,
    statistics_name_no_caller,
    what_prometheus_reads_is_clean,
    the_table_in_the_docs_is_what_prometheus_reads,
    the_gateway_tells_operators_of_its_traffic_and_nobody_else,
    counts_go_on_under_a_policy_that_is_published,
    heavy_hitters_are_told_as_the_status_call_tells_subjects,
    blocked_callers_are_told_with_the_entry_that_blocks_them,
    guesses_at_the_operators_secret_are_few_counted_and_told,
    operators_stay_those_of_the_configuration_where_a_policy_names_none,
    the_gateway_answers_while_redis_is_dead,
];

const OPERATOR: (&str, &str) = ("X-Operator", "only-operators-know-this");
const GATEWAY: &str = "/api/v1/rate-limits/status/gateway";
const STATUS: &str = "/api/v1/rate-limits/status";
const MICROS: &str = "weir_store_latency_micros";

/// A line of what Prometheus reads: a name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

fn scrape_text(gateway: &Gateway) -> String {
    let admin = gateway.admin();
    admin.get("/stats/prometheus").send().unwrap().text()
}

/// What Weir's part of the statistics says.
fn scrape(gateway: &Gateway) -> Samples {
    let text = scrape_text(gateway);
    let lines = text.lines().filter(|line| line.starts_with("weir_"));
    lines.map(sample).collect()
}

fn sample(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let (name, rest) = line.split_once('{').expect(line);
    let (labels, value) = rest.rsplit_once("} ").expect(line);
    // No value of ours holds a comma.
    let labels = labels.split(',').filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once('=').expect(line);
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    ((name.to_owned(), labels.collect()), value.parse().unwrap())
}

/// A statistic's value; 0 where there is none.
fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let key = (name.to_owned(), labels.collect());
    samples.get(&key).copied().unwrap_or_default()
}

/// Waits until the statistics say so: workers tell within a second or two.
fn counts(gateway: &Gateway, name: &str, labels: &[(&str, &str)], expected: f64) {
    let mut last = 0.0;
    let counted = deadline::poll(SOON, "count", || {
        last = value(&scrape(gateway), name, labels);
        Ok((last >= expected).then_some(()))
    });
    counted.unwrap_or_else(|error| panic!("{name} {labels:?} is {last}: {error}"));
    assert_eq!(last, expected, "{name} {labels:?}");
}

fn of_rule<'a>(
    rule: &'a str,
    scope: &'a str,
    tag: &'a str,
    value: &'a str,
) -> [(&'a str, &'a str); 3] {
    [("weir_rule", rule), ("weir_scope", scope), (tag, value)]
}

fn requests_are_counted_by_rule_scope_and_outcome_whatever_a_rule_is_called(world: &World) {
    let gateway = world.watched();
    let (first, second) = ("a.b.scope.c", "x.scope.user.outcome.allowed");
    let before = scrape(gateway);
    let visitor = Visitor::of_tier(gateway, "free");
    let codes: Vec<u16> = (0..6).map(|_| visitor.get("/dots/x").status).collect();
    assert_eq!(codes, [200, 200, 200, 429, 429, 429]);
    for (rule, scope, tag, named, more) in [
        // The user's limit has fewer left than the address's, and so speaks for the rule.
        (first, "user", "weir_outcome", "allowed", 3.0),
        (first, "user", "weir_outcome", "denied", 3.0),
        (second, "global", "weir_outcome", "allowed", 3.0),
    ] {
        let labels = of_rule(rule, scope, tag, named);
        let name = "weir_requests_total";
        counts(gateway, name, &labels, value(&before, name, &labels) + more);
    }
    let after = scrape(gateway);
    // Two of the refusals need not have asked Redis.
    let cached = of_rule(first, "user", "weir_mark", "cached");
    assert!(value(&after, "weir_marks_total", &cached) >= 1.0);
    let untouched = of_rule(first, "ip", "weir_outcome", "allowed");
    assert_eq!(value(&after, "weir_requests_total", &untouched), 0.0);
    // It is there before it is needed.
    let denied = of_rule(second, "global", "weir_outcome", "denied");
    let names = |(name, labels): &(String, BTreeMap<String, String>)| {
        name == "weir_requests_total"
            && labels.len() == 3
            && labels["weir_rule"] == second
            && labels["weir_outcome"] == "denied"
    };
    assert!(after.keys().any(names), "{denied:?}");
}

fn what_a_rule_on_trial_would_have_done_is_counted(world: &World) {
    let gateway = world.watched();
    let visitor = Visitor::of_tier(gateway, "free");
    for _ in 0..5 {
        assert_eq!(visitor.get("/trial/x").status, 200);
    }
    let mark = |named| of_rule("trial", "user", "weir_mark", named);
    counts(gateway, "weir_marks_total", &mark("shadow_denied"), 3.0);
    counts(gateway, "weir_marks_total", &mark("shadow_allowed"), 2.0);
    let denied = of_rule("trial", "user", "weir_outcome", "denied");
    assert_eq!(value(&scrape(gateway), "weir_requests_total", &denied), 0.0);
}

fn variants_of_an_experiment_are_counted_apart(world: &World) {
    let gateway = world.watched();
    let mut denied = BTreeMap::from([("control", 0.0), ("half.outcome.denied", 0.0)]);
    let mut allowed = denied.clone();
    for _ in 0..12 {
        let visitor = Visitor::of_tier(gateway, "free");
        let passed = (0..5).filter(|_| visitor.get("/tried/x").status == 200);
        let (variant, passed) = match passed.count() {
            4 => ("control", 4.0),
            2 => ("half.outcome.denied", 2.0),
            other => panic!("{other} passed"),
        };
        *allowed.get_mut(variant).unwrap() += passed;
        *denied.get_mut(variant).unwrap() += 5.0 - passed;
    }
    for (outcome, counted) in [("allowed", allowed), ("denied", denied)] {
        for (variant, count) in counted {
            let labels = [
                ("weir_experiment", "half.or.whole"),
                ("weir_variant", variant),
                ("weir_outcome", outcome),
            ];
            counts(gateway, "weir_experiments_total", &labels, count);
        }
    }
}

fn warnings_and_delays_are_counted(world: &World) {
    let gateway = world.watched();
    let visitor = Visitor::of_tier(gateway, "free");
    for _ in 0..6 {
        assert_eq!(visitor.get("/slow/x").status, 200);
    }
    let delayed = of_rule("slow", "user", "weir_outcome", "delayed");
    let warned = of_rule("slow", "user", "weir_mark", "warned");
    deadline::poll(SOON, "count of the delayed and the warned", || {
        let samples = scrape(gateway);
        let counted = value(&samples, "weir_requests_total", &delayed) >= 3.0
            && value(&samples, "weir_marks_total", &warned) >= 4.0;
        Ok(counted.then_some(()))
    })
    .unwrap();
    let millis = value(&scrape(gateway), "weir_delayed_millis_total", &[]);
    assert!((5.0..=300.0).contains(&millis), "{millis}");
}

fn what_passes_by_a_lease_is_counted(world: &World) {
    let gateway = world.watched();
    let visitor = Visitor::of_tier(gateway, "free");
    for _ in 0..12 {
        assert_eq!(visitor.get("/leased/x").status, 200);
    }
    let allowed = of_rule("leased", "user", "weir_outcome", "allowed");
    counts(gateway, "weir_requests_total", &allowed, 12.0);
    let leased = of_rule("leased", "user", "weir_mark", "leased");
    let leased = value(&scrape(gateway), "weir_marks_total", &leased);
    assert!((6.0..12.0).contains(&leased), "{leased}");
}

/// Misspelt, it has another limit than is meant, and somebody should notice.
fn a_tier_that_the_policy_does_not_name_is_counted(world: &World) {
    let gateway = world.watched();
    assert_eq!(Visitor::anonymous(gateway).get("/tiers/x").status, 200);
    for tier in ["premium", "free", "operators", "Premium", "gold"] {
        let visitor = Visitor::of_tier(gateway, tier);
        assert_eq!(visitor.get("/tiers/x").status, 200, "{tier}");
    }
    counts(gateway, "weir_tier_unknown_total", &[], 2.0);
}

fn whoever_meets_no_limit_is_counted_as_such(world: &World) {
    let gateway = world.watched();
    let decided = |outcome| [("weir_outcome", outcome)];
    let before = scrape(gateway);
    let anonymous = || Visitor::anonymous(gateway);
    for (visitor, path, status) in [
        (anonymous(), "/elsewhere", 200),
        (anonymous().named("on-the-house"), "/dots/x", 200),
        (anonymous().named("banned"), "/elsewhere", 403),
    ] {
        assert_eq!(visitor.get(path).status, status);
    }
    for outcome in ["unmatched", "exempt", "blocked"] {
        let name = "weir_decisions_total";
        let before = value(&before, name, &decided(outcome));
        counts(gateway, name, &decided(outcome), before + 1.0);
    }
}

fn calls_are_told_with_their_time_and_size(world: &World) {
    let gateway = world.watched();
    Visitor::of_tier(gateway, "free").get("/dots/x");
    // Envoy merges histograms every five seconds.
    let samples = deadline::poll(SOON, "histogram", || {
        let samples = scrape(gateway);
        let count = value(&samples, &format!("{MICROS}_count"), &[]);
        Ok((count > 0.0).then_some(samples))
    })
    .unwrap();
    let bucket = |le| value(&samples, &format!("{MICROS}_bucket"), &[("le", le)]);
    let count = value(&samples, &format!("{MICROS}_count"), &[]);
    // On one machine a call takes longer than a few microseconds and less than a second.
    assert_eq!((bucket("+Inf"), bucket("1000000")), (count, count));
    assert!(bucket("100") < count, "{samples:?}");
    let batches = |le| value(&samples, "weir_store_batch_size_bucket", &[("le", le)]);
    assert!(batches("64") > 0.0 && batches("64") == batches("+Inf"));
    assert_eq!(value(&samples, "weir_breaker_open_lanes", &[]), 0.0);
    // A call is in the histogram at once, and in the count when the worker tells of it.
    deadline::poll(SOON, "count of the calls", || {
        let calls = value(&scrape(gateway), "weir_store_calls_total", &[]);
        Ok((calls >= count).then_some(()))
    })
    .unwrap();
}

fn statistics_name_no_caller(world: &World) {
    let gateway = world.watched();
    let id = unique("secretive");
    let visitor = Visitor::anonymous(gateway).named(&id);
    for _ in 0..3 {
        visitor.get("/hammered/x");
    }
    let denied = of_rule("hammered", "user", "weir_outcome", "denied");
    deadline::poll(SOON, "refusal", || {
        let denied = value(&scrape(gateway), "weir_requests_total", &denied);
        Ok((denied > 0.0).then_some(()))
    })
    .unwrap();
    let stats = gateway.admin().get("/stats").send().unwrap().text();
    assert!(stats.contains("hammered"));
    assert!(!stats.contains(&id) && !scrape_text(gateway).contains(&id));
}

fn what_prometheus_reads_is_clean(world: &World) {
    let gateway = everything(world);
    let text = scrape_text(&gateway);
    let own: String = text
        .lines()
        .filter(|line| line.contains(" weir_") || line.starts_with("weir_"))
        // As a linter would have it; Envoy tells no help for any statistic.
        .flat_map(|line| match line.strip_prefix("# TYPE ") {
            Some(typed) => {
                let name = typed.split(' ').next().unwrap_or_default();
                vec![
                    format!("# HELP {name} See docs/metrics.md.\n"),
                    format!("{line}\n"),
                ]
            }
            None => vec![format!("{line}\n")],
        })
        .collect();
    assert!(own.contains("# TYPE weir_requests_total counter"), "{own}");
    let linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut linter) = linter else {
        eprintln!("SKIPPED: no promtool here, so nobody says whether statistics are clean");
        return;
    };
    linter
        .stdin
        .take()
        .unwrap()
        .write_all(own.as_bytes())
        .unwrap();
    let told = linter.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{complaints}\n{own}");
}

/// What `docs/metrics.md` says there is: each name with its type, its labels and their values.
fn documented() -> BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)> {
    let text = fs::read_to_string(place::project().join("docs/metrics.md")).unwrap();
    let types = ["counter", "gauge", "histogram"];
    let is_statistic = |line: &&str| {
        let kind = line.split('|').nth(2).map(str::trim);
        line.starts_with("| `weir_") && kind.is_some_and(|kind| types.contains(&kind))
    };
    let rows = text.lines().filter(is_statistic);
    let mut all = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else {
            panic!("{row}")
        };
        let mut values = BTreeMap::new();
        // `label`: `value`, `value`; `label`
        for label in labels.split(';').filter(|label| label.contains('`')) {
            let mut words = label.split('`').skip(1).step_by(2).map(str::to_owned);
            values.insert(words.next().unwrap(), words.collect());
        }
        // Another table of names beside it: answers' details.
        if !["counter", "gauge", "histogram"].contains(&kind) {
            continue;
        }
        let before = all.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), values));
        assert!(before.is_none(), "{name} stands there twice");
    }
    all
}

fn the_table_in_the_docs_is_what_prometheus_reads(world: &World) {
    let gateway = everything(world);
    let text = scrape_text(&gateway);
    let types: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("weir_"))
        .collect();
    let documented = documented();
    let told: BTreeMap<&str, &str> = documented
        .iter()
        .map(|(name, (kind, _))| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(types, told);
    for (name, labels) in scrape(&gateway).into_keys() {
        let histogram = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|part| name.strip_suffix(part));
        let family = histogram.filter(|family| documented.contains_key(*family));
        let (_, told) = &documented[family.unwrap_or(&name)];
        for (label, value) in labels.iter().filter(|(label, _)| *label != "le") {
            let values = told.get(label).unwrap_or_else(|| panic!("{name} {label}"));
            // A label without values is as free as the policy.
            let is_told = values.is_empty() || values.contains(value);
            assert!(is_told, "{name} {label}={value}");
        }
        assert!(
            told.keys().all(|label| labels.contains_key(label)),
            "{name}"
        );
    }
}

/// A gateway at which all has happened that is counted.
fn everything(world: &World) -> Gateway {
    let mut redis = Redis::start().unwrap();
    let gateway = start(world, &redis);
    let visitor = || Visitor::of_tier(&gateway, "free");
    let one = visitor();
    for _ in 0..5 {
        one.get("/dots/x");
        one.get("/trial/x");
        one.get("/slow/x");
        one.get("/tried/x");
    }
    visitor().get("/elsewhere");
    visitor().named("banned").get("/x");
    Visitor::of_tier(&gateway, "gold").get("/tiers/x");
    redis.stop();
    for path in ["/open/x", "/closed/x", "/kept/x"] {
        for _ in 0..5 {
            visitor().get(path);
        }
    }
    // Each worker tells its own, at its own time.
    deadline::poll(SOON, "count of the degraded", || {
        let samples = scrape(&gateway);
        let degraded = |how| value(&samples, "weir_degraded_total", &[("weir_how", how)]);
        Ok((degraded("deny") >= 5.0 && degraded("local") >= 5.0).then_some(()))
    })
    .unwrap();
    gateway
}

fn start(world: &World, redis: &Redis) -> Gateway {
    let policy = include_str!("metrics.json").to_owned();
    let gateway = Gateway::builder().store(world.way()).redis(redis);
    gateway.policy(Policy::Text(policy)).start().unwrap()
}

// === The gateway's word on itself ===

fn report(gateway: &Gateway) -> Value {
    let visitor = Visitor::anonymous(gateway).with(OPERATOR.0, OPERATOR.1);
    let answer = visitor.get(GATEWAY);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    answer.json().unwrap()
}

fn sum(list: &Value) -> u64 {
    let counts = list.as_array().into_iter().flatten();
    counts.filter_map(Value::as_u64).sum()
}

fn rule<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rules = report["rules"].as_array().unwrap();
    let own = rules.iter().find(|rule| rule["name"] == name);
    own.unwrap_or(&Value::Null)
}

/// Waits until the gateway tells what all its workers have seen.
fn reports(gateway: &Gateway, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let told = deadline::poll(SOON, what, || {
        last = report(gateway);
        Ok(is(&last).then_some(()))
    });
    told.unwrap_or_else(|error| panic!("{error}: {last}"));
    last
}

fn the_gateway_tells_operators_of_its_traffic_and_nobody_else(world: &World) {
    let redis = Redis::start().unwrap();
    let gateway = start(world, &redis);
    // Each on a connection of its own, so that both workers see some.
    for _ in 0..20 {
        let visitor = Visitor::of_tier(&gateway, "free");
        for _ in 0..5 {
            visitor.get("/dots/x");
        }
    }
    let told = reports(&gateway, "report of all", |report| {
        sum(&report["requests"]["denied"]) >= 40
    });
    assert_eq!(sum(&told["requests"]["allowed"]), 60);
    assert_eq!(sum(&told["requests"]["denied"]), 40);
    let dots = rule(&told, "a.b.scope.c");
    assert_eq!((sum(&dots["allowed"]), sum(&dots["denied"])), (60, 40));
    let other = rule(&told, "x.scope.user.outcome.allowed");
    assert_eq!(sum(&other["allowed"]), 60);
    assert_eq!(dots["denied"].as_array().unwrap().len(), 90);
    assert_eq!(told["scope"], "this gateway");
    assert_eq!(told["interval_seconds"], 10);
    assert!((1..=2).contains(&told["workers"]["seen"].as_u64().unwrap()));
    let store = &told["store"];
    assert!(sum(&store["calls"]) >= 60, "{store}");
    assert_eq!(
        (sum(&store["failures"]), &store["open_lanes"]),
        (0, &0.into())
    );
    let [p50, p99] = ["p50", "p99"].map(|share| store["latency_micros"][share].as_u64().unwrap());
    assert!(0 < p50 && p50 <= p99 && p99 < 1_000_000, "{store}");

    let operators = Visitor::of_tier(&gateway, "operators");
    assert_eq!(operators.get(GATEWAY).status, 200);
    let visitor = || Visitor::of_tier(&gateway, "free");
    for refused in [
        Visitor::anonymous(&gateway),
        visitor(),
        visitor().with(OPERATOR.0, "a guess"),
    ] {
        let answer: Answer = refused.get(GATEWAY);
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    // Not the call, but a request like any other.
    let post = visitor().request("POST", GATEWAY).send().unwrap();
    assert_eq!(post.status, 200);
}

fn counts_go_on_under_a_policy_that_is_published(world: &World) {
    let redis = Redis::start().unwrap();
    let policy = include_str!("metrics.json");
    let gateway = Gateway::builder().store(world.way()).redis(&redis);
    let gateway = gateway.policy(Policy::Text(policy.to_owned()));
    let gateway = gateway.variable("POLICY_POLL_MS", "200").start().unwrap();
    let ask = |times: usize| {
        let visitor = Visitor::of_tier(&gateway, "free");
        (0..times).for_each(|_| drop(visitor.get("/dots/x")));
    };
    ask(3);
    // The first rule gets another name, and so another place among the statistics.
    let renamed = policy.replace("a.b.scope.c", "zz");
    let version = publish(&redis, &renamed);
    follows(&gateway, version);
    ask(2);
    let told = reports(&gateway, "traffic of the new rule", |report| {
        sum(&rule(report, "zz")["allowed"]) == 2
    });
    assert_eq!(sum(&rule(&told, "a.b.scope.c")["allowed"]), 3);
    let in_force = &told["policy"];
    assert_eq!(
        (&in_force["version"], &in_force["everywhere"]),
        (&version.into(), &true.into())
    );
    let other = "x.scope.user.outcome.allowed";
    assert_eq!(sum(&rule(&told, other)["allowed"]), 5);
    for (rule, scope, count) in [
        ("zz", "user", 2.0),
        ("a.b.scope.c", "user", 3.0),
        (other, "global", 5.0),
    ] {
        let labels = of_rule(rule, scope, "weir_outcome", "allowed");
        counts(&gateway, "weir_requests_total", &labels, count);
    }
}

fn heavy_hitters_are_told_as_the_status_call_tells_subjects(world: &World) {
    let redis = Redis::start().unwrap();
    let gateway = start(world, &redis);
    let hammer = |visitor: &Visitor, times: usize| {
        for _ in 0..times {
            visitor.get("/hammered/x");
        }
    };
    let named = Visitor::anonymous(&gateway).named("Ann: \"the\" <hammer>");
    hammer(&named, 41);
    // On other connections, and so perhaps at another worker.
    hammer(&named.apart(&gateway), 40);
    hammer(&Visitor::anonymous(&gateway).with("X-API-Key", "k"), 31);
    let anonymous = Visitor::anonymous(&gateway);
    hammer(&anonymous, 21);
    for _ in 0..10 {
        hammer(&Visitor::of_tier(&gateway, "free"), 2);
    }
    let told = reports(&gateway, "heavy_hitters", |report| {
        report["heavy_hitters"][0]["denied_at_least"] == 80
            && report["heavy_hitters"][12].is_object()
    });
    let heavy_hitters = told["heavy_hitters"].as_array().unwrap();
    let line = |place: usize| {
        let heavy_hitter = &heavy_hitters[place];
        let text = |field: &str| heavy_hitter[field].as_str().unwrap().to_owned();
        let at_most = heavy_hitter["denied_at_most"].as_u64().unwrap();
        (text("kind"), text("subject"), text("rule"), at_most)
    };
    let expected = |kind: &str, subject: &str, times: u64| {
        (
            kind.to_owned(),
            subject.to_owned(),
            "hammered".to_owned(),
            times,
        )
    };
    assert_eq!(line(0), expected("user", "Ann: \"the\" <hammer>", 80));
    assert_eq!(line(1), expected("api_key", "api-key:8254c329a928", 30));
    assert_eq!(line(2), expected("address", &anonymous.address, 20));
    let query = |place: usize| heavy_hitters[place]["query"].as_str().unwrap();
    let operators = Visitor::of_tier(&gateway, "operators");
    for (place, subject) in [(0, "Ann: \"the\" <hammer>"), (1, "api-key:8254c329a928")] {
        let status = operators.get(format!("{STATUS}?{}", query(place)));
        assert_eq!(status.status, 200, "{status:?}");
        assert_eq!(status.json().unwrap()["user_id"], subject);
    }
    assert_eq!(query(2), format!("address={}", anonymous.address));
    assert_eq!(heavy_hitters.len(), 13);
    assert!(
        heavy_hitters[3..]
            .iter()
            .all(|one| one["denied_at_most"] == 1)
    );
}

/// A list of whom nobody knows who they are cannot be taken back, nor seen to hit the right ones.
fn blocked_callers_are_told_with_the_entry_that_blocks_them(world: &World) {
    let redis = Redis::start().unwrap();
    let policy = include_str!("metrics.json").replace(
        r#""deny": {"#,
        r#""deny": { "networks": ["127.77.0.0/16"], "api_keys": ["8254c329a928"],"#,
    );
    let gateway = world.gateway().redis(&redis).policy(Policy::Text(policy));
    let gateway = gateway.start().unwrap();
    let network = Visitor::anonymous(&gateway).moved_to("127.77.1.2");
    // By the digits that the list of the refused shows of the key "k".
    let key = Visitor::anonymous(&gateway).with("X-API-Key", "k");
    let user = Visitor::anonymous(&gateway).named("banned");
    for (visitor, times) in [(&network, 9), (&key, 6), (&user, 3)] {
        for _ in 0..times {
            assert_eq!(visitor.get("/dots/x").status, 403);
        }
    }
    let told = reports(&gateway, "blocked callers", |report| {
        sum(&report["requests"]["blocked"]) == 18
    });
    let lines = told["heavy_hitters"].as_array().unwrap().iter();
    let lines = lines.map(|line| {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let times = line["denied_at_most"].as_u64().unwrap();
        (text("subject"), text("list"), times)
    });
    let expected = [
        ("127.77.1.2", "deny.networks 127.77.0.0/16", 9),
        ("api-key:8254c329a928", "deny.api_keys 8254c329a928", 6),
        ("banned", "deny.users", 3),
    ];
    let expected = expected.map(|(who, by, times)| (who.to_owned(), by.to_owned(), times));
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    let operator = Visitor::of_tier(&gateway, "operators");
    for (query, by) in [
        ("address=127.77.9.9", "deny.networks 127.77.0.0/16"),
        ("user_id=banned", "deny.users"),
    ] {
        let status = operator.get(format!("{STATUS}?{query}")).json().unwrap();
        assert_eq!(
            (&status["listed"], &status["listed_by"]),
            (&"deny".into(), &by.into())
        );
    }
}

fn guesses_at_the_operators_secret_are_few_counted_and_told(world: &World) {
    let redis = Redis::start().unwrap();
    let hash = weir_core::request::subject::hex_digest(OPERATOR.1.as_bytes());
    let policy = include_str!("metrics.json").replace(
        &format!(r#""value": "{}""#, OPERATOR.1),
        &format!(r#""sha256": "{hash}""#),
    );
    assert!(policy.contains(&hash));
    let gateway = world.gateway().redis(&redis).workers(1);
    let gateway = gateway.policy(Policy::Text(policy)).start().unwrap();
    let guesser = Visitor::anonymous(&gateway);
    let elsewhere = Visitor::anonymous(&gateway);
    let ask = |visitor: &Visitor, secret: &str| {
        let visitor = visitor.clone().with(OPERATOR.0, secret);
        visitor.get(GATEWAY)
    };
    assert_eq!(ask(&guesser, OPERATOR.1).status, 200, "by its SHA-256");
    // What an operator's forgotten script sends is one guess, however often.
    for _ in 0..30 {
        assert_eq!(ask(&guesser, "last-years-operators-secret").status, 403);
    }
    assert_eq!(ask(&guesser, OPERATOR.1).status, 200);
    for number in 1..10 {
        assert_eq!(ask(&guesser, &format!("guess number {number}")).status, 403);
    }
    for secret in ["guess number 10", OPERATOR.1] {
        let answer = ask(&guesser, secret);
        assert_eq!(answer.status, 429, "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    // Nobody else is shut out, nor are the guesser's own requests.
    assert_eq!(ask(&elsewhere, OPERATOR.1).status, 200);
    assert_eq!(guesser.get("/elsewhere").status, 200);
    counts(&gateway, "weir_operators_wrong_secrets_total", &[], 41.0);
    let told = reports(&gateway, "wrong secrets", |report| {
        report["wrong_secrets"] == 41
    });
    let worst = &told["heavy_hitters"][0];
    assert_eq!(
        (
            &worst["subject"],
            &worst["wrong_secret"],
            &worst["denied_at_most"]
        ),
        (&guesser.address.as_str().into(), &true.into(), &41.into())
    );
    let log = gateway.log();
    let line = format!(
        "10 different wrong operators' secrets came from {}",
        guesser.address
    );
    assert!(log.contains(&line), "{log}");
    assert!(!log.contains(OPERATOR.1) && !log.contains("guess number"));
}

/// Whoever pushed the file that has no secret in it shut the operators out.
fn operators_stay_those_of_the_configuration_where_a_policy_names_none(world: &World) {
    let redis = Redis::start().unwrap();
    let gateway = Gateway::builder().store(world.way()).redis(&redis);
    let gateway = gateway.policy(Policy::Text(include_str!("metrics.json").to_owned()));
    let gateway = gateway.variable("POLICY_POLL_MS", "200").start().unwrap();
    let version = publish(&redis, r#"{"rules": []}"#);
    reports(&gateway, "policy without operators", |report| {
        report["policy"]["version"] == version
    });
    let others = r#"{"rules": [], "status": {"operator_tier": "others"}}"#;
    publish(&redis, others);
    deadline::poll(SOON, "policy with operators of its own", || {
        let configured = Visitor::anonymous(&gateway).with(OPERATOR.0, OPERATOR.1);
        Ok((configured.get(GATEWAY).status == 403).then_some(()))
    })
    .unwrap();
}

fn the_gateway_answers_while_redis_is_dead(world: &World) {
    let gateway = everything(world);
    let told = reports(&gateway, "open lane", |report| {
        report["store"]["open_lanes"].as_u64() > Some(0)
            && report["degraded"]["deny"].as_u64() >= Some(5)
            && report["degraded"]["local"].as_u64() >= Some(5)
    });
    assert!(sum(&told["store"]["failures"]) > 0, "{told}");
    assert!(sum(&rule(&told, "closed")["unavailable"]) >= 5, "{told}");
    assert!(sum(&rule(&told, "open")["degraded"]) >= 5, "{told}");
    assert!(sum(&rule(&told, "kept")["denied"]) >= 1, "{told}");
    let took = std::time::Instant::now();
    report(&gateway);
    assert!(took.elapsed() < Duration::from_secs(5));
}
