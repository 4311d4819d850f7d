//! What is legal in a policy and probably not meant. Each doubt is one sentence that names the rule and says
//! how to mend it. It changes nothing: who reads the warnings decides.

use super::pattern::{Index, LONGEST_PATH};
use super::{Limit, Rule, Scope};
use crate::limit::Algorithm;
use crate::rollout::Mode;

/// An exact log costs about 30 bytes of Redis a permit: above this, 300 KB for each caller.
const LARGE_LOG: u64 = 10_000;
/// Each costs up to 12 µs of the longest path there is, so together most of a millisecond.
const MANY_GONE_THROUGH: usize = 64;

pub(super) fn of(rules: &[Rule], limits: &[Limit], patterns: &Index) -> Vec<String> {
    let large = limits.iter().filter_map(large_log);
    large
        .chain(rules.iter().filter_map(partial_count))
        .chain(rules.iter().filter_map(|rule| out_of_reach(rule, limits)))
        .chain(costly_patterns(patterns))
        .collect()
}

/// Patterns that begin alike, and have to be tried one by one.
fn costly_patterns(patterns: &Index) -> Option<String> {
    let count = patterns.most_gone_through();
    (count > MANY_GONE_THROUGH).then(|| {
        format!(
            "{count} patterns begin alike and have a \"*\" with more behind it, so each is tried on each \
             path that begins so: a path of {LONGEST_PATH} bytes may cost {} µs; let them begin differently",
            count * 12
        )
    })
}

fn large_log(limit: &Limit) -> Option<String> {
    let quota = limit.terms.quota;
    let large = quota.algorithm() == Algorithm::SlidingWindow && quota.limit() > LARGE_LOG;
    let whose = match limit.scope {
        Scope::Global => "",
        Scope::User => " for each user",
        Scope::Ip => " for each address",
    };
    large.then(|| {
        format!(
            "rule {rule}: a sliding window of {limit} keeps up to {limit} entries (about 30 bytes \
             each) in Redis{whose}; a token bucket keeps one",
            rule = limit.rule,
            limit = quota.limit(),
        )
    })
}

/// A count that everybody shares is a part of itself while some are on trial.
fn partial_count(rule: &Rule) -> Option<String> {
    match rule.mode {
        Mode::Partly(percent) if !rule.limits.global.is_empty() => Some(format!(
            "rule {}: while enforce_percent is {}, its global limit counts the requests of that share \
             of its callers only, and is reached later than it will be at 100",
            rule.name,
            percent.get()
        )),
        _ => None,
    }
}

/// A cost that may be asked for, and that a limit could not hold even where nothing of it is used.
fn out_of_reach(rule: &Rule, limits: &[Limit]) -> Option<String> {
    let (header, most) = rule.tariff.asks_up_to()?;
    let own = limits.iter().filter(|limit| limit.rule == rule.name);
    let quotas = own.map(|limit| limit.terms.quota);
    let too_small = quotas.filter(|quota| quota.never_fits(most));
    let holds = too_small.map(|quota| quota.capacity()).min()?;
    Some(format!(
        "rule {}: {header} may ask for up to {}, and a limit of it holds {holds} at most: what costs more \
         than that never passes; lower \"max\" or raise the limit",
        rule.name,
        most.get()
    ))
}
