//! Limits that fit yesterday's requests. [`Usage`] counts what callers ask for by group of paths and tier, in
//! memory bounded by callers; [`Group::advice`] chooses the algorithm and its numbers. What the result would
//! have refused, a simulation says afterwards.

use std::collections::BTreeMap;

use anyhow::Result;
use hashbrown::HashMap;
use serde::Serialize;
use serde_json::{Value, json};
use weir_core::policy::Policy;
use weir_core::request::subject::Subject;
use weir_core::request::{path, reading};

use crate::log::{Merged, Request, Slot};
use crate::simulate::{Caller as Assumed, Gate};
use crate::suite;

/// With fewer callers their largest is chance.
pub const FEWEST_CALLERS: usize = 20;
pub const FEWEST_REQUESTS: u64 = 500;
/// Who asks for so many times as much as 95 % do is no measure for the others.
const ABUSE: u64 = 10;
/// Groups beyond are told together: whoever scans for paths invents them.
const MOST_GROUPS: usize = 5_000;
/// A rule with more exceptions says nothing that anybody reads.
const MOST_EXCEPT: usize = 50;

const SECOND: u64 = 1_000_000;

/// What a caller asks for.
pub struct Usage {
    groups: BTreeMap<String, usize>,
    callers: HashMap<(usize, String, Subject), Asked>,
    /// Requests that are in no group.
    pub elsewhere: u64,
}

#[derive(Default)]
struct Asked {
    requests: u64,
    in_10s: Peak,
    in_minute: Peak,
    in_hour: Peak,
}

/// The window with the most requests.
#[derive(Default)]
struct Peak {
    window: u64,
    count: u64,
    most: u64,
}

/// What is said of one group of paths and tier.
#[derive(Debug, Serialize)]
pub struct Group {
    pub prefix: String,
    pub tier: String,
    pub requests: u64,
    pub callers: usize,
    /// The requests of a caller in the 10 s, the minute and the hour in which they ask for most.
    pub in_10s: Ranks,
    pub in_minute: Ranks,
    pub in_hour: Ranks,
    /// How many callers are left out of the figures above, for what they ask for.
    pub outliers: usize,
    pub advice: Option<Advice>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ranks {
    pub p50: u64,
    pub p95: u64,
    pub p999: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    /// abusive, bursty, steady or rare
    pub traffic: &'static str,
    pub limit: Value,
    pub why: String,
    /// What it would have refused of these requests.
    pub refused: u64,
    pub callers_hit: u64,
    pub worst: Option<String>,
}

impl Usage {
    /// Counts what logs hold; `depth` is how many parts of a path make a group.
    pub fn of(logs: &mut Merged, assumed: &Assumed, depth: usize) -> Result<Usage> {
        let mut gate = Gate::try_new(everything()?, assumed)?;
        let mut usage = Usage {
            groups: BTreeMap::new(),
            callers: HashMap::new(),
            elsewhere: 0,
        };
        let tier_header = gate.tier_header().to_owned();
        logs.each(|request| {
            let verdict = gate.decide(&request);
            let prefix = target(&request).and_then(|target| prefix(target, depth));
            let group = prefix.and_then(|prefix| usage.group(prefix));
            let (Some(group), Some(subject)) = (group, verdict.subject) else {
                usage.elsewhere += 1;
                return;
            };
            let tier = match (&subject, tier(&request, &tier_header)) {
                (Subject::Address(_), _) => "anonymous".to_owned(),
                (_, Some(tier)) => tier,
                (_, None) => assumed.tier.clone().unwrap_or_else(|| "free".to_owned()),
            };
            let asked = usage.callers.entry((group, tier, subject)).or_default();
            asked.requests += 1;
            asked.in_10s.count(request.time / (10 * SECOND));
            asked.in_minute.count(request.time / (60 * SECOND));
            asked.in_hour.count(request.time / (3600 * SECOND));
        })?;
        Ok(usage)
    }

    fn group(&mut self, prefix: String) -> Option<usize> {
        let next = self.groups.len();
        match self.groups.get(&prefix) {
            Some(group) => Some(*group),
            None if next < MOST_GROUPS => {
                self.groups.insert(prefix, next);
                Some(next)
            }
            None => None,
        }
    }

