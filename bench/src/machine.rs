//! Where a run took place and what ran.

use std::{collections::BTreeMap, env, fs, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use weir_lab::{artifact, parts, place, redis::Redis};

use crate::store::Observer;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Result<Self> {
        let read =
            |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let memory = read("/proc/meminfo")?;
        let kib = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        Ok(Self {
            processor: processor(&read("/proc/cpuinfo")?),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kib
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or_default()
                >> 20,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease")?.trim()),
        })
    }
}

fn processor(cpuinfo: &str) -> String {
    let value = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let model = value("model name").unwrap_or_else(|| env::consts::ARCH.to_owned());
    match value("cpu MHz").and_then(|mhz| mhz.parse::<f64>().ok()) {
        Some(mhz) => format!("{model}, {:.1} GHz", mhz / 1000.0),
        None => model,
    }
}

/// What was measured, by version.
pub fn versions() -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    let envoy = Command::new(parts::envoy()?).arg("--version").output()?;
    versions.insert(
        "Envoy".to_owned(),
        envoy_version(&String::from_utf8_lossy(&envoy.stdout)),
    );
    versions.insert(
        "Redis".to_owned(),
        Observer::new(&Redis::start()?)?.version()?,
    );
    let wasm = artifact::wasm()?;
    let bytes = fs::metadata(&wasm)?.len();
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(place::project())
        .output();
    let commit = commit.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    versions.insert(
        "Weir".to_owned(),
        format!("{commit}, a filter of {} KiB", bytes / 1024),
    );
    Ok(versions)
}

/// `…  version: hash/1.40.0/Clean/RELEASE/BoringSSL`
fn envoy_version(said: &str) -> String {
    let version = said
        .split("version:")
        .nth(1)
        .and_then(|rest| rest.trim().split('/').nth(1));
    version.unwrap_or("of unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_with_its_speed() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A Processor\ncpu MHz\t\t: 2600.000\n";
        assert_eq!(processor(cpuinfo), "A Processor, 2.6 GHz");
        assert_eq!(processor("model name : B\n"), "B");
        assert_eq!(processor(""), env::consts::ARCH);
    }

    #[test]
    fn envoys_version_is_found_in_what_it_says() {
        let said = "\nenvoy  version: 6a7f3c/1.40.0/Clean/RELEASE/BoringSSL\n\n";
        assert_eq!(envoy_version(said), "1.40.0");
        assert_eq!(envoy_version(""), "of unknown version");
    }
}
