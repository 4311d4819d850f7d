//! The binary: flags in, signals out.

use anyhow::Result;
use clap::Parser;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use weir_sidecar::Sidecar;
use weir_sidecar::flags::{Config, Flags};
use weir_sidecar::screen::Script;

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let redis: Vec<_> = flags
        .redis
        .iter()
        .map(|url| url.address.to_string())
        .collect();
    let sidecar = Sidecar::bind(Config::try_new(flags)?, script()).await?;
    eprintln!(
        "weir-sidecar: listening on {}, Redis at {}",
        sidecar.place()?,
        redis.join(", ")
    );
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = async move {
        select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        eprintln!("weir-sidecar: stopping");
    };
    sidecar.serve(stop).await;
    Ok(())
}

/// The script that the filter of the same version calls.
fn script() -> Script {
    let script = weir_core::store::script::Script::production();
    Script {
        source: script.source().to_owned().into(),
        sha: script.sha().to_owned(),
    }
}
