use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::quota::limit::Quota;
use crate::quota::model::Counters;

const SECOND: u64 = 1_000_000;

fn check(key: &str, quota: Quota, permits: u64) -> Check {
    Check {
        key: key.as_bytes().to_vec(),
        terms: crate::quota::packed::Terms::new(quota),
        cost: Cost::try_new(permits).unwrap(),
    }
}

fn quota(algorithm: Algorithm, limit: u64, window_seconds: u64) -> Quota {
    Quota::try_new(algorithm, limit, window_seconds, None).unwrap()
}

fn log(limit: u64) -> Quota {
    quota(Algorithm::SlidingWindow, limit, 60)
}

fn fixed(size: u64) -> LeaseTerms {
    LeaseTerms {
        size: Size::Fixed(size),
        ttl: Span::millis(1000),
    }
}

const AUTO: LeaseTerms = LeaseTerms {
    size: Size::Auto,
    ttl: Span::millis(1000),
};

fn leases() -> Leases {
    Leases::new(&StoreConfig::default())
}

/// The store: every operation of a part, at that time.
fn ask(
    store: &mut Counters<Vec<u8>>,
    part: &ShardRequest,
    now: StoreInstant,
    asked: WorkerInstant,
) -> Outcome {
    let told = part.check_request.operations().map(|(operation, checks)| {
        let limits: Vec<_> = checks
            .iter()
            .map(|check| (check.key.clone(), check.terms.quota, check.cost))
            .collect();
        store.run(operation.kind, &limits, now)
    });
    Outcome::Answered {
        now,
        asked,
        told: told.collect(),
    }
}

fn used(store: &mut Counters<Vec<u8>>, check: &Check, now: StoreInstant) -> u64 {
    let limits = [(check.key.clone(), check.terms.quota, Cost::ONE)];
    let told = store.run(Kind::Peek, &limits, now);
    check.terms.quota.capacity() - told.limits[0].remaining as u64
}

/// A worker and the store, on one clock and without delay.
struct Desk {
    leases: Leases,
    store: Counters<Vec<u8>>,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            leases: leases(),
            store: Counters::default(),
        }
    }

    /// A request without a lease: it takes from the store and bids. What the lease holds.
    fn bid(&mut self, check: &Check, terms: LeaseTerms, now: u64) -> Option<u64> {
        let now = WorkerInstant(now);
        let bid = self.leases.bid(check, terms, now)?;
        let size = bid.check.cost.get();
        let outcome = ask(&mut self.store, bid.part(), StoreInstant(now.0), now);
        assert!(self.leases.settle(bid, &outcome).is_none());
        Some(size)
    }

    fn spends(&mut self, check: &Check, now: u64) -> bool {
        let covers = self.leases.covers(check, WorkerInstant(now));
        let spent = self.leases.spend(check, WorkerInstant(now));
        assert_eq!(covers, spent.is_some());
        covers
    }

    /// What goes back at that time; it is refunded.
    fn expire(&mut self, now: u64) -> usize {
        let back = self.leases.expire(WorkerInstant(now));
        for part in &back {
            ask(&mut self.store, part, StoreInstant(now), WorkerInstant(now));
        }
        back.len()
    }

    fn used(&mut self, check: &Check, now: u64) -> u64 {
        used(&mut self.store, check, StoreInstant(now))
    }
}

#[test]
fn a_lease_is_spent_to_its_last_permit_and_told_as_it_is_spent() {
    let mut desk = Desk::new();
    let ann = check("ann", log(100), 1);
    assert_eq!(desk.bid(&ann, fixed(5), 0), Some(5));
    assert_eq!(desk.used(&ann, 0), 5);
    for left in (95..100).rev() {
        let spent = desk.leases.spend(&ann, WorkerInstant(1000)).unwrap();
        assert_eq!(spent.reading.remaining, left);
        assert_eq!(spent.reading.retry, Retry::Now);
        assert_eq!(spent.reading.reset, Span::millis(60_999));
    }
    assert!(!desk.spends(&ann, 1000));
    assert!(!desk.spends(&check("bob", log(100), 1), 1000));
    assert_eq!(desk.expire(2 * SECOND), 0);
    assert_eq!(desk.used(&ann, 2 * SECOND), 5);
}

