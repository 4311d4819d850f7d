//! The status call: where a caller stands with every rule, read from the store and taking nothing.
//! It decides who may ask about whom, and how the answer reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use percent_encoding::percent_decode;
use serde::{Serialize, Serializer};

use crate::codec::secret::DIGEST_DIGITS;
use crate::decide::answer::{self, Answer};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::ids::{LimitId, Scope};
use crate::policy::lists::{Listed, Treatment};
use crate::policy::rollout::Counting;
use crate::policy::{Limit, Policy, Rule, Status, key};
use crate::quota::operation::{Kind, Reading, Retry, Verdict};
use crate::request::address;
use crate::request::identity::{ANONYMOUS_TIER, Caller, DEFAULT_TIER, Sources};
use crate::request::subject::{Subject, id_text};
use crate::store::check::{Check, CheckRequest};
use crate::store::fan_in::{CheckReply, FanIn};
use crate::time::WallTime;

/// Where the filter answers status calls.
pub const PATH: &[u8] = b"/api/v1/rate-limits/status";
pub const METHOD: &[u8] = b"GET";
/// Where operators are told of the gateway, and where the live page is handed out.
pub const REPORT_PATH: &[u8] = b"/api/v1/rate-limits/status/gateway";
pub const PAGE_PATH: &[u8] = b"/api/v1/rate-limits/status/page";

/// What a call may ask, by the names of a query.
const PARAMETERS: [&str; 4] = [USER_ID, USER_TIER, API_KEY, ADDRESS];
pub const USER_ID: &str = "user_id";
const USER_TIER: &str = "user_tier";
pub const API_KEY: &str = "api_key_sha256";
pub const ADDRESS: &str = "address";

/// Limits of other tiers than the one that is assumed: as many as Redis looks up besides in half a
/// millisecond.
const MOST_OTHERS: usize = 256;
/// As much of what somebody wrote as a message repeats.
const LONGEST_WORD: usize = 64;

/// A status call on its way to the store: about whom, and which limits were asked about.
#[derive(Debug)]
pub struct Inquiry {
    about: Caller,
    listed: Option<Listed>,
    /// Whether an operator asks about somebody else, who is known by what the query says alone.
    about_other: bool,
    /// Whether the query does not say of which tier they are.
    is_tier_assumed: bool,
    limits: Vec<(LimitId, Counting)>,
    /// Where the tier is assumed: limits of the others, each tier's by its name.
    others: Vec<(String, Vec<(LimitId, Counting)>)>,
    /// Whether there were too many of them.
    is_cut: bool,
}

/// What a query asks. What is not there is about whoever asks.
#[derive(Debug, Default)]
struct Asked {
    user_id: Option<Vec<u8>>,
    user_tier: Option<String>,
    /// In lower case.
    api_key: Option<String>,
    address: Option<IpAddr>,
}

/// What the status call tells.
#[derive(Serialize)]
struct Report<'a> {
    user_id: String,
    user_tier: &'a str,
    /// What of this the gateway does not know and took for granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assumed: Vec<&'static str>,
    /// What to know about this answer, and what to ask instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// The list of the policy that they are on, so that no limit holds for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<&'static str>,
    /// The entry of the list, for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    listed_by: Option<String>,
    /// The variant of each experiment that is for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    variants: BTreeMap<&'a str, &'a str>,
    /// In the order in which rules apply.
    rate_limits: InOrder<'a>,
    /// Limits of tiers that they might be of: those with usage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    other_tiers: BTreeMap<&'a str, InOrder<'a>>,
    /// Of the policy that is in force here; 0 for the configuration's own.
    policy_version: u64,
    /// Seconds since the Unix epoch, by the store's clock.
    timestamp: u64,
}

/// An object whose members come in this order.
struct InOrder<'a>(Vec<(&'a str, Usage<'a>)>);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, usage)| (name, usage)))
    }
}

/// A rule's leading limit, and all limits that the rule sets for this caller.
#[derive(Serialize)]
struct Usage<'a> {
    /// Where the rule is in shadow mode for them: it refuses nothing.
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

// === impl Asked ===

