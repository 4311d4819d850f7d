//! A running Envoy with Weir in it, from the configurations in `envoy/`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::Client;
use crate::process::Process;
use crate::redis::Redis;
use crate::scratch::Scratch;
use crate::sidecar::Sidecar;
use crate::upstream::Upstream;
use crate::{artifact, deadline, parts, place};

/// Compiling the wasm takes Envoy a second or two for each VM, and a loaded machine much longer.
const START: Duration = Duration::from_secs(60);

/// The way to Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Store {
    /// Through Envoy itself.
    Bridge,
    /// Through a weir-sidecar, which the gateway brings and owns.
    Sidecar,
}

/// How Redis is spread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topology {
    Single,
    /// The Redis that is named is any node of a Redis Cluster.
    Cluster,
}

#[derive(Clone, Debug)]
pub enum Policy {
    File(PathBuf),
    Text(String),
}

/// What a gateway is to be. Only a Redis must be named.
#[derive(Clone, Debug)]
#[must_use = "a gateway does nothing until it is started"]
pub struct Builder {
    store: Store,
    policy: Policy,
    redis: Option<(String, u16)>,
    topology: Topology,
    namespace: String,
    user: Option<String>,
    password: Option<String>,
    listen: IpAddr,
    port: u16,
    admin_port: u16,
    workers: usize,
    timeout_ms: u64,
    trust: Value,
    wasm: Option<PathBuf>,
    configuration: PathBuf,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
}

// In the order they are dropped: a process before its folder, and before what it talks to.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    admin: Client,
    envoy: Envoy,
}

/// An Envoy that was started, whatever became of it.
#[derive(Debug)]
struct Envoy {
    process: Process,
    sidecar: Option<Sidecar>,
    upstream: Upstream,
    scratch: Scratch,
}

// === impl Builder ===

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: Store::Bridge,
            policy: Policy::File(place::envoy().join("policy.json")),
            redis: None,
            topology: Topology::Single,
            namespace: String::new(),
            user: None,
            password: None,
            listen: Ipv4Addr::LOCALHOST.into(),
            // Envoy takes free ports by itself.
            port: 0,
            admin_port: 0,
            workers: 2,
            timeout_ms: 50,
            trust: json!(["127.0.0.0/8", "::1/128"]),
            wasm: None,
            configuration: place::envoy(),
            variables: BTreeMap::new(),
            arguments: Vec::new(),
        }
    }
}

