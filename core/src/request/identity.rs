//! Who is calling: user, tier, API key and address, from the sources that the operator trusts.
//! It reads headers and claims as bytes; it knows no policy and refuses no id for its bytes.

use std::net::IpAddr;

use crate::request::subject::{Subject, hex_digest};

use crate::codec::json::{At, ConfigError};
use crate::request::address::{self, Cidr};

/// The tier of a caller with an id but no tier of its own.
pub const DEFAULT_TIER: &str = "free";
/// The tier of a caller without any id.
pub const ANONYMOUS_TIER: &str = "anonymous";
/// The filter state that the shipped Envoy configuration sets to the TCP peer's address.
const DEFAULT_PEER: &str = "weir.direct_peer";
/// The upstream has a use of its own for it, whoever sent it.
pub const AUTHORIZATION: &str = "authorization";
/// A household or host commonly holds a /64.
const DEFAULT_IPV6_PREFIX: u8 = 64;

/// Where identity comes from, and whom to believe.
#[derive(Debug)]
pub struct Sources {
    pub user: Source,
    pub tier: Source,
    pub api_key: Source,
    /// In lower case: the API key is what follows it in its header, which may be sent in others too.
    key_scheme: Option<String>,
    pub trust: Trust,
    pub direct_peer: Peer,
    ipv6_prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header, in lower case as Envoy names it.
    Header(String),
    /// A claim that Envoy's JWT filter verified.
    Claim { path: Vec<String>, kind: ClaimKind },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    Text,
    /// Envoy hands a number over as the eight bytes of a double.
    Number,
}

/// Whose identity headers are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    Always,
    Never,
    /// Those of direct peers within these networks.
    Peers(Vec<Cidr>),
}

/// Where the proxy leaves the direct peer's address, and maybe the client's behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A filter state, which is asked for.
    FilterState(String),
    /// A request header that the proxy sets, whatever the client sent. It comes with the others.
    Header(String),
}

/// Whether this request's identity headers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    Believed,
    /// They are ignored, and but for [`AUTHORIZATION`] removed before the request goes on.
    Ignored,
}

/// The identity headers of one request, as sent. An empty header is an absent one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    pub user: Option<&'a [u8]>,
    pub tier: Option<&'a [u8]>,
    pub api_key: Option<&'a [u8]>,
}

/// Which of the three a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    User,
    Tier,
    ApiKey,
}

/// A caller, as limits see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub subject: Subject,
    pub tier: String,
    /// The client's address, or its network for IPv6: what address limits count.
    pub client: Option<IpAddr>,
    /// The client's full address: what networks are compared with.
    pub address: Option<IpAddr>,
}

/// Whether callers have this tier whom nobody gave one.
pub fn is_assumed(tier: &str) -> bool {
    matches!(tier, DEFAULT_TIER | ANONYMOUS_TIER)
}

impl Sources {
    pub fn try_new(at: &At<'_>) -> Result<Sources, ConfigError> {
        let mut fields = at.fields()?;
        let trust = trust(&fields.required("trust")?)?;
        let mut source = |name, header: &str| match fields.optional(name) {
            Some(at) => source(&at),
            None => Ok(Source::Header(header.to_string())),
        };
        let user = source("user", "x-user-id")?;
        let tier = source("tier", "x-user-tier")?;
        let (api_key, key_scheme) = match fields.optional("api_key") {
            Some(at) => key_source(&at)?,
            None => (Source::Header("x-api-key".to_string()), None),
        };
        let direct_peer = match fields.optional("direct_peer") {
            Some(at) => peer(&at)?,
            None => Peer::FilterState(DEFAULT_PEER.to_string()),
        };
        let ipv6_prefix = match fields.optional("ipv6_prefix") {
            None => DEFAULT_IPV6_PREFIX,
            Some(at) => u8::try_from(at.whole()?)
                .ok()
                .filter(|prefix| (1..=128).contains(prefix))
                .ok_or_else(|| at.error("is not a prefix length; expected 1 to 128"))?,
        };
        fields.finish()?;
        Ok(Sources {
            user,
            tier,
            api_key,
            key_scheme,
            trust,
            direct_peer,
            ipv6_prefix,
        })
    }

