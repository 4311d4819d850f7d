use super::*;
use crate::codec::json::Json;

fn policy(text: &str) -> Policy {
    let json = Json::parse(text, "policy").unwrap();
    Policy::try_new(&At::new(&json, "policy")).unwrap()
}

fn names(policy: &Policy, path: &str, method: &str, authority: &str) -> Vec<String> {
    let target = Target {
        path: path.as_bytes(),
        method: method.as_bytes(),
        authority: authority.as_bytes(),
    };
    policy
        .matching(target)
        .map(|rule| rule.name().to_string())
        .collect()
}

const LIMIT: &str = r#"{"type": "fixed_window", "limit": 1, "window": 60}"#;

#[test]
fn a_policy_that_names_no_operators_keeps_those_that_were_configured() {
    let of = |status: &str| policy(&format!(r#"{{"rules": [], "status": {status}}}"#)).status;
    let header = r#"{"operator_header": {"name": "x-ops", "value": "0123456789abcdef"}}"#;
    let told = |status: &Status| {
        let header = status.operator_header.as_ref();
        (
            status.operator_tier.clone(),
            header.map(|header| header.name.clone()),
        )
    };
    for (published, tier, name) in [
        ("{}", None, Some("x-ops")),
        (r#"{"limit": 5}"#, None, Some("x-ops")),
        (r#"{"operator_tier": "ops"}"#, Some("ops"), None),
        (
            r#"{"operator_header": {"name": "x-new", "value": "0123456789abcdef"}}"#,
            None,
            Some("x-new"),
        ),
    ] {
        let mut status = of(published);
        status.keep_operators(&of(header));
        let expected = (tier.map(str::to_string), name.map(str::to_string));
        assert_eq!(told(&status), expected, "{published}");
    }
}

#[test]
fn every_matching_rule_applies_in_order_of_priority_then_of_the_file() {
    let policy = policy(&format!(
        r#"{{"rules": [
            {{"name": "late", "pattern": "/api/*", "global_limit": {LIMIT}}},
            {{"name": "later", "pattern": "/api/*", "global_limit": {LIMIT}}},
            {{"name": "first", "pattern": "/api/v1/*", "priority": 1, "global_limit": {LIMIT}}},
            {{"name": "other", "pattern": "/web/*", "global_limit": {LIMIT}}}
        ]}}"#
    ));
    assert_eq!(
        names(&policy, "/api/v1/auth/login", "GET", "x"),
        ["first", "late", "later"]
    );
    assert_eq!(names(&policy, "/api/x", "GET", "x"), ["late", "later"]);
    assert!(names(&policy, "/nothing", "GET", "x").is_empty());
}

#[test]
fn methods_and_hosts_narrow_a_rule() {
    let policy = policy(&format!(
        r#"{{"rules": [
            {{"name": "writes", "pattern": "*", "methods": ["POST", "PUT"], "global_limit": {LIMIT}}},
            {{"name": "host", "pattern": "*", "hosts": ["api.example.com"], "global_limit": {LIMIT}}},
            {{"name": "below", "pattern": "*", "hosts": ["*.example.com"], "global_limit": {LIMIT}}},
            {{"name": "v6", "pattern": "*", "hosts": ["[::1]"], "global_limit": {LIMIT}}}
        ]}}"#
    ));
    for (method, authority, expected) in [
        ("GET", "x", vec![]),
        ("POST", "x", vec!["writes"]),
        ("post", "x", vec!["writes"]),
        ("Put", "x", vec!["writes"]),
        ("GET", "API.example.com:8443", vec!["host", "below"]),
        ("GET", "api.example.com.", vec!["host", "below"]),
        ("GET", "api.example.com.:80", vec!["host", "below"]),
        ("GET", "api.example.com:http", vec!["host", "below"]),
        ("GET", "ann:x@api.example.com", vec!["host", "below"]),
        ("GET", "www.example.com", vec!["below"]),
        ("GET", "example.com", vec![]),
        ("GET", "badexample.com", vec![]),
        ("GET", "[::1]", vec!["v6"]),
        ("GET", "[::1]:80", vec!["v6"]),
        ("GET", "", vec![]),
    ] {
        assert_eq!(
            names(&policy, "/", method, authority),
            expected,
            "{method} {authority}"
        );
    }
}

