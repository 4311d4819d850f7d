//! What a proxy must be able to do. Each method is one call of the proxy's, and none decides: what is
//! asked, in which order and what an answer means is the worker's business.

use std::fmt;

use crate::decide::answer::{Answer, Protocol};
use crate::local::timer_queue::StreamId;
use crate::observe::report::Node;
use crate::store::call::CallId;
use crate::store::config::StoreConfig;
use crate::store::links::LinkId;
use crate::time::{Span, WallTime, WorkerInstant};

pub trait Host {
    fn now(&self) -> WorkerInstant;
    fn wall_clock(&self) -> WallTime;
    /// Has [`super::Worker::tick`] called once in every period; 0 stops it. Starts the period anew.
    fn set_tick_period(&self, period: Span);
    /// Gives [`Host::wake_after_event`] a name that no other worker has.
    fn name_wake_up(&mut self, name: &str);
    /// Has [`super::Worker::turn`] called once this turn of the event loop is over.
    fn wake_after_event(&self) -> Result<(), NotDone>;

    fn remove_request_header(&self, stream: StreamId, name: &str);
    fn set_response_header(&self, stream: StreamId, name: &str, value: &str);
    /// Leaves a value where access logs find it.
    fn set_log_field(&self, stream: StreamId, value: &str);
    /// Lets a request that was paused go on.
    fn resume(&self, stream: StreamId);
    fn respond(&self, stream: StreamId, answer: &Answer, protocol: Protocol);
    /// The number that the proxy has given the stream's connection.
    fn connection(&self, stream: StreamId) -> Option<Vec<u8>>;
    /// How a stream ended that ends now, in the proxy's words for access logs.
    fn response_details(&self, stream: StreamId) -> Option<Vec<u8>>;
    /// What went wrong with a stream that ends now: the proxy's bits for access logs.
    fn response_flags(&self, stream: StreamId) -> Option<u64>;
    /// What other filters have noted of a stream under this namespace and these keys.
    fn metadata(&self, stream: StreamId, path: &[String]) -> Option<Vec<u8>>;

    /// Sends a call of this many commands over HTTP. The worker takes the answer in
    /// [`super::Worker::call_answered`].
    fn post(&self, store: &StoreConfig, commands: usize, body: &[u8]) -> Result<CallId, NotSent>;
    /// Opens a stream to a cluster. What comes on it the worker takes in
    /// [`super::Worker::link_received`].
    fn open_link(&self, cluster: &str) -> Result<LinkId, NotSent>;
    fn send(&self, link: LinkId, message: &[u8]) -> Result<(), NotDone>;
    /// Ends a link. Nothing comes on it any more.
    fn close_link(&self, link: LinkId);

    /// What the workers of this process share under a name, and which state of it that is.
    fn read_shared(&self, name: &str) -> (Option<Vec<u8>>, SharedState);
    /// Fails where another worker has written since `before` was read.
    fn write_shared(&self, name: &str, bytes: &[u8], before: SharedState) -> Result<(), NotDone>;

    /// Nothing where the proxy keeps no statistics. A statistic of that name that is there already is
    /// this one.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<MetricId>;
    /// Adds to the whole process's number.
    fn add_to_metric(&self, metric: MetricId, change: i64);
    /// Adds a value to a histogram, or makes a gauge show it.
    fn record_metric(&self, metric: MetricId, value: u64);

    /// What the proxy is called, as far as it was told.
    fn node(&self) -> Node;
    fn log(&self, level: Level, words: fmt::Arguments<'_>);
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

/// Which state of shared bytes was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedState {
    /// Whatever is there, it is written over.
    Any,
    Numbered(u32),
}

/// A statistic of the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetricId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}
