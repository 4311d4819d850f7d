//! Where Weir stands among Envoy's other filters and behind a balancer: every claim of docs/envoy.md.

use std::time::Duration;

use weir_lab::client::Answer;
use weir_lab::gateway::{Gateway, Policy};

use crate::visitor::{Visitor, unique};
use crate::world::{World, changed_configuration, wait_for_room};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    cors_before_weir_lets_a_page_read_its_429_and_counts_no_preflight,
    jwt_before_weir_tells_who_is_calling,
    ext_authz_before_weir_says_who_and_after_it_is_spared,
    a_transcoder_before_weir_changes_the_path_that_rules_see,
    grpc_web_before_weir_lets_a_refusal_speak_grpc,
    a_buffer_before_weir_waits_for_bodies_that_will_be_refused,
    behind_a_balancer_clients_count_by_the_address_it_adds,
    envoy_may_write_the_bodies_of_refusals,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeWeir,
    AfterWeir,
}

use Place::{AfterWeir, BeforeWeir};

/// One request a day of each caller.
const ONE_A_DAY: &str = r#"{ "rules": [
    { "name": "all", "pattern": "/*", "user_limits": {
        "default": { "type": "fixed_window", "limit": 1, "window": 86400 } } }
] }"#;

/// A gateway with another filter beside Weir, and other changes of `envoy/gateway.yaml`.
fn beside(
    world: &World,
    filter: &str,
    place: Place,
    policy: &str,
    changes: &[(&str, &str)],
) -> Gateway {
    let before = match place {
        BeforeWeir => "          - name: envoy.filters.http.header_mutation\n",
        AfterWeir => "          - name: envoy.filters.http.router\n",
    };
    let with_filter = format!("{}\n{before}", filter.trim_end());
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .copied()
        .chain([(before, &*with_filter)])
        .collect();
    changed(world, policy, &changes)
}

fn changed(world: &World, policy: &str, changes: &[(&str, &str)]) -> Gateway {
    wait_for_room(Duration::from_secs(86400), Duration::from_secs(60));
    let folder = changed_configuration("neighbours", |file, text| match file {
        "gateway.yaml" => changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "there is no {from}");
            text.replacen(from, to, 1)
        }),
        _ => text,
    });
    let gateway = world.gateway().configuration(folder.path()).workers(1);
    gateway
        .policy(Policy::Text(policy.to_owned()))
        .start()
        .unwrap()
}

/// The answers' statuses to as many requests.
fn statuses<const N: usize>(askers: [&Visitor; N]) -> [u16; N] {
    askers.map(|asker| asker.get("/x").status)
}

fn cors_before_weir_lets_a_page_read_its_429_and_counts_no_preflight(world: &World) {
    const CORS: &str = r#"          - name: envoy.filters.http.cors
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors
"#;
    const DOMAINS: &str = "              domains: [\"*\"]\n";
    const ALLOWED: &str = r#"              domains: ["*"]
              typed_per_filter_config:
                envoy.filters.http.cors:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                  allow_origin_string_match: [{ exact: "https://shop.example" }]
                  allow_methods: "GET, POST"
                  expose_headers: "retry-after"
"#;
    for place in [BeforeWeir, AfterWeir] {
        let gateway = beside(world, CORS, place, ONE_A_DAY, &[(DOMAINS, ALLOWED)]);
        let page = Visitor::anonymous(&gateway).with("Origin", "https://shop.example");
        let preflight = page
            .request("OPTIONS", "/x")
            .header("Access-Control-Request-Method", "GET");
        assert_eq!(preflight.send().unwrap().status, 200);
        let get = page.get("/x");
        let refused = page.get("/x");
        assert_eq!(refused.status, 429);
        let readable = [
            "access-control-allow-origin",
            "access-control-expose-headers",
        ]
        .map(|name| refused.header(name));
        match place {
            BeforeWeir => {
                assert_eq!(get.status, 200, "the preflight was counted");
                let told =
                    ["https://shop.example", "retry-after"].map(|told| Some(told.to_owned()));
                assert_eq!(readable, told);
            }
            AfterWeir => {
                assert_eq!(get.status, 429, "the preflight was not counted");
                assert_eq!(readable, [None, None]);
            }
        }
    }
}

