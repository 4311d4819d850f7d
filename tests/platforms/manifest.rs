//! What is found in a heap of manifests, and the Services that names in them stand for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

pub fn all<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects
        .iter()
        .filter(move |object| self::kind(object) == kind)
}

pub fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = all(objects, kind);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several {kind}");
    first
}

pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// Where the names of a cluster's Services lead on this machine: its DNS and its kube-proxy.
#[derive(Clone, Debug, Default)]
pub struct Services(BTreeMap<(String, u16), SocketAddr>);

impl Services {
    pub fn add(&mut self, host: &str, port: u16, address: SocketAddr) {
        self.0.insert((host.to_owned(), port), address);
    }

    pub fn find(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.0.get(&(host.to_owned(), port)).copied()
    }

    /// In text such as a URL.
    pub fn resolve(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, ((host, port), address)| {
                text.replace(&format!("{host}:{port}"), &address.to_string())
            })
    }

    /// In every socket address of a configuration of Envoy's.
    pub fn resolve_all(&self, value: &mut Value) {
        if let Some(socket) = value.get_mut("socket_address") {
            let port = socket["port_value"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok());
            let host = socket["address"].as_str().map(str::to_owned);
            if let (Some(host), Some(port)) = (host, port)
                && let Some(address) = self.find(&host, port)
            {
                socket["address"] = address.ip().to_string().into();
                socket["port_value"] = address.port().into();
            }
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.resolve_all(item)),
            Value::Object(fields) => fields
                .values_mut()
                .for_each(|field| self.resolve_all(field)),
            _ => {}
        }
    }
}
