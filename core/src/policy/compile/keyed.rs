//! From a rule's `limits` as written to limits that count by a key; and the proof that nobody can make more
//! counters of them than Redis can hold.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use super::{Limits, Whose, numbers};
use crate::codec::json::{ConfigError, Mistakes, Path};
use crate::policy::compiled::{Limit, Rule, RuleLimits, host_name};
use crate::policy::document::{self, Items};
use crate::policy::ids::{LimitId, Scope};
use crate::policy::key;
use crate::policy::key_part::{MOST_PARTS, Part};
use crate::policy::keyed::{Keyed, MOST_COUNTERS, Missing, Override, passes};
use crate::policy::lease_terms::{LeaseTerms, Size};
use crate::policy::soft_limit::SoftLimit;
use crate::policy::{Matching, Pattern};
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::packed::Terms;
use crate::quota::period::Period;
use crate::request::address::{self, Cidr};
use crate::request::subject::{escaped, hex_digest};
use crate::request::{path, reading};

/// A household or host commonly holds one, and unless identity says otherwise addresses count by it.
const USUAL_IPV6_PREFIX: u8 = 64;

/// Of a longer value titles tell the beginning of its hash.
const LONGEST_TITLE: usize = 64;

impl Limits {
    /// Those of a rule, or of a variant of one.
    pub(super) fn keyed(
        &mut self,
        written: Items<document::KeyedLimit>,
        at: &Path<'_>,
        whose: Whose<'_>,
        mistakes: &mut Mistakes,
    ) -> Vec<LimitId> {
        let mut ids = Vec::with_capacity(written.len());
        let mut names: HashSet<(String, String)> = HashSet::new();
        let mut unnamed: HashMap<(String, Algorithm, Period), usize> = HashMap::new();
        for (place, limit) in written {
            let at = place.of(at);
            if mistakes.touch(&at) {
                continue;
            }
            let document::KeyedLimit {
                key,
                missing,
                unbelieved,
                overrides,
                limit,
            } = limit;
            let parts = mistakes.note(parts(key, &at.member("key")));
            let numbers = numbers(&limit, whose.cost_rule, &at, mistakes);
            let (Some(parts), Some((quota, soft_limit, lease))) = (parts, numbers) else {
                continue;
            };
            if lease.is_some()
                && let Some(part) = parts.iter().find(|part| part.is_clients_choice())
            {
                mistakes.add(at.member("lease").error(format!(
                    "is for a limit that counts by {}: a client who takes another each time would have \
                     permits taken for each; remove the \"lease\"",
                    part.words()
                )));
            }
            let label = label(&parts);
            if let Some(name) = &limit.name
                && !names.insert((label.clone(), name.clone()))
            {
                mistakes.add(at.error(format!(
                    "is the second limit with this key and the name {name:?}; each limit counts under its \
                     own name"
                )));
                continue;
            }
            let nth = match limit.name {
                Some(_) => 1,
                None => {
                    let same = (label.clone(), quota.algorithm(), quota.period());
                    let equals = unnamed.entry(same).or_default();
                    *equals += 1;
                    *equals
                }
            };
            let variant = (!whose.variant.is_empty()).then_some(whose.variant);
            let counter = key::counter(&quota, limit.name.as_deref(), nth);
            let key_end = key::end_of_keyed(whose.rule, &parts, &counter, variant);
            let one = |label: String, quota| Limit {
                rule: whose.rule.to_string(),
                label,
                scope: Scope::Key,
                name: limit.name.clone(),
                counter: counter.clone(),
                variant: variant.map(str::to_string),
                key_end: key_end.clone(),
                terms: Terms::new(quota),
                cost: whose.cost_rule.usual(),
                soft_limit,
                lease,
                on_store_failure: limit.on_store_failure,
                keyed: None,
            };
            let mut keyed = Keyed::new(parts, missing, unbelieved);
            for (place, written) in overrides {
                let list = at.member("overrides");
                let at = place.of(&list);
                let read = instead(
                    &written,
                    &keyed.parts,
                    whose.matching,
                    (&quota, &soft_limit),
                    &at,
                );
                let Some((values, then)) = mistakes.note(read) else {
                    continue;
                };
                let then = match then {
                    Then::Unlimited => Override::Unlimited,
                    Then::Deny => Override::Deny,
                    Then::Quota(quota) => {
                        let cost = whose.cost_rule.usual();
                        if quota.never_fits(cost) {
                            mistakes.add(at.error(format!(
                                "holds {} at most, and a request costs {}: none would ever pass; raise it, or \
                                 write \"deny\": true",
                                quota.capacity(),
                                cost.get()
                            )));
                            continue;
                        }
                        if let Some(LeaseTerms {
                            size: Size::Fixed(size),
                            ..
                        }) = lease
                            && size >= quota.capacity()
                        {
                            mistakes.add(at.error(format!(
                                "holds {}, and the limit is leased by {size}; one worker would leave nothing to the \
                                 others",
                                quota.capacity()
                            )));
                        }
                        let values: Vec<String> =
                            written.is.iter().map(|text| title(text)).collect();
                        let label = format!("{label}={}", values.join("+"));
                        match self.push(one(label, quota), &at, mistakes) {
                            Some(id) => Override::Limit(id),
                            None => break,
                        }
                    }
                };
                let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
                if keyed.add(&values, then) {
                    mistakes.add(
                        at.member("is")
                            .error("names values that another override names; keep one of them"),
                    );
                }
                if let Some(wider) = by_network(&keyed.parts, &values) {
                    let wider: Vec<&[u8]> = wider.iter().map(Cow::as_ref).collect();
                    keyed.add_too(&wider, then);
                }
            }
            let mut limit = one(label, quota);
            limit.keyed = Some(Rc::new(keyed));
            let Some(id) = self.push(limit, &at, mistakes) else {
                break;
            };
            mistakes.note(self.share(&key_end, (id, &quota), &at));
            ids.push(id);
        }
        ids
    }

