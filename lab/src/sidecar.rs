//! A running weir-sidecar in front of a Redis.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{artifact, port};

const START: Duration = Duration::from_secs(20);
/// The longest that the sidecar allows. It waits a fifth less than the filter, so that the filter
/// hears what happened.
const MOST_TIMEOUT_MS: u64 = 500;

// The process comes first: it must be gone before its folder is.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    address: SocketAddr,
    arguments: Vec<String>,
    password: Option<String>,
    scratch: Scratch,
}

impl Sidecar {
    /// `redis` is a URL, as [`Redis::url`](crate::redis::Redis::url) gives; `timeout_ms` is the
    /// filter's.
    pub fn start(redis: &str, timeout_ms: u64) -> Result<Self> {
        Self::start_with(&["--redis", redis], timeout_ms, None)
    }

    /// With these arguments besides, and the password of its Redis.
    pub fn start_with(arguments: &[&str], timeout_ms: u64, password: Option<&str>) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let scratch = Scratch::try_new("sidecar")?;
        let timeout_ms = (timeout_ms * 4 / 5).clamp(1, MOST_TIMEOUT_MS).to_string();
        let own = ["--timeout-ms", &timeout_ms];
        let arguments: Vec<String> = own
            .iter()
            .chain(arguments)
            .map(|&word| word.to_owned())
            .collect();
        let password = password.map(str::to_owned);
        let process = run(address, &arguments, password.as_deref(), &scratch)?;
        Ok(Self {
            process,
            address,
            arguments,
            password,
            scratch,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds it still: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The same again, in the same place.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        let password = self.password.as_deref();
        self.process = run(self.address, &self.arguments, password, &self.scratch)?;
        Ok(())
    }
}

fn run(
    address: SocketAddr,
    arguments: &[String],
    password: Option<&str>,
    scratch: &Scratch,
) -> Result<Process> {
    let mut command = Command::new(artifact::sidecar()?);
    command
        .args(["--listen", &address.to_string()])
        .args(arguments)
        .envs(password.map(|password| ("WEIR_REDIS_PASSWORD", password)));
    let process = Process::spawn("the sidecar", command, &scratch.file("sidecar.log"))?;
    process.wait_ready(START, || TcpStream::connect(address).is_ok())?;
    Ok(process)
}
