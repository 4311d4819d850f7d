//! When windows begin and end: after so many seconds since the Unix epoch, or with the hours, days, weeks
//! and months of a calendar. It knows neither what is counted in them nor what time it is.

use std::fmt;

use crate::time::Span;

/// How time is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// Each as long as the others; the epoch begins one.
    Fixed(Span),
    Calendar(Calendar),
    /// Not at all: permits count while they are in use.
    None,
}

/// The calendar's windows at a fixed distance from UTC: it knows no daylight saving time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    unit: Unit,
    offset: UtcOffset,
}

/// The number is what the script knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Unit {
    Hour = 1,
    Day = 2,
    /// Begins on Monday.
    Week = 3,
    /// Of the Gregorian calendar.
    Month = 4,
}

/// How far local time is ahead of UTC: from −12:00 to +14:00.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UtcOffset {
    minutes: i16,
}

const MINUTE: i64 = 60 * 1000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// The epoch is a Thursday: the first Monday is its fifth day.
const MONDAY: i64 = 4 * DAY;

// === impl Period ===

impl From<Calendar> for Period {
    /// Hours and days of UTC are windows of 3600 and 86400 seconds, and count in the same counter.
    fn from(calendar: Calendar) -> Period {
        match (calendar.unit, calendar.offset.minutes) {
            (Unit::Hour, 0) => Period::Fixed(Span::millis(HOUR as u64)),
            (Unit::Day, 0) => Period::Fixed(Span::millis(DAY as u64)),
            _ => Period::Calendar(calendar),
        }
    }
}

impl Period {
    /// How long a window is at most.
    pub fn longest(self) -> Span {
        match self {
            Period::Fixed(window) => window,
            Period::None => Span::ZERO,
            Period::Calendar(Calendar { unit, .. }) => Span::millis(match unit {
                Unit::Hour => HOUR as u64,
                Unit::Day => DAY as u64,
                Unit::Week => WEEK as u64,
                Unit::Month => 31 * DAY as u64,
            }),
        }
    }

    /// How long a window is at least.
    pub fn shortest(self) -> Span {
        match self {
            Period::Calendar(Calendar {
                unit: Unit::Month, ..
            }) => Span::millis(28 * DAY as u64),
            _ => self.longest(),
        }
    }

    /// The end of the window in which an instant lies, both in ms since the epoch.
    pub fn end(self, millis: u64) -> u64 {
        match self {
            Period::Fixed(window) => {
                let window = window.as_millis();
                (millis / window.max(1) + 1).saturating_mul(window)
            }
            Period::Calendar(calendar) => calendar.end(millis),
            Period::None => millis,
        }
    }

    /// Whether wherever a window ends one of these ends too.
    pub fn ends_with(self, other: Period) -> bool {
        match (self, other) {
            (Period::Fixed(own), Period::Fixed(other)) => {
                own.as_millis().checked_rem(other.as_millis()) == Some(0)
            }
            _ => self == other,
        }
    }
}

/// `60s`, `week`, `month+0900`: what a counter is called by. And by `{:#}` as a person would say it: `60
/// seconds`, `one week`, `one month (+09:00)`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calendar { unit, offset } = match self {
            Period::Fixed(window) if f.alternate() => {
                return write!(f, "{} seconds", window.as_seconds());
            }
            Period::Fixed(window) => return write!(f, "{}s", window.as_seconds()),
            Period::None => return f.write_str("use"),
            Period::Calendar(calendar) => calendar,
        };
        match (offset.minutes, f.alternate()) {
            (0, false) => f.write_str(unit.name()),
            (0, true) => write!(f, "one {}", unit.name()),
            (_, false) => write!(f, "{}{offset}", unit.name()),
            (_, true) => write!(f, "one {} ({offset:#})", unit.name()),
        }
    }
}

// === impl Calendar ===

