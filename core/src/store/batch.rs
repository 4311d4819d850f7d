//! Group commit: requests that wait at the same time share one call. A state machine over events (a
//! request asks, a turn comes, a call is answered, time passes) that says what to send and who has
//! an outcome; it sends nothing and reads no clock.
//!
//! A lane has one call in flight at a time: while it is, newcomers gather for the next, so that
//! batches grow with the load. What finds the way free waits for a turn, for others that come with
//! it; where the last call was for one alone, it waits for nothing. Where the round trip is long,
//! more calls may overlap, or waiting would cost more than it saves. A single primary is one lane;
//! of a cluster, each range of slots is one, and a call carries one script command for each slot.
//! Who asks more than fits into a call gets a part of it answered with each, beside the others.

use std::collections::VecDeque;
use std::rc::Rc;
use std::{fmt, iter};

use crate::codec::resp::{self, Reader, Token};
use crate::store::breaker::{Allows, Breaker};
use crate::store::call::CallId;
use crate::store::check::{CheckRequest, ShardRequest};
use crate::store::encode::Encoder;
use crate::store::error::{self, ErrorClass};
use crate::store::fan_in::Outcome;
use crate::store::reply::{self, ReplySchema};
use crate::store::script::{By, Script};
use crate::store::slot::{Lane, Slot, Topology};
use crate::time::{Span, WorkerInstant};

/// The most check requests in a call, and the most checks of all together unless one check request alone has
/// more: Redis serves nobody else while it runs, about 1.2 ms for 64 check requests of three checks each.
const MOST_QUESTIONS: usize = 64;
const MOST_CHECKS: usize = 512;
/// Of a full call so many places are for check requests that nobody waits for.
const LEAST_BACK: usize = 16;
/// The most check requests that nobody waits for, in each lane: what all requests that a worker may hold
/// back refund, twice. Beyond it the oldest are not asked, and what they would refund stays
/// counted.
const MOST_BACK: usize = 8_192;
/// Such a check request may be asked late: a window that has ended meanwhile gets nothing back.
const LATEST_BACK: Span = Span::millis(5_000);
/// The most outcomes that are told in one event; the others are told in the next.
pub const MOST_TOLD: usize = 64;
/// By what the timeout is multiplied for who asks more than fits into a call.
const PATIENCE: u64 = 10;
/// Below this round trip a second call in flight costs more CPU than the waiting it saves.
const LONG_ROUND_TRIP: Span = Span::millis(1);
/// Enough calls in flight to keep a far Redis busy, few enough to bound what a dead one holds.
const MOST_CALLS: usize = 8;

/// Redis answers nothing any more on this connection, so redis_proxy takes it for dead and dials
/// another. Never SKIP: it would shift the replies, and one request would get another's.
const HANG_UP: [&[u8]; 3] = [b"CLIENT", b"REPLY", b"OFF"];
/// Whoever has not shown the password may not even say that. But Redis (from 6.2.6 on) hangs up by
/// itself on a command of more than ten words that comes from such a one.
const WORDS_OF_A_STRANGER: usize = 11;
const STRANGER: &[u8] = b"Protocol error: unauthenticated";
/// A server that means what it says is not left more often.
const LEAVE_EVERY: Span = Span::seconds(1);
/// What redis_proxy says of itself when Redis does not answer.
const UPSTREAM: &[u8] = b"upstream failure";
/// How the sidecar's refusals begin.
const SIDECAR: &[u8] = b"ERR weir-sidecar:";

/// The requests of one worker that wait for the store. `T` is how the caller finds a request again.
#[derive(Debug)]
pub struct Batcher<T> {
    script: Script,
    lanes: Vec<LaneState<T>>,
    turn: Flush,
    /// Outcomes that could not be told when they were known.
    put_off: VecDeque<(T, Outcome)>,
}

/// When what gathers will leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    NotAsked,
    /// A turn has been asked for and not come yet.
    Asked,
    /// As soon as the request at hand has asked all that it asks.
    Now,
}

