//! Who holds a connection, and for how long. A stranger has not shown the secret: it has seconds,
//! and a place among few, which the oldest must leave when another comes. Who has shown it holds one
//! of the places that --max-connections counts, so strangers cannot use those up. What is asked, and
//! what the secret is, `server` knows.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::listen::Stream;

/// How long a stranger is safe when another comes: a limiter sends its first head together with
/// the connection, so a round trip and a busy machine fit.
const GRACE: Duration = Duration::from_millis(250);

/// How often a connection is held to its time.
const LOOK: Duration = Duration::from_millis(250);

/// How often the log tells that strangers were sent away.
const TELL: Duration = Duration::from_secs(60);

/// How many strangers there may be, and how long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All workers of a large fleet come at once after a restart, and each is a stranger until its
    /// first head was read.
    pub strangers: usize,
    /// To show the secret, from the first byte on, whatever is sent meanwhile.
    pub stranger: Duration,
    /// For a request's head, from its first byte.
    pub head: Duration,
    /// For a request's body, which the limiter writes in one piece.
    pub body: Duration,
    /// To read on, while an answer waits to be written.
    pub write: Duration,
    /// Between two requests. Envoy lets go of an idle connection after an hour: were we first, a
    /// request could cross with our close.
    pub idle: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        const SECONDS: Duration = Duration::from_secs(5);
        Bounds {
            strangers: 512,
            stranger: SECONDS,
            head: SECONDS,
            body: SECONDS,
            write: SECONDS,
            idle: Duration::from_secs(65 * 60),
        }
    }
}

/// Lets connections in.
pub struct Door {
    bounds: Bounds,
    strangers: Mutex<Strangers>,
    /// A stranger went, or is none any more.
    fewer: Notify,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Strangers {
    /// By number, so the oldest is the first.
    present: BTreeMap<u64, Arc<Visit>>,
    next: u64,
    /// When the log was last told of those sent away, and how many went since.
    told: Option<Instant>,
    sent_away: u64,
}

/// A connection.
pub struct Visit {
    number: u64,
    since: Instant,
    state: Mutex<State>,
    sent_away: Notify,
}

struct State {
    doing: Doing,
    /// Since when the client does not read its answer.
    stalled: Option<Instant>,
    /// None for a stranger.
    place: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy)]
enum Doing {
    Idle(Instant),
    Head(Instant),
    /// A request's body, and what is asked of Redis for it, have clocks of their own.
    Request,
}

/// A visit that ends when dropped.
pub struct Stay {
    door: Arc<Door>,
    pub visit: Arc<Visit>,
}

/// A connection's bytes, of which the visit is told.
pub struct Watched {
    stream: Box<dyn Stream>,
    visit: Arc<Visit>,
}

// === impl Door ===

impl Door {
    pub fn new(places: usize, bounds: Bounds) -> Arc<Door> {
        Arc::new(Door {
            bounds,
            strangers: Mutex::default(),
            fewer: Notify::new(),
            places: Arc::new(Semaphore::new(places)),
        })
    }

    /// Lets a stranger in, once there is room for one more.
    pub async fn enter(self: &Arc<Door>) -> Stay {
        while let Some(oldest) = self.oldest_if_full() {
            let age = oldest.since.elapsed();
            if age >= GRACE {
                self.send_away(&oldest);
            } else {
                let _ = timeout(GRACE - age, self.fewer.notified()).await;
            }
        }
        let mut strangers = lock(&self.strangers);
        let now = Instant::now();
        let visit = Arc::new(Visit {
            number: strangers.next,
            since: now,
            state: Mutex::new(State {
                doing: Doing::Idle(now),
                stalled: None,
                place: None,
            }),
            sent_away: Notify::new(),
        });
        strangers.next += 1;
        strangers.present.insert(visit.number, visit.clone());
        Stay {
            door: self.clone(),
            visit,
        }
    }

    /// Gives up the stranger that has been here for longest: the system has no room for another.
    pub fn make_room(&self) {
        let oldest = lock(&self.strangers).present.values().next().cloned();
        if let Some(oldest) = oldest {
            self.send_away(&oldest);
        }
    }

    fn oldest_if_full(&self) -> Option<Arc<Visit>> {
        let strangers = lock(&self.strangers);
        let is_full = strangers.present.len() >= self.bounds.strangers;
        strangers
            .present
            .values()
            .next()
            .filter(|_| is_full)
            .cloned()
    }

    fn send_away(&self, visit: &Visit) {
        visit.sent_away.notify_one();
        let mut strangers = lock(&self.strangers);
        if strangers.present.remove(&visit.number).is_none() {
            return;
        }
        strangers.sent_away += 1;
        if strangers.told.is_none_or(|told| told.elapsed() >= TELL) {
            let count = strangers.sent_away;
            eprintln!(
                "weir-sidecar: {count} connections that had sent no command were closed to make \
                 room for others; who opens so many?"
            );
            strangers.told = Some(Instant::now());
            strangers.sent_away = 0;
        }
    }

    /// Whoever showed the secret is no stranger any more, once one of the places is free.
    pub async fn seat(&self, visit: &Visit) {
        if visit.is_seated() {
            return;
        }
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        visit.state().place = place;
        self.forget(visit);
    }

    fn forget(&self, visit: &Visit) {
        lock(&self.strangers).present.remove(&visit.number);
        self.fewer.notify_one();
    }

    /// Returns when the connection is to be closed.
    pub async fn has_overstayed(&self, visit: &Visit) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = visit.sent_away.notified() => return,
                _ = look.tick() => {}
            }
            if visit.ends(&self.bounds) <= Instant::now() {
                return;
            }
        }
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

// === impl Visit ===

impl Visit {
    pub fn is_seated(&self) -> bool {
        self.state().place.is_some()
    }

    /// A head has been read.
    pub fn begins(&self) {
        self.state().doing = Doing::Request;
    }

    /// An answer is there to be written.
    pub fn answered(&self) {
        self.state().doing = Doing::Idle(Instant::now());
    }

    fn heard(&self) {
        let mut state = self.state();
        if let Doing::Idle(_) = state.doing {
            state.doing = Doing::Head(Instant::now());
        }
    }

    fn ends(&self, bounds: &Bounds) -> Instant {
        let state = self.state();
        let stalled = state.stalled.map(|since| since + bounds.write);
        let own = match (&state.place, state.doing) {
            (None, _) => Some(self.since + bounds.stranger),
            (Some(_), Doing::Idle(since)) => Some(since + bounds.idle),
            (Some(_), Doing::Head(since)) => Some(since + bounds.head),
            (Some(_), Doing::Request) => None,
        };
        let far = Instant::now() + bounds.idle;
        own.into_iter().chain(stalled).min().unwrap_or(far)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

// === impl Stay ===

impl Stay {
    pub fn watch(&self, stream: Box<dyn Stream>) -> Watched {
        Watched {
            stream,
            visit: self.visit.clone(),
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.door.forget(&self.visit);
        self.visit.state().place = None;
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.visit.heard();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let mut state = self.visit.state();
        state.stalled = match written {
            Poll::Pending => Some(state.stalled.unwrap_or_else(Instant::now)),
            Poll::Ready(_) => None,
        };
        drop(state);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Nothing panics while it holds one of these locks, and no lock is held across an await.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
