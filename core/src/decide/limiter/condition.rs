//! What a request has of what a rule's conditions ask for. It reads what was sent, whoever sent it.

use std::borrow::Cow;
use std::iter;

use percent_encoding::percent_decode;

use super::Facts;
use super::head::{Head, KnownFacts};
use crate::policy::condition::Condition;
use crate::policy::key_part::Part;
use crate::policy::{Rule, host_name};
use crate::request::identity::Caller;
use crate::request::subject::Subject;

type Value<'a> = Cow<'a, [u8]>;

/// Whether all conditions of a rule hold.
pub fn all_hold(
    rule: &Rule,
    head: &Head<'_>,
    facts: &KnownFacts<'_, impl Facts>,
    caller: &Caller,
) -> bool {
    let mut conditions = rule.when().iter();
    conditions.all(|condition| holds(condition, head, facts, caller))
}

/// Whether one does.
pub fn holds(
    condition: &Condition,
    head: &Head<'_>,
    facts: &KnownFacts<'_, impl Facts>,
    caller: &Caller,
) -> bool {
    match &condition.part {
        Part::Ip => condition.holds_of(caller.address),
        Part::Header(name) => {
            let sent = head
                .fields
                .iter()
                .filter(|(own, _)| *own == name.as_bytes());
            condition.holds(sent.map(|(_, value)| Cow::Borrowed(*value)))
        }
        Part::Cookie(name) => condition.holds(cookies(head, name)),
        Part::Query(name) => condition.holds(parameters(head.target, name)),
        // Whoever answers `GET` answers it.
        Part::Method if head.method.eq_ignore_ascii_case(b"HEAD") => {
            condition.holds([&b"HEAD"[..], b"GET"].into_iter().map(Cow::Borrowed))
        }
        Part::Method => condition.holds(iter::once(head.method.to_ascii_uppercase().into())),
        Part::Host => {
            let name = host_name(head.authority).to_ascii_lowercase();
            condition.holds(iter::once(name.into()))
        }
        Part::User => condition.holds(match &caller.subject {
            Subject::User(id) => Some(Cow::Borrowed(id.as_slice())).into_iter(),
            Subject::ApiKey(_) | Subject::Address(_) => None.into_iter(),
        }),
        Part::Tier => condition.holds(iter::once(caller.tier.as_bytes().into())),
        Part::Route | Part::Claim(_) | Part::Metadata(_) => {
            let path = condition.property.as_deref();
            let value = path
                .and_then(|path| facts.property(path))
                .map(number_as_text);
            let value = value.filter(|value| !value.is_empty());
            condition.holds(value.map(Cow::Owned).into_iter())
        }
        // No condition asks for these.
        Part::ApiKey
        | Part::Path
        | Part::Capture(_)
        | Part::Ipv4Network(_)
        | Part::Ipv6Network(_) => false,
    }
}

/// Envoy hands a number over as the eight bytes of a double, a truth as one byte, and a text as it is. Whole
/// numbers below 2⁴⁴ hold a NUL, and others are hardly ever text.
pub fn number_as_text(bytes: Vec<u8>) -> Vec<u8> {
    let text = std::str::from_utf8(&bytes);
    if text.is_ok_and(|text| !text.contains(char::is_control)) {
        return bytes;
    }
    match bytes.as_slice() {
        [0] => b"false".to_vec(),
        [1] => b"true".to_vec(),
        other => match <[u8; 8]>::try_from(other) {
            Ok(double) => f64::from_le_bytes(double).to_string().into_bytes(),
            Err(_) => bytes,
        },
    }
}

/// All cookies of a name.
pub fn cookies<'a>(head: &Head<'a>, name: &str) -> impl Iterator<Item = Value<'a>> {
    let sent = head.fields.iter().filter(|(own, _)| *own == b"cookie");
    let pairs = sent.flat_map(|(_, value)| value.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let value = rest.trim_ascii_start().strip_prefix(b"=")?;
        Some(value.trim_ascii().into())
    })
}

/// All parameters of a name in the query, decoded.
pub fn parameters<'a>(target: &'a [u8], name: &str) -> impl Iterator<Item = Value<'a>> {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1);
    let query = query.and_then(|query| query.split(|byte| *byte == b'#').next());
    let pairs = query
        .into_iter()
        .flat_map(|query| query.split(|byte| *byte == b'&'));
    pairs.filter_map(move |pair| {
        let mut sides = pair.splitn(2, |byte| *byte == b'=');
        let is_it = percent_decode(sides.next()?).eq(name.bytes());
        let value = sides.next().unwrap_or_default();
        is_it.then(|| percent_decode(value).collect::<Vec<u8>>().into())
    })
}
