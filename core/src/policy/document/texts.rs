//! Texts of a policy that have to be of some kind: names, patterns, headers, hosts.

use super::form::Text;
use super::status::{GrpcStatus, StatusSet};
use crate::codec::secret::{DIGEST_DIGITS, Fingerprint, Secret};
use crate::policy::Pattern;
use crate::policy::assigned_tiers::Until;
use crate::policy::compiled::{Host, host_name};
use crate::policy::key;
use crate::policy::key_part::Part;
use crate::policy::name::{self, NAME_PATTERN};
use crate::quota::period::UtcOffset;
use crate::request::address::{Cidr, CidrError};
use crate::request::identity::header_name;

/// Headers that answers have already: a mark under such a name would break the answer, or tell what is
/// not so.
const ANSWERS_HEADERS: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-envoy-ratelimited",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// Request headers that the upstream, the proxy or Weir itself has a use for.
const USED_HEADERS: [&str; 18] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
    "x-request-id",
    "x-user-id",
    "x-user-tier",
];

const HEADER_PATTERN: &str = "^[A-Za-z0-9_-]+$";

pub(super) const NAME: Text<String> = Text {
    read: name::read,
    kind: "a name: 1 to 64 of A-Z a-z 0-9 _ . -",
    pattern: Some(NAME_PATTERN),
};

pub(super) const LIMIT_NAME: Text<String> = Text {
    read: |text| {
        let name = name::read(text)?;
        if key::is_like_unnamed(&name) {
            return Err(format!(
                "{name:?} is what a limit without a name is called; say what the limit is for instead, \
                 such as \"daily\""
            ));
        }
        Ok(name)
    },
    kind: "a name: 1 to 64 of A-Z a-z 0-9 _ . -",
    pattern: Some(NAME_PATTERN),
};

pub(super) const UTC_OFFSET: Text<UtcOffset> = Text {
    read: |text| {
        UtcOffset::read(text).ok_or_else(|| {
            format!(
                "is {text:?}; expected hours and minutes from -12:00 to +14:00, such as \"+09:00\""
            )
        })
    },
    kind: "how far local time is ahead of UTC, such as +09:00",
    pattern: Some("^[+-][0-9]{2}:[0-5][0-9]$"),
};

pub(super) const TIER: Text<()> = Text {
    read: |text| name::read(text).map(drop),
    kind: "a tier, or `default` for all others",
    pattern: Some(NAME_PATTERN),
};

pub(super) const RULE: Text<()> = Text {
    read: |_| Ok(()),
    kind: "the name of a rule",
    pattern: None,
};

pub(super) const NETWORK_OR_DEFAULT: Text<()> = Text {
    read: |text| {
        if text == "default" {
            return Ok(());
        }
        text.parse::<Cidr>().map(drop).map_err(|error| match error {
            CidrError::NotAnAddress => {
                format!("{text:?} {error}, or \"default\" for all others")
            }
            _ => format!("{text:?} {error}"),
        })
    },
    kind: "a network such as `10.0.0.0/8`, or `default` for all others",
    pattern: None,
};

pub(super) const NETWORK: Text<Cidr> = Text {
    read: |text| text.parse().map_err(|error| format!("{text:?} {error}")),
    kind: "a network such as `10.0.0.0/8`",
    pattern: None,
};

pub(super) const PATTERN: Text<Pattern> = Text {
    read: |text| match text {
        "" => Err("is empty and would match no path; write one such as \"/api/*\"".to_string()),
        text => Pattern::try_new(text),
    },
    kind: "a pattern",
    pattern: None,
};

pub(super) const METHOD: Text<String> = Text {
    read: |text| {
        let allowed = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(format!("{text:?} is no method; write one such as \"POST\""));
        }
        Ok(text.to_ascii_uppercase())
    },
    kind: "a method",
    pattern: Some("^[A-Za-z_-]+$"),
};

