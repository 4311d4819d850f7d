use proptest::prelude::*;

use super::*;
use crate::time::{WorkerInstant, comparisons};

fn id(number: u32) -> StreamId {
    StreamId(number)
}

fn caller(number: u32) -> Subject {
    Subject::User(number.to_be_bytes().to_vec())
}

/// Each is a caller of its own.
fn delay(delays: &mut Delays, stream: u32, due: u64, turn: Option<Turn>) {
    delays.delay(id(stream), caller(stream), WorkerInstant(due), turn);
}

fn in_line(queue: &str) -> Option<Turn> {
    not_before(queue, 0)
}

fn not_before(queue: &str, not_before: u64) -> Option<Turn> {
    Some(Turn {
        queue: queue.as_bytes().to_vec(),
        not_before: WorkerInstant(not_before),
    })
}

/// Who goes on when, to the end.
fn schedule(delays: &mut Delays) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    while let Some(due) = delays.next() {
        assert_eq!(
            delays.pop(WorkerInstant(due.0 - 1)),
            None,
            "not before it is due"
        );
        let StreamId(stream) = delays.pop(due).unwrap();
        all.push((due.0, stream));
    }
    all
}

#[test]
fn everybody_goes_on_when_due_and_equals_in_the_order_they_came() {
    let mut delays = Delays::default();
    for (stream, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        delay(&mut delays, stream, due, None);
    }
    assert_eq!(schedule(&mut delays), [(10, 2), (10, 4), (20, 3), (30, 1)]);
}

#[test]
fn whoever_leaves_is_forgotten_and_nobody_leaves_twice() {
    let mut delays = Delays::default();
    delay(&mut delays, 1, 10, None);
    delay(&mut delays, 2, 20, None);
    assert!(delays.leave(id(2)));
    assert!(!delays.leave(id(2)));
    assert_eq!(delays.pop(WorkerInstant(10)), Some(id(1)));
    assert!(!delays.leave(id(1)), "it went on");
    assert_eq!(delays.next(), None);
}

#[test]
fn those_behind_in_the_line_move_up_and_nobody_else() {
    let mut delays = Delays::default();
    for (stream, due, turn) in [
        (1, 10, in_line("a")),
        (2, 20, in_line("a")),
        (3, 25, in_line("b")),
        (4, 28, None),
        (5, 30, in_line("a")),
        (6, 40, in_line("a")),
    ] {
        delay(&mut delays, stream, due, turn);
    }
    delays.leave(id(2));
    assert_eq!(
        schedule(&mut delays),
        [(10, 1), (20, 5), (25, 3), (28, 4), (30, 6)]
    );
}

#[test]
fn nobody_moves_before_another_limit_lets_them() {
    let mut delays = Delays::default();
    for (stream, due, turn) in [
        (1, 10, in_line("a")),
        (2, 20, not_before("a", 15)),
        (3, 30, not_before("a", 10)),
        (4, 40, not_before("a", 30)),
    ] {
        delay(&mut delays, stream, due, turn);
    }
    delays.leave(id(1));
    assert_eq!(schedule(&mut delays), [(10, 3), (20, 2), (30, 4)]);
}

#[test]
fn who_comes_to_a_line_that_others_left_waits_for_no_turn_of_theirs() {
    let mut delays = Delays::default();
    for (stream, due) in [(1, 10), (2, 20), (3, 30)] {
        delay(&mut delays, stream, due, in_line("a"));
    }
    delays.leave(id(1));
    delay(&mut delays, 4, 30, in_line("a"));
    delays.leave(id(2));
    assert_eq!(schedule(&mut delays), [(10, 3), (20, 4)]);
}

/// Two who asked about the same turn are told of it by a clock that is a little off.
#[test]
fn nobody_who_comes_later_overtakes_those_who_move_up() {
    let mut delays = Delays::default();
    for (stream, due) in [(1, 20), (2, 40)] {
        delay(&mut delays, stream, due, in_line("a"));
    }
    delays.leave(id(1));
    delay(&mut delays, 3, 39, in_line("a"));
    assert_eq!(schedule(&mut delays), [(20, 2), (39, 3)]);
}

#[test]
fn a_turn_that_comes_too_early_for_all_makes_nobody_later() {
    let mut delays = Delays::default();
    for (stream, due, not_before_too) in [(1, 10, 0), (2, 20, 20), (3, 21, 20)] {
        delay(&mut delays, stream, due, not_before("a", not_before_too));
    }
    delays.leave(id(1));
    let mut all = Vec::new();
    while let Some(due) = delays.next() {
        all.extend(delays.pop(due).map(|StreamId(stream)| (due.0, stream)));
    }
    assert_eq!(all, [(20, 2), (21, 3)]);
}

#[test]
fn a_worker_holds_back_only_so_many() {
    let mut delays = Delays::default();
    let mut callers = 0..;
    while delays.held.len() < MOST {
        let number = callers.next().unwrap();
        assert!(delays.has_room(&caller(number)), "a newcomer finds a place");
        delay(&mut delays, number, 1, None);
    }
    assert!(!delays.has_room(&caller(MOST as u32)));
    delays.leave(id(7));
    assert!(delays.has_room(&caller(MOST as u32)));
}

/// All that these callers can hold, each of them as greedy as the others.
fn crowd(delays: &mut Delays, callers: u32) {
    let mut streams = 1..;
    loop {
        let before = delays.held.len();
        for number in 0..callers {
            if delays.has_room(&caller(number)) {
                let stream = id(streams.next().unwrap());
                delays.delay(stream, caller(number), WorkerInstant(1), in_line("a"));
            }
        }
        if delays.held.len() == before {
            return;
        }
    }
}

