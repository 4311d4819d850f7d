//! What a request costs of a rule's limits: the same each time, what a trusted caller says it will
//! cost, or what the response says it has cost. It knows numbers and headers; whom to believe is
//! `identity`'s business, and what is done with a bill the limiter's.

use std::cmp::Ordering;
use std::fmt;

use crate::identity::header_name;
use crate::json::{At, ConfigError};
use crate::units::Cost;

/// By the byte, a terabyte: beyond it nothing is a request, and a sum of many stays exact in Lua.
const MOST_COST: u64 = 1_000_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tariff {
    Fixed(Cost),
    /// A request header says it, before.
    Request(Meter),
    /// A response header says it, after: until then a part is held.
    Response(Meter),
}

/// A header that says what a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// In lower case, as Envoy has it.
    pub header: String,
    /// What it costs where nobody says.
    default: u64,
    /// The most that one request is charged, whatever is said.
    most: u64,
}

/// What a header was sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    Nothing,
    Once(&'a [u8]),
    /// Which of them counts, only its sender could know.
    Often,
}

/// What a header says is no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What is still to be done about a request that cost other than was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    Even,
    Owed(Cost),
    Over(Cost),
}

impl Default for Tariff {
    fn default() -> Tariff {
        Tariff::Fixed(Cost::ONE)
    }
}

impl Tariff {
    /// Reads a rule's field `cost`.
    pub fn read(at: &At<'_>) -> Result<Tariff, ConfigError> {
        if let Ok(permits) = at.whole() {
            let cost = Cost::try_new(permits).ok_or_else(|| {
                at.error(
                    "is 0, and what costs nothing needs no limit: at least 1, or \"mode\": \"off\"",
                )
            })?;
            return bounded(at, permits).map(|_| Tariff::Fixed(cost));
        }
        let Ok(mut fields) = at.fields() else {
            return Err(at.error(
                "is no cost; write a number of permits, or \
                 {\"request_header\": ...} or {\"response_header\": ...} with \"default\" and \"max\"",
            ));
        };
        let (request, response) = (
            fields.optional("request_header"),
            fields.optional("response_header"),
        );
        let header = match (&request, &response) {
            (Some(header), None) | (None, Some(header)) => header,
            _ => {
                return Err(
                    at.error("has to name one header: \"request_header\" or \"response_header\"")
                );
            }
        };
        let default_at = fields.required("default")?;
        let most_at = fields.required("max")?;
        fields.finish()?;
        let meter = Meter {
            header: header_name(header, header.text()?)?,
            default: bounded(&default_at, default_at.whole()?)?,
            most: bounded(&most_at, most_at.whole()?)?,
        };
        if meter.most < meter.default.max(1) {
            return Err(most_at.error(format!(
                "is {}; expected at least 1, and no less than \"default\"",
                meter.most
            )));
        }
        match response {
            Some(_) => Ok(Tariff::Response(meter)),
            None if meter.default == 0 => Err(default_at.error(
                "is 0, and whoever is not believed would be limited by nothing: at least 1",
            )),
            None => Ok(Tariff::Request(meter)),
        }
    }

    /// The header that says what a request costs, and the most it may, where one does before.
    pub fn asks_up_to(&self) -> Option<(&str, Cost)> {
        match self {
            Tariff::Request(meter) => Some((&meter.header, Cost::try_new(meter.most)?)),
            Tariff::Fixed(_) | Tariff::Response(_) => None,
        }
    }

    /// What is taken where the request does not say otherwise.
    pub fn usual(&self) -> Cost {
        match self {
            Tariff::Fixed(cost) => *cost,
            Tariff::Request(meter) => meter.held(),
            Tariff::Response(meter) => meter.held(),
        }
    }
}

impl Meter {
    /// What is taken before anybody has said: one permit at least, so that whoever has none left is
    /// refused.
    pub fn held(&self) -> Cost {
        Cost::try_new(self.default).unwrap_or(Cost::ONE)
    }

