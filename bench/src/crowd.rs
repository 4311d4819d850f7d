//! Callers who ask again as soon as they are answered, up to thousands of connections from one
//! thread. `weir_lab::crowd` has a thread for each; at a thousand connections their changes of turn
//! would be what is measured.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, Socket, Type};

/// Longer than any answer may take; only a hang is cut short.
const PATIENCE: Duration = Duration::from_secs(15);
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Enough of an answer to see what it is.
const EXAMPLE_BYTES: usize = 300;
/// A prime above any number of callers: its multiples come by each of them before any comes twice.
const SPREAD: u64 = 2_654_435_761;

/// What is asked, and how an answer looks.
pub trait Dialogue {
    /// Writes the next request.
    fn ask(&mut self, request: &mut Vec<u8>);

    /// The answer at the beginning of these bytes, if it is there whole.
    fn hear(&mut self, bytes: &[u8]) -> Result<Option<Heard>>;
}

/// A whole answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    pub bytes: usize,
    pub is_expected: bool,
    /// Whether the connection ends with it.
    pub closes: bool,
}

/// What became of the requests of a while.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long each answered request took, in units of 100 ns, in no order.
    pub latencies: Vec<u32>,
    pub unexpected: u64,
    /// The beginning of the first that was not expected.
    pub example: Option<String>,
}

pub struct Crowd {
    gateway: SocketAddr,
    poll: Poll,
    connections: Vec<Connection>,
    request: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// When the request that it waits for was sent; none while it waits for nothing.
    asked: Option<Instant>,
}

/// `GET`s of one path by callers who take turns.
#[derive(Clone, Debug)]
pub struct Callers {
    path: String,
    count: u64,
    next: u64,
    expected: u16,
}

// === impl Crowd ===

impl Crowd {
    pub fn open(gateway: SocketAddr, connections: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..connections)
            .map(|number| Connection::open(gateway, number, &poll))
            .collect::<Result<_>>()?;
        Ok(Self {
            gateway,
            poll,
            connections,
            request: Vec::new(),
        })
    }

    /// Goes on for a while. Requests under way at its end are counted by the next call.
    pub fn run(&mut self, dialogue: &mut impl Dialogue, span: Duration) -> Result<Tally> {
        self.run_until(dialogue, |_, now, start| now >= start + span)
    }

    /// Goes on until so many requests are answered.
    pub fn run_requests(&mut self, dialogue: &mut impl Dialogue, requests: u64) -> Result<Tally> {
        self.run_until(dialogue, |tally, _, _| {
            tally.latencies.len() as u64 >= requests
        })
    }

    fn run_until(
        &mut self,
        dialogue: &mut impl Dialogue,
        is_over: impl Fn(&Tally, Instant, Instant) -> bool,
    ) -> Result<Tally> {
        let start = Instant::now();
        let mut tally = Tally::default();
        let mut events = Events::with_capacity(self.connections.len().max(64));
        for number in 0..self.connections.len() {
            if self.connections[number].asked.is_none() {
                self.ask(number, dialogue)?;
            }
        }
        loop {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            if events.is_empty() {
                bail!("no answer came within {PATIENCE:?}");
            }
            for event in &events {
                self.hear(event.token().0, dialogue, &mut tally)?;
            }
            if is_over(&tally, Instant::now(), start) {
                return Ok(tally);
            }
        }
    }

    fn ask(&mut self, number: usize, dialogue: &mut impl Dialogue) -> Result<()> {
        self.request.clear();
        dialogue.ask(&mut self.request);
        let connection = &mut self.connections[number];
        connection.asked = Some(Instant::now());
        // A request is far smaller than what the kernel takes at once.
        connection
            .stream
            .write_all(&self.request)
            .context("cannot send a request")
    }

    fn hear(
        &mut self,
        number: usize,
        dialogue: &mut impl Dialogue,
        tally: &mut Tally,
    ) -> Result<()> {
        let connection = &mut self.connections[number];
        let is_open = connection.fill()?;
        let heard = dialogue.hear(&connection.buffer[..connection.filled])?;
        let Some(heard) = heard else {
            // What is closed between two requests, or before the answer began, is asked again.
            return match (is_open, connection.filled) {
                (true, _) => Ok(()),
                (false, 0) => self.reopen(number, dialogue),
                (false, _) => bail!("an answer broke off"),
            };
        };
        let Some(asked) = connection.asked.take() else {
            bail!("an answer came to no request");
        };
        if heard.bytes != connection.filled {
            bail!("more than one answer came");
        }
        let example = match heard.is_expected {
            true => String::new(),
            false => String::from_utf8_lossy(&connection.buffer[..heard.bytes.min(EXAMPLE_BYTES)])
                .into_owned(),
        };
        connection.filled = 0;
        let took = asked.elapsed().as_nanos() / 100;
        tally
            .latencies
            .push(u32::try_from(took).unwrap_or(u32::MAX));
        if !heard.is_expected {
            tally.unexpected += 1;
            tally.example.get_or_insert(example);
        }
        if heard.closes || !is_open {
            return self.reopen(number, dialogue);
        }
        self.ask(number, dialogue)
    }

    fn reopen(&mut self, number: usize, dialogue: &mut impl Dialogue) -> Result<()> {
        self.connections[number] = Connection::open(self.gateway, number, &self.poll)?;
        self.ask(number, dialogue)
    }
}

// === impl Connection ===

