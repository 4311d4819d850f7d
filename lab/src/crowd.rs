//! Many callers at once, each on a connection of its own, asking again as soon as it is answered. Nothing is allocated from one request to the next, so that what is measured or
//! counted is the gateway and not its clients.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

/// Longer than any part may take; only a hang is cut short.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy sends at most 100 headers by default.
const MOST_HEADERS: usize = 128;
const PIECE_BYTES: usize = 16 * 1024;

/// Who asks on one connection.
pub trait Caller: Send {
    /// The source address, any of 127.0.0.0/8; the kernel's choice if there is none.
    fn from(&self) -> Option<IpAddr> {
        None
    }

    /// Writes the next request, or breaks when there is none.
    fn ask(&mut self, request: &mut Request) -> ControlFlow<()>;

    /// The answer to the request that it wrote last.
    fn hear(&mut self, answer: &Answer<'_>);
}

/// A request without a body, sent as it is written.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
}

/// A final answer; its body is skipped.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// From the first byte sent to the last byte of the body.
    pub latency: Duration,
    headers: &'a [httparse::Header<'a>],
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer holds what was read.
    filled: usize,
}

/// Lets all of them call at once until each is done. A connection that breaks ends the run with an
/// error; one that the gateway closes between two requests is opened again.
pub fn run<C: Caller>(gateway: SocketAddr, callers: Vec<C>) -> Result<Vec<C>> {
    thread::scope(|scope| {
        let threads: Vec<_> = callers
            .into_iter()
            .map(|mut caller| scope.spawn(move || call(gateway, &mut caller).map(|()| caller)))
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(caller) => caller,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

fn call(gateway: SocketAddr, caller: &mut impl Caller) -> Result<()> {
    let mut request = Request::default();
    let mut connection = Connection::open(gateway, caller.from())?;
    loop {
        request.bytes.clear();
        if caller.ask(&mut request).is_break() {
            return Ok(());
        }
        request.bytes.extend(b"\r\n");
        let start = Instant::now();
        connection.stream.write_all(&request.bytes)?;
        if connection.answer(start, caller)?.is_break() {
            connection = Connection::open(gateway, caller.from())?;
        }
    }
}

// === impl Request ===

impl Request {
    /// The request line, and a host. Headers follow.
    pub fn begin(&mut self, method: &str, path: &str) -> &mut Self {
        let line = [method, " ", path, " HTTP/1.1\r\nhost: gateway\r\n"];
        for part in line {
            self.bytes.extend(part.as_bytes());
        }
        self
    }

    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        for part in [name.as_bytes(), b": ", value.as_ref(), b"\r\n"] {
            self.bytes.extend(part);
        }
        self
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let same = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|header| header.value)
    }

    /// A header that is a decimal number.
    pub fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.header(name)?).ok()?.parse().ok()
    }

    fn body_bytes(&self) -> Result<usize> {
        if self.header("transfer-encoding").is_some() {
            bail!("an answer came in chunks; this client counts bytes");
        }
        let length = self.number("content-length");
        Ok(usize::try_from(length.unwrap_or_default())?)
    }

    fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }
}

// === impl Connection ===

impl Connection {
    fn open(gateway: SocketAddr, from: Option<IpAddr>) -> Result<Connection> {
        let open = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
            if let Some(from) = from {
                socket.bind(&SocketAddr::from((from, 0)).into())?;
            }
            socket.connect_timeout(&gateway.into(), TIMEOUT)?;
            Ok(socket.into())
        };
        let stream = open().with_context(|| format!("cannot connect to {gateway}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection {
            stream,
            buffer: vec![0; PIECE_BYTES],
            filled: 0,
        })
    }

    /// Reads one answer and has it heard; breaks if the connection cannot serve another.
    fn answer(&mut self, start: Instant, caller: &mut impl Caller) -> Result<ControlFlow<()>> {
        self.filled = 0;
        loop {
            self.fill().context("no answer came")?;
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            let parsed = head.parse(&self.buffer[..self.filled])?;
            let httparse::Status::Complete(head_bytes) = parsed else {
                continue;
            };
            let mut answer = Answer {
                status: head.code.context("no status")?,
                latency: Duration::ZERO,
                headers: head.headers,
            };
            let whole = head_bytes + answer.body_bytes()?;
            // The head borrows the buffer: the rest of the body, which nobody reads, goes elsewhere.
            let missing = whole
                .checked_sub(self.filled)
                .context("more than one answer came")?;
            skip(&self.stream, missing).context("an answer broke off")?;
            answer.latency = start.elapsed();
            caller.hear(&answer);
            return Ok(match answer.closes() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled + PIECE_BYTES, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => {
                self.filled += bytes;
                Ok(())
            }
        }
    }
}

fn skip(mut stream: &TcpStream, mut bytes: usize) -> io::Result<()> {
    let mut piece = [0; 4096];
    while bytes > 0 {
        let most = bytes.min(piece.len());
        match stream.read(&mut piece[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            skipped => bytes -= skipped,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;

    struct Ten {
        asked: u32,
        heard: Vec<(u16, Vec<u8>)>,
    }

    impl Caller for Ten {
        fn from(&self) -> Option<IpAddr> {
            Some([127, 0, 0, 9].into())
        }

        fn ask(&mut self, request: &mut Request) -> ControlFlow<()> {
            if self.asked == 10 {
                return ControlFlow::Break(());
            }
            self.asked += 1;
            request.begin("GET", "/").header("x-a", "b");
            ControlFlow::Continue(())
        }

        fn hear(&mut self, answer: &Answer<'_>) {
            let content_type = answer.header("Content-Type").unwrap().to_vec();
            assert!(answer.number("content-length").unwrap() > 0);
            self.heard.push((answer.status, content_type));
        }
    }

    #[test]
    fn every_request_is_answered_and_heard() {
        let upstream = Upstream::start().unwrap();
        let callers = (0..3).map(|_| Ten {
            asked: 0,
            heard: Vec::new(),
        });
        let callers = run(upstream.address(), callers.collect()).unwrap();
        assert_eq!(upstream.requests(), 30);
        for caller in callers {
            assert_eq!(caller.heard.len(), 10);
            let same = |heard: &(u16, Vec<u8>)| *heard == (200, b"application/json".to_vec());
            assert!(caller.heard.iter().all(same));
        }
    }
}
