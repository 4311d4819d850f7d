//! One file for a plain Envoy: the gateway of envoy/ with the overlays that envoy/start.sh would
//! have Envoy merge. What such files may look like, their tests say.

use anyhow::{Result, ensure};

use super::template::{Values, block, body};
use super::{HostPort, Limits, Store, Topology, configuration};

/// A gateway that one Envoy runs from one file.
#[derive(Clone, Debug)]
pub struct Envoy {
    pub limits: Limits,
    pub store: Store,
    /// Redis itself, or the sidecar before it.
    pub store_place: HostPort,
    pub topology: Topology,
    /// Whether Redis asks for a password. Envoy reads it from REDIS_PASSWORD, the user from
    /// REDIS_USERNAME.
    pub login: Login,
    pub secret: String,
    pub listen: HostPort,
    pub upstream: HostPort,
    /// The filter, where Envoy can read it.
    pub wasm: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    None,
    FromEnvironment,
}

impl Envoy {
    pub fn configuration(&self) -> Result<String> {
        let values = self.values();
        let mut overlays = match self.store {
            Store::Sidecar => vec![configuration!("store-sidecar.yaml")],
            Store::Bridge => vec![
                configuration!("store-bridge.yaml"),
                match self.topology {
                    Topology::Single => configuration!("redis-single.yaml"),
                    Topology::Cluster => configuration!("redis-cluster.yaml"),
                },
            ],
        };
        if self.login == Login::FromEnvironment {
            ensure!(
                self.store == Store::Bridge,
                "with --store sidecar, Redis asks the sidecar for its password"
            );
            overlays.push(configuration!("redis-auth.yaml"));
        }
        let gateway = values.fill(configuration!("gateway.yaml"))?;
        merged(&gateway, &values.fill(&overlays.concat())?)
    }

    fn values(&self) -> Values {
        let mut values = self.limits.values(self.store);
        let trust = match self.limits.trust.is_empty() {
            true => "\"never\"".to_owned(),
            false => serde_json::json!(self.limits.trust).to_string(),
        };
        values.set("TRUST", trust);
        values.set("POLICY", &self.limits.policy);
        values.set("POLICY_POLL_MS", 2000);
        values.set("WASM", &self.wasm);
        values.set("LISTEN", &self.listen.host);
        values.set("PORT", self.listen.port);
        // Envoy's admin page can end it, so it is for this machine alone.
        values.set("ADMIN_HOST", "127.0.0.1");
        values.set("ADMIN_PORT", 9901);
        values.set("UPSTREAM_HOST", &self.upstream.host);
        values.set("UPSTREAM_PORT", self.upstream.port);
        values.set("ACCESS_LOGS", "[]");
        values.set("DECISIONS", "false");
        values.set("STORE_SECRET", &self.secret);
        values.set("TOPOLOGY", self.topology.name());
        for (host, port) in [
            ("REDIS_HOST", "REDIS_PORT"),
            ("SIDECAR_HOST", "SIDECAR_PORT"),
        ] {
            values.set(host, &self.store_place.host);
            values.set(port, self.store_place.port);
        }
        values
    }
}

/// What `static_resources` holds, as lines of their depth there.
struct Lists {
    listeners: String,
    clusters: String,
}

impl Lists {
    fn of(text: &str) -> Result<Lists> {
        let lines = block(text, "static_resources")?.lines().skip(1);
        let lines = lines.map(|line| line.strip_prefix("  ").unwrap_or(line));
        let resources: String = lines.flat_map(|line| [line, "\n"]).collect();
        let items = |key| -> Result<String> {
            let lines = block(&resources, key)?.lines().skip(1);
            let indent = |line: &str| match line {
                "" => "\n".to_owned(),
                line => format!("  {line}\n"),
            };
            Ok(lines.map(indent).collect())
        };
        Ok(Lists {
            // The sidecar needs none.
            listeners: items("listeners").unwrap_or_default(),
            clusters: items("clusters")?,
        })
    }
}

/// What Envoy itself makes of a configuration and an overlay: their lists become one. It is done by
/// lines, so that the remarks stay.
fn merged(gateway: &str, overlay: &str) -> Result<String> {
    let (own, more) = (Lists::of(gateway)?, Lists::of(overlay)?);
    let head = gateway
        .split("static_resources:\n")
        .next()
        .unwrap_or_default();
    let extensions = match block(overlay, "bootstrap_extensions") {
        Ok(extensions) => format!("{extensions}\n"),
        Err(_) => String::new(),
    };
    let lists = [
        "static_resources:\n  listeners:\n",
        &own.listeners,
        &more.listeners,
    ];
    let clusters = ["\n  clusters:\n", &own.clusters, &more.clusters];
    Ok([body(head), extensions, lists.concat(), clusters.concat()].concat())
}
