//! A limiter of a few lines, written from the words of the design and sharing no code with the real
//! one. A test cannot know the moment at which Redis decides, only two readings of the clock around
//! it; so this tells how much room a limit has *at least* and *at most*, and where the two leave a
//! decision open it follows the real one.

use std::{collections::HashMap, ops::RangeInclusive, time::Duration};

use self::Algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
use crate::world::now;

/// Between two readings of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    before: Duration,
    after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    FixedWindow,
    SlidingWindow,
    TokenBucket { burst: u64 },
    LeakyBucket,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub algorithm: Algorithm,
    pub limit: u64,
    pub window_seconds: u64,
}

/// The usage of one limit by one subject.
#[derive(Clone, Debug)]
pub enum Usage {
    /// How many were taken in the window of this index, at least and at most.
    Window { index: u128, least: u64, most: u64 },
    /// When each was taken.
    Log(Vec<Moment>),
    /// When the bucket would be empty again, at the earliest and at the latest: seconds.
    Bucket { earliest: f64, latest: f64 },
}

/// How a limit stands before a request: the requests it has room for.
#[derive(Clone, Debug)]
pub struct Standing {
    pub rule: &'static str,
    pub scope: &'static str,
    pub quota: Quota,
    pub room: RangeInclusive<u64>,
}

/// Buckets are kept to the millisecond, so that a moment may count as one earlier.
const GRAIN: f64 = 0.001;

impl Moment {
    /// The moment at which `act` did whatever it did.
    pub fn of<T>(act: impl FnOnce() -> T) -> (Moment, T) {
        let before = now();
        let done = act();
        (
            Moment {
                before,
                after: now(),
            },
            done,
        )
    }
}

impl Quota {
    pub fn capacity(&self) -> u64 {
        match self.algorithm {
            TokenBucket { burst } => burst,
            _ => self.limit,
        }
    }

    pub fn unused(&self) -> Usage {
        match self.algorithm {
            FixedWindow => Usage::Window {
                index: 0,
                least: 0,
                most: 0,
            },
            SlidingWindow => Usage::Log(Vec::new()),
            TokenBucket { .. } | LeakyBucket => Usage::Bucket {
                earliest: 0.0,
                latest: 0.0,
            },
        }
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.window_seconds)
    }

    fn index(&self, time: Duration) -> u128 {
        time.as_micros() / self.window().as_micros()
    }

    /// Seconds in which one permit comes back.
    fn period(&self) -> f64 {
        self.window().as_secs_f64() / self.limit as f64
    }

    /// How many requests would pass at that moment.
    pub fn room(&self, usage: &Usage, at: Moment) -> RangeInclusive<u64> {
        match usage {
            Usage::Window { index, least, most } => {
                let (least, most) = match (self.index(at.before), self.index(at.after)) {
                    (before, _) if before > *index => (0, 0),
                    (_, after) if after > *index => (0, *most),
                    _ => (*least, *most),
                };
                // One that came across a window's end may not have counted in it.
                self.limit.saturating_sub(most)..=self.limit - least
            }
            Usage::Log(taken) => {
                let lives = |since: Duration, until: Duration| until < since + self.window();
                let used = |lives: &dyn Fn(&Moment) -> bool| {
                    taken.iter().filter(|taken| lives(taken)).count() as u64
                };
                let least = used(&|taken| lives(taken.before, at.after));
                let most = used(&|taken| lives(taken.after, at.before));
                self.limit.saturating_sub(most)..=self.limit - least
            }
            Usage::Bucket { earliest, latest } => {
                let level = |empty: f64, time: f64| ((empty - time) / self.period()).max(0.0);
                let room = |level: f64| (self.capacity() as f64 - level).max(0.0) as u64;
                let most = level(*latest, at.before.as_secs_f64() - GRAIN);
                room(most)..=room(level(*earliest, at.after.as_secs_f64()))
            }
        }
    }

    pub fn take(&self, usage: &mut Usage, at: Moment) {
        match usage {
            Usage::Window { index, least, most } => {
                let (before, after) = (self.index(at.before), self.index(at.after));
                (*least, *most) = match (before, after) {
                    (_, after) if after == *index => (*least + 1, *most + 1),
                    (before, after) if before == after => (1, 1),
                    // It counted in the window that ended, or in the new one.
                    _ => (0, 1),
                };
                *index = after;
            }
            Usage::Log(taken) => taken.push(at),
            Usage::Bucket { earliest, latest } => {
                let period = self.period();
                *earliest = earliest.max(at.before.as_secs_f64() - GRAIN) + period;
                *latest = latest.max(at.after.as_secs_f64()) + period;
            }
        }
    }
}

