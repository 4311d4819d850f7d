//! A registry, as one pushes to it: the OCI distribution specification, with the two ways in which
//! registries ask who one is.
//!
//! What is there already is not sent again. The list of what an image was built from goes beside it as a
//! referrer, which leaves the image's digest as it is.

use std::{collections::BTreeMap, env, fs, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ureq::{
    Agent, Body,
    http::{Request, Response, StatusCode},
};

use crate::{
    blob::Blob,
    image::{INDEX, Image, MANIFEST, TITLE},
    sbom::CYCLONEDX,
};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const USERNAME: &str = "WEIR_REGISTRY_USERNAME";
const PASSWORD: &str = "WEIR_REGISTRY_PASSWORD";

/// An upload of some 50 MB over a slow line.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Whom a registry knows.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// A registry, and the prefix of our repositories in it.
pub struct Registry {
    agent: Agent,
    /// Scheme and host.
    origin: String,
    host: String,
    prefix: String,
    credentials: Option<Credentials>,
    /// The header that the registry took last.
    authorization: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pushed {
    /// The image, by its digest.
    pub image: String,
    pub digest: String,
}

impl Registry {
    /// `place` is `HOST[:PORT]`, with a path if repositories there have one: `ghcr.io/ORG/weir`.
    /// Spoken to by HTTPS, on loopback by HTTP.
    pub fn try_new(place: &str, credentials: Option<Credentials>) -> Result<Self> {
        let (host, prefix) = place
            .trim_end_matches('/')
            .split_once('/')
            .unwrap_or((place, ""));
        let is_host = host == "localhost" || host.contains(['.', ':']);
        ensure!(
            is_host && !place.contains("://"),
            "{place}: must be a registry's host, with the path of the repositories if they have one, \
             such as ghcr.io/ORG/weir or localhost:5000"
        );
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        ensure!(
            prefix
                .bytes()
                .all(|byte| is_plain(byte) || b"._-/".contains(&byte)),
            "{place}: the path of a repository has lower-case letters, digits and ._-/ only"
        );
        let scheme = if is_loopback(host) { "http" } else { "https" };
        // Docker Hub's own name is not where it answers.
        let address = match host {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(Self {
            agent: config.into(),
            origin: format!("{scheme}://{address}"),
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            credentials,
            authorization: None,
        })
    }

    /// Sends the image, then the list of what it was built from.
    pub fn push(&mut self, image: &Image, sbom: &[u8]) -> Result<Pushed> {
        let repository = if self.prefix.is_empty() {
            image.name.repository.clone()
        } else {
            format!("{}/{}", self.prefix, image.name.repository)
        };
        // A token is for one repository.
        self.authorization = None;
        for blob in image.blobs() {
            self.blob(&repository, blob)?;
        }
        self.manifest(&repository, &image.name.tag, &image.manifest)?;
        self.refer(&repository, image, sbom)?;
        let digest = image.manifest.digest();
        Ok(Pushed {
            image: format!("{}/{repository}@{digest}", self.host),
            digest,
        })
    }

    fn blob(&mut self, repository: &str, blob: &Blob) -> Result<()> {
        let digest = blob.digest();
        let known = self.send(
            "HEAD",
            &format!("/v2/{repository}/blobs/{digest}"),
            &[],
            None,
        )?;
        if known.status() == StatusCode::OK {
            return Ok(());
        }
        let begun = self.send(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            Some(b""),
        )?;
        let begun = expect(begun, StatusCode::ACCEPTED, "begin an upload")?;
        let place =
            header(&begun, "location").context("the registry does not say where to upload")?;
        // It may carry a state of its own.
        let joint = if place.contains('?') { '&' } else { '?' };
        let place = self.own(&format!("{place}{joint}digest={digest}"))?;
        let kind = [("content-type", "application/octet-stream")];
        let stored = self.send("PUT", &place, &kind, Some(&blob.bytes))?;
        expect(stored, StatusCode::CREATED, "upload a blob")?;
        Ok(())
    }

    fn manifest(
        &mut self,
        repository: &str,
        reference: &str,
        manifest: &Blob,
    ) -> Result<Response<Body>> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let kind = [("content-type", manifest.media_type.as_str())];
        let stored = self.send("PUT", &path, &kind, Some(&manifest.bytes))?;
        let stored = expect(stored, StatusCode::CREATED, "store a manifest")?;
        if let Some(found) = header(&stored, "docker-content-digest") {
            let sent = manifest.digest();
            ensure!(
                found == sent,
                "the registry stored {found} when it was sent {sent}"
            );
        }
        Ok(stored)
    }

    fn refer(&mut self, repository: &str, image: &Image, sbom: &[u8]) -> Result<()> {
        let empty = Blob::new(EMPTY, b"{}".to_vec());
        let list = Blob::new(CYCLONEDX, sbom.to_vec())
            .annotated(TITLE, &format!("{}.cdx.json", image.name.repository));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": CYCLONEDX,
            "config": empty.descriptor(),
            "layers": [list.descriptor()],
            "subject": image.manifest.descriptor(),
        });
        let manifest = Blob::json(MANIFEST, manifest)?;
        self.blob(repository, &empty)?;
        self.blob(repository, &list)?;
        let stored = self.manifest(repository, &manifest.digest(), &manifest)?;
        if header(&stored, "oci-subject").is_some() {
            return Ok(());
        }
        // A registry that does not know referrers has them in an index by the image's digest, which
        // clients keep.
        let tag = image.manifest.digest().replace(':', "-");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let mut known = self.send("GET", &path, &[("accept", INDEX)], None)?;
        let mut referrers: Vec<Value> = match known.status() {
            StatusCode::OK => {
                let index: Value = serde_json::from_slice(&known.body_mut().read_to_vec()?)?;
                serde_json::from_value(index["manifests"].clone())?
            }
            _ => Vec::new(),
        };
        let mut descriptor = manifest.descriptor();
        descriptor["artifactType"] = json!(CYCLONEDX);
        if referrers
            .iter()
            .all(|other| other["digest"] != descriptor["digest"])
        {
            referrers.push(descriptor);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": referrers });
        self.manifest(repository, &tag, &Blob::json(INDEX, index)?)?;
        Ok(())
    }

    /// The path of an upload. One that leads elsewhere would be given the credentials.
    fn own(&self, place: &str) -> Result<String> {
        match place.strip_prefix(&self.origin) {
            Some(path) if path.starts_with('/') => Ok(path.to_owned()),
            None if place.starts_with('/') => Ok(place.to_owned()),
            _ => bail!(
                "the registry {} wants an upload sent elsewhere: {place}",
                self.host
            ),
        }
    }

    /// Sends it, and once more where the registry asks who this is.
    fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let answer = self.send_as_known(method, path, headers, body)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = header(&answer, "www-authenticate");
        let challenge =
            challenge.context("the registry refuses, and does not say what it asks for")?;
        self.authorization = Some(self.authorize(&challenge)?);
        let answer = self.send_as_known(method, path, headers, body)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let who = match &self.credentials {
                Some(credentials) => format!("the user {}", credentials.username),
                None => format!("nobody in particular; set {USERNAME} and {PASSWORD}"),
            };
            bail!("the registry {} refuses {who}", self.host);
        }
        Ok(answer)
    }

    fn send_as_known(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let sent = match body {
            Some(bytes) => self.agent.run(request.body(bytes)?),
            None => self.agent.run(request.body(())?),
        };
        sent.with_context(|| format!("{method} {path} at {}", self.host))
    }

    /// What to send from now on.
    fn authorize(&self, challenge: &str) -> Result<String> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let credentials = self.credentials.as_ref().with_context(|| {
                format!(
                    "the registry {} asks who this is: set {USERNAME} and {PASSWORD}",
                    self.host
                )
            })?;
            return Ok(credentials.basic());
        }
        ensure!(
            scheme.eq_ignore_ascii_case("bearer"),
            "the registry {} asks for {scheme}; Basic and Bearer are what can be given",
            self.host
        );
        let parameters = parameters_of(parameters);
        let realm = parameters
            .get("realm")
            .context("the registry names no realm")?;
        // It is given the password.
        ensure!(
            realm.starts_with("https://") || self.origin.starts_with("http://"),
            "the registry {} sends to a realm without TLS: {realm}",
            self.host
        );
        let mut request = self.agent.get(*realm);
        for name in ["service", "scope"] {
            if let Some(value) = parameters.get(name) {
                request = request.query(name, value);
            }
        }
        if let Some(credentials) = &self.credentials {
            request = request.header("authorization", credentials.basic());
        }
        let answer = request
            .call()
            .with_context(|| format!("the realm {realm}"))?;
        let mut answer = expect(answer, StatusCode::OK, "get a token")?;
        let answer: Value = serde_json::from_slice(&answer.body_mut().read_to_vec()?)?;
        let token = ["token", "access_token"].map(|name| answer[name].as_str());
        let token = token.into_iter().flatten().next();
        Ok(format!(
            "Bearer {}",
            token.context("the realm gives no token")?
        ))
    }
}

