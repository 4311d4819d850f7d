//! Where a key lives: its Redis Cluster hash slot, and the lane of slots that it is asked through.
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Hash tags".

use crc::{CRC_16_XMODEM, Crc, Table};

/// Keys of one slot can be named in one script call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// A contiguous range of slots with its own calls in flight and its own breaker, so that a shard
/// that is gone delays those who need it and nobody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub usize);

/// How Redis is spread, which decides what can be asked in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One primary: every key in one call, all or nothing.
    Single,
    /// Many: one call for each slot, and what a refused request took elsewhere is refunded.
    Cluster,
}

/// How many there are.
pub const SLOTS: u16 = 16_384;
/// Enough that a shard's range does not fill many more lanes than it must, few enough that lanes
/// still gather batches: with k shards, at most k − 1 of these lanes touch two.
const CLUSTER_LANES: usize = 16;

const CRC: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_XMODEM);

impl Slot {
    pub fn of(key: &[u8]) -> Slot {
        Slot(CRC.checksum(tag(key)) % SLOTS)
    }

    fn lane(self) -> Lane {
        Lane(usize::from(self.0) * CLUSTER_LANES / usize::from(SLOTS))
    }
}

impl Topology {
    pub fn lanes(self) -> usize {
        match self {
            Topology::Single => 1,
            Topology::Cluster => CLUSTER_LANES,
        }
    }

    /// The slot to group a key by, and its lane.
    pub fn place(self, key: &[u8]) -> (Slot, Lane) {
        match self {
            Topology::Single => (Slot(0), Lane(0)),
            Topology::Cluster => {
                let slot = Slot::of(key);
                (slot, slot.lane())
            }
        }
    }
}

/// What lies between the first `{` and the next `}`, unless that is nothing.
fn tag(key: &[u8]) -> &[u8] {
    let inside = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    };
    inside().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As told by CLUSTER KEYSLOT.
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("x{foo}{bar}", 12182),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("", 0),
        ] {
            assert_eq!(Slot::of(key.as_bytes()), Slot(slot), "{key}");
        }
    }

    #[test]
    fn lanes_are_ranges_of_slots() {
        assert_eq!(Slot(0).lane(), Lane(0));
        assert_eq!(Slot(1023).lane(), Lane(0));
        assert_eq!(Slot(1024).lane(), Lane(1));
        assert_eq!(Slot(16_383).lane(), Lane(CLUSTER_LANES - 1));
    }
}
