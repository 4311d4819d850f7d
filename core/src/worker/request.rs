//! One request, in the order in which things happen to it: its head is admitted, what is known is
//! recalled, the rest is asked, the outcome is told, and what it owes is settled when its response
//! comes or its stream ends.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use super::config::AccessLog;
use super::event_loop::{Asked, Ticket, Worker};
use super::host::{Host, Level};
use super::telemetry;
use super::ticker::until;
use crate::decide::answer::{self, Answer, Headers, Protocol};
use crate::decide::decision::{self, Record};
use crate::decide::limiter::{
    self, Action, Admission, Counted, Decision, DelayedRequest, Facts, Pending, Redirected,
    Redirects, Settlement, Step,
};
use crate::live::snapshot::PolicySnapshot;
use crate::local::guesses::{Attempt, Ruling};
use crate::local::timer_queue::StreamId;
use crate::observe::{access_log, page};
use crate::policy::ids::LimitId;
use crate::policy::tariff::{Ending, Tariff};
use crate::request::subject::Subject;
use crate::store::fan_in::Outcome;
use crate::time::{WallTime, WorkerInstant};

/// What the proxy does with a message that the worker has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// It waits until it is resumed, or was answered.
    Pause,
}

/// The headers of a message, as the proxy hands them out.
pub trait HeaderList {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone;
}

/// What the worker remembers of a request that is not over. One that was refused, or that leaves
/// nothing to do for its response, is not remembered.
#[derive(Debug)]
pub(super) enum Stream {
    /// The store is asked about it; since when, if the access log wants to know.
    Waiting {
        pending: Box<Pending>,
        since: Option<WorkerInstant>,
        /// Of the stream that it was redirected from.
        earlier: Passage,
    },
    /// It passes, later.
    Delayed {
        delayed: Box<DelayedRequest>,
        passage: Passage,
    },
    /// It went on.
    Passed(Passage),
    /// Its response has come, and what it costs is known when that ends.
    Answered(Vec<Settlement>),
}

/// What a request that passes owes to its response.
#[derive(Debug, Default)]
pub(super) struct Passage {
    headers: Headers,
    /// What it costs is known later.
    settlements: Vec<Settlement>,
    /// What it was counted for, should the proxy redirect it.
    counted: Option<Counted>,
}

/// What the proxy knows of a request, and the worker of how it came here.
struct StreamFacts<'a, H, F> {
    host: &'a H,
    facts: &'a F,
    stream: StreamId,
    redirects: RefCell<&'a mut Redirects>,
    /// Set where the request was redirected.
    redirected: Cell<Option<Redirected>>,
}

/// A stream that ends now, as the proxy knows it.
struct EndedStream<'a, H> {
    host: &'a H,
    stream: StreamId,
    answered: IsAnswered,
}

/// Whether a stream had a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsAnswered {
    Yes,
    No,
}

/// How Envoy flags a stream whose client left (14, 28), broke the protocol (18) or did not take the answer
/// in time (16, 22).
const GIVEN_UP: u64 = 1 << 14 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 28;

impl<H: Host> Ending for EndedStream<'_, H> {
    fn is_finished(&self) -> bool {
        let flags = || self.host.response_flags(self.stream).unwrap_or(0);
        self.answered == IsAnswered::Yes && flags() & GIVEN_UP == 0
    }

    fn metadata(&self, path: &[String]) -> Option<Vec<u8>> {
        self.host.metadata(self.stream, path)
    }
}

/// How Envoy calls the end of a stream that goes on as another one.
const REDIRECTED: &[u8] = b"internal_redirect";

impl<H: Host, F: Facts> Facts for StreamFacts<'_, H, F> {
    fn source_address(&self) -> Vec<u8> {
        self.facts.source_address()
    }

    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>> {
        self.facts.direct_peer(filter_state)
    }

    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        self.facts.claim(path)
    }

    fn time_of_day(&self) -> WallTime {
        self.host.wall_clock()
    }

    fn counted(&self, snapshot: &Rc<PolicySnapshot>, subject: &Subject) -> Vec<LimitId> {
        let mut redirects = self.redirects.borrow_mut();
        if redirects.is_empty() {
            return Vec::new();
        }
        let connection = self.host.connection(self.stream);
        let redirected = connection.and_then(|id| redirects.take(&id, snapshot, subject));
        let limits = redirected
            .as_ref()
            .map(|known| known.counted.limits().to_vec());
        self.redirected.set(redirected);
        limits.unwrap_or_default()
    }
}

