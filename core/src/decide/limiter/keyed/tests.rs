use std::rc::Rc;

use crate::codec::json::{self, Json};
use crate::decide::limiter::{Facts, Step, admit};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::Policy;
use crate::worker::config::Config;

struct World(&'static str);

impl Facts for World {
    fn source_address(&self) -> Vec<u8> {
        b"203.0.113.7:99".to_vec()
    }
    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(self.0.as_bytes().to_vec())
    }
    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["xds", "route_name"] => Some(b"orders".to_vec()),
            ["metadata", "filter_metadata", "lb", "tenant"] => Some(b"acme".to_vec()),
            ["metadata", "filter_metadata", "lb", "plan"] => Some(b"pro plan".to_vec()),
            ["metadata", "filter_metadata", "lb", "is_new"] => Some(vec![1]),
            ["metadata", "filter_metadata", "lb", "number"] => Some(7f64.to_le_bytes().to_vec()),
            _ => None,
        }
    }
}

const BELIEVED: World = World("127.0.0.1");
const STRANGER: World = World("192.0.2.1");

/// What becomes of `GET PATH` where the rule's `limits` are these.
fn step(limits: &str, world: &impl Facts, path: &str, headers: &[(&str, &str)]) -> Step {
    step_of(
        &format!(r#""pattern": "/*", {limits}"#),
        world,
        path,
        headers,
    )
}

/// What becomes of it under this rule.
fn step_of(rule: &str, world: &impl Facts, path: &str, headers: &[(&str, &str)]) -> Step {
    let text = format!(
        r#"{{"role": "limiter", "identity": {{"trust": ["127.0.0.0/8"]}}, "policy": {{"rules": [
            {{"name": "api", {rule}}}]}}}}"#
    );
    let config = match Config::parse(&text) {
        Ok(Config::Limiter(config)) => *config,
        other => panic!("{other:?}"),
    };
    let snapshot = Rc::new(PolicySnapshot::configured(
        config.policy.clone(),
        config.store.namespace.clone(),
    ));
    let own = [
        (":method", "GET"),
        (":path", path),
        (":authority", "API.example:80"),
    ];
    let has = |name| headers.iter().any(|(own, _)| *own == name);
    let own = own.iter().filter(|(name, _)| !has(*name));
    let headers = own.chain(headers);
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    admit(&snapshot, &config.sources, headers, world).step
}

/// The counters that a request meets, without what all of them begin with; none where it meets none.
fn counters(step: &Step) -> Vec<String> {
    let Step::Ask(pending) = step else {
        assert!(matches!(step, Step::Pass), "{step:?}");
        return Vec::new();
    };
    let checks = pending.fan_in.check_request().checks().iter();
    let key = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    checks
        .map(|check| key(&check.key).replacen("weir:2:", "", 1))
        .collect()
}

/// One limit with this key besides a limit that bounds it.
fn keyed(key: &str, rest: &str) -> String {
    format!(
        r#""ip_limits": {{"default": {{"type": "fixed_window", "limit": 50, "window": 30}}}},
           "limits": [{{"key": {key}, "type": "fixed_window", "limit": 9, "window": 60{rest}}}]"#
    )
}

/// The counter of that limit.
fn counter(key: &str, world: &World, path: &str, headers: &[(&str, &str)]) -> Option<String> {
    let counters = counters(&step(&keyed(key, ""), world, path, headers));
    assert_eq!(counters[0], "{a:203.0.113.7}:api:ip:fw30s");
    assert!(counters.len() < 3, "{counters:?}");
    counters.into_iter().nth(1)
}

