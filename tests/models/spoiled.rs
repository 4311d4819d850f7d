//! One check request, one key, one argument that is at fault: it spoils the operations that it belongs to, and
//! nobody else notices. Large batches, because a bound that they pass would be everybody's fault.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{ConnectionLike, Value};
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::Algorithm;
use weir_core::quota::model::Counters;
use weir_core::quota::operation::{Kind, OperationReply, Verdict};
use weir_core::quota::packed;
use weir_core::store::error::{ErrorClass, refused_command};
use weir_core::store::reply::{self, ReplySchema};
use weir_core::store::script::By;
use weir_core::time::{Span, StoreInstant};
use weir_lab::redis::Redis;

use crate::scenario::EPOCH;
use crate::weir::{Operation, Weir, cost, operation, quota};

const HOUR: u64 = 3600;
const TEN_YEARS: u64 = 10 * 365 * 24 * HOUR;

fn verdicts(told: &[OperationReply]) -> Vec<Verdict> {
    told.iter().map(|told| told.verdict).collect()
}

// === large batches ===

/// So many operations of four limits each, over keys and algorithms in turn.
fn wide(operations: usize, keys: usize, kind: Kind, algorithms: &[Algorithm]) -> Vec<Operation> {
    let limit = |number: usize| {
        let algorithm = algorithms[number % algorithms.len()];
        let key = format!("weir:2:{}:{}", number % keys, algorithm.code());
        (
            key,
            quota(algorithm, 1000, HOUR + number as u64 % 4),
            cost(1),
        )
    };
    (0..operations)
        .map(|number| Operation {
            kind,
            limits: (0..4).map(|nth| limit(4 * number + nth)).collect(),
        })
        .collect()
}

/// What a byte has no room for takes four, and what Lua's stack has no room for comes in pieces.
#[test]
fn four_thousand_checks_and_more_are_decided_in_one_call() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let now = StoreInstant(EPOCH);
    let not_leaky = &Algorithm::ALL[..3];
    for (operations, keys, kind, algorithms, together) in [
        (1000, 60, Kind::Take, not_leaky, true),
        (1000, 996, Kind::Take, not_leaky, true),
        (1000, 4000, Kind::Take, &Algorithm::ALL[..], false),
        (1000, 4000, Kind::Peek, &Algorithm::ALL[..], false),
        // More numbers than bytes that Lua's stack holds, but fewer numbers.
        (300, 1200, Kind::Peek, &Algorithm::ALL[..], false),
        (300, 1200, Kind::Take, &Algorithm::ALL[..], false),
        (1000, 200, Kind::Charge, &Algorithm::ALL[..], false),
        (5000, 20_000, Kind::Take, &Algorithm::ALL[..], false),
    ] {
        let case = format!("{operations} of {kind:?} over {keys} keys");
        weir.flush();
        weir.set_clock(now);
        let mut counters = Counters::default();
        for _ in 0..2 {
            let batch = wide(operations, keys, kind, algorithms);
            let answer = weir
                .call(&batch)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(answer.together, together, "{case}");
            let batch = batch.iter().map(|one| (one.kind, one.limits.as_slice()));
            let expected = counters.run_batch(batch, now, answer.together);
            assert!(answer.told == expected, "{case}");
        }
        weir.check_keys().unwrap();
    }
}

// === states ===

/// By which the odd key is asked about, in seconds.
const WINDOWS: [u64; 4] = [1, 60, HOUR, TEN_YEARS];

/// What may stand under a key: as commands that put it there.
type Commands = Vec<Vec<Vec<u8>>>;

