//! What the scripts promise beyond what the models can compare: foreign keys, expiry, bounded work,
//! numbers past a double, a Redis that refuses to write.

use std::time::{Duration, Instant};

use redis::Value;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::model::Counters;
use weir_core::quota::operation::{Kind, OperationReply, Reading, Retry, Verdict};
use weir_core::store::script::{self, By, Script};
use weir_core::time::{Span, StoreInstant};
use weir_lab::deadline;
use weir_lab::redis::Redis;

use crate::scenario::EPOCH;
use crate::weir::{Operation, Weir, cost, operation, quota};

const HOUR: u64 = 3600;

fn at(micros: u64) -> StoreInstant {
    StoreInstant(EPOCH + micros)
}

fn remaining(told: &OperationReply) -> Vec<i64> {
    told.limits
        .iter()
        .map(|reading| reading.remaining)
        .collect()
}

/// A key of its own for each algorithm.
fn one_of_each(limit: u64, window_seconds: u64) -> Vec<(&'static str, Quota)> {
    Algorithm::ALL
        .map(|algorithm| (algorithm.code(), quota(algorithm, limit, window_seconds)))
        .to_vec()
}

// === keys that are not Weir's ===

/// As long as a log of one record.
const FORTY_EIGHT: &str = "what is as long as a log need not have been one.";

#[test]
fn a_foreign_key_spoils_the_operations_that_name_it_and_no_others() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let foreign: &[&[&str]] = &[
        &["RPUSH", "foreign", "1 2 3"],
        &["RPUSH", "foreign", FORTY_EIGHT],
        &["SET", "foreign", FORTY_EIGHT],
        &["SET", "foreign", "hello"],
        &["SET", "foreign", ""],
        &["SET", "foreign", "1 2 0"],
        &["SET", "foreign", "1 2 3 0"],
        &["SET", "foreign", "-1 2 3 4"],
        &["SET", "foreign", "1e3 2 3 4"],
        &["SET", "foreign", "-1 2"],
        &["SET", "foreign", "179555760000012x"],
        &["SET", "foreign", "-1795557600000012"],
        &[
            "SET",
            "foreign",
            "1 2 3 99999999999999999999999999999999999999999999999999",
        ],
        &[
            "SET",
            "foreign",
            "1 99999999999999999999999999999999999999999999999999",
        ],
        &["HSET", "foreign", "1", "2"],
        &["ZADD", "foreign", "1", "hello"],
    ];
    for command in foreign {
        for (algorithm, limit) in one_of_each(5, HOUR) {
            weir.flush();
            weir.redis(command);
            let before = weir.redis(&["DUMP", "foreign"]);
            let healthy = [("healthy", limit)];
            let spoiled = [("healthy", limit), ("foreign", limit)];
            let answer = weir
                .call(&[
                    operation(Kind::Take, 1, &healthy),
                    operation(Kind::Take, 1, &spoiled),
                    operation(Kind::Reset, 1, &spoiled),
                    operation(Kind::Take, 1, &healthy),
                ])
                .unwrap_or_else(|error| panic!("{command:?}, {algorithm}: {error}"));
            let verdicts: Vec<_> = answer.told.iter().map(|told| told.verdict).collect();
            let (passed, unreadable) = (Verdict::Passed, Verdict::Unreadable);
            assert_eq!(
                verdicts,
                [passed, unreadable, unreadable, passed],
                "{command:?}, {algorithm}"
            );
            let zero = |remaining| Reading {
                remaining,
                retry: Retry::Now,
                reset: Span::ZERO,
            };
            assert_eq!(answer.told[1].limits, [zero(0), zero(-1)]);
            assert_eq!(remaining(&answer.told[3]), [3]);
            assert_eq!(weir.one(Kind::Take, 1, &spoiled).verdict, unreadable);
            assert_eq!(weir.redis(&["DUMP", "foreign"]), before);
        }
    }
}

/// Lua and Redis do not agree on what a number is.
#[test]
fn a_number_that_is_none_to_redis_is_written_anew() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(at(0));
    let limits = [("weir:2:window", quota(Algorithm::FixedWindow, 5, HOUR))];
    let end = EPOCH / 1_000_000 + HOUR;
    weir.redis(&["SET", "weir:2:window", &format!("{end}.000002e6")]);
    assert_eq!(remaining(&weir.one(Kind::Take, 1, &limits)), [2]);
    let stored = weir.redis(&["GET", "weir:2:window"]);
    let stored: String = redis::from_redis_value(stored).unwrap();
    assert_eq!(stored, format!("{end}000003"));
    weir.check_keys().unwrap();
}

