//! Where Redis is, as the command line and the environment say, and the way there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use redis::cluster::ClusterClientBuilder;
use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind,
    IntoConnectionInfo, RedisError, TlsCertificates,
};
use weir_core::codec::namespace::Namespace;

use crate::console::Console;
use crate::publication::Shelf;

/// Where the password comes from: neither the process list nor a shell's history shows it there.
const PASSWORD: &str = "WEIR_REDIS_PASSWORD";

/// Redis is near, and a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where Redis is. Its password is read from WEIR_REDIS_PASSWORD.
#[derive(Args)]
pub struct Place {
    /// HOST:PORT, redis://[user@]HOST[:PORT][/DB], or rediss:// for TLS
    #[arg(
        long,
        value_name = "URL",
        env = "WEIR_REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    redis: String,
    /// The environment, where several share this Redis: `store.namespace` of its gateways
    #[arg(long, value_name = "NAME", env = "WEIR_NAMESPACE", default_value = "")]
    namespace: Namespace,
    /// Redis is a Redis Cluster; --redis names any of its nodes
    #[arg(long)]
    cluster: bool,
    /// Who signs the certificate of Redis, in PEM; without it, whom the system trusts
    #[arg(long, value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// The certificate that Redis asks of its clients, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_key")]
    redis_cert: Option<PathBuf>,
    /// The private key of --redis-cert, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    redis_key: Option<PathBuf>,
}

impl Place {
    /// Says which Redis it is, too: it is easy to mean another.
    pub fn shelf<'a>(&self, console: &Console, redis: &'a mut dyn ConnectionLike) -> Shelf<'a> {
        if let Ok(info) = self.info() {
            let namespace = self.namespace.name();
            let namespace = namespace.map(|name| format!(", namespace {name}"));
            console.note(&format!(
                "Redis at {}{}",
                info.addr(),
                namespace.unwrap_or_default()
            ));
        }
        Shelf::new(redis, &self.namespace)
    }

    pub fn open(&self) -> Result<Box<dyn ConnectionLike>> {
        // Whoever chose one before chose well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut info = self.info()?;
        let shown = info.addr().to_string();
        if let Ok(password) = std::env::var(PASSWORD)
            && !password.is_empty()
        {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let certificates = self.certificates()?;
        let failed = |error: RedisError| match error.kind() {
            ErrorKind::Parse => {
                anyhow!("what answers at {shown} is no Redis; is it the right port?")
            }
            _ => anyhow!(error).context(format!("Redis at {shown}")),
        };
        let mut connection: Box<dyn ConnectionLike> = match self.cluster {
            false => {
                let client = match info.addr() {
                    ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates),
                    _ => Client::open(info),
                };
                let connection = client
                    .and_then(|client| client.get_connection_with_timeout(TIMEOUT))
                    .map_err(failed)?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                Box::new(connection)
            }
            true => {
                let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
                let mut builder = ClusterClientBuilder::new([info])
                    .connection_timeout(TIMEOUT)
                    .response_timeout(TIMEOUT);
                if is_tls {
                    builder = builder.certs(certificates);
                }
                let connection = builder.build().and_then(|client| client.get_connection());
                Box::new(connection.map_err(failed)?)
            }
        };
        // Without a password a connection opens, and says so at the first command.
        let pinged = Cmd::new().arg("PING").exec(&mut *connection);
        if let Err(error) = pinged
            && error.code() == Some("NOAUTH")
        {
            bail!(
                "Redis at {shown} asks for a password: put it in {PASSWORD}, and a user other than \
                 default into the URL, as in redis://USER@HOST:PORT"
            );
        }
        Ok(connection)
    }

    fn info(&self) -> Result<ConnectionInfo> {
        let url = match self.redis.contains("://") {
            true => self.redis.clone(),
            // Without a port it would be a host by the name of a number, and its default port.
            false if !self.redis.contains(':') => String::new(),
            false => format!("redis://{}", self.redis),
        };
        let info = url.as_str().into_connection_info();
        // The URL may hold a password, so it is not shown.
        info.map_err(|_| anyhow!("--redis: expected HOST:PORT or redis://HOST:PORT"))
    }

    fn certificates(&self) -> Result<TlsCertificates> {
        let pem = |file: &PathBuf| {
            fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let client_tls = match (&self.redis_cert, &self.redis_key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: pem(cert)?,
                client_key: pem(key)?,
            }),
            _ => None,
        };
        let given = self.redis_ca.is_some() || client_tls.is_some();
        ensure!(
            !given || self.redis.starts_with("rediss://"),
            "--redis-ca and --redis-cert are for TLS; write rediss:// in --redis"
        );
        Ok(TlsCertificates {
            client_tls,
            root_cert: self.redis_ca.as_ref().map(pem).transpose()?,
        })
    }
}
