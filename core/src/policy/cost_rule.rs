//! What a request costs of a rule's limits: the same each time, what a trusted caller says it will
//! cost, or what came of it. It knows numbers and headers; whom to believe is `identity`'s business,
//! and what is done with a settlement the limiter's.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::document;
use super::tariff::Tariff;
use crate::codec::json::{ConfigError, Mistakes, Path};
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::Reading;
use crate::time::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CostRule {
    Fixed(Cost),
    /// A request header says it, before.
    Request(Meter),
    /// What came of the request says it, after: until then a part is held.
    Later(Arc<Tariff>),
}

/// A request header that says what a request costs.
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

impl<'a> Said<'a> {
    /// What was sent under this name among these headers.
    pub fn under(name: &str, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Said<'a> {
        let mut said = headers.filter(|(own, _)| *own == name.as_bytes());
        match (said.next(), said.next()) {
            (None, _) => Said::Nothing,
            (Some((_, value)), None) => Said::Once(value),
            (Some(_), Some(_)) => Said::Often,
        }
    }
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

impl Default for CostRule {
    fn default() -> CostRule {
        CostRule::Fixed(Cost::ONE)
    }
}

impl CostRule {
    /// A rule's `cost`.
    pub(super) fn compile(
        cost: document::Cost,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<CostRule> {
        let told = match cost {
            // It is 1 at least.
            document::Cost::Fixed(permits) => {
                return Some(
                    Cost::try_new(permits).map_or_else(CostRule::default, CostRule::Fixed),
                );
            }
            document::Cost::Told(told) => told,
        };
        let sources = [
            told.request_header.is_some(),
            told.response_header.is_some(),
            told.response_status.is_some(),
            told.grpc_status.is_some(),
            told.metadata.is_some(),
        ];
        if sources.into_iter().filter(|is_named| *is_named).count() != 1 {
            mistakes.add(at.error(format!(
                "has to name what tells it, and one only: {}",
                document::COST_SOURCES
            )));
            return None;
        }
        match &told.request_header {
            Some(header) => mistakes.note(Meter::compile(header, &told, at)),
            None => Tariff::compile(told, at, mistakes),
        }
    }

    /// The header that says what a request costs, and the most it may, where one does before.
    pub fn asks_up_to(&self) -> Option<(&str, Cost)> {
        match self {
            CostRule::Request(meter) => Some((&meter.header, Cost::try_new(meter.most)?)),
            CostRule::Fixed(_) | CostRule::Later(_) => None,
        }
    }

    /// What is taken where the request does not say otherwise.
    pub fn usual(&self) -> Cost {
        match self {
            CostRule::Fixed(cost) => *cost,
            CostRule::Request(meter) => meter.usual(),
            CostRule::Later(tariff) => tariff.taken(),
        }
    }
}

impl Meter {
    fn compile(
        header: &str,
        told: &document::ToldCost,
        at: &Path<'_>,
    ) -> Result<CostRule, ConfigError> {
        let after = [
            ("hold", told.hold.is_some()),
            ("unfinished", told.unfinished.is_some()),
        ];
        if let Some((field, _)) = after.into_iter().find(|(_, is_set)| *is_set) {
            return Err(at.member(field).error(
                "is set, but \"request_header\" tells the cost before; remove one of them",
            ));
        }
        let most = document::most(told, at)?;
        if told.default == 0 {
            return Err(at.member("default").error(
                "is 0, and whoever is not believed would be limited by nothing: at least 1",
            ));
        }
        Ok(CostRule::Request(Meter {
            header: header.to_string(),
            default: told.default,
            most,
        }))
    }

    fn usual(&self) -> Cost {
        Cost::try_new(self.default).unwrap_or(Cost::ONE)
    }

    /// What the request costs by what was said.
    pub fn read(&self, said: Said<'_>) -> Result<u64, Unreadable> {
        said.number(self.most)
            .map(|number| number.unwrap_or(self.default))
    }
}

impl Said<'_> {
    /// The whole number that was said, if any was. One beyond the most is the most.
    pub fn number(self, most: u64) -> Result<Option<u64>, Unreadable> {
        match self {
            Said::Nothing | Said::Once(b"") => Ok(None),
            Said::Once(text) => match digits(text) {
                Some(number) => Ok(Some(number.min(most))),
                None => Err(Unreadable),
            },
            Said::Often => Err(Unreadable),
        }
    }
}

/// A whole number, written in digits only.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |number, digit| {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        number.saturating_mul(10).saturating_add(digit)
    }))
}

impl Balance {
    /// What remains to be done where so much is held and a request cost so much.
    pub fn of(held: u64, cost: u64) -> Balance {
        let difference = Cost::try_new(cost.abs_diff(held));
        match (difference, cost.cmp(&held)) {
            (Some(difference), Ordering::Greater) => Balance::Owed(difference),
            (Some(difference), _) => Balance::Over(difference),
            (None, _) => Balance::Even,
        }
    }

