//! Several workers whose Redis comes and goes: how much passes in a window, by the bound that
//! `local::fallback` states, and by a model that knows only what each worker was told.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::config::{Config, LimiterConfig};
use super::super::fake_host::{EPOCH, FakeHost, FakeRedis, From, Happened, Process};
use super::super::{Flow, Host, Worker};
use crate::local::timer_queue::StreamId;
use crate::quota::limit::{Algorithm, Quota};
use crate::time::{Span, StoreInstant};

const KEY: &[u8] = b"weir:2:{u:ann}:api:user:fw4s";
const WINDOW: u64 = 4;
/// Longer than a timeout, in ticks of 10 ms.
const LATE: u64 = 70;

/// What becomes of a request's call.
#[derive(Clone, Copy, Debug)]
enum Call {
    Answered,
    /// Redis counted, and its answer was late.
    CountedAndLost,
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Request(usize, Call),
    /// Time passes, in which Redis answers the looks of breakers, or does not.
    Pass(u64, Call),
}

struct Fleet {
    workers: Vec<(FakeHost, Worker<FakeHost>)>,
    redis: FakeRedis,
    quota: Quota,
    /// How far Redis's clock is ahead, in ms.
    ahead: i64,
    streams: u32,
    /// What passed in each window, by the word of Redis and by that of the workers.
    passed: HashMap<u64, u64>,
    counted: HashMap<u64, u64>,
    accounts: Vec<Account>,
}

/// What a worker may let through of this window without Redis, by what it was told.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    window: u64,
    left: u64,
    /// What it had when it first decided without Redis; nothing where it never did.
    begun: Option<u64>,
}

impl Account {
    fn enter(&mut self, window: u64, whole: u64) {
        if self.window != window {
            *self = Account {
                window,
                left: whole,
                begun: None,
            };
        }
    }
}

fn config(holders: usize, limit: u64) -> LimiterConfig {
    let text = format!(
        r#"{{"role": "limiter", "identity": {{"trust": "always"}},
        "store": {{"transport": "stream", "timeout_ms": 50, "policy_poll_ms": 0,
                   "denial_cache_ms": 0, "gateways": {holders}}},
        "policy": {{"rules": [{{"name": "api", "pattern": "/*", "user_limits": {{"default":
            {{"type": "fixed_window", "limit": {limit}, "window": {WINDOW}}}}}}}]}}}}"#
    );
    match Config::parse(&text) {
        Ok(Config::Limiter(config)) => *config,
        other => panic!("{other:?}"),
    }
}

impl Fleet {
    fn new(holders: usize, limit: u64, ahead: i64) -> Fleet {
        let worker = |_| {
            let host = FakeHost::of(&Process::default());
            let worker = Worker::new(host.clone(), config(holders, limit), "0123456789abcdef");
            (host, worker)
        };
        let mut fleet = Fleet {
            workers: (0..holders).map(worker).collect(),
            redis: FakeRedis::default(),
            quota: Quota::try_new(Algorithm::FixedWindow, limit, WINDOW, None).unwrap(),
            ahead,
            streams: 0,
            passed: HashMap::new(),
            counted: HashMap::new(),
            accounts: vec![Account::default(); holders],
        };
        // Each has heard of Redis, and so knows its clock.
        for worker in 0..holders {
            fleet.ask(worker, "bob", Call::Answered);
        }
        fleet
    }

    fn now(&self) -> StoreInstant {
        let now = self.workers[0].0.now().0 + EPOCH;
        StoreInstant(now.saturating_add_signed(self.ahead * 1000))
    }

    fn window(&self) -> u64 {
        self.now().0 / (WINDOW * 1_000_000)
    }

    fn share(&self, whole: u64) -> u64 {
        match whole {
            0 => 0,
            whole => (whole / self.workers.len() as u64).max(1),
        }
    }

    fn left(&mut self) -> u64 {
        let now = self.now();
        u64::try_from(self.redis.left(KEY, self.quota, now)).unwrap()
    }

    /// Moves all workers on: what they send is answered as `call` says.
    fn pass(&mut self, millis: u64, call: Call) {
        for _ in 0..millis.div_ceil(10) {
            for (host, _) in &self.workers {
                host.advance(Span::millis(10));
            }
            for worker in 0..self.workers.len() {
                self.workers[worker].1.tick();
                self.deliver(worker, call);
            }
        }
    }

    fn deliver(&mut self, worker: usize, call: Call) {
        loop {
            let now = self.now();
            let (host, worker) = &mut self.workers[worker];
            if host.was_woken() {
                worker.turn();
            }
            let sent = host.sent();
            if sent.is_empty() {
                return;
            }
            for (link, body) in sent {
                match call {
                    Call::Answered => worker.link_received(link, self.redis.answer(&body, now)),
                    Call::CountedAndLost => drop(self.redis.answer(&body, now)),
                    Call::Lost => {}
                }
            }
        }
    }

