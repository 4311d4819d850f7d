//! Group commit: requests that wait at the same time share one call of the script. A state machine
//! over events (a request asks, a turn comes, a call is answered, time passes) that says what to
//! send and who has an outcome; it sends nothing and reads no clock.
//!
//! One call is in flight at a time: while it is, newcomers gather for the next, so that batches grow
//! with the load and a quiet worker waits for nothing. Where the round trip is long, more calls may
//! overlap, or waiting would cost more than it saves.

use crate::limiter::Outcome;
use crate::question::{Bulks, Question};
use crate::script::{self, By, Script};
use crate::units::{Micros, Millis};
use crate::wire::resp::{Reader, Token};

/// The most questions in a call: Redis serves nobody else while it runs, about 0.5 ms for 64.
const MOST_QUESTIONS: usize = 64;
/// Below this round trip a second call in flight costs more CPU than the waiting it saves.
const LONG_ROUND_TRIP: Micros = Micros(1_000);
/// Enough calls in flight to keep a far Redis busy, few enough to bound what a dead one holds.
const MOST_CALLS: usize = 8;

/// The requests of one worker that wait for the store. `T` is how the caller finds a request again.
#[derive(Debug)]
pub struct Batcher<T> {
    script: Script,
    timeout: Millis,
    waiting: Vec<Waiting<T>>,
    calls: Vec<Call<T>>,
    /// A moving average over the calls that were answered.
    round_trip: Micros,
    turn: Turn,
}

/// Whether a turn has been asked for and not come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Asked,
    NotAsked,
}

#[derive(Debug)]
struct Waiting<T> {
    ticket: T,
    question: Question,
    since: Micros,
}

/// A call of the script that has not been answered.
#[derive(Debug)]
struct Call<T> {
    id: CallId,
    since: Micros,
    /// By its SHA first; by its source for a Redis that does not know it. Nothing else is tried
    /// twice: a take that timed out may have counted.
    by: By,
    asked: Vec<Asked<T>>,
    keys: Bulks,
    arguments: Bulks,
}

#[derive(Debug)]
struct Asked<T> {
    /// Gone once the request has its outcome: its deadline may come before the reply.
    ticket: Option<T>,
    since: Micros,
    shape: Vec<usize>,
}

/// The proxy's name for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(pub u32);

/// What to do after an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a turn: [`Batcher::turn`] is to be called once this turn of the event loop is over.
    AskTurn,
    Wait,
}

/// The body of a call that is to be sent; [`Batcher::sent`] or [`Batcher::not_sent`] follows.
#[derive(Debug)]
pub struct Outgoing<T> {
    pub body: Vec<u8>,
    call: Call<T>,
}

/// Requests that have their outcome.
pub type Settled<T> = Vec<(T, Outcome)>;

impl<T> Batcher<T> {
    pub fn new(timeout: Millis) -> Batcher<T> {
        Batcher {
            script: Script::production(),
            timeout,
            waiting: Vec::new(),
            calls: Vec::new(),
            round_trip: Micros(0),
            turn: Turn::NotAsked,
        }
    }

    /// A request asks.
    pub fn ask(&mut self, now: Micros, ticket: T, question: Question) -> Next {
        self.waiting.push(Waiting {
            ticket,
            question,
            since: now,
        });
        self.next(now)
    }