#[test]
fn unused_permits_go_back_when_the_time_is_over() {
    let mut desk = Desk::new();
    let ann = check("ann", log(100), 1);
    desk.bid(&ann, fixed(5), 0);
    assert!(desk.spends(&ann, 0) && desk.spends(&ann, 993_999));
    // A thousandth and 5 ms before the store's second is over.
    assert!(!desk.spends(&ann, 994_000));
    assert!(desk.leases.next().is_some());
    assert_eq!((desk.expire(994_000), desk.expire(2 * SECOND)), (1, 0));
    assert_eq!(desk.used(&ann, 994_000), 2);
    assert!(desk.leases.next().is_none());
}

#[test]
fn a_lease_of_a_fixed_window_ends_with_it_and_nothing_goes_back() {
    let mut desk = Desk::new();
    let ann = check("ann", quota(Algorithm::FixedWindow, 100, 60), 1);
    let (start, end) = (60 * SECOND - 200_000, 60 * SECOND);
    desk.bid(&ann, fixed(5), start);
    assert!(desk.spends(&ann, end - 5_201));
    assert!(!desk.spends(&ann, end - 5_200));
    assert_eq!(desk.expire(end), 0);
    assert!(desk.leases.next().is_none());
}

#[test]
fn a_permit_of_a_request_that_was_refused_elsewhere_can_be_spent_again() {
    let mut desk = Desk::new();
    let ann = check("ann", log(100), 1);
    desk.bid(&ann, fixed(2), 0);
    let spent = desk.leases.spend(&ann, WorkerInstant(0)).unwrap();
    assert!(desk.leases.restore(&ann, spent).is_none());
    let all = [(); 2].map(|()| desk.leases.spend(&ann, WorkerInstant(0)).unwrap());
    assert!(!desk.spends(&ann, 0));
    // The lease is gone: what is restored now goes back to the store.
    for spent in all {
        let part = desk.leases.restore(&ann, spent).unwrap();
        ask(&mut desk.store, &part, StoreInstant(0), WorkerInstant(0));
    }
    assert_eq!(desk.used(&ann, 0), 0);
}

#[test]
fn a_caller_has_one_lease_at_a_time() {
    let mut desk = Desk::new();
    let ann = |permits| check("ann", log(100), permits);
    let first = desk
        .leases
        .bid(&ann(1), fixed(5), WorkerInstant(0))
        .unwrap();
    assert!(
        desk.leases
            .bid(&ann(1), fixed(5), WorkerInstant(0))
            .is_none()
    );
    let outcome = ask(
        &mut desk.store,
        first.part(),
        StoreInstant(0),
        WorkerInstant(0),
    );
    desk.leases.settle(first, &outcome);
    // What is left but not enough goes back with the next bid.
    assert!(desk.spends(&ann(2), 0) && !desk.spends(&ann(4), 0));
    assert_eq!(desk.bid(&ann(4), fixed(5), 0), Some(5));
    assert_eq!(desk.used(&ann(1), 0), 2 + 5);
    // What no lease could cover is not worth one.
    assert_eq!(desk.bid(&ann(6), fixed(5), 0), None);
    assert!(desk.spends(&ann(5), 0));
}

/// Callers of two tiers may count in one key: what was granted to one was spent by the other, whose
/// limit would have refused it.
#[test]
fn a_lease_covers_no_other_limit_of_the_same_count() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let mut desk = Desk::new();
        let premium = check("ann", quota(algorithm, 1000, 3600), 1);
        let free = check("ann", quota(algorithm, 10, 60), 1);
        desk.bid(&premium, fixed(100), 0);
        assert!(!desk.spends(&free, 0) && desk.spends(&premium, 0));
        // With a bid of the other's it goes back, to where it was taken.
        assert_eq!(desk.bid(&free, fixed(5), 0), Some(5));
        assert_eq!(desk.used(&premium, 0), 1 + 5);
        assert!(desk.spends(&free, 0) && !desk.spends(&premium, 0));
    }
}

#[test]
fn a_bid_that_failed_leaves_the_way_free_for_the_next() {
    let mut desk = Desk::new();
    let ann = check("ann", log(100), 1);
    let bid = desk.leases.bid(&ann, fixed(5), WorkerInstant(0)).unwrap();
    assert!(desk.leases.settle(bid, &Outcome::Failed).is_none());
    assert!(!desk.spends(&ann, 0) && desk.leases.next().is_none());
    assert_eq!(desk.bid(&ann, fixed(5), 0), Some(5));
}

