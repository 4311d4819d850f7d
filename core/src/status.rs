//! The status call: where a caller stands with every rule, read from the store and taking nothing.
//! It decides who may ask about whom, and how the answer reads.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde::Serialize;

use crate::answer::{self, Answer};
use crate::exempt::Treatment;
use crate::gathering::{Gathering, Heard};
use crate::identity::{Caller, Subject};
use crate::key;
use crate::live::Edition;
use crate::policy::{Limit, LimitId, Policy, Rule, Scope, Status};
use crate::question::{Check, Question};
use crate::rollout::Counting;
use crate::script::{Kind, Reading, Retry};

/// Where the filter answers status calls.
pub const PATH: &[u8] = b"/api/v1/rate-limits/status";
pub const METHOD: &[u8] = b"GET";

/// A status call on its way to the store: about whom, and which limits were asked about.
#[derive(Debug)]
pub struct Inquiry {
    about: Caller,
    treatment: Treatment,
    limits: Vec<(LimitId, Counting)>,
}

/// What the status call tells.
#[derive(Serialize)]
struct Report<'a> {
    user_id: String,
    user_tier: &'a str,
    /// The list of the policy that they are on, so that no limit holds for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<&'static str>,
    /// The variant of each experiment that is for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    variants: BTreeMap<&'a str, &'a str>,
    rate_limits: BTreeMap<&'a str, Usage<'a>>,
    /// Of the policy that is in force here; 0 for the configuration's own.
    policy_version: u64,
    /// Seconds since the Unix epoch, by the store's clock.
    timestamp: u64,
}

/// A rule's leading limit, and all limits that the rule sets for this caller.
#[derive(Serialize)]
struct Usage<'a> {
    /// Where the rule is on trial for them: it refuses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(flatten)]
    leading: Line,
    limits: Vec<Scoped<'a>>,
}

/// How a rule counts for somebody, and where they stand with its limits.
type OfRule<'a> = (Counting, Vec<(&'a Limit, Reading)>);

#[derive(Clone, Serialize)]
struct Line {
    limit: u64,
    window: u64,
    r#type: &'static str,
    current_usage: u64,
    remaining: u64,
    /// Seconds until one more request would pass; 0 if it would now.
    retry_after: u64,
    /// Seconds until the whole limit is free again.
    reset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
}

#[derive(Serialize)]
struct Scoped<'a> {
    scope: &'static str,
    name: &'a str,
    #[serde(flatten)]
    line: Line,
}

impl Inquiry {
    /// Who may ask about whom. `secret` is the value of the operator header, if one is configured
    /// and was sent.
    pub fn try_new(
        policy: &Policy,
        (caller, treatment): (Caller, Treatment),
        query: &[u8],
        secret: Option<&[u8]>,
    ) -> Result<(Inquiry, Question), Answer> {
        let operator = is_operator(&policy.status, &caller, secret);
        let user_id = parameter(query, b"user_id");
        let user_tier = parameter(query, b"user_tier");
        let own_id = |id: &Vec<u8>| caller.subject == Subject::User(id.clone());
        let own_tier = |tier: &Vec<u8>| tier.as_slice() == caller.tier.as_bytes();
        let about_self =
            user_id.as_ref().is_none_or(own_id) && user_tier.as_ref().is_none_or(own_tier);
        if caller.subject.is_anonymous() && !(operator && user_id.is_some()) {
            return Err(match about_self {
                true => answer::no_identity(
                    "Say who is asking: send a user id or an API key with the request.",
                ),
                false => answer::forbidden(),
            });
        }
        if !about_self && !operator {
            return Err(answer::forbidden());
        }
        let asker = caller.subject.clone();
        if about_self {
            return Ok(Inquiry::ask(policy, &asker, caller, treatment));
        }
        let about = match (user_id, user_tier) {
            (Some(id), tier) => Caller {
                subject: Subject::User(id),
                tier: tier.map_or("free".to_string(), |tier| lossy(&tier)),
                // Where somebody else calls from is not known.
                client: None,
                address: None,
            },
            (None, tier) => Caller {
                tier: tier.map_or(caller.tier.clone(), |tier| lossy(&tier)),
                ..caller
            },
        };
        // Nor is it known which API key they would send.
        let treatment = policy.exemptions.treatment(&about, None);
        Ok(Inquiry::ask(policy, &asker, about, treatment))
    }

    fn ask(
        policy: &Policy,
        asker: &Subject,
        about: Caller,
        treatment: Treatment,
    ) -> (Inquiry, Question) {
        let terms = &policy.status.terms;
        let own = Check {
            key: key::of_status(asker, terms.quota.algorithm()),
            terms: terms.clone(),
            cost: Status::COST,
        };
        let of_rule = |rule| {
            let counting = Rule::counting(rule, &about.subject);
            let arm = policy.arm(rule, &about.subject);
            let limits = rule.limits_for(arm, &about.tier, about.address);
            limits.map(move |limit| (limit, counting))
        };
        let limits: Vec<(LimitId, Counting)> = policy.rules().iter().flat_map(of_rule).collect();
        let checks = limits
            .iter()
            .filter_map(|(id, counting)| Some((policy.limit(*id)?, *counting)))
            .map(|(limit, counting)| Check {
                key: key::of(limit, counting, &about.subject, about.client),
                terms: limit.terms.clone(),
                cost: limit.cost,
            });
        let mut question = Question::default();
        question.ask(Kind::Take, [own]);
        if !limits.is_empty() {
            question.ask(Kind::Peek, checks);
        }
        let inquiry = Inquiry {
            about,
            treatment,
            limits,
        };
        (inquiry, question)
    }

