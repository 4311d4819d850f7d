//! Exactness under concurrency: a real Envoy with four workers, many connections, hot and cold keys,
//! and between Envoy and a real Redis a recorder. What Redis decided is checked three ways: by
//! [`replay`] against the algorithms in memory, by [`ledger`] against the promise of each limit, by
//! [`clients`] against what every client was told. [`seeded`] shows that wrong scripts are found.
//!
//! `WEIR_EXACTNESS_REQUESTS` sets how many requests go each way.

mod clients;
mod history;
mod ledger;
mod replay;
mod seeded;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{env, thread};

use weir_lab::gateway::{Gateway, Policy, Store};
use weir_lab::recorder::Recorder;
use weir_lab::redis::Redis;

use crate::history::{Checked, History};
use crate::ledger::Totals;

/// A few seconds' worth: most windows of the policy roll over.
const REQUESTS: u64 = 20_000;
const CONNECTIONS: u64 = 64;
const WORKERS: usize = 4;
/// The longest there is: what is answered without Redis, as on a machine that stalls, cannot be
/// checked against it.
const TIMEOUT_MS: u64 = 1000;

/// One run after the other: two at once would only slow each other.
static MACHINE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn nothing_is_exceeded_or_refused_in_vain_through_the_bridge() {
    run(Store::Bridge);
}

#[test]
fn nothing_is_exceeded_or_refused_in_vain_through_the_sidecar() {
    run(Store::Sidecar);
}

fn run(store: Store) {
    let _alone = alone();
    let redis = Redis::start().unwrap();
    let (recorder, recorded) = Recorder::start(redis.address()).unwrap();
    let gateway = Gateway::builder()
        .store(store)
        .policy(Policy::Text(include_str!("policy.json").to_owned()))
        .redis_at("127.0.0.1", recorder.address().port())
        .workers(WORKERS)
        .timeout_ms(TIMEOUT_MS)
        .start()
        .unwrap();
    let reader = thread::spawn(move || History::read(recorded));

    let requests = env::var("WEIR_EXACTNESS_REQUESTS")
        .map_or(REQUESTS, |text| text.parse().expect("a number of requests"));
    let start = Instant::now();
    let heard = clients::call(gateway.address(), CONNECTIONS, requests);
    let took = start.elapsed();

    // Its connections end with it, and with them the recording.
    drop((gateway, recorder));
    let history = reader
        .join()
        .unwrap()
        .unwrap_or_else(|fault| panic!("{fault}"));
    let start = Instant::now();
    let (totals, from_memory, tied) =
        check(&history, &heard).unwrap_or_else(|fault| panic!("{fault}"));
    println!(
        "{store:?}: {requests} requests in {took:.1?}, {passed} passed, {refused} refused, \
         {from_memory} more from memory, {degraded} without Redis; {calls} calls ({tied} tied) on \
         {keys} keys; {windows} fixed windows rolled over, {expired} log entries expired; checked \
         in {checked:.1?}",
        passed = totals.passed,
        refused = totals.refused,
        degraded = heard.degraded,
        calls = history.calls.len(),
        keys = history.keys(),
        windows = totals.windows_rolled_over,
        expired = totals.entries_expired,
        checked = start.elapsed(),
    );

    // A run that proves nothing must not look like one that proves something.
    let decided = totals.passed + totals.refused + from_memory;
    assert!(
        heard.degraded <= requests / 10,
        "too many answers without Redis"
    );
    assert!(
        (requests - heard.degraded..=requests).contains(&decided),
        "{decided} decided"
    );
    assert!(totals.passed > requests / 20 && totals.refused + from_memory > requests / 20);
    assert!(totals.windows_rolled_over > 100 && totals.entries_expired > 100);
}

fn check(history: &History, heard: &clients::Heard) -> Checked<(Totals, u64, usize)> {
    let order = replay::replay(history)?;
    let ledger = ledger::audit(history, &order.calls)?;
    let from_memory = clients::compare(history, &order.calls, &ledger, heard)?;
    Ok((ledger.totals, from_memory, order.tied))
}