#[test]
fn patterns_widen_a_rule_and_exceptions_narrow_it() {
    let policy = policy(&format!(
        r#"{{"rules": [
            {{"name": "all", "patterns": ["/v1/*", "/v2/*"], "except": ["/v1/health", "*/public/*"],
              "global_limit": {LIMIT}}},
            {{"name": "exact", "pattern": "/v1/*", "match": "exact", "except": ["/v1/health"],
              "global_limit": {LIMIT}}}
        ]}}"#
    ));
    for (path, expected) in [
        ("/v1/a", &["all", "exact"][..]),
        ("/v2/a", &["all"]),
        ("/v3/a", &[]),
        ("/v1/health", &[]),
        ("/v1/HEALTH", &["all", "exact"]),
        ("/v2/public/a", &[]),
        ("/v2/public/..;/a", &["all"]),
    ] {
        assert_eq!(names(&policy, path, "GET", "x"), expected, "{path}");
    }
}

#[test]
fn get_covers_head_and_nothing_else_does() {
    let policy = policy(&format!(
        r#"{{"rules": [
            {{"name": "get", "pattern": "*", "methods": ["get"], "global_limit": {LIMIT}}},
            {{"name": "head", "pattern": "*", "methods": ["HEAD"], "global_limit": {LIMIT}}},
            {{"name": "post", "pattern": "*", "methods": ["POST"], "global_limit": {LIMIT}}}
        ]}}"#
    ));
    for (method, expected) in [
        ("GET", &["get"][..]),
        ("HEAD", &["get", "head"]),
        ("head", &["get", "head"]),
        ("POST", &["post"]),
        ("GETX", &[]),
        ("", &[]),
    ] {
        assert_eq!(names(&policy, "/", method, "x"), expected, "{method}");
    }
}

#[test]
fn a_policy_says_how_closely_its_rules_match_and_a_rule_says_otherwise() {
    for (policys, rules, expected) in [
        ("", "", "/A"),
        (r#""match": "loose","#, "", "/A"),
        (r#""match": "exact","#, "", "/a"),
        (r#""match": "exact","#, r#""match": "loose","#, "/A"),
        ("", r#""match": "exact","#, "/a"),
    ] {
        let policy = policy(&format!(
            r#"{{{policys} "rules": [
                {{"name": "r", {rules} "pattern": "/a", "global_limit": {LIMIT}}}]}}"#
        ));
        let met = ["/A", "/a"].into_iter();
        let mut met = met.filter(|path| !names(&policy, path, "GET", "x").is_empty());
        assert_eq!(met.next(), Some(expected), "{policys} {rules}");
    }
}

#[test]
fn a_star_crosses_slashes_and_takes_bytes_that_are_not_text() {
    let policy = policy(&format!(
        r#"{{"rules": [{{"name": "r", "pattern": "/api/*", "global_limit": {LIMIT}}}]}}"#
    ));
    let target = Target {
        path: b"/api/\xff/\n/x",
        method: b"GET",
        authority: b"x",
    };
    assert_eq!(policy.matching(target).count(), 1);
}

#[test]
fn a_byte_that_is_not_text_is_one_character() {
    let policy = policy(&format!(
        r#"{{"rules": [{{"name": "r", "pattern": "/api/?", "global_limit": {LIMIT}}}]}}"#
    ));
    let target = Target {
        path: b"/api/\xff",
        method: b"GET",
        authority: b"x",
    };
    assert_eq!(policy.matching(target).count(), 1);
}

#[test]
fn tiers_and_networks_choose_their_limits() {
    let policy = policy(
        r#"{"rules": [{"name": "r", "pattern": "*",
            "user_limits": {
                "free": {"type": "fixed_window", "limit": 1, "window": 60},
                "paid": [{"type": "fixed_window", "limit": 2, "window": 60},
                         {"type": "sliding_window", "limit": 3, "window": 3600}],
                "default": {"type": "fixed_window", "limit": 4, "window": 60}},
            "ip_limits": {
                "10.0.0.0/8": {"type": "fixed_window", "limit": 5, "window": 60},
                "10.1.0.0/16": {"type": "fixed_window", "limit": 6, "window": 60},
                "default": {"type": "fixed_window", "limit": 7, "window": 60}}}]}"#,
    );
    let rule = &policy.rules()[0];
    for (tier, address, expected) in [
        ("free", Some("192.0.2.1"), vec![1, 7]),
        ("paid", Some("10.2.0.1"), vec![2, 3, 5]),
        ("unheard-of", Some("10.1.0.1"), vec![4, 6]),
        ("free", None, vec![1]),
    ] {
        let address = address.map(|text| text.parse().unwrap());
        let limits: Vec<u64> = rule
            .limits_for(None, tier, address)
            .map(|id| policy.limit(id).unwrap().terms.quota.limit())
            .collect();
        assert_eq!(limits, expected, "{tier} {address:?}");
    }
}

