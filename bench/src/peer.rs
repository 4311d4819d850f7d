//! Other systems, each from a descriptor: a JSON file that says how it is started. `bench/README.md`
//! is its reference. What this machine does not have is skipped, and said aloud.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use weir_lab::client::Client;
use weir_lab::process::Process;
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::{place, port};

use crate::scenario::{Algorithm, Limits, PATH, Scenario};
use crate::system::{Counted, System};
use crate::upstream::Upstream;

/// A descriptor, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    pub name: String,
    /// Becomes the system; it stays in the foreground.
    command: Vec<String>,
    /// Where the commands run, seen from the descriptor; its own folder if none is named.
    #[serde(default)]
    folder: PathBuf,
    /// Runs before, and says on its standard error why the system cannot be had here.
    #[serde(default)]
    prepare: Vec<String>,
    /// Prints what it is, for the report.
    #[serde(default)]
    version: Vec<String>,
    /// Where it listens; without it, it is told a free one.
    port: Option<u16>,
    #[serde(default)]
    ready: Ready,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// What the limits are counted by.
    #[serde(default)]
    algorithm: Algorithm,
    /// Whether it wants a Redis, whose time then counts.
    #[serde(default = "yes")]
    redis: bool,
    /// The name of the system that it adds its limits to.
    pub baseline: Option<String>,
    #[serde(default = "every_scenario")]
    pub scenarios: Vec<Scenario>,
    /// A word to its row in the report.
    #[serde(default)]
    pub note: String,
}

/// When it may be asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ready {
    path: String,
    within_seconds: u64,
}

/// A descriptor where it lies.
#[derive(Clone, Debug)]
pub struct Peer {
    pub descriptor: Descriptor,
    folder: PathBuf,
}

/// A process with all that it starts. It leads a group of its own, and the whole group ends.
struct Group(Process);

// === impl Peer ===

impl Peer {
    /// Every `*.json` of a folder, in order of their names.
    pub fn all(folder: &Path) -> Result<Vec<Peer>> {
        let entries = fs::read_dir(folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        paths.iter().map(|path| Peer::read(path)).collect()
    }

    pub fn read(path: &Path) -> Result<Peer> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let descriptor = Descriptor::parse(&text).with_context(|| path.display().to_string())?;
        let folder = path
            .parent()
            .unwrap_or(Path::new("."))
            .join(&descriptor.folder);
        Ok(Peer {
            descriptor,
            folder: folder.canonicalize().with_context(|| {
                format!(
                    "{}: there is no folder {}",
                    path.display(),
                    folder.display()
                )
            })?,
        })
    }

