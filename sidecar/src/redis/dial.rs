//! Opens a connection to a node: TCP, TLS if asked for, login, database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use weir_core::codec::resp::{Replies, command};
use weir_core::store::eviction;

use super::address::{Address, Login};

/// A round trip for TCP, two for TLS, one for the login, between zones, and room.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How every node is dialled.
pub struct Dial {
    pub login: Login,
    pub db: u32,
    pub tls: Option<TlsConnector>,
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The files of a TLS client.
pub struct TlsFiles<'a> {
    /// Who signs the servers' certificates; without it, whom the system trusts.
    pub ca: Option<&'a Path>,
    pub client: Option<ClientFiles<'a>>,
}

pub struct ClientFiles<'a> {
    pub cert: &'a Path,
    pub key: &'a Path,
}

/// A connector that trusts what the files say.
pub fn tls(files: &TlsFiles<'_>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match files.ca {
        Some(path) => {
            for cert in certificates(path)? {
                roots
                    .add(cert)
                    .with_context(|| format!("{}: not a CA certificate", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(
                !roots.is_empty(),
                "this system has no CA certificates; name your own by --redis-ca"
            );
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &files.client {
        None => config.with_no_client_auth(),
        Some(ClientFiles { cert, key }) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .with_context(|| format!("{}: no private key in PEM", key.display()))?;
            config
                .with_client_auth_cert(chain, key)
                .with_context(|| format!("{}: does not go with its key", cert.display()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certs: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certs| certs.collect());
    let certs = certs.with_context(|| format!("{}: no certificates in PEM", path.display()))?;
    ensure!(
        !certs.is_empty(),
        "{}: no certificates in PEM",
        path.display()
    );
    Ok(certs)
}

impl Dial {
    /// A connection that is logged in and has answered.
    pub async fn open(&self, address: &Address) -> Result<Box<dyn Stream>> {
        timeout(DIAL_TIMEOUT, self.open_patiently(address))
            .await
            .with_context(|| format!("no answer within {DIAL_TIMEOUT:?}"))?
    }

    async fn open_patiently(&self, address: &Address) -> Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
        tcp.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone())
                    .context("the host is no name that a certificate can have")?;
                Box::new(tls.connect(name, tcp).await.context("TLS")?)
            }
        };
        self.greet(&mut stream).await?;
        Ok(stream)
    }

    /// By what policy that Redis evicts keys, if it does and says so.
    pub async fn eviction(&self, stream: &mut Box<dyn Stream>) -> Result<Option<String>> {
        let mut check_request = Vec::new();
        command(&mut check_request, eviction::COMMAND.into_iter());
        stream.write_all(&check_request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let mut replies = Replies::new();
        while replies.complete() < 1 {
            let seen = answer.len();
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("closed at INFO");
            }
            replies.push(&answer[seen..])?;
        }
        // An error is one more that has no such line.
        let answer = String::from_utf8_lossy(&answer);
        Ok(eviction::policy(&answer).map(str::to_owned))
    }

    /// Logs in, and makes sure that somebody is there: a stopped Redis is connected to by its
    /// kernel, and would be sent takes that nobody waits for when it goes on.
    async fn greet(&self, stream: &mut Box<dyn Stream>) -> Result<()> {
        let mut hello = Vec::new();
        let mut expected = 1;
        let mut say = |args: &[&[u8]]| command(&mut hello, args.iter().copied());
        match &self.login {
            Login { password: None, .. } => {}
            Login {
                user,
                password: Some(password),
            } => {
                expected += 1;
                match user {
                    Some(user) => say(&[b"AUTH", user.as_bytes(), password.as_bytes()]),
                    None => say(&[b"AUTH", password.as_bytes()]),
                }
            }
        }
        if self.db > 0 {
            expected += 1;
            say(&[b"SELECT", self.db.to_string().as_bytes()]);
        }
        say(&[b"PING"]);
        stream.write_all(&hello).await?;
        stream.flush().await?;

        let mut answer = Vec::new();
        let mut replies = Replies::new();
        while replies.complete() < expected {
            let seen = answer.len();
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("closed at login");
            }
            replies.push(&answer[seen..])?;
        }
        for line in answer.split(|byte| *byte == b'\n') {
            // One that is loading its data can be talked to, and says so at each command.
            if line.starts_with(b"-") && !line.starts_with(b"-LOADING") {
                bail!("{}", String::from_utf8_lossy(&line[1..]).trim_end());
            }
        }
        Ok(())
    }
}
