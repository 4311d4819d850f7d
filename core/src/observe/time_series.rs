//! What came in the last quarter of an hour, in intervals of ten seconds: requests by outcome and by
//! rule, and calls to the store. Bounded whatever the policy and whoever calls; statistics that reach
//! further back are the proxy's to keep.

use std::collections::VecDeque;
use std::rc::Rc;

use postcard_schema::Schema;
use postcard_schema::schema::NamedType;
use serde::{Deserialize, Serialize, Serializer};

use crate::decide::decision::Outcome;
use crate::observe::counters::{Count, Series};
use crate::time::{Span, WallTime};

pub const INTERVAL_SECONDS: u64 = 10;
/// A quarter of an hour.
pub const INTERVALS: usize = 90;
/// Rules told apart in an interval; whoever has more reads the proxy's statistics.
pub const MOST_RULES: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Packed")]
pub struct Traffic {
    /// Oldest first; intervals in which nothing came are not there.
    intervals: VecDeque<Interval>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Interval<R = Rc<str>> {
    /// Counted from the Unix epoch.
    pub number: u64,
    /// By [`Outcome`]: every request once.
    pub outcomes: [u32; Outcome::ALL.len()],
    /// By [`crate::decide::verdict::Degraded`].
    pub degraded: [u32; 3],
    pub rules: Vec<(R, RuleCounts)>,
    /// Calls to the store, the check requests in those that were answered, and those that failed.
    pub calls: u32,
    pub check_requests: u32,
    pub failures: u32,
    /// Wrong ones that were sent as the operators' secret.
    pub wrong_secrets: u32,
    pub latency: Latency,
}

/// By [`Count`].
pub type RuleCounts = [u32; Count::ALL.len()];

/// How long calls took: two bins for each doubling, ascending; those in which nothing is are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Latency(Vec<(u8, u32)>);

/// Up to 2^22 µs: beyond the longest timeout there is.
const LAST_BIN: u8 = 43;

/// Traffic as workers leave it to each other.
#[derive(Debug, Serialize, Deserialize, Schema)]
struct Packed {
    rules: Vec<String>,
    /// Each rule by its place among them.
    intervals: Vec<Interval<u16>>,
}

/// The interval that a time of day lies in.
pub fn interval(now: WallTime) -> u64 {
    now.as_seconds() / INTERVAL_SECONDS
}

impl Traffic {
    /// The interval of now; what is too old is forgotten.
    pub fn now(&mut self, now: WallTime) -> Option<&mut Interval> {
        let number = interval(now);
        self.forget(number);
        // A clock that steps back a little finds the interval it has left.
        if self
            .intervals
            .back()
            .is_none_or(|last| last.number < number)
        {
            self.intervals.push_back(Interval {
                number,
                ..Interval::default()
            });
        }
        self.intervals.back_mut()
    }

    fn forget(&mut self, now: u64) {
        // Far ahead lies what a clock told that was wrong.
        let known = now.saturating_sub(INTERVALS as u64 - 1)..=now.saturating_add(1);
        self.intervals
            .retain(|interval| known.contains(&interval.number));
    }

    pub fn intervals(&self) -> impl Iterator<Item = &Interval> {
        self.intervals.iter()
    }

    /// For the other workers: each rule's name once.
    fn packed(&self) -> Packed {
        let mut rules: Vec<String> = Vec::new();
        let mut place = |name: &str| {
            let known = rules.iter().position(|known| known == name);
            known.unwrap_or_else(|| {
                rules.push(name.to_string());
                rules.len() - 1
            })
        };
        let intervals = self.intervals.iter();
        let intervals =
            intervals.map(|interval| interval.renamed(|name| u16::try_from(place(name)).ok()));
        Packed {
            intervals: intervals.collect(),
            rules,
        }
    }
}

impl Serialize for Traffic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.packed().serialize(serializer)
    }
}

impl Schema for Traffic {
    const SCHEMA: &'static NamedType = Packed::SCHEMA;
}

