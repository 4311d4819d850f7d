//! A policy as one worker has it in force.

use std::rc::Rc;

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::codec::json::ConfigError;
use crate::codec::namespace::Namespace;
use crate::live::last_refusal::LastRefusal;
use crate::live::poller::words;
use crate::policy::Policy;

/// A policy as one worker took it into force.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    pub policy: Rc<Policy>,
    /// What the counters' keys begin with.
    pub namespace: Namespace,
    pub version: Version,
    pub generation: Generation,
    pub last_refusal: LastRefusal,
}

/// A published policy's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
pub struct Version(pub u64);

/// Counts a worker's snapshots. What was learnt in one generation, a refusal say, is not known in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(u64);

impl Version {
    /// The policy of the plugin configuration, before anything was published.
    pub const CONFIGURED: Version = Version(0);

    /// From what the field of this key holds.
    pub(super) fn read(field: &[u8], key: &str) -> Result<Version, ConfigError> {
        let digits = field.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(field).ok().filter(|_| digits);
        match number.and_then(|number| number.parse().ok()) {
            Some(number) if number > 0 => Ok(Version(number)),
            _ => Err(ConfigError {
                path: format!("{key} version"),
                message: format!("is {:?}; expected a whole number from 1", words(field)),
            }),
        }
    }
}

impl PolicySnapshot {
    /// What a worker starts with.
    pub fn configured(policy: Rc<Policy>, namespace: Namespace) -> PolicySnapshot {
        PolicySnapshot {
            policy,
            namespace,
            version: Version::CONFIGURED,
            generation: Generation::default(),
            last_refusal: LastRefusal::default(),
        }
    }

    /// What takes this one's place.
    #[must_use]
    pub fn followed_by(&self, policy: Rc<Policy>, version: Version) -> PolicySnapshot {
        PolicySnapshot {
            policy,
            namespace: self.namespace.clone(),
            version,
            generation: Generation(self.generation.0.wrapping_add(1)),
            last_refusal: LastRefusal::default(),
        }
    }
}
