//! What a request that passed still costs when its response comes: rules whose cost a response header
//! tells hold a part of it, and the difference is charged or refunded then, without anybody waiting.

use std::ops::Range;
use std::rc::Rc;

use super::{Memory, Passage, Pending};
use crate::decide::answer::{self, Headers, Met};
use crate::decide::verdict::{self, Decided, LimitStatus};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::cost_rule::{Balance, Meter, Said};
use crate::policy::ids::LimitId;
use crate::quota::limit::Quota;
use crate::quota::operation::Kind;
use crate::store::check::{Check, CheckRequest, ShardRequest};
use crate::time::{StoreInstant, WorkerInstant};

/// A rule whose requests cost what their response says.
#[derive(Debug)]
pub(super) struct PendingCost {
    pub meter: Meter,
    /// The trial that it is; none where it is enforced.
    pub shadow: Option<usize>,
    /// The places of its limits among those of its operation.
    pub places: Range<usize>,
}

/// All that is due for one request.
#[derive(Debug)]
pub struct Settlement {
    items: Vec<Item>,
    told: OperationReply,
}

/// What one rule holds for the request, and where.
#[derive(Debug)]
struct Item {
    meter: Meter,
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
    /// Settles a settlement; what to ask of the store, without waiting. `said` are the response's headers; of
    /// a request that has no response nothing is said. `headers` are those that the response will carry:
    /// they come to tell the balance.
    pub fn settle<'a>(
        &mut self,
        settlement: &Settlement,
        said: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        headers: &mut Headers,
        now: impl Fn() -> WorkerInstant,
    ) -> Vec<ShardRequest> {
        let balance = |item: &Item| {
            let said = Said::under(&item.meter.header, said.clone());
            item.meter.balance(said)
        };
        let balances: Vec<Balance> = settlement.items.iter().map(balance).collect();
        settlement.told.tell(&balances, headers);
        let mut parts = Vec::new();
        for (item, balance) in settlement.items.iter().zip(balances) {
            let (cost, is_owed) = match balance {
                Balance::Even => continue,
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
                let now = self.store_time.at(now());
                self.local.settle(kind, &held.checks, cost, now);
            }
        }
        parts
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
                meter: due.meter.clone(),
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
        Some(Settlement { items, told })
    }
}

impl Passage {
    /// The place of an operation in the check request: that of a trial, or of what is enforced.
    fn operation(&self, shadow: Option<usize>) -> usize {
        shadow.map_or(0, |shadow| shadow + usize::from(!self.limits.is_empty()))
    }
}
