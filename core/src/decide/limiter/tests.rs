use super::*;
use crate::live::snapshot::Version;
use crate::quota::operation::{OperationReply, Retry};
use crate::request::identity;
use crate::time::{Span, StoreInstant, WallTime, WorkerInstant};
use crate::worker::config::Config;

const POLICY: &str = r#"{
    "status": {"operator_tier": "ops",
               "operator_header": {"name": "X-Ops", "value": "0123456789abcdef"}},
    "rules": [{"name": "api", "pattern": "/api/*",
        "global_limit": {"type": "fixed_window", "limit": 9, "window": 60},
        "user_limits": {
            "free": {"type": "token_bucket", "limit": 4, "window": 60, "burst_limit": 2},
            "careful": {"type": "fixed_window", "limit": 1, "window": 60,
                        "on_store_failure": "deny"}},
        "ip_limits": {"default": {"type": "sliding_window", "limit": 6, "window": 60}}}]}"#;

struct Peer(&'static str);

impl Facts for Peer {
    fn source_address(&self) -> Vec<u8> {
        format!("{}:4321", self.0).into_bytes()
    }
    fn direct_peer(&self, filter_state: &str) -> Option<Vec<u8>> {
        assert_eq!(filter_state, "weir.direct_peer");
        Some(self.0.as_bytes().to_vec())
    }
    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
}

fn config() -> crate::worker::config::LimiterConfig {
    configured(POLICY, "single")
}

fn configured(policy: &str, topology: &str) -> crate::worker::config::LimiterConfig {
    let text = format!(
        r#"{{"role": "limiter", "identity": {{"trust": ["127.0.0.0/8"]}},
            "store": {{"topology": "{topology}"}}, "policy": {policy}}}"#
    );
    match Config::parse(&text) {
        Ok(Config::Limiter(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn snapshot(config: &crate::worker::config::LimiterConfig) -> Rc<PolicySnapshot> {
    Rc::new(PolicySnapshot::configured(
        config.policy.clone(),
        config.store.namespace.clone(),
    ))
}

fn admit_from(peer: &'static str, headers: &[(&str, &str)]) -> Admission {
    let config = config();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    admit(&snapshot(&config), &config.sources, headers, &Peer(peer))
}

/// What becomes of a request from a trusted peer where the policy has these lists.
fn admit_listed(lists: &str, headers: &[(&str, &str)]) -> Step {
    let policy = POLICY.replacen('{', &format!("{{{lists},"), 1);
    let text = format!(
        r#"{{"role": "limiter", "identity": {{"trust": ["127.0.0.0/8"]}}, "policy": {policy}}}"#
    );
    let Ok(Config::Limiter(config)) = Config::parse(&text) else {
        panic!("{:?}", Config::parse(&text))
    };
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let peer = Peer("127.0.0.1");
    admit(&snapshot(&config), &config.sources, headers, &peer).step
}

fn keys(step: &Step) -> Vec<String> {
    let Step::Ask(pending) = step else {
        panic!("{step:?}")
    };
    let checks = pending.fan_in.check_request().checks().iter();
    checks
        .map(|check| String::from_utf8(check.key.clone()).unwrap())
        .collect()
}

fn status(step: &Step) -> u16 {
    match step {
        Step::Respond(answer, _) | Step::Block(answer, ..) => answer.status,
        other => panic!("{other:?}"),
    }
}

const GET: [(&str, &str); 2] = [(":method", "GET"), (":path", "/api/x?y=1")];

#[test]
fn a_request_asks_about_global_then_user_then_address() {
    let headers = [GET[0], GET[1], ("x-user-id", "ann")];
    let admission = admit_from("127.0.0.1", &headers);
    assert!(admission.remove.is_empty());
    assert_eq!(
        keys(&admission.step),
        [
            "weir:2:{g:api}:api:all:fw60s",
            "weir:2:{u:ann}:api:user:tb60s",
            "weir:2:{a:127.0.0.1}:api:ip:sl60s"
        ]
    );
}

#[test]
fn identity_from_an_untrusted_peer_is_ignored_and_removed() {
    let headers = [
        GET[0],
        GET[1],
        ("x-user-id", "ann"),
        ("x-user-tier", "free"),
    ];
    let admission = admit_from("192.0.2.1", &headers);
    assert_eq!(admission.remove, ["x-user-id", "x-user-tier"]);
    assert_eq!(
        keys(&admission.step),
        [
            "weir:2:{g:api}:api:all:fw60s",
            "weir:2:{a:192.0.2.1}:api:ip:sl60s"
        ]
    );
}

#[test]
fn who_is_listed_meets_no_limit() {
    let ann = ("x-user-id", "ann");
    let status_call = (":path", "/api/v1/rate-limits/status");
    let report = (":path", "/api/v1/rate-limits/status/gateway");
    let page = (":path", "/api/v1/rate-limits/status/page");
    let allow = r#""allow": {"users": ["ann"]}"#;
    let deny = r#""allow": {"users": ["ann"]}, "deny": {"networks": ["127.0.0.0/8"]}"#;
    assert!(matches!(
        admit_listed(allow, &[GET[0], GET[1], ann]),
        Step::Exempt(_)
    ));
    assert_eq!(keys(&admit_listed(allow, &GET)).len(), 2);
    // Where no rule is, and where Weir itself would answer.
    for path in [GET[1], (":path", "/web/x"), status_call, report, page] {
        let step = admit_listed(deny, &[GET[0], path, ann]);
        let Step::Block(answer, _, listed) = step else {
            panic!("{path:?} {step:?}")
        };
        assert_eq!(listed.text(), "deny.networks 127.0.0.0/8");
        assert_eq!(answer.status, 403);
        assert_eq!(answer.grpc.code, answer::GrpcCode::PermissionDenied);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body["error"].is_string() && body["message"].is_string());
    }
}

#[test]
fn a_listed_key_is_known_by_its_hash_whoever_it_comes_with() {
    // SHA-256 of "k".
    let deny = r#""deny": {"api_keys":
        ["8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"]}"#;
    let key = ("x-api-key", "k");
    for headers in [
        vec![GET[0], GET[1], key],
        vec![GET[0], GET[1], key, ("x-user-id", "ann")],
    ] {
        assert_eq!(status(&admit_listed(deny, &headers)), 403);
    }
    let other = [GET[0], GET[1], ("x-api-key", "kk")];
    assert_eq!(keys(&admit_listed(deny, &other)).len(), 3);
}

/// What becomes of a request whose key stands behind `Bearer`, and under which snapshot.
fn admit_with_scheme(
    lists: &str,
    peer: &'static str,
    sent: &[&str],
) -> (Admission, Rc<PolicySnapshot>) {
    let policy = POLICY.replacen('{', &format!("{{{lists}"), 1);
    let text = format!(
        r#"{{"role": "limiter", "policy": {policy}, "identity": {{"trust": ["127.0.0.0/8"],
            "api_key": {{"header": "Authorization", "scheme": "Bearer"}}}}}}"#
    );
    let Ok(Config::Limiter(config)) = Config::parse(&text) else {
        panic!("{:?}", Config::parse(&text))
    };
    let snapshot = snapshot(&config);
    let sent = sent.iter().map(|value| ("authorization", *value));
    let headers: Vec<(&str, &str)> = GET.into_iter().chain(sent).collect();
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let admission = admit(&snapshot, &config.sources, headers, &Peer(peer));
    (admission, snapshot)
}

