//! Who is counted.

use std::collections::HashSet;
use std::net::{Ipv6Addr, TcpListener};

use serde_json::json;
use weir_core::request::subject::hex_digest;
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::gateway::Policy;

use crate::visitor::{Visitor, number, remaining, unique};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases, keys};

pub const CASES: &[Case] = cases![
    an_id_of_any_bytes_counts_for_itself,
    an_empty_id_is_no_id,
    a_repeated_identity_header_is_refused,
    an_api_key_counts_and_is_stored_nowhere,
    a_user_comes_before_an_api_key,
    a_key_in_authorization_is_known_by_what_follows_its_scheme,
    headers_of_a_trusted_peer_reach_the_upstream,
    headers_of_an_untrusted_peer_are_ignored_and_removed,
    an_untrusted_peer_cannot_be_refused_for_what_is_ignored,
    a_forged_address_changes_nothing,
    a_filter_state_tells_the_peer_as_well,
    early_header_mutation_tells_the_peer_as_well,
    an_ipv6_client_is_its_network,
    a_header_that_only_looks_like_an_identity_is_dropped,
    the_closest_network_counts_each_address,
    a_tier_that_is_not_listed_has_the_default_limit,
    a_new_tier_keeps_the_usage,
];

const PATH: &str = "/identity/x";
const HEADERS: [&str; 3] = ["x-user-id", "x-user-tier", "x-api-key"];