/// The number that INCRBY counts up has room for so many permits, and no more.
#[test]
fn a_window_counts_past_six_digits() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(at(0));
    let limits = [(
        "weir:2:window",
        quota(Algorithm::FixedWindow, 2_000_000, HOUR),
    )];
    for (taken, left) in [
        (999_998, 1_000_002),
        (1, 1_000_001),
        (1, 1_000_000),
        (1, 999_999),
    ] {
        let told = weir.one(Kind::Take, taken, &limits);
        assert_eq!(remaining(&told), [left], "after {taken} more");
        weir.check_keys().unwrap();
    }
}

// === all or nothing ===

#[test]
fn a_denied_request_consumes_nothing_anywhere() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    for (full, _) in one_of_each(3, HOUR) {
        weir.flush();
        let limits = one_of_each(3, HOUR);
        let that: Vec<_> = limits
            .iter()
            .copied()
            .filter(|(key, _)| *key == full)
            .collect();
        assert_eq!(weir.one(Kind::Charge, 3, &that).verdict, Verdict::Passed);
        let before = weir.contents();
        for _ in 0..3 {
            assert_eq!(weir.one(Kind::Take, 1, &limits).verdict, Verdict::Refused);
        }
        assert_eq!(weir.contents(), before, "{full} was full");
        assert_eq!(weir.integer(&["DBSIZE"]), 1);
    }
}

#[test]
fn a_peek_writes_nothing_even_if_the_clock_went_back() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = one_of_each(3, 10);
    weir.set_clock(at(0));
    weir.one(Kind::Peek, 1, &limits);
    assert_eq!(weir.integer(&["DBSIZE"]), 1, "the clock alone");
    weir.one(Kind::Take, 1, &limits);
    weir.set_clock(StoreInstant(EPOCH - 60_000_000));
    let before = weir.contents();
    assert_eq!(remaining(&weir.one(Kind::Peek, 1, &limits)), [2, 2, 2, 2]);
    assert_eq!(weir.contents(), before);
}

#[test]
fn a_clock_that_stepped_back_neither_refills_nor_freezes() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = one_of_each(3, 10);
    weir.set_clock(at(0));
    weir.one(Kind::Take, 3, &limits);
    // By a year; a refused take must settle the states here, or they would stay full for that year.
    let back = EPOCH - 365 * 24 * 3600 * 1_000_000;
    weir.set_clock(StoreInstant(back));
    let told = weir.one(Kind::Take, 1, &limits);
    assert_eq!(
        (told.verdict, remaining(&told)),
        (Verdict::Refused, vec![0; 4])
    );
    weir.set_clock(StoreInstant(back + 10_000_000));
    let told = weir.one(Kind::Take, 3, &limits);
    assert_eq!(
        (told.verdict, remaining(&told)),
        (Verdict::Passed, vec![0; 4])
    );
}

// === leases ===

fn lease(ttl_ms: u64) -> Kind {
    Kind::Lease {
        ttl: Span::millis(ttl_ms),
    }
}

#[test]
fn a_lease_takes_what_is_free_and_no_more() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let limits = one_of_each(5, HOUR);
    weir.one(Kind::Take, 3, &limits);
    for (permits, granted) in [(1, 1), (10, 1), (10, 0)] {
        let told = weir.one(lease(1000), permits, &limits);
        assert_eq!(told.verdict, Verdict::Passed);
        let took: Vec<_> = told.limits.iter().map(Reading::granted).collect();
        assert_eq!(took, [granted; 4], "of {permits}");
    }
    assert_eq!(remaining(&weir.one(Kind::Peek, 1, &limits)), [0; 4]);
    // A debt leaves nothing to lease, and is no credit.
    weir.one(Kind::Charge, 2, &limits);
    let told = weir.one(lease(1000), 1, &limits);
    assert_eq!(told.limits[0].granted(), 0);
    assert_eq!(remaining(&told), [-2; 4]);
}

