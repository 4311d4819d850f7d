//! When the store decided, on the worker's own clock. A turn is a moment of the store's; counted from
//! when its answer was read it would be late by whatever held that answer up, and the next one, whose
//! answer came quickly, too close behind it.
//!
//! The two clocks differ by a number that no single answer tells: an answer only says that the store
//! decided after it was asked and before it answered. The quickest answer of late says it best.

use crate::time::{Span, StoreInstant, WallTime, WorkerInstant};

/// Clocks drift, so the quickest answer is forgotten after one to two of these.
const MEMORY: Span = Span::seconds(5);

/// What one worker knows of the store's clock: how far its own is ahead, in µs, at most.
#[derive(Debug, Default)]
pub struct StoreClock {
    /// In this stretch of time, and in the one before.
    young: Option<i64>,
    old: Option<i64>,
    since: WorkerInstant,
}

/// When a check request was asked, and what the store's clock read as it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub asked: WorkerInstant,
    pub told: StoreInstant,
}

impl StoreClock {
    /// When the store decided; never before it was asked, nor after it answered.
    pub fn locate(&mut self, decided: Exchange, answered: WorkerInstant) -> WorkerInstant {
        let Exchange { asked, told } = decided;
        let (least, most) = (ahead(asked, told), ahead(answered, told));
        if answered.since(self.since) >= MEMORY {
            self.old = self.young.take();
            self.since = answered;
        }
        let young = self.young.map_or(most, |young| young.min(most));
        let offset = self.old.map_or(young, |old| old.min(young));
        // Less than can be: a clock was set, or it is another store's.
        if offset < least {
            self.old = None;
            self.young = Some(most);
            return answered;
        }
        self.young = Some(young);
        WorkerInstant(told.0.saturating_add_signed(offset))
    }
}

/// The store's time of day, as it last told it and the worker's clock has run on since. It is behind
/// by what the answer took at most, so that nothing ends here before it ends there. Until the store
/// has told anything it is what it was set to.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreTime {
    /// µs from the worker's clock to the store's.
    offset: i64,
}

impl StoreTime {
    pub fn set(&mut self, answered: WorkerInstant, told: StoreInstant) {
        self.offset = ahead(answered, told).saturating_neg();
    }

    /// Nothing was told yet: most stores keep the proxy's time of day.
    pub fn guess(&mut self, now: WorkerInstant, time: WallTime) {
        self.set(now, StoreInstant(time.0));
    }

    pub fn at(self, now: WorkerInstant) -> StoreInstant {
        StoreInstant(now.0.saturating_add_signed(self.offset))
    }
}

fn ahead(worker: WorkerInstant, store: StoreInstant) -> i64 {
    let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
    signed(worker.0).saturating_sub(signed(store.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The store's clock reads this when the worker's reads nothing.
    const EPOCH: u64 = 1_800_000_000_000_000;

    /// Asked at a time, decided and answered so much later, by a store whose clock is off by so much.
    fn exchange(asked: u64, decided: u64, answered: u64, off: i64) -> (Exchange, WorkerInstant) {
        let told = StoreInstant((EPOCH + asked + decided).saturating_add_signed(off));
        let answered = WorkerInstant(asked + decided + answered);
        let asked = WorkerInstant(asked);
        (Exchange { asked, told }, answered)
    }

    #[test]
    fn an_answer_that_was_held_up_is_placed_by_those_that_were_not() {
        let mut clock = StoreClock::default();
        for (asked, decided, answered, located) in [
            (0, 100, 900, 1000),
            // The quickest: from here on everything is placed 200 after it was decided.
            (10_000, 100, 200, 10_300),
            (20_000, 100, 90_000, 20_300),
            (200_000, 90_000, 300, 290_200),
        ] {
            let (decided, answered) = exchange(asked, decided, answered, 0);
            assert_eq!(
                clock.locate(decided, answered),
                WorkerInstant(located),
                "{asked}"
            );
        }
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once_either_way() {
        for off in [-7_000_000, 7_000_000] {
            let mut clock = StoreClock::default();
            let mut locate = |(decided, answered)| clock.locate(decided, answered);
            locate(exchange(0, 100, 200, 0));
            assert_eq!(locate(exchange(1000, 100, 300, off)), WorkerInstant(1400));
            assert_eq!(locate(exchange(2000, 100, 9000, off)), WorkerInstant(2400));
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed_in_a_while() {
        for drift in [-1, 1] {
            let mut clock = StoreClock::default();
            // 1 µs in 10 ms is more than a clock that is kept by NTP does for long.
            for at in (0..60_000_000).step_by(50_000) {
                let off = drift * at as i64 / 10_000;
                let (decided, answered) = exchange(at, 100_000, 200, off);
                let located = clock.locate(decided, answered).0 as i64;
                let decided = at as i64 + 100_000;
                assert!((decided - 1000..=decided + 200).contains(&located), "{at}");
            }
        }
    }
}
