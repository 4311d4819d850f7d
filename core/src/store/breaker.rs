//! Whether the store is worth asking. It opens when calls keep failing, probes now and then whether
//! the store takes again, and closes when a real call succeeds. It knows calls and time, and whether
//! something was taken; not what they are about.

use crate::time::{Span, WorkerInstant};

/// A failed call weighs two, a successful one takes one away: three failures in a row open it, and
/// so does any share of failures above a third.
const FAILURE: u32 = 2;
const OPENS_AT: u32 = 6;
/// A failover takes seconds, a hiccup less: the first probe comes soon, later ones less often.
const FIRST_LOOK: Span = Span::millis(100);
const LONGEST_LOOK: Span = Span::millis(1_000);

#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Spreads the probes of many workers over time; 0 to 255.
    jitter: u8,
    opened: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls are made; `failures` is their recent weight.
    Closed { failures: u32 },
    /// No calls are made before `until`; then a probe is.
    Open { until: WorkerInstant, wait: Span },
    /// A probe is on its way.
    Probing { wait: Span },
    /// The probe came back. Calls are made, and the first to fail ends it: what holds for the probe's
    /// slot need not for others. Until something was taken it is `shut` to whoever asks how it does: a
    /// replica answers and takes nothing.
    HalfOpen { wait: Span, shut: bool },
}

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allows {
    Calls,
    /// Nothing but one probe.
    Probe,
    Nothing,
}

impl Breaker {
    pub fn new(jitter: u8) -> Breaker {
        Breaker {
            state: State::Closed { failures: 0 },
            jitter,
            opened: 0,
        }
    }

    pub fn allows(&self, now: WorkerInstant) -> Allows {
        match self.state {
            State::Closed { .. } | State::HalfOpen { .. } => Allows::Calls,
            State::Open { until, .. } if now >= until => Allows::Probe,
            State::Open { .. } | State::Probing { .. } => Allows::Nothing,
        }
    }

