//! The third check: what clients were told is what Redis decided, answer for answer. It derives the
//! headers from the script's readings by itself.
//!
//! A caller who was refused a moment ago is refused again without a call. Nothing that Redis decided
//! stands against such an answer, but the ledger does: a limit of the caller's was full while the
//! request was under way.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::quota::limit::Quota;
use weir_core::quota::operation::{Kind, Retry, Verdict};
use weir_core::time::StoreInstant;
use weir_lab::crowd::{self, Answer, Caller, Request};

use crate::history::{Call, Checked, History, KeyId, Operation, fault, stamp};
use crate::ledger::Ledger;

/// Enough that most of them call seldom, while the first calls a hundred times a second.
const USERS: u64 = 3000;

/// What `policy.json` limits together: a path, the rules that match it in order, and how many of a
/// hundred requests go there.
struct Route {
    path: &'static str,
    rules: &'static [&'static str],
    percent: u64,
}

const ROUTES: [Route; 4] = [
    Route {
        path: "/api/items",
        rules: &["every"],
        percent: 45,
    },
    Route {
        path: "/api/search?q=a",
        rules: &["search", "every"],
        percent: 25,
    },
    Route {
        path: "/api/login",
        rules: &["login", "every"],
        percent: 20,
    },
    Route {
        path: "/ticket",
        rules: &["ticket"],
        percent: 10,
    },
];

/// The script tells waits in whole ms, rounded up: who is refused from memory may be so for as much
/// longer than the limit is full.
const ROUNDING: u64 = 1000;

/// The route with one limit and one key, which never refuses: each answer has its own number.
const TICKET: usize = 3;

/// Who asked for what, as far as keys tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Who {
    route: usize,
    user: Option<u64>,
    address: Option<IpAddr>,
}

/// An answer's own part: status and headers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Told {
    status: u16,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_seconds: Option<u64>,
    retry_after_seconds: Option<u64>,
}

/// How often each answer was given.
type Tally = HashMap<(Who, Told), u64>;

/// A request that was refused, by the clock of Redis and its clients: they share a machine.
#[derive(Debug)]
struct Refusal {
    who: Who,
    asked: StoreInstant,
    answered: StoreInstant,
}

/// All that the clients heard.
#[derive(Debug, Default)]
pub struct Heard {
    told: Tally,
    refusals: Vec<Refusal>,
    /// Answers given without the store: nothing is known of what Redis decided.
    pub degraded: u64,
}

/// One connection: any user, one address, any route.
struct Client<'a> {
    left: &'a AtomicU64,
    address: IpAddr,
    random: Random,
    who: Who,
    asked: StoreInstant,
    heard: Heard,
}

/// The limits of callers of each sort, as one call from that sort named them.
#[derive(Default)]
struct Limits {
    of: HashMap<Sort, Vec<Limit>>,
}

/// What decides which limits a caller meets: the policy knows odd users by their tier, and the
/// first address.
#[derive(PartialEq, Eq, Hash)]
struct Sort {
    route: usize,
    tier: Option<u64>,
    is_first_address: bool,
}

/// A quota with the parts of its key.
struct Limit {
    subject: String,
    rest: String,
    quota: Quota,
}

/// Repeatable, and a few instructions: SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

/// Sends so many requests over so many connections.
pub fn call(gateway: std::net::SocketAddr, connections: u64, requests: u64) -> Heard {
    let left = AtomicU64::new(requests);
    let client = |number: u64| Client {
        left: &left,
        // Half of all connections come from the first address, a quarter from the next…
        address: [127, 0, 0, 1 + (number + 1).trailing_zeros() as u8].into(),
        random: Random(number),
        who: Who::default(),
        asked: StoreInstant(0),
        heard: Heard::default(),
    };
    let clients = crowd::run(gateway, (0..connections).map(client).collect());
    let mut all = Heard::default();
    for client in clients.expect("every request is answered") {
        all.degraded += client.heard.degraded;
        all.refusals.extend(client.heard.refusals);
        for (told, times) in client.heard.told {
            *all.told.entry(told).or_default() += times;
        }
    }
    all
}

