//! The scripts, on a real Redis, against the same algorithms in memory: the same random operations,
//! to the same effect. `cases` holds what is worth a name of its own, `spoiled` what is at fault and must
//! spoil nobody else.

mod calendar;
mod cases;
mod concurrency;
mod scenario;
mod spoiled;
mod weir;

use std::cell::RefCell;

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use weir_core::quota::model::Counters;
use weir_lab::redis::Redis;

use crate::scenario::{Clock, Scenario, scenarios};
use crate::weir::Weir;

/// `PROPTEST_CASES` raises the number of cases.
#[test]
fn the_scripts_decide_what_the_algorithms_in_memory_decide() {
    let server = Redis::start().expect("a Redis");
    let weir = RefCell::new(Weir::with_test_clock(&server));
    TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    })
    .run(&scenarios(), |scenario| {
        play(&scenario, &mut weir.borrow_mut())
    })
    .unwrap_or_else(|failure| panic!("{failure}"));
}

fn play(scenario: &Scenario, weir: &mut Weir) -> Result<(), TestCaseError> {
    weir.flush();
    let mut counters = Counters::default();
    let mut clock = Clock::default();
    for (index, step) in scenario.steps.iter().enumerate() {
        clock.advance(&step.shift, scenario);
        weir.set_clock(clock.now);
        let operations = step.operations(scenario, &clock);
        let answer = weir.call(&operations).map_err(|error| {
            TestCaseError::fail(format!("step {index}: {operations:#?}\n{error}"))
        })?;
        assert_eq!(answer.now, clock.now);
        let batch = operations
            .iter()
            .map(|one| (one.kind, one.limits.as_slice()));
        let expected = counters.run_batch(batch, clock.now, answer.together);
        let told = operations.iter().zip(&answer.told);
        for ((operation, told), expected) in told.zip(expected) {
            if *told != expected {
                return Err(TestCaseError::fail(format!(
                    "step {index} at {:?}: {operation:#?}\ntold     {told:?}\nexpected {expected:?}",
                    clock.now
                )));
            }
        }
        clock.note(&answer);
    }
    weir.check_keys().map_err(TestCaseError::fail)
}
