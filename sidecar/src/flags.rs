//! What the user types, and what the sidecar runs on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use weir_core::codec::namespace::Namespace;
use weir_core::codec::secret::Secret;

use crate::door::Bounds;
use crate::listen::{Place, Reach, SocketMode};
use crate::redis::Topology;
use crate::redis::address::{RedisUrl, Transport};
use crate::redis::dial::{self, ClientFiles, Dial, TlsFiles};

/// Where the password comes from if no flag names it: the process list does not show it there.
const PASSWORD: &str = "WEIR_REDIS_PASSWORD";

/// Carries Weir's rate-limit checks from a proxy to Redis.
///
/// For proxies without Envoy's redis_proxy. It takes POST / with a pipeline of Redis commands
/// from the Weir filter and answers with their replies; GET /healthz tells whether Redis answers.
/// Only Weir's own script on Weir's own keys is let through.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-sidecar", version)]
pub struct Flags {
    /// Where to listen: ADDRESS:PORT, or unix:PATH.
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "127.0.0.1:6380",
        env = "WEIR_SIDECAR_LISTEN"
    )]
    pub listen: Place,

    /// Listen on an address that other machines can reach. Without --secret-file, whoever reaches it
    /// can spend permits.
    #[arg(long)]
    pub allow_remote: bool,

    /// Permissions of the unix socket.
    #[arg(long, value_name = "OCTAL", default_value = "0660")]
    pub socket_mode: SocketMode,

    /// A file with what the limiter must show with every request: `store.secret` in its
    /// configuration. Without it, whoever reaches the sidecar is served.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// The namespace to serve: `store.namespace` in the limiter's configuration. Keys of any other are
    /// refused; without it, keys of any namespace are.
    #[arg(long, value_name = "NAME", default_value = "", env = "WEIR_NAMESPACE")]
    pub namespace: Namespace,

    /// redis://[user[:password]@]host[:port][/db], or rediss:// for TLS. With --cluster it may be
    /// given more than once, or with commas.
    #[arg(
        long,
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        value_delimiter = ',',
        env = "WEIR_REDIS_URL",
        hide_env_values = true
    )]
    pub redis: Vec<RedisUrl>,

    /// Redis is a Redis Cluster; --redis names any of its nodes.
    #[arg(long)]
    pub cluster: bool,

    /// A file with the password of Redis. It can also be in the environment, in
    /// WEIR_REDIS_PASSWORD; a password in the URL can be seen in the process list.
    #[arg(long, value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// Who signs the certificate of Redis, in PEM. Without it, whom the system trusts.
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// The certificate that Redis asks of its clients, in PEM.
    #[arg(long, value_name = "FILE", requires = "redis_key")]
    pub redis_cert: Option<PathBuf>,

    /// The private key of --redis-cert, in PEM.
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    pub redis_key: Option<PathBuf>,

    /// How long Redis may take for one request, in milliseconds, at most 500. Keep it below the filter's
    /// timeout_ms, so that the filter hears what happened.
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub timeout_ms: u64,

    /// How many connections are served at once; more wait. Those that have not sent commands yet, with
    /// the secret if there is one, are not among them: they have places of their own, for five seconds.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
}

/// What the sidecar runs on.
pub struct Config {
    pub place: Place,
    pub reach: Reach,
    pub socket_mode: SocketMode,
    pub secret: Option<Secret>,
    pub namespace: Namespace,
    pub topology: Topology,
    pub dial: Arc<Dial>,
    pub timeout: Duration,
    pub max_connections: usize,
    pub bounds: Bounds,
}

impl Config {
    pub fn try_new(flags: Flags) -> Result<Config> {
        let (first, others) = flags.redis.split_first().context("--redis needs a URL")?;
        for other in others {
            ensure!(
                flags.cluster,
                "several --redis are for a Redis Cluster; add --cluster"
            );
            ensure!(
                (other.transport, &other.login, other.db)
                    == (first.transport, &first.login, first.db),
                "every --redis must have the same scheme, user, password and database"
            );
        }
        ensure!(
            !flags.cluster || first.db == 0,
            "a Redis Cluster has only database 0; take /{} off --redis",
            first.db
        );

        let mut login = first.login.clone();
        if let Some(password) = password(&flags)? {
            ensure!(
                login.password.is_none(),
                "the password is given twice; take it out of --redis"
            );
            login.password = Some(password);
        }
        ensure!(
            login.user.is_none() || login.password.is_some(),
            "--redis names a user without a password; name a file with --redis-password-file"
        );

        let tls = match first.transport {
            Transport::Tls => Some(dial::tls(&TlsFiles {
                ca: flags.redis_ca.as_deref(),
                client: match (&flags.redis_cert, &flags.redis_key) {
                    (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
                    _ => None,
                },
            })?),
            Transport::Plain if flags.redis_ca.is_some() || flags.redis_cert.is_some() => {
                bail!("--redis-ca and --redis-cert are for TLS; write rediss:// in --redis")
            }
            Transport::Plain => None,
        };

        let secret = flags.secret_file.as_deref().map(secret).transpose()?;
        let db = first.db;
        let addresses = flags.redis.into_iter().map(|url| url.address);
        Ok(Config {
            place: flags.listen,
            reach: match flags.allow_remote {
                true => Reach::Anywhere,
                false => Reach::ThisMachine,
            },
            socket_mode: flags.socket_mode,
            secret,
            namespace: flags.namespace,
            topology: match flags.cluster {
                true => Topology::Cluster(addresses.collect()),
                false => Topology::Single(addresses.take(1).next().context("--redis needs a URL")?),
            },
            dial: Arc::new(Dial { login, db, tls }),
            timeout: Duration::from_millis(flags.timeout_ms),
            max_connections: flags.max_connections as usize,
            bounds: Bounds::default(),
        })
    }
}

fn password(flags: &Flags) -> Result<Option<String>> {
    let Some(path) = &flags.redis_password_file else {
        return Ok(env::var(PASSWORD)
            .ok()
            .filter(|password| !password.is_empty()));
    };
    line("--redis-password-file", path).map(Some)
}

fn secret(path: &Path) -> Result<Secret> {
    const FLAG: &str = "--secret-file";
    Secret::try_new(&line(FLAG, path)?)
        .map_err(|error| anyhow!("{FLAG} {} {error}", path.display()))
}

/// What a flag's file holds.
fn line(flag: &str, path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))?;
    // Editors and `echo` end a file with a line end; no password does.
    let line = text.trim_end_matches(['\r', '\n']);
    ensure!(!line.is_empty(), "{flag} {} is empty", path.display());
    Ok(line.to_owned())
}
