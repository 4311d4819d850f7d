//! The service behind every gateway: it answers 200 to each request it reads, and does nothing else.
//! One thread, no parser, no allocation, so that what is measured is what stands before it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};

/// As small as an API's answer may be, with a type, as every real one has.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 25\r\n\r\n{\"items\":[\"one\",\"other\"]}";
const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A running one; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    stop: Arc<AtomicBool>,
}

struct Connection {
    stream: TcpStream,
    /// How many bytes of the end of a head have come, should the next read begin in the middle.
    matched: usize,
}

// === impl Upstream ===

impl Upstream {
    /// On a free loopback port. Requests must have no body.
    pub fn start() -> Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())
            .context("cannot listen for the upstream")?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        let stop = Arc::<AtomicBool>::default();
        let server = Server {
            poll,
            listener,
            connections: Vec::new(),
            stop: stop.clone(),
        };
        let thread = thread::spawn(move || {
            if let Err(error) = server.serve() {
                eprintln!("the upstream ended: {error}");
            }
        });
        Ok(Self {
            address,
            stop,
            waker,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Server ===

impl Server {
    fn serve(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        while !self.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {}
                    Token(number) => self.answer(number, &mut buffer),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A client that has left already.
                Err(_) => continue,
            };
            stream.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let number = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll
                .registry()
                .register(&mut stream, Token(number), Interest::READABLE)?;
            self.connections[number] = Some(Connection { stream, matched: 0 });
        }
    }

    fn answer(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        // Whoever closes a connection finds that out by itself.
        if connection.answer(buffer).is_err() {
            self.connections[number] = None;
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Reads what there is and answers each head that ends in it.
    fn answer(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let bytes = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for _ in 0..heads(&buffer[..bytes], &mut self.matched) {
                self.stream.write_all(ANSWER)?;
            }
            // The events come once for each arrival, so a full buffer must be read again.
            if bytes < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// How many heads end in these bytes, where `matched` bytes of an end had come before.
fn heads(bytes: &[u8], matched: &mut usize) -> usize {
    let mut count = 0;
    for &byte in bytes {
        *matched = match byte {
            byte if byte == END_OF_HEAD[*matched] => *matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        if *matched == END_OF_HEAD.len() {
            *matched = 0;
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_lab::client::Client;

    #[test]
    fn heads_are_counted_wherever_the_bytes_are_split() {
        let bytes = b"GET / HTTP/1.1\r\na: b\r\n\r\nGET /\r HTTP/1.1\r\n\r\r\n\r\n";
        for split in 0..bytes.len() {
            let mut matched = 0;
            let (first, second) = bytes.split_at(split);
            let count = heads(first, &mut matched) + heads(second, &mut matched);
            assert_eq!((count, matched), (2, 0), "{split}");
        }
    }

    #[test]
    fn every_request_is_answered() {
        let upstream = Upstream::start().unwrap();
        let client = Client::new(upstream.address());
        for _ in 0..3 {
            let answer = client.get("/a").header("x-a", "b").send().unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 25));
        }
    }
}
