//! The event loop of one worker: turns, replies, ticks, and what each of them leads to. It decides when
//! calls leave, who is told first, and when the next tick comes.

use std::collections::HashMap;
use std::rc::Rc;

use super::config::{AccessLog, LimiterConfig};
use super::eviction_watch::EvictionWatch;
use super::host::{Host, Level};
use super::policy_watch::{self, Claimed, PolicyWatch};
use super::request::{Stream, StreamHasher};
use super::seats::{Company, Family, Seat};
use super::shared;
use super::store_calls::StoreCalls;
use super::telemetry::Telemetry;
use super::ticker::{self, Ticker, until};
use crate::decide::answer::Answer;
use crate::decide::limiter::{Memory, Redirects};
use crate::live::snapshot::PolicySnapshot;
use crate::local::lease::Bid;
use crate::local::timer_queue::StreamId;
use crate::observe::advice;
use crate::request::identity::Sources;
use crate::store::batch::{Batcher, Effects, Health, MOST_TOLD, Next, NoReply, Settled};
use crate::store::call::CallId;
use crate::store::check::ShardRequest;
use crate::store::fan_in::Outcome;
use crate::store::links::LinkId;
use crate::store::slot::Topology;
use crate::time::{Span, WorkerInstant};

/// How exactly deadlines are kept. Finer costs wake-ups of every worker, coarser adds to the wait
/// when Redis is away.
const TICK: Span = Span::millis(10);
/// A worker without requests stops ticking so after a second.
const IDLE: Span = Span::seconds(1);
/// The most requests that are told their outcome, or let go on, in one event. Those that the proxy
/// answers itself it answers at the event's end, one inside the other, each on more of the VM's stack.
const MOST_SETTLED: usize = MOST_TOLD;
/// The golden ratio's share of 256: multiples of it spread evenly, however many there are.
const JITTER_STEP: u32 = 159;

/// Under this name stands what the log was told of a connection that is kept.
const KEPT: &str = "weir.store.kept";

/// One worker.
pub struct Worker<H> {
    pub(super) host: H,
    pub(super) sources: Sources,
    pub(super) topology: Topology,
    pub(super) access_log: AccessLog,
    pub(super) policy: PolicyWatch,
    pub(super) memory: Memory,
    pub(super) telemetry: Telemetry,
    /// Requests that the proxy redirects, between two of their streams.
    pub(super) redirects: Redirects,
    /// Requests that wait, are delayed, or whose response is still to come.
    pub(super) streams: HashMap<StreamId, Stream, StreamHasher>,
    calls: StoreCalls,
    eviction: EvictionWatch,
    batcher: Batcher<Ticket>,
    ticker: Ticker,
    /// When somebody waited for the store last.
    busy: WorkerInstant,
    /// How many more requests may be told anything in this event.
    room: usize,
    /// The way to the store as it was when the log last told of it.
    logged: Health,
}

/// Whom the outcome of a part is for.
#[derive(Debug)]
pub(super) enum Ticket {
    /// A request, which may be gone by then.
    Request { stream: StreamId, part: usize },
    /// The worker itself: a lease that it asked for must not be lost with the request that made it
    /// ask.
    Lease(Bid),
}

/// What became of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The outcome will come to the ticket.
    Waits,
    /// The outcome is a failure, now.
    Failed,
}

impl<H: Host> Worker<H> {
    /// `configuration` names this configuration among those that the process has had.
    pub fn new(mut host: H, config: LimiterConfig, configuration: &str) -> Worker<H> {
        let LimiterConfig {
            store,
            sources,
            policy,
            access_log,
        } = config;
        let family = Family::of(configuration);
        let (seat, company) = shared::take_seat(&host, family);
        let Seat(number) = seat;
        host.name_wake_up(&format!("weir.turn.{number}"));
        if company == Company::Alone {
            if let Some(warning) = sources.warning() {
                host.log(Level::Warn, format_args!("{warning}"));
            }
            policy_watch::describe(&host, &policy);
        }
        let policy = PolicyWatch::new(&host, policy, &store, seat, configuration);
        let mut memory = Memory::new(&store);
        memory.enter(policy.in_force().generation);
        memory.guess_time(host.now(), host.wall_clock());
        // Neighbours differ most, whatever their number.
        let jitter = number.wrapping_mul(JITTER_STEP).to_le_bytes()[0];
        let telemetry = Telemetry::define(&host, family, seat);
        let now = host.now();
        let mut worker = Worker {
            eviction: EvictionWatch::new(&store.cluster, now),
            sources,
            topology: store.topology,
            access_log,
            policy,
            memory,
            telemetry,
            redirects: Redirects::default(),
            streams: HashMap::default(),
            batcher: Batcher::new(store.topology, store.timeout, jitter),
            calls: StoreCalls::new(&host, store),
            ticker: Ticker::new(),
            busy: WorkerInstant(0),
            room: 0,
            logged: Health::default(),
            host,
        };
        let eviction = worker.eviction.next_tick(now);
        let look = worker.policy.next_tick(now);
        let first = look.map_or(eviction, |look| look.min(eviction));
        worker.ticker.ticked(&worker.host, now, Some(first));
        worker
    }

