//! A steady load: requests at a constant rate from callers that each have a connection of their own,
//! and what became of every one of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::client::{Answer, Client};

/// A load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    callers: Vec<JoinHandle<()>>,
}

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: u64,
    /// How many ask at once, when answers are slow.
    pub callers: u64,
}

impl Rate {
    /// How many are asked in a time.
    pub fn within(self, time: Duration) -> usize {
        let requests = time.as_millis() * u128::from(self.per_second) / 1000;
        usize::try_from(requests).unwrap_or(usize::MAX)
    }
}

/// What is asked: by the request's number, a path and a user.
pub type Ask = Arc<dyn Fn(u64) -> (&'static str, String) + Send + Sync>;

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub path: &'static str,
    pub user: String,
    pub at: Instant,
    pub took: Duration,
    /// Nothing where the connection failed.
    pub answer: Option<Answer>,
}

impl Load {
    pub fn start(client: impl Fn() -> Client, rate: Rate, ask: &Ask) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let next = Arc::new(AtomicU64::new(0));
        let pace = Duration::from_secs(rate.callers) / u32::try_from(rate.per_second).unwrap_or(1);
        let stagger = pace / u32::try_from(rate.callers).unwrap_or(1);
        let callers = (0..u32::try_from(rate.callers).unwrap_or(1)).map(|caller| {
            let (stop, samples, next) = (stop.clone(), samples.clone(), next.clone());
            let ask = ask.clone();
            let client = client();
            let mut due = Instant::now() + stagger * caller;
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let sample = one(&client, ask(next.fetch_add(1, Ordering::Relaxed)));
                    samples
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(sample);
                    // Whoever was held up does not make up for it by a burst.
                    due = (due + pace).max(Instant::now());
                }
            })
        });
        Self {
            callers: callers.collect(),
            stop,
            samples,
        }
    }

    /// Looks at what has been answered so far, in the order of the answers.
    pub fn look<T>(&self, look: impl FnOnce(&[Sample]) -> T) -> T {
        look(&self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that was asked, in the order of the answers.
    pub fn stop(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            // A caller that panicked has its message on the terminal.
            let _ = caller.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn one(client: &Client, (path, user): (&'static str, String)) -> Sample {
    let at = Instant::now();
    let answer = client.get(path).header("X-User-ID", &user).send().ok();
    Sample {
        path,
        user,
        at,
        took: at.elapsed(),
        answer,
    }
}

impl Sample {
    /// The answer's status; 0 where there was no answer.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.answer.as_ref()?.header(name)
    }
}
