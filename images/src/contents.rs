//! What is in each image, and how it is run.

use std::{env, fmt::Write, path::PathBuf};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use serde_json::{Value, json};
use weir_lab::{artifact, parts, place};

use crate::{
    image::{Image, Name},
    sbom::{Bom, WASM},
    tree::{Tree, read},
};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Contents {
    /// The filter, as Istio's agent and Envoy Gateway fetch it
    Filter,
    /// The filter once more, as a Wasm OCI artifact
    FilterArtifact,
    /// weir-sidecar
    Sidecar,
    /// weirctl
    Weirctl,
    /// Envoy, Redis and an upstream, by one command
    Demo,
}

/// An image with the list of what it was built from.
#[derive(Clone, Debug)]
pub struct Packed {
    pub image: Image,
    pub sbom: Vec<u8>,
}

/// Nobody's account on any machine, and not root's.
const NOBODY: &str = "65532:65532";

/// What `envoy/start.sh` and `envoy/render.sh` call.
const SHELL: [&str; 6] = ["cat", "dirname", "mktemp", "sed", "sh", "tr"];

/// What is sent to a port that an engine publishes comes from the engine's network.
const TRUST: &str =
    r#"["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]"#;

impl Contents {
    pub const ALL: [Self; 5] = [
        Self::Filter,
        Self::FilterArtifact,
        Self::Sidecar,
        Self::Weirctl,
        Self::Demo,
    ];

    /// The folder of its layout, and what its files are called.
    pub fn label(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::FilterArtifact => "filter-artifact",
            Self::Sidecar => "sidecar",
            Self::Weirctl => "weirctl",
            Self::Demo => "demo",
        }
    }

    /// Builds what is in it, and packs it.
    pub fn pack(self, version: &str) -> Result<Packed> {
        let (image, bom) = match self {
            Self::Filter => filter(self.name(version))?,
            Self::FilterArtifact => filter_artifact(self.name(version))?,
            Self::Sidecar => sidecar(self.name(version))?,
            Self::Weirctl => tool(self.name(version))?,
            Self::Demo => demo(self.name(version))?,
        };
        let sbom = bom.of_image(&image)?;
        Ok(Packed { image, sbom })
    }

    fn name(self, version: &str) -> Name {
        // The same module in two forms is one repository.
        let (repository, tag) = match self {
            Self::FilterArtifact => ("filter", format!("{version}-artifact")),
            other => (other.label(), version.to_owned()),
        };
        Name {
            repository: repository.to_owned(),
            tag,
        }
    }
}

fn filter(name: Name) -> Result<(Image, Bom)> {
    let mut tree = Tree::default();
    // The name that the form of Wasm images prescribes.
    tree.file("plugin.wasm", read(&artifact::wasm()?)?);
    let about = "Weir's filter for Envoy";
    let image = Image::container(name, about, &json!({}), vec![tree.layer()?])?;
    Ok((image, filter_bom()?))
}

fn filter_artifact(name: Name) -> Result<(Image, Bom)> {
    let module = read(&artifact::wasm()?)?;
    let image = Image::wasm_artifact(name, "Weir's filter for Envoy", module)?;
    Ok((image, filter_bom()?))
}

fn filter_bom() -> Result<Bom> {
    let mut bom = Bom::default();
    bom.crates(artifact::FILTER, WASM)?;
    Ok(bom)
}

fn sidecar(name: Name) -> Result<(Image, Bom)> {
    let mut tree = Tree::default();
    tree.program("weir-sidecar", read(&artifact::SIDECAR.standalone()?)?);
    let mut bom = Bom::default();
    bom.program(artifact::SIDECAR)?;
    authorities(&mut tree, &mut bom)?;
    let run = json!({
        "Entrypoint": ["/weir-sidecar"],
        "User": NOBODY,
        "ExposedPorts": { "6380/tcp": {} },
    });
    let about = "Weir's sidecar: the store's wire in front of Redis";
    let image = Image::container(name, about, &run, vec![tree.layer()?])?;
    Ok((image, bom))
}

