//! The callers whom no limit is for, and those whom nothing is for: the policy's lists `allow` and
//! `deny`. They are looked at before any limit, and cost nothing where the policy has none.
//!
//! Deny wins: a list of those who are let through is often wide (a network, a tier), and whoever is
//! written on the other is meant in person. It also makes a ban quick: nothing has to be taken off
//! the other list first.

use std::cell::Cell;
use std::collections::HashSet;

use crate::address::{Cidr, Networks};
use crate::identity::{Caller, Subject, hex_digest};
use crate::json::{At, ConfigError, Fields};
use crate::policy::check_name;

/// Each worker holds its own copy: at about 100 bytes an entry, 10 MB. Longer lists belong to
/// whatever authenticates, which can say so by a tier.
const MOST_ENTRIES: usize = 100_000;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// As the rules say.
    Limited,
    /// No limit holds, and none counts.
    Exempt,
    /// Refused, whatever the limits say.
    Blocked,
}

/// Whoever is on one of these is on the list.
#[derive(Debug, Default)]
struct List {
    networks: Networks,
    users: HashSet<Vec<u8>>,
    tiers: HashSet<String>,
    /// SHA-256 in lower-case hex, as [`Subject::ApiKey`] has it.
    api_keys: HashSet<String>,
}

impl Exemptions {
    /// Reads the policy's fields `allow` and `deny`.
    pub fn read(fields: &mut Fields<'_>) -> Result<Exemptions, ConfigError> {
        let mut list = |name| {
            let at = fields.optional(name);
            at.map_or_else(|| Ok(List::default()), |at| List::read(&at))
        };
        Ok(Exemptions {
            allow: list("allow")?,
            deny: list("deny")?,
            stale: Cell::default(),
        })
    }

    /// Whether somebody is refused whatever they ask for: then everybody must be known.
    pub fn block(&self) -> bool {
        !self.deny.is_empty()
    }

    /// `api_key` is the key that the caller sent, who may count by a user id all the same.
    pub fn treatment(&self, caller: &Caller, api_key: Option<&[u8]>) -> Treatment {
        if self.deny.holds(caller, api_key) {
            Treatment::Blocked
        } else if self.allow.holds(caller, api_key) {
            Treatment::Exempt
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
        let treatment = if self.deny.api_keys.contains(&digest) {
            Treatment::Blocked
        } else if self.allow.api_keys.contains(&digest) {
            Treatment::Exempt
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
    /// The list that says so, by the name that the policy has for it.
    pub fn list(self) -> Option<&'static str> {
        match self {
            Treatment::Limited => None,
            Treatment::Exempt => Some("allow"),
            Treatment::Blocked => Some("deny"),
        }
    }
}

impl List {
    fn read(at: &At<'_>) -> Result<List, ConfigError> {
        let mut fields = at.fields()?;
        let networks = items(&mut fields, "networks", |at, text| {
            text.parse::<Cidr>()
                .map_err(|error| at.error(format!("{text:?} {error}")))
        })?;
        let users = items(&mut fields, "users", |at, text| match text {
            "" => Err(at.error("is empty, which is nobody's id; take it out")),
            id => Ok(id.as_bytes().to_vec()),
        })?;
        let tiers = items(&mut fields, "tiers", |at, text| {
            check_name(text, at).map(|()| text.to_string())
        })?;
        let api_keys = items(&mut fields, "api_keys", |at, text| {
            let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_digest.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
                // Not as written: it may be the key itself.
                at.error(
                    "is no SHA-256 in hex; write what `printf %s KEY | sha256sum` prints, 64 digits",
                )
            })
        })?;
        fields.finish()?;
        let count = networks.len() + users.len() + tiers.len() + api_keys.len();
        if count > MOST_ENTRIES {
            return Err(at.error(format!(
                "has {count} entries, and every worker holds them all; keep it to {MOST_ENTRIES}, \
                 or give such callers a tier of their own"
            )));
        }
        Ok(List {
            networks: networks.into_iter().collect(),
            users: users.into_iter().collect(),
            tiers: tiers.into_iter().collect(),
            api_keys: api_keys.into_iter().collect(),
        })
    }

    fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.users.is_empty()
            && self.tiers.is_empty()
            && self.api_keys.is_empty()
    }

    fn holds(&self, caller: &Caller, api_key: Option<&[u8]>) -> bool {
        // As in most policies.
        if self.is_empty() {
            return false;
        }
        let user = || match &caller.subject {
            Subject::User(id) => self.users.contains(id),
            Subject::ApiKey(_) | Subject::Address(_) => false,
        };
        let key = || match (&caller.subject, api_key) {
            (Subject::ApiKey(hash), _) => self.api_keys.contains(hash),
            // Hashing costs more than all else here.
            (_, Some(key)) if !self.api_keys.is_empty() && !key.is_empty() => {
                self.api_keys.contains(&hex_digest(key))
            }
            _ => false,
        };
        caller
            .address
            .is_some_and(|address| self.networks.contain(address))
            || user()
            || self.tiers.contains(&caller.tier)
            || key()
    }
}