    fn push(&mut self, limit: Limit, at: &Path<'_>, mistakes: &mut Mistakes) -> Option<LimitId> {
        let Ok(id) = u32::try_from(self.list.len()).map(LimitId) else {
            mistakes.add(at.error("is one limit more than a policy can hold"));
            return None;
        };
        self.list.push(limit);
        Some(id)
    }
}

fn parts(written: Items<Part>, at: &Path<'_>) -> Result<Vec<Part>, ConfigError> {
    let parts: Vec<Part> = written.into_iter().map(|(_, part)| part).collect();
    if parts.len() > MOST_PARTS {
        return Err(at.error(format!(
            "has {} parts; {MOST_PARTS} at most make a key",
            parts.len()
        )));
    }
    for (place, part) in parts.iter().enumerate() {
        if *part == Part::Header("host".to_string()) {
            return Err(
                at.error("asks for the header host, which Envoy names otherwise; write \"host\"")
            );
        }
        if parts.iter().skip(place + 1).any(|other| other == part) {
            return Err(at.error(format!(
                "names {} twice; take one of them out",
                part.words()
            )));
        }
    }
    Ok(parts)
}

/// A value as titles tell it, which stand in headers: whatever it holds, in letters that need no quotes.
fn title(value: &str) -> String {
    let text = escaped(value.as_bytes()).to_string();
    match text.len() {
        ..=LONGEST_TITLE => text,
        _ => hex_digest(value.as_bytes()).chars().take(12).collect(),
    }
}

/// What clients are told that a key is called: `user+path`.
fn label(parts: &[Part]) -> String {
    let kinds: Vec<String> = parts.iter().map(Part::to_string).collect();
    match kinds.is_empty() {
        true => "all".to_string(),
        false => kinds.join("+"),
    }
}

// === Overrides ===

enum Then {
    Quota(Quota),
    Unlimited,
    Deny,
}

/// The values that an override is for, and what holds for them.
fn instead(
    written: &document::Override,
    parts: &[Part],
    matching: Matching,
    (usual, soft_limit): (&Quota, &SoftLimit),
    at: &Path<'_>,
) -> Result<(Vec<Vec<u8>>, Then), ConfigError> {
    let is_at = at.member("is");
    if written.is.len() > parts.len() {
        return Err(is_at.error(format!(
            "names {} values, more than the key has parts ({}); name one value a part at most",
            written.is.len(),
            parts.len()
        )));
    }
    let values = written.is.iter().zip(parts).map(|(text, part)| {
        value(text, part, matching)
            .map_err(|why| is_at.error(format!("{text:?} is not what {} is: {why}", part.words())))
    });
    let values: Vec<Vec<u8>> = values.collect::<Result<_, _>>()?;
    let then = match (written.limit, written.unlimited, written.deny) {
        (Some(most), false, false) => {
            let quota = usual.with_limit(most, written.burst_limit);
            let quota = quota.and_then(|quota| soft_limit.quota(quota));
            Then::Quota(quota.map_err(|error| at.error(error.to_string()))?)
        }
        (None, true, false) if written.burst_limit.is_none() => Then::Unlimited,
        (None, false, true) if written.burst_limit.is_none() => Then::Deny,
        _ => {
            return Err(at.error(
                "has to say one thing: \"limit\" (with \"burst_limit\" or without), \"unlimited\": true or \
                 \"deny\": true",
            ));
        }
    };
    let raises = match &then {
        Then::Unlimited => true,
        Then::Quota(quota) => quota.limit() > usual.limit() || quota.capacity() > usual.capacity(),
        Then::Deny => false,
    };
    if raises && let Some(part) = parts.iter().find(|part| !part.may_raise()) {
        return Err(at.error(format!(
            "lets more through, and the key has {}, which clients choose themselves; give more by who \
             somebody is: \"user\", \"api_key\", \"tier\", \"ip\", a header of a peer that is believed, or a claim",
            part.words()
        )));
    }
    Ok((values, then))
}