#[test]
fn a_key_in_authorization_is_one_caller_however_its_scheme_is_written() {
    // SHA-256 of "k".
    let key = "{k:8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a}";
    for (sent, is_key) in [
        ("Bearer k", true),
        ("bearer   k", true),
        ("BEARER k ", true),
        ("Basic k", false),
        ("Bearer", false),
    ] {
        let (admission, _) = admit_with_scheme("", "127.0.0.1", &[sent]);
        assert_eq!(
            keys(&admission.step).concat().contains(key),
            is_key,
            "{sent}"
        );
        // Of whoever is not believed it is no identity, and the upstream's all the same.
        let (admission, _) = admit_with_scheme("", "192.0.2.1", &[sent]);
        assert!(admission.remove.is_empty(), "{sent}");
        assert!(!keys(&admission.step).concat().contains("{k:"), "{sent}");
    }
    let (admission, _) = admit_with_scheme("", "127.0.0.1", &["Bearer k", "Bearer l"]);
    assert_eq!(status(&admission.step), 400);
}

#[test]
fn lists_hold_for_a_key_and_for_the_header_that_it_came_in() {
    let key = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
    // SHA-256 of "Bearer k".
    let header = "cc9b1550d4cb5d22909bcb07a2e79e78b50d455125d587de5345d84940fa1c4e";
    let list = |name: &str, digest: &str| format!(r#""{name}": {{"api_keys": ["{digest}"]}},"#);
    for (lists, sent, outcome, told) in [
        (
            list("deny", key),
            "bearer k",
            decision::Outcome::Blocked,
            false,
        ),
        (
            list("deny", header),
            "Bearer k",
            decision::Outcome::Blocked,
            true,
        ),
        (
            list("allow", header),
            "Bearer k",
            decision::Outcome::Exempt,
            true,
        ),
        (
            list("allow", header) + &list("deny", key),
            "Bearer k",
            decision::Outcome::Blocked,
            true,
        ),
        (
            list("allow", key) + &list("deny", header),
            "Bearer k",
            decision::Outcome::Blocked,
            true,
        ),
    ] {
        let (admission, snapshot) = admit_with_scheme(&lists, "127.0.0.1", &[sent]);
        assert_eq!(admission.step.outcome(), Some(outcome), "{lists}");
        let exemptions = &snapshot.policy.exemptions;
        assert_eq!(exemptions.notice().is_some(), told, "{lists}");
        assert_eq!(exemptions.notice(), None, "once");
    }
    // It is on no list: another spelling, and a stranger.
    for (peer, sent) in [("127.0.0.1", "bearer k"), ("192.0.2.1", "Bearer k")] {
        let (admission, snapshot) = admit_with_scheme(&list("deny", header), peer, &[sent]);
        assert!(matches!(admission.step, Step::Ask(_)), "{peer} {sent}");
        assert_eq!(snapshot.policy.exemptions.notice(), None);
    }
}

/// Whatever it holds: what is left on its way to an upstream that shows it would say that it is not
/// the secret.
#[test]
fn the_operators_header_goes_no_further() {
    let secret = "0123456789abcdef";
    for sent in [
        vec![secret],
        vec!["anything else"],
        vec![""],
        vec![secret, "anything else"],
        vec!["anything else", secret],
        vec![secret, secret],
    ] {
        let mut headers = vec![GET[0], GET[1]];
        headers.extend(sent.iter().map(|value| ("x-ops", *value)));
        let admission = admit_from("192.0.2.1", &headers);
        assert_eq!(admission.remove, ["x-ops"], "{sent:?}");
        assert!(
            admission.attempt.is_none(),
            "nothing is told here: {sent:?}"
        );
        // Of a request that goes nowhere as well.
        headers.extend([("x-user-id", "ann"); 2]);
        assert_eq!(admit_from("127.0.0.1", &headers).remove, ["x-ops"]);
    }
    assert!(admit_from("192.0.2.1", &GET).remove.is_empty());
}

#[test]
fn a_secret_is_looked_at_where_it_opens_something_and_is_sent_once() {
    let (status_call, page) = (
        "/api/v1/rate-limits/status",
        "/api/v1/rate-limits/status/page",
    );
    let report = "/api/v1/rate-limits/status/gateway";
    let (right, wrong) = ("0123456789abcdef", "0123456789abcdee");
    for (path, sent, tier, expected, is_right) in [
        (report, vec![right], "free", 200, Some(true)),
        (report, vec![wrong], "free", 403, Some(false)),
        // Whoever asks about themselves need not guess.
        (status_call, vec![wrong], "free", 403, Some(false)),
        (status_call, vec![right], "free", 200, Some(true)),
        (report, vec![], "free", 403, None),
        (report, vec![""], "free", 403, None),
        (report, vec![right, right], "free", 400, None),
        (report, vec![right, wrong], "free", 400, None),
        (report, vec![wrong], "ops", 200, None),
        (page, vec![wrong], "free", 200, None),
    ] {
        let mut headers = vec![
            (":method", "GET"),
            (":path", path),
            ("x-user-id", "ann"),
            ("x-user-tier", tier),
        ];
        headers.extend(sent.iter().map(|value| ("x-ops", *value)));
        let admission = admit_from("127.0.0.1", &headers);
        let got = match &admission.step {
            Step::Respond(answer, _) => answer.status,
            _ => 200,
        };
        assert_eq!(got, expected, "{path} {sent:?} {tier}");
        let attempt = admission.attempt.as_ref();
        assert_eq!(
            attempt.map(|attempt| attempt.is_right),
            is_right,
            "{path} {sent:?}"
        );
    }
}

#[test]
fn an_address_that_was_told_is_not_asked_for_again() {
    struct Origin(&'static str);
    impl Facts for Origin {
        fn source_address(&self) -> Vec<u8> {
            b"192.0.2.9:80".to_vec()
        }
        fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
            Some(self.0.as_bytes().to_vec())
        }
        fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
            None
        }
    }
    for (origin, user, address) in [
        ("127.0.0.1 192.0.2.1", "u:ann", "192.0.2.1"),
        ("127.0.0.1", "u:ann", "192.0.2.9"),
        ("10.0.0.1 127.0.0.1", "a:127.0.0.1", "127.0.0.1"),
        ("127.0.0.1 x 127.0.0.1 x", "a:192.0.2.9", "192.0.2.9"),
    ] {
        let headers = [GET[0], GET[1], ("x-user-id", "ann")];
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let config = config();
        let snapshot = Rc::new(PolicySnapshot::configured(
            config.policy,
            config.store.namespace,
        ));
        let step = admit(&snapshot, &config.sources, headers, &Origin(origin)).step;
        let keys = keys(&step).concat();
        assert!(
            keys.contains(&format!("{{a:{address}}}:api:ip")),
            "{origin}: {keys}"
        );
        let counted = keys.contains(&format!("{{{user}}}:api:user"));
        // Somebody without an id has no limit by tier in this policy.
        assert!(counted || user.starts_with('a'), "{origin}: {keys}");
        assert_eq!(counted, user.starts_with('u'), "{origin}: {keys}");
    }
}

