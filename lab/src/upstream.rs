//! The service behind the gateway: it answers 200 to everything, and says what it was asked.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::HeaderName,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{net::TcpListener, runtime, sync::oneshot, time::Sleep};

#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    /// Dropped with this value, which ends the thread that serves.
    _stop: oneshot::Sender<()>,
}

impl Upstream {
    /// HTTP/1.1 and h2c on a free loopback port.
    ///
    /// The body tells the request as it arrived: `{"method", "path", "headers": [[name, value], …],
    /// "body_bytes", "at_us"}`, the last in µs since the Unix epoch. A header's bytes stand as the characters of the same numbers (Latin-1), so
    /// that none is lost. A request header `x-answer-NAME` comes back as the response's header NAME,
    /// `x-answer-status` sets its status, and `x-answer-after-ms` has it come that much later.
    ///
    /// With `x-uses-tokens` it answers as a model does: `{"usage": {"total_tokens": …}}` is in the body too. To
    /// whoever accepts `text/event-stream` it streams that as the last event, and comes with that one later.
    pub fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("cannot listen for the upstream")?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, count) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            address,
            requests,
            _stop: stop,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have reached it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, requests: Arc<AtomicU64>) {
    loop {
        // An accept that fails is that client's trouble.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                requests.fetch_add(1, Ordering::SeqCst);
                tell(request)
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            // A connection ends as its client likes.
            let _ = connection
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

type Body = Either<Full<Bytes>, Events>;

/// A stream of events, whose last one comes late.
struct Events {
    first: Option<Bytes>,
    wait: Pin<Box<Sleep>>,
    last: Option<Bytes>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        task::ready!(self.wait.as_mut().poll(context));
        Poll::Ready(self.last.take().map(|last| Ok(Frame::data(last))))
    }
}

async fn tell(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_us = u64::try_from(at.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
    let (head, body) = request.into_parts();
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str(),
                value.as_bytes().iter().map(|&b| b as char).collect(),
            )
        })
        .collect();
    let body_bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let asked = |name: &str| -> Option<u64> { head.headers.get(name)?.to_str().ok()?.parse().ok() };
    let after = Duration::from_millis(asked("x-answer-after-ms").unwrap_or(0));
    let tokens = asked("x-uses-tokens");
    let accepts = head.headers.get("accept");
    let is_streamed = accepts.is_some_and(|kind| kind == "text/event-stream");
    if !is_streamed {
        tokio::time::sleep(after).await;
    }
    let mut told = json!({
        "method": head.method.as_str(),
        "path": path,
        "headers": headers,
        "body_bytes": body_bytes,
        "at_us": at_us,
    });
    let usage = tokens.map(|tokens| json!({ "total_tokens": tokens }));
    let (body, kind) = if is_streamed {
        let events = Events {
            first: Some(format!("data: {told}\n\n").into()),
            wait: Box::pin(tokio::time::sleep(after)),
            last: Some(format!("data: {}\n\ndata: [DONE]\n\n", json!({ "usage": usage })).into()),
        };
        (Either::Right(events), "text/event-stream")
    } else {
        if usage.is_some() {
            told["usage"] = usage.into();
        }
        let body = Full::new(Bytes::from(told.to_string()));
        (Either::Left(body), "application/json")
    };
    let mut response = Response::new(body);
    if let Some(status) = asked("x-answer-status").and_then(|status| u16::try_from(status).ok())
        && let Ok(status) = StatusCode::from_u16(status)
    {
        *response.status_mut() = status;
    }
    let kind = kind.parse().expect("a header");
    response.headers_mut().insert("content-type", kind);
    for (name, value) in &head.headers {
        let own = name.as_str().strip_prefix("x-answer-");
        if let Some(Ok(name)) = own.map(str::parse::<HeaderName>) {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn the_upstream_tells_what_it_was_asked_and_counts() {
        let upstream = Upstream::start().unwrap();
        let client = Client::new(upstream.address());
        let answer = client
            .post("/a?b=%2F", "four")
            .header("X-A", b"\xff")
            .send()
            .unwrap();
        let told = answer.json().unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(told["path"], "/a?b=%2F");
        assert_eq!(
            (&told["method"], &told["body_bytes"]),
            (&json!("POST"), &json!(4))
        );
        assert!(
            told["headers"]
                .as_array()
                .unwrap()
                .contains(&json!(["x-a", "\u{ff}"]))
        );
        assert_eq!(upstream.requests(), 1);
    }
}
