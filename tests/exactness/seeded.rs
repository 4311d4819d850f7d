//! The checks, checked: scripts with one fault each, called by four connections at once through the
//! recorder. Replay and ledger must each find every one on its own, and nothing in the true script.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weir_core::codec::resp::Replies;
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::Kind;
use weir_core::quota::packed::Terms;
use weir_core::store::check::{Check, CheckRequest};
use weir_core::store::encode::Encoder;
use weir_core::store::script::{self, By, Script};
use weir_lab::recorder::Recorder;
use weir_lab::redis::Redis;

use crate::history::{Call, Checked, History};
use crate::{ledger, replay};

/// Every window ends twice within it, on a machine of any speed.
const RUN: Duration = Duration::from_millis(2500);
const CONNECTIONS: u64 = 4;

/// A change to the script: what it does, the line that it changes, and how. Large enough that a slow
/// machine, which calls less often, still meets it in every run.
const FAULTS: [(&str, &str, &str); 8] = [
    (
        "one take in a hundred is forgotten",
        "        free[k] = remaining\n",
        "        if now % 101 > 0 then free[k] = remaining end\n",
    ),
    (
        "of takes that are decided together, one is forgotten",
        "  remaining = remaining - total\n",
        "  remaining = remaining - total + (total > 3 and 1 or 0)\n",
    ),
    (
        "one take in a hundred is refused though it fits",
        "= at, at + 2 + 2 * (limits or 0), 1, true, nil\n",
        "= at, at + 2 + 2 * (limits or 0), now % 101 > 0 and 1 or 0, true, nil\n",
    ),
    (
        "a refused take consumes wherever there was room",
        "      elseif code == TAKE and moved[k] then\n",
        "      elseif code == TAKE and remaining >= cost then
               free[k] = remaining - cost\n",
    ),
    (
        "a sliding window is a twentieth short",
        "local cutoff = (begun > now and begun or now) - span\n",
        "local cutoff = (begun > now and begun or now) - span + span / 20\n",
    ),
    (
        "a fixed window ends a twentieth early",
        "local now_ms = (now - now % 1000) / 1000\n",
        "local now_ms = (now - now % 1000) / 1000 + window / 20\n",
    ),
    (
        "a fixed window's key expires before the window",
        "format('%d', state.ends))\n",
        "format('%d', state.ends - 300))\n",
    ),
    (
        "a bucket leaks five milliseconds too much at each call",
        "level - (now - time) * quota.limit, now",
        "level - (now - time + 5) * quota.limit, now",
    ),
];

#[test]
fn every_seeded_fault_is_found_and_none_in_the_true_script() {
    let _alone = crate::alone();
    let redis = Redis::start().unwrap();
    let truth = script::assemble(script::CLOCK);
    thread::scope(|scope| {
        scope.spawn(|| {
            let history = record(&redis, truth.clone());
            let order = replay::replay(&history).unwrap_or_else(|fault| panic!("{fault}"));
            let ledger = ledger::audit(&history, &order.calls);
            let totals = ledger.unwrap_or_else(|fault| panic!("{fault}")).totals;
            assert!(totals.passed > 100 && totals.refused > 100, "{totals:?}");
        });
        for (fault, line, wrong) in FAULTS {
            assert_eq!(truth.matches(line).count(), 1, "{line}");
            let source = truth.replace(line, wrong);
            let redis = &redis;
            scope.spawn(move || {
                let history = record(redis, source);
                must_fail(fault, "replay", replay::replay(&history));
                let mut calls: Vec<&Call> = history.calls.iter().collect();
                calls.sort_by_key(|call| call.now);
                must_fail(fault, "ledger", ledger::audit(&history, &calls));
            });
        }
    });
}

fn must_fail<T>(fault: &str, check: &str, found: Checked<T>) {
    match found {
        Ok(_) => panic!("{fault}: the {check} found nothing"),
        Err(found) => println!("{fault}, says the {check}:\n{found}\n"),
    }
}

fn record(redis: &Redis, source: String) -> History {
    let (recorder, recorded) = Recorder::start(redis.address()).unwrap();
    let script = Script::new(source);
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (script, address) = (&script, recorder.address());
            scope.spawn(move || call(script, address, number));
        }
    });
    drop(recorder);
    History::read(recorded).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Batches of takes for as long as a run is. Keys carry the script's name: runs share a Redis.
fn call(script: &Script, address: SocketAddr, number: u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    let end = Instant::now() + RUN;
    let mut by = By::Source;
    let mut round = number;
    while Instant::now() < end {
        let mut check_request = CheckRequest::default();
        for take in 0..1 + round % 8 {
            // Different on each connection, and never in step with the windows.
            round = round
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(take + 1);
            let random = round >> 33;
            check_request.ask(Kind::Take, limits(script.sha(), random));
        }
        let mut encoder = Encoder::with_room(0);
        check_request.encode(&mut encoder);
        let mut bytes = Vec::new();
        script.write_call(&mut bytes, by, &encoder);
        by = By::Sha;
        stream.write_all(&bytes).unwrap();

        let mut replies = Replies::new();
        let mut piece = [0; 4096];
        while replies.complete() == 0 {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "Redis closed the connection");
            replies.push(&piece[..read]).unwrap();
        }
    }
}

/// One to four limits of one of a few callers, at costs of their own; each of the four is the
/// tightest for somebody.
fn limits(run: &str, random: u64) -> Vec<Check> {
    let all = [
        (Algorithm::FixedWindow, 40, None),
        (Algorithm::SlidingWindow, 40, None),
        (Algorithm::TokenBucket, 40, Some(12)),
        (Algorithm::LeakyBucket, 30, None),
    ];
    let (caller, chosen) = (random % 7, 1 + random / 7 % 15);
    let limits = all.into_iter().enumerate();
    let limits = limits.filter(|(bit, _)| chosen >> bit & 1 == 1);
    let check = |(bit, (algorithm, limit, burst)): (usize, (Algorithm, u64, Option<u64>))| Check {
        key: format!("{run}:{caller}:{}", algorithm.code()).into_bytes(),
        terms: Terms::new(Quota::try_new(algorithm, limit, 1, burst).unwrap()),
        cost: Cost((1 + ((random / 105) >> (2 * bit)) % 3).try_into().unwrap()),
    };
    limits.map(check).collect()
}
