//! Permits in use: what the script makes of several holders that take, tell, fall silent and come back, and
//! what the model does. Whatever was lost on the way, the holder's next word sets it right.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::Value;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::model::Counters;
use weir_core::quota::operation::{Holder, Kind, Reading, Retry, Verdict};
use weir_core::time::{Span, StoreInstant};
use weir_lab::redis::Redis;

use crate::scenario::EPOCH;
use crate::weir::{Operation, Weir, cost, operation, quota};

const SECOND: u64 = 1_000_000;

/// A worker that lives, one that does too, and one that will be killed.
const ANN: Holder = Holder(1);
const BEN: Holder = Holder(u64::MAX);
const DEAD: Holder = Holder(0x0dea_d000_0000_0000);

fn in_use(limit: u64) -> Quota {
    Quota::try_concurrency(limit).expect("a quota")
}

impl Weir {
    /// What a key's holders hold, and what its `total` says that they do together.
    fn held(&mut self, key: &str) -> (HashMap<String, u64>, u64) {
        let fields: HashMap<String, String> =
            redis::from_redis_value(self.redis(&["HGETALL", key])).expect("a hash");
        let count = |text: String| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        let mut fields: HashMap<String, u64> = fields
            .into_iter()
            .map(|(name, text)| (name, count(text)))
            .collect();
        let total = fields.remove("total").unwrap_or(0);
        (fields, total)
    }

    fn remaining(
        &mut self,
        holder: Holder,
        kind: Kind,
        permits: u64,
        limit: Quota,
    ) -> (Verdict, i64) {
        self.ask_as(holder);
        let told = self.one(kind, permits, &[("weir:2:use", limit)]);
        (told.verdict, told.limits[0].remaining)
    }
}

/// A check: the key's place, the limit's, and the permits.
type Asked = (usize, usize, u64);

#[derive(Clone, Debug)]
struct Step {
    later: i64,
    holder: Holder,
    batch: Vec<(Kind, Vec<Asked>)>,
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        6 => Just(Kind::Take),
        1 => Just(Kind::Peek),
        1 => Just(Kind::Charge),
        3 => Just(Kind::Refund { receipt: StoreInstant(0) }),
        1 => Just(Kind::Lease { ttl: Span::millis(1000) }),
        4 => Just(Kind::Hold),
        3 => Just(Kind::Release),
        1 => Just(Kind::Reset),
    ];
    // A key, a version of its limit, and a cost. The last key is a window's.
    let limit = (
        0..4usize,
        prop_oneof![5 => Just(0), 1 => Just(1usize)],
        1..4u64,
    );
    let operation = (kind, vec(limit, 1..3)).prop_map(|(kind, mut limits)| {
        limits.dedup_by_key(|limit| limit.0);
        (kind, limits)
    });
    let few = prop::sample::select(vec![0, 0, 0, 1, -1, 1000, -1000]);
    let later = prop_oneof![
        4 => 0..900_000i64,
        2 => prop::sample::select(vec![1, 5, 18, 19, 20, 21]).prop_map(|seconds| seconds * 1_000_000),
        1 => Just(-3600 * 1_000_000),
        1 => -30_000_000..0i64,
    ];
    let later = (later, few).prop_map(|(later, and)| later + and);
    let holder = prop::sample::select(vec![ANN, BEN, DEAD]);
    (later, holder, vec(operation, 1..5)).prop_map(|(later, holder, batch)| Step {
        later,
        holder,
        batch,
    })
}

