//! One worker's instance of the filter: its configuration, and the requests of its that wait for
//! the store. Calls are made here, in the root context, because a call made in a request's context
//! dies with that request and would take everybody else's check along.

use std::cell::{Cell, RefCell};
use std::iter;
use std::rc::Rc;
use std::time::Instant;

use log::{error, info, warn};
use weir_core::access_log;
use weir_core::advice;
use weir_core::answer::{self, Answer, Headers, Protocol};
use weir_core::batch::{Batcher, CallId, Effects, Health, MOST_TOLD, Next, Settled, Silence};
use weir_core::config::{AccessLog, Config, LimiterConfig};
use weir_core::delays::StreamId;
use weir_core::exempt::Listed;
use weir_core::gathering;
use weir_core::guesses::{Attempt, Ruling};
use weir_core::identity::{self, Sources, Subject};
use weir_core::lease::Bid;
use weir_core::limiter::{Bill, Ending, Hold, Pending, Redirected, Redirects, Step, Worker};
use weir_core::links::{Answer as StoreAnswer, LinkId};
use weir_core::live::Edition;
use weir_core::question::Part;
use weir_core::record::{Outcome, Record};
use weir_core::seats::{Company, Family, Seat};
use weir_core::units::{Micros, Millis};

use crate::eviction::Eviction;
use crate::host::{self, ContextId, QueueId};
use crate::http::Ticket;
use crate::live::{Heard, Live};
use crate::metrics::{self, Metrics};
use crate::store::Store;
use crate::ticker::Ticker;

/// How exactly deadlines are kept. Finer costs wake-ups of every worker, coarser adds to the wait
/// when Redis is away.
const TICK: Millis = Millis(10);
/// A worker without requests stops ticking so after a second.
const IDLE: Micros = Micros(1_000_000);
/// Where the host has no shared queue, the earliest tick there is stands in for the next turn.
const SOONEST_TICK: Millis = Millis(1);
/// The most requests that are told their outcome, or let go on, in one event. Those that the proxy answers
/// itself it answers at the event's end, one inside the other, each on more of the VM's stack.
const MOST_SETTLED: usize = MOST_TOLD;

/// The golden ratio's share of 256: multiples of it spread evenly, however many there are.
const JITTER_STEP: u32 = 159;

/// Under this name stands what the log was told of a connection that is kept.
const KEPT: &str = "weir.store.kept";

/// Under this name stands the role of the first instance with this `vm_id`.
const ROLE: &str = "weir.role";

/// The list of the process's workers, whatever their namespaces.
pub const SEATS: &str = "weir.seats";

/// Access logs read it as `%FILTER_STATE(wasm.weir:PLAIN)%`.
const FILTER_STATE: &str = "weir";

pub struct Root {
    id: ContextId,
    role: Role,
}

pub enum Role {
    Unconfigured,
    Limiter(Rc<Limiter>),
    Bridge,
}

/// A worker's limiter, shared by its requests.
pub struct Limiter {
    pub store: Store,
    pub sources: Sources,
    access_log: AccessLog,
    live: Live,
    root: ContextId,
    batcher: RefCell<Batcher<Ticket>>,
    worker: RefCell<Worker>,
    redirects: RefCell<Redirects>,
    queue: Option<QueueId>,
    eviction: Eviction,
    ticker: Ticker,
    /// When somebody waited for the store last.
    busy: Cell<Micros>,
    /// How many more requests may be told anything in this event.
    room: Cell<usize>,
    metrics: Metrics,
    /// The way to the store as it was when the log last told of it.
    logged: Cell<Health>,
    origin: Instant,
}

/// What became of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The outcome will come to the ticket.
    Waits,
    /// The outcome is a failure, now.
    Failed,
}

