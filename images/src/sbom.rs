//! What a program was built from, as CycloneDX lists it: the crates that end up in it, by what cargo
//! would build for its target, and the files that come along. It names no time and no machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use weir_lab::{
    artifact::{self, Program},
    place,
};

use crate::{
    blob::{canonical, sha256},
    image::Image,
};

/// What the filter is built for.
pub const WASM: &str = artifact::WASM_TARGET;

/// The media type of the list.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

#[derive(Clone, Debug, Default)]
pub struct Bom {
    components: BTreeMap<String, Value>,
    /// What each component is built from.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// What stands by itself.
    roots: BTreeSet<String>,
}

impl Bom {
    /// A program as images carry it.
    pub fn program(&mut self, program: Program) -> Result<()> {
        self.crates(program.package, &artifact::standalone_target())
    }

    /// A package of the project and all crates that end up in it.
    pub fn crates(&mut self, package: &str, target: &str) -> Result<()> {
        let checksums = checksums()?;
        let rust = rust()?;
        // The ancestors of the line that is read.
        let mut path: Vec<String> = Vec::new();
        for line in cargo_tree(package, target)?.lines() {
            let node = Node::read(line).with_context(|| format!("cargo tree said: {line}"))?;
            let purl = format!("pkg:cargo/{}@{}", node.name, node.version);
            path.truncate(node.depth);
            match path.last() {
                Some(parent) => {
                    let parts = self.edges.entry(parent.clone()).or_default();
                    parts.insert(purl.clone());
                }
                None => {
                    self.roots.insert(purl.clone());
                    let parts = self.edges.entry(purl.clone()).or_default();
                    parts.insert(rust.clone());
                }
            }
            path.push(purl.clone());
            let mut component = json!({
                "type": "library",
                "bom-ref": purl,
                "name": node.name,
                "version": node.version,
                "purl": purl,
                "licenses": [{ "expression": node.licence.replace('/', " OR ") }],
            });
            let key = (node.name.to_owned(), node.version.to_owned());
            if let Some(checksum) = checksums.get(&key) {
                component["hashes"] = hashes(checksum);
            }
            self.components.insert(purl, component);
        }
        let version = rust.rsplit('@').next().unwrap_or_default();
        let component = json!({
            "type": "library",
            "bom-ref": rust,
            "name": "rust",
            "version": version,
            "description": "Rust's standard library",
            "purl": rust,
        });
        self.components.insert(rust, component);
        Ok(())
    }

    /// A program of others, by what it says of itself.
    pub fn version_of(&mut self, program: &Path) -> Result<()> {
        let output = Command::new(program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let name = said.split_whitespace().next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        let mut words = said.split(|c: char| !(c.is_ascii_digit() || c == '.'));
        let version = words
            .find(|word| word.matches('.').count() == 2)
            .with_context(|| format!("{} names no version: {said}", program.display()))?;
        let purl = format!("pkg:generic/{name}@{version}");
        let component = json!({
            "type": "application",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "hashes": hashes(&sha256(&fs::read(program)?)),
        });
        self.roots.insert(purl.clone());
        self.components.insert(purl, component);
        Ok(())
    }

    /// A file that comes along.
    pub fn file(&mut self, path: &str, bytes: &[u8]) {
        let hash = sha256(bytes);
        let reference = format!("file:{path}");
        let component = json!({
            "type": "file",
            "bom-ref": reference,
            "name": path,
            "hashes": hashes(&hash),
        });
        self.roots.insert(reference.clone());
        self.components.insert(reference, component);
    }

    /// The list, for an image.
    pub fn of_image(self, image: &Image) -> Result<Vec<u8>> {
        let name = &image.name;
        let purl = format!("pkg:oci/{}@{}", name.repository, image.manifest.digest());
        let whole = json!({
            "type": "container",
            "bom-ref": purl,
            "name": name.repository,
            "version": name.tag,
            "purl": purl,
        });
        self.list(&purl, &whole)
    }

    fn list(mut self, reference: &str, whole: &Value) -> Result<Vec<u8>> {
        let roots = std::mem::take(&mut self.roots);
        self.edges.insert(reference.to_owned(), roots);
        let dependencies = self
            .edges
            .iter()
            .map(|(whole, parts)| json!({ "ref": whole, "dependsOn": parts }));
        canonical(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": whole },
            "components": self.components.values().collect::<Vec<_>>(),
            "dependencies": dependencies.collect::<Vec<_>>(),
        }))
    }
}

