//! Envoys without Weir, from the same configuration: `envoy/gateway.yaml` with other filters in the
//! place of Weir's. So plain Envoy differs from Weir's in nothing but Weir.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use weir_lab::{artifact, parts, place, port, process::Process, scratch::Scratch};

use crate::{
    scenario::{Limits, Scenario},
    system::{Counted, System},
    upstream::Upstream,
};

/// As long as the lab waits for a gateway.
const START: Duration = Duration::from_secs(60);
const FIRST_FILTER: &str = "http_filters:";
const ROUTER: &str = "- name: envoy.filters.http.router";

/// No filter but the router.
pub fn plain(upstream: &Upstream) -> Result<System> {
    start("plain Envoy", "", Scenario::Allowed, upstream, &[])
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
    start(name, &filter, limits.scenario, upstream, &variables)
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
    variables: &[(&str, &str)],
) -> Result<System> {
    let gateway = fs::read_to_string(place::envoy().join("gateway.yaml"))?;
    let scratch = Scratch::try_new("bench-envoy")?;
    let template = scratch.file("template.yaml");
    fs::write(&template, with_filter(&gateway, filter)?)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
    let configuration = render(&template, address, upstream, variables)?;
    let path = scratch.file("gateway.yaml");
    fs::write(&path, configuration)?;
    let envoy = run(&path, 1, &scratch)?;
    envoy.wait_ready(START, || TcpStream::connect(address).is_ok())?;
    let processes = vec![Counted::new("Envoy", &envoy)];
    System::new(name, address, scenario, processes, None, (envoy, scratch))
}

/// A worker each, as all systems have.
fn run(configuration: &Path, workers: usize, scratch: &Scratch) -> Result<Process> {
    let mut command = Command::new(parts::envoy()?);
    command
        .args([
            "--disable-hot-restart",
            "--concurrency",
            &workers.to_string(),
        ])
        .arg("--config-path")
        .arg(configuration);
    Process::spawn("Envoy", command, &scratch.file("envoy.log"))
}

/// Fills in the variables as `envoy/start.sh` does.
fn render(
    template: &Path,
    address: SocketAddr,
    upstream: &Upstream,
    variables: &[(&str, &str)],
) -> Result<String> {
    let output = Command::new("sh")
        .arg(place::envoy().join("render.sh"))
        .arg(template)
        .env("LISTEN", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .env("ADMIN_HOST", address.ip().to_string())
        .env("ADMIN_PORT", "0")
        .env("UPSTREAM_HOST", upstream.address().ip().to_string())
        .env("UPSTREAM_PORT", upstream.address().port().to_string())
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
    made.extend(lines.skip_while(|line| line.trim() != ROUTER));
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
        for word in ["wasm", "set_filter_state", "POLICY"] {
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
}