    fn ask(&mut self, worker: usize, user: &str, call: Call) -> Option<(bool, bool)> {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let headers = [
            (":method", "GET"),
            (":path", "/x"),
            (":authority", "a.example"),
            ("x-user-id", user),
        ];
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let (host, own) = &mut self.workers[worker];
        host.in_request(true);
        let flow = own.request_headers(stream, headers.into_iter(), &From("127.0.0.1"));
        host.in_request(false);
        let mut verdict = (flow == Flow::Continue).then_some(true);
        let mut is_local = true;
        for _ in 0..=LATE / 10 {
            verdict = verdict.or_else(|| self.verdict(worker, stream));
            if verdict.is_some() {
                break;
            }
            self.deliver(worker, call);
            verdict = self.verdict(worker, stream);
            if verdict.is_some() {
                is_local = !matches!(call, Call::Answered);
                break;
            }
            self.pass(10, call);
        }
        self.workers[worker].1.stream_ended(stream);
        Some((verdict?, is_local))
    }

    fn verdict(&self, worker: usize, stream: StreamId) -> Option<bool> {
        let happened = self.workers[worker].0.happened();
        happened.into_iter().find_map(|(of, what)| match what {
            Happened::Resumed if of == stream => Some(true),
            Happened::Answered(429) if of == stream => Some(false),
            _ => None,
        })
    }

    fn request(&mut self, worker: usize, call: Call) {
        let before = self.window();
        let used = self.quota.limit() - self.left();
        let (passes, is_local) = self.ask(worker, "ann", call).expect("an answer");
        let window = self.window();
        let whole = self.share(self.quota.limit());
        if window == before {
            // What was asked for in the last window was counted there.
            let counted = self.quota.limit() - self.left();
            self.counted.insert(window, counted);
        } else if matches!(call, Call::CountedAndLost) {
            let counted = self.counted.entry(before).or_default();
            *counted = (*counted).max(used + 1);
        }
        let left = self.left();
        let told = self.share(left);
        let account = &mut self.accounts[worker];
        account.enter(window, whole);
        if is_local {
            account.begun.get_or_insert(account.left);
            assert_eq!(passes, account.left > 0, "{account:?}");
            account.left -= u64::from(passes);
        } else if 2 * left < self.quota.limit() {
            account.left = account.left.min(told);
        }
        *self.passed.entry(window).or_default() += u64::from(passes);
        self.is_bounded();
    }

    /// U + Σ max(1, ⌊s·r⌋), and nothing where nothing was left.
    fn is_bounded(&self) {
        let window = self.window();
        let begun = self.accounts.iter().filter(|own| own.window == window);
        let shares: u64 = begun.filter_map(|own| own.begun).sum();
        let counted = self.counted.get(&window).copied().unwrap_or(0);
        let passed = self.passed[&window];
        assert!(
            passed <= counted + shares,
            "{passed} of {} passed, Redis counted {counted}, the workers began with {shares}",
            self.quota.limit()
        );
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let call = || {
        prop_oneof![
            6 => Just(Call::Answered),
            1 => Just(Call::CountedAndLost),
            2 => Just(Call::Lost),
        ]
    };
    let event = prop_oneof![
        8 => (0..4_usize, call()).prop_map(|(worker, call)| Event::Request(worker, call)),
        1 => (1..150_u64, call()).prop_map(|(tens, call)| Event::Pass(tens * 10, call)),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn no_more_passes_in_a_window_than_what_redis_counted_and_the_shares_of_what_it_left(
        holders in 1..=4_usize,
        limit in 1..40_u64,
        ahead in -3_000..3_000_i64,
        events in events(),
    ) {
        let mut fleet = Fleet::new(holders, limit, ahead);
        for event in events {
            match event {
                Event::Request(worker, call) => fleet.request(worker % holders, call),
                Event::Pass(millis, call) => fleet.pass(millis, call),
            }
        }
    }
}

/// Redis goes after so many requests, which came to the workers in turn; how many more pass.
fn passes_without_redis(holders: usize, limit: u64, asked: u64) -> u64 {
    let mut fleet = Fleet::new(holders, limit, 0);
    for number in 0..asked {
        fleet.request(number as usize % holders, Call::Answered);
    }
    let window = fleet.window();
    let before = fleet.passed.get(&window).copied().unwrap_or(0);
    for number in 0..2 * limit {
        fleet.request(number as usize % holders, Call::Lost);
    }
    assert_eq!(fleet.window(), window, "it all fits into one window");
    fleet.passed[&window] - before
}

#[test]
fn who_was_told_that_nothing_is_left_lets_nothing_through() {
    assert_eq!(passes_without_redis(2, 20, 22), 0);
}

#[test]
fn a_worker_begins_with_its_share_of_what_was_left() {
    // One was told that 5 are left, the other that 4 are.
    assert_eq!(passes_without_redis(2, 20, 16), 2 + 2);
    // Half was left, which nobody remembers.
    assert_eq!(passes_without_redis(2, 20, 10), 20);
}
