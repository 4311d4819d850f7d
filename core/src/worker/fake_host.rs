//! A proxy and a Redis by hand: the clock moves when a test says so, and calls are answered when a test
//! says so, by the plain model of the script. Whatever the worker did is there to be looked at.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use super::host::{Host, Level, MetricId, MetricKind, NotDone, NotSent, SharedState};
use super::request::HeaderList;
use crate::decide::answer::{Answer, Headers, Protocol};
use crate::decide::limiter::Facts;
use crate::local::timer_queue::StreamId;
use crate::observe::report::Node;
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::model::Counters;
use crate::quota::operation::{Kind, Retry, Verdict};
use crate::quota::period::{Calendar, Period, Unit, UtcOffset};
use crate::store::call::CallId;
use crate::store::config::StoreConfig;
use crate::store::links::LinkId;
use crate::time::{Span, StoreInstant, WallTime, WorkerInstant};

/// The time of day when all clocks stand at 0.
pub const EPOCH: u64 = 1_800_000_000_000_000;

/// One worker's proxy. Clones are the same one.
#[derive(Clone, Default)]
pub struct FakeHost(Rc<State>);

#[derive(Default)]
struct State {
    now: Cell<u64>,
    period: Cell<u64>,
    is_woken: Cell<bool>,
    process: Process,
    numbers: Cell<u32>,
    open: RefCell<Vec<LinkId>>,
    sent: RefCell<Vec<(LinkId, Vec<u8>)>>,
    happened: RefCell<Vec<(StreamId, Happened)>>,
    log: RefCell<Vec<String>>,
    /// Whether a request's callback is running: what is opened then would be lost with the request.
    in_request: Cell<bool>,
    /// How streams end, in the words for access logs.
    details: RefCell<Vec<u8>>,
    /// What went wrong with streams that end.
    flags: Cell<u64>,
    /// What other filters noted of all streams.
    metadata: RefCell<Option<(Vec<String>, Vec<u8>)>>,
    /// How often somebody asked how a stream ended.
    inquiries: Cell<u32>,
    /// The headers of the last answer.
    answer: RefCell<Headers>,
}

/// What the workers of a process share. Clones are the same one.
#[derive(Clone, Default)]
pub struct Process(Rc<ProcessState>);

#[derive(Default)]
struct ProcessState {
    shared: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    metrics: RefCell<Vec<(String, i64)>>,
}

/// What was done to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Resumed,
    Answered(u16),
    /// A response's header was set.
    Told(String, String),
    Removed(String),
    Logged(String),
}

impl FakeHost {
    pub fn of(process: &Process) -> FakeHost {
        FakeHost(Rc::new(State {
            process: process.clone(),
            ..State::default()
        }))
    }

    pub fn advance(&self, by: Span) {
        self.0.now.set(self.0.now.get() + by.as_micros());
    }

    /// The period of ticks; 0 where none come.
    pub fn period(&self) -> Span {
        Span::millis(self.0.period.get())
    }

    /// Whether a turn was asked for since this was last asked.
    pub fn was_woken(&self) -> bool {
        self.0.is_woken.replace(false)
    }

    /// The calls that have left since this was last asked.
    pub fn sent(&self) -> Vec<(LinkId, Vec<u8>)> {
        self.0.sent.take()
    }

    pub fn open_links(&self) -> usize {
        self.0.open.borrow().len()
    }

    /// What was done to streams since this was last asked.
    pub fn happened(&self) -> Vec<(StreamId, Happened)> {
        self.0.happened.take()
    }

    /// A request's callback begins, or ends.
    pub fn in_request(&self, begins: bool) {
        self.0.in_request.set(begins);
    }

    /// Streams that end from now on are redirected by the proxy.
    pub fn redirect_all(&self) {
        self.0.details.replace(b"internal_redirect".to_vec());
    }

    /// From now on streams end with these flags.
    pub fn end_with(&self, flags: u64) {
        self.0.flags.set(flags);
    }

    /// From now on other filters note this of streams.
    pub fn note_metadata(&self, path: &[&str], value: &[u8]) {
        let path = path.iter().map(|segment| segment.to_string());
        self.0
            .metadata
            .replace(Some((path.collect(), value.to_vec())));
    }

