//! Requests that pass, but later: who goes on when. Ordered by time, bounded, and whoever leaves
//! before that frees the place. It reads no clock and resumes nobody; it knows requests by the
//! proxy's number, and lines by the key of the limit whose turn is waited for.

use std::collections::{BTreeMap, HashMap};

use crate::units::Micros;

/// The most that one worker holds back. A request that waits costs the proxy its stream and what it
/// has buffered of the body, which by default is up to 1 MB.
pub const MOST: usize = 4_096;

/// The proxy's number for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The requests of one worker that are held back.
#[derive(Debug, Default)]
pub struct Delays {
    /// By when they go on; of equal ones the first to come is the first to go.
    waiting: BTreeMap<(Micros, StreamId), Option<Turn>>,
    due: HashMap<StreamId, Micros>,
}

/// A turn in the line of a shaped limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub line: Vec<u8>,
    /// Another limit lets the request go on no earlier, whoever leaves the line before it.
    pub not_before: Micros,
}

impl Delays {
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    /// Holds a request back until it is due.
    pub fn hold(&mut self, stream: StreamId, due: Micros, turn: Option<Turn>) {
        self.due.insert(stream, due);
        self.waiting.insert((due, stream), turn);
    }

    pub fn holds(&self, stream: StreamId) -> bool {
        self.due.contains_key(&stream)
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Micros> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes out one that is due by now.
    pub fn pop(&mut self, now: Micros) -> Option<StreamId> {
        let first = self.waiting.first_entry()?;
        let (due, stream) = *first.key();
        if due > now {
            return None;
        }
        first.remove();
        self.due.remove(&stream);
        Some(stream)
    }

    /// A request has ended; whether it was still held back. Those behind it in its line move up, so
    /// that no turn is spent on somebody who has gone while there is anybody to take it.
    pub fn leave(&mut self, stream: StreamId) -> bool {
        let Some(due) = self.due.remove(&stream) else {
            return false;
        };
        let left = self.waiting.remove(&(due, stream)).flatten();
        if let Some(Turn { line, .. }) = left {
            self.move_up((due, stream), &line);
        }
        true
    }

    /// Gives a turn that became free to the next in line, theirs to the one after, and so on.
    fn move_up(&mut self, (mut free, stream): (Micros, StreamId), line: &[u8]) {
        let behind: Vec<(Micros, StreamId)> = self
            .waiting
            .range((free, stream)..)
            .filter(|(_, turn)| turn.as_ref().is_some_and(|turn| turn.line == line))
            .map(|(place, _)| *place)
            .collect();
        for place in behind {
            let may_move = |turn: &Turn| turn.not_before <= free;
            if let Some(turn) = self.waiting.get(&place)
                && turn.as_ref().is_some_and(may_move)
            {
                let turn = self.waiting.remove(&place).flatten();
                let (due, stream) = place;
                self.hold(stream, free, turn);
                free = due;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> StreamId {
        StreamId(number)
    }

    fn in_line(line: &str) -> Option<Turn> {
        not_before(line, 0)
    }

    fn not_before(line: &str, not_before: u64) -> Option<Turn> {
        Some(Turn {
            line: line.as_bytes().to_vec(),
            not_before: Micros(not_before),
        })
    }

    /// Who goes on when, to the end.
    fn schedule(delays: &mut Delays) -> Vec<(u64, u32)> {
        let mut all = Vec::new();
        while let Some(due) = delays.next() {
            assert_eq!(delays.pop(Micros(due.0 - 1)), None, "not before it is due");
            let StreamId(stream) = delays.pop(due).unwrap();
            all.push((due.0, stream));
        }
        all
    }

    #[test]
    fn everybody_goes_on_when_due_and_equals_in_the_order_they_came() {
        let mut delays = Delays::default();
        for (stream, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            delays.hold(id(stream), Micros(due), None);
        }
        assert_eq!(schedule(&mut delays), [(10, 2), (10, 4), (20, 3), (30, 1)]);
    }

    #[test]
    fn whoever_leaves_is_forgotten_and_nobody_leaves_twice() {
        let mut delays = Delays::default();
        delays.hold(id(1), Micros(10), None);
        delays.hold(id(2), Micros(20), None);
        assert!(delays.leave(id(2)));
        assert!(!delays.leave(id(2)));
        assert_eq!(delays.pop(Micros(10)), Some(id(1)));
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
            delays.hold(id(stream), Micros(due), turn);
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
            delays.hold(id(stream), Micros(due), turn);
        }
        delays.leave(id(1));
        assert_eq!(schedule(&mut delays), [(10, 3), (20, 2), (30, 4)]);
    }

    #[test]
    fn a_worker_holds_back_only_so_many() {
        let mut delays = Delays::default();
        for stream in 0..MOST as u32 {
            assert!(!delays.is_full());
            delays.hold(id(stream), Micros(1), None);
        }
        assert!(delays.is_full());
        delays.leave(id(7));
        assert!(!delays.is_full());
    }
}
