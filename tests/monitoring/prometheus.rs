//! A Prometheus that scrapes one gateway, once a second.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;
use serde_json::Value;
use weir_lab::{client::Client, port, process::Process, scratch::Scratch};

use crate::scene::Scene;

const START: Duration = Duration::from_secs(60);

// The process comes first: it must be gone before its folder is.
pub struct Prometheus {
    _process: Process,
    client: Client,
    _scratch: Scratch,
}

impl Prometheus {
    pub fn watch(program: &Path, scene: &Scene) -> Result<Self> {
        let scratch = Scratch::try_new("prometheus")?;
        let admin = scene.gateway.admin().address();
        let config = scratch.file("prometheus.yaml");
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: weir\n  \
                 metrics_path: /stats/prometheus\n  static_configs: [{{ targets: [\"{admin}\"] }}]\n"
            ),
        )?;
        let address = (std::net::Ipv4Addr::LOCALHOST, port::free()?).into();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.file("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::spawn("Prometheus", command, &scratch.file("prometheus.log"))?;
        let client = Client::new(address);
        process.wait_ready(START, || {
            let answer = client.get("/-/ready").send();
            answer.is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self {
            _process: process,
            client,
            _scratch: scratch,
        })
    }

    /// Whether a query finds a number.
    pub fn finds(&self, expression: &str) -> bool {
        let answer = self
            .client
            .post("/api/v1/query", format!("query={}", encoded(expression)))
            .header("content-type", "application/x-www-form-urlencoded")
            .send()
            .unwrap();
        let told = answer.json().unwrap();
        assert_eq!(told["status"], "success", "{expression}: {told}");
        let series = told["data"]["result"].as_array().into_iter().flatten();
        let mut values = series.filter_map(|series| series["value"][1].as_str());
        values.any(|value| value != "NaN") && !matches!(told["data"]["result"], Value::Null)
    }
}

/// Every byte as `%XX`: nothing in it means anything to a form.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
