//! Names and addresses as Kubernetes and Envoy take them: what a manifest holds of them cannot be
//! read as anything else.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

/// The name of a Kubernetes object: what DNS takes for a host. YAML takes some of these for
/// something else ("on", "1.5"), so a manifest has them in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// Labels of pods: `istio=ingressgateway,app=edge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

const LONGEST_NAME: usize = 253;

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        let is_inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_name = (1..=LONGEST_NAME).contains(&text.len())
            && text.bytes().all(is_inner)
            && !text.starts_with(['-', '.'])
            && !text.ends_with(['-', '.']);
        match is_name {
            true => Ok(Name(text.to_owned())),
            false => Err(format!(
                "{text:?} is no name of a Kubernetes object; use 1 to {LONGEST_NAME} of a-z 0-9 - ., and no \
                 - or . at an end"
            )),
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Labels, String> {
        let is_part = |part: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            !part.is_empty() && part.bytes().all(is_inner)
        };
        let labels = text.split(',').map(|label| {
            let pair = label.split_once('=');
            pair.filter(|(key, value)| is_part(key) && is_part(value))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| {
                    format!("{label:?} is no label; write KEY=VALUE, several with commas")
                })
        });
        labels.collect::<Result<_, _>>().map(Labels)
    }
}

/// As JSON, which is YAML too.
impl Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", serde_json::json!(self.0))
    }
}

impl FromStr for HostPort {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<HostPort, anyhow::Error> {
        let wrong = || anyhow::anyhow!("{text:?} is no place; write HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        match (port.parse(), host.is_empty()) {
            (Ok(port), false) if host.bytes().all(is_host) => Ok(HostPort {
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_read_as_something_else_is_no_name() {
        for text in [
            "",
            "Gateway",
            "a b",
            "a\nkind: Secret",
            "-a",
            "a.",
            &"a".repeat(254),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert_eq!(
            "edge-1.example".parse::<Name>().unwrap().to_string(),
            "edge-1.example"
        );
        for text in ["", "a", "a=", "a=b,", "a=b c"] {
            assert!(text.parse::<Labels>().is_err(), "{text:?}");
        }
        let labels: Labels = "istio=ingressgateway,app.kubernetes.io/name=x"
            .parse()
            .unwrap();
        let json = r#"{"app.kubernetes.io/name":"x","istio":"ingressgateway"}"#;
        assert_eq!(labels.to_string(), json);
    }

    #[test]
    fn a_place_has_a_host_and_a_port() {
        for text in [
            "redis",
            ":6379",
            "redis:",
            "redis:x",
            "re dis:1",
            "redis:70000",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
        assert_eq!("[::1]:6379".parse::<HostPort>().unwrap().host, "::1");
    }
}
