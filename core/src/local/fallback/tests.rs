use super::*;
use crate::quota::limit::Algorithm;
use crate::quota::operation::{Retry, Verdict};
use crate::quota::packed::Terms;
use crate::quota::period::{Calendar, Unit, UtcOffset};
use crate::time::{Span, StoreInstant};

fn check(key: &str, limit: u64) -> Check {
    let quota = Quota::try_new(Algorithm::FixedWindow, limit, 60, None).unwrap();
    Check {
        key: key.as_bytes().to_vec(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    }
}

fn passes(local: &mut Local, check: &Check) -> bool {
    local.take(&[check], StoreInstant(1)).verdict == Verdict::Passed
}

#[test]
fn a_worker_lets_its_share_through_and_no_more() {
    let mut local = Local::new(Share::one_of(4));
    let check = check("ann", 20);
    let passed = (0..20).filter(|_| passes(&mut local, &check)).count();
    assert_eq!(passed, 5);
}

#[test]
fn a_share_is_at_least_one() {
    let mut local = Local::new(Share::one_of(1000));
    let check = check("ann", 3);
    assert!(passes(&mut local, &check));
    assert!(!passes(&mut local, &check));
}

#[test]
fn a_log_that_outweighs_a_generation_makes_nobody_else_forgotten() {
    let mut local = Local::new(Share::one_of(1));
    let quota = Quota::try_new(Algorithm::SlidingWindow, 60_000, 60, None).unwrap();
    let busy = Check {
        key: b"busy".to_vec(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    };
    for stamp in 0..(MOST as u64 + 100) {
        local.young.run(
            Kind::Charge,
            &[(busy.key.clone(), quota, Cost::ONE)],
            StoreInstant(1_000 + stamp),
        );
    }
    let ann = check("ann", 1);
    assert!(passes(&mut local, &ann));
    for _ in 0..10 {
        passes(&mut local, &busy);
    }
    assert!(!passes(&mut local, &ann));
}

#[test]
fn callers_without_number_are_bounded_and_those_who_keep_calling_are_kept() {
    let mut local = Local::new(Share::one_of(1));
    let ann = check("ann", 10);
    let mut passed = 0;
    for i in 0..150_000 {
        assert!(passes(&mut local, &check(&format!("stranger{i}"), 10)));
        if i % 10_000 == 0 && passes(&mut local, &ann) {
            passed += 1;
        }
    }
    assert_eq!(passed, 10, "ann called often enough never to be forgotten");
    assert!(
        local.weight() <= 2 * (MOST + SHORTEST),
        "{}",
        local.weight()
    );
}

fn of(algorithm: Algorithm, limit: u64) -> Check {
    let quota = Quota::try_new(algorithm, limit, 60, None).unwrap();
    Check {
        key: format!("key:{}", algorithm.code()).into_bytes(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    }
}

fn left(remaining: i64, reset: u64) -> Reading {
    Reading {
        remaining,
        retry: Retry::Now,
        reset: Span::millis(reset),
    }
}

/// How many of a hundred pass at this second.
fn passing(local: &mut Local, check: &Check, second: u64) -> usize {
    let now = StoreInstant(second * SECOND);
    let passes = |_: &u32| local.take(&[check], now).verdict == Verdict::Passed;
    (0..100).filter(passes).count()
}

const SECOND: u64 = 1_000_000;
/// Where a window of a minute begins, in seconds.
const START: u64 = 1_800_000_000;

#[test]
fn what_the_store_said_is_left_is_shared_until_its_reset() {
    for (algorithm, reset) in [
        (Algorithm::FixedWindow, 50_000),
        (Algorithm::SlidingWindow, 50_000),
    ] {
        for (remaining, share, begins) in [
            (9, 4, 2),
            (9, 1, 9),
            (3, 4, 1),
            (1, 100, 1),
            (0, 4, 0),
            (0, 1, 0),
            (-7, 4, 0),
        ] {
            let mut local = Local::new(Share::one_of(share));
            let check = of(algorithm, 20);
            let told = StoreInstant((START + 10) * SECOND);
            local.learn(&check, left(remaining, reset), told);
            let what = format!("{algorithm:?} {remaining} 1/{share}");
            assert_eq!(passing(&mut local, &check, START + 30), begins, "{what}");
            assert_eq!(passing(&mut local, &check, START + 59), 0, "{what}");
            let whole = usize::try_from(20 / share).unwrap().max(1);
            let next = match algorithm {
                Algorithm::FixedWindow => whole,
                // What passed at 30 still counts.
                _ => whole.saturating_sub(begins),
            };
            assert_eq!(passing(&mut local, &check, START + 60), next, "{what}");
        }
    }
}

#[test]
fn a_bucket_begins_with_the_share_of_what_was_left_and_leaks_at_the_share_of_its_rate() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::LeakyBucket] {
        let check = of(algorithm, 120);
        for (remaining, at_once) in [(40, 10), (3, 1), (0, 0)] {
            let mut local = Local::new(Share::one_of(4));
            local.learn(
                &check,
                left(remaining, 60_000),
                StoreInstant(START * SECOND),
            );
            assert_eq!(passing(&mut local, &check, START), at_once, "{remaining}");
            // 30 a minute.
            assert_eq!(passing(&mut local, &check, START + 4), 2, "{remaining}");
        }
        let mut local = Local::new(Share::one_of(4));
        local.learn(&check, left(0, 60_000), StoreInstant(START * SECOND));
        assert_eq!(passing(&mut local, &check, START + 10), 5, "leaked since");
    }
}

#[test]
fn a_debt_is_paid_before_anything_passes() {
    let check = of(Algorithm::TokenBucket, 120);
    let mut local = Local::new(Share::one_of(4));
    local.learn(&check, left(-40, 80_000), StoreInstant(START * SECOND));
    assert_eq!(passing(&mut local, &check, START + 20), 0);
    assert_eq!(passing(&mut local, &check, START + 22), 1);
}

#[test]
fn asking_again_gives_nobody_more() {
    for algorithm in Algorithm::ALL {
        let mut local = Local::new(Share::one_of(2));
        let check = of(algorithm, 20);
        let told = |second: u64| StoreInstant((START + second) * SECOND);
        assert_eq!(passing(&mut local, &check, START), 10, "{algorithm:?}");
        local.learn(&check, left(9, 60_000), told(0));
        assert_eq!(passing(&mut local, &check, START), 0, "{algorithm:?}");
        local.learn(&check, left(9, 60_000), told(1));
        assert_eq!(passing(&mut local, &check, START + 1), 0, "{algorithm:?}");
    }
}

/// What was used before the store said that nothing is left expires first, and frees nothing.
#[test]
fn a_log_frees_nothing_before_the_reset_that_was_told() {
    let mut local = Local::new(Share::one_of(2));
    let check = of(Algorithm::SlidingWindow, 20);
    for second in 0..5 {
        let now = StoreInstant((START + second) * SECOND);
        assert_eq!(local.take(&[&check], now).verdict, Verdict::Passed);
    }
    local.learn(&check, left(0, 60_000), StoreInstant((START + 10) * SECOND));
    assert_eq!(passing(&mut local, &check, START + 11), 0);
    assert_eq!(passing(&mut local, &check, START + 69), 0);
    assert_eq!(passing(&mut local, &check, START + 70), 10);
}

#[test]
fn another_policy_changes_what_is_allowed_and_not_what_is_used() {
    for (limit, begins) in [(20, 2), (40, 12), (16, 0)] {
        let mut local = Local::new(Share::one_of(2));
        let told = StoreInstant(START * SECOND);
        local.learn(&of(Algorithm::FixedWindow, 20), left(4, 60_000), told);
        let check = of(Algorithm::FixedWindow, limit);
        assert_eq!(passing(&mut local, &check, START), begins, "{limit}");
    }
}

#[test]
fn only_what_is_more_than_half_used_is_remembered_and_not_without_number() {
    let quota = |limit| of(Algorithm::FixedWindow, limit).terms.quota;
    for (limit, remaining, is_remembered) in [
        (20, 10, false),
        (20, 9, true),
        (21, 11, false),
        (21, 10, true),
        (1, 0, true),
        (1, 1, false),
        (20, -1, true),
    ] {
        let is = is_low(&quota(limit), left(remaining, 1));
        assert_eq!(is, is_remembered, "{remaining} of {limit}");
    }
    let mut local = Local::new(Share::one_of(1));
    for i in 0..50_000 {
        let check = check(&format!("stranger{i}"), 10);
        local.learn(&check, left(0, 60_000), StoreInstant(START * SECOND));
    }
    assert!(local.low.len() <= 2 * MOST_LOW, "{}", local.low.len());
}

/// A clock that is off by some ms told when the window ends.
#[test]
fn a_month_ends_where_the_store_said() {
    // 2027-02-01T00:00:00Z
    const END: u64 = 1_801_440_000;
    let month = Calendar::new(Unit::Month, UtcOffset::default());
    let check = Check {
        terms: Terms::new(Quota::try_calendar(20, month).unwrap()),
        ..of(Algorithm::FixedWindow, 20)
    };
    for reset in [9_970, 10_000, 10_030] {
        let mut local = Local::new(Share::one_of(2));
        local.learn(&check, left(0, reset), StoreInstant((END - 10) * SECOND));
        assert_eq!(passing(&mut local, &check, END - 1), 0, "{reset}");
        assert_eq!(passing(&mut local, &check, END), 10, "{reset}");
    }
}
