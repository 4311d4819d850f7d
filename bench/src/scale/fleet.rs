//! A fleet of gateways before its Redis, simulated call by call: requests arrive, workers gather them
//! as `weir_core::store::batch` does (one call in flight in a lane, at most 64 check requests), primaries serve
//! one command after the other. What a command costs is measured (see [`super::measure`]); whatever
//! else is assumed stands in [`Fleet`], [`Store`] and [`Policy`]. The same numbers give the same run.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

/// As in `weir_core::store::batch` and `weir_core::store::slot`.
const MOST_QUESTIONS: usize = 64;
const CLUSTER_LANES: usize = 16;
const SLOTS: usize = 16_384;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    pub gateways: usize,
    /// Envoy's worker threads in each gateway.
    pub workers: usize,
    /// Requests a second, all gateways together.
    pub rate: f64,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    pub primaries: usize,
    pub cost: Cost,
    /// There and back while nobody waits.
    pub round_trip_us: f64,
}

/// What a script call takes of its primary's time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub call_us: f64,
    pub check_us: f64,
}

impl Cost {
    /// A call with so many checks.
    pub fn of(self, checks: usize) -> f64 {
        self.call_us + self.check_us * checks as f64
    }
}

/// What is asked for each request.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub global: Global,
    /// Limits by caller or address, each in a key, and so a slot, of its own.
    pub own_limits: usize,
}

/// A limit that everybody shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    None,
    /// So many keys, with a part of the limit each; 1 is the limit as it is.
    Keys(usize),
    /// One key, of which a worker takes so many permits at once.
    Leased(usize),
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Requests that were answered, by a second.
    pub throughput: f64,
    /// The share of its time that the busiest primary worked, and the average one.
    pub hottest: f64,
    pub average: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Checks in a script call, on average.
    pub batch: f64,
}

/// Lets so many requests come, spread evenly over workers and at random over time.
pub fn run(fleet: Fleet, store: Store, policy: Policy, requests: usize) -> Seen {
    let mut run = Run::new(fleet, store, policy, requests);
    while let Some(Reverse(At { time, event, .. })) = run.events.pop() {
        match event {
            Event::Arrival(worker) => run.arrive(time, worker),
            Event::Reply(lane) => run.reply(time, lane),
        }
    }
    run.seen()
}

struct Run {
    fleet: Fleet,
    store: Store,
    policy: Policy,
    to_come: usize,
    random: Random,
    events: BinaryHeap<Reverse<At>>,
    /// Those of each worker, one after the other.
    lanes: Vec<Lane>,
    primaries: Vec<Primary>,
    requests: Vec<Request>,
    /// What each worker holds of the global limit.
    leased: Vec<usize>,
    latencies: Vec<f64>,
    last: f64,
    calls: u64,
    checks: u64,
}

#[derive(Clone, Default)]
struct Lane {
    waiting: Vec<(usize, usize)>,
    in_flight: Vec<usize>,
}

#[derive(Clone, Copy, Default)]
struct Primary {
    free_at: f64,
    worked: f64,
}

#[derive(Clone, Copy)]
struct Request {
    came: f64,
    open: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    /// A request comes to this worker.
    Arrival(usize),
    /// What this lane asked is answered.
    Reply(usize),
}

#[derive(Clone, Copy, PartialEq)]
struct At {
    time: f64,
    event: Event,
}

impl Run {
    fn new(fleet: Fleet, store: Store, policy: Policy, requests: usize) -> Self {
        let workers = fleet.gateways * fleet.workers;
        let mut run = Self {
            fleet,
            store,
            policy,
            to_come: requests,
            random: Random(1),
            events: BinaryHeap::new(),
            lanes: vec![Lane::default(); workers * lanes(store)],
            primaries: vec![Primary::default(); store.primaries],
            requests: Vec::with_capacity(requests),
            leased: vec![0; workers],
            latencies: Vec::with_capacity(requests),
            last: 0.0,
            calls: 0,
            checks: 0,
        };
        for worker in 0..workers {
            // As after a long while, when each is somewhere in its lease.
            if let Global::Leased(size) = policy.global {
                run.leased[worker] = run.random.below(size);
            }
            run.await_arrival(0.0, worker);
        }
        run
    }

    fn await_arrival(&mut self, now: f64, worker: usize) {
        let workers = (self.fleet.gateways * self.fleet.workers) as f64;
        let mean_us = 1e6 * workers / self.fleet.rate;
        let time = now - mean_us * self.random.share().ln();
        self.schedule(time, Event::Arrival(worker));
    }

    fn schedule(&mut self, time: f64, event: Event) {
        self.events.push(Reverse(At { time, event }));
    }

    fn arrive(&mut self, now: f64, worker: usize) {
        if self.to_come == 0 {
            return;
        }
        self.to_come -= 1;
        self.await_arrival(now, worker);
        let mut slots: Vec<usize> = (0..self.policy.own_limits)
            .map(|_| self.random.below(SLOTS))
            .collect();
        match self.policy.global {
            Global::None => {}
            // Where the keys fall is luck; here they fall as far apart as they can.
            Global::Keys(keys) => slots.push(self.random.below(keys) * SLOTS / keys),
            Global::Leased(size) if self.leased[worker] == 0 => {
                self.leased[worker] = size - 1;
                slots.push(0);
            }
            Global::Leased(_) => self.leased[worker] -= 1,
        }
        let request = self.requests.len();
        self.requests.push(Request {
            came: now,
            open: slots.len(),
        });
        if slots.is_empty() {
            self.latencies.push(0.0);
        }
        let lanes = lanes(self.store);
        let mut touched: Vec<usize> = Vec::new();
        for slot in slots {
            let lane = worker * lanes + slot * lanes / SLOTS;
            self.lanes[lane].waiting.push((request, slot));
            touched.push(lane);
        }
        for lane in touched {
            self.send(now, lane);
        }
    }

