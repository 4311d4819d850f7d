//! The files of a release: what is built, what configures it, what each image was built from, and
//! the checksums of all of them, by which one signature covers all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use weir_lab::{
    artifact::{self, Program},
    place,
};

use crate::{
    VERSION,
    blob::sha256,
    contents::{Contents, Packed},
    layout,
    tree::{Tree, gzip, read},
};

/// Where the checksums are; `sha256sum --check` reads it.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// The images by their digests.
pub const DIGESTS: &str = "images.txt";

/// Writes an image's layout, its archive and its list into a folder.
pub fn image(folder: &Path, contents: Contents, packed: &Packed) -> Result<()> {
    let label = contents.label();
    layout::write(&folder.join(label), &packed.image)?;
    write(
        folder,
        &format!("{label}.tar"),
        &layout::archive(&packed.image)?,
    )?;
    write(folder, &format!("{label}.cdx.json"), &packed.sbom)
}

/// Builds everything, and writes it in place of what is there. Returns the files' names.
pub fn release(folder: &Path) -> Result<Vec<String>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut digests = String::new();
    for contents in Contents::ALL {
        let Packed { image, sbom } = contents.pack(VERSION)?;
        let label = contents.label();
        let archive = gzip(&layout::archive(&image)?)?;
        write(folder, &format!("image-{label}-{VERSION}.tar.gz"), &archive)?;
        write(folder, &format!("image-{label}-{VERSION}.cdx.json"), &sbom)?;
        digests += &line(&image);
    }
    write(folder, DIGESTS, digests.as_bytes())?;

    write(
        folder,
        &format!("weir-{VERSION}.wasm"),
        &read(&artifact::wasm()?)?,
    )?;
    for program in [artifact::SIDECAR, artifact::TOOL] {
        write(folder, &archive_name(program), &archive(program)?)?;
    }
    let mut configuration = Tree::default();
    for name in ["envoy", "monitoring", "lua", "platforms"] {
        let inside = format!("weir-{VERSION}/{name}");
        configuration.folder(&inside, &place::project().join(name))?;
    }
    let name = format!("weir-configuration-{VERSION}.tar.gz");
    write(folder, &name, &gzip(&configuration.tar()?)?)?;
    write(folder, &format!("weir-chart-{VERSION}.tgz"), &chart()?)?;
    write(folder, "LICENSE", &read(&place::project().join("LICENSE"))?)?;

    let mut names = names(folder)?;
    let mut checksums = String::new();
    for name in &names {
        checksums += &format!("{}  {name}\n", sha256(&read(&folder.join(name))?));
    }
    write(folder, CHECKSUMS, checksums.as_bytes())?;
    names.push(CHECKSUMS.to_owned());
    Ok(names)
}

/// The chart as `helm install` takes it: its links are files in there.
pub fn chart() -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    tree.folder("weir", &place::project().join("platforms/helm/weir"))?;
    gzip(&tree.tar()?)
}

/// An image by its digest, as [`DIGESTS`] lists it.
pub fn line(image: &crate::image::Image) -> String {
    let name = layout::full_name(&image.name);
    format!("{name}@{}\n", image.manifest.digest())
}

fn archive(program: Program) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    tree.program(program.program, read(&program.standalone()?)?);
    tree.file("LICENSE", read(&place::project().join("LICENSE"))?);
    gzip(&tree.tar()?)
}

fn archive_name(program: Program) -> String {
    let target = artifact::standalone_target();
    format!("{}-{VERSION}-{target}.tar.gz", program.program)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path: PathBuf = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_chart_of_a_release_has_files_where_the_tree_has_links() {
        let chart = chart().unwrap();
        assert_eq!(chart, super::chart().unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&chart[..]));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.push((entry.path().unwrap().display().to_string(), bytes));
        }
        let folder = place::project().join("platforms");
        for (inside, source) in [
            ("weir/Chart.yaml", "helm/weir/Chart.yaml"),
            ("weir/manifests/istio/bridge.yaml", "istio/bridge.yaml"),
            ("weir/manifests/limiter.yaml", "limiter.yaml"),
        ] {
            let source = read(&folder.join(source)).unwrap();
            assert!(found.contains(&(inside.to_owned(), source)), "{inside}");
        }
    }
}
