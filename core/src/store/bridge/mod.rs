//! The bridge: the limiter's calls on one side, as Envoy writes them, and Redis or `redis_proxy` on the
//! other, which understand commands and nothing else. It takes off what Envoy puts around commands,
//! and puts the same around replies. A connection is an HTTP/1.1 client's (`http`) or a link's
//! (`framed`), which its first byte tells.
//!
//! It serves the limiter and refuses everyone else: what is not from the limiter closes the
//! connection, because a stream that is once out of step would answer with another's verdict.

use std::ops::Range;

mod framed;
mod http;

use framed::Framed;
use http::Http;

pub use framed::{FLAG, PREFIX, prefix};
pub use http::MAX_HEAD;

/// What the host does with the bytes that it buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Pass on all that is buffered.
    Continue,
    /// Keep it, and ask again when there is more.
    DelayedRequest,
    /// Close the connection.
    Close,
}

/// What to do with bytes from the limiter: first remove `cut` bytes at the front, then let `flow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    pub cut: usize,
    pub flow: Flow,
}

/// What to do with bytes from `redis_proxy`: first insert `prefix` at the front, then let `flow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    pub prefix: Option<Vec<u8>>,
    pub flow: Flow,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Bridge {
    language: Language,
}

#[derive(Debug, Default)]
enum Language {
    /// Nothing has come yet.
    #[default]
    Unknown,
    Http(Http),
    Framed(Framed),
    /// The stream is out of step. Nothing is believed any more.
    None,
}

impl Bridge {
    pub fn new() -> Bridge {
        Bridge::default()
    }

    /// The limiter's side has `size` bytes buffered. `read` gives a range of them; it is not called for
    /// bytes that need not be looked at. One that cannot read gives less than the range, which closes
    /// the connection.
    pub fn downstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        mut read: impl FnMut(Range<usize>) -> B,
    ) -> Down {
        if let Language::Unknown = self.language
            && size > 0
        {
            self.language = match read(0..1).as_ref() {
                [FLAG] => Language::Framed(Framed::default()),
                [_] => Language::Http(Http::default()),
                _ => Language::None,
            };
        }
        let down = match &mut self.language {
            Language::Unknown => Some(Down::pass(0)),
            Language::Http(http) => http.downstream(size, read),
            Language::Framed(framed) => framed.downstream(size, read),
            Language::None => None,
        };
        down.unwrap_or_else(|| {
            self.language = Language::None;
            Down::CLOSE
        })
    }

    /// Redis's side has `size` bytes buffered. `read` as for [`Bridge::downstream`].
    pub fn upstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        read: impl FnMut(Range<usize>) -> B,
    ) -> Up {
        let up = match &mut self.language {
            _ if size == 0 => Some(Up::HOLD),
            Language::Http(http) => http.upstream(size, read),
            Language::Framed(framed) => framed.upstream(size),
            // Replies that nobody asked for.
            Language::Unknown | Language::None => None,
        };
        up.unwrap_or_else(|| {
            self.language = Language::None;
            Up::CLOSE
        })
    }
}

impl Down {
    const HOLD: Down = Down {
        cut: 0,
        flow: Flow::DelayedRequest,
    };
    const CLOSE: Down = Down {
        cut: 0,
        flow: Flow::Close,
    };

    fn pass(cut: usize) -> Down {
        Down {
            cut,
            flow: Flow::Continue,
        }
    }
}

impl Up {
    const HOLD: Up = Up {
        prefix: None,
        flow: Flow::DelayedRequest,
    };
    const CLOSE: Up = Up {
        prefix: None,
        flow: Flow::Close,
    };

    fn pass(prefix: Vec<u8>) -> Up {
        Up {
            prefix: Some(prefix),
            flow: Flow::Continue,
        }
    }
}
