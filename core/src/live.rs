//! The policy in force, which may change while traffic flows. A request finishes under the edition
//! that it began with, so nothing that it holds (a limit's id, a place in a list) changes its meaning
//! on the way.

use std::rc::Rc;

use crate::policy::Policy;

/// A policy as one worker took it into force.
#[derive(Clone, Debug)]
pub struct Edition {
    pub policy: Rc<Policy>,
    pub version: Version,
    pub epoch: Epoch,
}

/// A published policy's number; they grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// Counts a worker's editions. What was learnt in one epoch, a refusal say, is not known in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

impl Version {
    /// The policy of the plugin configuration, which nobody published.
    pub const CONFIGURED: Version = Version(0);
}

impl Edition {
    /// What a worker starts with.
    pub fn configured(policy: Rc<Policy>) -> Edition {
        Edition {
            policy,
            version: Version::CONFIGURED,
            epoch: Epoch::default(),
        }
    }

    /// What takes this one's place.
    #[must_use]
    pub fn followed_by(&self, policy: Rc<Policy>, version: Version) -> Edition {
        Edition {
            policy,
            version,
            epoch: Epoch(self.epoch.0.wrapping_add(1)),
        }
    }
}
