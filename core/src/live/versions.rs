//! Which version of the policy each worker of a process runs. Workers see each other only through
//! bytes that they share, and one of them can be gone without a word (a trap, a drained listener): so
//! each answers the roll anew at every look, and who has not for a while does not count.

use crate::live::snapshot::Version;
use crate::time::Micros;

/// A worker's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An answer's bytes: its three numbers, least significant byte first.
const ANSWER: usize = 24;

/// The roll with a worker's answer in it, and what it says then.
pub fn answer(roll: &[u8], own: Answer, now: Micros) -> (Vec<u8>, Spread) {
    let mut after = without(roll, own.worker, now);
    let mut spread = Spread {
        oldest: own.version,
        newest: own.version,
    };
    for other in answers(&after) {
        spread.oldest = spread.oldest.min(other.version);
        spread.newest = spread.newest.max(other.version);
    }
    let Answer {
        worker,
        version,
        until,
    } = own;
    for number in [worker, version.0, until.0] {
        after.extend(number.to_le_bytes());
    }
    (after, spread)
}

/// The roll without this worker, and without those whose answers are too old.
pub fn without(roll: &[u8], worker: u64, now: Micros) -> Vec<u8> {
    let (whole, _) = roll.as_chunks::<ANSWER>();
    let mut after = Vec::with_capacity(roll.len() + ANSWER);
    for (bytes, answer) in whole.iter().zip(answers(roll)) {
        if answer.worker != worker && answer.until > now {
            after.extend(bytes);
        }
    }
    after
}

fn answers(roll: &[u8]) -> impl Iterator<Item = Answer> {
    let (numbers, _) = roll.as_chunks::<8>();
    let (answers, _) = numbers.as_chunks::<3>();
    answers.iter().map(|[worker, version, until]| Answer {
        worker: u64::from_le_bytes(*worker),
        version: Version(u64::from_le_bytes(*version)),
        until: Micros(u64::from_le_bytes(*until)),
    })
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
        assert_eq!(roll.len(), 2 * ANSWER);
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
