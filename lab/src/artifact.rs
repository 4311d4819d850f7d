//! What is built from this project for the parts to run: the filter, the sidecar, and what benchmarks
//! compare them with. cargo decides whether there is anything to do.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{exports, place};

pub const WASM_TARGET: &str = "wasm32-wasip1";
/// The package of the filter.
pub const FILTER: &str = "weir";
const NO_RUST: &str = "cannot run cargo or rustc, which build Weir. Install Rust with rustup \
    (https://rustup.rs), or name what is built already: WEIR_WASM=… WEIR_SIDECAR=…";

/// What Envoy is to call. Whatever else the SDK exports Weir has nothing to say to.
pub const EXPORTS: [&str; 16] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_downstream_data",
    "proxy_on_grpc_close",
    "proxy_on_grpc_receive",
    "proxy_on_http_call_response",
    "proxy_on_memory_allocate",
    "proxy_on_queue_ready",
    "proxy_on_request_headers",
    "proxy_on_response_headers",
    "proxy_on_tick",
    "proxy_on_upstream_data",
];

/// A program of the project, and the package that it is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Program {
    pub package: &'static str,
    pub program: &'static str,
}

pub const SIDECAR: Program = Program {
    package: "weir-sidecar",
    program: "weir-sidecar",
};
pub const TOOL: Program = Program {
    package: "weir-cli",
    program: "weirctl",
};
pub const LAB: Program = Program {
    package: "weir-lab",
    program: "weir-lab",
};

/// The filter, built. `WEIR_WASM` names one that is built already.
pub fn wasm() -> Result<PathBuf> {
    static BUILT: Once = Once::new();
    BUILT.get("WEIR_WASM", || {
        let linked = wasm_of(FILTER)?;
        let module = exports::keep(&fs::read(&linked)?, &EXPORTS)?;
        let filter = target_folder()?.join("weir.wasm");
        if fs::read(&filter).is_ok_and(|before| before == module) {
            return Ok(filter);
        }
        // Renamed, because another process may be reading it.
        let fresh = filter.with_extension(format!("wasm.{}", process::id()));
        fs::write(&fresh, module).with_context(|| format!("cannot write {}", fresh.display()))?;
        fs::rename(&fresh, &filter)?;
        Ok(filter)
    })
}

/// Another package of the project, built as a filter.
pub fn wasm_of(package: &str) -> Result<PathBuf> {
    bring_target(WASM_TARGET)?;
    let file = package.replace('-', "_");
    let folder = target_folder()?.join(WASM_TARGET).join("release");
    let path = folder.join(file).with_extension("wasm");
    announce(&path, "a minute or two");
    build(
        &["--package", package, "--target", WASM_TARGET],
        &reproducible()?,
    )?;
    Ok(path)
}

/// The sidecar, built. `WEIR_SIDECAR` names one that is built already.
pub fn sidecar() -> Result<PathBuf> {
    static BUILT: Once = Once::new();
    BUILT.get("WEIR_SIDECAR", || SIDECAR.built())
}

/// `weirctl`, built.
pub fn policy_tool() -> Result<PathBuf> {
    TOOL.built()
}

/// What programs are built for that go into images.
pub fn standalone_target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}

impl Program {
    /// For this machine.
    fn built(self) -> Result<PathBuf> {
        let path = target_folder()?.join("release").join(self.program);
        announce(&path, "a minute");
        build(&["--package", self.package, "--bin", self.program], &[])?;
        Ok(path)
    }

    /// Linked statically: it needs no library of where it runs.
    pub fn standalone(self) -> Result<PathBuf> {
        let target = standalone_target();
        bring_target(&target)?;
        let folder = target_folder()?.join(&target).join("release");
        let path = folder.join(self.program);
        announce(&path, "two minutes or so");
        let mut variables = reproducible()?;
        // Otherwise musl's own wrapper is called, which few machines have. ring's C takes nothing from
        // the C library's headers in which the two differ.
        let compiler = format!("CC_{}", target.replace('-', "_"));
        if env::var_os(&compiler).is_none() {
            let own = env::var_os("CC").unwrap_or_else(|| "cc".into());
            variables.push((compiler, own));
        }
        let what = ["--package", self.package, "--bin", self.program];
        build(&[&what[..], &["--target", &target]].concat(), &variables)?;
        Ok(path)
    }
}

/// One look at the sources for each process: tests start many gateways.
struct Once(Mutex<Option<PathBuf>>);

impl Once {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self, own: &str, build: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &*built {
            return Ok(path.clone());
        }
        let path = match env::var_os(own) {
            Some(path) => PathBuf::from(path),
            None => build()?,
        };
        if !path.is_file() {
            bail!("there is no {}", path.display());
        }
        *built = Some(path.clone());
        Ok(path)
    }
}

/// Says what the first build takes. Later ones build what changed, and cargo says what that is.
fn announce(path: &Path, time: &str) {
    if !path.exists() {
        eprintln!("building {}: {time}, once", path.display());
    }
}

fn build(arguments: &[&str], variables: &[(String, OsString)]) -> Result<()> {
    let status = cargo()
        .args(["build", "--release"])
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .status()
        .context(NO_RUST)?;
    if !status.success() {
        bail!("cargo build --release {} failed", arguments.join(" "));
    }
    Ok(())
}

/// What keeps the folders of this machine's user out of what is built: messages of a panic name files
/// of crates by where cargo keeps them.
fn reproducible() -> Result<Vec<(String, OsString)>> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let sources = cargo_home.context("neither CARGO_HOME nor HOME is set")?;
    let sources = sources.join("registry/src");
    let mut flags = Vec::new();
    // One folder a registry, named by a hash of its address.
    for registry in fs::read_dir(&sources).into_iter().flatten().flatten() {
        let registry = registry.path();
        flags.push(format!("--remap-path-prefix={}=crates", registry.display()));
    }
    flags.sort();
    // Set even where it is empty: flags that a user has for their own machine are not for others'.
    let flags = flags.join("\u{1f}");
    Ok(vec![("CARGO_ENCODED_RUSTFLAGS".to_owned(), flags.into())])
}

/// rustup's own look-up would do, but a machine may have Rust without rustup.
fn bring_target(target: &str) -> Result<()> {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(place::project())
        .output()
        .context(NO_RUST)?;
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", target])
        .current_dir(place::project())
        .status()
        .is_ok_and(|status| status.success());
    if !added {
        bail!(
            "Rust cannot build for {target} here. Run `rustup target add {target}`, \
             or install the target the way you installed Rust"
        );
    }
    Ok(())
}

/// Asked, not assumed: `CARGO_TARGET_DIR` and cargo's own configuration can move it.
fn target_folder() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context(NO_RUST)?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let folder = metadata.get("target_directory").and_then(Value::as_str);
    folder
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// cargo, in the project.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::project());
    // A cargo that runs this process describes its package here. The inner one would take that for a
    // change, and build again what looks at it (ring does).
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}
