//! The callers whom no limit is for, and those whom nothing is for: the policy's lists `allow` and
//! `deny`. They are looked at before any limit, and cost nothing where the policy has none.
//!
//! Deny wins: a list of those who are let through is often wide (a network, a tier), and whoever is
//! written on the other is meant in person. It also makes a ban quick: nothing has to be taken off
//! the other list first.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;

use super::document;
use crate::codec::json::{Mistakes, Path};
use crate::codec::secret::DIGEST_DIGITS;
use crate::request::address::{Cidr, Networks};
use crate::request::identity::{self, Caller};
use crate::request::subject::{Subject, hex_digest};

/// Each worker holds its own copy: at about 100 bytes an entry, 10 MB. Longer lists belong to
/// whatever authenticates, which can say so by a tier.
pub(super) const MOST_ENTRIES: usize = 100_000;

/// As many digits of a key's SHA-256 as the access log and the live page show: 48 bits, by which a
/// million keys are told apart but once in 500 times. To be refused by it in somebody's stead is easy
/// for nobody but who wants to be; to be let through would be within reach, so `allow` wants all 64.
const SHORTEST_PREFIX: usize = 12;

/// The names of the lists.
const ALLOW: &str = "allow";
const DENY: &str = "deny";

#[derive(Debug, Default)]
pub struct Exemptions {
    allow: List,
    deny: List,
    stale: Cell<Stale>,
}

/// Whether an entry was met that is the digest of a header, and not of the key in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stale {
    #[default]
    Unmet,
    Met,
    Told,
}

/// How a caller is treated before any limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// As the rules say.
    Limited,
    /// No limit holds, and none counts.
    Exempt(Entry),
    /// Refused, whatever the limits say.
    Blocked(Entry),
}

/// What of a list somebody is on it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Network(Cidr),
    User,
    Tier,
    /// As much of the key's hash as the list has.
    ApiKey(String),
    /// An override of a limit of this rule, not a list.
    Override(String),
}

/// Somebody who is on a list, for those who tell operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub caller: Caller,
    list: &'static str,
    entry: Entry,
}

/// Whoever is on one of these is on the list.
#[derive(Debug, Default)]
struct List {
    networks: Networks,
    users: HashSet<Vec<u8>>,
    tiers: HashSet<String>,
    api_keys: Digests,
}

/// Hashes of API keys, or beginnings of them: SHA-256 in lower-case hex, as [`Subject::ApiKey`] has it.
/// Ascending, and none begins with another.
#[derive(Debug, Default)]
struct Digests(Vec<String>);

/// How much of a hash a list may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    All,
    Beginning,
}

impl Exemptions {
    /// The policy's `allow` and `deny`.
    pub(super) fn compile(
        allow: document::Callers,
        deny: document::Callers,
        policy: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Exemptions {
        Exemptions {
            allow: List::compile(allow, Digits::All, &policy.member(ALLOW), mistakes),
            deny: List::compile(deny, Digits::Beginning, &policy.member(DENY), mistakes),
            stale: Cell::default(),
        }
    }

    /// What is probably not meant, in a sentence each.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, list, outcome) in [
            (ALLOW, &self.allow, "meets no limit"),
            (DENY, &self.deny, "is refused with 403"),
        ] {
            for family in list.networks.whole_families() {
                doubts.push(format!(
                    "{name}.networks: they leave no {family} address out, so everybody {outcome}; narrow them"
                ));
            }
            let mut assumed: Vec<&String> = list
                .tiers
                .iter()
                .filter(|tier| identity::is_assumed(tier))
                .collect();
            assumed.sort_unstable();
            for tier in assumed {
                doubts.push(format!(
                    "{name}.tiers: {tier:?} is the tier of whoever comes without one, and each of them \
                     {outcome}; name another tier"
                ));
            }
        }
        let both = self.allow.users.intersection(&self.deny.users);
        let both = both.map(|user| format!("user {:?}", String::from_utf8_lossy(user)));
        let tiers = self.allow.tiers.intersection(&self.deny.tiers);
        let keys = self.allow.api_keys.0.iter();
        let keys = keys.filter(|key| self.deny.api_keys.find(key).is_some());
        let tiers = tiers.map(|tier| format!("tier {tier:?}"));
        let keys = keys.map(|key| format!("API key {:?}", key.get(..12).unwrap_or(key)));
        let mut both: Vec<String> = both.chain(tiers).chain(keys).collect();
        both.sort_unstable();
        if let Some(first) = both.first() {
            let others = match both.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            doubts.push(format!(
                "allow, deny: {first}{others} is on both lists, and \"deny\" wins; take it off \"allow\""
            ));
        }
        doubts
    }

    pub fn names_user(&self, id: &str) -> bool {
        [&self.allow, &self.deny]
            .iter()
            .any(|list| list.users.contains(id.as_bytes()))
    }

    /// The tiers on either list.
    pub fn tiers(&self) -> impl Iterator<Item = &str> {
        let tiers = self.allow.tiers.iter().chain(&self.deny.tiers);
        tiers.map(String::as_str)
    }

    /// The list that a tier is on, by the name that the policy has for it.
    pub fn lists_tier(&self, tier: &str) -> Option<&'static str> {
        let lists = [(DENY, &self.deny), (ALLOW, &self.allow)];
        lists
            .into_iter()
            .find(|(_, list)| list.tiers.contains(tier))
            .map(|(name, _)| name)
    }

    /// Whether somebody is refused whatever they ask for: then everybody must be known.
    pub fn block(&self) -> bool {
        !self.deny.is_empty()
    }

    /// `api_key` is the key that the caller sent, who may count by a user id all the same.
    pub fn treatment(&self, caller: &Caller, api_key: Option<&[u8]>) -> Treatment {
        if let Some(entry) = self.deny.find(caller, api_key) {
            Treatment::Blocked(entry)
        } else if let Some(entry) = self.allow.find(caller, api_key) {
            Treatment::Exempt(entry)
        } else {
            Treatment::Limited
        }
    }
}