fn command(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Numbers at the edges of what a state may hold, in words.
fn words() -> impl Strategy<Value = String> {
    let now_s = EPOCH / 1_000_000;
    prop_oneof![
        3 => prop::sample::select(vec![
            "0", "1", "10", "60000", "3600000", "9007199254740991", "9007199254740992",
            "99999999999999999999", "inf", "nan", "-1", "1e300", "1.5", "0x10", "", "315360000001",
        ])
        .prop_map(str::to_owned),
        1 => Just("9".repeat(400)),
        2 => (0..7200u64).prop_map(move |later| ((now_s + later) * 1000).to_string()),
        2 => (0..7200u64).prop_map(move |later| (now_s + later).to_string()),
        2 => (0..7200u64, 0..1_000_000u64)
            .prop_map(move |(later, used)| format!("{}{used:06}", now_s + later)),
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ]
}

/// Doubles at such edges.
fn doubles() -> impl Strategy<Value = f64> {
    let now = EPOCH as f64;
    prop_oneof![
        4 => prop::sample::select(vec![
            0.0, 1.0, 2.0, 5.0, 0.5, -1.0, now, now - 1e6, now + 1e6, now + 1e13, 3.6e9, 3.1536e14,
            9_007_199_254_740_991.0, 9_007_199_254_740_992.0, 1e300, f64::INFINITY,
            f64::NEG_INFINITY, f64::NAN,
        ]),
        1 => any::<f64>(),
        2 => (-3_600_000_000i64..3_600_000_000).prop_map(move |by| now + by as f64),
        2 => (0..20u32).prop_map(f64::from),
    ]
}

/// A text of a log: now and then one that is well ordered but for one of its numbers.
fn logs() -> impl Strategy<Value = Vec<u8>> {
    // Mostly of the head or the first record.
    let places = prop_oneof![0..6usize, 0..300usize];
    let ordered = (1..40usize, vec((places, doubles()), 0..3)).prop_map(|(records, odd)| {
        let mut numbers = vec![HOUR as f64 * 1e6, 0.0, 0.0];
        for record in 0..records {
            let stamp = EPOCH as f64 - 1e6 * (records - record) as f64;
            numbers.extend([stamp, stamp, 1.0 + record as f64]);
        }
        let count = numbers.len();
        for (place, number) in odd {
            numbers[place % count] = number;
        }
        numbers
    });
    let now = EPOCH as f64;
    let half = Just(vec![HOUR as f64 * 1e6, 0.0, 0.5, now, now, 2.0]);
    let numbers = prop_oneof![4 => ordered, 2 => vec(doubles(), 0..24), 1 => half];
    (numbers, prop_oneof![9 => Just(0usize), 1 => 1..24usize]).prop_map(|(numbers, cut)| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
        bytes[..bytes.len().saturating_sub(cut)].to_vec()
    })
}

fn states() -> impl Strategy<Value = Commands> {
    let text = |text: Vec<u8>| vec![command(&[b"SET", b"odd", &text])];
    let push = |texts: Vec<Vec<u8>>| -> Commands {
        let push = |text: &Vec<u8>| command(&[b"RPUSH", b"odd", text]);
        texts.iter().map(push).collect()
    };
    prop_oneof![
        4 => vec(words(), 1..5).prop_map(move |words| text(words.join(" ").into_bytes())),
        // A bucket's, of the very window that it is asked about by.
        2 => (words(), words(), prop::sample::select(WINDOWS.to_vec())).prop_map(
            move |(level, time, window)| {
                text(format!("{level} {time} 10 {}", window * 1000).into_bytes())
            }
        ),
        4 => logs().prop_map(text),
        4 => vec(logs(), 1..5).prop_map(push),
        1 => vec(any::<u8>(), 0..100).prop_map(text),
        1 => Just(vec![command(&[b"HSET", b"odd", b"1", b"2"])]),
    ]
}

/// Operations on the odd key, beside a neighbour's key or alone.
fn odd_operations() -> impl Strategy<Value = Vec<Operation>> {
    let kind = prop_oneof![
        4 => Just(Kind::Take),
        1 => Just(Kind::Peek),
        1 => Just(Kind::Charge),
        1 => (0..100_000_000u64).prop_map(|ttl| Kind::Lease { ttl: Span::millis(ttl) }),
        2 => (0..7_200_000_000u64)
            .prop_map(|by| Kind::Refund { receipt: StoreInstant(EPOCH - 3_600_000_000 + by) }),
        1 => Just(Kind::Reset),
    ];
    let cost =
        prop_oneof![3 => Just(1), 1 => 1..10u64, 1 => any::<u64>().prop_map(|cost| cost.max(1))];
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let window = prop::sample::select(WINDOWS.to_vec());
    let one = (kind, cost, algorithm, window).prop_map(|(kind, permits, algorithm, window)| {
        operation(kind, permits, &[("odd", quota(algorithm, 10, window))])
    });
    vec(one, 1..5)
}

/// What neighbours ask, each for an algorithm; none of it depends on what is asked about other keys.
fn neighbours(kind: Kind) -> Vec<Operation> {
    let limit = |algorithm: Algorithm| (algorithm.code(), quota(algorithm, 10, HOUR));
    Algorithm::ALL
        .map(|algorithm| operation(kind, 1, &[limit(algorithm)]))
        .to_vec()
}