    /// Where a caller stands once it is settled who stood so while the held part was taken.
    pub fn settle(self, reading: Reading, quota: &Quota) -> Reading {
        let (cost, is_owed) = match self {
            Balance::Even => return reading,
            Balance::Owed(cost) => (cost.get(), true),
            Balance::Over(cost) => (cost.get(), false),
        };
        let permits = i64::try_from(cost).unwrap_or(i64::MAX);
        // A window ends when it ends, and a log forgets what is newest when it would have: the reset of
        // a bucket is when it will have made good what was taken.
        let span = match quota.algorithm() {
            Algorithm::FixedWindow | Algorithm::SlidingWindow | Algorithm::Concurrency => {
                Span::ZERO
            }
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Span::millis(
                cost.saturating_mul(quota.window().as_millis())
                    .div_ceil(quota.limit()),
            ),
        };
        let Reading {
            remaining, reset, ..
        } = reading;
        let (remaining, reset) = match is_owed {
            true => (remaining.saturating_sub(permits), reset + span),
            false => (remaining.saturating_add(permits), reset - span),
        };
        let capacity = i64::try_from(quota.capacity()).unwrap_or(i64::MAX);
        let reset = if remaining < capacity {
            reset
        } else {
            Span::ZERO
        };
        Reading {
            remaining: remaining.min(capacity),
            reset,
            ..reading
        }
    }
}

/// As the log tells it of a rule; nothing of what is usual.
impl fmt::Display for CostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CostRule::Fixed(Cost::ONE) => Ok(()),
            CostRule::Fixed(cost) => write!(f, " cost {}", cost.get()),
            CostRule::Request(meter) => write!(f, " cost by request header {meter}"),
            CostRule::Later(tariff) => write!(f, " cost by {tariff}"),
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
    use crate::quota::operation::Retry;

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
    fn the_balance_is_what_it_cost_less_what_is_held() {
        let cost = |permits| Cost::try_new(permits).unwrap();
        for (held, told, balance) in [
            (1, 50, Balance::Owed(cost(49))),
            (1, 1, Balance::Even),
            (1, 0, Balance::Over(cost(1))),
            (10, 4, Balance::Over(cost(6))),
            (0, 4, Balance::Owed(cost(4))),
            (0, 0, Balance::Even),
        ] {
            assert_eq!(Balance::of(held, told), balance, "{held} {told}");
        }
    }

    #[test]
    fn a_header_is_said_as_often_as_it_was_sent() {
        let sent: [(&[u8], &[u8]); 4] = [
            (b"x-cost", b"1"),
            (b"x-twice", b"2"),
            (b"x-cost-too", b"3"),
            (b"x-twice", b"2"),
        ];
        for (name, said) in [
            ("x-cost", Said::Once(b"1")),
            ("x-twice", Said::Often),
            ("x-none", Said::Nothing),
        ] {
            assert_eq!(Said::under(name, sent.into_iter()), said, "{name}");
        }
    }

    #[test]
    fn what_is_settled_moves_what_remains_and_when_a_bucket_is_whole_again() {
        let cost = |permits| Cost::try_new(permits).unwrap();
        let reading = |remaining, reset| Reading {
            remaining,
            retry: Retry::Now,
            reset: Span::millis(reset),
        };
        // Three permits come back in two seconds.
        let quota = |algorithm| Quota::try_new(algorithm, 3, 2, None).unwrap();
        let (window, log) = (Algorithm::FixedWindow, Algorithm::SlidingWindow);
        let (tokens, leaky) = (Algorithm::TokenBucket, Algorithm::LeakyBucket);
        for (algorithm, balance, settled) in [
            (window, Balance::Even, (2, 1500)),
            (window, Balance::Owed(cost(2)), (0, 1500)),
            (window, Balance::Owed(cost(9)), (-7, 1500)),
            (log, Balance::Owed(cost(1)), (1, 1500)),
            (log, Balance::Over(cost(1)), (3, 0)),
            (window, Balance::Over(cost(1)), (3, 0)),
            (tokens, Balance::Owed(cost(2)), (0, 2834)),
            (tokens, Balance::Over(cost(1)), (3, 0)),
            (leaky, Balance::Owed(cost(1)), (1, 2167)),
            (leaky, Balance::Over(cost(9)), (3, 0)),
            (leaky, Balance::Owed(cost(3)), (-1, 3500)),
        ] {
            let after = balance.settle(reading(2, 1500), &quota(algorithm));
            assert_eq!(
                after,
                reading(settled.0, settled.1),
                "{algorithm:?} {balance:?}"
            );
        }
    }
}
