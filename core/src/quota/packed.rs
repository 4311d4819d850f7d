//! A quota in the bytes that the script reads.

use std::rc::Rc;

use crate::quota::limit::{Algorithm, Quota};
use crate::quota::packed;

/// How a quota is told: its algorithm's number, then limit, window and capacity.
pub type PackedQuota = [u8; 1 + 3 * 8];

pub fn pack_quota(quota: &Quota) -> PackedQuota {
    let mut packed = [0; _];
    let algorithm = match quota.algorithm() {
        Algorithm::FixedWindow => 1,
        Algorithm::SlidingWindow => 2,
        Algorithm::TokenBucket => 3,
        Algorithm::LeakyBucket => 4,
    };
    let numbers = [quota.limit(), quota.window().0, quota.capacity()];
    let bytes = numbers.into_iter().flat_map(u64::to_be_bytes);
    for (place, byte) in packed.iter_mut().zip([algorithm].into_iter().chain(bytes)) {
        *place = byte;
    }
    packed
}

/// A quota together with the bytes that tell it to the script, written once for all requests, which
/// share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    pub quota: Quota,
    packed: PackedQuota,
}

impl Terms {
    pub fn packed(&self) -> &PackedQuota {
        &self.packed
    }

    pub fn new(quota: Quota) -> Rc<Terms> {
        Rc::new(Terms {
            quota,
            packed: packed::pack_quota(&quota),
        })
    }
}