/// How many requests were refused from memory.
pub fn compare(history: &History, calls: &[&Call], ledger: &Ledger, heard: &Heard) -> Checked<u64> {
    let mut decided = Tally::new();
    let mut limits = Limits::default();
    for operation in calls.iter().flat_map(|call| &call.operations) {
        if operation.kind == Kind::Take {
            let who = who(history, operation)?;
            limits.learn(history, &who, operation);
            *decided.entry((who, told(operation))).or_default() += 1;
        }
    }
    let from_memory = agree(&decided, heard)?;
    tickets(heard)?;
    for refusal in &heard.refusals {
        limits.check(history, ledger, refusal)?;
    }
    Ok(from_memory)
}

/// How many refusals Redis did not decide. A request that was answered without the store may have
/// been decided by Redis all the same.
fn agree(decided: &Tally, heard: &Heard) -> Checked<u64> {
    let mut from_memory = 0;
    for (told, times) in &heard.told {
        let by_redis = decided.get(told).copied().unwrap_or_default();
        match times.checked_sub(by_redis) {
            None | Some(0) => {}
            Some(more) if told.1.status == 429 => from_memory += more,
            Some(_) => {
                return fault(format!(
                    "clients heard {times} times what Redis decided {by_redis} times: {told:?}"
                ));
            }
        }
    }
    let unheard = |(told, times): (&(Who, Told), &u64)| {
        times.saturating_sub(heard.told.get(told).copied().unwrap_or_default())
    };
    let unheard: u64 = decided.iter().map(unheard).sum();
    if unheard > heard.degraded {
        return fault(format!(
            "Redis decided {unheard} requests whose clients heard otherwise; only {} were answered \
             without it",
            heard.degraded
        ));
    }
    Ok(from_memory)
}

/// One counter that nothing refuses hands out every number once. Those of which no client heard
/// went to requests that were answered without the store.
fn tickets(heard: &Heard) -> Checked<()> {
    let mut seen = BTreeSet::new();
    for ((who, told), times) in &heard.told {
        if let (TICKET, Some(remaining)) = (who.route, told.remaining)
            && (*times != 1 || !seen.insert(remaining))
        {
            return fault(format!("{remaining} remaining was told twice: {told:?}"));
        }
    }
    match (seen.first(), seen.last()) {
        (Some(first), Some(last)) if last - first + 1 > seen.len() as u64 + heard.degraded => {
            fault(format!(
                "of {first} to {last} remaining, only {} were told",
                seen.len()
            ))
        }
        _ => Ok(()),
    }
}

fn who(history: &History, operation: &Operation) -> Checked<Who> {
    let mut who = Who::default();
    let mut rules: Vec<&str> = Vec::new();
    for (key, ..) in &operation.limits {
        let (subject, rest) = parts(history, *key)?;
        match subject.split_once(':') {
            Some(("u", user)) => who.user = user.strip_prefix("user").and_then(|n| n.parse().ok()),
            Some(("a", address)) => who.address = address.parse().ok(),
            _ => {}
        }
        let rule = rest.split(':').next().unwrap_or_default();
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }
    let route = ROUTES.iter().position(|route| route.rules == rules);
    match route {
        Some(route) => Ok(Who { route, ..who }),
        None => fault(format!("no path meets exactly the rules {rules:?}")),
    }
}

/// Subject and rest of `weir:2:{SUBJECT}:RULE:KINDS:COUNTER`: the subject is `u:USER`, `a:ADDRESS` or
/// `g:RULE`.
fn parts(history: &History, key: KeyId) -> Checked<(&str, &str)> {
    let text = std::str::from_utf8(history.bytes(key)).unwrap_or_default();
    let parts = text
        .strip_prefix("weir:2:{")
        .and_then(|rest| rest.split_once("}:"));
    match parts {
        Some(parts) => Ok(parts),
        None => fault(format!("not a key of Weir: {text}")),
    }
}