/// One took all places of a worker, and nobody else's turn came.
#[test]
fn a_caller_has_a_share_of_the_places_that_is_smaller_the_more_want_one() {
    for (callers, each) in [(1, 455), (2, 409), (8, 256), (64, 57), (1000, 5)] {
        let mut delays = Delays::default();
        crowd(&mut delays, callers);
        let most = delays.callers.values().max().unwrap();
        assert_eq!(*most, each, "{callers} callers");
        assert!(delays.has_room(&Subject::Address(None)), "{callers}");
    }
}

#[test]
fn who_leaves_or_goes_on_frees_the_place() {
    let mut delays = Delays::default();
    crowd(&mut delays, 1);
    assert!(!delays.has_room(&caller(0)));
    delays.leave(id(1));
    assert!(delays.has_room(&caller(0)));
    crowd(&mut delays, 1);
    delays.pop(WorkerInstant(1));
    assert!(delays.has_room(&caller(0)));
    while delays.pop(WorkerInstant(1)).is_some() {}
    assert!(delays.callers.is_empty() && delays.held.is_empty());
    assert!(delays.queues.is_empty());
}

/// Each end is an event of its own, and all of 8,000 come at once. Those behind were moved up one by
/// one, which stopped a worker for seconds.
#[test]
fn the_end_of_one_costs_no_more_than_finding_it_however_many_wait() {
    for few in [false, true] {
        let mut worst = 0;
        let mut delays = Delays::default();
        let waiting = if few { 100 } else { 10_000 };
        for stream in 0..waiting {
            delay(&mut delays, stream, stream.into(), in_line("a"));
        }
        for stream in 0..waiting {
            let steps = comparisons::during(|| assert!(delays.leave(id(stream))));
            worst = worst.max(steps);
        }
        // A tree of 10,000 is four levels of at most eleven.
        assert!(worst <= if few { 80 } else { 160 }, "{worst} of {waiting}");
    }
}

#[test]
fn one_that_goes_on_costs_no_more_than_finding_it_however_many_wait() {
    let mut delays = Delays::default();
    let own = |stream: u32| u64::from(stream);
    for stream in 0..20_000 {
        delay(
            &mut delays,
            stream,
            own(stream),
            not_before("a", own(stream) / 2),
        );
    }
    (0..10_000).for_each(|stream| assert!(delays.leave(id(stream))));
    let mut gone = 0;
    for now in (0..20_000).map(WorkerInstant) {
        let steps = comparisons::during(|| gone += usize::from(delays.pop(now).is_some()));
        assert!(steps <= 400, "{steps} at {now:?}");
    }
    assert_eq!(gone, 10_000);
}

/// The plain statement: who leaves takes the last turn along.
fn plain_schedule(comes: &[u64], leaves: &[usize]) -> Vec<(u64, u32)> {
    let mut queue: Vec<(u64, u32)> = comes.iter().copied().zip(0..).collect();
    queue.sort_unstable();
    let turns: Vec<u64> = queue.iter().map(|(due, _)| *due).collect();
    queue.retain(|(_, stream)| !leaves.contains(&(*stream as usize)));
    let streams = queue.into_iter().map(|(_, stream)| stream);
    turns.into_iter().zip(streams).collect()
}

proptest! {
    #[test]
    fn a_line_without_some_is_the_line_of_the_others(
        mut comes in proptest::collection::vec(1_u64..500, 1..60),
        leaves in proptest::collection::btree_set(0_usize..60, 0..40),
    ) {
        comes.sort_unstable();
        let mut delays = Delays::default();
        for (stream, due) in comes.iter().enumerate() {
            delay(&mut delays, stream as u32, *due, in_line("a"));
        }
        let leaves: Vec<usize> = leaves.into_iter().collect();
        for &stream in &leaves {
            prop_assert_eq!(delays.leave(id(stream as u32)), stream < comes.len());
        }
        prop_assert_eq!(schedule(&mut delays), plain_schedule(&comes, &leaves));
    }

    /// Whatever leaves when, and whatever else delays them.
    #[test]
    fn everybody_who_stays_goes_on_when_told_or_earlier_but_not_too_early(
        comes in proptest::collection::vec((1_u64..300, 0_u64..300, 0_u64..600), 1..80),
    ) {
        let mut delays = Delays::default();
        // An own due is never before what another limit says.
        let bounds: Vec<u64> = comes.iter().map(|&(due, bound, _)| bound.min(due)).collect();
        for (stream, &(due, ..)) in comes.iter().enumerate() {
            delay(&mut delays, stream as u32, due, not_before("a", bounds[stream]));
        }
        let mut gone = vec![None; comes.len()];
        for now in 1..1_000 {
            for (stream, &(.., leaves)) in comes.iter().enumerate() {
                if leaves == now {
                    delays.leave(id(stream as u32));
                }
            }
            while let Some(StreamId(stream)) = delays.pop(WorkerInstant(now)) {
                gone[stream as usize] = Some(now);
            }
        }
        for (stream, &(due, _, leaves)) in comes.iter().enumerate() {
            match gone[stream] {
                Some(at) => prop_assert!(bounds[stream] <= at && at <= due, "{stream} at {at}"),
                None => prop_assert!((1..=due).contains(&leaves), "{stream} was forgotten"),
            }
        }
        prop_assert!(delays.agenda.is_empty() && delays.queues.is_empty());
    }
}