impl Root {
    pub fn new(id: ContextId) -> Root {
        Root {
            id,
            role: Role::Unconfigured,
        }
    }

    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Reads the plugin's configuration; whether it could be.
    pub fn configure(&mut self) -> bool {
        let bytes = host::plugin_configuration();
        let config = Config::read(&bytes).and_then(|config| {
            // Envoy tries each plugin in a VM of its own first: only what they share tells of others.
            let own = config.role().name();
            host::update_shared(ROLE, |first| first.is_empty().then(|| own.into()));
            let first = host::shared(ROLE).unwrap_or_else(|| own.into());
            config.beside(&String::from_utf8_lossy(&first))?;
            Ok(config)
        });
        match config {
            Ok(Config::Bridge) => self.role = Role::Bridge,
            Ok(Config::Limiter(config)) => {
                let configuration = identity::hex_digest(&bytes);
                self.role = Role::Limiter(Rc::new(Limiter::new(self.id, *config, &configuration)));
            }
            Err(defect) => {
                error!("weir: {defect}");
                return false;
            }
        }
        true
    }

    pub fn tick(&self) {
        if let Some(limiter) = self.limiter() {
            limiter.tick();
        }
    }

    pub fn queue_ready(&self, queue: QueueId) {
        host::dequeue(queue);
        if let Some(limiter) = self.limiter() {
            limiter.turn();
        }
    }

    pub fn call_answered(&self, call: CallId, headers: usize, body: usize) {
        if let Some(limiter) = self.limiter() {
            // Without headers there was no answer: a timeout or a reset.
            let body = if headers == 0 {
                None
            } else {
                host::call_response_body(body)
            };
            limiter.answered(call, body.as_deref().ok_or(Silence::Late));
        }
    }

    pub fn link_received(&self, link: LinkId, size: usize) {
        if let Some(limiter) = self.limiter()
            && let Some(StoreAnswer { call, body }) = limiter.store.received(link, size)
        {
            limiter.answered(call, Ok(&body));
            limiter.store.rested();
        }
    }

    pub fn link_closed(&self, link: LinkId) {
        if let Some(limiter) = self.limiter()
            && let Some(call) = limiter.store.closed(link)
        {
            limiter.answered(call, Err(Silence::Closed));
        }
    }

    /// The worker goes.
    pub fn leave(&self) {
        if let Some(limiter) = self.limiter() {
            limiter.retire();
        }
    }

    /// The limiter, for which an event begins.
    fn limiter(&self) -> Option<&Rc<Limiter>> {
        match &self.role {
            Role::Limiter(limiter) => {
                limiter.room.set(MOST_SETTLED);
                Some(limiter)
            }
            Role::Unconfigured | Role::Bridge => None,
        }
    }
}

impl Limiter {
    /// `configuration` names this configuration among those that the process has had.
    fn new(root: ContextId, config: LimiterConfig, configuration: &str) -> Limiter {
        let LimiterConfig {
            store,
            sources,
            policy,
            access_log,
        } = config;
        // A name that is registered twice redirects the first: every worker needs its own.
        let family = Family::of(configuration);
        let (seat, company) = host::take_seat(SEATS, family);
        let Seat(number) = seat;
        let queue = host::register_queue(&format!("weir.turn.{number}"));
        if company == Company::Alone {
            if let Some(warning) = sources.warning() {
                warn!("weir: {warning}");
            }
            for warning in &policy.warnings {
                warn!("weir: {warning}");
            }
            for rule in policy.rules().iter().chain(policy.off()) {
                info!("weir: {}", rule.describe(&policy));
            }
            for experiment in policy.experiments() {
                info!("weir: {experiment}");
            }
        }
        let origin = Instant::now();
        let now = host::now(origin);
        let live = Live::new(policy, &store, seat, configuration, now);
        let mut worker = Worker::new(&store);
        worker.enter(live.in_force().epoch);
        // Neighbours differ most, whatever their number.
        let jitter = number.wrapping_mul(JITTER_STEP).to_le_bytes()[0];
        let limiter = Limiter {
            batcher: RefCell::new(Batcher::new(store.topology, store.timeout, jitter)),
            worker: RefCell::new(worker),
            redirects: RefCell::default(),
            store: Store::new(store),
            sources,
            access_log,
            live,
            root,
            queue,
            eviction: Eviction::new(now),
            ticker: Ticker::new(),
            busy: Cell::new(Micros(0)),
            room: Cell::new(0),
            metrics: Metrics::define(family, seat),
            logged: Cell::default(),
            origin,
        };
        let look = limiter.live.next_tick(now);
        let eviction = limiter.eviction.next_tick(now);
        let first = look.map_or(eviction, |look| look.min(eviction));
        limiter.ticker.ticked(now, Some(first));
        limiter
    }

