//! What operators see: the proxy's statistics, and the view that this worker leaves for the operators'
//! report. A request adds to a few numbers in the worker's memory. They are told about once a second,
//! and only what has changed; so a request pays for no host call, and an idle worker for nothing.

use std::net::IpAddr;
use std::rc::Rc;

use super::host::{Host, MetricId, MetricKind};
use super::seats::{self, Company, Family, Seat};
use super::shared;
use super::ticker::until;
use crate::decide::answer::Answer;
use crate::decide::decision::{Outcome, Record};
use crate::decide::limiter::Pending;
use crate::live::snapshot::PolicySnapshot;
use crate::observe::counters::{Counters, Series};
use crate::observe::notice::Notice;
use crate::observe::report::{self, View};
use crate::observe::time_series::Latency;
use crate::observe::top_k::By;
use crate::policy::lists::Listed;
use crate::request::subject::Subject;
use crate::store::batch::Health;
use crate::store::call::CallId;
use crate::time::{Span, WallTime, WorkerInstant};

/// How often what was counted is told while there is work.
pub const TELL_WITHIN: Span = Span::millis(1_000);
/// Calls that never come back are forgotten; no timeout is as long.
const LOST_CALL: Span = Span::seconds(10);
/// Views that are read: more than a process has had workers, reloaded ones among them, in a quarter
/// of an hour.
const MOST_VIEWS: usize = 1024;

/// One worker's part in what operators see.
pub struct Telemetry {
    statistics: Statistics,
    desk: Desk,
    /// Whether something was counted that is not told yet.
    counting: bool,
    state: State,
}

/// Where workers leave their views, and where this one does.
struct Desk {
    family: Family,
    seat: Seat,
}

#[derive(Default)]
struct State {
    /// Counts by policy, the one in force last. The ones before are there while requests finish.
    sheets: Vec<Sheet>,
    view: View,
    /// Calls under way: when they were sent, and with how many check requests.
    calls: Vec<(CallId, WorkerInstant, usize)>,
    /// What has come of calls since the last time.
    answered: Answered,
    /// And of secrets.
    wrong_secrets: u32,
    /// What the statistics know.
    told: Health,
    told_at: WorkerInstant,
    /// Whether there is more to see than when the view was left.
    news: bool,
}

struct Sheet {
    snapshot: Rc<PolicySnapshot>,
    counters: Counters,
    /// By the number of the series; defined when it first counts.
    metrics: Vec<Option<Metric>>,
}

#[derive(Default)]
struct Answered {
    latency: Latency,
    check_requests: u32,
}

/// Those that do not depend on the policy.
struct Statistics {
    calls: Metric,
    failures: Metric,
    opened: Metric,
    open_lanes: Metric,
    latency: Metric,
    batch_size: Metric,
    wrong_secrets: Metric,
}

#[derive(Clone, Copy)]
struct Metric(Option<MetricId>);

impl Telemetry {
    pub fn define(host: &impl Host, family: Family, seat: Seat) -> Telemetry {
        let metric = |kind, name| Metric(host.define_metric(kind, name));
        let counter = |name| metric(MetricKind::Counter, name);
        Telemetry {
            statistics: Statistics {
                calls: counter("weir.store.calls_total"),
                failures: counter("weir.store.failures_total"),
                opened: counter("weir.breaker.opened_total"),
                open_lanes: metric(MetricKind::Gauge, "weir.breaker.open_lanes"),
                latency: metric(MetricKind::Histogram, "weir.store.latency_micros"),
                batch_size: metric(MetricKind::Histogram, "weir.store.batch_size"),
                wrong_secrets: counter("weir.operators.wrong_secrets_total"),
            },
            desk: Desk { family, seat },
            counting: false,
            state: State::default(),
        }
    }

    /// A request was decided.
    pub fn count(&mut self, pending: &Pending, record: &Record) {
        let State { sheets, view, .. } = &mut self.state;
        let Some(counters) = sheet(sheets, pending.snapshot()) else {
            return;
        };
        counters.count(record, pending.met());
        let refused = match record.outcome {
            Outcome::Denied => record.shown.map(|shown| shown.limit),
            _ => record.shadow_denied.first().copied(),
        };
        if let Some(limit) = refused
            && let (Some(subject), Some(rule)) = (pending.subject(), counters.rule_of(limit))
        {
            view.heavy_hitters.refused(subject, &By::Rule(rule.clone()));
        }
    }

    /// A request was decided by who it is from, or because no rule is for it.
    pub fn decided(
        &mut self,
        snapshot: &Rc<PolicySnapshot>,
        outcome: Outcome,
        listed: Option<&Listed>,
    ) {
        let State { sheets, view, .. } = &mut self.state;
        if let Some(counters) = sheet(sheets, snapshot) {
            counters.decided(outcome);
        }
        if let (Outcome::Blocked, Some(listed)) = (outcome, listed) {
            let by = By::List(listed.text().into());
            view.heavy_hitters.refused(&listed.caller.subject, &by);
        }
    }

