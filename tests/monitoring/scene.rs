//! A Weir to which everything happens that `monitoring/` asks about.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weir_lab::{
    client::Client,
    deadline,
    gateway::{Gateway, Policy},
    redis::Redis,
};

/// Longer than anything here takes; only a hang is cut short.
const SOON: Duration = Duration::from_secs(90);
const STORE_FAILURES: &str = "wasmcustom.weir.store.failures_total";
/// In each of these the policy has something to say.
const PATHS: [&str; 8] = [
    "/open/x",
    "/tight/x",
    "/trial/x",
    "/slow/x",
    "/leased/x",
    "/either/x",
    "/closed/x",
    "/unchecked/x",
];

pub struct Scene {
    pub gateway: Gateway,
    _redis: Redis,
}

impl Scene {
    /// Calls as callers do, while Redis is well, away, and well again.
    pub fn play() -> Self {
        let mut redis = Redis::start().unwrap();
        let gateway = Gateway::builder()
            .redis(&redis)
            .timeout_ms(250)
            .policy(Policy::Text(include_str!("policy.json").to_owned()))
            .start()
            .unwrap();
        let client = gateway.client();
        call_all(&client);
        redis.stop();
        deadline::poll(SOON, "failure of a call", || {
            call_all(&client);
            Ok(gateway.stat(STORE_FAILURES)?.filter(|&count| count > 0))
        })
        .unwrap();
        redis.restart().unwrap();
        let scene = Self {
            gateway,
            _redis: redis,
        };
        // What was counted is told within a second or two.
        let all_told = || {
            let told = scene.scrape();
            let has = |label: &str, value: &str| {
                told.iter()
                    .any(|(_, labels)| labels.get(label).is_some_and(|known| known == value))
            };
            [
                "leased",
                "cached",
                "warned",
                "shadow_denied",
                "shadow_allowed",
            ]
            .iter()
            .all(|mark| has("weir_mark", mark))
                && [
                    "allowed",
                    "denied",
                    "delayed",
                    "unavailable",
                    "blocked",
                    "exempt",
                ]
                .iter()
                .all(|outcome| has("weir_outcome", outcome))
                && ["allow", "local", "deny"]
                    .iter()
                    .all(|how| has("weir_how", how))
        };
        scene.live_until(all_told);
        assert!(all_told(), "{:#?}", scene.scrape());
        scene
    }

    /// Goes on calling until then, or until it is too late.
    pub fn live_until(&self, mut done: impl FnMut() -> bool) {
        let client = self.gateway.client();
        let end = Instant::now() + SOON;
        while !done() && Instant::now() < end {
            call_all(&client);
        }
    }

    /// Weir's series and their labels, as Prometheus would read them now.
    pub fn scrape(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let stats = self
            .gateway
            .admin()
            .get("/stats/prometheus")
            .send()
            .unwrap();
        let text = stats.text();
        let lines = text.lines().filter(|line| line.starts_with("weir_"));
        lines
            .map(|line| {
                let (name, rest) = line.split_once('{').expect(line);
                let (labels, _) = rest.rsplit_once('}').expect(line);
                let labels = labels.split(',').filter(|label| !label.is_empty());
                let labels = labels.map(|label| {
                    let (name, value) = label.split_once('=').expect(line);
                    (name.to_owned(), value.trim_matches('"').to_owned())
                });
                (name.to_owned(), labels.collect())
            })
            .collect()
    }
}

fn call_all(client: &Client) {
    for user in ["ann", "bob", "banned", "on-the-house"] {
        for path in PATHS {
            let request = client.get(path).header("X-User-ID", user);
            request.send().unwrap();
        }
    }
}
