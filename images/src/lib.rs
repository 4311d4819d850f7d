//! What was built, packed for where it runs: OCI images without Docker, and the files of a release.
//! The same sources give the same bytes.
//!
//! - [`contents`] says what is in each image, and [`release`] what is in a release;
//! - [`tree`] makes a layer of files, [`image`] an image of layers, [`layout`] puts it on disk;
//! - [`sbom`] lists what a program was built from;
//! - [`registry`] pushes an image.
//!
//! How a program is built the lab knows; what it does nothing here does.

pub mod blob;
pub mod contents;
pub mod image;
pub mod layout;
pub mod registry;
pub mod release;
pub mod sbom;
pub mod tree;

/// Of the filter, the programs and their images.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