#[test]
fn what_comes_for_another_policy_goes_back() {
    let mut desk = Desk::new();
    let (ann, bob) = (check("ann", log(100), 1), check("bob", log(100), 1));
    desk.bid(&ann, fixed(5), 0);
    assert!(desk.spends(&ann, 0));
    let bid = desk.leases.bid(&bob, fixed(5), WorkerInstant(0)).unwrap();
    let late = ask(
        &mut desk.store,
        bid.part(),
        StoreInstant(0),
        WorkerInstant(0),
    );
    desk.leases.revoke();
    let mut back = desk.leases.expire(WorkerInstant(0));
    back.extend(desk.leases.settle(bid, &late));
    for part in &back {
        ask(&mut desk.store, part, StoreInstant(0), WorkerInstant(0));
    }
    assert_eq!((desk.used(&ann, 0), desk.used(&bob, 0)), (1, 0));
    assert!(!desk.spends(&ann, 0) && !desk.spends(&bob, 0) && desk.leases.next().is_none());
}

/// Ten thousand at once stood in a line in which most of them, and whoever came after, timed out.
#[test]
fn of_many_leases_that_end_together_few_go_back_at_a_time_and_all_in_the_end() {
    const MANY: usize = 1000;
    let callers = || (0..MANY).map(|number| check(&number.to_string(), log(100), 1));
    let mut desk = Desk::new();
    for caller in callers() {
        desk.bid(&caller, fixed(5), 0);
        assert!(desk.spends(&caller, 0));
    }
    desk.leases.revoke();
    let mut calls = 0;
    while let Some(WorkerInstant(next)) = desk.leases.next() {
        assert!(calls == 0 || next == calls * BETWEEN_RETURNS.as_micros());
        assert!(desk.expire(next) <= MOST_RETURNS);
        assert_eq!(desk.expire(next), 0);
        calls += 1;
        // One that waits to go back covers nobody.
        let last = check(&(MANY - 1).to_string(), log(100), 1);
        assert!(!desk.spends(&last, next));
    }
    assert_eq!(calls as usize, MANY.div_ceil(MOST_RETURNS));
    for caller in callers() {
        assert_eq!(desk.used(&caller, 0), 1);
    }
}

#[test]
fn auto_leases_to_who_calls_again_and_as_much_as_they_use() {
    let mut desk = Desk::new();
    let ann = check("ann", log(10_000), 1);
    assert_eq!(desk.bid(&ann, AUTO, 0), None);
    // A second later is no pace to speak of.
    assert_eq!(desk.bid(&ann, AUTO, SECOND), None);
    let mut now = SECOND;
    let mut sizes = Vec::new();
    // A thousand a second, for five seconds.
    while now < 6 * SECOND {
        now += 1000;
        desk.expire(now);
        if !desk.spends(&ann, now) {
            sizes.extend(desk.bid(&ann, AUTO, now));
        }
    }
    assert_eq!(sizes[..4], [4, 16, 64, 256], "{sizes:?}");
    let settled = &sizes[5..];
    let near = |size: &u64| (900..=1300).contains(size);
    assert!(!settled.is_empty() && settled.iter().all(near), "{sizes:?}");
    // Then ten times a second.
    for _ in 0..30 {
        now += 100_000;
        desk.expire(now);
        if !desk.spends(&ann, now) {
            sizes.extend(desk.bid(&ann, AUTO, now));
        }
    }
    let last = *sizes.last().unwrap();
    assert!((8..=14).contains(&last), "{sizes:?}");
}

#[test]
fn auto_leases_no_more_than_a_share_of_what_is_left() {
    let mut desk = Desk::new();
    let ann = check("ann", log(100), 1);
    let mut left = 100;
    desk.bid(&ann, AUTO, 0);
    let mut sizes = Vec::new();
    for now in (0..).step_by(10) {
        if desk.spends(&ann, now) {
            continue;
        }
        let size = desk.bid(&ann, AUTO, now);
        sizes.extend(size);
        if let Some(size) = size {
            assert!(size <= left / 4, "{size} of {left}");
            left -= size;
        } else {
            break;
        }
    }
    // The last few are for everybody.
    assert!(left < 8, "{sizes:?}");
}

