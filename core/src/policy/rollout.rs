//! How far a rule has come on its way into force, and on which side of a trial a caller stands.
//!
//! A rule in shadow mode (`mode: "shadow"`, or for the callers whom `enforce_percent` has not reached) is
//! asked about like any other, in counters of its own, and refuses nobody.

use std::net::IpAddr;

use super::document;
use crate::codec::fnv;
use crate::codec::json::{ConfigError, Path};
use crate::request::subject::Subject;

/// For whom a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Enforce,
    /// For this share of its callers; the others are in shadow mode.
    Partly(Percent),
    Shadow,
    /// For nobody: as if it were not there.
    Off,
}

/// From 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

/// Whether what a rule counts for a caller is held against them. The two never share a counter, so
/// that a trial leaves alone what is enforced, and what was counted in shadow mode refuses nobody later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counting {
    Enforced,
    Shadow,
}

impl Mode {
    /// A rule's `mode` with its `enforce_percent`.
    pub(super) fn compile(
        mode: document::Mode,
        percent: Option<f64>,
        rule: &Path<'_>,
    ) -> Result<Mode, ConfigError> {
        let word = match (mode, percent) {
            (document::Mode::Enforce, None) => return Ok(Mode::Enforce),
            (document::Mode::Shadow, None) => return Ok(Mode::Shadow),
            (document::Mode::Off, None) => return Ok(Mode::Off),
            (document::Mode::Enforce, Some(100.0)) => return Ok(Mode::Enforce),
            (document::Mode::Enforce, Some(percent)) => return Ok(Mode::Partly(Percent(percent))),
            (document::Mode::Shadow, Some(_)) => "shadow",
            (document::Mode::Off, Some(_)) => "off",
        };
        Err(rule.member("enforce_percent").error(format!(
            "is set, but the mode is {word:?}, which enforces for nobody; leave one of them out"
        )))
    }

    /// What becomes of it under the policy's own `mode`.
    pub(super) fn under(self, enforcement: document::Enforcement) -> Mode {
        match (enforcement, self) {
            (document::Enforcement::Shadow, Mode::Enforce | Mode::Partly(_)) => Mode::Shadow,
            (_, mode) => mode,
        }
    }

    /// How a rule of this name and mode counts for a subject. What is off is not asked.
    pub fn counting(self, rule: &str, subject: &Subject) -> Counting {
        match self {
            Mode::Enforce => Counting::Enforced,
            Mode::Shadow | Mode::Off => Counting::Shadow,
            Mode::Partly(percent) if percent.covers(bucketing_hash("enforce", rule, subject)) => {
                Counting::Enforced
            }
            Mode::Partly(_) => Counting::Shadow,
        }
    }
}

impl Percent {
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether a draw falls into this share. Whoever falls into one falls into every larger one.
    fn covers(self, bucketing_hash: u64) -> bool {
        (bucketing_hash as f64) < self.0 / 100.0 * (u64::MAX as f64)
    }
}

/// A number that looks drawn, and that this subject draws in this matter every time, at every gateway
/// and in every version of Weir. FNV-1a leaves the high bits of short texts alike; MurmurHash3's
/// finalizer spreads them.
///
/// It is no secret: who can choose an id at will can choose a side. It is for rules in shadow mode, not for defence.
pub fn bucketing_hash(matter: &str, name: &str, subject: &Subject) -> u64 {
    let hash =
        |begun, parts: &[&[u8]]| parts.iter().fold(begun, |all, part| fnv::extend(all, part));
    // No name holds a NUL, so that no two matters read the same.
    let begun = hash(
        fnv::EMPTY,
        &[matter.as_bytes(), b"\0", name.as_bytes(), b"\0"],
    );
    let mut drawn = match subject {
        Subject::User(id) => hash(begun, &[b"u", id]),
        Subject::ApiKey(digest) => hash(begun, &[b"k", digest.as_bytes()]),
        Subject::Address(None) => hash(begun, &[b"-"]),
        Subject::Address(Some(IpAddr::V4(v4))) => hash(begun, &[b"4", &v4.octets()]),
        Subject::Address(Some(IpAddr::V6(v6))) => hash(begun, &[b"6", &v6.octets()]),
    };
    drawn = (drawn ^ (drawn >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    drawn = (drawn ^ (drawn >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    drawn ^ (drawn >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: impl ToString) -> Subject {
        Subject::User(id.to_string().into_bytes())
    }

    fn enforced(percent: f64, rule: &str, subject: &Subject) -> bool {
        Mode::Partly(Percent(percent)).counting(rule, subject) == Counting::Enforced
    }

    /// Written down, so that no change moves a caller across a line on the day of an update.
    #[test]
    fn a_caller_draws_the_same_number_for_ever() {
        for (subject, drawn) in [
            (user("ann"), 0x35e2_88ac_b120_bb70),
            (user(""), 0x59b7_9b9a_d815_e9f3),
            (Subject::ApiKey("ann".to_string()), 0x4291_870e_7f77_8af9),
            (
                Subject::Address("10.1.2.3".parse().ok()),
                0xf66b_de7b_c607_634a,
            ),
            (
                Subject::Address("2001:db8::".parse().ok()),
                0x8cfd_9fb4_fd43_f763,
            ),
            (Subject::Address(None), 0xf055_b695_2821_2c8b),
        ] {
            assert_eq!(
                bucketing_hash("enforce", "search_api", &subject),
                drawn,
                "{subject:?}"
            );
        }
    }

    #[test]
    fn a_share_holds_that_many_and_keeps_them_as_it_grows() {
        let percents = [0.0, 0.1, 1.0, 10.0, 50.0, 99.0];
        let counts = percents.map(|percent| {
            let held = (0..100_000).filter(|i| enforced(percent, "search_api", &user(i)));
            held.count()
        });
        for (percent, count) in percents.into_iter().zip(counts) {
            let expected = percent * 1000.0;
            let off = (count as f64 - expected).abs();
            assert!(off <= expected.sqrt() * 4.0, "{count} at {percent} %");
        }
        for subject in (0..10_000).map(user) {
            let sides = percents.map(|percent| enforced(percent, "search_api", &subject));
            assert!(sides.is_sorted(), "{subject:?} was in and fell out");
        }
    }

    #[test]
    fn every_rule_draws_anew() {
        let both = (0..10_000)
            .map(user)
            .filter(|subject| enforced(50.0, "one", subject) && enforced(50.0, "other", subject));
        let both = both.count();
        assert!((2_300..2_700).contains(&both), "{both}");
    }
}
