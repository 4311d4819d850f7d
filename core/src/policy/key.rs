//! What a counter is called in Redis:
//!
//! ```text
//! weir[@NAMESPACE]:2:{SLOT}:RULE:KINDS:COUNTER[:x:EXPERIMENT:VARIANT][=VALUES][:shadow]
//! weir:2:{u:ann}:general_api:user:fw86400s
//! ```
//!
//! SLOT is whose usage it is, and all counters of one subject share it. KINDS says what the limit counts
//! by (`all` everybody together, `user`, `ip`, `h.x-org`), joined by `+` should there be several, and VALUES
//! what a request has of those that SLOT does not say. COUNTER is the
//! algorithm with the limit's name (`tb.burst`) or else with its window (`tb60s`, `fwmonth+0900`).
//!
//! Injective whatever bytes an id holds. A key names what is counted, never how much is allowed nor where
//! a limit stands in its list: a limit that is raised or moved, or a caller in another tier, keeps the
//! usage, and another algorithm or window never meets a state that is not its own.

use std::io::Write;
use std::net::IpAddr;

use crate::request::subject::escaped;

use crate::codec::namespace::Namespace;
use crate::codec::resp::push_decimal;
use crate::policy::Limit;
use crate::policy::ids::Scope;
use crate::policy::key_part::Part;
use crate::policy::rollout::Counting;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::period::Unit;
use crate::request::subject::{Subject, hex_digest};

/// Longer ids are hashed, so that a 10 KB header does not become a 30 KB key.
const LONGEST_ID: usize = 128;
/// So are those that escapes make longer than this: a million callers with such ids would cost Redis
/// hundreds of megabytes for names alone.
const LONGEST_ESCAPED: usize = 200;
/// A value of a key that is longer is hashed before it is escaped.
const MOST_VALUE: usize = 512;
/// What one byte takes at most when it is escaped.
const LONGEST_ESCAPE: usize = "%FF".len();

/// The place in a key of the status call's own limit, where rules have their name. No rule's name
/// is empty.
const STATUS_RULE: &str = "";

/// What comes before a variant's `experiment:variant`.
const VARIANT: &[u8] = b":x:";

/// What a counter in shadow mode is called besides. It shares the slot of the one that is enforced, and so
/// its call.
const SHADOW: &[u8] = b":shadow";

/// Room for a subject of ordinary length without growing.
const TYPICAL: usize = 48;

/// The key of a limit's counter for a subject at an address.
pub fn of(
    namespace: &Namespace,
    limit: &Limit,
    counting: Counting,
    subject: &Subject,
    client: Option<IpAddr>,
) -> Vec<u8> {
    let mut key = Vec::with_capacity(TYPICAL + limit.key_end.len());
    key.extend_from_slice(namespace.counters().as_bytes());
    match limit.scope {
        Scope::Global => {
            key.extend_from_slice(b"g:");
            key.extend_from_slice(limit.rule.as_bytes());
        }
        Scope::User => write_subject(&mut key, subject),
        Scope::Ip => write_address(&mut key, client),
        // It has a key of its own: `of_keyed`.
        Scope::Key => key.extend_from_slice(b"v:"),
    }
    key.extend_from_slice(&limit.key_end);
    if counting == Counting::Shadow {
        key.extend_from_slice(SHADOW);
    }
    key
}

/// Whose slot of a cluster a keyed limit counts in: the subject's or the address's where its key holds
/// them, so that one call decides it with the other limits of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home<'a> {
    Everybody,
    Subject(&'a Subject),
    Address(Option<IpAddr>),
    /// Its own, by its values.
    Values,
}

/// The key of a keyed limit's counter. `values` are those of the parts that `home` does not say, in the
/// key's order; none where the request lacks it.
pub fn of_keyed(
    namespace: &Namespace,
    limit: &Limit,
    counting: Counting,
    home: Home<'_>,
    values: &[Option<&[u8]>],
) -> Vec<u8> {
    let mut key = Vec::with_capacity(TYPICAL + limit.key_end.len());
    key.extend_from_slice(namespace.counters().as_bytes());
    let values = match values {
        [] => None,
        values => Some(written(values)),
    };
    match home {
        Home::Everybody => {
            key.extend_from_slice(b"g:");
            key.extend_from_slice(limit.rule.as_bytes());
        }
        Home::Subject(subject) => write_subject(&mut key, subject),
        Home::Address(address) => write_address(&mut key, address),
        Home::Values => {
            key.extend_from_slice(b"v:");
            key.extend_from_slice(values.as_deref().unwrap_or_default());
        }
    }
    key.extend_from_slice(&limit.key_end);
    if home != Home::Values
        && let Some(values) = values
    {
        key.push(b'=');
        key.extend_from_slice(&values);
    }
    if counting == Counting::Shadow {
        key.extend_from_slice(SHADOW);
    }
    key
}

