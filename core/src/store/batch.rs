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
use crate::store::breaker::{Breaker, Permit};
use crate::store::call::CallId;
use crate::store::check::{Part, Question};
use crate::store::encode::Program;
use crate::store::error::{self, ErrorClass};
use crate::store::fan_in::Outcome;
use crate::store::reply::{self, Shape};
use crate::store::script::{By, Script};
use crate::store::slot::{Lane, Slot, Topology};
use crate::time::{Micros, Millis};

/// The most questions in a call, and the most checks of all together unless one question alone has
/// more: Redis serves nobody else while it runs, about 1.2 ms for 64 questions of three checks each.
const MOST_QUESTIONS: usize = 64;
const MOST_CHECKS: usize = 512;
/// Of a full call so many places are for questions that nobody waits for.
const LEAST_BACK: usize = 16;
/// The most questions that nobody waits for, in each lane: what all requests that a worker may hold
/// back give back, twice. Beyond it the oldest are not asked, and what they would give back stays
/// counted.
const MOST_BACK: usize = 8_192;
/// Such a question may be asked late: a window that has ended meanwhile gets nothing back.
const LATEST_BACK: Millis = Millis(5_000);
/// The most outcomes that are told in one event; the others are told in the next.
pub const MOST_TOLD: usize = 64;
/// By what the timeout is multiplied for who asks more than fits into a call.
const PATIENCE: u64 = 10;
/// Below this round trip a second call in flight costs more CPU than the waiting it saves.
const LONG_ROUND_TRIP: Micros = Micros(1_000);
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
const LEAVE_EVERY: Micros = Micros(1_000_000);
/// What redis_proxy says of itself when Redis does not answer.
const UPSTREAM: &[u8] = b"upstream failure";
/// How the sidecar's refusals begin.
const SIDECAR: &[u8] = b"ERR weir-sidecar:";

/// The requests of one worker that wait for the store. `T` is how the caller finds a request again.
#[derive(Debug)]
pub struct Batcher<T> {
    script: Script,
    lanes: Vec<LaneState<T>>,
    turn: Turn,
    /// Outcomes that could not be told when they were known.
    put_off: VecDeque<(T, Outcome)>,
}

/// When what gathers will leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    NotAsked,
    /// A turn has been asked for and not come yet.
    Asked,
    /// As soon as the request at hand has asked all that it asks.
    Now,
}

#[derive(Debug)]
struct LaneState<T> {
    topology: Topology,
    timeout: Millis,
    hang_up: HangUp,
    /// When redis_proxy was made to hang up last.
    left: Option<Micros>,
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
    round_trip: Micros,
    /// Whether the last call asked one question, and nobody waited when its answer came.
    alone: bool,
    breaker: Breaker,
    /// What was wrong with the call that failed last.
    trouble: String,
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
        since: Micros,
    },
}

/// A question that tells whether the store takes, and where to ask it.
type Probe = (Slot, Rc<Question>);

#[derive(Debug)]
struct Waiting<T> {
    ticket: Option<T>,
    slot: Slot,
    question: Rc<Question>,
    since: Micros,
    patient: bool,
}

/// A call that has not been answered: a command for each slot.
#[derive(Debug)]
struct Call<T> {
    since: Micros,
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
    shape: Shape,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// None came in time, as far as the proxy says.
    Late,
    /// What was to bring it was closed at the other end.
    Closed,
}

