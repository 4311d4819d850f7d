use super::*;
use crate::codec::json::{At, Json};
use crate::decide::verdict::LimitStatus;
use crate::quota::operation::{Reading, Retry};
use crate::time::Span;

const POLICY: &str = r#"{"rules": [
    {"name": "a.scope.user.outcome.allowed", "pattern": "/*", "priority": 1,
     "global_limit": {"type": "fixed_window", "limit": 9, "window": 60},
     "user_limits": {"default": {"type": "fixed_window", "limit": 9, "window": 60,
                                 "on_store_failure": "deny"}}},
    {"name": "b", "pattern": "/*", "priority": 2,
     "ip_limits": {"default": {"type": "fixed_window", "limit": 9, "window": 60}}}],
    "experiments": [
        {"name": "e.x", "variants": [{"name": "y", "weight": 1},
            {"name": "z", "weight": 1, "rules": {"b": {"ip_limits":
                {"default": {"type": "fixed_window", "limit": 4, "window": 60}}}}}]}]}"#;

fn counters() -> Counters {
    let json = Json::parse(POLICY, "policy").unwrap();
    Counters::new(Rc::new(Policy::try_new(&At::new(&json, "policy")).unwrap()))
}

fn limits(counters: &Counters) -> Vec<LimitId> {
    counters.policy().limits().map(|(id, _)| id).collect()
}

fn status(limit: LimitId) -> Option<LimitStatus> {
    let reading = Reading {
        remaining: 0,
        retry: Retry::Never,
        reset: Span::ZERO,
    };
    Some(LimitStatus { limit, reading })
}

fn told(counters: &mut Counters) -> Vec<(String, u32)> {
    let policy = counters.policy().clone();
    let mut told = Vec::new();
    counters.drain(|_, series, count| told.push((series.name(&policy).unwrap(), count)));
    told.sort();
    told
}

fn expect(counters: &mut Counters, expected: &[(&str, u32)]) {
    let expected: Vec<(String, u32)> = expected
        .iter()
        .map(|(name, count)| (format!("weir.{name}"), *count))
        .collect();
    assert_eq!(told(counters), expected);
}

#[test]
fn every_series_has_a_number_of_its_own() {
    let counters = counters();
    let policy = counters.policy();
    let layout = counters.layout();
    let mut names: Vec<String> = (0..layout.size())
        .map(|number| {
            let series = layout.series(number).unwrap();
            assert_eq!(layout.number(series), number);
            series.name(policy).unwrap()
        })
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), layout.size());
}

#[test]
fn what_passed_counts_once_for_each_rule_under_the_scope_with_the_fewest_left() {
    let mut counters = counters();
    let [global, user, ip, ..] = limits(&counters)[..] else {
        panic!()
    };
    let record = Record::new(Outcome::Allowed, Source::Store, status(user));
    for _ in 0..2 {
        let met = [(global, Some(5)), (user, Some(4)), (ip, Some(9))];
        counters.count(&record, met.into_iter());
    }
    let rule = "requests_total.rule.a.scope.user.outcome.allowed";
    expect(
        &mut counters,
        &[
            ("decisions_total.outcome.allowed", 2),
            (&format!("{rule}.scope.user.outcome.allowed"), 2),
            ("requests_total.rule.b.scope.ip.outcome.allowed", 2),
        ],
    );
    expect(&mut counters, &[]);
}

#[test]
fn what_was_refused_counts_for_the_limit_that_refused_and_for_no_other() {
    let mut counters = counters();
    let ids = limits(&counters);
    let met = || ids.iter().take(3).map(|&id| (id, None));
    let cached = Record::new(Outcome::Denied, Source::Denials, status(ids[2]));
    counters.count(&cached, met());
    let blind = Record::new(Outcome::Unavailable, Source::Failure(Degraded::Deny), None);
    counters.count(&blind, met());
    let rule = "rule.a.scope.user.outcome.allowed.scope.user";
    expect(
        &mut counters,
        &[
            ("decisions_total.outcome.denied", 1),
            ("decisions_total.outcome.unavailable", 1),
            ("degraded_total.how.deny", 1),
            (&format!("marks_total.{rule}.mark.degraded"), 1),
            ("marks_total.rule.b.scope.ip.mark.cached", 1),
            (&format!("requests_total.{rule}.outcome.unavailable"), 1),
            ("requests_total.rule.b.scope.ip.outcome.denied", 1),
        ],
    );
}

#[test]
fn trials_warnings_and_delays_are_said_besides() {
    let mut counters = counters();
    let ids = limits(&counters);
    let record = Record {
        delay: Span::millis(250),
        shadow_denied: vec![ids[2]],
        shadow_passed: vec![ids[0]],
        variants: vec![VariantId(1)],
        warned: vec![ids[0]],
        ..Record::new(Outcome::Delayed, Source::Leases, None)
    };
    counters.count(&record, [(ids[0], None)].into_iter());
    counters.decided(Outcome::Unmatched);
    counters.tier_unknown();
    let rule = "rule.a.scope.user.outcome.allowed.scope.global";
    expect(
        &mut counters,
        &[
            ("decisions_total.outcome.delayed", 1),
            ("decisions_total.outcome.unmatched", 1),
            ("delayed_millis_total", 250),
            (
                "experiments_total.experiment.e.x/variant.z.outcome.delayed",
                1,
            ),
            (&format!("marks_total.{rule}.mark.leased"), 1),
            (&format!("marks_total.{rule}.mark.shadow_allowed"), 1),
            (&format!("marks_total.{rule}.mark.warned"), 1),
            ("marks_total.rule.b.scope.ip.mark.shadow_denied", 1),
            (&format!("requests_total.{rule}.outcome.delayed"), 1),
            ("tier_unknown_total", 1),
        ],
    );
}