    /// What the request costs by what was said. A cost beyond the most is the most.
    pub fn read(&self, said: Said<'_>) -> Result<u64, Unreadable> {
        match said {
            Said::Nothing | Said::Once(b"") => Ok(self.default),
            Said::Once(digits) => {
                if !digits.iter().all(u8::is_ascii_digit) {
                    return Err(Unreadable);
                }
                let number = digits.iter().fold(0u64, |number, digit| {
                    let digit = u64::from(digit.wrapping_sub(b'0'));
                    number.saturating_mul(10).saturating_add(digit)
                });
                Ok(number.min(self.most))
            }
            Said::Often => Err(Unreadable),
        }
    }

    /// What remains to be done when the response has said what it cost. One that says nothing that
    /// can be read cost the default: the client cannot help it.
    pub fn balance(&self, said: Said<'_>) -> Balance {
        let cost = self.read(said).unwrap_or(self.default);
        let held = self.held().get();
        let difference = Cost::try_new(cost.abs_diff(held));
        match (difference, cost.cmp(&held)) {
            (Some(difference), Ordering::Greater) => Balance::Owed(difference),
            (Some(difference), _) => Balance::Over(difference),
            (None, _) => Balance::Even,
        }
    }
}

fn bounded(at: &At<'_>, permits: u64) -> Result<u64, ConfigError> {
    if permits > MOST_COST {
        return Err(at.error(format!("is {permits}; expected at most {MOST_COST}")));
    }
    Ok(permits)
}

/// As the log tells it of a rule; nothing of what is usual.
impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tariff::Fixed(Cost::ONE) => Ok(()),
            Tariff::Fixed(cost) => write!(f, " cost {}", cost.get()),
            Tariff::Request(meter) => write!(f, " cost by request header {meter}"),
            Tariff::Response(meter) => write!(f, " cost by response header {meter}"),
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Meter {
            header,
            default,
            most,
        } = self;
        write!(f, "{header} default {default} max {most}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(default: u64, most: u64) -> Meter {
        Meter {
            header: "x-cost".to_string(),
            default,
            most,
        }
    }

    #[test]
    fn a_header_says_a_whole_number_up_to_the_most() {
        for (said, cost) in [
            (Said::Nothing, Ok(2)),
            (Said::Once(b""), Ok(2)),
            (Said::Once(b"0"), Ok(0)),
            (Said::Once(b"007"), Ok(7)),
            (Said::Once(b"50"), Ok(50)),
            (Said::Once(b"51"), Ok(50)),
            (Said::Once(b"99999999999999999999999"), Ok(50)),
            (Said::Once(b"-1"), Err(Unreadable)),
            (Said::Once(b"+1"), Err(Unreadable)),
            (Said::Once(b"1.5"), Err(Unreadable)),
            (Said::Once(b"1, 2"), Err(Unreadable)),
            (Said::Once(b"1e3"), Err(Unreadable)),
            (Said::Once(b"\xff"), Err(Unreadable)),
            (Said::Often, Err(Unreadable)),
        ] {
            assert_eq!(meter(2, 50).read(said), cost, "{said:?}");
        }
    }

    #[test]
    fn the_balance_is_what_was_said_less_what_was_held() {
        let cost = |permits| Cost::try_new(permits).unwrap();
        for (default, said, balance) in [
            (0, Said::Once(b"50"), Balance::Owed(cost(49))),
            (0, Said::Once(b"1"), Balance::Even),
            (0, Said::Once(b"0"), Balance::Over(cost(1))),
            (0, Said::Nothing, Balance::Over(cost(1))),
            (0, Said::Once(b"many"), Balance::Over(cost(1))),
            (10, Said::Once(b"4"), Balance::Over(cost(6))),
            (10, Said::Once(b"99"), Balance::Owed(cost(40))),
            (10, Said::Nothing, Balance::Even),
            (10, Said::Often, Balance::Even),
        ] {
            assert_eq!(meter(default, 50).balance(said), balance, "{said:?}");
        }
    }
}