/// The texts of a list, each read; none where it is left out. An empty one is nobody: lists are
/// often written by a program.
fn items<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    read: impl Fn(&At<'_>, &str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let Some(at) = fields.optional(name) else {
        return Ok(Vec::new());
    };
    let items = at.list()?;
    items.iter().map(|at| read(at, at.text()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

    const KEY: &str = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";

    fn exemptions(text: &str) -> Result<Exemptions, ConfigError> {
        let json = Json::parse(text, "policy").unwrap();
        let mut fields = At::new(&json, "policy").fields().unwrap();
        Exemptions::read(&mut fields)
    }

    fn caller(subject: Subject, tier: &str, address: &str) -> Caller {
        let address = address.parse().ok();
        Caller {
            subject,
            tier: tier.to_string(),
            client: address,
            address,
        }
    }

    fn user(id: &str, tier: &str, address: &str) -> Caller {
        caller(Subject::User(id.as_bytes().to_vec()), tier, address)
    }

    #[test]
    fn a_caller_is_known_by_network_user_tier_or_key() {
        let lists = format!(
            r#"{{"allow": {{"networks": ["10.0.0.0/8", "2001:db8::/32"], "users": ["ann"],
                            "tiers": ["staff"], "api_keys": ["{}"]}}}}"#,
            KEY.to_uppercase()
        );
        let exemptions = exemptions(&lists).unwrap();
        assert!(!exemptions.block());
        let anonymous = |address| caller(Subject::Address(None), "anonymous", address);
        for (caller, key, expected) in [
            (user("bob", "free", "192.0.2.1"), None, Treatment::Limited),
            (user("ann", "free", "192.0.2.1"), None, Treatment::Exempt),
            (user("bob", "staff", "192.0.2.1"), None, Treatment::Exempt),
            (anonymous("10.1.2.3"), None, Treatment::Exempt),
            (anonymous("11.1.2.3"), None, Treatment::Limited),
            (anonymous("2001:db8::7"), None, Treatment::Exempt),
            (anonymous("-"), None, Treatment::Limited),
            // Whoever counts by a user id sent the key all the same.
            (
                user("bob", "free", "192.0.2.1"),
                Some("k"),
                Treatment::Exempt,
            ),
            (
                user("bob", "free", "192.0.2.1"),
                Some("other"),
                Treatment::Limited,
            ),
            (
                caller(Subject::ApiKey(KEY.to_string()), "free", "-"),
                None,
                Treatment::Exempt,
            ),
            // The id of a user is not the hash of a key.
            (user(KEY, "free", "-"), None, Treatment::Limited),
        ] {
            let told = exemptions.treatment(&caller, key.map(str::as_bytes));
            assert_eq!(told, expected, "{caller:?} {key:?}");
        }
    }

    #[test]
    fn deny_wins() {
        let exemptions = exemptions(
            r#"{"allow": {"networks": ["10.0.0.0/8"], "users": ["ann"]},
                "deny": {"networks": ["10.6.6.0/24"], "users": ["ann"]}}"#,
        )
        .unwrap();
        assert!(exemptions.block());
        for (address, expected) in [
            ("10.1.1.1", Treatment::Exempt),
            ("10.6.6.6", Treatment::Blocked),
            ("11.1.1.1", Treatment::Limited),
        ] {
            let told = exemptions.treatment(&user("bob", "free", address), None);
            assert_eq!(told, expected, "{address}");
        }
        let told = exemptions.treatment(&user("ann", "free", "10.1.1.1"), None);
        assert_eq!(told, Treatment::Blocked);
    }

    #[test]
    fn lists_are_bounded() {
        let users: Vec<String> = (0..=MOST_ENTRIES).map(|i| format!("\"{i}\"")).collect();
        let text = format!(r#"{{"deny": {{"users": [{}]}}}}"#, users.join(","));
        let error = exemptions(&text).unwrap_err();
        assert!(error.to_string().contains("has 100001 entries"), "{error}");
    }

    #[test]
    fn a_key_that_was_written_as_it_is_is_not_told_in_the_message() {
        let error = exemptions(r#"{"deny": {"api_keys": ["secret"]}}"#).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