fn told(operation: &Operation) -> Told {
    let limits = || operation.limits.iter().zip(&operation.told.limits);
    let passed = operation.told.verdict == Verdict::Passed;
    let failing = || limits().filter(|(_, reading)| reading.retry != Retry::Now);
    let shown = match passed {
        true => limits().min_by_key(|(_, reading)| reading.remaining),
        false => failing().next(),
    };
    let longest = failing().filter_map(|(_, reading)| match reading.retry {
        Retry::After(wait) => Some(wait.ceil_seconds()),
        Retry::Now | Retry::Unknown | Retry::Never => None,
    });
    Told {
        status: if passed { 200 } else { 429 },
        limit: shown.map(|((_, quota, _), _)| quota.limit()),
        remaining: shown.map(|(_, reading)| u64::try_from(reading.remaining).unwrap_or(0)),
        reset_seconds: shown.map(|(_, reading)| reading.reset.ceil_seconds()),
        retry_after_seconds: longest.max().filter(|_| !passed),
    }
}

// === impl Limits ===

impl Limits {
    fn learn(&mut self, history: &History, who: &Who, operation: &Operation) {
        self.of.entry(who.sort()).or_insert_with(|| {
            let limits = operation.limits.iter();
            let limits = limits.filter_map(|(key, quota, _)| {
                let (subject, rest) = parts(history, *key).ok()?;
                Some(Limit {
                    subject: subject.to_owned(),
                    rest: rest.to_owned(),
                    quota: *quota,
                })
            });
            limits.collect()
        });
    }

    fn check(&self, history: &History, ledger: &Ledger, refusal: &Refusal) -> Checked<()> {
        let Refusal {
            who,
            asked,
            answered,
        } = refusal;
        let Some(limits) = self.of.get(&who.sort()) else {
            return fault(format!("refused, though Redis was never asked: {who:?}"));
        };
        let own = |limit: &Limit| {
            let subject = match (limit.subject.split_once(':'), who.user, who.address) {
                (Some(("u", _)), Some(user), _) => format!("u:user{user}"),
                (Some(("a", _)), _, Some(address)) => format!("a:{address}"),
                _ => limit.subject.clone(),
            };
            // A key that no call named is one that nothing was taken from.
            let key = history.find(&format!("weir:2:{{{subject}}}:{}", limit.rest))?;
            Some((key, limit.quota))
        };
        let limits: Vec<(KeyId, Quota)> = limits.iter().filter_map(own).collect();
        let from = StoreInstant(asked.0.saturating_sub(ROUNDING));
        let full = |(key, quota): &(KeyId, Quota)| ledger.was_full(*key, quota, from, *answered);
        if limits.iter().any(full) {
            return Ok(());
        }
        let (asked, answered) = (stamp(*asked), stamp(*answered));
        let mut text =
            format!("refused between {asked} and {answered}, though every limit had room: {who:?}");
        for limit in limits {
            let place = history.place(limit, refusal.asked);
            let taken = ledger.describe(limit.0, &limit.1, refusal.asked);
            text += &format!("\n  {place}\n    {taken}");
        }
        fault(text)
    }
}

impl Who {
    fn sort(&self) -> Sort {
        Sort {
            route: self.route,
            tier: self.user.map(|user| user % 2),
            is_first_address: self.address == Some([127, 0, 0, 1].into()),
        }
    }
}

// === impl Client ===

