//! What every request is checked against: one limit for all, one for its user, one for its address.
//! Weir and its peers get the same numbers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Every measured request asks for this.
pub const PATH: &str = "/api/v1/items";

/// How usage is counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    #[default]
    FixedWindow,
    TokenBucket,
    SlidingWindow,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Limits far above what a run can use.
    Allowed,
    /// Each user has had the one request that it may make in a month.
    Denied,
}

/// The three limits; all have the same window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    pub algorithm: Algorithm,
    pub scenario: Scenario,
    /// Of all together, and of one address.
    pub limit: u64,
    pub user_limit: u64,
    pub window_seconds: u64,
}

impl Algorithm {
    /// Its name in a policy.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::FixedWindow => "fixed_window",
            Algorithm::TokenBucket => "token_bucket",
            Algorithm::SlidingWindow => "sliding_window",
        }
    }
}

impl Scenario {
    /// The status that every answer must have.
    pub fn status(self) -> u16 {
        match self {
            Scenario::Allowed => 200,
            Scenario::Denied => 429,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Allowed => "allowed",
            Scenario::Denied => "denied",
        }
    }

    /// How many users take turns: the many of an API, and the few who hammer at it.
    pub fn callers(self) -> u64 {
        match self {
            Scenario::Allowed => 1000,
            Scenario::Denied => 100,
        }
    }
}

impl Limits {
    pub fn new(algorithm: Algorithm, scenario: Scenario) -> Self {
        let (limit, user_limit, window_seconds) = match (scenario, algorithm) {
            // A log keeps what its window holds. With a second of it, entries expire as fast as they
            // come, which is what a log costs in the long run.
            (Scenario::Allowed, Algorithm::SlidingWindow) => (1_000_000, 1_000_000, 1),
            (Scenario::Allowed, _) => (1_000_000_000, 1_000_000_000, 3600),
            (Scenario::Denied, _) => (1_000_000, 1, 30 * 86_400),
        };
        Self {
            algorithm,
            scenario,
            limit,
            user_limit,
            window_seconds,
        }
    }

    /// A policy for Weir: `rules` rules, of which the last is the one that applies. `lease` is put into
    /// each limit.
    pub fn policy(&self, rules: usize, lease: Option<&Value>) -> Value {
        let limit = |limit| {
            let window = self.window_seconds;
            let mut limit =
                json!({ "type": self.algorithm.name(), "limit": limit, "window": window });
            if let Some(lease) = lease {
                limit["lease"] = lease.clone();
            }
            limit
        };
        let rule = |number: usize| {
            let applies = number + 1 == rules;
            let pattern = if applies {
                "/api/v1/*".to_owned()
            } else {
                format!("/other/{number}/*")
            };
            json!({
                "name": format!("rule-{number}"),
                "pattern": pattern,
                "global_limit": limit(self.limit),
                "user_limits": { "default": limit(self.user_limit) },
                "ip_limits": { "default": limit(self.limit) },
            })
        };
        json!({ "rules": (0..rules).map(rule).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_of_a_policy_applies_with_its_three_limits() {
        let limits = Limits::new(Algorithm::TokenBucket, Scenario::Denied);
        let lease = json!({ "size": "auto" });
        let policy = limits.policy(3, Some(&lease));
        let rules = policy["rules"].as_array().unwrap();
        let patterns: Vec<_> = rules
            .iter()
            .map(|rule| rule["pattern"].as_str().unwrap())
            .collect();
        assert_eq!(patterns, ["/other/0/*", "/other/1/*", "/api/v1/*"]);
        let user = &rules[2]["user_limits"]["default"];
        assert_eq!(
            (&user["limit"], &user["type"]),
            (&json!(1), &json!("token_bucket"))
        );
        assert_eq!(rules[2]["global_limit"]["lease"], lease);
        assert_eq!(
            limits.policy(1, None)["rules"][0]["global_limit"]["lease"],
            Value::Null
        );
    }
}
