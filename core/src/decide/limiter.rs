//! The limiter's side of one request, from its head to what is to be done with it. It puts the other
//! modules together; what it needs of the world it asks of [`Facts`], and only where it matters.

mod condition;
mod delayed;
mod explanation;
mod head;
mod keyed;
mod leased;
mod redirect;
mod settlement;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::codec::secret::Fingerprint;
use crate::decide::answer::{self, Answer, Header, Headers, Met, Protocol};
use crate::decide::decision::{self, Record};
use crate::decide::shadow::{ShadowRule, ShadowVerdict};
use crate::decide::status::{self, Inquiry};
use crate::decide::verdict::{self, LimitStatus, Verdict};
use crate::live::snapshot::{Generation, PolicySnapshot};
use crate::local::denial_cache::Denials;
use crate::local::fallback::{self, Local};
use crate::local::guesses::{Attempt, Guesses};
use crate::local::holds::Holds;
use crate::local::lease::{Leases, Spent};
use crate::local::timer_queue::{Delays, StreamId};
use crate::policy::cost_rule::{CostRule, Said, Unreadable};
use crate::policy::ids::{LimitId, Scope, VariantId};
use crate::policy::lists::{Entry, Listed, Treatment};
use crate::policy::rollout::Counting;
use crate::policy::{OperatorHeader, Policy, Rule, Target, key};
use crate::quota::cost::Cost;
use crate::quota::operation::{self, Kind, Reading};
use crate::request::identity::{self, Belief, Caller, Credentials, Sources};
use crate::request::path;
use crate::request::subject::Subject;
use crate::store::check::{Check, CheckRequest, ShardRequest};
use crate::store::clock::{StoreClock, StoreTime};
use crate::store::config::StoreConfig;
use crate::store::fan_in::{CheckReply, FanIn, Outcome};
use crate::store::slot::Topology;
use crate::time::{StoreInstant, WallTime, WorkerInstant};

pub use delayed::DelayedRequest;
pub use explanation::{Asked, Explanation, Standing, explain};
use head::{Head, KnownFacts};
use keyed::Keying;
pub use redirect::{Counted, Redirected, Redirects};
use settlement::PendingCost;
pub use settlement::Settlement;

/// What the proxy knows of a request besides its headers.
pub trait Facts {
    /// The client's address as the proxy vouches for it, with or without a port.
    fn source_address(&self) -> Vec<u8>;
    /// The TCP peer's address, from this filter state; after a space there may stand what
    /// [`Facts::source_address`] would tell.
    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>>;
    /// A verified claim, by its property path.
    fn claim(&self, path: &[String]) -> Option<Vec<u8>>;
    /// The time of day. It is asked where something of the policy ends; to whom it is nothing, nothing
    /// has ended.
    fn time_of_day(&self) -> WallTime {
        WallTime(0)
    }
    /// The limits that the request was counted for before the proxy redirected it. It is asked where
    /// the request says that it was redirected, which anybody can say.
    fn counted(&self, _edition: &Rc<PolicySnapshot>, _subject: &Subject) -> Vec<LimitId> {
        Vec::new()
    }
}

/// The first word on a request.
#[derive(Debug)]
pub struct Admission {
    /// What must not reach the upstream: identity headers that were not believed, and the operators'
    /// secret, which is for Weir alone.
    pub remove: Vec<String>,
    pub step: Step,
    pub protocol: Protocol,
    /// Somebody came with the operators' secret or for it, and the step is what becomes of it if it may
    /// be looked at: [`Guesses::judge`](crate::local::guesses::Guesses::judge).
    pub attempt: Option<Attempt>,
    /// Whether the policy names tiers, and the caller's is none of them.
    pub is_tier_unknown: bool,
}

#[derive(Debug)]
pub enum Step {
    /// No limit is for this request.
    Pass,
    /// No limit is for this caller.
    Exempt(Listed),
    /// Nothing is for this caller.
    Block(Answer, Protocol, Listed),
    /// Somebody has to decide: the worker from memory ([`Pending::recall`]), or the store.
    Ask(Box<Pending>),
    Respond(Answer, Protocol),
    /// An operator asks about the gateway, which knows that without the store.
    Report(Protocol),
    /// Somebody wants the live page.
    Page(Protocol),
}

