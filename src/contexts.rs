//! Envoy's callbacks, by the contexts that the SDK calls: a root for each worker, a request's, and a
//! connection's of the bridge. Each hands its event on and says what Envoy does next.

use std::cell::RefCell;
use std::rc::Rc;

use log::error;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType};
use weir_core::local::timer_queue::StreamId;
use weir_core::request::subject::hex_digest;
use weir_core::store::batch::NoReply;
use weir_core::store::call::CallId;
use weir_core::store::links::LinkId;
use weir_core::worker::config::Config;
use weir_core::worker::shared;
use weir_core::worker::{Flow, HeaderList, Worker};

use crate::bridge::BridgeStream;
use crate::host::{self, Envoy, RequestFacts};

/// A worker, shared by its root and its requests. Envoy never enters the VM while a callback is
/// running, so that two borrows cannot overlap.
type Shared = Rc<RefCell<Worker<Envoy>>>;

/// Under this name stands the role of the first instance with this `vm_id`.
const ROLE: &str = "weir.role";

/// One worker's instance of the filter.
pub struct Root {
    id: u32,
    role: Role,
}

enum Role {
    Unconfigured,
    Limiter(Shared),
    Bridge,
}

/// One request.
struct Request {
    stream: StreamId,
    worker: Shared,
}

/// A request of a filter that could not be configured.
struct Unlimited;

impl Root {
    pub fn new(id: u32) -> Root {
        Root {
            id,
            role: Role::Unconfigured,
        }
    }

    /// Hands an event to the worker, if this is a limiter's root.
    fn tell(&self, event: impl FnOnce(&mut Worker<Envoy>)) {
        if let Role::Limiter(worker) = &self.role {
            let worker = &mut *worker.borrow_mut();
            worker.host().enter_root();
            event(worker);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, headers: usize, body: usize, _trailers: usize) {
        // Without headers there was no answer: a timeout or a reset.
        let body = (headers > 0)
            .then(|| host::call_response_body(body))
            .flatten();
        self.tell(|worker| {
            worker.call_answered(CallId(call), body.as_deref().ok_or(NoReply::Late));
        });
    }

    fn on_grpc_stream_message(&mut self, link: u32, size: usize) {
        self.tell(|worker| worker.link_received(LinkId(link), host::received(size)));
    }

    fn on_grpc_stream_close(&mut self, link: u32, _status: u32) {
        self.tell(|worker| worker.link_closed(LinkId(link)));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let bytes = host::plugin_configuration();
        let host = Envoy::new(self.id);
        let config = Config::read(&bytes).and_then(|config| {
            // Envoy tries each plugin in a VM of its own first: only what they share tells of others.
            let first = shared::settle(&host, ROLE, config.role().name().as_bytes());
            config.beside(&String::from_utf8_lossy(&first))?;
            Ok(config)
        });
        self.role = match config {
            Ok(Config::Bridge) => Role::Bridge,
            Ok(Config::Limiter(config)) => {
                let configuration = hex_digest(&bytes);
                let worker = Worker::new(host, *config, &configuration);
                Role::Limiter(Rc::new(RefCell::new(worker)))
            }
            Err(defect) => {
                error!("weir: {defect}");
                return false;
            }
        };
        true
    }

    fn on_tick(&mut self) {
        self.tell(Worker::tick);
    }

    fn on_queue_ready(&mut self, queue: u32) {
        host::dequeue(queue);
        self.tell(Worker::turn);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(match self.role {
            Role::Bridge => ContextType::StreamContext,
            Role::Limiter(_) | Role::Unconfigured => ContextType::HttpContext,
        })
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // To the SDK nothing would be a reason to panic.
        Some(match &self.role {
            Role::Limiter(worker) => Box::new(Request {
                stream: StreamId(id),
                worker: worker.clone(),
            }),
            Role::Unconfigured | Role::Bridge => Box::new(Unlimited),
        })
    }

    fn create_stream_context(&self, _id: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(BridgeStream::default()))
    }
}

/// The worker goes: Envoy deletes its root.
impl Drop for Root {
    fn drop(&mut self) {
        self.tell(Worker::retire);
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let headers = host::request_headers();
        let worker = &mut *self.worker.borrow_mut();
        worker.host().enter(self.stream);
        action(worker.request_headers(self.stream, headers.iter(), &RequestFacts))
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let worker = &mut *self.worker.borrow_mut();
        worker.host().enter(self.stream);
        action(worker.response_headers(self.stream, host::response_headers))
    }
}

/// The stream ends: Envoy deletes its context.
impl Drop for Request {
    fn drop(&mut self) {
        let worker = &mut *self.worker.borrow_mut();
        worker.host().enter(self.stream);
        worker.stream_ended(self.stream);
    }
}

impl Context for Unlimited {}
impl HttpContext for Unlimited {}

fn action(flow: Flow) -> Action {
    match flow {
        Flow::Continue => Action::Continue,
        Flow::Pause => Action::Pause,
    }
}