// === The reference policy ===

const fn quota(algorithm: Algorithm, limit: u64, window_seconds: u64) -> Quota {
    Quota {
        algorithm,
        limit,
        window_seconds,
    }
}

/// A rule's name, the path it is for (and all below it, where it ends in a slash), its limits by
/// tier, and for each address.
type Rule = (
    &'static str,
    &'static str,
    &'static [(&'static str, Quota)],
    Option<Quota>,
);

/// In order of priority. The limit for everybody together is left out: no test comes near it.
const RULES: [Rule; 4] = [
    (
        "auth_api",
        "/api/v1/auth/",
        &[("default", quota(FixedWindow, 5, 300))],
        Some(quota(SlidingWindow, 20, 3600)),
    ),
    (
        "upload_api",
        "/api/v1/media/upload",
        &[
            ("free", quota(TokenBucket { burst: 5 }, 10, 3600)),
            ("premium", quota(TokenBucket { burst: 20 }, 100, 3600)),
            ("enterprise", quota(TokenBucket { burst: 100 }, 1000, 3600)),
            ("default", quota(TokenBucket { burst: 5 }, 10, 3600)),
        ],
        None,
    ),
    (
        "search_api",
        "/api/v1/search",
        &[
            ("free", quota(LeakyBucket, 60, 60)),
            ("premium", quota(LeakyBucket, 300, 60)),
            ("enterprise", quota(LeakyBucket, 300, 60)),
            ("default", quota(LeakyBucket, 60, 60)),
        ],
        Some(quota(LeakyBucket, 100, 60)),
    ),
    (
        "general_api",
        "/api/v1/",
        &[
            ("free", quota(SlidingWindow, 100, 3600)),
            ("premium", quota(SlidingWindow, 1000, 3600)),
            ("enterprise", quota(SlidingWindow, 10_000, 3600)),
            ("default", quota(SlidingWindow, 100, 3600)),
        ],
        Some(quota(SlidingWindow, 200, 3600)),
    ),
];

/// Everything that one caller at one address has used.
#[derive(Default)]
pub struct Account {
    usage: HashMap<(&'static str, &'static str), Usage>,
}

impl Account {
    /// How each limit for such a request stands, in the order of report.
    pub fn standings(&self, tier: &str, path: &str, at: Moment) -> Vec<Standing> {
        let matching = RULES.iter().filter(|(_, place, ..)| {
            path == *place || (place.ends_with('/') && path.starts_with(place))
        });
        let limits = matching.flat_map(|(rule, _, tiers, ip)| {
            let of = |tier| tiers.iter().find(|(name, _)| *name == tier);
            let user = of(tier).or_else(|| of("default")).map(|(_, quota)| quota);
            let scopes = [("user", user), ("ip", ip.as_ref())];
            scopes
                .into_iter()
                .filter_map(|(scope, quota)| Some((*rule, scope, *quota?)))
        });
        let standing = |(rule, scope, quota): (_, _, Quota)| {
            let unused = quota.unused();
            let usage = self.usage.get(&(rule, scope)).unwrap_or(&unused);
            Standing {
                rule,
                scope,
                quota,
                room: quota.room(usage, at),
            }
        };
        limits.map(standing).collect()
    }

    /// A request passed.
    pub fn take(&mut self, standings: &[Standing], at: Moment) {
        for standing in standings {
            let usage = self.usage.entry((standing.rule, standing.scope));
            standing
                .quota
                .take(usage.or_insert_with(|| standing.quota.unused()), at);
        }
    }
}

impl Algorithm {
    /// The name in policies and answers.
    pub fn name(self) -> &'static str {
        match self {
            FixedWindow => "fixed_window",
            SlidingWindow => "sliding_window",
            TokenBucket { .. } => "token_bucket",
            LeakyBucket => "leaky_bucket",
        }
    }
}
