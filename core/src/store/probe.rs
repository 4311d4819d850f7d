//! The key that a half-open breaker probes the store with.

/// The key of what looks whether the store takes again, in the slot of this key of Weir's: its first
/// part, whatever stands before the hash tag. No limit has it, for a rule's name is followed by more.
pub fn of_probe(key: &[u8]) -> Vec<u8> {
    let slot = key.split_inclusive(|byte| *byte == b'}').next();
    let mut probe = slot.unwrap_or_default().to_vec();
    probe.extend_from_slice(b":probe");
    probe
}