impl Calendar {
    /// Every whole hour's distance from UTC leaves the hours where they are: it is as none.
    pub fn new(unit: Unit, offset: UtcOffset) -> Calendar {
        let minutes = match unit {
            Unit::Hour => offset.minutes.rem_euclid(60),
            Unit::Day | Unit::Week | Unit::Month => offset.minutes,
        };
        Calendar {
            unit,
            offset: UtcOffset { minutes },
        }
    }

    pub fn unit(self) -> Unit {
        self.unit
    }

    pub fn offset(self) -> UtcOffset {
        self.offset
    }

    fn end(self, millis: u64) -> u64 {
        // No clock that a double counts gets near to where this would saturate.
        let utc = i64::try_from(millis).unwrap_or(i64::MAX - WEEK);
        let ahead = i64::from(self.offset.minutes) * MINUTE;
        let local = utc.saturating_add(ahead);
        let next = |window: i64, first: i64| {
            let within = (local.saturating_sub(first)).rem_euclid(window);
            local.saturating_sub(within).saturating_add(window)
        };
        let end = match self.unit {
            Unit::Hour => next(HOUR, 0),
            Unit::Day => next(DAY, 0),
            Unit::Week => next(WEEK, MONDAY),
            Unit::Month => next_month(local.div_euclid(DAY)).saturating_mul(DAY),
        };
        u64::try_from(end.saturating_sub(ahead)).unwrap_or(0)
    }
}

/// The first day of the month after the one of this day, both in days since the epoch.
///
/// Years begin in March, so that a leap day is a year's last: then a month begins on the day
/// (153 × month + 2) / 5 of its year. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
fn next_month(day: i64) -> i64 {
    /// From 1 March of the year 0 to the epoch.
    const TO_EPOCH: i64 = 719_468;
    const YEARS_400: i64 = 146_097;
    let since = day.saturating_add(TO_EPOCH);
    let (era, of_era) = (since.div_euclid(YEARS_400), since.rem_euclid(YEARS_400));
    let leap_days = of_era / 1_460 - of_era / 36_524 + of_era / 146_096;
    let year = (of_era - leap_days) / 365;
    let start = |year: i64| 365 * year + year / 4 - year / 100;
    let month = (5 * (of_era - start(year)) + 2) / 153;
    let next = match month {
        11 => start(year + 1) + i64::from(year == 399),
        month => start(year) + (153 * (month + 1) + 2) / 5,
    };
    era * YEARS_400 + next - TO_EPOCH
}

// === impl Unit ===

impl Unit {
    pub const ALL: [Unit; 4] = [Unit::Hour, Unit::Day, Unit::Week, Unit::Month];

    /// The name in policies and keys.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
        }
    }
}

// === impl UtcOffset ===

impl UtcOffset {
    /// Nothing outside of −12:00 to +14:00, where nobody lives.
    pub fn try_new(minutes: i16) -> Option<UtcOffset> {
        (-12 * 60..=14 * 60)
            .contains(&minutes)
            .then_some(UtcOffset { minutes })
    }

    /// Reads `+09:00`. Nothing if it is not written so, or out of range.
    pub fn read(text: &str) -> Option<UtcOffset> {
        let (sign, digits) = match text.split_at_checked(1)? {
            ("+", digits) => (1, digits),
            ("-", digits) => (-1, digits),
            _ => return None,
        };
        let (hours, minutes) = digits.split_once(':')?;
        let two_digits = |text: &str| {
            let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<i16>().ok()).flatten()
        };
        let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
        (minutes < 60)
            .then(|| UtcOffset::try_new(sign * (60 * hours + minutes)))
            .flatten()
    }

    pub fn minutes(self) -> i16 {
        self.minutes
    }
}

/// `+0900`, or by `{:#}` as policies have it: `+09:00`.
impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minutes < 0 { '-' } else { '+' };
        let colon = if f.alternate() { ":" } else { "" };
        let minutes = self.minutes.unsigned_abs();
        write!(f, "{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests;
