//! Where things are: the project, its configurations, and `.weir`, which holds all that the lab
//! downloads or writes and may be deleted at any time.

use std::path::{Path, PathBuf};

pub fn project() -> PathBuf {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    lab.parent().unwrap_or(lab).to_path_buf()
}

/// The folder of Envoy configurations.
pub fn envoy() -> PathBuf {
    project().join("envoy")
}

pub fn weir() -> PathBuf {
    project().join(".weir")
}