#[test]
fn a_tier_is_known_that_is_named_anywhere() {
    let policy = policy(&format!(
        r#"{{"rules": [{{"name": "r", "pattern": "*", "user_limits": {{"pro": {LIMIT}}}}}],
            "experiments": [{{"name": "e", "variants": [{{"name": "c", "weight": 1}}, {{"name": "v",
                "weight": 1, "rules": {{"r": {{"user_limits": {{"gold": {LIMIT}}}}}}}}}]}}],
            "allow": {{"tiers": ["staff"]}}, "deny": {{"tiers": ["banned"]}},
            "status": {{"operator_tier": "ops"}}}}"#
    ));
    for tier in ["pro", "gold", "staff", "banned", "ops", "free", "anonymous"] {
        assert!(policy.knows_tier(tier), "{tier}");
    }
    for tier in ["Pro", "default", "", "\u{fffd}"] {
        assert!(!policy.knows_tier(tier), "{tier}");
    }
}

#[test]
fn where_no_rule_tells_tiers_apart_all_are_known() {
    let policy = policy(&format!(
        r#"{{"rules": [{{"name": "r", "pattern": "*", "user_limits": {{"default": {LIMIT}}}}}],
            "deny": {{"tiers": ["banned"]}}}}"#
    ));
    assert!(policy.knows_tier("pro"));
}

#[test]
fn a_cost_that_no_limit_could_hold_is_warned_about() {
    for (max, warned) in [(20, false), (21, true)] {
        let policy = policy(&format!(
            r#"{{"rules": [{{"name": "r", "pattern": "*",
                "cost": {{"request_header": "X-Cost", "default": 1, "max": {max}}},
                "global_limit": {{"type": "fixed_window", "limit": 100, "window": 60}},
                "user_limits": {{"default": {{
                    "type": "token_bucket", "limit": 90, "window": 60, "burst_limit": 20}}}}
            }}]}}"#
        ));
        let told = "rule r: x-cost may ask for up to 21, and a limit of it holds 20 at most: what \
                    costs more than that never passes; lower \"max\" or raise the limit";
        let warnings: &[&str] = if warned { &[told] } else { &[] };
        assert_eq!(policy.warnings, warnings);
    }
}

#[test]
fn many_patterns_that_are_tried_one_by_one_are_warned_about() {
    for (count, warned) in [(64, false), (65, true)] {
        let rules: Vec<String> = (0..count)
            .map(|n| {
                format!(
                    r#"{{"name": "r{n}", "pattern": "/a/*/b{n}/*", "match": "exact",
                        "global_limit": {LIMIT}}}"#
                )
            })
            .collect();
        let policy = policy(&format!(r#"{{"rules": [{}]}}"#, rules.join(",")));
        let told = "65 patterns begin alike and have a \"*\" with more behind it, so each is tried on \
                    each path that begins so: a path of 4096 bytes may cost 780 µs; let them begin \
                    differently";
        let warnings: &[&str] = if warned { &[told] } else { &[] };
        assert_eq!(policy.warnings, warnings);
    }
}