    /// The error says why it cannot be had here.
    pub fn prepare(&self) -> Result<()> {
        let Some(mut command) = self.command(&self.descriptor.prepare, &[])? else {
            return Ok(());
        };
        let output = command.output().context("cannot run what prepares it")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!(
                "{}",
                said.trim()
                    .lines()
                    .last()
                    .unwrap_or("what prepares it failed")
            );
        }
        Ok(())
    }

    /// What it is, if it says so.
    pub fn version(&self) -> Result<Option<String>> {
        let Some(mut command) = self.command(&self.descriptor.version, &[])? else {
            return Ok(None);
        };
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<String> = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        Ok(Some(lines.join(", ")))
    }

    pub fn start(&self, scenario: Scenario, upstream: &Upstream) -> Result<System> {
        let descriptor = &self.descriptor;
        let scratch = Scratch::try_new("peer")?;
        let redis = descriptor.redis.then(Redis::start).transpose()?;
        let port = descriptor.port.map_or_else(port::free, Ok)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let limits = Limits::new(descriptor.algorithm, scenario);
        let mut variables = vec![
            ("HOST", address.ip().to_string()),
            ("PORT", port.to_string()),
            ("UPSTREAM_HOST", upstream.address().ip().to_string()),
            ("UPSTREAM_PORT", upstream.address().port().to_string()),
            ("ALGORITHM", limits.algorithm.name().to_owned()),
            ("SCENARIO", scenario.name().to_owned()),
            ("LIMIT", limits.limit.to_string()),
            ("USER_LIMIT", limits.user_limit.to_string()),
            ("WINDOW_SECONDS", limits.window_seconds.to_string()),
            ("SCRATCH", scratch.path().to_string_lossy().into_owned()),
        ];
        if let Some(redis) = &redis {
            variables.push(("REDIS_HOST", redis.address().ip().to_string()));
            variables.push(("REDIS_PORT", redis.port().to_string()));
        }
        let command = self.command(&descriptor.command, &variables)?;
        let command =
            command.context("command: is empty; name the program that is to be measured")?;
        let process = Process::spawn(&descriptor.name, command, &scratch.file("peer.log"))?;
        let group = Group(process);
        let client = Client::new(address);
        let within = Duration::from_secs(descriptor.ready.within_seconds);
        group.0.wait_ready(within, || {
            client
                .get(&descriptor.ready.path)
                .header("x-user-id", "ready")
                .send()
                .is_ok()
        })?;
        let mut processes = vec![Counted::new(&descriptor.name, &group.0)];
        if let Some(redis) = &redis {
            processes.push(Counted::new("Redis", redis.server()?));
        }
        let parts = redis.as_ref();
        let system = System::new(
            &name(&descriptor.name, scenario),
            address,
            scenario,
            processes,
            parts,
        )?;
        Ok(system.holding((group, redis, scratch)))
    }

    /// None where nothing is named.
    fn command(&self, words: &[String], variables: &[(&str, String)]) -> Result<Option<Command>> {
        let Some((program, arguments)) = words.split_first() else {
            return Ok(None);
        };
        let kept = place::weir().join("bench");
        fs::create_dir_all(&kept)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("PROJECT", place::project())
            .env("KEPT", kept)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .envs(&self.descriptor.environment);
        Ok(Some(command))
    }
}

/// How a system is called in a scenario.
pub fn name(name: &str, scenario: Scenario) -> String {
    match scenario {
        Scenario::Allowed => name.to_owned(),
        Scenario::Denied => format!("{name}, denied"),
    }
}

// === impl Descriptor ===

impl Descriptor {
    pub fn parse(text: &str) -> Result<Self> {
        let descriptor: Self = serde_json::from_str(text)?;
        if descriptor.name.is_empty() {
            bail!("name: is empty; it is what the tables show");
        }
        if descriptor.command.is_empty() {
            bail!("command: is empty; name the program that is to be measured");
        }
        if descriptor.scenarios.is_empty() {
            bail!("scenarios: is empty; name allowed, denied or both");
        }
        Ok(descriptor)
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            path: PATH.to_owned(),
            within_seconds: 30,
        }
    }
}

fn yes() -> bool {
    true
}

fn every_scenario() -> Vec<Scenario> {
    vec![Scenario::Allowed, Scenario::Denied]
}

