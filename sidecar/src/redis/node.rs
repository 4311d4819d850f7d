//! One node of Redis: a connection that all requests share, opened again whenever it breaks.
//! Bytes in, bytes out: what Redis says reaches the caller unchanged, or the caller is told that
//! nothing did. No command is ever sent twice from here, because it may have run.
//!
//! A connection whose server says what it would say for ever (a primary that was demoted says
//! READONLY) is left for another, which may lead elsewhere: to the primary that took over its address.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use weir_core::codec::resp::Replies;
use weir_core::observe::notice::Notice;
use weir_core::store::error::ErrorClass;
use weir_core::store::wire::MAX_BODY;

use super::address::Address;
use super::dial::{Dial, Stream};

/// How many pipelines may wait to be written. They wait only while Redis does not read.
const QUEUE: usize = 1024;

/// Where one write ends even if more is waiting, in bytes.
const WRITE: usize = 64 << 10;

/// How often an idle connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_millis(500);

/// How old the last PONG of a healthy node can be: one may be under way, and one late.
const PONG_FRESH: Duration = Duration::from_millis(1500);

/// A connection whose oldest command has waited for this long is given up: longer than Redis is
/// blocked by a fork or a slow command, and twice the longest timeout of a request.
const HUNG: Duration = Duration::from_secs(1);

/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// The least time from leaving a connection for what it answers to leaving the next one so: a failover
/// is not waited for any longer, and a server that means what it says is not dialled all the time.
const LEAVE_EVERY: Duration = Duration::from_secs(1);

/// How often the log tells of the same reason to leave.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A node. Dropping it closes its connection.
pub struct Node {
    pub address: Address,
    queue: mpsc::Sender<Pipeline>,
    pulse: Arc<Mutex<Option<Instant>>>,
}

/// Why there is no reply. Whether the commands ran is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// Not in time.
    Timeout,
    /// There is no connection, or it broke; with the reason.
    Unreachable(Arc<str>),
}

/// Commands that are written in one piece.
struct Pipeline {
    commands: Vec<Bytes>,
    answer: oneshot::Sender<Result<Vec<Bytes>, NoReply>>,
}

/// Commands that were written, waiting for `lacking` more replies.
struct Pending {
    since: Instant,
    lacking: usize,
    replies: Vec<Bytes>,
    asker: Asker,
}

enum Asker {
    Request(oneshot::Sender<Result<Vec<Bytes>, NoReply>>),
    Ourselves,
}

struct Connection<'a> {
    pending: Mutex<VecDeque<Pending>>,
    pulse: &'a Mutex<Option<Instant>>,
    /// From when on it may be left for what it answers.
    may_leave: Instant,
    /// The error that it is being left for: it is sent nothing more, and what is pending is answered.
    leaving: Mutex<Option<String>>,
    leaves: Notify,
}

/// Why a connection ended.
enum End {
    /// The node was dropped.
    Unwanted,
    Broken(io::Error),
    /// It answers this, and would go on to.
    Left(String),
}

/// When connections were left for what they answered, and what the log was told of it.
#[derive(Default)]
struct Leavings {
    last: Option<Instant>,
    told: Option<(ErrorClass, Instant)>,
}

impl Node {
    /// A node that connects by itself, now and whenever it must.
    pub fn spawn(address: Address, dial: Arc<Dial>) -> Node {
        let (queue, requests) = mpsc::channel(QUEUE);
        let pulse = Arc::new(Mutex::new(None));
        tokio::spawn(keep_connected(
            address.clone(),
            dial,
            requests,
            pulse.clone(),
        ));
        Node {
            address,
            queue,
            pulse,
        }
    }

    /// One reply for each command, in order. What has not been written by the deadline never is.
    pub async fn ask(
        &self,
        commands: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Vec<Bytes>, NoReply> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            // A node's task lives as long as the node.
            let _ = self.queue.send(Pipeline { commands, answer }).await;
            answered.await
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NoReply::Unreachable("the connection broke".into())),
            Err(_) => Err(NoReply::Timeout),
        }
    }

    /// Whether a PING was answered lately.
    pub fn is_alive(&self) -> bool {
        let pulse = *lock(&self.pulse);
        pulse.is_some_and(|at| at.elapsed() < PONG_FRESH)
    }
}