pub(super) const HOST: Text<Host> = Text {
    read: |text| {
        let (name, host) = match text.strip_prefix('*') {
            Some(suffix) => (suffix.strip_prefix('.'), Host::Below(suffix.to_string())),
            None => (Some(text), Host::Exact(text.to_string())),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if !name.is_some_and(|name| !name.is_empty() && name.bytes().all(allowed)) {
            return Err(format!(
                "{text:?} is no host; write one as \"api.example.com\" or \"*.example.com\""
            ));
        }
        if host_name(text.as_bytes()) != text.as_bytes() {
            return Err(format!(
                "{text:?} is more than a name; hosts are compared without port and last dot"
            ));
        }
        Ok(host)
    },
    kind: "a host such as `api.example.com` or `*.example.com`",
    pattern: None,
};

pub(super) const HEADER: Text<String> = Text {
    read: header_name,
    kind: "the name of a header",
    pattern: Some(HEADER_PATTERN),
};

/// The name of a header that marks answers; nothing where it is empty.
pub(super) const MARK: Text<Option<String>> = Text {
    read: |text| {
        if text.is_empty() {
            return Ok(None);
        }
        let name = header_name(text)?;
        if ANSWERS_HEADERS.contains(&name.as_str()) {
            return Err(format!(
                "is {name:?}, which answers have already; choose a name of its own, such as \
                 \"x-weir-mark\""
            ));
        }
        Ok(Some(name))
    },
    kind: "the name of a header, or empty for none",
    pattern: Some("^[A-Za-z0-9_-]*$"),
};

pub(super) const OPERATOR_HEADER: Text<String> = Text {
    read: |text| {
        let name = header_name(text)?;
        let is_envoys = name.starts_with("x-envoy-") || name.starts_with("x-forwarded-");
        if is_envoys || USED_HEADERS.contains(&name.as_str()) {
            return Err(format!(
                "is {name:?}, which others read too: the operators' header is removed from every request; \
                 name one of its own, such as \"X-Weir-Operator\""
            ));
        }
        Ok(name)
    },
    kind: "the name of a header",
    pattern: Some(HEADER_PATTERN),
};

pub(super) const SECRET: Text<Secret> = Text {
    read: |text| Secret::try_new(text).map_err(|error| error.to_string()),
    kind: "a secret of 16 bytes at least",
    pattern: None,
};

pub(super) const FINGERPRINT: Text<Fingerprint> = Text {
    read: Fingerprint::try_new,
    kind: "a SHA-256: 64 hex digits",
    pattern: Some("^[0-9a-fA-F]{64}$"),
};

pub(super) const USER: Text<String> = Text {
    read: |text| match text {
        "" => Err("is empty, which is nobody's id; take it out".to_string()),
        id => Ok(id.to_string()),
    },
    kind: "a user's id",
    pattern: Some("^.+$"),
};

/// Beginnings would be within reach of whoever wants to be taken for another.
pub(super) const WHOLE_KEY_DIGEST: Text<String> = Text {
    read: |text| {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hex && text.len() == DIGEST_DIGITS {
            true => Ok(text.to_ascii_lowercase()),
            // Not as written: it may be the key itself.
            false => Err(
                "is no SHA-256 in hex; write what `printf %s KEY | sha256sum` prints, 64 digits"
                    .to_string(),
            ),
        }
    },
    kind: "the SHA-256 of an API key: 64 hex digits",
    pattern: Some("^[0-9a-fA-F]{64}$"),
};

pub(super) const TIME: Text<Until> = Text {
    read: Until::read,
    kind: "date, time and offset, as in RFC 3339",
    pattern: Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]+([Zz]|[+-][0-9]{2}:[0-9]{2})$"),
};

/// Of a cookie or a query parameter.
pub(super) const VALUE_NAME: Text<String> = Text {
    read: |text| {
        name::read(text).map_err(|_| format!("{text:?} is no name; write its name as it is sent"))
    },
    kind: "the name of a cookie or a query parameter: 1 to 64 of A-Z a-z 0-9 _ . -",
    pattern: Some(NAME_PATTERN),
};