    pub fn host(&self) -> &H {
        &self.host
    }

    // === events ===

    /// The turn that was asked for has come.
    pub fn turn(&mut self) {
        self.begin();
        let effects = self.batcher.turn(self.host.now());
        self.perform(effects);
    }

    /// A call over HTTP has its answer, or will have none.
    pub fn call_answered(&mut self, call: CallId, answer: Result<&[u8], NoReply>) {
        self.begin();
        self.answered(call, answer);
    }

    /// Bytes have come on a link.
    pub fn link_received(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.begin();
        if let Some(answer) = self.calls.received(&self.host, link, bytes) {
            self.answered(answer.call, Ok(&answer.body));
            self.calls.rested();
        }
    }

    pub fn link_closed(&mut self, link: LinkId) {
        self.begin();
        if let Some(call) = self.calls.closed(&self.host, link) {
            self.answered(call, Err(NoReply::Closed));
        }
    }

    /// Time has passed. Late calls first, for they may open a breaker; then what goes back to the
    /// store, as long as any of it is asked; then whoever waits; then what operators are told.
    pub fn tick(&mut self) {
        self.begin();
        let now = self.host.now();
        self.release(now);
        while let Some(call) = self.calls.late(&self.host, now) {
            self.answered(call, Err(NoReply::Late));
        }
        let lost = self.redirects.expire(now);
        self.settle_unknown(lost);
        // Where nothing can be asked, what goes back would be lost: it waits.
        let health = self.batcher.health();
        let is_asked = health.open < health.lanes;
        if is_asked {
            let back = self.memory.leases.expire(now);
            self.refund(&back);
        }
        let effects = self.batcher.tick(now);
        self.perform(effects);
        let health = self.log_health();
        let tell = self
            .telemetry
            .tick(&self.host, self.policy.in_force(), health, now);
        if !self.batcher.is_idle() {
            self.busy = now;
            self.policy.stir(now);
        }
        self.policy.tick(&self.host, &mut self.calls, now);
        self.eviction.tick(&self.host, &mut self.calls, now);
        let is_idle = now.since(self.busy) >= IDLE;
        let lease = self.memory.leases.next().filter(|_| is_asked);
        let late = self.calls.next_late();
        let next = self
            .memory
            .delays
            .next()
            .into_iter()
            .chain(lease)
            .chain(late);
        let next = next.chain(self.redirects.next());
        let due = next.min().map(|due| until(now, due));
        let tick = (!is_idle).then_some(TICK);
        let look = self.policy.next_tick(now);
        let eviction = Some(self.eviction.next_tick(now));
        let wanted = [due, tick, tell, look, eviction];
        let next = wanted.into_iter().flatten().min();
        self.ticker.ticked(&self.host, now, next);
    }

    /// This worker goes.
    pub fn retire(&mut self) {
        let now = self.host.now();
        self.telemetry
            .retire(&self.host, self.policy.in_force(), now);
        let company = self.telemetry.leave_seat(&self.host);
        self.policy.leave(&self.host, company);
        self.calls.retire(&self.host);
    }

    // === asking ===

    /// What a request that comes now is decided under.
    pub(super) fn snapshot(&mut self) -> Rc<PolicySnapshot> {
        if self.policy.serve(&self.host) {
            self.enter_generation();
        }
        self.policy.in_force().clone()
    }

    /// Asks the store a part of something. Without a ticket nobody waits for the outcome.
    pub(super) fn ask(
        &mut self,
        now: WorkerInstant,
        ticket: Option<Ticket>,
        part: &ShardRequest,
    ) -> Asked {
        let next = self.batcher.ask(now, ticket, part);
        self.within(now, TICK);
        match next {
            Next::Wait => Asked::Waits,
            Next::AskFlush => {
                self.ask_turn(now);
                Asked::Waits
            }
            Next::Failed => Asked::Failed,
        }
    }

    /// A request has asked all that it asks. Where nobody else is to be expected, its call leaves now.
    pub(super) fn hurry(&mut self, now: WorkerInstant) {
        if !self.batcher.hurries() {
            return;
        }
        // Whatever a request's callback opens, or sends over HTTP, is that request's: it would be lost
        // with the request, and everybody else's check with it. An open link is the worker's.
        if self.calls.idle_links() < self.batcher.ready(now) {
            self.batcher.wait_for_turn();
            self.ask_turn(now);
            return;
        }
        let effects = self.batcher.turn(now);
        let settled = self.send(effects);
        // The proxy does not know yet that this request waits, and could not let it go on.
        if !settled.is_empty() {
            self.batcher.put_off(settled);
            self.ask_turn(now);
        }
    }

    /// Asks for what goes back to the store. Nobody waits for it.
    pub(super) fn refund(&mut self, parts: &[ShardRequest]) {
        if parts.is_empty() {
            return;
        }
        let now = self.host.now();
        for part in parts {
            self.ask(now, None, part);
        }
    }

    /// A lease that was asked for has its outcome.
    pub(super) fn lease(&mut self, bid: Bid, outcome: &Outcome) {
        let back = self.memory.leases.settle(bid, outcome);
        self.refund(back.as_slice());
    }