#[test]
fn each_part_is_read_where_it_stands() {
    let ann: &[(&str, &str)] = &[
        ("x-user-id", "ann"),
        ("x-user-tier", "pro"),
        ("x-api-key", "k"),
    ];
    let k = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
    let api_key = format!("{{k:{k}}}:api:api_key:fw60s");
    for (key, path, headers, expected) in [
        ("[]", "/", ann, "{g:api}:api:all:fw60s"),
        (r#"["user"]"#, "/", ann, "{u:ann}:api:user:fw60s"),
        (r#"["user"]"#, "/", &[], "{a:203.0.113.7}:api:user:fw60s"),
        (r#"["api_key"]"#, "/", ann, api_key.as_str()),
        (
            r#"["api_key"]"#,
            "/",
            &[("x-api-key", "k")],
            api_key.as_str(),
        ),
        (r#"["tier"]"#, "/", ann, "{v:pro}:api:tier:fw60s"),
        (r#"["ip"]"#, "/", ann, "{a:203.0.113.7}:api:ip:fw60s"),
        (
            r#"["ip/24"]"#,
            "/",
            ann,
            "{v:203.0.113.0%2F24}:api:ip/24:fw60s",
        ),
        (
            r#"["ip/48"]"#,
            "/",
            ann,
            "{v:203.0.113.7%2F32}:api:ip/48:fw60s",
        ),
        (
            r#"["path"]"#,
            "/A%2fb/?q=1",
            ann,
            "{v:%2Fa%2Fb}:api:path:fw60s",
        ),
        (
            r#"["method"]"#,
            "/",
            &[(":method", "HEAD")],
            "{v:GET}:api:method:fw60s",
        ),
        (
            r#"["method"]"#,
            "/",
            &[(":method", "get")],
            "{v:GET}:api:method:fw60s",
        ),
        (r#"["host"]"#, "/", ann, "{v:api.example}:api:host:fw60s"),
        (r#"["route"]"#, "/", ann, "{v:orders}:api:route:fw60s"),
        (
            r#"[{"metadata": ["lb", "tenant"]}]"#,
            "/",
            ann,
            "{v:acme}:api:m/lb/tenant:fw60s",
        ),
        (
            r#"[{"metadata": ["lb", "number"]}]"#,
            "/",
            ann,
            "{v:7}:api:m/lb/number:fw60s",
        ),
        (
            r#"[{"metadata": ["lb", "plan"]}]"#,
            "/",
            ann,
            "{v:pro%20plan}:api:m/lb/plan:fw60s",
        ),
        (
            r#"[{"metadata": ["lb", "is_new"]}]"#,
            "/",
            ann,
            "{v:true}:api:m/lb/is_new:fw60s",
        ),
        (
            r#"[{"header": "X-Org"}]"#,
            "/",
            &[("x-org", "acme")],
            "{v:acme}:api:h.x-org:fw60s",
        ),
        (
            r#"[{"header": "x-org"}]"#,
            "/",
            &[("x-org", "a"), ("x-org", "b")],
            "{v:a%2Cb}:api:h.x-org:fw60s",
        ),
        (
            r#"[{"cookie": "s"}]"#,
            "/",
            &[("cookie", "ss=1; s=2; s=3")],
            "{v:2}:api:c.s:fw60s",
        ),
        (
            r#"[{"query": "t"}]"#,
            "/x?tt=1&t=%41&t=b",
            ann,
            "{v:A}:api:q.t:fw60s",
        ),
        (
            r#"["ip", {"header": "x-org"}, "user", "method"]"#,
            "/",
            &[("x-org", "o"), ("x-user-id", "ann")],
            "{u:ann}:api:ip+h.x-org+user+method:fw60s=203.0.113.7+o+GET",
        ),
        (
            r#"["path", "ip"]"#,
            "/a",
            ann,
            "{a:203.0.113.7}:api:path+ip:fw60s=%2Fa",
        ),
    ] {
        let told = counter(key, &BELIEVED, path, headers);
        assert_eq!(told.as_deref(), Some(expected), "{key} {path} {headers:?}");
    }
}

#[test]
fn a_captured_segment_counts_as_the_rule_matches() {
    let limits = keyed(r#"["{org}"]"#, "");
    let counter = |matching: &str, path: &str| {
        let rule = format!(
            r#""patterns": ["/v1/{{org}}/*", "/{{org}}"], "match": "{matching}", {limits}"#
        );
        let counters = counters(&step_of(&rule, &BELIEVED, path, &[]));
        // Where nothing is captured the rule has no limit for the path.
        assert!(counters.is_empty() || counters.len() == 2, "{counters:?}");
        counters.into_iter().nth(1)
    };
    for (matching, path, expected) in [
        ("loose", "/v1/acme/x", Some("{v:acme}:api:p.org:fw60s")),
        (
            "loose",
            "/v1/ACME;v=1/x?q",
            Some("{v:acme}:api:p.org:fw60s"),
        ),
        ("loose", "/acme", Some("{v:acme}:api:p.org:fw60s")),
        ("loose", "/v2/acme", None),
        ("exact", "/v1/ACME/x", Some("{v:ACME}:api:p.org:fw60s")),
        ("exact", "/v1//acme/x", Some("{v:acme}:api:p.org:fw60s")),
        (
            "exact",
            "/v1/acme%2fb/x",
            Some("{v:acme%252fb}:api:p.org:fw60s"),
        ),
        ("exact", "/v1/../acme/x", None),
    ] {
        let told = counter(matching, path);
        assert_eq!(told.as_deref(), expected, "{matching} {path}");
    }
}

#[test]
fn an_override_names_a_segment_in_any_spelling_of_a_loose_rule() {
    for (matching, named, is_denied) in [
        ("loose", "Acme", true),
        ("loose", "acme;v=1", true),
        ("exact", "ACME", true),
        ("exact", "acme", false),
    ] {
        let denied = format!(r#", "overrides": [{{"is": [{named:?}], "deny": true}}]"#);
        let limits = keyed(r#"["{org}"]"#, &denied);
        let rule = format!(r#""pattern": "/v1/{{org}}", "match": "{matching}", {limits}"#);
        let step = step_of(&rule, &BELIEVED, "/v1/ACME", &[]);
        let is_blocked = matches!(step, Step::Block(..));
        assert_eq!(is_blocked, is_denied, "{matching} {named} {step:?}");
    }
}

/// What is not looked at meets every rule, and must not be a way round its limits.
#[test]
fn paths_beyond_the_bound_share_a_captured_segment_s_count() {
    let limits = keyed(r#"["{org}"]"#, "");
    let rule = format!(r#""pattern": "/v1/{{org}}", {limits}"#);
    let path = "/a".repeat(crate::policy::LONGEST_PATH);
    let counters = counters(&step_of(&rule, &BELIEVED, &path, &[]));
    assert_eq!(counters[1], "{v:%2F}:api:p.org:fw60s");
}

#[test]
fn values_that_differ_never_meet_in_one_counter() {
    let key = r#"[{"header": "a"}, {"header": "b"}]"#;
    let long = "x".repeat(300);
    let longer = "x".repeat(3000);
    let values = ["+", "~", "#", "a+b", "a", "%2B", &long, &longer, "}:", "="];
    let mut met = std::collections::HashSet::new();
    for a in values {
        for b in values {
            let counter = counter(key, &BELIEVED, "/", &[("a", a), ("b", b)]).unwrap();
            assert!(counter.len() < 300, "{counter}");
            assert!(met.insert(counter.clone()), "{a} {b} {counter}");
        }
    }
    // Nor with a request that lacks one.
    let shared = keyed(key, r#", "missing": "share""#);
    let lacking = counters(&step(&shared, &BELIEVED, "/", &[("b", "~")]));
    assert!(met.insert(lacking[1].clone()), "{lacking:?}");
}

#[test]
fn a_request_that_lacks_a_part_is_skipped_shared_or_refused() {
    let key = r#"[{"header": "x-org"}]"#;
    let step = |missing: &str| step(&keyed(key, missing), &BELIEVED, "/", &[("x-org", "")]);
    assert_eq!(counters(&step("")).len(), 1);
    let shared = step(r#", "missing": "share""#);
    assert_eq!(counters(&shared)[1], "{v:~}:api:h.x-org:fw60s");
    match step(r#", "missing": "refuse""#) {
        Step::Respond(answer, _) => {
            assert_eq!(answer.status, 400);
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains("lacks the header x-org"), "{body}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stranger_counts_by_address_whatever_it_writes() {
    let key = r#"["method", {"header": "x-org"}]"#;
    let of = |value: &str| counter(key, &STRANGER, "/", &[("x-org", value)]);
    assert_eq!(
        of("a").as_deref(),
        Some("{a:203.0.113.7}:api:method+h.x-org:fw60s")
    );
    assert_eq!(of("a"), of("b"));
    // What is no claim of a peer's is read of everybody.
    let told = counter(r#"["method"]"#, &STRANGER, "/", &[]);
    assert_eq!(told.as_deref(), Some("{v:GET}:api:method:fw60s"));
    let skipped = keyed(key, r#", "unbelieved": "skip""#);
    assert_eq!(
        counters(&step(&skipped, &STRANGER, "/", &[("x-org", "a")])).len(),
        1
    );
}

#[test]
fn the_override_that_names_most_values_holds() {
    let limits = keyed(
        r#"[{"header": "x-org"}, "user"]"#,
        r#", "overrides": [
            {"is": ["acme"], "limit": 500},
            {"is": ["acme", "ann"], "limit": 5},
            {"is": ["partner"], "unlimited": true},
            {"is": ["partner", "bob"], "limit": 3},
            {"is": ["crawler"], "deny": true}]"#,
    );
    let of = |org: &str, user: &str| {
        let step = step(
            &limits,
            &BELIEVED,
            "/",
            &[("x-org", org), ("x-user-id", user)],
        );
        match &step {
            Step::Ask(pending) => {
                let checks = pending.fan_in.check_request().checks();
                let numbers = checks.get(1).map(|check| check.terms.quota.limit());
                (200, numbers)
            }
            Step::Block(answer, _, listed) => {
                assert_eq!(listed.text(), "deny.overrides api");
                (answer.status, None)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of("other", "ann"), (200, Some(9)));
    assert_eq!(of("acme", "bob"), (200, Some(500)));
    assert_eq!(of("acme", "ann"), (200, Some(5)));
    assert_eq!(of("partner", "ann"), (200, None));
    assert_eq!(of("partner", "bob"), (200, Some(3)));
    assert_eq!(of("crawler", "ann"), (403, None));
    // More for one caller is no other count.
    let counter = |limits: &str| {
        let headers = [("x-org", "acme"), ("x-user-id", "ann")];
        counters(&step(limits, &BELIEVED, "/", &headers)).remove(1)
    };
    assert_eq!(
        counter(&limits),
        counter(&keyed(r#"[{"header": "x-org"}, "user"]"#, ""))
    );
}

#[test]
fn in_shadow_mode_nobody_is_refused() {
    let mode = r#", "mode": "shadow""#;
    let key = r#"[{"header": "x-org"}]"#;
    for rest in [
        r#", "missing": "refuse""#,
        r#", "overrides": [{"is": ["a"], "deny": true}]"#,
    ] {
        for headers in [&[][..], &[("x-org", "a")]] {
            let limits = format!("{}{mode}", keyed(key, rest));
            let step = step(&limits, &BELIEVED, "/", headers);
            assert!(matches!(step, Step::Ask(_)), "{rest} {headers:?} {step:?}");
        }
    }
    let step = step(
        &format!("{}{mode}", keyed(key, "")),
        &BELIEVED,
        "/",
        &[("x-org", "a")],
    );
    assert_eq!(counters(&step)[1], "{v:a}:api:h.x-org:fw60s:shadow");
}

/// The value that a counter would have as the hash of all its values is one that a client can send.
#[test]
fn a_value_that_is_written_as_another_is_hashed_meets_none() {
    let key = r#"[{"header": "a"}]"#;
    let escaped = "%C3%BF".repeat(100);
    let unescaped = "\u{ff}".repeat(100);
    assert_ne!(
        counter(key, &BELIEVED, "/", &[("a", &escaped)]),
        counter(key, &BELIEVED, "/", &[("a", &unescaped)])
    );
}

#[test]
fn an_empty_api_key_is_none() {
    let headers = [("x-user-id", "ann"), ("x-api-key", "")];
    assert_eq!(counter(r#"["api_key"]"#, &BELIEVED, "/", &headers), None);
}

struct At(&'static str);

impl Facts for At {
    fn source_address(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(self.0.as_bytes().to_vec())
    }
    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
}

#[test]
fn an_override_names_values_as_people_write_them() {
    for (key, named, address, path) in [
        ("ip", "203.0.113.7", "203.0.113.7", "/"),
        ("ip", "::ffff:203.0.113.7", "203.0.113.7", "/"),
        ("ip", "203.0.113.7", "[::ffff:203.0.113.7]:9", "/"),
        ("ip", "2001:db8::7", "[2001:db8::7]:9", "/"),
        ("ip", "2001:DB8:0::", "[2001:db8::7]:9", "/"),
        ("ip/24", "203.0.113.0/24", "203.0.113.7", "/"),
        ("ip/48", "2001:db8::/48", "[2001:db8::7]:9", "/"),
        ("path", "/v1/Export", "203.0.113.7", "/v1/Export"),
        ("path", "/v1/export/", "203.0.113.7", "/V1/export"),
        ("method", "get", "203.0.113.7", "/"),
        ("host", "API.example.", "203.0.113.7", "/"),
    ] {
        let denied = format!(r#", "overrides": [{{"is": [{named:?}], "deny": true}}]"#);
        let limits = keyed(&format!("[{key:?}]"), &denied);
        let step = step(&limits, &At(address), path, &[]);
        assert!(matches!(step, Step::Block(..)), "{key} {named} {step:?}");
    }
}

#[test]
fn an_override_that_could_be_for_nobody_is_refused() {
    let refused = |rest: &str| {
        let text = format!(
            r#"{{"rules": [{{"name": "api", "pattern": "/*", "cost": 5,
                "user_limits": {{"default": {{"type": "fixed_window", "limit": 50, "window": 30}}}},
                "limits": [{{"type": "fixed_window", "limit": 90, "window": 60, {rest}}}]}}]}}"#
        );
        let json = Json::parse(&text, "policy").unwrap();
        let policy = Policy::try_new(&json::At::new(&json, "policy"));
        policy.map(drop).unwrap_err().to_string()
    };
    for (rest, why) in [
        (
            r#""key": ["ip/24"], "overrides": [{"is": ["10.0.0.0/16"], "deny": true}]"#,
            "write a network of /24",
        ),
        (
            r#""key": ["ip/24"], "overrides": [{"is": ["10.0.0.1"], "deny": true}]"#,
            "write a network of /24",
        ),
        (
            r#""key": ["method"], "overrides": [{"is": ["HEAD"], "deny": true}]"#,
            "HEAD counts as GET",
        ),
        (
            r#""key": ["path"], "overrides": [{"is": ["v1"], "deny": true}]"#,
            "write a path such as",
        ),
        (r#""key": [{"header": "Host"}]"#, "write \"host\""),
        (
            r#""key": ["user"], "overrides": [{"is": ["ann"], "limit": 4}]"#,
            "holds 4 at most, and a request costs 5: none would ever pass",
        ),
        (
            r#""key": ["user"], "lease": {"size": 20}, "overrides": [{"is": ["ann"], "limit": 20}]"#,
            "leased by 20",
        ),
    ] {
        let told = refused(rest);
        assert!(told.contains(why), "{rest}: {told}");
    }
}

/// Titles stand in headers, between quotes.
#[test]
fn a_title_has_no_value_that_would_end_it() {
    let long = "x".repeat(3000);
    for value in [r#"a\"b"#, r"a\r\nset-cookie: b", "\u{e9}", &long] {
        let limits = keyed(
            r#"[{"header": "x-org"}]"#,
            &format!(r#", "overrides": [{{"is": ["{value}"], "limit": 3}}]"#),
        );
        let text = format!(r#"{{"rules": [{{"name": "api", "pattern": "/*", {limits}}}]}}"#);
        let json = Json::parse(&text, "policy").unwrap();
        let policy = Policy::try_new(&json::At::new(&json, "policy")).unwrap();
        for (id, _) in policy.limits() {
            let title = policy.title(id).unwrap();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/+=%@-".contains(&byte);
            assert!(title.bytes().all(is_plain) && title.len() < 200, "{title}");
        }
    }
}

#[test]
fn no_condition_asks_for_a_header_that_no_request_has() {
    let text =
        r#"{"rules": [{"name": "api", "pattern": "/*", "when": [{"header": "Host", "is": "a"}]}]}"#;
    let json = Json::parse(text, "policy").unwrap();
    let policy = Policy::try_new(&json::At::new(&json, "policy"));
    let told = policy.map(drop).unwrap_err().to_string();
    assert!(told.contains(r#"write "part": "host""#), "{told}");
}
