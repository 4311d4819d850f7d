//! The second check, which shares no arithmetic with Weir: the promise of each algorithm, counted
//! from the stamps of what passed. A take may pass only if no window and no bucket is exceeded by
//! it, and may be refused only if one would be.

use std::collections::HashMap;

use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::{Kind, Verdict};
use weir_core::time::StoreInstant;

use crate::history::{Call, Checked, History, KeyId, Operation, fault, stamp, stamps};

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub passed: u64,
    pub refused: u64,
    /// Fixed windows that ended with something in them and were followed by another.
    pub windows_rolled_over: u64,
    /// Entries of sliding windows that had expired by the end.
    pub entries_expired: u64,
}

/// All that passed, by limit.
pub struct Ledger {
    accounts: HashMap<KeyId, Account>,
    pub totals: Totals,
}

/// All that passed a limit, in order.
#[derive(Default)]
struct Account {
    taken: Vec<Taken>,
}

#[derive(Clone, Copy)]
struct Taken {
    at: StoreInstant,
    cost: u64,
    /// The costs of all that was taken earlier.
    before: u64,
    /// The least `before × window_ms − limit × at_ms` of this and all earlier: see [`level`].
    least: i128,
}

pub fn audit(history: &History, calls: &[&Call]) -> Checked<Ledger> {
    let mut accounts: HashMap<KeyId, Account> = HashMap::new();
    let mut quotas: HashMap<KeyId, Quota> = HashMap::new();
    let mut totals = Totals::default();
    for call in calls {
        for operation in &call.operations {
            for (key, quota, _) in &operation.limits {
                if *quotas.entry(*key).or_insert(*quota) != *quota {
                    return fault(format!("{} has two quotas", history.key(*key)));
                }
            }
            check(history, &accounts, operation, call.now)?;
            match (operation.kind, operation.told.verdict) {
                (Kind::Take, Verdict::Passed) => {
                    totals.passed += 1;
                    for (key, quota, cost) in &operation.limits {
                        let account = accounts.entry(*key).or_default();
                        account.add(quota, *cost, call.now);
                    }
                }
                (Kind::Take, _) => totals.refused += 1,
                (Kind::Peek, _) => {}
                (kind, _) => return fault(format!("cannot account for {kind:?}")),
            }
        }
    }
    let end = calls.last().map_or(StoreInstant(0), |call| call.now);
    for (key, account) in &accounts {
        account.count(&quotas[key], end, &mut totals);
    }
    Ok(Ledger { accounts, totals })
}

/// Whether the verdict is the one that what passed before calls for.
fn check(
    history: &History,
    accounts: &HashMap<KeyId, Account>,
    operation: &Operation,
    now: StoreInstant,
) -> Checked<()> {
    let none = Account::default();
    let mut full = operation.limits.iter().filter_map(|(key, quota, cost)| {
        let account = accounts.get(key).unwrap_or(&none);
        let fits = account.fits(quota, *cost, now);
        (!fits).then_some(((*key, *quota), account))
    });
    match (operation.told.verdict, full.next()) {
        (Verdict::Passed, None) | (Verdict::Refused, Some(_)) => Ok(()),
        (Verdict::Passed, Some((limit, account))) => fault(format!(
            "exceeded: {}\n  {}",
            history.place(limit, now),
            account.describe(&limit.1, now)
        )),
        (Verdict::Refused, None) => {
            let mut text = "refused, though every limit has room".to_owned();
            for (key, quota, cost) in &operation.limits {
                let account = accounts.get(key).unwrap_or(&none);
                let (place, cost) = (history.place((*key, *quota), now), cost.get());
                let passed = account.describe(quota, now);
                text += &format!("\n  {place}, cost {cost}\n    {passed}");
            }
            fault(text)
        }
        (Verdict::Unreadable, _) => fault("a key holds something that is not Weir's".to_owned()),
    }
}

// === impl Ledger ===

impl Ledger {
    /// Whether some moment of this span would have refused one permit.
    pub fn was_full(
        &self,
        key: KeyId,
        quota: &Quota,
        from: StoreInstant,
        to: StoreInstant,
    ) -> bool {
        self.accounts.get(&key).is_some_and(|account| {
            // Between two takes a limit only becomes freer.
            let takes = account.until(to).iter().map(|taken| taken.at);
            let within = takes.rev().take_while(|at| *at > from);
            let mut moments = within.chain([from]);
            moments.any(|at| !account.fits(quota, Cost::ONE, at))
        })
    }

    pub fn describe(&self, key: KeyId, quota: &Quota, now: StoreInstant) -> String {
        let account = self.accounts.get(&key);
        account.map_or_else(String::new, |account| account.describe(quota, now))
    }
}

// === impl Account ===