#[test]
fn a_header_of_the_proxys_tells_the_addresses_once() {
    /// Nothing is left to be asked but where the header does not tell.
    struct Asked;
    impl Facts for Asked {
        fn source_address(&self) -> Vec<u8> {
            b"192.0.2.9:80".to_vec()
        }
        fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
            panic!("asked for a filter state")
        }
        fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
            None
        }
    }
    for (sent, user, address) in [
        (vec!["127.0.0.1 192.0.2.1"], "u:ann", "192.0.2.1"),
        (vec!["127.0.0.1"], "u:ann", "192.0.2.9"),
        (vec!["10.0.0.1 127.0.0.1"], "a:127.0.0.1", "127.0.0.1"),
        // One of them is the client's own.
        (vec!["127.0.0.1 127.0.0.1"; 2], "a:192.0.2.9", "192.0.2.9"),
        (vec!["127.0.0.1 127.0.0.1"; 3], "a:192.0.2.9", "192.0.2.9"),
        (vec![], "a:192.0.2.9", "192.0.2.9"),
    ] {
        let mut config = config();
        config.sources.direct_peer = identity::Peer::Header("x-weir-peer".to_string());
        let mut headers = vec![GET[0], GET[1], ("x-user-id", "ann")];
        headers.extend(sent.iter().map(|value| ("x-weir-peer", *value)));
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let snapshot = Rc::new(PolicySnapshot::configured(
            config.policy,
            config.store.namespace,
        ));
        let step = admit(&snapshot, &config.sources, headers, &Asked).step;
        let keys = keys(&step).concat();
        assert!(
            keys.contains(&format!("{{a:{address}}}:api:ip")),
            "{sent:?}: {keys}"
        );
        assert_eq!(
            keys.contains("{u:ann}:api:user"),
            user == "u:ann",
            "{sent:?}: {keys}"
        );
    }
}