#[test]
fn a_large_log_is_warned_about_with_whose_it_is() {
    let policy = policy(
        r#"{"rules": [{"name": "r", "pattern": "*",
            "user_limits": {"default": {"type": "sliding_window", "limit": 10000, "window": 60}},
            "ip_limits": {"default": {"type": "sliding_window", "limit": 10001, "window": 60}}
        }]}"#,
    );
    assert_eq!(
        policy.warnings,
        [
            "rule r: a sliding window of 10001 keeps up to 10001 entries (about 30 bytes each) \
          in Redis for each address; a token bucket keeps one"
        ]
    );
}

#[test]
fn a_rule_says_how_far_it_is_in_force() {
    for (fields, told) in [
        (r#""mode": "enforce","#, "rule r pattern * priority 100: "),
        (
            r#""mode": "shadow","#,
            "rule r pattern * priority 100 mode shadow: ",
        ),
        (
            r#""mode": "off","#,
            "rule r pattern * priority 100 mode off: ",
        ),
        (
            r#""enforce_percent": 0.5,"#,
            "rule r pattern * priority 100 enforce_percent 0.5: ",
        ),
        (
            r#""enforce_percent": 100,"#,
            "rule r pattern * priority 100: ",
        ),
    ] {
        let policy = policy(&format!(
            r#"{{"rules": [{{"name": "r", "pattern": "*", {fields} "global_limit": {LIMIT}}}]}}"#
        ));
        let mut rules = policy.rules().iter().chain(policy.off());
        let line = rules.next().unwrap().describe(&policy).to_string();
        assert!(line.starts_with(told), "{line}");
        // The share's global limit, and that the share is so small; that nothing is in force.
        let warnings = match fields {
            r#""enforce_percent": 0.5,"# => 2,
            r#""mode": "off","# => 1,
            _ => 0,
        };
        assert_eq!(policy.warnings.len(), warnings, "{:?}", policy.warnings);
    }
}

#[test]
fn a_rule_describes_itself_in_one_line() {
    let policy = policy(
        r#"{"rules": [{"name": "upload", "pattern": "/up", "priority": 5, "methods": ["POST"],
            "global_limit": {"type": "sliding_window", "limit": 9, "window": 60},
            "user_limits": {"free":
                {"type": "token_bucket", "limit": 10, "window": 3600, "burst_limit": 5}}}]}"#,
    );
    assert_eq!(
        policy.rules()[0].describe(&policy).to_string(),
        "rule upload pattern /up priority 5 methods POST: global sliding_window 9/60s, \
         user free token_bucket 10/3600s burst 5"
    );
}

#[test]
fn a_window_by_the_calendar_counts_under_its_own_name_unless_seconds_say_the_same() {
    let policy = policy(
        r#"{"rules": [{"name": "plan", "pattern": "/*", "user_limits": {"default": [
            {"type": "fixed_window", "limit": 5, "window": "hour", "utc_offset": "-05:00"},
            {"type": "fixed_window", "limit": 10, "window": "day"},
            {"type": "fixed_window", "limit": 10, "window": "day", "utc_offset": "+09:00"},
            {"type": "fixed_window", "limit": 20, "window": "week"},
            {"type": "fixed_window", "limit": 30, "window": "month", "utc_offset": "+05:45"},
            {"name": "year", "type": "fixed_window", "limit": 40, "window": "month"}
        ]}}]}"#,
    );
    let counters: Vec<&str> = policy
        .limits()
        .map(|(_, limit)| limit.counter.as_str())
        .collect();
    assert_eq!(
        counters,
        [
            "fw3600s",
            "fw86400s",
            "fwday+0900",
            "fwweek",
            "fwmonth+0545",
            "fw.year"
        ]
    );
    let titles: Vec<Option<&str>> = policy.limits().map(|(id, _)| policy.title(id)).collect();
    assert_eq!(titles[4], Some("plan.user.default.month+0545"));
}