#[derive(Debug)]
struct LaneState<T> {
    topology: Topology,
    timeout: Span,
    hang_up: HangUp,
    /// When redis_proxy was made to hang up last.
    left: Option<WorkerInstant>,
    left_for: Option<ErrorClass>,
    /// Why it would not.
    kept: Option<String>,
    /// Oldest first, as all that wait.
    waiting: VecDeque<Waiting<T>>,
    /// What nobody waits for: one client that hangs up may leave thousands, and who waits is not to
    /// wait for those too.
    back: VecDeque<Waiting<T>>,
    /// Parts of what is too large for a call: one goes with each.
    patient: VecDeque<Waiting<T>>,
    calls: Vec<(CallId, Call<T>)>,
    /// A moving average over the calls that were answered.
    round_trip: Span,
    /// Whether the last call asked one check request, and nobody waited when its answer came.
    alone: bool,
    breaker: Breaker,
    /// What was wrong with the call that failed last.
    last_error: String,
    /// What to ask when the breaker wants to know whether the store is back.
    probe: Option<Probe>,
    sent: u64,
    failed: u64,
}

/// Whether redis_proxy is being made to hang up. Meanwhile nothing is asked: all replies stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    No,
    /// Once no call is under way.
    Due,
    /// Nobody has said yet whether it was sent.
    Leaves,
    UnderWay {
        id: CallId,
        since: WorkerInstant,
    },
}

/// A check request that tells whether the store takes, and where to ask it.
type Probe = (Slot, Rc<CheckRequest>);

#[derive(Debug)]
struct Waiting<T> {
    ticket: Option<T>,
    slot: Slot,
    check_request: Rc<CheckRequest>,
    since: WorkerInstant,
    patient: bool,
}

/// A call that has not been answered: a command for each slot.
#[derive(Debug)]
struct Call<T> {
    since: WorkerInstant,
    commands: Vec<Command<T>>,
}

#[derive(Debug)]
struct Command<T> {
    slot: Slot,
    /// By its SHA first; by its source for a Redis that does not know it. Nothing else is tried
    /// twice: a take that timed out may have counted.
    by: By,
    asked: Vec<Waiting<T>>,
    /// What its reply is read by, once it is written.
    schema: ReplySchema,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// None came in time, as far as the proxy says.
    Late,
    /// What was to bring it was closed at the other end.
    Closed,
}

/// What becomes of a check request that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a turn: [`Batcher::turn`] is to be called once this turn of the event loop is over.
    AskFlush,
    Wait,
    /// The store is not worth asking: the outcome is a failure, now.
    Failed,
}

/// A call that is to be sent; [`Batcher::sent`] or [`Batcher::not_sent`] follows.
#[derive(Debug)]
pub struct Outgoing<T> {
    pub body: Vec<u8>,
    /// How many replies the call will have.
    pub commands: usize,
    lane: Lane,
    call: Call<T>,
}

/// Requests that have their outcome.
pub type Settled<T> = Vec<(T, Outcome)>;

/// What to do after an event.
#[derive(Debug)]
pub struct Effects<T> {
    pub outgoing: Vec<Outgoing<T>>,
    pub settled: Settled<T>,
}

/// What an operator would want to know of the way to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub lanes: usize,
    /// Lanes that are not asked now, or on trial without anything taken yet.
    pub open: usize,
    /// How often a breaker has opened.
    pub opened: u64,
    /// Calls that were sent, looks among them.
    pub calls: u64,
    /// Calls that brought no answer, or not all of one.
    pub failures: u64,
}

impl<T> Batcher<T> {
    /// `jitter` spreads what many workers do after an outage.
    pub fn new(topology: Topology, timeout: Span, jitter: u8) -> Batcher<T> {
        Batcher {
            script: Script::production(),
            lanes: (0..topology.lanes())
                .map(|_| LaneState::new(topology, timeout, jitter))
                .collect(),
            turn: Flush::NotAsked,
            put_off: VecDeque::new(),
        }
    }