/// A permit that is leased may be used until the lease ends, and must count for a window after that.
#[test]
fn a_log_counts_leased_permits_as_if_used_at_the_last_moment() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [("weir:2:log", quota(Algorithm::SlidingWindow, 10, 10))];
    let second = |n: u64| at(n * 1_000_000);
    weir.set_clock(second(0));
    assert_eq!(remaining(&weir.one(Kind::Take, 1, &limits)), [9]);
    weir.set_clock(second(1));
    assert_eq!(remaining(&weir.one(lease(4000), 3, &limits)), [6]);
    // What is taken meanwhile counts as long; entries stay in order.
    weir.set_clock(second(2));
    assert_eq!(remaining(&weir.one(Kind::Take, 1, &limits)), [5]);
    weir.set_clock(second(6));
    assert_eq!(remaining(&weir.one(Kind::Take, 1, &limits)), [4]);
    let record = |begun, stamp, total| [second(begun).0, second(stamp).0, total];
    let held = [record(0, 0, 1), record(1, 5, 5), record(6, 6, 6)];
    assert_eq!(weir.log("weir:2:log"), held);
    // The log's own time is when its newest entry was begun: the oldest goes when it is due.
    for (seconds, micros, left) in [(9, 999_999, 4), (10, 0, 5), (14, 999_999, 5), (15, 0, 9)] {
        weir.set_clock(at(seconds * 1_000_000 + micros));
        let told = weir.one(Kind::Peek, 1, &limits);
        assert_eq!(remaining(&told), [left], "{seconds}.{micros:06}");
    }
    weir.check_keys().unwrap();
}

#[test]
fn unused_permits_go_back_to_the_lease_that_took_them() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [("weir:2:log", quota(Algorithm::SlidingWindow, 100, 10))];
    for (ms, ttl) in [(0, 1000), (300, 1000), (600, 1000)] {
        weir.set_clock(at(ms * 1000));
        weir.one(lease(ttl), 10, &limits);
    }
    let refund = |ms: u64| Kind::Refund {
        receipt: at(ms * 1000),
    };
    weir.one(refund(300), 4, &limits);
    let record = |ms: u64, total| [at(ms * 1000).0, at((ms + 1000) * 1000).0, total];
    let held = [record(0, 10), record(300, 16), record(600, 26)];
    assert_eq!(weir.log("weir:2:log"), held);
    // Of a lease whose state is gone nothing goes back, whoever took since.
    weir.one(Kind::Reset, 1, &limits);
    weir.set_clock(at(700_000));
    weir.one(Kind::Take, 5, &limits);
    assert_eq!(remaining(&weir.one(refund(600), 10, &limits)), [95]);
}

/// One entry cannot be two: a take and a lease of one moment share their receipt, and must not be
/// taken for each other.
#[test]
fn a_lease_at_the_moment_of_a_take_joins_it() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [("weir:2:log", quota(Algorithm::SlidingWindow, 100, 10))];
    weir.set_clock(at(0));
    for _ in 0..2 {
        weir.one(Kind::Take, 1, &limits);
        weir.one(lease(1000), 10, &limits);
    }
    assert_eq!(weir.log("weir:2:log"), [[at(0).0, at(1_000_000).0, 22]]);
    weir.one(Kind::Refund { receipt: at(0) }, 10, &limits);
    weir.set_clock(at(10_999_999));
    assert_eq!(remaining(&weir.one(Kind::Peek, 1, &limits)), [88]);
    weir.set_clock(at(11_000_000));
    assert_eq!(remaining(&weir.one(Kind::Peek, 1, &limits)), [100]);
}

// === refund ===

#[test]
fn a_give_back_after_rollover_frees_nothing() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [
        ("fw", quota(Algorithm::FixedWindow, 2, 10)),
        ("sl", quota(Algorithm::SlidingWindow, 2, 10)),
    ];
    weir.set_clock(at(0));
    weir.one(Kind::Take, 2, &limits);
    weir.set_clock(at(10_000_000));
    assert_eq!(remaining(&weir.one(Kind::Take, 2, &limits)), [0, 0]);
    let told = weir.one(Kind::Refund { receipt: at(0) }, 2, &limits);
    assert_eq!(remaining(&told), [0, 0]);
    let told = weir.one(
        Kind::Refund {
            receipt: at(10_000_000),
        },
        2,
        &limits,
    );
    assert_eq!(remaining(&told), [2, 2]);
    assert_eq!(weir.integer(&["DBSIZE"]), 1, "an empty state is no key");
}

