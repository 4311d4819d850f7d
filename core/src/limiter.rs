//! The limiter's side of one request, from its head to what is to be done with it. It puts the other
//! modules together; what it needs of the world it asks of [`Facts`], and only where it matters.

use std::net::IpAddr;

use crate::address;
use crate::answer::{self, Answer, Headers};
use crate::identity::{Belief, Caller, Credentials, Field, Repeated, Source, Sources};
use crate::key;
use crate::path;
use crate::policy::{LimitId, Policy, Target};
use crate::question::Question;
use crate::script::{Kind, Told};
use crate::status::{self, Inquiry};
use crate::units::{Cost, Micros};
use crate::verdict::{self, Verdict};

/// What the proxy knows of a request besides its headers.
pub trait Facts {
    /// The client's address as the proxy vouches for it, with or without a port.
    fn source_address(&self) -> Vec<u8>;
    /// The TCP peer's address, from this filter state.
    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>>;
    /// A verified claim, by its property path.
    fn claim(&self, path: &[String]) -> Option<Vec<u8>>;
}

/// What the store had to say to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Told {
        now: Micros,
        told: Vec<Told>,
    },
    /// It could not be asked, or did not answer in time.
    Failed,
}

/// The first word on a request.
#[derive(Debug)]
pub struct Admission {
    /// Identity headers that were not believed: they must not reach the upstream.
    pub remove: Vec<String>,
    pub step: Step,
}

#[derive(Debug)]
pub enum Step {
    /// No rule is for this request.
    Pass,
    /// The store decides; [`Pending::conclude`] says what its outcome means.
    Ask(Question, Pending),
    Respond(Answer, Protocol),
}

/// A request that waits for the store.
#[derive(Debug)]
pub struct Pending {
    protocol: Protocol,
    wants: Wants,
}

#[derive(Debug)]
enum Wants {
    Passage(Vec<LimitId>),
    Status(Inquiry),
}

/// The last word on a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It goes on; its response will carry these headers.
    Pass(Headers),
    Respond(Answer, Protocol),
}

/// Which language the client reads refusals in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// The parts of a request's head that decisions are made on.
#[derive(Debug)]
struct Head<'a> {
    target: &'a [u8],
    method: &'a [u8],
    authority: &'a [u8],
    protocol: Protocol,
    credentials: Credentials<'a>,
    repeated: Option<Field>,
    operator_secret: Option<&'a [u8]>,
}

/// Decides on the head of a request.
pub fn admit<'a>(
    sources: &Sources,
    policy: &Policy,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    facts: &impl Facts,
) -> Admission {
    let mut head = read_head(sources, policy, headers);
    let mut remove = Vec::new();
    if head.credentials.any() {
        let peer =
            || -> Option<IpAddr> { address::parse_peer(&facts.direct_peer(&sources.direct_peer)?) };
        match sources.trust.belief(peer) {
            Belief::Believed => {
                if let Some(repeated) = head.repeated_header(sources) {
                    let answer = answer::repeated_header(&repeated.header);
                    return Admission {
                        remove,
                        step: Step::Respond(answer, head.protocol),
                    };
                }
            }
            Belief::Ignored => {
                remove = head
                    .credentials
                    .present()
                    .filter_map(|f| sources.header(f))
                    .map(str::to_string)
                    .collect();
                head.credentials = Credentials::default();
            }
        }
    }
    let caller = caller(sources, head.credentials, facts);
    let step = if head.is_status() {
        status_step(policy, caller, &head)
    } else {
        passage_step(policy, &caller, &head)
    };
    Admission { remove, step }
}

fn status_step(policy: &Policy, caller: Caller, head: &Head<'_>) -> Step {
    let query = head
        .target
        .splitn(2, |byte| *byte == b'?')
        .nth(1)
        .unwrap_or_default();
    match Inquiry::try_new(policy, caller, query, head.operator_secret) {
        Ok((inquiry, question)) => Step::Ask(
            question,
            Pending {
                protocol: head.protocol,
                wants: Wants::Status(inquiry),
            },
        ),
        Err(answer) => Step::Respond(answer, head.protocol),
    }
}

