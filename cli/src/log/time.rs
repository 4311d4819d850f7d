//! Moments as logs write them, in µs since the Unix epoch.

use jiff::civil::Date;
use jiff::fmt::strtime;

/// How a log writes its moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clock {
    /// ISO 8601, a number since the epoch, or nginx's `27/Nov/2026:00:00:01 +0000`: it is seen.
    Seen,
    /// As `strftime` has it.
    Written(String),
}

impl Clock {
    pub fn read(&self, text: &[u8]) -> Option<u64> {
        match self {
            Clock::Seen => iso(text).or_else(|| number(text)).or_else(|| nginx(text)),
            Clock::Written(format) => {
                let text = std::str::from_utf8(text).ok()?;
                let moment = strtime::parse(format, text).ok()?;
                let moment = moment.to_timestamp().or_else(|_| {
                    // Without a zone it is UTC, as Envoy writes it.
                    jiff::tz::TimeZone::UTC.to_timestamp(moment.to_datetime()?)
                });
                u64::try_from(moment.ok()?.as_microsecond()).ok()
            }
        }
    }
}

/// Whether a moment is told in whole seconds.
pub fn is_whole_second(micros: u64) -> bool {
    micros.is_multiple_of(1_000_000)
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

/// Days since the epoch; logs come in order, and most lines are of the day of the one before.
fn day(year: u64, month: u64, day: u64) -> Option<u64> {
    thread_local! {
        static LAST: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
    }
    let name = year * 10_000 + month * 100 + day;
    let (last, days) = LAST.get();
    if last == name {
        return Some(days);
    }
    let date = Date::new(
        year.try_into().ok()?,
        month.try_into().ok()?,
        day.try_into().ok()?,
    );
    let since = date.ok()?.since(Date::constant(1970, 1, 1)).ok()?;
    let days = u64::try_from(since.get_days()).ok()?;
    LAST.set((name, days));
    Some(days)
}

fn of_day(text: &[u8]) -> Option<u64> {
    let [a, b, b':', c, d, b':', e, f] = text else {
        return None;
    };
    let (hour, minute, second) = (digits(&[*a, *b])?, digits(&[*c, *d])?, digits(&[*e, *f])?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// `2026-11-27T00:00:00.123Z`, also with a blank for the T, an offset, or nothing behind.
fn iso(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year @ .., b'-', m1, m2, b'-', d1, d2] = date else {
        return None;
    };
    let days = day(digits(year)?, digits(&[*m1, *m2])?, digits(&[*d1, *d2])?)?;
    let (separator, rest) = rest.split_first()?;
    if !matches!(separator, b'T' | b' ' | b't') {
        return None;
    }
    let (clock, mut rest) = rest.split_at_checked(8)?;
    let mut micros = (days * 86_400 + of_day(clock)?) * 1_000_000;
    if let [b'.' | b',', fraction @ ..] = rest {
        let length = fraction
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (fraction, behind) = fraction.split_at(length);
        micros += micros_of(fraction)?;
        rest = behind;
    }
    shifted(micros, rest)
}

/// The first six digits of a fraction.
fn micros_of(fraction: &[u8]) -> Option<u64> {
    let kept = &fraction[..fraction.len().min(6)];
    match kept.len() {
        0 => Some(0),
        length => Some(digits(kept)? * 10u64.pow(6 - length as u32)),
    }
}

fn shifted(micros: u64, zone: &[u8]) -> Option<u64> {
    let (sign, rest) = match zone {
        [] | b"Z" | b"z" | b" UTC" => return Some(micros),
        [sign @ (b'+' | b'-'), rest @ ..] => (sign, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [a, b, b':', c, d] | [a, b, c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?),
        [a, b] => (digits(&[*a, *b])?, 0),
        _ => return None,
    };
    let shift = (hours * 3600 + minutes * 60) * 1_000_000;
    match sign {
        b'+' => micros.checked_sub(shift),
        _ => micros.checked_add(shift),
    }
}

/// Seconds, ms, µs or ns since the epoch, told apart by their size; a fraction is one of seconds.
fn number(text: &[u8]) -> Option<u64> {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = digits(parts.next()?)?;
    match (whole, parts.next()) {
        (seconds @ ..100_000_000_000, Some(fraction)) => {
            digits(fraction).filter(|_| !fraction.is_empty())?;
            Some(seconds * 1_000_000 + micros_of(fraction)?)
        }
        (seconds @ 100_000_000..100_000_000_000, None) => Some(seconds * 1_000_000),
        (millis @ 100_000_000_000..100_000_000_000_000, _) => Some(millis * 1000),
        (micros @ 100_000_000_000_000..100_000_000_000_000_000, _) => Some(micros),
        (nanos @ 100_000_000_000_000_000.., None) => Some(nanos / 1000),
        _ => None,
    }
}

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

fn nginx(text: &[u8]) -> Option<u64> {
    let [d1, d2, b'/', m @ ..] = text else {
        return None;
    };
    let (month, rest) = m.split_at_checked(3)?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let [b'/', y1, y2, y3, y4, b':', rest @ ..] = rest else {
        return None;
    };
    let days = day(digits(&[*y1, *y2, *y3, *y4])?, month, digits(&[*d1, *d2])?)?;
    let (clock, zone) = rest.split_at_checked(8)?;
    let micros = (days * 86_400 + of_day(clock)?) * 1_000_000;
    shifted(micros, zone.strip_prefix(b" ").unwrap_or(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_however_logs_write_it() {
        let expected = 1_795_737_600_123_456;
        for (text, expected) in [
            ("2026-11-27T00:00:00.123456Z", Some(expected)),
            ("2026-11-27 00:00:00.123456789", Some(expected)),
            ("2026-11-27T09:30:00.123456+09:30", Some(expected)),
            ("2026-11-26T19:00:00,123456-0500", Some(expected)),
            ("1795737600.123456", Some(expected)),
            ("1795737600123456789", Some(expected)),
            ("1795737600123", Some(1_795_737_600_123_000)),
            ("1795737600", Some(1_795_737_600_000_000)),
            ("27/Nov/2026:00:00:00 +0000", Some(1_795_737_600_000_000)),
            ("27/Nov/2026:01:00:00 +0100", Some(1_795_737_600_000_000)),
            ("2026-02-30T00:00:00Z", None),
            ("2026-11-27T25:00:00Z", None),
            ("27/Nov/2026:00:00:00 +00", Some(1_795_737_600_000_000)),
            ("é-11-27T00:00:00Z", None),
            ("yesterday", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(Clock::Seen.read(text.as_bytes()), expected, "{text}");
        }
        let written = Clock::Written("%Y/%m/%d %H:%M:%S".to_owned());
        let read = written.read(b"2026/11/27 00:00:00");
        assert_eq!(read, Some(1_795_737_600_000_000));
    }
}
