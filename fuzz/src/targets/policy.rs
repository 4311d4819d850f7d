//! The configuration: what is refused says why, and what is accepted can be run on.

use std::collections::HashSet;

use weir_core::codec::json::Mistakes;
use weir_core::policy::ids::LimitId;
use weir_core::policy::soft_limit::Pace;
use weir_core::policy::{Matching, Policy, Target as Request};
use weir_core::request::subject::Subject;
use weir_core::worker::config::Config;

use crate::{Target, glob};

pub const TARGET: Target = Target {
    name: "policy",
    run,
    words: &[
        "\"rules\"",
        "\"limit\"",
        "\"window\"",
        "\"burst_limit\"",
        "\"priority\"",
        "\"methods\"",
        "\"hosts\"",
        "\"ip_limits\"",
        "\"user_limits\"",
        "\"global_limit\"",
        "\"default\"",
        "\"experiments\"",
        "\"variants\"",
        "\"weight\"",
        "\"cost\"",
        "\"request_header\"",
        "\"response_header\"",
        "\"max\"",
        "\"mode\"",
        "\"shadow\"",
        "\"off\"",
        "\"enforce_percent\"",
        "\"warn_at\"",
        "\"slow_from\"",
        "\"max_delay_ms\"",
        "\"shape\"",
        "\"name\"",
        "\"max_wait_ms\"",
        "true",
        "0.5",
        "\"shadow_header\"",
        "\"allow\"",
        "\"deny\"",
        "\"networks\"",
        "\"users\"",
        "\"tiers\"",
        "\"api_keys\"",
        "\"token_bucket\"",
        "\"leaky_bucket\"",
        "\"10.0.0.0/8\"",
        "9007199254740992",
        "18446744073709551615",
        "1e3",
        "-1",
        "0",
        "[",
        "]",
        "{",
        "}",
        ",",
        "null",
        "*",
        "**",
        "?",
        "[a-",
        "{a,b}",
        "\\\\",
        "\\u0000",
        "\"*.example.com\"",
        ".json",
        "/**/",
    ],
};

/// The first integer that a double cannot tell from its neighbour.
const DOUBLE_EXACT: u128 = 1 << 53;

/// Whatever a document holds, no word of it makes a longer line in a log.
const LONGEST_WORDS: usize = 1024;

/// Paths that globs could take to be special.
const PATHS: [&[u8]; 9] = [
    b"/",
    b"/api/v1/auth/login",
    b"/a.json",
    b"/a.json/",
    b"/.",
    b"/x/..",
    b"/\xff\n",
    b"",
    b"/api/v1/media/upload.tar.gz",
];

fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text) {
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().count() <= Mistakes::FEW);
            for error in mistakes.iter() {
                assert!((1..LONGEST_WORDS).contains(&error.path.len()), "{error}");
                assert!((1..LONGEST_WORDS).contains(&error.message.len()), "{error}");
            }
        }
        Ok(Config::Bridge) => {}
        Ok(Config::Limiter(config)) => {
            assert!((1..=1000).contains(&config.store.timeout.as_millis()));
            check(&config.policy);
        }
    }
}

fn check(policy: &Policy) {
    let in_bounds = policy.limits().map(|(_, limit)| limit.terms.quota);
    for quota in in_bounds.chain([policy.status.terms.quota]) {
        let (limit, capacity) = (quota.limit(), quota.capacity());
        assert!(limit > 0 && capacity > 0 && quota.window_seconds() > 0);
        let most = u128::from(limit.max(capacity)) * u128::from(quota.window().as_millis());
        assert!(most < DOUBLE_EXACT);
    }
    for (_, limit) in policy.limits() {
        if let Pace::Shaped { longest } = limit.soft_limit.pace {
            let quota = limit.terms.quota;
            let turn = |nth: u64| u128::from(nth) * u128::from(quota.window().as_millis());
            let leaks = u128::from(longest.as_millis()) * u128::from(quota.limit());
            assert!(turn(1) <= leaks && turn(quota.capacity() - 1) <= leaks);
        }
    }
    for rule in policy.rules() {
        assert!(rule.describe(policy).to_string().starts_with("rule "));
        for tier in ["free", "anonymous", "default", "\u{fffd}"] {
            let address = "10.1.2.3".parse().ok();
            for id in [&b"a"[..], b"b", b"c", b"\xff"] {
                let arm = policy.arm(rule, &Subject::User(id.to_vec()));
                assert!(arm.is_none_or(|arm| policy.variant(arm.id).is_some()));
                let limits = rule.limits_for(arm, tier, address);
                let limits: Vec<LimitId> = limits.collect();
                let counted = limits.iter().filter_map(|id| policy.limit(*id));
                let counters: HashSet<&[u8]> = counted.map(|limit| &*limit.key_end).collect();
                assert_eq!(counters.len(), limits.len(), "a request counts twice");
                let mut limits = limits.into_iter();
                assert!(limits.all(|id| {
                    policy.limit(id).is_some_and(|limit| {
                        limit.rule == rule.name()
                            && limit.cost.get() <= limit.terms.quota.capacity()
                    })
                }));
            }
        }
    }
    for path in PATHS {
        rules_match_as_their_globs_do_one_by_one(policy, path);
    }
}

/// The index has ways around all that; a rule's glob alone has none. What a loose rule meets besides,
/// the target `pattern` looks at.
fn rules_match_as_their_globs_do_one_by_one(policy: &Policy, path: &[u8]) {
    let request = Request {
        path,
        method: b"GET",
        authority: b"example.com",
    };
    let matched: Vec<&str> = policy.matching(request).map(|rule| rule.name()).collect();
    let order = policy.rules().iter().map(|rule| rule.name());
    let order: Vec<&str> = order.filter(|name| matched.contains(name)).collect();
    assert_eq!(matched, order);
    for rule in policy.rules().iter().filter(|rule| rule.is_for(request)) {
        let is_met = rule.patterns().any(|pattern| glob::matches(pattern, path));
        let is_matched = matched.contains(&rule.name());
        match rule.matching() {
            Matching::Exact => assert_eq!(is_matched, is_met, "{}", path.escape_ascii()),
            Matching::Loose => assert!(is_matched || !is_met, "{}", path.escape_ascii()),
        }
    }
}