#[test]
fn a_give_back_to_no_state_makes_none() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(at(0));
    let told = weir.one(Kind::Refund { receipt: at(0) }, 2, &one_of_each(3, 10));
    assert_eq!(remaining(&told), [3; 4]);
    assert_eq!(weir.integer(&["DBSIZE"]), 1, "the clock alone");
}

#[test]
fn a_give_back_rewrites_a_thousand_later_entries_and_no_more() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [("weir:2:log", quota(Algorithm::SlidingWindow, 5000, HOUR))];
    for stamp in 0..=1001 {
        weir.set_clock(at(stamp));
        weir.one(Kind::Take, 1, &limits);
    }
    let refund = |stamp| Kind::Refund { receipt: at(stamp) };
    assert_eq!(remaining(&weir.one(refund(0), 1, &limits)), [5000 - 1002]);
    assert_eq!(remaining(&weir.one(refund(1), 1, &limits)), [5000 - 1001]);
    let held = weir.log("weir:2:log");
    assert_eq!(
        (held.len(), held[1000]),
        (1001, [at(1001).0, at(1001).0, 1001])
    );
    weir.check_keys().unwrap();
}

/// The log in Redis still holds what the batch has refunded; it must not be read for what lies
/// behind it.
#[test]
fn what_a_batch_gives_back_is_gone_for_a_shorter_window_too() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let long = [("weir:2:log", quota(Algorithm::SlidingWindow, 100, 60))];
    let short = [("weir:2:log", quota(Algorithm::SlidingWindow, 100, 10))];
    for second in [0, 10, 20] {
        weir.set_clock(at(second * 1_000_000));
        weir.one(Kind::Take, 5, &long);
    }
    weir.set_clock(at(22_000_000));
    let receipt = at(10_000_000);
    let answer = weir
        .call(&[
            operation(Kind::Refund { receipt }, 5, &long),
            operation(Kind::Take, 1, &short),
        ])
        .unwrap();
    assert_eq!(remaining(&answer.told[0]), [90]);
    assert_eq!(remaining(&answer.told[1]), [94]);
    weir.check_keys().unwrap();
}

// === expiry ===

#[test]
fn a_key_lives_as_long_as_its_state_means_something_and_no_longer() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    for (key, limit) in one_of_each(10, 60) {
        for permits in [1, 4] {
            for kind in [Kind::Take, Kind::Charge] {
                let asked = Instant::now();
                let told = weir.one(kind, permits, &[(key, limit)]);
                let life = weir.integer(&["PTTL", key]);
                // Plus 2: the deadline is rounded up to a ms, and so is what is told.
                let spent = asked.elapsed().as_millis() as i64 + 2;
                let reset = told.limits[0].reset.as_millis() as i64;
                // Most expiries are moved in steps.
                let slack = match limit.algorithm() {
                    Algorithm::FixedWindow => 0,
                    _ => limit.window().as_millis() as i64 / 4,
                };
                assert!(
                    (reset - spent..=reset + 1 + slack).contains(&life),
                    "{key}: told {reset} ms, lives {life} ms, asked {spent} ms ago"
                );
            }
        }
    }
}

#[test]
fn what_has_ended_is_gone_from_redis() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    weir.one(Kind::Take, 1, &one_of_each(10, 1));
    let gone = deadline::poll(Duration::from_secs(10), "empty Redis", || {
        Ok((weir.integer(&["DBSIZE"]) == 0).then_some(()))
    });
    assert!(gone.is_ok(), "{:?}", weir.strings(&["KEYS", "*"]));
}

// === long logs, large numbers ===

/// A list's texts hold 16 records each.
#[test]
fn a_thousand_expired_texts_are_trimmed_at_a_time_and_none_counts() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limits = [("weir:2:log", quota(Algorithm::SlidingWindow, 100_000, 10))];
    for stamp in 0..17_000 {
        weir.set_clock(at(stamp));
        weir.one(Kind::Take, 1 + stamp % 3, &limits);
    }
    let mut used = 0;
    for stamp in 5_000_000..5_000_040 {
        weir.set_clock(at(stamp));
        weir.one(Kind::Take, 7, &limits);
        used += 7;
    }
    let mut texts = weir.integer(&["LLEN", "weir:2:log"]);
    for (tick, fewer) in [(0, 999..=1000), (1, 55..=70), (2, -1..=0)] {
        weir.set_clock(at(10_020_000 + tick));
        used += 1;
        let told = weir.one(Kind::Take, 1, &limits);
        assert_eq!(remaining(&told), [100_000 - used]);
        let left = weir.integer(&["LLEN", "weir:2:log"]);
        assert!(fewer.contains(&(texts - left)), "{texts}, then {left}");
        texts = left;
    }
    weir.check_keys().unwrap();
    // With the last of the old texts gone it is short again.
    weir.set_clock(at(15_000_039));
    weir.one(Kind::Take, 1, &limits);
    assert_eq!(
        weir.redis(&["TYPE", "weir:2:log"]),
        Value::SimpleString("string".into())
    );
    weir.check_keys().unwrap();
}