#[test]
fn whatever_a_key_holds_neighbours_are_told_the_same() {
    let server = Redis::start().expect("a Redis");
    let weir = RefCell::new(Weir::with_test_clock(&server));
    let takes = any::<bool>();
    TestRunner::new(Config {
        failure_persistence: None,
        cases: 4 * Config::default().cases,
        ..Config::default()
    })
    .run(
        &(states(), odd_operations(), takes),
        |(state, odd, takes)| {
            let weir = &mut weir.borrow_mut();
            weir.flush();
            weir.set_clock(StoreInstant(EPOCH));
            for command in &state {
                let mut call = redis::cmd(&String::from_utf8_lossy(&command[0]));
                call.arg(&command[1..]);
                let _: Value = call.query(&mut weir.connection).expect("a state");
            }
            let mut counters = Counters::default();
            for _ in 0..3 {
                let mut odd = odd.clone();
                if takes {
                    // All of a kind, so that they may be decided together.
                    odd.iter_mut().for_each(|one| one.kind = Kind::Take);
                }
                let mut batch = neighbours(Kind::Take);
                batch.extend(odd.iter().cloned());
                batch.extend(neighbours(if takes { Kind::Take } else { Kind::Charge }));
                let (command, schema) = weir.command(By::Sha, &batch);
                let reply = weir.send(&command);
                let reply = reply.map_err(|error| TestCaseError::fail(error.to_string()))?;
                let reply: Vec<u8> = redis::from_redis_value(reply).expect("a text");
                // What is read by operation must not have to be: nothing else is told at all.
                let exact = |number: f64| number.fract() == 0.0 && number.abs() <= 9.1e15;
                let mut numbers = reply
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| f64::from_le_bytes(*bytes));
                prop_assert!(numbers.all(exact), "{:?}", reply);
                let integers = reply::integers(&reply).expect("integers");
                let answer = reply::decode(&schema, integers).expect("an answer");
                let theirs = |index: &usize| *index < 4 || *index >= batch.len() - 4;
                let asked = (0..batch.len()).filter(theirs).map(|index| {
                    let Operation { kind, limits } = &batch[index];
                    (*kind, limits.as_slice())
                });
                let expected = counters.run_batch(asked, StoreInstant(EPOCH), answer.together);
                let told: Vec<OperationReply> = (0..batch.len())
                    .filter(theirs)
                    .map(|index| answer.told[index].clone())
                    .collect();
                prop_assert_eq!(told, expected);
            }
            Ok(())
        },
    )
    .unwrap_or_else(|failure| panic!("{failure}"));
}

/// A log of which the newest text is sound, and what stands before it is not.
fn break_log(weir: &mut Weir, key: &str) {
    let number =
        |numbers: &[f64]| -> Vec<u8> { numbers.iter().flat_map(|one| one.to_le_bytes()).collect() };
    let now = EPOCH as f64;
    let newest = number(&[HOUR as f64 * 1e6, 0.0, 4.0, now - 1.0, now - 1.0, 5.0]);
    for text in [&b"what is no text of a log"[..], &newest] {
        let mut push = redis::cmd("RPUSH");
        let _: Value = push.arg(key).arg(text).query(&mut weir.connection).unwrap();
    }
}

/// It is found out only in the midst of deciding.
#[test]
fn a_fault_in_the_midst_is_left_out_and_the_batch_decided_again_without_it() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let log = |key: &'static str| [(key, quota(Algorithm::SlidingWindow, 10, HOUR))];
    // What is seen by two quotas in turn is held anew in between.
    let neighbour = |limit| [("neighbour", quota(Algorithm::SlidingWindow, limit, HOUR))];
    let keys = ["b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9"];
    for (broken, spoils_all) in [(1, false), (8, false), (9, true)] {
        for kind in [Kind::Take, Kind::Peek, Kind::Charge] {
            weir.flush();
            weir.set_clock(StoreInstant(EPOCH));
            keys[..broken]
                .iter()
                .for_each(|key| break_log(&mut weir, key));
            let before = weir.contents();
            let mut batch = Vec::new();
            for _ in 0..10 {
                batch.push(operation(Kind::Take, 1, &neighbour(100)));
                batch.push(operation(Kind::Take, 1, &neighbour(50)));
                for key in &keys[..broken] {
                    batch.push(operation(kind, 1, &log(key)));
                }
            }
            let answer = weir.call(&batch).expect("an answer");
            for (operation, told) in batch.iter().zip(&answer.told) {
                let sound = operation.limits[0].0 == "neighbour" && !spoils_all;
                let expected = if sound {
                    Verdict::Passed
                } else {
                    Verdict::Unreadable
                };
                assert_eq!(
                    told.verdict, expected,
                    "{broken} of {kind:?}: {operation:?}"
                );
            }
            if spoils_all {
                assert_eq!(weir.contents(), before, "nothing was written");
            } else {
                let told = weir.one(Kind::Peek, 1, &neighbour(100));
                assert_eq!(told.limits[0].remaining, 80);
            }
        }
    }
}

