//! The Helm chart, linted, rendered and run.

use serde_json::{Value, json};
use weir_cli::manifests::{Redis as Told, STARTER_POLICY, Store, Topology};
use weir_cli::publication::{Note, Outcome, Shelf};
use weir_core::codec::namespace::Namespace;
use weir_lab::place;
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;

use crate::helm::Helm;
use crate::manifest::{all, kind, name, one, text};
use crate::scene::{Provider, Scene, cluster, five_logins, images, manifests};
use crate::schema;

/// What each installation says at least.
const TRIAL: &str = "redis.throwaway=true";

#[test]
fn the_chart_is_linted_and_each_of_its_objects_holds_to_its_schema() {
    let Some(helm) = Helm::find() else { return };
    let policy = format!("policy.document={}", five_logins());
    let monitoring = [
        "monitoring.podMonitor=true",
        "monitoring.alerts=true",
        "monitoring.dashboard=true",
    ];
    let external = [
        "redis.url=redis://weir@redis.example.com:6379",
        "redis.passwordSecret=redis",
        "redis.cluster=true",
    ];
    for provider in ["istio", "envoy-gateway"] {
        for store in ["sidecar", "bridge"] {
            let own = [format!("provider={provider}"), format!("store={store}")];
            let own = own.each_ref().map(String::as_str);
            for more in [
                &[TRIAL, &policy][..],
                &external,
                &[TRIAL, "trust[0]=10.0.0.0/8"],
            ] {
                let values = [&own, &monitoring[..], more].concat();
                let linted = helm.lint(&values);
                assert!(linted.status.success(), "{values:?} {linted:?}");
                let objects = helm.template(&values).unwrap();
                for object in &objects {
                    let defects = schema::defects(object);
                    assert!(defects.is_empty(), "{values:?} {defects:#?}\n{object:#}");
                }
                for kind in ["PodMonitor", "PrometheusRule"] {
                    one(&objects, kind);
                }
            }
        }
    }
}

/// The chart fills in the same files, by a renderer of its own.
#[test]
fn the_chart_installs_what_weirctl_prints() {
    let Some(helm) = Helm::find() else { return };
    for (provider, word, namespace) in [
        (Provider::Istio, "istio", "istio-ingress"),
        (Provider::EnvoyGateway, "envoy-gateway", "default"),
    ] {
        for (store, way) in [(Store::Sidecar, "sidecar"), (Store::Bridge, "bridge")] {
            for is_trial in [true, false] {
                let (redis, told) = match is_trial {
                    true => (vec![TRIAL], Told::Throwaway),
                    false => (
                        vec![
                            "redis.url=redis://weir@redis.example.com:6379",
                            "redis.passwordSecret=pw",
                            "redis.cluster=true",
                        ],
                        Told::At {
                            url: "redis://weir@redis.example.com:6379".to_owned(),
                            topology: Topology::Cluster,
                            password: Some("pw".parse().unwrap()),
                            ca: None,
                        },
                    ),
                };
                let policy: Value = serde_json::from_str(STARTER_POLICY).unwrap();
                let mut weir = cluster(provider, store, told, &policy);
                weir.limits.trust = vec!["10.0.0.0/8".to_owned()];
                weir.limits.namespace = "staging".parse().unwrap();
                weir.claims.tier = vec!["payload".to_owned(), "plan".to_owned()];
                let digest = images().filter_digest.unwrap();
                let own = [
                    format!("provider={word}"),
                    format!("store={way}"),
                    format!("gateway.namespace={namespace}"),
                    format!("sidecar.secret={}", weir.secret),
                    format!("image.registry={}", images().registry),
                    format!("image.tag={}", images().tag),
                    format!("image.filterDigest={digest}"),
                    "timeoutMs=1000".to_owned(),
                    "namespace=staging".to_owned(),
                    "trust[0]=10.0.0.0/8".to_owned(),
                    "claims.tier[0]=payload".to_owned(),
                    "claims.tier[1]=plan".to_owned(),
                ];
                let values: Vec<&str> = own.iter().map(String::as_str).chain(redis).collect();
                let mut installed = helm.template(&values).unwrap();
                installed.iter_mut().for_each(unlabelled);
                let mut printed = manifests(provider, &weir);
                // --create-namespace makes it.
                printed.retain(|object| kind(object) != "Namespace");
                for objects in [&mut installed, &mut printed] {
                    objects
                        .sort_by_key(|object| (kind(object).to_owned(), name(object).to_owned()));
                    objects.iter_mut().for_each(read_bootstrap);
                }
                assert_eq!(installed.len(), printed.len());
                for (installed, printed) in installed.iter().zip(&printed) {
                    assert_eq!(
                        installed,
                        printed,
                        "{} {}",
                        kind(installed),
                        name(installed)
                    );
                }
            }
        }
    }
}

fn unlabelled(object: &mut Value) {
    object["metadata"].as_object_mut().unwrap().remove("labels");
}

/// A bootstrap is text in an EnvoyProxy; its remarks may differ.
fn read_bootstrap(object: &mut Value) {
    if let Some(bootstrap) = object["spec"]["bootstrap"]["value"].as_str() {
        object["spec"]["bootstrap"]["value"] = crate::yaml::document(bootstrap);
    }
}

