//! Envoys without Weir, from the same configuration: `envoy/gateway.yaml` with other filters in the
//! place of Weir's. So plain Envoy differs from Weir's in nothing but Weir.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_lab::process::Process;
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::{artifact, parts, place, port};

use crate::scenario::{Limits, Scenario};
use crate::system::{Counted, System};
use crate::upstream::Upstream;

/// As long as the lab waits for a gateway.
const START: Duration = Duration::from_secs(60);
const FIRST_FILTER: &str = "http_filters:";
const ROUTER: &str = "- name: envoy.filters.http.router";
/// What Weir has of the routes.
const FOR_WEIR: &str = "request_headers_to_remove: [x-envoy-is-timeout-retry]";

/// One that runs; it ends before its folder does.
struct Envoy {
    process: Process,
    address: SocketAddr,
    _scratch: Scratch,
}

/// No filter but the router.
pub fn plain(upstream: &Upstream, workers: usize) -> Result<System> {
    start("plain Envoy", "", Scenario::Allowed, upstream, workers, &[])
}

/// A wasm filter that does nothing.
pub fn noop(upstream: &Upstream) -> Result<System> {
    let wasm = artifact::wasm_of("weir-bench-noop")?;
    let wasm = wasm.to_string_lossy();
    let filter = filter("noop")?;
    start(
        "no-op wasm",
        &filter,
        Scenario::Allowed,
        upstream,
        1,
        &[("WASM", &wasm)],
    )
}

/// Envoy's own limiter, which counts in each process for itself.
pub fn local_ratelimit(name: &str, limits: Limits, upstream: &Upstream) -> Result<System> {
    let filter = filter("local_ratelimit")?;
    let variables = [
        ("LIMIT", limits.limit.to_string()),
        ("USER_LIMIT", limits.user_limit.to_string()),
        ("WINDOW_SECONDS", limits.window_seconds.to_string()),
    ];
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    start(name, &filter, limits.scenario, upstream, 1, &variables)
}

/// Envoy as a Redis proxy in front of this Redis, which is counted with it.
pub fn redis_proxy(redis: Redis) -> Result<System> {
    let (host, port) = (redis.address().ip().to_string(), redis.port().to_string());
    let variables = [("REDIS_HOST", &*host), ("REDIS_PORT", &port)];
    let envoy = Envoy::start(&filter("redis_proxy")?, 1, &variables)?;
    let processes = vec![
        Counted::new("Envoy", &envoy.process),
        Counted::new("Redis", redis.server()?),
    ];
    let name = "EVALSHA through redis_proxy";
    let system = System::new(
        name,
        envoy.address,
        Scenario::Allowed,
        processes,
        Some(&redis),
    )?;
    Ok(system.holding((envoy, redis)))
}

fn filter(name: &str) -> Result<String> {
    let path = place::project().join(format!("bench/envoy/{name}.yaml"));
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn start(
    name: &str,
    filter: &str,
    scenario: Scenario,
    upstream: &Upstream,
    workers: usize,
    variables: &[(&str, &str)],
) -> Result<System> {
    let gateway = fs::read_to_string(place::envoy().join("gateway.yaml"))?;
    let template = with_filter(&gateway, filter)?;
    let mut variables = variables.to_vec();
    let (host, port) = (
        upstream.address().ip().to_string(),
        upstream.address().port().to_string(),
    );
    variables.extend([("UPSTREAM_HOST", &*host), ("UPSTREAM_PORT", &port)]);
    let envoy = Envoy::start(&template, workers, &variables)?;
    let processes = vec![Counted::new("Envoy", &envoy.process)];
    let system = System::new(name, envoy.address, scenario, processes, None)?;
    Ok(system.holding(envoy))
}

// === impl Envoy ===

impl Envoy {
    fn start(template: &str, workers: usize, variables: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::try_new("bench-envoy")?;
        let unfilled = scratch.file("template.yaml");
        fs::write(&unfilled, template)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let configuration = scratch.file("gateway.yaml");
        fs::write(&configuration, render(&unfilled, address, variables)?)?;
        let mut command = Command::new(parts::envoy()?);
        command
            .args([
                "--disable-hot-restart",
                "--concurrency",
                &workers.to_string(),
            ])
            .arg("--config-path")
            .arg(&configuration);
        let process = Process::spawn("Envoy", command, &scratch.file("envoy.log"))?;
        process.wait_ready(START, || TcpStream::connect(address).is_ok())?;
        Ok(Self {
            process,
            address,
            _scratch: scratch,
        })
    }
}

/// Fills in the variables as `envoy/start.sh` does.
fn render(template: &Path, address: SocketAddr, variables: &[(&str, &str)]) -> Result<String> {
    let output = Command::new("sh")
        .arg(place::envoy().join("render.sh"))
        .arg(template)
        .env("LISTEN", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .env("ADMIN_HOST", address.ip().to_string())
        .env("ADMIN_PORT", "0")
        .env("ACCESS_LOGS", "[]")
        .envs(variables.iter().copied())
        .output()
        .context("cannot run sh")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The gateway's configuration with this filter, or none, in the place of all that stand before the
/// router.
fn with_filter(gateway: &str, filter: &str) -> Result<String> {
    let mut lines = gateway.lines();
    let mut made = Vec::new();
    for line in lines.by_ref() {
        made.push(line);
        if line.trim() == FIRST_FILTER {
            break;
        }
    }
    made.extend(filter.lines());
    let rest = lines.skip_while(|line| line.trim() != ROUTER);
    made.extend(rest.filter(|line| line.trim() != FOR_WEIR));
    if !made.iter().any(|line| line.trim() == ROUTER) {
        bail!("envoy/gateway.yaml has no {FIRST_FILTER} that end with {ROUTER}");
    }
    Ok(made.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_envoy_is_the_gateway_without_weir() {
        let gateway = fs::read_to_string(place::envoy().join("gateway.yaml")).unwrap();
        let plain = with_filter(&gateway, "").unwrap();
        for word in ["filters.http.wasm", "is-timeout-retry", "POLICY"] {
            assert!(gateway.contains(word) && !plain.contains(word), "{word}");
        }
        for word in [
            "use_remote_address",
            "merge_slashes",
            "${UPSTREAM_PORT}",
            ROUTER,
        ] {
            assert!(plain.contains(word), "{word}");
        }
        let other = with_filter(&gateway, "          - name: other").unwrap();
        assert!(other.contains("- name: other\n          - name: envoy.filters.http.router\n"));
        assert!(with_filter("a: b", "").is_err());
    }

    #[test]
    fn plain_envoy_is_given_every_variable_that_its_configuration_names() {
        let gateway = fs::read_to_string(place::envoy().join("gateway.yaml")).unwrap();
        let scratch = Scratch::try_new("bench-render").unwrap();
        let template = scratch.file("template.yaml");
        fs::write(&template, with_filter(&gateway, "").unwrap()).unwrap();
        let upstream = [("UPSTREAM_HOST", "127.0.0.1"), ("UPSTREAM_PORT", "1")];
        let rendered = render(&template, ([127, 0, 0, 1], 2).into(), &upstream).unwrap();
        assert!(!rendered.contains("${"), "{rendered}");
    }
}
