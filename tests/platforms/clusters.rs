//! Weir in a cluster, as `weirctl install` prints it.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};
use weir_cli::manifests::{Cluster, IstioApi, Redis as Told, Store, Target, Topology};
use weir_core::worker::config::Config;
use weir_lab::redis::Redis;
use weir_lab::upstream::Upstream;
use weir_lab::{artifact, deadline, place};

use crate::manifest::{Services, items, kind, one, text};
use crate::proxy::write_resource;
use crate::scene::{Provider, Scene, cluster, five_logins, gateway, manifests, told};
use crate::{istio, schema, yaml};

const PROVIDERS: [Provider; 2] = [Provider::Istio, Provider::EnvoyGateway];
const STORES: [Store; 2] = [Store::Sidecar, Store::Bridge];

fn sound(objects: &[Value]) {
    for object in objects {
        let defects = schema::defects(object);
        assert!(defects.is_empty(), "{defects:#?}\n{object:#}");
        let spec = &object["spec"];
        let configured = [
            &spec["wasm"]["pluginConfig"],
            &spec["pluginConfig"],
            &spec["wasm"][0]["config"],
        ];
        for configuration in configured.iter().filter(|it| !it.is_null()) {
            let read = Config::parse(&configuration.to_string());
            assert!(matches!(read, Ok(Config::Limiter(_))), "{read:?}");
        }
    }
}

/// Everything that can be said at once, of a Redis that is a cluster.
fn everything(provider: Provider, store: Store) -> Cluster {
    let redis = Told::At {
        url: match store {
            Store::Sidecar => "rediss://weir@redis.example.com:6380".to_owned(),
            Store::Bridge => "redis://weir@redis.example.com:6380".to_owned(),
        },
        topology: Topology::Cluster,
        password: Some("redis-password".parse().unwrap()),
        ca: (store == Store::Sidecar).then(|| "redis-ca".parse().unwrap()),
    };
    let mut all = cluster(provider, store, redis, &five_logins());
    all.limits.trust = vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
    all.limits.namespace = "staging".parse().unwrap();
    all.claims.user = vec!["payload".to_owned(), "sub".to_owned()];
    all
}

#[test]
fn every_manifest_holds_to_its_schema() {
    for store in STORES {
        for provider in PROVIDERS {
            let throwaway = cluster(provider, store, Told::Throwaway, &five_logins());
            sound(&manifests(provider, &throwaway));
            sound(&manifests(provider, &everything(provider, store)));
        }
        let labels = Target::Selector("istio=ingressgateway".parse().unwrap());
        for target in [gateway(), labels] {
            for api in [IstioApi::TrafficExtension, IstioApi::WasmPlugin] {
                let printed = everything(Provider::Istio, store)
                    .istio(api, &target)
                    .unwrap();
                sound(&yaml::documents(&printed));
            }
        }
    }
}

#[test]
fn a_schema_refuses_what_an_api_would() {
    let all = everything(Provider::Istio, Store::Sidecar);
    for object in manifests(Provider::Istio, &all) {
        let mut misspelt = object.clone();
        let place = if kind(&object) == "Secret" {
            &mut misspelt
        } else {
            &mut misspelt["spec"]
        };
        place["tpyo"] = json!("x");
        if schema::defects(&misspelt).is_empty() {
            // Said aloud where Kubernetes' own schemas cannot be had.
            assert!(!kind(&object).starts_with("Traffic") && !kind(&object).starts_with("Envoy"));
        }
    }
}

#[test]
fn istio_limits_over_the_sidecar() {
    limits(Provider::Istio, Store::Sidecar);
}

#[test]
fn istio_limits_over_the_bridge() {
    limits(Provider::Istio, Store::Bridge);
}

#[test]
fn envoy_gateway_limits_over_the_sidecar() {
    limits(Provider::EnvoyGateway, Store::Sidecar);
}

#[test]
fn envoy_gateway_limits_over_the_bridge() {
    limits(Provider::EnvoyGateway, Store::Bridge);
}

fn limits(provider: Provider, store: Store) {
    let redis = Redis::start().unwrap();
    let objects = manifests(
        provider,
        &cluster(provider, store, told(&redis), &five_logins()),
    );
    Scene::start(provider, &objects, &redis).allows_five_logins();
}

#[test]
fn a_wasm_plugin_limits_as_a_traffic_extension_does() {
    let redis = Redis::start().unwrap();
    let weir = cluster(Provider::Istio, Store::Bridge, told(&redis), &five_logins());
    let labels = Target::Selector("istio=ingressgateway".parse().unwrap());
    let objects = yaml::documents(&weir.istio(IstioApi::WasmPlugin, &labels).unwrap());
    assert_eq!(
        one(&objects, "WasmPlugin")["spec"]["selector"]["matchLabels"]["istio"],
        "ingressgateway"
    );
    Scene::start(Provider::Istio, &objects, &redis).allows_five_logins();
}

