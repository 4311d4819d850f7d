//! Requests that pass, but later: who goes on when. Ordered by time, bounded, no caller may have all
//! of the places, and whoever leaves before that frees the place. It reads no clock and resumes
//! nobody; it knows requests by the proxy's number, and queues by the key of the limit whose turn is
//! waited for.
//!
//! A queue is its requests in order and as many turns: when a turn comes, the first request takes it.
//! Who leaves takes the last turn along, which moves up everybody behind and touches nobody else. A
//! client may leave with all of its requests at once, and the proxy tells the end of each apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::request::subject::Subject;
use crate::time::WorkerInstant;

/// The most that one worker delays. A request that waits costs the proxy its stream and what it
/// has buffered of the body, which by default is up to 1 MB.
pub const MOST: usize = 4_096;
/// A caller may have so many parts of the places that are free. One alone gets a ninth of all; 8 who
/// take what they can leave half to the others, 100 leave 300. So the share needs no knowledge of
/// how many callers there are, and a newcomer always finds a place.
const SHARES: usize = 8;
/// How many of a queue are looked at for one that may take a turn. All may, unless another limit delays
/// them longer.
const MOST_LOOKS: usize = 16;

/// The proxy's number for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The requests of one worker that are delayed.
#[derive(Debug, Default)]
pub struct Delays {
    agenda: BTreeMap<Place, Event>,
    held: HashMap<StreamId, Delayed>,
    queues: HashMap<Rc<[u8]>, Queue>,
    /// How many each caller has waiting.
    callers: HashMap<Subject, usize>,
    /// How many have come; of those that are due at once the first to come is the first to go.
    came: u64,
}

/// When something is due, and a number of its own.
type Place = (WorkerInstant, u64);

/// A request goes on. Where it has gone before, its turn is for the next in this queue.
#[derive(Debug)]
struct Event {
    stream: StreamId,
    queue: Option<Rc<[u8]>>,
}

#[derive(Debug)]
struct Delayed {
    caller: Subject,
    place: Place,
    queue: Option<Rc<[u8]>>,
}

/// Those who wait for the turns of one limit. Each comes with a turn of its own, and goes on with it
/// at the latest.
#[derive(Debug, Default)]
struct Queue {
    /// By the numbers that they came with: who came later may be told an earlier turn, by a
    /// millisecond, and would overtake those who are to move up.
    requests: BTreeMap<u64, Waiting>,
    /// No more than requests.
    turns: BTreeSet<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    stream: StreamId,
    place: Place,
    not_before: WorkerInstant,
}

/// A turn in the queue of a shaped limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub queue: Vec<u8>,
    /// Another limit lets the request go on no earlier, whoever leaves the queue before it.
    pub not_before: WorkerInstant,
}

impl Delays {
    /// Whether one more request of this caller may wait.
    pub fn has_room(&self, caller: &Subject) -> bool {
        let free = MOST.saturating_sub(self.held.len());
        let own = self.callers.get(caller).copied().unwrap_or(0);
        free > 0 && own < (free / SHARES).max(1)
    }

    /// Delays a request until it is due.
    pub fn delay(
        &mut self,
        stream: StreamId,
        caller: Subject,
        due: WorkerInstant,
        turn: Option<Turn>,
    ) {
        self.came += 1;
        let place = (due, self.came);
        let queue = turn.map(|Turn { queue, not_before }| {
            let name = match self.queues.get_key_value(queue.as_slice()) {
                Some((name, _)) => name.clone(),
                None => Rc::from(queue),
            };
            let queue = self.queues.entry(name.clone()).or_default();
            let waiting = Waiting {
                stream,
                place,
                not_before,
            };
            queue.requests.insert(self.came, waiting);
            queue.turns.insert(place);
            name
        });
        *self.callers.entry(caller.clone()).or_default() += 1;
        let event = Event {
            stream,
            queue: queue.clone(),
        };
        self.agenda.insert(place, event);
        let held = Delayed {
            caller,
            place,
            queue,
        };
        self.held.insert(stream, held);
    }

    pub fn holds(&self, stream: StreamId) -> bool {
        self.held.contains_key(&stream)
    }

    /// When the next is due.
    pub fn next(&self) -> Option<WorkerInstant> {
        self.agenda.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes out one that is due by now.
    pub fn pop(&mut self, now: WorkerInstant) -> Option<StreamId> {
        loop {
            let first = self.agenda.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            let (place, event) = first.remove_entry();
            let stream = match event.queue {
                None => Some(event.stream),
                Some(name) => self.take_turn(&name, place, now),
            };
            if let Some(stream) = stream {
                self.forget(stream);
                return Some(stream);
            }
        }
    }

    /// Who goes on now that this place has come: whose own it is, or the first that may, if it is a
    /// turn.
    fn take_turn(&mut self, name: &Rc<[u8]>, place: Place, now: WorkerInstant) -> Option<StreamId> {
        let queue = self.queues.get_mut(name)?;
        let is_turn = queue.turns.remove(&place);
        let place = if queue.requests.contains_key(&place.1) {
            place
        } else if is_turn {
            let mut looks = queue.requests.values().take(MOST_LOOKS);
            looks.find(|waiting| waiting.not_before <= now)?.place
        } else {
            return None;
        };
        let Waiting { stream, .. } = self.quit(name, place)?;
        Some(stream)
    }

    /// A request has ended; whether it was still delayed. Those behind it in its queue move up, so
    /// that no turn is spent on somebody who has gone while there is anybody to take it.
    pub fn leave(&mut self, stream: StreamId) -> bool {
        let Some(Delayed { place, queue, .. }) = self.forget(stream) else {
            return false;
        };
        match queue {
            None => {
                self.agenda.remove(&place);
            }
            Some(name) => {
                self.quit(&name, place);
            }
        }
        true
    }

    /// One is in its queue no more; nor is the last turn, if nobody is left for it.
    fn quit(&mut self, name: &Rc<[u8]>, place: Place) -> Option<Waiting> {
        let queue = self.queues.get_mut(name)?;
        let gone = queue.requests.remove(&place.1);
        if !queue.turns.contains(&place) {
            self.agenda.remove(&place);
        }
        if queue.turns.len() > queue.requests.len()
            && let Some(last) = queue.turns.pop_last()
            && !queue.requests.contains_key(&last.1)
        {
            self.agenda.remove(&last);
        }
        if queue.requests.is_empty() {
            self.queues.remove(name);
        }
        gone
    }

    fn forget(&mut self, stream: StreamId) -> Option<Delayed> {
        let held = self.held.remove(&stream)?;
        if let Some(count) = self.callers.get_mut(&held.caller) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&held.caller);
            }
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests;