    /// Each group and tier with what is advised, those with the most requests first.
    pub fn groups(&self, headroom: f64) -> Vec<Group> {
        let mut by_group: BTreeMap<(usize, &str), Vec<&Asked>> = BTreeMap::new();
        for ((group, tier, _), asked) in &self.callers {
            by_group.entry((*group, tier)).or_default().push(asked);
        }
        let prefixes: HashMap<usize, &String> = self
            .groups
            .iter()
            .map(|(prefix, group)| (*group, prefix))
            .collect();
        let mut groups: Vec<Group> = by_group
            .into_iter()
            .map(|((group, tier), asked)| {
                let mut told = Group::of(prefixes[&group].clone(), tier.to_owned(), asked);
                let is_name = |tier: &str| {
                    let is_plain =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                    (1..=64).contains(&tier.len()) && tier.bytes().all(is_plain)
                };
                if is_name(tier) && self.below(&told.prefix).len() <= MOST_EXCEPT {
                    told.advice = told.advise(headroom);
                }
                told
            })
            .collect();
        groups.sort_by(|one, other| {
            let by_requests = other.requests.cmp(&one.requests);
            by_requests.then_with(|| (&one.prefix, &one.tier).cmp(&(&other.prefix, &other.tier)))
        });
        groups
    }

    /// Groups of their own that the patterns of this one hold too.
    fn below(&self, prefix: &str) -> Vec<&str> {
        let inside = format!("{prefix}/");
        let others = self.groups.keys().map(String::as_str);
        others.filter(|other| other.starts_with(&inside)).collect()
    }

    /// The policy that sets what is advised, on trial.
    pub fn policy(&self, groups: &[Group]) -> Value {
        let mut rules: Vec<Value> = Vec::new();
        let mut by_prefix: Vec<&str> = Vec::new();
        for group in groups.iter().filter(|group| group.advice.is_some()) {
            if !by_prefix.contains(&group.prefix.as_str()) {
                by_prefix.push(&group.prefix);
            }
        }
        for prefix in by_prefix {
            let own = groups.iter().filter(|group| group.prefix == prefix);
            let limits: serde_json::Map<String, Value> = own
                .filter_map(|group| {
                    Some((group.tier.clone(), group.advice.as_ref()?.limit.clone()))
                })
                .collect();
            let mut rule = json!({
                "name": rule_name(prefix),
                "patterns": [prefix, format!("{prefix}/*")],
                "mode": "shadow",
                "user_limits": limits,
            });
            let below = self.below(prefix);
            if !below.is_empty() {
                let both = |other: &&str| [(*other).to_owned(), format!("{other}/*")];
                rule["except"] = below.iter().flat_map(both).collect();
            }
            rules.push(rule);
        }
        json!({ "rules": rules })
    }
}

/// `/api/v1/users` is `api.v1.users`, and no other prefix is.
pub fn rule_name(prefix: &str) -> String {
    let name = prefix.trim_start_matches('/').replace('.', "..");
    name.replace('/', ".")
}

impl Peak {
    fn count(&mut self, window: u64) {
        if self.window != window {
            self.window = window;
            self.count = 0;
        }
        self.count += 1;
        self.most = self.most.max(self.count);
    }
}

impl Group {
    fn of(prefix: String, tier: String, asked: Vec<&Asked>) -> Group {
        let (requests, callers) = (asked.iter().map(|one| one.requests).sum(), asked.len());
        let usual = Ranks::of(asked.iter().map(|one| one.in_minute.most)).p95;
        let is_usual = |one: &&&Asked| one.in_minute.most <= (usual * ABUSE).max(30);
        let measure: Vec<&&Asked> = asked.iter().filter(is_usual).collect();
        Group {
            prefix,
            tier,
            requests,
            callers,
            in_10s: Ranks::of(measure.iter().map(|one| one.in_10s.most)),
            in_minute: Ranks::of(measure.iter().map(|one| one.in_minute.most)),
            in_hour: Ranks::of(measure.iter().map(|one| one.in_hour.most)),
            outliers: callers - measure.len(),
            advice: None,
        }
    }

    /// Why there is nothing to advise.
    pub fn too_little(&self) -> Option<String> {
        let is_enough = self.callers >= FEWEST_CALLERS && self.requests >= FEWEST_REQUESTS;
        (!is_enough).then(|| {
            format!(
                "{} requests of {} callers are too little: {FEWEST_REQUESTS} of {FEWEST_CALLERS} at least",
                self.requests, self.callers
            )
        })
    }

