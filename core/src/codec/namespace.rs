//! The namespace of an environment: it begins the name of every key in Redis and of everything that the
//! workers of a process share, so that two environments on one Redis never meet. It knows how those
//! names begin and no more.

use std::fmt;
use std::str::FromStr;

/// What begins all names where no namespace is configured.
const WEIR: &str = "weir";

/// The layout's version: a counter whose state has another meaning gets another number here.
const COUNTERS: &str = ":2:{";

/// Short, since it is a part of every key.
const LONGEST: usize = 32;

/// `weir`, or `weir@NAME`. With `@` and not `:`, so that no namespace lies within the one without a name:
/// what may touch `weir:` alone, as a sidecar or an ACL does, must not reach `weir@staging:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What the names of counters begin with. The whole of it is kept, since every key is written from it.
    counters: String,
    /// How much of that is the namespace itself.
    length: usize,
}

/// The text is not 1 to 32 of `a-z 0-9 -`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANamespace;

impl Namespace {
    fn new(name: String) -> Namespace {
        Namespace {
            length: name.len(),
            counters: name + COUNTERS,
        }
    }

    /// What every name of it begins with: `weir` or `weir@NAME`.
    pub fn as_str(&self) -> &str {
        self.counters.get(..self.length).unwrap_or(WEIR)
    }

    /// The name that was configured, if any was.
    pub fn name(&self) -> Option<&str> {
        self.as_str().strip_prefix(WEIR)?.strip_prefix('@')
    }

    /// What the key of every counter begins with, up to the brace of the hash tag.
    pub fn counters(&self) -> &str {
        &self.counters
    }

    /// The hash in which a policy is published.
    pub fn policy(&self) -> String {
        format!("{self}:policy")
    }

    /// The policies that were published before, in the slot of [`Namespace::policy`], so that both can be
    /// changed at once in a Redis Cluster.
    pub fn history(&self) -> String {
        format!("{{{self}:policy}}:history")
    }

    /// Whether a key is a counter's, or something else of the limiter's own. The policy is not.
    pub fn holds(&self, key: &[u8]) -> bool {
        let rest = key.strip_prefix(self.as_str().as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b":") && rest != b":policy")
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new(WEIR.to_string())
    }
}

impl FromStr for Namespace {
    type Err = NotANamespace;

    /// The empty text is no namespace, as a variable that is set to nothing.
    fn from_str(name: &str) -> Result<Namespace, NotANamespace> {
        if name.is_empty() {
            return Ok(Namespace::default());
        }
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        match name.len() <= LONGEST && name.bytes().all(allowed) {
            true => Ok(Namespace::new(format!("{WEIR}@{name}"))),
            false => Err(NotANamespace),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NotANamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no namespace; use 1 to 32 of a-z 0-9 -, such as \"staging\"")
    }
}

impl std::error::Error for NotANamespace {}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        name.parse().unwrap()
    }

    #[test]
    fn names_say_whose_they_are() {
        let none = namespace("");
        assert_eq!(none, Namespace::default());
        assert_eq!(none.name(), None);
        assert_eq!(none.counters(), "weir:2:{");
        assert_eq!(none.policy(), "weir:policy");
        assert_eq!(none.history(), "{weir:policy}:history");
        let staging = namespace("eu-staging2");
        assert_eq!(staging.name(), Some("eu-staging2"));
        assert_eq!(staging.counters(), "weir@eu-staging2:2:{");
        assert_eq!(staging.policy(), "weir@eu-staging2:policy");
        assert_eq!(staging.history(), "{weir@eu-staging2:policy}:history");
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        for name in [
            "Staging",
            "a:b",
            "a_b",
            "a.b",
            "é",
            " ",
            "a b",
            "{a}",
            "@",
            &"a".repeat(33),
        ] {
            assert_eq!(name.parse::<Namespace>(), Err(NotANamespace), "{name}");
        }
        assert!("a".repeat(32).parse::<Namespace>().is_ok());
    }

    #[test]
    fn none_holds_a_key_of_another() {
        let all = ["", "a", "a-b", "b"].map(namespace);
        for own in &all {
            let key = format!("{}u:ann}}:r:user:fw60s", own.counters());
            for other in &all {
                assert_eq!(other.holds(key.as_bytes()), own == other, "{other} {key}");
                assert!(!other.holds(own.policy().as_bytes()));
                assert!(!other.holds(own.history().as_bytes()));
            }
        }
        assert!(!namespace("").holds(b"weird:2:{u:ann}"));
        assert!(!namespace("").holds(b"weir"));
    }
}