    /// Whether nothing has been taken since it opened, be it that calls are made.
    pub fn is_shut(&self) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { .. } | State::Probing { .. } => true,
            State::HalfOpen { shut, .. } => shut,
        }
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// A probe was sent.
    pub fn probed(&mut self) {
        if let State::Open { wait, .. } = self.state {
            self.state = State::Probing { wait };
        }
    }

    /// A call was answered; whether the store took something for it, which only one that may write can.
    pub fn succeeded(&mut self, took: bool) {
        self.state = match self.state {
            State::Closed { failures } => State::Closed {
                failures: failures.saturating_sub(1),
            },
            State::HalfOpen { wait, shut: true } if !took => State::HalfOpen { wait, shut: true },
            State::HalfOpen { .. } => State::Closed { failures: 0 },
            State::Probing { wait } => State::HalfOpen { wait, shut: !took },
            // A call from before it opened: the probe will tell.
            open @ State::Open { .. } => open,
        };
    }

    pub fn failed(&mut self, now: WorkerInstant) {
        match self.state {
            State::Closed { failures } if failures + FAILURE < OPENS_AT => {
                self.state = State::Closed {
                    failures: failures + FAILURE,
                };
            }
            State::Closed { .. } => {
                self.opened += 1;
                self.open(now, FIRST_LOOK);
            }
            State::Probing { wait } | State::HalfOpen { wait, .. } => {
                self.open(now, wait.times(2).min(LONGEST_LOOK));
            }
            State::Open { .. } => {}
        }
    }

    /// The next probe comes at that time: what it failed for has been mended, as far as that is known.
    pub fn looks_at(&mut self, time: WorkerInstant) {
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(time);
        }
    }

    /// Up to a quarter more than the wait, so that a thousand workers do not probe at once.
    fn open(&mut self, now: WorkerInstant, wait: Span) {
        let spread = wait.divided(4).times(self.jitter.into()).divided(255);
        self.state = State::Open {
            until: now + wait + spread,
            wait,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(at: u64) -> Breaker {
        let mut breaker = Breaker::new(0);
        for _ in 0..3 {
            assert_eq!(breaker.allows(WorkerInstant(at)), Allows::Calls);
            breaker.failed(WorkerInstant(at));
        }
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let breaker = broken(0);
        assert_eq!(breaker.allows(WorkerInstant(0)), Allows::Nothing);
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn rare_failures_do_not_open_it_and_frequent_ones_do() {
        let mut rare = Breaker::new(0);
        for _ in 0..100 {
            rare.failed(WorkerInstant(0));
            rare.succeeded(true);
            rare.succeeded(true);
        }
        assert_eq!(rare.opened(), 0);
        let mut frequent = Breaker::new(0);
        for _ in 0..10 {
            frequent.failed(WorkerInstant(0));
            frequent.succeeded(true);
        }
        assert_eq!(frequent.opened(), 1);
    }

    #[test]
    fn it_looks_once_when_the_time_comes_and_closes_by_a_real_call() {
        let mut breaker = broken(0);
        assert_eq!(breaker.allows(WorkerInstant(99_999)), Allows::Nothing);
        assert_eq!(breaker.allows(WorkerInstant(100_000)), Allows::Probe);
        breaker.probed();
        assert_eq!(breaker.allows(WorkerInstant(100_000)), Allows::Nothing);
        breaker.succeeded(true);
        assert_eq!(breaker.allows(WorkerInstant(100_000)), Allows::Calls);
        breaker.succeeded(true);
        breaker.failed(WorkerInstant(100_001));
        assert_eq!(
            breaker.allows(WorkerInstant(100_001)),
            Allows::Calls,
            "closed and patient again"
        );
    }

    #[test]
    fn a_store_that_answers_looks_and_refuses_calls_is_asked_ever_less_often() {
        let mut breaker = broken(0);
        let mut now = 0;
        for wait in [100_000, 200_000, 400_000, 800_000, 1_000_000, 1_000_000] {
            assert_eq!(
                breaker.allows(WorkerInstant(now + wait - 1)),
                Allows::Nothing
            );
            now += wait;
            assert_eq!(breaker.allows(WorkerInstant(now)), Allows::Probe);
            breaker.probed();
            breaker.succeeded(true);
            breaker.failed(WorkerInstant(now));
        }
        assert_eq!(breaker.opened(), 1, "one outage is one opening");
    }

    #[test]
    fn an_answer_without_a_take_leaves_it_shut() {
        let mut breaker = broken(0);
        breaker.probed();
        breaker.succeeded(false);
        assert_eq!(breaker.allows(WorkerInstant(0)), Allows::Calls);
        assert!(breaker.is_shut());
        breaker.succeeded(false);
        assert!(breaker.is_shut());
        breaker.failed(WorkerInstant(0));
        assert_eq!(
            breaker.allows(WorkerInstant(0)),
            Allows::Nothing,
            "it was on trial"
        );
        breaker.probed();
        breaker.succeeded(false);
        breaker.succeeded(true);
        assert!(!breaker.is_shut());
    }

    #[test]
    fn a_look_that_took_leaves_it_on_trial_but_not_shut() {
        let mut breaker = broken(0);
        assert!(breaker.is_shut());
        breaker.probed();
        assert!(breaker.is_shut());
        breaker.succeeded(true);
        assert!(!breaker.is_shut());
        breaker.failed(WorkerInstant(0));
        assert_eq!(breaker.allows(WorkerInstant(0)), Allows::Nothing);
        assert!(breaker.is_shut());
    }

    #[test]
    fn late_answers_do_not_close_it() {
        let mut breaker = broken(0);
        breaker.succeeded(true);
        assert_eq!(breaker.allows(WorkerInstant(1)), Allows::Nothing);
    }

    #[test]
    fn jitter_delays_by_no_more_than_a_quarter() {
        let mut breaker = Breaker::new(255);
        for _ in 0..3 {
            breaker.failed(WorkerInstant(0));
        }
        assert_eq!(breaker.allows(WorkerInstant(124_999)), Allows::Nothing);
        assert_eq!(breaker.allows(WorkerInstant(125_000)), Allows::Probe);
    }
}