/// A request that waits for the store. It is large and goes through many hands: in a box, where moving
/// it costs nothing.
#[derive(Debug)]
pub struct Pending {
    /// What it was admitted under, and is concluded under: its limits are this policy's.
    snapshot: Rc<PolicySnapshot>,
    protocol: Protocol,
    wants: Wants,
    fan_in: FanIn,
}

#[derive(Debug)]
enum Wants {
    Passage(Passage),
    Status(Inquiry),
}

/// Who wants to pass, and the limits that are for them, in reporting order. Those that are enforced
/// are the check request's first operation, if there are any; each trial is one of those after it.
#[derive(Debug)]
struct Passage {
    subject: Subject,
    limits: Vec<LimitId>,
    shadows: Vec<ShadowRule>,
    /// The rules whose requests are charged for by what comes of them.
    pending_costs: Vec<PendingCost>,
    /// Those that the limits are of, where rules take part in experiments.
    variants: Vec<VariantId>,
    /// What came out of leases, by the places of its limits.
    spent: Vec<(usize, Spent)>,
}

/// What one worker remembers between requests.
#[derive(Debug)]
pub struct Memory {
    topology: Topology,
    generation: Generation,
    local: Local,
    denials: Denials,
    holds: Holds,
    pub leases: Leases,
    pub delays: Delays,
    pub guesses: Guesses,
    /// Requests that have ended while the store is asked about them.
    abandoned: HashMap<StreamId, Box<Pending>>,
    store_clock: StoreClock,
    store_time: StoreTime,
}

/// The last word on a request, and what follows from it.
#[derive(Debug)]
pub struct Decision {
    pub action: Action,
    /// To be asked without waiting: a request that does not pass consumes nothing.
    pub refunds: Vec<ShardRequest>,
    /// What operators are told of it; nothing of a status call.
    pub record: Option<Record>,
    /// It passes, but has to wait before it does.
    pub delayed: Option<Box<DelayedRequest>>,
    /// It passes, and what it costs is known later: [`Memory::settle`].
    pub settlement: Option<Settlement>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on; its response will carry these headers.
    Pass(Headers),
    Respond(Answer, Protocol),
}

/// Decides on the head of a request.
pub fn admit<'a>(
    snapshot: &Rc<PolicySnapshot>,
    sources: &Sources,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    facts: &impl Facts,
) -> Admission {
    let policy = &snapshot.policy;
    let mut head = Head::read(sources, policy, headers);
    let facts = &KnownFacts::new(facts, sources, head.peer);
    let mut remove = Vec::new();
    if head.credentials.any() || !head.costs.is_empty() {
        match sources.trust.belief(|| facts.direct_peer()) {
            Belief::Believed => {
                if let Some(header) = head.repeated.and_then(|field| sources.header(field)) {
                    let answer = answer::repeated_header(header);
                    return Admission {
                        remove: operators_header(policy, &head).collect(),
                        step: Step::Respond(answer, head.protocol),
                        protocol: head.protocol,
                        attempt: None,
                        is_tier_unknown: false,
                    };
                }
            }
            Belief::Ignored => {
                let sent = head
                    .credentials
                    .present()
                    .filter_map(|field| sources.header(field))
                    .filter(|header| *header != identity::AUTHORIZATION);
                remove = sent.map(str::to_string).collect();
                head.credentials = Credentials::default();
                // Not removed: it is no identity, and may mean something to the upstream.
                head.costs.clear();
            }
        }
    }
    remove.extend(operators_header(policy, &head));
    let path = path::normalise(head.target);
    let mut attempt = None;
    let (step, is_tier_unknown) = match Service::at(head.method, &path) {
        Some(service) => {
            let step = service_step(service, snapshot, sources, &head, facts, &mut attempt);
            (step, false)
        }
        None => passage_step(snapshot, sources, &path, &head, facts),
    };
    Admission {
        remove,
        step,
        protocol: head.protocol,
        attempt,
        is_tier_unknown,
    }
}

/// Removed whatever it holds, and so however often it is there. If only the secret were removed,
/// an upstream that shows what it got would tell who guesses when they are right.
fn operators_header(policy: &Policy, head: &Head<'_>) -> impl Iterator<Item = String> {
    let header = policy.status.operator_header.as_ref();
    let is_sent = head.operator_secret != Said::Nothing;
    header
        .filter(|_| is_sent)
        .map(|header| header.name.clone())
        .into_iter()
}

