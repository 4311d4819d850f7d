//! Which version of the policy each worker of a process runs. Workers see each other only through
//! bytes that they share, and one of them can be gone without a word (a trap, a drained listener): so
//! each answers the roll anew at every look, and who has not for a while does not count.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::codec::packed::Layout;
use crate::live::snapshot::Version;
use crate::time::Micros;

/// A worker's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Answer {
    /// Distinct among the process's workers.
    pub worker: u64,
    pub version: Version,
    /// By the time of day: how long the answer counts.
    pub until: Micros,
}

/// Where the workers of a process stand. Both are the same but for the moment of a change, or while a
/// worker cannot reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub oldest: Version,
    pub newest: Version,
}

/// Of the roll: a list of answers. Workers of a filter with another have a roll of their own.
pub const LAYOUT: Layout = Layout::of::<Vec<Answer>>();

/// The roll with a worker's answer in it, and what it says then.
pub fn answer(roll: &[u8], own: Answer, now: Micros) -> (Vec<u8>, Spread) {
    let mut answers = others(roll, own.worker, now);
    answers.push(own);
    let versions = answers.iter().map(|answer| answer.version);
    let spread = Spread {
        oldest: versions.clone().min().unwrap_or(own.version),
        newest: versions.max().unwrap_or(own.version),
    };
    (LAYOUT.pack(&answers), spread)
}

/// The roll without this worker, and without those whose answers are too old.
pub fn without(roll: &[u8], worker: u64, now: Micros) -> Vec<u8> {
    LAYOUT.pack(&others(roll, worker, now))
}

fn others(roll: &[u8], worker: u64, now: Micros) -> Vec<Answer> {
    let mut answers: Vec<Answer> = LAYOUT.unpack(roll).unwrap_or_default();
    answers.retain(|answer| answer.worker != worker && answer.until > now);
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(roll: &mut Vec<u8>, worker: u64, version: u64, now: u64) -> (u64, u64) {
        let own = Answer {
            worker,
            version: Version(version),
            until: Micros(now + 10),
        };
        let (after, spread) = answer(roll, own, Micros(now));
        *roll = after;
        (spread.oldest.0, spread.newest.0)
    }

    #[test]
    fn it_tells_the_oldest_and_the_newest_until_all_agree() {
        let mut roll = Vec::new();
        assert_eq!(step(&mut roll, 1, 4, 0), (4, 4));
        assert_eq!(step(&mut roll, 2, 4, 0), (4, 4));
        assert_eq!(step(&mut roll, 2, 5, 1), (4, 5));
        assert_eq!(step(&mut roll, 1, 5, 2), (5, 5));
        assert_eq!(others(&roll, 0, Micros(2)).len(), 2);
    }

    #[test]
    fn a_worker_that_leaves_or_falls_silent_does_not_count() {
        let mut roll = Vec::new();
        step(&mut roll, 1, 3, 0);
        step(&mut roll, 2, 4, 5);
        assert_eq!(step(&mut roll, 3, 5, 9), (3, 5));
        assert_eq!(step(&mut roll, 3, 5, 10), (4, 5));
        roll = without(&roll, 2, Micros(10));
        assert_eq!(step(&mut roll, 3, 5, 11), (5, 5));
    }

    #[test]
    fn bytes_of_others_are_no_answers() {
        let mut roll = vec![1, 2, 3];
        assert_eq!(step(&mut roll, 1, 3, 0), (3, 3));
    }
}
