use super::*;
use crate::quota::limit::Algorithm;
use crate::quota::packed::Terms;

fn check(key: &[u8], permits: u64) -> Check {
    Check {
        key: key.to_vec(),
        terms: Terms::new(quota(5)),
        cost: Cost::try_new(permits).unwrap(),
    }
}

fn quota(limit: u64) -> Quota {
    Quota::try_new(Algorithm::FixedWindow, limit, 60, None).unwrap()
}

fn refused(retry: Retry) -> Reading {
    Reading {
        remaining: 0,
        retry,
        reset: Span::millis(60_000),
    }
}

fn denials() -> Denials {
    Denials::new(Span::millis(1000))
}

#[test]
fn a_refusal_is_told_again_with_the_time_that_passed_taken_off() {
    let mut denials = denials();
    denials.learn(
        &check(b"ann", 1),
        refused(Retry::After(Span::millis(5000))),
        WorkerInstant(0),
    );
    let told = denials
        .recall(&check(b"ann", 1), WorkerInstant(999_999))
        .unwrap();
    assert_eq!(told.retry, Retry::After(Span::millis(4001)));
    assert_eq!(told.reset, Span::millis(59_001));
    assert_eq!(denials.recall(&check(b"bob", 1), WorkerInstant(0)), None);
}

#[test]
fn it_is_believed_for_a_second_and_never_longer_than_the_store_said() {
    let mut denials = denials();
    denials.learn(
        &check(b"ann", 1),
        refused(Retry::After(Span::millis(5000))),
        WorkerInstant(0),
    );
    assert_eq!(
        denials.recall(&check(b"ann", 1), WorkerInstant(1_000_000)),
        None
    );
    denials.learn(
        &check(b"ann", 1),
        refused(Retry::After(Span::millis(20))),
        WorkerInstant(0),
    );
    assert!(
        denials
            .recall(&check(b"ann", 1), WorkerInstant(19_999))
            .is_some()
    );
    assert_eq!(
        denials.recall(&check(b"ann", 1), WorkerInstant(20_000)),
        None
    );
}

#[test]
fn a_smaller_cost_might_pass() {
    let mut denials = denials();
    denials.learn(
        &check(b"ann", 5),
        refused(Retry::After(Span::millis(5000))),
        WorkerInstant(0),
    );
    assert_eq!(denials.recall(&check(b"ann", 4), WorkerInstant(1)), None);
    assert!(
        denials
            .recall(&check(b"ann", 6), WorkerInstant(1))
            .is_some()
    );
    denials.learn(&check(b"ann", 9), refused(Retry::Never), WorkerInstant(0));
    let told = denials.recall(&check(b"ann", 9), WorkerInstant(1)).unwrap();
    assert_eq!(told.retry, Retry::Never);
}

/// A key names what is counted, and callers of two tiers may count in one. It was refused to one
/// whose limit allows more.
#[test]
fn another_limit_of_the_same_count_might_pass() {
    let mut denials = denials();
    denials.learn(&check(b"ann", 1), refused(Retry::Never), WorkerInstant(0));
    let mut wider = check(b"ann", 1);
    wider.terms = Terms::new(quota(1000));
    assert_eq!(denials.recall(&wider, WorkerInstant(1)), None);
    assert!(
        denials
            .recall(&check(b"ann", 1), WorkerInstant(1))
            .is_some()
    );
}

#[test]
fn what_passes_is_not_a_denial() {
    let mut denials = denials();
    denials.learn(&check(b"ann", 1), refused(Retry::Now), WorkerInstant(0));
    assert_eq!(denials.recall(&check(b"ann", 1), WorkerInstant(1)), None);
}

#[test]
fn switched_off_it_remembers_nothing() {
    let mut denials = Denials::new(Span::ZERO);
    denials.learn(&check(b"ann", 1), refused(Retry::Never), WorkerInstant(0));
    assert_eq!(denials.recall(&check(b"ann", 1), WorkerInstant(0)), None);
}

#[test]
fn callers_without_number_are_bounded() {
    let mut denials = denials();
    for i in 0..5 * MOST {
        denials.learn(
            &check(format!("{i}").as_bytes(), 1),
            refused(Retry::Never),
            WorkerInstant(0),
        );
    }
    assert!(denials.known.len() <= 2 * MOST);
}
