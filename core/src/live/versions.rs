//! Which version of the policy each worker of a process runs. Workers see each other only through
//! bytes that they share, and one of them can be gone without a word (a trap, a drained listener): so
//! each reports anew at every look, and who has not for a while does not count.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::codec::packed::Layout;
use crate::live::snapshot::Version;
use crate::time::WallTime;

/// A worker's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct VersionReport {
    /// Distinct among the process's workers.
    pub worker: u64,
    pub version: Version,
    /// How long the report counts.
    pub until: WallTime,
}

/// Where the workers of a process stand. Both are the same but for the moment of a change, or while a
/// worker cannot reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionSkew {
    pub oldest: Version,
    pub newest: Version,
}

/// Of the version reports: a list of answers. Workers of a filter with another have a version reports of their own.
pub const LAYOUT: Layout = Layout::of::<Vec<VersionReport>>();

/// The version reports with a worker's report in it, and what it says then.
pub fn report(reports: &[u8], own: VersionReport, now: WallTime) -> (Vec<u8>, VersionSkew) {
    let mut reports_in = others(reports, own.worker, now);
    reports_in.push(own);
    let versions = reports_in.iter().map(|report| report.version);
    let skew = VersionSkew {
        oldest: versions.clone().min().unwrap_or(own.version),
        newest: versions.max().unwrap_or(own.version),
    };
    (LAYOUT.pack(&reports_in), skew)
}

/// The version reports without this worker, and without those whose answers are too old.
pub fn without(reports: &[u8], worker: u64, now: WallTime) -> Vec<u8> {
    LAYOUT.pack(&others(reports, worker, now))
}

fn others(reports: &[u8], worker: u64, now: WallTime) -> Vec<VersionReport> {
    let mut reports_in: Vec<VersionReport> = LAYOUT.unpack(reports).unwrap_or_default();
    reports_in.retain(|report| report.worker != worker && report.until > now);
    reports_in
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reports: &mut Vec<u8>, worker: u64, version: u64, now: u64) -> (u64, u64) {
        let own = VersionReport {
            worker,
            version: Version(version),
            until: WallTime(now + 10),
        };
        let (after, skew) = report(reports, own, WallTime(now));
        *reports = after;
        (skew.oldest.0, skew.newest.0)
    }

    #[test]
    fn it_tells_the_oldest_and_the_newest_until_all_agree() {
        let mut reports = Vec::new();
        assert_eq!(step(&mut reports, 1, 4, 0), (4, 4));
        assert_eq!(step(&mut reports, 2, 4, 0), (4, 4));
        assert_eq!(step(&mut reports, 2, 5, 1), (4, 5));
        assert_eq!(step(&mut reports, 1, 5, 2), (5, 5));
        assert_eq!(others(&reports, 0, WallTime(2)).len(), 2);
    }

    #[test]
    fn a_worker_that_leaves_or_falls_silent_does_not_count() {
        let mut reports = Vec::new();
        step(&mut reports, 1, 3, 0);
        step(&mut reports, 2, 4, 5);
        assert_eq!(step(&mut reports, 3, 5, 9), (3, 5));
        assert_eq!(step(&mut reports, 3, 5, 10), (4, 5));
        reports = without(&reports, 2, WallTime(10));
        assert_eq!(step(&mut reports, 3, 5, 11), (5, 5));
    }

    #[test]
    fn bytes_of_others_are_no_answers() {
        let mut reports = vec![1, 2, 3];
        assert_eq!(step(&mut reports, 1, 3, 0), (3, 3));
    }
}
