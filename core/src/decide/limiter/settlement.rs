//! What a request that passed still costs when it is known what came of it: rules that charge by that hold
//! a part of it, and the difference is charged or refunded then, without anybody waiting.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::{Memory, Passage, Pending};
use crate::decide::answer::{self, Headers, Met};
use crate::decide::verdict::{self, Decided, LimitStatus, Verdict};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::cost_rule::Balance;
use crate::policy::ids::LimitId;
use crate::policy::tariff::Tariff;
use crate::quota::limit::Quota;
use crate::quota::operation::{Kind, Retry};
use crate::store::check::{Check, CheckRequest, ShardRequest};
use crate::time::{StoreInstant, WorkerInstant};

/// A rule whose requests cost what comes of them.
#[derive(Debug)]
pub(super) struct PendingCost {
    pub tariff: Arc<Tariff>,
    /// The trial that it is; none where it is enforced.
    pub shadow: Option<usize>,
    /// The places of its limits among those of its operation.
    pub places: Range<usize>,
}

/// All that is due for one request.
#[derive(Debug)]
pub struct Settlement {
    items: Vec<Item>,
    /// None once the response has gone.
    told: Option<OperationReply>,
}

/// What one rule holds for the request, and where.
#[derive(Debug)]
struct Item {
    tariff: Arc<Tariff>,
    /// How many permits of each.
    permits: u64,
    held: Vec<Held>,
    /// In the worker's memory.
    local: Option<HeldLocal>,
}

/// What a part of the check request took, by its receipt.
#[derive(Debug)]
struct Held {
    part: ShardRequest,
    checks: Vec<Check>,
    receipt: StoreInstant,
}

#[derive(Debug)]
struct HeldLocal {
    checks: Vec<Check>,
    receipt: StoreInstant,
}

/// Where the caller stood with the limits that were enforced when the request went on.
#[derive(Debug)]
struct OperationReply {
    snapshot: Rc<PolicySnapshot>,
    /// All of them, known or not.
    limits: Vec<LimitId>,
    accounts: Vec<Account>,
}

#[derive(Debug)]
struct Account {
    status: LimitStatus,
    /// What it was read by: a limit that is kept in memory has a part of its own.
    quota: Quota,
    /// The item of the settlement that it is settled with.
    item: Option<usize>,
}

impl Memory {
    /// The request goes on. Where nothing is to be held for it, what it took goes back, if nobody else may
    /// refund it; what to ask of the store.
    pub(super) fn hold(
        &mut self,
        settlement: &mut Settlement,
        is_refundable: bool,
    ) -> Vec<ShardRequest> {
        let mut parts = Vec::new();
        for item in &mut settlement.items {
            if is_refundable && item.tariff.held() == 0 {
                let at = item.local.as_ref().map(|local| local.receipt);
                self.adjust(item, 0, || at.unwrap_or_default(), &mut parts);
                item.permits = 0;
            }
            item.checks()
                .for_each(|check| self.holds.add(check, item.permits));
        }
        parts
    }

    /// Settles what of a settlement is due; what to ask of the store, without waiting. `cost` says what a
    /// request costs, where that is known by now. `headers` are those that the response will carry: they
    /// come to tell the balance.
    pub fn settle(
        &mut self,
        settlement: &mut Settlement,
        cost: impl Fn(&Tariff) -> Option<u64>,
        headers: &mut Headers,
        now: impl Fn() -> WorkerInstant,
    ) -> Vec<ShardRequest> {
        let costs: Vec<Option<u64>> = settlement
            .items
            .iter()
            .map(|item| cost(&item.tariff))
            .collect();
        if let Some(told) = settlement.told.take() {
            let balances = settlement.items.iter().zip(&costs);
            let balances = balances
                .map(|(item, cost)| Balance::of(item.taken(), cost.unwrap_or(item.permits)));
            told.tell(&balances.collect::<Vec<_>>(), headers);
        }
        let time = self.store_time;
        let mut parts = Vec::new();
        let items = std::mem::take(&mut settlement.items);
        for (item, cost) in items.into_iter().zip(costs) {
            let Some(cost) = cost else {
                settlement.items.push(item);
                continue;
            };
            self.release(&item);
            self.adjust(&item, cost, || time.at(now()), &mut parts);
        }
        parts
    }

    /// Somebody else has given back what a request took.
    pub fn forgo(&mut self, settlements: &[Settlement]) {
        let items = settlements.iter().flat_map(|settlement| &settlement.items);
        items.for_each(|item| self.release(item));
    }

    /// Makes what an item holds as much as that.
    fn adjust(
        &mut self,
        item: &Item,
        permits: u64,
        now: impl FnOnce() -> StoreInstant,
        parts: &mut Vec<ShardRequest>,
    ) {
        let (cost, is_owed) = match Balance::of(item.permits, permits) {
            Balance::Even => return,
            Balance::Owed(cost) => (cost, true),
            Balance::Over(cost) => (cost, false),
        };
        let kind = |receipt| match is_owed {
            true => Kind::Charge,
            false => Kind::Refund { receipt },
        };
        for held in &item.held {
            let checks = held.checks.iter().map(|check| Check {
                cost,
                ..check.clone()
            });
            let mut check_request = CheckRequest::default();
            check_request.ask(kind(held.receipt), checks);
            parts.push(held.part.asking(check_request));
        }
        if let Some(held) = &item.local {
            let kind = kind(held.receipt);
            self.local.settle(kind, &held.checks, cost, now());
        }
    }

    fn release(&mut self, item: &Item) {
        item.checks()
            .for_each(|check| self.holds.release(check, item.permits));
    }
}

impl Settlement {
    /// Whether nothing is due any more.
    pub fn is_settled(&self) -> bool {
        self.items.is_empty()
    }
}