    /// What somebody sent as the operators' secret was not it, or was not even looked at.
    pub fn wrong_secret(&mut self, client: Option<IpAddr>) {
        let state = &mut self.state;
        state.wrong_secrets = state.wrong_secrets.saturating_add(1);
        let client = Subject::Address(client);
        state.view.heavy_hitters.refused(&client, &By::Secret);
    }

    /// A request came from somebody whose tier the policy does not name.
    pub fn tier_unknown(&mut self, snapshot: &Rc<PolicySnapshot>) {
        if let Some(counters) = sheet(&mut self.state.sheets, snapshot) {
            counters.tier_unknown();
        }
    }

    /// Why the store is not asked, in the words of the call that failed last.
    pub fn last_error(&mut self, words: &str) {
        self.state.view.last_error = words.to_string();
    }

    /// A call to the store is under way.
    pub fn sent(&mut self, id: CallId, now: WorkerInstant, check_requests: usize) {
        self.state.calls.push((id, now, check_requests));
    }

    /// A call has come back, with an answer or without.
    pub fn came_back(
        &mut self,
        host: &impl Host,
        id: CallId,
        now: WorkerInstant,
        answer: Option<&[u8]>,
    ) {
        let state = &mut self.state;
        let Some(place) = state.calls.iter().position(|(own, ..)| *own == id) else {
            return;
        };
        let (_, since, check_requests) = state.calls.swap_remove(place);
        if answer.is_none() {
            return;
        }
        let took = now.since(since);
        self.statistics.latency.record(host, took.as_micros());
        self.statistics
            .batch_size
            .record(host, check_requests as u64);
        state.answered.latency.add(took);
        let check_requests = u32::try_from(check_requests).unwrap_or(u32::MAX);
        state.answered.check_requests =
            state.answered.check_requests.saturating_add(check_requests);
    }

    /// Whether what is about to be counted is the first since the last time that was told.
    pub fn begins(&mut self, host: &impl Host) -> bool {
        let begins = !std::mem::replace(&mut self.counting, true);
        if begins {
            // What was counted before is as old as it is.
            let heavy_hitters = &mut self.state.view.heavy_hitters;
            heavy_hitters.age(host.wall_clock());
        }
        begins
    }

    /// Tells what has changed, where it is time to; when it will be, where it is not.
    pub fn tick(
        &mut self,
        host: &impl Host,
        snapshot: &PolicySnapshot,
        health: Health,
        now: WorkerInstant,
    ) -> Option<Span> {
        let State { told, told_at, .. } = self.state;
        if !self.counting && is_as(health, told) && health.open == 0 {
            return None;
        }
        let due = told_at + TELL_WITHIN;
        // Lanes are not asked, or are again: that is told at once.
        if health.open == told.open && now < due {
            return Some(until(now, due));
        }
        self.tell(host, snapshot, health, now);
        None
    }

    /// Tells what has changed.
    pub fn tell(
        &mut self,
        host: &impl Host,
        snapshot: &PolicySnapshot,
        health: Health,
        now: WorkerInstant,
    ) {
        let state = &mut self.state;
        let time = host.wall_clock();
        state.told_at = now;
        self.counting = false;
        state
            .calls
            .retain(|(_, since, _)| now.since(*since) < LOST_CALL);
        state.view.heavy_hitters.age(time);
        self.statistics.tell_health(host, state, health, time);
        self.statistics.tell_wrong_secrets(host, state, time);
        state.tell_counts(host, time);
        let version = snapshot.version.0;
        let follows = std::mem::replace(&mut state.view.version, version) != version;
        // Of a worker that nobody called there is nothing to see.
        state.news |= follows && state.view.traffic.intervals().next().is_some();
        self.desk.leave_view(host, state, time);
    }

    /// What an operator is told of the gateway. This worker speaks for itself as of now.
    pub fn report(
        &mut self,
        host: &impl Host,
        snapshot: &PolicySnapshot,
        (health, notices): (Health, &[Notice]),
        now: WorkerInstant,
    ) -> Answer {
        // Whoever answers has something to do.
        self.state.news = true;
        self.tell(host, snapshot, health, now);
        let list = shared::read(host, shared::SEATS).unwrap_or_default();
        let seats = seats::of(&list, self.desk.family).rev().take(MOST_VIEWS);
        let views: Vec<View> = seats
            .filter_map(|seat| View::unpack(&shared::read(host, &view(seat))?))
            .collect();
        report::report(
            &views,
            &host.node(),
            notices,
            snapshot.version,
            host.wall_clock(),
        )
    }

    /// This worker goes, and its lanes with it.
    pub fn retire(&mut self, host: &impl Host, snapshot: &PolicySnapshot, now: WorkerInstant) {
        let told = self.state.told;
        self.tell(host, snapshot, Health { open: 0, ..told }, now);
    }

    /// The seat is for the next who comes, and what was left there for nobody. Which others of the
    /// configuration stay.
    pub fn leave_seat(&self, host: &impl Host) -> Company {
        shared::write(host, &view(self.desk.seat), &[]);
        shared::leave_seat(host, self.desk.family, self.desk.seat)
    }
}