impl Credentials {
    /// From the environment, else from where `docker login` left them.
    pub fn find(place: &str) -> Result<Option<Self>> {
        let variable = |name| {
            env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        match (variable(USERNAME), variable(PASSWORD)) {
            (Some(username), Some(password)) => return Ok(Some(Self { username, password })),
            (None, None) => {}
            _ => bail!("{USERNAME} and {PASSWORD} are set together"),
        }
        let folder = variable("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")));
        let Some(text) = folder.and_then(|folder| fs::read(folder.join("config.json")).ok()) else {
            return Ok(None);
        };
        let config: Value = serde_json::from_slice(&text).context("Docker's config.json")?;
        Self::of_docker(&config, place)
    }

    fn of_docker(config: &Value, place: &str) -> Result<Option<Self>> {
        let host = match place.split('/').next().unwrap_or_default() {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let Some(auth) = config["auths"][host]["auth"].as_str() else {
            return Ok(None);
        };
        let decoded = STANDARD.decode(auth).context("Docker's config.json")?;
        let decoded = String::from_utf8(decoded)?;
        let pair = decoded.split_once(':');
        let (username, password) = pair.context("Docker's config.json has no password")?;
        Ok(Some(Self {
            username: username.to_owned(),
            password: password.to_owned(),
        }))
    }

    fn basic(&self) -> String {
        let Self { username, password } = self;
        format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        )
    }
}