async fn keep_connected(
    address: Address,
    dial: Arc<Dial>,
    mut requests: mpsc::Receiver<Pipeline>,
    pulse: Arc<Mutex<Option<Instant>>>,
) {
    // Requests wait for a first attempt, but not for one after another.
    let mut down: Option<Arc<str>> = None;
    let mut greeting = "connected";
    let mut leavings = Leavings::default();
    let mut told_eviction = None;
    loop {
        let opened = match &down {
            None => dial.open(&address).await,
            Some(reason) => tokio::select! {
                opened = async {
                    sleep(RETRY).await;
                    dial.open(&address).await
                } => opened,
                () = refuse(&mut requests, reason) => return,
            },
        };
        match opened {
            Ok(mut stream) => {
                let evicts = timeout_at(Instant::now() + HUNG, dial.eviction(&mut stream));
                let Ok(Ok(evicts)) = evicts.await else {
                    down = Some(format!("{address}: no answer to INFO").into());
                    continue;
                };
                if evicts != told_eviction {
                    if let Some(policy) = &evicts {
                        let notice = Notice::Evicts(policy.clone());
                        eprintln!("weir-sidecar: {address}: {notice}");
                    }
                    told_eviction = evicts;
                }
                if !greeting.is_empty() {
                    eprintln!("weir-sidecar: {address}: {greeting}");
                }
                greeting = "connected again";
                down = None;
                match run(stream, &mut requests, &pulse, leavings.next()).await {
                    End::Unwanted => return,
                    End::Broken(error) => eprintln!("weir-sidecar: {address}: {error}"),
                    End::Left(error) if leavings.is_news(&error) => {
                        eprintln!("weir-sidecar: {address}: {error}: connecting anew");
                    }
                    End::Left(_) => greeting = "",
                }
            }
            Err(error) => {
                let reason: Arc<str> = format!("{address}: {error:#}").into();
                if down.as_ref() != Some(&reason) {
                    eprintln!("weir-sidecar: {reason}");
                }
                down = Some(reason);
            }
        }
    }
}

/// Answers requests while there is no connection; returns when the node was dropped.
async fn refuse(requests: &mut mpsc::Receiver<Pipeline>, reason: &Arc<str>) {
    while let Some(Pipeline { answer, .. }) = requests.recv().await {
        let _ = answer.send(Err(NoReply::Unreachable(reason.clone())));
    }
}

/// Serves one connection until it ends. What is pending then is dropped, and its askers see that.
async fn run(
    stream: Box<dyn Stream>,
    requests: &mut mpsc::Receiver<Pipeline>,
    pulse: &Mutex<Option<Instant>>,
    may_leave: Instant,
) -> End {
    let (from_redis, to_redis) = split(stream);
    let connection = Connection {
        pending: Mutex::default(),
        pulse,
        may_leave,
        leaving: Mutex::default(),
        leaves: Notify::new(),
    };
    let ended = tokio::select! {
        ended = connection.write(to_redis, requests) => ended,
        ended = connection.read(from_redis) => ended,
        ended = connection.watch() => ended,
    };
    *lock(pulse) = None;
    match (ended, lock(&connection.leaving).take()) {
        (Ok(()), _) => End::Unwanted,
        (Err(_), Some(error)) => End::Left(error),
        (Err(error), None) => End::Broken(error),
    }
}

impl Leavings {
    /// From when on the next connection may be left.
    fn next(&self) -> Instant {
        let now = Instant::now();
        self.last.map_or(now, |last| last + LEAVE_EVERY)
    }

    /// A connection was left. Whether the log is to hear of it.
    fn is_news(&mut self, error: &str) -> bool {
        let now = Instant::now();
        self.last = Some(now);
        let class = ErrorClass::of(error.as_bytes());
        let is_news = self
            .told
            .is_none_or(|(told, at)| told != class || at + TELL_EVERY <= now);
        if is_news {
            self.told = Some((class, now));
        }
        is_news
    }
}

