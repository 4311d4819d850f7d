//! What Envoy says of a policy when it starts, and of the configuration around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use weir_lab::gateway::{self, Gateway, Policy};
use weir_lab::scratch::Scratch;
use weir_lab::{deadline, place};

use crate::crowd::rush;
use crate::failure::recovers;
use crate::visitor::{Visitor, remaining};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    every_defect_is_refused_with_its_message,
    the_rules_are_told_once_whatever_the_number_of_workers,
    limiter_and_bridge_in_one_vm_are_refused,
    a_configuration_that_is_a_struct_is_read,
    a_cluster_that_this_envoy_does_not_know_is_told_by_name,
    a_cluster_that_comes_late_needs_no_password_in_the_environment,
];

fn every_defect_is_refused_with_its_message(world: &World) {
    let defects = defects();
    assert!(defects.len() > 30, "{} defects", defects.len());
    let next = AtomicUsize::new(0);
    // Envoy spends two seconds of a processor on compiling before it asks for the configuration.
    let wrong = rush(2, |_| {
        let own = std::iter::from_fn(|| defects.get(next.fetch_add(1, Ordering::Relaxed)));
        own.filter_map(|defect| misjudged(world, defect))
            .collect::<Vec<_>>()
    });
    assert_eq!(wrong.concat(), Vec::<String>::new());
}

