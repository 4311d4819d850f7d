//! The limiter's shell for one request: its head to `weir-core`, and what comes of it to the proxy.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use weir_core::answer::Headers;
use weir_core::gathering::Outcome;
use weir_core::limiter::{self, Conclusion, Hold, Pending, Step};

use crate::host::{self, ContextId, RequestFacts};
use crate::root::{Asked, Limiter};

/// One request.
pub struct HttpStream {
    id: ContextId,
    limiter: Rc<Limiter>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    /// Set while the request waits for the store.
    pending: Option<Pending>,
    /// Set once the request is held back; whether it still is the limiter knows.
    held: Option<Hold>,
    /// What the response will carry.
    response_headers: Headers,
}

/// How a request is found again when the outcome of a part of its question comes; by then it may
/// be gone.
#[derive(Debug)]
pub struct Ticket {
    id: ContextId,
    state: Weak<RefCell<State>>,
    part: usize,
}

impl HttpStream {
    pub fn new(id: ContextId, limiter: Rc<Limiter>) -> HttpStream {
        HttpStream {
            id,
            limiter,
            state: Rc::default(),
        }
    }

    /// Asks every part. Where the store need not or cannot be asked, the request is concluded at
    /// once.
    fn ask(&self, mut pending: Pending) -> Action {
        if let Some(refusal) = self.limiter.recall(&pending) {
            return perform(&self.state, refusal.conclusion);
        }
        let parts = pending.parts(self.limiter.store.topology);
        let mut complete = parts.is_empty();
        for (number, part) in parts.iter().enumerate() {
            let ticket = Ticket {
                id: self.id,
                state: Rc::downgrade(&self.state),
                part: number,
            };
            if self.limiter.ask(Some(ticket), part) == Asked::Failed {
                complete = pending.receive(number, &Outcome::Failed);
            }
        }
        if complete {
            let conclusion = conclude(&self.limiter, self.id, &self.state, &pending);
            return conclusion.map_or(Action::Pause, |now| perform(&self.state, now));
        }
        self.state.borrow_mut().pending = Some(pending);
        Action::Pause
    }
}

/// What is to be done with a request now that all is known; nothing where it is held back.
fn conclude(
    limiter: &Limiter,
    id: ContextId,
    state: &RefCell<State>,
    pending: &Pending,
) -> Option<Conclusion> {
    let (conclusion, hold) = limiter.conclude(pending);
    let Some(hold) = hold else {
        return Some(conclusion);
    };
    limiter.hold(id, &hold);
    let mut state = state.borrow_mut();
    state.held = Some(hold);
    if let Conclusion::Pass(headers) = conclusion {
        state.response_headers = headers;
    }
    None
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

impl Context for HttpStream {}

/// A client may be gone before its request went on.
impl Drop for HttpStream {
    fn drop(&mut self) {
        let held = self.state.borrow_mut().held.take();
        if let Some(hold) = held {
            self.limiter.leave(self.id, hold);
        }
    }
}

impl HttpContext for HttpStream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let headers = host::request_headers();
        let Limiter { sources, .. } = &*self.limiter;
        let edition = self.limiter.edition();
        let admission = limiter::admit(&edition, sources, headers.iter(), &RequestFacts);
        for name in &admission.remove {
            host::remove_request_header(name);
        }
        if let Some(outcome) = admission.step.outcome() {
            self.limiter.decided(&edition, outcome);
        }
        match admission.step {
            Step::Pass | Step::Exempt => Action::Continue,
            Step::Block(answer, protocol) | Step::Respond(answer, protocol) => {
                perform(&self.state, Conclusion::Respond(answer, protocol))
            }
            Step::Report(protocol) => {
                let report = self.limiter.report();
                perform(&self.state, Conclusion::Respond(report, protocol))
            }
            Step::Ask(pending) => self.ask(pending),
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for (name, value) in self.state.borrow_mut().response_headers.drain(..) {
            host::set_response_header(&name, &value);
        }
        Action::Continue
    }
}

impl Ticket {
    /// Takes the outcome of a part. With the last, the request goes on or is answered. Leaves the
    /// proxy's current context changed.
    pub fn settle(&self, limiter: &Limiter, outcome: &Outcome) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        let received = state.borrow_mut().pending.take();
        let Some(mut pending) = received else {
            return;
        };
        if !pending.receive(self.part, outcome) {
            state.borrow_mut().pending = Some(pending);
            return;
        }
        let Some(conclusion) = conclude(limiter, self.id, &state, &pending) else {
            return;
        };
        if host::set_context(self.id).is_err() {
            return;
        }
        if perform(&state, conclusion) == Action::Continue {
            host::resume_request();
        }
    }
}
