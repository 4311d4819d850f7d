//! Tests of a policy: cases with requests and what is wanted of each, in YAML beside it. [`read`] knows
//! their language; [`Suite::run`] sends them through the code that decides in Envoy, on a clock of its own.
//! Counters are in memory, and each case begins with none.

mod read;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::{Result, anyhow};
use serde::Serialize;
use weir_core::decide::decision::Outcome;
use weir_core::policy::Policy;
use weir_core::policy::ids::LimitId;

use crate::request_line::RequestLine;
use crate::simulate::{Arrival, Caller, Gate, Verdict, What};

/// 2026-01-01T00:00:00Z, in µs: windows of the clock and of the calendar begin then.
const START: u64 = 1_767_225_600_000_000;

#[derive(Debug)]
pub struct Suite {
    /// Beside the suite.
    pub policy: String,
    cases: Vec<Case>,
}

#[derive(Debug)]
struct Case {
    name: String,
    start: u64,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    line: usize,
    /// In µs since the last step.
    after: u64,
    request: Option<RequestLine>,
    times: u64,
    caller: Who,
    /// What the upstream answers with.
    response: Vec<(String, String)>,
    want: Want,
}

#[derive(Clone, Debug, Default)]
struct Who {
    ip: String,
    user: Option<String>,
    tier: Option<String>,
    api_key: Option<String>,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Want {
    outcome: Option<Wanted>,
    /// By which it is refused, or which it meets.
    rule: Option<String>,
    /// On trial, and would have refused.
    would_deny: Option<String>,
    retry_after: Option<RangeInclusive<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It passes, for whatever reason.
    Allowed,
    Exactly(Outcome),
    Bad,
}

/// What came of a suite.
#[derive(Debug, Serialize)]
pub struct Results {
    pub name: String,
    pub cases: Vec<CaseResult>,
    pub coverage: Coverage,
}

#[derive(Debug, Serialize)]
pub struct CaseResult {
    pub name: String,
    /// The first thing that is other than wanted, where something is.
    pub failure: Option<String>,
}

/// What of a policy its cases met.
#[derive(Debug, Serialize)]
pub struct Coverage {
    pub rules: Met,
    pub limits: Met,
}

#[derive(Debug, Serialize)]
pub struct Met {
    pub met: usize,
    pub of: usize,
    pub never: Vec<String>,
}

impl Suite {
    /// Runs every case against a policy, of which `policy` gives one for each.
    pub fn run(
        &self,
        name: String,
        identity: Option<String>,
        policy: impl Fn() -> Result<Policy>,
    ) -> Result<Results> {
        let caller = Caller {
            identity,
            tier: None,
            trusted_hops: 0,
        };
        let mut met = BTreeSet::new();
        let mut cases = Vec::new();
        for case in &self.cases {
            let mut gate = Gate::try_new(policy()?, &caller)?;
            cases.push(CaseResult {
                name: case.name.clone(),
                failure: case.run(&mut gate, &mut met),
            });
        }
        Ok(Results {
            name,
            cases,
            coverage: Coverage::of(&policy()?, &met),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }
}

impl Results {
    pub fn failed(&self) -> usize {
        let failed = |case: &&CaseResult| case.failure.is_some();
        self.cases.iter().filter(failed).count()
    }
}

impl Case {
    fn run(&self, gate: &mut Gate, met: &mut BTreeSet<usize>) -> Option<String> {
        let mut now = self.start;
        for (nth, step) in self.steps.iter().enumerate() {
            now += step.after;
            let Some(request) = &step.request else {
                continue;
            };
            for time in 1..=step.times {
                let verdict = step.ask(gate, request, now);
                met.extend(gate.taken().iter().map(|taken| taken.limit.index()));
                if let Some(difference) = step.want.difference(&verdict, gate) {
                    let of = match step.times {
                        1 => String::new(),
                        times => format!(", request {time} of {times}"),
                    };
                    return Some(format!(
                        "step {} at line {}{of}: {difference}",
                        nth + 1,
                        step.line
                    ));
                }
            }
        }
        None
    }
}

impl Step {
    fn ask(&self, gate: &mut Gate, request: &RequestLine, time: u64) -> Verdict {
        let caller = &self.caller;
        let [user, api_key] = gate.id_headers().map(str::to_owned);
        let tier = gate.tier_header().to_owned();
        let mut headers: Vec<(&[u8], &[u8])> = vec![
            (b":method", request.method.as_bytes()),
            (b":path", request.path.as_bytes()),
            (b":authority", request.authority.as_bytes()),
        ];
        for (name, value) in [
            (&user, &caller.user),
            (&tier, &caller.tier),
            (&api_key, &caller.api_key),
        ] {
            if let Some(value) = value {
                headers.push((name.as_bytes(), value.as_bytes()));
            }
        }
        let others = caller.headers.iter();
        headers.extend(others.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let arrival = Arrival {
            headers: &headers,
            address: caller.ip.as_bytes(),
            time,
        };
        gate.receive(&arrival, || {
            let said = self.response.iter();
            said.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect()
        })
    }
}

impl Want {
    /// What is other than wanted, in words.
    fn difference(&self, verdict: &Verdict, gate: &Gate) -> Option<String> {
        let policy = gate.policy();
        let rule = |limit: LimitId| policy.limit(limit).map(|limit| limit.rule.as_str());
        let title = |limit: LimitId| policy.title(limit).unwrap_or_default();
        let got = || match (verdict.refused_by, verdict.retry_after) {
            (Some(limit), Some(wait)) => format!("denied by {}, retry_after {wait}", title(limit)),
            (Some(limit), None) => format!("denied by {}", title(limit)),
            (None, _) => Wanted::name_of(verdict.what).to_owned(),
        };
        if let Some(wanted) = self.outcome
            && !wanted.is(verdict.what)
        {
            return Some(format!("want {}, got {}", wanted.name(), got()));
        }
        if let Some(wanted) = &self.rule {
            let is_met = match verdict.refused_by {
                Some(limit) => rule(limit) == Some(wanted),
                None => gate
                    .taken()
                    .iter()
                    .any(|taken| rule(taken.limit) == Some(wanted)),
            };
            if !is_met {
                return Some(format!(
                    "want rule {wanted}, which it was not; got {}",
                    got()
                ));
            }
        }
        if let Some(wanted) = &self.would_deny {
            let mut would = verdict.would_refuse.iter();
            if !would.any(|limit| rule(*limit) == Some(wanted)) {
                return Some(format!(
                    "want {wanted} on trial to deny, which it would not"
                ));
            }
        }
        if let Some(wanted) = &self.retry_after
            && !verdict
                .retry_after
                .is_some_and(|wait| wanted.contains(&wait))
        {
            let (low, high) = (wanted.start(), wanted.end());
            return Some(format!("want retry_after {low}..{high}, got {}", got()));
        }
        None
    }
}

impl Wanted {
    fn is(self, what: What) -> bool {
        match (self, what) {
            (Wanted::Bad, what) => what == What::Bad,
            (Wanted::Exactly(wanted), what) => what == What::Decided(wanted),
            (Wanted::Allowed, What::Decided(outcome)) => match outcome {
                Outcome::Allowed | Outcome::Delayed | Outcome::Exempt | Outcome::Unmatched => true,
                Outcome::Denied | Outcome::Unavailable | Outcome::Blocked => false,
            },
            (Wanted::Allowed, What::Own | What::Bad | What::Nobody) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Wanted::Allowed => "allowed",
            Wanted::Bad => "bad",
            Wanted::Exactly(outcome) => outcome.name(),
        }
    }

    fn name_of(what: What) -> &'static str {
        match what {
            What::Decided(outcome) => outcome.name(),
            What::Bad => "bad",
            What::Own => "an answer of Weir's own path",
            What::Nobody => "nobody",
        }
    }
}

impl Coverage {
    fn of(policy: &Policy, met: &BTreeSet<usize>) -> Coverage {
        let is_met = |id: &LimitId| met.contains(&id.index());
        let limits: Vec<LimitId> = policy
            .limits()
            .filter(|(_, limit)| policy.rules().iter().any(|rule| rule.name() == limit.rule))
            .map(|(id, _)| id)
            .collect();
        let title = |id: &LimitId| policy.title(*id).unwrap_or_default().to_owned();
        let rule = |id: &LimitId| policy.limit(*id).map(|limit| limit.rule.clone());
        let rules: BTreeSet<String> = limits.iter().filter_map(rule).collect();
        let rules_met: BTreeSet<String> = limits
            .iter()
            .filter(|id| is_met(id))
            .filter_map(rule)
            .collect();
        Coverage {
            rules: Met {
                met: rules_met.len(),
                of: rules.len(),
                never: rules.difference(&rules_met).cloned().collect(),
            },
            limits: Met {
                met: limits.iter().filter(|id| is_met(id)).count(),
                of: limits.len(),
                never: limits.iter().filter(|id| !is_met(id)).map(title).collect(),
            },
        }
    }
}

/// A policy that is read anew for each case.
pub fn policy(text: &[u8]) -> Result<Policy> {
    use weir_core::live::poller::Document;
    match Document::read(text) {
        Ok(Document::Policy(policy)) => Ok(*policy),
        Ok(_) => Err(anyhow!(
            "it says to run the gateways' own policy, which is not known here"
        )),
        Err(defect) => Err(anyhow!("{defect}")),
    }
}