    /// Sends what waits in a lane, unless a call is in flight. One primary is asked everything in one
    /// script call; of a cluster each slot is asked in one of its own.
    fn send(&mut self, now: f64, lane: usize) {
        let Lane { waiting, in_flight } = &mut self.lanes[lane];
        if waiting.is_empty() || !in_flight.is_empty() {
            return;
        }
        let most = waiting
            .len()
            .min(MOST_QUESTIONS * (1 + self.policy.own_limits));
        let mut batch: Vec<(usize, usize)> = waiting.drain(..most).collect();
        in_flight.extend(batch.iter().map(|(request, _)| request));
        if self.store.primaries == 1 {
            batch.iter_mut().for_each(|(_, slot)| *slot = 0);
        }
        batch.sort_unstable_by_key(|(_, slot)| *slot);
        let arrived = now + self.store.round_trip_us / 2.0;
        let mut done: f64 = arrived;
        for command in batch.chunk_by(|(_, one), (_, other)| one == other) {
            let work = self.store.cost.of(command.len());
            let primary = &mut self.primaries[command[0].1 * self.store.primaries / SLOTS];
            primary.free_at = primary.free_at.max(arrived) + work;
            primary.worked += work;
            done = done.max(primary.free_at);
            self.calls += 1;
            self.checks += command.len() as u64;
        }
        self.schedule(done + self.store.round_trip_us / 2.0, Event::Reply(lane));
    }

    fn reply(&mut self, now: f64, lane: usize) {
        self.last = now;
        for request in std::mem::take(&mut self.lanes[lane].in_flight) {
            let Request { came, open } = &mut self.requests[request];
            *open -= 1;
            if *open == 0 {
                self.latencies.push(now - *came);
            }
        }
        self.send(now, lane);
    }

    fn seen(mut self) -> Seen {
        self.latencies.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(place).copied().unwrap_or_default()
        };
        let worked = self
            .primaries
            .iter()
            .map(|primary| primary.worked / self.last);
        Seen {
            throughput: self.latencies.len() as f64 * 1e6 / self.last,
            hottest: worked.clone().fold(0.0, f64::max),
            average: worked.sum::<f64>() / self.store.primaries as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            batch: self.checks as f64 / self.calls.max(1) as f64,
        }
    }
}

fn lanes(store: Store) -> usize {
    if store.primaries == 1 {
        1
    } else {
        CLUSTER_LANES
    }
}

impl Eq for At {}

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time.total_cmp(&other.time)
    }
}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers that look drawn, the same every time (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.share() * bound as f64) as usize).min(bound - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        call_us: 10.0,
        check_us: 2.0,
    };
    const POLICY: Policy = Policy {
        global: Global::Keys(1),
        own_limits: 2,
    };

    fn store(primaries: usize) -> Store {
        Store {
            primaries,
            cost: COST,
            round_trip_us: 100.0,
        }
    }

    fn fleet(workers: usize, rate: f64) -> Fleet {
        Fleet {
            gateways: 1,
            workers,
            rate,
        }
    }

    #[test]
    fn who_asks_alone_waits_for_the_round_trip_and_the_script() {
        let seen = run(fleet(1, 10.0), store(1), POLICY, 1_000);
        assert_eq!(seen.batch, 3.0);
        assert!((seen.p50_us - 116.0).abs() < 0.01, "{seen:?}");
        assert!((seen.hottest - 16.0 * 10.0 / 1e6).abs() < 2e-5, "{seen:?}");
    }

    /// 64 requests a call: 10 + 64 × 6 µs.
    #[test]
    fn one_primary_ends_where_its_time_does() {
        let seen = run(fleet(64, 1e6), store(1), POLICY, 200_000);
        let most = 64.0 / (10.0 + 64.0 * 6.0) * 1e6;
        assert!(
            (0.95..1.001).contains(&(seen.throughput / most)),
            "{seen:?}"
        );
        assert!(seen.hottest > 0.95);
    }

    #[test]
    fn primaries_share_the_work_but_for_a_hot_key() {
        let policy = |global| Policy {
            global,
            own_limits: 2,
        };
        let seen = |global| run(fleet(64, 100_000.0), store(8), policy(global), 50_000);
        let (even, hot) = (seen(Global::None), seen(Global::Keys(1)));
        assert!(even.hottest < 1.1 * even.average, "{even:?}");
        assert!(hot.hottest > 1.3 * hot.average, "{hot:?}");
        let (split, leased) = (seen(Global::Keys(8)), seen(Global::Leased(100)));
        assert!(split.hottest < 1.1 * split.average, "{split:?}");
        assert!(leased.hottest < 1.1 * even.hottest, "{leased:?}");
    }

    #[test]
    fn a_run_is_the_same_every_time() {
        let seen = || format!("{:?}", run(fleet(4, 50_000.0), store(4), POLICY, 5_000));
        assert_eq!(seen(), seen());
    }
}