impl Connection<'_> {
    async fn write(
        &self,
        mut to_redis: WriteHalf<Box<dyn Stream>>,
        requests: &mut mpsc::Receiver<Pipeline>,
    ) -> io::Result<()> {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut out = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                () = self.leaves.notified() => return pending().await,
                request = requests.recv() => match request {
                    Some(request) => self.send(request, &mut out),
                    None => return Ok(()),
                },
                _ = ping.tick() => {
                    out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                    self.expect(1, Asker::Ourselves);
                }
            }
            while out.len() < WRITE
                && let Ok(request) = requests.try_recv()
            {
                self.send(request, &mut out);
            }
            to_redis.write_all_buf(&mut out).await?;
            to_redis.flush().await?;
        }
    }

    fn send(&self, request: Pipeline, out: &mut BytesMut) {
        // Nobody waits for it any more, and it can still be kept from counting.
        if request.answer.is_closed() {
            return;
        }
        for command in &request.commands {
            out.extend_from_slice(command);
        }
        self.expect(request.commands.len(), Asker::Request(request.answer));
    }

    fn expect(&self, replies: usize, asker: Asker) {
        lock(&self.pending).push_back(Pending {
            since: Instant::now(),
            lacking: replies,
            replies: Vec::with_capacity(replies),
            asker,
        });
    }

    async fn read(&self, mut from_redis: ReadHalf<Box<dyn Stream>>) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut scanned = 0;
        let mut replies = Replies::new();
        loop {
            if from_redis.read_buf(&mut buffer).await? == 0 {
                return Err(broken("Redis closed the connection"));
            }
            while let Some(length) = replies
                .push_one(&buffer[scanned..])
                .map_err(|malformed| broken(&malformed.to_string()))?
            {
                let reply = buffer.split_to(scanned + length).freeze();
                scanned = 0;
                self.deliver(reply)?;
                if lock(&self.leaving).is_some() && lock(&self.pending).is_empty() {
                    return Err(broken("left"));
                }
            }
            scanned = buffer.len();
            if scanned > MAX_BODY {
                return Err(broken("a reply exceeds its cap"));
            }
        }
    }

    fn deliver(&self, reply: Bytes) -> io::Result<()> {
        self.look_at(&reply);
        let mut pending = lock(&self.pending);
        let Some(first) = pending.front_mut() else {
            return Err(broken("a reply to no command"));
        };
        first.replies.push(reply);
        first.lacking -= 1;
        if first.lacking > 0 {
            return Ok(());
        }
        let Some(Pending { replies, asker, .. }) = pending.pop_front() else {
            return Ok(());
        };
        match asker {
            // One whose asker gave up is of no use to anybody.
            Asker::Request(answer) => drop(answer.send(Ok(replies))),
            Asker::Ourselves if replies.first().is_some_and(|reply| reply == "+PONG\r\n") => {
                *lock(self.pulse) = Some(Instant::now());
            }
            Asker::Ourselves => {}
        }
        Ok(())
    }

    /// Leaves the connection if the reply is one that stays.
    fn look_at(&self, reply: &[u8]) {
        let Some(error) = reply.strip_prefix(b"-") else {
            return;
        };
        if ErrorClass::of(error).stays() && Instant::now() >= self.may_leave {
            let error = String::from_utf8_lossy(error.trim_ascii_end());
            lock(&self.leaving).get_or_insert(error.into_owned());
            self.leaves.notify_one();
        }
    }

    /// Gives a hung connection up. Its successor must answer a PING before it is sent anything.
    async fn watch(&self) -> io::Result<()> {
        let mut look = interval(HUNG / 10);
        loop {
            look.tick().await;
            let oldest = lock(&self.pending).front().map(|first| first.since);
            if oldest.is_some_and(|since| since.elapsed() > HUNG) {
                return Err(broken(&format!("no reply within {HUNG:?}")));
            }
        }
    }
}

fn broken(reason: &str) -> io::Error {
    io::Error::other(reason)
}

/// Nothing panics while it holds one of these locks, and no lock is held across an await.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