/// What Weir answers itself.
#[derive(Clone, Copy, Debug)]
enum Service {
    Status,
    Report,
    Page,
}

impl Service {
    fn at(method: &[u8], path: &[u8]) -> Option<Service> {
        match (method, path) {
            (status::METHOD, status::PATH) => Some(Service::Status),
            (status::METHOD, status::REPORT_PATH) => Some(Service::Report),
            (status::METHOD, status::PAGE_PATH) => Some(Service::Page),
            _ => None,
        }
    }
}

fn service_step(
    service: Service,
    snapshot: &Rc<PolicySnapshot>,
    sources: &Sources,
    head: &Head<'_>,
    facts: &KnownFacts<'_, impl Facts>,
    attempt: &mut Option<Attempt>,
) -> Step {
    let Recognised {
        caller,
        treatment,
        mut is_operator,
    } = recognise(snapshot, sources, head.credentials, facts);
    let treatment = match treatment {
        Treatment::Blocked(entry) => return block(caller, entry, head.protocol),
        Treatment::Limited | Treatment::Exempt(_) => treatment,
    };
    if head.protocol == Protocol::Grpc {
        return Step::Respond(answer::not_in_grpc(), head.protocol);
    }
    let status = &snapshot.policy.status;
    if let Service::Page = service {
        return Step::Page(head.protocol);
    }
    if let Some(OperatorHeader { name, secret, .. }) = &status.operator_header
        && !is_operator
    {
        match head.operator_secret {
            Said::Nothing | Said::Once([]) => {}
            Said::Often => {
                return Step::Respond(answer::repeated_header(name), head.protocol);
            }
            Said::Once(value) => {
                let given = Fingerprint::of(value);
                is_operator = secret.is(&given);
                *attempt = Some(Attempt {
                    client: caller.client,
                    secret: given,
                    is_right: is_operator,
                });
                if !is_operator {
                    return Step::Respond(answer::wrong_secret(name), head.protocol);
                }
            }
        }
    }
    match service {
        Service::Status => {
            let about = (caller, treatment);
            status_step(snapshot, sources, (head, facts), about, is_operator)
        }
        Service::Report if is_operator => Step::Report(head.protocol),
        Service::Report | Service::Page => Step::Respond(answer::operators_only(), head.protocol),
    }
}

fn status_step(
    snapshot: &Rc<PolicySnapshot>,
    sources: &Sources,
    (head, facts): (&Head<'_>, &KnownFacts<'_, impl Facts>),
    about: (Caller, Treatment),
    is_operator: bool,
) -> Step {
    let query = head
        .target
        .splitn(2, |byte| *byte == b'?')
        .nth(1)
        .unwrap_or_default();
    // A client does not send what stands after a `#`, and Envoy may pass it on.
    let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
    let now = || facts.time_of_day();
    match Inquiry::try_new((snapshot, sources), about, query, is_operator, now) {
        Ok((inquiry, check_request)) => ask(
            snapshot,
            check_request,
            head.protocol,
            Wants::Status(inquiry),
        ),
        Err(answer) => Step::Respond(answer, head.protocol),
    }
}

fn block(caller: Caller, entry: Entry, protocol: Protocol) -> Step {
    Step::Block(answer::blocked(), protocol, Listed::denied(caller, entry))
}

/// What becomes of a request for the upstream, and whether its caller's tier is unknown.
fn passage_step<'a>(
    snapshot: &'a Rc<PolicySnapshot>,
    sources: &'a Sources,
    path: &'a [u8],
    head: &'a Head<'a>,
    facts: &'a KnownFacts<'a, impl Facts>,
) -> (Step, bool) {
    let policy = &snapshot.policy;
    let target = Target {
        path,
        method: head.method,
        authority: head.authority,
    };
    let mut rules = policy.matching(target).peekable();
    // Who is calling is asked of the proxy only where a rule or a list wants to know.
    if rules.peek().is_none() && !policy.exemptions.block() {
        return (Step::Pass, false);
    }
    let Recognised {
        caller, treatment, ..
    } = recognise(snapshot, sources, head.credentials, facts);
    let is_tier_unknown = !policy.knows_tier(&caller.tier);
    let step = match treatment {
        Treatment::Limited => {
            let counted = match head.is_redirected {
                true => facts.counted(snapshot, &caller.subject),
                false => Vec::new(),
            };
            let asked = Keying::new(snapshot, sources, head, facts, path);
            limited_step(snapshot, rules, caller, &asked, &counted)
        }
        Treatment::Exempt(entry) => Step::Exempt(Listed::allowed(caller, entry)),
        Treatment::Blocked(entry) => block(caller, entry, head.protocol),
    };
    (step, is_tier_unknown)
}