#[test]
fn callers_without_number_are_bounded() {
    let mut desk = Desk::new();
    let wide = log(1_000_000);
    for number in 0..2 * MOST_HELD {
        desk.bid(&check(&format!("{number}"), wide, 1), fixed(5), 0);
    }
    assert_eq!(desk.leases.held.len(), MOST_HELD);
    let busy = check("0", wide, 5);
    for _ in 0..3 * MOST_HELD {
        assert!(desk.spends(&busy, 0));
        desk.bid(&busy, fixed(5), 0);
    }
    assert!(desk.leases.ends.len() <= 2 * MOST_HELD + SPARE_ENDS);
}

// === the promise ===

#[derive(Clone, Debug)]
struct Play {
    quota: Quota,
    terms: LeaseTerms,
    /// Parts in a million by which each worker's clock runs faster than the store's.
    rates: Vec<i64>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    later: Later,
    worker: usize,
    act: Act,
}

#[derive(Clone, Copy, Debug)]
enum Later {
    /// µs.
    By(u64),
    /// So many µs before, or after, the worker's next lease ends or the window does.
    LeaseEnd(i64),
    WindowEnd(i64),
    /// So many µs before, or after, what was used last is a window ago.
    Window(i64),
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Requests {
        permits: u64,
        times: usize,
    },
    /// The store answers all that was asked, and the worker hears it.
    Exchange,
    /// The store answers what was asked first.
    Answer,
    /// The worker hears what was answered first.
    Hear,
    Tick,
}

fn plays() -> impl Strategy<Value = Play> {
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let size = prop_oneof![(1..12u64).prop_map(Size::Fixed), Just(Size::Auto)];
    let ttl = prop_oneof![50..900u64, Just(900)];
    let act = prop_oneof![
        4 => (1..3u64, 1..6usize).prop_map(|(permits, times)| Act::Requests { permits, times }),
        3 => Just(Act::Exchange),
        1 => Just(Act::Answer),
        1 => Just(Act::Hear),
        1 => Just(Act::Tick),
    ];
    let about = || prop::sample::select(vec![-20_000, -1_000, -1, 0, 1, 1_000, 20_000]);
    let later = prop_oneof![
        12 => (0..2_000u64).prop_map(Later::By),
        3 => (0..100_000u64).prop_map(Later::By),
        1 => (0..900_000u64).prop_map(Later::By),
        2 => about().prop_map(Later::LeaseEnd),
        1 => about().prop_map(Later::WindowEnd),
        1 => about().prop_map(Later::Window),
    ];
    let step = (later, 0..2usize, act);
    let step = step.prop_map(|(later, worker, act)| Step { later, worker, act });
    (
        (algorithm, prop_oneof![2..8u64, 2..40u64], 1..4u64),
        (size, ttl),
        prop::collection::vec(-500..=500i64, 2),
        prop::collection::vec(step, 1..400),
    )
        .prop_map(
            |((algorithm, limit, window), (size, ttl), rates, steps)| Play {
                quota: quota(algorithm, limit, window),
                terms: LeaseTerms {
                    size,
                    ttl: Span::millis(ttl),
                },
                rates,
                steps,
            },
        )
}

/// A worker with what it asked and what it was answered but has not heard.
struct Worker {
    leases: Leases,
    asked: VecDeque<(Option<Bid>, ShardRequest, WorkerInstant)>,
    answered: VecDeque<(Bid, Outcome)>,
}

impl Worker {
    fn answer(&mut self, store: &mut Counters<Vec<u8>>, now: u64) -> bool {
        let Some((bid, part, asked)) = self.asked.pop_front() else {
            return false;
        };
        let outcome = ask(store, &part, StoreInstant(now), asked);
        self.answered.extend(bid.map(|bid| (bid, outcome)));
        true
    }

    fn hear(&mut self) -> bool {
        let replies = self.answered.pop_front();
        let replies = replies.map(|(bid, outcome)| self.leases.settle(bid, &outcome));
        replies.is_some()
    }
}

/// Permits used, each when, by the store's clock.
#[derive(Default)]
struct Uses(Vec<(u64, u64)>);