// === arguments ===

/// A quota, numbers, large numbers, and whether all is in range.
type Arguments = (Vec<u8>, &'static [u8], Vec<&'static [u8]>, bool);

/// Three operations over a key each; of the second the quota, the numbers and the large numbers.
fn raw(
    weir: &mut Weir,
    quota: &[u8],
    numbers: &[u8],
    large: &[&[u8]],
) -> redis::RedisResult<Value> {
    let sound = packed::pack_quota(&self::quota(Algorithm::FixedWindow, 5, HOUR));
    let quotas = [&sound[..], quota].concat();
    let batch = [
        &b"\x01"[..],
        b"\x01\x01\x01\x01",
        numbers,
        b"\x65\x01\x03\x01",
    ]
    .concat();
    redis::cmd("EVALSHA")
        .arg(weir.script().sha())
        .arg(3)
        .arg(&["one", "two", "three"])
        .arg(quotas)
        .arg(batch)
        .arg("")
        .arg(large)
        .arg("2")
        .query(&mut weir.connection)
}

#[test]
fn an_argument_out_of_range_spoils_its_operation_and_no_other() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let packed = |algorithm: u8, limit: u64, window: u64, capacity: u64| -> Vec<u8> {
        let numbers = [limit, window, capacity];
        let bytes = numbers.into_iter().flat_map(u64::to_be_bytes);
        [algorithm].into_iter().chain(bytes).collect()
    };
    let sound = packed(3, 5, HOUR * 1000, 5);
    let take = b"\x01\x01\x02\x02";
    let mut cases: Vec<Arguments> = vec![
        (sound.clone(), take, vec![], true),
        (sound.clone(), b"\x04\x01\x02\x02", vec![b"0"], true),
        (sound.clone(), b"\x06\x01\x02\x02", vec![b"86400000"], true),
        (sound.clone(), b"\x65\x01\x02\x02", vec![b"5"], true),
        (sound.clone(), b"\x07\x01\x02\x02", vec![], false),
        (sound.clone(), b"\x00\x01\x02\x02", vec![], false),
        (sound.clone(), b"\x01\x01\x09\x02", vec![], false),
        (sound.clone(), b"\x01\x01\x00\x02", vec![], false),
        (sound.clone(), b"\x01\x01\x02\x09", vec![], false),
        (sound.clone(), b"\x01\x01\x02\x00", vec![], false),
        (sound.clone(), b"\x01\x02\x02\x02\x02\x02", vec![], false),
        (sound.clone(), b"\x06\x01\x02\x02", vec![b"86400001"], false),
        (
            sound.clone(),
            b"\x06\x01\x02\x02",
            vec![b"9223372036854775807"],
            false,
        ),
    ];
    for strange in [
        &b"-1"[..],
        b"x",
        b"",
        b"1.5",
        b"1e300",
        b"nan",
        b"inf",
        b"9007199254740992",
    ] {
        cases.push((sound.clone(), b"\x04\x01\x02\x02", vec![strange], false));
        cases.push((sound.clone(), b"\x06\x01\x02\x02", vec![strange], false));
        cases.push((sound.clone(), b"\x65\x01\x02\x02", vec![strange], false));
    }
    let calendar = |unit: u8, minutes: i16| {
        let [high, low] = minutes.to_be_bytes();
        u64::from_be_bytes([unit, high, low, 0, 0, 0, 0, 0])
    };
    for unit in 1..=4 {
        for minutes in [-720, 0, 840] {
            let quota = packed(1, 5, calendar(unit, minutes), 5);
            cases.push((quota, take, vec![], true));
        }
    }
    for quota in [
        packed(1, 5, calendar(0, 60), 5),
        packed(1, 5, calendar(5, 60), 5),
        packed(1, 5, calendar(255, 60), 5),
        packed(1, 5, calendar(4, -721), 5),
        packed(1, 5, calendar(4, 841), 5),
        packed(1, 5, calendar(4, i16::MIN), 5),
        packed(1, 0, calendar(4, 60), 5),
        packed(1, 1 << 50, calendar(4, 60), 5),
        packed(1, 5, calendar(4, 60), 1 << 50),
        packed(2, 5, calendar(4, 60), 5),
        packed(3, 5, calendar(4, 60), 5),
        packed(9, 5, calendar(4, 60), 5),
        packed(9, 5, 1000, 5),
        packed(0, 5, 1000, 5),
        packed(3, 0, 1000, 5),
        packed(3, 5, 0, 5),
        packed(3, 5, 999, 5),
        packed(3, 5, 1500, 5),
        packed(3, 5, (TEN_YEARS + 1) * 1000, 5),
        packed(3, 5, 1000, 0),
        packed(3, 1 << 50, 1000, 5),
        packed(3, 5, 1000, 1 << 50),
        packed(3, u64::MAX, u64::MAX, u64::MAX),
    ] {
        cases.push((quota, take, vec![], false));
    }
    let schema = || {
        let mut schema = ReplySchema::default();
        for key in 0..3 {
            schema.limit(key, Cost::ONE);
            schema.operation(1);
        }
        schema
    };
    for (quota, numbers, large, passes) in cases {
        let case = format!(
            "{} {} {large:?}",
            quota.escape_ascii(),
            numbers.escape_ascii()
        );
        weir.flush();
        let reply = raw(&mut weir, &quota, numbers, &large);
        let reply = reply.unwrap_or_else(|error| panic!("{case}: {error}"));
        let bytes: Vec<u8> = redis::from_redis_value(reply).unwrap();
        let mut integers = reply::integers(&bytes).expect("integers");
        if numbers.len() > 4 {
            // It has two limits.
            integers.drain(9..12);
        }
        let told = reply::decode(&schema(), integers).expect("an answer").told;
        let verdict = if passes {
            Verdict::Passed
        } else {
            Verdict::Unreadable
        };
        assert_eq!(
            verdicts(&told),
            [Verdict::Passed, verdict, Verdict::Passed],
            "{case}"
        );
        assert_eq!(told[2].limits[0].remaining, 3, "{case}");
        if !passes {
            assert_eq!(weir.integer(&["EXISTS", "two"]), 0, "{case}");
        }
    }
}

