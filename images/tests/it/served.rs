//! A registry on a free loopback port, in memory: as much of the OCI distribution specification as
//! pushing and pulling takes, and as strict. It is gone when dropped.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime, sync::oneshot};
use weir_images::blob::digest;

pub const USERNAME: &str = "weir";
pub const PASSWORD: &str = "a pass:word";
const TOKEN: &str = "the-token";

/// How it asks who one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Login {
    Nobody,
    Basic,
    /// With a token that a realm of its own gives.
    Bearer,
}

/// Whether it lists what refers to an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Referrers {
    Known,
    Unknown,
}

pub struct Served {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    _stop: oneshot::Sender<()>,
}

struct Shelf {
    login: Login,
    referrers: Referrers,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// By repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest: the media type and the bytes.
    manifests: HashMap<(String, String), (String, Bytes)>,
    uploads: usize,
}

type Answer = Response<Full<Bytes>>;

impl Served {
    pub fn start(login: Login, referrers: Referrers) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::new(Shelf {
            login,
            referrers,
            contents: Mutex::default(),
        });
        let served = Arc::clone(&shelf);
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            shelf,
            _stop: stop,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many blobs were sent to it.
    pub fn uploads(&self) -> usize {
        self.shelf.contents.lock().unwrap().uploads
    }

    /// A manifest that it has.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Value> {
        let key = (repository.to_owned(), reference.to_owned());
        let contents = self.shelf.contents.lock().unwrap();
        let (_, bytes) = contents.manifests.get(&key)?;
        Some(serde_json::from_slice(bytes).unwrap())
    }

    /// The manifests whose subject is this.
    pub fn referring_to(&self, subject: &str) -> Vec<Value> {
        let contents = self.shelf.contents.lock().unwrap();
        let of_digest = contents
            .manifests
            .iter()
            .filter(|((_, reference), _)| reference.starts_with("sha256:"));
        let manifests = of_digest.map(|(_, (_, bytes))| serde_json::from_slice(bytes).unwrap());
        let refers = |manifest: &Value| manifest["subject"]["digest"] == subject;
        manifests.filter(refers).collect()
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        let key = (repository.to_owned(), digest.to_owned());
        self.shelf.contents.lock().unwrap().blobs.get(&key).cloned()
    }
}

async fn serve(listener: TcpListener, shelf: Arc<Shelf>) {
    let address = listener.local_addr().unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shelf = Arc::clone(&shelf);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let shelf = Arc::clone(&shelf);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body
                        .collect()
                        .await
                        .map_or_else(|_| Bytes::new(), |b| b.to_bytes());
                    let request = Request::from_parts(head, body);
                    Ok::<_, Infallible>(shelf.answer(&request, address))
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection ends as its client likes.
            let _ = connection.await;
        });
    }
}

impl Shelf {
    fn answer(&self, request: &Request<Bytes>, address: SocketAddr) -> Answer {
        let path = request.uri().path();
        if path == "/token" {
            let told = header(request, "authorization");
            if told
                != format!(
                    "Basic {}",
                    STANDARD.encode(format!("{USERNAME}:{PASSWORD}"))
                )
            {
                return plain(StatusCode::UNAUTHORIZED);
            }
            let scope = request.uri().query().unwrap_or_default();
            if !scope.contains("service=weir%20test") && !scope.contains("service=weir+test") {
                return plain(StatusCode::BAD_REQUEST);
            }
            return with(StatusCode::OK, json!({ "token": TOKEN }).to_string());
        }
        if let Some(challenge) = self.challenge(request, address) {
            let mut answer = plain(StatusCode::UNAUTHORIZED);
            answer
                .headers_mut()
                .insert("www-authenticate", challenge.parse().unwrap());
            return answer;
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return plain(StatusCode::NOT_FOUND);
        };
        if rest.is_empty() {
            return plain(StatusCode::OK);
        }
        if let Some((repository, reference)) = rest.split_once("/manifests/") {
            return match *request.method() {
                Method::PUT => self.store(repository, reference, request),
                _ => self.manifest(repository, reference, request),
            };
        }
        if let Some((repository, _)) = rest.split_once("/blobs/uploads/") {
            return match *request.method() {
                Method::POST => begin(repository),
                _ => self.upload(repository, request),
            };
        }
        match rest.split_once("/blobs/") {
            Some((repository, digest)) => self.blob(repository, digest),
            None => plain(StatusCode::NOT_FOUND),
        }
    }