/// `counted` are the limits that the request was counted for before the proxy redirected it.
fn limited_step<'a>(
    snapshot: &'a Rc<PolicySnapshot>,
    rules: impl Iterator<Item = &'a Rule>,
    caller: Caller,
    asked: &Keying<'_, impl Facts>,
    counted: &[LimitId],
) -> Step {
    let (head, facts) = (asked.head(), asked.facts());
    let policy = &snapshot.policy;
    let is_counted = |rule: &Rule| {
        let arm = policy.arm(rule, &caller.subject);
        let own = rule.limits_for(arm, &caller.tier, caller.address);
        let mut own = own.chain(policy.keyed(rule, arm));
        !counted.is_empty() && own.any(|limit| counted.contains(&limit))
    };
    let (mut limits, mut shadows, mut variants) = (Vec::new(), Vec::new(), Vec::new());
    // The counters of those that count by a key.
    let mut keys: Vec<(LimitId, Counting, Vec<u8>)> = Vec::new();
    // Of rules that do not cost the same each time.
    let (mut told, mut pending_costs): (Vec<(Range<usize>, Cost)>, Vec<PendingCost>) =
        (Vec::new(), Vec::new());
    let is_met =
        |rule: &Rule| rule.when().is_empty() || condition::all_hold(rule, head, facts, &caller);
    for rule in rules.filter(|rule| !is_counted(rule) && is_met(rule)) {
        let counting = rule.counting(&caller.subject);
        let cost = match rule.cost_rule() {
            CostRule::Fixed(_) | CostRule::Later(_) => None,
            CostRule::Request(meter) => match meter.read(head.cost(&meter.header)) {
                Ok(permits) => match Cost::try_new(permits) {
                    Some(cost) => Some(cost),
                    // What costs nothing needs no limit.
                    None => continue,
                },
                // A trial refuses nobody: what it cannot read costs the default.
                Err(Unreadable) if counting == Counting::Shadow => None,
                Err(Unreadable) => {
                    let answer = answer::unreadable_cost(&meter.header);
                    return Step::Respond(answer, head.protocol);
                }
            },
        };
        let arm = policy.arm(rule, &caller.subject);
        if let Some(arm) = arm
            && !variants.contains(&arm.id)
        {
            variants.push(arm.id);
        }
        let own = rule.limits_for(arm, &caller.tier, caller.address);
        let before = keys.len();
        for id in rule.keyed(arm) {
            match asked.meet(rule, *id, counting, &caller) {
                keyed::Met::Counted(id, key) => keys.push((id, counting, key)),
                keyed::Met::Skipped => {}
                keyed::Met::Lacking(part) => {
                    return Step::Respond(answer::lacking(&part), head.protocol);
                }
                keyed::Met::Denied => {
                    let entry = Entry::Override(rule.name().to_string());
                    return block(caller, entry, head.protocol);
                }
            }
        }
        let by_key = keys.iter().skip(before).map(|(id, ..)| *id);
        let own = own.chain(by_key);
        let (shadow, places) = match counting {
            Counting::Enforced => {
                let start = limits.len();
                limits.extend(own);
                told.extend(cost.map(|cost| (start..limits.len(), cost)));
                (None, start..limits.len())
            }
            Counting::Shadow => {
                let limits: Vec<LimitId> = own.collect();
                let places = 0..limits.len();
                if !limits.is_empty() {
                    shadows.push(ShadowRule { limits, cost });
                }
                (shadows.len().checked_sub(1), places)
            }
        };
        if let CostRule::Later(tariff) = rule.cost_rule()
            && !places.is_empty()
        {
            pending_costs.push(PendingCost {
                tariff: tariff.clone(),
                shadow,
                places,
            });
        }
    }
    let mut by_key = |id, counting| {
        let mut keys = keys.iter_mut();
        let own = keys.find(|(own, as_counted, _)| (*own, *as_counted) == (id, counting));
        own.map(|(_, _, key)| std::mem::take(key))
            .unwrap_or_default()
    };
    let mut check_request = CheckRequest::default();
    let mut take = |limits: &[LimitId], counting, told: &dyn Fn(usize) -> Option<Cost>| {
        let limits = limits.iter().enumerate();
        let limits = limits.filter_map(|(place, id)| Some((place, *id, policy.limit(*id)?)));
        let checks = limits.map(|(place, id, limit)| Check {
            key: match limit.scope {
                Scope::Key => by_key(id, counting),
                Scope::Global | Scope::User | Scope::Ip => key::of(
                    &snapshot.namespace,
                    limit,
                    counting,
                    &caller.subject,
                    caller.client,
                ),
            },
            terms: limit.terms.clone(),
            cost: told(place).unwrap_or(limit.cost),
        });
        check_request.ask(Kind::Take, checks);
    };
    if !limits.is_empty() {
        take(&limits, Counting::Enforced, &|place| {
            let own = told.iter().find(|(places, _)| places.contains(&place));
            own.map(|(_, cost)| *cost)
        });
    }
    for shadow in &shadows {
        take(&shadow.limits, Counting::Shadow, &|_| shadow.cost);
    }
    if limits.is_empty() && shadows.is_empty() {
        return Step::Pass;
    }
    let passage = Passage {
        subject: caller.subject,
        limits,
        shadows,
        pending_costs,
        variants,
        spent: Vec::new(),
    };
    ask(
        snapshot,
        check_request,
        head.protocol,
        Wants::Passage(passage),
    )
}

