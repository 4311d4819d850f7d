//! How a Wasm module is fetched from a registry, as istio/istio's `pkg/wasm/imagefetcher.go` and
//! `cache.go` do it, and envoyproxy/gateway's `internal/wasm`, which is that code once more.
//!
//! A reference is of a tag or of a digest. Of an index they take the manifest for linux/amd64, and a
//! digest that the user pins is compared with that manifest's, never with the index's. Then the forms
//! are tried in order: Docker's media types, the one of an OCI image whose last layer is a tar with a
//! `plugin.wasm`, and two layers of which one is the module.

use std::{io::Read, net::SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;
use weir_images::blob::{digest, sha256};
use weir_lab::client::Client;

/// What go-containerregistry says it takes.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v1+json,\
    application/vnd.docker.distribution.manifest.v1+prettyjws,\
    application/vnd.docker.distribution.manifest.v2+json,\
    application/vnd.oci.image.manifest.v1+json,\
    application/vnd.docker.distribution.manifest.list.v2+json,\
    application/vnd.oci.image.index.v1+json";

/// A registry, as the agent was told of it.
pub struct Agent {
    client: Client,
    /// The pull secret's header.
    authorization: Option<String>,
}

impl Agent {
    pub fn of(address: SocketAddr) -> Self {
        Self {
            client: Client::new(address),
            authorization: None,
        }
    }

    #[must_use]
    pub fn authorized(mut self, authorization: &str) -> Self {
        self.authorization = Some(authorization.to_owned());
        self
    }

    /// The module. `reference` is a tag or a digest, `sha256` what the user pins, without its prefix.
    pub fn fetch(
        &self,
        repository: &str,
        reference: &str,
        sha256: Option<&str>,
    ) -> Result<Vec<u8>> {
        // A digest in the reference is a pin where there is no other.
        let pin = sha256.or_else(|| reference.strip_prefix("sha256:"));
        let mut manifest = self.manifest(repository, reference)?;
        if manifest["manifests"].is_array() {
            let children = manifest["manifests"].as_array().into_iter().flatten();
            let child = children.into_iter().find(|child| {
                child["platform"]["os"] == "linux" && child["platform"]["architecture"] == "amd64"
            });
            let child = child.context("no child with platform linux/amd64")?;
            let child = child["digest"]
                .as_str()
                .context("a child has a digest")?
                .to_owned();
            manifest = self.manifest(repository, &child)?;
        }
        let found = manifest["digest"].as_str().unwrap_or_default();
        if let Some(pin) = pin {
            ensure!(found == pin, "checksum {found} does not match {pin}");
        }
        let module = self.module(repository, &manifest)?;
        ensure!(
            module.starts_with(b"\0asm"),
            "the fetched binary is invalid"
        );
        Ok(module)
    }

    fn module(&self, repository: &str, manifest: &Value) -> Result<Vec<u8>> {
        let layers = manifest["layers"].as_array().context("no layers")?;
        let last = layers
            .last()
            .context("number of layers must be greater than zero")?;
        let compat =
            if manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json" {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            } else {
                "application/vnd.oci.image.layer.v1.tar+gzip"
            };
        if last["mediaType"] == compat {
            return plugin(&self.layer(repository, last)?);
        }
        ensure!(
            layers.len() == 2,
            "number of layers must be 2 but got {}",
            layers.len()
        );
        let module = layers.iter().find(|layer| {
            layer["mediaType"] == "application/vnd.module.wasm.content.layer.v1+wasm"
        });
        self.layer(repository, module.context("no layer is the module")?)
    }

    /// With its own digest as `digest`, without the prefix.
    fn manifest(&self, repository: &str, reference: &str) -> Result<Value> {
        let bytes = self.get(&format!("/v2/{repository}/manifests/{reference}"))?;
        let found = sha256(&bytes);
        if let Some(wanted) = reference.strip_prefix("sha256:") {
            ensure!(
                found == wanted,
                "manifest digest {found} does not match {wanted}"
            );
        }
        let mut manifest: Value = serde_json::from_slice(&bytes)?;
        manifest["digest"] = found.into();
        Ok(manifest)
    }

    fn layer(&self, repository: &str, layer: &Value) -> Result<Vec<u8>> {
        let wanted = layer["digest"].as_str().context("a layer has a digest")?;
        let bytes = self.get(&format!("/v2/{repository}/blobs/{wanted}"))?;
        ensure!(
            digest(&bytes) == wanted,
            "the layer is not what its digest says"
        );
        Ok(bytes)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut request = self.client.get(path).header("accept", ACCEPT);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send()?;
        ensure!(answer.status == 200, "GET {path}: {}", answer.status);
        Ok(answer.body)
    }
}

/// The first file of that name, in whatever folder.
fn plugin(layer: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry
            .path()?
            .file_name()
            .is_some_and(|name| name == "plugin.wasm")
        {
            let mut module = Vec::new();
            entry.read_to_end(&mut module)?;
            return Ok(module);
        }
    }
    bail!("plugin.wasm not found in the archive")
}
