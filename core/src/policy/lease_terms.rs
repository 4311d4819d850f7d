//! How a limit is leased, as the operator wrote it.

use super::document;
use crate::codec::json::{ConfigError, Path};
use crate::quota::limit::Quota;
use crate::time::Span;

/// What a policy says of a limit's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    pub size: Size,
    /// How long permits may be held.
    pub ttl: Span,
}

/// How many permits are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Fixed(u64),
    /// As many as the caller used lately in a lease's time, within a share of what is left.
    Auto,
}

impl LeaseTerms {
    const USUAL: Span = Span::millis(1_000);

    /// A limit's `lease`.
    pub(super) fn compile(
        lease: &document::Lease,
        quota: &Quota,
        at: &Path<'_>,
    ) -> Result<LeaseTerms, ConfigError> {
        if let Size::Fixed(size) = lease.size
            && size >= quota.capacity()
        {
            return Err(at.member("size").error(format!(
                "is {size}, but the limit holds {}; one worker would leave nothing to the others",
                quota.capacity()
            )));
        }
        let ttl = match lease.ttl_ms.map(Span::millis) {
            // A window of a second has no room for the usual time.
            None => Self::USUAL.min(quota.window().divided(2)),
            Some(ttl) if ttl >= quota.window() => {
                return Err(at.member("ttl_ms").error(format!(
                    "is {}, but the window is only {} ms long; a lease must be shorter",
                    ttl.as_millis(),
                    quota.window().as_millis()
                )));
            }
            Some(ttl) => ttl,
        };
        Ok(LeaseTerms {
            size: lease.size,
            ttl,
        })
    }
}