impl Item {
    /// How many permits of each were taken.
    fn taken(&self) -> u64 {
        self.tariff.taken().get()
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        let held = self.held.iter().flat_map(|held| &held.checks);
        held.chain(self.local.iter().flat_map(|local| &local.checks))
    }
}

impl OperationReply {
    /// Puts where the caller stands once these are settled in the place of where they stood.
    fn tell(&self, balances: &[Balance], headers: &mut Headers) {
        if balances.iter().all(|balance| *balance == Balance::Even) {
            return;
        }
        let policy = &self.snapshot.policy;
        let settled = self.accounts.iter().map(|account| {
            let balance = account.item.and_then(|item| balances.get(item));
            let reading = account.status.reading;
            let reading =
                balance.map_or(reading, |balance| balance.settle(reading, &account.quota));
            LimitStatus {
                reading,
                ..account.status
            }
        });
        let settled: Vec<LimitStatus> = settled.collect();
        let warned = settled.iter().zip(&self.accounts);
        let warned = warned.filter_map(|(status, account)| {
            let soft_limit = policy.limit(status.limit)?.soft_limit;
            let used = soft_limit.warning(&account.quota, status.reading)?;
            Some((status.limit, used))
        });
        let warned: Vec<_> = warned.collect();
        headers.retain(|(name, _)| !answer::is_of_status(&policy.answers, name));
        if let Some(shown) = verdict::tightest(settled.iter()) {
            let met = Met {
                limits: &self.limits,
                statuses: &settled,
            };
            headers.extend(answer::status_headers(policy, shown, met));
        }
        headers.extend(answer::warning_header(policy, &warned));
    }
}

impl Pending {
    /// The settlement of a request that passes. `receipt` is when it took what it took in the worker's
    /// memory.
    pub(super) fn settlement(
        &self,
        passage: &Passage,
        decided: &Decided,
        receipt: StoreInstant,
        memory: &Memory,
    ) -> Option<Settlement> {
        if passage.pending_costs.is_empty() {
            return None;
        }
        // With each the places of its limits among those that are enforced; none of a trial's.
        let items = passage.pending_costs.iter().filter_map(|due| {
            let operation = passage.operation(due.shadow);
            // A trial that would have refused the request has taken nothing.
            if self.fan_in.is_refused(operation) {
                return None;
            }
            let before: usize = self.fan_in.check_request().schema().take(operation).sum();
            let (start, end) = (before + due.places.start, before + due.places.end);
            let whole = self.fan_in.check_request().checks();
            let held = self.fan_in.taken(operation).map(|(part, places, receipt)| {
                let own = places
                    .into_iter()
                    .filter(|place| (start..end).contains(place));
                Held {
                    part: part.clone(),
                    checks: own.filter_map(|place| whole.get(place)).cloned().collect(),
                    receipt,
                }
            });
            let local = match due.shadow {
                Some(_) => Vec::new(),
                None => {
                    let own = decided
                        .local
                        .iter()
                        .filter(|place| due.places.contains(place));
                    own.filter_map(|place| whole.get(*place)).cloned().collect()
                }
            };
            let item = Item {
                tariff: due.tariff.clone(),
                permits: due.tariff.taken().get(),
                held: held.filter(|held| !held.checks.is_empty()).collect(),
                local: (!local.is_empty()).then_some(HeldLocal {
                    checks: local,
                    receipt,
                }),
            };
            let enforced = match due.shadow {
                None => due.places.clone(),
                Some(_) => 0..0,
            };
            Some((enforced, item))
        });
        let (places, items): (Vec<Range<usize>>, Vec<Item>) = items.unzip();
        if items.is_empty() {
            return None;
        }
        let checks = self.fan_in.check_request().checks();
        let known = decided.statuses.iter().zip(checks).enumerate();
        let accounts = known.filter_map(|(place, (status, check))| {
            Some(Account {
                status: (*status)?,
                quota: memory.quota(decided, place, check),
                item: places.iter().position(|places| places.contains(&place)),
            })
        });
        let told = OperationReply {
            snapshot: self.snapshot.clone(),
            limits: passage.limits.clone(),
            accounts: accounts.collect(),
        };
        Some(Settlement {
            items,
            told: Some(told),
        })
    }
}

impl Pending {
    /// Where something that this worker's requests hold would let a refused one pass, it need not wait for
    /// longer than until that may have come back.
    pub(super) fn hasten(&self, passage: &Passage, decided: &mut Decided, memory: &Memory) {
        if memory.holds.is_empty() || !matches!(decided.verdict, Verdict::Refused { .. }) {
            return;
        }
        let checks = self.fan_in.check_request().checks();
        let statuses = decided.statuses.iter_mut().zip(checks).enumerate();
        for (place, (status, check)) in statuses {
            if let Some(status) = status
                && status.reading.retry != Retry::Now
                && passage.is_known_later(place)
            {
                status.reading.retry = memory.holds.wait(check, status.reading);
            }
        }
        let mut statuses = decided.statuses.iter().flatten().copied();
        if let Some(verdict) = verdict::refusal(&mut statuses) {
            decided.verdict = verdict;
        }
    }
}

impl Passage {
    /// Whether a limit that is enforced is of a rule that charges by what comes of a request.
    pub(super) fn is_known_later(&self, place: usize) -> bool {
        let enforced = self.pending_costs.iter().filter(|due| due.shadow.is_none());
        enforced.into_iter().any(|due| due.places.contains(&place))
    }

    /// The place of an operation in the check request: that of a trial, or of what is enforced.
    fn operation(&self, shadow: Option<usize>) -> usize {
        shadow.map_or(0, |shadow| shadow + usize::from(!self.limits.is_empty()))
    }
}
