//! What Weir answers itself, behind filters that change a request's content type before Weir sees it.

use std::time::Duration;

use weir_lab::client::Answer;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

use crate::visitor::{Visitor, unique};
use crate::world::{World, changed_configuration, wait_for_room};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![each_client_is_told_in_its_own_words_behind_filters];

const POLICY: &str = r#"{
    "deny": { "users": ["mallory"] },
    "rules": [
        { "name": "stock", "pattern": "/shop.Stock/*",
          "user_limits": {
              "default": { "type": "fixed_window", "limit": 1, "window": 86400 },
              "strict": { "type": "fixed_window", "limit": 9, "window": 86400,
                          "on_store_failure": "deny" } } }
    ]
}"#;

/// `shop.Stock/Get` takes `{"id": string}`. The descriptor is that of:
///
/// ```proto
/// syntax = "proto3";
/// package shop;
/// service Stock { rpc Get (Req) returns (Res); }
/// message Req { string id = 1; }
/// message Res { string id = 1; }
/// ```
const FILTERS: &str = r#"
          - name: envoy.filters.http.grpc_web
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb
          - name: envoy.filters.http.grpc_json_transcoder
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
              proto_descriptor_bin: "CnEKDWdyZWV0ZXIucHJvdG8SBHNob3AiFQoDUmVxEg4KAmlkGAEgASgJUgJpZCIVCgNSZXMSDgoCaWQYASABKAlSAmlkMiQKBVN0b2NrEhsKA0dldBIJLnNob3AuUmVxGgkuc2hvcC5SZXNiBnByb3RvMw=="
              services: [shop.Stock]
              auto_mapping: true
              convert_grpc_status: true"#;

/// What Weir answers, by its HTTP status and its gRPC code.
const ANSWERS: [(u16, &str); 4] = [(429, "8"), (403, "7"), (400, "3"), (503, "14")];

/// Requests to which these are the answers, in the same order.
fn askers(gateway: &Gateway) -> [Visitor; 4] {
    let asker = || Visitor::anonymous(gateway);
    let spent = asker().named(unique("spent"));
    assert_eq!(spent.get("/shop.Stock/Get").status, 200);
    let two = asker().named(unique("one")).named(unique("two"));
    let strict = asker().named(unique("strict")).tier("strict");
    [spent, asker().named("mallory"), two, strict]
}

fn ask(visitor: &Visitor, content_type: &str) -> Answer {
    let request = visitor.request("POST", "/shop.Stock/Get");
    let body = if content_type == "application/json" {
        "{}"
    } else {
        ""
    };
    let request = request.header("content-type", content_type).body(body);
    request.send().unwrap()
}

fn each_client_is_told_in_its_own_words_behind_filters(world: &World) {
    wait_for_room(Duration::from_secs(86400), Duration::from_secs(60));
    let folder = changed_configuration("content-types", |_, text| {
        let before = "http_filters:\n          # Whether";
        text.replace(before, &before.replace(":", &format!(":{FILTERS}")))
    });
    let mut redis = Redis::start().unwrap();
    let gateway = world.gateway().redis(&redis).configuration(folder.path());
    let gateway = gateway.policy(Policy::Text(POLICY.to_owned()));
    let gateway = gateway.start().unwrap();
    let askers = askers(&gateway);
    for service in ["", "/gateway", "/page"] {
        let path = format!("/api/v1/rate-limits/status{service}");
        let ask = |content_type: &str| {
            let request = Visitor::anonymous(&gateway).named(unique("status"));
            let request = request.with("content-type", content_type);
            request.get(&path)
        };
        let expected = if service.is_empty() { 200 } else { 403 };
        assert_eq!(ask("application/json").status, expected, "{path}");
        let web = ask("application/grpc-web+proto");
        assert_eq!(
            (web.status, web.header("grpc-status").as_deref()),
            (400, Some("3"))
        );
    }
    for (index, ((status, code), asker)) in ANSWERS.iter().zip(&askers).enumerate() {
        if *status == 503 {
            redis.stop();
        }
        // REST, by way of the transcoder.
        let rest = ask(asker, "application/json");
        assert_eq!(rest.status, *status, "{index} {rest:?}");
        assert_eq!(rest.all("content-type"), ["application/json"], "{rest:?}");
        let body = rest.json().unwrap();
        assert!(
            body["error"].is_string() && body["message"].is_string(),
            "{body}"
        );
        // A browser, by way of grpc_web.
        for content_type in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
        ] {
            let web = ask(asker, content_type);
            let said = (web.status, web.header("grpc-status"), web.body.len());
            assert_eq!(said, (*status, Some((*code).to_owned()), 0), "{web:?}");
            assert_eq!(
                web.header("grpc-message").as_deref(),
                body["message"].as_str()
            );
        }
        // gRPC as it is: its clients read nothing but 200.
        let plain = ask(asker, "application/grpc");
        let said = (
            plain.status,
            plain.all("grpc-status"),
            plain.all("grpc-message"),
        );
        let message = body["message"].as_str().unwrap().to_owned();
        assert_eq!(
            said,
            (200, vec![(*code).to_owned()], vec![message]),
            "{plain:?}"
        );
        assert_eq!(plain.all("content-type"), ["application/grpc"]);
    }
}
