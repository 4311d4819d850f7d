//! From where a caller stands with the limits of a request that passes to a warning and a delay.

use crate::decide::verdict::LimitStatus;
use crate::policy::ids::LimitId;
use crate::policy::soft_limit::{Pace, SoftLimit, Used};
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::time::Span;

/// What the limits of a request that passes have to say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NearLimit {
    /// The limits to warn of.
    pub warned: Vec<(LimitId, Used)>,
    pub delay: Delay,
}

/// How long a request is delayed before it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The longest wait of all.
    pub wait: Span,
    /// The queue it stands in, if it does in any: then it must wait, where one that is only slowed
    /// down may be let go.
    pub queue: Option<Queue>,
}

/// A shaped limit whose turn is waited for; of several the one with the longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The limit's place among the request's.
    pub place: usize,
    pub wait: Span,
    /// The longest that any other limit makes it wait.
    pub others: Span,
}

impl NearLimit {
    /// Adds what the limit at the request's next place has to say. `quota` is the one that it was read
    /// by, which for a limit kept in memory is a part of its own.
    pub fn add(
        &mut self,
        (place, status): (usize, LimitStatus),
        soft_limit: SoftLimit,
        quota: &Quota,
        cost: Cost,
    ) {
        let LimitStatus { limit, reading } = status;
        let warning = soft_limit.warning(quota, reading);
        self.warned.extend(warning.map(|used| (limit, used)));
        let wait = soft_limit.wait(quota, cost, reading);
        if wait > Span::ZERO {
            self.delay.add(place, soft_limit.pace, wait);
        }
    }
}

impl Delay {
    fn add(&mut self, place: usize, pace: Pace, wait: Span) {
        self.queue = match (self.queue, pace) {
            (Some(queue), Pace::Shaped { .. }) if queue.wait >= wait => Some(queue.besides(wait)),
            (_, Pace::Shaped { .. }) => Some(Queue {
                place,
                wait,
                others: self.wait,
            }),
            (queue, Pace::Free | Pace::Slowed { .. }) => queue.map(|queue| queue.besides(wait)),
        };
        self.wait = self.wait.max(wait);
    }
}

impl Queue {
    fn besides(self, other: Span) -> Queue {
        Queue {
            others: self.others.max(other),
            ..self
        }
    }
}
