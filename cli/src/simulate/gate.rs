//! A gateway of one worker whose Redis is in memory and never fails. It decides as a gateway does,
//! because the core does it: who is calling, which rules are for them, what is taken, what is answered.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::{Result, anyhow};
use hashbrown::HashMap;
use weir_core::codec::json::{At, Json};
use weir_core::codec::namespace::Namespace;
use weir_core::decide::answer::Headers;
use weir_core::decide::decision::Outcome as Decided;
use weir_core::decide::limiter::{self, Action, Facts, Memory, Pending, Step};
use weir_core::live::snapshot::PolicySnapshot;
use weir_core::policy::Policy;
use weir_core::policy::ids::LimitId;
use weir_core::policy::tariff::Tariff;
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::Quota;
use weir_core::quota::model::Counters;
use weir_core::request::identity::Sources;
use weir_core::request::subject::Subject;
use weir_core::store::check::ShardRequest;
use weir_core::store::config::StoreConfig;
use weir_core::store::fan_in::Outcome;
use weir_core::store::slot::Topology;
use weir_core::time::{StoreInstant, WallTime, WorkerInstant};

use crate::log::{Request, Slot};

/// What is believed of callers, in place of what a gateway would be told.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As the filter's configuration has it, where the policy stands in one.
    pub identity: Option<String>,
    /// The tier of whoever has an id and no tier.
    pub tier: Option<String>,
    /// How many proxies stand before the gateway, and so behind the client in `x-forwarded-for`.
    pub trusted_hops: usize,
}

pub struct Gate {
    snapshot: Rc<PolicySnapshot>,
    told: Rc<Told>,
    sources: Sources,
    memory: Memory,
    counters: Counters<u32>,
    keys: Keys,
    /// By where a limit's terms are, which checks share with it.
    limits: HashMap<usize, LimitId>,
    /// Of the last request: each check that it made.
    taken: Vec<Taken>,
}

/// What a line of a log is read by.
struct Told {
    names: Names,
    caller: Caller,
}

/// A request as it comes to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The client's.
    pub address: &'a [u8],
    /// In µs since the Unix epoch.
    pub time: u64,
}

/// The headers that a log's values stand for.
struct Names {
    user: String,
    tier: String,
    api_key: String,
}

/// One limit that a request was held against.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub limit: LimitId,
    pub key: u32,
    pub cost: Cost,
}

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub what: What,
    /// None where no limit was asked about.
    pub subject: Option<Subject>,
    /// The limit that refused it.
    pub refused_by: Option<LimitId>,
    /// In seconds, as a refusal tells it.
    pub retry_after: Option<u64>,
    /// Those on trial that would have.
    pub would_refuse: Vec<LimitId>,
    pub is_tier_unknown: bool,
    /// Its cost is told by a header of the response, which is not in the log.
    pub lacks_cost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Decided(Decided),
    /// 400: two of a header, or a cost that is none.
    Bad,
    /// One of Weir's own paths.
    Own,
    /// The log does not tell who called.
    Nobody,
}

/// The counters' names, each with a number.
#[derive(Default)]
pub struct Keys {
    numbers: HashMap<Box<[u8]>, u32>,
}

/// Where a request came from, and when.
struct Logged {
    address: Vec<u8>,
    time: WallTime,
}

impl Facts for Logged {
    fn source_address(&self) -> Vec<u8> {
        self.address.clone()
    }

    fn time_of_day(&self) -> WallTime {
        self.time
    }

    fn direct_peer(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn claim(&self, _: &[String]) -> Option<Vec<u8>> {
        None
    }
}

impl Gate {
    pub fn try_new(policy: Policy, caller: &Caller) -> Result<Gate> {
        let names = Names::of(caller.identity.as_deref())?;
        // What a log has, somebody believed already.
        let identity = serde_json::json!({
            "trust": "always", "user": names.user, "tier": names.tier, "api_key": names.api_key,
        });
        let identity = identity.to_string();
        let identity = Json::parse(&identity, "identity").map_err(|error| anyhow!("{error}"))?;
        let sources = Sources::try_new(&At::new(&identity, "identity"))
            .map_err(|error| anyhow!("{error}"))?;
        let limits = policy.limits();
        let limits = limits.map(|(id, limit)| (std::ptr::from_ref(&*limit.terms).addr(), id));
        Ok(Gate {
            limits: limits.collect(),
            snapshot: Rc::new(PolicySnapshot::configured(
                Rc::new(policy),
                Namespace::default(),
            )),
            told: Rc::new(Told {
                names,
                caller: caller.clone(),
            }),
            sources,
            memory: Memory::new(&StoreConfig::default()),
            counters: Counters::default(),
            keys: Keys::default(),
            taken: Vec::new(),
        })
    }

