//! An HTTP/1.1 client that sends what it is given, byte for byte: no path is normalised, no header
//! checked. It keeps its connections, and many threads may share it.

use std::{
    fmt,
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Longer than any part may take; only a hang is cut short.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy sends at most 100 headers by default.
const MOST_HEADERS: usize = 128;

#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    idle: Arc<Mutex<Vec<Connection>>>,
}

#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a> {
    client: &'a Client,
    method: Vec<u8>,
    path: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    from: Option<IpAddr>,
}

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// As they came, in order, names in their own case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// The loopback address it was bound to, if one was asked for.
    from: Option<IpAddr>,
    /// Read from the stream and not yet used.
    buffer: Vec<u8>,
}

/// What the head of an answer says about its body.
enum Length {
    None,
    Bytes(usize),
    Chunked,
    UntilClose,
}

// === impl Client ===

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Arc::default(),
        }
    }

    /// Whom it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, path: impl AsRef<[u8]>) -> Request<'_> {
        self.request("GET", path)
    }

    pub fn post(&self, path: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Request<'_> {
        let mut request = self.request("POST", path);
        request.body = body.as_ref().to_vec();
        request
    }

    pub fn request(&self, method: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Request<'_> {
        Request {
            client: self,
            method: method.as_ref().to_vec(),
            path: path.as_ref().to_vec(),
            headers: Vec::new(),
            body: Vec::new(),
            from: None,
        }
    }

    fn connection(&self, from: Option<IpAddr>) -> Result<Connection> {
        let idle = || {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let position = idle
                .iter()
                .rposition(|connection| connection.from == from)?;
            Some(idle.swap_remove(position))
        };
        while let Some(connection) = idle() {
            if connection.is_open() {
                return Ok(connection);
            }
        }
        Connection::open(self.address, from)
            .with_context(|| format!("cannot connect to {}", self.address))
    }

    fn keep(&self, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

// === impl Request ===

impl Request<'_> {
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The source address, any of 127.0.0.0/8.
    ///
    /// # Panics
    /// Where the text is no address.
    pub fn from(mut self, address: &str) -> Self {
        self.from = Some(address.parse().expect("an IP address"));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it once; nothing is ever retried, since what was sent may have counted.
    pub fn send(&self) -> Result<Answer> {
        let mut connection = self.client.connection(self.from)?;
        connection.stream.write_all(&self.bytes())?;
        let (answer, keep) = connection.answer(&self.method)?;
        if keep {
            self.client.keep(connection);
        }
        Ok(answer)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.method[..], b" ", &self.path, b" HTTP/1.1\r\n"].concat();
        let mut line = |name: &[u8], value: &[u8]| {
            bytes.extend([name, b": ", value, b"\r\n"].concat());
        };
        let has = |wanted: &str| {
            self.headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        if !has("host") {
            line(b"host", self.client.address.to_string().as_bytes());
        }
        if !self.body.is_empty() && !has("content-length") {
            line(b"content-length", self.body.len().to_string().as_bytes());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

// === impl Answer ===

impl Answer {
    /// The first header of that name, in any case. Bytes that are not UTF-8 are replaced.
    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// Every header of that name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let same = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// As it reads on the wire: it is what a failing test shows.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "HTTP/1.1 {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        write!(f, "\n{}", self.text())
    }
}

// === impl Connection ===

impl Connection {
    fn open(address: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            from,
            buffer: Vec::new(),
        })
    }

    /// An idle connection has nothing to say; if it has, it is its end.
    fn is_open(&self) -> bool {
        let look = || {
            self.stream.set_nonblocking(true)?;
            let seen = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            seen
        };
        matches!(look(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The next final answer, and whether the connection can serve another.
    fn answer(&mut self, method: &[u8]) -> Result<(Answer, bool)> {
        loop {
            let mut answer = self.head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            let length = length(&answer, method)?;
            answer.body = match length {
                Length::None => Vec::new(),
                Length::Bytes(bytes) => self.take(bytes)?,
                Length::Chunked => self.chunks()?,
                Length::UntilClose => {
                    while self.fill()? > 0 {}
                    self.buffer.split_off(0)
                }
            };
            let closes = answer
                .all("connection")
                .iter()
                .any(|value| value.eq_ignore_ascii_case("close"));
            let keep = !closes && !matches!(length, Length::UntilClose) && self.buffer.is_empty();
            return Ok((answer, keep));
        }
    }

    /// An answer without its body, which is yet to be read.
    fn head(&mut self) -> Result<Answer> {
        loop {
            let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
            let mut head = httparse::Response::new(&mut []);
            let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut head,
                &self.buffer,
                &mut headers,
            )?;
            if let httparse::Status::Complete(bytes) = parsed {
                let status = head.code.context("no status")?;
                let headers = head
                    .headers
                    .iter()
                    .map(|h| (h.name.to_owned(), h.value.to_vec()));
                let headers = headers.collect();
                self.buffer.drain(..bytes);
                return Ok(Answer {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
            if self.fill()? == 0 {
                bail!("the connection was closed before an answer came");
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer);
            let Ok(parsed) = parsed else {
                bail!("an invalid chunk size")
            };
            let httparse::Status::Complete((line_bytes, chunk_bytes)) = parsed else {
                self.fill_more()?;
                continue;
            };
            self.buffer.drain(..line_bytes);
            let chunk_bytes = usize::try_from(chunk_bytes)?;
            body.extend(self.take(chunk_bytes)?);
            // The line that ends a chunk; after the last one come no trailers in what we talk to.
            self.take(2)?;
            if chunk_bytes == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < bytes {
            self.fill_more()?;
        }
        let rest = self.buffer.split_off(bytes);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn fill_more(&mut self) -> Result<()> {
        if self.fill()? == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let bytes = self.stream.read(&mut piece)?;
        self.buffer.extend(&piece[..bytes]);
        Ok(bytes)
    }
}

fn length(answer: &Answer, method: &[u8]) -> Result<Length> {
    if method == b"HEAD" || matches!(answer.status, 204 | 304) {
        return Ok(Length::None);
    }
    if answer
        .all("transfer-encoding")
        .iter()
        .any(|value| value.eq_ignore_ascii_case("chunked"))
    {
        return Ok(Length::Chunked);
    }
    match answer.header("content-length") {
        Some(bytes) => Ok(Length::Bytes(bytes.parse().context("content-length")?)),
        None => Ok(Length::UntilClose),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server that sends `answer` one byte at a time, whatever it is asked, and closes.
    fn says(answer: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let _ = stream.read(&mut [0; 1024]);
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).unwrap();
            }
        });
        client
    }

    #[test]
    fn every_framing_of_a_body_is_read() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
                200,
                "abc",
            ),
            (
                "HTTP/1.1 429 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                429,
                "abc",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc"),
            ("HTTP/1.1 204 No\r\n\r\n", 204, ""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                200,
                "",
            ),
        ];
        for (bytes, status, body) in cases {
            let answer = says(bytes).get("/").send().unwrap();
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (status, body),
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_request_is_sent_byte_for_byte() {
        let client = Client::new("127.0.0.1:80".parse().unwrap());
        let request = client
            .get(b"/a//../%2f\xff")
            .header("X-User-ID", b"\xfe")
            .header("host", "h");
        assert_eq!(
            request.bytes(),
            b"GET /a//../%2f\xff HTTP/1.1\r\nX-User-ID: \xfe\r\nhost: h\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        for bytes in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        ] {
            assert!(says(bytes).get("/").send().is_err(), "{bytes}");
        }
    }
}
