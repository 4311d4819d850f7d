//! A headless Chromium, as far as a page is tested with it: its DevTools protocol over a WebSocket.

use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, stream::MaybeTlsStream};
use weir_lab::{client::Client, deadline, process::Process, scratch::Scratch};

/// A cold start on a busy machine.
const START: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

// The process comes before its folder: fields are dropped in order.
pub struct Browser {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    last: u64,
    complaints: Vec<String>,
    _process: Process,
    _scratch: Scratch,
}

/// How the page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    /// What the reader prefers: `light` or `dark`.
    pub scheme: &'static str,
}

pub fn program() -> Option<PathBuf> {
    if let Some(own) = env::var_os("WEIR_CHROMIUM") {
        return Some(own.into());
    }
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let places = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|path| path.is_file())
}

impl Browser {
    /// With one empty tab.
    pub fn open(program: &Path) -> Result<Self> {
        let scratch = Scratch::try_new("browser")?;
        let mut command = Command::new(program);
        command
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
            ])
            // A container has neither the kernel's sandbox nor much shared memory.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            .arg(format!("--user-data-dir={}", scratch.path().display()))
            .arg("about:blank");
        let process = Process::spawn("Chromium", command, &scratch.file("chromium.log"))?;
        // It writes its port there once it listens.
        let file = scratch.file("DevToolsActivePort");
        let port: u16 = deadline::poll(START, "answer from Chromium", || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match text.lines().next().map(str::parse) {
                Some(Ok(port)) => Ok(Some(port)),
                _ => process.death().map_or(Ok(None), Err),
            }
        })?;
        let client = Client::new(([127, 0, 0, 1], port).into());
        let tab = deadline::poll(START, "tab", || {
            let tabs = client.get("/json").send()?.json()?;
            let tab = tabs
                .as_array()
                .into_iter()
                .flatten()
                .find(|tab| tab["type"] == "page");
            Ok(tab.and_then(|tab| tab["webSocketDebuggerUrl"].as_str().map(str::to_owned)))
        })?;
        let (socket, _) = tungstenite::connect(tab)?;
        let mut browser = Self {
            socket,
            last: 0,
            complaints: Vec::new(),
            _process: process,
            _scratch: scratch,
        };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}))?;
        }
        Ok(browser)
    }

    pub fn go(&mut self, url: &str) -> Result<()> {
        self.call("Page.navigate", &json!({ "url": url }))?;
        deadline::poll(START, "page", || {
            Ok((self.text("document.readyState")? == "complete").then_some(()))
        })
    }

    /// What an expression in the page is, as text.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let told = self.call("Runtime.evaluate", &json!({ "expression": expression }))?;
        match &told["result"]["value"] {
            Value::String(text) => Ok(text.clone()),
            _ if told["exceptionDetails"].is_object() => bail!("{expression}: {told}"),
            value => Ok(value.to_string()),
        }
    }

    pub fn look(&mut self, look: Look) -> Result<()> {
        let Look {
            width,
            height,
            scheme,
        } = look;
        let is_phone = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone }),
        )?;
        let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({ "features": feature }),
        )
        .map(drop)
    }

    /// A PNG of the whole page.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let told = self.call(
            "Page.captureScreenshot",
            &json!({ "captureBeyondViewport": true }),
        )?;
        let data = told["data"].as_str().context("no picture")?;
        Ok(BASE64_STANDARD.decode(data)?)
    }

    /// What the page did wrong, in the browser's words. A 403 at the door is no mistake.
    pub fn complaints(&self) -> Vec<String> {
        let is_door = |complaint: &&String| complaint.contains("403");
        self.complaints
            .iter()
            .filter(|complaint| !is_door(complaint))
            .cloned()
            .collect()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let id = self.last;
        let message = json!({ "id": id, "method": method, "params": parameters });
        self.socket.send(Message::text(message.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read()? else {
                continue;
            };
            let mut told: Value = serde_json::from_str(&text)?;
            if told["id"] == id {
                return match told["error"].is_object() {
                    true => bail!("{method}: {}", told["error"]),
                    false => Ok(told["result"].take()),
                };
            }
            let complaint = match told["method"].as_str() {
                Some("Log.entryAdded") if told["params"]["entry"]["level"] == "error" => {
                    &told["params"]["entry"]["text"]
                }
                Some("Runtime.exceptionThrown") => &told["params"]["exceptionDetails"],
                _ => continue,
            };
            self.complaints.push(complaint.to_string());
        }
    }
}