    pub fn policy(&self) -> &Policy {
        &self.snapshot.policy
    }

    /// The end of the limit's window at this moment, where windows do not slide.
    pub fn window(&self, limit: LimitId, now: StoreInstant) -> u64 {
        let limit = self.policy().limit(limit);
        limit.map_or(0, |limit| limit.terms.quota.period().end(now.as_millis()))
    }

    /// The headers that say who calls.
    pub fn id_headers(&self) -> [&str; 2] {
        [&self.told.names.user, &self.told.names.api_key]
    }

    pub fn tier_header(&self) -> &str {
        &self.told.names.tier
    }

    pub fn tells_tier(&self, tells: impl Fn(&Slot) -> bool) -> bool {
        tells(&Slot::Tier) || tells(&Slot::Request(self.told.names.tier.clone()))
    }

    /// What the last request was held against.
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    pub fn key_names(&self) -> Vec<&[u8]> {
        let mut names = vec![&[][..]; self.keys.numbers.len()];
        for (name, number) in &self.keys.numbers {
            names[*number as usize] = name;
        }
        names
    }

    /// Decides on a request of the log as if it came at its time.
    pub fn decide(&mut self, request: &Request<'_>) -> Verdict {
        let told = self.told.clone();
        let seen = Seen::of(request, &told.names, &told.caller);
        if seen.is_nobody() {
            self.taken.clear();
            return Verdict::of(What::Nobody, None);
        }
        let arrival = Arrival {
            headers: &seen.headers,
            address: seen.address,
            time: request.time,
        };
        let status = match request.status {
            0 => String::new(),
            status => status.to_string(),
        };
        self.receive(&arrival, || {
            let said = request.values().filter_map(|(slot, value)| match slot {
                Slot::Response(name) => Some((name.as_bytes(), value)),
                _ => None,
            });
            let status = (&b":status"[..], status.as_bytes());
            said.chain((request.status != 0).then_some(status))
                .collect()
        })
    }

    /// Decides on a request; `said` are the headers that the upstream answers with.
    pub fn receive<'a>(
        &mut self,
        arrival: &Arrival<'a>,
        said: impl FnOnce() -> Vec<(&'a [u8], &'a [u8])>,
    ) -> Verdict {
        self.taken.clear();
        let now = StoreInstant(arrival.time);
        let facts = Logged {
            address: arrival.address.to_vec(),
            time: WallTime(arrival.time),
        };
        let admission = limiter::admit(
            &self.snapshot,
            &self.sources,
            arrival.headers.iter().copied(),
            &facts,
        );
        let mut verdict = match admission.step {
            Step::Ask(pending) => self.ask(pending, said, now),
            Step::Respond(..) => Verdict::of(What::Bad, None),
            Step::Report(_) | Step::Page(_) => Verdict::of(What::Own, None),
            step => {
                let subject = step.listed().map(|listed| listed.caller.subject.clone());
                let outcome = step.outcome().unwrap_or(Decided::Unmatched);
                Verdict::of(What::Decided(outcome), subject)
            }
        };
        verdict.is_tier_unknown = admission.is_tier_unknown;
        verdict
    }