    fn advise(&self, headroom: f64) -> Option<Advice> {
        if self.too_little().is_some() {
            return None;
        }
        let (ten, minute, hour) = (self.in_10s.p999, self.in_minute.p999, self.in_hour.p999);
        let with_room = |count: u64| rounded(((count as f64) * headroom).ceil() as u64);
        let (traffic, limit, why) = if minute <= 2 {
            let limit = json!({"type": "fixed_window", "limit": with_room(hour), "window": 3600});
            let why = format!(
                "nobody usual asks more than {minute} times a minute, so hours are counted"
            );
            ("rare", limit, why)
        } else if self.outliers > 0 {
            let limit = json!({"type": "sliding_window", "limit": with_room(minute), "window": 60});
            let why = format!(
                "more than {ABUSE} times what 95 % ask for: {}; a sliding window gives nobody a second \
                 helping where a window ends",
                callers(self.outliers as u64)
            );
            ("abusive", limit, why)
        } else if ten * 2 >= minute {
            let (limit, burst) = (with_room(minute), with_room(ten).min(with_room(minute)));
            let limit =
                json!({"type": "token_bucket", "limit": limit, "window": 60, "burst_limit": burst});
            let why = format!("{ten} of the {minute} requests of a minute come within 10 s");
            ("bursty", limit, why)
        } else {
            let limit = json!({"type": "leaky_bucket", "limit": with_room(ten), "window": 10});
            let why = format!("requests come evenly: {ten} in 10 s, {minute} in a minute");
            ("steady", limit, why)
        };
        Some(Advice {
            traffic,
            limit,
            why,
            refused: 0,
            callers_hit: 0,
            worst: None,
        })
    }
}

impl Ranks {
    fn of(counts: impl Iterator<Item = u64>) -> Ranks {
        let mut counts: Vec<u64> = counts.collect();
        counts.sort_unstable();
        let rank = |per_mille: usize| {
            let place = (counts.len() * per_mille).div_ceil(1000).max(1) - 1;
            counts.get(place).copied().unwrap_or(0)
        };
        Ranks {
            p50: rank(500),
            p95: rank(950),
            p999: rank(999),
        }
    }
}

pub fn callers(count: u64) -> String {
    match count {
        1 => "1 caller".to_owned(),
        count => format!("{count} callers"),
    }
}

/// Up to two digits, as people write limits.
fn rounded(count: u64) -> u64 {
    let mut unit = 1;
    while count / unit >= 100 {
        unit *= 10;
    }
    count.div_ceil(unit) * unit
}

/// Who calls is asked of the core, which tells it of requests that a limit is for.
fn everything() -> Result<Policy> {
    let limit = json!({"type": "fixed_window", "limit": 1_000_000_000_000_u64, "window": 1});
    let rule = json!({"name": "all", "pattern": "*", "user_limits": {"default": limit}});
    suite::policy(json!({"rules": [rule]}).to_string().as_bytes())
}

fn target<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let mut line = None;
    for (slot, value) in request.values() {
        match slot {
            Slot::Path => return Some(value),
            Slot::RequestLine => line = value.split(|byte| *byte == b' ').nth(1),
            _ => {}
        }
    }
    line
}

fn tier(request: &Request<'_>, header: &str) -> Option<String> {
    let mut values = request.values();
    let (_, tier) = values.find(|(slot, _)| match slot {
        Slot::Tier => true,
        Slot::Request(name) => name == header,
        _ => false,
    })?;
    Some(String::from_utf8_lossy(tier).into_owned())
}

/// The parts of a path before the first that is somebody's id; nothing where no pattern says it.
fn prefix(target: &[u8], depth: usize) -> Option<String> {
    let path = path::normalise(target);
    let path = String::from_utf8(reading::loose(&path).into_owned()).ok()?;
    let parts = path.strip_prefix('/')?.split('/').take(depth);
    let parts: Vec<&str> = parts.take_while(|part| !is_id(part)).collect();
    let is_plain = |part: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let has_dot_outside = part.starts_with('.') || part.ends_with('.');
        !part.is_empty() && !has_dot_outside && part.bytes().all(is_plain)
    };
    let is_all = !parts.is_empty() && parts.iter().all(is_plain);
    let prefix = format!("/{}", parts.join("/"));
    // The rule is named by it.
    (is_all && rule_name(&prefix).len() <= 64).then_some(prefix)
}

/// A number, or what is long and has digits in it.
fn is_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    digits > 0 && (digits == part.len() || part.len() >= 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_end_a_prefix_and_depth_does() {
        for (target, expected) in [
            ("/API/v1/users/42?x", Some("/api/v1/users")),
            (
                "/users/0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0/orders",
                Some("/users"),
            ),
            ("/a/b/c/d/e", Some("/a/b/c")),
            ("/", None),
            ("/42", None),
            ("/a*b", None),
        ] {
            assert_eq!(
                prefix(target.as_bytes(), 3).as_deref(),
                expected,
                "{target}"
            );
        }
    }

    #[test]
    fn limits_have_two_digits_and_never_less() {
        for (count, expected) in [(1, 1), (99, 99), (101, 110), (1234, 1300), (990, 990)] {
            assert_eq!(rounded(count), expected);
        }
    }
}
