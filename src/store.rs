//! The way to the store: an HTTP call for each batch, or a message on a link that stays open.

use std::cell::{Cell, RefCell};

use log::{error, info};
use weir_core::batch::CallId;
use weir_core::config::{StoreConfig, Transport};
use weir_core::links::{Answer, LinkId, Links};
use weir_core::notice::Notice;
use weir_core::units::Micros;

use crate::host::{self, MetricId, MetricKind, NotDone, NotSent};

/// What the log was told of the cluster.
const UNKNOWN: &[u8] = b"unknown";
const KNOWN: &[u8] = b"known";

pub struct Store {
    pub config: StoreConfig,
    /// Nothing where each call is an HTTP request, which the proxy keeps.
    links: Option<RefCell<Links>>,
    /// Whether the proxy had no such cluster when a call was made last.
    unknown: Cell<bool>,
    /// How many workers of the process were told so.
    unknown_clusters: Option<MetricId>,
}

impl Store {
    pub fn new(config: StoreConfig) -> Store {
        let links = || RefCell::new(Links::new(config.timeout));
        Store {
            links: (config.transport == Transport::Stream).then(links),
            unknown: Cell::new(false),
            unknown_clusters: host::define_metric(MetricKind::Gauge, "weir.store.unknown_cluster"),
            config,
        }
    }

    /// Sends commands that will have this many replies. What comes of it comes to the context that is
    /// active now, so this is for root contexts only: a stream may end before.
    pub fn call(&self, now: Micros, replies: usize, body: &[u8]) -> Result<CallId, NotSent> {
        let called = self.try_call(now, replies, body);
        self.learn(called == Err(NotSent::UnknownCluster));
        called
    }

    /// Why this worker could not make a call, if that is known.
    pub fn trouble(&self) -> Option<Notice> {
        self.unknown.get().then(|| self.unknown_cluster())
    }

    /// What only an operator can mend, by what any worker of the process has met.
    pub fn notices(&self) -> Vec<Notice> {
        let is_unknown = host::shared(&self.told()).is_some_and(|told| told == UNKNOWN);
        let notice = is_unknown.then(|| self.unknown_cluster());
        notice.into_iter().collect()
    }

    fn unknown_cluster(&self) -> Notice {
        Notice::UnknownCluster(self.config.cluster.clone())
    }

    /// Under this name stands what the log was told last.
    fn told(&self) -> String {
        format!("weir.store.{}", self.config.cluster)
    }

    /// This worker goes.
    pub fn retire(&self) {
        if self.unknown.take() {
            self.count_unknown(-1);
        }
    }

    /// The log hears once of each change, whichever worker meets it.
    fn learn(&self, unknown: bool) {
        if self.unknown.replace(unknown) == unknown {
            return;
        }
        self.count_unknown(if unknown { 1 } else { -1 });
        let first = |what| host::claim(&self.told(), what);
        match unknown {
            true if first(UNKNOWN) => error!("weir: {}", self.unknown_cluster()),
            false if first(KNOWN) => {
                info!(
                    "weir: this Envoy knows the cluster {:?} now",
                    self.config.cluster
                );
            }
            _ => {}
        }
    }

    fn count_unknown(&self, change: i64) {
        if let Some(metric) = self.unknown_clusters {
            host::add_to_metric(metric, change);
        }
    }

    fn try_call(&self, now: Micros, replies: usize, body: &[u8]) -> Result<CallId, NotSent> {
        let Some(links) = &self.links else {
            return host::post(&self.config, &replies.to_string(), body);
        };
        let idle = links.borrow().idle();
        let link = match idle {
            Some(link) => link,
            None => {
                let link = host::open_link(&self.config.cluster)?;
                links.borrow_mut().opened(link);
                link
            }
        };
        if let Err(NotDone) = host::send(link, body) {
            self.closed(link);
            return Err(NotSent::Refused);
        }
        Ok(links.borrow_mut().sent(now, link, replies))
    }

    /// A message is being handed over; the answer, if it completes one.
    pub fn received(&self, link: LinkId, size: usize) -> Option<Answer> {
        let mut links = self.links.as_ref()?.borrow_mut();
        let answer = links.received(link, host::received(size));
        close_broken(&mut links);
        answer
    }

    /// A link carries nothing any more; the call that had no answer.
    pub fn closed(&self, link: LinkId) -> Option<CallId> {
        // The proxy knows a stream until it is ended from this side too.
        host::close_link(link);
        self.links.as_ref()?.borrow_mut().closed(link)
    }

    /// Whoever waited for the answer that was [`Store::received`] last has been told.
    pub fn rested(&self) {
        if let Some(links) = &self.links {
            links.borrow_mut().rested();
        }
    }

    /// A call that had no answer in time; to be asked until there is none.
    pub fn late(&self, now: Micros) -> Option<CallId> {
        let mut links = self.links.as_ref()?.borrow_mut();
        let call = links.late(now);
        close_broken(&mut links);
        call
    }

    /// When the next call will be late.
    pub fn next_late(&self) -> Option<Micros> {
        self.links.as_ref()?.borrow().next_late()
    }
}

fn close_broken(links: &mut Links) {
    while let Some(link) = links.broken() {
        host::close_link(link);
    }
}