impl<H: Host> Worker<H> {
    /// A request's head has come.
    pub fn request_headers<'a>(
        &mut self,
        stream: StreamId,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        facts: &impl Facts,
    ) -> Flow {
        let snapshot = self.snapshot();
        let facts = StreamFacts {
            host: &self.host,
            facts,
            stream,
            redirects: RefCell::new(&mut self.redirects),
            redirected: Cell::default(),
        };
        let Admission {
            remove,
            step,
            protocol,
            attempt,
            is_tier_unknown,
        } = limiter::admit(&snapshot, &self.sources, headers, &facts);
        let redirected = facts.redirected.into_inner();
        let is_redirected = redirected.is_some();
        let earlier = redirected.map_or_else(Passage::default, Passage::from);
        if let Some(notice) = snapshot.policy.exemptions.notice() {
            self.host.log(Level::Warn, format_args!("{notice}"));
        }
        for name in &remove {
            self.host.remove_request_header(stream, name);
        }
        if is_tier_unknown && !is_redirected {
            self.will_tell();
            self.telemetry.tier_unknown(&snapshot);
        }
        let step = match attempt {
            Some(attempt) => self.judge(&attempt, step, protocol),
            None => step,
        };
        // One that was redirected to where no more limits are was counted as what it was.
        if let Some(outcome) = step.outcome()
            && !(is_redirected && outcome == decision::Outcome::Unmatched)
        {
            self.will_tell();
            self.telemetry.decided(&snapshot, outcome, step.listed());
            if self.access_log == AccessLog::On {
                let field = access_log::of(outcome, step.listed());
                self.host.set_log_field(stream, &field);
            }
        }
        match step {
            Step::Pass | Step::Exempt(_) => {
                self.remember(stream, earlier);
                Flow::Continue
            }
            Step::Block(answer, protocol, _) | Step::Respond(answer, protocol) => {
                self.respond(stream, &answer, protocol, earlier)
            }
            Step::Report(protocol) => {
                let report = self.report();
                self.respond(stream, &report, protocol, earlier)
            }
            Step::Page(protocol) => {
                let page = page::page(&snapshot.policy.status);
                self.respond(stream, &page, protocol, earlier)
            }
            Step::Ask(pending) => self.decide(stream, pending, earlier),
        }
    }

    /// A response's head has come. `said` fetches its headers, which few requests want.
    pub fn response_headers<S: HeaderList>(
        &mut self,
        stream: StreamId,
        said: impl FnOnce() -> S,
    ) -> Flow {
        // A request that still waits is answered by somebody else: it is over when its stream ends.
        if !matches!(self.streams.get(&stream), Some(Stream::Passed(_))) {
            return Flow::Continue;
        }
        if let Some(Stream::Passed(passage)) = self.streams.remove(&stream) {
            let Passage {
                mut headers,
                mut settlements,
                ..
            } = passage;
            if !settlements.is_empty() {
                let said = said();
                for settlement in &mut settlements {
                    self.settle(
                        settlement,
                        |tariff| tariff.at_response(said.iter()),
                        &mut headers,
                    );
                }
                settlements.retain(|settlement| !settlement.is_settled());
            }
            for (name, value) in &headers {
                self.host.set_response_header(stream, name, value);
            }
            if !settlements.is_empty() {
                self.streams.insert(stream, Stream::Answered(settlements));
            }
        }
        Flow::Continue
    }

    /// A stream has ended, with or without a response.
    pub fn stream_ended(&mut self, stream: StreamId) {
        match self.streams.remove(&stream) {
            None => {}
            Some(Stream::Waiting {
                pending, earlier, ..
            }) => {
                self.memory.abandon(stream, pending);
                self.settle_ended(stream, earlier.settlements, IsAnswered::No);
            }
            // It never went on, and so has consumed nothing.
            Some(Stream::Delayed { delayed, passage }) => {
                self.memory.forgo(&passage.settlements);
                let host = &self.host;
                let refunds = self.memory.leave(stream, *delayed, || host.now());
                self.refund(&refunds);
            }
            Some(Stream::Passed(passage)) => {
                let settlements = self.redirect(stream, passage);
                self.settle_ended(stream, settlements, IsAnswered::No);
            }
            Some(Stream::Answered(settlements)) => {
                self.settle_ended(stream, settlements, IsAnswered::Yes);
            }
        }
    }

    /// The outcome of a part of what was asked about a request. With the last it goes on or is
    /// answered.
    pub(super) fn receive(&mut self, stream: StreamId, part: usize, outcome: &Outcome) {
        let is_last = match self.streams.get_mut(&stream) {
            Some(Stream::Waiting { pending, .. }) => pending.receive(part, outcome),
            Some(Stream::Delayed { .. } | Stream::Passed(_) | Stream::Answered(_)) => false,
            None => {
                let refunds = self.memory.receive_abandoned(stream, part, outcome);
                self.refund(&refunds);
                false
            }
        };
        if is_last
            && let Some(Stream::Waiting {
                pending,
                since,
                earlier,
            }) = self.streams.remove(&stream)
            && self.conclude(stream, pending, since, earlier) == Flow::Continue
        {
            self.host.resume(stream);
        }
    }

    /// The delay of a request is over.
    pub(super) fn go_on(&mut self, stream: StreamId) {
        if let Some(Stream::Delayed { passage, .. }) = self.streams.remove(&stream) {
            self.remember(stream, passage);
            self.host.resume(stream);
        }
    }

    /// Decides from memory, or asks the store. Where the store cannot be asked, the request is
    /// concluded at once.
    fn decide(&mut self, stream: StreamId, mut pending: Box<Pending>, earlier: Passage) -> Flow {
        let now = self.host.now();
        if let Some(refusal) = pending.recall(&mut self.memory, now) {
            return self.end(stream, pending, (refusal, None), earlier);
        }
        let since = (self.access_log == AccessLog::On).then_some(now);
        let parts = pending.parts(self.topology);
        let mut is_complete = parts.is_empty();
        for (part, asked) in parts.iter().enumerate() {
            let ticket = Ticket::Request { stream, part };
            if self.ask(now, Some(ticket), asked) == Asked::Failed {
                is_complete = pending.receive(part, &Outcome::Failed);
            }
        }
        if is_complete {
            return self.conclude(stream, pending, since, earlier);
        }
        self.bid(now, &pending);
        let waiting = Stream::Waiting {
            pending,
            since,
            earlier,
        };
        self.streams.insert(stream, waiting);
        self.hurry(now);
        Flow::Pause
    }

    /// Asks for the leases that are worth while, after the request that shows it.
    fn bid(&mut self, now: WorkerInstant, pending: &Pending) {
        if !pending.is_leased() {
            return;
        }
        for bid in pending.bids(&mut self.memory, now) {
            let part = bid.part().clone();
            if self.ask(now, Some(Ticket::Lease(bid.clone())), &part) == Asked::Failed {
                self.lease(bid, &Outcome::Failed);
            }
        }
    }

    /// All parts of a request have their outcome.
    fn conclude(
        &mut self,
        stream: StreamId,
        pending: Box<Pending>,
        since: Option<WorkerInstant>,
        earlier: Passage,
    ) -> Flow {
        let host = &self.host;
        let decision = pending.conclude(&mut self.memory, || host.now());
        self.end(stream, pending, (decision, since), earlier)
    }

    /// The last word on a request. `since` is when it began to wait for the store, if the access log
    /// wants to know.
    fn end(
        &mut self,
        stream: StreamId,
        pending: Box<Pending>,
        (decision, since): (Decision, Option<WorkerInstant>),
        earlier: Passage,
    ) -> Flow {
        let Decision {
            action,
            refunds,
            record,
            delayed,
            settlement,
        } = decision;
        if let Some(record) = &record {
            self.will_tell();
            self.telemetry.count(&pending, record);
        }
        self.refund(&refunds);
        if let Some(record) = &record {
            self.log(stream, &pending, record, since);
        }
        let mut passage = earlier;
        passage.settlements.extend(settlement);
        match action {
            // Of two of a name the later counts.
            Action::Pass(headers) => passage.headers.extend(headers),
            Action::Respond(answer, protocol) => {
                return self.respond(stream, &answer, protocol, passage);
            }
        }
        if let Some(mut counted) = pending.counted() {
            if let Some(earlier) = passage.counted.take() {
                counted.join(earlier);
            }
            passage.counted = Some(counted);
        }
        match delayed {
            None => {
                self.remember(stream, passage);
                Flow::Continue
            }
            Some(delayed) => {
                let now = self.host.now();
                let due = self.memory.delay(stream, now, &delayed);
                self.within(now, until(now, due));
                self.streams
                    .insert(stream, Stream::Delayed { delayed, passage });
                Flow::Pause
            }
        }
    }

    fn remember(&mut self, stream: StreamId, passage: Passage) {
        let Passage {
            headers,
            settlements,
            counted,
        } = &passage;
        if !headers.is_empty() || !settlements.is_empty() || counted.is_some() {
            self.streams.insert(stream, Stream::Passed(passage));
        }
    }

    /// Answers a request. The answer tells of limits itself, and nothing is charged by it; what the request
    /// owed before is due now.
    fn respond(
        &mut self,
        stream: StreamId,
        answer: &Answer,
        protocol: Protocol,
        earlier: Passage,
    ) -> Flow {
        self.settle_unknown(earlier.settlements);
        self.host.respond(stream, answer, protocol);
        Flow::Pause
    }

    /// A stream has ended without a response. Where the proxy goes on with another stream, what was
    /// counted goes along; what does not is to be settled.
    fn redirect(&mut self, stream: StreamId, passage: Passage) -> Vec<Settlement> {
        let Passage {
            headers,
            settlements,
            counted,
        } = passage;
        let Some(counted) = counted else {
            return settlements;
        };
        let details = self.host.response_details(stream);
        if details.is_none_or(|details| details != REDIRECTED) {
            return settlements;
        }
        let Some(connection) = self.host.connection(stream) else {
            return settlements;
        };
        let now = self.host.now();
        let redirected = Redirected {
            counted,
            headers,
            settlements,
        };
        let surplus = self.redirects.add(connection, now, redirected);
        if let Some(due) = self.redirects.next() {
            self.within(now, until(now, due));
        }
        surplus
    }

    /// Settles what requests have cost of which nothing more will be known.
    pub(super) fn settle_unknown(&mut self, settlements: Vec<Settlement>) {
        for mut settlement in settlements {
            let cost = |tariff: &Tariff| Some(tariff.without_more());
            self.settle(&mut settlement, cost, &mut Headers::new());
        }
    }

    /// Settles what a request has cost whose stream ends now.
    fn settle_ended(
        &mut self,
        stream: StreamId,
        settlements: Vec<Settlement>,
        answered: IsAnswered,
    ) {
        for mut settlement in settlements {
            let host = &self.host;
            let ending = EndedStream {
                host,
                stream,
                answered,
            };
            let parts = self.memory.settle(
                &mut settlement,
                |tariff| Some(tariff.at_end(&ending)),
                &mut Headers::new(),
                || host.now(),
            );
            self.refund(&parts);
        }
    }

    /// Settles what a request has cost, where that is known. The `headers` that its response will carry come
    /// to tell the balance.
    fn settle(
        &mut self,
        settlement: &mut Settlement,
        cost: impl Fn(&Tariff) -> Option<u64>,
        headers: &mut Headers,
    ) {
        let host = &self.host;
        let parts = self.memory.settle(settlement, cost, headers, || host.now());
        self.refund(&parts);
    }

    /// Somebody came with a secret: whether it may be looked at, and what becomes of the request then.
    fn judge(&mut self, attempt: &Attempt, step: Step, protocol: Protocol) -> Step {
        let ruling = self.memory.guesses.judge(attempt, self.host.now());
        if ruling == Ruling::Right {
            return step;
        }
        self.will_tell();
        self.telemetry.wrong_secret(attempt.client);
        if let Some(words) = ruling.words(attempt.client) {
            self.host.log(Level::Warn, format_args!("{words}"));
        }
        match ruling {
            Ruling::Shut(wait) => Step::Respond(answer::too_many_secrets(wait), protocol),
            Ruling::Right | Ruling::Wrong(_) => step,
        }
    }

    /// What access logs are to find of a request. `since` is when it began to wait for the store.
    fn log(
        &self,
        stream: StreamId,
        pending: &Pending,
        record: &Record,
        since: Option<WorkerInstant>,
    ) {
        if self.access_log == AccessLog::On {
            let waited = since.map(|since| self.host.now().since(since));
            let policy = &pending.snapshot().policy;
            let line = access_log::line(policy, record, pending.subject(), waited);
            self.host.set_log_field(stream, &line);
        }
    }

    /// Something is about to be counted, and is to be told soon.
    fn will_tell(&mut self) {
        if self.telemetry.begins(&self.host) {
            let now = self.host.now();
            self.within(now, telemetry::TELL_WITHIN);
        }
    }
}

impl From<Redirected> for Passage {
    fn from(redirected: Redirected) -> Passage {
        let Redirected {
            counted,
            headers,
            settlements,
        } = redirected;
        Passage {
            headers,
            settlements,
            counted: Some(counted),
        }
    }
}

/// Proxies count their streams up, so their numbers are spread as they are: hashbrown picks the bucket
/// by the low bits and compares a tag from the top seven.
#[derive(Default)]
pub(super) struct ById(u64);

pub(super) type StreamHasher = BuildHasherDefault<ById>;

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id) | u64::from(id) << 57;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