    /// What is legal and probably not meant, in words for the log.
    pub fn warning(&self) -> Option<&'static str> {
        let is_whole = self.key_scheme.is_none() && self.header(Field::ApiKey)? == AUTHORIZATION;
        is_whole.then_some(
            "identity.api_key is the whole authorization header, so a client that writes its scheme in \
             another way is another caller; say {\"header\": \"authorization\", \"scheme\": \"bearer\"}",
        )
    }

    /// The API key in its header's value: all of it, or what follows the scheme. Of another scheme there
    /// is none.
    pub fn key<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let Some(scheme) = &self.key_scheme else {
            return Some(value);
        };
        let (own, rest) = value.split_at_checked(scheme.len())?;
        let is_blank = rest.first().is_some_and(u8::is_ascii_whitespace);
        (own.eq_ignore_ascii_case(scheme.as_bytes()) && is_blank).then(|| rest.trim_ascii())
    }

    /// Whether the API key is a part of its header only.
    pub fn cuts_key(&self) -> bool {
        self.key_scheme.is_some()
    }

    /// Which identity field a header (in lower case) carries.
    pub fn field(&self, header: &[u8]) -> Option<Field> {
        let is = |source: &Source| match source {
            Source::Header(name) => name.as_bytes() == header,
            Source::Claim { .. } => false,
        };
        if is(&self.user) {
            Some(Field::User)
        } else if is(&self.tier) {
            Some(Field::Tier)
        } else if is(&self.api_key) {
            Some(Field::ApiKey)
        } else {
            None
        }
    }

    /// Whether a header (in lower case) tells the direct peer's address.
    pub fn is_peer(&self, header: &[u8]) -> bool {
        match &self.direct_peer {
            Peer::FilterState(_) => false,
            Peer::Header(name) => name.as_bytes() == header,
        }
    }

    /// The header that carries a field, unless a claim does.
    pub fn header(&self, field: Field) -> Option<&str> {
        let source = match field {
            Field::User => &self.user,
            Field::Tier => &self.tier,
            Field::ApiKey => &self.api_key,
        };
        match source {
            Source::Header(name) => Some(name),
            Source::Claim { .. } => None,
        }
    }

    /// What address limits count an address as: itself, or its network for IPv6.
    pub fn client(&self, address: IpAddr) -> IpAddr {
        address::client(address, self.ipv6_prefix)
    }

    /// The caller behind credentials that are believed, at an address as Envoy tells it.
    pub fn caller<'a>(&self, credentials: Credentials<'a>, source_address: &[u8]) -> Caller {
        let address = address::parse_peer(source_address);
        let client = address.map(|address| self.client(address));
        let present = |value: Option<&'a [u8]>| value.filter(|value| !value.is_empty());
        let subject = match (present(credentials.user), present(credentials.api_key)) {
            (Some(user), _) => Subject::User(user.to_vec()),
            (None, Some(key)) => Subject::ApiKey(hex_digest(key)),
            (None, None) => Subject::Address(client),
        };
        let tier = match (&subject, present(credentials.tier)) {
            (Subject::Address(_), _) => ANONYMOUS_TIER.to_string(),
            (_, None) => DEFAULT_TIER.to_string(),
            // A tier that is not text is on no list; lossy keeps it so.
            (_, Some(tier)) => String::from_utf8_lossy(tier).into_owned(),
        };
        Caller {
            subject,
            tier,
            client,
            address,
        }
    }
}

impl<'a> Credentials<'a> {
    pub fn any(&self) -> bool {
        self.present().next().is_some()
    }

