//! A running weir-sidecar in front of a Redis.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{artifact, port, process::Process, scratch::Scratch};

const START: Duration = Duration::from_secs(20);

// The process comes first: it must be gone before its folder is.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Sidecar {
    /// `redis` is a URL, as [`Redis::url`](crate::redis::Redis::url) gives.
    pub fn start(redis: &str) -> Result<Self> {
        Self::start_with(redis, &[])
    }

    /// With these arguments too, such as `--secret-file FILE`.
    pub fn start_with(redis: &str, arguments: &[&str]) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let scratch = Scratch::try_new("sidecar")?;
        let mut command = Command::new(artifact::sidecar()?);
        command.args(["--listen", &address.to_string(), "--redis", redis]);
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

    pub fn process(&self) -> &Process {
        &self.process
    }
}