fn ask(
    snapshot: &Rc<PolicySnapshot>,
    check_request: CheckRequest,
    protocol: Protocol,
    wants: Wants,
) -> Step {
    Step::Ask(Box::new(Pending {
        snapshot: snapshot.clone(),
        protocol,
        wants,
        fan_in: FanIn::new(check_request),
    }))
}

impl Step {
    /// The list that somebody is on, and by which entry, where that decided.
    pub fn listed(&self) -> Option<&Listed> {
        match self {
            Step::Exempt(listed) | Step::Block(_, _, listed) => Some(listed),
            Step::Pass | Step::Ask(_) | Step::Respond(..) | Step::Report(_) | Step::Page(_) => None,
        }
    }

    /// What operators are told where nothing remains to be decided; nothing of a bad request, nor of
    /// a status call.
    pub fn outcome(&self) -> Option<decision::Outcome> {
        match self {
            Step::Pass => Some(decision::Outcome::Unmatched),
            Step::Exempt(_) => Some(decision::Outcome::Exempt),
            Step::Block(..) => Some(decision::Outcome::Blocked),
            Step::Ask(_) | Step::Respond(..) | Step::Report(_) | Step::Page(_) => None,
        }
    }
}

impl Memory {
    pub fn new(config: &StoreConfig) -> Memory {
        Memory {
            topology: config.topology,
            generation: Generation::default(),
            local: Local::new(config.local_share),
            denials: Denials::new(config.denial_cache),
            holds: Holds::default(),
            leases: Leases::new(config),
            delays: Delays::default(),
            guesses: Guesses::default(),
            abandoned: HashMap::new(),
            store_clock: StoreClock::default(),
            store_time: StoreTime::default(),
        }
    }

    /// What the store's clock read, by an answer that came now.
    pub fn replies(&mut self, answered: WorkerInstant, told: StoreInstant) {
        self.store_time.set(answered, told);
    }

    /// The time of day, as long as no answer has told what the store's clock reads.
    pub fn guess_time(&mut self, now: WorkerInstant, time: WallTime) {
        self.store_time.guess(now, time);
    }

    /// Another policy is in force: what was refused under the last one might pass under this one, and
    /// what was leased under it goes back. What is used stays used, as it does in the store.
    pub fn enter(&mut self, generation: Generation) {
        self.generation = generation;
        self.denials.forget();
        self.leases.revoke();
    }
}