impl Exemptions {
    /// How whoever sent this header is treated by lists that have the digest of all of it, scheme and
    /// key: so they were written where no scheme was cut.
    pub fn treatment_of_header(&self, header: &[u8]) -> Treatment {
        if self.deny.api_keys.is_empty() && self.allow.api_keys.is_empty() {
            return Treatment::Limited;
        }
        let digest = hex_digest(header);
        let entry = |list: &List| Some(Entry::ApiKey(list.api_keys.find(&digest)?.to_string()));
        let treatment = if let Some(entry) = entry(&self.deny) {
            Treatment::Blocked(entry)
        } else if let Some(entry) = entry(&self.allow) {
            Treatment::Exempt(entry)
        } else {
            return Treatment::Limited;
        };
        if self.stale.get() == Stale::Unmet {
            self.stale.set(Stale::Met);
        }
        treatment
    }

    /// A word for the log, once, when such an entry was met.
    pub fn notice(&self) -> Option<&'static str> {
        if self.stale.get() != Stale::Met {
            return None;
        }
        self.stale.set(Stale::Told);
        Some(
            "an entry of allow.api_keys or deny.api_keys is the SHA-256 of a whole header, scheme and key: it \
             holds for this spelling of the scheme only; write that of the key: printf %s KEY | sha256sum",
        )
    }
}

impl Treatment {
    /// Of two that hold for one caller.
    pub fn or_stronger(self, other: Treatment) -> Treatment {
        match (&self, &other) {
            (Treatment::Blocked(_), _) | (_, Treatment::Limited) => self,
            (_, Treatment::Blocked(_)) | (Treatment::Limited, _) => other,
            (Treatment::Exempt(_), Treatment::Exempt(_)) => self,
        }
    }

    /// The list and the entry that say so, for this caller; none where they are on none.
    pub fn listed(self, caller: Caller) -> Option<Listed> {
        match self {
            Treatment::Limited => None,
            Treatment::Exempt(entry) => Some(Listed::allowed(caller, entry)),
            Treatment::Blocked(entry) => Some(Listed::denied(caller, entry)),
        }
    }
}

impl Listed {
    pub fn allowed(caller: Caller, entry: Entry) -> Listed {
        Listed {
            caller,
            list: ALLOW,
            entry,
        }
    }

    pub fn denied(caller: Caller, entry: Entry) -> Listed {
        Listed {
            caller,
            list: DENY,
            entry,
        }
    }

