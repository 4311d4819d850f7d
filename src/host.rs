//! Every call to the proxy, and nothing else. Every status that is not success is "not there" or "not
//! done": a call that panicked on one it does not expect would cost a worker its VM. Bytes stay bytes.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::null_mut;
use std::time::Instant;

use weir_core::answer::{Answer, Protocol};
use weir_core::batch::CallId;
use weir_core::config::StoreConfig;
use weir_core::gateway::Node;
use weir_core::limiter::Facts;
use weir_core::links::LinkId;
use weir_core::seats::{self, Company, Family, Seat};
use weir_core::units::{Micros, Millis};

/// Numbers of the proxy-wasm ABI 0.2.1: <https://github.com/proxy-wasm/spec>.
mod abi {
    pub const OK: u32 = 0;
    pub const BAD_ARGUMENT: u32 = 2;
    pub const PARSE_FAILURE: u32 = 4;

    pub const HTTP_REQUEST_HEADERS: u32 = 0;
    pub const HTTP_RESPONSE_HEADERS: u32 = 2;

    pub const DOWNSTREAM_DATA: u32 = 2;
    pub const UPSTREAM_DATA: u32 = 3;
    pub const HTTP_CALL_RESPONSE_BODY: u32 = 4;
    pub const GRPC_RECEIVED: u32 = 5;
    pub const PLUGIN_CONFIGURATION: u32 = 7;

    pub const COUNTER: u32 = 0;
    pub const GAUGE: u32 = 1;
    pub const HISTOGRAM: u32 = 2;

    pub const STREAM_HTTP_REQUEST: u32 = 0;
    pub const STREAM_DOWNSTREAM: u32 = 2;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            size: usize,
            data: *const u8,
            data_size: usize,
        ) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_close_stream(stream: u32) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_http_call(
            cluster: *const u8,
            cluster_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout: u32,
            call: *mut u32,
        ) -> u32;
        pub fn proxy_grpc_stream(
            service: *const u8,
            service_size: usize,
            service_name: *const u8,
            service_name_size: usize,
            method: *const u8,
            method_size: usize,
            metadata: *const u8,
            metadata_size: usize,
            stream: *mut u32,
        ) -> u32;
        pub fn proxy_grpc_send(stream: u32, message: *const u8, size: usize, end: u32) -> u32;
        pub fn proxy_grpc_cancel(stream: u32) -> u32;
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            data_size: usize,
            cas: u32,
        ) -> u32;
        pub fn proxy_register_shared_queue(name: *const u8, size: usize, queue: *mut u32) -> u32;
        pub fn proxy_enqueue_shared_queue(queue: u32, data: *const u8, size: usize) -> u32;
        pub fn proxy_dequeue_shared_queue(queue: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            name_size: usize,
            metric: *mut u32,
        ) -> u32;
        pub fn proxy_record_metric(metric: u32, value: u64) -> u32;
        pub fn proxy_increment_metric(metric: u32, offset: i64) -> u32;
    }
}

/// A stream's or a root's number in its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContextId(pub u32);

/// A shared queue of the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueId(pub u32);

/// A statistic of the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricId(u32);

/// What a statistic can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grow.
    Counter,
    Gauge,
    /// Tell how values are spread.
    Histogram,
}

/// One side of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
}

/// All headers of a message, as the proxy serialised them.
#[derive(Debug)]
pub struct HeaderPairs(Vec<u8>);

/// What Envoy knows of the current request.
#[derive(Debug)]
pub struct RequestFacts;

/// Runs a call that hands out a buffer of the VM's own allocator. Each buffer costs some 9,000
/// instructions, whatever its size: Envoy makes a list of what the allocator may call. An empty one
/// costs nothing.
fn owned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let mut data: *mut u8 = null_mut();
    let mut size: usize = 0;
    if call(&mut data, &mut size) != abi::OK {
        return None;
    }
    if data.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: the proxy allocated these `size` bytes through `proxy_on_memory_allocate`, which makes a
    // Vec of that capacity and gives up its ownership.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// A part of what the proxy has in a buffer; less than asked for where there is less.
fn buffer(number: u32, range: Range<usize>) -> Option<Vec<u8>> {
    // SAFETY: `owned` passes valid out-pointers.
    owned(|data, size| unsafe {
        abi::proxy_get_buffer_bytes(number, range.start, range.len(), data, size)
    })
}

// === The log ===

struct Log;

impl log::Log for Log {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Trace => 0,
            log::Level::Debug => 1,
            log::Level::Info => 2,
            log::Level::Warn => 3,
            log::Level::Error => 4,
        };
        let message = record.args().to_string();
        // SAFETY: `message` lives through the call.
        unsafe { abi::proxy_log(level, message.as_ptr(), message.len()) };
    }

    fn flush(&self) {}
}