    /// A request asks. Without a ticket nobody waits for the outcome. After a request's last check request
    /// see whether it [`Batcher::hurries`].
    pub fn ask(&mut self, now: WorkerInstant, ticket: Option<T>, part: &ShardRequest) -> Next {
        let Some(lane) = self.lanes.get_mut(part.lane.0) else {
            return Next::Failed;
        };
        if lane.breaker.allows(now) != Allows::Calls {
            if lane.probe.is_none() {
                lane.probe = probe(part.slot, &part.check_request);
            }
            return Next::Failed;
        }
        let hurries = ticket.is_some() && lane.is_quiet();
        let waiting = Waiting {
            ticket,
            slot: part.slot,
            check_request: part.check_request.clone(),
            since: now,
            patient: part.patient,
        };
        lane.push(waiting);
        if self.turn != Flush::NotAsked || !lane.may_send(now) {
            return Next::Wait;
        }
        if hurries {
            self.turn = Flush::Now;
            return Next::Wait;
        }
        self.turn = Flush::Asked;
        Next::AskFlush
    }

    /// Whether what a request has just asked is to leave at once, by [`Batcher::turn`], because
    /// nobody else is to be expected.
    pub fn hurries(&self) -> bool {
        self.turn == Flush::Now
    }

    /// How many calls [`Batcher::turn`] would send at most.
    pub fn ready(&self, now: WorkerInstant) -> usize {
        let is_ready = |lane: &&LaneState<T>| {
            let asks = !lane.nobody_waits() && lane.may_send(now);
            lane.hang_up == HangUp::Due || lane.probe.is_some() || asks
        };
        self.lanes.iter().filter(is_ready).count()
    }

    /// What hurries has to wait for a turn after all, which has been asked for.
    pub fn wait_for_turn(&mut self) {
        self.turn = Flush::Asked;
    }

    /// These cannot be told their outcome now: it comes with the next event, before others'.
    pub fn put_off(&mut self, settled: Settled<T>) {
        for one in settled.into_iter().rev() {
            self.put_off.push_front(one);
        }
    }

    /// Whether outcomes are known that are still to be told: a turn is to be asked for.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Why the store is not asked, in the words of the call that failed last.
    pub fn last_error(&self) -> Option<&str> {
        self.lanes
            .iter()
            .find(|lane| lane.breaker.is_shut())
            .map(|lane| lane.last_error.as_str())
    }

    /// Whether nobody waits and nothing is to be looked after.
    pub fn is_idle(&self) -> bool {
        self.put_off.is_empty() && self.lanes.iter().all(LaneState::is_idle)
    }

    pub fn health(&self) -> Health {
        self.lanes
            .iter()
            .fold(Health::default(), |sum, lane| Health {
                lanes: sum.lanes + 1,
                open: sum.open + usize::from(lane.breaker.is_shut()),
                opened: sum.opened + lane.breaker.opened(),
                calls: sum.calls + lane.sent,
                failures: sum.failures + lane.failed,
            })
    }

    /// Why redis_proxy would not hang up, told once.
    pub fn kept(&mut self) -> Option<String> {
        self.lanes.iter_mut().find_map(|lane| lane.kept.take())
    }

    /// A turn has come.
    pub fn turn(&mut self, now: WorkerInstant) -> Effects<T> {
        self.turn = Flush::NotAsked;
        self.send(now, Settled::new())
    }

    /// An outgoing call was sent under this name.
    pub fn sent(&mut self, outgoing: Outgoing<T>, id: CallId) {
        if let Some(lane) = self.lanes.get_mut(outgoing.lane.0) {
            lane.sent += 1;
            if outgoing.call.hangs_up() {
                let since = outgoing.call.since;
                lane.hang_up = HangUp::UnderWay { id, since };
            } else {
                lane.calls.push((id, outgoing.call));
            }
        }
    }