/// The policies that nobody should be able to start Envoy with.
fn defects() -> Vec<PathBuf> {
    let folder = fs::read_dir(place::project().join("tests/config")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

/// What is wrong with the refusal of this policy, if anything is.
fn misjudged(world: &World, policy: &Path) -> Option<String> {
    let message = fs::read_to_string(policy.with_extension("txt")).unwrap();
    // Where in its configuration Envoy quotes what is no JSON depends on what stands around it.
    let expected = message
        .trim_end()
        .split(" at line ")
        .next()
        .unwrap_or_default();
    let gateway = world
        .gateway()
        .workers(1)
        .policy(Policy::File(policy.to_owned()));
    let told = match gateway.start_expecting_refusal() {
        Ok(log) => gateway::refusal(&log).unwrap_or(log),
        Err(error) => error.to_string(),
    };
    let is_told = told
        .strip_prefix("weir: ")
        .is_some_and(|told| told.starts_with(expected));
    (!is_told).then(|| {
        format!(
            "{}\n  told     {told}\n  expected {expected}",
            policy.display()
        )
    })
}

fn the_rules_are_told_once_whatever_the_number_of_workers(world: &World) {
    let gateway = world.gateway().workers(4).start().unwrap();
    // Once it serves, every worker has its configuration.
    assert_eq!(
        Visitor::anonymous(&gateway).get("/api/v1/items").status,
        200
    );
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("[info]"));
    let told: Vec<_> = told
        .filter_map(|line| Some(line.split_once("weir: rule ")?.1))
        .collect();
    assert_eq!(
        told,
        [
            "auth_api pattern /api/v1/auth/* priority 10: user default fixed_window 5/300s, \
             ip default sliding_window 20/3600s",
            "upload_api pattern /api/v1/media/upload priority 50: \
             user free token_bucket 10/3600s burst 5, \
             user premium token_bucket 100/3600s burst 20, \
             user enterprise token_bucket 1000/3600s burst 100, \
             user default token_bucket 10/3600s burst 5",
            "search_api pattern /api/v1/search priority 70: user free leaky_bucket 60/60s, \
             user premium leaky_bucket 300/60s, user enterprise leaky_bucket 300/60s, \
             user default leaky_bucket 60/60s, ip default leaky_bucket 100/60s",
            "general_api pattern /api/v1/* priority 100: global sliding_window 50000/60s, \
             user free sliding_window 100/3600s, user premium sliding_window 1000/3600s, \
             user enterprise sliding_window 10000/3600s, user default sliding_window 100/3600s, \
             ip default sliding_window 200/3600s",
        ]
    );
}

fn limiter_and_bridge_in_one_vm_are_refused(world: &World) {
    let folder = changed_configuration("one-vm", |_, text| {
        text.replace("vm_id: weir_bridge", "vm_id: weir_limiter")
    });
    let gateway = world.gateway().configuration(folder.path());
    let log = gateway.start_expecting_refusal().unwrap();
    let told = gateway::refusal(&log).unwrap();
    assert_eq!(
        told,
        "weir: vm_config.vm_id: is the same for limiter and bridge; the bridge needs a VM of its \
         own: give it another vm_id, as envoy/store-bridge.yaml does"
    );
}

/// YAML that is no string reaches the filter as the bytes of protobuf.
fn a_configuration_that_is_a_struct_is_read(world: &World) {
    const STRING: &str = "google.protobuf.StringValue\n                  value: |";
    const STRUCT: &str = "google.protobuf.Struct\n                  value:";
    let folder = changed_configuration("struct", |_, text| text.replace(STRING, STRUCT));
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    recovers(&gateway, &visitor, "/api/v1/items");
    let visitor = Visitor::of_tier(&gateway, "free");
    for used in 1..=100 {
        assert_eq!(remaining(&visitor.get("/api/v1/items")), 100 - used);
    }
    assert_eq!(visitor.get("/api/v1/items").status, 429);
}

/// Nobody calls, so no breaker opens: the log, the statistics and the page tell it from the start.
fn a_cluster_that_this_envoy_does_not_know_is_told_by_name(world: &World) {
    for transport in ["stream", "http"] {
        let folder = changed_configuration("unknown", |file, text| match file {
            "gateway.yaml" => {
                text.replace(r#""cluster": "weir_store""#, r#""cluster": "weir_stroe""#)
            }
            "start.sh" => text.replace("TRANSPORT=stream", &format!("TRANSPORT={transport}")),
            _ => text,
        });
        let gateway = world.gateway().workers(2).configuration(folder.path());
        let gateway = gateway.policy(Policy::Text(WATCHED.to_owned()));
        let gateway = gateway.start().unwrap();
        let notice = "this Envoy knows no cluster \"weir_stroe\", which is store.cluster";
        deadline::poll(SOON, "word of it in the log", || {
            Ok(gateway.log().contains(notice).then_some(()))
        })
        .unwrap();
        let gauge = || gateway.stat("wasmcustom.weir.store.unknown_cluster");
        deadline::poll(SOON, "every worker in the gauge", || {
            Ok((gauge()? >= Some(2)).then_some(()))
        })
        .unwrap();
        let told = notices(&gateway);
        assert!(told.iter().any(|told| told.contains(notice)), "{told:?}");

        let visitor = Visitor::anonymous(&gateway);
        for _ in 0..4 {
            assert_eq!(visitor.get("/x").status, 200);
        }
        deadline::poll(SOON, "the reason in the log", || {
            let asked =
                format!("Redis is not asked for now, by this worker on 1 of its 1 lane: {notice}");
            Ok(gateway.log().contains(&asked).then_some(()))
        })
        .unwrap();
        let of_it = |line: &&str| line.contains("[error]") && line.contains(notice);
        assert_eq!(gateway.log().lines().filter(of_it).count(), 1, "told once");
    }
}

/// Where clusters come by CDS, one that read a password from a variable that is not set would end
/// Envoy in a worker, long after the start.
fn a_cluster_that_comes_late_needs_no_password_in_the_environment(world: &World) {
    let scratch = Scratch::try_new("cds").unwrap();
    let file = scratch.file("cds.yaml");
    // Envoy sees a file that is moved to its place.
    let publish = |resources: &str| {
        let draft = scratch.file("draft.yaml");
        fs::write(&draft, resources).unwrap();
        fs::rename(&draft, &file).unwrap();
    };
    publish("resources: []\n");
    let dynamic = format!(
        "node: {{ id: weir, cluster: weir }}\ndynamic_resources:\n  cds_config:\n    resource_api_version: V3\n    \
         path_config_source: {{ path: {} }}\nbootstrap_extensions:",
        file.display()
    );
    let folder = changed_configuration("late", |file, text| match file {
        "store-bridge.yaml" => {
            let (others, _) = text.split_once("  - name: weir_redis\n").unwrap();
            others.replace("bootstrap_extensions:", &dynamic)
        }
        "redis-single.yaml" => String::new(),
        _ => text,
    });
    // As Redis's default user, so that there is no password.
    let gateway = world.gateway().redis(world.redis());
    let gateway = gateway.configuration(folder.path()).start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    assert_eq!(visitor.get("/api/v1/items").status, 200);

    let shipped = |name: &str| fs::read_to_string(place::envoy().join(name)).unwrap();
    let bridge = shipped("store-bridge.yaml");
    let (_, cluster) = bridge.split_once("  - name: weir_redis\n").unwrap();
    let cluster = [cluster, &shipped("redis-single.yaml")].concat();
    let redis = world.redis().address();
    let cluster = cluster
        .replace("${REDIS_HOST}", &redis.ip().to_string())
        .replace("${REDIS_PORT}", &redis.port().to_string())
        .replace("${TIMEOUT_SECONDS}", "1s");
    let kind = "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster";
    publish(&format!(
        "resources:\n  - {kind}\n    name: weir_redis\n{cluster}"
    ));
    recovers(&gateway, &visitor, "/api/v1/items");
    assert!(gateway.process().exited().is_none());
}

/// One rule for all paths, and a secret for the operators.
pub const WATCHED: &str = r#"{
    "rules": [{ "name": "all", "pattern": "/**", "ip_limits": { "default":
        { "type": "fixed_window", "limit": 100, "window": 60, "on_store_failure": "allow" } } }],
    "status": { "operator_header": { "name": "x-operator", "value": "an operator's own secret" } }
}"#;

/// What the live page tells of the store.
pub fn notices(gateway: &Gateway) -> Vec<String> {
    let visitor = Visitor::anonymous(gateway).with("x-operator", "an operator's own secret");
    let report = visitor.get("/api/v1/rate-limits/status/gateway");
    let report: Value = report.json().unwrap();
    let notices = report["store"]["notices"].as_array().unwrap();
    notices
        .iter()
        .map(|notice| notice.as_str().unwrap().to_owned())
        .collect()
}
