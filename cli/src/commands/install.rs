//! `weirctl install`: print what a gateway needs, for `kubectl apply` or for Envoy itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, value_parser};
use serde_json::Value;
use weir_core::codec::namespace::Namespace;
use weir_core::live::poller::Document;

use super::check::tell_mistakes;
use crate::console::Console;
use crate::document::Source;
use crate::exit::Exit;
use crate::manifests::{
    Claims, Cluster, Envoy, HostPort, Images, IstioApi, Labels, Limits, Login, Name, Redis,
    STARTER_POLICY, Store, Target, Topology,
};

/// Print what a gateway needs: manifests for kubectl apply, or Envoy's configuration
#[derive(Args)]
pub struct Install {
    #[command(subcommand)]
    platform: Platform,
}

#[derive(Subcommand)]
enum Platform {
    Istio(Istio),
    EnvoyGateway(EnvoyGateway),
    Envoy(PlainEnvoy),
}

/// For gateways of Istio
#[derive(Args)]
struct Istio {
    /// The Gateway (gateway.networking.k8s.io)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "gateway",
        conflicts_with = "selector"
    )]
    gateway: Name,
    /// Labels of the gateway's pods, where no Gateway object stands for them: istio=ingressgateway
    #[arg(long, value_name = "KEY=VALUE,…")]
    selector: Option<Labels>,
    /// Where the gateway lives
    #[arg(long, value_name = "NAME", default_value = "istio-ingress")]
    gateway_namespace: Name,
    /// The kind of the extension
    #[arg(long, value_enum, default_value = "traffic-extension")]
    api: IstioApi,
    #[command(flatten)]
    cluster: InCluster,
    #[command(flatten)]
    limits: LimitFlags,
}

/// For a Gateway of Envoy Gateway
#[derive(Args)]
struct EnvoyGateway {
    /// The Gateway
    #[arg(long, value_name = "NAME", default_value = "eg")]
    gateway: Name,
    /// Where the Gateway lives
    #[arg(long, value_name = "NAME", default_value = "default")]
    gateway_namespace: Name,
    #[command(flatten)]
    cluster: InCluster,
    #[command(flatten)]
    limits: LimitFlags,
}

/// For an Envoy of your own: one file for --config-path
#[derive(Args)]
struct PlainEnvoy {
    /// The way to Redis
    #[arg(long, value_enum, default_value = "bridge")]
    store: Store,
    /// Redis, or with --store sidecar the weir-sidecar before it: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6379")]
    redis: HostPort,
    /// Redis is a Redis Cluster; --redis names any of its nodes
    #[arg(long)]
    redis_cluster: bool,
    /// Redis asks for a password: Envoy's environment has it in REDIS_PASSWORD, and in
    /// REDIS_USERNAME the user, if only as nothing
    #[arg(long)]
    redis_login: bool,
    /// What a sidecar asks for, if it does
    #[arg(
        long,
        value_name = "SECRET",
        env = "WEIR_STORE_SECRET",
        hide_env_values = true,
        default_value = ""
    )]
    store_secret: String,
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:10000")]
    listen: HostPort,
    /// What the gateway guards
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    upstream: HostPort,
    /// The filter, where Envoy can read it
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/weir.wasm")]
    wasm: String,
    #[command(flatten)]
    limits: LimitFlags,
}