/// What is logged from here on goes to the proxy's log.
pub fn start_logging() {
    // It fails where it was done before.
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

// === Time ===

/// Microseconds on a clock that never goes back, from an origin of this worker's.
pub fn now(origin: Instant) -> Micros {
    Micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The time of day, for limits that are kept in memory: their windows are aligned to it.
pub fn wall_clock() -> Micros {
    let mut nanos = 0;
    // SAFETY: the out-pointer is valid.
    unsafe { abi::proxy_get_current_time_nanoseconds(&mut nanos) };
    Micros(nanos / 1000)
}

/// Zero ticks once more at most, and then no longer. Setting a period restarts the timer.
pub fn set_tick_period(period: Millis) {
    let period = u32::try_from(period.0).unwrap_or(u32::MAX);
    // SAFETY: takes a number.
    unsafe { abi::proxy_set_tick_period_milliseconds(period) };
}

// === Configuration and what workers share ===

pub fn plugin_configuration() -> Vec<u8> {
    buffer(abi::PLUGIN_CONFIGURATION, 0..usize::MAX).unwrap_or_default()
}

/// Takes a seat in a list that all VMs of this plugin share.
pub fn take_seat(name: &str, family: Family) -> (Seat, Company) {
    let mut seated = (Seat(u32::MAX), Company::Among);
    update_shared(name, |before| {
        let (list, seat, company) = seats::taken(before, family);
        seated = (seat, company);
        Some(list)
    });
    seated
}

/// Leaves it; whether others of the family stay.
pub fn leave_seat(name: &str, family: Family, seat: Seat) -> Company {
    let mut company = Company::Among;
    update_shared(name, |before| {
        let list = seats::left(before, seat);
        company = seats::company(&list, family);
        Some(list)
    });
    company
}

/// Whether nobody of those who share this name has claimed this last.
pub fn claim(name: &str, what: &[u8]) -> bool {
    update_shared(name, |before| (before != what).then(|| what.to_vec()))
}

/// What all VMs of this plugin share under a name.
pub fn shared(name: &str) -> Option<Vec<u8>> {
    read_shared(name).0
}

/// Puts what `change` makes of it in its place, unless that is nothing; whether it did. Where another
/// VM comes between, `change` is called again.
pub fn update_shared(name: &str, mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
    /// More tries than there are workers that could come between.
    const TRIES: usize = 10_000;
    for _ in 0..TRIES {
        let (before, cas) = read_shared(name);
        let Some(after) = change(&before.unwrap_or_default()) else {
            return false;
        };
        // SAFETY: `name` and `after` live through the call.
        let status = unsafe {
            abi::proxy_set_shared_data(name.as_ptr(), name.len(), after.as_ptr(), after.len(), cas)
        };
        if status == abi::OK {
            return true;
        }
    }
    false
}

/// With the number that says whether it has changed since.
fn read_shared(name: &str) -> (Option<Vec<u8>>, u32) {
    let mut cas = 0;
    // SAFETY: `name` lives through the call; the out-pointers are valid.
    let bytes = owned(|data, size| unsafe {
        abi::proxy_get_shared_data(name.as_ptr(), name.len(), data, size, &mut cas)
    });
    (bytes, cas)
}

/// Shares bytes under a name that nobody else writes to.
pub fn share(name: &str, bytes: &[u8]) {
    /// Whatever was there before.
    const ANY: u32 = 0;
    // SAFETY: both live through the call.
    unsafe {
        abi::proxy_set_shared_data(name.as_ptr(), name.len(), bytes.as_ptr(), bytes.len(), ANY)
    };
}

/// Nothing where the proxy has no shared queues.
pub fn register_queue(name: &str) -> Option<QueueId> {
    let mut queue = 0;
    // SAFETY: `name` lives through the call; the out-pointer is valid.
    let status = unsafe { abi::proxy_register_shared_queue(name.as_ptr(), name.len(), &mut queue) };
    (status == abi::OK).then_some(QueueId(queue))
}

/// Has the root context that registered the queue called back, after this turn of the event loop.
pub fn enqueue(queue: QueueId) -> Result<(), NotDone> {
    // That there is an item says all.
    let item: [u8; 0] = [];
    // SAFETY: `item` lives through the call.
    let status = unsafe { abi::proxy_enqueue_shared_queue(queue.0, item.as_ptr(), item.len()) };
    done(status)
}

/// Takes what was enqueued.
pub fn dequeue(queue: QueueId) {
    // SAFETY: `owned` passes valid out-pointers.
    owned(|data, size| unsafe { abi::proxy_dequeue_shared_queue(queue.0, data, size) });
}

/// Nothing where the proxy keeps no statistics. One of that name that is there already is this one.
pub fn define_metric(kind: MetricKind, name: &str) -> Option<MetricId> {
    let kind = match kind {
        MetricKind::Counter => abi::COUNTER,
        MetricKind::Gauge => abi::GAUGE,
        MetricKind::Histogram => abi::HISTOGRAM,
    };
    let mut metric = 0;
    // SAFETY: `name` lives through the call; the out-pointer is valid.
    let status = unsafe { abi::proxy_define_metric(kind, name.as_ptr(), name.len(), &mut metric) };
    (status == abi::OK).then_some(MetricId(metric))
}

/// Adds to the whole process's number.
pub fn add_to_metric(metric: MetricId, change: i64) {
    // SAFETY: takes numbers.
    unsafe { abi::proxy_increment_metric(metric.0, change) };
}

/// Adds a value to those that a histogram tells of; makes a gauge show it, whatever it showed before.
pub fn record_metric(metric: MetricId, value: u64) {
    // SAFETY: takes numbers.
    unsafe { abi::proxy_record_metric(metric.0, value) };
}

/// The proxy would not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDone;

/// Why a call could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The proxy has no cluster of that name.
    UnknownCluster,
    /// It does not say why.
    Refused,
}

fn done(status: u32) -> Result<(), NotDone> {
    if status == abi::OK {
        Ok(())
    } else {
        Err(NotDone)
    }
}

// === HTTP streams ===

/// Makes a stream the one that the following calls are about; fails where it has ended.
pub fn set_context(context: ContextId) -> Result<(), NotDone> {
    // SAFETY: takes a number.
    done(unsafe { abi::proxy_set_effective_context(context.0) })
}

pub fn request_headers() -> HeaderPairs {
    header_pairs(abi::HTTP_REQUEST_HEADERS)
}

pub fn remove_request_header(name: &str) {
    // SAFETY: `name` lives through the call.
    unsafe {
        abi::proxy_remove_header_map_value(abi::HTTP_REQUEST_HEADERS, name.as_ptr(), name.len())
    };
}

/// All of them in one call: to ask for one tells the first of that name only, and costs little less.
pub fn response_headers() -> HeaderPairs {
    header_pairs(abi::HTTP_RESPONSE_HEADERS)
}

fn header_pairs(map: u32) -> HeaderPairs {
    // SAFETY: `owned` passes valid out-pointers.
    let pairs = owned(|data, size| unsafe { abi::proxy_get_header_map_pairs(map, data, size) });
    HeaderPairs(pairs.unwrap_or_default())
}

pub fn set_response_header(name: &str, value: &str) {
    // SAFETY: both live through the call.
    unsafe {
        abi::proxy_replace_header_map_value(
            abi::HTTP_RESPONSE_HEADERS,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
}

/// Leaves a value in the stream's filter state, as `wasm.` and the name; it is there for access logs.
pub fn set_filter_state(name: &str, value: &str) {
    // SAFETY: both live through the call.
    unsafe {
        abi::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len());
    }
}

pub fn resume_request() {
    // SAFETY: takes a number.
    unsafe { abi::proxy_continue_stream(abi::STREAM_HTTP_REQUEST) };
}

/// Answers the current request in the language its client reads.
pub fn respond(answer: &Answer, protocol: Protocol) {
    let reply = answer.reply(protocol);
    let headers = reply.headers.iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|(name, value)| (*name, value.as_ref()))
        .collect();
    let headers = serialise(&headers);
    // SAFETY: all buffers live through the call.
    unsafe {
        abi::proxy_send_local_response(
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

// === Calls to the store ===

/// The call's answer comes to the context that is active now, so this is for root contexts only:
/// a stream may end before the answer comes.
pub fn post(store: &StoreConfig, replies: &str, body: &[u8]) -> Result<CallId, NotSent> {
    let StoreConfig {
        cluster,
        secret,
        timeout,
        ..
    } = store;
    let mut headers = vec![
        (":method", "POST"),
        (":path", weir_core::wire::PATH),
        (":authority", cluster.as_str()),
        (weir_core::wire::REPLIES_HEADER, replies),
    ];
    if let Some(secret) = secret {
        headers.push((weir_core::wire::SECRET_HEADER, secret.expose()));
    }
    let headers = serialise(&headers);
    let trailers = serialise(&[]);
    let timeout = u32::try_from(timeout.0).unwrap_or(u32::MAX);
    let mut call = 0;
    // SAFETY: all buffers live through the call; the out-pointer is valid.
    let status = unsafe {
        abi::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &mut call,
        )
    };
    match status {
        abi::OK => Ok(CallId(call)),
        // Of all that Envoy calls a bad argument, only the cluster comes from outside.
        abi::BAD_ARGUMENT => Err(NotSent::UnknownCluster),
        _ => Err(NotSent::Refused),
    }
}

/// The body of the answer that is being handed over.
pub fn call_response_body(size: usize) -> Option<Vec<u8>> {
    buffer(abi::HTTP_CALL_RESPONSE_BODY, 0..size)
}

// === Links to the store ===

/// Opens a stream to a cluster; what comes on it comes to the context that is active now. Envoy takes it
/// for gRPC, and puts five bytes before each message (see `weir_core::wire::bridge`).
pub fn open_link(cluster: &str) -> Result<LinkId, NotSent> {
    match grpc_stream(&grpc_service(cluster)) {
        Ok(link) => Ok(link),
        Err(_) if !knows(cluster) => Err(NotSent::UnknownCluster),
        Err(_) => Err(NotSent::Refused),
    }
}

/// Whether the proxy has that cluster, where a stream to it could not be opened. By its bare name Envoy
/// looks for it before all else, and says what it says of what it cannot read; of one in a message
/// it says only that there is no stream.
fn knows(cluster: &str) -> bool {
    match grpc_stream(cluster.as_bytes()) {
        Ok(link) => {
            close_link(link);
            true
        }
        Err(status) => status != abi::PARSE_FAILURE,
    }
}

fn grpc_stream(service: &[u8]) -> Result<LinkId, u32> {
    let metadata = serialise(&[]);
    // Nobody reads the path that these two make.
    let name = "weir";
    let mut stream = 0;
    // SAFETY: all buffers live through the call; the out-pointer is valid.
    let status = unsafe {
        abi::proxy_grpc_stream(
            service.as_ptr(),
            service.len(),
            name.as_ptr(),
            name.len(),
            name.as_ptr(),
            name.len(),
            metadata.as_ptr(),
            metadata.len(),
            &mut stream,
        )
    };
    match status {
        abi::OK => Ok(LinkId(stream)),
        status => Err(status),
    }
}

/// Sends a message on a link that is open.
pub fn send(link: LinkId, message: &[u8]) -> Result<(), NotDone> {
    const NOT_THE_LAST: u32 = 0;
    // SAFETY: `message` lives through the call.
    done(unsafe { abi::proxy_grpc_send(link.0, message.as_ptr(), message.len(), NOT_THE_LAST) })
}

/// Ends a link; nothing comes on it any more.
pub fn close_link(link: LinkId) {
    // SAFETY: takes a number.
    unsafe { abi::proxy_grpc_cancel(link.0) };
}

/// The message that is being handed over.
pub fn received(size: usize) -> Vec<u8> {
    buffer(abi::GRPC_RECEIVED, 0..size).unwrap_or_default()
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

// === TCP connections ===

/// A part of what the proxy has buffered; less than asked for where there is less.
pub fn buffered(side: Side, range: Range<usize>) -> Vec<u8> {
    buffer(side.buffer(), range).unwrap_or_default()
}

/// Replaces the first `size` buffered bytes.
pub fn replace_front(side: Side, size: usize, bytes: &[u8]) -> Result<(), NotDone> {
    // SAFETY: `bytes` lives through the call.
    done(unsafe {
        abi::proxy_set_buffer_bytes(side.buffer(), 0, size, bytes.as_ptr(), bytes.len())
    })
}

pub fn close_connection() {
    // SAFETY: takes a number.
    unsafe { abi::proxy_close_stream(abi::STREAM_DOWNSTREAM) };
}

impl Side {
    fn buffer(self) -> u32 {
        match self {
            Side::Downstream => abi::DOWNSTREAM_DATA,
            Side::Upstream => abi::UPSTREAM_DATA,
        }
    }
}

// === impl RequestFacts ===

impl Facts for RequestFacts {
    fn source_address(&self) -> Vec<u8> {
        property(&["source", "address"]).unwrap_or_default()
    }

    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>> {
        property(&["filter_state", filter_state])
    }

    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        property(&path)
    }
}

/// What the proxy is called, as far as it was told.
pub fn node() -> Node {
    let text = |field| {
        let bytes = property(&["node", field]).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Node {
        id: text("id"),
        cluster: text("cluster"),
    }
}

/// The connection of a request that has ended without a response because the proxy redirects it, with
/// another stream that begins at once. To be asked while the stream's context goes.
pub fn redirected() -> Option<Vec<u8>> {
    let details = property(&["response", "code_details"])?;
    (details == b"internal_redirect").then(connection)?
}

/// The number that the proxy has given the current stream's connection.
pub fn connection() -> Option<Vec<u8>> {
    property(&["connection", "id"])
}

fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    // SAFETY: `path` lives through the call; `owned` passes valid out-pointers.
    owned(|data, size| unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

// === Header maps: count, then all lengths, then all names and values, each ended by a NUL ===

impl HeaderPairs {
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
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
