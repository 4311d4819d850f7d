//! The demonstration: everything started, explained, watched and stopped.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, ToSocketAddrs};
use std::path::{Display, Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use weir_core::codec::namespace::Namespace;
use weir_core::live::poller::Document;
use weir_core::request::subject::hex_digest;
use weir_lab::gateway::{Gateway, Policy, Store};
use weir_lab::process::Process;
use weir_lab::redis::{self, Redis};
use weir_lab::sidecar::Sidecar;
use weir_lab::{artifact, parts, place, port};

use crate::bell::{Bell, Wish};

/// The header that the demo's secret goes in.
const OPERATORS: &str = "X-Weir-Operator";

/// How soon the end of a part is noticed.
const WATCH: Duration = Duration::from_millis(200);
/// Where the Makefile looks for the demo's Redis, unless it is told otherwise.
const REDIS_PORT: u16 = 16_379;

#[derive(Args, Debug)]
pub struct Settings {
    /// Where the gateway listens, an IPv4 address
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1")]
    listen: Ipv4Addr,
    /// The gateway's port
    #[arg(long, env = "PORT", default_value_t = 10_000)]
    port: u16,
    /// Envoy's admin page
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9901)]
    admin_port: u16,
    /// For the Redis that is started
    #[arg(long, env = "REDIS_PORT", default_value_t = REDIS_PORT)]
    redis_port: u16,
    /// A Redis that runs already, as HOST:PORT
    #[arg(long, env = "REDIS")]
    redis: Option<String>,
    /// The environment, where several share a Redis
    #[arg(long, env = "NAMESPACE", default_value = "")]
    namespace: Namespace,
    /// Who that Redis knows this as, if not as its default user
    #[arg(long, env = "REDIS_USERNAME")]
    redis_username: Option<String>,
    /// What that Redis asks for
    #[arg(long, env = "REDIS_PASSWORD", hide_env_values = true)]
    redis_password: Option<String>,
    /// The rules
    #[arg(long, env = "POLICY", default_value_os_t = place::envoy().join("policy.json"))]
    policy: PathBuf,
    /// The way to Redis
    #[arg(long, env = "STORE", default_value = "bridge")]
    store: Way,
    /// Envoy's worker threads
    #[arg(long, env = "WORKERS", default_value_t = 2)]
    workers: usize,
    /// The longest wait for the store
    #[arg(long, env = "TIMEOUT_MS", default_value_t = 50)]
    timeout_ms: u64,
    /// The peers whose identity headers count, as a JSON list of networks
    #[arg(
        long,
        env = "TRUST",
        default_value = r#"["127.0.0.0/8", "::1/128"]"#,
        value_parser = |text: &str| text.parse::<Value>()
    )]
    trust: Value,
    /// Where it runs, which decides how one speaks to it
    #[arg(
        long = "in",
        env = "WEIR_DEMO",
        default_value = "checkout",
        hide = true
    )]
    site: Site,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Site {
    /// Where there is make, and the files are.
    Checkout,
    /// In an image of its own, where only the engine reaches it.
    Container,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Bridge,
    Sidecar,
}

/// Where Redis is, and the one that this run owns.
struct Backend {
    host: String,
    port: u16,
    own: Option<Redis>,
    site: Site,
}

pub fn run(settings: &Settings) -> Result<()> {
    check(settings)?;
    // From here on a signal is an order to stop, not a sudden end.
    let stop = stop_signal()?;

    artifact::wasm()?;
    if matches!(settings.store, Way::Sidecar) {
        artifact::sidecar()?;
    }
    parts::envoy()?;
    let mut backend = Backend::open(settings)?;
    println!("starting Envoy");
    let operators = Operators::of(settings)?;
    let gateway = start_gateway(settings, &backend, &operators)?;
    if stop.try_recv().is_ok() {
        return Ok(());
    }
    explain(settings, &backend, &gateway, &operators);
    watch(&stop, &mut backend, &gateway)?;
    println!("stopping");
    Ok(())
}

