//! A worker's only timer. The proxy calls back once in every period, and setting the period starts it
//! anew: set with each request, it would hardly ever fire. So it is set where a tick must come sooner
//! than the next one will, and by the ticks themselves.

use super::host::Host;
use crate::time::{Span, WorkerInstant};

const OFF: Span = Span::ZERO;
/// The proxy's timers have no finer grain.
pub const SOONEST: Span = Span::millis(1);

#[derive(Debug)]
pub struct Ticker {
    period: Span,
    /// When the next tick comes.
    next: WorkerInstant,
}

impl Ticker {
    /// One that stands still.
    pub fn new() -> Ticker {
        Ticker {
            period: OFF,
            next: WorkerInstant(0),
        }
    }

    /// Has a tick come so soon, or sooner.
    pub fn within(&mut self, host: &impl Host, now: WorkerInstant, wait: Span) {
        if self.period == OFF || self.next > now + wait {
            self.set(host, now, wait.max(SOONEST));
        }
    }

    /// A tick has come, and the next is wanted so soon, or never.
    pub fn ticked(&mut self, host: &impl Host, now: WorkerInstant, next: Option<Span>) {
        let period = next.map_or(OFF, |wait| wait.max(SOONEST));
        if period == self.period {
            self.next = now + period;
        } else {
            self.set(host, now, period);
        }
    }

    fn set(&mut self, host: &impl Host, now: WorkerInstant, period: Span) {
        host.set_tick_period(period);
        self.period = period;
        self.next = now + period;
    }
}

/// Rounded up: a timer that fires before anything is due has fired for nothing.
pub fn until(now: WorkerInstant, due: WorkerInstant) -> Span {
    due.since(now).ceil_millis()
}
