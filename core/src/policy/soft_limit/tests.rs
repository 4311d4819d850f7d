use super::*;
use crate::decide::near_limit::{Delay, NearLimit, Queue};
use crate::decide::verdict::LimitStatus;
use crate::policy::ids::LimitId;
use crate::quota::model::Counters;
use crate::quota::operation::{Kind, Retry, Verdict};
use crate::time::{Span, StoreInstant};

fn quota(algorithm: Algorithm, limit: u64, window: u64) -> Quota {
    Quota::try_new(algorithm, limit, window, None).unwrap()
}

fn left(remaining: i64) -> Reading {
    Reading {
        remaining,
        retry: Retry::Now,
        reset: Span::ZERO,
    }
}

fn level(share: f64) -> Level {
    Level::try_new(share).unwrap()
}

fn nth(place: usize, reading: Reading) -> (usize, LimitStatus) {
    let limit = LimitId::nth(place);
    (place, LimitStatus { limit, reading })
}

fn near_limit(all: &[(SoftLimit, Quota, Reading)]) -> NearLimit {
    let mut near_limit = NearLimit::default();
    for (place, (soft_limit, quota, reading)) in all.iter().enumerate() {
        near_limit.add(nth(place, *reading), *soft_limit, quota, Cost::ONE);
    }
    near_limit
}

#[test]
fn a_limit_warns_from_exactly_its_share_on() {
    for (capacity, share, remaining, warns) in [
        (100, 0.55, 46, None),
        (100, 0.55, 45, Some("0.55")),
        (5, 0.6, 3, None),
        (5, 0.6, 2, Some("0.6")),
        (3, 0.5, 1, Some("0.666")),
        (10, 0.7, 0, Some("1.0")),
        (1000, 0.001, 999, Some("0.001")),
    ] {
        let soft_limit = SoftLimit {
            warn_at: Some(level(share)),
            pace: Pace::Free,
        };
        let quota = quota(Algorithm::FixedWindow, capacity, 60);
        let warned = near_limit(&[(soft_limit, quota, left(remaining))]).warned;
        let told = warned.first().map(|(_, used)| used.to_string());
        assert_eq!(
            told.as_deref(),
            warns,
            "{share} of {capacity}, {remaining} left"
        );
    }
}

#[test]
fn a_delay_grows_with_use_up_to_the_last_request_before_the_limit() {
    let soft_limit = SoftLimit {
        warn_at: None,
        pace: Pace::Slowed {
            from: level(0.5),
            most: Span::millis(1000),
        },
    };
    let quota = quota(Algorithm::SlidingWindow, 10, 60);
    let waits: Vec<u64> = (0..10)
        .rev()
        .map(|remaining| {
            near_limit(&[(soft_limit, quota, left(remaining))])
                .delay
                .wait
                .as_millis()
        })
        .collect();
    assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600, 800, 1000]);
}

#[test]
fn of_several_delays_the_longest_counts() {
    let slowed = |most| SoftLimit {
        warn_at: None,
        pace: Pace::Slowed {
            from: level(0.5),
            most: Span::millis(most),
        },
    };
    let shaped = SoftLimit {
        warn_at: None,
        pace: Pace::Shaped {
            longest: Span::millis(9000),
        },
    };
    let window = quota(Algorithm::FixedWindow, 10, 60);
    let bucket = quota(Algorithm::LeakyBucket, 10, 10);
    let turn = Reading {
        reset: Span::millis(1400),
        ..left(5)
    };
    let slow = |most| (slowed(most), window, left(0));
    let shape = (shaped, bucket, turn);
    let later = (
        shaped,
        bucket,
        Reading {
            reset: Span::millis(1500),
            ..left(5)
        },
    );
    // The queue is told by its place, its own wait and the longest of the others'.
    for (all, wait, queue) in [
        ([slow(100), slow(300), slow(200)], 300, None),
        ([slow(900), shape, slow(200)], 900, Some((1, 400, 900))),
        ([slow(100), shape, slow(200)], 400, Some((1, 400, 200))),
        ([slow(300), slow(200), shape], 400, Some((2, 400, 300))),
        ([later, slow(200), shape], 500, Some((0, 500, 400))),
        ([shape, slow(200), later], 500, Some((2, 500, 400))),
    ] {
        let queue = queue.map(|(place, wait, others)| Queue {
            place,
            wait: Span::millis(wait),
            others: Span::millis(others),
        });
        let wait = Span::millis(wait);
        assert_eq!(near_limit(&all).delay, Delay { wait, queue });
    }
}

/// What the bucket alone says, request by request: turns at its rate, whatever the costs, and
/// no wait beyond the longest.
#[test]
fn turns_come_at_the_rate_of_the_bucket_and_none_is_too_far_away() {
    let longest = Span::millis(1000);
    let soft_limit = SoftLimit {
        warn_at: None,
        pace: Pace::Shaped { longest },
    };
    // A turn each 142.857… ms.
    let quota = soft_limit
        .quota(quota(Algorithm::LeakyBucket, 7, 1))
        .unwrap();
    assert_eq!(quota.capacity(), 8);
    let mut counters = Counters::default();
    let mut free = 0.0_f64;
    let mut refused = 0;
    for (number, later) in [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 150, 3, 2000, 40, 40, 900, 1]
        .iter()
        .scan(0, |now, later| {
            *now += later;
            Some(*now)
        })
        .enumerate()
    {
        let cost = Cost((1 + number as u64 % 2).try_into().unwrap());
        let now = StoreInstant(later * 1000);
        let told = counters.run(Kind::Take, &[((), quota, cost)], now);
        let turn = (later as f64).max(free);
        if told.verdict == Verdict::Refused {
            let after = turn - later as f64 + (cost.get() - 1) as f64 * 1000.0 / 7.0;
            assert!(after > longest.as_millis() as f64, "{number}: {after}");
            refused += 1;
            continue;
        }
        let mut near_limit = NearLimit::default();
        near_limit.add(nth(0, told.limits[0]), soft_limit, &quota, cost);
        let wait = near_limit.delay.wait.as_millis();
        let told = later as f64 + wait as f64;
        assert!(
            (turn - 1.0..turn + 2.0).contains(&told),
            "{number}: {told} is not {turn}"
        );
        assert!(wait <= longest.as_millis() + 1, "{wait}");
        free = turn + cost.get() as f64 * 1000.0 / 7.0;
    }
    assert!(refused > 0);
}
