//! How calls leave for the store: an HTTP request for each, or a message on a link that stays open. It
//! does not know what a call asks.

use super::host::{Host, Level, MetricId, MetricKind, NotSent};
use super::shared;
use crate::observe::notice::Notice;
use crate::store::call::CallId;
use crate::store::config::{StoreConfig, Transport};
use crate::store::links::{Answer, LinkId, Links};
use crate::time::WorkerInstant;

/// What the log was told of the cluster.
const UNKNOWN: &[u8] = b"unknown";
const KNOWN: &[u8] = b"known";

#[derive(Debug)]
pub struct StoreCalls {
    config: StoreConfig,
    /// Nothing where each call is an HTTP request, which the proxy keeps.
    links: Option<Links>,
    /// Whether the proxy had no such cluster when a call was made last.
    is_unknown: bool,
    /// How many workers of the process were told so.
    unknown_clusters: Option<MetricId>,
}

impl StoreCalls {
    pub fn new(host: &impl Host, config: StoreConfig) -> StoreCalls {
        let links = || Links::new(config.timeout);
        StoreCalls {
            links: (config.transport == Transport::Stream).then(links),
            is_unknown: false,
            unknown_clusters: host.define_metric(MetricKind::Gauge, "weir.store.unknown_cluster"),
            config,
        }
    }

    /// Sends commands that will have this many replies.
    pub fn call(
        &mut self,
        host: &impl Host,
        now: WorkerInstant,
        replies: usize,
        body: &[u8],
    ) -> Result<CallId, NotSent> {
        let called = self.try_call(host, now, replies, body);
        self.learn(host, called == Err(NotSent::UnknownCluster));
        called
    }

    /// Why this worker could not make a call, if that is known.
    pub fn last_error(&self) -> Option<Notice> {
        self.is_unknown.then(|| self.unknown_cluster())
    }

    /// What only an operator can mend, by what any worker of the process has met.
    pub fn notices(&self, host: &impl Host) -> Vec<Notice> {
        let told = shared::read(host, &self.told());
        let notice = told.is_some_and(|told| told == UNKNOWN);
        notice.then(|| self.unknown_cluster()).into_iter().collect()
    }

    /// This worker goes.
    pub fn retire(&mut self, host: &impl Host) {
        if std::mem::take(&mut self.is_unknown) {
            self.count_unknown(host, -1);
        }
    }

    fn unknown_cluster(&self) -> Notice {
        Notice::UnknownCluster(self.config.cluster.clone())
    }

    /// Under this name stands what the log was told last.
    fn told(&self) -> String {
        format!("weir.store.{}", self.config.cluster)
    }

    /// The log hears once of each change, whichever worker meets it.
    fn learn(&mut self, host: &impl Host, is_unknown: bool) {
        if std::mem::replace(&mut self.is_unknown, is_unknown) == is_unknown {
            return;
        }
        self.count_unknown(host, if is_unknown { 1 } else { -1 });
        let first = |what| shared::claim(host, &self.told(), what);
        match is_unknown {
            true if first(UNKNOWN) => {
                host.log(Level::Error, format_args!("{}", self.unknown_cluster()));
            }
            false if first(KNOWN) => host.log(
                Level::Info,
                format_args!("this Envoy knows the cluster {:?} now", self.config.cluster),
            ),
            _ => {}
        }
    }

    fn count_unknown(&self, host: &impl Host, change: i64) {
        if let Some(metric) = self.unknown_clusters {
            host.add_to_metric(metric, change);
        }
    }

    fn try_call(
        &mut self,
        host: &impl Host,
        now: WorkerInstant,
        replies: usize,
        body: &[u8],
    ) -> Result<CallId, NotSent> {
        let Some(links) = &mut self.links else {
            return host.post(&self.config, replies, body);
        };
        let link = match links.idle() {
            Some(link) => link,
            None => {
                let link = host.open_link(&self.config.cluster)?;
                links.opened(link);
                link
            }
        };
        if host.send(link, body).is_err() {
            host.close_link(link);
            links.closed(link);
            return Err(NotSent::Refused);
        }
        Ok(links.sent(now, link, replies))
    }

    /// Bytes have come on a link. The answer, if they complete one.
    pub fn received(&mut self, host: &impl Host, link: LinkId, bytes: Vec<u8>) -> Option<Answer> {
        let links = self.links.as_mut()?;
        let answer = links.received(link, bytes);
        close_broken(host, links);
        answer
    }

    /// A link carries nothing any more. The call that had no answer.
    pub fn closed(&mut self, host: &impl Host, link: LinkId) -> Option<CallId> {
        // The proxy knows a stream until it is ended from this side too.
        host.close_link(link);
        self.links.as_mut()?.closed(link)
    }

    /// Whoever waited for the answer that was [`StoreCalls::received`] last has been told.
    pub fn rested(&mut self) {
        if let Some(links) = &mut self.links {
            links.rested();
        }
    }

    /// How many calls can leave on links that are open.
    pub fn idle_links(&self) -> usize {
        self.links
            .as_ref()
            .map_or(0, |links| links.all_idle().count())
    }

    /// A call that had no answer in time; to be asked until there is none.
    pub fn late(&mut self, host: &impl Host, now: WorkerInstant) -> Option<CallId> {
        let links = self.links.as_mut()?;
        let call = links.late(now);
        close_broken(host, links);
        call
    }

    /// When the next call will be late.
    pub fn next_late(&self) -> Option<WorkerInstant> {
        self.links.as_ref()?.next_late()
    }
}

fn close_broken(host: &impl Host, links: &mut Links) {
    while let Some(link) = links.broken() {
        host.close_link(link);
    }
}