    /// What the last answer of the worker's own said under this name.
    pub fn last_answer_header(&self, name: &str) -> Option<String> {
        let headers = self.0.answer.borrow();
        let header = headers.iter().find(|(own, _)| *own == name)?;
        Some(header.1.to_string())
    }

    /// How often somebody asked how a stream ended, since this was last asked.
    pub fn inquiries(&self) -> u32 {
        self.0.inquiries.take()
    }

    pub fn logged(&self) -> Vec<String> {
        self.0.log.take()
    }

    /// A statistic, as the whole process has it.
    pub fn metric(&self, name: &str) -> i64 {
        let metrics = self.0.process.0.metrics.borrow();
        let metric = metrics.iter().find(|(own, _)| own == name);
        metric.map_or(0, |(_, value)| *value)
    }

    fn number(&self) -> u32 {
        self.0.numbers.set(self.0.numbers.get() + 1);
        self.0.numbers.get()
    }

    fn note(&self, stream: StreamId, what: Happened) {
        self.0.happened.borrow_mut().push((stream, what));
    }
}

impl Host for FakeHost {
    fn now(&self) -> WorkerInstant {
        WorkerInstant(self.0.now.get())
    }

    fn wall_clock(&self) -> WallTime {
        WallTime(EPOCH + self.0.now.get())
    }

    fn set_tick_period(&self, period: Span) {
        self.0.period.set(period.as_millis());
    }

    fn name_wake_up(&mut self, _name: &str) {}

    fn wake_after_event(&self) -> Result<(), NotDone> {
        self.0.is_woken.set(true);
        Ok(())
    }

    fn remove_request_header(&self, stream: StreamId, name: &str) {
        self.note(stream, Happened::Removed(name.to_string()));
    }

    fn set_response_header(&self, stream: StreamId, name: &str, value: &str) {
        self.note(stream, Happened::Told(name.to_string(), value.to_string()));
    }

    fn set_log_field(&self, stream: StreamId, value: &str) {
        self.note(stream, Happened::Logged(value.to_string()));
    }

    fn resume(&self, stream: StreamId) {
        self.note(stream, Happened::Resumed);
    }

    fn respond(&self, stream: StreamId, answer: &Answer, _protocol: Protocol) {
        self.0.answer.replace(answer.headers.clone());
        self.note(stream, Happened::Answered(answer.status));
    }

    fn connection(&self, _stream: StreamId) -> Option<Vec<u8>> {
        Some(b"1".to_vec())
    }

    fn response_details(&self, _stream: StreamId) -> Option<Vec<u8>> {
        Some(self.0.details.borrow().clone())
    }

    fn response_flags(&self, _stream: StreamId) -> Option<u64> {
        self.0.inquiries.set(self.0.inquiries.get() + 1);
        Some(self.0.flags.get())
    }

    fn metadata(&self, _stream: StreamId, path: &[String]) -> Option<Vec<u8>> {
        self.0.inquiries.set(self.0.inquiries.get() + 1);
        let metadata = self.0.metadata.borrow();
        let (own, value) = metadata.as_ref()?;
        (own == path).then(|| value.clone())
    }

    fn post(&self, _store: &StoreConfig, _commands: usize, body: &[u8]) -> Result<CallId, NotSent> {
        assert!(!self.0.in_request.get(), "a call of the request's own");
        let number = self.number();
        let call = (LinkId(number), body.to_vec());
        self.0.sent.borrow_mut().push(call);
        Ok(CallId(number))
    }

    fn open_link(&self, _cluster: &str) -> Result<LinkId, NotSent> {
        assert!(!self.0.in_request.get(), "a link of the request's own");
        let link = LinkId(self.number());
        self.0.open.borrow_mut().push(link);
        Ok(link)
    }

    fn send(&self, link: LinkId, message: &[u8]) -> Result<(), NotDone> {
        let is_open = self.0.open.borrow().contains(&link);
        let sent = is_open.then_some((link, message.to_vec())).ok_or(NotDone)?;
        self.0.sent.borrow_mut().push(sent);
        Ok(())
    }