/// What can be refused before anything is built or started.
fn check(settings: &Settings) -> Result<()> {
    port::claim(settings.listen, settings.port, "PORT")?;
    port::claim(Ipv4Addr::LOCALHOST, settings.admin_port, "ADMIN_PORT")?;
    if settings.redis.is_none() {
        port::claim(Ipv4Addr::LOCALHOST, settings.redis_port, "REDIS_PORT")?;
    }
    if !settings.policy.is_file() {
        bail!(
            "POLICY={}: there is no such file",
            settings.policy.display()
        );
    }
    Ok(())
}

impl Backend {
    fn open(settings: &Settings) -> Result<Self> {
        let Some(address) = settings
            .redis
            .as_deref()
            .filter(|address| !address.is_empty())
        else {
            let own = Redis::start_on(settings.redis_port, &[])?;
            return Ok(Self {
                host: "127.0.0.1".to_owned(),
                port: own.port(),
                own: Some(own),
                site: settings.site,
            });
        };
        let parts = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.with_context(|| format!("REDIS={address}: must be HOST:PORT"))?;
        let known = (host, port).to_socket_addrs();
        let known: Vec<_> = known.into_iter().flatten().collect();
        let (user, password) = settings.login();
        let visits = known
            .iter()
            .map(|known| redis::visit(*known, user, password));
        // Where the first address of a name leads nowhere, another may.
        let visit = visits.reduce(|first, next| first.or(next));
        let visit = visit.unwrap_or_else(|| bail!("no host has that name"));
        if let Some(notice) = visit.with_context(|| format!("REDIS={address}"))? {
            println!("warning: {notice}");
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            own: None,
            site: settings.site,
        })
    }

    /// What is to be said of this run's own Redis once, after it ended by itself.
    fn loss(&mut self) -> Option<String> {
        let own = self.own.as_mut()?;
        let status = own.server().ok()?.exited()?;
        own.stop();
        Some(format!("Redis has ended ({status}). {}", self.without()))
    }

    fn grant(&mut self, wish: Wish) -> String {
        let again = self.without();
        let Some(own) = &mut self.own else {
            return "This Redis is not the demo's own.".to_owned();
        };
        let runs = own.server().is_ok();
        match wish {
            Wish::Outage if runs => {
                own.stop();
                format!("Redis is killed. {again}")
            }
            Wish::Outage => format!("Redis was gone before. {again}"),
            Wish::Recovery if runs => format!("Redis runs on {}:{}.", self.host, self.port),
            Wish::Recovery => match own.restart() {
                Ok(()) => format!(
                    "Redis is back on {}:{}, empty. Every count begins anew. A policy that was pushed \
                     stays in force;\npush it again, so that a gateway which starts later has it too.",
                    self.host, self.port
                ),
                Err(error) => format!("Redis does not start: {error:#}"),
            },
        }
    }

    fn without(&self) -> String {
        format!(
            "The demo goes on without it: each limit does what its on_store_failure says. By default \
             each worker\nkeeps its share of it in memory. Answers carry x-weir-degraded. Redis starts \
             again by: {}",
            self.asked("recovery")
        )
    }

    /// How the demo is asked for its outage and its recovery.
    fn asked(&self, wish: &str) -> String {
        match self.site {
            Site::Checkout => format!("make demo-{wish}{}", self.for_make()),
            Site::Container => format!("docker exec {} weir-lab {wish}", container()),
        }
    }

    /// How a policy is published for it.
    fn pushed(&self, settings: &Settings) -> String {
        let namespace = settings.namespace.name();
        match self.site {
            Site::Checkout => format!(
                "make policy-push FILE={}{}{}",
                short(&settings.policy),
                self.for_make(),
                namespace.map_or_else(String::new, |name| format!(" NAMESPACE={name}"))
            ),
            Site::Container => format!(
                "docker exec -i {} weirctl push -{} < policy.json",
                container(),
                namespace.map_or_else(String::new, |name| format!(" --namespace {name}"))
            ),
        }
    }

    /// What `make` has to be told to mean this Redis.
    fn for_make(&self) -> String {
        match (&self.own, self.port) {
            (Some(_), REDIS_PORT) => String::new(),
            (Some(_), port) => format!(" REDIS_PORT={port}"),
            (None, port) => format!(" REDIS={}:{port}", self.host),
        }
    }
}