/// Texts are lists from so many records on: the same must hold on either side, and across.
#[test]
fn a_log_that_grows_and_shrinks_again_is_told_as_in_memory() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let mut counters = Counters::default();
    let long = quota(Algorithm::SlidingWindow, 150, 60);
    let short = quota(Algorithm::SlidingWindow, 150, 20);
    let mut now = at(0);
    let mut taken = Vec::new();
    for turn in 0..3000u64 {
        // Busy, then quiet: from one record to two hundred and back.
        let pause = if turn / 200 % 2 == 0 { 300 } else { 1500 };
        now = StoreInstant(now.0 + pause * (500 + turn * 7919 % 1000));
        weir.set_clock(now);
        taken.push(now);
        let limit = if turn / 150 % 4 == 3 { short } else { long };
        let limits = [("weir:2:log", limit, cost(1 + turn % 13 / 12 * (turn % 40)))];
        let kind = match turn * 31 % 37 {
            0 => lease(turn % 5 * 700),
            1 => Kind::Charge,
            // Of the newest texts, and of those before.
            2..6 => Kind::Refund {
                receipt: taken[taken.len() - 1 - (turn as usize * 13 % 90).min(taken.len() - 1)],
            },
            _ => Kind::Take,
        };
        let operation = Operation {
            kind,
            limits: limits
                .map(|(key, limit, cost)| (key.to_string(), limit, cost))
                .to_vec(),
        };
        let told = weir.call(&[operation]).unwrap().told.remove(0);
        let expected = counters.run(kind, &limits, now);
        assert_eq!(told, expected, "turn {turn}, {kind:?}");
        if turn % 50 == 0 {
            weir.check_keys().unwrap();
        }
    }
}

#[test]
fn the_wait_for_any_cost_is_exact_among_weighted_entries() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let mut counters = Counters::default();
    let limit = quota(Algorithm::SlidingWindow, 1000, 100);
    let limits = [("weir:2:log", limit)];
    let mut now = at(0);
    for entry in 0..500 {
        now = at(entry * 300_017);
        weir.set_clock(now);
        // A scatter of weights: long runs of 1, some heavy.
        let permits = if entry % 7 < 4 { 1 } else { 1 + entry * 31 % 9 };
        let told = weir.one(Kind::Charge, permits, &limits);
        assert_eq!(
            told,
            counters.run(Kind::Charge, &[(limits[0].0, limit, cost(permits))], now)
        );
    }
    for permits in 1..=1000 {
        let told = weir.one(Kind::Peek, permits, &limits);
        let expected = counters.run(Kind::Peek, &[(limits[0].0, limit, cost(permits))], now);
        assert_eq!(told, expected, "cost {permits}");
    }
}

#[test]
fn integers_past_1e14_are_kept_to_the_last_digit() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(at(0));
    let bucket = quota(Algorithm::LeakyBucket, 1_000_000, 30 * 24 * HOUR);
    weir.one(Kind::Take, 999_999, &[("weir:2:b", bucket)]);
    let stored: String = redis::from_redis_value(weir.redis(&["GET", "weir:2:b"])).unwrap();
    assert_eq!(stored, "2591997408000000 4102444800000 1000000 2592000000");
    // 2.592e15 - 1: a ms later a million units less, and a whole window of units more.
    weir.set_clock(at(1_000));
    weir.one(Kind::Charge, 1, &[("weir:2:b", bucket)]);
    let stored: String = redis::from_redis_value(weir.redis(&["GET", "weir:2:b"])).unwrap();
    assert_eq!(stored, "2591999999000000 4102444800001 1000000 2592000000");

    let log = quota(Algorithm::SlidingWindow, 1_000_000, 30 * 24 * HOUR);
    weir.set_clock(at(1));
    weir.one(Kind::Charge, 123_456_789_012_345, &[("weir:2:l", log)]);
    weir.set_clock(at(2));
    weir.one(Kind::Charge, 1, &[("weir:2:l", log)]);
    let record = |micros, total| [at(micros).0, at(micros).0, total];
    let held = [
        record(1, 123_456_789_012_345),
        record(2, 123_456_789_012_346),
    ];
    assert_eq!(weir.log("weir:2:l"), held);
}