#[derive(Args)]
struct InCluster {
    /// The way to Redis
    #[arg(long, value_enum, default_value = "sidecar")]
    store: Store,
    /// Redis: HOST:PORT, or redis://[user@]HOST:PORT, or rediss:// for TLS
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "throwaway_redis",
        conflicts_with = "throwaway_redis"
    )]
    redis: Option<String>,
    /// Redis is a Redis Cluster; --redis names any of its nodes
    #[arg(long, requires = "redis")]
    redis_cluster: bool,
    /// The Secret with the password of Redis, under the key password; beside the sidecar, or with
    /// --store bridge beside the gateway
    #[arg(long, value_name = "NAME", requires = "redis")]
    redis_password: Option<Name>,
    /// The Secret with who signed the certificate of Redis, under the key ca.crt
    #[arg(long, value_name = "NAME", requires = "redis")]
    redis_ca: Option<Name>,
    /// Make a Redis to try Weir with: without a disk, without a password
    #[arg(long)]
    throwaway_redis: bool,
    /// Where the user stands in what the JWT filter verified: payload,sub
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    user_claim: Vec<String>,
    /// Where the tier stands in it: payload,plan
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    tier_claim: Vec<String>,
    /// Where the sidecar and a throwaway Redis live
    #[arg(long, value_name = "NAME", default_value = "weir-system")]
    store_namespace: Name,
    /// What gateways show the sidecar, 16 characters or more; made up without it
    #[arg(
        long,
        value_name = "SECRET",
        env = "WEIR_STORE_SECRET",
        hide_env_values = true
    )]
    store_secret: Option<String>,
    /// Where the images are
    #[arg(long, value_name = "PREFIX", default_value = "ghcr.io/weir-rs/weir")]
    registry: String,
    /// Which of the images
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// The digest of the filter's manifest; never that of an index
    #[arg(long, value_name = "sha256:…", value_parser = digest)]
    filter_digest: Option<String>,
}

#[derive(Args)]
struct LimitFlags {
    /// The policy to begin with, until one is published; without it, one on trial that refuses
    /// nobody
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Networks of your own proxies before the gateway, whose identity headers are believed;
    /// nobody's without it
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    trust: Vec<String>,
    /// The environment, where several share this Redis
    #[arg(long, value_name = "NAME", env = "WEIR_NAMESPACE", default_value = "")]
    namespace: Namespace,
    /// How many gateways share the limits
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = up_to(100_000))]
    gateways: u32,
    /// How many workers each of them has: Envoy's --concurrency
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = up_to(100_000))]
    workers: u32,
    /// The longest that a request waits for Redis
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = up_to(1000))]
    timeout_ms: u32,
}

impl Install {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let limits = match &self.platform {
            Platform::Istio(istio) => &istio.limits,
            Platform::EnvoyGateway(gateway) => &gateway.limits,
            Platform::Envoy(envoy) => &envoy.limits,
        };
        let Some(limits) = limits.read(console)? else {
            return Ok(Exit::No);
        };
        let printed = match self.platform {
            Platform::Istio(istio) => {
                let target = match istio.selector {
                    Some(labels) => Target::Selector(labels),
                    None => Target::Gateway(istio.gateway),
                };
                let cluster = istio.cluster.read(limits, istio.gateway_namespace)?;
                cluster.istio(istio.api, &target)?
            }
            Platform::EnvoyGateway(gateway) => {
                console.note(&format!(
                    "Gateway {} names the EnvoyProxy: spec.infrastructure.parametersRef: \
                     {{ group: gateway.envoyproxy.io, kind: EnvoyProxy, name: weir }}",
                    gateway.gateway
                ));
                let cluster = gateway.cluster.read(limits, gateway.gateway_namespace)?;
                cluster.envoy_gateway(&gateway.gateway)?
            }
            Platform::Envoy(envoy) => envoy.read(limits).configuration()?,
        };
        console.write_all(printed.as_bytes())?;
        Ok(Exit::Done)
    }
}

impl LimitFlags {
    /// None where the policy has mistakes, which were told. A gateway that starts with such a
    /// policy answers 500 to everybody, so none is printed.
    fn read(&self, console: &mut Console) -> Result<Option<Limits>> {
        let policy = match &self.policy {
            None => STARTER_POLICY.trim_end().to_owned(),
            Some(file) => match read_policy(console, file)? {
                Some(policy) => policy,
                None => return Ok(None),
            },
        };
        Ok(Some(Limits {
            policy,
            trust: self.trust.clone(),
            namespace: self.namespace.clone(),
            gateways: self.gateways,
            workers: self.workers,
            timeout_ms: self.timeout_ms,
        }))
    }
}