fn expect(mut answer: Response<Body>, status: StatusCode, what: &str) -> Result<Response<Body>> {
    if answer.status() != status {
        let said = answer.body_mut().read_to_string().unwrap_or_default();
        bail!("cannot {what}: {} {}", answer.status(), said.trim());
    }
    Ok(answer)
}

fn header(answer: &Response<Body>, name: &str) -> Option<String> {
    let value = answer.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

/// `name="value",…`; a value may hold commas.
fn parameters_of(text: &str) -> BTreeMap<&str, &str> {
    let mut parameters = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, after)) = after.split_once('"') else {
            break;
        };
        parameters.insert(name.trim_matches([',', ' ']), value);
        rest = after;
    }
    parameters
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_to_its_commas() {
        let read =
            parameters_of(r#"realm="https://a/t",service="b", scope="repository:c:pull,push""#);
        assert_eq!(read["realm"], "https://a/t");
        assert_eq!(read["service"], "b");
        assert_eq!(read["scope"], "repository:c:pull,push");
    }

    #[test]
    fn only_loopback_is_spoken_to_without_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
        ] {
            let registry = Registry::try_new(host, None).unwrap();
            assert_eq!(registry.origin, format!("http://{host}"));
        }
        for host in ["ghcr.io", "10.0.0.1:5000", "localhost.example:5000"] {
            let registry = Registry::try_new(host, None).unwrap();
            assert_eq!(registry.origin, format!("https://{host}"));
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for place in ["", "weir", "https://ghcr.io/weir", "ghcr.io/Weir"] {
            assert!(Registry::try_new(place, None).is_err(), "{place}");
        }
    }

    #[test]
    fn an_upload_goes_nowhere_else() {
        let registry = Registry::try_new("localhost:5000", None).unwrap();
        assert_eq!(registry.own("/v2/u?s=1").unwrap(), "/v2/u?s=1");
        assert_eq!(registry.own("http://localhost:5000/v2/u").unwrap(), "/v2/u");
        for elsewhere in [
            "http://localhost:50001/u",
            "http://localhost:5000.evil/u",
            "u",
        ] {
            assert!(registry.own(elsewhere).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn a_login_of_dockers_is_found_by_its_registry() {
        let config = json!({ "auths": { "ghcr.io": { "auth": STANDARD.encode("me:pass:word") } } });
        let found = Credentials::of_docker(&config, "ghcr.io/org/weir").unwrap();
        let found = found.map(|found| (found.username, found.password));
        assert_eq!(found, Some(("me".to_owned(), "pass:word".to_owned())));
        assert!(
            Credentials::of_docker(&config, "quay.io/org")
                .unwrap()
                .is_none()
        );
    }
}