#[test]
fn a_debt_stops_growing_where_doubles_lose_integers() {
    const MOST: i64 = (1 << 53) - 1;
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let mut counters = Counters::default();
    let limits = one_of_each(10, 60);
    for permits in [3, u64::MAX, 1, 1 << 53] {
        weir.set_clock(at(permits % 10));
        let told = weir.one(Kind::Charge, permits, &limits);
        let now = at(permits % 10);
        let limits = limits
            .clone()
            .into_iter()
            .map(|(key, limit)| (key, limit, cost(permits)));
        let expected = counters.run(Kind::Charge, &limits.collect::<Vec<_>>(), now);
        assert_eq!(told, expected, "{permits}");
    }
    let told = weir.one(Kind::Peek, 1, &limits);
    let bucket = (600_000 - MOST).div_euclid(60_000);
    assert_eq!(remaining(&told), [10 - MOST, 10 - MOST, bucket, bucket]);
}

// === the script and its Redis ===

#[test]
fn redis_knows_the_script_by_the_sha_computed_here() {
    let server = Redis::start().expect("a Redis");
    let script = Script::production();
    let sha: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(script.source())
        .query(&mut server.connection().expect("a connection"))
        .unwrap();
    assert_eq!(sha, script.sha());
}

#[test]
fn the_test_clock_is_another_script() {
    assert_ne!(
        Script::new(script::assemble(include_str!("clock.lua"))).sha(),
        Script::production().sha()
    );
    assert!(!Script::production().source().contains("weir:test"));
}

#[test]
fn after_noscript_the_same_call_by_source_is_all_it_takes() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    weir.redis(&["SCRIPT", "FLUSH"]);
    let take = [operation(Kind::Take, 1, &one_of_each(5, HOUR))];
    let error = weir.call(&take).unwrap_err();
    assert_eq!(error.code(), Some("NOSCRIPT"));
    assert_eq!(
        remaining(&weir.call_by(By::Source, &take).unwrap().told[0]),
        [4; 4]
    );
    assert_eq!(remaining(&weir.call(&take).unwrap().told[0]), [3; 4]);
}

/// A batch that would write in every way there is.
fn all_writes() -> Vec<Operation> {
    let (used, fresh) = (
        one_of_each(5, HOUR),
        [("fresh", quota(Algorithm::FixedWindow, 5, HOUR))],
    );
    let kinds = [Kind::Take, Kind::Charge, Kind::Reset, Kind::Take];
    let mut batch: Vec<_> = kinds.map(|kind| operation(kind, 2, &used)).to_vec();
    batch.insert(0, operation(Kind::Take, 1, &fresh));
    batch
}

#[test]
fn a_redis_that_refuses_to_write_has_written_nothing() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let refusals: [(&str, &[&str], &[&str]); 2] = [
        (
            "READONLY",
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
        (
            "OOM",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
    ];
    for (reason, begin, end) in refusals {
        weir.flush();
        weir.one(Kind::Take, 1, &one_of_each(5, HOUR));
        let before = weir.contents();
        weir.redis(begin);
        let together = operation(Kind::Take, 1, &one_of_each(5, HOUR));
        for batch in [all_writes(), vec![together]] {
            let error = weir.call(&batch).unwrap_err();
            // Before Redis 7 the reason stands inside an ERR.
            let told = error.code() == Some(reason) || error.to_string().contains(reason);
            assert!(told, "{error}");
        }
        let peek = weir.one(Kind::Peek, 1, &one_of_each(5, HOUR));
        assert_eq!(
            (peek.verdict, remaining(&peek)),
            (Verdict::Passed, vec![4; 4])
        );
        weir.redis(end);
        assert_eq!(weir.contents(), before, "{reason}");
        assert!(weir.call(&all_writes()).is_ok());
    }
}

#[test]
fn an_error_that_is_no_keys_fault_is_the_whole_calls() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    weir.redis(&["ACL", "SETUSER", "default", "-mget"]);
    let batch = [Algorithm::SlidingWindow, Algorithm::FixedWindow].map(|algorithm| {
        operation(
            Kind::Take,
            1,
            &[(algorithm.code(), quota(algorithm, 5, 10))],
        )
    });
    assert!(weir.call(&batch).is_err());
    assert_eq!(weir.integer(&["DBSIZE"]), 0);
}

