//! `weir-images`: what `make images`, `make images-push` and `make release` run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use weir_images::{
    VERSION,
    contents::Contents,
    layout,
    registry::{Credentials, Registry},
    release::{self, DIGESTS},
    tree::read,
};

#[derive(Parser)]
#[command(
    name = "weir-images",
    version,
    about = "Packs what was built, and pushes it"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build images, as OCI layouts and as archives
    Build {
        /// All of them if none is named
        images: Vec<Contents>,
        /// The folder to write into
        #[arg(long, default_value = "target/images")]
        to: PathBuf,
    },
    /// Push images that were built to a registry
    Push {
        /// Its host, with the path of the repositories: ghcr.io/ORG/weir, localhost:5000
        registry: String,
        /// All of them if none is named
        images: Vec<Contents>,
        /// The folder that they were written into
        #[arg(long, default_value = "target/images")]
        from: PathBuf,
    },
    /// Build all that a release consists of
    Release {
        /// The folder to write into, in place of what is there
        #[arg(long, default_value = "target/dist")]
        to: PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Build { images, to } => build(&chosen(images), &to),
        Task::Push {
            registry,
            images,
            from,
        } => push(&registry, &chosen(images), &from),
        Task::Release { to } => {
            for name in release::release(&to)? {
                println!("{}", to.join(name).display());
            }
            Ok(())
        }
    }
}

fn chosen(images: Vec<Contents>) -> Vec<Contents> {
    if images.is_empty() {
        Contents::ALL.to_vec()
    } else {
        images
    }
}

fn build(images: &[Contents], to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut digests = String::new();
    for contents in images {
        let packed = contents.pack(VERSION)?;
        release::image(to, *contents, &packed)?;
        let line = release::line(&packed.image);
        println!(
            "{}.tar  {}",
            to.join(contents.label()).display(),
            line.trim_end()
        );
        digests += &line;
    }
    release::write(to, DIGESTS, digests.as_bytes())
}

fn push(registry: &str, images: &[Contents], from: &Path) -> Result<()> {
    let mut registry = Registry::try_new(registry, Credentials::find(registry)?)?;
    for contents in images {
        let label = contents.label();
        let image = layout::open(&from.join(label))
            .with_context(|| format!("{label} was not built: make images"))?;
        let sbom = read(&from.join(format!("{label}.cdx.json")))?;
        println!("{}", registry.push(&image, &sbom)?.image);
    }
    Ok(())
}