/// A refusal in gRPC's words read 200 wherever Envoy did not take the request for gRPC.
#[test]
fn grpc_is_what_envoy_takes_for_it() {
    for (content_type, expected) in [
        ("application/grpc", Protocol::Grpc),
        ("application/grpc+proto", Protocol::Grpc),
        ("application/grpc-web", Protocol::Http),
        ("application/grpc,text/plain", Protocol::Http),
        ("application/grpc;x", Protocol::Http),
        ("Application/gRPC", Protocol::Http),
    ] {
        let mut headers = vec![GET[0], GET[1], ("content-type", content_type)];
        let protocol = |headers: &[_]| match admit_from("127.0.0.1", headers).step {
            Step::Ask(pending) => pending.protocol,
            step => panic!("{content_type} {step:?}"),
        };
        assert_eq!(protocol(&headers), expected, "{content_type}");
        // Made by grpc_json_transcoder of a call whose client reads JSON.
        headers.push(("x-envoy-original-method", "GET"));
        assert_eq!(protocol(&headers), Protocol::Http, "{content_type}");
    }
}

#[test]
fn what_is_answered_in_json_is_for_nobody_who_reads_grpc() {
    let grpc = ("content-type", "application/grpc");
    for path in ["status", "status/gateway", "status/page"] {
        let path = format!("/api/v1/rate-limits/{path}");
        let ann = [GET[0], (":path", &path), ("x-user-id", "ann"), grpc];
        let step = admit_from("127.0.0.1", &ann).step;
        assert_eq!(status(&step), 400, "{path}");
    }
}

#[test]
fn a_repeated_identity_header_is_refused_where_it_would_count() {
    let headers = [GET[0], GET[1], ("x-user-id", "ann"), ("x-user-id", "bob")];
    assert_eq!(status(&admit_from("127.0.0.1", &headers).step), 400);
    assert_eq!(keys(&admit_from("192.0.2.1", &headers).step).len(), 2);
}

#[test]
fn a_path_without_a_rule_passes_unasked() {
    let step = admit_from("127.0.0.1", &[GET[0], (":path", "/web/x")]).step;
    assert!(matches!(step, Step::Pass));
}

#[test]
fn who_is_calling_is_not_asked_where_no_rule_wants_to_know() {
    struct Nobody;
    impl Facts for Nobody {
        fn source_address(&self) -> Vec<u8> {
            panic!("asked for the address")
        }
        fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
            panic!("asked for the peer")
        }
        fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
            panic!("asked for a claim")
        }
    }
    let headers = [GET[0], (":path", "/web/x")];
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let config = config();
    let admission = admit(&snapshot(&config), &config.sources, headers, &Nobody);
    assert!(matches!(admission.step, Step::Pass));
}

#[test]
fn the_status_call_is_for_oneself_or_for_operators() {
    let ops = ("x-ops", "0123456789abcdef");
    let key = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
    let of_key = format!("?api_key_sha256={key}");
    let of_key = of_key.as_str();
    let tag = format!("{{k:{key}}}");
    for (target, headers, expected) in [
        ("", vec![], Err(400)),
        ("", vec![("x-user-id", "ann")], Ok("{u:ann}")),
        ("", vec![("x-api-key", "k")], Ok(tag.as_str())),
        (of_key, vec![("x-api-key", "k")], Ok(tag.as_str())),
        ("?user_id=ann", vec![("x-user-id", "ann")], Ok("{u:ann}")),
        ("?user_id=bob", vec![("x-user-id", "ann")], Err(403)),
        (of_key, vec![("x-user-id", "ann")], Err(403)),
        ("?address=127.0.0.1", vec![("x-user-id", "ann")], Err(403)),
        ("?address=127.0.0.1", vec![], Err(403)),
        ("?user_tier=careful", vec![("x-user-id", "ann")], Err(403)),
        ("?user_id=bob", vec![], Err(403)),
        ("?user_id=bob", vec![ops], Ok("{u:bob}")),
        ("?%75ser_id=bob", vec![ops], Ok("{u:bob}")),
        ("?user_id=bob#x", vec![ops], Ok("{u:bob}")),
        (of_key, vec![ops], Ok(tag.as_str())),
        (
            "?user_id=bob&address=192.0.2.7",
            vec![ops],
            Ok("{a:192.0.2.7}:api:ip"),
        ),
        ("?address=192.0.2.7", vec![ops], Ok("{a:192.0.2.7}:api:ip")),
        (
            "?address=2001:db8::7",
            vec![ops],
            Ok("{a:2001:db8::}:api:ip"),
        ),
        (
            "?user_id=bob",
            vec![("x-ops", "0123456789abcdee")],
            Err(403),
        ),
        (
            "?user_id=b%20b",
            vec![("x-user-id", "o"), ("x-user-tier", "ops")],
            Ok("{u:b%20b}"),
        ),
        ("", vec![ops], Err(400)),
        ("?user_tier=free", vec![ops], Err(400)),
    ] {
        let path = format!("/api/v1/rate-limits/status{target}");
        let mut all = vec![(":method", "GET"), (":path", path.as_str())];
        all.extend(headers);
        let step = admit_from("127.0.0.1", &all).step;
        match expected {
            Err(code) => assert_eq!(status(&step), code, "{all:?}"),
            Ok(tag) => {
                let about = keys(&step).into_iter().skip(1);
                let about: Vec<String> = about.collect();
                assert!(
                    about.iter().any(|key| key.contains(tag)),
                    "{all:?} {about:?}"
                );
            }
        }
    }
}