    /// An outgoing call could not be sent, for this reason.
    pub fn not_sent(
        &mut self,
        now: WorkerInstant,
        outgoing: Outgoing<T>,
        why: String,
    ) -> Settled<T> {
        if let Some(lane) = self.lanes.get_mut(outgoing.lane.0) {
            if outgoing.call.hangs_up() {
                lane.hang_up = HangUp::No;
            } else {
                lane.last_error = why;
                lane.fail(now, outgoing.call.probe());
            }
        }
        outgoing.call.fail().collect()
    }

    /// A call was answered by the store's bytes, or will not be.
    pub fn answered(
        &mut self,
        now: WorkerInstant,
        id: CallId,
        answer: Result<&[u8], NoReply>,
    ) -> Effects<T> {
        let mut settled = Settled::new();
        let mut again = None;
        let lanes = self.lanes.iter_mut().enumerate();
        for (number, lane) in lanes {
            if lane.hung_up(now, id, answer) {
                break;
            }
            let Some(place) = lane.calls.iter().position(|(own, _)| *own == id) else {
                continue;
            };
            let (_, call) = lane.calls.swap_remove(place);
            let unknown = lane.read(now, call, answer, &self.script, &mut settled);
            if !unknown.commands.is_empty() {
                again = Some((Lane(number), unknown));
            }
            break;
        }
        let again = again.map(|(lane, call)| self.outgoing(lane, call));
        let mut effects = self.send(now, settled);
        effects.outgoing.extend(again);
        effects
    }

    /// Time has passed: whoever waited too long is settled. A call whose answer never comes is
    /// forgotten after twice the timeout, so that it holds up nobody else. And it is a turn, for the
    /// one that was asked for may never come.
    pub fn tick(&mut self, now: WorkerInstant) -> Effects<T> {
        self.turn = Flush::NotAsked;
        let mut settled = Settled::new();
        for lane in &mut self.lanes {
            lane.expire(now, &mut settled);
        }
        self.send(now, settled)
    }

    /// Sends what can be sent in every lane.
    fn send(&mut self, now: WorkerInstant, mut settled: Settled<T>) -> Effects<T> {
        let mut calls = Vec::new();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            calls.extend(
                lane.next_call(now, &mut settled)
                    .map(|call| (Lane(number), call)),
            );
        }
        let outgoing = calls
            .into_iter()
            .map(|(lane, call)| self.outgoing(lane, call))
            .collect();
        self.put_off.extend(settled);
        let first = self.put_off.len().min(MOST_TOLD);
        Effects {
            outgoing,
            settled: self.put_off.drain(..first).collect(),
        }
    }

    fn outgoing(&self, lane: Lane, mut call: Call<T>) -> Outgoing<T> {
        let mut body = Vec::new();
        if call.hangs_up() {
            let state = self.lanes.get(lane.0);
            let words = match state.and_then(|state| state.left_for) {
                Some(ErrorClass::NoAuth) => WORDS_OF_A_STRANGER,
                _ => HANG_UP.len(),
            };
            let more = iter::repeat_n(&b"-"[..], words - HANG_UP.len());
            let words: Vec<&[u8]> = HANG_UP.into_iter().chain(more).collect();
            resp::command(&mut body, words.into_iter());
            return Outgoing {
                body,
                commands: 1,
                lane,
                call,
            };
        }
        for command in &mut call.commands {
            let check_requests = command.asked.iter().map(|asked| &asked.check_request);
            let checks = check_requests.map(|check_request| check_request.checks().len());
            let mut encoder = Encoder::with_room(checks.sum());
            for asked in &command.asked {
                asked.check_request.encode(&mut encoder);
            }
            self.script.write_call(&mut body, command.by, &encoder);
            command.schema = encoder.into_schema();
        }
        Outgoing {
            body,
            commands: call.commands.len(),
            lane,
            call,
        }
    }
}

impl<T> Outgoing<T> {
    /// How many check requests the call asks.
    pub fn check_requests(&self) -> usize {
        self.call.check_requests()
    }
}