fn passage_step(policy: &Policy, caller: &Caller, head: &Head<'_>) -> Step {
    let path = path::normalise(head.target);
    let target = Target {
        path: &path,
        method: head.method,
        authority: head.authority,
    };
    let limits: Vec<LimitId> = policy
        .matching(target)
        .flat_map(|rule| rule.limits_for(&caller.tier, caller.address))
        .collect();
    if limits.is_empty() {
        return Step::Pass;
    }
    let mut question = Question::default();
    let mut operation = question.operation(Kind::Take, Cost::ONE, limits.len());
    for limit in limits.iter().filter_map(|id| policy.limit(*id)) {
        operation.limit(&limit.quota, |out| {
            key::write(out, limit, &caller.subject, caller.client)
        });
    }
    Step::Ask(
        question,
        Pending {
            protocol: head.protocol,
            wants: Wants::Passage(limits),
        },
    )
}

impl Pending {
    /// What the store's outcome means for the request.
    pub fn conclude(&self, policy: &Policy, outcome: &Outcome) -> Conclusion {
        match &self.wants {
            Wants::Status(inquiry) => {
                let answer = match outcome {
                    Outcome::Told { now, told } => inquiry.answer(policy, *now, told),
                    Outcome::Failed => answer::unavailable(),
                };
                Conclusion::Respond(answer, self.protocol)
            }
            Wants::Passage(limits) => {
                let verdict = match outcome {
                    Outcome::Told { told, .. } => match told.as_slice() {
                        [told] => verdict::decide(policy, limits, told),
                        _ => verdict::unasked(policy, limits),
                    },
                    Outcome::Failed => verdict::unasked(policy, limits),
                };
                self.word(policy, verdict)
            }
        }
    }

    fn word(&self, policy: &Policy, verdict: Verdict) -> Conclusion {
        match verdict {
            Verdict::Passed { shown } => Conclusion::Pass(answer::standing_headers(policy, shown)),
            Verdict::PassedUnasked => Conclusion::Pass(Headers::new()),
            Verdict::Refused { shown, retry } => {
                Conclusion::Respond(answer::refused(policy, shown, retry), self.protocol)
            }
            Verdict::Unavailable => Conclusion::Respond(answer::unavailable(), self.protocol),
        }
    }
}

fn read_head<'a>(
    sources: &Sources,
    policy: &Policy,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Head<'a> {
    let operator_header = policy
        .status
        .operator_header
        .as_ref()
        .map(|(name, _)| name.as_bytes());
    let mut head = Head {
        target: b"/",
        method: b"",
        authority: b"",
        protocol: Protocol::Http,
        credentials: Credentials::default(),
        repeated: None,
        operator_secret: None,
    };
    for (name, value) in headers {
        match name {
            b":path" => head.target = value,
            b":method" => head.method = value,
            b":authority" => head.authority = value,
            b"content-type" if value.starts_with(b"application/grpc") => {
                head.protocol = Protocol::Grpc;
            }
            _ => {
                if let Some(field) = sources.field(name)
                    && head.credentials.set(field, value).is_some()
                {
                    head.repeated = Some(field);
                }
                if operator_header == Some(name) {
                    head.operator_secret = Some(value);
                }
            }
        }
    }
    head
}

fn caller(sources: &Sources, credentials: Credentials<'_>, facts: &impl Facts) -> Caller {
    let claim = |source: &Source| {
        let (path, kind) = source.property()?;
        kind.read(&facts.claim(path)?)
    };
    let (user, tier, api_key) = (
        claim(&sources.user),
        claim(&sources.tier),
        claim(&sources.api_key),
    );
    let credentials = Credentials {
        user: user.as_deref().or(credentials.user),
        tier: tier.as_deref().or(credentials.tier),
        api_key: api_key.as_deref().or(credentials.api_key),
    };
    sources.caller(credentials, &facts.source_address())
}

impl Head<'_> {
    fn is_status(&self) -> bool {
        self.method == status::METHOD && path::normalise(self.target).as_ref() == status::PATH
    }

    fn repeated_header(&self, sources: &Sources) -> Option<Repeated> {
        let header = sources.header(self.repeated?)?.to_string();
        Some(Repeated { header })
    }
}

impl<'a> Credentials<'a> {
    fn any(&self) -> bool {
        self.present().next().is_some()
    }

    /// Sets a field and gives what it was before.
    fn set(&mut self, field: Field, value: &'a [u8]) -> Option<&'a [u8]> {
        let place = match field {
            Field::User => &mut self.user,
            Field::Tier => &mut self.tier,
            Field::ApiKey => &mut self.api_key,
        };
        place.replace(value)
    }

    fn present(&self) -> impl Iterator<Item = Field> {
        [
            (Field::User, self.user),
            (Field::Tier, self.tier),
            (Field::ApiKey, self.api_key),
        ]
        .into_iter()
        .filter_map(|(field, value)| value.map(|_| field))
    }
}
