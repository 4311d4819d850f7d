//! A running weir-sidecar in front of a Redis.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{artifact, port, process::Process, scratch::Scratch};

const START: Duration = Duration::from_secs(20);
/// The longest that the sidecar allows. It waits a fifth less than the filter, so that the filter
/// hears what happened.
const MOST_TIMEOUT_MS: u64 = 500;

// The process comes first: it must be gone before its folder is.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Sidecar {
    /// `redis` is a URL, as [`Redis::url`](crate::redis::Redis::url) gives; `timeout_ms` is the
    /// filter's.
    pub fn start(redis: &str, timeout_ms: u64) -> Result<Self> {
        Self::start_with(redis, timeout_ms, &[])
    }

    /// With these arguments too, such as `--secret-file FILE`.
    pub fn start_with(redis: &str, timeout_ms: u64, arguments: &[&str]) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let scratch = Scratch::try_new("sidecar")?;
        let mut command = Command::new(artifact::sidecar()?);
        command.args(["--listen", &address.to_string(), "--redis", redis]);
        let timeout_ms = (timeout_ms * 4 / 5).clamp(1, MOST_TIMEOUT_MS);
        command.args(["--timeout-ms", &timeout_ms.to_string()]);
        command.args(arguments);
        let process = Process::spawn("the sidecar", command, &scratch.file("sidecar.log"))?;
        process.wait_ready(START, || TcpStream::connect(address).is_ok())?;
        Ok(Self {
            process,
            address,
            _scratch: scratch,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds it still: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}