/// A line of `cargo tree`.
#[derive(Debug, Eq, PartialEq)]
struct Node<'a> {
    depth: usize,
    name: &'a str,
    version: &'a str,
    licence: &'a str,
}

impl<'a> Node<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let start = line.find(|c: char| !c.is_ascii_digit())?;
        let (depth, rest) = line.split_at(start);
        let mut fields = rest.split('\t');
        let mut words = fields.next()?.split_whitespace();
        Some(Self {
            depth: depth.parse().ok()?,
            name: words.next()?,
            version: words.next()?.strip_prefix('v')?,
            licence: fields.next()?,
        })
    }
}

/// Asked, rather than `cargo metadata`: that one joins what all packages of the project would have.
fn cargo_tree(package: &str, target: &str) -> Result<String> {
    let output = artifact::cargo()
        .args(["tree", "--locked", "--package", package, "--target", target])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "depth"])
        .args(["--format", "{p}\t{l}\t"])
        .output()
        .context("cannot run cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree of {package} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn rust() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output();
    let said = String::from_utf8(output.context("cannot run rustc")?.stdout)?;
    let version = said.split_whitespace().nth(1);
    let version = version.context("rustc names no version")?;
    Ok(format!("pkg:generic/rust@{version}"))
}

/// SHA-256 of each crate as the registry gave it.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let text = fs::read_to_string(place::project().join("Cargo.lock"))?;
    let lock: Lock = toml::from_str(&text).context("Cargo.lock")?;
    let known = lock.package.into_iter().filter_map(|package| {
        let Package {
            name,
            version,
            checksum,
        } = package;
        Some(((name, version), checksum?))
    });
    Ok(known.collect())
}

fn hashes(sha256: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": sha256 }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_are_read_with_or_without_a_place() {
        let table = [
            (
                "0weir v0.1.0 (/some/where)\tApache-2.0\t",
                (0, "weir", "0.1.0"),
            ),
            (
                "12base64 v0.22.1\tApache-2.0\t (*)",
                (12, "base64", "0.22.1"),
            ),
        ];
        for (line, (depth, name, version)) in table {
            let licence = "Apache-2.0";
            let expected = Node {
                depth,
                name,
                version,
                licence,
            };
            assert_eq!(Node::read(line), Some(expected), "{line}");
        }
        assert_eq!(Node::read(""), None);
    }

    #[test]
    fn the_filters_list_has_its_crates_with_checksums_and_none_of_the_tests() {
        let mut bom = Bom::default();
        bom.crates(artifact::FILTER, WASM).unwrap();
        let list = bom.list("whole", &json!({})).unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        let components = list["components"].as_array().unwrap();
        let of = |name: &str| {
            components
                .iter()
                .find(|component| component["name"] == name)
        };
        let sdk = of("proxy-wasm").unwrap();
        assert_eq!(sdk["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert!(
            of("weir-core").unwrap()["hashes"].is_null(),
            "it is no crate of the registry"
        );
        assert!(of("proptest").is_none() && of("tokio").is_none());
        let edges = list["dependencies"].as_array().unwrap();
        let whole = edges.iter().find(|edge| edge["ref"] == "whole").unwrap();
        let filter = &whole["dependsOn"][0];
        assert!(filter.as_str().unwrap().starts_with("pkg:cargo/weir@"));
        let of_filter = edges.iter().find(|edge| &edge["ref"] == filter).unwrap();
        let parts = of_filter["dependsOn"].as_array().unwrap();
        assert!(parts.contains(&sdk["bom-ref"]), "{of_filter}");
        let references: BTreeSet<_> = components
            .iter()
            .map(|c| c["bom-ref"].to_string())
            .collect();
        for part in edges
            .iter()
            .flat_map(|edge| edge["dependsOn"].as_array().unwrap())
        {
            assert!(
                references.contains(&part.to_string()),
                "{part} is no component"
            );
        }
    }
}