    fn ask<'a>(
        &mut self,
        mut pending: Box<Pending>,
        said: impl FnOnce() -> Vec<(&'a [u8], &'a [u8])>,
        now: StoreInstant,
    ) -> Verdict {
        let Some(subject) = pending.subject().cloned() else {
            return Verdict::of(What::Own, None);
        };
        for (place, part) in pending.parts(Topology::Single).iter().enumerate() {
            let outcome = self.run(part, now, Whose::Request);
            pending.receive(place, &outcome);
        }
        let decision = pending.conclude(&mut self.memory, || WorkerInstant(now.0));
        for part in &decision.refunds {
            self.run(part, now, Whose::Afterwards);
        }
        let retry_after = match &decision.action {
            Action::Respond(answer, _) => retry_after(&answer.headers),
            Action::Pass(_) => None,
        };
        let lacks_cost = Cell::new(false);
        if let (Action::Pass(mut headers), Some(mut settlement)) =
            (decision.action, decision.settlement)
        {
            let said = said();
            let cost = |tariff: &Tariff| {
                let said = said.iter().copied();
                if !tariff.is_told_by(said.clone()) {
                    lacks_cost.set(true);
                }
                Some(tariff.at_response(said).unwrap_or(tariff.without_more()))
            };
            for part in self
                .memory
                .settle(&mut settlement, cost, &mut headers, || WorkerInstant(now.0))
            {
                self.run(&part, now, Whose::Afterwards);
            }
        }
        let lacks_cost = lacks_cost.get();
        let mut verdict = Verdict::of(What::Decided(Decided::Unmatched), Some(subject));
        verdict.lacks_cost = lacks_cost;
        verdict.retry_after = retry_after;
        if let Some(record) = decision.record {
            verdict.what = What::Decided(record.outcome);
            if record.outcome == Decided::Denied {
                verdict.refused_by = record.shown.map(|shown| shown.limit);
            }
            verdict.would_refuse = record.shadow_denied;
        }
        verdict
    }

    /// Does what a part asks, and keeps what it was held against where it is the request's own.
    fn run(&mut self, part: &ShardRequest, now: StoreInstant, whose: Whose) -> Outcome {
        let mut told = Vec::new();
        for (operation, checks) in part.check_request.operations() {
            let mut limits: Vec<(u32, Quota, Cost)> = Vec::with_capacity(checks.len());
            for check in checks {
                let (key, quota) = (self.keys.number(&check.key), check.terms.quota);
                limits.push((key, quota, check.cost));
                let limit = self.limits.get(&std::ptr::from_ref(&*check.terms).addr());
                if let (Whose::Request, Some(&limit)) = (whose, limit) {
                    self.taken.push(Taken {
                        limit,
                        key,
                        cost: check.cost,
                    });
                }
            }
            told.push(self.counters.run(operation.kind, &limits, now));
        }
        Outcome::Answered {
            now,
            asked: WorkerInstant(now.0),
            told,
        }
    }
}

/// What is asked of the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// What the request is held against.
    Request,
    /// What is given back or charged for it afterwards.
    Afterwards,
}

impl Keys {
    fn number(&mut self, key: &[u8]) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry_ref(key).or_insert(next)
    }
}

impl Names {
    fn of(identity: Option<&str>) -> Result<Names> {
        let identity: serde_json::Value = match identity {
            Some(identity) => serde_json::from_str(identity)?,
            None => serde_json::Value::Null,
        };
        let header = |field: &str, usual: &str| {
            let source = &identity[field];
            let name = source.as_str().or_else(|| source["header"].as_str());
            name.unwrap_or(usual).to_ascii_lowercase()
        };
        Ok(Names {
            user: header("user", "x-user-id"),
            tier: header("tier", "x-user-tier"),
            api_key: header("api_key", "x-api-key"),
        })
    }
}

/// A line of the log as the head of a request.
struct Seen<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
    address: &'a [u8],
    has_id: bool,
}