/// Of the Secret over the sidecar, and from the gateway's environment over the bridge.
#[test]
fn a_redis_that_asks_for_a_password_gets_it_each_way() {
    const PASSWORD: &str = "open sesame";
    let redis = Redis::start_with_password(PASSWORD).unwrap();
    let secrets = [("redis-password", "password", PASSWORD)];
    for (provider, store) in [
        (Provider::Istio, Store::Sidecar),
        (Provider::Istio, Store::Bridge),
        (Provider::EnvoyGateway, Store::Bridge),
    ] {
        redis.command(&["FLUSHALL"]).unwrap();
        let mut place = told(&redis);
        if let Told::At { password, .. } = &mut place {
            *password = Some("redis-password".parse().unwrap());
        }
        let objects = manifests(provider, &cluster(provider, store, place, &five_logins()));
        // Of Istio's gateways the environment is their Deployment's own: docs/platforms.md shows
        // it.
        let environment = match (provider, store) {
            (Provider::Istio, Store::Bridge) => {
                [("REDIS_USERNAME", ""), ("REDIS_PASSWORD", PASSWORD)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec()
            }
            _ => vec![],
        };
        Scene::start_with(provider, &objects, &redis, &secrets, environment).allows_five_logins();
    }
}

/// The direct peer is believed where its network is named, and whoever comes through it is told
/// apart.
#[test]
fn users_of_a_trusted_peer_are_told_apart() {
    let limit = json!({ "type": "fixed_window", "limit": 1, "window": 86_400 });
    let rule = json!({ "name": "all", "pattern": "/*", "user_limits": { "default": limit } });
    let policy = json!({ "rules": [rule] });
    for provider in PROVIDERS {
        for (trust, statuses) in [
            ("127.0.0.0/8", [200, 200, 429]),
            ("10.0.0.0/8", [200, 429, 429]),
        ] {
            let redis = Redis::start().unwrap();
            let mut weir = cluster(provider, Store::Bridge, told(&redis), &policy);
            weir.limits.trust = vec![trust.to_owned()];
            let scene = Scene::start(provider, &manifests(provider, &weir), &redis);
            let ask = |user: &str| {
                let request = scene.proxy.client.get("/x").header("x-user-id", user);
                // Nobody says by himself who the peer is.
                request
                    .header("x-envoy-is-timeout-retry", "127.0.0.1")
                    .send()
                    .unwrap()
            };
            let answers = [ask("alice"), ask("bob"), ask("alice")];
            let found = answers.each_ref().map(|answer| answer.status);
            assert_eq!(
                found,
                statuses,
                "{provider:?} {trust} {}",
                scene.proxy.log()
            );
            if provider == Provider::Istio {
                assert!(
                    !answers[0].text().contains("x-envoy-is-timeout-retry"),
                    "{:?}",
                    answers[0]
                );
            }
        }
    }
}

/// Why the starter policy alone stands in a chart's configuration, and the others are published.
#[test]
fn a_bad_policy_in_the_configuration_stops_who_starts_and_not_who_runs() {
    let redis = Redis::start().unwrap();
    let wasm = artifact::wasm().unwrap();
    let upstream = Upstream::start().unwrap();
    let start = |objects: &[Value]| {
        let gateway = istio::Gateway::new(objects, &Services::default(), &upstream, &wasm);
        let file = gateway.extension_file();
        (gateway.start(vec![]), file)
    };
    let good = manifests(
        Provider::Istio,
        &cluster(Provider::Istio, Store::Bridge, told(&redis), &five_logins()),
    );
    let mut bad = good.clone();
    for object in bad
        .iter_mut()
        .filter(|object| kind(object) == "TrafficExtension")
    {
        object["spec"]["wasm"]["pluginConfig"]["policy"]["rules"][0]["pattern"] = json!("no-path");
    }

    let (running, file) = start(&good);
    assert_eq!(running.status("/login"), 200);
    let (_, resource) = istio::resource(one(&bad, "TrafficExtension"), &wasm);
    write_resource(&file, &resource);
    deadline::poll(Duration::from_secs(20), "word on the bad policy", || {
        Ok(running.log().contains("no-path").then_some(()))
    })
    .unwrap();
    let still: Vec<u16> = (0..5).map(|_| running.status("/login")).collect();
    assert_eq!(still, [200, 200, 200, 200, 429], "{}", running.log());

    let (starting, _) = start(&bad);
    assert_eq!(starting.status("/login"), 500);
    assert_eq!(starting.status("/other"), 500);
}

/// Both say what redis_proxy is to do, and the limiter's lanes need: Istio's cannot be the file
/// itself.
#[test]
fn istios_bridge_has_the_parts_of_the_shipped_one() {
    let read = |name: &str| std::fs::read_to_string(place::envoy().join(name)).unwrap();
    let shipped = (read("store-bridge.yaml") + &read("redis-single.yaml"))
        .replace("${TIMEOUT_SECONDS}", "1.000s")
        .replace("${REDIS_HOST}", "127.0.0.1")
        .replace("${REDIS_PORT}", "6379");
    let shipped = &yaml::document(&shipped)["static_resources"];
    let redis = Told::At {
        url: "127.0.0.1:6379".to_owned(),
        topology: Topology::Single,
        password: None,
        ca: None,
    };
    let objects = manifests(
        Provider::Istio,
        &cluster(Provider::Istio, Store::Bridge, redis, &five_logins()),
    );
    let patches = &one(&objects, "EnvoyFilter")["spec"]["configPatches"];
    let added = |what: &str| -> Vec<Value> {
        let of = items(patches).filter(|patch| patch["applyTo"] == what);
        of.map(|patch| patch["patch"]["value"].clone()).collect()
    };
    assert_eq!(json!(added("CLUSTER")), shipped["clusters"]);

    let (ours, shipped) = (&added("LISTENER")[0], &shipped["listeners"][0]);
    let filters = |listener: &Value| listener["filter_chains"][0]["filters"].clone();
    assert_eq!(filters(ours)[1], filters(shipped)[1]);
    // Where the code comes from is the one difference.
    let without_code = |mut wasm: Value| {
        wasm["config"]["vm_config"]["code"] = json!(null);
        wasm
    };
    let extension = added("EXTENSION_CONFIG")[0]["typed_config"].clone();
    assert_eq!(
        without_code(extension),
        without_code(filters(shipped)[0]["typed_config"].clone())
    );
    assert_eq!(ours["internal_listener"], shipped["internal_listener"]);
}

/// What Prometheus makes of the names that an Envoy of Istio's gives has the labels of any other
/// gateway.
#[test]
fn istios_pod_monitor_gives_weirs_metrics_their_labels_back() {
    let redis = Redis::start().unwrap();
    let objects = manifests(
        Provider::Istio,
        &cluster(Provider::Istio, Store::Bridge, told(&redis), &five_logins()),
    );
    let scene = Scene::start(Provider::Istio, &objects, &redis);
    scene.allows_five_logins();
    let monitor =
        std::fs::read_to_string(place::project().join("platforms/istio/pod-monitor.yaml"));
    let monitor = yaml::document(&monitor.unwrap().replace("${GATEWAY_POD_LABELS}", "{}"));
    let relabellings = &monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"];

    let refused = (
        "weir_requests_total",
        [
            ("weir_rule", "login"),
            ("weir_scope", "ip"),
            ("weir_outcome", "denied"),
        ],
    );
    let found = deadline::poll(Duration::from_secs(10), "refusal in the statistics", || {
        let scrape = scene.proxy.admin.get("/stats/prometheus").send()?.text();
        let series: Vec<_> = scrape
            .lines()
            .filter_map(|line| series(line, relabellings))
            .collect();
        let is_refusal = |(name, labels): &(String, BTreeMap<String, String>)| {
            name == refused.0
                && refused
                    .1
                    .iter()
                    .all(|(label, value)| labels.get(*label).is_some_and(|of| of == value))
        };
        Ok(series.iter().any(is_refusal).then_some(series))
    });
    let found = found.unwrap();
    // Nothing of a label is left in a name.
    for (name, _) in &found {
        let is_whole = ["_rule_", "_scope_", "_outcome_", "_how_"]
            .iter()
            .all(|part| !name.contains(part));
        assert!(is_whole, "{name}");
    }
}

/// A line of a scrape, relabelled: only Weir's.
fn series(line: &str, relabellings: &Value) -> Option<(String, BTreeMap<String, String>)> {
    let name = line
        .split(['{', ' '])
        .next()
        .filter(|name| name.starts_with("weir_"))?;
    let mut labels = BTreeMap::from([("__name__".to_owned(), name.to_owned())]);
    for relabelling in items(relabellings) {
        assert_eq!(relabelling["sourceLabels"], json!(["__name__"]));
        // Prometheus anchors them.
        let regex = Regex::new(&format!("^(?:{})$", text(&relabelling["regex"]))).unwrap();
        if let Some(captures) = regex.captures(&labels["__name__"].clone()) {
            let mut value = String::new();
            captures.expand(text(&relabelling["replacement"]), &mut value);
            labels.insert(text(&relabelling["targetLabel"]).to_owned(), value);
        }
    }
    let name = labels.remove("__name__")?;
    Some((name, labels))
}

#[test]
fn the_bridge_needs_no_tls_of_its_manifests() {
    let tls = |store| {
        let redis = Told::At {
            url: "rediss://redis.example.com:6380".to_owned(),
            topology: Topology::Single,
            password: None,
            ca: None,
        };
        cluster(Provider::Istio, store, redis, &five_logins())
            .istio(IstioApi::TrafficExtension, &gateway())
            .map_err(|error| error.to_string())
    };
    assert!(tls(Store::Sidecar).is_ok());
    assert!(tls(Store::Bridge).unwrap_err().contains("--store sidecar"));
}
