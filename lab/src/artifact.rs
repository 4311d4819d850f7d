//! What is built from this project for the parts to run: the filter, the sidecar, and what benchmarks
//! compare them with. cargo decides whether there is anything to do.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{exports, place};

const WASM_TARGET: &str = "wasm32-wasip1";
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

/// The filter, built. `WEIR_WASM` names one that is built already.
pub fn wasm() -> Result<PathBuf> {
    static BUILT: Once = Once::new();
    BUILT.get("WEIR_WASM", || {
        let linked = wasm_of("weir")?;
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
    bring_wasm_target()?;
    let file = package.replace('-', "_");
    let folder = target_folder()?.join(WASM_TARGET).join("release");
    let path = folder.join(file).with_extension("wasm");
    announce(&path, "a minute or two");
    build(&["--package", package, "--target", WASM_TARGET])?;
    Ok(path)
}

/// The sidecar, built. `WEIR_SIDECAR` names one that is built already.
pub fn sidecar() -> Result<PathBuf> {
    static BUILT: Once = Once::new();
    BUILT.get("WEIR_SIDECAR", || {
        let path = target_folder()?.join("release/weir-sidecar");
        announce(&path, "a minute");
        build(&["--package", "weir-sidecar"])?;
        Ok(path)
    })
}

/// `weirctl`, built.
pub fn policy_tool() -> Result<PathBuf> {
    let path = target_folder()?.join("release/weirctl");
    announce(&path, "a minute");
    build(&["--package", "weir-cli"])?;
    Ok(path)
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

fn build(arguments: &[&str]) -> Result<()> {
    let status = cargo()
        .args(["build", "--release"])
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context(NO_RUST)?;
    if !status.success() {
        bail!("cargo build --release {} failed", arguments.join(" "));
    }
    Ok(())
}

/// rustup's own look-up would do, but a machine may have Rust without rustup.
fn bring_wasm_target() -> Result<()> {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(place::project())
        .output()
        .context(NO_RUST)?;
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", WASM_TARGET])
        .current_dir(place::project())
        .status()
        .is_ok_and(|status| status.success());
    if !added {
        bail!(
            "Rust cannot build for {WASM_TARGET} here. Run `rustup target add {WASM_TARGET}`, \
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

fn cargo() -> Command {
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