    /// Sets a field and gives what it was before.
    pub fn set(&mut self, field: Field, value: &'a [u8]) -> Option<&'a [u8]> {
        let place = match field {
            Field::User => &mut self.user,
            Field::Tier => &mut self.tier,
            Field::ApiKey => &mut self.api_key,
        };
        place.replace(value)
    }

    pub fn present(&self) -> impl Iterator<Item = Field> {
        [
            (Field::User, self.user),
            (Field::Tier, self.tier),
            (Field::ApiKey, self.api_key),
        ]
        .into_iter()
        .filter_map(|(field, value)| value.map(|_| field))
    }
}

impl Trust {
    /// `peer` is asked for only where it matters: it costs a host call.
    pub fn belief(&self, peer: impl FnOnce() -> Option<IpAddr>) -> Belief {
        let believed = match self {
            Trust::Always => true,
            Trust::Never => false,
            Trust::Peers(networks) => {
                peer().is_some_and(|peer| networks.iter().any(|network| network.contains(peer)))
            }
        };
        if believed {
            Belief::Believed
        } else {
            Belief::Ignored
        }
    }
}

impl Source {
    /// The property path of a claim in Envoy.
    pub fn property(&self) -> Option<(&[String], ClaimKind)> {
        match self {
            Source::Header(_) => None,
            Source::Claim { path, kind } => Some((path, *kind)),
        }
    }
}

impl ClaimKind {
    /// A claim's bytes as the text an id is made of.
    pub fn read(self, property: &[u8]) -> Option<Vec<u8>> {
        match self {
            ClaimKind::Text => Some(property.to_vec()),
            ClaimKind::Number => {
                let bytes: [u8; 8] = property.try_into().ok()?;
                let number = f64::from_le_bytes(bytes);
                number.is_finite().then(|| number.to_string().into_bytes())
            }
        }
    }
}

fn trust(at: &At<'_>) -> Result<Trust, ConfigError> {
    if at.list().is_err() {
        return at
            .choice(&[("always", true), ("never", false)])
            .map(|always| if always { Trust::Always } else { Trust::Never })
            .map_err(|_| at.error("says whose identity headers are believed: \"always\", \"never\", or a list of the direct peers' networks such as [\"10.0.0.0/8\"]"));
    }
    let networks = at.list()?.into_iter().map(|at| {
        let text = at.text()?;
        text.parse()
            .map_err(|error| at.error(format!("{text:?} {error}")))
    });
    Ok(Trust::Peers(networks.collect::<Result<_, _>>()?))
}

fn peer(at: &At<'_>) -> Result<Peer, ConfigError> {
    if let Ok(name) = at.text() {
        return Ok(Peer::FilterState(name.to_string()));
    }
    let mut fields = at.fields().map_err(|_| {
        at.error(
            "says where the proxy leaves the direct peer's address: the name of a filter state, \
             or {\"header\": …}, a header that it sets itself",
        )
    })?;
    let name = header(&fields.required("header")?)?;
    fields.finish()?;
    Ok(Peer::Header(name))
}

fn source(at: &At<'_>) -> Result<Source, ConfigError> {
    if at.text().is_ok() {
        return header(at).map(Source::Header);
    }
    let unclear = || {
        at.error(
            "says where it comes from, in one way: the name of a header, {\"header\": …}, or \
             {\"claim\": [\"payload_in_metadata\", \"claim\"]}",
        )
    };
    let mut fields = at.fields().map_err(|_| unclear())?;
    let (named, claim) = (fields.optional("header"), fields.optional("claim"));
    let found = if let (Some(at), None) = (&named, &claim) {
        Source::Header(header(at)?)
    } else {
        let path = claim.filter(|_| named.is_none()).ok_or_else(unclear)?;
        let segments = path.list()?;
        let mut full = vec![
            "metadata".to_string(),
            "filter_metadata".to_string(),
            "envoy.filters.http.jwt_authn".to_string(),
        ];
        for segment in &segments {
            full.push(segment.text()?.to_string());
        }
        if segments.len() < 2 {
            return Err(path.error(
                "is too short; name the payload_in_metadata of the JWT provider, then the claim",
            ));
        }
        let kind = fields.optional("type").map_or(Ok(ClaimKind::Text), |at| {
            at.choice(&[("string", ClaimKind::Text), ("number", ClaimKind::Number)])
        })?;
        Source::Claim { path: full, kind }
    };
    fields.finish()?;
    Ok(found)
}

/// Where the API key comes from, and the scheme before it if it has one.
fn key_source(at: &At<'_>) -> Result<(Source, Option<String>), ConfigError> {
    let scheme = at.fields().ok().and_then(|mut fields| {
        let name = fields.optional("header")?;
        Some((name, fields.optional("scheme")?, fields.finish()))
    });
    let Some((name_at, scheme, rest)) = scheme else {
        return source(at).map(|source| (source, None));
    };
    rest?;
    let name = scheme.text()?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(scheme.error(format!(
            "{name:?} is no scheme; write the word before the key, such as \"bearer\""
        )));
    }
    Ok((
        Source::Header(header(&name_at)?),
        Some(name.to_ascii_lowercase()),
    ))
}

fn header(at: &At<'_>) -> Result<String, ConfigError> {
    header_name(at.text()?).map_err(|why| at.error(why))
}

/// A header's name in lower case, as Envoy has it.
pub fn header_name(name: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!(
            "{name:?} is no header; write a name such as \"X-User-ID\""
        ));
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