    /// Whether anybody waits for an outcome.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.calls.is_empty()
    }

    /// A turn has come: what is to be sent, if anything.
    pub fn turn(&mut self, now: Micros) -> Option<Outgoing<T>> {
        self.turn = Turn::NotAsked;
        if self.waiting.is_empty() || !self.may_send(now) {
            return None;
        }
        let batch: Vec<Waiting<T>> = self
            .waiting
            .drain(..self.waiting.len().min(MOST_QUESTIONS))
            .collect();
        let mut call = Call {
            id: CallId(0),
            since: now,
            by: By::Sha,
            asked: Vec::with_capacity(batch.len()),
            keys: Bulks::default(),
            arguments: Bulks::default(),
        };
        for Waiting {
            ticket,
            question,
            since,
        } in batch
        {
            call.keys.append(question.keys());
            call.arguments.append(question.arguments());
            let shape = question.shape().to_vec();
            call.asked.push(Asked {
                ticket: Some(ticket),
                since,
                shape,
            });
        }
        Some(self.outgoing(call))
    }

    /// An outgoing call was sent under this name.
    pub fn sent(&mut self, outgoing: Outgoing<T>, id: CallId) {
        self.calls.push(Call {
            id,
            ..outgoing.call
        });
    }

    /// An outgoing call could not be sent.
    pub fn not_sent(&mut self, outgoing: Outgoing<T>) -> Settled<T> {
        outgoing.call.fail()
    }

    /// A call was answered: by the store's bytes, or by nothing if it failed. What else is to be
    /// sent comes with those who are settled.
    pub fn answered(
        &mut self,
        now: Micros,
        id: CallId,
        body: Option<&[u8]>,
    ) -> (Settled<T>, Option<Outgoing<T>>) {
        let Some(place) = self.calls.iter().position(|call| call.id == id) else {
            return (Vec::new(), None);
        };
        let call = self.calls.swap_remove(place);
        match body.map_or(Answered::Failed, |body| read(body, &call)) {
            Answered::Unknown if call.by == By::Sha => {
                let again = self.outgoing(Call {
                    by: By::Source,
                    ..call
                });
                (Vec::new(), Some(again))
            }
            Answered::Unknown | Answered::Failed => (call.fail(), self.turn(now)),
            Answered::Told(outcomes) => {
                self.learn_round_trip(Micros(now.0.saturating_sub(call.since.0)));
                let settled = call
                    .asked
                    .into_iter()
                    .zip(outcomes)
                    .filter_map(|(asked, outcome)| Some((asked.ticket?, outcome)));
                (settled.collect(), self.turn(now))
            }
        }
    }

    /// Time has passed: whoever waited too long is settled. A call whose answer never comes is
    /// forgotten after twice the timeout, so that it holds up nobody else.
    pub fn tick(&mut self, now: Micros) -> (Settled<T>, Option<Outgoing<T>>) {
        let timeout = self.timeout.0.saturating_mul(1000);
        let late = |since: Micros, after: u64| now.0.saturating_sub(since.0) >= after;
        let mut settled = Settled::new();
        let (expired, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| late(waiting.since, timeout));
        self.waiting = waiting;
        let expired: Vec<Waiting<T>> = expired;
        settled.extend(
            expired
                .into_iter()
                .map(|waiting| (waiting.ticket, Outcome::Failed)),
        );
        for asked in self.calls.iter_mut().flat_map(|call| &mut call.asked) {
            if late(asked.since, timeout) {
                settled.extend(asked.ticket.take().map(|ticket| (ticket, Outcome::Failed)));
            }
        }
        self.calls
            .retain(|call| !late(call.since, timeout.saturating_mul(2)));
        (settled, self.turn(now))
    }

    fn next(&mut self, now: Micros) -> Next {
        if self.turn == Turn::NotAsked && self.may_send(now) {
            self.turn = Turn::Asked;
            return Next::AskTurn;
        }
        Next::Wait
    }

    fn may_send(&self, now: Micros) -> bool {
        let Some(latest) = self.calls.iter().map(|call| call.since).max() else {
            return true;
        };
        self.round_trip >= LONG_ROUND_TRIP
            && self.calls.len() < MOST_CALLS
            && now.0.saturating_sub(latest.0) > self.round_trip.0 / 2
    }

    /// An eighth of the news: steady against one slow reply, quick enough for a failover.
    fn learn_round_trip(&mut self, sample: Micros) {
        self.round_trip = match self.round_trip {
            Micros(0) => sample,
            Micros(known) => Micros((known * 7 + sample.0) / 8),
        };
    }

    fn outgoing(&self, call: Call<T>) -> Outgoing<T> {
        let body = self.script.call(call.by, &call.keys, &call.arguments);
        Outgoing { body, call }
    }
}

impl<T> Call<T> {
    fn fail(self) -> Settled<T> {
        let tickets = self.asked.into_iter().filter_map(|asked| asked.ticket);
        tickets.map(|ticket| (ticket, Outcome::Failed)).collect()
    }
}

/// What a call's reply amounts to.
enum Answered {
    /// An outcome for each question, in order.
    Told(Vec<Outcome>),
    /// Redis does not know the script.
    Unknown,
    /// An error of the store, or bytes that are no reply of the script.
    Failed,
}