impl Connection {
    fn open(gateway: SocketAddr, number: usize, poll: &Poll) -> Result<Self> {
        let open = || -> std::io::Result<std::net::TcpStream> {
            let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((home(number), 0)).into())?;
            socket.connect_timeout(&gateway.into(), PATIENCE)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        let stream = open().with_context(|| format!("cannot connect to {gateway}"))?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, Token(number), Interest::READABLE)?;
        Ok(Self {
            stream,
            buffer: vec![0; 4096],
            filled: 0,
            asked: None,
        })
    }

    /// Reads all that has come; says whether more can come.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            let room = self.buffer.len() - self.filled;
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(false),
                Ok(bytes) => {
                    self.filled += bytes;
                    // Short of what there was room for: there is no more, and asking the kernel would
                    // cost as much as reading did.
                    if bytes < room {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error).context("no answer came"),
            }
        }
    }
}

/// Each connection has an address of its own, so that limits by address are as many as the
/// connections.
fn home(number: usize) -> IpAddr {
    let [.., high, low] = (number as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}

// === impl Callers ===

impl Callers {
    pub fn new(path: &str, count: u64, expected: u16) -> Self {
        let count = count.max(1);
        Self {
            path: path.to_owned(),
            count,
            next: 0,
            expected,
        }
    }
}

impl Dialogue for Callers {
    fn ask(&mut self, request: &mut Vec<u8>) {
        // Spread over all of them, so that neighbours in time are none in Redis's memory.
        let caller = self.next.wrapping_mul(SPREAD) % self.count;
        self.next += 1;
        // Writing to a vector cannot fail.
        let _ = write!(
            request,
            "GET {} HTTP/1.1\r\nhost: bench\r\nuser-agent: weir-bench\r\nx-user-id: user-{caller:07}\r\n\r\n",
            self.path
        );
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<Option<Heard>> {
        let Some(head) = find(bytes, END_OF_HEAD) else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..head]).context("a head that is no text")?;
        let mut lines = head.split("\r\n");
        let status: u16 = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
            .with_context(|| format!("no answer of HTTP/1.1: {head}"))?;
        let (mut body, mut closes, mut is_degraded) = (None, false, false);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                bail!("no header: {line}");
            };
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("content-length") {
                body = value.trim().parse::<usize>().ok();
            } else if is("connection") {
                closes = value.trim().eq_ignore_ascii_case("close");
            } else if is("x-weir-degraded") {
                is_degraded = true;
            }
        }
        let body = body.with_context(|| format!("an answer without a length: {head}"))?;
        let whole = head.len() + END_OF_HEAD.len() + body;
        Ok((bytes.len() >= whole).then_some(Heard {
            bytes: whole,
            is_expected: status == self.expected && !is_degraded,
            closes,
        }))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|piece| piece == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;
    use std::collections::HashSet;

    #[test]
    fn an_answer_is_heard_when_it_is_whole() {
        let mut callers = Callers::new("/", 1, 200);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        for bytes in 0..answer.len() {
            assert_eq!(callers.hear(&answer[..bytes]).unwrap(), None, "{bytes}");
        }
        let heard = Heard {
            bytes: answer.len(),
            is_expected: true,
            closes: false,
        };
        assert_eq!(callers.hear(answer).unwrap(), Some(heard));
    }

    #[test]
    fn another_status_and_a_degraded_answer_are_not_what_is_expected() {
        let table: [(&[u8], bool, bool); 4] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true, false),
            (
                b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n",
                false,
                false,
            ),
            (
                b"HTTP/1.1 200 OK\r\nx-weir-degraded: local\r\ncontent-length: 0\r\n\r\n",
                false,
                false,
            ),
            (
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                true,
                true,
            ),
        ];
        for (answer, is_expected, closes) in table {
            let heard = Callers::new("/", 1, 200).hear(answer).unwrap().unwrap();
            assert_eq!((heard.is_expected, heard.closes), (is_expected, closes));
        }
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(
                Callers::new("/", 1, 200).hear(answer.as_bytes()).is_err(),
                "{answer}"
            );
        }
    }

    #[test]
    fn callers_take_turns() {
        let mut callers = Callers::new("/a", 2, 200);
        let mut asked = || {
            let mut request = Vec::new();
            callers.ask(&mut request);
            String::from_utf8(request).unwrap()
        };
        let three = [asked(), asked(), asked()];
        assert!(three[0].contains("user-0000000") && three[1].contains("user-0000001"));
        assert_eq!(three[0], three[2]);
    }

    #[test]
    fn each_caller_asks_once_before_any_asks_twice() {
        for count in [1, 2, 10, 1000] {
            let mut callers = Callers::new("/", count, 200);
            let mut asked = HashSet::new();
            for _ in 0..count {
                let mut request = Vec::new();
                callers.ask(&mut request);
                assert!(asked.insert(request), "{count}");
            }
        }
    }

    #[test]
    fn a_crowd_asks_until_it_is_over() {
        let upstream = Upstream::start().unwrap();
        let mut callers = Callers::new("/", 10, 200);
        let mut crowd = Crowd::open(upstream.address(), 50).unwrap();
        let tally = crowd.run_requests(&mut callers, 500).unwrap();
        assert!(tally.latencies.len() >= 500 && tally.unexpected == 0);
        let tally = crowd.run(&mut callers, Duration::from_millis(10)).unwrap();
        assert!(!tally.latencies.is_empty());
        // A wrong status is counted.
        let mut callers = Callers::new("/", 10, 429);
        let mut crowd = Crowd::open(upstream.address(), 2).unwrap();
        let tally = crowd.run_requests(&mut callers, 10).unwrap();
        assert_eq!(tally.unexpected, tally.latencies.len() as u64);
    }
}