/// Who may look at the live page: whoever has the secret that this run made up, where the policy names
/// nobody. The policy that Envoy is given has the secret's hash; the secret is on the screen alone.
struct Operators {
    policy: Policy,
    secret: Option<String>,
}

impl Operators {
    fn of(settings: &Settings) -> Result<Self> {
        let named = Self {
            policy: Policy::File(settings.policy.clone()),
            secret: None,
        };
        let text = fs::read(&settings.policy)?;
        // What is no policy is for Envoy to refuse, as it was written.
        let Ok(Document::Policy(policy)) = Document::read(&text) else {
            return Ok(named);
        };
        if policy.status.operator_header.is_some() || policy.status.operator_tier.is_some() {
            return Ok(named);
        }
        let mut policy: Value = serde_json::from_slice(&text)?;
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let sha256 = hex_digest(secret.as_bytes());
        policy["status"]["operator_header"] = json!({ "name": OPERATORS, "sha256": sha256 });
        Ok(Self {
            policy: Policy::Text(policy.to_string()),
            secret: Some(secret),
        })
    }

    fn explain(&self, url: &str) {
        let page = format!("{url}/api/v1/rate-limits/status/page");
        match &self.secret {
            Some(secret) => println!("The live page       {page}, with the secret {secret}"),
            None => println!("The live page       {page}, for the policy's operators"),
        }
    }
}

impl Settings {
    /// For a Redis that runs already.
    fn login(&self) -> (Option<&str>, Option<&str>) {
        fn given(value: Option<&String>) -> Option<&str> {
            value.map(String::as_str).filter(|value| !value.is_empty())
        }
        (
            given(self.redis_username.as_ref()),
            given(self.redis_password.as_ref()),
        )
    }
}

fn start_gateway(settings: &Settings, backend: &Backend, operators: &Operators) -> Result<Gateway> {
    let store = match settings.store {
        Way::Bridge => Store::Bridge,
        Way::Sidecar => Store::Sidecar,
    };
    let gateway = Gateway::builder()
        .store(store)
        .policy(operators.policy.clone())
        .redis_at(&backend.host, backend.port)
        .namespace(settings.namespace.name().unwrap_or_default());
    // The demo's own asks for none.
    let login = backend.own.is_none().then(|| settings.login());
    let gateway = match login {
        Some((Some(user), Some(password))) => gateway.user(user, password),
        Some((None, Some(password))) => gateway.password(password),
        _ => gateway,
    };
    gateway
        .listen(settings.listen)
        .port(settings.port)
        .admin_port(settings.admin_port)
        .workers(settings.workers)
        .timeout_ms(settings.timeout_ms)
        .trust(settings.trust.clone())
        .start()
}

fn explain(settings: &Settings, backend: &Backend, gateway: &Gateway, operators: &Operators) {
    let url = format!("http://{}", gateway.address());
    println!();
    let policy = fs::read(&settings.policy).unwrap_or_default();
    let (whence, policy) = in_force(settings, backend, policy);
    println!("Rules ({whence}):");
    // Whatever else it is, Envoy has refused it.
    if let Ok(Document::Policy(policy)) = Document::read(&policy) {
        print!("{}", policy.table());
    }
    println!();
    operators.explain(&url);
    // Nobody outside of a container reaches them.
    if matches!(settings.site, Site::Checkout) {
        println!(
            "Envoy's admin page  http://127.0.0.1:{}",
            settings.admin_port
        );
        println!(
            "Envoy's log         {}",
            gateway.process().log_path().display()
        );
        println!("Redis               {}:{}", backend.host, backend.port);
    }
    println!();
    println!("Try, in another terminal:");
    println!();
    println!("  # passes, and says how much is left");
    println!("  curl -i -H 'X-User-ID: alice' {url}/api/v1/items");
    println!();
    println!("  # five attempts to log in pass, the sixth is a 429");
    println!(
        "  for i in 1 2 3 4 5 6; do \
         curl -s -o /dev/null -w '%{{http_code}}\\n' {url}/api/v1/auth/login; done"
    );
    println!();
    println!("  # what alice has used, read from Redis");
    println!("  curl -s -H 'X-User-ID: alice' {url}/api/v1/rate-limits/status");
    println!();
    println!("  # other rules, while it runs");
    println!("  {}", backend.pushed(settings));
    println!();
    if backend.own.is_some() {
        println!("  # Redis is killed, and the demo goes on; it is back");
        println!("  {}", backend.asked("outage"));
        println!("  {}", backend.asked("recovery"));
        println!();
    }
    println!("Ctrl-C stops everything.");
    println!("weir is ready on {url}");
}