    /// The list, by the name that the policy has for it.
    pub fn list(&self) -> &'static str {
        self.list
    }

    /// The field of the list that holds the entry.
    pub fn field(&self) -> &'static str {
        match self.entry {
            Entry::Network(_) => "networks",
            Entry::User => "users",
            Entry::Tier => "tiers",
            Entry::ApiKey(_) => "api_keys",
            Entry::Override(_) => "overrides",
        }
    }

    /// The entry, where it says more than who the caller is. It holds no blank.
    pub fn entry(&self) -> Option<Cow<'_, str>> {
        match &self.entry {
            Entry::Network(network) => Some(network.to_string().into()),
            Entry::User => None,
            Entry::Tier => Some(self.caller.tier.as_str().into()),
            Entry::ApiKey(digits) => Some(digits.as_str().into()),
            Entry::Override(rule) => Some(rule.as_str().into()),
        }
    }

    /// All of it, as one looks for it in the policy: `deny.networks 10.0.0.0/8`.
    pub fn text(&self) -> String {
        let (list, field) = (self.list, self.field());
        match self.entry() {
            Some(entry) => format!("{list}.{field} {entry}"),
            None => format!("{list}.{field}"),
        }
    }
}

impl Digests {
    fn new(mut digests: Vec<String>) -> Digests {
        digests.sort_unstable();
        // What begins with its neighbour says nothing that the neighbour does not.
        digests.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        Digests(digests)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a hash begins with. Nothing lies between it and the hash but what begins with it too.
    fn find(&self, hash: &str) -> Option<&str> {
        let after = self.0.partition_point(|digits| digits.as_str() <= hash);
        let closest = self.0.get(after.checked_sub(1)?)?;
        hash.starts_with(closest.as_str())
            .then_some(closest.as_str())
    }
}

impl List {
    fn compile(
        callers: document::Callers,
        digits: Digits,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> List {
        let document::Callers {
            networks,
            users,
            tiers,
            api_keys,
        } = callers;
        let count = networks.len() + users.len() + tiers.len() + api_keys.len();
        if count > MOST_ENTRIES {
            mistakes.add(at.error(format!(
                "has {count} entries, and every worker holds them all; keep it to {MOST_ENTRIES}, \
                 or give such callers a tier of their own"
            )));
        }
        let keys_at = at.member("api_keys");
        let mut digests = Vec::with_capacity(api_keys.len());
        for (place, text) in api_keys {
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_enough = match digits {
                Digits::All => text.len() == DIGEST_DIGITS,
                Digits::Beginning => (SHORTEST_PREFIX..=DIGEST_DIGITS).contains(&text.len()),
            };
            match is_hex && is_enough {
                true => digests.push(text.to_ascii_lowercase()),
                // Not as written: it may be the key itself.
                false => mistakes.add(place.of(&keys_at).error(digits.wanted())),
            }
        }
        let users = users.into_iter().map(|(_, user)| user.into_bytes());
        List {
            networks: networks.into_iter().map(|(_, network)| network).collect(),
            users: users.collect(),
            tiers: tiers.into_iter().map(|(_, tier)| tier).collect(),
            api_keys: Digests::new(digests),
        }
    }

    fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.users.is_empty()
            && self.tiers.is_empty()
            && self.api_keys.is_empty()
    }

    fn find(&self, caller: &Caller, api_key: Option<&[u8]>) -> Option<Entry> {
        // As in most policies.
        if self.is_empty() {
            return None;
        }
        if let Some(address) = caller.address
            && let Some(network) = self.networks.find(address)
        {
            return Some(Entry::Network(network));
        }
        if let Subject::User(id) = &caller.subject
            && self.users.contains(id)
        {
            return Some(Entry::User);
        }
        if self.tiers.contains(&caller.tier) {
            return Some(Entry::Tier);
        }
        // Hashing costs more than all else here.
        let hash = match (&caller.subject, api_key) {
            _ if self.api_keys.is_empty() => return None,
            (Subject::ApiKey(hash), _) => Cow::Borrowed(hash.as_str()),
            (_, Some(key)) if !key.is_empty() => hex_digest(key).into(),
            _ => return None,
        };
        let digits = self.api_keys.find(&hash)?;
        Some(Entry::ApiKey(digits.to_string()))
    }
}

impl Digits {
    fn wanted(self) -> &'static str {
        match self {
            Digits::All => {
                "is no SHA-256 in hex; write what `printf %s KEY | sha256sum` prints, 64 digits"
            }
            Digits::Beginning => {
                "is no SHA-256 in hex, nor a beginning of one; write what `printf %s KEY | \
                 sha256sum` prints, or the first 12 digits at least, as the live page and the access \
                 log show them"
            }
        }
    }
}

#[cfg(test)]
mod tests;