    /// What it asks, of whoever has not said it.
    fn challenge(&self, request: &Request<Bytes>, address: SocketAddr) -> Option<String> {
        let told = header(request, "authorization");
        match self.login {
            Login::Nobody => None,
            Login::Basic => {
                let wanted = STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
                (told != format!("Basic {wanted}")).then(|| r#"Basic realm="weir""#.to_owned())
            }
            Login::Bearer => (told != format!("Bearer {TOKEN}")).then(|| {
                format!(
                    r#"Bearer realm="http://{address}/token",service="weir test",scope="repository:x:pull,push""#
                )
            }),
        }
    }

    fn upload(&self, repository: &str, request: &Request<Bytes>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let wanted = query
            .split('&')
            .find_map(|part| part.strip_prefix("digest="));
        let found = digest(request.body());
        // The state that the upload was given comes back.
        if wanted != Some(&found) || !query.contains("_state=") {
            return plain(StatusCode::BAD_REQUEST);
        }
        let mut contents = self.contents.lock().unwrap();
        contents.uploads += 1;
        let key = (repository.to_owned(), found);
        contents.blobs.insert(key, request.body().clone());
        plain(StatusCode::CREATED)
    }

    fn blob(&self, repository: &str, digest: &str) -> Answer {
        let key = (repository.to_owned(), digest.to_owned());
        match self.contents.lock().unwrap().blobs.get(&key) {
            Some(bytes) => with(StatusCode::OK, bytes.clone()),
            None => plain(StatusCode::NOT_FOUND),
        }
    }

    fn store(&self, repository: &str, reference: &str, request: &Request<Bytes>) -> Answer {
        let body = request.body();
        let Ok(manifest) = serde_json::from_slice::<Value>(body) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        let media_type = header(request, "content-type");
        let mut contents = self.contents.lock().unwrap();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let parts = layers.chain(manifest.get("config"));
        let is_whole = parts.into_iter().all(|part| {
            let digest = part["digest"].as_str().unwrap_or_default();
            let blob = contents
                .blobs
                .get(&(repository.to_owned(), digest.to_owned()));
            blob.is_some_and(|blob| part["size"] == blob.len())
        });
        if !is_whole || manifest["mediaType"] != media_type {
            return with(StatusCode::BAD_REQUEST, "a part is missing");
        }
        let found = digest(body);
        for key in [reference, &found] {
            let key = (repository.to_owned(), key.to_owned());
            contents
                .manifests
                .insert(key, (media_type.clone(), body.clone()));
        }
        let mut answer = plain(StatusCode::CREATED);
        let headers = answer.headers_mut();
        headers.insert("docker-content-digest", found.parse().unwrap());
        if let (Some(subject), Referrers::Known) =
            (manifest["subject"]["digest"].as_str(), self.referrers)
        {
            headers.insert("oci-subject", subject.parse().unwrap());
        }
        answer
    }

    fn manifest(&self, repository: &str, reference: &str, request: &Request<Bytes>) -> Answer {
        let key = (repository.to_owned(), reference.to_owned());
        let contents = self.contents.lock().unwrap();
        let Some((media_type, bytes)) = contents.manifests.get(&key) else {
            return plain(StatusCode::NOT_FOUND);
        };
        // One that the client does not accept it does not get.
        if !header(request, "accept")
            .split(',')
            .any(|kind| kind == media_type)
        {
            return plain(StatusCode::NOT_FOUND);
        }
        let mut answer = with(StatusCode::OK, bytes.clone());
        let headers = answer.headers_mut();
        headers.insert("content-type", media_type.parse().unwrap());
        headers.insert("docker-content-digest", digest(bytes).parse().unwrap());
        answer
    }
}

fn begin(repository: &str) -> Answer {
    let mut answer = plain(StatusCode::ACCEPTED);
    let place = format!("/v2/{repository}/blobs/uploads/1?_state=a%2Fb");
    answer
        .headers_mut()
        .insert("location", place.parse().unwrap());
    answer
}

fn plain(status: StatusCode) -> Answer {
    with(status, Bytes::new())
}

fn with(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn header(request: &Request<Bytes>, name: &str) -> String {
    let value = request.headers().get(name);
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
