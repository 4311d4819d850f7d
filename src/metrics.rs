//! What operators see: Envoy's own statistics, `wasmcustom.weir.…`, and the view that this worker
//! leaves for whoever is asked about the gateway. A request adds to a few numbers in the worker's
//! memory. They are told about once a second, and only what has changed; so a request pays for no
//! host call, and a worker that nobody calls for nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use weir_core::answer::Answer;
use weir_core::batch::{CallId, Health};
use weir_core::gateway::{self, View};
use weir_core::limiter::Pending;
use weir_core::live::Edition;
use weir_core::record::{Outcome, Record};
use weir_core::tally::{Series, Tally};
use weir_core::traffic::Latency;
use weir_core::units::{Micros, Millis};

use crate::host::{self, MetricId, MetricKind};

/// How often what was counted is told while there is work.
pub const TELL_WITHIN: Millis = Millis(1_000);
/// Calls that never come back are forgotten; no timeout is as long.
const LOST_CALL: Micros = Micros(10_000_000);
/// Views that are read: more than a process has had workers, reloaded ones among them, in a quarter
/// of an hour.
const MOST_VIEWS: u32 = 1024;

/// One worker's part in what operators see.
pub struct Metrics {
    statistics: Statistics,
    desk: Desk,
    /// Whether something was counted that is not told yet.
    counting: Cell<bool>,
    state: RefCell<State>,
}

/// Where workers leave their views, and where this one does.
struct Desk {
    configuration: String,
    ordinal: u32,
}

#[derive(Default)]
struct State {
    /// Counts by policy, the one in force last. The ones before are there while requests finish.
    sheets: Vec<Sheet>,
    view: View,
    /// Calls under way: when they were sent, and with how many questions.
    calls: Vec<(CallId, Micros, usize)>,
    /// What has come of calls since the last time.
    answered: Answered,
    /// What the statistics know.
    told: Health,
    told_at: Micros,
    /// Whether there is more to see than when the view was left.
    news: bool,
}

struct Sheet {
    edition: Rc<Edition>,
    tally: Tally,
    /// By the number of the series; defined when it first counts.
    metrics: Vec<Option<Metric>>,
}

#[derive(Default)]
struct Answered {
    latency: Latency,
    questions: u32,
}

/// Those that do not depend on the policy.
struct Statistics {
    calls: Metric,
    failures: Metric,
    opened: Metric,
    open_lanes: Metric,
    latency: Metric,
    batch_size: Metric,
}

#[derive(Clone, Copy)]
struct Metric(Option<MetricId>);

/// How shared data names the workers of a configuration: how many there have been.
pub fn workers(configuration: &str) -> String {
    format!("weir.workers.{configuration}")
}

impl Metrics {
    pub fn define(configuration: &str, ordinal: u32) -> Metrics {
        let metric = |kind, name| Metric(host::define_metric(kind, name));
        let counter = |name| metric(MetricKind::Counter, name);
        Metrics {
            statistics: Statistics {
                calls: counter("weir.store.calls_total"),
                failures: counter("weir.store.failures_total"),
                opened: counter("weir.breaker.opened_total"),
                open_lanes: metric(MetricKind::Gauge, "weir.breaker.open_lanes"),
                latency: metric(MetricKind::Histogram, "weir.store.latency_micros"),
                batch_size: metric(MetricKind::Histogram, "weir.store.batch_size"),
            },
            desk: Desk {
                configuration: configuration.to_string(),
                ordinal,
            },
            counting: Cell::new(false),
            state: RefCell::default(),
        }
    }

    /// A request was decided.
    pub fn count(&self, pending: &Pending, record: &Record) {
        let State { sheets, view, .. } = &mut *self.state.borrow_mut();
        let Some(tally) = sheet(sheets, pending.edition()) else {
            return;
        };
        tally.count(record, pending.met());
        let refused = match record.outcome {
            Outcome::Denied => record.shown.map(|shown| shown.limit),
            _ => record.shadow_denied.first().copied(),
        };
        if let Some(limit) = refused
            && let (Some(subject), Some(rule)) = (pending.subject(), tally.rule_of(limit))
        {
            view.offenders.refused(subject, rule);
        }
    }