/// `helm install` refuses nobody; `weirctl push` does what the policy says.
#[test]
fn what_the_chart_installs_refuses_nobody_until_a_policy_is_published() {
    let Some(helm) = Helm::find() else { return };
    for (provider, word) in [
        (Provider::Istio, "istio"),
        (Provider::EnvoyGateway, "envoy-gateway"),
    ] {
        let redis = Redis::start().unwrap();
        let provider_is = format!("provider={word}");
        let objects = helm
            .template(&[TRIAL, &provider_is, "timeoutMs=1000"])
            .unwrap();
        let scene = Scene::start(provider, &objects, &redis);
        for _ in 0..15 {
            let answer = scene.proxy.client.post("/login", "").send().unwrap();
            assert_eq!(
                (answer.status, answer.header("x-weir-degraded")),
                (200, None)
            );
        }
        let mut connection = redis.connection().unwrap();
        let mut shelf = Shelf::new(&mut connection, &Namespace::default());
        let policy = five_logins().to_string();
        let published = shelf
            .publish(None, policy.as_bytes(), &Note::default())
            .unwrap();
        let Outcome::Published { version } = published else {
            panic!("{published:?}")
        };
        scene.wait_for_policy(version);
        scene.allows_five_logins();
    }
}

#[test]
fn values_that_are_wrong_are_refused_with_their_names() {
    let Some(helm) = Helm::find() else { return };
    for (values, told) in [
        (&["provider=nginx", TRIAL][..], "provider"),
        (&[][..], "redis/url"),
        (&[TRIAL, "redis.url=redis:6379"], "redis/url"),
        (&["redis.url=redis://a:b@redis:6379"], "redis/url"),
        (
            &["redis.url=rediss://redis:6379", "store=bridge"],
            "redis/url",
        ),
        (&[TRIAL, "gateways=0"], "gateways"),
        (&[TRIAL, "gateway.nmae=x"], "nmae"),
        (&[TRIAL, "sidecar.secret=short"], "sidecar/secret"),
        (
            &[TRIAL, "image.filterDigest=sha256:12"],
            "image/filterDigest",
        ),
    ] {
        let said = helm.template(values).unwrap_err();
        let said = said.replace('.', "/");
        assert!(said.contains(told), "{values:?}: {said}");
    }
    let policy = format!("policy.document={}", five_logins());
    let twice = helm
        .template(&[TRIAL, &policy, "policy.configMap=mine"])
        .unwrap_err();
    assert!(twice.contains("say one of them"), "{twice}");
}

#[test]
fn a_policy_of_the_values_is_published_by_a_job() {
    let Some(helm) = Helm::find() else { return };
    let policy = format!("policy.document={}", five_logins());
    let objects = helm.template(&[TRIAL, &policy]).unwrap();
    let configured = all(&objects, "ConfigMap")
        .find(|object| name(object) == "weir-policy")
        .unwrap();
    let document: Value = serde_json::from_str(text(&configured["data"]["policy.json"])).unwrap();
    assert_eq!(document, five_logins());
    let pod = &one(&objects, "Job")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["configMap"]["name"], "weir-policy");
    let arguments = &pod["containers"][0]["args"];
    assert_eq!(
        (&arguments[0], &arguments[1]),
        (&json!("push"), &json!("/policy/policy.json"))
    );
}

#[test]
fn notes_end_with_the_next_two_commands() {
    let Some(helm) = Helm::find() else { return };
    let notes = helm.notes(&[TRIAL]);
    for command in [
        "curl -i http://GATEWAY/api/v1/rate-limits/status",
        "weirctl push policy.json --redis 127.0.0.1:6379",
    ] {
        assert!(notes.contains(command), "{notes}");
    }
    assert!(notes.contains("refuse nobody"), "{notes}");
    let notes = helm.notes(&["redis.url=redis.example.com:6379", "provider=envoy-gateway"]);
    assert!(
        notes.contains("parametersRef") && notes.contains("--redis redis.example.com:6379"),
        "{notes}"
    );
}

/// Its manifests are links in the tree, and files in what is published.
#[test]
fn a_packaged_chart_holds_its_manifests_and_nothing_else_of_their_folders() {
    let Some(helm) = Helm::find() else { return };
    let scratch = Scratch::try_new("chart").unwrap();
    let files = helm.package(scratch.path());
    for file in [
        "istio/bridge.yaml",
        "store/sidecar.yaml",
        "envoy/store-bridge.yaml",
        "monitoring/alerts.yaml",
    ] {
        assert!(
            files.contains(&format!("weir/manifests/{file}")),
            "{file}: {files:?}"
        );
    }
    let stray = files
        .iter()
        .find(|file| file.ends_with(".sh") || file.contains("test"));
    assert_eq!(stray, None);
}

#[test]
fn the_chart_has_the_version_of_the_project() {
    let chart =
        std::fs::read_to_string(place::project().join("platforms/helm/weir/Chart.yaml")).unwrap();
    let chart = crate::yaml::document(&chart);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&json!(version), &json!(version))
    );
}