impl Uses {
    fn between(&self, after: u64, until: u64) -> u64 {
        let within = |(at, _): &&(u64, u64)| *at > after && *at <= until;
        self.0
            .iter()
            .filter(within)
            .map(|(_, permits)| permits)
            .sum()
    }
}

proptest! {
           #![proptest_config(ProptestConfig {
               cases: 400,
               failure_persistence: None,
               ..ProptestConfig::default()
           })]

           /// Workers whose clocks disagree, answers that come late or in between, permits that are
           /// spent at the last moment, refunded, refused elsewhere: counted from outside.
           #[test]
           fn no_window_is_exceeded_whatever_the_workers_do(play in plays()) {
               const START: u64 = 4_102_444_800_000_000;
               let Play { quota, terms, rates, steps } = play;
               let window = quota.window().as_micros();
               let mut store: Counters<Vec<u8>> = Counters::default();
               let mut workers: Vec<Worker> = rates
                   .iter()
                   .map(|_| Worker {
                       leases: leases(),
                       asked: VecDeque::new(),
                       answered: VecDeque::new(),
                   })
                   .collect();
               let mut uses = Uses::default();
               let mut now = START;
               let mut most_out = 0;
               for Step { later, worker: number, act } in steps {
                   // Its own clock, from an origin of its own.
                   let own = |now: u64| {
                       let elapsed = (now - START) as i64;
                       let own = elapsed + elapsed * rates[number] / 1_000_000;
                       WorkerInstant((1 + number as u64) * 77_777_777 + own as u64)
                   };
                   let worker = &mut workers[number];
                   let to = |span: u64, and: i64| span.saturating_add_signed(and);
                   now += match later {
                       Later::By(later) => later,
                       Later::WindowEnd(and) => to(window - now % window, and),
                       Later::Window(and) => match uses.0.last() {
                           Some((at, _)) => to((at + window).saturating_sub(now), and),
                           None => 0,
                       },
                       Later::LeaseEnd(and) => match worker.leases.ends.peek() {
                           Some(Reverse((until, _))) => to(until.0.saturating_sub(own(now).0), and),
                           None => 0,
                       },
                   };
                   let own = own(now);
                   match act {
                       Act::Requests { permits, times } => for _ in 0..times {
                           let check = check("ann", quota, permits);
                           if worker.leases.spend(&check, own).is_some() {
                               uses.0.push((now, permits));
                           } else {
                               let limits = [(check.key.clone(), quota, check.cost)];
                               let told = store.run(Kind::Take, &limits, StoreInstant(now));
                               if told.verdict == crate::quota::operation::Verdict::Passed {
                                   uses.0.push((now, permits));
                               }
                               let left = told.limits[0].remaining;
worker.leases.note_left(&check, terms, left);
                               if let Some(bid) = worker.leases.bid(&check, terms, own) {
                                   let part = bid.part().clone();
                                   worker.asked.push_back((Some(bid), part, own));
                               }
                           }
                       }
                       Act::Exchange => {
                           while worker.answer(&mut store, now) || worker.hear() {}
                       }
                       Act::Answer => {
    let _ = worker.answer(&mut store, now);
    }
                       Act::Hear => {
    let _ = worker.hear();
    }
                       Act::Tick => {
                           for part in worker.leases.expire(own) {
                               worker.asked.push_back((None, part, own));
                           }
                       }
                   }
                   let out = workers.iter().flat_map(|worker| worker.leases.held.values());
                   let out: u64 = out
                       .map(|held| match held {
                           Held::Lease(lease) => lease.check.cost.get(),
                           Held::Asked => terms_most(terms, &quota),
                       })
                       .sum();
                   most_out = most_out.max(out);
                   let (counted, most) = match quota.algorithm() {
                       Algorithm::FixedWindow => {
                           (uses.between(now - now % window - 1, now), quota.limit())
                       }
                       Algorithm::SlidingWindow => (uses.between(now - window, now), quota.limit()),
                       // A full bucket, what refills, and what is out.
                       _ => (uses.between(now - window, now), 2 * quota.limit() + most_out),
                   };
                   prop_assert!(counted <= most, "{} of {} in a window", counted, most);
               }
           }
       }

fn terms_most(terms: LeaseTerms, quota: &Quota) -> u64 {
    match terms.size {
        Size::Fixed(size) => size,
        Size::Auto => quota.limit() / 4,
    }
}
