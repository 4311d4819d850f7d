use super::*;
use crate::codec::json::{At, Json};
use crate::decide::verdict::LimitStatus;
use crate::quota::operation::{Reading, Retry};
use crate::time::Millis;

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

fn tally() -> Tally {
    let json = Json::parse(POLICY, "policy").unwrap();
    Tally::new(Rc::new(Policy::try_new(&At::new(&json, "policy")).unwrap()))
}

fn limits(tally: &Tally) -> Vec<LimitId> {
    tally.policy().limits().map(|(id, _)| id).collect()
}

fn status(limit: LimitId) -> Option<LimitStatus> {
    let reading = Reading {
        remaining: 0,
        retry: Retry::Never,
        reset: Millis(0),
    };
    Some(LimitStatus { limit, reading })
}

fn told(tally: &mut Tally) -> Vec<(String, u32)> {
    let policy = tally.policy().clone();
    let mut told = Vec::new();
    tally.drain(|_, series, count| told.push((series.name(&policy).unwrap(), count)));
    told.sort();
    told
}

fn expect(tally: &mut Tally, expected: &[(&str, u32)]) {
    let expected: Vec<(String, u32)> = expected
        .iter()
        .map(|(name, count)| (format!("weir.{name}"), *count))
        .collect();
    assert_eq!(told(tally), expected);
}

#[test]
fn every_series_has_a_number_of_its_own() {
    let tally = tally();
    let policy = tally.policy();
    let layout = tally.layout();
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
    let mut tally = tally();
    let [global, user, ip, ..] = limits(&tally)[..] else {
        panic!()
    };
    let record = Record::new(Outcome::Allowed, Source::Store, status(user));
    for _ in 0..2 {
        let met = [(global, Some(5)), (user, Some(4)), (ip, Some(9))];
        tally.count(&record, met.into_iter());
    }
    let rule = "requests_total.rule.a.scope.user.outcome.allowed";
    expect(
        &mut tally,
        &[
            ("decisions_total.outcome.allowed", 2),
            (&format!("{rule}.scope.user.outcome.allowed"), 2),
            ("requests_total.rule.b.scope.ip.outcome.allowed", 2),
        ],
    );
    expect(&mut tally, &[]);
}

#[test]
fn what_was_refused_counts_for_the_limit_that_refused_and_for_no_other() {
    let mut tally = tally();
    let ids = limits(&tally);
    let met = || ids.iter().take(3).map(|&id| (id, None));
    let cached = Record::new(Outcome::Denied, Source::Denials, status(ids[2]));
    tally.count(&cached, met());
    let blind = Record::new(Outcome::Unavailable, Source::Failure(Degraded::Deny), None);
    tally.count(&blind, met());
    let rule = "rule.a.scope.user.outcome.allowed.scope.user";
    expect(
        &mut tally,
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
    let mut tally = tally();
    let ids = limits(&tally);
    let record = Record {
        delay: Millis(250),
        shadow_denied: vec![ids[2]],
        shadow_passed: vec![ids[0]],
        variants: vec![VariantId(1)],
        warned: vec![ids[0]],
        ..Record::new(Outcome::Delayed, Source::Leases, None)
    };
    tally.count(&record, [(ids[0], None)].into_iter());
    tally.decided(Outcome::Unmatched);
    tally.tier_unknown();
    let rule = "rule.a.scope.user.outcome.allowed.scope.global";
    expect(
        &mut tally,
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
