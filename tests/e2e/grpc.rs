//! A client that speaks HTTP/2: gRPC, or as much of it as a refusal needs, and any method.

use std::{collections::HashMap, net::SocketAddr};

use anyhow::Result;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime};

/// What a gRPC client sees of an answer.
#[derive(Debug)]
pub struct Called {
    pub http_status: u16,
    /// The headers and the trailers.
    pub metadata: HashMap<String, String>,
}

/// One call without a message.
pub fn call(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Called> {
    let trailers = [&[("te", "trailers")], headers].concat();
    request(address, "POST", path, &trailers)
}

/// One request without a body, its method as it is given.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Called> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let uri = format!("http://{address}{path}");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let (head, body) = response.into_parts();
        let trailers = body
            .collect()
            .await?
            .trailers()
            .cloned()
            .unwrap_or_default();
        let text = |value: &hyper::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let all = head.headers.iter().chain(&trailers);
        Ok(Called {
            http_status: head.status.as_u16(),
            metadata: all
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        })
    })
}
