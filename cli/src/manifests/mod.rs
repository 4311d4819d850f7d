//! The manifests of platforms/ and the configurations of envoy/, for given names. They are the
//! files themselves: the chart fills in the same ones. It knows no cluster, and applies nothing.

mod envoy;
mod name;
mod template;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use weir_core::codec::namespace::Namespace;

pub use envoy::{Envoy, Login};
pub use name::{HostPort, Labels, Name};
use template::{Values, block, body, outdented};

macro_rules! platform {
    ($path:literal) => {
        include_str!(concat!("../../../platforms/", $path))
    };
}

macro_rules! configuration {
    ($path:literal) => {
        include_str!(concat!("../../../envoy/", $path))
    };
}
use configuration;

const LIMITER: &str = platform!("limiter.yaml");
/// Of whoever names no policy: it refuses nobody.
pub const STARTER_POLICY: &str = platform!("starter-policy.json");

/// The header that tells the direct peer, everywhere.
const PEER_HEADER: &str = "x-envoy-is-timeout-retry";

/// The way to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// A Service of its own, weir-store
    Sidecar,
    /// Inside each gateway
    Bridge,
}

/// How many Redis there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    Cluster,
}

/// The Redis that counts.
#[derive(Clone, Debug)]
pub enum Redis {
    /// One that is there already, as a URL without a password.
    At {
        url: String,
        topology: Topology,
        /// The Secret with its password, under the key `password`.
        password: Option<Name>,
        /// The Secret with who signed its certificate, under the key `ca.crt`.
        ca: Option<Name>,
    },
    /// One that is made for a trial.
    Throwaway,
}

/// What every platform is told.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A whole policy, in JSON.
    pub policy: String,
    /// Whose identity headers are believed; nobody's if empty.
    pub trust: Vec<String>,
    pub namespace: Namespace,
    pub gateways: u32,
    pub workers: u32,
    pub timeout_ms: u32,
}

/// Where in the payload of a verified token a user and a tier stand; in headers if nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub user: Vec<String>,
    pub tier: Vec<String>,
}

/// What a cluster pulls.
#[derive(Clone, Debug)]
pub struct Images {
    pub registry: String,
    pub tag: String,
    /// Of the filter's manifest, `sha256:…`; never of an index, which nobody compares.
    pub filter_digest: Option<String>,
}

/// Weir in a cluster, whatever the gateway is.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub limits: Limits,
    pub claims: Claims,
    pub images: Images,
    pub store: Store,
    pub redis: Redis,
    /// What gateways show the sidecar.
    pub secret: String,
    /// Where the sidecar, and a Redis for a trial, live.
    pub namespace: Name,
    pub gateway_namespace: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IstioApi {
    /// Istio 1.30 and later
    TrafficExtension,
    /// Istio before 1.30
    WasmPlugin,
}

/// Which gateway of Istio's.
#[derive(Clone, Debug)]
pub enum Target {
    Gateway(Name),
    /// Labels of its pods, where no Gateway object stands for them.
    Selector(Labels),
}

const REDIS_IMAGE: &str = "redis:7.4.9-alpine";

// === impl Cluster ===

impl Cluster {
    /// For Istio: everything, in the order to apply it in.
    pub fn istio(&self, api: IstioApi, target: &Target) -> Result<String> {
        let mut values = self.values("istio")?;
        let cluster = match self.store {
            Store::Bridge => "weir_store".to_owned(),
            Store::Sidecar => format!("outbound|6380||{}", self.service()),
        };
        values.set("STORE_CLUSTER", cluster);
        let fetch = self
            .images
            .filter_digest
            .as_ref()
            .map_or_else(String::new, |digest| {
                format!("sha256: {}\n", digest.trim_start_matches("sha256:"))
            });
        values.set("FILTER_FETCH", fetch + "imagePullPolicy: IfNotPresent");
        // The agent's word for "do not compare".
        let digest = self.images.filter_digest.as_deref().unwrap_or("nil");
        values.set("FILTER_SHA256", digest.trim_start_matches("sha256:"));
        let (target, workload) = match target {
            Target::Gateway(name) => {
                let references = format!(
                    "targetRefs:\n- {{ group: gateway.networking.k8s.io, kind: Gateway, \
                     name: \"{name}\" }}"
                );
                (references.clone(), references)
            }
            Target::Selector(labels) => (
                format!("selector:\n  matchLabels: {labels}"),
                format!("workloadSelector:\n  labels: {labels}"),
            ),
        };
        values.set("TARGET", target);
        values.set("WORKLOAD", workload);
        self.limiter(&mut values)?;

        let mut parts = self.store(&values)?;
        if self.store == Store::Bridge {
            self.bridge(&mut values)?;
            parts.push(values.fill(platform!("istio/bridge.yaml"))?);
        }
        if !self.limits.trust.is_empty() {
            parts.push(values.fill(platform!("istio/direct-peer.yaml"))?);
        }
        parts.push(values.fill(match api {
            IstioApi::TrafficExtension => platform!("istio/traffic-extension.yaml"),
            IstioApi::WasmPlugin => platform!("istio/wasm-plugin.yaml"),
        })?);
        Ok(parts.join("---\n"))
    }