/// Where no operation can be told from the next, nothing can be.
#[test]
fn a_batch_that_is_none_is_an_error_and_writes_nothing() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let quota = packed::pack_quota(&quota(Algorithm::FixedWindow, 5, 1));
    let take = b"\x01\x01\x01\x01\x01";
    for arguments in [
        &[][..],
        &[&quota[..]],
        &[&quota, b"", b""],
        &[&quota[..20], take, b""],
        &[&quota, b"\x02\x01\x01\x01\x01", b""],
        &[&quota, b"\x01\x01\x01\x01", b""],
        &[&quota, b"\x01\x01\x01\x01\x01\x01", b""],
        &[&quota, b"\x01\x01\x02\x01\x01", b""],
        &[&quota, b"\x04\x01\x01\x01\x01", b""],
        &[&quota, b"\x04\x00\x00\x00\x01\x00", b""],
    ] {
        let told: Vec<String> = arguments
            .iter()
            .map(|bytes| bytes.escape_ascii().to_string())
            .collect();
        let reply: redis::RedisResult<Value> = redis::cmd("EVALSHA")
            .arg(weir.script().sha())
            .arg(1)
            .arg("key")
            .arg(arguments)
            .query(&mut weir.connection);
        assert!(reply.is_err(), "{told:?}: {reply:?}");
        assert_eq!(weir.integer(&["DBSIZE"]), 0, "{told:?}");
    }
}