impl<T> LaneState<T> {
    fn new(topology: Topology, timeout: Span, jitter: u8) -> LaneState<T> {
        LaneState {
            topology,
            timeout,
            hang_up: HangUp::No,
            left: None,
            left_for: None,
            kept: None,
            waiting: VecDeque::new(),
            back: VecDeque::new(),
            patient: VecDeque::new(),
            calls: Vec::new(),
            round_trip: Span::ZERO,
            alone: false,
            breaker: Breaker::new(jitter),
            last_error: String::new(),
            probe: None,
            sent: 0,
            failed: 0,
        }
    }

    fn is_idle(&self) -> bool {
        let nothing_asked = self.calls.is_empty() && self.hang_up == HangUp::No;
        self.nobody_waits() && nothing_asked && self.probe.is_none()
    }

    fn nobody_waits(&self) -> bool {
        self.waiting.is_empty() && self.patient.is_empty() && self.back.is_empty()
    }

    fn push(&mut self, waiting: Waiting<T>) {
        if waiting.patient {
            self.patient.push_back(waiting);
        } else if waiting.ticket.is_some() {
            self.waiting.push_back(waiting);
        } else {
            if self.back.len() >= MOST_BACK {
                self.back.pop_front();
            }
            self.back.push_back(waiting);
        }
    }

    fn may_send(&self, now: WorkerInstant) -> bool {
        if self.hang_up != HangUp::No {
            return false;
        }
        let Some(latest) = self.calls.iter().map(|(_, call)| call.since).max() else {
            return true;
        };
        self.round_trip >= LONG_ROUND_TRIP
            && self.calls.len() < MOST_CALLS
            && now.since(latest) > self.round_trip.divided(2)
    }

    /// Whether nobody else is to be expected. Not where a round trip is long: there a turn is next to
    /// nothing, and who is left behind waits half of one.
    fn is_quiet(&self) -> bool {
        self.alone && self.round_trip < LONG_ROUND_TRIP
    }

    fn next_call(&mut self, now: WorkerInstant, settled: &mut Settled<T>) -> Option<Call<T>> {
        // Whatever is under way then would have no reply.
        if self.hang_up == HangUp::Due && self.calls.is_empty() {
            self.hang_up = HangUp::Leaves;
            self.left = Some(now);
            return Some(Call::to_hang_up(now));
        }
        match self.breaker.allows(now) {
            Allows::Calls => {
                self.probe = None;
                if self.nobody_waits() || !self.may_send(now) {
                    return None;
                }
                let (back, next) = self.next_check_requests();
                let patient = self.patient.pop_front();
                // What is refunded is there for those who ask in the same call.
                let back = self.back.drain(..back);
                let batch = back.chain(self.waiting.drain(..next)).chain(patient);
                Some(Call::new(now, batch))
            }
            permit => {
                self.back.clear();
                let failed = self.waiting.drain(..).chain(self.patient.drain(..));
                let failed = failed.filter_map(|waiting| waiting.ticket);
                settled.extend(failed.map(|ticket| (ticket, Outcome::Failed)));
                let looks = permit == Allows::Probe && self.hang_up == HangUp::No;
                let (slot, check_request) = self.probe.as_ref().filter(|_| looks)?;
                self.breaker.probed();
                let look = Waiting {
                    ticket: None,
                    slot: *slot,
                    check_request: check_request.clone(),
                    since: now,
                    patient: false,
                };
                Some(Call::new(now, [look].into_iter()))
            }
        }
    }

