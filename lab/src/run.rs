//! The demonstration: everything started, explained, watched and stopped.

use std::{
    env, fs,
    net::{Ipv4Addr, ToSocketAddrs},
    path::{Display, Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};
use weir_lab::{
    artifact,
    gateway::{Gateway, Policy, Store},
    parts, place, port,
    redis::{self, Redis},
};

use crate::rules;

/// How soon the end of a part is noticed.
const WATCH: Duration = Duration::from_millis(200);

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
    #[arg(long, env = "REDIS_PORT", default_value_t = 16_379)]
    redis_port: u16,
    /// A Redis that runs already, as HOST:PORT
    #[arg(long, env = "REDIS")]
    redis: Option<String>,
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
    let backend = Backend::open(settings)?;
    println!("starting Envoy");
    let gateway = start_gateway(settings, &backend)?;
    if stop.try_recv().is_ok() {
        return Ok(());
    }
    explain(settings, &backend, &gateway);
    watch(&stop, &backend, &gateway)?;
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
            });
        };
        let parts = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.with_context(|| format!("REDIS={address}: must be HOST:PORT"))?;
        let answers = (host, port)
            .to_socket_addrs()
            .is_ok_and(|mut all| all.any(redis::answers));
        if !answers {
            bail!("REDIS={address}: no Redis answers there");
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            own: None,
        })
    }
}

fn start_gateway(settings: &Settings, backend: &Backend) -> Result<Gateway> {
    let store = match settings.store {
        Way::Bridge => Store::Bridge,
        Way::Sidecar => Store::Sidecar,
    };
    Gateway::builder()
        .store(store)
        .policy(Policy::File(settings.policy.clone()))
        .redis_at(&backend.host, backend.port)
        .listen(settings.listen)
        .port(settings.port)
        .admin_port(settings.admin_port)
        .workers(settings.workers)
        .timeout_ms(settings.timeout_ms)
        .start()
}

fn explain(settings: &Settings, backend: &Backend, gateway: &Gateway) {
    let url = format!("http://{}", gateway.address());
    let policy = fs::read_to_string(&settings.policy).unwrap_or_default();
    println!();
    println!("Rules ({}):", short(&settings.policy));
    print!("{}", rules::in_words(&policy));
    println!();
    println!(
        "Envoy's admin page  http://127.0.0.1:{}",
        settings.admin_port
    );
    println!(
        "Envoy's log         {}",
        gateway.process().log_path().display()
    );
    println!("Redis               {}:{}", backend.host, backend.port);
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
    println!("Ctrl-C stops everything.");
    println!("weir is ready on {url}");
}

/// A path as one would type it here.
fn short(path: &Path) -> Display<'_> {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display()
}

/// Returns when it is told to stop; fails when a part ends before.
fn watch(stop: &mpsc::Receiver<()>, backend: &Backend, gateway: &Gateway) -> Result<()> {
    while stop.recv_timeout(WATCH).is_err() {
        let parts = [
            backend.own.as_ref().map(Redis::server).transpose()?,
            gateway.sidecar().map(|sidecar| sidecar.process()),
            Some(gateway.process()),
        ];
        if let Some(death) = parts.into_iter().flatten().find_map(|part| part.death()) {
            return Err(death);
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
