//! The limiter's shell for one request: its head to `weir-core`, and what comes of it to the proxy.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use weir_core::answer::Headers;
use weir_core::limiter::{self, Conclusion, Outcome, Pending, Step};
use weir_core::policy::Policy;

use crate::host::{self, ContextId, RequestFacts};
use crate::root::Limiter;

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
    /// What the response will carry.
    response_headers: Headers,
}

/// How a request is found again when its outcome comes; by then it may be gone.
#[derive(Debug)]
pub struct Ticket {
    id: ContextId,
    state: Weak<RefCell<State>>,
}

impl HttpStream {
    pub fn new(id: ContextId, limiter: Rc<Limiter>) -> HttpStream {
        HttpStream {
            id,
            limiter,
            state: Rc::default(),
        }
    }
}

impl Context for HttpStream {}

impl HttpContext for HttpStream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let config = &self.limiter.config;
        let headers = host::request_headers();
        let admission = limiter::admit(
            &config.sources,
            &config.policy,
            headers.iter(),
            &RequestFacts,
        );
        for name in &admission.remove {
            host::remove_request_header(name);
        }
        match admission.step {
            Step::Pass => Action::Continue,
            Step::Respond(answer, protocol) => {
                host::respond(&answer, protocol);
                Action::Pause
            }
            Step::Ask(question, pending) => {
                self.state.borrow_mut().pending = Some(pending);
                let ticket = Ticket {
                    id: self.id,
                    state: Rc::downgrade(&self.state),
                };
                self.limiter.ask(ticket, question);
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for (name, value) in self.state.borrow_mut().response_headers.drain(..) {
            host::set_response_header(name, &value);
        }
        Action::Continue
    }
}

impl Ticket {
    /// Lets the request go on, or answers it. Leaves the proxy's current context changed.
    pub fn settle(&self, policy: &Policy, outcome: &Outcome) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        let Some(pending) = state.borrow_mut().pending.take() else {
            return;
        };
        if host::set_context(self.id).is_err() {
            return;
        }
        match pending.conclude(policy, outcome) {
            Conclusion::Pass(headers) => {
                state.borrow_mut().response_headers = headers;
                host::resume_request();
            }
            Conclusion::Respond(answer, protocol) => host::respond(&answer, protocol),
        }
    }
}
