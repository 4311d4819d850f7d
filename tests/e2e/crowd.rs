//! Many clients at once.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use weir_lab::{client::Answer, gateway::Gateway};

use crate::visitor::Visitor;

/// What `each` gives for every client, all of whom begin together.
pub fn rush<T: Send>(clients: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(clients);
    let (start, each) = (&start, &each);
    thread::scope(|scope| {
        let begin = |client| {
            scope.spawn(move || {
                start.wait();
                each(client)
            })
        };
        let running: Vec<_> = (0..clients).map(begin).collect();
        running
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    })
}

/// An answer and how long it took.
#[derive(Clone)]
pub struct Timed {
    pub answer: Answer,
    pub took: Duration,
}

/// Clients that ask for `path` again and again while `meanwhile` runs, each on a connection of its
/// own; at least once each.
pub fn traffic(
    gateway: &Gateway,
    visitor: &Visitor,
    path: &str,
    clients: usize,
    meanwhile: impl FnOnce(),
) -> Vec<Timed> {
    let over = AtomicBool::new(false);
    let ask = || {
        let visitor = visitor.apart(gateway);
        let mut answers = Vec::new();
        loop {
            answers.push(timed(|| visitor.get(path)));
            if over.load(Ordering::Relaxed) {
                return answers;
            }
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        // Whatever becomes of it, the clients must come to an end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        let answers = running
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answers
    })
}

pub fn timed(ask: impl FnOnce() -> Answer) -> Timed {
    let start = Instant::now();
    let answer = ask();
    Timed {
        answer,
        took: start.elapsed(),
    }
}
