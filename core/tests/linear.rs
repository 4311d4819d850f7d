//! What is read in time that grows as the text does: a policy is read by every worker, at each push, while
//! requests wait.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use weir_core::codec::json::{At, Json};
use weir_core::policy::Policy;

const LIMIT: &str = r#"{"type": "fixed_window", "limit": 10, "window": 60}"#;

/// The rules, and what stands beside them.
fn document(rules: impl Iterator<Item = String>, others: &str) -> String {
    let rules: Vec<String> = rules.collect();
    format!(r#"{{"rules": [{}]{others}}}"#, rules.join(","))
}

fn rule(number: usize, limits: &str) -> String {
    format!(r#"{{"name": "rule{number}", "pattern": "/api/v{number}/*", {limits}}}"#)
}

fn rules(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| rule(number, &format!(r#""global_limit": {LIMIT}"#)))
}

fn members(count: usize, name: impl Fn(usize) -> String) -> String {
    let members = (0..count).map(|number| format!(r#"{:?}: {LIMIT}"#, name(number)));
    members.collect::<Vec<_>>().join(",")
}

fn experiment(variants: &[String]) -> String {
    let control = r#"{"name": "control", "weight": 1}"#;
    let variants = variants.join(",");
    format!(r#", "experiments": [{{"name": "e", "variants": [{control}, {variants}]}}]"#)
}

fn network(number: usize) -> String {
    format!("10.{}.{}.0/24", number >> 8, number & 255)
}

/// The least of some tries: what else the machine does only adds to it.
fn takes(text: &str) -> Duration {
    let read = || {
        let begun = Instant::now();
        let json = Json::parse(text, "policy").unwrap();
        let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
        // Each worker that comes first tells of all in the log.
        let lines = policy.rules().iter().map(|rule| rule.describe(&policy));
        let told: usize = lines.map(|line| line.to_string().len()).sum();
        assert!(told > 0 && !policy.table().to_string().is_empty());
        begun.elapsed()
    };
    (0..4).map(|_| read()).min().unwrap()
}

/// Each list was searched for every entry of it. A busy machine may take thrice as long for the one and
/// not for the other; what grows with the square takes 256 times as long.
#[test]
fn sixteen_times_the_policy_takes_about_sixteen_times_as_long() {
    const FEW: usize = 500;
    const TIMES: usize = 16;
    let tiers = |count| members(count, |number| format!("tier{number}"));
    let variant = |number: usize, rules: &str| {
        format!(r#"{{"name": "v{number}", "weight": 1, "rules": {{{rules}}}}}"#)
    };
    let overridden = |number: usize| format!(r#""rule{number}": {{"global_limit": {LIMIT}}}"#);
    type Build<'a> = &'a dyn Fn(usize) -> String;
    let cases: [(&str, Build<'_>); 6] = [
        ("rules", &|count| document(rules(count), "")),
        ("tiers", &|count| {
            let limits = format!(r#""user_limits": {{{}}}"#, tiers(count));
            document([rule(0, &limits)].into_iter(), "")
        }),
        ("networks beside tiers", &|count| {
            let networks = members(count, network);
            let limits = format!(
                r#""ip_limits": {{{networks}}}, "user_limits": {{{}}}"#,
                tiers(count)
            );
            document([rule(0, &limits)].into_iter(), "")
        }),
        ("rules in an experiment", &|count| {
            let all: Vec<String> = (0..count).map(overridden).collect();
            document(rules(count), &experiment(&[variant(0, &all.join(","))]))
        }),
        ("tiers in an experiment", &|count| {
            let own = format!(r#""rule0": {{"user_limits": {{{}}}}}"#, tiers(count));
            let limits = format!(r#""user_limits": {{{}}}"#, tiers(count));
            let rules = [rule(0, &limits)].into_iter();
            document(rules, &experiment(&[variant(0, &own)]))
        }),
        ("variants", &|count| {
            let variants = (0..count).map(|number| variant(number, &overridden(0)));
            document(rules(1), &experiment(&variants.collect::<Vec<_>>()))
        }),
    ];
    for (what, build) in cases {
        let [few, many] = [FEW, TIMES * FEW].map(|count| takes(&build(count)));
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{what}: {few:?}, then {many:?}");
        assert!(ratio < 80.0, "{what}: {few:?}, then {many:?}");
    }
}