    /// A request was decided by who it is from, or because no rule is for it.
    pub fn decided(&self, edition: &Rc<Edition>, outcome: Outcome) {
        if let Some(tally) = sheet(&mut self.state.borrow_mut().sheets, edition) {
            tally.decided(outcome);
        }
    }

    /// A call to the store is under way.
    pub fn sent(&self, id: CallId, now: Micros, questions: usize) {
        self.state.borrow_mut().calls.push((id, now, questions));
    }

    /// A call has come back, with an answer or without.
    pub fn came_back(&self, id: CallId, now: Micros, answer: Option<&[u8]>) {
        let state = &mut *self.state.borrow_mut();
        let Some(place) = state.calls.iter().position(|(own, ..)| *own == id) else {
            return;
        };
        let (_, since, questions) = state.calls.swap_remove(place);
        if answer.is_none() {
            return;
        }
        let took = Micros(now.0.saturating_sub(since.0));
        self.statistics.latency.record(took.0);
        self.statistics.batch_size.record(questions as u64);
        state.answered.latency.add(took);
        let questions = u32::try_from(questions).unwrap_or(u32::MAX);
        state.answered.questions = state.answered.questions.saturating_add(questions);
    }

    /// Whether what is about to be counted is the first since the last time that was told.
    pub fn begins(&self) -> bool {
        let begins = !self.counting.replace(true);
        if begins {
            // What was counted before is as old as it is.
            let offenders = &mut self.state.borrow_mut().view.offenders;
            offenders.age(host::wall_clock());
        }
        begins
    }

    /// Tells what has changed, where it is time to; when it will be, where it is not.
    pub fn tick(&self, edition: &Edition, health: Health, now: Micros) -> Option<Millis> {
        let State { told, told_at, .. } = *self.state.borrow();
        if !self.counting.get() && health == told && health.open == 0 {
            return None;
        }
        let due = told_at.0.saturating_add(TELL_WITHIN.0 * 1000);
        // Lanes are not asked, or are again: that is told at once.
        if health.open == told.open && now.0 < due {
            return Some(Millis((due - now.0).div_ceil(1000)));
        }
        self.tell(edition, health, now);
        None
    }

    /// Tells what has changed.
    pub fn tell(&self, edition: &Edition, health: Health, now: Micros) {
        let state = &mut *self.state.borrow_mut();
        let time = host::wall_clock();
        state.told_at = now;
        self.counting.set(false);
        state
            .calls
            .retain(|(_, since, _)| now.0.saturating_sub(since.0) < LOST_CALL.0);
        state.view.offenders.age(time);
        self.tell_health(state, health, time);
        state.tell_counts(time);
        let version = edition.version.0;
        state.news |= std::mem::replace(&mut state.view.version, version) != version;
        self.leave_view(state, time);
    }

    fn tell_health(&self, state: &mut State, health: Health, time: Micros) {
        let told = std::mem::replace(&mut state.told, health);
        if health != told {
            let grown = |before: u64, after: u64| after.saturating_sub(before);
            let (calls, failures) = (
                grown(told.calls, health.calls),
                grown(told.failures, health.failures),
            );
            self.statistics.calls.add(signed(calls));
            self.statistics.failures.add(signed(failures));
            self.statistics
                .opened
                .add(signed(grown(told.opened, health.opened)));
            self.statistics
                .open_lanes
                .add(signed(health.open as u64) - signed(told.open as u64));
            if let Some(interval) = state.view.traffic.now(time) {
                interval.calls = interval.calls.saturating_add(small(calls));
                interval.failures = interval.failures.saturating_add(small(failures));
            }
            state.view.health(health);
            state.news = true;
        }
        let answered = std::mem::take(&mut state.answered);
        if answered.questions > 0
            && let Some(interval) = state.view.traffic.now(time)
        {
            interval.questions = interval.questions.saturating_add(answered.questions);
            interval.latency.merge(&answered.latency);
            state.news = true;
        }
    }

