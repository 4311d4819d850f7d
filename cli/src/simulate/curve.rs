//! What a limit would refuse if its number were another and it stood alone: the same algorithm and
//! window, decided by the core's model at some numbers around the present one.

use serde::Serialize;
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::model::Counters;
use weir_core::quota::operation::{Kind, Verdict};
use weir_core::quota::period::Period;
use weir_core::time::StoreInstant;

/// Parts of the present number, in hundredths.
const PARTS: [u64; 7] = [25, 50, 75, 100, 150, 200, 400];

/// Of so many counters every request is tried; of the others one in [`SAMPLED`], which counts for all.
/// A curve needs no more, and each number costs as much as a decision.
const WHOLE: usize = 64;
const SAMPLED: u32 = 16;

pub struct Curve {
    candidates: Vec<Candidate>,
    asked: u64,
    counters: usize,
}

struct Candidate {
    quota: Quota,
    counters: Counters<u32>,
    refused: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    pub limit: u64,
    /// Of the requests that meet the limit.
    pub refused_share: f64,
}

impl Curve {
    pub fn of(quota: &Quota) -> Curve {
        let mut limits: Vec<u64> = PARTS
            .iter()
            .map(|part| (quota.limit().saturating_mul(*part) / 100).max(1))
            .collect();
        limits.dedup();
        let candidate = |limit| {
            let burst = match quota.algorithm() {
                // The bucket grows with its rate.
                Algorithm::TokenBucket => {
                    let burst = u128::from(quota.capacity()) * u128::from(limit);
                    let burst = burst.div_ceil(u128::from(quota.limit()));
                    Some(u64::try_from(burst).ok()?.max(1))
                }
                _ => None,
            };
            let quota = match quota.period() {
                Period::Fixed(window) => {
                    Quota::try_new(quota.algorithm(), limit, window.as_seconds(), burst)
                }
                Period::Calendar(calendar) => Quota::try_calendar(limit, calendar),
                Period::None => Quota::try_concurrency(limit),
            };
            let quota = quota.ok()?;
            Some(Candidate {
                quota,
                counters: Counters::default(),
                refused: 0,
            })
        };
        Curve {
            candidates: limits.into_iter().filter_map(candidate).collect(),
            asked: 0,
            counters: 0,
        }
    }

    /// A request that met the limit. `nth` is the place of its counter among those of the limit.
    pub fn ask(&mut self, nth: u32, cost: Cost, now: StoreInstant) {
        self.counters = self.counters.max(nth as usize + 1);
        let weight = match nth as usize {
            0..WHOLE => 1,
            _ if nth.is_multiple_of(SAMPLED) => u64::from(SAMPLED),
            _ => return,
        };
        self.asked += weight;
        // A refusal consumes nothing, and what a larger number refuses a smaller one refuses too: so the
        // callers who ask for most cost least.
        let mut verdict = Verdict::Passed;
        for candidate in self.candidates.iter_mut().rev() {
            if verdict != Verdict::Refused {
                let limits = [(nth, candidate.quota, cost)];
                verdict = candidate.counters.run(Kind::Take, &limits, now).verdict;
            }
            candidate.refused += match verdict {
                Verdict::Refused => weight,
                Verdict::Passed | Verdict::Unreadable => 0,
            };
        }
    }

    pub fn points(&self) -> Vec<Point> {
        let asked = self.asked.max(1) as f64;
        let point = |candidate: &Candidate| Point {
            limit: candidate.quota.limit(),
            refused_share: candidate.refused as f64 / asked,
        };
        self.candidates.iter().map(point).collect()
    }

    /// Whether the curve is an estimate: only of some callers is every request tried.
    pub fn is_sampled(&self) -> bool {
        self.counters > WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_falls_with_the_limit_and_meets_the_arithmetic() {
        let quota = Quota::try_new(Algorithm::FixedWindow, 10, 60, None).unwrap();
        let mut curve = Curve::of(&quota);
        // Each of 20 callers asks 20 times in one window.
        for request in 0..400 {
            let now = StoreInstant(60_000_000 * 1000 + request);
            curve.ask((request % 20) as u32, Cost::ONE, now);
        }
        let shares: Vec<(u64, f64)> = curve
            .points()
            .iter()
            .map(|point| (point.limit, point.refused_share))
            .collect();
        assert_eq!(
            shares,
            [
                (2, 0.9),
                (5, 0.75),
                (7, 0.65),
                (10, 0.5),
                (15, 0.25),
                (20, 0.0),
                (40, 0.0)
            ]
        );
        assert!(!curve.is_sampled());
    }

    #[test]
    fn a_sample_of_many_callers_is_near_the_whole() {
        let quota = Quota::try_new(Algorithm::SlidingWindow, 10, 60, None).unwrap();
        let mut curve = Curve::of(&quota);
        for request in 0..40_000u64 {
            curve.ask(
                (request % 2000) as u32,
                Cost::ONE,
                StoreInstant(1 << 50 | request),
            );
        }
        assert!(curve.is_sampled());
        let of_ten = curve.points()[3];
        assert!(
            of_ten.limit == 10 && (of_ten.refused_share - 0.5).abs() < 0.02,
            "{of_ten:?}"
        );
    }
}
