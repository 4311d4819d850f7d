//! The limiter's shell for one request: its head to `weir-core`, and what comes of it to the proxy.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;

use log::warn;
use weir_core::answer::Headers;
use weir_core::gathering::Outcome;
use weir_core::identity::Subject;
use weir_core::lease::Bid;
use weir_core::limiter::{
    self, Admission, Bill, Conclusion, Counted, Ending, Facts, Hold, Pending, Redirected, Step,
};
use weir_core::live::Edition;
use weir_core::policy::LimitId;
use weir_core::record;
use weir_core::units::Micros;

use crate::host::{self, ContextId, RequestFacts};
use crate::root::{Asked, Limiter};
use crate::vm::{self, Action};

/// One request.
pub struct HttpStream {
    id: ContextId,
    limiter: Rc<Limiter>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Set while the request waits for the store.
    pending: Option<Box<Pending>>,
    /// When it began to, if the access log wants to know.
    since: Option<Micros>,
    /// Set once the request is held back; whether it still is the limiter knows.
    held: Option<Box<Hold>>,
    /// What it costs is known when the response comes.
    bills: Vec<Bill>,
    /// Set once it goes on, until its response comes.
    counted: Option<Counted>,
    /// What the response will carry.
    response_headers: Headers,
}

/// What the proxy knows of a request, and the worker of how it came here.
struct StreamFacts<'a> {
    limiter: &'a Limiter,
    /// Set where the request was redirected.
    redirected: Cell<Option<Redirected>>,
}

impl Facts for StreamFacts<'_> {
    fn source_address(&self) -> Vec<u8> {
        RequestFacts.source_address()
    }

    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>> {
        RequestFacts.direct_peer(filter_state)
    }

    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        RequestFacts.claim(path)
    }

    fn counted(&self, edition: &Rc<Edition>, subject: &Subject) -> Vec<LimitId> {
        let redirected = self.limiter.redirected(edition, subject);
        let limits = redirected
            .as_ref()
            .map(|known| known.counted.limits().to_vec());
        self.redirected.set(redirected);
        limits.unwrap_or_default()
    }
}

/// Whom the outcome of a part is for.
#[derive(Debug)]
pub enum Ticket {
    Request(Seat),
    /// The worker itself: a lease that it asked for must not be lost with the request that made it
    /// ask.
    Worker(Bid),
}

/// How a request is found again when the outcome of a part of its question comes; by then it may
/// be gone.
#[derive(Debug)]
pub struct Seat {
    id: ContextId,
    part: usize,
}

impl HttpStream {
    pub fn new(id: ContextId, limiter: Rc<Limiter>) -> HttpStream {
        HttpStream {
            id,
            limiter,
            state: RefCell::default(),
        }
    }

    /// Asks every part. Where the store need not or cannot be asked, the request is concluded at
    /// once.
    fn ask(&self, mut pending: Box<Pending>) -> Action {
        let now = self.limiter.now();
        if let Some(refusal) = self.limiter.recall(now, &mut pending) {
            self.limiter.log(&pending, refusal.record.as_ref(), None);
            return perform(&self.state, refusal.conclusion);
        }
        self.state.borrow_mut().since = self.limiter.stopwatch(now);
        let parts = pending.parts(self.limiter.store.config.topology);
        let mut complete = parts.is_empty();
        for (number, part) in parts.iter().enumerate() {
            let seat = Seat {
                id: self.id,
                part: number,
            };
            let ticket = Ticket::Request(seat);
            if self.limiter.ask(now, Some(ticket), part) == Asked::Failed {
                complete = pending.receive(number, &Outcome::Failed);
            }
        }
        if complete {
            let conclusion = self.conclude(pending);
            return conclusion.map_or(Action::Pause, |now| perform(&self.state, now));
        }
        self.limiter.bid(now, &pending);
        self.state.borrow_mut().pending = Some(pending);
        self.limiter.go(now);
        Action::Pause
    }

    /// What is to be done with the request now that all is known; nothing where it is held back.
    fn conclude(&self, pending: Box<Pending>) -> Option<Conclusion> {
        let Ending {
            conclusion,
            record,
            hold,
            bill,
            ..
        } = self.limiter.conclude(&pending);
        self.state.borrow_mut().bills.extend(bill);
        let since = self.state.borrow().since;
        if since.is_some() && host::set_context(self.id).is_ok() {
            self.limiter.log(&pending, record.as_ref(), since);
        }
        if matches!(conclusion, Conclusion::Pass(_))
            && let Some(mut counted) = pending.counted()
        {
            let mut state = self.state.borrow_mut();
            if let Some(earlier) = state.counted.take() {
                counted.join(earlier);
            }
            state.counted = Some(counted);
        }
        let Some(hold) = hold else {
            return Some(conclusion);
        };
        self.limiter.hold(self.id, &hold);
        let mut state = self.state.borrow_mut();
        state.held = Some(hold);
        if let Conclusion::Pass(headers) = conclusion {
            state.response_headers.extend(headers);
        }
        None
    }
}

