//! The proxy's side of the door: what it calls, and the contexts that it calls about.
//!
//! Written out rather than taken from an SDK because the proxy enters the VM for everything that is
//! exported, and an SDK exports all there is: bodies, trailers, the log and the end of every request,
//! none of which Weir has anything to say to.

// Exporting a symbol is unsafe in that another of its name would be replaced.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic;

use crate::bridge::BridgeStream;
use crate::host::{self, ContextId, QueueId};
use crate::http::HttpStream;
use crate::root::{Role, Root};
use weir_core::batch::CallId;
use weir_core::links::LinkId;

/// What is to become of what the proxy asks about. The numbers are the ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    Continue = 0,
    Pause = 1,
}

enum Context {
    Root(Box<Root>),
    Http(Box<HttpStream>),
    Bridge(Box<BridgeStream>),
}

type Contexts = HashMap<ContextId, Context, BuildHasherDefault<ById>>;

thread_local! {
    /// By its number, as the proxy names it. State belongs to a context; this only finds it. It
    /// changes where contexts come and go, and the proxy does not let them while one is called.
    static CONTEXTS: RefCell<Contexts> = const {
        RefCell::new(HashMap::with_hasher(BuildHasherDefault::new()))
    };
}

/// The proxy counts its contexts up: their numbers are spread as they are.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Where a number goes is told by its low bits, whether it is there by its high ones.
        self.0 = u64::from(id) | u64::from(id) << 57;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Calls a root, if it is there.
fn root(id: u32, call: impl FnOnce(&Root)) {
    CONTEXTS.with_borrow(|contexts| {
        if let Some(Context::Root(root)) = contexts.get(&ContextId(id)) {
            call(root);
        }
    });
}

/// Calls a request, if it is there: while it waits for the store it may go.
pub fn http<R>(id: ContextId, call: impl FnOnce(&HttpStream) -> R) -> Option<R> {
    CONTEXTS.with_borrow(|contexts| match contexts.get(&id) {
        Some(Context::Http(stream)) => Some(call(stream)),
        _ => None,
    })
}

/// Calls a connection. One that nobody knows would carry bytes that nobody has looked at.
fn bridge(id: u32, call: impl FnOnce(&mut BridgeStream) -> Action) -> Action {
    CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&ContextId(id)) {
        Some(Context::Bridge(stream)) => call(stream),
        _ => Action::Pause,
    })
}

// === What the proxy calls: <https://github.com/proxy-wasm/spec>, 0.2.1 ===

unsafe extern "C" {
    /// What the linker puts together of all that is to run before anything else.
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the proxy calls this first, and once.
    unsafe { __wasm_call_ctors() };
    host::start_logging();
    panic::set_hook(Box::new(|panic| log::error!("weir: {panic}")));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Room for what a host call hands out: see `host::owned`.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let room: Vec<u8> = Vec::with_capacity(size);
    room.leak().as_mut_ptr()
}

/// A root is its own, and all others have one.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, root: u32) {
    let id = ContextId(id);
    CONTEXTS.with_borrow_mut(|contexts| {
        let context = match contexts.get(&ContextId(root)) {
            None => Context::Root(Box::new(Root::new(id))),
            Some(Context::Root(root)) => match root.role() {
                Role::Limiter(limiter) => {
                    Context::Http(Box::new(HttpStream::new(id, limiter.clone())))
                }
                Role::Bridge => Context::Bridge(Box::default()),
                Role::Unconfigured => return,
            },
            Some(Context::Http(_) | Context::Bridge(_)) => return,
        };
        contexts.insert(id, context);
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    let gone = CONTEXTS.with_borrow_mut(|contexts| contexts.remove(&ContextId(id)));
    if let Some(Context::Root(root)) = gone {
        root.leave();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: u32, _size: usize) -> bool {
    CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&ContextId(id)) {
        Some(Context::Root(root)) => root.configure(),
        _ => false,
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(id: u32) {
    root(id, Root::tick);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(id: u32, queue: u32) {
    root(id, |root| root.queue_ready(QueueId(queue)));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    id: u32,
    call: u32,
    headers: usize,
    body: usize,
    _trailers: usize,
) {
    root(id, |root| root.call_answered(CallId(call), headers, body));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(id: u32, stream: u32, size: usize) {
    root(id, |root| root.link_received(LinkId(stream), size));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(id: u32, stream: u32, _status: u32) {
    root(id, |root| root.link_closed(LinkId(stream)));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _count: usize, _end_of_stream: u32) -> Action {
    http(ContextId(id), HttpStream::request_headers).unwrap_or(Action::Continue)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, _count: usize, _end_of_stream: u32) -> Action {
    http(ContextId(id), HttpStream::response_headers).unwrap_or(Action::Continue)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_data(id: u32, size: usize, _end_of_stream: u32) -> Action {
    bridge(id, |stream| stream.downstream(size))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_data(id: u32, size: usize, _end_of_stream: u32) -> Action {
    bridge(id, |stream| stream.upstream(size))
}
