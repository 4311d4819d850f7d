//! A TCP proxy that misbehaves on command: what stands between a gateway and its Redis when the
//! network is at fault.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::port;

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    // Dropped last: it runs the others.
    runtime: Runtime,
}

#[derive(Debug)]
struct Network {
    target: Mutex<SocketAddr>,
    weather: watch::Sender<Weather>,
    connections: Mutex<Vec<AbortHandle>>,
}

#[derive(Clone, Copy, Debug)]
struct Weather {
    /// How long each answer is under way.
    delay: Duration,
    /// Up to this much is added.
    jitter: Duration,
    /// Connections opened before this one hear nothing more, and nothing hears them.
    lost_before: u64,
    /// No byte moves.
    still: bool,
}

const FAIR: Weather = Weather {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    lost_before: 0,
    still: false,
};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

impl Proxy {
    pub fn start(target: SocketAddr) -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let proxy = Self {
            address: (Ipv4Addr::LOCALHOST, port::free()?).into(),
            network: Arc::new(Network {
                target: Mutex::new(target),
                weather: watch::Sender::new(FAIR),
                connections: Mutex::default(),
            }),
            accepting: Mutex::default(),
            runtime,
        };
        proxy.listen()?;
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Each answer arrives later by `delay`, and by up to `jitter` on top.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        self.network.weather.send_modify(|weather| {
            weather.delay = delay;
            weather.jitter = jitter;
        });
    }

    /// Connections stay open, new ones are taken, and nothing moves.
    pub fn hang(&self) {
        self.network
            .weather
            .send_modify(|weather| weather.still = true);
    }

    /// The connections that are open lead nowhere from now on, as after the peer's machine died; new
    /// ones work.
    pub fn lose_connections(&self) {
        let next = CONNECTIONS.load(Ordering::SeqCst);
        self.network
            .weather
            .send_modify(|weather| weather.lost_before = next);
    }

    /// Ends the connections that are open.
    pub fn cut(&self) {
        for connection in lock(&self.network.connections).drain(..) {
            connection.abort();
        }
    }

    /// Nobody listens: connections are refused, and those that were open end.
    pub fn refuse(&self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
            // Its listener is closed once it has ended.
            let _ = self.runtime.block_on(accepting);
        }
        self.cut();
    }

    /// New connections lead there; those that are open stay where they are, as behind the Service of a
    /// Kubernetes whose endpoint changes.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.network.target) = target;
    }

    /// New connections lead there; those that are open end.
    pub fn point_at(&self, target: SocketAddr) {
        *lock(&self.network.target) = target;
        self.cut();
    }

    /// All is well again.
    pub fn heal(&self) -> Result<()> {
        self.network.weather.send_modify(|weather| {
            *weather = Weather {
                lost_before: weather.lost_before,
                ..FAIR
            };
        });
        if lock(&self.accepting).is_none() {
            self.listen()?;
        }
        Ok(())
    }

    fn listen(&self) -> Result<()> {
        let listener = self
            .runtime
            .block_on(TcpListener::bind(self.address))
            .with_context(|| format!("the proxy cannot listen on {}", self.address))?;
        let accepting = self.runtime.spawn(accept(listener, self.network.clone()));
        *lock(&self.accepting) = Some(accepting);
        Ok(())
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    loop {
        // An accept that fails is that client's trouble.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let target = *lock(&network.target);
        let weather = network.weather.subscribe();
        let connection = tokio::spawn(carry(client, target, weather));
        let mut connections = lock(&network.connections);
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection.abort_handle());
    }
}

/// One connection. It ends when either side does.
async fn carry(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let number = CONNECTIONS.fetch_add(1, Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&client, &server] {
        // Where this fails, answers are only later.
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, Path { number, slow: false, weather: weather.clone() }) => {}
        () = pump(from_server, to_client, Path { number, slow: true, weather }) => {}
    }
}

/// One direction of a connection.
struct Path {
    number: u64,
    /// Whether delays are for this direction.
    slow: bool,
    weather: watch::Receiver<Weather>,
}

/// Delays without holding up what comes behind: as a long line does, not as a slow one.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut path: Path) {
    let (line, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let weather = path.weather.clone();
    let slow = path.slow;
    let read = async move {
        let mut piece = vec![0; 64 << 10];
        let mut last = Instant::now();
        let mut dice = 1_u32;
        while let Ok(bytes @ 1..) = from.read(&mut piece).await {
            let Weather { delay, jitter, .. } = *weather.borrow();
            // Any sequence that spreads will do.
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let extra = jitter.mul_f64(f64::from(dice >> 8) / f64::from(1 << 24));
            let due = Instant::now() + if slow { delay + extra } else { Duration::ZERO };
            last = last.max(due);
            let _ = line.send((last, piece[..bytes].to_vec()));
        }
    };
    let write = async {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            let number = path.number;
            let moves = |weather: &Weather| !weather.still && number >= weather.lost_before;
            if path.weather.wait_for(moves).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;
    use crate::redis::{self, Redis};

    #[test]
    fn a_proxy_passes_delays_hangs_loses_and_refuses() {
        let redis = Redis::start().unwrap();
        let proxy = Proxy::start(redis.address()).unwrap();
        let mut old = net::TcpStream::connect(proxy.address()).unwrap();
        old.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut ping = || -> std::io::Result<()> {
            old.write_all(b"PING\r\n")?;
            old.read_exact(&mut [0; 7])
        };
        ping().unwrap();
        proxy.delay(Duration::from_millis(50), Duration::from_millis(10));
        let begin = std::time::Instant::now();
        ping().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(50));
        proxy.hang();
        assert!(!redis::answers(proxy.address()));
        proxy.heal().unwrap();
        ping().unwrap();
        proxy.lose_connections();
        assert!(ping().is_err() && redis::answers(proxy.address()));
        proxy.refuse();
        assert!(net::TcpStream::connect(proxy.address()).is_err());
        proxy.heal().unwrap();
        assert!(redis::answers(proxy.address()));
    }
}
