//! Where things are: the project, its configurations, and `.weir`, which holds all that the lab
//! downloads or writes and may be deleted at any time.

use std::env;
use std::path::{Path, PathBuf};

/// What only the project's own folder holds.
const LANDMARK: &str = "lab/src/place.rs";

/// The checkout that this process was started for. It is looked for at run time: a program that was
/// copied together with its checkout must not go on with the files of the old place.
pub fn project() -> PathBuf {
    let started_for = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let start = started_for.or_else(|| env::current_dir().ok());
    let start = start.unwrap_or_default();
    let is_project = |folder: &&Path| folder.join(LANDMARK).is_file();
    start.ancestors().find(is_project).unwrap_or(&start).into()
}

/// The folder of Envoy configurations.
pub fn envoy() -> PathBuf {
    project().join("envoy")
}

pub fn weir() -> PathBuf {
    project().join(".weir")
}
