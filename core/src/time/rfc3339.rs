//! Instants as people write them: RFC 3339, such as `2026-12-24T00:00:00Z`.

use super::WallTime;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// From 1970 on; a fraction of a second is left out.
pub fn read(text: &str) -> Option<WallTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = match rest.strip_prefix('.') {
        None => rest,
        Some(rest) => {
            let offset = rest.trim_start_matches(|char: char| char.is_ascii_digit());
            (offset.len() < rest.len()).then_some(offset)?
        }
    };
    let local = days_before(year, month) + day - 1;
    let local = local * DAY + (hour * 60 + minute) * MINUTE + second;
    let seconds = u64::try_from(local - offset(rest)?).ok()?;
    Some(WallTime(seconds * 1_000_000))
}

/// In seconds ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, text) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(text), _) => (1, text),
        (_, Some(text)) => (-1, text),
        (None, None) => return None,
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * MINUTE)
}

fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut read = [0; N];
    for (place, digits) in read.iter_mut().zip(digits) {
        *place = number(parts.next()?, digits)?;
    }
    parts.next().is_none().then_some(read)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn days_of(year: i64, month: i64) -> i64 {
    let (next_year, next) = match month {
        12 => (year + 1, 1),
        month => (year, month + 1),
    };
    days_before(next_year, next) - days_before(year, month)
}

/// From the epoch to the month's first day. Years begin in March, so that a leap day is a year's last.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
fn days_before(year: i64, month: i64) -> i64 {
    let (year, month) = match month {
        ..=2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_what_its_text_says() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-12-24T00:00:00Z", 1_798_070_400),
            ("2026-12-24t00:00:00z", 1_798_070_400),
            ("2026-12-24 00:00:00.999Z", 1_798_070_400),
            ("2026-12-24T09:00:00+09:00", 1_798_070_400),
            ("2026-12-23T18:30:00-05:30", 1_798_070_400),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(read(text), Some(WallTime(seconds * 1_000_000)), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_none() {
        for text in [
            "",
            "2026-12-24",
            "2026-12-24T00:00:00",
            "2026-12-24T00:00Z",
            "2026-12-24T24:00:00Z",
            "2026-12-24T00:60:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-1-24T00:00:00Z",
            "2026-12-24T00:00:00.Z",
            "2026-12-24T00:00:00+0900",
            "2026-12-24T00:00:00+24:00",
            "2026-12-24T00:00:00ZZ",
            "1969-12-31T23:59:59Z",
            "२०26-12-24T00:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