impl Pending {
    /// The refusal of a request that is known to be out of quota. Of any other, what the worker has
    /// leased is spent, and the store will be asked about the rest.
    pub fn recall(&mut self, memory: &mut Memory, now: WorkerInstant) -> Option<Decision> {
        let Wants::Passage(passage) = &self.wants else {
            return None;
        };
        let checks = self.fan_in.check_request().checks();
        let is_leased = self.may_lease(memory);
        let Memory {
            denials, leases, ..
        } = memory;
        let names_all = self.snapshot.policy.answers.name_all();
        let mut told = Vec::new();
        let mut known = passage
            .limits
            .iter()
            .zip(checks)
            .filter_map(|(&limit, check)| {
                let reading = denials.recall(check, now)?;
                let is_covered = is_leased && leases.covers(check, now);
                (!is_covered).then_some(LimitStatus { limit, reading })
            })
            .inspect(|status| told.extend(names_all.then_some(*status)));
        if let Some(verdict) = verdict::refusal(&mut known) {
            return Some(self.end(verdict, decision::Source::Denials, &told, &[]));
        }
        if is_leased {
            let enforced = checks.iter().take(passage.limits.len()).enumerate();
            let spend = |(place, check)| Some((place, leases.spend(check, now)?));
            let spent = enforced.filter_map(spend).collect();
            if let Wants::Passage(passage) = &mut self.wants {
                passage.spent = spent;
            }
        }
        None
    }

    /// What it is decided under.
    pub fn snapshot(&self) -> &Rc<PolicySnapshot> {
        &self.snapshot
    }

    /// Who wants to pass; nobody where it is a status call.
    pub fn subject(&self) -> Option<&Subject> {
        match &self.wants {
            Wants::Passage(passage) => Some(&passage.subject),
            Wants::Status(_) => None,
        }
    }

    /// The limits that it met, in reporting order, each with what the store said is left of it; none
    /// where the store said nothing.
    pub fn met(&self) -> impl Iterator<Item = (LimitId, Option<i64>)> {
        let limits = match &self.wants {
            Wants::Passage(passage) => passage.limits.as_slice(),
            Wants::Status(_) => &[],
        };
        let replies = self.fan_in.operations().next();
        let replies = replies.map_or(&[][..], |(_, replies)| replies);
        limits.iter().enumerate().map(|(place, &limit)| {
            let left = match replies.get(place) {
                Some(CheckReply::Read(reading)) => Some(reading.remaining),
                Some(CheckReply::Unknown) | None => None,
            };
            (limit, left)
        })
    }

    /// The parts to ask the store about; the outcome of each goes to [`Pending::receive`].
    pub fn parts(&mut self, topology: Topology) -> Vec<ShardRequest> {
        let known: Vec<(usize, Reading)> = match &self.wants {
            Wants::Passage(passage) => passage.known().collect(),
            Wants::Status(_) => Vec::new(),
        };
        self.fan_in.split(topology, &known)
    }

    /// Takes the outcome of a part; whether all are in, and the request can be concluded.
    pub fn receive(&mut self, part: usize, outcome: &Outcome) -> bool {
        self.fan_in.receive(part, outcome)
    }

    /// What the outcomes mean for the request. `now` is read only where the worker's own
    /// memory decides.
    pub fn conclude(&self, memory: &mut Memory, now: impl FnOnce() -> WorkerInstant) -> Decision {
        match &self.wants {
            Wants::Status(inquiry) => Decision {
                action: self.respond(inquiry.answer(&self.snapshot, &self.fan_in)),
                refunds: Vec::new(),
                record: None,
                delayed: None,
                settlement: None,
            },
            Wants::Passage(passage) => self.conclude_passage(passage, memory, now),
        }
    }