/// Values as text that no other values have, hashed where it would be long.
fn written(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push(b'+');
        }
        match value {
            // No value is written so: a `~` is escaped.
            None => out.push(b'~'),
            // The whole is hashed in any case; an escape of each byte of it would be for nothing.
            Some(value) if value.len() > MOST_VALUE => {
                out.push(b'#');
                out.extend_from_slice(hex_digest(value).as_bytes());
            }
            Some(value) => {
                for part in escaped(value) {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
    }
    if out.len() > LONGEST_ESCAPED {
        // One value alone may be hashed already, and what it is the hash of may be written as this is.
        let mut hashed = b"##".to_vec();
        hashed.extend_from_slice(hex_digest(&out).as_bytes());
        return hashed;
    }
    out
}

/// What a limit's counter is called among those of its rule and scope: the algorithm, and its name or
/// else its window. `nth` counts from 1 among those of its list that have no name and are the same in both:
/// only these are told apart by their order.
///
/// A name begins after a dot and a window right after the algorithm, so neither is ever the other.
pub fn counter(quota: &Quota, name: Option<&str>, nth: usize) -> String {
    let code = quota.algorithm().code();
    match (name, nth) {
        (Some(name), _) => format!("{code}.{name}"),
        (None, ..=1) => format!("{code}{}", quota.period()),
        (None, nth) => format!("{code}{}.{nth}", quota.period()),
    }
}

/// Whether a name reads as the counter of a limit without one, such as `fw60s`, `fwmonth+0900` or
/// `tb60s.2`.
pub fn is_like_unnamed(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_offset =
        |text: &str| text.is_empty() || text.strip_prefix(['+', '-']).is_some_and(is_number);
    let is_window = |text: &str| {
        let (window, nth) = text.split_once('.').unwrap_or((text, "1"));
        let of_unit = |unit: &Unit| window.strip_prefix(unit.name()).is_some_and(is_offset);
        let is_window = window.strip_suffix('s').is_some_and(is_number);
        (is_window || Unit::ALL.iter().any(of_unit)) && is_number(nth)
    };
    let mut codes = Algorithm::ALL.iter().map(|algorithm| algorithm.code());
    codes.any(|code| name.strip_prefix(code).is_some_and(is_window))
}

/// What all keys of a limit end in. A variant of an experiment has counters of its own for what callers
/// share: they share it with those of their own variant. A caller is in one variant, and takes what
/// they have used along, into the experiment and out of it.
pub fn end(rule: &str, scope: Scope, counter: &str, variant: Option<&str>) -> Vec<u8> {
    let mut end = Vec::new();
    write_rest(&mut end, rule, scope, counter);
    if let (Scope::Global | Scope::Ip | Scope::Key, Some(variant)) = (scope, variant) {
        end.extend_from_slice(VARIANT);
        end.extend_from_slice(variant.as_bytes());
    }
    end
}

/// What all keys of a keyed limit end in, before their values. Requests of peers that are not believed count
/// under their address without values, which no other request does.
pub fn end_of_keyed(rule: &str, parts: &[Part], counter: &str, variant: Option<&str>) -> Vec<u8> {
    let kinds = match parts {
        [] => kinds(Scope::Global).to_string(),
        parts => {
            let kinds: Vec<String> = parts.iter().map(Part::to_string).collect();
            kinds.join("+")
        }
    };
    let mut end = Vec::new();
    for part in ["}:", rule, ":", &kinds, ":", counter] {
        end.extend_from_slice(part.as_bytes());
    }
    if let Some(variant) = variant
        && !parts.contains(&Part::User)
    {
        end.extend_from_slice(VARIANT);
        end.extend_from_slice(variant.as_bytes());
    }
    end
}

/// The key of the status call's own limit.
pub fn of_status(namespace: &Namespace, subject: &Subject, quota: &Quota) -> Vec<u8> {
    let mut key = Vec::new();
    key.extend_from_slice(namespace.counters().as_bytes());
    write_subject(&mut key, subject);
    write_rest(&mut key, STATUS_RULE, Scope::User, &counter(quota, None, 1));
    key
}

fn write_rest(out: &mut Vec<u8>, rule: &str, scope: Scope, counter: &str) {
    for part in ["}:", rule, ":", kinds(scope), ":", counter] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// What the limits of a scope count by.
fn kinds(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "all",
        Scope::User => "user",
        Scope::Ip => "ip",
        // Its key says it: `end_of_keyed`.
        Scope::Key => "",
    }
}

/// `u` a user, `U` the hash of a user id that is too long, `k` the hash of an API key, `a` an address.
fn write_subject(out: &mut Vec<u8>, subject: &Subject) {
    match subject {
        Subject::User(id) if is_short(id) => {
            out.extend_from_slice(b"u:");
            for part in escaped(id) {
                out.extend_from_slice(part.as_bytes());
            }
        }
        Subject::User(id) => {
            out.extend_from_slice(b"U:");
            out.extend_from_slice(hex_digest(id).as_bytes());
        }
        Subject::ApiKey(hash) => {
            out.extend_from_slice(b"k:");
            out.extend_from_slice(hash.as_bytes());
        }
        Subject::Address(address) => write_address(out, *address),
    }
}

/// Whether an id stands in keys as it is. Most are so short that no escape can make them too long.
fn is_short(id: &[u8]) -> bool {
    let fits = || escaped(id).map(str::len).sum::<usize>() <= LONGEST_ESCAPED;
    id.len() <= LONGEST_ESCAPED / LONGEST_ESCAPE || (id.len() <= LONGEST_ID && fits())
}

fn write_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    out.extend_from_slice(b"a:");
    match address {
        // What `write!` would write, in a tenth of the time.
        Some(IpAddr::V4(address)) => {
            let [first, others @ ..] = address.octets();
            push_decimal(out, first.into());
            for octet in others {
                out.push(b'.');
                push_decimal(out, octet.into());
            }
        }
        // Writing to a Vec cannot fail.
        Some(IpAddr::V6(address)) => drop(write!(out, "{address}")),
        // A client without an address (a unix socket) is the one client called so.
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests;