/// A value of a part as requests have it.
fn value(text: &str, part: &Part, matching: Matching) -> Result<Vec<u8>, String> {
    let value = match part {
        Part::Ip => {
            let address: IpAddr = text
                .parse()
                .map_err(|_| "write an address such as 203.0.113.7".to_string())?;
            address.to_canonical().to_string()
        }
        Part::Ipv4Network(prefix) | Part::Ipv6Network(prefix) => {
            let network: Cidr = text.parse().map_err(|error| format!("{error}"))?;
            if network.prefix() != *prefix {
                return Err(format!("write a network of /{prefix}"));
            }
            network.to_string()
        }
        Part::ApiKey => {
            let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_digest {
                return Err(
                    "write the 64 digits that `printf %s KEY | sha256sum` prints".to_string(),
                );
            }
            text.to_ascii_lowercase()
        }
        Part::Method if text.eq_ignore_ascii_case("HEAD") => {
            return Err("HEAD counts as GET; write GET".to_string());
        }
        Part::Method => text.to_ascii_uppercase(),
        Part::Path if !text.starts_with('/') => {
            return Err("write a path such as /v1/export".to_string());
        }
        Part::Path => {
            let path = path::normalise(text.as_bytes());
            return Ok(match matching {
                Matching::Loose => reading::loose(&path).into_owned(),
                Matching::Exact => path.into_owned(),
            });
        }
        Part::Capture(_) => {
            let path = format!("/{text}");
            let path = path::normalise(path.as_bytes());
            let read = match matching {
                Matching::Loose => reading::loose(&path),
                Matching::Exact => Cow::Borrowed(&*path),
            };
            return match read.strip_prefix(b"/") {
                Some(segment) if !segment.is_empty() && !segment.contains(&b'/') => {
                    Ok(segment.to_vec())
                }
                _ => Err("write one segment of a path, without slashes".to_string()),
            };
        }
        Part::Host => {
            let name = host_name(text.as_bytes()).to_ascii_lowercase();
            return Ok(name);
        }
        Part::User
        | Part::Tier
        | Part::Route
        | Part::Header(_)
        | Part::Cookie(_)
        | Part::Query(_)
        | Part::Claim(_)
        | Part::Metadata(_) => text.to_string(),
    };
    Ok(value.into_bytes())
}

/// These values with the network of an IPv6 address in its place, as requests have it.
fn by_network<'a>(parts: &[Part], values: &[&'a [u8]]) -> Option<Vec<Cow<'a, [u8]>>> {
    let mut is_other = false;
    let values = parts.iter().zip(values).map(|(part, value)| {
        let address = std::str::from_utf8(value)
            .ok()
            .filter(|_| *part == Part::Ip);
        let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
        match address.map(|address| (address, address::client(address, USUAL_IPV6_PREFIX))) {
            Some((address, client)) if client != address => {
                is_other = true;
                Cow::Owned(client.to_string().into_bytes())
            }
            _ => Cow::Borrowed(*value),
        }
    });
    let values: Vec<Cow<'_, [u8]>> = values.collect();
    is_other.then_some(values)
}

// === Captured segments ===

/// Whichever pattern a request meets has to say what each capture in a key is.
pub(super) fn check_that_keys_are_captured(rule: &Rule, limits: &Limits, mistakes: &mut Mistakes) {
    let ids = rule.all_limits().flat_map(|own| &own.keyed);
    for limit in ids.filter_map(|id| limits.list.get(id.index())) {
        let parts = limit.keyed.iter().flat_map(|keyed| &keyed.parts);
        let captured = parts.filter_map(|part| match part {
            Part::Capture(name) => Some(name),
            _ => None,
        });
        for name in captured {
            let lacks = |pattern: &&Pattern| !pattern.captures().contains(name);
            let Some(pattern) = rule.patterns.iter().find(lacks) else {
                continue;
            };
            let place = limits.counters.get(&limit.key_end);
            let path = place.map_or("policy", |(_, place)| place.as_str());
            mistakes.add(Path::root(path).error(format!(
                "counts by {{{name}}}, which the pattern {:?} does not capture; write {{{name}}} for that \
                 segment in each pattern of the rule, or take it out of \"key\"",
                pattern.as_str()
            )));
        }
    }
}