    /// The worker's clock. To read it is a call to the proxy: do so once for all that happens at once.
    pub fn now(&self) -> Micros {
        host::now(self.origin)
    }

    /// What a request that comes now is decided under.
    pub fn edition(&self) -> Rc<Edition> {
        if self.live.serve() {
            self.enter_epoch();
        }
        self.live.in_force()
    }

    /// What the worker knows of a request by itself: that it is out of quota, or that leases cover it.
    pub fn recall(&self, now: Micros, pending: &mut Pending) -> Option<Ending> {
        let mut worker = self.worker.borrow_mut();
        let ending = pending.recall(&mut worker, now)?;
        drop(worker);
        if let Some(record) = &ending.record {
            self.count(pending, record);
        }
        Some(ending)
    }

    /// A request came to nobody's limits.
    pub fn decided(&self, edition: &Rc<Edition>, outcome: Outcome, listed: Option<&Listed>) {
        self.will_tell();
        self.metrics.decided(edition, outcome, listed);
        if self.access_log == AccessLog::On {
            host::set_filter_state(FILTER_STATE, &access_log::of(outcome, listed));
        }
    }

    /// Somebody came with a secret: whether it may be looked at, and what becomes of the request then.
    pub fn judge(&self, attempt: &Attempt, step: Step, protocol: Protocol) -> Step {
        let ruling = self.worker.borrow_mut().guesses.judge(attempt, self.now());
        if ruling == Ruling::Right {
            return step;
        }
        self.will_tell();
        self.metrics.wrong_secret(attempt.client);
        if let Some(words) = ruling.words(attempt.client) {
            warn!("weir: {words}");
        }
        match ruling {
            Ruling::Shut(wait) => Step::Respond(answer::too_many_secrets(wait), protocol),
            Ruling::Right | Ruling::Wrong(_) => step,
        }
    }

    /// A request came from somebody whose tier the policy does not name.
    pub fn tier_unknown(&self, edition: &Rc<Edition>) {
        self.will_tell();
        self.metrics.tier_unknown(edition);
    }

    fn count(&self, pending: &Pending, record: &Record) {
        self.will_tell();
        self.metrics.count(pending, record);
    }

    /// Something is about to be counted, and is to be told soon.
    fn will_tell(&self) {
        if self.metrics.begins() {
            let now = self.now();
            self.ticker.within(now, metrics::TELL_WITHIN);
        }
    }

    /// What an operator is told of the gateway.
    pub fn report(&self) -> Answer {
        let now = self.now();
        let health = self.batcher.borrow().health();
        let mut notices = self.store.notices();
        notices.extend(self.eviction.notice(&self.store));
        self.metrics.report(&self.edition(), health, &notices, now)
    }

    /// A request waits for the store to answer a part; without a ticket, nobody does.
    pub fn ask(&self, now: Micros, ticket: Option<Ticket>, part: &Part) -> Asked {
        let next = self.batcher.borrow_mut().ask(now, ticket, part);
        self.ticker.within(now, TICK);
        match next {
            Next::Wait => Asked::Waits,
            Next::AskTurn => {
                self.ask_turn(now);
                Asked::Waits
            }
            Next::Failed => Asked::Failed,
        }
    }

