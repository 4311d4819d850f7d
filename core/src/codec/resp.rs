//! RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>): a reader that borrows,
//! a scanner that only counts, and the encoder of commands. All run on one lexer that neither
//! recurses nor allocates; "more bytes are needed" and "this is malformed" are different answers.

use std::fmt;

/// The longest status or error line, in bytes. Redis's own errors stay below 1 KB.
pub const MAX_LINE: u32 = 16 << 10;

/// The longest bulk string, in bytes. The longest that Weir sends is its script, about 20 KB.
pub const MAX_BULK: u32 = 1 << 20;

/// The most elements of one array: Redis's own bound on the arguments of a command.
pub const MAX_ITEMS: u32 = 1 << 20;

/// How deep arrays may nest. Weir's replies are flat; what is deeper is not from its script.
pub const MAX_DEPTH: usize = 4;

/// The digits of the longest `i64`, and one more: a longer number is not a number.
const MAX_DIGITS: u8 = 20;

/// Why bytes are not RESP2. No later byte can mend them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A value starts with none of `+ - : $ *`.
    Kind,
    /// A number or a length is empty, not decimal, or out of range.
    Number,
    /// A CR or LF stands where none may, or is missing where one must be.
    Ending,
    /// A line, a bulk string or an array exceeds its cap.
    TooLong,
    /// Arrays nest deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Kind => "a RESP2 value must start with one of + - : $ *",
            Malformed::Number => "a RESP2 number or length is not a decimal in range",
            Malformed::Ending => "a RESP2 line or bulk string must end in CR LF",
            Malformed::TooLong => "a RESP2 line, bulk string or array exceeds its cap",
            Malformed::TooDeep => "RESP2 arrays nest too deep",
        })
    }
}

impl std::error::Error for Malformed {}

/// One RESP2 value; of an array, only its head: its elements are the tokens that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    /// `None` is the null bulk string, `$-1`.
    Bulk(Option<&'a [u8]>),
    /// How many elements follow; `None` is the null array, `*-1`.
    Array(Option<u32>),
}

/// Reads tokens off a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Counts complete top-level values in a stream that comes in any pieces, and stores none of it.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    lexer: Lexer,
    /// How many elements each open array still lacks, the outermost first. Never 0 when open.
    open: [u32; MAX_DEPTH],
    depth: usize,
    complete: usize,
}

/// Writes one command as an array of bulk strings: `Command::new(out, 2).arg(b"GET").arg(key)`.
/// The caller writes as many arguments as it announced.
#[derive(Debug)]
pub struct Command<'a> {
    out: &'a mut Vec<u8>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The next token; `Ok(None)` where more bytes are needed to tell, and then nothing was
    /// consumed: read again from [`Reader::rest`] when there are more.
    pub fn token(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        let (used, head) = Lexer::default().feed(self.rest)?;
        let (Some(head), Some((token, rest))) = (head, self.rest.split_at_checked(used)) else {
            return Ok(None);
        };
        self.rest = rest;
        // A finished token ends in CR LF, and a line starts with its kind.
        let text = token.len().saturating_sub(2);
        let line = token.get(1..text).unwrap_or_default();
        Ok(Some(match head {
            Head::Simple => Token::Simple(line),
            Head::Error => Token::Error(line),
            Head::Integer(value) => Token::Integer(value),
            Head::Bulk(None) => Token::Bulk(None),
            Head::Bulk(Some(len)) => {
                let start = text.saturating_sub(len as usize);
                Token::Bulk(Some(token.get(start..text).unwrap_or_default()))
            }
            Head::Array(count) => Token::Array(count),
        }))
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

// === impl Replies ===

impl Replies {
    pub fn new() -> Replies {
        Replies::default()
    }

    /// Takes the next piece of the stream; how many values are complete since the beginning.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<usize, Malformed> {
        while let Some(end) = self.push_one(bytes)? {
            bytes = bytes.get(end..).unwrap_or_default();
        }
        Ok(self.complete)
    }

    /// Takes the next piece up to where the value in progress ends: the length of that part.
    /// `None` if the value goes on, and then all of the piece was taken.
    pub fn push_one(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (used, head) = self.lexer.feed(rest)?;
            rest = rest.get(used..).unwrap_or_default();
            match head {
                None => {}
                Some(Head::Array(Some(count))) if count > 0 => {
                    *self.open.get_mut(self.depth).ok_or(Malformed::TooDeep)? = count;
                    self.depth += 1;
                }
                Some(_) if self.close_value() => return Ok(Some(bytes.len() - rest.len())),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// How many values are complete since the beginning.
    pub fn complete(&self) -> usize {
        self.complete
    }

    /// Whether the bytes so far end exactly where a value ends.
    pub fn at_boundary(&self) -> bool {
        self.depth == 0 && self.lexer.state == State::Kind
    }

    /// One value has ended, and with it every array whose last element it was: whether that was
    /// a value of the top level.
    fn close_value(&mut self) -> bool {
        while let Some(innermost) = self.depth.checked_sub(1) {
            if let Some(lacking) = self.open.get_mut(innermost) {
                *lacking -= 1;
                if *lacking > 0 {
                    return false;
                }
            }
            self.depth = innermost;
        }
        self.complete += 1;
        true
    }
}

// === impl Command ===

impl<'a> Command<'a> {
    /// Announces a command of `count` arguments, its name included.
    pub fn new(out: &'a mut Vec<u8>, count: usize) -> Command<'a> {
        out.push(b'*');
        push_decimal(out, count as u64);
        out.extend_from_slice(b"\r\n");
        Command { out }
    }

    pub fn arg(self, bytes: &[u8]) -> Command<'a> {
        push_bulk(self.out, bytes);
        self
    }

    /// An argument that is a number, in decimal.
    pub fn number(self, value: u64) -> Command<'a> {
        let mut digits = Vec::with_capacity(DIGITS);
        push_decimal(&mut digits, value);
        self.arg(&digits)
    }
}

/// Appends a command of these arguments, the first of which is its name.
pub fn command<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    let command = Command::new(out, args.len());
    args.fold(command, Command::arg);
}

