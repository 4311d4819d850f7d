//! What is counted of a simulation: by limit, by counter, by caller, over time. It grows with the
//! callers of a log and not with its lines.

use hashbrown::HashMap;
use weir_core::decide::decision::Outcome as Decided;
use weir_core::policy::Policy;
use weir_core::policy::ids::LimitId;
use weir_core::request::subject::Subject;
use weir_core::time::StoreInstant;

use super::curve::Curve;
use super::gate::{Gate, Verdict, What};
use super::series::Series;

/// Everything of one policy.
pub struct Tally {
    pub limits: Vec<OfLimit>,
    pub keys: Vec<OfKey>,
    pub outcomes: [u64; Decided::ALL.len()],
    pub bad: u64,
    pub own: u64,
    pub nobody: u64,
    pub unknown_tiers: u64,
    pub without_cost: u64,
    pub series: Series,
    /// The column of each limit's rule in the series.
    columns: Vec<usize>,
}

pub struct OfLimit {
    pub requests: u64,
    pub refused: u64,
    /// Counters that it had.
    pub keys: u32,
    pub curve: Option<Curve>,
}

/// One counter: one caller, for a limit that is counted for each.
#[derive(Clone, Copy)]
pub struct OfKey {
    pub limit: LimitId,
    /// Its place among those of its limit.
    nth: u32,
    pub requests: u32,
    pub refused: u32,
    /// What was asked for in the window that is counted now, and at most in any.
    window: u64,
    in_window: u32,
    pub most: u32,
}

#[derive(Clone, Debug, Default)]
pub struct OfCaller {
    pub requests: u64,
    pub refused: u64,
    pub refused_against: u64,
    /// The limit that refused last.
    pub by: Option<LimitId>,
}

/// Whether to try other numbers, which takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curves {
    Drawn,
    Left,
}

impl Tally {
    pub fn of(policy: &Policy, curves: Curves) -> Tally {
        let mut columns = vec!["requests".to_owned()];
        let mut column_of = |rule: &str| match columns.iter().skip(1).position(|own| own == rule) {
            Some(place) => place + 1,
            None => {
                columns.push(rule.to_owned());
                columns.len() - 1
            }
        };
        let places: Vec<usize> = policy
            .limits()
            .map(|(_, limit)| column_of(&limit.rule))
            .collect();
        let limits = policy.limits().map(|(_, limit)| OfLimit {
            requests: 0,
            refused: 0,
            keys: 0,
            curve: (curves == Curves::Drawn).then(|| Curve::of(&limit.terms.quota)),
        });
        Tally {
            limits: limits.collect(),
            keys: Vec::new(),
            outcomes: [0; _],
            bad: 0,
            own: 0,
            nobody: 0,
            unknown_tiers: 0,
            without_cost: 0,
            series: Series::of(columns),
            columns: places,
        }
    }

    pub fn count(&mut self, gate: &Gate, verdict: &Verdict, now: StoreInstant) {
        match verdict.what {
            What::Bad => self.bad += 1,
            What::Own => self.own += 1,
            What::Nobody => self.nobody += 1,
            What::Decided(outcome) => {
                let place = Decided::ALL.iter().position(|one| *one == outcome);
                self.outcomes[place.unwrap_or(0)] += 1;
            }
        }
        self.unknown_tiers += u64::from(verdict.is_tier_unknown);
        self.without_cost += u64::from(verdict.lacks_cost);
        let step = self.series.at(now.0);
        step[0] += 1;
        let refusing = || verdict.refused_by.iter().chain(&verdict.would_refuse);
        for limit in refusing() {
            step[self.columns[limit.index()]] += 1;
        }
        for taken in gate.taken() {
            let is_refused = refusing().any(|limit| *limit == taken.limit);
            let own = &mut self.limits[taken.limit.index()];
            own.requests += 1;
            own.refused += u64::from(is_refused);
            if self.keys.len() <= taken.key as usize {
                let key = OfKey::new(taken.limit, u32::MAX);
                self.keys.resize(taken.key as usize + 1, key);
            }
            let key = &mut self.keys[taken.key as usize];
            if key.nth == u32::MAX {
                *key = OfKey::new(taken.limit, own.keys);
                own.keys += 1;
            }
            let window = gate.window(taken.limit, now);
            key.count(window, taken.cost.get(), is_refused);
            if let Some(curve) = &mut own.curve {
                curve.ask(key.nth, taken.cost, now);
            }
        }
    }
}

impl OfKey {
    fn new(limit: LimitId, nth: u32) -> OfKey {
        OfKey {
            limit,
            nth,
            requests: 0,
            refused: 0,
            window: 0,
            in_window: 0,
            most: 0,
        }
    }

    fn count(&mut self, window: u64, cost: u64, is_refused: bool) {
        self.requests += 1;
        self.refused += u32::from(is_refused);
        if self.window != window {
            (self.window, self.in_window) = (window, 0);
        }
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        self.in_window = self.in_window.saturating_add(cost);
        self.most = self.most.max(self.in_window);
    }
}

/// Who called, and how often they were refused.
#[derive(Default)]
pub struct Callers(pub HashMap<Subject, OfCaller>);

impl Callers {
    pub fn count(&mut self, verdict: &Verdict, against: Option<&Verdict>) {
        let subject = verdict
            .subject
            .as_ref()
            .or_else(|| against?.subject.as_ref());
        let Some(subject) = subject else {
            return;
        };
        let caller = match self.0.get_mut(subject) {
            Some(caller) => caller,
            None => self.0.entry(subject.clone()).or_default(),
        };
        caller.requests += 1;
        if verdict.is_refused() {
            caller.refused += 1;
            caller.by = verdict.refused_by;
        }
        caller.refused_against += u64::from(against.is_some_and(Verdict::is_refused));
    }
}
