//! One worker's policy: which one is in force, and the look-out for the next. The workers of a process
//! are told apart here: what all of them do is counted and logged once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use log::{info, warn};
use weir_core::batch::CallId;
use weir_core::config::StoreConfig;
use weir_core::live::{Adoption, Document, Edition, Errand, News, Published, Version, Watch};
use weir_core::policy::Policy;
use weir_core::roll::{self, Spread};
use weir_core::units::{Micros, Millis};

use crate::host::{self, MetricId, MetricKind};

/// Answers to the roll outlive three looks, and a moment more for those that look often.
const ANSWERS: u64 = 3;
const MOMENT: Micros = Micros(10_000_000);
/// How long one that was never answered and never had a request counts as a worker that begins.
/// Longer, and it is no worker: Envoy's main thread has an instance too, and its calls may get nowhere.
const BEGINNING: Micros = Micros(3_000_000);

/// The names of all workers of a process share one roll.
const ROLL: &str = "weir.policy.roll";

pub struct Live {
    /// The plugin configuration's own, to start with and to go back to.
    configured: Rc<Policy>,
    edition: RefCell<Rc<Edition>>,
    watch: Option<Lookout>,
    begun: Micros,
    /// Whether there was a request.
    serves: Cell<bool>,
}

struct Lookout {
    watch: RefCell<Watch>,
    period: Millis,
    worker: u64,
    /// What was told last by any worker of this configuration.
    told: String,
    /// The last good publication, for workers that start later.
    good: String,
    /// Whether Redis let itself be read last.
    readable: Cell<bool>,
    adopted: Option<MetricId>,
    rejected: Option<MetricId>,
    oldest: Option<MetricId>,
    newest: Option<MetricId>,
}

impl Live {
    /// `ordinal` tells this worker from all others of the process that have this `configuration`, a
    /// hash in hexadecimal.
    pub fn new(
        configured: Rc<Policy>,
        store: &StoreConfig,
        ordinal: u32,
        configuration: &str,
        now: Micros,
    ) -> Live {
        let family = configuration.get(..8).unwrap_or_default();
        let family = u64::from_str_radix(family, 16).unwrap_or_default();
        let worker = family << 32 | u64::from(ordinal);
        let lookout = |period| Lookout {
            watch: RefCell::new(Watch::new(
                period,
                store.timeout,
                host::wall_clock().0 ^ worker,
                now,
            )),
            period,
            worker,
            told: format!("weir.policy.told.{configuration}"),
            good: format!("weir.policy.good.{}", store.cluster),
            readable: Cell::new(true),
            adopted: host::define_metric(MetricKind::Counter, "weir.policy.adopted_total"),
            rejected: host::define_metric(MetricKind::Counter, "weir.policy.rejected_total"),
            oldest: host::define_metric(MetricKind::Gauge, "weir.policy.version"),
            newest: host::define_metric(MetricKind::Gauge, "weir.policy.newest_version"),
        };
        let live = Live {
            edition: RefCell::new(Rc::new(Edition::configured(configured.clone()))),
            configured,
            watch: store.policy_poll.map(lookout),
            begun: host::wall_clock(),
            serves: Cell::new(false),
        };
        live.begin();
        live
    }

    /// There is a request. Whether it is the first, and another policy may be in force for it.
    pub fn serve(&self) -> bool {
        let is_first = !self.serves.replace(true);
        if is_first {
            self.begin();
        }
        is_first
    }

    /// For the requests that come, not for those under way.
    pub fn in_force(&self) -> Rc<Edition> {
        self.edition.borrow().clone()
    }

    /// When to call [`Live::tick`] next, if ever.
    pub fn next_tick(&self, now: Micros) -> Option<Millis> {
        let lookout = self.watch.as_ref()?;
        Some(lookout.watch.borrow().next_tick(now))
    }

    /// There are requests, after a while without.
    pub fn stir(&self, now: Micros) {
        if let Some(lookout) = &self.watch {
            lookout.watch.borrow_mut().stir(now);
        }
    }

    /// Time has passed. To be called in the root context, where the answer comes to.
    pub fn tick(&self, store: &StoreConfig, now: Micros) {
        let Some(lookout) = &self.watch else { return };
        let errand = lookout.watch.borrow_mut().tick(now);
        if let Some(errand) = errand {
            lookout.send(store, now, errand);
            self.answer_roll(lookout);
        }
    }

    /// Whether a call was a look-out's, and what came of it.
    pub fn answered(
        &self,
        store: &StoreConfig,
        now: Micros,
        id: CallId,
        body: Option<&[u8]>,
    ) -> Heard {
        let Some(lookout) = &self.watch else {
            return Heard::NotMine;
        };
        let news = lookout.watch.borrow_mut().answered(id, body);
        match news {
            None => return Heard::NotMine,
            Some(News::Ask(errand)) => lookout.send(store, now, errand),
            Some(News::Adopt(adoption)) => {
                self.adopt(lookout, adoption);
                self.answer_roll(lookout);
                return Heard::Adopted;
            }
            Some(news) => self.tell(lookout, news),
        }
        Heard::Mine
    }