impl Statistics {
    fn tell_health(&self, host: &impl Host, state: &mut State, health: Health, time: WallTime) {
        let told = std::mem::replace(&mut state.told, health);
        state.view.health(health);
        match (told.open, health.open) {
            (_, 0) => {
                state.view.shut_at = WallTime(0);
                state.view.last_error.clear();
            }
            (0, _) => state.view.shut_at = time,
            _ => {}
        }
        if !is_as(health, told) {
            let grown = |before: u64, after: u64| after.saturating_sub(before);
            let (calls, failures) = (
                grown(told.calls, health.calls),
                grown(told.failures, health.failures),
            );
            self.calls.add(host, signed(calls));
            self.failures.add(host, signed(failures));
            self.opened
                .add(host, signed(grown(told.opened, health.opened)));
            self.open_lanes
                .add(host, signed(health.open as u64) - signed(told.open as u64));
            if let Some(interval) = state.view.traffic.now(time) {
                interval.calls = interval.calls.saturating_add(small(calls));
                interval.failures = interval.failures.saturating_add(small(failures));
            }
            state.news = true;
        }
        let answered = std::mem::take(&mut state.answered);
        if answered.check_requests > 0 {
            state.view.answered_at = time;
        }
        if answered.check_requests > 0
            && let Some(interval) = state.view.traffic.now(time)
        {
            interval.check_requests = interval
                .check_requests
                .saturating_add(answered.check_requests);
            interval.latency.merge(&answered.latency);
            state.news = true;
        }
    }
}

impl Statistics {
    fn tell_wrong_secrets(&self, host: &impl Host, state: &mut State, time: WallTime) {
        let more = std::mem::take(&mut state.wrong_secrets);
        if more > 0
            && let Some(interval) = state.view.traffic.now(time)
        {
            interval.wrong_secrets = interval.wrong_secrets.saturating_add(more);
            self.wrong_secrets.add(host, more.into());
            state.news = true;
        }
    }
}

impl Desk {
    /// Others find it where this worker's seat says.
    fn leave_view(&self, host: &impl Host, state: &mut State, time: WallTime) {
        let silent = time.since(state.view.at) >= report::LONGEST_SILENCE;
        if !(state.news || state.view.open_lanes > 0 && silent) {
            return;
        }
        state.view.at = time;
        state.news = false;
        shared::write(host, &view(self.seat), &state.view.pack());
    }
}

fn view(Seat(seat): Seat) -> String {
    format!("weir.view.{seat}")
}

/// The counts under a policy.
fn sheet<'a>(
    sheets: &'a mut Vec<Sheet>,
    snapshot: &Rc<PolicySnapshot>,
) -> Option<&'a mut Counters> {
    let place = sheets
        .iter()
        .rposition(|sheet| sheet.snapshot.generation == snapshot.generation);
    let place = place.unwrap_or_else(|| {
        sheets.push(Sheet::new(snapshot.clone()));
        sheets.len() - 1
    });
    sheets.get_mut(place).map(|sheet| &mut sheet.counters)
}

impl Sheet {
    fn new(snapshot: Rc<PolicySnapshot>) -> Sheet {
        let counters = Counters::new(snapshot.policy.clone());
        Sheet {
            metrics: vec![None; counters.layout().size()],
            snapshot,
            counters,
        }
    }
}

impl State {
    fn tell_counts(&mut self, host: &impl Host, time: WallTime) {
        let State {
            sheets, view, news, ..
        } = self;
        for Sheet {
            snapshot,
            counters,
            metrics,
        } in sheets.iter_mut().filter(|sheet| sheet.counters.has_news())
        {
            *news = true;
            let (names, layout) = (counters.rules().to_vec(), counters.layout());
            let mut interval = view.traffic.now(time);
            counters.drain(|number, series, more| {
                let mut metric = |number: usize, series: Series| {
                    let metric = metrics.get_mut(number)?;
                    Some(*metric.get_or_insert_with(|| Metric::of(host, series, snapshot)))
                };
                if let Some(series) = series.sibling() {
                    metric(layout.number(series), series);
                }
                if let Some(metric) = metric(number, series) {
                    metric.add(host, i64::from(more));
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
    fn of(host: &impl Host, series: Series, snapshot: &PolicySnapshot) -> Metric {
        let name = series.name(&snapshot.policy);
        Metric(name.and_then(|name| host.define_metric(MetricKind::Counter, &name)))
    }

    fn add(self, host: &impl Host, change: i64) {
        if let Self(Some(metric)) = self
            && change != 0
        {
            host.add_to_metric(metric, change);
        }
    }

    fn record(self, host: &impl Host, value: u64) {
        if let Self(Some(metric)) = self {
            host.record_metric(metric, value);
        }
    }
}

/// Whether nothing has happened between the two. That there are lanes is not an event.
fn is_as(health: Health, before: Health) -> bool {
    let lanes = health.lanes;
    health == Health { lanes, ..before }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
