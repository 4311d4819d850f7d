//! A request's head, whoever wrote it: it is decided, its answer can be sent, no key of its own
//! making reaches Redis, and neither does an API key.
//!
//! An input is a byte for the peer, and then header lines as `name: value`, divided by LF.

use std::collections::HashSet;
use std::rc::Rc;

use weir_core::decide::limiter::{Facts, Step, admit};
use weir_core::live::snapshot::PolicySnapshot;
use weir_core::store::slot::Topology;
use weir_core::worker::config::{Config, LimiterConfig};

use crate::Target;
use crate::input::Input;

pub const TARGET: Target = Target {
    name: "admission",
    run,
    words: &[
        "\n",
        "x-user-id: ",
        "x-user-tier: ",
        "x-api-key: ",
        "x-operator: ",
        "x-cost: ",
        "banned",
        "staff",
        ":path: ",
        ":method: ",
        ":authority: ",
        "content-type: application/grpc",
        "/api/v1/rate-limits/status?user_id=",
        "&user_tier=",
        "&address=",
        "&api_key_sha256=8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a",
        "%ff",
        "0123456789abcdef",
        "premium",
        "anonymous",
    ],
};

/// The policy that is shipped, with an operator, and with rules in shadow mode and at a cost.
fn config() -> LimiterConfig {
    let mut policy: serde_json::Value =
        serde_json::from_str(include_str!("../../../envoy/policy.json")).expect("a policy");
    policy["deny"] = serde_json::json!({ "users": ["banned"] });
    policy["allow"] = serde_json::json!({ "tiers": ["staff"] });
    policy["rules"][0]["cost"] = serde_json::json!(
        { "request_header": "X-Cost", "default": 1, "max": 50 });
    policy["rules"][1]["mode"] = "shadow".into();
    policy["rules"][2]["enforce_percent"] = 50.into();
    policy["status"] = serde_json::json!({
        "operator_header": { "name": "X-Operator", "value": "0123456789abcdef" },
    });
    let config = serde_json::json!({
        "role": "limiter", "identity": { "trust": ["127.0.0.0/8"] }, "policy": policy,
    });
    match Config::parse(&config.to_string()) {
        Ok(Config::Limiter(config)) => *config,
        other => panic!("{other:?}"),
    }
}

struct Peer(u8);

impl Facts for Peer {
    fn source_address(&self) -> Vec<u8> {
        match self.0 % 4 {
            0 => b"192.0.2.1:80".to_vec(),
            1 => b"[2001:db8::1]:80".to_vec(),
            2 => b"/run/envoy.sock".to_vec(),
            _ => Vec::new(),
        }
    }

    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        match self.0 / 4 % 3 {
            0 => Some(b"127.0.0.1".to_vec()),
            1 => Some(b"192.0.2.1".to_vec()),
            _ => None,
        }
    }

    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
}

fn run(data: &[u8]) {
    // Of one thread: like a worker's, it is not to be shared.
    thread_local!(static WORLD: (LimiterConfig, Rc<PolicySnapshot>) = {
        let config = config();
        let snapshot = Rc::new(PolicySnapshot::configured(config.policy.clone(), config.store.namespace.clone()));
        (config, snapshot)
    });
    WORLD.with(|(config, snapshot)| decide(config, snapshot, data));
}

fn decide(config: &LimiterConfig, snapshot: &Rc<PolicySnapshot>, data: &[u8]) {
    let mut input = Input(data);
    let peer = Peer(input.byte());
    let headers: Vec<(&[u8], &[u8])> = input
        .0
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().skip(1).position(|byte| *byte == b':')? + 1;
            let value = line[colon + 1..].strip_prefix(b" ");
            Some((&line[..colon], value.unwrap_or(&line[colon + 1..])))
        })
        .collect();
    let admission = admit(snapshot, &config.sources, headers.iter().copied(), &peer);
    let believed = matches!(peer.0 / 4 % 3, 0);
    for name in ["x-user-id", "x-user-tier", "x-api-key"] {
        let sent = headers.iter().any(|(sent, _)| *sent == name.as_bytes());
        let removed = admission.remove.iter().any(|removed| removed == name);
        assert_eq!(removed, sent && !believed, "{name}");
    }
    let is_sent = headers.iter().any(|(name, _)| *name == b"x-operator");
    let is_removed = admission
        .remove
        .iter()
        .any(|removed| removed == "x-operator");
    assert_eq!(is_removed, is_sent, "the operators' secret goes no further");
    match admission.step {
        Step::Pass | Step::Exempt(_) | Step::Page(_) => {}
        Step::Report(_) => assert!(headers.iter().any(|(name, _)| *name == b"x-operator")),
        Step::Block(answer, ..) | Step::Respond(answer, _) => {
            assert!((400..500).contains(&answer.status));
            let sendable = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
            for (name, value) in &answer.headers {
                assert!(value.bytes().all(sendable), "{name}: {value:?}");
            }
        }
        Step::Ask(mut pending) => {
            let parts = pending.parts(Topology::Single);
            for part in &parts {
                for (_, checks) in part.check_request.operations() {
                    let keys: HashSet<&[u8]> = checks.iter().map(|check| &*check.key).collect();
                    assert_eq!(keys.len(), checks.len(), "an operation names a key twice");
                }
            }
            let checks = parts.iter().flat_map(|part| part.check_request.checks());
            let operator = headers.iter().any(|(name, _)| *name == b"x-operator");
            for check in checks {
                let is_claimed = |tag: &[u8]| check.key[b"weir:2:{".len()..].starts_with(tag);
                let claimed = [b"u:", b"U:", b"k:"].iter().any(|tag| is_claimed(*tag));
                assert!(believed || operator || !claimed);
                assert!(check.key.starts_with(b"weir:2:{"));
                assert!(tells_no_api_key(&check.key));
            }
        }
    }
}

/// Whether what stands for an API key is a hash.
fn tells_no_api_key(key: &[u8]) -> bool {
    let Some(tag) = key.strip_prefix(b"weir:2:{k:") else {
        return true;
    };
    let hash = tag.split(|byte| *byte == b'}').next().unwrap_or_default();
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    hash.len() == 64 && hash.iter().all(is_hex)
}