fn jwt_before_weir_tells_who_is_calling(world: &World) {
    const JWT: &str = r#"          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                own:
                  local_jwks: { inline_string: '{"keys":[{"kty":"oct","alg":"HS256","k":"YSBrZXkgdGhhdCBvbmx5IHRoaXMgdGVzdCBrbm93cywgYW5kIG5vdyB5b3U"}]}' }
                  payload_in_metadata: jwt
              rules:
              - match: { prefix: "/" }
                requires: { requires_any: { requirements: [{ provider_name: own }, { allow_missing: {} }] } }
"#;
    // {"alg":"HS256","typ":"JWT"} {"sub":"dora"}
    const DORA: &str = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkb3JhIn0.22rBaB92OnRFY4D4n0431QE3EUMHSkvI-C_VyJQqbDQ";
    let forged = format!("{DORA}Q");
    let claim = (
        r#""identity": {"#,
        r#""identity": { "user": { "claim": ["jwt", "sub"] },"#,
    );
    for place in [BeforeWeir, AfterWeir] {
        let gateway = beside(world, JWT, place, ONE_A_DAY, &[claim]);
        let [one, other, forger] = [DORA, DORA, &*forged]
            .map(|token| Visitor::anonymous(&gateway).with("Authorization", token));
        let stranger = forger.clone();
        let told = statuses([&forger, &stranger, &one, &other]);
        match place {
            // By what the token says, wherever it comes from; a forged one is not counted.
            BeforeWeir => assert_eq!(told, [401, 401, 200, 429]),
            // By address.
            AfterWeir => assert_eq!(told, [401, 429, 200, 200]),
        }
    }
}

fn ext_authz_before_weir_says_who_and_after_it_is_spared(world: &World) {
    // The upstream plays the authorization service: x-answer-x-user-id comes back as x-user-id.
    const EXT_AUTHZ: &str = r#"          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              allowed_headers: { patterns: [{ prefix: x-answer- }] }
              http_service:
                server_uri: { uri: "http://authz", cluster: upstream, timeout: 5s }
                authorization_response: { allowed_upstream_headers: { patterns: [{ exact: x-user-id }] } }
"#;
    const TRUST: (&str, &str) = (r#""trust": ${TRUST}"#, r#""trust": "always""#);
    for place in [BeforeWeir, AfterWeir] {
        let gateway = beside(world, EXT_AUTHZ, place, ONE_A_DAY, &[TRUST]);
        let user = unique("carol");
        let [one, other] = [(); 2].map(|()| {
            let visitor = Visitor::anonymous(&gateway).named(unique("claimed"));
            visitor.with("x-answer-x-user-id", &user)
        });
        let told = statuses([&one, &other]);
        let asked = gateway.upstream().requests();
        match place {
            // What the service says takes the place of what the client said.
            BeforeWeir => assert_eq!((told, asked), ([200, 429], 3)),
            AfterWeir => {
                assert_eq!((told, asked), ([200, 200], 4));
                assert_eq!(statuses([&one]), [429]);
                assert_eq!(gateway.upstream().requests(), 4);
            }
        }
        // Where it says nothing, what the client said is believed.
        if place == BeforeWeir {
            let user = unique("anybody");
            let liars = [(); 2].map(|()| Visitor::anonymous(&gateway).named(&user));
            assert_eq!(statuses([&liars[0], &liars[1]]), [200, 429]);
        }
    }
}

fn a_transcoder_before_weir_changes_the_path_that_rules_see(world: &World) {
    // As in content_types.rs, with `option (google.api.http) = { get: "/stock/{id}" }` for the method.
    const TRANSCODER: &str = r#"          - name: envoy.filters.http.grpc_json_transcoder
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
              proto_descriptor_bin: "CoYBCg1ncmVldGVyLnByb3RvEgRzaG9wIhUKA1JlcRIOCgJpZBgBIAEoCVICaWQiFQoDUmVzEg4KAmlkGAEgASgJUgJpZDI5CgVTdG9jaxIwCgNHZXQSCS5zaG9wLlJlcRoJLnNob3AuUmVzIhOC0+STAg0SCy9zdG9jay97aWR9YgZwcm90bzM="
              services: [shop.Stock]
"#;
    const POLICY: &str = r#"{ "rules": [
        { "name": "rest", "pattern": "/stock/*", "user_limits": {
            "default": { "type": "fixed_window", "limit": 1, "window": 86400 } } },
        { "name": "grpc", "pattern": "/shop.Stock/*", "user_limits": {
            "default": { "type": "fixed_window", "limit": 1, "window": 86400 } } }
    ] }"#;
    for (place, rule) in [(BeforeWeir, "grpc"), (AfterWeir, "rest")] {
        let gateway = beside(world, TRANSCODER, place, POLICY, &[]);
        let visitor = Visitor::anonymous(&gateway);
        assert_ne!(visitor.get("/stock/7").status, 429);
        let refused = visitor.get("/stock/8");
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(
            refused.header("content-type").as_deref(),
            Some("application/json")
        );
        assert_eq!(refused.json().unwrap()["details"]["rule"], rule);
    }
}