impl<'a> Seen<'a> {
    fn of(request: &Request<'a>, names: &'a Names, caller: &'a Caller) -> Seen<'a> {
        let mut seen = Seen {
            headers: Vec::with_capacity(8),
            address: b"",
            has_id: false,
        };
        let (mut forwarded, mut decision, mut has_tier) = (&b""[..], &b""[..], false);
        let mut line: (&[u8], &[u8]) = (b"", b"");
        let (mut has_path, mut has_method) = (false, false);
        for (slot, value) in request.values() {
            match slot {
                Slot::Path => {
                    has_path = true;
                    seen.headers.push((b":path", value));
                }
                Slot::Method => {
                    has_method = true;
                    seen.headers.push((b":method", value));
                }
                Slot::RequestLine => line = request_line(value),
                Slot::Authority => seen.headers.push((b":authority", value)),
                Slot::Address => seen.address = value,
                Slot::Forwarded => forwarded = value,
                Slot::Decision => decision = value,
                Slot::User => seen.id(names.user.as_bytes(), value),
                Slot::ApiKey => seen.id(names.api_key.as_bytes(), value),
                Slot::Tier => {
                    has_tier = true;
                    seen.headers.push((names.tier.as_bytes(), value));
                }
                Slot::Request(name) => {
                    has_tier |= *name == names.tier;
                    seen.has_id |= *name == names.user || *name == names.api_key;
                    seen.headers.push((name.as_bytes(), value));
                }
                Slot::Details | Slot::Response(_) => {}
            }
        }
        if !has_path && !line.1.is_empty() {
            seen.headers.push((b":path", line.1));
        }
        if !has_method && !line.0.is_empty() {
            seen.headers.push((b":method", line.0));
        }
        if seen.address.is_empty() {
            seen.address = hop(forwarded, caller.trusted_hops);
        }
        if !seen.has_id
            && let Some(subject) = subject(decision)
        {
            match subject {
                (b"user", hash) => seen.id(names.user.as_bytes(), hash),
                (b"api_key", hash) => seen.id(names.api_key.as_bytes(), hash),
                _ => {}
            }
        }
        if let (true, false, Some(tier)) = (seen.has_id, has_tier, &caller.tier) {
            seen.headers.push((names.tier.as_bytes(), tier.as_bytes()));
        }
        seen
    }

    fn id(&mut self, header: &'a [u8], value: &'a [u8]) {
        self.has_id = true;
        self.headers.push((header, value));
    }

    fn is_nobody(&self) -> bool {
        !self.has_id && (self.address.is_empty() || address(self.address).is_none())
    }
}

fn address(text: &[u8]) -> Option<IpAddr> {
    weir_core::request::address::parse_peer(text)
}

/// `GET /path HTTP/1.1`
fn request_line(line: &[u8]) -> (&[u8], &[u8]) {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    (words.next().unwrap_or(b""), words.next().unwrap_or(b""))
}

/// The last address that a proxy wrote, or one so many before it.
fn hop(forwarded: &[u8], trusted: usize) -> &[u8] {
    let mut hops = forwarded.rsplit(|byte| *byte == b',');
    hops.nth(trusted).unwrap_or(b"").trim_ascii()
}

/// Kind and hash of the `subject=` in Weir's own line: enough to count by.
fn subject(decision: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut words = decision.split(|byte| *byte == b' ');
    let subject = words.find_map(|word| word.strip_prefix(b"subject="))?;
    let colon = subject.iter().position(|byte| *byte == b':')?;
    Some((&subject[..colon], &subject[colon + 1..]))
}

/// Whether the log says that Weir, or whoever limited then, refused the request; none where it does not
/// say.
pub fn was_refused(request: &Request<'_>) -> Option<bool> {
    for (slot, value) in request.values() {
        match slot {
            Slot::Decision => return Some(value.starts_with(b"outcome=denied")),
            Slot::Details if value.starts_with(b"weir_denied") => return Some(true),
            _ => {}
        }
    }
    match request.status {
        0 => None,
        status => Some(status == 429),
    }
}

fn retry_after(headers: &Headers) -> Option<u64> {
    let mut headers = headers.iter();
    let (_, seconds) = headers.find(|(name, _)| name == "retry-after")?;
    seconds.parse().ok()
}

impl Verdict {
    fn of(what: What, subject: Option<Subject>) -> Verdict {
        Verdict {
            what,
            subject,
            refused_by: None,
            retry_after: None,
            would_refuse: Vec::new(),
            is_tier_unknown: false,
            lacks_cost: false,
        }
    }

    pub fn is_refused(&self) -> bool {
        self.what == What::Decided(Decided::Denied)
    }
}
