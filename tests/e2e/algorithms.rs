//! The four algorithms as time goes by: real seconds, so the windows are short.

use std::time::Duration;

use crate::model::Algorithm::{self, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
use crate::model::{Moment, Quota, Usage};
use crate::visitor::{Visitor, number, remaining};
use crate::world::{World, now, wait_until};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    traffic_in_real_time_is_let_through_as_the_model_says,
    a_request_passes_after_the_retry_after_and_all_of_them_after_the_reset,
];

const ALGORITHMS: [Algorithm; 4] = [
    FixedWindow,
    SlidingWindow,
    TokenBucket { burst: 6 },
    LeakyBucket,
];
/// Two windows and a half.
const TRAFFIC: Duration = Duration::from_secs(5);

fn brief(algorithm: Algorithm) -> Quota {
    Quota {
        algorithm,
        limit: 4,
        window_seconds: 2,
    }
}

fn path(algorithm: Algorithm) -> String {
    format!("/brief/{}", algorithm.name())
}

fn traffic_in_real_time_is_let_through_as_the_model_says(world: &World) {
    let mut callers = ALGORITHMS.map(|algorithm| {
        let visitor = Visitor::of_tier(world.workshop(), "free");
        (brief(algorithm), visitor, brief(algorithm).unused())
    });
    let end = now() + TRAFFIC;
    // Uneven, so that requests fall anywhere in a window.
    let mut gaps = [7, 140, 3, 61, 233, 11, 95]
        .into_iter()
        .cycle()
        .map(Duration::from_millis);
    let mut refused = 0;
    while now() < end {
        for (quota, visitor, usage) in &mut callers {
            refused += u32::from(ask(quota, visitor, usage) == 429);
        }
        wait_until(now() + gaps.next().unwrap());
    }
    assert!(refused > 0, "the traffic was too thin to be limited");
}

/// One request, and whether it was answered as the model would have.
fn ask(quota: &Quota, visitor: &Visitor, usage: &mut Usage) -> u16 {
    let (at, answer) = Moment::of(|| visitor.get(path(quota.algorithm)));
    let room = quota.room(usage, at);
    match answer.status {
        200 => {
            let before = remaining(&answer) + 1;
            assert!(
                room.contains(&before),
                "{quota:?}: room for {before} of {room:?}\n{usage:?}\n{at:?}"
            );
            quota.take(usage, at);
        }
        429 => assert_eq!(*room.start(), 0, "{quota:?} was refused\n{usage:?}\n{at:?}"),
        other => panic!("{other}: {answer:?}"),
    }
    answer.status
}

fn a_request_passes_after_the_retry_after_and_all_of_them_after_the_reset(world: &World) {
    let exhausted = ALGORITHMS.map(|algorithm| {
        let visitor = Visitor::of_tier(world.workshop(), "free");
        let refusal = (0..100)
            .map(|_| visitor.get(path(algorithm)))
            .find(|a| a.status == 429);
        let refusal = refusal.expect("a hundred requests at once exceed the limit");
        let (wait, reset) = (
            number(&refusal, "retry-after"),
            number(&refusal, "x-ratelimit-reset"),
        );
        // The window is two seconds; a bucket of six drains in three.
        assert!(
            (1..=2).contains(&wait) && (wait..=3).contains(&reset),
            "{wait} {reset}"
        );
        let told = now();
        (
            algorithm,
            visitor,
            told + Duration::from_secs(wait),
            told + Duration::from_secs(reset),
        )
    });
    for (algorithm, visitor, retry, _) in &exhausted {
        wait_until(*retry);
        assert_eq!(visitor.get(path(*algorithm)).status, 200, "{algorithm:?}");
    }
    for (algorithm, _, _, _) in &exhausted {
        let visitor = Visitor::of_tier(world.workshop(), "free");
        let capacity = brief(*algorithm).capacity();
        let mut last = visitor.get(path(*algorithm));
        for _ in 1..capacity {
            last = visitor.get(path(*algorithm));
        }
        wait_until(now() + Duration::from_secs(number(&last, "x-ratelimit-reset")));
        assert_eq!(
            remaining(&visitor.get(path(*algorithm))),
            capacity - 1,
            "{algorithm:?}"
        );
    }
}