    /// For Envoy Gateway: everything, in the order to apply it in.
    pub fn envoy_gateway(&self, gateway: &Name) -> Result<String> {
        let mut values = self.values("envoy-gateway-system")?;
        values.set("GATEWAY", gateway);
        values.set("STORE_CLUSTER", "weir_store");
        let fetch = self
            .images
            .filter_digest
            .as_ref()
            .map_or_else(String::new, |digest| {
                format!("sha256: {}", digest.trim_start_matches("sha256:"))
            });
        values.set("FILTER_FETCH", fetch);
        self.limiter(&mut values)?;

        let mut parts = self.store(&values)?;
        let mut bootstrap = block(configuration!("gateway.yaml"), "stats_config")?.to_owned();
        let provider = match self.store {
            Store::Sidecar => {
                values.set("SIDECAR_HOST", self.service());
                values.set("SIDECAR_PORT", 6380);
                bootstrap += &body(&values.fill(configuration!("store-sidecar.yaml"))?);
                String::new()
            }
            Store::Bridge => {
                let (user, ..) = self.bridge(&mut values)?;
                values.set("WASM", "/weir/plugin.wasm");
                bootstrap += &body(&values.fill(configuration!("store-bridge.yaml"))?);
                bootstrap += self.topology_lines();
                values.set("GATEWAY_ENVIRONMENT", self.gateway_environment(&user));
                if self.password().is_some() {
                    bootstrap += configuration!("redis-auth.yaml");
                }
                values.fill(&body(platform!("envoy-gateway/provider-bridge.yaml")))?
            }
        };
        values.set("PROVIDER", provider);
        values.set("BOOTSTRAP", bootstrap);
        parts.push(values.fill(platform!("envoy-gateway/proxy.yaml"))?);
        if !self.limits.trust.is_empty() {
            parts.push(values.fill(platform!("envoy-gateway/direct-peer.yaml"))?);
        }
        parts.push(values.fill(platform!("envoy-gateway/extension-policy.yaml"))?);
        Ok(parts.join("---\n"))
    }

    fn values(&self, proxies: &str) -> Result<Values> {
        let mut values = self.limits.values(self.store);
        // Istio's proxies live where their Gateway does, Envoy Gateway's beside their controller.
        let pods = match proxies {
            "istio" => self.gateway_namespace.to_string(),
            other => other.to_owned(),
        };
        values.set("GATEWAY_PODS_NAMESPACE", pods);
        values.set("GATEWAY_NAMESPACE", &self.gateway_namespace);
        values.set("RELEASE_NAMESPACE", &self.namespace);
        values.set("FILTER_IMAGE", self.images.of("filter"));
        values.set("SIDECAR_IMAGE", self.images.of("sidecar"));
        values.set("REDIS_IMAGE", REDIS_IMAGE);
        let secret = match self.store {
            Store::Sidecar => self.secret.as_str(),
            Store::Bridge => "",
        };
        values.set("STORE_SECRET", secret);
        values.set("TOPOLOGY", self.topology().name());
        Ok(values)
    }

    fn limiter(&self, values: &mut Values) -> Result<()> {
        values.set("POLICY", &self.limits.policy);
        values.set("IDENTITY", self.identity());
        let limiter = values.fill(&body(LIMITER))?;
        values.set("LIMITER", limiter);
        Ok(())
    }

    fn identity(&self) -> Value {
        let mut identity = match self.limits.trust.as_slice() {
            [] => json!({ "trust": "never" }),
            trust => json!({ "trust": trust, "direct_peer": { "header": PEER_HEADER } }),
        };
        for (who, path) in [("user", &self.claims.user), ("tier", &self.claims.tier)] {
            if !path.is_empty() {
                identity[who] = json!({ "claim": path });
            }
        }
        identity
    }

    /// What stands between the gateways and Redis, and a Redis if there is none.
    fn store(&self, values: &Values) -> Result<Vec<String>> {
        let mut values = values.clone();
        let mut parts = vec![values.fill(platform!("store/namespace.yaml"))?];
        if let Redis::Throwaway = self.redis {
            parts.push(values.fill(platform!("store/redis.yaml"))?);
        }
        if self.store == Store::Sidecar {
            let (arguments, environment, files) = self.sidecar();
            values.set("SIDECAR_ARGUMENTS", arguments);
            values.set("SIDECAR_ENVIRONMENT", environment);
            values.set("SIDECAR_FILES", files);
            values.set("SIDECAR_REPLICAS", 2);
            values.set("SIDECAR_RESOURCES", SIDECAR_RESOURCES);
            values.set("PULL_SECRETS", "[]");
            parts.push(values.fill(platform!("store/sidecar.yaml"))?);
        }
        Ok(parts)
    }