/// A parameter that was left out in silence made the answer one about somebody else.
#[test]
fn a_status_call_that_cannot_be_understood_says_what_can() {
    for (query, told) in [
        (
            "tier=pro",
            "\"tier\" is no parameter of this call; the parameters are user_id, \
                      user_tier, api_key_sha256, address.",
        ),
        ("user_id=bob&path=/x", "\"path\" is no parameter"),
        ("User_Id=bob", "\"User_Id\" is no parameter"),
        ("user_id", "user_id is empty"),
        ("user_id=", "user_id is empty"),
        ("user_id=a&user_id=b", "user_id stands there twice"),
        (
            "user_id=a&api_key_sha256=8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a",
            "two callers",
        ),
        ("api_key_sha256=8254c329a928", "64 digits"),
        ("address=192.0.2", "\"192.0.2\", which is no address"),
        ("address=192.0.2.7&user_tier=pro", "user_tier goes with"),
    ] {
        let path = format!("/api/v1/rate-limits/status?{query}");
        let ops = ("x-ops", "0123456789abcdef");
        let headers = [(":method", "GET"), (":path", path.as_str()), ops];
        let Step::Respond(answer, _) = admit_from("127.0.0.1", &headers).step else {
            panic!("{query}")
        };
        assert_eq!(answer.status, 400, "{query}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(told), "{query}: {message}");
    }
}

#[test]
fn where_the_tier_is_not_known_the_others_are_looked_up_besides() {
    let ops = ("x-ops", "0123456789abcdef");
    let ask = |query: &str| {
        let path = format!("/api/v1/rate-limits/status?{query}");
        let headers = [(":method", "GET"), (":path", path.as_str()), ops];
        admit_from("127.0.0.1", &headers).step
    };
    let users = |step: &Step| {
        keys(step)
            .iter()
            .filter(|key| key.contains(":api:user"))
            .count()
    };
    assert_eq!(users(&ask("user_id=bob")), 2);
    assert_eq!(users(&ask("user_id=bob&user_tier=free")), 1);
    assert_eq!(users(&ask("address=192.0.2.7")), 0);
}

fn conclude(headers: &[(&str, &str)], outcome: &Outcome) -> Action {
    conclude_at(&mut Memory::new(&config().store), headers, outcome)
}

fn pending(headers: &[(&str, &str)]) -> Box<Pending> {
    let Step::Ask(mut pending) = admit_from("127.0.0.1", headers).step else {
        panic!()
    };
    assert_eq!(pending.parts(Topology::Single).len(), 1);
    pending
}

fn conclude_at(memory: &mut Memory, headers: &[(&str, &str)], outcome: &Outcome) -> Action {
    let mut pending = pending(headers);
    assert!(pending.receive(0, outcome));
    pending.conclude(memory, || WorkerInstant(1)).action
}

fn told(verdict: crate::quota::operation::Verdict, readings: &[(i64, Retry)]) -> Outcome {
    let limits = readings.iter().map(|&(remaining, retry)| Reading {
        remaining,
        retry,
        reset: Span::millis(59_001),
    });
    let told = vec![OperationReply {
        verdict,
        limits: limits.collect(),
    }];
    Outcome::Answered {
        now: StoreInstant(0),
        asked: WorkerInstant(0),
        told,
    }
}

#[test]
fn what_passed_shows_the_limit_with_the_fewest_left() {
    let now = Retry::Now;
    let outcome = told(
        crate::quota::operation::Verdict::Passed,
        &[(8, now), (1, now), (1, now)],
    );
    let action = conclude(&[GET[0], GET[1], ("x-user-id", "ann")], &outcome);
    let Action::Pass(headers) = action else {
        panic!("{action:?}")
    };
    let expected = [
        ("x-ratelimit-limit", "4"),
        ("x-ratelimit-remaining", "1"),
        ("x-ratelimit-reset", "60"),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.into(), value.to_string()))
    );
}

#[test]
fn a_refusal_names_the_first_limit_that_failed_and_the_longest_wait() {
    let readings = [
        (8, Retry::Now),
        (0, Retry::After(Span::millis(1))),
        (0, Retry::After(Span::millis(7001))),
    ];
    let outcome = told(crate::quota::operation::Verdict::Refused, &readings);
    let action = conclude(&[GET[0], GET[1], ("x-user-id", "ann")], &outcome);
    let Action::Respond(answer, Protocol::Http) = action else {
        panic!("{action:?}")
    };
    assert_eq!(answer.status, 429);
    assert!(
        answer
            .headers
            .contains(&("retry-after".into(), "8".to_string()))
    );
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["retry_after"], 8);
    assert_eq!(body["details"]["scope"], "user");
    assert_eq!(body["details"]["retry_after"], 1);
    assert_eq!(body["details"]["capacity"], 2);
}

#[test]
fn whoever_was_refused_is_refused_from_memory_until_the_store_could_say_otherwise() {
    let ann = [GET[0], GET[1], ("x-user-id", "ann")];
    let bob = [GET[0], GET[1], ("x-user-id", "bob")];
    let mut memory = Memory::new(&config().store);
    let readings = [
        (8, Retry::Now),
        (0, Retry::After(Span::millis(700))),
        (3, Retry::Now),
    ];
    let outcome = told(crate::quota::operation::Verdict::Refused, &readings);
    conclude_at(&mut memory, &ann, &outcome);
    let mut recall =
        |headers: &[(&str, &str)], now| pending(headers).recall(&mut memory, WorkerInstant(now));
    let decision = recall(&ann, 699_000).unwrap();
    let Action::Respond(answer, _) = decision.action else {
        panic!()
    };
    assert_eq!(answer.status, 429);
    let record = decision.record.unwrap();
    assert_eq!(record.outcome, decision::Outcome::Denied);
    assert_eq!(record.source, decision::Source::Denials);
    assert!(recall(&ann, 700_000).is_none());
    assert!(recall(&bob, 1).is_none());
}

