//! What a request has of the parts of a key, and the counter that it so meets. It knows no numbers.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use super::Facts;
use super::condition::{cookies, number_as_text, parameters};
use super::head::{Head, KnownFacts};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::ids::LimitId;
use crate::policy::key::{self, Home};
use crate::policy::key_part::Part;
use crate::policy::keyed::{Keyed, Missing, Override, Unbelieved};
use crate::policy::rollout::Counting;
use crate::policy::{Matching, Rule, host_name};
use crate::request::address;
use crate::request::identity::{Belief, Caller, Sources};
use crate::request::reading;
use crate::request::subject::{Subject, hex_digest};

/// A request whose parts are asked for one by one.
pub struct Keying<'a, F> {
    snapshot: &'a PolicySnapshot,
    sources: &'a Sources,
    head: &'a Head<'a>,
    facts: &'a KnownFacts<'a, F>,
    path: &'a [u8],
    is_believed: OnceCell<bool>,
}

/// What a keyed limit is to a request.
#[derive(Debug)]
pub enum Met {
    /// It counts: by this limit's numbers, in this counter.
    Counted(LimitId, Vec<u8>),
    Skipped,
    /// The request lacks this part, and must not: `the header x-org`.
    Lacking(String),
    /// Nothing passes for these values.
    Denied,
}

impl<'a, F: Facts> Keying<'a, F> {
    pub fn new(
        snapshot: &'a PolicySnapshot,
        sources: &'a Sources,
        head: &'a Head<'a>,
        facts: &'a KnownFacts<'a, F>,
        path: &'a [u8],
    ) -> Keying<'a, F> {
        Keying {
            snapshot,
            sources,
            head,
            facts,
            path,
            is_believed: OnceCell::new(),
        }
    }

    /// What a keyed limit of a rule is to the request.
    pub fn meet(&self, rule: &Rule, id: LimitId, counting: Counting, caller: &Caller) -> Met {
        let limit = self.snapshot.policy.limit(id);
        let Some((limit, keyed)) = limit.and_then(|limit| Some((limit, limit.keyed.as_ref()?)))
        else {
            return Met::Skipped;
        };
        let key = |home, values: &[Option<&[u8]>]| {
            key::of_keyed(&self.snapshot.namespace, limit, counting, home, values)
        };
        if keyed.parts.iter().any(Part::needs_belief) && !self.is_believed() {
            return match keyed.unbelieved {
                Unbelieved::Skip => Met::Skipped,
                Unbelieved::Address => Met::Counted(id, key(Home::Address(caller.client), &[])),
            };
        }
        let values: Vec<Option<Cow<'_, [u8]>>> = keyed
            .parts
            .iter()
            .map(|part| self.value(part, rule, caller))
            .collect();
        if let Some((part, _)) = keyed.parts.iter().zip(&values).find(|(_, v)| v.is_none()) {
            match keyed.missing {
                Missing::Share => {}
                Missing::Refuse if counting == Counting::Enforced => {
                    return Met::Lacking(part.words());
                }
                Missing::Skip | Missing::Refuse => return Met::Skipped,
            }
        }
        let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
        let id = match keyed.instead(&values) {
            None => id,
            Some(Override::Limit(id)) => id,
            Some(Override::Unlimited) => return Met::Skipped,
            Some(Override::Deny) if counting == Counting::Enforced => return Met::Denied,
            Some(Override::Deny) => return Met::Skipped,
        };
        let subject_of_key;
        let (home, said) = match home(keyed) {
            Some((Part::User, place)) => (Home::Subject(&caller.subject), Some(place)),
            Some((Part::ApiKey, place)) => match values.get(place).copied().flatten() {
                Some(digest) => {
                    subject_of_key = Subject::ApiKey(String::from_utf8_lossy(digest).into_owned());
                    (Home::Subject(&subject_of_key), Some(place))
                }
                None => (Home::Values, None),
            },
            Some((_, place)) => (Home::Address(caller.client), Some(place)),
            None if keyed.parts.is_empty() => (Home::Everybody, None),
            None => (Home::Values, None),
        };
        let others = values.iter().enumerate();
        let others = others.filter(|(place, _)| Some(*place) != said);
        let others: Vec<Option<&[u8]>> = others.map(|(_, value)| *value).collect();
        Met::Counted(id, key(home, &others))
    }

    pub fn head(&self) -> &'a Head<'a> {
        self.head
    }

    pub fn facts(&self) -> &'a KnownFacts<'a, F> {
        self.facts
    }

    fn api_key(&self) -> Option<Cow<'_, [u8]>> {
        let key: Cow<'_, [u8]> = match self.facts.claim(&self.sources.api_key) {
            Some(key) => key.into(),
            None => self.sources.key(self.head.credentials.api_key?)?.into(),
        };
        (!key.is_empty()).then_some(key)
    }

    fn is_believed(&self) -> bool {
        *self.is_believed.get_or_init(|| {
            let belief = self.sources.trust.belief(|| self.facts.direct_peer());
            belief == Belief::Believed
        })
    }

    /// What the request has of a part; nothing where it is not there or is empty.
    fn value<'v>(&'v self, part: &Part, rule: &Rule, caller: &'v Caller) -> Option<Cow<'v, [u8]>> {
        let value: Cow<'_, [u8]> = match part {
            Part::User => subject(&caller.subject),
            Part::ApiKey => match &caller.subject {
                Subject::ApiKey(digest) => digest.as_bytes().into(),
                _ => hex_digest(&self.api_key()?).into_bytes().into(),
            },
            Part::Tier => caller.tier.as_bytes().into(),
            Part::Ip => text(caller.client),
            Part::Ipv4Network(prefix) => self.network(caller, *prefix, None),
            Part::Ipv6Network(prefix) => self.network(caller, 32, Some(*prefix)),
            Part::Path => match rule.matching() {
                Matching::Loose => reading::loose(self.path),
                Matching::Exact => self.path.into(),
            },
            Part::Capture(name) => rule.captured(name, self.path)?,
            Part::Method => method(self.head.method),
            Part::Host => host_name(self.head.authority).to_ascii_lowercase().into(),
            Part::Route | Part::Claim(_) | Part::Metadata(_) => {
                number_as_text(self.facts.property(&part.property()?)?).into()
            }
            Part::Header(name) => header(&self.head.fields, name)?,
            Part::Cookie(name) => cookies(self.head, name).next()?,
            Part::Query(name) => parameters(self.head.target, name).next()?,
        };
        (!value.is_empty()).then_some(value)
    }

    /// The client's network: of IPv6 the one that address limits count, unless the prefix is told.
    fn network(&self, caller: &Caller, ipv4: u8, ipv6: Option<u8>) -> Cow<'static, [u8]> {
        let Some(address) = caller.address else {
            return text(None);
        };
        match (address, ipv6) {
            (IpAddr::V6(v6), None) if v6.to_ipv4_mapped().is_none() => text(caller.client),
            _ => match address::network(address, ipv4, ipv6.unwrap_or(64)) {
                Some(network) => network.to_string().into_bytes().into(),
                None => text(Some(address)),
            },
        }
    }
}

