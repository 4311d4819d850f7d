//! What the workers of a process do with the bytes that they share: change them, claim them, count by
//! them. It does not know what the bytes mean.

use super::host::{Host, SharedState};
use super::seats::{self, Company, Family, Seat};

/// The list of the process's workers, whatever their namespaces.
pub const SEATS: &str = "weir.seats";

/// More tries than there are workers that could come between.
const TRIES: usize = 10_000;

/// Puts what `change` makes of the shared bytes in their place, unless that is nothing. Tells whether
/// it did. Where another worker comes between, `change` is called again.
pub fn update(
    host: &impl Host,
    name: &str,
    mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> bool {
    for _ in 0..TRIES {
        let (before, state) = host.read_shared(name);
        let Some(after) = change(&before.unwrap_or_default()) else {
            return false;
        };
        if host.write_shared(name, &after, state).is_ok() {
            return true;
        }
    }
    false
}

/// Whether no worker has claimed just this before. The last claim is remembered.
pub fn claim(host: &impl Host, name: &str, what: &[u8]) -> bool {
    update(host, name, |before| (before != what).then(|| what.to_vec()))
}

/// Takes a seat in the list of the process's workers.
pub fn take_seat(host: &impl Host, family: Family) -> (Seat, Company) {
    let mut seated = (Seat(u32::MAX), Company::Among);
    update(host, SEATS, |before| {
        let (list, seat, company) = seats::taken(before, family);
        seated = (seat, company);
        Some(list)
    });
    seated
}

/// Leaves it; whether others of the family stay.
pub fn leave_seat(host: &impl Host, family: Family, seat: Seat) -> Company {
    let mut company = Company::Among;
    update(host, SEATS, |before| {
        let list = seats::left(before, seat);
        company = seats::company(&list, family);
        Some(list)
    });
    company
}

pub fn read(host: &impl Host, name: &str) -> Option<Vec<u8>> {
    host.read_shared(name).0
}

/// Shares bytes under a name that no other worker writes to.
pub fn write(host: &impl Host, name: &str, bytes: &[u8]) {
    // A proxy without shared data has nobody to share with.
    let _ = host.write_shared(name, bytes, SharedState::Any);
}

/// What stands under a name, once somebody has said it first. It stays.
pub fn settle(host: &impl Host, name: &str, own: &[u8]) -> Vec<u8> {
    update(host, name, |first| first.is_empty().then(|| own.to_vec()));
    read(host, name).unwrap_or_else(|| own.to_vec())
}