// === How many counters a caller can make ===

/// A part that clients choose makes a counter of each value. So another limit of the rule has to bound how
/// often a caller passes, and with it how many counters there are.
pub(super) fn check_that_counters_are_bounded(
    rule: &Rule,
    limits: &Limits,
    mistakes: &mut Mistakes,
) {
    for own in rule.all_limits() {
        for limit in own
            .keyed
            .iter()
            .filter_map(|id| limits.list.get(id.index()))
        {
            let Some(part) = clients_choice(limit).map(Part::words) else {
                continue;
            };
            let why = match most_counters(limit, own, &limits.list) {
                Some(most) if most <= MOST_COUNTERS => continue,
                Some(most) => format!(
                    "counts by {part}, of which a caller can make {most} counters before one is forgotten: \
                     {MOST_COUNTERS} at most, or Redis fills up; lower the rule's other limits, or this \
                     limit's window"
                ),
                None => format!(
                    "counts by {part}, and a client who takes another each time is never held; give the rule \
                     a limit besides that holds for everybody and does not count by it, such as \"user_limits\" \
                     with \"default\""
                ),
            };
            let place = limits.counters.get(&limit.key_end);
            let path = place.map_or("policy", |(_, place)| place.as_str());
            mistakes.add(Path::root(path).error(why));
        }
    }
}

/// What of a limit's key clients choose, if they choose anything.
fn clients_choice(limit: &Limit) -> Option<&Part> {
    let keyed = limit.keyed.as_ref()?;
    keyed.parts.iter().find(|part| part.is_clients_choice())
}

/// How many counters of a limit one caller can make at a time; nothing where no other limit bounds it.
pub(in crate::policy) fn most_counters(
    limit: &Limit,
    own: &RuleLimits,
    limits: &[Limit],
) -> Option<u64> {
    let passes_of = |id: &LimitId| passes(&limits.get(id.index())?.terms.quota, &limit.terms.quota);
    let least = |ids: &[LimitId]| ids.iter().filter_map(passes_of).min();
    // Whoever comes meets one of these lists: all have to bound it.
    let most = |lists: Vec<&[LimitId]>| -> Option<u64> {
        let bounds: Option<Vec<u64>> = lists.into_iter().map(least).collect();
        bounds?.into_iter().max()
    };
    let by_tier = own.user.default.as_ref().and_then(|default| {
        let tiers = own.user.by_tier.iter().map(|(_, ids)| ids.as_slice());
        most(tiers.chain([default.as_slice()]).collect())
    });
    let networks = own.ip.by_network.iter().map(|(_, ids)| ids.as_slice());
    let by_address = most(networks.chain([own.ip.default.as_slice()]).collect());
    let keyed = own.keyed.iter().filter_map(|id| {
        let other = limits.get(id.index())?;
        holds_everybody(other).then(|| passes_with_overrides(other, limits, limit))?
    });
    [least(&own.global), by_tier, by_address]
        .into_iter()
        .flatten()
        .chain(keyed)
        .min()
}

/// Whether no request gets round a keyed limit by what its client chooses.
pub(in crate::policy) fn holds_everybody(limit: &Limit) -> bool {
    let Some(keyed) = &limit.keyed else {
        return false;
    };
    let is_always_there = |part: &Part| {
        matches!(
            part,
            Part::User | Part::Tier | Part::Ip | Part::Ipv4Network(_) | Part::Ipv6Network(_)
        )
    };
    clients_choice(limit).is_none()
        && (keyed.missing != Missing::Skip || keyed.parts.iter().all(is_always_there))
}

fn passes_with_overrides(limit: &Limit, limits: &[Limit], of: &Limit) -> Option<u64> {
    let keyed = limit.keyed.as_ref()?;
    if keyed.lets_anybody_through() {
        return None;
    }
    let others = keyed
        .instead_limits()
        .filter_map(|id| limits.get(id.index()));
    let all = [limit].into_iter().chain(others);
    let passes: Option<Vec<u64>> = all
        .map(|one| passes(&one.terms.quota, &of.terms.quota))
        .collect();
    passes?.into_iter().max()
}
