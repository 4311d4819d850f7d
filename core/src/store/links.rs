//! The streams to the store that a worker keeps open, so that a call needs no HTTP request of its own. A
//! link carries one call at a time: no answer can meet another's check request. Links that are idle are
//! taken again, and where all are busy another is opened. This says which; it opens and sends nothing.
//!
//! A link ends where it was closed at the other end, where its call had no answer in time, and where it
//! brought what nobody asked for.

use crate::codec::resp::Replies;
use crate::store::call::CallId;
use crate::store::wire::MAX_BODY;
use crate::time::{Span, WorkerInstant};

/// The proxy's name for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(pub u32);

/// All links of a worker.
#[derive(Debug)]
pub struct Links {
    timeout: Span,
    links: Vec<Link>,
    /// Those that are to be closed, and are known no more.
    broken: Vec<LinkId>,
    /// The one whose answer is being handed over. Its end may follow at once, and would take along what
    /// was sent on it in between.
    resting: Option<LinkId>,
    calls: u32,
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    exchange: Option<Exchange>,
}

/// A call under way.
#[derive(Debug)]
struct Exchange {
    call: CallId,
    since: WorkerInstant,
    expected: usize,
    replies: Replies,
    body: Vec<u8>,
}

/// The bytes that answer a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub call: CallId,
    pub body: Vec<u8>,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Partial,
    Complete,
    /// It is no answer to what was asked.
    OutOfStep,
}

impl Links {
    pub fn new(timeout: Span) -> Links {
        Links {
            timeout,
            links: Vec::new(),
            broken: Vec::new(),
            resting: None,
            calls: 0,
        }
    }

    /// One that is free.
    pub fn idle(&self) -> Option<LinkId> {
        self.all_idle().next()
    }

    /// Those that are free.
    pub fn all_idle(&self) -> impl Iterator<Item = LinkId> {
        let is_idle = |link: &&Link| link.exchange.is_none() && self.resting != Some(link.id);
        self.links.iter().filter(is_idle).map(|link| link.id)
    }

    /// Another was opened.
    pub fn opened(&mut self, id: LinkId) {
        self.links.push(Link { id, exchange: None });
    }

    /// A call was sent on an idle link. It will have this many replies.
    pub fn sent(&mut self, now: WorkerInstant, id: LinkId, replies: usize) -> CallId {
        self.calls = self.calls.wrapping_add(1);
        let call = CallId(self.calls);
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
            link.exchange = Some(Exchange {
                call,
                since: now,
                expected: replies,
                replies: Replies::new(),
                body: Vec::new(),
            });
        }
        call
    }

    /// Bytes have come on a link; the answer, if they complete one. What is out of step answers its call
    /// too: why, its bytes tell. See then what is [`Links::broken`].
    pub fn received(&mut self, id: LinkId, bytes: Vec<u8>) -> Option<Answer> {
        let place = self.links.iter().position(|link| link.id == id)?;
        let link = self.links.get_mut(place)?;
        // Without a call, these are replies that nobody asked for.
        let exchange = link.exchange.as_mut();
        match exchange.map_or(Progress::OutOfStep, |call| call.push(bytes)) {
            Progress::Partial => None,
            Progress::Complete => {
                self.resting = Some(id);
                link.exchange.take().map(Answer::from)
            }
            Progress::OutOfStep => {
                self.broken.push(id);
                self.links.swap_remove(place).exchange.map(Answer::from)
            }
        }
    }

    /// Whoever waited for the answer has been told: its link may carry the next call.
    pub fn rested(&mut self) {
        self.resting = None;
    }

    /// A link was closed at the other end; the call that had no answer.
    pub fn closed(&mut self, id: LinkId) -> Option<CallId> {
        let place = self.links.iter().position(|link| link.id == id)?;
        let exchange = self.links.swap_remove(place).exchange?;
        Some(exchange.call)
    }

    /// A call that had no answer in time; to be asked until there is none. Its link is
    /// [`Links::broken`]: an answer that came later would meet the next call.
    pub fn late(&mut self, now: WorkerInstant) -> Option<CallId> {
        let is_late = |link: &Link| link.due(self.timeout).is_some_and(|due| due <= now);
        let place = self.links.iter().position(is_late)?;
        let link = self.links.swap_remove(place);
        self.broken.push(link.id);
        link.exchange.map(|exchange| exchange.call)
    }

    /// When the next call will be late.
    pub fn next_late(&self) -> Option<WorkerInstant> {
        let due = self.links.iter().filter_map(|link| link.due(self.timeout));
        due.min()
    }

    /// A link that is to be closed; to be asked until there is none.
    pub fn broken(&mut self) -> Option<LinkId> {
        self.broken.pop()
    }
}

impl Link {
    /// When its call must have been answered.
    fn due(&self, timeout: Span) -> Option<WorkerInstant> {
        let since = self.exchange.as_ref()?.since;
        Some(since + timeout)
    }
}

impl Exchange {
    fn push(&mut self, bytes: Vec<u8>) -> Progress {
        let counted = self.replies.push(&bytes);
        if self.body.is_empty() {
            self.body = bytes;
        } else {
            self.body.extend_from_slice(&bytes);
        }
        match counted {
            Ok(complete) if complete < self.expected && self.body.len() <= MAX_BODY => {
                Progress::Partial
            }
            Ok(complete) if complete == self.expected && self.replies.at_boundary() => {
                Progress::Complete
            }
            _ => Progress::OutOfStep,
        }
    }
}

impl From<Exchange> for Answer {
    fn from(Exchange { call, body, .. }: Exchange) -> Answer {
        Answer { call, body }
    }
}

#[cfg(test)]
mod tests;