pub(super) const SEGMENT: Text<String> = Text {
    read: |text| match text {
        "" => Err("is empty; write the name of the namespace or the key".to_string()),
        text => Ok(text.to_string()),
    },
    kind: "the name of a namespace or a key",
    pattern: Some("^.+$"),
};

/// A part of a request that a condition asks for by one word.
pub(super) const ASKED: Text<Part> = Text {
    read: |text| {
        match Part::read(text) {
        Ok(Part::Path) => Err(
            "is \"path\"; say it by \"pattern\", \"patterns\" and \"except\", which know how servers read paths"
                .to_string(),
        ),
        Ok(part @ (Part::User | Part::Tier | Part::Ip | Part::Method | Part::Host | Part::Route)) => {
            Ok(part)
        }
        _ => Err(format!(
            "{text:?} is nothing that a condition asks for; write user, tier, ip, method, host or route"
        )),
    }
    },
    kind: "`user`, `tier`, `ip`, `method`, `host` or `route`",
    pattern: Some("^(user|tier|ip|method|host|route)$"),
};

/// A text that a value is compared with.
pub(super) const COMPARED: Text<String> = Text {
    read: |text| match text {
        "" => Err("is empty; write \"present\": false for what is not there".to_string()),
        text => Ok(text.to_string()),
    },
    kind: "a text",
    pattern: Some("^.+$"),
};

pub(super) const STATUS_SET: Text<()> = Text {
    read: |text| StatusSet::try_new(text).map(drop),
    kind: "an HTTP status, or a class such as `5xx`",
    pattern: Some("^[1-5]([0-9][0-9]|xx)$"),
};

pub(super) const GRPC_STATUS: Text<()> = Text {
    read: |text| GrpcStatus::try_new(text).map(drop),
    kind: "a gRPC status by name or number",
    pattern: Some("^([0-9]|1[0-6]|[A-Z_]+)$"),
};

/// A header that a rule adds to its refusals.
pub(super) const ANSWERS_HEADER: Text<()> = Text {
    read: |text| {
        let name = header_name(text)?;
        let may_be_set = matches!(name.as_str(), "location" | "set-cookie");
        let is_taken = ANSWERS_HEADERS.contains(&name.as_str()) && !may_be_set;
        let is_others = ["grpc-", "x-envoy-", "proxy-"]
            .iter()
            .any(|own| name.starts_with(own));
        if is_taken || is_others || matches!(name.as_str(), "cache-control" | "keep-alive") {
            return Err(format!(
                "is {name:?}, which Weir or the proxy sets; take it out, and choose another name for what is \
                 your own"
            ));
        }
        Ok(())
    },
    kind: "the name of a header",
    pattern: Some(HEADER_PATTERN),
};

pub(super) const FIELD_VALUE: Text<String> = Text {
    read: |text| {
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.is_empty() || text.len() > 1024 || !is_plain || text.trim() != text {
            return Err(
                "is no value of a header; write 1 to 1024 printable characters of ASCII, without blanks round \
                 them"
                    .to_string(),
            );
        }
        Ok(text.to_string())
    },
    kind: "a header's value",
    pattern: Some("^[!-~]([ -~]*[!-~])?$"),
};

pub(super) const BODY: Text<String> = Text {
    read: |text| match text.len() {
        0..=16_384 => Ok(text.to_string()),
        size => Err(format!("has {size} bytes; keep an answer to 16384")),
    },
    kind: "a text of 16,384 bytes at most",
    pattern: None,
};

/// A value of a key's part.
pub(super) const VALUE: Text<String> = Text {
    read: |text| match text {
        "" => {
            Err("is empty; what lacks a part of the key is what \"missing\" is about".to_string())
        }
        text => Ok(text.to_string()),
    },
    kind: "a value of the key",
    pattern: Some("^.+$"),
};

/// How much of it has to be there, the list says.
pub(super) const KEY_DIGEST: Text<String> = Text {
    read: |text| Ok(text.to_string()),
    kind: "the SHA-256 of an API key, in hex",
    pattern: Some("^[0-9a-fA-F]{12,64}$"),
};