impl Caller for Client<'_> {
    fn from(&self) -> Option<IpAddr> {
        Some(self.address)
    }

    fn ask(&mut self, request: &mut Request) -> ControlFlow<()> {
        let take = |left: u64| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            return ControlFlow::Break(());
        }
        let route = self.random.route();
        // One in sixteen does not say who it is.
        let user = (self.random.below(16) > 0).then(|| self.random.user());
        request.begin("GET", ROUTES[route].path);
        if let Some(user) = user {
            request.header("x-user-id", format!("user{user}"));
            if user % 2 == 1 {
                request.header("x-user-tier", "premium");
            }
        }
        self.who = match route {
            TICKET => Who {
                route,
                ..Who::default()
            },
            _ => Who {
                route,
                user,
                address: Some(self.address),
            },
        };
        self.asked = now();
        ControlFlow::Continue(())
    }

    fn hear(&mut self, answer: &Answer<'_>) {
        if answer.header("x-weir-degraded").is_some() || answer.status == 503 {
            self.heard.degraded += 1;
            return;
        }
        if answer.status == 429 {
            self.heard.refusals.push(Refusal {
                who: self.who.clone(),
                asked: self.asked,
                answered: now(),
            });
        }
        let told = Told {
            status: answer.status,
            limit: answer.number("x-ratelimit-limit"),
            remaining: answer.number("x-ratelimit-remaining"),
            reset_seconds: answer.number("x-ratelimit-reset"),
            retry_after_seconds: answer.number("retry-after"),
        };
        *self.heard.told.entry((self.who.clone(), told)).or_default() += 1;
    }
}

fn now() -> StoreInstant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    StoreInstant(since.map_or(0, |since| since.as_micros() as u64))
}

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn route(&mut self) -> usize {
        let mut at = self.below(100);
        let found = ROUTES.iter().position(|route| {
            let here = at < route.percent;
            at = at.saturating_sub(route.percent);
            here
        });
        found.unwrap_or(TICKET)
    }

    /// The logarithm is uniform: the nth user calls about 1/n times as often as the first.
    fn user(&mut self) -> u64 {
        let fraction = self.below(1 << 53) as f64 / (1u64 << 53) as f64;
        (USERS as f64).powf(fraction) as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(route: usize, answers: &[(u16, u64, u64)]) -> Tally {
        let answer = |&(status, remaining, times): &(u16, u64, u64)| {
            let who = Who {
                route,
                ..Who::default()
            };
            let told = Told {
                status,
                limit: Some(5),
                remaining: Some(remaining),
                reset_seconds: Some(1),
                retry_after_seconds: None,
            };
            ((who, told), times)
        };
        answers.iter().map(answer).collect()
    }

    #[test]
    fn an_answer_that_redis_did_not_give_is_found() {
        let decided = tally(0, &[(200, 1, 2), (429, 0, 1)]);
        for (heard, degraded, from_memory) in [
            (tally(0, &[(200, 1, 2), (429, 0, 1)]), 0, Some(0)),
            (tally(0, &[(200, 1, 2), (429, 0, 4)]), 0, Some(3)),
            (tally(0, &[(200, 1, 3), (429, 0, 1)]), 0, None),
            (tally(0, &[(200, 0, 1), (200, 1, 2), (429, 0, 1)]), 0, None),
            (tally(0, &[(200, 1, 2)]), 0, None),
            (tally(0, &[(200, 1, 2)]), 1, Some(0)),
        ] {
            let heard = Heard {
                told: heard,
                degraded,
                ..Heard::default()
            };
            assert_eq!(agree(&decided, &heard).ok(), from_memory, "{heard:?}");
        }
    }

    #[test]
    fn a_ticket_that_is_handed_out_twice_or_never_is_found() {
        for (answers, complete) in [
            (&[(200, 4, 1), (200, 3, 1), (200, 2, 1)][..], true),
            (&[(200, 4, 1), (200, 3, 2)], false),
            (&[(200, 4, 1), (200, 2, 1)], false),
        ] {
            let heard = Heard {
                told: tally(TICKET, answers),
                ..Heard::default()
            };
            assert_eq!(tickets(&heard).is_ok(), complete);
        }
    }
}
