//! One installation: its manifests, and a gateway that runs by them.

use std::time::Duration;

use serde_json::{Value, json};
use weir_cli::manifests::{
    Claims, Cluster, Images, IstioApi, Limits, Redis as Told, Store, Target, Topology,
};
use weir_lab::artifact;
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::redis::Redis;
use weir_lab::upstream::Upstream;

use crate::manifest::{Services, all};
use crate::proxy::Proxy;
use crate::sidecar::{Secrets, Sidecar, secrets};
use crate::{envoy_gateway, istio, yaml};

/// Who sends what the manifests become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Istio,
    EnvoyGateway,
}

// In the order they are dropped: whoever asks before whoever answers.
pub struct Scene {
    pub proxy: Proxy,
    _upstream: Upstream,
    _sidecar: Option<Sidecar>,
}

/// A policy of one rule: five a day.
pub fn five_logins() -> Value {
    let limit = json!({ "type": "fixed_window", "limit": 5, "window": 86_400 });
    json!({ "rules": [{ "name": "login", "pattern": "/login", "ip_limits": { "default": limit } }] })
}

pub fn limits(policy: &Value) -> Limits {
    Limits {
        policy: serde_json::to_string_pretty(policy).unwrap(),
        trust: vec![],
        namespace: "".parse().unwrap(),
        gateways: 2,
        workers: 2,
        // A machine that is busy with other tests is no reason to count without Redis.
        timeout_ms: 1000,
    }
}

pub fn images() -> Images {
    Images {
        registry: "registry.example.com/weir".to_owned(),
        tag: "1.2.3".to_owned(),
        filter_digest: Some(format!("sha256:{}", "0123456789abcdef".repeat(4))),
    }
}

pub fn told(redis: &Redis) -> Told {
    Told::At {
        url: redis.address().to_string(),
        topology: Topology::Single,
        password: None,
        ca: None,
    }
}

pub fn cluster(provider: Provider, store: Store, redis: Told, policy: &Value) -> Cluster {
    let gateway_namespace = match provider {
        Provider::Istio => "istio-ingress",
        Provider::EnvoyGateway => "default",
    };
    Cluster {
        limits: limits(policy),
        claims: Claims::default(),
        images: images(),
        store,
        redis,
        secret: "between gateway and sidecar".replace(' ', "-"),
        namespace: "weir-system".parse().unwrap(),
        gateway_namespace: gateway_namespace.parse().unwrap(),
    }
}

pub fn gateway() -> Target {
    Target::Gateway("gateway".parse().unwrap())
}

/// What `weirctl install` prints.
pub fn manifests(provider: Provider, cluster: &Cluster) -> Vec<Value> {
    let printed = match provider {
        Provider::Istio => cluster.istio(IstioApi::TrafficExtension, &gateway()),
        Provider::EnvoyGateway => cluster.envoy_gateway(&"gateway".parse().unwrap()),
    };
    yaml::documents(&printed.unwrap())
}

impl Scene {
    pub fn start(provider: Provider, objects: &[Value], redis: &Redis) -> Scene {
        Scene::start_with(provider, objects, redis, &[], vec![])
    }

    /// With Secrets that are there already (name, key, value), and what is in the gateway's
    /// environment besides.
    pub fn start_with(
        provider: Provider,
        objects: &[Value],
        redis: &Redis,
        others: &[(&str, &str, &str)],
        environment: Vec<(String, String)>,
    ) -> Scene {
        let wasm = artifact::wasm().unwrap();
        let upstream = Upstream::start().unwrap();
        let secrets: Secrets = secrets(objects, others);
        let mut services = Services::default();
        services.add(
            "weir-redis.weir-system.svc.cluster.local",
            6379,
            redis.address(),
        );
        let has_sidecar =
            all(objects, "Deployment").any(|it| it["metadata"]["name"] == "weir-store");
        let sidecar = has_sidecar.then(|| Sidecar::start(objects, &services, &secrets));
        if let Some(sidecar) = &sidecar {
            services.add(
                "weir-store.weir-system.svc.cluster.local",
                6380,
                sidecar.address,
            );
        }
        let proxy = match provider {
            Provider::Istio => {
                istio::Gateway::new(objects, &services, &upstream, &wasm).start(environment)
            }
            Provider::EnvoyGateway => {
                envoy_gateway::start(objects, &services, &secrets, &upstream, &wasm)
            }
        };
        Scene {
            proxy,
            _upstream: upstream,
            _sidecar: sidecar,
        }
    }

    /// Five logins pass and the sixth does not, all of them counted in Redis.
    pub fn allows_five_logins(&self) {
        let answers: Vec<Answer> = (0..6).map(|_| self.ask("/login")).collect();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(
            statuses,
            [200, 200, 200, 200, 200, 429],
            "{}",
            self.proxy.log()
        );
        for answer in &answers {
            assert_eq!(
                answer.header("x-weir-degraded"),
                None,
                "{answer:?}\n{}",
                self.proxy.log()
            );
        }
        assert_eq!(self.ask("/other").status, 200);
    }

    /// Until every worker runs the policy of that version.
    pub fn wait_for_policy(&self, version: u64) {
        let oldest = format!("wasmcustom.weir.policy.version: {version}");
        deadline::poll(
            Duration::from_secs(20),
            "gateway with what was published",
            || {
                let stats = self.proxy.admin.get("/stats").send()?.text();
                Ok(stats.lines().any(|line| line == oldest).then_some(()))
            },
        )
        .unwrap();
    }

    pub fn ask(&self, path: &str) -> Answer {
        self.proxy.client.get(path).send().unwrap()
    }
}