fn tool(name: Name) -> Result<(Image, Bom)> {
    let program = artifact::TOOL.program;
    let mut tree = Tree::default();
    tree.program(program, read(&artifact::TOOL.standalone()?)?);
    let mut bom = Bom::default();
    bom.program(artifact::TOOL)?;
    authorities(&mut tree, &mut bom)?;
    // Where a folder with policies is mounted.
    let run = json!({
        "Entrypoint": [format!("/{program}")],
        "User": NOBODY,
        "WorkingDir": "/policies",
    });
    let about = "Weir's command line: judges and publishes policies";
    let image = Image::container(name, about, &run, vec![tree.layer()?])?;
    Ok((image, bom))
}

/// `weir-lab run` with all that it starts. Envoy and Redis need glibc, and the configurations a shell:
/// these are this machine's.
fn demo(name: Name) -> Result<(Image, Bom)> {
    let mut bom = Bom::default();
    let mut base = Tree::default();
    for name in SHELL {
        base.installed(name, &on_path(name)?)?;
    }
    let (envoy, redis) = (parts::envoy()?, parts::redis_server()?);
    base.installed("envoy", &envoy)?;
    base.installed("redis-server", &redis)?;
    base.shared_folder("tmp");
    for (path, bytes) in base.files() {
        match path {
            "usr/bin/envoy" => bom.version_of(&envoy)?,
            "usr/bin/redis-server" => bom.version_of(&redis)?,
            other => bom.file(other, bytes),
        }
    }

    let mut weir = Tree::default();
    for program in [artifact::LAB, artifact::SIDECAR, artifact::TOOL] {
        let path = format!("usr/bin/{}", program.program);
        weir.program(&path, read(&program.standalone()?)?);
        bom.program(program)?;
    }
    weir.file("weir/weir.wasm", read(&artifact::wasm()?)?);
    bom.crates(artifact::FILTER, WASM)?;
    weir.folder("weir/envoy", &place::envoy())?;
    weir.shared_folder("weir/.weir");

    let environment = [
        "PATH=/usr/bin".to_owned(),
        "LISTEN=0.0.0.0".to_owned(),
        format!("TRUST={TRUST}"),
        "WEIR_DEMO=container".to_owned(),
        "WEIR_ENVOY=/usr/bin/envoy".to_owned(),
        "WEIR_REDIS_SERVER=/usr/bin/redis-server".to_owned(),
        "WEIR_REDIS_URL=127.0.0.1:16379".to_owned(),
        "WEIR_SIDECAR=/usr/bin/weir-sidecar".to_owned(),
        "WEIR_WASM=/weir/weir.wasm".to_owned(),
    ];
    let run: Value = json!({
        "Entrypoint": ["weir-lab", "run"],
        "Env": environment,
        "ExposedPorts": { "10000/tcp": {} },
        "User": NOBODY,
        "WorkingDir": "/weir",
    });
    let layers = vec![base.layer()?, weir.layer()?];
    let about = "Weir's demonstration: Envoy, Redis and an upstream";
    Ok((Image::container(name, about, &run, layers)?, bom))
}

/// Whom a TLS client believes: Mozilla's list, as the lock file pins it, where the programs look.
fn authorities(tree: &mut Tree, bom: &mut Bom) -> Result<()> {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        writeln!(pem, "-----BEGIN CERTIFICATE-----")?;
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            writeln!(pem, "{}", str::from_utf8(line)?)?;
        }
        writeln!(pem, "-----END CERTIFICATE-----")?;
    }
    let path = "etc/ssl/certs/ca-certificates.crt";
    bom.file(path, pem.as_bytes());
    tree.file(path, pem);
    Ok(())
}

fn on_path(name: &str) -> Result<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let mut paths = env::split_paths(&folders).map(|folder| folder.join(name));
    paths
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow::anyhow!("{name} is missing, which the demo's image takes along"))
}