impl From<Packed> for Traffic {
    /// No more than a worker can have seen, whoever packed it.
    fn from(Packed { rules, intervals }: Packed) -> Traffic {
        let rules: Vec<Rc<str>> = rules.into_iter().map(Rc::from).collect();
        let intervals = intervals.iter().take(INTERVALS);
        Traffic {
            intervals: intervals
                .map(|interval| interval.renamed(|&place| rules.get(usize::from(place)).cloned()))
                .collect(),
        }
    }
}

impl<R> Interval<R> {
    /// The same with other names of rules; without those that have none.
    fn renamed<S>(&self, mut rename: impl FnMut(&R) -> Option<S>) -> Interval<S> {
        let rules = self.rules.iter().take(MOST_RULES);
        Interval {
            rules: rules
                .filter_map(|(rule, counts)| Some((rename(rule)?, *counts)))
                .collect(),
            number: self.number,
            outcomes: self.outcomes,
            degraded: self.degraded,
            calls: self.calls,
            check_requests: self.check_requests,
            failures: self.failures,
            wrong_secrets: self.wrong_secrets,
            latency: self.latency.clone(),
        }
    }
}

impl Interval {
    /// More has come of a series; `rule` is the name of its rule, where it is one's.
    pub fn add(&mut self, series: Series, rule: Option<&Rc<str>>, more: u32) {
        let count = match series {
            Series::Decision(outcome) => self.outcomes.get_mut(outcome as usize),
            Series::Degraded(how) => self.degraded.get_mut(how as usize),
            Series::DelayedMillis
            | Series::Crowded
            | Series::TierUnknown
            | Series::Variant { .. } => None,
            Series::Rule { count, .. } => rule
                .and_then(|rule| self.rule(rule))
                .and_then(|counts| counts.get_mut(count as usize)),
        };
        if let Some(count) = count {
            *count = count.saturating_add(more);
        }
    }

    fn rule(&mut self, rule: &Rc<str>) -> Option<&mut RuleCounts> {
        let known = self.rules.iter().position(|(name, _)| name == rule);
        if known.is_none() && self.rules.len() < MOST_RULES {
            self.rules.push((rule.clone(), RuleCounts::default()));
        }
        let place = known.unwrap_or(self.rules.len().saturating_sub(1));
        let (name, counts) = self.rules.get_mut(place)?;
        (name == rule).then_some(counts)
    }
}

impl Latency {
    pub fn add(&mut self, took: Span) {
        self.add_to(bin(took.as_micros()), 1);
    }

    fn add_to(&mut self, bin: u8, more: u32) {
        match self.0.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(place) => {
                if let Some((_, count)) = self.0.get_mut(place) {
                    *count = count.saturating_add(more);
                }
            }
            Err(place) => self.0.insert(place, (bin, more)),
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| u64::from(count)).sum()
    }

    pub fn merge(&mut self, other: &Latency) {
        for &(bin, more) in &other.0 {
            // Another's word: a bin that there is.
            self.add_to(bin.min(LAST_BIN), more);
        }
    }

    /// The time that this share of all calls kept to, rounded up by at most a half; none where there
    /// was no call.
    pub fn quantile(&self, share: f64) -> Option<Span> {
        let mut left = (self.count() as f64 * share).ceil().max(1.0) as u64;
        self.0.iter().find_map(|&(bin, count)| {
            left = left.saturating_sub(count.into());
            (left == 0).then(|| Span::micros(end(bin)))
        })
    }
}

/// Twice the number of the highest bit, and one more in the upper half of its span.
fn bin(micros: u64) -> u8 {
    let highest = micros.max(1).ilog2() as u8;
    let upper = match highest {
        0 => 0,
        _ => (micros >> (highest - 1)) as u8 & 1,
    };
    (2 * highest + upper).min(LAST_BIN)
}