    /// How many check requests fit into a call, of those that nobody waits for and of the others; one
    /// always does.
    fn next_check_requests(&self) -> (usize, usize) {
        let kept = self.back.len().min(LEAST_BACK);
        let waiting = self.waiting.len().min(MOST_QUESTIONS - kept);
        let back = self.back.iter().take(MOST_QUESTIONS - waiting);
        // Who waits comes first where checks are what is scarce, but for the places that are kept.
        let (first, others) = (back.clone().take(kept), back.skip(kept));
        let mut checks = 0;
        let mut fits = |waiting: &Waiting<T>| {
            let before = checks;
            checks += waiting.check_request.checks().len();
            before == 0 || checks <= MOST_CHECKS
        };
        let first = first.take_while(|one| fits(one)).count();
        let waiting = self.waiting.iter().take(waiting);
        let waiting = waiting.take_while(|one| fits(one)).count();
        let others = match first == kept {
            true => others.take_while(|one| fits(one)).count(),
            false => 0,
        };
        (first + others, waiting)
    }

    /// Settles what the replies tell; what is to be asked once more, with the script's source.
    fn read(
        &mut self,
        now: WorkerInstant,
        call: Call<T>,
        answer: Result<&[u8], NoReply>,
        script: &Script,
        settled: &mut Settled<T>,
    ) -> Call<T> {
        let mut reader = Reader::new(answer.unwrap_or_default());
        let silence = answer.err().unwrap_or(NoReply::Late);
        let mut unknown = Call {
            since: call.since,
            commands: Vec::new(),
        };
        self.alone = self.nobody_waits() && call.check_requests() == 1;
        let mut failed = None;
        // Whether something was taken matters only to who wonders whether it can be.
        let (wonders, mut took) = (self.breaker.is_shut(), false);
        for command in call.commands {
            match command.read(call.since, &mut reader, silence, script) {
                Answered::Told(outcomes) => {
                    took = took || (wonders && command.took(&outcomes));
                    let outcomes = command.asked.into_iter().zip(outcomes);
                    settled
                        .extend(outcomes.filter_map(|(asked, told)| Some((asked.ticket?, told))));
                }
                Answered::Unknown => {
                    unknown.commands.push(Command {
                        by: By::Source,
                        ..command
                    });
                }
                Answered::Failed(last_error, class) => {
                    self.last_error = last_error;
                    if let Some(class) = class.filter(|class| class.stays()) {
                        self.leave(now, class);
                    }
                    failed = failed.or_else(|| command.probe());
                    settled.extend(command.fail());
                }
            }
        }
        if failed.is_some() {
            self.fail(now, failed);
        } else {
            self.learn_round_trip(now.since(call.since));
            self.breaker.succeeded(took);
        }
        unknown
    }

    /// What Redis answers will stay the same on this connection: redis_proxy is to hang up, and dial
    /// another, which may lead elsewhere. In a cluster the command would go to one node, and not to
    /// the one that answered; there redis_proxy asks for the map of slots anew.
    fn leave(&mut self, now: WorkerInstant, class: ErrorClass) {
        let lately = |left: WorkerInstant| now.since(left) < LEAVE_EVERY;
        let is_due = self.topology == Topology::Single && !self.left.is_some_and(lately);
        if is_due && self.hang_up == HangUp::No {
            self.hang_up = HangUp::Due;
            self.left_for = Some(class);
        }
    }

    /// Whether this was the call that makes redis_proxy hang up. Without a reply, or with one of
    /// redis_proxy's own, it does.
    fn hung_up(&mut self, now: WorkerInstant, id: CallId, answer: Result<&[u8], NoReply>) -> bool {
        if !matches!(self.hang_up, HangUp::UnderWay { id: own, .. } if own == id) {
            return false;
        }
        let token = Reader::new(answer.unwrap_or_default()).token();
        // Its own deadline may be a moment away.
        if let Ok(None) = token {
            return true;
        }
        self.hang_up = HangUp::No;
        self.breaker.looks_at(now);
        match token {
            Ok(Some(Token::Error(error))) if error.starts_with(UPSTREAM) => {}
            Ok(Some(Token::Error(error))) if error::holds(error, STRANGER) => {}
            // The sidecar hangs up by itself.
            Ok(Some(Token::Error(error))) if error.starts_with(SIDECAR) => {}
            Ok(Some(Token::Error(error))) => {
                self.kept = Some(format!(
                    "redis_proxy keeps a connection to Redis that answers {:?}: CLIENT REPLY OFF, \
                     which makes it hang up, is answered {:?}; it needs custom_commands: [client] \
                     in redis_proxy, and +client|reply for Redis's user",
                    self.last_error,
                    words(error)
                ));
            }
            _ => {}
        }
        true
    }