/// Appends a bulk string, such as one argument of a command.
pub fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    push_decimal(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The digits of `u64::MAX`.
const DIGITS: usize = 20;

/// Appends a number in decimal. Not `format!`: this runs a few times per limit of each request, mostly
/// for numbers of one or two digits.
pub fn push_decimal(out: &mut Vec<u8>, value: u64) {
    if value >= 10 {
        push_decimal(out, value / 10);
    }
    out.push(b'0' + (value % 10) as u8);
}

// === Lexer ===

/// What a finished token is, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Simple,
    Error,
    Integer(i64),
    Bulk(Option<u32>),
    Array(Option<u32>),
}

/// The grammar of one token, resumable at every byte.
#[derive(Clone, Debug, Default)]
struct Lexer {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a token.
    #[default]
    Kind,
    /// In the text of `+` or `-`, `len` bytes of it so far.
    Line {
        head: Head,
        len: u32,
    },
    /// In the number of `:`, `$` or `*`.
    Number {
        of: NumberOf,
        sign: Option<Sign>,
        digits: u8,
        value: i64,
    },
    /// After the CR of the first line.
    HeadLf(Head),
    /// In a bulk string of `len` bytes, `left` of which are still to come.
    Body {
        len: u32,
        left: u32,
    },
    /// After the last byte of a bulk string.
    BodyCr {
        len: u32,
    },
    BodyLf {
        len: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberOf {
    Integer,
    Bulk,
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

impl Lexer {
    /// Reads up to the end of one token: how many bytes that took, and the token if it ended.
    /// Without a token all bytes were taken.
    fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Head>), Malformed> {
        let mut rest = bytes;
        if self.state == State::Kind
            && let Some((of, value, tail)) = NumberOf::line(bytes)
        {
            rest = tail;
            self.state = match of.head(value)? {
                Head::Bulk(Some(0)) => State::BodyCr { len: 0 },
                Head::Bulk(Some(len)) => State::Body { len, left: len },
                head => return Ok((bytes.len() - rest.len(), Some(head))),
            };
        }
        while let Some((&byte, tail)) = rest.split_first() {
            if let State::Body { len, left } = self.state {
                let skipped = rest.len().min(left as usize);
                rest = rest.get(skipped..).unwrap_or_default();
                self.state = match left - skipped as u32 {
                    0 => State::BodyCr { len },
                    left => State::Body { len, left },
                };
                continue;
            }
            rest = tail;
            if let Some(head) = self.step(byte)? {
                return Ok((bytes.len() - rest.len(), Some(head)));
            }
        }
        Ok((bytes.len(), None))
    }

    fn step(&mut self, byte: u8) -> Result<Option<Head>, Malformed> {
        self.state = match (self.state, byte) {
            (State::Kind, _) => State::first(byte)?,

            (State::Line { head, .. }, b'\r') => State::HeadLf(head),
            (State::Line { .. }, b'\n') => return Err(Malformed::Ending),
            (State::Line { len: MAX_LINE, .. }, _) => return Err(Malformed::TooLong),
            (State::Line { head, len }, _) => State::Line { head, len: len + 1 },

            (
                State::Number {
                    of,
                    sign,
                    digits,
                    value,
                },
                _,
            ) => State::number(of, sign, digits, value, byte)?,

            (State::HeadLf(Head::Bulk(Some(0))), b'\n') => State::BodyCr { len: 0 },
            (State::HeadLf(Head::Bulk(Some(len))), b'\n') => State::Body { len, left: len },
            (State::HeadLf(head), b'\n') => return self.end(head),

            (State::BodyCr { len }, b'\r') => State::BodyLf { len },
            (State::BodyLf { len }, b'\n') => return self.end(Head::Bulk(Some(len))),
            (State::HeadLf(_) | State::BodyCr { .. } | State::BodyLf { .. }, _) => {
                return Err(Malformed::Ending);
            }

            // `feed` takes the bytes of a body by their number.
            (body @ State::Body { .. }, _) => body,
        };
        Ok(None)
    }

    fn end(&mut self, head: Head) -> Result<Option<Head>, Malformed> {
        self.state = State::Kind;
        Ok(Some(head))
    }
}

impl State {
    fn first(kind: u8) -> Result<State, Malformed> {
        let of = match kind {
            b'+' => {
                return Ok(State::Line {
                    head: Head::Simple,
                    len: 0,
                });
            }
            b'-' => {
                return Ok(State::Line {
                    head: Head::Error,
                    len: 0,
                });
            }
            b':' => NumberOf::Integer,
            b'$' => NumberOf::Bulk,
            b'*' => NumberOf::Array,
            _ => return Err(Malformed::Kind),
        };
        Ok(State::Number {
            of,
            sign: None,
            digits: 0,
            value: 0,
        })
    }

    /// The state after `byte` in a number of `digits` digits so far.
    fn number(
        of: NumberOf,
        sign: Option<Sign>,
        digits: u8,
        value: i64,
        byte: u8,
    ) -> Result<State, Malformed> {
        let (sign, digits, value) = match byte {
            b'\r' if digits > 0 => return of.head(value).map(State::HeadLf),
            b'-' if digits == 0 && sign.is_none() => (Some(Sign::Minus), 0, 0),
            b'+' if digits == 0 && sign.is_none() => (Some(Sign::Plus), 0, 0),
            b'0'..=b'9' if digits < MAX_DIGITS => {
                let digit = i64::from(byte - b'0');
                // Downwards for a negative number: −2^63 has no positive twin.
                let value = value.checked_mul(10).and_then(|value| match sign {
                    Some(Sign::Minus) => value.checked_sub(digit),
                    _ => value.checked_add(digit),
                });
                (sign, digits + 1, value.ok_or(Malformed::Number)?)
            }
            _ => return Err(Malformed::Number),
        };
        Ok(State::Number {
            of,
            sign,
            digits,
            value,
        })
    }
}

impl NumberOf {
    /// A whole line of a number and what follows it, where it is written as everybody writes it.
    /// Nearly all that travels is such lines, and the grammar's steps cost ten times as much;
    /// they see to all that this does not take, defects among them.
    fn line(bytes: &[u8]) -> Option<(NumberOf, i64, &[u8])> {
        /// So many digits never exceed an `i64`.
        const DIGITS: usize = 18;
        let (&kind, mut rest) = bytes.split_first()?;
        let of = match kind {
            b':' => NumberOf::Integer,
            b'$' => NumberOf::Bulk,
            b'*' => NumberOf::Array,
            _ => return None,
        };
        let negative = rest.first() == Some(&b'-');
        if negative {
            rest = rest.get(1..)?;
        }
        let mut value = 0;
        let mut digits = 0;
        loop {
            let (&byte, tail) = rest.split_first()?;
            match byte {
                b'0'..=b'9' if digits < DIGITS => {
                    value = value * 10 + i64::from(byte - b'0');
                    digits += 1;
                    rest = tail;
                }
                b'\r' if digits > 0 => break,
                _ => return None,
            }
        }
        let rest = rest.strip_prefix(b"\r\n")?;
        Some((of, if negative { -value } else { value }, rest))
    }

    fn head(self, value: i64) -> Result<Head, Malformed> {
        match self {
            NumberOf::Integer => Ok(Head::Integer(value)),
            NumberOf::Bulk => length(value, MAX_BULK).map(Head::Bulk),
            NumberOf::Array => length(value, MAX_ITEMS).map(Head::Array),
        }
    }
}

/// A length up to `cap`, or −1 for null.
fn length(value: i64, cap: u32) -> Result<Option<u32>, Malformed> {
    if value == -1 {
        return Ok(None);
    }
    let value = u64::try_from(value).map_err(|_| Malformed::Number)?;
    match u32::try_from(value) {
        Ok(len) if len <= cap => Ok(Some(len)),
        _ => Err(Malformed::TooLong),
    }
}