impl Builder {
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// The reference policy, `envoy/policy.json`, if nothing else is said.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub fn redis(self, redis: &Redis) -> Self {
        self.redis_at("127.0.0.1", redis.port())
    }

    pub fn redis_at(mut self, host: &str, port: u16) -> Self {
        self.redis = Some((host.to_owned(), port));
        (self.user, self.password) = (None, None);
        self
    }

    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// The environment, where several share a Redis.
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = name.to_owned();
        self
    }

    /// Who Redis knows the gateway as, with the password. Said of the Redis that was named last.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some(name.to_owned());
        self.password(password)
    }

    /// What Redis asks for.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    pub fn listen(mut self, address: impl Into<IpAddr>) -> Self {
        self.listen = address.into();
        self
    }

    /// A free one if nothing is said.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A free one if nothing is said.
    pub fn admin_port(mut self, port: u16) -> Self {
        self.admin_port = port;
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Whose identity headers count: `json!("always")`, `json!("never")`, or a list of CIDRs.
    pub fn trust(mut self, trust: Value) -> Self {
        self.trust = trust;
        self
    }

    /// Another filter than the project's own.
    pub fn wasm(mut self, wasm: impl Into<PathBuf>) -> Self {
        self.wasm = Some(wasm.into());
        self
    }

    /// Another folder than `envoy/` to start from: a copy that says something else.
    pub fn configuration(mut self, folder: impl Into<PathBuf>) -> Self {
        self.configuration = folder.into();
        self
    }

    /// A variable of `envoy/start.sh`, over what this builder would set.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// An argument for Envoy, such as `--log-level`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Result<Gateway> {
        let envoy = self.spawn()?;
        let Some(admin) = envoy.wait_ready()? else {
            let log = envoy.process.log();
            match refusal(&log) {
                Some(reason) => bail!("Envoy refuses the configuration: {reason}"),
                None => bail!("Envoy does not start:\n{log}"),
            }
        };
        let address = deadline::poll(START, "listener of the gateway", || {
            Ok(listener(&admin)?.filter(|address| TcpStream::connect(address).is_ok()))
        })?;
        Ok(Gateway {
            address,
            admin,
            envoy,
        })
    }

    /// Starts it and waits until it gives up; its log says why. [`refusal`] finds the reason in it.
    pub fn start_expecting_refusal(self) -> Result<String> {
        let envoy = self.spawn()?;
        if envoy.wait_ready()?.is_some() {
            bail!("Envoy accepts this configuration");
        }
        Ok(envoy.process.log())
    }

    fn spawn(self) -> Result<Envoy> {
        let (redis_host, redis_port) = self
            .redis
            .context("a gateway needs a Redis: .redis(&redis)")?;
        let wasm = self.wasm.map_or_else(artifact::wasm, Ok)?;
        let upstream = Upstream::start()?;
        let sidecar = match self.store {
            Store::Bridge => None,
            Store::Sidecar => {
                let user = self.user.iter().map(|user| format!("{user}@"));
                let user: String = user.collect();
                let url = format!("redis://{user}{redis_host}:{redis_port}");
                let mut arguments = vec!["--redis", &url, "--namespace", &self.namespace];
                arguments.extend((self.topology == Topology::Cluster).then_some("--cluster"));
                let password = self.password.as_deref();
                Some(Sidecar::start_with(&arguments, self.timeout_ms, password)?)
            }
        };
        let scratch = Scratch::try_new("envoy")?;
        let policy = match self.policy {
            Policy::File(path) => path,
            Policy::Text(text) => {
                let path = scratch.file("policy.json");
                fs::write(&path, text)?;
                path
            }
        };

        let mut command = Command::new("sh");
        command
            .arg(self.configuration.join("start.sh"))
            .arg("--admin-address-path")
            .arg(scratch.file(ADMIN_ADDRESS))
            .args(self.arguments)
            .env("ENVOY", parts::envoy()?)
            .env("RENDERED", scratch.file("gateway.yaml"))
            .env("WASM", wasm)
            .env("POLICY", policy)
            .env("LISTEN", self.listen.to_string())
            .env("PORT", self.port.to_string())
            .env("ADMIN_HOST", Ipv4Addr::LOCALHOST.to_string())
            .env("ADMIN_PORT", self.admin_port.to_string())
            .env("UPSTREAM_HOST", upstream.address().ip().to_string())
            .env("UPSTREAM_PORT", upstream.address().port().to_string())
            .env("REDIS_HOST", redis_host)
            .env("REDIS_PORT", redis_port.to_string())
            .env("REDIS_USERNAME", self.user.unwrap_or_default())
            .env("REDIS_PASSWORD", self.password.unwrap_or_default())
            .env("TOPOLOGY", self.topology.name())
            .env("NAMESPACE", self.namespace)
            .env("TIMEOUT_MS", self.timeout_ms.to_string())
            .env("TRUST", self.trust.to_string())
            .env("WORKERS", self.workers.to_string());
        match &sidecar {
            None => command.env("STORE", "bridge"),
            Some(sidecar) => command
                .env("STORE", "sidecar")
                .env("SIDECAR_HOST", sidecar.address().ip().to_string())
                .env("SIDECAR_PORT", sidecar.address().port().to_string()),
        };
        command.envs(self.variables);
        let process = Process::spawn("Envoy", command, &scratch.file("envoy.log"))?;
        Ok(Envoy {
            process,
            sidecar,
            upstream,
            scratch,
        })
    }
}

// === impl Gateway ===

impl Gateway {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new client of it, with connections of its own.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client of Envoy's admin page.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// A counter or gauge of Envoy's; none that Envoy does not know by this name.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let stats = self.admin.get("/stats").send()?.text();
        let value = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        Ok(value)
    }

    /// All that Envoy has written so far.
    pub fn log(&self) -> String {
        self.envoy.process.log()
    }

    pub fn process(&self) -> &Process {
        &self.envoy.process
    }

    pub fn upstream(&self) -> &Upstream {
        &self.envoy.upstream
    }

    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.envoy.sidecar.as_ref()
    }
}

impl Topology {
    fn name(self) -> &'static str {
        match self {
            Topology::Single => "single",
            Topology::Cluster => "cluster",
        }
    }
}

// === impl Envoy ===

/// The file to which Envoy writes where its admin page is.
const ADMIN_ADDRESS: &str = "admin";

