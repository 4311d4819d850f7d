//! One worker's policy: which one is in force, and the poller that looks for the next. The workers of
//! a process are told apart here: what all of them do is counted and logged once.

use std::rc::Rc;

use super::host::{Host, Level, MetricId, MetricKind};
use super::seats::{Company, Seat};
use super::shared;
use super::store_calls::StoreCalls;
use crate::codec::namespace::Namespace;
use crate::live::poller::{Adoption, Document, News, Published, Query, Watch};
use crate::live::snapshot::{PolicySnapshot, Version};
use crate::live::versions::{self, VersionSkew};
use crate::policy::Policy;
use crate::store::call::CallId;
use crate::store::config::StoreConfig;
use crate::time::{Span, WallTime, WorkerInstant};

/// What a worker said of its version outlives three looks, and a moment more for those that look often.
const ANSWERS: u64 = 3;
const MOMENT: Span = Span::seconds(10);
/// How long an instance that was never answered and never had a request counts as a worker that begins.
/// Longer, and it is no worker: Envoy's main thread has an instance too, and its calls may get nowhere.
const BEGINNING: Span = Span::seconds(3);

pub struct PolicyWatch {
    /// The plugin configuration's own, to start with and to go back to.
    configured: Rc<Policy>,
    snapshot: Rc<PolicySnapshot>,
    poller: Option<Poller>,
    begun: WallTime,
    /// Whether there was a request.
    serves: bool,
}

struct Poller {
    watch: Watch,
    period: Span,
    worker: u64,
    namespace: Namespace,
    /// Where all workers of the process that follow the same policy write their versions.
    versions: String,
    /// What was told last by any worker of this configuration.
    told: String,
    /// The last good publication, for workers that start later.
    good: String,
    /// Whether Redis let itself be read last.
    readable: bool,
    adopted: Option<MetricId>,
    rejected: Option<MetricId>,
    oldest: Option<MetricId>,
    newest: Option<MetricId>,
}

/// Whose a call's answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Somebody else's.
    NotMine,
    Mine,
    /// The poller's, and another policy is in force now.
    Adopted,
}

impl PolicyWatch {
    /// `seat` tells this worker from all others of the process that have this `configuration`, a
    /// hash in hexadecimal.
    pub fn new(
        host: &impl Host,
        configured: Rc<Policy>,
        store: &StoreConfig,
        Seat(seat): Seat,
        configuration: &str,
    ) -> PolicyWatch {
        let family = configuration.get(..8).unwrap_or_default();
        let family = u64::from_str_radix(family, 16).unwrap_or_default();
        let worker = family << 32 | u64::from(seat);
        let begun = host.wall_clock();
        let namespace = &store.namespace;
        // Versions of two environments are no two versions of one policy.
        let tag = namespace.name().map(|name| format!(".namespace.{name}"));
        let tag = tag.unwrap_or_default();
        let metric = |kind, name| host.define_metric(kind, &format!("weir.policy.{name}{tag}"));
        let poller = store.policy_poll.map(|period| Poller {
            watch: Watch::new(
                namespace,
                period,
                store.timeout,
                begun.0 ^ worker,
                host.now(),
            ),
            period,
            worker,
            versions: format!("{namespace}.policy.roll.{}", versions::LAYOUT),
            told: format!("{namespace}.policy.told.{configuration}"),
            good: format!("{namespace}.policy.good.{}", store.cluster),
            namespace: namespace.clone(),
            readable: true,
            adopted: metric(MetricKind::Counter, "adopted_total"),
            rejected: metric(MetricKind::Counter, "rejected_total"),
            oldest: metric(MetricKind::Gauge, "version"),
            newest: metric(MetricKind::Gauge, "newest_version"),
        });
        let mut watch = PolicyWatch {
            snapshot: Rc::new(PolicySnapshot::configured(
                configured.clone(),
                namespace.clone(),
            )),
            configured,
            poller,
            begun,
            serves: false,
        };
        watch.begin(host);
        // From the start: else another worker would tell that all run what it has just adopted.
        watch.report_version(host);
        watch
    }