    fn expire(&mut self, now: WorkerInstant, settled: &mut Settled<T>) {
        let timeout = self.timeout;
        let late = |since: WorkerInstant, after: Span| now.since(since) >= after;
        if let HangUp::UnderWay { since, .. } = self.hang_up
            && late(since, timeout.times(2))
        {
            self.hang_up = HangUp::No;
            self.breaker.looks_at(now);
        }
        let patience = timeout.times(PATIENCE);
        for (line, after) in [
            (&mut self.waiting, timeout),
            (&mut self.patient, patience),
            (&mut self.back, LATEST_BACK),
        ] {
            while line.front().is_some_and(|first| late(first.since, after))
                && let Some(waiting) = line.pop_front()
            {
                settled.extend(waiting.ticket.map(|ticket| (ticket, Outcome::Failed)));
            }
        }
        let too_late = |waiting: &Waiting<T>| {
            let after = if waiting.patient { patience } else { timeout };
            late(waiting.since, after)
        };
        let commands = self
            .calls
            .iter_mut()
            .flat_map(|(_, call)| &mut call.commands);
        for asked in commands.flat_map(|command| &mut command.asked) {
            if too_late(asked)
                && let Some(ticket) = asked.ticket.take()
            {
                settled.push((ticket, Outcome::Failed));
            }
        }
        let mut lost = None;
        // Who has more patience than a call is remembered has no answer either.
        self.calls.retain_mut(|(_, call)| {
            let keep = !late(call.since, timeout.times(2));
            if !keep {
                lost = call.probe();
                let commands = call.commands.iter_mut();
                let asked = commands.flat_map(|command| &mut command.asked);
                let tickets = asked.filter_map(|asked| asked.ticket.take());
                settled.extend(tickets.map(|ticket| (ticket, Outcome::Failed)));
            }
            keep
        });
        if lost.is_some() {
            self.fail(now, lost);
        }
    }

    /// A call has failed. Where it asked is where to look, so that a breaker closes again where nobody
    /// calls any more.
    fn fail(&mut self, now: WorkerInstant, probe: Option<Probe>) {
        self.failed += 1;
        self.breaker.failed(now);
        if self.breaker.allows(now) != Allows::Calls && self.probe.is_none() {
            self.probe = probe;
        }
    }

    /// An eighth of the news: steady against one slow reply, quick enough for a failover.
    fn learn_round_trip(&mut self, sample: Span) {
        self.round_trip = match self.round_trip {
            Span::ZERO => sample,
            known => (known.times(7) + sample).divided(8),
        };
    }
}

impl<T> Call<T> {
    /// One command for each slot, in the order in which the slots were first asked about.
    fn new(now: WorkerInstant, batch: impl Iterator<Item = Waiting<T>>) -> Call<T> {
        let mut commands: Vec<Command<T>> = Vec::new();
        for waiting in batch {
            match commands
                .iter_mut()
                .find(|command| command.slot == waiting.slot)
            {
                Some(command) => command.asked.push(waiting),
                None => commands.push(Command {
                    slot: waiting.slot,
                    by: By::Sha,
                    asked: vec![waiting],
                    schema: ReplySchema::default(),
                }),
            }
        }
        Call {
            since: now,
            commands,
        }
    }

    fn to_hang_up(now: WorkerInstant) -> Call<T> {
        Call {
            since: now,
            commands: Vec::new(),
        }
    }

    /// It asks nothing.
    fn hangs_up(&self) -> bool {
        self.commands.is_empty()
    }

    fn check_requests(&self) -> usize {
        self.commands
            .iter()
            .map(|command| command.asked.len())
            .sum()
    }

    fn probe(&self) -> Option<Probe> {
        self.commands.first()?.probe()
    }

