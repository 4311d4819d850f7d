//! What of a request a limit can count by, where its operator says it in `key`. It knows what each part is
//! called, and who chooses it; it reads no request.

use std::fmt;

use super::pattern::is_capture_name;
use crate::request::subject::escaped;

/// More would be a fault of the policy: each part multiplies the counters.
pub const MOST_PARTS: usize = 4;

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The subject: a user, an API key, or the address of somebody with neither.
    User,
    ApiKey,
    Tier,
    /// The client's address; of an IPv6 address its /64.
    Ip,
    /// The client's network: an IPv4 address by this prefix, an IPv6 address by its /64.
    Ipv4Network(u8),
    /// The same the other way: an IPv6 address by this prefix, an IPv4 address by all of it.
    Ipv6Network(u8),
    Path,
    /// The segment that the rule's pattern captures under this name.
    Capture(String),
    Method,
    Host,
    /// The name of Envoy's route.
    Route,
    /// In lower case, as Envoy names it.
    Header(String),
    Cookie(String),
    Query(String),
    /// A claim that Envoy's JWT filter verified: its `payload_in_metadata`, then the claim.
    Claim(Vec<String>),
    /// Dynamic metadata of other filters: their namespace, then the key.
    Metadata(Vec<String>),
}

/// The parts that are one word.
pub const WORDS: [(&str, Part); 7] = [
    ("user", Part::User),
    ("api_key", Part::ApiKey),
    ("tier", Part::Tier),
    ("ip", Part::Ip),
    ("path", Part::Path),
    ("method", Part::Method),
    ("host", Part::Host),
];

impl Part {
    /// Reads a part that is written as a word: `user`, `ip/24`.
    pub fn read(text: &str) -> Result<Part, String> {
        if let Some((_, part)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(part.clone());
        }
        if text == "route" {
            return Ok(Part::Route);
        }
        let captured = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        if let Some(name) = captured.filter(|name| is_capture_name(name)) {
            return Ok(Part::Capture(name.to_string()));
        }
        if let Some(prefix) = text.strip_prefix("ip/") {
            return match prefix.parse::<u8>() {
                Ok(prefix @ 8..=31) => Ok(Part::Ipv4Network(prefix)),
                Ok(prefix @ 33..=63) => Ok(Part::Ipv6Network(prefix)),
                Ok(32 | 64) => Ok(Part::Ip),
                _ => Err(format!(
                    "{text:?} is no network; write ip/8 to ip/31 for networks of IPv4 addresses, or ip/33 to \
                     ip/63 for those of IPv6"
                )),
            };
        }
        Err(format!(
            "{text:?} is no part of a key; write user, api_key, tier, ip, ip/24, path, method, host or route, \
             \"{{name}}\" for a segment that the pattern captures, or {{\"header\": …}}, {{\"cookie\": …}}, {{\"query\": …}}, {{\"claim\": […]}} or \
             {{\"metadata\": […]}}"
        ))
    }

    /// Whether whoever calls can give it any value and be served all the same.
    pub fn is_clients_choice(&self) -> bool {
        matches!(
            self,
            Part::Header(_)
                | Part::Cookie(_)
                | Part::Query(_)
                | Part::Path
                | Part::Capture(_)
                | Part::Method
                | Part::Host
        )
    }

    /// Whether it says something about the caller that only a believed peer may say.
    pub fn needs_belief(&self) -> bool {
        matches!(self, Part::Header(_) | Part::Cookie(_) | Part::Query(_))
    }

    /// Whether a caller may have more for it. A peer that is believed answers for the headers that it
    /// sends; it passes on what the client wrote into the rest.
    pub fn may_raise(&self) -> bool {
        !self.is_clients_choice() || matches!(self, Part::Header(_))
    }

    /// What people call it: `the header x-org`.
    pub fn words(&self) -> String {
        match self {
            Part::Header(name) => format!("the header {name}"),
            Part::Cookie(name) => format!("the cookie {name}"),
            Part::Query(name) => format!("the query parameter {name}"),
            Part::Claim(path) => format!("the claim {}", path.join(".")),
            Part::Metadata(path) => format!("the metadata {}", path.join(".")),
            Part::Capture(name) => format!("the segment {{{name}}}"),
            Part::ApiKey => "the API key".to_string(),
            Part::Ip => "the address".to_string(),
            Part::User
            | Part::Tier
            | Part::Ipv4Network(_)
            | Part::Ipv6Network(_)
            | Part::Path
            | Part::Method
            | Part::Host
            | Part::Route => format!("the {self}"),
        }
    }

    /// The request header that it is read from, where it is not one that every request has.
    pub fn header(&self) -> Option<&str> {
        match self {
            Part::Header(name) => Some(name),
            Part::Cookie(_) => Some("cookie"),
            _ => None,
        }
    }

    /// Where Envoy keeps it, if it is asked for as a property.
    pub fn property(&self) -> Option<Vec<String>> {
        let metadata = |namespace: Option<&str>, path: &[String]| {
            let own = ["metadata", "filter_metadata"].into_iter().chain(namespace);
            own.map(str::to_string)
                .chain(path.iter().cloned())
                .collect()
        };
        match self {
            Part::Route => Some(vec!["xds".into(), "route_name".into()]),
            Part::Claim(path) => Some(metadata(Some("envoy.filters.http.jwt_authn"), path)),
            Part::Metadata(path) => Some(metadata(None, path)),
            _ => None,
        }
    }
}

/// The kind of a part, as it stands in counters' names. No two parts have one kind, and none holds a `+`,
/// a `:` or a `=`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, letter, path: &[String]| {
            f.write_str(letter)?;
            path.iter()
                .try_for_each(|segment| write!(f, "/{}", escaped(segment.as_bytes())))
        };
        match self {
            Part::User => f.write_str("user"),
            Part::ApiKey => f.write_str("api_key"),
            Part::Tier => f.write_str("tier"),
            Part::Ip => f.write_str("ip"),
            Part::Ipv4Network(prefix) | Part::Ipv6Network(prefix) => write!(f, "ip/{prefix}"),
            Part::Path => f.write_str("path"),
            Part::Capture(name) => write!(f, "p.{name}"),
            Part::Method => f.write_str("method"),
            Part::Host => f.write_str("host"),
            Part::Route => f.write_str("route"),
            Part::Header(name) => write!(f, "h.{name}"),
            Part::Cookie(name) => write!(f, "c.{name}"),
            Part::Query(name) => write!(f, "q.{name}"),
            Part::Claim(segments) => path(f, "j", segments),
            Part::Metadata(segments) => path(f, "m", segments),
        }
    }
}
