//! A real Redis, a sidecar in front of it, and a client that speaks raw bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use weir_core::codec::resp::{Replies, command};
use weir_sidecar::Sidecar;
use weir_sidecar::door::Bounds;
use weir_sidecar::flags::{Config, Flags};
use weir_sidecar::listen::{Place, Stream};
use weir_sidecar::screen::Script;

/// Far above what anything here takes, for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Counts, and fails as it is told to.
const SOURCE: &str = "\
if ARGV[1] == 'fail' then return redis.error_reply(ARGV[2]) end
return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[1]}";
const SHA: &str = "74f9a8c91159a5590ef7f77a119867205c486651";

/// Ends when dropped.
pub struct Redis {
    pub lab: weir_lab::redis::Redis,
    pub port: u16,
}

impl Redis {
    pub fn start(flags: &[&str]) -> Redis {
        let lab = weir_lab::redis::Redis::start_with(flags).unwrap();
        let port = lab.port();
        Redis { lab, port }
    }

    /// What Redis itself answers to these bytes.
    pub async fn ask(&self, commands: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(commands).await.unwrap();
        let mut count = Replies::new();
        let expected = count.push(commands).unwrap();
        let mut answer = Vec::new();
        let mut replies = Replies::new();
        while replies.complete() < expected {
            let seen = answer.len();
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed");
            replies.push(&answer[seen..]).unwrap();
        }
        answer
    }

    pub async fn ask_line(&self, line: &str) -> String {
        String::from_utf8(self.ask(&resp(line)).await).unwrap()
    }
}

/// An address that new connections follow to where it leads, as a Service of Kubernetes: those that
/// are open stay where they are. Ends when dropped.
pub struct MovingAddress {
    pub port: u16,
    target: Arc<AtomicU16>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl MovingAddress {
    pub async fn of(redis: &Redis) -> MovingAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(redis.port));
        let connections = Arc::new(AtomicUsize::new(0));
        let (to, count) = (target.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let port = to.load(Ordering::SeqCst);
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                open.spawn(async move {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        MovingAddress {
            port,
            target,
            connections,
            accepting,
        }
    }

    pub fn leads_to(&self, redis: &Redis) {
        self.target.store(redis.port, Ordering::SeqCst);
    }

    /// How many were opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for MovingAddress {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Looks until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Stops when dropped.
pub struct Running {
    pub place: Place,
    pub stop: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<()>,
}

impl Running {
    /// A sidecar in front of this Redis that has heard from it.
    pub async fn before(redis: &Redis, flags: &[&str]) -> Running {
        Running::before_port(redis.port, flags).await
    }

    pub async fn before_port(port: u16, flags: &[&str]) -> Running {
        let url = format!("redis://127.0.0.1:{port}");
        let sidecar = Running::with(&[&["--redis", &url], flags].concat()).await;
        sidecar.is_healthy().await;
        sidecar
    }

    pub async fn with(flags: &[&str]) -> Running {
        Running::within(Bounds::default(), flags).await
    }

    pub async fn within(bounds: Bounds, flags: &[&str]) -> Running {
        let place: &[&str] = match flags.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        // A busy machine is no reason for a test to fail.
        let patience: &[&str] = match flags.contains(&"--timeout-ms") {
            true => &[],
            false => &["--timeout-ms", "500"],
        };
        let flags = [&["weir-sidecar"], place, patience, flags].concat();
        let flags = Flags::try_parse_from(flags).unwrap();
        let mut config = Config::try_new(flags).unwrap();
        config.bounds = bounds;
        let sidecar = Sidecar::bind(config, script()).await.unwrap();
        let place = sidecar.place().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(sidecar.serve(async {
            let _ = stopped.await;
        }));
        Running {
            place,
            stop: Some(stop),
            served,
        }
    }

    pub async fn client(&self) -> Client {
        let stream: Box<dyn Stream> = match &self.place {
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        };
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    /// The replies to these commands.
    pub async fn post(&self, commands: &[u8]) -> String {
        let (status, body) = self.client().await.post(commands).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn health(&self) -> (u16, String) {
        let mut client = self.client().await;
        client
            .send(b"GET /healthz HTTP/1.1\r\nhost: weir\r\n\r\n")
            .await;
        client.response().await
    }

    pub async fn is_healthy(&self) {
        eventually("the sidecar is healthy", async || {
            self.health().await.0 == 200
        })
        .await;
    }
}

/// One HTTP connection.
pub struct Client {
    pub stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn post(&mut self, commands: &[u8]) -> (u16, String) {
        self.send(&request(commands)).await;
        self.response().await
    }

    /// Status and body.
    pub async fn response(&mut self) -> (u16, String) {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|end| end == b"\r\n\r\n") {
                break String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
            }
            self.read().await;
        };
        let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        while self.unread.len() < length {
            self.read().await;
        }
        let body = self.unread.drain(..length).collect();
        (status, String::from_utf8(body).unwrap())
    }

    /// Whether the other side ends the connection, whatever it says before.
    pub async fn is_ended_within(&mut self, patience: Duration) -> bool {
        timeout(patience, self.stream.read_to_end(&mut self.unread))
            .await
            .is_ok()
    }

    async fn read(&mut self) {
        let read = self.stream.read_buf(&mut self.unread).await.unwrap();
        assert_ne!(read, 0, "closed");
    }
}

pub fn request(commands: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\nx-weir-replies: 1\r\n\r\n",
        commands.len()
    );
    [head.as_bytes(), commands].concat()
}

pub fn script() -> Script {
    Script {
        source: Bytes::from_static(SOURCE.as_bytes()),
        sha: SHA.to_owned(),
    }
}

/// A command written as its words.
pub fn resp(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut out = Vec::new();
    command(&mut out, words.into_iter());
    out
}

/// EVALSHA of the test's script: adds to a key.
pub fn add(key: &str, amount: u32) -> Vec<u8> {
    resp(&format!("EVALSHA {SHA} 1 {key} {amount}"))
}

/// The reply to [`add`].
pub fn sum(sum: u32, amount: u32) -> String {
    let amount = amount.to_string();
    format!("*2\r\n:{sum}\r\n${}\r\n{amount}\r\n", amount.len())
}

/// EVALSHA of the test's script: an error of this text.
pub fn fail(key: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let args = ["EVALSHA", SHA, "1", key, "fail", text];
    command(&mut out, args.iter().map(|arg| arg.as_bytes()));
    out
}

/// EVAL of the test's script: adds to a key.
pub fn add_by_source(key: &str, amount: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let amount = amount.to_string();
    let args = ["EVAL", SOURCE, "1", key, &amount];
    command(&mut out, args.iter().map(|arg| arg.as_bytes()));
    out
}
