//! A real Envoy, from the bootstrap that a controller would have given it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weir_lab::client::Client;
use weir_lab::gateway::refusal;
use weir_lab::process::Process;
use weir_lab::scratch::Scratch;
use weir_lab::upstream::Upstream;
use weir_lab::{deadline, parts};

/// Compiling the wasm takes Envoy a second or two for each VM, and a loaded machine much longer.
const START: Duration = Duration::from_secs(60);

/// What an Envoy is started from. Its listener for clients has the name "gateway".
#[derive(Default)]
pub struct Setting {
    /// Text, as `--config-path` takes it.
    pub bootstrap: String,
    /// What is merged into it, as `--config-yaml` does.
    pub overlay: Option<String>,
    pub environment: Vec<(String, String)>,
}

// In the order they are dropped: the process before what it needs.
pub struct Proxy {
    process: Process,
    pub client: Client,
    pub admin: Client,
    _scratch: Scratch,
}

impl Setting {
    pub fn start(&self, scratch: Scratch) -> Proxy {
        let path = scratch.file("bootstrap.yaml");
        fs::write(&path, &self.bootstrap).unwrap();
        let admin_file = scratch.file("admin");
        let mut command = Command::new(parts::envoy().unwrap());
        command
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "2",
                "--config-path",
            ])
            .arg(&path)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .envs(self.environment.iter().cloned());
        if let Some(overlay) = &self.overlay {
            command.args(["--config-yaml", overlay]);
        }
        let process = Process::spawn("Envoy", command, &scratch.file("envoy.log")).unwrap();
        let admin = deadline::poll(START, "answer from Envoy", || {
            if process.exited().is_some() {
                let log = process.log();
                panic!("Envoy ended: {:?}\n{log}", refusal(&log));
            }
            let written = fs::read_to_string(&admin_file).unwrap_or_default();
            let Ok(address) = written.trim().parse::<SocketAddr>() else {
                return Ok(None);
            };
            let admin = Client::new(address);
            let ready = admin.get("/ready").send();
            Ok(ready
                .is_ok_and(|answer| answer.status == 200)
                .then_some(admin))
        })
        .unwrap();
        let gateway = deadline::poll(START, "listener of the gateway", || Ok(listener(&admin)));
        let client =
            Client::new(gateway.unwrap_or_else(|error| panic!("{error}\n{}", process.log())));
        Proxy {
            process,
            client,
            admin,
            _scratch: scratch,
        }
    }
}

impl Proxy {
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn status(&self, path: &str) -> u16 {
        self.client.get(path).send().unwrap().status
    }
}

fn listener(admin: &Client) -> Option<SocketAddr> {
    let listeners = admin
        .get("/listeners?format=json")
        .send()
        .ok()?
        .json()
        .ok()?;
    let statuses = listeners["listener_statuses"].as_array()?;
    let gateway = statuses.iter().find(|status| status["name"] == "gateway")?;
    let port = gateway["local_address"]["socket_address"]["port_value"].as_u64()?;
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?));
    std::net::TcpStream::connect(address)
        .is_ok()
        .then_some(address)
}

pub fn admin() -> Value {
    json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } })
}

/// A cluster with one address.
pub fn cluster(name: &str, address: SocketAddr) -> Value {
    let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

pub fn upstream(upstream: &Upstream) -> Value {
    cluster("upstream", upstream.address())
}

/// A file of resources, as Envoy reads it where a control plane would have sent them. Moved there
/// whole, because Envoy reads it as soon as it moves.
pub fn write_resource(path: &PathBuf, resource: &Value) {
    let response = json!({ "resources": [resource] });
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, response.to_string()).unwrap();
    fs::rename(&fresh, path).unwrap();
}
