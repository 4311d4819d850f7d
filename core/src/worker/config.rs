//! The plugin configuration: which of its two roles an instance has, and all that the limiter needs
//! besides the requests. Read once, whole or not at all.

use std::rc::Rc;

use crate::codec::json::{At, ConfigError, Fields, Json, Mistakes};
use crate::codec::protobuf;
use crate::live::poller;
use crate::policy::Policy;
use crate::request::identity::Sources;
use crate::store::config::StoreConfig;

/// What one instance of the filter does.
#[derive(Debug)]
pub enum Config {
    /// An HTTP filter that holds callers to their limits.
    Limiter(Box<LimiterConfig>),
    /// A network filter that lets the limiter's calls through to `redis_proxy`.
    Bridge,
}

#[derive(Debug)]
pub struct LimiterConfig {
    pub store: StoreConfig,
    pub sources: Sources,
    /// The policy to start with and to fall back on; which one is in force, [`crate::live::poller`] says.
    pub policy: Rc<Policy>,
    pub access_log: AccessLog,
}

/// Whether each request's decision is left where access logs find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    /// It costs a request a host call and a line of text.
    On,
}

/// What an instance is, without what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Limiter,
    Bridge,
}

impl Config {
    pub fn parse(text: &str) -> Result<Config, Mistakes> {
        Config::read(text.as_bytes())
    }

    /// From what Envoy hands over: JSON, or the bytes of a `google.protobuf.Struct`.
    pub fn read(bytes: &[u8]) -> Result<Config, Mistakes> {
        let text = String::from_utf8_lossy(bytes);
        let json = Json::parse(&text, "configuration").or_else(|error| {
            let json = protobuf::read_struct(bytes).filter(|_| !bytes.is_empty());
            json.ok_or(error)
        })?;
        let at = At::new(&json, "configuration");
        let mut mistakes = Mistakes::at_most(Mistakes::FEW);
        match Config::judge(&at, &mut mistakes) {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(mistakes),
        }
    }

    fn judge(at: &At<'_>, mistakes: &mut Mistakes) -> Option<Config> {
        let mut fields = at.members(mistakes)?;
        // What the other fields are, only the role says.
        let role = mistakes.note(fields.required("role"))?;
        let role = role.choice(&[("limiter", Role::Limiter), ("bridge", Role::Bridge)]);
        let config = match mistakes.note(role)? {
            Role::Bridge => Some(Config::Bridge),
            Role::Limiter => Config::limiter(&mut fields, mistakes),
        };
        fields.close(mistakes);
        config
    }

    fn limiter(fields: &mut Fields<'_>, mistakes: &mut Mistakes) -> Option<Config> {
        let store = match fields.optional("store") {
            Some(at) => mistakes.note(StoreConfig::try_new(&at)),
            None => Some(StoreConfig::default()),
        };
        let sources = fields
            .needed("identity")
            .and_then(|at| mistakes.note(Sources::try_new(&at)));
        // The policy is a document of its own; its errors need not name what surrounds it.
        let policy = fields.needed("policy").and_then(|at| {
            let policy = Policy::try_new(&At::new(at.value, poller::ROOT));
            policy.map_err(|wrong| mistakes.extend(wrong)).ok()
        });
        let access_log = match fields.optional("access_log") {
            Some(at) => mistakes.note(at.flag())?,
            None => false,
        };
        Some(Config::Limiter(Box::new(LimiterConfig {
            store: store?,
            sources: sources?,
            policy: Rc::new(policy?),
            access_log: match access_log {
                true => AccessLog::On,
                false => AccessLog::Off,
            },
        })))
    }

    /// What is wrong where the first instance of this `vm_id` had the role of that name. Envoy opens
    /// the bridge's connection in the middle of the limiter's call, and a VM cannot be entered twice.
    pub fn beside(&self, first: &str) -> Result<(), ConfigError> {
        match first == self.role().name() {
            true => Ok(()),
            false => Err(ConfigError {
                path: "vm_config.vm_id".to_string(),
                message: "is the same for limiter and bridge; the bridge needs a VM of its own: \
                          give it another vm_id, as envoy/store-bridge.yaml does"
                    .to_string(),
            }),
        }
    }

    pub fn role(&self) -> Role {
        match self {
            Config::Limiter(_) => Role::Limiter,
            Config::Bridge => Role::Bridge,
        }
    }
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Limiter => "limiter",
            Role::Bridge => "bridge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_two_roles_are_told_apart() {
        assert!(matches!(
            Config::parse(r#"{"role": "bridge"}"#),
            Ok(Config::Bridge)
        ));
        let limiter =
            r#"{"role": "limiter", "identity": {"trust": "never"}, "policy": {"rules": []}}"#;
        let Ok(Config::Limiter(limiter)) = Config::parse(limiter) else {
            panic!("a limiter was configured");
        };
        assert_eq!(limiter.store, StoreConfig::default());
    }

    #[test]
    fn what_is_no_json_is_read_as_a_struct_and_what_is_neither_is_told_to_be_no_json() {
        // `role: bridge` as a google.protobuf.Struct.
        let role = b"\x0a\x10\x0a\x04role\x12\x08\x1a\x06bridge";
        assert_eq!(Config::read(role).unwrap().role(), Role::Bridge);
        // The first byte of a Struct is a blank of JSON.
        assert!(Config::parse("\n{\"role\": \"bridge\"}").is_ok());
        let cut = &role[..role.len() - 1];
        let told = Config::read(cut).unwrap_err().to_string();
        assert!(told.contains("configuration: is not JSON"), "{told}");
    }

    #[test]
    fn limiter_and_bridge_share_no_vm() {
        let bridge = Config::Bridge;
        assert_eq!(bridge.beside("bridge"), Ok(()));
        let told = bridge.beside("limiter").unwrap_err();
        assert!(told.to_string().contains("another vm_id"), "{told}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, told) in [
            ("", "configuration: is not JSON"),
            ("[]", "configuration: is a list; expected an object"),
            (
                r#"{"role": "sidecar"}"#,
                r#"expected one of "limiter", "bridge""#,
            ),
            (
                r#"{"role": "bridge", "policy": {}}"#,
                "configuration.policy: is not a field here",
            ),
            (
                r#"{"role": "limiter", "policy": {"rules": []}}"#,
                r#"lacks the field "identity""#,
            ),
            (
                r#"{"role": "limiter", "access_log": "on", "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                "configuration.access_log: is the string \"on\"; expected true or false",
            ),
            (
                r#"{"role": "limiter", "store": {"timeout_ms": 0}, "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                "configuration.store.timeout_ms: is 0",
            ),
            (
                r#"{"role": "limiter", "store": {"transport": "grpc"}, "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                r#"expected one of "http", "stream""#,
            ),
            (
                r#"{"role": "limiter", "store": {"namespace": "Staging"}, "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                "configuration.store.namespace: \"Staging\" is no namespace; use 1 to 32 of a-z 0-9 -",
            ),
            (
                r#"{"role": "limiter", "store": {"policy_poll_ms": 99}, "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                "configuration.store.policy_poll_ms: is 99; every worker looks",
            ),
            (
                r#"{"role": "limiter", "store": {"secret": "short"}, "identity": {"trust": "never"},
                    "policy": {"rules": []}}"#,
                "configuration.store.secret: is shorter than 16 bytes",
            ),
        ] {
            assert!(error(text).contains(told), "{text}: {}", error(text));
        }
    }
}