#[test]
fn the_script_counts_holders_as_the_model_does() {
    let server = Redis::start().expect("a Redis");
    let weir = RefCell::new(Weir::with_test_clock(&server));
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let versions = [
        [in_use(3), in_use(5)],
        [in_use(10), in_use(2)],
        [in_use(1), in_use(1)],
        [Algorithm::FixedWindow; 2].map(|algorithm| quota(algorithm, 30, 3600)),
    ];
    let outcome = TestRunner::new(config).run(&vec(steps(), 1..30), |steps| {
        let mut weir = weir.borrow_mut();
        weir.flush();
        let (mut counters, mut now) = (Counters::default(), EPOCH);
        for (index, step) in steps.iter().enumerate() {
            now = now.saturating_add_signed(step.later);
            weir.set_clock(StoreInstant(now));
            weir.ask_as(step.holder);
            counters.ask_as(step.holder);
            let operations: Vec<Operation> = step
                .batch
                .iter()
                .map(|(kind, limits)| Operation {
                    kind: *kind,
                    limits: limits
                        .iter()
                        .map(|(key, version, permits)| {
                            (
                                format!("weir:2:{key}"),
                                versions[*key][*version],
                                cost(*permits),
                            )
                        })
                        .collect(),
                })
                .collect();
            let answer = weir.call(&operations).expect("an answer");
            let batch = operations
                .iter()
                .map(|one| (one.kind, one.limits.as_slice()));
            let expected = counters.run_batch(batch, StoreInstant(now), answer.together);
            for ((operation, told), expected) in operations.iter().zip(&answer.told).zip(&expected)
            {
                prop_assert_eq!(
                    told,
                    expected,
                    "step {} at {}: {:#?}",
                    index,
                    now,
                    operation
                );
            }
            for key in ["weir:2:0", "weir:2:1", "weir:2:2"] {
                let (holders, total) = weir.held(key);
                prop_assert_eq!(holders.values().sum::<u64>(), total, "{:?}", holders);
                prop_assert!(holders.values().all(|count| *count > 0), "{:?}", holders);
                prop_assert!(total == 0 || weir.integer(&["PTTL", key]) > 0);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn what_a_dead_holder_held_is_free_within_twenty_seconds_and_no_sooner_than_it_could_speak() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limit = in_use(10);
    let (passed, refused) = (Verdict::Passed, Verdict::Refused);
    weir.set_clock(StoreInstant(EPOCH));
    assert_eq!(weir.remaining(DEAD, Kind::Take, 6, limit), (passed, 4));
    assert_eq!(weir.remaining(ANN, Kind::Take, 4, limit), (passed, 0));
    for later in [5, 10, 15] {
        weir.set_clock(StoreInstant(EPOCH + later * SECOND));
        assert_eq!(weir.remaining(ANN, Kind::Hold, 4, limit), (passed, 0));
        assert_eq!(weir.remaining(BEN, Kind::Take, 1, limit), (refused, 0));
    }
    weir.set_clock(StoreInstant(EPOCH + 20 * SECOND));
    assert_eq!(weir.remaining(BEN, Kind::Take, 1, limit), (passed, 5));
    assert_eq!(weir.held("weir:2:use").1, 5);
    // It was not dead, only far away: its word counts again.
    assert_eq!(weir.remaining(DEAD, Kind::Hold, 6, limit), (passed, -1));
    assert_eq!(weir.remaining(BEN, Kind::Take, 1, limit), (refused, -1));
    assert_eq!(weir.remaining(DEAD, Kind::Release, 1, limit), (passed, 5));
}

/// A word may be told twice, and what it corrects may have been lost or counted twice.
#[test]
fn a_word_is_the_same_however_often_it_is_told() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let limit = in_use(10);
    weir.set_clock(StoreInstant(EPOCH));
    weir.remaining(ANN, Kind::Take, 3, limit);
    weir.remaining(BEN, Kind::Take, 5, limit);
    for _ in 0..3 {
        assert_eq!(
            weir.remaining(ANN, Kind::Hold, 1, limit),
            (Verdict::Passed, 4)
        );
    }
    for _ in 0..3 {
        assert_eq!(
            weir.remaining(BEN, Kind::Release, 1, limit),
            (Verdict::Passed, 9)
        );
    }
    weir.remaining(ANN, Kind::Release, 1, limit);
    assert_eq!(weir.integer(&["EXISTS", "weir:2:use"]), 0);
}

#[test]
fn nobody_knows_when_a_permit_will_be_free_and_a_window_is_told_as_ever() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(StoreInstant(EPOCH));
    let limits = [
        ("weir:2:use", in_use(1)),
        ("weir:2:window", quota(Algorithm::FixedWindow, 5, 60)),
    ];
    weir.one(Kind::Take, 1, &limits);
    let told = weir.one(Kind::Take, 1, &limits);
    assert_eq!(told.verdict, Verdict::Refused);
    let reading = |remaining, retry, reset| Reading {
        remaining,
        retry,
        reset: Span::millis(reset),
    };
    assert_eq!(told.limits[0], reading(0, Retry::Unknown, 0));
    assert_eq!(told.limits[1], reading(4, Retry::Now, 60_000));
    assert_eq!(
        weir.one(Kind::Take, 2, &limits).limits[0].retry,
        Retry::Never
    );
}

/// Commands of a take: what a limit over thousands of workers costs is what one over two does.
#[test]
fn a_take_reads_and_writes_two_fields_and_all_once_a_second() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(StoreInstant(EPOCH));
    let limit = in_use(1_000_000);
    for holder in 0..3_000 {
        weir.remaining(Holder(holder), Kind::Take, 1, limit);
    }
    let calls = |weir: &mut Weir, command: &str| {
        let stats: String = redis::from_redis_value(weir.redis(&["INFO", "commandstats"])).unwrap();
        let line = stats
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{command}:")));
        let calls = line.and_then(|line| line.split(['=', ',']).nth(1)?.parse::<u64>().ok());
        calls.unwrap_or(0)
    };
    for (later, looks) in [(999_000, 0), (1_000_000, 1), (1_500_000, 0), (2_000_000, 1)] {
        weir.set_clock(StoreInstant(EPOCH + later));
        weir.redis(&["CONFIG", "RESETSTAT"]);
        for _ in 0..5 {
            weir.remaining(ANN, Kind::Take, 1, limit);
        }
        let told = ["hmget", "hset", "hgetall"].map(|command| calls(&mut weir, command));
        assert_eq!(told, [5, 5, looks], "{later}");
    }
    // All have been silent: they go at once, however many.
    weir.set_clock(StoreInstant(EPOCH + 20 * SECOND));
    assert_eq!(weir.remaining(BEN, Kind::Take, 1, limit).1, 999_978);
    assert_eq!(weir.integer(&["HLEN", "weir:2:use"]), 3);
}

#[test]
fn what_is_no_state_of_holders_spoils_its_operation_and_no_other() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    weir.set_clock(StoreInstant(EPOCH));
    let own = "0000000000000001";
    let foreign: &[&[&str]] = &[
        &["SET", "foreign", "1 2"],
        &["RPUSH", "foreign", "1 2"],
        &["HSET", "foreign", "1", "2"],
        &["HSET", "foreign", own, "1 2"],
        &["HSET", "foreign", "total", "1"],
        &["HSET", "foreign", "total", "-1 2"],
        &["HSET", "foreign", "total", "1e3 2"],
        &["HSET", "foreign", "total", "1 99999999999999999999"],
        &["HSET", "foreign", "total", "1 4102444800000", own, "x"],
        &["HSET", "foreign", "total", "1 2", "somebody", "else"],
        &[
            "HSET",
            "foreign",
            "total",
            "99999999999999999 4102444800000",
        ],
    ];
    weir.ask_as(ANN);
    for command in foreign {
        weir.redis(&["DEL", "foreign", "healthy"]);
        weir.redis(command);
        let before = weir.redis(&["DUMP", "foreign"]);
        let healthy = [("healthy", in_use(5))];
        let spoiled = [("healthy", in_use(5)), ("foreign", in_use(5))];
        let batch = [
            operation(Kind::Take, 1, &healthy),
            operation(Kind::Take, 1, &spoiled),
            operation(Kind::Hold, 1, &[("foreign", in_use(5))]),
            operation(Kind::Take, 1, &healthy),
        ];
        let told = weir
            .call(&batch)
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
            .told;
        let verdicts: Vec<Verdict> = told.iter().map(|told| told.verdict).collect();
        use Verdict::{Passed, Unreadable};
        assert_eq!(
            verdicts,
            [Passed, Unreadable, Unreadable, Passed],
            "{command:?}"
        );
        assert_eq!(told[3].limits[0].remaining, 3);
        assert_eq!(weir.redis(&["DUMP", "foreign"]), before, "{command:?}");
    }
    // To hold is nothing that a window knows.
    let window = [("window", quota(Algorithm::FixedWindow, 5, 60))];
    let batch = [Kind::Take, Kind::Hold, Kind::Release, Kind::Take];
    let batch = batch.map(|kind| operation(kind, 1, &window));
    let told = weir.call(&batch).expect("an answer").told;
    let remaining: Vec<i64> = told.iter().map(|told| told.limits[0].remaining).collect();
    assert_eq!(remaining, [4, 0, 0, 3]);
    assert_eq!(told[1].verdict, Verdict::Unreadable);
    assert_eq!(
        weir.redis(&["TYPE", "window"]),
        Value::SimpleString("string".into())
    );
}