fn an_id_of_any_bytes_counts_for_itself(world: &World) {
    let long = "x".repeat(10_000);
    let longer = "x".repeat(10_001);
    let mut ids: Vec<Vec<u8>> = [
        "a",
        "A",
        "a b",
        "a  b",
        "a:b",
        "a::b",
        "{a}",
        "}a{",
        "{",
        "}",
        "a}:identity:user:fw60s",
        "a%3Ab",
        "a%3ab",
        "a%253Ab",
        "%",
        "%%",
        "%00",
        "*",
        "?",
        "[a]",
        "\\",
        "/",
        "a/b",
        "'",
        "\"",
        "é",
        "e\u{301}",
        "日本",
        "a,b",
        "a, b",
        "a;b",
        "a=b",
        "a\tb",
        "-",
        "0",
        "null",
        "127.0.0.1",
        "u:a",
        "k:a",
    ]
    .iter()
    .map(|id| id.as_bytes().to_vec())
    .collect();
    ids.extend([
        b"\xff".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xc3(".to_vec(),
        b"\x80".to_vec(),
    ]);
    ids.extend([long.into_bytes(), longer.into_bytes()]);
    let visitors: Vec<_> = ids
        .iter()
        .map(|id| (id, Visitor::anonymous(world.workshop()).named(id)))
        .collect();
    for left in [99, 98] {
        for (id, visitor) in &visitors {
            let answer = visitor.get(PATH);
            let shown = (answer.status, remaining(&answer));
            assert_eq!(shown, (200, left), "{}", String::from_utf8_lossy(id));
        }
    }
    // The upstream has the id as it was sent.
    for (id, visitor) in visitors {
        let latin: String = id.iter().map(|&byte| byte as char).collect();
        assert!(upstream_headers(&visitor.get("/web")).contains(&("x-user-id".to_owned(), latin)));
    }
}

fn an_empty_id_is_no_id(world: &World) {
    let visitor = Visitor::anonymous(world.workshop());
    // Nobody in particular has the limit for all other tiers.
    for (left, visitor) in (0..50).rev().zip([
        visitor.clone(),
        visitor.clone().named(""),
        visitor.clone().named("").tier("premium"),
        visitor.clone().with("X-API-Key", ""),
    ]) {
        let answer = visitor.get(PATH);
        assert_eq!(
            (number(&answer, "x-ratelimit-limit"), remaining(&answer)),
            (50, left)
        );
    }
}

fn a_repeated_identity_header_is_refused(world: &World) {
    let gateway = world.workshop();
    for header in HEADERS {
        for (first, second) in [("ann", "bob"), ("ann", "ann"), ("ann", ""), ("", "")] {
            let visitor = Visitor::anonymous(gateway).with(header, first);
            let twice = visitor.clone().with(&header.to_uppercase(), second);
            let answer = twice.get(PATH);
            assert_eq!(answer.status, 400, "{header}: {first:?}, {second:?}");
            assert_eq!(answer.json().unwrap()["error"], "Ambiguous identity");
            assert!(answer.text().contains(header), "{}", answer.text());
            assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        }
    }
    let visitor = Visitor::of_tier(gateway, "free");
    assert_eq!(visitor.clone().named("another").get(PATH).status, 400);
    assert_eq!(remaining(&visitor.get(PATH)), 99, "a refusal was counted");
}

fn an_api_key_counts_and_is_stored_nowhere(world: &World) {
    let gateway = world.workshop();
    let key = unique("a-secret-key");
    let with_key = || Visitor::anonymous(gateway).with("X-API-Key", &key);
    let answer = with_key().get(PATH);
    assert_eq!(
        (number(&answer, "x-ratelimit-limit"), remaining(&answer)),
        (100, 99)
    );
    // From anywhere, and at any tier.
    assert_eq!(remaining(&with_key().get(PATH)), 98);
    assert_eq!(remaining(&with_key().tier("premium").get(PATH)), 497);
    let other = Visitor::anonymous(gateway).with("X-API-Key", format!("{key}x"));
    assert_eq!(remaining(&other.get(PATH)), 99);
    let status = with_key().get("/api/v1/rate-limits/status");
    assert_eq!(status.status, 200);
    assert!(!status.text().contains(&key), "{}", status.text());
    for (name, value) in keys::all(world.redis()) {
        assert!(
            !name.contains(&key) && !value.contains(&key),
            "{name}: {value}"
        );
    }
}

fn a_key_in_authorization_is_known_by_what_follows_its_scheme(world: &World) {
    let folder = changed_configuration("authorization", |_, text| {
        let key = r#""api_key": { "header": "Authorization", "scheme": "Bearer" }"#;
        text.replace(r#""identity": {"#, &format!(r#""identity": {{ {key},"#))
    });
    let fixed = json!({ "type": "fixed_window", "limit": 100, "window": 2_592_000 });
    let [key, banned, stale] = ["key", "banned", "stale"].map(unique);
    let policy = json!({
        "deny": { "api_keys": [hex_digest(banned.as_bytes()), hex_digest(format!("Bearer {stale}").as_bytes())] },
        "rules": [{ "name": "all", "pattern": "/*",
                    "user_limits": { "anonymous": { "type": "fixed_window", "limit": 7, "window": 2_592_000 },
                                     "default": fixed } }],
    });
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.policy(Policy::Text(policy.to_string()));
    let gateway = gateway.trust(json!(["127.0.0.0/9"])).start().unwrap();
    let sends = |visitor: Visitor, value: String| visitor.with("Authorization", value).get("/x");
    let believed = || Visitor::anonymous(&gateway);
    for (left, scheme) in [(99, "Bearer "), (98, "bearer   "), (97, "BEARER ")] {
        let answer = sends(believed(), format!("{scheme}{key}"));
        assert_eq!((answer.status, remaining(&answer)), (200, left), "{scheme}");
    }
    for value in [format!("Basic {key}"), "Bearer".to_owned()] {
        assert_eq!(remaining(&sends(believed(), value)), 6);
    }
    // Whoever is not believed counts by their address, and their upstream may know them.
    let value = format!("Bearer {key}");
    let answer = sends(Visitor::distrusted(&gateway), value.clone());
    assert_eq!(remaining(&answer), 6);
    let sent = ("authorization".to_owned(), value);
    assert!(upstream_headers(&answer).contains(&sent), "{answer:?}");

    assert!(!gateway.log().contains("is the SHA-256 of a whole header"));
    assert_eq!(sends(believed(), format!("bearer {banned}")).status, 403);
    assert_eq!(sends(believed(), format!("Bearer {stale}")).status, 403);
    assert_eq!(sends(believed(), format!("bearer {stale}")).status, 200);
    deadline::poll(SOON, "word of the old digest", || {
        let is_told = gateway.log().contains("is the SHA-256 of a whole header");
        Ok(is_told.then_some(()))
    })
    .unwrap();
}

fn a_user_comes_before_an_api_key(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    assert_eq!(
        remaining(&visitor.clone().with("X-API-Key", unique("key")).get(PATH)),
        99
    );
    assert_eq!(
        remaining(&visitor.clone().with("X-API-Key", unique("key")).get(PATH)),
        98
    );
    assert_eq!(remaining(&visitor.get(PATH)), 97);
}

fn headers_of_a_trusted_peer_reach_the_upstream(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free").with("X-API-Key", "a key");
    for path in [PATH, "/web"] {
        let headers = upstream_headers(&visitor.get(path));
        for header in HEADERS {
            assert!(
                headers.iter().any(|(name, _)| name == header),
                "{path} {header}"
            );
        }
    }
}

fn headers_of_an_untrusted_peer_are_ignored_and_removed(world: &World) {
    let visitor = Visitor::distrusted(world.workshop());
    for (used, path) in [(1, PATH), (1, "/web"), (2, PATH)] {
        let claims = visitor
            .clone()
            .named(unique("id"))
            .tier("premium")
            .with("X-API-Key", "key");
        let answer = claims.with("X-Other", "stays").get(path);
        if path == PATH {
            // Nobody in particular, known by the address.
            let shown = (number(&answer, "x-ratelimit-limit"), remaining(&answer));
            assert_eq!(shown, (50, 50 - used));
        }
        let headers = upstream_headers(&answer);
        for header in HEADERS {
            assert!(
                !headers.iter().any(|(name, _)| name == header),
                "{path} {header}"
            );
        }
        assert!(headers.iter().any(|(name, _)| name == "x-other"));
    }
    let status = visitor.named("somebody").get("/api/v1/rate-limits/status");
    assert_eq!(status.status, 400, "no identity is left to ask about");
}

fn an_untrusted_peer_cannot_be_refused_for_what_is_ignored(world: &World) {
    let answer = Visitor::distrusted(world.workshop())
        .named("ann")
        .named("bob")
        .get(PATH);
    assert_eq!(answer.status, 200);
    let headers = upstream_headers(&answer);
    assert!(
        !headers.iter().any(|(name, _)| name == "x-user-id"),
        "{headers:?}"
    );
}

fn a_forged_address_changes_nothing(world: &World) {
    let visitor = Visitor::anonymous(world.reference());
    let forged = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.2, 10.0.0.1"),
        ("X-Real-IP", "192.0.2.3"),
        ("X-Envoy-External-Address", "192.0.2.4"),
        ("Forwarded", "for=192.0.2.5"),
        ("X-Envoy-Is-Timeout-Retry", "127.0.0.1 192.0.2.6"),
    ];
    for (used, (name, value)) in (1..).zip(forged) {
        let answer = visitor.clone().with(name, value).get("/api/v1/items");
        assert_eq!(remaining(&answer), 100 - used, "{name}: {value}");
    }
    // Nor does it make an untrusted peer a trusted one.
    for name in ["X-Forwarded-For", "X-Envoy-Is-Timeout-Retry"] {
        let distrusted = Visitor::distrusted(world.workshop()).named("ann");
        let answer = distrusted.with(name, "127.0.0.1").get(PATH);
        assert_eq!(number(&answer, "x-ratelimit-limit"), 50, "{name}");
        let headers = upstream_headers(&answer);
        assert!(
            !headers
                .iter()
                .any(|(name, _)| name == "x-envoy-is-timeout-retry"),
            "{headers:?}"
        );
    }
}

/// The default, for configurations that cannot be sure that Envoy writes the header.
fn a_filter_state_tells_the_peer_as_well(world: &World) {
    const WASM: &str = "          - name: envoy.filters.http.wasm\n";
    let folder = changed_configuration("filter-state", |file, text| {
        if file != "gateway.yaml" {
            return text;
        }
        let (before, rest) = text
            .split_once("          - name: envoy.filters.http.header_mutation\n")
            .unwrap();
        let (_, after) = rest.split_once(WASM).unwrap();
        let after = after.replace(
            r#", "direct_peer": { "header": "x-envoy-is-timeout-retry" }"#,
            "",
        );
        [before, SET_FILTER_STATE, WASM, &after].concat()
    });

    let gateway = world.gateway().configuration(folder.path());
    let trust = json!(["127.0.0.0/9"]);
    let gateway = gateway.trust(trust).workers(1).start().unwrap();
    for (peer, user) in [("127.100.2.3", true), ("127.200.2.3", false)] {
        let visitor = Visitor::anonymous(&gateway).moved_to(peer);
        let claims = visitor.named(unique("visitor")).tier("premium");
        // Of a premium user and an address, or of an address alone.
        let answer = claims
            .with("X-Envoy-Is-Timeout-Retry", "127.0.0.1")
            .get("/api/v1/search");
        let left = keys::of(world.redis(), &[&format!("a:{peer}")]);
        assert!(!left.is_empty(), "{peer}");
        let headers = upstream_headers(&answer);
        let kept = headers.iter().any(|(name, _)| name == "x-user-id");
        assert_eq!(kept, user, "{peer}");
    }
}

/// Envoy clears some of its own headers after it, on requests from outside.
fn early_header_mutation_tells_the_peer_as_well(world: &World) {
    const WASM: &str = "          - name: envoy.filters.http.wasm\n";
    let folder = changed_configuration("early", |file, text| {
        if file != "gateway.yaml" {
            return text;
        }
        let filters = "          http_filters:\n";
        let (before, rest) = text.split_once(filters).unwrap();
        let (_, after) = rest.split_once(WASM).unwrap();
        [before, MUTATE_EARLY, filters, WASM, after].concat()
    });
    let policy = json!({ "rules": [{
        "name": "all", "pattern": "/*",
        "ip_limits": { "default": { "type": "fixed_window", "limit": 9, "window": 2_592_000 } },
    }] });
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.policy(Policy::Text(policy.to_string()));
    let gateway = gateway.trust(json!(["127.0.0.0/9"])).workers(1);
    let gateway = gateway.start().unwrap();
    for (peer, user) in [("127.100.2.4", true), ("127.200.2.4", false)] {
        let visitor = Visitor::anonymous(&gateway).moved_to(peer);
        let visitor = visitor
            .named(unique("visitor"))
            .with("X-Envoy-Is-Timeout-Retry", "127.0.0.1");
        let answer = visitor.get("/x");
        let left = keys::of(world.redis(), &[&format!("a:{peer}")]);
        assert!(!left.is_empty(), "{peer}");
        let headers = upstream_headers(&answer);
        let has = |wanted: &str| headers.iter().any(|(name, _)| name == wanted);
        assert_eq!(
            (has("x-user-id"), has("x-envoy-is-timeout-retry")),
            (user, false),
            "{peer}"
        );
    }
}

const MUTATE_EARLY: &str = r#"          early_header_mutation_extensions:
          - name: envoy.http.early_header_mutation.header_mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations:
              - append:
                  append_action: OVERWRITE_IF_EXISTS_OR_ADD
                  header:
                    key: x-envoy-is-timeout-retry
                    value: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
"#;

const SET_FILTER_STATE: &str = r#"          - name: envoy.filters.http.set_filter_state
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
              on_request_headers:
              - object_key: weir.direct_peer
                factory_key: envoy.string
                format_string:
                  text_format_source:
                    inline_string: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
"#;

fn an_ipv6_client_is_its_network(world: &World) {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let gateway = world.gateway().listen(Ipv6Addr::LOCALHOST);
    let gateway = gateway.workers(1).start().unwrap();
    let visitor = Visitor::anonymous(&gateway).moved_to("::1");
    // By the limit for callers without a tier.
    assert_eq!(remaining(&visitor.get("/api/v1/items")), 99);
    // Identity headers are believed, and the address still counts.
    let named = visitor.named(unique("visitor")).tier("premium");
    assert_eq!(remaining(&named.get("/api/v1/items")), 198);
    // All of ::/64 together.
    let keys = keys::of(world.redis(), &["a:::"]);
    let keys: Vec<_> = keys.keys().map(String::as_str).collect();
    let counted =
        ["ip", "user"].map(|scope| format!("weir:2:{{a:::}}:general_api:{scope}:sl3600s"));
    assert_eq!(keys, counted);
}

/// Many upstreams read `X_User_ID` as `X-User-ID`, and Weir has not checked it.
fn a_header_that_only_looks_like_an_identity_is_dropped(world: &World) {
    let visitor = Visitor::distrusted(world.workshop()).with("X_User_ID", "root");
    let answer = visitor.with("X_API_Key", "key").get(PATH);
    assert_eq!(number(&answer, "x-ratelimit-limit"), 50);
    let headers = upstream_headers(&answer);
    assert!(
        !headers.iter().any(|(name, _)| name.contains('_')),
        "{headers:?}"
    );
}

fn the_closest_network_counts_each_address(world: &World) {
    let gateway = world.workshop();
    for (address, limit) in [
        ("127.100.7.9", 20),
        ("127.100.7.10", 30),
        ("127.100.7.11", 30),
        ("127.100.8.9", 40),
        ("127.101.7.9", 50),
    ] {
        let visitor = Visitor::anonymous(gateway).moved_to(address);
        for (used, visitor) in (1..=2).zip([visitor.clone(), visitor.named("anybody")]) {
            let answer = visitor.get("/networks/x");
            let shown = (number(&answer, "x-ratelimit-limit"), remaining(&answer));
            assert_eq!(shown, (limit, limit - used), "{address}");
        }
    }
}

fn a_tier_that_is_not_listed_has_the_default_limit(world: &World) {
    let long = "t".repeat(5_000);
    for (tier, limit) in [
        ("premium", 500),
        ("Premium", 50),
        ("premium ", 500),
        ("unlisted", 50),
        ("default", 50),
        ("", 100),
        (&long, 50),
    ] {
        let answer = Visitor::of_tier(world.workshop(), tier).get(PATH);
        assert_eq!(number(&answer, "x-ratelimit-limit"), limit, "{tier:?}");
    }
    let answer = Visitor::anonymous(world.workshop())
        .named("t")
        .with("X-User-Tier", b"\xff\xfe");
    assert_eq!(number(&answer.get(PATH), "x-ratelimit-limit"), 50);
}

fn a_new_tier_keeps_the_usage(world: &World) {
    let id = unique("climber");
    let visitor = |tier| Visitor::anonymous(world.workshop()).named(&id).tier(tier);
    for (tier, left) in [
        ("free", 99),
        ("premium", 498),
        ("free", 97),
        ("unlisted", 46),
    ] {
        assert_eq!(remaining(&visitor(tier).get(PATH)), left, "{tier}");
    }
}

/// The headers with which the upstream was asked.
fn upstream_headers(answer: &Answer) -> HashSet<(String, String)> {
    let told = answer.json().unwrap();
    let headers = told["headers"].as_array().cloned();
    let headers = headers.unwrap_or_else(|| panic!("the upstream was not reached: {told}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    headers
        .iter()
        .map(|pair| (text(&pair[0]), text(&pair[1])))
        .collect()
}
