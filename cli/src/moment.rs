//! A moment as people read it.

use jiff::Timestamp;

/// `2026-11-24 22:36:06 UTC`, from milliseconds since the Unix epoch; what is no such number as it is.
pub fn readable(millis: &str) -> String {
    let moment = millis.parse().ok().and_then(of_millis);
    moment.unwrap_or_else(|| millis.to_owned())
}

fn of_millis(millis: i64) -> Option<String> {
    let moment = Timestamp::from_millisecond(millis).ok()?;
    Some(moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_the_calendar_has_them() {
        for (millis, expected) in [
            ("0", "1970-01-01 00:00:00 UTC"),
            ("951782399999", "2000-02-28 23:59:59 UTC"),
            ("1795559766942", "2026-11-24 22:36:06 UTC"),
            ("-1", "1969-12-31 23:59:59 UTC"),
            ("9223372036854775807", "9223372036854775807"),
            ("today", "today"),
            ("", ""),
        ] {
            assert_eq!(readable(millis), expected);
        }
    }
}