/// The policy that the gateway will run, and where it is from: what is published in a Redis that runs
/// already comes before the file.
fn in_force(settings: &Settings, backend: &Backend, file: Vec<u8>) -> (String, Vec<u8>) {
    let path = short(&settings.policy).to_string();
    let published = match backend.own {
        Some(_) => None,
        None => published(backend, settings),
    };
    let Some((version, document)) = published else {
        return (path, file);
    };
    match Document::read(&document) {
        Ok(Document::Policy(_)) => (
            format!("version {version}, which is published in this Redis; not {path}"),
            document,
        ),
        Ok(Document::Configured) => (path, file),
        Err(_) => (
            format!("{path}; version {version}, which is published in this Redis, is no policy"),
            file,
        ),
    }
}

/// The version and the policy that is published. A Redis that does not tell has none to show.
fn published(backend: &Backend, settings: &Settings) -> Option<(String, Vec<u8>)> {
    let (user, password) = settings.login();
    let mut connection = redis::open(&backend.host, backend.port, user, password).ok()?;
    let fields: (Option<String>, Option<Vec<u8>>) = ::redis::cmd("HMGET")
        .arg(settings.namespace.policy())
        .arg(&["version", "policy"])
        .query(&mut connection)
        .ok()?;
    fields.0.zip(fields.1)
}

/// What an engine calls the container that this runs in, unless it was told another name.
fn container() -> String {
    let name = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "CONTAINER" } else { name }.to_owned()
}

/// A path as one would type it here.
fn short(path: &Path) -> Display<'_> {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display()
}

/// Returns when it is told to stop; fails when Envoy ends before. Redis may end: to go on without it
/// is what Weir is for.
fn watch(stop: &mpsc::Receiver<()>, backend: &mut Backend, gateway: &Gateway) -> Result<()> {
    let bell = match backend.own {
        Some(_) => Some(Bell::hang(backend.port)?),
        None => None,
    };
    let mut sidecar = gateway.sidecar().map(Sidecar::process);
    while stop.recv_timeout(WATCH).is_err() {
        if let Some(death) = gateway.process().death() {
            return Err(death);
        }
        if let Some(status) = sidecar.and_then(Process::exited) {
            println!(
                "The sidecar has ended ({status}). The demo goes on without it, and without Redis; \
                 Ctrl-C and `make run` bring both back."
            );
            sidecar = None;
        }
        if let Some(told) = backend.loss() {
            println!("{told}");
        }
        if let Some(bell) = &bell {
            bell.answer(|wish| {
                let told = backend.grant(wish);
                println!("{told}");
                told
            });
        }
    }
    Ok(())
}

/// Ctrl-C, a supervisor's SIGTERM and the terminal's end, as one message.
fn stop_signal() -> Result<mpsc::Receiver<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, stop) = mpsc::channel();
    let listen = || -> std::io::Result<_> {
        let _guard = runtime.enter();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [a, b, c] = kinds.map(signal);
        Ok((a?, b?, c?))
    };
    let (mut interrupt, mut terminate, mut hangup) = listen()?;
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        // Nobody listens any more only where the run is over anyway.
        let _ = sender.send(());
    });
    Ok(stop)
}