/// What becomes of a question that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a turn: [`Batcher::turn`] is to be called once this turn of the event loop is over.
    AskTurn,
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
    pub fn new(topology: Topology, timeout: Millis, jitter: u8) -> Batcher<T> {
        Batcher {
            script: Script::production(),
            lanes: (0..topology.lanes())
                .map(|_| LaneState::new(topology, timeout, jitter))
                .collect(),
            turn: Turn::NotAsked,
            put_off: VecDeque::new(),
        }
    }

    /// A request asks. Without a ticket nobody waits for the outcome. After a request's last question
    /// see whether it [`Batcher::hurries`].
    pub fn ask(&mut self, now: Micros, ticket: Option<T>, part: &Part) -> Next {
        let Some(lane) = self.lanes.get_mut(part.lane.0) else {
            return Next::Failed;
        };
        if lane.breaker.permit(now) != Permit::Calls {
            if lane.probe.is_none() {
                lane.probe = probe(part.slot, &part.question);
            }
            return Next::Failed;
        }
        let hurries = ticket.is_some() && lane.is_quiet();
        let waiting = Waiting {
            ticket,
            slot: part.slot,
            question: part.question.clone(),
            since: now,
            patient: part.patient,
        };
        lane.push(waiting);
        if self.turn != Turn::NotAsked || !lane.may_send(now) {
            return Next::Wait;
        }
        if hurries {
            self.turn = Turn::Now;
            return Next::Wait;
        }
        self.turn = Turn::Asked;
        Next::AskTurn
    }

    /// Whether what a request has just asked is to leave at once, by [`Batcher::turn`], because
    /// nobody else is to be expected.
    pub fn hurries(&self) -> bool {
        self.turn == Turn::Now
    }

    /// How many calls [`Batcher::turn`] would send at most.
    pub fn ready(&self, now: Micros) -> usize {
        let is_ready = |lane: &&LaneState<T>| {
            let asks = !lane.nobody_waits() && lane.may_send(now);
            lane.hang_up == HangUp::Due || lane.probe.is_some() || asks
        };
        self.lanes.iter().filter(is_ready).count()
    }

    /// What hurries has to wait for a turn after all, which has been asked for.
    pub fn wait_for_turn(&mut self) {
        self.turn = Turn::Asked;
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
    pub fn trouble(&self) -> Option<&str> {
        self.lanes
            .iter()
            .find(|lane| lane.breaker.is_shut())
            .map(|lane| lane.trouble.as_str())
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
    pub fn turn(&mut self, now: Micros) -> Effects<T> {
        self.turn = Turn::NotAsked;
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
    pub fn not_sent(&mut self, now: Micros, outgoing: Outgoing<T>, why: String) -> Settled<T> {
        if let Some(lane) = self.lanes.get_mut(outgoing.lane.0) {
            if outgoing.call.hangs_up() {
                lane.hang_up = HangUp::No;
            } else {
                lane.trouble = why;
                lane.fail(now, outgoing.call.probe());
            }
        }
        outgoing.call.fail().collect()
    }

    /// A call was answered by the store's bytes, or will not be.
    pub fn answered(
        &mut self,
        now: Micros,
        id: CallId,
        answer: Result<&[u8], Silence>,
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
    pub fn tick(&mut self, now: Micros) -> Effects<T> {
        self.turn = Turn::NotAsked;
        let mut settled = Settled::new();
        for lane in &mut self.lanes {
            lane.expire(now, &mut settled);
        }
        self.send(now, settled)
    }

    /// Sends what can be sent in every lane.
    fn send(&mut self, now: Micros, mut settled: Settled<T>) -> Effects<T> {
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
            let questions = command.asked.iter().map(|asked| &asked.question);
            let checks = questions.map(|question| question.checks().len());
            let mut program = Program::with_room(checks.sum());
            for asked in &command.asked {
                asked.question.encode(&mut program);
            }
            self.script.write_call(&mut body, command.by, &program);
            command.shape = program.into_shape();
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
    /// How many questions the call asks.
    pub fn questions(&self) -> usize {
        self.call.questions()
    }
}

impl<T> LaneState<T> {
    fn new(topology: Topology, timeout: Millis, jitter: u8) -> LaneState<T> {
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
            round_trip: Micros(0),
            alone: false,
            breaker: Breaker::new(jitter),
            trouble: String::new(),
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

    fn may_send(&self, now: Micros) -> bool {
        if self.hang_up != HangUp::No {
            return false;
        }
        let Some(latest) = self.calls.iter().map(|(_, call)| call.since).max() else {
            return true;
        };
        self.round_trip >= LONG_ROUND_TRIP
            && self.calls.len() < MOST_CALLS
            && now.0.saturating_sub(latest.0) > self.round_trip.0 / 2
    }

    /// Whether nobody else is to be expected. Not where a round trip is long: there a turn is next to
    /// nothing, and who is left behind waits half of one.
    fn is_quiet(&self) -> bool {
        self.alone && self.round_trip < LONG_ROUND_TRIP
    }

    fn next_call(&mut self, now: Micros, settled: &mut Settled<T>) -> Option<Call<T>> {
        // Whatever is under way then would have no reply.
        if self.hang_up == HangUp::Due && self.calls.is_empty() {
            self.hang_up = HangUp::Leaves;
            self.left = Some(now);
            return Some(Call::to_hang_up(now));
        }
        match self.breaker.permit(now) {
            Permit::Calls => {
                self.probe = None;
                if self.nobody_waits() || !self.may_send(now) {
                    return None;
                }
                let (back, next) = self.next_questions();
                let patient = self.patient.pop_front();
                // What is given back is there for those who ask in the same call.
                let back = self.back.drain(..back);
                let batch = back.chain(self.waiting.drain(..next)).chain(patient);
                Some(Call::new(now, batch))
            }
            permit => {
                self.back.clear();
                let failed = self.waiting.drain(..).chain(self.patient.drain(..));
                let failed = failed.filter_map(|waiting| waiting.ticket);
                settled.extend(failed.map(|ticket| (ticket, Outcome::Failed)));
                let looks = permit == Permit::Look && self.hang_up == HangUp::No;
                let (slot, question) = self.probe.as_ref().filter(|_| looks)?;
                self.breaker.looked();
                let look = Waiting {
                    ticket: None,
                    slot: *slot,
                    question: question.clone(),
                    since: now,
                    patient: false,
                };
                Some(Call::new(now, [look].into_iter()))
            }
        }
    }

    /// How many questions fit into a call, of those that nobody waits for and of the others; one
    /// always does.
    fn next_questions(&self) -> (usize, usize) {
        let kept = self.back.len().min(LEAST_BACK);
        let waiting = self.waiting.len().min(MOST_QUESTIONS - kept);
        let back = self.back.iter().take(MOST_QUESTIONS - waiting);
        // Who waits comes first where checks are what is scarce, but for the places that are kept.
        let (first, others) = (back.clone().take(kept), back.skip(kept));
        let mut checks = 0;
        let mut fits = |waiting: &Waiting<T>| {
            let before = checks;
            checks += waiting.question.checks().len();
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
        now: Micros,
        call: Call<T>,
        answer: Result<&[u8], Silence>,
        script: &Script,
        settled: &mut Settled<T>,
    ) -> Call<T> {
        let mut reader = Reader::new(answer.unwrap_or_default());
        let silence = answer.err().unwrap_or(Silence::Late);
        let mut unknown = Call {
            since: call.since,
            commands: Vec::new(),
        };
        self.alone = self.nobody_waits() && call.questions() == 1;
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
                Answered::Failed(trouble, class) => {
                    self.trouble = trouble;
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
            self.learn_round_trip(Micros(now.0.saturating_sub(call.since.0)));
            self.breaker.succeeded(took);
        }
        unknown
    }

    /// What Redis answers will stay the same on this connection: redis_proxy is to hang up, and dial
    /// another, which may lead elsewhere. In a cluster the command would go to one node, and not to
    /// the one that answered; there redis_proxy asks for the map of slots anew.
    fn leave(&mut self, now: Micros, class: ErrorClass) {
        let lately = |left: Micros| now.0.saturating_sub(left.0) < LEAVE_EVERY.0;
        let is_due = self.topology == Topology::Single && !self.left.is_some_and(lately);
        if is_due && self.hang_up == HangUp::No {
            self.hang_up = HangUp::Due;
            self.left_for = Some(class);
        }
    }

    /// Whether this was the call that makes redis_proxy hang up. Without a reply, or with one of
    /// redis_proxy's own, it does.
    fn hung_up(&mut self, now: Micros, id: CallId, answer: Result<&[u8], Silence>) -> bool {
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
                    self.trouble,
                    words(error)
                ));
            }
            _ => {}
        }
        true
    }

    fn expire(&mut self, now: Micros, settled: &mut Settled<T>) {
        let timeout = self.timeout.0.saturating_mul(1000);
        let late = |since: Micros, after: u64| now.0.saturating_sub(since.0) >= after;
        if let HangUp::UnderWay { since, .. } = self.hang_up
            && late(since, timeout.saturating_mul(2))
        {
            self.hang_up = HangUp::No;
            self.breaker.looks_at(now);
        }
        let patience = timeout.saturating_mul(PATIENCE);
        let latest_back = LATEST_BACK.0.saturating_mul(1000);
        for (line, after) in [
            (&mut self.waiting, timeout),
            (&mut self.patient, patience),
            (&mut self.back, latest_back),
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
            let keep = !late(call.since, timeout.saturating_mul(2));
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
    fn fail(&mut self, now: Micros, probe: Option<Probe>) {
        self.failed += 1;
        self.breaker.failed(now);
        if self.breaker.permit(now) != Permit::Calls && self.probe.is_none() {
            self.probe = probe;
        }
    }

    /// An eighth of the news: steady against one slow reply, quick enough for a failover.
    fn learn_round_trip(&mut self, sample: Micros) {
        self.round_trip = match self.round_trip {
            Micros(0) => sample,
            Micros(known) => Micros((known * 7 + sample.0) / 8),
        };
    }
}

impl<T> Call<T> {
    /// One command for each slot, in the order in which the slots were first asked about.
    fn new(now: Micros, batch: impl Iterator<Item = Waiting<T>>) -> Call<T> {
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
                    shape: Shape::default(),
                }),
            }
        }
        Call {
            since: now,
            commands,
        }
    }

    fn to_hang_up(now: Micros) -> Call<T> {
        Call {
            since: now,
            commands: Vec::new(),
        }
    }

    /// It asks nothing.
    fn hangs_up(&self) -> bool {
        self.commands.is_empty()
    }

    fn questions(&self) -> usize {
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

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Silence::Late => "no answer in time",
            Silence::Closed => {
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

fn probe(slot: Slot, question: &Question) -> Option<Probe> {
    Some((slot, Rc::new(question.probing()?)))
}

/// What a command's reply amounts to.
enum Answered {
    /// An outcome for each question, in order.
    Told(Vec<Outcome>),
    /// Redis does not know the script, and has not been sent it.
    Unknown,
    /// An error of the store, or bytes that are no reply of the script: in words.
    Failed(String, Option<ErrorClass>),
}

impl<T> Command<T> {
    fn probe(&self) -> Option<Probe> {
        probe(self.slot, &self.asked.first()?.question)
    }

    fn took(&self, outcomes: &[Outcome]) -> bool {
        let mut told = self.asked.iter().zip(outcomes);
        told.any(|(asked, outcome)| match outcome {
            Outcome::Told { told, .. } => asked.question.took(told),
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
        asked: Micros,
        reader: &mut Reader<'_>,
        silence: Silence,
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
        let answer = integers.map(|integers| reply::decode(&self.shape, integers));
        let Some(Ok(answer)) = answer else {
            return Answered::Failed(STRANGE.to_string(), None);
        };
        let mut told = answer.told.into_iter();
        let outcomes = self.asked.iter().map(|waiting| Outcome::Told {
            now: answer.now,
            asked,
            told: told
                .by_ref()
                .take(waiting.question.shape().count())
                .collect(),
        });
        Answered::Told(outcomes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::resp;
    use crate::quota::cost::Cost;
    use crate::quota::limit::{Algorithm, Quota};
    use crate::quota::operation::Kind;
    use crate::quota::packed::Terms;
    use crate::store::check::Check;

    const TIMEOUT: Millis = Millis(50);
    /// What the script is told of a look: a take from one limit.
    const TAKE: &str = "\r\n\x01\x01\x01\x01\x01\r\n";

    fn part(key: &str, topology: Topology) -> Part {
        let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
        let check = Check {
            key: key.as_bytes().to_vec(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        };
        let mut question = Question::default();
        question.ask(Kind::Take, [check]);
        Rc::new(question).split(topology).remove(0)
    }

    fn batcher() -> Batcher<u32> {
        Batcher::new(Topology::Single, TIMEOUT, 0)
    }

    fn ask_one(batcher: &mut Batcher<u32>, now: Micros, ticket: u32) -> Next {
        batcher.ask(
            now,
            Some(ticket),
            &part(&format!("key{ticket}"), Topology::Single),
        )
    }

    /// Requests `range` ask at `now`; the first one that finds the way free asks for the turn.
    fn ask(batcher: &mut Batcher<u32>, now: Micros, range: std::ops::Range<u32>) {
        for ticket in range {
            assert_ne!(ask_one(batcher, now, ticket), Next::Failed);
        }
    }

    fn send(batcher: &mut Batcher<u32>, now: Micros, id: u32) -> String {
        let Effects { outgoing, settled } = batcher.turn(now);
        assert!(settled.is_empty());
        hand_over(batcher, outgoing, id)
    }

    /// Sends the one call that there is.
    fn hand_over(batcher: &mut Batcher<u32>, mut outgoing: Vec<Outgoing<u32>>, id: u32) -> String {
        assert_eq!(outgoing.len(), 1, "one call is to be sent");
        let outgoing = outgoing.remove(0);
        let body = String::from_utf8_lossy(&outgoing.body).into_owned();
        batcher.sent(outgoing, CallId(id));
        body
    }

    fn answered(batcher: &mut Batcher<u32>, now: u64, id: u32, body: &[u8]) -> Effects<u32> {
        batcher.answered(Micros(now), CallId(id), Ok(body))
    }

    /// The reply to `count` questions of one limit, each of which passed.
    fn reply(count: usize) -> Vec<u8> {
        let mut integers: Vec<i64> = vec![1_000_000];
        for remaining in 0..count {
            integers.extend([1, remaining as i64, 0, 60_000]);
        }
        let doubles = integers
            .iter()
            .flat_map(|integer| (*integer as f64).to_le_bytes());
        let mut reply = Vec::new();
        resp::push_bulk(&mut reply, &doubles.collect::<Vec<_>>());
        reply
    }

    fn tickets(settled: &Settled<u32>) -> Vec<u32> {
        settled.iter().map(|(ticket, _)| *ticket).collect()
    }

    fn failed(settled: &Settled<u32>) -> bool {
        settled
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Failed)
    }

    #[test]
    fn requests_of_one_turn_share_a_call_and_each_has_its_own_outcome() {
        let mut batcher = batcher();
        assert_eq!(ask_one(&mut batcher, Micros(0), 0), Next::AskTurn);
        assert_eq!(ask_one(&mut batcher, Micros(0), 1), Next::Wait);
        let body = send(&mut batcher, Micros(1), 7);
        assert!(body.contains("EVALSHA") && body.contains("key0") && body.contains("key1"));

        let Effects { outgoing, settled } = answered(&mut batcher, 2, 7, &reply(2));
        assert!(outgoing.is_empty() && batcher.is_idle());
        assert_eq!(tickets(&settled), [0, 1]);
        for (ticket, outcome) in settled {
            let Outcome::Told { now, told, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(now, Micros(1_000_000));
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].limits[0].remaining, i64::from(ticket));
        }
    }

    /// A batcher whose last call but one asked `questions`, while as many as `waiting` came; all have
    /// been answered, each call after `round_trip`.
    fn after(questions: u32, waiting: u32, round_trip: u64) -> Batcher<u32> {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..questions);
        send(&mut batcher, Micros(0), 1);
        ask(&mut batcher, Micros(0), questions..questions + waiting);
        let next = answered(&mut batcher, round_trip, 1, &reply(questions as usize)).outgoing;
        if waiting > 0 {
            hand_over(&mut batcher, next, 2);
            answered(&mut batcher, 2 * round_trip, 2, &reply(waiting as usize));
        }
        batcher
    }

    #[test]
    fn who_is_alone_waits_for_no_turn() {
        for (questions, waiting, round_trip, alone) in [
            (1, 0, 400, true),
            (2, 0, 400, false),
            (3, 1, 400, true),
            (1, 2, 400, false),
            (1, 0, 1_000, false),
        ] {
            let case = format!("{questions}, then {waiting}, in {round_trip} µs");
            let mut batcher = after(questions, waiting, round_trip);
            let next = ask_one(&mut batcher, Micros(9_000), 10);
            assert_eq!(next == Next::AskTurn, !alone, "{case}");
            assert_eq!(batcher.hurries(), alone, "{case}");
            // What the same request asks besides goes with it.
            assert_eq!(ask_one(&mut batcher, Micros(9_000), 11), Next::Wait);
            send(&mut batcher, Micros(9_000), 3);
            assert!(!batcher.hurries(), "{case}");
            let settled = answered(&mut batcher, 9_001, 3, &reply(2)).settled;
            assert_eq!(tickets(&settled), [10, 11], "{case}");
        }
    }

    #[test]
    fn who_comes_while_somebody_waits_hurries_nobody() {
        let mut batcher = after(1, 0, 400);
        ask(&mut batcher, Micros(500), 1..2);
        send(&mut batcher, Micros(500), 2);
        ask(&mut batcher, Micros(500), 2..3);
        assert!(!batcher.hurries());
        let next = answered(&mut batcher, 900, 2, &reply(1)).outgoing;
        hand_over(&mut batcher, next, 3);
        ask(&mut batcher, Micros(900), 3..4);
        assert!(!batcher.hurries(), "one call at a time");
    }

    #[test]
    fn what_nobody_waits_for_does_not_hurry() {
        let mut batcher = after(1, 0, 400);
        let next = batcher.ask(Micros(400), None, &part("key", Topology::Single));
        assert_eq!(next, Next::AskTurn);
        assert_eq!(ask_one(&mut batcher, Micros(400), 1), Next::Wait);
        assert!(!batcher.hurries());
    }

    #[test]
    fn who_could_not_be_told_is_told_in_the_next_turn() {
        let mut batcher = after(1, 0, 400);
        ask(&mut batcher, Micros(400), 1..2);
        let outgoing = batcher.turn(Micros(400)).outgoing.remove(0);
        let settled = batcher.not_sent(Micros(400), outgoing, String::new());
        batcher.put_off(settled);
        assert!(!batcher.is_idle());
        let settled = batcher.turn(Micros(401)).settled;
        assert!(failed(&settled) && tickets(&settled) == [1] && batcher.is_idle());
    }

    /// After a turn that never came nobody asked for another: all waited for ticks.
    #[test]
    fn a_tick_stands_in_for_a_turn_that_does_not_come() {
        let mut batcher = batcher();
        assert_eq!(ask_one(&mut batcher, Micros(0), 0), Next::AskTurn);
        let outgoing = batcher.tick(Micros(1)).outgoing;
        hand_over(&mut batcher, outgoing, 1);
        answered(&mut batcher, 2_000, 1, &reply(1));
        assert_eq!(ask_one(&mut batcher, Micros(2_000), 1), Next::AskTurn);
    }

    #[test]
    fn newcomers_wait_for_the_call_in_flight_and_leave_with_its_reply() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..1);
        send(&mut batcher, Micros(0), 1);
        assert_eq!(ask_one(&mut batcher, Micros(1), 1), Next::Wait);
        assert!(batcher.turn(Micros(2)).outgoing.is_empty());
        let Effects { outgoing, settled } = answered(&mut batcher, 3, 1, &reply(1));
        assert_eq!(tickets(&settled), [0]);
        assert_eq!(outgoing.len(), 1, "the next call leaves at once");
    }

    #[test]
    fn a_call_carries_no_more_than_its_cap() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..100);
        send(&mut batcher, Micros(0), 1);
        let Effects { outgoing, settled } = answered(&mut batcher, 1, 1, &reply(MOST_QUESTIONS));
        assert_eq!(settled.len(), MOST_QUESTIONS);
        hand_over(&mut batcher, outgoing, 2);
        let Effects { outgoing, settled } = answered(&mut batcher, 2, 2, &reply(36));
        assert_eq!((settled.len(), outgoing.len()), (36, 0));
    }

    fn give_back(batcher: &mut Batcher<u32>, now: Micros, many: usize) {
        for number in 0..many {
            let part = part(&format!("back{number}"), Topology::Single);
            assert_ne!(batcher.ask(now, None, &part), Next::Failed);
        }
    }

    /// A client that hangs up leaves thousands of these at once. Requests waited behind them until their
    /// time was over.
    #[test]
    fn what_nobody_waits_for_holds_up_nobody_and_is_asked_in_the_end() {
        let mut batcher = batcher();
        give_back(&mut batcher, Micros(0), 4_000);
        ask(&mut batcher, Micros(1), 0..100);
        let (mut calls, mut asked) = (0, 0);
        let mut told = Vec::new();
        let mut outgoing = batcher.turn(Micros(2)).outgoing;
        while let Some(call) = outgoing.pop() {
            let questions = call.questions();
            assert!(questions <= MOST_QUESTIONS);
            asked += questions;
            calls += 1;
            batcher.sent(call, CallId(calls));
            // The last of them are asked when a request's time would be over.
            let now = u64::from(calls) * 900;
            let Effects { outgoing: more, .. } = batcher.tick(Micros(now));
            assert!(more.is_empty(), "one call at a time");
            let effects = answered(&mut batcher, now, calls, &reply(questions));
            told.extend(tickets(&effects.settled));
            outgoing = effects.outgoing;
            if calls == 3 {
                assert_eq!(told, (0..100).collect::<Vec<_>>());
            }
        }
        assert_eq!(asked, 4_100);
        assert!(u64::from(calls) * 900 > TIMEOUT.0 * 1000);
        assert!(batcher.is_idle());
    }

    #[test]
    fn what_nobody_waits_for_is_bounded_and_is_not_asked_for_ever() {
        let mut batcher = batcher();
        give_back(&mut batcher, Micros(0), 10_000);
        assert_eq!(batcher.lanes[0].back.len(), MOST_BACK);
        let mut outgoing = batcher.tick(Micros(5_000_000)).outgoing;
        assert!(outgoing.pop().is_none() && batcher.is_idle());
    }

    /// One event told all of them, or moved those that were put off from one list to another.
    #[test]
    fn however_many_wait_an_event_tells_a_bounded_number_and_the_next_tells_more() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..10_000);
        send(&mut batcher, Micros(0), 1);
        let mut told = Vec::new();
        let mut settled = batcher.tick(Micros(50_000)).settled;
        while !settled.is_empty() {
            assert!(failed(&settled) && settled.len() <= MOST_TOLD);
            told.extend(tickets(&settled));
            settled = batcher.turn(Micros(50_001)).settled;
        }
        told.sort_unstable();
        assert_eq!(told, (0..10_000).collect::<Vec<_>>());
    }

    /// A question of so many checks, and how many checks each of its parts has.
    fn large(kind: Kind, checks: usize) -> (Vec<Part>, Vec<usize>) {
        let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
        let mut question = Question::default();
        let check = |number| Check {
            key: format!("large{number}").into_bytes(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        };
        question.ask(kind, (0..checks).map(check));
        let parts = Rc::new(question).split(Topology::Single);
        let sizes = parts.iter().map(|part| part.question.checks().len());
        let sizes = sizes.collect();
        (parts, sizes)
    }

    /// The reply to questions of one operation over so many checks each.
    fn reply_of(questions: &[usize]) -> Vec<u8> {
        let mut doubles = vec![1e6];
        for checks in questions {
            doubles.push(1.0);
            doubles.extend([1.0, 0.0, 60_000.0].repeat(*checks));
        }
        let bytes = doubles.into_iter().flat_map(f64::to_le_bytes);
        let mut reply = Vec::new();
        resp::push_bulk(&mut reply, &bytes.collect::<Vec<_>>());
        reply
    }

    #[test]
    fn a_call_carries_no_more_checks_than_its_cap_unless_one_question_has_more() {
        let mut batcher = batcher();
        for (ticket, checks) in [(0, 200), (1, 200), (2, 112), (3, 1), (4, 700), (5, 1)] {
            let part = &large(Kind::Take, checks).0[0];
            assert_ne!(batcher.ask(Micros(0), Some(ticket), part), Next::Failed);
        }
        let mut outgoing = batcher.turn(Micros(0)).outgoing;
        for (id, expected) in [(0, vec![0, 1, 2]), (1, vec![3]), (2, vec![4]), (3, vec![5])] {
            hand_over(&mut batcher, outgoing, id);
            let checks = [200, 200, 112, 1, 700, 1];
            let own: Vec<usize> = expected
                .iter()
                .map(|ticket| checks[*ticket as usize])
                .collect();
            let effects = answered(&mut batcher, 1, id, &reply_of(&own));
            assert_eq!(tickets(&effects.settled), expected);
            outgoing = effects.outgoing;
        }
        assert!(batcher.is_idle());
    }

    /// A status call over 600 limits, among requests.
    #[test]
    fn a_part_of_what_is_too_large_goes_with_each_call_and_waits_longer() {
        let mut batcher = batcher();
        let (parts, sizes) = large(Kind::Peek, 600);
        assert_eq!(sizes, [256, 256, 88]);
        for part in &parts {
            batcher.ask(Micros(0), Some(7), part);
        }
        ask(&mut batcher, Micros(0), 0..2);
        send(&mut batcher, Micros(0), 0);
        ask(&mut batcher, Micros(0), 2..3);
        let effects = answered(&mut batcher, 1, 0, &reply_of(&[1, 1, 256]));
        assert_eq!(tickets(&effects.settled), [0, 1, 7]);
        hand_over(&mut batcher, effects.outgoing, 1);
        let effects = answered(&mut batcher, 2, 1, &reply_of(&[1, 256]));
        assert_eq!(tickets(&effects.settled), [2, 7]);
        assert_eq!(effects.outgoing.len(), 1, "the last part goes alone");
        // It waits ten times as long as others do, but for a call that is lost.
        for part in &parts {
            batcher.ask(Micros(0), Some(8), part);
        }
        hand_over(&mut batcher, effects.outgoing, 2);
        ask(&mut batcher, Micros(0), 3..4);
        assert_eq!(tickets(&batcher.tick(Micros(99_999)).settled), [3]);
        let next = answered(&mut batcher, 99_999, 2, &reply_of(&[88])).outgoing;
        hand_over(&mut batcher, next, 3);
        assert_eq!(tickets(&batcher.tick(Micros(500_000)).settled), [8, 8, 8]);
    }

    #[test]
    fn calls_overlap_only_where_the_round_trip_is_long() {
        for (round_trip, later, expected) in [
            (400, 300, Next::Wait),
            (20_000, 9_000, Next::Wait),
            (20_000, 11_000, Next::AskTurn),
        ] {
            let mut batcher = batcher();
            ask(&mut batcher, Micros(0), 0..1);
            send(&mut batcher, Micros(0), 1);
            answered(&mut batcher, round_trip, 1, &reply(1));
            ask(&mut batcher, Micros(round_trip), 1..2);
            send(&mut batcher, Micros(round_trip), 2);
            let next = ask_one(&mut batcher, Micros(round_trip + later), 2);
            assert_eq!(
                next, expected,
                "{later} µs into a round trip of {round_trip} µs"
            );
        }
    }

    #[test]
    fn an_unknown_script_is_sent_whole_once() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..2);
        send(&mut batcher, Micros(0), 1);
        let unknown = b"-NOSCRIPT No matching script.\r\n";
        let Effects { outgoing, settled } = answered(&mut batcher, 1, 1, unknown);
        assert!(settled.is_empty());
        let again = hand_over(&mut batcher, outgoing, 2);
        assert!(again.contains("\r\nEVAL\r\n") && again.contains("key0"));
        let Effects { outgoing, settled } = answered(&mut batcher, 2, 2, unknown);
        assert!(failed(&settled) && settled.len() == 2 && outgoing.is_empty());
    }

    #[test]
    fn what_is_no_reply_fails_everybody_who_asked() {
        for body in [
            &b"-READONLY You can't write against a read only replica.\r\n"[..],
            b"upstream connect error",
            b"*1\r\n:5\r\n",
            b"*2\r\n:5\r\n$1\r\nx\r\n",
            b"",
        ] {
            let mut batcher = batcher();
            ask(&mut batcher, Micros(0), 0..3);
            send(&mut batcher, Micros(0), 1);
            let settled = answered(&mut batcher, 1, 1, body).settled;
            assert!(
                failed(&settled) && settled.len() == 3,
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn a_deadline_is_kept_whether_the_request_was_sent_or_not() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..1);
        send(&mut batcher, Micros(0), 1);
        ask(&mut batcher, Micros(10_000), 1..2);
        assert!(batcher.tick(Micros(49_999)).settled.is_empty());
        let settled = batcher.tick(Micros(50_000)).settled;
        assert!(failed(&settled) && tickets(&settled) == [0]);
        let settled = batcher.tick(Micros(60_000)).settled;
        assert!(failed(&settled) && tickets(&settled) == [1]);
        // The late reply finds nobody, and settles nobody twice.
        assert!(
            answered(&mut batcher, 70_000, 1, &reply(1))
                .settled
                .is_empty()
        );
        assert!(batcher.is_idle());
    }

    #[test]
    fn a_call_that_is_never_answered_holds_up_nobody_for_ever() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..1);
        send(&mut batcher, Micros(0), 1);
        ask(&mut batcher, Micros(99_000), 1..2);
        assert_eq!(
            batcher.tick(Micros(100_000)).outgoing.len(),
            1,
            "the way is free again"
        );
        assert!(
            answered(&mut batcher, 101_000, 1, &reply(1))
                .settled
                .is_empty()
        );
    }

    #[test]
    fn a_call_that_cannot_be_sent_fails_at_once() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..2);
        let outgoing = batcher.turn(Micros(0)).outgoing.remove(0);
        let settled = batcher.not_sent(Micros(0), outgoing, String::new());
        assert!(failed(&settled) && settled.len() == 2 && batcher.is_idle());
    }

    /// A batcher whose calls have failed three times in a row by now.
    fn broken() -> Batcher<u32> {
        let mut batcher = batcher();
        for id in 0..3 {
            ask(&mut batcher, Micros(0), id..id + 1);
            send(&mut batcher, Micros(0), id);
            batcher.answered(Micros(0), CallId(id), Err(Silence::Late));
        }
        batcher
    }

    #[test]
    fn a_store_that_keeps_failing_is_not_asked_and_nobody_waits_for_it() {
        let mut batcher = broken();
        assert_eq!(ask_one(&mut batcher, Micros(1), 9), Next::Failed);
        assert_eq!(
            batcher.health(),
            Health {
                lanes: 1,
                open: 1,
                opened: 1,
                calls: 3,
                failures: 3,
            }
        );
        assert!(!batcher.is_idle(), "it is still looked after");
        assert_eq!(batcher.trouble(), Some("no answer in time"));
    }

    #[test]
    fn whoever_waits_when_the_breaker_opens_is_settled_at_once() {
        let mut batcher = batcher();
        for id in 0..3 {
            ask(&mut batcher, Micros(0), id..id + 1);
            send(&mut batcher, Micros(0), id);
            ask(&mut batcher, Micros(0), 10 + id..11 + id);
            let effects = batcher.answered(Micros(0), CallId(id), Err(Silence::Late));
            if id < 2 {
                hand_over(&mut batcher, effects.outgoing, 20 + id);
                answered(&mut batcher, 0, 20 + id, b"-ERR\r\n");
                break;
            }
        }
        ask(&mut batcher, Micros(0), 30..31);
        send(&mut batcher, Micros(0), 30);
        ask(&mut batcher, Micros(0), 31..33);
        let Effects { outgoing, settled } =
            batcher.answered(Micros(0), CallId(30), Err(Silence::Late));
        assert!(failed(&settled) && outgoing.is_empty());
        assert_eq!(tickets(&settled), [30, 31, 32]);
    }

    #[test]
    fn a_look_is_a_take_and_brings_the_store_back() {
        let mut batcher = broken();
        assert!(batcher.tick(Micros(50_000)).outgoing.is_empty());
        let outgoing = batcher.tick(Micros(100_000)).outgoing;
        let look = hand_over(&mut batcher, outgoing, 50);
        assert!(look.contains(TAKE) && look.contains("key2:probe"), "{look}");
        assert!(
            batcher.tick(Micros(100_001)).outgoing.is_empty(),
            "one look at a time"
        );
        answered(&mut batcher, 101_000, 50, &reply(1));
        ask(&mut batcher, Micros(101_001), 60..61);
        send(&mut batcher, Micros(101_002), 61);
        answered(&mut batcher, 101_003, 61, &reply(1));
        assert_eq!(batcher.health().open, 0);
        assert!(batcher.is_idle());
    }

    /// A replica tells what a key holds, but takes nothing.
    #[test]
    fn a_look_that_took_nothing_leaves_the_lane_shut_until_a_take_passes() {
        let verdict = |verdict: f64| {
            let mut reply = Vec::new();
            let bytes = [1e6, verdict, 0.0, 0.0, 0.0].map(f64::to_le_bytes).concat();
            resp::push_bulk(&mut reply, &bytes);
            reply
        };
        for (look, peeked) in [(-1.0, false), (0.0, false), (-1.0, true)] {
            let mut batcher = broken();
            let outgoing = batcher.tick(Micros(100_000)).outgoing;
            hand_over(&mut batcher, outgoing, 50);
            answered(&mut batcher, 101_000, 50, &verdict(look));
            assert_eq!(batcher.health().open, 1);
            assert_eq!(batcher.trouble(), Some("no answer in time"));
            if peeked {
                batcher.ask(Micros(101_001), Some(60), &large(Kind::Peek, 1).0[0]);
                send(&mut batcher, Micros(101_001), 60);
                answered(&mut batcher, 101_002, 60, &verdict(1.0));
                assert_eq!(batcher.health().open, 1, "it only looked");
            }
            ask(&mut batcher, Micros(101_003), 61..62);
            send(&mut batcher, Micros(101_003), 61);
            answered(&mut batcher, 101_004, 61, &verdict(1.0));
            assert_eq!(batcher.health().open, 0);
        }
    }

    /// A lane without callers stayed open, and was shown to operators, until somebody called.
    #[test]
    fn the_store_is_looked_after_where_nobody_calls_any_more() {
        let mut batcher = broken();
        let outgoing = batcher.tick(Micros(100_000)).outgoing;
        let look = hand_over(&mut batcher, outgoing, 50);
        assert!(look.contains(TAKE) && look.contains("key2:probe"), "{look}");
        answered(&mut batcher, 101_000, 50, &reply(1));
        assert_eq!(batcher.health().open, 0);
        assert!(batcher.is_idle());
    }

    #[test]
    fn a_cluster_is_asked_a_command_for_each_slot_and_one_may_fail_alone() {
        let mut batcher: Batcher<u32> = Batcher::new(Topology::Cluster, TIMEOUT, 0);
        let place = |key: &str| Topology::Cluster.place(key.as_bytes());
        let (slot, lane) = place("foo");
        let neighbour = (0..)
            .map(|i| format!("key{i}"))
            .find(|key| place(key).1 == lane && place(key).0 > slot)
            .unwrap();
        assert_ne!(place("{bar}").1, lane);
        for (ticket, key) in [(0, "foo"), (1, &neighbour), (2, "{foo}2"), (3, "{bar}")] {
            batcher.ask(Micros(0), Some(ticket), &part(key, Topology::Cluster));
        }
        let mut outgoing = batcher.turn(Micros(0)).outgoing;
        outgoing.sort_by_key(|outgoing| outgoing.commands);
        let commands: Vec<usize> = outgoing.iter().map(|outgoing| outgoing.commands).collect();
        assert_eq!(commands, [1, 2]);
        for (id, outgoing) in (0..).zip(outgoing) {
            batcher.sent(outgoing, CallId(id));
        }
        let mut replies = reply(2);
        replies.extend(b"-CLUSTERDOWN The cluster is down\r\n");
        let settled = answered(&mut batcher, 1, 1, &replies).settled;
        assert_eq!(tickets(&settled), [0, 2, 1]);
        assert!(matches!(settled[0].1, Outcome::Told { .. }));
        assert_eq!(settled[2].1, Outcome::Failed);
        let mut replies = b"-NOSCRIPT\r\n".to_vec();
        let again = answered(&mut batcher, 1, 0, &replies).outgoing;
        hand_over(&mut batcher, again, 7);
        replies = reply(1);
        assert_eq!(
            tickets(&answered(&mut batcher, 2, 7, &replies).settled),
            [3]
        );
    }

    const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
    const HANGS_UP: &str = "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";
    const FAILURE: &[u8] = b"-upstream failure\r\n";

    /// A call was answered READONLY, and this is what follows.
    fn after_readonly(batcher: &mut Batcher<u32>, now: u64, id: u32) -> Effects<u32> {
        ask(batcher, Micros(now), 1..2);
        send(batcher, Micros(now), id);
        answered(batcher, now + 100, id, READONLY)
    }

    #[test]
    fn an_answer_that_stays_makes_redis_proxy_hang_up_while_others_wait() {
        let mut batcher = batcher();
        let effects = after_readonly(&mut batcher, 0, 1);
        assert_eq!(effects.settled, [(1, Outcome::Failed)]);
        assert_eq!(hand_over(&mut batcher, effects.outgoing, 2), HANGS_UP);
        assert!(!batcher.is_idle());

        ask(&mut batcher, Micros(200), 3..5);
        assert!(batcher.tick(Micros(10_000)).outgoing.is_empty());
        let effects = answered(&mut batcher, 40_000, 2, FAILURE);
        assert!(effects.settled.is_empty());
        let body = hand_over(&mut batcher, effects.outgoing, 3);
        assert!(body.contains("key3") && body.contains("key4"), "{body}");
        assert_eq!(batcher.kept(), None);
    }

    #[test]
    fn every_answer_that_stays_does_and_no_other() {
        let wrapped = "-ERR Error running script (call to f_ff42): @user_script:2: -READONLY You";
        for (error, hangs_up) in [
            ("-MASTERDOWN Link with MASTER is down", true),
            ("-NOAUTH Authentication required.", true),
            ("-WRONGPASS invalid username-password pair", true),
            ("-NOPERM this user has no permissions", true),
            ("-MISCONF Redis is configured to save RDB snapshots", true),
            ("-NOREPLICAS Not enough good replicas to write.", true),
            ("-LOADING Redis is loading the dataset in memory", true),
            (wrapped, true),
            ("-OOM command not allowed", false),
            ("-BUSY Redis is busy running a script.", false),
            ("-upstream failure", false),
            ("-UNREACHABLE weir-sidecar: gone", false),
        ] {
            let mut batcher = batcher();
            ask(&mut batcher, Micros(0), 1..2);
            send(&mut batcher, Micros(0), 1);
            let effects = answered(&mut batcher, 100, 1, format!("{error}\r\n").as_bytes());
            assert_eq!(effects.outgoing.len(), usize::from(hangs_up), "{error}");
        }
    }

    #[test]
    fn who_was_not_let_in_says_more_than_a_stranger_may() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 1..2);
        send(&mut batcher, Micros(0), 1);
        let effects = answered(
            &mut batcher,
            100,
            1,
            b"-NOAUTH Authentication required.\r\n",
        );
        let body = hand_over(&mut batcher, effects.outgoing, 2);
        assert!(body.starts_with("*11\r\n$6\r\nCLIENT\r\n"), "{body}");
        let told = b"-ERR Protocol error: unauthenticated multibulk length\r\n";
        answered(&mut batcher, 200, 2, told);
        assert_eq!(batcher.kept(), None);
    }

    #[test]
    fn nothing_is_under_way_when_replies_stop() {
        let mut batcher = batcher();
        // Where the round trip is long, calls overlap.
        ask(&mut batcher, Micros(0), 1..2);
        send(&mut batcher, Micros(0), 1);
        answered(&mut batcher, 20_000, 1, &reply(1));
        for id in [2, 3] {
            let now = Micros(20_000 * u64::from(id));
            ask(&mut batcher, now, id..id + 1);
            send(&mut batcher, now, id);
        }
        let effects = answered(&mut batcher, 61_000, 2, READONLY);
        assert!(effects.outgoing.is_empty());
        let effects = answered(&mut batcher, 62_000, 3, READONLY);
        assert_eq!(hand_over(&mut batcher, effects.outgoing, 4), HANGS_UP);
    }

    #[test]
    fn a_server_that_means_it_is_left_once_a_second() {
        let mut batcher = batcher();
        let effects = after_readonly(&mut batcher, 0, 1);
        hand_over(&mut batcher, effects.outgoing, 2);
        answered(&mut batcher, 40_000, 2, FAILURE);
        let effects = after_readonly(&mut batcher, 50_000, 3);
        assert!(effects.outgoing.is_empty());
        let effects = after_readonly(&mut batcher, 1_000_500, 4);
        // That is the third failure, and the breaker opens; it is left all the same.
        assert_eq!(hand_over(&mut batcher, effects.outgoing, 5), HANGS_UP);
    }

    #[test]
    fn an_open_breaker_looks_at_the_new_connection_at_once() {
        let mut batcher = batcher();
        let effects = after_readonly(&mut batcher, 0, 1);
        hand_over(&mut batcher, effects.outgoing, 2);
        answered(&mut batcher, 40_000, 2, FAILURE);
        for (now, id) in [(50_000, 3), (60_000, 4)] {
            after_readonly(&mut batcher, now, id);
        }
        assert_eq!(batcher.health().open, 1);
        // Looks fail, until one comes when it may be left again.
        let (mut now, mut id) = (60_100, 5);
        let left = loop {
            now += 10_000;
            let effects = batcher.tick(Micros(now));
            if effects.outgoing.is_empty() {
                continue;
            }
            assert!(hand_over(&mut batcher, effects.outgoing, id).contains("EVALSHA"));
            let effects = answered(&mut batcher, now + 100, id, READONLY);
            id += 1;
            if !effects.outgoing.is_empty() {
                break effects.outgoing;
            }
        };
        assert_eq!(hand_over(&mut batcher, left, id), HANGS_UP);
        assert!((1_000_000..2_000_000).contains(&now), "{now}");
        let effects = answered(&mut batcher, now + 50_000, id, FAILURE);
        let body = hand_over(&mut batcher, effects.outgoing, id + 1);
        assert!(body.contains("EVALSHA"), "{body}");
    }

    #[test]
    fn without_an_answer_redis_proxy_is_given_its_own_time() {
        let mut batcher = batcher();
        let effects = after_readonly(&mut batcher, 0, 1);
        hand_over(&mut batcher, effects.outgoing, 2);
        let silence = batcher.answered(Micros(50_100), CallId(2), Err(Silence::Late));
        assert!(silence.outgoing.is_empty());
        ask(&mut batcher, Micros(80_000), 7..8);
        assert!(batcher.tick(Micros(90_000)).outgoing.is_empty());
        let effects = batcher.tick(Micros(100_200));
        assert!(hand_over(&mut batcher, effects.outgoing, 3).contains("key7"));
    }

    #[test]
    fn a_redis_proxy_that_would_not_hang_up_is_told_of_with_the_mend() {
        for (answer, told) in [
            ("ERR unknown command 'CLIENT', with args", true),
            ("NOPERM User weir has no permissions to run 'client'", true),
            ("ERR weir-sidecar: only EVALSHA and reads are served", false),
        ] {
            let mut batcher = batcher();
            let effects = after_readonly(&mut batcher, 0, 1);
            hand_over(&mut batcher, effects.outgoing, 2);
            answered(&mut batcher, 300, 2, format!("-{answer}\r\n").as_bytes());
            let kept = batcher.kept();
            let is_told = kept.is_some_and(|kept| kept.contains("custom_commands: [client]"));
            assert_eq!(is_told, told, "{answer}");
            ask(&mut batcher, Micros(400), 8..9);
            assert!(send(&mut batcher, Micros(400), 3).contains("key8"));
        }
    }

    #[test]
    fn in_a_cluster_nobody_is_made_to_hang_up() {
        let mut batcher: Batcher<u32> = Batcher::new(Topology::Cluster, TIMEOUT, 0);
        batcher.ask(Micros(0), Some(1), &part("key", Topology::Cluster));
        let effects = batcher.turn(Micros(0));
        hand_over(&mut batcher, effects.outgoing, 1);
        let effects = answered(&mut batcher, 100, 1, READONLY);
        assert!(effects.outgoing.is_empty());
    }

    #[test]
    fn a_command_that_the_user_lacks_is_named_with_the_mend() {
        let mut batcher = batcher();
        let error = "ERR ACL failure in script: User t has no permissions to run the 'exists' \
                     command script: on @user_script:2.";
        for id in 1..4 {
            ask(&mut batcher, Micros(0), id..id + 1);
            send(&mut batcher, Micros(0), id);
            let effects = answered(&mut batcher, 1, id, format!("-{error}\r\n").as_bytes());
            if !effects.outgoing.is_empty() {
                hand_over(&mut batcher, effects.outgoing, 90);
                answered(&mut batcher, 1, 90, FAILURE);
            }
        }
        let told = "may not use EXISTS: ACL SETUSER … +exists";
        let trouble = batcher.trouble().unwrap();
        assert!(trouble.contains(told), "{trouble}");
    }
}