    fn conclude_passage(
        &self,
        passage: &Passage,
        memory: &mut Memory,
        now: impl FnOnce() -> WorkerInstant,
    ) -> Decision {
        let checks = self.fan_in.check_request().checks();
        let mut operations = self.fan_in.operations();
        let enforced = match passage.limits.as_slice() {
            [] => None,
            _ => operations.next(),
        };
        let (told, replies) = enforced.unwrap_or((operation::Verdict::Passed, &[]));
        // Where requests are asked about in parts, what is refused may be refused for what another
        // one took and is about to refund: that is not kept. Nor is a refusal of a policy that is
        // no longer in force.
        let policy = &self.snapshot.policy;
        if told == operation::Verdict::Refused
            && memory.generation == self.snapshot.generation
            && (memory.topology == Topology::Single || policy.is_of_one_slot())
            && let Some(asked) = self.fan_in.asked()
        {
            for (place, (check, replies)) in checks.iter().zip(replies).enumerate() {
                if let CheckReply::Read(reading) = replies
                    && (!passage.is_known_later(place) || memory.holds.is_debt(check, *reading))
                {
                    memory.denials.learn(check, *reading, asked);
                }
            }
        }
        self.learn_low(passage, replies, memory);
        let mut receipt = StoreInstant(0);
        let take_local = |places: &[usize]| {
            let checks: Vec<&Check> = places
                .iter()
                .filter_map(|place| checks.get(*place))
                .collect();
            receipt = memory.store_time.at(now());
            memory.local.take(&checks, receipt)
        };
        let limits = &passage.limits;
        let mut decided = verdict::decide(policy, limits, told, replies, take_local);
        self.hasten(passage, &mut decided, memory);
        let source = match decided.degraded {
            Some(how) => decision::Source::Failure(how),
            None if passage.is_covered() => decision::Source::Leases,
            None => decision::Source::Store,
        };
        let shadows = passage.shadows.iter().zip(operations);
        let would: Vec<Option<ShadowVerdict>> = shadows
            .map(|(shadow, (told, replies))| shadow.outcome(told, replies))
            .collect();
        let settlement = self.settlement(passage, &decided, receipt, memory);
        if self.may_lease(memory) {
            self.note_left(replies, memory);
        }
        let known: Vec<LimitStatus> = match policy.answers.name_all() {
            true => decided.statuses.iter().flatten().copied().collect(),
            false => Vec::new(),
        };
        let mut decision =
            if policy.has_soft_limits() && matches!(decided.verdict, Verdict::Passed { .. }) {
                self.end_near(passage, &decided, source, (&known, &would), receipt, memory)
            } else {
                self.end(decided.verdict, source, &known, &would)
            };
        decision.settlement = settlement.filter(|_| matches!(decision.action, Action::Pass(_)));
        if let Some(settlement) = &mut decision.settlement {
            let is_refundable = decision.delayed.is_none();
            decision
                .refunds
                .extend(memory.hold(settlement, is_refundable));
        }
        if matches!(decision.action, Action::Respond(..)) {
            decision.refunds.extend(self.restore(memory));
        }
        decision
    }

    /// Remembers what the store said of limits that are nearly used up, for when it is away. What
    /// came out of a lease the store did not say now.
    fn learn_low(&self, passage: &Passage, replies: &[CheckReply], memory: &mut Memory) {
        let checks = self.fan_in.check_request().checks();
        for (place, (check, replies)) in checks.iter().zip(replies).enumerate() {
            if let CheckReply::Read(reading) = replies
                && fallback::is_low(&check.terms.quota, *reading)
                && let Some(limit) = passage.limits.get(place)
                && verdict::on_failure(&self.snapshot.policy, *limit) == verdict::Degraded::Local
                && !passage.has_spent(place)
            {
                memory.local.learn(check, *reading, self.fan_in.now());
            }
        }
    }

    /// `known` is where the caller stands, as far as answers tell it; `would` what each trial would
    /// have done.
    fn end(
        &self,
        verdict: Verdict,
        source: decision::Source,
        known: &[LimitStatus],
        would: &[Option<ShadowVerdict>],
    ) -> Decision {
        let (outcome, shown) = match verdict {
            Verdict::Passed { shown } => (decision::Outcome::Allowed, shown),
            Verdict::Refused { shown, .. } => (decision::Outcome::Denied, Some(shown)),
            Verdict::Unavailable => (decision::Outcome::Unavailable, None),
        };
        let refunds = match verdict {
            // A trial in parts may have been refused in one of them.
            Verdict::Passed { .. } if would.is_empty() => Vec::new(),
            Verdict::Passed { .. } => self.fan_in.refunds_of_refused(),
            Verdict::Refused { .. } | Verdict::Unavailable => self.fan_in.refunds(),
        };
        let mut record = Record::new(outcome, source, shown);
        for would in would.iter().flatten() {
            match would {
                ShadowVerdict::Pass(limit) => record.shadow_passed.push(*limit),
                ShadowVerdict::Deny(limit, _) => record.shadow_denied.push(*limit),
            }
        }
        let mut action = self.word(verdict, &record, known);
        if let Wants::Passage(passage) = &self.wants {
            record.variants.clone_from(&passage.variants);
            let policy = &self.snapshot.policy;
            let headers = match &mut action {
                Action::Pass(headers) => headers,
                Action::Respond(answer, _) => &mut answer.headers,
            };
            headers.extend(shadow_header(policy, &passage.shadows, would));
            headers.extend(answer::variant_header(policy, &passage.variants));
        }
        Decision {
            action,
            refunds,
            record: Some(record),
            delayed: None,
            settlement: None,
        }
    }