    fn fail(self) -> impl Iterator<Item = (T, Outcome)> {
        self.commands.into_iter().flat_map(Command::fail)
    }
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoReply::Late => "no answer in time",
            NoReply::Closed => {
                "its cluster closes the stream (\"transport\": \"stream\" is for the bridge, and needs the \
                 upstream_config of envoy/store-bridge.yaml)"
            }
        })
    }
}

/// What is no reply of the script: a proxy's own page, or another script's.
const STRANGE: &str = "an answer that is not the script's";
/// As much of an error as a log line should hold.
const LONGEST_TROUBLE: usize = 200;

fn words(error: &[u8]) -> String {
    String::from_utf8_lossy(error.get(..LONGEST_TROUBLE).unwrap_or(error)).into_owned()
}

/// An error in its own words; where a command is missing, with its name and the mend.
fn refusal(error: &[u8], class: ErrorClass, script: &Script) -> String {
    let missing = match class {
        ErrorClass::NoPerm => error::refused_command(error, script.source()),
        _ => None,
    };
    match missing {
        None => words(error),
        Some(command) => format!(
            "Redis's user may not use {command}: ACL SETUSER … +{} (docs/operating.md lists all \
             that Weir needs)",
            command.to_lowercase()
        ),
    }
}

fn probe(slot: Slot, check_request: &CheckRequest) -> Option<Probe> {
    Some((slot, Rc::new(check_request.probing()?)))
}

/// What a command's reply amounts to.
enum Answered {
    /// An outcome for each check request, in order.
    Told(Vec<Outcome>),
    /// Redis does not know the script, and has not been sent it.
    Unknown,
    /// An error of the store, or bytes that are no reply of the script: in words.
    Failed(String, Option<ErrorClass>),
}

impl<T> Command<T> {
    fn probe(&self) -> Option<Probe> {
        probe(self.slot, &self.asked.first()?.check_request)
    }

    fn took(&self, outcomes: &[Outcome]) -> bool {
        let mut told = self.asked.iter().zip(outcomes);
        told.any(|(asked, outcome)| match outcome {
            Outcome::Answered { told, .. } => asked.check_request.took(told),
            Outcome::Failed => false,
        })
    }

    fn fail(self) -> impl Iterator<Item = (T, Outcome)> {
        let tickets = self.asked.into_iter().filter_map(|asked| asked.ticket);
        tickets.map(|ticket| (ticket, Outcome::Failed))
    }

    /// Reads this command's reply off the replies.
    fn read(
        &self,
        asked: WorkerInstant,
        reader: &mut Reader<'_>,
        silence: NoReply,
        script: &Script,
    ) -> Answered {
        let reply = match reader.token() {
            Ok(Some(Token::Bulk(Some(reply)))) => reply,
            Ok(Some(Token::Error(error))) if error.starts_with(b"NOSCRIPT") => {
                return match self.by {
                    By::Sha => Answered::Unknown,
                    By::Source => Answered::Failed(words(error), Some(ErrorClass::NoScript)),
                };
            }
            Ok(Some(Token::Error(error))) => {
                let class = ErrorClass::of(error);
                return Answered::Failed(refusal(error, class, script), Some(class));
            }
            Ok(None) => return Answered::Failed(silence.to_string(), None),
            _ => return Answered::Failed(STRANGE.to_string(), None),
        };
        let integers = reply::integers(reply);
        let answer = integers.map(|integers| reply::decode(&self.schema, integers));
        let Some(Ok(answer)) = answer else {
            return Answered::Failed(STRANGE.to_string(), None);
        };
        let mut told = answer.told.into_iter();
        let outcomes = self.asked.iter().map(|waiting| Outcome::Answered {
            now: answer.now,
            asked,
            told: told
                .by_ref()
                .take(waiting.check_request.schema().count())
                .collect(),
        });
        Answered::Told(outcomes.collect())
    }
}

#[cfg(test)]
mod tests;
