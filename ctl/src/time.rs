//! A moment as people read it.

/// `2026-11-24 22:36:06 UTC`, from milliseconds since the Unix epoch; what is no such number as it is.
pub fn readable(millis: &str) -> String {
    let Ok(millis) = millis.parse::<i64>() else {
        return millis.to_owned();
    };
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day since the Unix epoch. Years are counted from March, so that a leap day
/// is the last of its year; 719,468 days lie between that calendar's beginning and 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_the_calendar_has_them() {
        for (millis, expected) in [
            ("0", "1970-01-01 00:00:00 UTC"),
            ("951782399999", "2000-02-28 23:59:59 UTC"),
            ("951782400000", "2000-02-29 00:00:00 UTC"),
            ("4107542400000", "2100-03-01 00:00:00 UTC"),
            ("1795559766942", "2026-11-24 22:36:06 UTC"),
            ("-1", "1969-12-31 23:59:59 UTC"),
            ("today", "today"),
            ("", ""),
        ] {
            assert_eq!(readable(millis), expected);
        }
    }
}