impl Envoy {
    /// A client of the admin page once Envoy serves; none if it ended instead.
    fn wait_ready(&self) -> Result<Option<Client>> {
        let file = self.scratch.file(ADMIN_ADDRESS);
        deadline::poll(START, "answer from Envoy", || {
            if self.process.exited().is_some() {
                return Ok(Some(None));
            }
            let written = fs::read_to_string(&file).unwrap_or_default();
            let Ok(address) = written.trim().parse() else {
                return Ok(None);
            };
            let admin = Client::new(address);
            let is_live = admin
                .get("/ready")
                .send()
                .is_ok_and(|answer| answer.status == 200);
            Ok(is_live.then_some(Some(admin)))
        })
    }
}

/// Where the listener named "gateway" is, once it has a port.
fn listener(admin: &Client) -> Result<Option<SocketAddr>> {
    let listeners = admin.get("/listeners?format=json").send()?.json()?;
    let statuses = listeners["listener_statuses"].as_array();
    let gateway = statuses
        .into_iter()
        .flatten()
        .find(|status| status["name"] == "gateway");
    let Some(socket) = gateway.map(|status| &status["local_address"]["socket_address"]) else {
        return Ok(None);
    };
    let (Some(host), Some(port)) = (socket["address"].as_str(), socket["port_value"].as_u64())
    else {
        return Ok(None);
    };
    let host: IpAddr = host.parse().context("the listener's address")?;
    // Where it listens on every address, it is reached on this one.
    let host = if host.is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        host
    };
    Ok(Some((host, u16::try_from(port)?).into()))
}

/// The reason in the log of an Envoy that gave up: what the filter said, else what Envoy said.
pub fn refusal(log: &str) -> Option<String> {
    let entries = entries(log);
    let of_filter = errors(&entries).find_map(|said| Some(of_filter(said)?.1));
    let of_envoy = || {
        // The whole configuration follows.
        let said = errors(&entries).next()?;
        said.split(" initializing config").next()
    };
    // Neither sh nor a linker writes entries.
    let of_others = || entries.last().map(String::as_str);
    of_filter
        .or_else(of_envoy)
        .or_else(of_others)
        .map(str::to_owned)
}

/// Why the filter with this `root_id` refused its configuration, if it did.
pub fn refusal_by(root_id: &str, log: &str) -> Option<String> {
    let entries = entries(log);
    let own = |said| {
        let (names, reason) = of_filter(said)?;
        (names.split(' ').next() == Some(root_id)).then(|| reason.to_owned())
    };
    errors(&entries).find_map(own)
}

fn errors(entries: &[String]) -> impl Iterator<Item = &str> {
    let entries = entries
        .iter()
        .filter_map(|entry| entry.split_once("] [source/"));
    let errors =
        entries.filter(|(head, _)| head.contains("[error]") || head.contains("[critical]"));
    errors.filter_map(|(_, said)| Some(said.split_once("] ")?.1))
}

/// Envoy's names for a filter, its `root_id` first if it has one, and what the filter said.
fn of_filter(said: &str) -> Option<(&str, &str)> {
    said.strip_prefix("wasm log ")?.split_once(": ")
}

/// A line that does not begin like an entry continues the one before.
fn entries(log: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.lines() {
        match entries.last_mut() {
            Some(entry) if !line.starts_with("[20") => {
                entry.push('\n');
                entry.push_str(line);
            }
            _ => entries.push(line.to_owned()),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_the_filters_own_word_before_envoys() {
        let envoy = "[2026-01-01 00:00:00.000][1][critical][main] [source/server/server.cc:1] error `no wasm` initializing config ' # The way\n# on";
        let filter = "[2026-01-01 00:00:00.000][1][error][wasm] [source/context.cc:2] wasm log weir_limiter: $.rules: is missing\n  add it";
        let info = "[2026-01-01 00:00:00.000][1][info][main] [source/server/server.cc:3] hello";
        let table = [
            (
                format!("{info}\n{filter}\n{envoy}"),
                "$.rules: is missing\n  add it",
            ),
            (format!("{info}\n{envoy}"), "error `no wasm`"),
            (
                "render.sh: cannot read the policy POLICY=x".to_owned(),
                "render.sh: cannot read the policy POLICY=x",
            ),
        ];
        for (log, reason) in table {
            assert_eq!(refusal(&log).as_deref(), Some(reason), "{log}");
        }
        assert_eq!(refusal(""), None);
    }
}
