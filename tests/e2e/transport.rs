//! What carries the calls to the store, where that is Envoy itself.

use weir_lab::deadline;

use crate::crowd::rush;
use crate::failure::recovers;
use crate::visitor::{Visitor, remaining, tells_limits};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    calls_share_a_few_links_that_are_kept,
    a_gateway_that_drains_counts_on,
    the_bridge_serves_calls_over_http_as_well,
    a_stream_to_what_knows_none_is_told_with_its_remedy,
];

/// What makes a cluster one for streams.
const FOR_STREAMS: &str = "    upstream_config:\n      name: envoy.upstreams.http.tcp\n      typed_config:\n        \
     \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto\n";

fn calls_share_a_few_links_that_are_kept(world: &World) {
    let gateway = world.gateway().workers(2).start().unwrap();
    let stat = |name: &str| gateway.stat(name).unwrap().unwrap();
    rush(8, |_| {
        let visitor = Visitor::of_tier(&gateway, "free");
        for used in 1..=100 {
            assert_eq!(remaining(&visitor.get("/api/v1/items")), 100 - used);
        }
    });
    deadline::poll(SOON, "calls in the statistics", || {
        Ok((stat("wasmcustom.weir.store.calls_total") > 100).then_some(()))
    })
    .unwrap();
    // A worker has up to eight calls under way, where answers take long, and looks for a published
    // policy besides, and once for what Redis says of its memory. Envoy's main thread looks too, and
    // gets nowhere.
    let most = 2 * (8 + 2);
    let opened = stat("cluster.weir_store.upstream_cx_total");
    let failed = stat("cluster.weir_store.upstream_cx_connect_fail");
    assert!(
        opened - failed <= most,
        "{opened} opened, {failed} of them in vain"
    );
}

/// While it does, its connections to Redis are closed after each answer.
fn a_gateway_that_drains_counts_on(world: &World) {
    let gateway = world.gateway().start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "enterprise");
    recovers(&gateway, &visitor, "/api/v1/items");
    let failed = "wasmcustom.weir.store.failures_total";
    let before = gateway.stat(failed).unwrap();
    gateway
        .admin()
        .post("/healthcheck/fail", "")
        .send()
        .unwrap();
    let answers = rush(16, |_| {
        let visitor = Visitor::of_tier(&gateway, "free");
        (1..=50).all(|used| {
            let answer = visitor.get("/api/v1/items");
            tells_limits(&answer) && remaining(&answer) == 100 - used
        })
    });
    assert_eq!(answers, [true; 16]);
    assert_eq!(gateway.stat(failed).unwrap(), before);
}

/// As configurations say that do without streams.
fn the_bridge_serves_calls_over_http_as_well(world: &World) {
    let folder = changed_configuration("http", |file, text| match file {
        "start.sh" => text.replace("TRANSPORT=stream", "TRANSPORT=http"),
        "store-bridge.yaml" => text.replace(FOR_STREAMS, ""),
        _ => text,
    });
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.start().unwrap();
    recovers(
        &gateway,
        &Visitor::of_tier(&gateway, "free"),
        "/api/v1/items",
    );
    rush(8, |_| {
        let visitor = Visitor::of_tier(&gateway, "free");
        for used in 1..=100 {
            assert_eq!(remaining(&visitor.get("/api/v1/items")), 100 - used);
        }
        assert_eq!(visitor.get("/api/v1/items").status, 429);
    });
    let requests = gateway
        .stat("cluster.weir_store.upstream_rq_total")
        .unwrap();
    assert!(requests > Some(8), "{requests:?}");
}

fn a_stream_to_what_knows_none_is_told_with_its_remedy(world: &World) {
    let folder = changed_configuration("no-streams", |file, text| match file {
        "store-bridge.yaml" => text.replace(FOR_STREAMS, ""),
        _ => text,
    });
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    deadline::poll(SOON, "word of it in the log", || {
        assert_eq!(visitor.get("/api/v1/items").status, 200);
        Ok(gateway
            .log()
            .contains("needs the upstream_config of envoy/store-bridge.yaml")
            .then_some(()))
    })
    .unwrap();
}