fn read<T>(body: &[u8], call: &Call<T>) -> Answered {
    let mut reader = Reader::new(body);
    let count = match reader.token() {
        Ok(Some(Token::Array(Some(count)))) => count,
        Ok(Some(Token::Error(error))) if error.starts_with(b"NOSCRIPT") => {
            return Answered::Unknown;
        }
        _ => return Answered::Failed,
    };
    let integers = (0..count).map_while(|_| match reader.token() {
        Ok(Some(Token::Integer(value))) => Some(value),
        _ => None,
    });
    let shape = call
        .asked
        .iter()
        .flat_map(|asked| asked.shape.iter().copied());
    match script::decode(shape, integers) {
        Ok(answer) => {
            let mut told = answer.told.into_iter();
            let outcomes = call.asked.iter().map(|asked| Outcome::Told {
                now: answer.now,
                told: told.by_ref().take(asked.shape.len()).collect(),
            });
            Answered::Told(outcomes.collect())
        }
        Err(_) => Answered::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Algorithm, Quota};
    use crate::script::Kind;
    use crate::units::Cost;

    const TIMEOUT: Millis = Millis(50);

    fn question(key: &str) -> Question {
        let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
        let mut question = Question::default();
        let mut take = question.operation(Kind::Take, Cost::ONE, 1);
        take.limit(&quota, |out| out.extend_from_slice(key.as_bytes()));
        question
    }

    fn batcher() -> Batcher<u32> {
        Batcher::new(TIMEOUT)
    }

    /// Requests `range` ask at `now`; the first one that finds the way free asks for the turn.
    fn ask(batcher: &mut Batcher<u32>, now: Micros, range: std::ops::Range<u32>) {
        for ticket in range {
            batcher.ask(now, ticket, question(&format!("key{ticket}")));
        }
    }

    fn send(batcher: &mut Batcher<u32>, now: Micros, id: u32) -> String {
        let outgoing = batcher.turn(now).expect("there is something to send");
        let body = String::from_utf8(outgoing.body.clone()).unwrap();
        batcher.sent(outgoing, CallId(id));
        body
    }

    /// The reply to `count` questions of one limit, each of which passed.
    fn reply(count: usize) -> Vec<u8> {
        let mut integers = vec![1_000_000];
        for remaining in 0..count {
            integers.extend([1, remaining as i64, 0, 60_000]);
        }
        let body: String = integers
            .iter()
            .map(|integer| format!(":{integer}\r\n"))
            .collect();
        format!("*{}\r\n{body}", integers.len()).into_bytes()
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
        assert_eq!(batcher.ask(Micros(0), 0, question("key0")), Next::AskTurn);
        assert_eq!(batcher.ask(Micros(0), 1, question("key1")), Next::Wait);
        let body = send(&mut batcher, Micros(1), 7);
        assert!(body.contains("EVALSHA") && body.contains("key0") && body.contains("key1"));

        let (settled, next) = batcher.answered(Micros(2), CallId(7), Some(&reply(2)));
        assert!(next.is_none() && batcher.is_idle());
        assert_eq!(tickets(&settled), [0, 1]);
        for (ticket, outcome) in settled {
            let Outcome::Told { now, told } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(now, Micros(1_000_000));
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].limits[0].remaining, i64::from(ticket));
        }
    }

    #[test]
    fn newcomers_wait_for_the_call_in_flight_and_leave_with_its_reply() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..1);
        send(&mut batcher, Micros(0), 1);
        assert_eq!(batcher.ask(Micros(1), 1, question("key1")), Next::Wait);
        assert!(batcher.turn(Micros(2)).is_none());
        let (settled, next) = batcher.answered(Micros(3), CallId(1), Some(&reply(1)));
        assert_eq!(tickets(&settled), [0]);
        assert!(next.is_some(), "the next call leaves at once");
    }

    #[test]
    fn a_call_carries_no_more_than_its_cap() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..100);
        send(&mut batcher, Micros(0), 1);
        let (settled, next) = batcher.answered(Micros(1), CallId(1), Some(&reply(MOST_QUESTIONS)));
        assert_eq!(settled.len(), MOST_QUESTIONS);
        batcher.sent(next.unwrap(), CallId(2));
        let (settled, next) = batcher.answered(Micros(2), CallId(2), Some(&reply(36)));
        assert_eq!((settled.len(), next.is_none()), (36, true));
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
            batcher.answered(Micros(round_trip), CallId(1), Some(&reply(1)));
            ask(&mut batcher, Micros(round_trip), 1..2);
            send(&mut batcher, Micros(round_trip), 2);
            let next = batcher.ask(Micros(round_trip + later), 2, question("key2"));
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
        let unknown: &[u8] = b"-NOSCRIPT No matching script.\r\n";
        let (settled, again) = batcher.answered(Micros(1), CallId(1), Some(unknown));
        assert!(settled.is_empty());
        let again = again.unwrap();
        assert!(again.body.windows(4).any(|part| part == b"EVAL"));
        batcher.sent(again, CallId(2));
        let (settled, again) = batcher.answered(Micros(2), CallId(2), Some(unknown));
        assert!(failed(&settled) && settled.len() == 2 && again.is_none());
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
            let (settled, _) = batcher.answered(Micros(1), CallId(1), Some(body));
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
        assert!(batcher.tick(Micros(49_999)).0.is_empty());
        let (settled, _) = batcher.tick(Micros(50_000));
        assert!(failed(&settled) && tickets(&settled) == [0]);
        let (settled, _) = batcher.tick(Micros(60_000));
        assert!(failed(&settled) && tickets(&settled) == [1]);
        // The late reply finds nobody, and settles nobody twice.
        let (settled, _) = batcher.answered(Micros(70_000), CallId(1), Some(&reply(1)));
        assert!(settled.is_empty() && batcher.is_idle());
    }

    #[test]
    fn a_call_that_is_never_answered_holds_up_nobody_for_ever() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..1);
        send(&mut batcher, Micros(0), 1);
        ask(&mut batcher, Micros(99_000), 1..2);
        let (_, next) = batcher.tick(Micros(100_000));
        assert!(next.is_some(), "the way is free again");
        let (settled, _) = batcher.answered(Micros(101_000), CallId(1), Some(&reply(1)));
        assert!(settled.is_empty());
    }

    #[test]
    fn a_call_that_cannot_be_sent_fails_at_once() {
        let mut batcher = batcher();
        ask(&mut batcher, Micros(0), 0..2);
        let outgoing = batcher.turn(Micros(0)).unwrap();
        let settled = batcher.not_sent(outgoing);
        assert!(failed(&settled) && settled.len() == 2 && batcher.is_idle());
    }
}
