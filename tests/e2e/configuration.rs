//! What Envoy says of a policy when it starts, and of the configuration around it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_lab::gateway::{self, Gateway, Policy};
use weir_lab::scratch::Scratch;
use weir_lab::{artifact, deadline, place};

use crate::failure::recovers;
use crate::visitor::{Visitor, remaining};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    every_defect_is_refused_with_its_message,
    envoy_does_not_start_with_a_defect,
    the_rules_are_told_once_whatever_the_number_of_workers,
    limiter_and_bridge_in_one_vm_are_refused,
    a_configuration_that_is_a_struct_is_read,
    a_cluster_that_this_envoy_does_not_know_is_told_by_name,
    a_cluster_that_comes_late_needs_no_password_in_the_environment,
];

/// A listener for each defect, because an Envoy for each would spend its time on compiling the filter.
fn every_defect_is_refused_with_its_message(world: &World) {
    let defects = defects();
    assert!(defects.len() > 30, "{} defects", defects.len());
    let wasm = artifact::wasm().unwrap();
    let listeners: Vec<Value> = defects
        .iter()
        .map(|policy| listener(policy, &wasm))
        .collect();
    let scratch = Scratch::try_new("lds").unwrap();
    let file = scratch.file("lds.json");
    fs::write(&file, json!({ "resources": listeners }).to_string()).unwrap();
    let dynamic = format!(
        "node: {{ id: weir, cluster: weir }}\ndynamic_resources:\n  lds_config:\n    \
         resource_api_version: V3\n    path_config_source: {{ path: {} }}\nstatic_resources:",
        file.display()
    );
    let folder = changed_configuration("defects", |_, text| {
        text.replacen("static_resources:", &dynamic, 1)
    });
    let gateway = world.gateway().workers(1).configuration(folder.path());
    let gateway = gateway.start().unwrap();
    deadline::poll(SOON, "word of the listeners", || {
        let rejected = gateway.stat("listener_manager.lds.update_rejected")?;
        Ok((rejected == Some(1)).then_some(()))
    })
    .unwrap();
    let log = gateway.log();
    let wrong = defects.iter().filter_map(|policy| misjudged(policy, &log));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
    let listeners = gateway.admin().get("/listeners").send().unwrap().text();
    let names = listeners.lines().filter_map(|line| line.split("::").next());
    assert_eq!(names.collect::<Vec<_>>(), ["gateway", "weir_bridge"]);
}

fn envoy_does_not_start_with_a_defect(world: &World) {
    let policy = place::project().join("tests/config/zero_limit.json");
    let gateway = world.gateway().policy(Policy::File(policy.clone()));
    let log = gateway.start_expecting_refusal().unwrap();
    let told = gateway::refusal(&log).unwrap();
    assert_eq!(told, format!("weir: {}", message(&policy)));
}

/// A gateway with this policy, beside the one that Envoy starts with: in its VM, and named as the file is.
fn listener(policy: &Path, wasm: &Path) -> Value {
    let text = fs::read_to_string(policy).unwrap();
    let configuration =
        format!(r#"{{"role": "limiter", "identity": {{"trust": "never"}}, "policy": {text}}}"#);
    let kind = |name: &str| format!("type.googleapis.com/{name}");
    let filter = json!({
        "@type": kind("envoy.extensions.filters.http.wasm.v3.Wasm"),
        "config": {
            "name": name(policy),
            // Stands before what the filter says.
            "root_id": name(policy),
            "vm_config": {
                "vm_id": "weir_limiter",
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": wasm } },
            },
            "configuration": {
                "@type": kind("google.protobuf.StringValue"),
                "value": configuration,
            },
        },
    });
    let router = json!({ "@type": kind("envoy.extensions.filters.http.router.v3.Router") });
    let manager =
        kind("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
    json!({
        "@type": kind("envoy.config.listener.v3.Listener"),
        "name": name(policy),
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": manager,
                "stat_prefix": "defect",
                "route_config": {},
                "http_filters": [
                    { "name": "envoy.filters.http.wasm", "typed_config": filter },
                    { "name": "envoy.filters.http.router", "typed_config": router },
                ],
            },
        }] }],
    })
}

fn name(policy: &Path) -> &str {
    policy.file_stem().unwrap().to_str().unwrap()
}

/// As the log has it: in one line, whatever there is.
fn message(policy: &Path) -> String {
    let message = fs::read_to_string(policy.with_extension("txt")).unwrap();
    let lines: Vec<&str> = message.lines().collect();
    let [only] = lines.as_slice() else {
        let numbered = lines.iter().zip(1..);
        let numbered = numbered.map(|(line, number)| format!(" ({number}) {line}"));
        return format!("{} mistakes:{}", lines.len(), numbered.collect::<String>());
    };
    (*only).to_owned()
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
fn misjudged(policy: &Path, log: &str) -> Option<String> {
    let told = gateway::refusal_by(name(policy), log).unwrap_or("accepted".to_owned());
    let expected = format!("weir: {}", message(policy));
    (told != expected).then(|| {
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
