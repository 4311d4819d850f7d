//! Which counts begin anew when a policy takes another's place. A count stays with its limit for as
//! long as rule, scope, algorithm and name (or else window) stay; whatever else changes, an operator is
//! not told.

use std::collections::BTreeMap;

use weir_core::policy::ids::Scope;
use weir_core::policy::rollout::Mode;
use weir_core::policy::{Limit, Policy, Rule};

/// The limits of one rule by the counters that they have.
type Counters<'a> = BTreeMap<&'a [u8], Vec<&'a Limit>>;

/// One line for each counter that nothing has counted in before, or that nothing counts in any more.
pub fn between(before: &Policy, after: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in after.rules() {
        let name = rule.name();
        let Some(old) = before.rules().iter().find(|old| old.name() == name) else {
            lines.push(format!(
                "rule {name}: its counts begin anew, since no rule of that name was in force"
            ));
            continue;
        };
        lines.extend(modes(old, rule));
        let (old, new) = (counters(before, name), counters(after, name));
        for (counter, limits) in &new {
            match old.get(counter) {
                None => lines.push(format!(
                    "rule {name}: the count of {} begins anew, as {}",
                    whose(limits),
                    limits[0].counter
                )),
                Some(same) => lines.extend(windows(name, same, limits)),
            }
        }
        for (counter, limits) in &old {
            if !new.contains_key(counter) {
                lines.push(format!(
                    "rule {name}: what was counted of {} as {} is left behind",
                    whose(limits),
                    limits[0].counter
                ));
            }
        }
    }
    lines
}

/// What is counted on trial is never held against anybody later.
fn modes(old: &Rule, new: &Rule) -> Option<String> {
    let name = new.name();
    match (old.mode(), new.mode()) {
        (Mode::Shadow, Mode::Enforce | Mode::Partly(_)) => Some(format!(
            "rule {name}: the counts of callers whom it now holds begin anew: on trial it counted apart"
        )),
        (Mode::Partly(_), Mode::Enforce) => Some(format!(
            "rule {name}: the counts of callers who were on trial begin anew: on trial it counted apart"
        )),
        (Mode::Partly(old), Mode::Partly(new)) if new.get() > old.get() => Some(format!(
            "rule {name}: the counts of callers who were on trial and are no more begin anew"
        )),
        _ => None,
    }
}

/// A name keeps its count whatever its window.
fn windows(rule: &str, old: &[&Limit], new: &[&Limit]) -> Option<String> {
    let window = |limits: &[&Limit]| limits[0].terms.quota.period();
    (window(old) != window(new)).then(|| {
        format!(
            "rule {rule}: the count of {} as {} goes on, in windows of {:#} instead of {:#}",
            whose(new),
            new[0].counter,
            window(new),
            window(old)
        )
    })
}

fn counters<'a>(policy: &'a Policy, rule: &str) -> Counters<'a> {
    let mut counters = Counters::new();
    let limits = policy.limits().map(|(_, limit)| limit);
    for limit in limits.filter(|limit| limit.rule == rule) {
        counters.entry(&limit.key_end).or_default().push(limit);
    }
    counters
}

/// Those whom limits of one counter are for: `user free, premium`.
fn whose(limits: &[&Limit]) -> String {
    let first = limits[0];
    let mut label: Vec<&str> = limits.iter().map(|limit| limit.label.as_str()).collect();
    label.sort_unstable();
    label.dedup();
    let variant = match (first.scope, &first.variant) {
        (Scope::Global | Scope::Ip | Scope::Key, Some(variant)) => format!(" in {variant}"),
        _ => String::new(),
    };
    match first.scope {
        Scope::Global => format!("everybody{variant}"),
        scope => format!("{} {}{variant}", scope.name(), label.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use weir_core::live::poller::Document;

    use super::*;

    fn policy(rules: &str) -> Policy {
        match Document::read(format!(r#"{{"rules": [{rules}]}}"#).as_bytes()) {
            Ok(Document::Policy(policy)) => *policy,
            other => panic!("{other:?}"),
        }
    }

    fn fixed(limit: u64, window: u64) -> String {
        format!(r#"{{"type": "fixed_window", "limit": {limit}, "window": {window}}}"#)
    }

    fn named(limit: &str, name: &str) -> String {
        limit.replacen('{', &format!(r#"{{"name": "{name}", "#), 1)
    }

    /// A rule with these lists of two tiers.
    fn plan(fields: &str, free: &[String], premium: &[String]) -> Policy {
        let (free, premium) = (free.join(","), premium.join(","));
        policy(&format!(
            r#"{{"name": "plan", "pattern": "/plan/*", {fields}
                "user_limits": {{"free": [{free}], "premium": [{premium}]}}}}"#
        ))
    }

    #[test]
    fn a_limit_that_stays_itself_begins_nothing_anew() {
        let (guard, day) = (fixed(10, 1), fixed(5, 86_400));
        let before = plan("", &[guard.clone(), day.clone()], &[fixed(1000, 86_400)]);
        let after = plan(
            "",
            &[fixed(9, 86_400), guard],
            &[fixed(2000, 86_400), fixed(1, 1)],
        );
        assert_eq!(between(&before, &after), Vec::<String>::new());
    }

    #[test]
    fn each_counter_that_begins_or_ends_is_told() {
        let day = fixed(5, 86_400);
        let before = |mode| plan(mode, from_ref(&day), &[fixed(9, 86_400)]);
        for (after, told) in [
            (
                plan("", &[day.clone(), fixed(1, 1)], from_ref(&day)),
                vec!["rule plan: the count of user free begins anew, as fw1s"],
            ),
            (
                plan("", &[fixed(5, 43_200)], &[fixed(9, 43_200)]),
                vec![
                    "rule plan: the count of user free, premium begins anew, as fw43200s",
                    "rule plan: what was counted of user free, premium as fw86400s is left behind",
                ],
            ),
            (
                plan("", &[named(&day, "daily")], from_ref(&day)),
                vec!["rule plan: the count of user free begins anew, as fw.daily"],
            ),
            (
                policy(&format!(
                    r#"{{"name": "offer", "pattern": "/plan/*", "global_limit": {day}}}"#
                )),
                vec!["rule offer: its counts begin anew, since no rule of that name was in force"],
            ),
        ] {
            assert_eq!(between(&before(""), &after), told);
        }
        let told = between(&before(r#""mode": "shadow","#), &before(""));
        assert!(told[0].contains("on trial it counted apart"), "{told:?}");
        assert_eq!(
            between(&before(""), &before(r#""mode": "shadow","#)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_name_goes_on_in_another_window() {
        let of = |window| {
            let day = named(&fixed(5, window), "quota");
            plan("", from_ref(&day), from_ref(&day))
        };
        assert_eq!(
            between(&of(86_400), &of(3600)),
            [
                "rule plan: the count of user free, premium as fw.quota goes on, in windows of 3600 seconds \
              instead of 86400 seconds"
            ]
        );
    }
}
