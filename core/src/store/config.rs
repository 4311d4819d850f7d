//! How the store is reached, as the plugin configuration says.

use crate::codec::json::{At, ConfigError};
use crate::codec::namespace::Namespace;
use crate::codec::secret::Secret;
use crate::quota::limit::Share;
use crate::store::slot::Topology;
use crate::time::Span;

/// What carries a call to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// An HTTP request for each call: to the bridge or to the sidecar.
    Http,
    /// A message on a stream that is kept open: to the bridge. It costs less.
    Stream,
}

/// How the store is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// The Envoy cluster that checks are sent to: the bridge's or the sidecar's.
    pub cluster: String,
    /// What begins the names of all keys, so that environments may share a Redis.
    pub namespace: Namespace,
    pub transport: Transport,
    /// What the sidecar asks for, where it asks for one.
    pub secret: Option<Secret>,
    /// The longest that a request waits for the store.
    pub timeout: Span,
    pub topology: Topology,
    /// How long a refusal is given again without asking.
    pub denial_cache: Span,
    /// How late a policy that is published in the store may be noticed; nothing where nobody looks.
    pub policy_poll: Option<Span>,
    /// What one worker may let through of a limit on its own while the store is away.
    pub local_share: Share,
}

const DEFAULT_CLUSTER: &str = "weir_store";

const DEFAULT_TIMEOUT_MS: u64 = 50;

/// Longer than a second, and a limiter is what makes the API slow.
const LONGEST_TIMEOUT_MS: u64 = 1000;

/// Soon enough for an operator who resets a caller or raises a limit, and one check a second for a
/// caller who hammers.
const DEFAULT_DENIAL_CACHE_MS: u64 = 1000;

/// Late enough that thousands of workers cost Redis little, early enough for an incident.
const DEFAULT_POLICY_POLL_MS: u64 = 2000;

/// More often, and the looks of a fleet weigh as much as its checks.
const SHORTEST_POLICY_POLL_MS: u64 = 100;

const LONGEST_POLICY_POLL_MS: u64 = 3_600_000;

/// Far beyond any fleet: a share too small to let anybody through is a mistake.
const MOST_HOLDERS: u64 = 100_000;

impl StoreConfig {
    pub fn try_new(at: &At<'_>) -> Result<StoreConfig, ConfigError> {
        let mut fields = at.fields()?;
        let mut store = StoreConfig::default();
        if let Some(at) = fields.optional("cluster") {
            store.cluster = at.text()?.to_string();
        }
        if let Some(at) = fields.optional("namespace") {
            let name = at.text()?;
            store.namespace = name
                .parse()
                .map_err(|error| at.error(format!("{name:?} {error}")))?;
        }
        if let Some(at) = fields.optional("transport") {
            store.transport =
                at.choice(&[("http", Transport::Http), ("stream", Transport::Stream)])?;
        }
        if let Some(at) = fields.optional("secret") {
            store.secret = match at.text()? {
                "" => None,
                _ => Some(Secret::read(&at)?),
            };
        }
        if let Some(at) = fields.optional("timeout_ms") {
            let most = LONGEST_TIMEOUT_MS;
            let why = "every request waits up to this long when Redis is away";
            store.timeout = Span::millis(bounded(&at, most, why)?);
        }
        if let Some(at) = fields.optional("denial_cache_ms") {
            store.denial_cache = Span::millis(at.whole()?);
        }
        if let Some(at) = fields.optional("policy_poll_ms") {
            store.policy_poll = policy_poll(&at)?;
        }
        if let Some(at) = fields.optional("topology") {
            store.topology =
                at.choice(&[("single", Topology::Single), ("cluster", Topology::Cluster)])?;
        }
        let mut holders = |name, default| match fields.optional(name) {
            None => Ok(default),
            Some(at) => bounded(&at, MOST_HOLDERS, "together they hold each limit"),
        };
        let gateways = holders("gateways", 1)?;
        let workers = holders("workers", 1)?;
        store.local_share = match fields.optional("local_share") {
            None => Share::one_of(gateways * workers),
            Some(at) => Share::try_new(at.number()?)
                .ok_or_else(|| at.error("is no share; expected a number above 0, at most 1"))?,
        };
        fields.finish()?;
        Ok(store)
    }
}

fn policy_poll(at: &At<'_>) -> Result<Option<Span>, ConfigError> {
    const BOUNDS: std::ops::RangeInclusive<u64> = SHORTEST_POLICY_POLL_MS..=LONGEST_POLICY_POLL_MS;
    match at.whole()? {
        0 => Ok(None),
        millis if BOUNDS.contains(&millis) => Ok(Some(Span::millis(millis))),
        millis => Err(at.error(format!(
            "is {millis}; every worker looks for a new policy this often, so {} to {}, or 0 for never",
            BOUNDS.start(),
            BOUNDS.end()
        ))),
    }
}

fn bounded(at: &At<'_>, most: u64, why: &str) -> Result<u64, ConfigError> {
    match at.whole()? {
        number if (1..=most).contains(&number) => Ok(number),
        number => Err(at.error(format!("is {number}; {why}, so 1 to {most}"))),
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            cluster: DEFAULT_CLUSTER.to_string(),
            namespace: Namespace::default(),
            transport: Transport::Http,
            secret: None,
            timeout: Span::millis(DEFAULT_TIMEOUT_MS),
            topology: Topology::Single,
            denial_cache: Span::millis(DEFAULT_DENIAL_CACHE_MS),
            policy_poll: Some(Span::millis(DEFAULT_POLICY_POLL_MS)),
            local_share: Share::one_of(1),
        }
    }
}