/// In a cluster: also one that was asked as a whole, of a counter that others ask about in parts.
#[test]
fn a_refusal_that_may_rest_on_what_is_given_back_is_not_kept() {
    let ann = [GET[0], GET[1], ("x-user-id", "ann")];
    let limit = r#"{"type": "fixed_window", "limit": 9, "window": 60}"#;
    let users = format!(r#""user_limits": {{"default": {limit}}}"#);
    let addresses = format!(r#""ip_limits": {{"default": {limit}}}"#);
    let everybody = format!(r#""global_limit": {limit}"#);
    for (topology, one, other, kept) in [
        ("single", &users, &addresses, true),
        ("cluster", &users, &addresses, false),
        ("cluster", &users, &everybody, false),
        ("cluster", &users, &users, true),
    ] {
        let rule = |name, pattern, limits| {
            format!(r#"{{"name": "{name}", "pattern": "{pattern}", {limits}}}"#)
        };
        let rules = [rule("a", "/api/*", one), rule("b", "/other/*", other)].join(", ");
        let config = configured(&format!(r#"{{"rules": [{rules}]}}"#), topology);
        let mut memory = Memory::new(&config.store);
        let admit = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let snapshot = snapshot(&config);
            match admit(&snapshot, &config.sources, headers, &Peer("127.0.0.1")).step {
                Step::Ask(pending) => pending,
                step => panic!("{step:?}"),
            }
        };
        let mut asked = admit(&ann);
        let parts = asked.parts(config.store.topology);
        assert_eq!(parts.len(), 1, "{topology}");
        let readings = [(0, Retry::After(Span::millis(700)))];
        asked.receive(
            0,
            &told(crate::quota::operation::Verdict::Refused, &readings),
        );
        let action = asked.conclude(&mut memory, || WorkerInstant(1)).action;
        assert!(matches!(action, Action::Respond(_, _)));
        let recalled = admit(&ann).recall(&mut memory, WorkerInstant(1));
        assert_eq!(recalled.is_some(), kept, "{topology} {one} {other}");
    }
}

/// A policy that raised a limit, while a request was asking about the old one.
#[test]
fn a_refusal_under_a_policy_that_is_no_longer_in_force_is_told_and_not_kept() {
    let ann = [GET[0], GET[1], ("x-user-id", "ann")];
    let mut memory = Memory::new(&config().store);
    let first = snapshot(&config());
    let readings = [
        (8, Retry::Now),
        (0, Retry::After(Span::millis(700))),
        (3, Retry::Now),
    ];
    let outcome = told(crate::quota::operation::Verdict::Refused, &readings);
    conclude_at(&mut memory, &ann, &outcome);
    assert!(
        pending(&ann)
            .recall(&mut memory, WorkerInstant(1))
            .is_some()
    );
    memory.enter(
        first
            .followed_by(first.policy.clone(), Version(1))
            .generation,
    );
    assert!(
        pending(&ann)
            .recall(&mut memory, WorkerInstant(1))
            .is_none()
    );
    let action = conclude_at(&mut memory, &ann, &outcome);
    assert!(matches!(action, Action::Respond(_, _)));
    assert!(
        pending(&ann)
            .recall(&mut memory, WorkerInstant(1))
            .is_none()
    );
}

#[test]
fn a_problem_names_every_limit_that_refuses_by_a_name_of_its_own() {
    let policy = POLICY.replacen('{', r#"{"headers": ["ietf"], "body": "problem","#, 1);
    let config = configured(&policy, "single");
    let snapshot = snapshot(&config);
    let headers = [GET[0], GET[1], ("x-user-id", "ann")];
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let admit = || {
        let sources = &config.sources;
        match admit(&snapshot, sources, headers.into_iter(), &Peer("127.0.0.1")).step {
            Step::Ask(pending) => pending,
            step => panic!("{step:?}"),
        }
    };
    let violated = |action| {
        let Action::Respond(answer, _) = action else {
            panic!("{action:?}")
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let header = |name: &str| {
            let mut headers = answer.headers.iter();
            headers.find(|(own, _)| own == name).unwrap().1.clone()
        };
        (
            body["violated-policies"].clone(),
            header("ratelimit-policy"),
            header("ratelimit"),
        )
    };
    let mut memory = Memory::new(&config.store);
    let wait = Retry::After(Span::millis(60_000));
    let terms = r#""api.global";q=9;w=60, "api.user.free";q=4;w=60, "api.ip.default";q=6;w=60"#;
    let names = ["api.user.free", "api.ip.default"];
    let readings = [(8, Retry::Now), (0, wait), (0, wait)];
    let mut pending = admit();
    pending.parts(Topology::Single);
    pending.receive(
        0,
        &told(crate::quota::operation::Verdict::Refused, &readings),
    );
    let decision = pending.conclude(&mut memory, || WorkerInstant(1));
    let told = r#""api.user.free";r=0;t=60, "api.ip.default";r=0;t=60"#;
    assert_eq!(
        violated(decision.action),
        (
            names.into(),
            terms.to_string(),
            format!(r#""api.global";r=8;t=60, {told}"#)
        )
    );
    // From memory, which knows of those that refuse.
    let decision = admit().recall(&mut memory, WorkerInstant(1)).unwrap();
    let (names_again, terms_again, told_again) = violated(decision.action);
    assert_eq!(
        (names_again, terms_again),
        (names.into(), terms.to_string())
    );
    assert_eq!(told_again, told);
}

#[test]
fn a_cost_that_never_fits_is_told_so() {
    let readings = [
        (8, Retry::After(Span::millis(1))),
        (0, Retry::Never),
        (0, Retry::Now),
    ];
    let outcome = told(crate::quota::operation::Verdict::Refused, &readings);
    let action = conclude(&[GET[0], GET[1], ("x-user-id", "ann")], &outcome);
    let Action::Respond(answer, _) = action else {
        panic!("{action:?}")
    };
    assert!(
        !answer
            .headers
            .iter()
            .any(|(name, _)| *name == "retry-after")
    );
}

#[test]
fn without_a_store_each_limit_has_its_say() {
    let free = [GET[0], GET[1], ("x-user-id", "ann")];
    let Action::Pass(headers) = conclude(&free, &Outcome::Failed) else {
        panic!()
    };
    assert!(headers.contains(&("x-ratelimit-remaining".into(), "1".to_string())));
    assert!(headers.contains(&("x-weir-degraded".into(), "local".to_string())));
    let careful = [
        GET[0],
        GET[1],
        ("x-user-id", "ann"),
        ("x-user-tier", "careful"),
    ];
    let Action::Respond(answer, _) = conclude(&careful, &Outcome::Failed) else {
        panic!()
    };
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .headers
            .contains(&("x-weir-degraded".into(), "deny".to_string()))
    );
    assert!(
        answer
            .headers
            .contains(&("retry-after".into(), "1".to_string()))
    );
}

/// A gateway at this time of day.
struct At(&'static str, WallTime);

impl Facts for At {
    fn source_address(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(b"127.0.0.1".to_vec())
    }
    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
    fn time_of_day(&self) -> WallTime {
        self.1
    }
}

const ASSIGNED: &str = r#"{
    "status": {"operator_tier": "ops"},
    "deny": {"tiers": ["banned"]}, "allow": {"tiers": ["friend"]},
    "tiers": [{"tier": "banned", "users": ["mallory"], "networks": ["203.0.113.0/24"]},
              {"tier": "ops", "users": ["eve"]},
              {"tier": "friend", "users": ["bob"], "until": "2026-12-24T00:00:00Z"},
              {"tier": "vip", "users": ["acme"]}],
    "rules": [{"name": "api", "pattern": "/*", "user_limits": {
        "vip": {"type": "fixed_window", "limit": 5000, "window": 60, "name": "own"},
        "default": {"type": "fixed_window", "limit": 5, "window": 60, "name": "other"}}}]}"#;

fn admit_assigned(user: &str, tier: &str, path: &str, facts: &At) -> Step {
    let config = configured(ASSIGNED, "single");
    let headers = [
        (":method", "GET"),
        (":path", path),
        ("x-user-id", user),
        ("x-user-tier", tier),
    ];
    let headers = headers.iter().filter(|(_, value)| !value.is_empty());
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    admit(&snapshot(&config), &config.sources, headers, facts).step
}

#[test]
fn the_operators_word_on_a_tier_comes_before_the_callers() {
    let before = WallTime(1_798_070_399_999_999);
    let at = |address| At(address, before);
    let counter = |user: &str, tier: &str, facts: &At| match admit_assigned(user, tier, "/x", facts)
    {
        step @ Step::Ask(_) => keys(&step).concat(),
        Step::Exempt(_) => "exempt".to_string(),
        Step::Block(..) => "blocked".to_string(),
        step => panic!("{step:?}"),
    };
    for (user, tier, facts, told) in [
        ("acme", "free", at("192.0.2.1"), "own"),
        ("acme", "", at("192.0.2.1"), "own"),
        ("ann", "vip", at("192.0.2.1"), "own"),
        ("ann", "free", at("192.0.2.1"), "other"),
        ("mallory", "vip", at("192.0.2.1"), "blocked"),
        ("acme", "vip", at("203.0.113.9"), "blocked"),
        ("", "", at("203.0.113.9"), "blocked"),
        ("bob", "free", at("192.0.2.1"), "exempt"),
        (
            "bob",
            "free",
            At("192.0.2.1", WallTime(before.0 + 1)),
            "other",
        ),
    ] {
        let counted = counter(user, tier, &facts);
        assert!(counted.ends_with(told), "{user} {tier}: {counted}");
    }
}

#[test]
fn the_operators_word_makes_no_operator() {
    let facts = At("192.0.2.1", WallTime(0));
    let path = "/api/v1/rate-limits/status?user_id=ann";
    let asked = |user, tier| admit_assigned(user, tier, path, &facts);
    assert!(matches!(asked("ann", "ops"), Step::Ask(_)));
    let Step::Respond(answer, _) = asked("eve", "free") else {
        panic!("eve asks about another");
    };
    assert_eq!(answer.status, 403);
    // Nor does it take the operators' rights.
    let Step::Ask(_) = asked("acme", "ops") else {
        panic!("acme is an operator by identity");
    };
}

#[test]
fn a_policy_on_trial_refuses_nobody_and_denies_all_the_same() {
    let text = POLICY.replacen(
        '{',
        r#"{"mode": "shadow", "deny": {"users": ["mallory"]}, "#,
        1,
    );
    let config = configured(&text, "single");
    let admit = |user: &str| {
        let headers = [(":method", "GET"), (":path", "/api/x"), ("x-user-id", user)];
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        admit(
            &snapshot(&config),
            &config.sources,
            headers,
            &Peer("127.0.0.1"),
        )
        .step
    };
    let Step::Ask(pending) = admit("ann") else {
        panic!("nothing is asked");
    };
    let Wants::Passage(passage) = &pending.wants else {
        panic!("no passage");
    };
    assert!(passage.limits.is_empty());
    assert_eq!(passage.shadows.len(), 1);
    assert!(matches!(admit("mallory"), Step::Block(..)));
}

/// A proxy that has dynamic metadata.
struct Told;

impl Facts for Told {
    fn source_address(&self) -> Vec<u8> {
        b"192.0.2.1:80".to_vec()
    }
    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(b"203.0.113.1".to_vec())
    }
    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        match path.join("/").as_str() {
            "xds/route_name" => Some(b"checkout".to_vec()),
            "metadata/filter_metadata/envoy.filters.http.jwt_authn/jwt/org" => {
                Some(b"acme".to_vec())
            }
            "metadata/filter_metadata/n/tokens" => Some(42f64.to_le_bytes().to_vec()),
            "metadata/filter_metadata/n/empty" => Some(Vec::new()),
            _ => None,
        }
    }
}

/// The peer is not believed: what it sent is read all the same.
#[test]
fn a_condition_reads_what_was_sent_whoever_sent_it() {
    let headers = [
        (":method", "HEAD"),
        (":path", "/x?a=1&b=%41c&a=2#a=3"),
        (":authority", "API.example.com:443"),
        ("x-user-id", "ann"),
        ("x-plan", "free"),
        ("x-plan", "trial"),
        ("x-empty", ""),
        ("user-agent", "curl/8.5"),
        ("cookie", "sid=1; beta=yes"),
        ("cookie", "beta=no"),
    ];
    for (condition, holds) in [
        (r#"{"header": "X-Plan", "is": "free"}"#, true),
        (r#"{"header": "x-plan", "is": "trial"}"#, true),
        (r#"{"header": "x-plan", "is": "Free"}"#, false),
        (r#"{"header": "x-plan", "in": ["paid", "trial"]}"#, true),
        (r#"{"header": "x-plan", "in": ["paid"]}"#, false),
        (r#"{"header": "x-plan", "not": "paid"}"#, true),
        (r#"{"header": "x-plan", "not": ["paid", "trial"]}"#, false),
        (r#"{"header": "x-none", "not": "paid"}"#, true),
        (r#"{"header": "x-none", "is": "paid"}"#, false),
        (r#"{"header": "x-none", "present": false}"#, true),
        (r#"{"header": "x-none", "present": true}"#, false),
        (r#"{"header": "x-plan", "present": true}"#, true),
        (r#"{"header": "x-plan", "present": false}"#, false),
        (r#"{"header": "x-empty", "present": true}"#, true),
        (r#"{"header": "x-user-id", "is": "ann"}"#, true),
        (r#"{"header": "user-agent", "prefix": "curl/"}"#, true),
        (r#"{"header": "user-agent", "prefix": "wget"}"#, false),
        (r#"{"header": "user-agent", "glob": "c*/8*"}"#, true),
        (r#"{"header": "user-agent", "glob": "*/9*"}"#, false),
        (r#"{"cookie": "beta", "is": "no"}"#, true),
        (r#"{"cookie": "sid", "is": "1"}"#, true),
        (r#"{"cookie": "eta", "present": true}"#, false),
        (r#"{"query": "a", "is": "2"}"#, true),
        (r#"{"query": "a", "is": "3"}"#, false),
        (r#"{"query": "b", "is": "Ac"}"#, true),
        (r#"{"query": "c", "present": false}"#, true),
        (r#"{"part": "method", "is": "get"}"#, true),
        (r#"{"part": "method", "not": ["GET"]}"#, false),
        (r#"{"part": "method", "is": "POST"}"#, false),
        (r#"{"part": "host", "glob": "*.example.COM"}"#, true),
        (r#"{"part": "host", "is": "example.com"}"#, false),
        (r#"{"part": "ip", "in": ["192.0.2.0/24"]}"#, true),
        (r#"{"part": "ip", "not": ["192.0.2.0/24"]}"#, false),
        (r#"{"part": "ip", "is": "203.0.113.1"}"#, false),
        (r#"{"part": "tier", "is": "anonymous"}"#, true),
        (r#"{"part": "user", "present": false}"#, true),
        (r#"{"part": "route", "is": "checkout"}"#, true),
        (r#"{"claim": ["jwt", "org"], "is": "acme"}"#, true),
        (r#"{"claim": ["jwt", "plan"], "present": true}"#, false),
        (r#"{"metadata": ["n", "tokens"], "is": "42"}"#, true),
        (r#"{"metadata": ["n", "empty"], "present": false}"#, true),
    ] {
        let policy = format!(
            r#"{{"rules": [{{"name": "r", "pattern": "/x", "when": [{{"header": "x-plan", "present": true}}, {condition}],
                "global_limit": {{"type": "fixed_window", "limit": 1, "window": 60}}}}]}}"#
        );
        let config = configured(&policy, "single");
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let step = admit(&snapshot(&config), &config.sources, headers, &Told).step;
        assert_eq!(matches!(step, Step::Ask(_)), holds, "{condition}");
        assert_eq!(matches!(step, Step::Pass), !holds, "{condition}");
    }
}