impl Asked {
    /// What cannot be understood is told, and never left out: the answer would be about another.
    fn read(query: &[u8]) -> Result<Asked, Answer> {
        let wrong = |message: String| Err(answer::bad_query(&message));
        let mut asked = Asked::default();
        let pairs = query.split(|byte| *byte == b'&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let mut next = || decoded(parts.next().unwrap_or_default());
            let (name, value) = (next(), next());
            let Some(name) = PARAMETERS.iter().find(|known| known.as_bytes() == name) else {
                return wrong(format!(
                    "{:?} is no parameter of this call; the parameters are {}.",
                    word(&name),
                    PARAMETERS.join(", ")
                ));
            };
            if value.is_empty() {
                return wrong(format!(
                    "{name} is empty; give it a value, or leave it out."
                ));
            }
            let is_new = match *name {
                USER_ID => asked.user_id.replace(value).is_none(),
                USER_TIER => asked.user_tier.replace(lossy(&value)).is_none(),
                API_KEY => {
                    let is_digest =
                        value.len() == DIGEST_DIGITS && value.iter().all(u8::is_ascii_hexdigit);
                    if !is_digest {
                        return wrong(format!(
                            "{name} is no SHA-256 in hex; write what `printf %s KEY | sha256sum` \
                             prints, 64 digits. The live page has links with all of them."
                        ));
                    }
                    let hash = lossy(&value.to_ascii_lowercase());
                    asked.api_key.replace(hash).is_none()
                }
                _ => {
                    let Some(address) = address::parse_peer(&value) else {
                        return wrong(format!(
                            "{name} is {:?}, which is no address; write one such as 192.0.2.7.",
                            word(&value)
                        ));
                    };
                    asked.address.replace(address).is_none()
                }
            };
            if !is_new {
                return wrong(format!("{name} stands there twice; keep one of them."));
            }
        }
        if asked.user_id.is_some() && asked.api_key.is_some() {
            return wrong(format!(
                "{USER_ID} and {API_KEY} are two callers; ask about one at a time."
            ));
        }
        if asked.address.is_some() && asked.is_of_nobody() && asked.user_tier.is_some() {
            return wrong(format!(
                "{USER_TIER} goes with {USER_ID} or {API_KEY}; who has neither is of the tier \
                 {ANONYMOUS_TIER:?}."
            ));
        }
        Ok(asked)
    }

    fn is_of_nobody(&self) -> bool {
        self.user_id.is_none() && self.api_key.is_none()
    }

    /// Whether it says no more than what the caller is.
    fn is_about(&self, caller: &Caller) -> bool {
        let own_id = |id: &Vec<u8>| caller.subject == Subject::User(id.clone());
        let own_key = |hash: &String| caller.subject == Subject::ApiKey(hash.clone());
        self.address.is_none()
            && self.user_id.as_ref().is_none_or(own_id)
            && self.api_key.as_ref().is_none_or(own_key)
            && self
                .user_tier
                .as_ref()
                .is_none_or(|tier| *tier == caller.tier)
    }
}

// === impl Inquiry ===

impl Inquiry {
    /// Who may ask about whom.
    pub fn try_new(
        (snapshot, sources): (&PolicySnapshot, &Sources),
        (caller, treatment): (Caller, Treatment),
        query: &[u8],
        is_operator: bool,
        now: impl Fn() -> WallTime,
    ) -> Result<(Inquiry, CheckRequest), Answer> {
        let policy = &snapshot.policy;
        let asked = Asked::read(query)?;
        let is_nobody = caller.subject.is_anonymous();
        let is_about_self = asked.is_about(&caller);
        if !is_operator && !is_about_self {
            return Err(answer::forbidden());
        }
        if is_nobody && is_operator && asked.is_of_nobody() && asked.address.is_none() {
            return Err(answer::bad_query(&format!(
                "Say about whom: pass {USER_ID}, {API_KEY} or {ADDRESS}."
            )));
        }
        if is_nobody && !is_operator {
            return Err(answer::no_identity(
                "Say who is asking: send a user id or an API key with the request.",
            ));
        }
        let asker = caller.subject.clone();
        if is_about_self {
            let inquiry = Inquiry::new(caller, treatment);
            return Ok(inquiry.ask(snapshot, &asker));
        }
        let mut is_tier_assumed = asked.user_tier.is_none() && !asked.is_of_nobody();
        let mut about = match asked {
            Asked {
                user_id: None,
                api_key: None,
                address: None,
                user_tier,
            } => Caller {
                tier: user_tier.unwrap_or(caller.tier),
                ..caller
            },
            Asked {
                user_id,
                api_key,
                address,
                user_tier,
            } => {
                let client = address.map(|address| sources.client(address));
                let (subject, usual_tier) = match (user_id, api_key) {
                    (Some(id), _) => (Subject::User(id), DEFAULT_TIER),
                    (None, Some(hash)) => (Subject::ApiKey(hash), DEFAULT_TIER),
                    (None, None) => (Subject::Address(client), ANONYMOUS_TIER),
                };
                Caller {
                    subject,
                    tier: user_tier.unwrap_or_else(|| usual_tier.to_string()),
                    client,
                    address,
                }
            }
        };
        if let Some(tier) = policy.assigned_tiers.tier(&about, None, now) {
            about.tier = tier.to_string();
            is_tier_assumed = false;
        }
        // Nor is it known which API key a user would send.
        let treatment = policy.exemptions.treatment(&about, None);
        let inquiry = Inquiry {
            about_other: true,
            is_tier_assumed,
            ..Inquiry::new(about, treatment)
        };
        Ok(inquiry.ask(snapshot, &asker))
    }