    fn close_link(&self, link: LinkId) {
        self.0.open.borrow_mut().retain(|own| *own != link);
    }

    fn read_shared(&self, name: &str) -> (Option<Vec<u8>>, SharedState) {
        let shared = self.0.process.0.shared.borrow();
        let (bytes, state) = shared.get(name).cloned().unzip();
        (bytes, SharedState::Numbered(state.unwrap_or(0)))
    }

    fn write_shared(&self, name: &str, bytes: &[u8], before: SharedState) -> Result<(), NotDone> {
        let mut shared = self.0.process.0.shared.borrow_mut();
        let (held, state) = shared.entry(name.to_string()).or_default();
        if before != SharedState::Any && before != SharedState::Numbered(*state) {
            return Err(NotDone);
        }
        (*held, *state) = (bytes.to_vec(), *state + 1);
        Ok(())
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Option<MetricId> {
        let mut metrics = self.0.process.0.metrics.borrow_mut();
        let known = metrics.iter().position(|(own, _)| own == name);
        let place = known.unwrap_or_else(|| {
            metrics.push((name.to_string(), 0));
            metrics.len() - 1
        });
        u32::try_from(place).ok().map(MetricId)
    }

    fn add_to_metric(&self, metric: MetricId, change: i64) {
        let mut metrics = self.0.process.0.metrics.borrow_mut();
        metrics[metric.0 as usize].1 += change;
    }

    fn record_metric(&self, metric: MetricId, value: u64) {
        let mut metrics = self.0.process.0.metrics.borrow_mut();
        metrics[metric.0 as usize].1 = i64::try_from(value).unwrap();
    }

    fn node(&self) -> Node {
        Node::default()
    }

    fn log(&self, _level: Level, words: fmt::Arguments<'_>) {
        self.0.log.borrow_mut().push(words.to_string());
    }
}

/// A response without headers.
pub struct NoHeaders;

impl HeaderList for NoHeaders {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        std::iter::empty()
    }
}

/// What the proxy knows of a request: that it comes from this peer.
pub struct From(pub &'static str);

impl Facts for From {
    fn source_address(&self) -> Vec<u8> {
        self.0.into()
    }

    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(self.0.into())
    }

    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
}

/// A Redis that counts as the plain model does, and holds a published policy.
#[derive(Default)]
pub struct FakeRedis {
    counters: Counters<Vec<u8>>,
    pub policy: Option<(u64, String)>,
}