    /// Others find it where this worker's ordinal says.
    fn leave_view(&self, state: &mut State, time: Micros) {
        let silent = time.0.saturating_sub(state.view.at.0) >= gateway::LONGEST_SILENCE.0;
        if !(state.news || state.view.open_lanes > 0 && silent) {
            return;
        }
        state.view.at = time;
        state.news = false;
        host::share(&self.desk.view(self.desk.ordinal), &state.view.pack());
    }

    /// What an operator is told of the gateway. This worker speaks for itself as of now.
    pub fn report(&self, edition: &Edition, health: Health, now: Micros) -> Answer {
        self.tell(edition, health, now);
        let count = host::shared(&workers(&self.desk.configuration));
        let count = count.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
        let last = count.unwrap_or_default();
        let views: Vec<View> = (last.saturating_sub(MOST_VIEWS)..last)
            .filter_map(|ordinal| View::unpack(&host::shared(&self.desk.view(ordinal))?))
            .collect();
        gateway::report(&views, host::wall_clock())
    }

    /// This worker goes, and its lanes with it.
    pub fn retire(&self, edition: &Edition, now: Micros) {
        let told = self.state.borrow().told;
        self.tell(edition, Health { open: 0, ..told }, now);
    }
}

impl Desk {
    fn view(&self, ordinal: u32) -> String {
        format!("weir.view.{}.{ordinal}", self.configuration)
    }
}

/// The counts under a policy.
fn sheet<'a>(sheets: &'a mut Vec<Sheet>, edition: &Rc<Edition>) -> Option<&'a mut Tally> {
    let place = sheets
        .iter()
        .rposition(|sheet| sheet.edition.epoch == edition.epoch);
    let place = place.unwrap_or_else(|| {
        sheets.push(Sheet::new(edition.clone()));
        sheets.len() - 1
    });
    sheets.get_mut(place).map(|sheet| &mut sheet.tally)
}

impl Sheet {
    fn new(edition: Rc<Edition>) -> Sheet {
        let tally = Tally::new(edition.policy.clone());
        Sheet {
            metrics: vec![None; tally.layout().size()],
            edition,
            tally,
        }
    }
}

impl State {
    fn tell_counts(&mut self, time: Micros) {
        let State {
            sheets, view, news, ..
        } = self;
        for Sheet {
            edition,
            tally,
            metrics,
        } in sheets.iter_mut().filter(|sheet| sheet.tally.has_news())
        {
            *news = true;
            let (names, layout) = (tally.rules().to_vec(), tally.layout());
            let mut interval = view.traffic.now(time);
            tally.drain(|number, series, more| {
                let mut metric = |number: usize, series: Series| {
                    let metric = metrics.get_mut(number)?;
                    Some(*metric.get_or_insert_with(|| Metric::of(series, edition)))
                };
                if let Some(series) = series.sibling() {
                    metric(layout.number(series), series);
                }
                if let Some(metric) = metric(number, series) {
                    metric.add(i64::from(more));
                }
                if let Some(interval) = &mut interval {
                    interval.add(series, series.rule().and_then(|rule| names.get(rule)), more);
                }
            });
        }
        // A late request of a policy before finds its statistics again by their names.
        let past = sheets.len().saturating_sub(1);
        sheets.drain(..past);
    }
}

impl Metric {
    fn of(series: Series, edition: &Edition) -> Metric {
        let name = series.name(&edition.policy);
        Metric(name.and_then(|name| host::define_metric(MetricKind::Counter, &name)))
    }

    fn add(self, change: i64) {
        if let Self(Some(metric)) = self
            && change != 0
        {
            host::add_to_metric(metric, change);
        }
    }

    fn record(self, value: u64) {
        if let Self(Some(metric)) = self {
            host::record_metric(metric, value);
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