    /// The sidecar's arguments, its environment, and the files that it reads.
    fn sidecar(&self) -> (Value, Value, Value) {
        let timeout_ms = (self.limits.timeout_ms * 4 / 5).clamp(1, 500).to_string();
        let mut arguments = vec!["--listen", "0.0.0.0:6380", "--allow-remote"];
        arguments.extend([
            "--secret-file",
            "/run/weir/secret",
            "--timeout-ms",
            &timeout_ms,
        ]);
        let url = self.redis_url();
        arguments.extend(["--redis", &url]);
        let mut environment = vec![];
        let mut files = vec![file("weir-store", "secret")];
        if let Redis::At {
            topology,
            password,
            ca,
            ..
        } = &self.redis
        {
            arguments.extend((*topology == Topology::Cluster).then_some("--cluster"));
            environment.extend(
                password
                    .iter()
                    .map(|secret| of_secret("WEIR_REDIS_PASSWORD", secret)),
            );
            if let Some(ca) = ca {
                arguments.extend(["--redis-ca", "/run/weir/ca.crt"]);
                files.push(file(&ca.to_string(), "ca.crt"));
            }
        }
        if let Some(name) = self.limits.namespace.name() {
            arguments.extend(["--namespace", name]);
        }
        (json!(arguments), json!(environment), json!(files))
    }

    /// What the bridge's templates need; the user and the address of its Redis.
    fn bridge(&self, values: &mut Values) -> Result<(String, HostPort)> {
        let url = self.redis_url();
        let Some(rest) = url.strip_prefix("redis://") else {
            bail!(
                "{url}: the bridge's manifests have no TLS; take --store sidecar, or add a \
                 transport_socket"
            );
        };
        ensure!(
            !matches!(&self.redis, Redis::At { ca: Some(_), .. }),
            "--redis-ca is for --store sidecar: the bridge's manifests have no TLS"
        );
        let (user, address) = rest.rsplit_once('@').unwrap_or(("", rest));
        let address: HostPort = address.parse()?;
        values.set("REDIS_HOST", &address.host);
        values.set("REDIS_PORT", address.port);
        let mut lines = outdented(self.topology_lines());
        if self.password().is_some() {
            lines += &outdented(configuration!("redis-auth.yaml"));
        }
        values.set("REDIS_CLUSTER", lines);
        Ok((user.to_owned(), address))
    }

    /// Both variables must be there, if only as nothing: Envoy ends where one is not.
    fn gateway_environment(&self, user: &str) -> String {
        let Some(secret) = self.password() else {
            return String::new();
        };
        let environment = [
            json!({ "name": "REDIS_USERNAME", "value": user }),
            of_secret("REDIS_PASSWORD", secret),
        ];
        format!("env: {}", json!(environment))
    }

    fn topology_lines(&self) -> &'static str {
        match self.topology() {
            Topology::Single => configuration!("redis-single.yaml"),
            Topology::Cluster => configuration!("redis-cluster.yaml"),
        }
    }

    fn topology(&self) -> Topology {
        match &self.redis {
            Redis::At { topology, .. } => *topology,
            Redis::Throwaway => Topology::Single,
        }
    }

    fn password(&self) -> Option<&Name> {
        match &self.redis {
            Redis::At { password, .. } => password.as_ref(),
            Redis::Throwaway => None,
        }
    }

    fn redis_url(&self) -> String {
        match &self.redis {
            Redis::At { url, .. } if url.contains("://") => url.clone(),
            Redis::At { url, .. } => format!("redis://{url}"),
            Redis::Throwaway => {
                format!(
                    "redis://weir-redis.{}.svc.cluster.local:6379",
                    self.namespace
                )
            }
        }
    }

    fn service(&self) -> String {
        format!("weir-store.{}.svc.cluster.local", self.namespace)
    }
}

const SIDECAR_RESOURCES: &str =
    r#"{"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}"#;

/// A file of a projected volume, which has the name of its key in the Secret.
fn file(secret: &str, key: &str) -> Value {
    json!({ "secret": { "name": secret, "items": [{ "key": key, "path": key }] } })
}

fn of_secret(variable: &str, secret: &Name) -> Value {
    let key = json!({ "name": secret.to_string(), "key": "password" });
    json!({ "name": variable, "valueFrom": { "secretKeyRef": key } })
}

// === impl Limits ===

impl Limits {
    fn values(&self, store: Store) -> Values {
        let mut values = Values::default();
        values.set(
            "TRANSPORT",
            match store {
                Store::Sidecar => "http",
                Store::Bridge => "stream",
            },
        );
        values.set("NAMESPACE", self.namespace.name().unwrap_or_default());
        values.set("GATEWAYS", self.gateways);
        values.set("WORKERS", self.workers);
        values.set("TIMEOUT_MS", self.timeout_ms);
        let (seconds, millis) = (self.timeout_ms / 1000, self.timeout_ms % 1000);
        values.set("TIMEOUT_SECONDS", format!("{seconds}.{millis:03}s"));
        values
    }
}

// === impl Images ===

impl Images {
    fn of(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.tag)
    }
}

// === impl Topology ===

impl Topology {
    fn name(self) -> &'static str {
        match self {
            Topology::Single => "single",
            Topology::Cluster => "cluster",
        }
    }
}
