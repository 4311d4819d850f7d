//! The limiter's shell for one request: its head to `weir-core`, and what comes of it to the proxy.

use std::cell::RefCell;
use std::rc::Rc;
use std::{iter, mem};

use log::warn;
use weir_core::answer::Headers;
use weir_core::gathering::Outcome;
use weir_core::lease::Bid;
use weir_core::limiter::{self, Admission, Bill, Conclusion, Ending, Hold, Pending, Step};
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
    bill: Option<Bill>,
    /// What the response will carry.
    response_headers: Headers,
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
            let conclusion = self.conclude(&pending);
            return conclusion.map_or(Action::Pause, |now| perform(&self.state, now));
        }
        self.limiter.bid(now, &pending);
        self.state.borrow_mut().pending = Some(pending);
        self.limiter.go(now);
        Action::Pause
    }

    /// What is to be done with the request now that all is known; nothing where it is held back.
    fn conclude(&self, pending: &Pending) -> Option<Conclusion> {
        let Ending {
            conclusion,
            record,
            hold,
            bill,
            ..
        } = self.limiter.conclude(pending);
        self.state.borrow_mut().bill = bill;
        let since = self.state.borrow().since;
        if since.is_some() && host::set_context(self.id).is_ok() {
            self.limiter.log(pending, record.as_ref(), since);
        }
        let Some(hold) = hold else {
            return Some(conclusion);
        };
        self.limiter.hold(self.id, &hold);
        let mut state = self.state.borrow_mut();
        state.held = Some(hold);
        if let Conclusion::Pass(headers) = conclusion {
            state.response_headers = headers;
        }
        None
    }
}

/// Keeps what the response will carry, or answers the proxy's current request.
fn perform(state: &RefCell<State>, conclusion: Conclusion) -> Action {
    match conclusion {
        Conclusion::Pass(headers) => {
            state.borrow_mut().response_headers = headers;
            Action::Continue
        }
        Conclusion::Respond(answer, protocol) => {
            host::respond(&answer, protocol);
            Action::Pause
        }
    }
}

/// A client may be gone before its request went on, or before its response came.
impl Drop for HttpStream {
    fn drop(&mut self) {
        let (held, bill, pending) = {
            let mut state = self.state.borrow_mut();
            let State {
                held,
                bill,
                pending,
                ..
            } = &mut *state;
            (held.take(), bill.take(), pending.take())
        };
        // One that was held back to the end gives all of it back.
        if let Some(bill) = bill
            && !self.limiter.holds(self.id)
        {
            self.limiter
                .settle(&bill, iter::empty(), &mut Headers::new());
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
        let Admission {
            remove,
            step,
            protocol,
            attempt,
            is_tier_unknown,
        } = limiter::admit(&edition, sources, headers.iter(), &RequestFacts);
        if let Some(notice) = edition.policy.exemptions.notice() {
            warn!("weir: {notice}");
        }
        for name in &remove {
            host::remove_request_header(name);
        }
        if is_tier_unknown {
            self.limiter.tier_unknown(&edition);
        }
        let step = match attempt {
            Some(attempt) => self.limiter.judge(&attempt, step, protocol),
            None => step,
        };
        if let Some(outcome) = step.outcome() {
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
        let Some(conclusion) = self.conclude(&pending) else {
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
        let (bill, mut headers) = {
            let mut state = self.state.borrow_mut();
            (state.bill.take(), mem::take(&mut state.response_headers))
        };
        if let Some(bill) = bill {
            let said = host::response_headers();
            self.limiter.settle(&bill, said.iter(), &mut headers);
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
