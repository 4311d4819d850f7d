//! HTTP in front: `POST /` carries commands, `GET /healthz` asks whether Redis answers. It knows
//! caps and status codes; what may be asked is `screen`'s, and who is asked is `redis`'s.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::time::{Instant, sleep, timeout};
use weir_core::codec::secret::Secret;
use weir_core::store::wire::{MAX_BODY, PATH, SECRET_HEADER};

use crate::door::{Door, Visit};
use crate::listen::Listener;
use crate::redis::node::NoReply;
use crate::redis::{Redis, Reply};
use crate::screen::{CheckRequest, Screened, Served, screen};

/// The longest request head, in bytes: as the bridge in Envoy takes it.
const MAX_HEAD: usize = weir_core::store::bridge::MAX_HEAD;

/// How long requests under way may take to end when the sidecar stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers requests.
pub struct Service {
    pub served: Served,
    /// What whoever sends commands must show.
    pub secret: Option<Secret>,
    pub redis: Redis,
    /// How long Redis may take for the commands of one request.
    pub timeout: Duration,
    pub door: Arc<Door>,
}

/// Serves until `stop` is ready, and then what has begun.
pub async fn serve(listener: Listener, service: Arc<Service>, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // The door holds every connection to its time.
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let stream = listener.accept().await?;
            Ok::<_, io::Error>((service.door.enter().await, stream))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let (stay, stream) = match accepted {
            Ok(accepted) => accepted,
            // It was gone before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                eprintln!("weir-sidecar: cannot accept a connection: {error}");
                service.door.make_room();
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let watched = TokioIo::new(stay.watch(stream));
        let answer = {
            let service = service.clone();
            let visit = stay.visit.clone();
            service_fn(move |request| {
                let (service, visit) = (service.clone(), visit.clone());
                async move { Ok::<_, Infallible>(service.serve_one(request, &visit).await) }
            })
        };
        let connection = graceful.watch(http.serve_connection(watched, answer));
        let service = service.clone();
        tokio::spawn(async move {
            tokio::select! {
                // How it ended is the client's affair.
                _ = connection => {}
                () = service.door.has_overstayed(&stay.visit) => {}
            }
        });
    }
    drop(listener);
    let _ = timeout(STOP_TIMEOUT, graceful.shutdown()).await;
}

impl Service {
    /// A stranger is answered once: what else it had sent, or would send, is not read.
    async fn serve_one(&self, request: Request<Incoming>, visit: &Visit) -> Response<Full<Bytes>> {
        visit.begins();
        let mut response = self.answer(request, visit).await;
        if !visit.is_seated() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        visit.answered();
        response
    }

    async fn answer(&self, request: Request<Incoming>, visit: &Visit) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, PATH) if !self.may_command(request.headers()) => text(
                StatusCode::UNAUTHORIZED,
                format!("{SECRET_HEADER} is not the secret in --secret-file\n"),
            ),
            (&Method::POST, PATH) => {
                self.door.seat(visit).await;
                self.answer_commands(request.into_body()).await
            }
            (&Method::GET, "/healthz") => match self.redis.silent() {
                None => text(StatusCode::OK, "ok\n".to_owned()),
                Some(address) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("Redis at {address} does not answer\n"),
                ),
            },
            (_, PATH | "/healthz") => text(
                StatusCode::METHOD_NOT_ALLOWED,
                "POST / or GET /healthz\n".to_owned(),
            ),
            _ => text(StatusCode::NOT_FOUND, "POST / or GET /healthz\n".to_owned()),
        }
    }

    /// A header that stands twice proves nothing.
    fn may_command(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else {
            return true;
        };
        let mut given = headers.get_all(SECRET_HEADER).iter();
        match (given.next(), given.next()) {
            (Some(given), None) => secret.is(given.as_bytes()),
            _ => false,
        }
    }

    async fn answer_commands(&self, body: Incoming) -> Response<Full<Bytes>> {
        if body.size_hint().lower() > MAX_BODY as u64 {
            return too_large();
        }
        let patience = self.door.bounds().body;
        let body = match timeout(patience, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
            Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            Err(_) => {
                let told = format!("the body took longer than {patience:?}\n");
                return text(StatusCode::REQUEST_TIMEOUT, told);
            }
        };
        let commands = match screen(&body, &self.served) {
            Ok(commands) => commands,
            Err(bad) => return text(StatusCode::BAD_REQUEST, format!("{bad}\n")),
        };
        let check_requests: Vec<CheckRequest> = commands
            .iter()
            .filter_map(|command| match command {
                Screened::Passes(check_request) => Some(check_request.clone()),
                Screened::Refused(_) => None,
            })
            .collect();
        let deadline = Instant::now() + self.timeout;
        let mut replies = self.redis.ask(check_requests, deadline).await.into_iter();
        let mut body = BytesMut::new();
        for command in commands {
            match command {
                Screened::Refused(refusal) => body.extend_from_slice(&refusal.reply()),
                Screened::Passes(_) => match replies.next() {
                    Some(reply) => self.write(reply, &mut body),
                    None => self.write(Err(NoReply::Timeout), &mut body),
                },
            }
        }
        Response::new(Full::new(body.freeze()))
    }

    fn write(&self, reply: Reply, body: &mut BytesMut) {
        match reply {
            Ok(reply) => body.extend_from_slice(&reply),
            Err(NoReply::Timeout) => {
                let limit = self.timeout.as_millis();
                let error = format!("-TIMEOUT weir-sidecar: no reply within {limit} ms\r\n");
                body.extend_from_slice(error.as_bytes());
            }
            Err(NoReply::Unreachable(reason)) => {
                // An error ends at the first line end.
                let reason = reason.replace(['\r', '\n'], " ");
                let error = format!("-UNREACHABLE weir-sidecar: {reason}\r\n");
                body.extend_from_slice(error.as_bytes());
            }
        }
    }
}

fn too_large() -> Response<Full<Bytes>> {
    let told = format!("a body may have {MAX_BODY} bytes\n");
    text(StatusCode::PAYLOAD_TOO_LARGE, told)
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
