//! Every call to Envoy, and nothing else. It decides nothing.
//!
//! The calls are the SDK's, in those variants that take bytes as they are. Envoy can answer some of
//! them with a status on which the SDK panics, and a panic costs a worker its VM:
//!
//! | call | panics on | what keeps it from that |
//! |---|---|---|
//! | `set_map_value`, `remove_map_value` | BadArgument: no such map | called in the callback of that map's own headers only |
//! | `set_property` | NotFound: no stream | declared here |
//! | `set_buffer` | BadArgument: no buffer | called in the bridge's data callbacks only |
//! | `resume_http_request` | all but Ok | Envoy answers Ok to every stream that it knows |
//! | `define_metric`, `register_shared_queue`, `set_tick_period` | all but Ok | Envoy answers Ok to these kinds and names |
//!
//! Declared here besides: the request's header map, because the SDK copies each header twice (4,900
//! instructions a request), and a local response, because the SDK's has no details.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType, Status};
use weir_core::decide::answer::{Answer, Protocol};
use weir_core::decide::limiter::Facts;
use weir_core::local::timer_queue::StreamId;
use weir_core::observe::report::Node;
use weir_core::store::call::CallId;
use weir_core::store::config::StoreConfig;
use weir_core::store::links::LinkId;
use weir_core::store::wire;
use weir_core::time::{Span, WallTime, WorkerInstant};
use weir_core::worker::{
    HeaderList, Host, Level, MetricId, MetricKind, NotDone, NotSent, SharedState,
};

/// Access logs read it as `%FILTER_STATE(wasm.weir:PLAIN)%`.
const LOG_FIELD: &str = "weir";

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

/// One worker of Envoy's.
#[derive(Debug)]
pub struct Envoy {
    root: u32,
    /// The context that Envoy takes the next call for.
    current: Cell<u32>,
    queue: Option<u32>,
    /// Where [`Host::now`] counts from.
    origin: Instant,
}

/// One side of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
}

/// All headers of a message, as Envoy serialised them.
#[derive(Debug)]
pub struct HeaderPairs(Vec<u8>);

/// What Envoy knows of the current request.
#[derive(Debug)]
pub struct RequestFacts;

impl Envoy {
    pub fn new(root: u32) -> Envoy {
        Envoy {
            root,
            current: Cell::new(root),
            queue: None,
            origin: Instant::now(),
        }
    }

    /// A callback of the root's begins.
    pub fn enter_root(&self) {
        self.current.set(self.root);
    }

    /// A callback of a request's begins.
    pub fn enter(&self, stream: StreamId) {
        self.current.set(stream.0);
    }

    /// Makes a context the one that the next calls are about. Fails where it has ended.
    fn about(&self, context: u32) -> Result<(), NotDone> {
        if self.current.get() != context {
            done(hostcalls::set_effective_context(context))?;
            self.current.set(context);
        }
        Ok(())
    }
}

