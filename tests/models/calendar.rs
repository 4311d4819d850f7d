//! Windows by a calendar: the ends of months and years, leap days and offsets, as the script tells them and
//! as the model does. The steps of the random scenarios are too short to meet many of these.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::quota::limit::Quota;
use weir_core::quota::model::Counters;
use weir_core::quota::operation::{Kind, Retry, Verdict};
use weir_core::quota::period::{Calendar, Unit, UtcOffset};
use weir_core::time::{Span, StoreInstant};
use weir_lab::redis::Redis;

use crate::scenario::{EPOCH, calendars};
use crate::weir::{Operation, Weir, cost};

const DAY: u64 = 24 * 60 * 60 * 1000;

/// From 2100 on, so that no absolute expiry fires while a test plays in its own time. That year has no
/// leap day, as the one of four years later has.
const YEAR_2100: u64 = EPOCH / 1000;
const MARCH_2100: u64 = YEAR_2100 + (31 + 28) * DAY;
const MARCH_2104: u64 = YEAR_2100 + (4 * 365 + 31 + 29) * DAY;
const YEAR_2101: u64 = YEAR_2100 + 365 * DAY;

/// Where a clock in µs is no longer exact to Lua.
const YEAR_2255: u64 = YEAR_2100 + 155 * 365 * DAY;

fn by(unit: Unit, offset: &str) -> Quota {
    let offset = UtcOffset::read(offset).expect("an offset");
    Quota::try_calendar(1, Calendar::new(unit, offset)).expect("a quota")
}

#[test]
fn what_is_used_is_forgotten_in_the_very_millisecond_in_which_the_next_window_begins() {
    let server = Redis::start().expect("a Redis");
    let mut weir = Weir::with_test_clock(&server);
    let hours = |hours: u64| hours * DAY / 24;
    for (case, quota, end) in [
        ("no leap day", by(Unit::Month, "+00:00"), MARCH_2100),
        ("a leap day", by(Unit::Month, "+00:00"), MARCH_2104),
        ("a year", by(Unit::Month, "+00:00"), YEAR_2101),
        ("east", by(Unit::Month, "+14:00"), YEAR_2101 - hours(14)),
        ("west", by(Unit::Month, "-12:00"), MARCH_2104 + hours(12)),
        // 2100-01-04 is a Monday.
        ("a week", by(Unit::Week, "+00:00"), YEAR_2100 + 3 * DAY),
        (
            "a week's night",
            by(Unit::Week, "-05:00"),
            YEAR_2100 + 3 * DAY + hours(5),
        ),
        ("a day", by(Unit::Day, "+09:00"), YEAR_2101 - hours(9)),
    ] {
        weir.flush();
        let mut take = |millis: u64, micros: u64| {
            weir.set_clock(StoreInstant(millis * 1000 + micros));
            let told = weir.one(Kind::Take, 1, &[("weir:2:window", quota)]);
            (told.verdict, told.limits[0].retry)
        };
        let (passed, refused) = (Verdict::Passed, Verdict::Refused);
        let wait = |millis| Retry::After(Span::millis(millis));
        assert_eq!(
            take(end - hours(23), 0),
            (passed, wait(hours(23))),
            "{case}"
        );
        assert_eq!(take(end - 1, 999), (refused, wait(1)), "{case}");
        assert_eq!(take(end, 0).0, passed, "{case}");
        // A clock that steps back does not end a window sooner.
        assert_eq!(take(end - 1, 0).0, refused, "{case}");
        weir.check_keys().unwrap();
    }
}

#[test]
fn the_script_cuts_time_as_the_model_does() {
    /// Where to go: to a window's end and some ms, or by some ms.
    #[derive(Clone, Debug)]
    enum Step {
        End { which: usize, and: i64 },
        By(i64),
    }
    let few = prop::sample::select(vec![0, -1, 1, -1000, 86_399_999]);
    let steps = prop_oneof![
        4 => (0..4usize, few).prop_map(|(which, and)| Step::End { which, and }),
        1 => (-40 * DAY as i64..40 * DAY as i64).prop_map(Step::By),
    ];
    let kinds = prop_oneof![
        4 => Just(None),
        // Refunded by the receipt of so many calls before.
        1 => (1..4usize).prop_map(Some),
    ];
    let inputs = (
        vec(calendars(), 4),
        YEAR_2100..YEAR_2255,
        vec((steps, kinds), 1..24),
    );
    let server = Redis::start().expect("a Redis");
    let weir = RefCell::new(Weir::with_test_clock(&server));
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&inputs, |(calendars, begin, steps)| {
        let mut weir = weir.borrow_mut();
        weir.flush();
        let limits: Vec<(String, Quota, _)> = calendars
            .iter()
            .enumerate()
            .map(|(key, calendar)| {
                let quota = Quota::try_calendar(30, *calendar).expect("a quota");
                (format!("weir:2:{key}"), quota, cost(1))
            })
            .collect();
        let (mut counters, mut now, mut receipts) = (Counters::default(), begin, vec![]);
        for (step, back) in steps {
            let by = match step {
                Step::End { which, and } => (limits[which].1.period().end(now) - now) as i64 + and,
                Step::By(millis) => millis,
            };
            now = now.saturating_add_signed(by).clamp(YEAR_2100, YEAR_2255);
            weir.set_clock(StoreInstant(now * 1000));
            let receipt = back.and_then(|ago| receipts.iter().nth_back(ago).copied());
            let kind = receipt.map_or(Kind::Take, |receipt| Kind::Refund { receipt });
            let operation = Operation {
                kind,
                limits: limits.clone(),
            };
            let told = weir
                .call(std::slice::from_ref(&operation))
                .expect("an answer")
                .told;
            let expected = counters.run(kind, &operation.limits, StoreInstant(now * 1000));
            prop_assert_eq!(
                &told[0],
                &expected,
                "{:?} at {}: {:?}",
                kind,
                now,
                calendars
            );
            receipts.push(StoreInstant(now * 1000));
        }
        weir.check_keys().map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