impl FakeRedis {
    /// The replies to a call's commands, at this time of day.
    pub fn answer(&mut self, body: &[u8], now: StoreInstant) -> Vec<u8> {
        let mut replies = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (words, after) = command(rest);
            rest = after;
            replies.extend(self.reply(&words, now));
        }
        replies
    }

    /// How much is left of a counter's quota.
    pub fn left(&mut self, key: &[u8], quota: Quota, now: StoreInstant) -> i64 {
        let limits = [(key.to_vec(), quota, Cost::ONE)];
        let told = self.counters.run(Kind::Peek, &limits, now);
        told.limits[0].remaining
    }

    fn reply(&mut self, words: &[&[u8]], now: StoreInstant) -> Vec<u8> {
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        match words {
            [b"EVALSHA", _, keys, rest @ ..] => {
                let (keys, arguments) = rest.split_at(text(keys).parse().unwrap());
                bulk(Some(&self.run(keys, arguments, now)))
            }
            [b"INFO", ..] => bulk(Some(b"maxmemory:0\r\n")),
            [b"HSTRLEN", ..] => {
                let length = self.policy.as_ref().map_or(0, |(_, policy)| policy.len());
                format!(":{length}\r\n").into_bytes()
            }
            [b"HMGET", _, fields @ ..] => {
                let mut reply = format!("*{}\r\n", fields.len()).into_bytes();
                for field in fields {
                    let value = self.policy.as_ref().map(|(version, policy)| match *field {
                        b"policy" => policy.clone(),
                        _ => version.to_string(),
                    });
                    reply.extend(bulk(value.as_deref().map(str::as_bytes)));
                }
                reply
            }
            _ => panic!(
                "{:?}",
                words.iter().map(|word| text(word)).collect::<Vec<_>>()
            ),
        }
    }

    /// What the script would reply: `lua/README.md`.
    fn run(&mut self, keys: &[&[u8]], arguments: &[&[u8]], now: StoreInstant) -> Vec<u8> {
        let [quotas, operations, _totals, large @ ..] = arguments else {
            panic!("too few arguments")
        };
        let quotas: Vec<Quota> = quotas.chunks(25).map(quota).collect();
        let mut numbers = numbers(operations).into_iter();
        let mut large = large
            .iter()
            .map(|number| -> u64 { String::from_utf8_lossy(number).parse().unwrap() });
        let mut reply: Vec<i64> = vec![i64::try_from(now.0).unwrap()];
        while let Some(code) = numbers.next() {
            let count = numbers.next().unwrap();
            let kind = match code % 100 {
                1 => Kind::Take,
                2 => Kind::Peek,
                3 => Kind::Charge,
                4 => Kind::Refund {
                    receipt: StoreInstant(large.next().unwrap()),
                },
                6 => Kind::Lease {
                    ttl: Span::millis(large.next().unwrap()),
                },
                code => panic!("operation {code}"),
            };
            let limits: Vec<(Vec<u8>, Quota, Cost)> = (0..count)
                .map(|_| {
                    let key = keys[numbers.next().unwrap() as usize - 1].to_vec();
                    let quota = quotas[numbers.next().unwrap() as usize - 1];
                    let cost = if code > 100 { large.next().unwrap() } else { 1 };
                    (key, quota, Cost::try_new(cost).unwrap())
                })
                .collect();
            let told = self.counters.run(kind, &limits, now);
            reply.push(match told.verdict {
                Verdict::Passed => 1,
                Verdict::Refused => 0,
                Verdict::Unreadable => -1,
            });
            for reading in told.limits {
                let retry = match reading.retry {
                    Retry::Now => 0,
                    Retry::After(wait) => i64::try_from(wait.as_millis()).unwrap(),
                    Retry::Never => -1,
                    Retry::Unknown => -2,
                };
                let reset = i64::try_from(reading.reset.as_millis()).unwrap();
                reply.extend([reading.remaining, retry, reset]);
            }
        }
        reply
            .into_iter()
            .flat_map(|number| (number as f64).to_le_bytes())
            .collect()
    }
}

fn quota(packed: &[u8]) -> Quota {
    let number = |at: usize| u64::from_be_bytes(packed[at..at + 8].try_into().unwrap());
    let period = match packed[9] {
        0 => Period::Fixed(Span::millis(number(9))),
        unit => {
            let unit = Unit::ALL[usize::from(unit) - 1];
            let minutes = i16::from_be_bytes([packed[10], packed[11]]);
            Calendar::new(unit, UtcOffset::try_new(minutes).unwrap()).into()
        }
    };
    let algorithm = match packed[0] {
        1 => Algorithm::FixedWindow,
        2 => Algorithm::SlidingWindow,
        3 => Algorithm::TokenBucket,
        4 => Algorithm::LeakyBucket,
        code => panic!("algorithm {code}"),
    };
    Quota::of_numbers(algorithm, number(1), period, number(17))
}

fn numbers(packed: &[u8]) -> Vec<u32> {
    match packed {
        [1, bytes @ ..] => bytes.iter().map(|byte| u32::from(*byte)).collect(),
        [4, bytes @ ..] => {
            let words = bytes.chunks(4);
            words
                .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
                .collect()
        }
        _ => panic!("numbers of another size"),
    }
}

/// The words of the first command, and what follows it.
fn command(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (count, mut rest) = header(bytes);
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, after) = header(rest);
        words.push(&after[..len]);
        rest = &after[len + 2..];
    }
    (words, rest)
}

/// `*N` or `$N`.
fn header(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\r').unwrap();
    let number = String::from_utf8_lossy(&bytes[1..end]).parse().unwrap();
    (number, &bytes[end + 2..])
}

fn bulk(bytes: Option<&[u8]>) -> Vec<u8> {
    match bytes {
        None => b"$-1\r\n".to_vec(),
        Some(bytes) => {
            let mut out = format!("${}\r\n", bytes.len()).into_bytes();
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
            out
        }
    }
}
