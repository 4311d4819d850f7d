//! A quota in the bytes that the script reads.

use std::rc::Rc;

use crate::quota::limit::{Algorithm, Quota};
use crate::quota::packed;
use crate::quota::period::Period;

/// How a quota is told: its algorithm's number, then limit, window and capacity.
pub type PackedQuota = [u8; 1 + 3 * 8];

pub fn pack_quota(quota: &Quota) -> PackedQuota {
    let mut packed = [0; _];
    let algorithm = match quota.algorithm() {
        Algorithm::FixedWindow => 1,
        Algorithm::SlidingWindow => 2,
        Algorithm::TokenBucket => 3,
        Algorithm::LeakyBucket => 4,
        Algorithm::Concurrency => 5,
    };
    let window = match quota.period() {
        Period::Fixed(window) => window.as_millis().to_be_bytes(),
        // Of which the script makes nothing.
        Period::None => 1000_u64.to_be_bytes(),
        // As a number it is longer than any window may be, so the script looks twice at these only.
        Period::Calendar(calendar) => {
            let [high, low] = calendar.offset().minutes().to_be_bytes();
            [calendar.unit() as u8, high, low, 0, 0, 0, 0, 0]
        }
    };
    let (limit, capacity) = (quota.limit().to_be_bytes(), quota.capacity().to_be_bytes());
    let bytes = [limit, window, capacity].into_iter().flatten();
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