    /// The answer, once the store has told of both operations.
    pub fn answer(&self, edition: &Edition, gathering: &Gathering) -> Answer {
        let policy = &edition.policy;
        let mut operations = gathering.operations();
        let Some((refused, [Heard::Told(own)])) = operations.next() else {
            return answer::unavailable();
        };
        // Nothing was asked about somebody whom no limit is for.
        let peeked = operations.next().map_or(&[][..], |(_, peeked)| peeked);
        if refused {
            return answer::status_refused(&policy.status.terms.quota, *own);
        }
        let mut rules: BTreeMap<&str, OfRule<'_>> = BTreeMap::new();
        for ((id, counting), heard) in self.limits.iter().zip(peeked) {
            let (Some(limit), Heard::Told(reading)) = (policy.limit(*id), heard) else {
                // A part of the usage would pass for the whole.
                return answer::unavailable();
            };
            let of_rule = rules.entry(&limit.rule);
            let (_, limits) = of_rule.or_insert_with(|| (*counting, Vec::new()));
            limits.push((limit, *reading));
        }
        let rate_limits = rules
            .into_iter()
            .filter_map(|(rule, (counting, limits))| Some((rule, usage(counting, &limits)?)));
        answer::json(
            "weir_status",
            &Report {
                user_id: id_text(&self.about.subject),
                user_tier: &self.about.tier,
                listed: self.treatment.list(),
                variants: policy
                    .experiments()
                    .iter()
                    .filter_map(|own| Some((own.name.as_str(), own.variant(&self.about.subject)?)))
                    .collect(),
                rate_limits: rate_limits.collect(),
                policy_version: edition.version.0,
                timestamp: gathering.now().0 / 1_000_000,
            },
        )
    }
}

/// A rule's summary. The call is about a caller, so their own limit leads; where a rule has none
/// for them, whatever limit it has. Of several the one with the fewest requests left.
fn usage<'a>(counting: Counting, limits: &[(&'a Limit, Reading)]) -> Option<Usage<'a>> {
    let rank =
        |(limit, reading): &&(&Limit, Reading)| (limit.scope != Scope::User, reading.remaining);
    let (limit, reading) = limits.iter().min_by_key(rank)?;
    Some(Usage {
        mode: (counting == Counting::Shadow).then_some("shadow"),
        leading: line(limit, *reading),
        limits: limits
            .iter()
            .map(|(limit, reading)| Scoped {
                scope: limit.scope.name(),
                name: &limit.whom,
                line: line(limit, *reading),
            })
            .collect(),
    })
}

fn line(limit: &Limit, reading: Reading) -> Line {
    let quota = limit.terms.quota;
    let used = i128::from(quota.capacity()) - i128::from(reading.remaining);
    Line {
        limit: quota.limit(),
        window: quota.window_seconds(),
        r#type: quota.algorithm().name(),
        current_usage: u64::try_from(used).unwrap_or(0),
        remaining: answer::remaining(reading),
        retry_after: match reading.retry {
            Retry::Now => 0,
            retry => answer::retry_seconds(retry).unwrap_or(0),
        },
        reset: reading.reset.ceil_seconds(),
        capacity: (quota.capacity() != quota.limit()).then(|| quota.capacity()),
    }
}

/// Whether the caller may ask about others.
pub fn is_operator(status: &Status, caller: &Caller, secret: Option<&[u8]>) -> bool {
    let by_tier = status
        .operator_tier
        .as_ref()
        .is_some_and(|tier| *tier == caller.tier);
    by_tier || secret.is_some_and(|secret| is_operators(status, secret))
}

/// Whether this value of the operator header is the one that only operators know.
pub fn is_operators(status: &Status, secret: &[u8]) -> bool {
    let expected = status.operator_header.as_ref();
    expected.is_some_and(|(_, expected)| expected.is(secret))
}

/// A query parameter's value, decoded; the first where there are several. An empty one is absent.
fn parameter(query: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
        .map(|value| {
            let spaced: Vec<u8> = value
                .iter()
                .map(|&byte| if byte == b'+' { b' ' } else { byte })
                .collect();
            percent_decode(&spaced).collect()
        })
        .filter(|value: &Vec<u8>| !value.is_empty())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A user's id as text: bytes that JSON text cannot carry are percent-escaped.
pub fn user_text(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) => text.to_string(),
        Err(_) => key::escaped(id).to_string(),
    }
}

/// An API key as operators see it: as much of its hash as tells it from others.
pub fn key_text(hash: &str) -> String {
    format!("api-key:{}", hash.get(..12).unwrap_or(hash))
}

/// Any subject as text.
fn id_text(subject: &Subject) -> String {
    match subject {
        Subject::User(id) => user_text(id),
        Subject::ApiKey(hash) => key_text(hash),
        Subject::Address(Some(address)) => address.to_string(),
        Subject::Address(None) => String::new(),
    }
}