/// The first number beyond a bin.
fn end(bin: u8) -> u64 {
    let highest = bin / 2;
    match bin % 2 {
        0 if highest > 0 => 3 << (highest - 1),
        _ => 2 << highest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::ids::Scope;

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * 1_000_000)
    }

    fn denied() -> Series {
        Series::Rule {
            rule: 0,
            scope: Scope::User,
            count: Count::Denied,
        }
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept_and_no_more() {
        let mut traffic = Traffic::default();
        for second in 0..2000 {
            let interval = traffic.now(at(second)).unwrap();
            interval.add(Series::Decision(Outcome::Allowed), None, 1);
        }
        let numbers: Vec<u64> = traffic
            .intervals()
            .map(|interval| interval.number)
            .collect();
        assert_eq!(numbers, (110..200).collect::<Vec<u64>>());
        assert!(
            traffic
                .intervals()
                .all(|interval| interval.outcomes[0] == 10)
        );
        traffic.now(at(100_000));
        assert_eq!(traffic.intervals().count(), 1);
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_interval_twice() {
        let mut traffic = Traffic::default();
        traffic.now(at(100_000));
        for second in [1000, 990, 1000] {
            let interval = traffic.now(at(second)).unwrap();
            interval.add(Series::Decision(Outcome::Denied), None, 1);
        }
        let counts: Vec<u32> = traffic
            .intervals()
            .map(|interval| interval.outcomes[2])
            .collect();
        assert_eq!(counts, [3]);
    }

    #[test]
    fn rules_without_number_are_bounded() {
        let mut interval = Interval::default();
        for number in 0..1000 {
            let rule: Rc<str> = format!("rule{number}").into();
            interval.add(denied(), Some(&rule), 1);
        }
        assert_eq!(interval.rules.len(), MOST_RULES);
        let denied = |(_, counts): &(Rc<str>, RuleCounts)| counts[Count::Denied as usize];
        assert!(interval.rules.iter().all(|rule| denied(rule) == 1));
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut traffic = Traffic::default();
        for second in (0..900).step_by(7) {
            let interval = traffic.now(at(second)).unwrap();
            interval.add(Series::Decision(Outcome::Denied), None, 3);
            let rule: Rc<str> = format!("rule{}", second % 3).into();
            interval.add(denied(), Some(&rule), 300);
            interval.calls += 1;
            interval.latency.add(Span::micros(second));
        }
        assert_eq!(Traffic::from(traffic.packed()), traffic);
    }

    #[test]
    fn of_what_others_say_no_more_is_kept_than_a_worker_can_have_seen() {
        let interval = Interval {
            rules: (0..1000)
                .map(|rule| (rule, RuleCounts::default()))
                .collect(),
            latency: Latency(vec![(u8::MAX, 1)]),
            ..Interval::default()
        };
        let traffic = Traffic::from(Packed {
            rules: vec!["api".to_string(), "other".to_string()],
            intervals: vec![interval; 1000],
        });
        assert_eq!(traffic.intervals().count(), INTERVALS);
        let first = traffic.intervals().next().unwrap();
        assert_eq!(first.rules.len(), 2);
        let mut latency = Latency::default();
        latency.merge(&first.latency);
        assert_eq!(latency.quantile(1.0), Some(Span::micros(1 << 22)));
    }

    #[test]
    fn a_quantile_is_never_told_too_low() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for micros in 1..=1000 {
            latency.add(Span::micros(micros));
        }
        assert_eq!(latency.quantile(0.5), Some(Span::micros(512)));
        assert_eq!(latency.quantile(0.99), Some(Span::micros(1024)));
        latency.add(Span::micros(u64::MAX));
        assert_eq!(latency.quantile(1.0), Some(Span::micros(1 << 22)));
    }

    proptest! {
        #[test]
        fn each_time_is_below_the_end_of_its_bin_by_at_most_a_third_of_it(micros in 1..4_000_000u64) {
            let end = end(bin(micros));
            prop_assert!(micros < end && end <= micros + micros.div_ceil(2) + 1, "{end}");
            prop_assert!(bin(micros) == 0 || micros >= super::end(bin(micros) - 1) || micros == 1);
        }
    }
}
