//! An image on disk: as an OCI image layout, and as one archive that `docker load` takes as well as
//! whoever reads OCI archives.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    blob::{Blob, canonical, digest},
    image::{CONFIG, INDEX, Image, Name},
    tree::{Tree, read},
};

const TAG: &str = "org.opencontainers.image.ref.name";
/// What containerd calls an image that it imports.
const NAME: &str = "io.containerd.image.name";

/// Below which names the images of this project are, where no registry says otherwise.
pub const PROJECT: &str = "weir";

/// Writes the layout in place of what is there.
pub fn write(folder: &Path, image: &Image) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (path, bytes) in files(image)? {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The layout in one file. What a container engine can run has Docker's list of contents besides.
pub fn archive(image: &Image) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for (path, bytes) in files(image)? {
        tree.file(&path, bytes);
    }
    if image.config.media_type == CONFIG {
        let layers: Vec<String> = image.layers.iter().map(place).collect();
        let contents = json!([{
            "Config": place(&image.config),
            "RepoTags": [full_name(&image.name)],
            "Layers": layers,
        }]);
        tree.file("manifest.json", canonical(contents)?);
    }
    tree.tar()
}

/// Reads a layout that [`write`] wrote, and holds it to its digests.
pub fn open(folder: &Path) -> Result<Image> {
    let index: Index = serde_json::from_slice(&read(&folder.join("index.json"))?)
        .with_context(|| format!("{} is no image layout", folder.display()))?;
    let [top] = index.manifests.as_slice() else {
        anyhow::bail!("{} holds more than one image", folder.display());
    };
    let name = top.annotations[NAME].as_str().unwrap_or_default();
    let name = name
        .split_once('/')
        .and_then(|(_, name)| name.split_once(':'));
    let (repository, tag) =
        name.with_context(|| format!("{} does not name its image", folder.display()))?;
    let load = |descriptor: &Descriptor| -> Result<Blob> {
        let algorithm_and_hash = descriptor.digest.replace(':', "/");
        let bytes = read(&folder.join("blobs").join(algorithm_and_hash))?;
        ensure!(
            digest(&bytes) == descriptor.digest,
            "{} holds another {} than it says",
            folder.display(),
            descriptor.digest
        );
        let mut blob = Blob::new(&descriptor.media_type, bytes);
        blob.annotations =
            serde_json::from_value(descriptor.annotations.clone()).unwrap_or_default();
        Ok(blob)
    };
    let mut manifest = load(top)?;
    manifest.annotations.clear();
    let contents: Manifest = serde_json::from_slice(&manifest.bytes)?;
    Ok(Image {
        name: Name {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        },
        config: load(&contents.config)?,
        layers: contents.layers.iter().map(load).collect::<Result<_>>()?,
        manifest,
    })
}

/// The image's name where no registry is said.
pub fn full_name(name: &Name) -> String {
    format!("{PROJECT}/{}:{}", name.repository, name.tag)
}

fn files(image: &Image) -> Result<Vec<(String, Vec<u8>)>> {
    let top = image
        .manifest
        .clone()
        .annotated(TAG, &image.name.tag)
        .annotated(NAME, &full_name(&image.name));
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [top.descriptor()],
    });
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            canonical(json!({ "imageLayoutVersion": "1.0.0" }))?,
        ),
        ("index.json".to_owned(), canonical(index)?),
    ];
    let blobs = image.blobs().chain([&image.manifest]);
    files.extend(blobs.map(|blob| (place(blob), blob.bytes.clone())));
    Ok(files)
}

fn place(blob: &Blob) -> String {
    format!("blobs/{}", blob.digest().replace(':', "/"))
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Value,
}