fn grpc_web_before_weir_lets_a_refusal_speak_grpc(world: &World) {
    const GRPC_WEB: &str = r#"          - name: envoy.filters.http.grpc_web
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb
"#;
    for (place, code) in [(BeforeWeir, Some("8")), (AfterWeir, None)] {
        let gateway = beside(world, GRPC_WEB, place, ONE_A_DAY, &[]);
        let visitor = Visitor::anonymous(&gateway);
        assert_eq!(visitor.get("/x").status, 200);
        let request = visitor.request("POST", "/x");
        let refused = request.header("content-type", "application/grpc-web+proto");
        let refused = refused.send().unwrap();
        let told = (refused.status, refused.header("grpc-status"));
        assert_eq!(
            told,
            (429, code.map(str::to_owned)),
            "{place:?} {refused:?}"
        );
    }
}

fn a_buffer_before_weir_waits_for_bodies_that_will_be_refused(world: &World) {
    const BUFFER: &str = r#"          - name: envoy.filters.http.buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 5
"#;
    // Who answers tells who sees the request first: the buffer has to have read what is too long.
    for (place, status) in [(BeforeWeir, 413), (AfterWeir, 429)] {
        let gateway = beside(world, BUFFER, place, ONE_A_DAY, &[]);
        let visitor = Visitor::anonymous(&gateway);
        assert_eq!(visitor.get("/x").status, 200);
        let long = visitor.request("POST", "/x").body("0123456789").send();
        assert_eq!(long.unwrap().status, status, "{place:?}");
    }
}

fn behind_a_balancer_clients_count_by_the_address_it_adds(world: &World) {
    const POLICY: &str = r#"{ "rules": [
        { "name": "lists", "pattern": "/api/{users,orders}/*", "ip_limits": {
            "default": { "type": "fixed_window", "limit": 1, "window": 86400 } } }
    ] }"#;
    let hops =
        |count: u32| format!("use_remote_address: true\n          xff_num_trusted_hops: {count}\n");
    let hops = hops(1);
    let gateway = changed(
        world,
        POLICY,
        &[
            ("use_remote_address: true\n", &hops),
            (r#""identity": {"#, r#""identity": { "ipv6_prefix": 128,"#),
        ],
    );
    // One address is the balancer's, and it serves everybody.
    let balancer = Visitor::anonymous(&gateway);
    let ask = |forwarded_for: &str, path: &str| {
        let request = balancer.request("GET", path);
        let answer = request.header("X-Forwarded-For", forwarded_for).send();
        answer.unwrap().status
    };
    let (users, orders) = ("/api/users/1", "/api/orders/2");
    assert_eq!(ask("198.51.100.1, 192.0.2.1", users), 200);
    // The client writes what stands before; and the rule counts both routes together.
    assert_eq!(ask("198.51.100.2, 192.0.2.1", orders), 429);
    assert_eq!(ask("198.51.100.1, 192.0.2.2", users), 200);
    // Each address of IPv6 by itself, which by default is one of a /64.
    assert_eq!(ask("2001:db8::1", users), 200);
    assert_eq!(ask("2001:db8::2", users), 200);
    assert_eq!(ask("2001:db8::1", users), 429);
}

fn envoy_may_write_the_bodies_of_refusals(world: &World) {
    const REPLIES: &str = r#"use_remote_address: true
          local_reply_config:
            mappers:
            - filter:
                status_code_filter:
                  comparison: { op: EQ, value: { default_value: 429, runtime_key: weir.none } }
              headers_to_add:
              - header: { key: x-help, value: "https://shop.example/limits" }
              body_format_override:
                text_format_source: { inline_string: "Please wait %RESP(RETRY-AFTER)% seconds.\n" }
                content_type: "text/plain; charset=utf-8"
"#;
    let gateway = changed(world, ONE_A_DAY, &[("use_remote_address: true\n", REPLIES)]);
    let visitor = Visitor::anonymous(&gateway);
    assert_eq!(visitor.get("/x").status, 200);
    let refused = visitor.get("/x");
    let wait = refused.header("retry-after").unwrap();
    let told = |answer: &Answer| (answer.status, answer.header("x-help"), answer.text());
    let help = Some("https://shop.example/limits".to_owned());
    assert_eq!(
        told(&refused),
        (429, help, format!("Please wait {wait} seconds.\n"))
    );
    assert_eq!(
        refused.all("content-type"),
        ["text/plain; charset=utf-8"],
        "{refused:?}"
    );
    // An upstream's own 429 is none of Envoy's replies.
    let other = Visitor::anonymous(&gateway).with("x-answer-status", "429");
    let answer = other.get("/x");
    assert_eq!((answer.status, answer.header("x-help")), (429, None));
    assert!(answer.json().is_ok(), "{answer:?}");
}
