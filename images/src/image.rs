//! One image: its configuration, layers and manifest. It knows the forms that the OCI image
//! specification and the two of Wasm images ask for, and not what is inside.

use std::{collections::BTreeMap, env};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{blob::Blob, tree::Layer};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
pub const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

pub const TITLE: &str = "org.opencontainers.image.title";

/// An image shows a time; one that is the same each time has none to show.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Where a registry keeps an image, below whatever prefix it has for a project's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    pub repository: String,
    pub tag: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    pub name: Name,
    pub config: Blob,
    pub layers: Vec<Blob>,
    pub manifest: Blob,
}

impl Image {
    /// What a container engine runs. `run` is the image specification's `config`.
    ///
    /// Not an index, not even of one: Istio and Envoy Gateway compare the digest that a user pins
    /// with that of the manifest they choose from an index, and refuse the index's own.
    pub fn container(name: Name, about: &str, run: &Value, layers: Vec<Layer>) -> Result<Self> {
        let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
        let history = json!({ "created": CREATED, "created_by": "make images" });
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": vec![history; layers.len()],
        });
        let layers = layers.into_iter().map(|layer| layer.blob).collect();
        Self::with(name, about, Blob::json(CONFIG, config)?, layers)
    }

    /// The module as it is, in the form of the Wasm OCI artifact. Who reads it asks for two layers.
    pub fn wasm_artifact(name: Name, about: &str, module: Vec<u8>) -> Result<Self> {
        let config = json!({ "type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {} });
        let note = json!({ "name": name.repository, "version": name.tag });
        let layers = vec![
            Blob::new(WASM_LAYER, module).annotated(TITLE, "plugin.wasm"),
            Blob::json(WASM_CONFIG, note)?.annotated(TITLE, "runtime-config.json"),
        ];
        Self::with(name, about, Blob::json(WASM_CONFIG, config)?, layers)
    }

    fn with(name: Name, about: &str, config: Blob, layers: Vec<Blob>) -> Result<Self> {
        let annotations: BTreeMap<&str, &str> = BTreeMap::from([
            (TITLE, name.repository.as_str()),
            ("org.opencontainers.image.description", about),
            ("org.opencontainers.image.version", name.tag.as_str()),
            (
                "org.opencontainers.image.licenses",
                env!("CARGO_PKG_LICENSE"),
            ),
        ]);
        let layer_descriptors: Vec<Value> = layers.iter().map(Blob::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layer_descriptors,
            "annotations": annotations,
        });
        Ok(Self {
            name,
            config,
            layers,
            manifest: Blob::json(MANIFEST, manifest)?,
        })
    }

    /// What the manifest refers to.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }
}

/// As Go names this machine's, which images do.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