    fn ask_turn(&self, now: Micros) {
        if self.queue.is_none_or(|queue| host::enqueue(queue).is_err()) {
            self.ticker.within(now, SOONEST_TICK);
        }
    }

    /// A request has asked all that it asks. Leaves the proxy's current context changed.
    pub fn go(&self, now: Micros) {
        if !self.batcher.borrow().hurries() {
            return;
        }
        let effects = self.batcher.borrow_mut().turn(now);
        // Made in the request's context, the call would die with it.
        let _ = host::set_context(self.root);
        let settled = self.send(effects);
        // The proxy does not know yet that this request waits, and could not let it go on.
        if !settled.is_empty() {
            self.batcher.borrow_mut().put_off(settled);
            self.ask_turn(now);
        }
    }

    /// Asks for the leases that are worth while, after the request that shows it.
    pub fn bid(&self, now: Micros, pending: &Pending) {
        if !pending.is_leased() {
            return;
        }
        let bids = pending.bids(&mut self.worker.borrow_mut(), now);
        for bid in bids {
            let part = bid.part().clone();
            if self.ask(now, Some(Ticket::Worker(bid.clone())), &part) == Asked::Failed {
                self.lease(bid, &gathering::Outcome::Failed);
            }
        }
    }

    /// A lease that was asked for has its outcome.
    pub fn lease(&self, bid: Bid, outcome: &gathering::Outcome) {
        let back = self.worker.borrow_mut().leases.settle(bid, outcome);
        self.give_back(back.as_slice());
    }

    /// Asks for what nobody waits for.
    fn give_back(&self, parts: &[Part]) {
        if parts.is_empty() {
            return;
        }
        let now = self.now();
        for part in parts {
            self.ask(now, None, part);
        }
    }

    /// The last word on a request, once all of its parts have an outcome.
    pub fn conclude(&self, pending: &Pending) -> Ending {
        let mut worker = self.worker.borrow_mut();
        let ending = pending.conclude(&mut worker, host::wall_clock);
        drop(worker);
        if let Some(record) = &ending.record {
            self.count(pending, record);
        }
        self.give_back(&ending.refunds);
        ending
    }

    /// When a request begins to wait for the store, if the access log wants to know.
    pub fn stopwatch(&self, now: Micros) -> Option<Micros> {
        (self.access_log == AccessLog::On).then_some(now)
    }

    /// What access logs are to find of the proxy's current request. `since` is when it began to wait
    /// for the store, if it did.
    pub fn log(&self, pending: &Pending, record: Option<&Record>, since: Option<Micros>) {
        if self.access_log == AccessLog::On
            && let Some(record) = record
        {
            let now = || self.now().0;
            let waited = since.map(|since| Micros(now().saturating_sub(since.0)));
            let policy = &pending.edition().policy;
            let line = access_log::line(policy, record, pending.subject(), waited);
            host::set_filter_state(FILTER_STATE, &line);
        }
    }