    fn new(about: Caller, treatment: Treatment) -> Inquiry {
        Inquiry {
            listed: treatment.listed(about.clone()),
            about,
            about_other: false,
            is_tier_assumed: false,
            limits: Vec::new(),
            others: Vec::new(),
            is_cut: false,
        }
    }

    fn ask(mut self, snapshot: &PolicySnapshot, asker: &Subject) -> (Inquiry, CheckRequest) {
        let PolicySnapshot {
            policy, namespace, ..
        } = snapshot;
        let terms = &policy.status.terms;
        let own = Check {
            key: key::of_status(namespace, asker, &terms.quota),
            terms: terms.clone(),
            cost: Status::COST,
        };
        let of_rule = |rule| {
            let counting = Rule::counting(rule, &self.about.subject);
            let arm = policy.arm(rule, &self.about.subject);
            let limits = rule.limits_for(arm, &self.about.tier, self.about.address);
            limits.map(move |limit| (limit, counting))
        };
        self.limits = policy.rules().iter().flat_map(of_rule).collect();
        if self.is_tier_assumed {
            self.ask_of_other_tiers(policy);
        }
        let checks = |limits: &[(LimitId, Counting)]| -> Vec<Check> {
            let limits = limits.iter();
            let limits = limits.filter_map(|(id, counting)| Some((policy.limit(*id)?, *counting)));
            let about = &self.about;
            let checks = limits.map(|(limit, counting)| Check {
                key: key::of(namespace, limit, counting, &about.subject, about.client),
                terms: limit.terms.clone(),
                cost: limit.cost,
            });
            checks.collect()
        };
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Take, [own]);
        for limits in self.asked() {
            check_request.ask(Kind::Peek, checks(limits));
        }
        (self, check_request)
    }

    /// Limits that two tiers share a counter of are asked about apart: no operation names a key twice.
    fn ask_of_other_tiers(&mut self, policy: &Policy) {
        let mut room = MOST_OTHERS;
        for rule in policy.rules() {
            let counting = rule.counting(&self.about.subject);
            for id in rule.by_tier(policy.arm(rule, &self.about.subject)) {
                if self.limits.iter().any(|(known, _)| *known == id) {
                    continue;
                }
                let Some(limit) = policy.limit(id) else {
                    continue;
                };
                if room == 0 {
                    self.is_cut = true;
                    return;
                }
                room -= 1;
                let known = self.others.iter_mut();
                match known.into_iter().find(|(tier, _)| *tier == limit.label) {
                    Some((_, limits)) => limits.push((id, counting)),
                    None => self
                        .others
                        .push((limit.label.clone(), vec![(id, counting)])),
                }
            }
        }
    }

    /// The limits of each operation that only looks, in order.
    fn asked(&self) -> impl Iterator<Item = &[(LimitId, Counting)]> {
        let own = Some(self.limits.as_slice()).filter(|limits| !limits.is_empty());
        let others = self.others.iter().map(|(_, limits)| limits.as_slice());
        own.into_iter().chain(others)
    }

    /// The answer, once the store has told of all operations.
    pub fn answer(&self, snapshot: &PolicySnapshot, fan_in: &FanIn) -> Answer {
        let policy = &snapshot.policy;
        let mut operations = fan_in.operations();
        let Some((told, [CheckReply::Read(own)])) = operations.next() else {
            return answer::unavailable();
        };
        if told == Verdict::Refused {
            return answer::status_refused(&policy.status.terms.quota, *own);
        }
        let mut replies = operations.map(|(_, replies)| replies);
        // Nothing was asked about somebody whom no limit is for.
        let own = match self.limits.as_slice() {
            [] => &[][..],
            _ => replies.next().unwrap_or_default(),
        };
        let Some(rate_limits) = by_rule(policy, &self.limits, own) else {
            return answer::unavailable();
        };
        let mut other_tiers = BTreeMap::new();
        for ((tier, limits), replies) in self.others.iter().zip(replies) {
            let Some(mut of_tier) = by_rule(policy, limits, replies) else {
                return answer::unavailable();
            };
            of_tier.0.retain(|(_, usage)| usage.is_used());
            if !of_tier.0.is_empty() {
                other_tiers.insert(tier.as_str(), of_tier);
            }
        }
        let listed = self.listed.as_ref();
        answer::json(
            "weir_status",
            &Report {
                user_id: id_text(&self.about.subject),
                user_tier: &self.about.tier,
                assumed: self
                    .is_tier_assumed
                    .then_some(USER_TIER)
                    .into_iter()
                    .collect(),
                notes: self.notes(policy),
                listed: listed.map(Listed::list),
                listed_by: listed.filter(|_| self.about_other).map(Listed::text),
                variants: policy
                    .experiments()
                    .iter()
                    .filter_map(|own| Some((own.name.as_str(), own.variant(&self.about.subject)?)))
                    .collect(),
                rate_limits,
                other_tiers,
                policy_version: snapshot.version.0,
                timestamp: fan_in.now().as_seconds(),
            },
        )
    }

    /// What an operator should know who would otherwise tell a customer the wrong number.
    fn notes(&self, policy: &Policy) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_tier_assumed {
            notes.push(format!(
                "The gateway does not know the caller's tier; {:?} is assumed. Pass {USER_TIER} to \
                 see the limits of another. other_tiers has the limits of other tiers that are in use.",
                self.about.tier
            ));
        }
        if self.is_cut {
            notes.push(format!(
                "The tiers have more limits than one call looks up ({MOST_OTHERS} besides the assumed \
                 ones); pass {USER_TIER} to see all of one."
            ));
        }
        let has_address_limits = || policy.limits().any(|(_, limit)| limit.scope == Scope::Ip);
        if self.about_other && self.about.address.is_none() && has_address_limits() {
            notes.push(format!(
                "Limits by address are not among these; pass {ADDRESS} too to see them."
            ));
        }
        if policy.limits().any(|(_, limit)| limit.scope == Scope::Key) {
            notes.push("Limits by a key are not among these.".to_string());
        }
        notes
    }
}