// === impl Group ===

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.pid()) {
            // What it started may have ended with it already.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::crowd::{Callers, Crowd};

    #[test]
    fn a_descriptor_needs_a_name_and_a_command() {
        let whole = r#"{ "name": "x", "command": ["sh", "x.sh"], "port": 80, "baseline": "y",
            "ready": { "path": "/ready" }, "environment": { "A": "b" }, "scenarios": ["denied"] }"#;
        let descriptor = Descriptor::parse(whole).unwrap();
        assert_eq!(descriptor.ready.within_seconds, 30);
        assert!(descriptor.redis && descriptor.scenarios == [Scenario::Denied]);
    }

    #[test]
    fn a_descriptor_that_is_wrong_is_refused_with_what_is_wrong() {
        let table = [
            (r#"{ "command": ["x"] }"#, "missing field `name`"),
            (r#"{ "name": "x" }"#, "missing field `command`"),
            (r#"{ "name": "x", "command": [] }"#, "command: is empty"),
            (r#"{ "name": "", "command": ["x"] }"#, "name: is empty"),
            (r#"{ "name": "x", "command": "x" }"#, "expected a sequence"),
            (
                r#"{ "name": "x", "command": ["x"], "ports": 1 }"#,
                "unknown field `ports`",
            ),
            (
                r#"{ "name": "x", "command": ["x"], "port": 70000 }"#,
                "expected u16",
            ),
            (
                r#"{ "name": "x", "command": ["x"], "algorithm": "log" }"#,
                "unknown variant `log`",
            ),
            (
                r#"{ "name": "x", "command": ["x"], "scenarios": [] }"#,
                "scenarios: is empty",
            ),
            (
                r#"{ "name": "x", "command": ["x"], "ready": { "in": 1 } }"#,
                "unknown field `in`",
            ),
            ("name = x", "expected"),
        ];
        for (text, reason) in table {
            let error = format!("{:#}", Descriptor::parse(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_peers_of_the_project_can_be_read() {
        let peers = Peer::all(&place::project().join("bench/peers")).unwrap();
        assert!(peers.len() >= 5);
        let names: Vec<_> = peers.iter().map(|peer| &peer.descriptor.name).collect();
        for peer in &peers {
            let baseline = peer.descriptor.baseline.as_ref();
            assert!(baseline.is_none_or(|baseline| names.contains(&baseline)));
        }
    }

    #[test]
    fn what_is_missing_is_told_in_the_words_of_what_prepares_it() {
        let scratch = Scratch::try_new("bench-peer").unwrap();
        let path = scratch.file("peer.json");
        let script = "echo other >&2; echo 'there is no x' >&2; exit 1";
        let text =
            serde_json::json!({ "name": "x", "command": ["x"], "prepare": ["sh", "-c", script] });
        fs::write(&path, text.to_string()).unwrap();
        let error = Peer::read(&path).unwrap().prepare().unwrap_err();
        assert_eq!(error.to_string(), "there is no x");
    }

    #[test]
    fn a_peer_runs_with_its_children_and_ends_with_them() {
        // A server of the machine's own language: it says which user limit it was told.
        let server = "import http.server, os\n\
            class H(http.server.BaseHTTPRequestHandler):\n\
            \x20   protocol_version = 'HTTP/1.1'\n\
            \x20   def do_GET(self):\n\
            \x20       self.send_response(200 if os.environ['USER_LIMIT'] != '1' else 429)\n\
            \x20       self.send_header('content-length', '0'); self.end_headers()\n\
            http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()";
        let scratch = Scratch::try_new("bench-peer").unwrap();
        let path = scratch.file("peer.json");
        fs::write(scratch.file("server.py"), server).unwrap();
        let text = serde_json::json!({
            "name": "x", "command": ["sh", "-c", "python3 server.py & wait"], "redis": false,
        });
        fs::write(&path, text.to_string()).unwrap();
        let upstream = Upstream::start().unwrap();
        let peer = Peer::read(&path).unwrap();
        for scenario in [Scenario::Allowed, Scenario::Denied] {
            let system = peer.start(scenario, &upstream).unwrap();
            let mut callers = Callers::new(PATH, 1, scenario.status());
            let mut crowd = Crowd::open(system.address, 1).unwrap();
            assert_eq!(crowd.run_requests(&mut callers, 1).unwrap().unexpected, 0);
            let family = cpu::family(system.processes[0].pid).unwrap();
            assert!(family.len() >= 2, "{family:?}");
            drop(system);
            assert!(family.iter().all(|process| !is_running(process.pid)));
        }
    }

    /// A group that was killed may take a moment to be gone.
    fn is_running(pid: u32) -> bool {
        weir_lab::deadline::poll(Duration::from_secs(5), "end", || {
            Ok(cpu::family(pid)?.is_empty().then_some(()))
        })
        .is_err()
    }
}
