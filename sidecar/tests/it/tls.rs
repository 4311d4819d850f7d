//! Redis behind TLS. Not every build of Redis has it, so the tests end TLS in front of one.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use weir_lab::scratch::Scratch;

use crate::support::{Redis, Running, add, add_by_source, eventually, sum};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

/// Ends TLS for connections of the CA's clients; the port.
async fn tls_before(redis: &Redis, ca: &Ca) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (cert, key) = leaf(ca, "127.0.0.1");
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![cert.der().clone()];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, redis) = (listener.local_addr().unwrap().port(), redis.port);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut redis = TcpStream::connect(("127.0.0.1", redis)).await?;
                copy_bidirectional(&mut client, &mut redis).await
            });
        }
    });
    port
}

#[tokio::test]
async fn redis_is_reached_by_tls_and_only_with_certificates() {
    let redis = Redis::start(&[]);
    let (ca, other_ca) = (ca(), ca());
    let port = tls_before(&redis, &ca).await;
    let dir = Scratch::try_new("tls").unwrap();
    let file = |name: &str, text: String| {
        let path = dir.file(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = leaf(&ca, "weir");
    let (cert, key) = (file("cert", cert.pem()), file("key", key.serialize_pem()));
    let (trusted, other) = (file("ca", ca.pem()), file("other-ca", other_ca.pem()));
    let url = format!("rediss://127.0.0.1:{port}");
    let client = ["--redis-cert", &cert, "--redis-key", &key];

    let trusting = [&["--redis", &url, "--redis-ca", &trusted], &client[..]].concat();
    let good = Running::with(&trusting).await;
    good.is_healthy().await;
    assert_eq!(good.post(&add_by_source("weir:a", 1)).await, sum(1, 1));

    for (flags, reason) in [
        (
            [&["--redis", &url, "--redis-ca", &other], &client[..]].concat(),
            "invalid peer certificate",
        ),
        (vec!["--redis", &url, "--redis-ca", &trusted], "alert"),
    ] {
        let sidecar = Running::with(&flags).await;
        eventually(reason, async || {
            let told = sidecar.post(&add("weir:a", 1)).await;
            told.starts_with("-UNREACHABLE") && told.contains(reason)
        })
        .await;
    }
}
