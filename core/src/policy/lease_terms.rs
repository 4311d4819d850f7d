//! How a limit is leased, as the operator wrote it.

use crate::codec::json::{At, ConfigError, Json};
use crate::quota::limit::Quota;
use crate::time::Millis;

/// What a policy says of a limit's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    pub size: Size,
    /// How long permits may be held.
    pub ttl: Millis,
}

/// How many permits are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Fixed(u64),
    /// As many as the caller used lately in a lease's time, within a share of what is left.
    Auto,
}

impl LeaseTerms {
    /// Between a few round trips, below which a lease hardly saves any, and a minute, above which
    /// unused permits would be missed.
    pub const SHORTEST: Millis = Millis(50);
    pub const LONGEST: Millis = Millis(60_000);
    const USUAL: Millis = Millis(1_000);

    /// Reads a limit's `lease`: strictly, as all of the policy.
    pub fn read(at: &At<'_>, quota: &Quota) -> Result<LeaseTerms, ConfigError> {
        let mut fields = at.fields()?;
        let size = Size::read(&fields.required("size")?, quota)?;
        let ttl = match fields.optional("ttl_ms") {
            // A window of a second has no room for the usual time.
            None => Self::USUAL.min(Millis(quota.window().0 / 2)),
            Some(at) => Self::ttl(&at, quota)?,
        };
        fields.finish()?;
        Ok(LeaseTerms { size, ttl })
    }

    fn ttl(at: &At<'_>, quota: &Quota) -> Result<Millis, ConfigError> {
        let ttl = Millis(at.whole()?);
        if !(Self::SHORTEST..=Self::LONGEST).contains(&ttl) {
            return Err(at.error(format!(
                "is {}; permits are held for {} to {} ms",
                ttl.0,
                Self::SHORTEST.0,
                Self::LONGEST.0
            )));
        }
        if ttl >= quota.window() {
            return Err(at.error(format!(
                "is {}, but the window is only {} ms long; a lease must be shorter",
                ttl.0,
                quota.window().0
            )));
        }
        Ok(ttl)
    }
}

impl Size {
    fn read(at: &At<'_>, quota: &Quota) -> Result<Size, ConfigError> {
        let size = match at.value {
            Json::Text(word) if word == "auto" => return Ok(Size::Auto),
            Json::Whole(size) => *size,
            _ => return Err(at.expected("a whole number or \"auto\"")),
        };
        if size == 0 {
            return Err(at.error(
                "is 0; a lease holds at least 1 permit (to ask for each, leave \"lease\" out)",
            ));
        }
        if size >= quota.capacity() {
            return Err(at.error(format!(
                "is {size}, but the limit holds {}; one worker would leave nothing to the others",
                quota.capacity()
            )));
        }
        Ok(Size::Fixed(size))
    }
}