/// None where it has mistakes, which were told.
fn read_policy(console: &mut Console, file: &Path) -> Result<Option<String>> {
    let judged = Source::read(file)?.judge();
    match &judged.document {
        Some(Document::Policy(_)) => {}
        Some(Document::Configured) => {
            let name = judged.source.name;
            bail!("{name}: a gateway's own configuration has to be a policy");
        }
        None => {
            tell_mistakes(console, judged)?;
            return Ok(None);
        }
    }
    for warning in &judged.messages {
        console.note_as_is(&warning.render(&judged.source.name, &judged.source.text));
    }
    // Written anew: YAML takes neither JSON's tabs nor all of its escapes.
    let policy: Value = serde_json::from_slice(&judged.text)?;
    Ok(Some(serde_json::to_string_pretty(&policy)?))
}

impl InCluster {
    fn read(self, limits: Limits, gateway_namespace: Name) -> Result<Cluster> {
        let redis = match self.redis {
            None => Redis::Throwaway,
            Some(url) => Redis::At {
                url: url_without_password(&url)?.to_owned(),
                topology: topology(self.redis_cluster),
                password: self.redis_password,
                ca: self.redis_ca,
            },
        };
        let secret = match self.store_secret {
            Some(secret) => secret,
            None => made_up_secret()?,
        };
        let is_printable = |byte: u8| byte.is_ascii_graphic() && !b"\"\\$".contains(&byte);
        ensure!(
            secret.len() >= 16 && secret.bytes().all(is_printable),
            "--store-secret: 16 characters or more of ASCII, without blanks, quotes, \\ and $"
        );
        Ok(Cluster {
            limits,
            claims: Claims {
                user: self.user_claim,
                tier: self.tier_claim,
            },
            images: Images {
                registry: self.registry,
                tag: self.tag,
                filter_digest: self.filter_digest,
            },
            store: self.store,
            redis,
            secret,
            namespace: self.store_namespace,
            gateway_namespace,
        })
    }
}

impl PlainEnvoy {
    fn read(self, limits: Limits) -> Envoy {
        Envoy {
            limits,
            store: self.store,
            store_place: self.redis,
            topology: topology(self.redis_cluster),
            login: match self.redis_login {
                true => Login::FromEnvironment,
                false => Login::None,
            },
            secret: self.store_secret,
            listen: self.listen,
            upstream: self.upstream,
            wasm: self.wasm,
        }
    }
}

/// As many as the filter takes, and at least one.
fn up_to(most: i64) -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=most)
}

fn topology(is_cluster: bool) -> Topology {
    match is_cluster {
        true => Topology::Cluster,
        false => Topology::Single,
    }
}

/// A manifest is no place for a password: whoever reads the objects of a namespace reads it.
fn url_without_password(url: &str) -> Result<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if let Some((login, _)) = rest.rsplit_once('@')
        && login.contains(':')
    {
        bail!("--redis holds a password; put it in a Secret and name that: --redis-password NAME");
    }
    let is_of_url = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@[]%,".contains(&byte);
    ensure!(url.bytes().all(is_of_url), "--redis: {url:?} is no URL");
    let (_, port) = rest
        .rsplit_once(':')
        .ok_or_else(|| anyhow!("--redis: {url} has no port"))?;
    let port = port.split('/').next().unwrap_or_default();
    port.parse::<u16>()
        .map_err(|_| anyhow!("--redis: {port:?} is no port"))?;
    Ok(url)
}

fn digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match digits.len() == 64 && digits.bytes().all(is_digit) {
        true => Ok(format!("sha256:{digits}")),
        false => Err("write sha256: and 64 hexadecimal digits".to_owned()),
    }
}

fn made_up_secret() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the system has no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_or_without_a_port_is_no_place_for_a_manifest() {
        for (url, told) in [
            ("redis://u:p@redis:6379", "holds a password"),
            ("redis", "has no port"),
            ("redis:x", "is no port"),
            ("redis:6379\nx: y", "is no URL"),
        ] {
            let error = url_without_password(url).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        for url in ["redis:6379", "rediss://weir@redis.example.com:6380/1"] {
            assert_eq!(url_without_password(url).unwrap(), url);
        }
    }
}