/// The part that says in which slot of a cluster a key is: the subject's before the address's.
fn home(keyed: &Keyed) -> Option<(&Part, usize)> {
    [Part::User, Part::ApiKey, Part::Ip]
        .iter()
        .find_map(|home| {
            let mut parts = keyed.parts.iter().zip(0..);
            parts.find(|(part, _)| *part == home)
        })
}

fn subject(subject: &Subject) -> Cow<'_, [u8]> {
    match subject {
        Subject::User(id) => id.as_slice().into(),
        Subject::ApiKey(digest) => digest.as_bytes().into(),
        Subject::Address(address) => text(*address),
    }
}

/// A client without an address is the one client called so.
fn text(address: Option<IpAddr>) -> Cow<'static, [u8]> {
    match address {
        Some(address) => address.to_string().into_bytes().into(),
        None => b"-".as_slice().into(),
    }
}

/// `HEAD` is answered by whoever answers `GET`: it is no way to a count of its own.
fn method(sent: &[u8]) -> Cow<'_, [u8]> {
    if sent.eq_ignore_ascii_case(b"HEAD") {
        return b"GET".as_slice().into();
    }
    match sent.iter().any(u8::is_ascii_lowercase) {
        true => sent.to_ascii_uppercase().into(),
        false => sent.into(),
    }
}

/// Several headers of one name are one value, as Envoy would join them.
fn header<'a>(fields: &[(&'a [u8], &'a [u8])], name: &str) -> Option<Cow<'a, [u8]>> {
    let mut sent = fields.iter().filter(|(own, _)| *own == name.as_bytes());
    let (_, first) = sent.next()?;
    let mut value: Cow<'a, [u8]> = (*first).into();
    for (_, next) in sent {
        let whole = value.to_mut();
        whole.push(b',');
        whole.extend_from_slice(next);
    }
    Some(value)
}

#[cfg(test)]
mod tests;