    /// This worker goes.
    pub fn leave(&self) {
        if let Some(lookout) = &self.watch {
            let now = host::wall_clock();
            host::update_shared(ROLL, |roll| Some(roll::without(roll, lookout.worker, now)));
        }
    }

    /// With what others of this process found, where there is such: the configuration's own policy
    /// would be a step back. So before the first request of a worker that had no answer yet.
    fn begin(&self) {
        let Some(lookout) = &self.watch else { return };
        if lookout.watch.borrow().has_heard() {
            return;
        }
        let good = host::shared(&lookout.good).and_then(|good| Published::from_bytes(&good));
        if let Some(good) = good {
            let news = lookout.watch.borrow_mut().begin_with(good);
            if let News::Adopt(adoption) = news {
                self.adopt(lookout, adoption);
            }
        }
    }

    fn adopt(&self, lookout: &Lookout, adoption: Adoption) {
        let Adoption {
            version,
            document,
            published,
        } = adoption;
        let policy = match document {
            Document::Policy(policy) => Rc::new(*policy),
            Document::Configured => self.configured.clone(),
        };
        let next = self.edition.borrow().followed_by(policy, version);
        lookout.readable.set(true);
        if host::claim(
            &lookout.told,
            &[b"adopted ", published.stamp().as_slice()].concat(),
        ) {
            lookout.describe(&next, Rc::ptr_eq(&next.policy, &self.configured));
            host::update_shared(&lookout.good, |_| Some(published.to_bytes()));
            count(lookout.adopted);
        }
        *self.edition.borrow_mut() = Rc::new(next);
    }

    fn tell(&self, lookout: &Lookout, news: News) {
        let Version(version) = self.edition.borrow().version;
        let first = |told: String| host::claim(&lookout.told, told.as_bytes());
        match news {
            News::Refuse {
                version: published,
                reason,
            } => {
                if first(format!("refused {published} {reason}")) {
                    warn!(
                        "weir: policy version {published} is refused, version {version} stays in \
                         force: {reason}"
                    );
                    count(lookout.rejected);
                }
            }
            News::Gone => {
                if first(format!("gone {version}")) {
                    warn!(
                        "weir: no policy is published any more; version {version} stays in force, \
                         and a gateway that starts now does not know it: publish it again"
                    );
                }
            }
            News::Unreadable(words) => {
                if lookout.readable.replace(false) && first(format!("unreadable {words}")) {
                    warn!(
                        "weir: the published policy cannot be read, version {version} stays in \
                         force: {words}"
                    );
                    // Somebody wrote over it. All else (LOADING, NOPERM) is Redis's trouble.
                    if words.starts_with("WRONGTYPE") {
                        count(lookout.rejected);
                    }
                }
            }
            News::None => {
                if !lookout.readable.replace(true) && first("readable".to_string()) {
                    info!("weir: the published policy can be read again");
                }
            }
            News::Silence | News::Ask(_) | News::Adopt(_) => {}
        }
    }

    fn answer_roll(&self, lookout: &Lookout) {
        let now = host::wall_clock();
        let is_worker = self.serves.get() || lookout.watch.borrow().has_heard();
        let until = match is_worker {
            true => now.0 + ANSWERS * lookout.period.0 * 1000 + MOMENT.0,
            false => self.begun.0 + BEGINNING.0,
        };
        if until <= now.0 {
            return;
        }
        let own = roll::Answer {
            worker: lookout.worker,
            version: self.edition.borrow().version,
            until: Micros(until),
        };
        let mut spread = None;
        host::update_shared(ROLL, |roll| {
            let (roll, told) = roll::answer(roll, own, now);
            spread = Some(told);
            Some(roll)
        });
        if let Some(Spread { oldest, newest }) = spread {
            set(lookout.oldest, oldest);
            set(lookout.newest, newest);
        }
    }
}

/// What an answer was to the look-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is for somebody else.
    NotMine,
    Mine,
    /// Another policy is in force now.
    Adopted,
}

impl Lookout {
    fn send(&self, store: &StoreConfig, now: Micros, errand: Errand) {
        // One that cannot be sent is one that is not answered: the next look comes soon enough.
        if let Ok(id) = host::post(store, "1", &errand.command()) {
            self.watch.borrow_mut().sent(now, id, errand);
        }
    }

    fn describe(&self, edition: &Edition, is_configured: bool) {
        let Version(version) = edition.version;
        let policy = &edition.policy;
        if is_configured {
            info!("weir: policy version {version} is in force: the configuration's own");
            return;
        }
        info!("weir: policy version {version} is in force");
        for warning in &policy.warnings {
            warn!("weir: {warning}");
        }
        for rule in policy.rules().iter().chain(policy.off()) {
            info!("weir: {}", rule.describe(policy));
        }
        for experiment in policy.experiments() {
            info!("weir: {experiment}");
        }
    }
}

fn count(metric: Option<MetricId>) {
    if let Some(metric) = metric {
        host::add_to_metric(metric, 1);
    }
}

fn set(metric: Option<MetricId>, Version(version): Version) {
    if let Some(metric) = metric {
        host::record_metric(metric, version);
    }
}