    /// There is a request. Whether it is the first, and another policy may be in force for it.
    pub fn serve(&mut self, host: &impl Host) -> bool {
        let is_first = !std::mem::replace(&mut self.serves, true);
        if is_first {
            self.begin(host);
        }
        is_first
    }

    /// For the requests that come, not for those under way.
    pub fn in_force(&self) -> &Rc<PolicySnapshot> {
        &self.snapshot
    }

    /// When to call [`PolicyWatch::tick`] next, if ever.
    pub fn next_tick(&self, now: WorkerInstant) -> Option<Span> {
        Some(self.poller.as_ref()?.watch.next_tick(now))
    }

    /// There are requests, after a while without.
    pub fn stir(&mut self, now: WorkerInstant) {
        if let Some(poller) = &mut self.poller {
            poller.watch.stir(now);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, host: &impl Host, calls: &mut StoreCalls, now: WorkerInstant) {
        let Some(poller) = &mut self.poller else {
            return;
        };
        if let Some(query) = poller.watch.tick(now) {
            poller.send(host, calls, now, query);
            self.report_version(host);
        }
    }

    /// Whether a call was the poller's, and what came of it.
    pub fn answered(
        &mut self,
        host: &impl Host,
        calls: &mut StoreCalls,
        now: WorkerInstant,
        (id, body): (CallId, Option<&[u8]>),
    ) -> Claimed {
        let Some(poller) = &mut self.poller else {
            return Claimed::NotMine;
        };
        match poller.watch.answered(id, body) {
            None => return Claimed::NotMine,
            Some(News::Ask(query)) => poller.send(host, calls, now, query),
            Some(News::Adopt(adoption)) => {
                self.adopt(host, adoption);
                self.report_version(host);
                return Claimed::Adopted;
            }
            Some(news) => poller.tell(host, self.snapshot.version, news),
        }
        Claimed::Mine
    }

    /// This worker goes.
    pub fn leave(&self, host: &impl Host, company: Company) {
        if let Some(poller) = &self.poller {
            let now = host.wall_clock();
            if company == Company::Alone {
                shared::write(host, &poller.told, &[]);
            }
            shared::update(host, &poller.versions, |all| {
                Some(versions::without(all, poller.worker, now))
            });
        }
    }

    /// Begins with what others of this process found, where there is such: the configuration's own
    /// policy would be a step back. So before the first request of a worker that had no answer yet.
    fn begin(&mut self, host: &impl Host) {
        let Some(poller) = &mut self.poller else {
            return;
        };
        if poller.watch.has_replies() {
            return;
        }
        let good = shared::read(host, &poller.good);
        let good = good.and_then(|good| Published::from_bytes(&good));
        if let Some(good) = good
            && let News::Adopt(adoption) = poller.watch.begin_with(good)
        {
            self.adopt(host, adoption);
        }
    }

    fn adopt(&mut self, host: &impl Host, adoption: Adoption) {
        let Adoption {
            version,
            document,
            published,
        } = adoption;
        let policy = match document {
            Document::Policy(mut policy) => {
                policy.status.keep_operators(&self.configured.status);
                Rc::new(*policy)
            }
            Document::Configured => self.configured.clone(),
        };
        self.snapshot = Rc::new(self.snapshot.followed_by(policy, version));
        let Some(poller) = &mut self.poller else {
            return;
        };
        poller.readable = true;
        let what = [b"adopted ", published.stamp().as_slice()].concat();
        if shared::claim(host, &poller.told, &what) {
            describe_adopted(host, &self.snapshot, &self.configured);
            shared::update(host, &poller.good, |_| Some(published.to_bytes()));
            count(host, poller.adopted);
        }
    }

    fn report_version(&self, host: &impl Host) {
        let Some(poller) = &self.poller else { return };
        let now = host.wall_clock();
        let until = match self.serves || poller.watch.has_replies() {
            true => now + poller.period.times(ANSWERS) + MOMENT,
            false => self.begun + BEGINNING,
        };
        if until <= now {
            return;
        }
        let own = versions::VersionReport {
            worker: poller.worker,
            version: self.snapshot.version,
            until,
        };
        let mut spread = None;
        shared::update(host, &poller.versions, |all| {
            let (all, told) = versions::report(all, own, now);
            spread = Some(told);
            Some(all)
        });
        if let Some(VersionSkew { oldest, newest }) = spread {
            show(host, poller.oldest, oldest);
            show(host, poller.newest, newest);
        }
    }
}

impl Poller {
    fn send(&mut self, host: &impl Host, calls: &mut StoreCalls, now: WorkerInstant, query: Query) {
        // One that cannot be sent is one that is not answered: the next look comes soon enough.
        if let Ok(id) = calls.call(host, now, 1, &query.command(&self.namespace)) {
            self.watch.sent(now, id, query);
        }
    }