impl Host for Envoy {
    fn now(&self) -> WorkerInstant {
        WorkerInstant(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn wall_clock(&self) -> WallTime {
        let now = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn set_tick_period(&self, period: Span) {
        // Whatever the context, Envoy's timer is its root's.
        let _ = hostcalls::set_tick_period(Duration::from_millis(period.as_millis()));
    }

    fn name_wake_up(&mut self, name: &str) {
        self.queue = hostcalls::register_shared_queue(name).ok();
    }

    fn wake_after_event(&self) -> Result<(), NotDone> {
        // That there is an item says all.
        let queue = self.queue.ok_or(NotDone)?;
        done(hostcalls::enqueue_shared_queue(queue, None))
    }

    fn remove_request_header(&self, stream: StreamId, name: &str) {
        if self.about(stream.0).is_ok() {
            let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
        }
    }

    fn set_response_header(&self, stream: StreamId, name: &str, value: &str) {
        if self.about(stream.0).is_ok() {
            let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
        }
    }

    fn set_log_field(&self, stream: StreamId, value: &str) {
        if self.about(stream.0).is_ok() {
            // SAFETY: both live through the call.
            unsafe {
                proxy_set_property(
                    LOG_FIELD.as_ptr(),
                    LOG_FIELD.len(),
                    value.as_ptr(),
                    value.len(),
                );
            }
        }
    }

    fn resume(&self, stream: StreamId) {
        if self.about(stream.0).is_ok() {
            let _ = hostcalls::resume_http_request();
        }
    }

    fn respond(&self, stream: StreamId, answer: &Answer, protocol: Protocol) {
        if self.about(stream.0).is_ok() {
            respond(answer, protocol);
        }
    }

    fn connection(&self, stream: StreamId) -> Option<Vec<u8>> {
        self.about(stream.0).ok()?;
        property(vec!["connection", "id"])
    }

    fn response_details(&self, stream: StreamId) -> Option<Vec<u8>> {
        self.about(stream.0).ok()?;
        property(vec!["response", "code_details"])
    }

    fn response_flags(&self, stream: StreamId) -> Option<u64> {
        self.about(stream.0).ok()?;
        let flags = property(vec!["response", "flags"])?;
        Some(u64::from_le_bytes(flags.try_into().ok()?))
    }

    fn metadata(&self, stream: StreamId, path: &[String]) -> Option<Vec<u8>> {
        self.about(stream.0).ok()?;
        let own = path.iter().map(String::as_str);
        property(
            ["metadata", "filter_metadata"]
                .into_iter()
                .chain(own)
                .collect(),
        )
    }

    fn post(&self, store: &StoreConfig, commands: usize, body: &[u8]) -> Result<CallId, NotSent> {
        self.about(self.root).map_err(|NotDone| NotSent::Refused)?;
        let StoreConfig {
            cluster,
            secret,
            timeout,
            ..
        } = store;
        let commands = commands.to_string();
        let mut headers = vec![
            (":method", "POST"),
            (":path", wire::PATH),
            (":authority", cluster.as_str()),
            (wire::REPLIES_HEADER, commands.as_str()),
        ];
        if let Some(secret) = secret {
            headers.push((wire::SECRET_HEADER, secret.expose()));
        }
        let timeout = Duration::from_millis(timeout.as_millis());
        hostcalls::dispatch_http_call(cluster, headers, Some(body), Vec::new(), timeout)
            .map(CallId)
            .map_err(|status| match status {
                // Of all that Envoy calls a bad argument, only the cluster comes from outside.
                Status::BadArgument => NotSent::UnknownCluster,
                _ => NotSent::Refused,
            })
    }

    fn open_link(&self, cluster: &str) -> Result<LinkId, NotSent> {
        self.about(self.root).map_err(|NotDone| NotSent::Refused)?;
        // A cluster's name of more than some hundred bytes has lengths in it that are not UTF-8.
        let service = String::from_utf8(grpc_service(cluster)).map_err(|_| NotSent::Refused)?;
        match grpc_stream(&service) {
            Ok(link) => Ok(link),
            Err(_) if !knows(cluster) => Err(NotSent::UnknownCluster),
            Err(_) => Err(NotSent::Refused),
        }
    }

    fn send(&self, link: LinkId, message: &[u8]) -> Result<(), NotDone> {
        const IS_LAST: bool = false;
        self.about(self.root)?;
        done(hostcalls::send_grpc_stream_message(
            link.0,
            Some(message),
            IS_LAST,
        ))
    }

    fn close_link(&self, link: LinkId) {
        if self.about(self.root).is_ok() {
            let _ = hostcalls::cancel_grpc_stream(link.0);
        }
    }

    fn read_shared(&self, name: &str) -> (Option<Vec<u8>>, SharedState) {
        let (bytes, number) = hostcalls::get_shared_data(name).unwrap_or_default();
        (bytes, SharedState::Numbered(number.unwrap_or_default()))
    }

    fn write_shared(&self, name: &str, bytes: &[u8], before: SharedState) -> Result<(), NotDone> {
        let number = match before {
            SharedState::Any => None,
            SharedState::Numbered(number) => Some(number),
        };
        done(hostcalls::set_shared_data(name, Some(bytes), number))
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<MetricId> {
        let kind = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        hostcalls::define_metric(kind, name).ok().map(MetricId)
    }

    fn add_to_metric(&self, metric: MetricId, change: i64) {
        let _ = hostcalls::increment_metric(metric.0, change);
    }

    fn record_metric(&self, metric: MetricId, value: u64) {
        let _ = hostcalls::record_metric(metric.0, value);
    }

    fn node(&self) -> Node {
        let text = |field| {
            let bytes = property(vec!["node", field]).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Node {
            id: text("id"),
            cluster: text("cluster"),
        }
    }

    fn log(&self, level: Level, words: fmt::Arguments<'_>) {
        match level {
            Level::Error => log::error!("weir: {words}"),
            Level::Info => log::info!("weir: {words}"),
            Level::Warn => log::warn!("weir: {words}"),
        }
    }
}

fn done(result: Result<(), Status>) -> Result<(), NotDone> {
    result.map_err(|_| NotDone)
}

fn grpc_stream(service: &str) -> Result<LinkId, Status> {
    // Nobody reads the path that these two make.
    hostcalls::open_grpc_stream(service, "weir", "weir", Vec::new()).map(LinkId)
}

/// Whether Envoy has that cluster, where a stream to it could not be opened. By its bare name Envoy
/// looks for it before all else, and says what it says of what it cannot read; of one in a message
/// it says only that there is no stream.
fn knows(cluster: &str) -> bool {
    match grpc_stream(cluster) {
        Ok(link) => {
            let _ = hostcalls::cancel_grpc_stream(link.0);
            true
        }
        Err(status) => status != Status::ParseFailure,
    }
}

/// Answers the current request in the language its client reads.
fn respond(answer: &Answer, protocol: Protocol) {
    let reply = answer.reply(protocol);
    let headers = reply.headers.iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|(name, value)| (*name, value.as_ref()))
        .collect();
    let headers = serialise(&headers);
    // SAFETY: all buffers live through the call.
    unsafe {
        proxy_send_local_response(
            u32::from(reply.status),
            reply.details.as_ptr(),
            reply.details.len(),
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            reply.code as i32,
        )
    };
}

// === What callbacks bring ===

pub fn plugin_configuration() -> Vec<u8> {
    buffer(BufferType::PluginConfiguration, 0..usize::MAX).unwrap_or_default()
}

/// Takes what was enqueued.
pub fn dequeue(queue: u32) {
    let _ = hostcalls::dequeue_shared_queue(queue);
}

/// The body of the answer that is being handed over.
pub fn call_response_body(size: usize) -> Option<Vec<u8>> {
    buffer(BufferType::HttpCallResponseBody, 0..size)
}

/// The message that is being handed over.
pub fn received(size: usize) -> Vec<u8> {
    buffer(BufferType::GrpcReceiveBuffer, 0..size).unwrap_or_default()
}

pub fn request_headers() -> HeaderPairs {
    header_pairs(MapType::HttpRequestHeaders)
}

/// All of them in one call: to ask for one tells the first of that name only, and costs little less.
pub fn response_headers() -> HeaderPairs {
    header_pairs(MapType::HttpResponseHeaders)
}

fn header_pairs(map: MapType) -> HeaderPairs {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: both out-pointers are valid.
    let status = unsafe { proxy_get_header_map_pairs(map, &mut data, &mut size) };
    if status != Status::Ok as u32 || data.is_null() {
        return HeaderPairs(Vec::new());
    }
    // SAFETY: Envoy allocated these `size` bytes through the SDK's `proxy_on_memory_allocate`, which
    // makes a Vec of that capacity and gives up its ownership.
    HeaderPairs(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// A part of what Envoy has in a buffer; less than asked for where there is less. Each buffer costs
/// some 9,000 instructions, whatever its size: Envoy makes a list of what the allocator may call.
fn buffer(kind: BufferType, range: Range<usize>) -> Option<Vec<u8>> {
    hostcalls::get_buffer(kind, range.start, range.len())
        .ok()
        .flatten()
}

// === TCP connections ===

/// A part of what Envoy has buffered; less than asked for where there is less.
pub fn buffered(side: Side, range: Range<usize>) -> Vec<u8> {
    buffer(side.buffer(), range).unwrap_or_default()
}

/// Replaces the first `size` buffered bytes.
pub fn replace_front(side: Side, size: usize, bytes: &[u8]) -> Result<(), NotDone> {
    done(hostcalls::set_buffer(side.buffer(), 0, size, bytes))
}

pub fn close_connection() {
    let _ = hostcalls::close_downstream();
}

impl Side {
    fn buffer(self) -> BufferType {
        match self {
            Side::Downstream => BufferType::DownstreamData,
            Side::Upstream => BufferType::UpstreamData,
        }
    }
}

// === impl RequestFacts ===

impl Facts for RequestFacts {
    fn source_address(&self) -> Vec<u8> {
        property(vec!["source", "address"]).unwrap_or_default()
    }

    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>> {
        property(vec!["filter_state", filter_state])
    }

    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        property(path.iter().map(String::as_str).collect())
    }
}

fn property(path: Vec<&str>) -> Option<Vec<u8>> {
    hostcalls::get_property(path).ok().flatten()
}

/// `GrpcService { envoy_grpc: EnvoyGrpc { cluster_name } }` as protobuf: both are fields of number 1
/// that hold bytes, whose length is written with seven bits a byte.
fn grpc_service(cluster: &str) -> Vec<u8> {
    const FIELD: u8 = 1 << 3 | 2;
    let field = |bytes: &[u8]| {
        let mut out = vec![FIELD];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    };
    field(&field(cluster.as_bytes()))
}

// === Header maps: count, then all lengths, then all names and values, each ended by a NUL ===

impl HeaderList for HeaderPairs {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let bytes = self.0.as_slice();
        let count = word(bytes, 0).unwrap_or(0);
        let mut at = 4 + count * 8;
        (0..count).map_while(move |i| {
            let name = take(bytes, &mut at, word(bytes, 4 + i * 8)?)?;
            let value = take(bytes, &mut at, word(bytes, 8 + i * 8)?)?;
            Some((name, value))
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, len: usize) -> Option<&'a [u8]> {
    let end = at.checked_add(len)?;
    let part = bytes.get(*at..end)?;
    *at = end + 1;
    Some(part)
}

fn serialise(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Lengths of headers that Weir writes itself fit 32 bits.
    let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&word(pairs.len()));
    for (name, value) in pairs {
        out.extend_from_slice(&word(name.len()));
        out.extend_from_slice(&word(value.len()));
    }
    for (name, value) in pairs {
        for part in [name, value] {
            out.extend_from_slice(part.as_bytes());
            out.push(0);
        }
    }
    out
}
