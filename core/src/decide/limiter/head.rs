//! What is read of a request before anything is decided: its headers in one pass, and what the proxy
//! tells of its sender.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;

use super::Facts;
use crate::decide::answer::Protocol;
use crate::live::snapshot::PolicySnapshot;
use crate::policy::Policy;
use crate::policy::cost_rule::Said;
use crate::policy::ids::LimitId;
use crate::request::address;
use crate::request::identity::{Credentials, Field, Peer, Source, Sources};
use crate::request::subject::Subject;
use crate::time::WallTime;

/// What the proxy tells of a request: an address that came with another is not asked for again.
pub struct KnownFacts<'a, F> {
    facts: &'a F,
    sources: &'a Sources,
    /// The direct peer's address, and maybe the client's behind it.
    addresses: OnceCell<Cow<'a, [u8]>>,
}

/// The parts of a request's head that decisions are made on.
#[derive(Debug)]
pub struct Head<'a> {
    pub target: &'a [u8],
    pub method: &'a [u8],
    pub authority: &'a [u8],
    pub protocol: Protocol,
    pub credentials: Credentials<'a>,
    pub repeated: Option<Field>,
    /// What the proxy tells of the peer in a header, if it does.
    pub peer: Option<&'a [u8]>,
    /// What is said of costs: the headers that the policy asks for, as often as they were sent.
    pub costs: Vec<(&'a [u8], &'a [u8])>,
    /// The headers that keys are made of, as often as they were sent.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    /// Whether it says that it was redirected.
    pub is_redirected: bool,
    /// What was sent in the operators' header.
    pub operator_secret: Said<'a>,
}

// === impl Told ===

impl<'a, F: Facts> KnownFacts<'a, F> {
    pub fn new(facts: &'a F, sources: &'a Sources, header: Option<&'a [u8]>) -> KnownFacts<'a, F> {
        let addresses = header.map_or(OnceCell::new(), |told| Cow::Borrowed(told).into());
        KnownFacts {
            facts,
            sources,
            addresses,
        }
    }

    pub fn direct_peer(&self) -> Option<IpAddr> {
        if let (None, Peer::FilterState(name)) = (self.addresses.get(), &self.sources.direct_peer) {
            // It was empty: this is asked once.
            let _ = self.addresses.set(self.facts.direct_peer(name)?.into());
        }
        let (peer, _) = addresses(self.addresses.get()?);
        address::parse_peer(peer)
    }

    pub fn client(&self) -> Cow<'_, [u8]> {
        let told = self.addresses.get();
        match told.and_then(|told| addresses(told).1) {
            Some(client) => client.into(),
            None => self.facts.source_address().into(),
        }
    }

    pub fn counted(&self, snapshot: &Rc<PolicySnapshot>, subject: &Subject) -> Vec<LimitId> {
        self.facts.counted(snapshot, subject)
    }

    pub fn time_of_day(&self) -> WallTime {
        self.facts.time_of_day()
    }

    pub fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        self.facts.claim(path)
    }

    pub fn claim(&self, source: &Source) -> Option<Vec<u8>> {
        let (path, kind) = source.property()?;
        kind.read(&self.facts.claim(path)?)
    }
}

/// The direct peer's address, and the client's if it stands behind it. The addresses of a Unix socket
/// may hold spaces, and then both do.
fn addresses(told: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = told.split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(peer), Some(client), None) => (peer, Some(client)),
        _ => (told, None),
    }
}

// === impl Head ===

impl<'a> Head<'a> {
    /// Goes through all headers once.
    pub fn read(
        sources: &Sources,
        policy: &Policy,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Head<'a> {
        let operator_header = policy
            .status
            .operator_header
            .as_ref()
            .map(|header| header.name.as_bytes());
        let mut head = Head {
            target: b"/",
            method: b"",
            authority: b"",
            protocol: Protocol::Http,
            credentials: Credentials::default(),
            repeated: None,
            peer: None,
            costs: Vec::new(),
            fields: Vec::new(),
            is_redirected: false,
            operator_secret: Said::Nothing,
        };
        let (mut peers, mut is_transcoded) = (0, false);
        for (name, value) in headers {
            // Of a thousand rules each may ask for another.
            if policy
                .key_headers()
                .binary_search_by(|own| own.as_bytes().cmp(name))
                .is_ok()
            {
                head.fields.push((name, value));
            }
            match name {
                b":path" => head.target = value,
                b":method" => head.method = value,
                b":authority" => head.authority = value,
                b"content-type" if is_grpc(value) => head.protocol = Protocol::Grpc,
                TRANSCODED => is_transcoded = true,
                REDIRECTED => head.is_redirected = true,
                _ if sources.is_peer(name) => {
                    peers += 1;
                    // The proxy sets one. Of two, one is somebody else's.
                    head.peer = (peers == 1).then_some(value);
                }
                _ => {
                    if let Some(field) = sources.field(name)
                        && head.credentials.set(field, value).is_some()
                    {
                        head.repeated = Some(field);
                    }
                    if operator_header == Some(name) {
                        head.operator_secret = match head.operator_secret {
                            Said::Nothing => Said::Once(value),
                            Said::Once(_) | Said::Often => Said::Often,
                        };
                    }
                    if policy
                        .cost_headers()
                        .iter()
                        .any(|own| own.as_bytes() == name)
                    {
                        head.costs.push((name, value));
                    }
                }
            }
        }
        if is_transcoded {
            head.protocol = Protocol::Http;
        }
        head
    }

    /// What was sent in a header that the policy reads costs from.
    pub fn cost(&self, header: &str) -> Said<'a> {
        Said::under(header, self.costs.iter().copied())
    }
}

/// Envoy's router writes it into a request that it redirects by itself.
const REDIRECTED: &[u8] = b"x-envoy-original-url";

/// Envoy's `grpc_json_transcoder` writes it beside the content type of gRPC that it makes of a JSON call. A
/// client that sends it with a call in gRPC has the JSON for its message.
const TRANSCODED: &[u8] = b"x-envoy-original-method";

/// What Envoy takes for gRPC. It answers anything else in plain HTTP, where a refusal in the words
/// of gRPC would read 200.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest, [] | [b'+', ..]))
}