    /// Settles what a request has cost, by what the response's headers say; the `headers` that it will
    /// carry come to tell the balance.
    pub fn settle<'a>(
        &self,
        bill: &Bill,
        said: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        headers: &mut Headers,
    ) {
        let mut worker = self.worker.borrow_mut();
        let parts = worker.settle(bill, said, headers, host::wall_clock);
        drop(worker);
        self.give_back(&parts);
    }

    /// Settles what requests have cost that had no response.
    pub fn settle_unanswered(&self, bills: &[Bill]) {
        for bill in bills {
            self.settle(bill, iter::empty(), &mut Headers::new());
        }
    }

    /// A request of this connection goes on as another stream. What comes of it that is to be settled.
    pub fn redirect(&self, connection: Vec<u8>, redirected: Redirected) -> Vec<Bill> {
        let now = self.now();
        let mut redirects = self.redirects.borrow_mut();
        let surplus = redirects.add(connection, now, redirected);
        if let Some(due) = redirects.next() {
            self.ticker.within(now, until(now, due));
        }
        surplus
    }

    /// The proxy's current request as it was before it was redirected, if it was.
    pub fn redirected(&self, edition: &Rc<Edition>, subject: &Subject) -> Option<Redirected> {
        let mut redirects = self.redirects.borrow_mut();
        if redirects.is_empty() {
            return None;
        }
        redirects.take(&host::connection()?, edition, subject)
    }

    /// Whether a request is still held back.
    pub fn holds(&self, id: ContextId) -> bool {
        self.worker.borrow().delays.holds(StreamId(id.0))
    }

    /// Lets a request go on later.
    pub fn hold(&self, id: ContextId, hold: &Hold) {
        let now = self.now();
        let due = self.worker.borrow_mut().hold(StreamId(id.0), now, hold);
        self.ticker.within(now, until(now, due));
    }

    /// A request that was held back has ended.
    pub fn leave(&self, id: ContextId, hold: Hold) {
        let mut worker = self.worker.borrow_mut();
        let refunds = worker.leave(StreamId(id.0), hold, host::wall_clock);
        drop(worker);
        self.give_back(&refunds);
    }

    /// A request has ended while it waited for the store.
    pub fn abandon(&self, id: ContextId, pending: Box<Pending>) {
        self.worker.borrow_mut().abandon(StreamId(id.0), pending);
    }

    /// The outcome of a part for a request that has ended.
    pub fn receive_abandoned(&self, id: ContextId, part: usize, outcome: &gathering::Outcome) {
        let mut worker = self.worker.borrow_mut();
        let refunds = worker.receive_abandoned(StreamId(id.0), part, outcome);
        drop(worker);
        self.give_back(&refunds);
    }

    /// Lets those go on whose time has come; of many the first, and the others with the next tick.
    fn release(&self, now: Micros) {
        let next = || self.worker.borrow_mut().delays.pop(now);
        let mut released = 0;
        for StreamId(id) in iter::from_fn(next).take(self.room.get()) {
            if host::set_context(ContextId(id)).is_ok() {
                host::resume_request();
            }
            released += 1;
        }
        self.room.set(self.room.get() - released);
        if released > 0 {
            let _ = host::set_context(self.root);
        }
    }

    fn turn(&self) {
        let effects = self.batcher.borrow_mut().turn(self.now());
        self.perform(effects);
    }

    fn answered(&self, id: CallId, answer: Result<&[u8], Silence>) {
        let now = self.now();
        if self.eviction.answered(&self.store, now, id, answer.ok()) {
            return;
        }
        match self.live.answered(&self.store, now, id, answer.ok()) {
            Heard::NotMine => {
                self.metrics.came_back(id, now, answer.ok());
                let effects = self.batcher.borrow_mut().answered(now, id, answer);
                self.perform(effects);
                self.log_kept();
            }
            Heard::Mine => {}
            Heard::Adopted => {
                self.enter_epoch();
                let health = self.batcher.borrow().health();
                self.metrics.tell(&self.live.in_force(), health, now);
            }
        }
    }

    fn enter_epoch(&self) {
        let epoch = self.live.in_force().epoch;
        self.worker.borrow_mut().enter(epoch);
        // What was leased goes back with the ticks.
        self.ticker.within(self.now(), TICK);
    }

    fn tick(&self) {
        let now = self.now();
        self.release(now);
        while let Some(call) = self.store.late(now) {
            self.answered(call, Err(Silence::Late));
        }
        let lost = self.redirects.borrow_mut().expire(now);
        self.settle_unanswered(&lost);
        // Where nothing can be asked, what goes back would be lost: it waits.
        let health = self.batcher.borrow().health();
        let is_asked = health.open < health.lanes;
        if is_asked {
            let back = self.worker.borrow_mut().leases.expire(now);
            self.give_back(&back);
        }
        let effects = self.batcher.borrow_mut().tick(now);
        self.perform(effects);
        let health = self.log_health();
        let tell = self.metrics.tick(&self.live.in_force(), health, now);
        if !self.batcher.borrow().is_idle() {
            self.busy.set(now);
            self.live.stir(now);
        }
        self.live.tick(&self.store, now);
        self.eviction.tick(&self.store, now);
        let is_idle = now.0.saturating_sub(self.busy.get().0) >= IDLE.0;
        let worker = self.worker.borrow();
        let lease = worker.leases.next().filter(|_| is_asked);
        let late = self.store.next_late();
        let next = worker.delays.next().into_iter().chain(lease).chain(late);
        let next = next.chain(self.redirects.borrow().next());
        let due = next.min().map(|due| until(now, due));
        let tick = (!is_idle).then_some(TICK);
        let look = self.live.next_tick(now);
        let eviction = Some(self.eviction.next_tick(now));
        let wanted = [due, tick, tell, look, eviction];
        self.ticker.ticked(now, wanted.into_iter().flatten().min());
    }

    /// This worker goes.
    fn retire(&self) {
        self.metrics.retire(&self.live.in_force(), self.now());
        let company = self.metrics.leave_seat();
        self.live.leave(company);
        self.store.retire();
    }

    /// Tells in the log how the store does, when that changes.
    fn log_health(&self) -> Health {
        let batcher = self.batcher.borrow();
        let health = batcher.health();
        let before = self.logged.replace(health);
        if health.opened > before.opened
            && let Some(trouble) = batcher.trouble()
        {
            warn!(
                "weir: Redis is not asked for now, by this worker on {} of its {}: {trouble}. {} Meanwhile \
                 each limit does what its on_store_failure says.",
                health.open,
                count(health.lanes, "lane"),
                advice::on(trouble)
            );
            self.metrics.trouble(trouble);
        }
        if health.open == 0 && before.open > 0 {
            info!("weir: Redis is asked again by this worker, on all of its lanes");
        }
        health
    }

    /// Tells in the log why redis_proxy keeps a connection that it should leave, once for all workers.
    fn log_kept(&self) {
        let kept = self.batcher.borrow_mut().kept();
        if let Some(kept) = kept
            && host::claim(KEPT, kept.as_bytes())
        {
            warn!("weir: {kept}");
        }
    }

    /// Sends first, so that the next batch travels while this one's requests go on.
    fn perform(&self, effects: Effects<Ticket>) {
        let mut settled = self.send(effects);
        let room = self.room.get();
        if settled.len() > room {
            let others = settled.split_off(room);
            self.batcher.borrow_mut().put_off(others);
        }
        if self.batcher.borrow().has_put_off() {
            self.ask_turn(self.now());
        }
        self.room.set(room - settled.len());
        for (ticket, outcome) in &settled {
            ticket.settle(self, outcome);
        }
        if !settled.is_empty() {
            // The root is always there; were it not, there would be nothing to call back.
            let _ = host::set_context(self.root);
        }
    }

    /// Sends what is to be sent; who has an outcome then.
    fn send(&self, effects: Effects<Ticket>) -> Settled<Ticket> {
        let Effects {
            outgoing,
            mut settled,
        } = effects;
        for outgoing in outgoing {
            let questions = outgoing.questions();
            let now = self.now();
            let sent = self.store.call(now, outgoing.commands, &outgoing.body);
            let mut batcher = self.batcher.borrow_mut();
            match sent {
                Ok(id) => {
                    if questions > 0 {
                        self.metrics.sent(id, now, questions);
                    }
                    batcher.sent(outgoing, id);
                }
                Err(_) => {
                    let why = self.store.trouble().map_or_else(
                        || "Envoy did not make the call".to_string(),
                        |notice| notice.to_string(),
                    );
                    settled.extend(batcher.not_sent(now, outgoing, why));
                }
            }
        }
        settled
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Rounded up: a timer that fires before anybody is due has fired for nothing.
fn until(now: Micros, due: Micros) -> Millis {
    Millis(due.0.saturating_sub(now.0).div_ceil(1000))
}
