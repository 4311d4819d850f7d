//! Which workers a process has: a list that they share, in which each has a seat that is marked by its
//! configuration. What workers share is named by seats, and who goes leaves the seat to the next. The
//! host's shared data knows no deletion: a proxy whose configuration changes for years would keep
//! names for each worker that it ever had. Here are bytes only; it shares nothing itself.

/// A worker's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(pub u32);

/// What marks the seats of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family([u8; SIZE]);

/// Whether others of the same configuration are seated already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Alone,
    Among,
}

const SIZE: usize = 8;
const FREE: [u8; SIZE] = [0; SIZE];

impl Family {
    /// Of a configuration's SHA-256, in hexadecimal.
    pub fn of(configuration: &str) -> Family {
        let mut mark = FREE;
        for (byte, digit) in mark.iter_mut().zip(configuration.bytes()) {
            *byte = digit;
        }
        Family(mark)
    }
}

/// The list with one more worker; its seat, and whether it is the first of its configuration.
pub fn taken(list: &[u8], family: Family) -> (Vec<u8>, Seat, Company) {
    let company = company(list, family);
    let marks = || list.chunks_exact(SIZE);
    let place = marks().position(|mark| mark == FREE);
    let place = place.unwrap_or(marks().len());
    (
        marked(list, place, family.0),
        Seat(u32::try_from(place).unwrap_or(u32::MAX)),
        company,
    )
}

/// The list without this worker.
pub fn left(list: &[u8], Seat(seat): Seat) -> Vec<u8> {
    let mut list = marked(list, seat as usize, FREE);
    while list.ends_with(&FREE) {
        list.truncate(list.len() - SIZE);
    }
    list
}

/// Whether anybody of this configuration has a seat.
pub fn company(list: &[u8], family: Family) -> Company {
    match of(list, family).next() {
        None => Company::Alone,
        Some(_) => Company::Among,
    }
}

/// The seats of one configuration.
pub fn of(list: &[u8], Family(family): Family) -> impl DoubleEndedIterator<Item = Seat> {
    let seats = (0..).map(Seat).zip(list.chunks_exact(SIZE));
    let seats: Vec<Seat> = seats
        .filter(|(_, mark)| **mark == family)
        .map(|(seat, _)| seat)
        .collect();
    seats.into_iter()
}

fn marked(list: &[u8], place: usize, mark: [u8; SIZE]) -> Vec<u8> {
    let mut marks: Vec<[u8; SIZE]> = list
        .chunks_exact(SIZE)
        .filter_map(|mark| mark.try_into().ok())
        .collect();
    match marks.get_mut(place) {
        Some(own) => *own = mark,
        None => marks.push(mark),
    }
    marks.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str) -> Family {
        Family::of(name)
    }

    fn seats(list: &[u8], name: &str) -> Vec<u32> {
        of(list, family(name)).map(|Seat(seat)| seat).collect()
    }

    #[test]
    fn each_worker_has_a_seat_of_its_own_and_the_first_of_a_configuration_knows_it() {
        let mut list = Vec::new();
        let mut told = Vec::new();
        for name in ["0a1b2c3d4e", "0a1b2c3d4e", "ffffffffff", "0a1b2c3d4e"] {
            let (next, Seat(seat), company) = taken(&list, family(name));
            list = next;
            told.push((seat, company));
        }
        assert_eq!(
            told,
            [
                (0, Company::Alone),
                (1, Company::Among),
                (2, Company::Alone),
                (3, Company::Among)
            ]
        );
        assert_eq!(seats(&list, "0a1b2c3d4e"), [0, 1, 3]);
        assert_eq!(seats(&list, "ffffffffff"), [2]);
    }

    #[test]
    fn who_goes_leaves_the_seat_to_the_next() {
        let (list, ..) = taken(&[], family("one"));
        let (list, ..) = taken(&list, family("two"));
        let list = left(&list, Seat(0));
        assert!(seats(&list, "one").is_empty());
        let (list, seat, company) = taken(&list, family("three"));
        assert_eq!((seat, company), (Seat(0), Company::Alone));
        assert!(left(&left(&list, Seat(0)), Seat(1)).is_empty());
    }

    /// Five hundred listener updates, each of which begins before the one before it has drained.
    #[test]
    fn the_list_is_as_long_as_there_were_workers_at_one_time() {
        let (mut list, mut before) = (Vec::new(), Vec::<Seat>::new());
        for update in 0..500 {
            let own = family(&format!("{update:08x}"));
            let mut seated = Vec::new();
            for _ in 0..3 {
                let (next, seat, _) = taken(&list, own);
                list = next;
                seated.push(seat);
            }
            for seat in std::mem::replace(&mut before, seated) {
                list = left(&list, seat);
            }
            assert!(list.len() <= 6 * SIZE, "{update}");
        }
    }

    #[test]
    fn any_bytes_can_be_read() {
        for length in 0..20 {
            let list = vec![7; length];
            let (list, Seat(seat), _) = taken(&list, family("x"));
            assert_eq!(seats(&list, "x"), [seat]);
        }
        left(&[1, 2, 3], Seat(9));
    }
}