impl Account {
    fn add(&mut self, quota: &Quota, cost: Cost, at: StoreInstant) {
        let before = total(&self.taken);
        let start = i128::from(before) * window_ms(quota) - limit(quota) * millis(at);
        let least = self
            .taken
            .last()
            .map_or(start, |last| last.least.min(start));
        self.taken.push(Taken {
            at,
            cost: cost.get(),
            before,
            least,
        });
    }

    fn fits(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> bool {
        let cost = cost.get();
        let room = |capacity: u64| (i128::from(capacity) - i128::from(cost)) * window_ms(quota);
        match quota.algorithm() {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => {
                let taken = self.window(quota, now);
                let before = taken.first().map_or(0, |first| first.before);
                total(taken).saturating_sub(before) + cost <= quota.limit()
            }
            Algorithm::TokenBucket => level(self.until(now), quota, now) <= room(quota.capacity()),
            Algorithm::LeakyBucket => level(self.until(now), quota, now) <= room(quota.limit()),
            Algorithm::Concurrency => unreachable!("{NO_LEDGER}"),
        }
    }

    fn until(&self, now: StoreInstant) -> &[Taken] {
        let end = self.taken.partition_point(|taken| taken.at <= now);
        &self.taken[..end]
    }

    /// What was taken until now in the window that now lies in.
    fn window(&self, quota: &Quota, now: StoreInstant) -> &[Taken] {
        let window = quota.window_seconds() * 1_000_000;
        let first = match quota.algorithm() {
            Algorithm::FixedWindow => now.0 - now.0 % window,
            // A permit that is a whole window old is free again.
            _ => now.0 - window + 1,
        };
        let taken = self.until(now);
        let start = taken.partition_point(|taken| taken.at.0 < first);
        &taken[start..]
    }

    fn describe(&self, quota: &Quota, now: StoreInstant) -> String {
        let window = quota.window_seconds() * 1_000_000;
        let (span, taken) = match quota.algorithm() {
            Algorithm::FixedWindow => {
                let start = now.0 - now.0 % window;
                let end = stamp(StoreInstant(start + window));
                let span = format!("[{}, {end})", stamp(StoreInstant(start)));
                (span, self.window(quota, now))
            }
            Algorithm::SlidingWindow => {
                let start = stamp(StoreInstant(now.0 - window));
                let span = format!("({start}, {}]", stamp(now));
                (span, self.window(quota, now))
            }
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                let taken = self.until(now);
                let level = level(taken, quota, now) * 1000 / window_ms(quota);
                let used = format!("the bucket at {}.{:03}", level / 1000, level % 1000);
                (used, taken)
            }
            Algorithm::Concurrency => unreachable!("{NO_LEDGER}"),
        };
        let permits: u64 = taken.iter().map(|taken| taken.cost).sum();
        let taken = taken.iter().map(|taken| (taken.at, taken.cost));
        format!("{permits} passed before, in {span}: {}", stamps(taken))
    }

    fn count(&self, quota: &Quota, end: StoreInstant, totals: &mut Totals) {
        let window = quota.window_seconds() * 1_000_000;
        match quota.algorithm() {
            Algorithm::FixedWindow => {
                let same = |a: &Taken, b: &Taken| a.at.0 / window == b.at.0 / window;
                let windows = self.taken.chunk_by(same).count() as u64;
                totals.windows_rolled_over += windows.saturating_sub(1);
            }
            Algorithm::SlidingWindow => {
                let live = self.window(quota, end).len();
                totals.entries_expired += (self.taken.len() - live) as u64;
            }
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {}
            Algorithm::Concurrency => unreachable!("{NO_LEDGER}"),
        }
    }
}

/// `history` reads no quota of them.
const NO_LEDGER: &str = "permits in use come back, and the ledger only knows what was taken";

/// Of all that was taken up to the last of these.
fn total(taken: &[Taken]) -> u64 {
    taken.last().map_or(0, |last| last.before + last.cost)
}

/// A bucket's level in permits × window_ms, whole ms as the bucket counts them: over every span
/// from some take until now, what came in less what ran out, and of these the most. No step of it
/// depends on the one before, so an error of a bucket cannot hide in its own history.
fn level(taken: &[Taken], quota: &Quota, now: StoreInstant) -> i128 {
    let until_now = i128::from(total(taken)) * window_ms(quota) - limit(quota) * millis(now);
    taken
        .last()
        .map_or(0, |last| (until_now - last.least).max(0))
}

fn window_ms(quota: &Quota) -> i128 {
    i128::from(quota.window_seconds()) * 1000
}

fn limit(quota: &Quota) -> i128 {
    i128::from(quota.limit())
}

fn millis(at: StoreInstant) -> i128 {
    i128::from(at.0 / 1000)
}
