//! The stack of docker-compose.yml under a name and on ports of its own. It is taken down when its
//! value is dropped, whatever happened.

use std::{net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weir_lab::{artifact, client::Client, deadline, gateway::Store, place, port};

use crate::docker::{Docker, run};

/// Envoy compiles the filter twice for each worker; a loaded machine takes long for it.
const HEALTHY: Duration = Duration::from_secs(60);
/// The default, 50, is for a machine with processors to spare.
const TIMEOUT_MS: &str = "1000";

#[derive(Debug)]
pub struct Stack {
    docker: Docker,
    store: Store,
    project: String,
    port: u16,
    admin_port: u16,
    wasm: PathBuf,
}

impl Stack {
    /// A stack that is not up yet.
    pub fn try_new(docker: Docker, store: Store) -> Result<Self> {
        let port = port::free()?;
        Ok(Self {
            docker,
            store,
            project: format!("weir-test-{port}"),
            port,
            admin_port: port::free()?,
            wasm: artifact::wasm()?,
        })
    }

    /// The images it runs, by name.
    pub fn images(&self) -> Result<Vec<String>> {
        let rendered = run(self.compose().arg("config"))?;
        let named = rendered.lines().filter_map(|line| {
            let name = line.trim().strip_prefix("image: ")?;
            Some(name.trim_matches(['\'', '"']).to_owned())
        });
        let mut images: Vec<String> = named.collect();
        if self.store == Store::Sidecar {
            // Named by compose itself: docker compose 2 joins with a hyphen, 1.29 with an underscore.
            images.extend(["-", "_"].map(|joint| format!("{}{joint}weir-sidecar", self.project)));
        }
        images.sort();
        images.dedup();
        Ok(images)
    }

    pub fn up(&self) -> Result<()> {
        run(self.compose().args(["up", "--detach", "--no-build"])).map(drop)
    }

    pub fn wait_healthy(&self) -> Result<()> {
        let health = || {
            let containers = self.containers()?;
            let has_ended = |container: &&Value| container["State"]["Status"] == "exited";
            if let Some(container) = containers.iter().find(has_ended) {
                bail!("{} ended: {}", container["Name"], container["State"]);
            }
            let is_healthy =
                |container: &Value| container["State"]["Health"]["Status"] == "healthy";
            let all = containers.len() == self.services() && containers.iter().all(is_healthy);
            Ok(all.then_some(()))
        };
        deadline::poll(HEALTHY, "healthy stack", health)
    }

    /// What Docker knows of each container.
    pub fn containers(&self) -> Result<Vec<Value>> {
        let ids = run(self.compose().args(["ps", "--quiet", "--all"]))?;
        ids.split_whitespace()
            .map(|id| self.docker.inspect("container", id).context("a container"))
            .collect()
    }

    pub fn client(&self) -> Client {
        Client::new((Ipv4Addr::LOCALHOST, self.port).into())
    }

    /// All that its containers have written.
    pub fn logs(&self) -> String {
        run(self.compose().args(["logs", "--no-color", "--tail", "50"]))
            .unwrap_or_else(|error| format!("no logs: {error:#}"))
    }

    fn services(&self) -> usize {
        match self.store {
            Store::Bridge => 3,
            Store::Sidecar => 4,
        }
    }

    fn compose(&self) -> Command {
        let mut command = self.docker.compose();
        command.args(["--project-name", &self.project, "--file"]);
        command.arg(place::project().join("docker-compose.yml"));
        if self.store == Store::Sidecar {
            command.args(["--profile", "sidecar"]);
        }
        // What the user's shell or .env chooses is for the user's own stack.
        command
            .env_remove("COMPOSE_PROFILES")
            .env("STORE", self.store_name())
            .env("PORT", self.port.to_string())
            .env("ADMIN_PORT", self.admin_port.to_string())
            .env("WORKERS", "1")
            .env("TIMEOUT_MS", TIMEOUT_MS)
            .env("POLICY", place::envoy().join("policy.json"))
            .env("WASM", &self.wasm);
        command
    }

    fn store_name(&self) -> &'static str {
        match self.store {
            Store::Bridge => "bridge",
            Store::Sidecar => "sidecar",
        }
    }

    fn down(&self) -> Result<()> {
        let arguments = ["down", "--volumes", "--remove-orphans", "--timeout", "2"];
        let printed = run(self.compose().args(arguments))?;
        if !self.containers()?.is_empty() {
            bail!("containers are left: {printed}");
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("the stack {} may still be up: {error:#}", self.project);
        }
    }
}