    /// Has a tick come so soon, or sooner.
    pub(super) fn within(&mut self, now: WorkerInstant, wait: Span) {
        self.ticker.within(&self.host, now, wait);
    }

    /// The operators' report on the whole gateway.
    pub(super) fn report(&mut self) -> Answer {
        let now = self.host.now();
        let health = self.batcher.health();
        let snapshot = self.snapshot();
        let mut notices = self.calls.notices(&self.host);
        notices.extend(self.eviction.notice(&self.host));
        self.telemetry
            .report(&self.host, &snapshot, (health, &notices), now)
    }

    // === the inside of an event ===

    fn begin(&mut self) {
        self.room = MOST_SETTLED;
    }

    fn ask_turn(&mut self, now: WorkerInstant) {
        if self.host.wake_after_event().is_err() {
            // The earliest tick there is stands in for it.
            self.within(now, ticker::SOONEST);
        }
    }

    fn answered(&mut self, id: CallId, answer: Result<&[u8], NoReply>) {
        let now = self.host.now();
        let call = (id, answer.ok());
        if self.eviction.answered(&self.host, now, call) {
            return;
        }
        match self.policy.answered(&self.host, &mut self.calls, now, call) {
            Claimed::NotMine => {
                self.telemetry.came_back(&self.host, id, now, answer.ok());
                let effects = self.batcher.answered(now, id, answer);
                // The last is of this answer, if any is.
                if let Some((_, Outcome::Answered { now: told, .. })) = effects.settled.last() {
                    self.memory.replies(now, *told);
                }
                self.perform(effects);
                self.log_kept();
            }
            Claimed::Mine => {}
            Claimed::Adopted => {
                self.enter_generation();
                let health = self.batcher.health();
                self.telemetry
                    .tell(&self.host, self.policy.in_force(), health, now);
            }
        }
    }

    fn enter_generation(&mut self) {
        self.memory.enter(self.policy.in_force().generation);
        // What was leased goes back with the ticks.
        let now = self.host.now();
        self.within(now, TICK);
    }

    /// Lets requests go on whose delay is over: as many as there is room for, the others with the
    /// next tick.
    fn release(&mut self, now: WorkerInstant) {
        while self.room > 0
            && let Some(stream) = self.memory.delays.pop(now)
        {
            self.room -= 1;
            self.go_on(stream);
        }
    }

    /// Sends first, so that the next batch travels while this one's requests go on.
    fn perform(&mut self, effects: Effects<Ticket>) {
        let mut settled = self.send(effects);
        if settled.len() > self.room {
            let others = settled.split_off(self.room);
            self.batcher.put_off(others);
        }
        if self.batcher.has_put_off() {
            let now = self.host.now();
            self.ask_turn(now);
        }
        self.room -= settled.len();
        for (ticket, outcome) in settled {
            match ticket {
                Ticket::Request { stream, part } => self.receive(stream, part, &outcome),
                Ticket::Lease(bid) => self.lease(bid, &outcome),
            }
        }
    }

    /// Sends the calls. Returns the requests that have their outcome by then.
    fn send(&mut self, effects: Effects<Ticket>) -> Settled<Ticket> {
        let Effects {
            outgoing,
            mut settled,
        } = effects;
        for outgoing in outgoing {
            let check_requests = outgoing.check_requests();
            let now = self.host.now();
            let sent = self
                .calls
                .call(&self.host, now, outgoing.commands, &outgoing.body);
            match sent {
                Ok(id) => {
                    if check_requests > 0 {
                        self.telemetry.sent(id, now, check_requests);
                    }
                    self.batcher.sent(outgoing, id);
                }
                Err(_) => {
                    let why = self.calls.last_error().map_or_else(
                        || "Envoy did not make the call".to_string(),
                        |notice| notice.to_string(),
                    );
                    settled.extend(self.batcher.not_sent(now, outgoing, why));
                }
            }
        }
        settled
    }

    /// Tells in the log how the store does, when that changes.
    fn log_health(&mut self) -> Health {
        let health = self.batcher.health();
        let before = std::mem::replace(&mut self.logged, health);
        if health.opened > before.opened
            && let Some(last_error) = self.batcher.last_error()
        {
            self.host.log(
                Level::Warn,
                format_args!(
                    "Redis is not asked for now, by this worker on {} of its {}: {last_error}. {} Meanwhile \
                     each limit does what its on_store_failure says.",
                    health.open,
                    count(health.lanes, "lane"),
                    advice::on(last_error)
                ),
            );
            self.telemetry.last_error(last_error);
        }
        if health.open == 0 && before.open > 0 {
            self.host.log(
                Level::Info,
                format_args!("Redis is asked again by this worker, on all of its lanes"),
            );
        }
        health
    }

    /// Tells in the log why redis_proxy keeps a connection that it should leave, once for all workers.
    fn log_kept(&mut self) {
        if let Some(kept) = self.batcher.kept()
            && shared::claim(&self.host, KEPT, kept.as_bytes())
        {
            self.host.log(Level::Warn, format_args!("{kept}"));
        }
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