/// They tell nothing that the operations do not.
#[test]
fn totals_that_are_at_fault_are_passed_over() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let quota = packed::pack_quota(&quota(Algorithm::FixedWindow, 5, HOUR));
    for totals in [
        &b"\x01\x01\x01"[..],
        b"\x02\x01\x01",
        b"\x01",
        b"\x01\x01",
        b"\x01\x02\x01",
        b"\x01\x01\x01\x01",
        b"\x01\x01\x01\x01\x01",
        b"\x04\x01\x01",
    ] {
        weir.flush();
        let reply: Vec<u8> = redis::cmd("EVALSHA")
            .arg(weir.script().sha())
            .arg(1)
            .arg("key")
            .arg(&[&quota[..], b"\x01\x01\x01\x01\x01", totals])
            .query(&mut weir.connection)
            .expect("an answer");
        let mut schema = ReplySchema::default();
        schema.limit(0, Cost::ONE);
        schema.operation(1);
        let answer = reply::decode(&schema, reply::integers(&reply).unwrap()).unwrap();
        assert_eq!(answer.told[0].limits[0].remaining, 4, "{totals:?}");
    }
}

// === errors of Redis ===

/// Each would be taken for a fault of the script's by its words alone, on some Redis.
#[test]
fn an_error_of_redis_is_the_whole_calls_and_tells_what_the_user_may_not_do() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::new(&server);
    let by = |algorithm| {
        [(
            algorithm,
            Algorithm::ALL
                .into_iter()
                .find(|one| one.code() == algorithm),
        )]
        .map(|(key, algorithm)| (key, quota(algorithm.expect("an algorithm"), 1000, HOUR)))
    };
    let take = |algorithm| operation(Kind::Take, 1, &by(algorithm));
    let charge = |algorithm| operation(Kind::Charge, 1, &by(algorithm));
    for (missing, batch) in [
        ("TIME", take("fw")),
        ("MGET", take("fw")),
        ("EXISTS", take("fw")),
        ("EXISTS", charge("tb")),
        ("SET", take("fw")),
        ("SET", take("lb")),
        ("SET", charge("sl")),
        ("LINDEX", take("sl")),
        ("LINDEX", charge("sl")),
        ("UNLINK", operation(Kind::Reset, 1, &by("fw"))),
    ] {
        weir.flush();
        let case = format!("{missing} in {batch:?}");
        let name = missing.to_lowercase();
        weir.redis(&["ACL", "SETUSER", "default", &format!("-{name}")]);
        let (command, _) = weir.command(By::Sha, &[batch]);
        let reply = weir.connection.req_packed_command(&command).unwrap();
        weir.redis(&["ACL", "SETUSER", "default", "+@all"]);
        let Value::ServerError(error) = reply else {
            panic!("{case}: {reply:?}")
        };
        let words = format!("{} {}", error.code(), error.details().unwrap_or_default());
        assert_eq!(
            ErrorClass::of(words.as_bytes()),
            ErrorClass::NoPerm,
            "{case}: {words}"
        );
        let named = refused_command(words.as_bytes(), weir.script().source());
        assert_eq!(named.as_deref(), Some(missing), "{case}: {words}");
        assert_eq!(weir.integer(&["DBSIZE"]), 0, "{case}");
    }
}

// === clocks ===

/// The clock is Redis's own again, for what is told of expiries to mean something.
#[test]
fn a_key_that_is_met_again_after_the_clock_went_back_expires_by_the_clock() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let (seconds, micros): (u64, u64) =
        redis::from_redis_value(weir.redis(&["TIME"])).expect("a time");
    let now = seconds * 1_000_000 + micros;
    let window = 100;
    for jump in [3 * window, TEN_YEARS] {
        for (kind, permits, takes) in [
            (Kind::Take, 1, 1),
            (Kind::Take, 1, 100),
            (Kind::Take, 10, 10),
            (Kind::Charge, 200, 1),
            (
                Kind::Lease {
                    ttl: Span::millis(5000),
                },
                3,
                1,
            ),
        ] {
            for algorithm in Algorithm::ALL {
                let case =
                    format!("{algorithm:?}, {kind:?} of {permits}, {takes} times, by {jump} s");
                weir.flush();
                let limits = [("key", quota(algorithm, 100, window))];
                for take in 0..takes {
                    weir.set_clock(StoreInstant(now + jump * 1_000_000 + take));
                    weir.one(kind, permits, &limits);
                }
                assert!(
                    weir.integer(&["PTTL", "key"]) >= jump as i64 * 1000 - 60_000,
                    "{case}"
                );
                weir.set_clock(StoreInstant(now));
                weir.one(Kind::Take, 1, &limits);
                let life = weir.integer(&["PTTL", "key"]);
                // A debt of two hundred lasts for two windows, and expiries are moved in steps.
                let most = (2 * window + window / 4 + 5) as i64 * 1000;
                assert!((0..=most).contains(&life), "{case}: {life} ms");
            }
        }
    }
}