#[test]
fn a_hot_key_is_read_once_and_written_once_a_batch() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let hot = [("hot", quota(Algorithm::TokenBucket, 100, HOUR))];
    weir.redis(&["CONFIG", "RESETSTAT"]);
    let answer = weir
        .call(&vec![operation(Kind::Take, 1, &hot); 16])
        .unwrap();
    assert_eq!(remaining(&answer.told[15]), [84]);
    let stats = weir.redis(&["INFO", "commandstats"]);
    let stats: String = redis::from_redis_value(stats).unwrap();
    for command in ["mget", "set"] {
        let calls = format!("cmdstat_{command}:calls=1,");
        assert!(stats.contains(&calls), "{stats}");
    }
}

// === takes that are decided together ===

#[test]
fn takes_with_twice_the_room_they_need_are_decided_together() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let all = one_of_each(20, HOUR).into_iter();
    for (algorithm, limit) in all.filter(|(code, _)| *code != Algorithm::LeakyBucket.code()) {
        weir.flush();
        let (one, two) = ([("one", limit)], [("one", limit), ("two", limit)]);
        let batch = [
            operation(Kind::Take, 1, &one),
            operation(Kind::Take, 3, &two),
            operation(Kind::Take, 1, &one),
        ];
        for (left, together) in [(15, true), (10, true), (5, true), (0, false)] {
            let answer = weir.call(&batch).unwrap();
            let told: Vec<_> = answer.told.iter().map(remaining).collect();
            let two = (left / 5) * 3 + 8;
            let expected = [vec![left + 4], vec![left + 1, two], vec![left]];
            assert_eq!(
                (told.as_slice(), answer.together),
                (&expected[..], together),
                "{algorithm}"
            );
        }
        let answer = weir.call(&batch[..1]).unwrap();
        assert_eq!(answer.told[0].verdict, Verdict::Refused, "{algorithm}");
    }
}

#[test]
fn what_is_no_take_or_not_of_one_quota_is_decided_one_by_one() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let by = |limit| [("key", quota(Algorithm::FixedWindow, limit, HOUR))];
    let take = operation(Kind::Take, 1, &by(100));
    let roomy = [("roomy", quota(Algorithm::FixedWindow, 1 << 40, 1))];
    let costly = operation(Kind::Take, 1 << 32, &roomy);
    let leaky = [("leaky", quota(Algorithm::LeakyBucket, 100, HOUR))];
    let lease = Kind::Lease {
        ttl: Span::millis(100),
    };
    for (other, expected) in [
        (take.clone(), true),
        (operation(Kind::Take, 1, &by(50)), false),
        (operation(Kind::Take, 1, &leaky), true),
        (operation(Kind::Peek, 1, &by(100)), false),
        (operation(Kind::Charge, 1, &by(100)), false),
        (operation(lease, 1, &by(100)), false),
        (costly, false),
    ] {
        weir.flush();
        let answer = weir.call(&[take.clone(), other.clone()]).unwrap();
        assert_eq!(answer.together, expected, "{other:?}");
    }
    let answer = weir.call(&vec![operation(Kind::Take, 1, &leaky); 2]);
    assert!(!answer.unwrap().together, "each has a turn of its own");
}

/// Otherwise it would be left where it stands, and what is taken counted from there.
#[test]
fn a_key_that_must_be_moved_is_moved_though_all_would_fit() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    for algorithm in [Algorithm::FixedWindow, Algorithm::TokenBucket] {
        weir.flush();
        weir.set_clock(at(10 * 60_000_000));
        let by = |window| [("key", quota(algorithm, 1000, window))];
        weir.one(Kind::Take, 100, &by(HOUR));
        for together in [false, true] {
            let take = operation(Kind::Take, 1, &by(60));
            let answer = weir.call(&[take]).unwrap();
            assert_eq!(answer.together, together, "{algorithm:?}");
        }
    }
}