/// What was heard of limits, rule by rule. Nothing where one of them could not be read: a part of the
/// usage would pass for the whole.
fn by_rule<'a>(
    policy: &'a Policy,
    limits: &[(LimitId, Counting)],
    replies: &[CheckReply],
) -> Option<InOrder<'a>> {
    let mut rules: Vec<(&str, OfRule<'_>)> = Vec::new();
    for (place, (id, counting)) in limits.iter().enumerate() {
        let (Some(limit), Some(CheckReply::Read(reading))) =
            (policy.limit(*id), replies.get(place))
        else {
            return None;
        };
        match rules.last_mut() {
            Some((rule, (_, limits))) if *rule == limit.rule => limits.push((limit, *reading)),
            _ => rules.push((&limit.rule, (*counting, vec![(limit, *reading)]))),
        }
    }
    let rules = rules.into_iter();
    let rules =
        rules.filter_map(|(rule, (counting, limits))| Some((rule, usage(counting, &limits)?)));
    Some(InOrder(rules.collect()))
}

impl Usage<'_> {
    fn is_used(&self) -> bool {
        self.limits.iter().any(|limit| limit.line.current_usage > 0)
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
                name: &limit.label,
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

/// Whether the caller may ask about others, whatever secret they sent.
pub fn is_operators_tier(status: &Status, caller: &Caller) -> bool {
    let tier = status.operator_tier.as_ref();
    tier.is_some_and(|tier| *tier == caller.tier)
}

/// A part of a query, as it was before it was encoded.
fn decoded(part: &[u8]) -> Vec<u8> {
    let spaced = part
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte });
    percent_decode(&spaced.collect::<Vec<u8>>()).collect()
}

fn word(written: &[u8]) -> String {
    lossy(written.get(..LONGEST_WORD).unwrap_or(written))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