/// Keeps what the response will carry, or answers the proxy's current request.
fn perform(state: &RefCell<State>, conclusion: Conclusion) -> Action {
    match conclusion {
        Conclusion::Pass(headers) => {
            // Of one that was redirected some may be there. Of two of a name the later counts.
            state.borrow_mut().response_headers.extend(headers);
            Action::Continue
        }
        Conclusion::Respond(answer, protocol) => {
            // It tells of limits itself.
            state.borrow_mut().response_headers.clear();
            host::respond(&answer, protocol);
            Action::Pause
        }
    }
}

/// A client may be gone before its request went on, or before its response came.
impl Drop for HttpStream {
    fn drop(&mut self) {
        let State {
            held,
            bills,
            pending,
            counted,
            response_headers,
            ..
        } = self.state.take();
        let redirected = counted.and_then(|counted| Some((host::redirected()?, counted)));
        let bills = match redirected {
            Some((connection, counted)) => {
                let redirected = Redirected {
                    counted,
                    headers: response_headers,
                    bills,
                };
                self.limiter.redirect(connection, redirected)
            }
            None => bills,
        };
        // One that was held back to the end gives all of it back.
        if !self.limiter.holds(self.id) {
            self.limiter.settle_unanswered(&bills);
        }
        if let Some(hold) = held {
            self.limiter.leave(self.id, *hold);
        }
        if let Some(pending) = pending {
            self.limiter.abandon(self.id, pending);
        }
    }
}

impl HttpStream {
    pub fn request_headers(&self) -> Action {
        let headers = host::request_headers();
        let Limiter { sources, .. } = &*self.limiter;
        let edition = self.limiter.edition();
        let facts = StreamFacts {
            limiter: &self.limiter,
            redirected: Cell::default(),
        };
        let Admission {
            remove,
            step,
            protocol,
            attempt,
            is_tier_unknown,
        } = limiter::admit(&edition, sources, headers.iter(), &facts);
        let redirected = facts.redirected.take();
        let is_redirected = redirected.is_some();
        if let Some(redirected) = redirected {
            let mut state = self.state.borrow_mut();
            state.counted = Some(redirected.counted);
            state.bills = redirected.bills;
            state.response_headers = redirected.headers;
        }
        if let Some(notice) = edition.policy.exemptions.notice() {
            warn!("weir: {notice}");
        }
        for name in &remove {
            host::remove_request_header(name);
        }
        if is_tier_unknown && !is_redirected {
            self.limiter.tier_unknown(&edition);
        }
        let step = match attempt {
            Some(attempt) => self.limiter.judge(&attempt, step, protocol),
            None => step,
        };
        // One that was redirected to where no more limits are was counted as what it was.
        if let Some(outcome) = step.outcome()
            && !(is_redirected && outcome == record::Outcome::Unmatched)
        {
            self.limiter.decided(&edition, outcome, step.listed());
        }
        match step {
            Step::Pass | Step::Exempt(_) => Action::Continue,
            Step::Block(answer, protocol, _) | Step::Respond(answer, protocol) => {
                perform(&self.state, Conclusion::Respond(answer, protocol))
            }
            Step::Report(protocol) => {
                let report = self.limiter.report();
                perform(&self.state, Conclusion::Respond(report, protocol))
            }
            Step::Ask(pending) => self.ask(pending),
        }
    }

    /// Takes the outcome of a part. With the last, the request goes on or is answered. Leaves the
    /// proxy's current context changed.
    fn settle(&self, part: usize, outcome: &Outcome) {
        let received = self.state.borrow_mut().pending.take();
        let Some(mut pending) = received else {
            return;
        };
        if !pending.receive(part, outcome) {
            self.state.borrow_mut().pending = Some(pending);
            return;
        }
        let Some(conclusion) = self.conclude(pending) else {
            return;
        };
        if host::set_context(self.id).is_err() {
            return;
        }
        if perform(&self.state, conclusion) == Action::Continue {
            host::resume_request();
        }
    }

    pub fn response_headers(&self) -> Action {
        let (bills, mut headers) = {
            let mut state = self.state.borrow_mut();
            state.counted = None;
            let headers = mem::take(&mut state.response_headers);
            (mem::take(&mut state.bills), headers)
        };
        if !bills.is_empty() {
            let said = host::response_headers();
            for bill in &bills {
                self.limiter.settle(bill, said.iter(), &mut headers);
            }
        }
        for (name, value) in headers {
            host::set_response_header(&name, &value);
        }
        Action::Continue
    }
}

impl Ticket {
    /// Tells whom it is for, if they are still there. Leaves the proxy's current context changed.
    pub fn settle(&self, limiter: &Limiter, outcome: &Outcome) {
        match self {
            Ticket::Request(Seat { id, part }) => {
                let told = vm::http(*id, |stream| stream.settle(*part, outcome));
                if told.is_none() {
                    limiter.receive_abandoned(*id, *part, outcome);
                }
            }
            Ticket::Worker(bid) => limiter.lease(bid.clone(), outcome),
        }
    }
}