    fn word(&self, verdict: Verdict, record: &Record, known: &[LimitStatus]) -> Action {
        let policy = &self.snapshot.policy;
        let met = match &self.wants {
            Wants::Passage(passage) if policy.answers.name_all() => Met {
                limits: &passage.limits,
                statuses: known,
            },
            Wants::Passage(_) | Wants::Status(_) => Met::default(),
        };
        let degraded = record.degraded();
        let mark = degraded.and_then(|how| answer::degraded_header(policy, how));
        match verdict {
            Verdict::Passed { shown } => {
                let headers = shown.map(|shown| answer::status_headers(policy, shown, met));
                let mut headers = headers.unwrap_or_default();
                headers.extend(mark);
                Action::Pass(headers)
            }
            Verdict::Refused { shown, retry } => {
                let last = &self.snapshot.last_refusal;
                let mut answer = answer::refused(policy, shown, retry, met, last);
                answer.headers.extend(mark);
                self.respond(answer)
            }
            Verdict::Unavailable => {
                let mut answer = answer::unavailable();
                answer.headers.extend(mark);
                self.respond(answer)
            }
        }
    }

    fn respond(&self, answer: Answer) -> Action {
        Action::Respond(answer, self.protocol)
    }
}

/// Who is calling, and whether limits are for them at all.
struct Recognised {
    caller: Caller,
    treatment: Treatment,
    /// By the tier that identity tells: the policy's `tiers` make no operators.
    is_operator: bool,
}

fn recognise(
    snapshot: &PolicySnapshot,
    sources: &Sources,
    credentials: Credentials<'_>,
    facts: &KnownFacts<'_, impl Facts>,
) -> Recognised {
    let (user, tier, api_key) = (
        facts.claim(&sources.user),
        facts.claim(&sources.tier),
        facts.claim(&sources.api_key),
    );
    let header = credentials.api_key;
    let credentials = Credentials {
        user: user.as_deref().or(credentials.user),
        tier: tier.as_deref().or(credentials.tier),
        api_key: api_key
            .as_deref()
            .or_else(|| sources.key(credentials.api_key?)),
    };
    let mut caller = sources.caller(credentials, &facts.client());
    let policy = &snapshot.policy;
    let is_operator = status::is_operators_tier(&policy.status, &caller);
    let now = || facts.time_of_day();
    let assigned = policy
        .assigned_tiers
        .tier(&caller, credentials.api_key, now);
    if let Some(tier) = assigned {
        caller.tier = tier.to_string();
    }
    let exemptions = &policy.exemptions;
    let treatment = exemptions.treatment(&caller, credentials.api_key);
    let whole = header.filter(|_| sources.cuts_key());
    let of_header = whole.map(|header| exemptions.treatment_of_header(header));
    let treatment = match of_header {
        Some(of_header) => of_header.or_stronger(treatment),
        None => treatment,
    };
    Recognised {
        caller,
        treatment,
        is_operator,
    }
}

/// What each trial would have done, in a header.
fn shadow_header(
    policy: &Policy,
    shadows: &[ShadowRule],
    would: &[Option<ShadowVerdict>],
) -> Option<Header> {
    if would.is_empty() {
        return None;
    }
    let shadows = shadows.iter().zip(would);
    let shadows = shadows.map(|(shadow, would)| (shadow.limits.first().copied(), *would));
    answer::shadow_header(policy, shadows)
}

#[cfg(test)]
mod tests;
