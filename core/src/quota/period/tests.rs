use proptest::prelude::*;

use super::*;

/// One day after the other, by what everybody knows of months: nothing of `next_month`'s arithmetic.
#[derive(Clone, Copy)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

const FIRST: Date = Date {
    year: 1970,
    month: 1,
    day: 1,
};

impl Date {
    fn is_last_of_month(self) -> bool {
        let is_leap = self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let last = match self.month {
            2 => 28 + u64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        self.day == last
    }

    fn tomorrow(self) -> Date {
        let Date { year, month, day } = self;
        match (self.is_last_of_month(), month) {
            (false, _) => Date {
                day: day + 1,
                ..self
            },
            (true, 12) => Date {
                year: year + 1,
                month: 1,
                day: 1,
            },
            (true, _) => Date {
                month: month + 1,
                day: 1,
                ..self
            },
        }
    }
}

fn calendar(unit: Unit, minutes: i16) -> Calendar {
    Calendar::new(unit, UtcOffset::try_new(minutes).unwrap())
}

/// 2255, where a clock in µs is no longer exact to a double.
const LAST_DAY: u64 = 104_249;

#[test]
fn each_day_of_three_centuries_lies_in_its_month_and_its_week() {
    let mut date = FIRST;
    let (mut of_month, mut of_week) = (Vec::new(), Vec::new());
    let all_end = |days: &mut Vec<u64>, unit, tomorrow| {
        for midnight in days.drain(..) {
            for at in [midnight, midnight + DAY as u64 - 1] {
                assert_eq!(calendar(unit, 0).end(at), tomorrow, "{unit:?} of {at}");
            }
        }
    };
    for number in 0..=LAST_DAY {
        let midnight = number * DAY as u64;
        let tomorrow = midnight + DAY as u64;
        of_month.push(midnight);
        of_week.push(midnight);
        if date.is_last_of_month() {
            all_end(&mut of_month, Unit::Month, tomorrow);
        }
        // The epoch was a Thursday, so the fourth day a Sunday.
        if number % 7 == 3 {
            all_end(&mut of_week, Unit::Week, tomorrow);
        }
        date = date.tomorrow();
    }
}

/// `2026-11-29T23:59`, in ms since the epoch.
fn at(text: &str) -> u64 {
    let numbers: Vec<u64> = text
        .split(['-', 'T', ':'])
        .map(|number| number.parse().unwrap())
        .collect();
    let [year, month, day, hours, minutes] = numbers[..] else {
        panic!("{text} is no time");
    };
    let (mut date, mut days) = (FIRST, 0);
    while (date.year, date.month, date.day) != (year, month, day) {
        date = date.tomorrow();
        days += 1;
    }
    days * DAY as u64 + hours * HOUR as u64 + minutes * MINUTE as u64
}

#[test]
fn a_window_ends_where_the_calendar_on_the_wall_says() {
    for (unit, offset, time, expected) in [
        (
            Unit::Month,
            "+00:00",
            "2024-02-29T23:59",
            "2024-03-01T00:00",
        ),
        (
            Unit::Month,
            "+00:00",
            "2023-02-28T23:59",
            "2023-03-01T00:00",
        ),
        (
            Unit::Month,
            "+00:00",
            "2100-02-28T12:00",
            "2100-03-01T00:00",
        ),
        (
            Unit::Month,
            "+00:00",
            "2000-02-29T00:00",
            "2000-03-01T00:00",
        ),
        (
            Unit::Month,
            "+00:00",
            "2026-12-31T23:59",
            "2027-01-01T00:00",
        ),
        // In Tokyo it is the first of the month nine hours before it is in Greenwich.
        (
            Unit::Month,
            "+09:00",
            "2026-12-31T14:59",
            "2026-12-31T15:00",
        ),
        (
            Unit::Month,
            "+09:00",
            "2026-12-31T15:00",
            "2027-01-31T15:00",
        ),
        (
            Unit::Month,
            "-05:00",
            "2027-01-01T04:59",
            "2027-01-01T05:00",
        ),
        (
            Unit::Month,
            "-05:00",
            "2027-01-01T05:00",
            "2027-02-01T05:00",
        ),
        // 2026-11-30 is a Monday.
        (Unit::Week, "+00:00", "2026-11-29T23:59", "2026-11-30T00:00"),
        (Unit::Week, "+00:00", "2026-11-30T00:00", "2026-12-07T00:00"),
        (Unit::Week, "+14:00", "2026-11-29T10:00", "2026-12-06T10:00"),
        (Unit::Week, "-12:00", "2026-11-30T11:59", "2026-11-30T12:00"),
        (Unit::Day, "+05:45", "2026-11-29T18:14", "2026-11-29T18:15"),
        (Unit::Day, "-03:30", "2026-11-29T03:30", "2026-11-30T03:30"),
        (Unit::Hour, "+05:30", "2026-11-29T00:29", "2026-11-29T00:30"),
        (Unit::Hour, "-03:30", "2026-11-29T00:30", "2026-11-29T01:30"),
    ] {
        let told = Calendar::new(unit, UtcOffset::read(offset).unwrap()).end(at(time));
        assert_eq!(told, at(expected), "{unit:?} {offset} {time}");
    }
}

#[test]
fn hours_and_days_of_utc_are_windows_of_so_many_seconds() {
    let period = |unit, minutes| Period::from(calendar(unit, minutes));
    let hour = Period::Fixed(Span::millis(3_600_000));
    assert_eq!(period(Unit::Hour, 0), hour);
    assert_eq!(
        period(Unit::Day, 0),
        Period::Fixed(Span::millis(86_400_000))
    );
    assert_eq!(period(Unit::Hour, 9 * 60), hour, "it begins everywhere");
}

#[test]
fn a_window_has_a_name_for_keys_and_one_for_people() {
    let seconds = |seconds: u64| Period::Fixed(Span::millis(seconds * 1000));
    let calendar = |unit, minutes| Period::from(calendar(unit, minutes));
    for (period, key, person) in [
        (seconds(60), "60s", "60 seconds"),
        (calendar(Unit::Day, 0), "86400s", "86400 seconds"),
        (calendar(Unit::Hour, 345), "hour+0045", "one hour (+00:45)"),
        (calendar(Unit::Hour, -210), "hour+0030", "one hour (+00:30)"),
        (calendar(Unit::Day, -300), "day-0500", "one day (-05:00)"),
        (calendar(Unit::Week, 0), "week", "one week"),
        (
            calendar(Unit::Month, 540),
            "month+0900",
            "one month (+09:00)",
        ),
        (
            calendar(Unit::Month, -15),
            "month-0015",
            "one month (-00:15)",
        ),
    ] {
        assert_eq!(
            (period.to_string().as_str(), format!("{period:#}").as_str()),
            (key, person)
        );
    }
}

#[test]
fn an_offset_is_read_as_it_is_written_and_no_further_than_anybody_lives() {
    let read = |text| UtcOffset::read(text).map(UtcOffset::minutes);
    for (text, minutes) in [
        ("+09:00", 540),
        ("-03:30", -210),
        ("-12:00", -720),
        ("+14:00", 840),
        ("+00:00", 0),
        ("-00:00", 0),
    ] {
        assert_eq!(read(text), Some(minutes), "{text}");
    }
    let others = "Z 09:00 +9:00 +0900 +09 +09:60 +14:01 -12:01 +99:99 +-9:00 \u{2212}03:00 +09:000";
    for text in others.split(' ').chain(["", " +09:00", "+ 9:00"]) {
        assert_eq!(read(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn windows_follow_each_other_without_a_gap(
        unit in prop::sample::select(Unit::ALL.to_vec()),
        minutes in -720..=840i16,
        millis in DAY as u64..LAST_DAY * DAY as u64,
    ) {
        let period = Period::Calendar(calendar(unit, minutes));
        let ends = period.end(millis);
        prop_assert!(ends > millis && ends - millis <= period.longest().as_millis());
        prop_assert_eq!(period.end(ends - 1), ends);
        let next = period.end(ends);
        prop_assert!((period.shortest().as_millis()..=period.longest().as_millis()).contains(&(next - ends)));
        // It is the window of Greenwich, by so much sooner or later.
        let ahead = i64::from(calendar(unit, minutes).offset().minutes()) * MINUTE;
        let at_utc = calendar(unit, 0).end(millis.saturating_add_signed(ahead));
        prop_assert_eq!(ends.saturating_add_signed(ahead), at_utc);
    }
}