    fn tell(&mut self, host: &impl Host, Version(version): Version, news: News) {
        let first = |told: String| shared::claim(host, &self.told, told.as_bytes());
        let warn = |words: std::fmt::Arguments<'_>| host.log(Level::Warn, words);
        match news {
            News::Refuse {
                version: published,
                reason,
            } => {
                if first(format!("refused {published} {reason}")) {
                    warn(format_args!(
                        "policy version {published} is refused, version {version} stays in force: \
                         {reason}"
                    ));
                    count(host, self.rejected);
                }
            }
            News::Gone => {
                if first(format!("gone {version}")) {
                    warn(format_args!(
                        "no policy is published any more; version {version} stays in force, and a \
                         gateway that starts now does not know it: publish it again"
                    ));
                }
            }
            News::Unreadable(words) => {
                let was_readable = std::mem::replace(&mut self.readable, false);
                if was_readable
                    && shared::claim(host, &self.told, format!("unreadable {words}").as_bytes())
                {
                    warn(format_args!(
                        "the published policy cannot be read, version {version} stays in force: \
                         {words}"
                    ));
                    // Somebody wrote over it. All else (LOADING, NOPERM) is Redis's trouble.
                    if words.starts_with("WRONGTYPE") {
                        count(host, self.rejected);
                    }
                }
            }
            News::None => {
                let was_readable = std::mem::replace(&mut self.readable, true);
                if !was_readable && shared::claim(host, &self.told, b"readable") {
                    host.log(
                        Level::Info,
                        format_args!("the published policy can be read again"),
                    );
                }
            }
            News::NoReply | News::Ask(_) | News::Adopt(_) => {}
        }
    }
}

fn describe_adopted(host: &impl Host, snapshot: &PolicySnapshot, configured: &Rc<Policy>) {
    let Version(version) = snapshot.version;
    let info = |words: std::fmt::Arguments<'_>| host.log(Level::Info, words);
    if Rc::ptr_eq(&snapshot.policy, configured) {
        info(format_args!(
            "policy version {version} is in force: the configuration's own"
        ));
        return;
    }
    info(format_args!("policy version {version} is in force"));
    describe(host, &snapshot.policy);
}

/// Tells the log what a policy says.
pub fn describe(host: &impl Host, policy: &Policy) {
    for warning in &policy.warnings {
        host.log(Level::Warn, format_args!("{warning}"));
    }
    for rule in policy.rules().iter().chain(policy.off()) {
        host.log(Level::Info, format_args!("{}", rule.describe(policy)));
    }
    for experiment in policy.experiments() {
        host.log(Level::Info, format_args!("{experiment}"));
    }
}

fn count(host: &impl Host, metric: Option<MetricId>) {
    if let Some(metric) = metric {
        host.add_to_metric(metric, 1);
    }
}

fn show(host: &impl Host, metric: Option<MetricId>, Version(version): Version) {
    if let Some(metric) = metric {
        host.record_metric(metric, version);
    }
}
