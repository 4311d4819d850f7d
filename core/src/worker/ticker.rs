//! A worker's only timer. The proxy calls back once in every period, and setting the period starts it
//! anew: set with each request, it would hardly ever fire. So it is set where a tick must come sooner
//! than the next one will, and by the ticks themselves.

use super::host::Host;
use crate::time::{Micros, Millis};

const OFF: Millis = Millis(0);
/// The proxy's timers have no finer grain.
pub const SOONEST: Millis = Millis(1);

#[derive(Debug)]
pub struct Ticker {
    period: Millis,
    /// When the next tick comes.
    next: Micros,
}

impl Ticker {
    /// One that stands still.
    pub fn new() -> Ticker {
        Ticker {
            period: OFF,
            next: Micros(0),
        }
    }

    /// Has a tick come so soon, or sooner.
    pub fn within(&mut self, host: &impl Host, now: Micros, wait: Millis) {
        if self.period == OFF || self.next > later(now, wait) {
            self.set(host, now, wait.max(SOONEST));
        }
    }

    /// A tick has come, and the next is wanted so soon, or never.
    pub fn ticked(&mut self, host: &impl Host, now: Micros, next: Option<Millis>) {
        let period = next.map_or(OFF, |wait| wait.max(SOONEST));
        if period == self.period {
            self.next = later(now, period);
        } else {
            self.set(host, now, period);
        }
    }

    fn set(&mut self, host: &impl Host, now: Micros, period: Millis) {
        host.set_tick_period(period);
        self.period = period;
        self.next = later(now, period);
    }
}

/// Rounded up: a timer that fires before anything is due has fired for nothing.
pub fn until(now: Micros, due: Micros) -> Millis {
    Millis(due.0.saturating_sub(now.0).div_ceil(1000))
}

fn later(now: Micros, wait: Millis) -> Micros {
    Micros(now.0.saturating_add(wait.0.saturating_mul(1000)))
}
