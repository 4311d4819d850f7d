//! How a verdict is told to the client: status, headers and body. It decides nothing.
//!
//! `X-RateLimit-*` are in whole requests and delta seconds; `RateLimit` and `RateLimit-Policy` are
//! those of draft-ietf-httpapi-ratelimit-headers-11; `body: "problem"` is that draft's problem type
//! in RFC 9457's `application/problem+json`.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use crate::decide::shadow::ShadowVerdict;
use crate::decide::verdict::{Degraded, LimitStatus};
use crate::live::last_refusal::{LastRefusal, Words};
use crate::policy::ids::{LimitId, VariantId};
use crate::policy::soft_limit::Used;
use crate::policy::{Answers, Body, Limit, Policy};
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::{Reading, Retry};
use crate::time::Span;

/// Header names are lower case, as Envoy and HTTP/2 have them.
pub type Headers = Vec<Header>;
pub type Header = (Cow<'static, str>, String);

/// An answer that the filter gives itself, in both languages a client may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub grpc: Grpc,
    /// What Envoy's access log tells it from the upstream's answers by (`%RESPONSE_CODE_DETAILS%`):
    /// `weir_` and the reason, without blanks.
    pub details: Cow<'static, str>,
}

/// The same answer to a gRPC client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc {
    pub code: GrpcCode,
    pub message: String,
}

/// Which language the client reads answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// What the proxy is handed of an answer. It carries the true HTTP status and the gRPC code alike: the
/// proxy knows how the request arrived, and before Weir a filter may have changed its content type.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub status: u16,
    pub headers: Vec<(&'a str, Cow<'a, str>)>,
    pub body: &'a [u8],
    pub code: GrpcCode,
    pub details: &'a str,
}

/// The gRPC status codes that Weir uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcCode {
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unavailable = 14,
}

/// The limits that a request met, in reporting order, and where the caller stands with those of which
/// that is known. Both are empty where answers do not name all of them: [`Answers::name_all`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Met<'a> {
    pub limits: &'a [LimitId],
    pub statuses: &'a [LimitStatus],
}

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// A store that fails is expected back soon: its clients are told to ask again in a second.
const UNAVAILABLE_RETRY_SECONDS: u64 = 1;
/// The most bytes of `RateLimit` and of `RateLimit-Policy`. Proxies in front of Envoy take 4 KB of headers
/// and more.
const LONGEST_FIELD: usize = 1024;
/// Between the members of a list.
const SEPARATOR: &str = ", ";

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    details: Details<'a>,
}

/// The limit that refused a request.
#[derive(Serialize)]
struct Details<'a> {
    rule: &'a str,
    scope: &'static str,
    algorithm: &'static str,
    limit: u64,
    remaining: u64,
    window: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// The most a bucket holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    /// Permits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    refill_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leak_rate: Option<f64>,
    /// The request costs more than the limit can ever hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    never: Option<bool>,
}

impl Answer {
    /// The answer in that language. gRPC's has no body, and tells its status in headers of its own: so
    /// `grpc_web` takes it for gRPC, where it would make 14 of a 429 that has a body.
    pub fn reply(&self, protocol: Protocol) -> Reply<'_> {
        let own = self.headers.iter();
        let own = own.map(|(name, value)| (name.as_ref(), Cow::from(value.as_str())));
        let Grpc { code, message } = &self.grpc;
        let (headers, body) = match protocol {
            Protocol::Http => (own.collect(), self.body.as_slice()),
            Protocol::Grpc => {
                let status = (*code as i32).to_string();
                let words = [
                    ("grpc-status", status.into()),
                    ("grpc-message", percent_encoded(message)),
                ];
                // The content type is that of a body.
                let own = own.filter(|(name, _)| *name != "content-type");
                (own.chain(words).collect(), &[][..])
            }
        };
        Reply {
            status: self.status,
            headers,
            body,
            code: *code,
            details: &self.details,
        }
    }
}

/// As gRPC writes a message into a header: what is not printable ASCII, and `%`, as `%XX`.
fn percent_encoded(message: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if message.bytes().all(is_plain) {
        return message.into();
    }
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

/// What the response to a request that passed tells about its limits.
pub fn status_headers(policy: &Policy, shown: LimitStatus, met: Met<'_>) -> Headers {
    let mut headers = Headers::with_capacity(5);
    write_status(&mut headers, policy, shown, met);
    headers
}

/// Whether a header is one of those that tell where a caller stands.
pub fn is_of_status(answers: &Answers, name: &str) -> bool {
    let own = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit-policy",
        "ratelimit",
    ];
    own.contains(&name) || answers.warning.as_deref() == Some(name)
}

/// The mark of a request that was decided without the store, unless it is switched off.
pub fn degraded_header(policy: &Policy, how: Degraded) -> Option<Header> {
    let name = policy.answers.degraded.clone()?;
    Some((name.into(), how.name().to_string()))
}

/// What rules in shadow mode would have done, unless nobody wants to be told: `search_api=denied;scope=user`
/// or `search_api=allowed`, divided by commas; `unknown` where the store could not say.
pub fn shadow_header(
    policy: &Policy,
    shadows: impl Iterator<Item = (Option<LimitId>, Option<ShadowVerdict>)>,
) -> Option<Header> {
    let name = policy.answers.shadow.clone()?;
    let told = shadows.filter_map(|(first, would)| {
        let rule = &policy.limit(first?)?.rule;
        let told = match would {
            None => "unknown".to_string(),
            Some(ShadowVerdict::Pass(_)) => "allowed".to_string(),
            Some(ShadowVerdict::Deny(limit, retry)) => {
                let scope = policy.limit(limit)?.scope.name();
                match retry_seconds(retry) {
                    Some(seconds) => format!("denied;scope={scope};retry_after={seconds}"),
                    None => format!("denied;scope={scope}"),
                }
            }
        };
        Some(format!("{rule}={told}"))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| (name.into(), told.join(", ")))
}

/// The limits that a caller nears, as a list of structured fields: `"rule";scope=user;used=0.85`.
/// Nothing where there are none, or the header is switched off.
pub fn warning_header(policy: &Policy, warned: &[(LimitId, Used)]) -> Option<Header> {
    let name = policy.answers.warning.clone()?;
    let mut value = String::new();
    for (id, used) in warned {
        if let Some(limit) = policy.limit(*id) {
            let separator = if value.is_empty() { "" } else { ", " };
            let scope = limit.scope.name();
            // Writing to a String cannot fail; a rule's name needs no escape.
            let _ = write!(
                value,
                "{separator}\"{}\";scope={scope};used={used}",
                limit.rule
            );
        }
    }
    (!value.is_empty()).then(|| (name.into(), value))
}

/// For how long a request was delayed, if that is told.
pub fn delay_header(policy: &Policy, delay: Span) -> Option<Header> {
    let name = policy.answers.delay.clone()?;
    Some((name.into(), delay.as_millis().to_string()))
}

/// The variants that a caller met, as `experiment=variant`, unless nobody wants to be told.
pub fn variant_header(policy: &Policy, variants: &[VariantId]) -> Option<Header> {
    if variants.is_empty() {
        return None;
    }
    let name = policy.answers.variant.clone()?;
    let told = variants.iter().filter_map(|id| {
        let (experiment, variant) = policy.variant(*id)?;
        Some(format!("{}={}", experiment.name, variant.name))
    });
    let told: Vec<String> = told.collect();
    Some((name.into(), told.join(", ")))
}

/// 429, or what the rule says: a limit is used up. `retry` is the longest wait over all limits that failed. `last` is the
/// policy's.
pub fn refused(
    policy: &Policy,
    shown: LimitStatus,
    retry: Retry,
    met: Met<'_>,
    last: &LastRefusal,
) -> Answer {
    let Some(limit) = policy.limit(shown.limit) else {
        return unavailable();
    };
    let answers = &policy.answers;
    let own = policy.response(&limit.rule);
    let status = own.map_or(429, |own| own.status);
    let message = format!("Too many requests. Rule: {}", limit.rule);
    let retry_after = retry_seconds(retry);
    let words = Words {
        limit: shown.limit,
        violated: match answers.body {
            Body::Json => Vec::new(),
            Body::Problem => met.violated(shown).collect(),
        },
        remaining: remaining(shown.reading),
        retry_after,
        own_retry_after: retry_seconds(shown.reading.retry),
    };
    let body = last.body(words, |words| match answers.body {
        Body::Json => to_json(&ErrorBody {
            error: "Rate limit exceeded",
            message: &message,
            retry_after,
            details: Some(details(limit, shown.reading)),
        }),
        Body::Problem => to_json(&ProblemBody {
            r#type: QUOTA_EXCEEDED,
            title: "Request cannot be satisfied as assigned quota has been exceeded",
            status,
            detail: &message,
            violated_policies: {
                let violated = words.violated.iter();
                violated.filter_map(|id| policy.title(*id)).collect()
            },
            retry_after,
            details: details(limit, shown.reading),
        }),
    });
    let content_type = match answers.body {
        Body::Json => JSON,
        Body::Problem => PROBLEM_JSON,
    };
    let (content_type, body) = match own.and_then(|own| own.body.as_ref()) {
        Some(own) => (own.content_type.as_str(), own.bytes.clone()),
        None => (content_type, body),
    };
    let mut headers = own_headers(content_type);
    write_status(&mut headers, policy, shown, met);
    headers.push(("x-envoy-ratelimited".into(), "true".to_string()));
    headers.extend(retry_after.map(|seconds| ("retry-after".into(), seconds.to_string())));
    let added = own.iter().flat_map(|own| &own.headers);
    headers.extend(added.map(|(name, value)| (name.clone().into(), value.clone())));
    Answer {
        status,
        headers,
        body,
        grpc: Grpc {
            code: GrpcCode::ResourceExhausted,
            message,
        },
        details: format!("weir_denied{{{}}}", limit.rule).into(),
    }
}

/// 429 for the status call itself, by its own limit.
pub fn status_refused(quota: &Quota, reading: Reading) -> Answer {
    let retry_after = retry_seconds(reading.retry);
    let message = format!(
        "The status may be asked {} times in {:#}.",
        quota.limit(),
        quota.period()
    );
    let mut answer = plain(
        429,
        "weir_status_denied".into(),
        "Rate limit exceeded",
        &message,
        GrpcCode::ResourceExhausted,
        retry_after,
    );
    answer
        .headers
        .push(("x-envoy-ratelimited".into(), "true".to_string()));
    answer
}

/// 503: the store cannot be asked, and a limit would rather refuse than guess.
pub fn unavailable() -> Answer {
    let message = "The rate limit cannot be checked now.";
    let retry_after = Some(UNAVAILABLE_RETRY_SECONDS);
    plain(
        503,
        "weir_unavailable".into(),
        "Rate limiter unavailable",
        message,
        GrpcCode::Unavailable,
        retry_after,
    )
}

/// 400: an identity header was sent twice.
pub fn repeated_header(header: &str) -> Answer {
    let message = format!("The header {header} was sent more than once; send it once.");
    plain(
        400,
        format!("weir_repeated_header{{{header}}}").into(),
        "Ambiguous identity",
        &message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 400: a header that says what the request costs, from somebody who is believed, and cannot be read.
pub fn unreadable_cost(header: &str) -> Answer {
    let message = format!("The header {header} holds no cost; send it once, as a whole number.");
    plain(
        400,
        format!("weir_unreadable_cost{{{header}}}").into(),
        "Unreadable cost",
        &message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 400: a request that lacks a part of a key that it must have, such as `the header x-org`.
pub fn lacking(part: &str) -> Answer {
    let message = format!("The request lacks {part}, by which it is counted; send it.");
    plain(
        400,
        format!("weir_lacking{{{}}}", part.replace(' ', "_")).into(),
        "Incomplete request",
        &message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 400: a call that is answered in JSON, from somebody who reads gRPC.
pub fn not_in_grpc() -> Answer {
    let message = "This call is answered in JSON; ask without a content type of gRPC.";
    plain(
        400,
        "weir_not_in_grpc".into(),
        "No gRPC call",
        message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 400: a status call from somebody who is nobody.
pub fn no_identity(message: &str) -> Answer {
    plain(
        400,
        "weir_no_identity".into(),
        "No identity",
        message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 400: a status call whose query cannot be understood.
pub fn bad_query(message: &str) -> Answer {
    plain(
        400,
        "weir_bad_query".into(),
        "Bad query",
        message,
        GrpcCode::InvalidArgument,
        None,
    )
}

/// 403: what was sent as the operators' secret is not it.
pub fn wrong_secret(header: &str) -> Answer {
    let message = format!("What {header} holds is not the operators' secret.");
    plain(
        403,
        "weir_wrong_secret".into(),
        "Forbidden",
        &message,
        GrpcCode::PermissionDenied,
        None,
    )
}

/// 429: so many wrong secrets came from the caller's address that none is looked at.
pub fn too_many_secrets(wait: Span) -> Answer {
    let seconds = wait.ceil_seconds().max(1);
    let message = format!(
        "Too many wrong secrets came from this address; none is looked at for {seconds} seconds."
    );
    plain(
        429,
        "weir_too_many_wrong_secrets".into(),
        "Too many wrong secrets",
        &message,
        GrpcCode::ResourceExhausted,
        Some(seconds),
    )
}

/// 403: a status call about somebody else.
pub fn forbidden() -> Answer {
    denied(
        "weir_operators_only",
        "Only operators may ask about another caller's limits.",
    )
}

/// 403: a call that is for operators, from somebody else.
pub fn operators_only() -> Answer {
    denied(
        "weir_operators_only",
        "Only operators may ask about the gateway.",
    )
}

/// 403: the caller is on the policy's list of those whom nothing is for. Which entry it was is not
/// told: whoever is kept out need not learn how to come in.
pub fn blocked() -> Answer {
    denied("weir_blocked", "This caller is not served here.")
}

fn denied(details: &'static str, message: &str) -> Answer {
    let code = GrpcCode::PermissionDenied;
    plain(403, details.into(), "Forbidden", message, code, None)
}

/// 200 with a page for a browser, which holds itself to this policy.
pub fn html(page: String, content_security_policy: &str) -> Answer {
    let mut headers = own_headers("text/html; charset=utf-8");
    for (name, value) in [
        ("content-security-policy", content_security_policy),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.push((name.into(), value.to_string()));
    }
    Answer {
        status: 200,
        headers,
        body: page.into_bytes(),
        grpc: Grpc {
            code: GrpcCode::InvalidArgument,
            message: String::new(),
        },
        details: "weir_page".into(),
    }
}

/// 200 with a JSON body that nobody else should be shown. `details` are those of the answer.
pub fn json(details: &'static str, body: &impl Serialize) -> Answer {
    Answer {
        status: 200,
        headers: own_headers(JSON),
        body: to_json(body),
        grpc: Grpc {
            code: GrpcCode::InvalidArgument,
            message: String::new(),
        },
        details: details.into(),
    }
}

/// Whole seconds for `Retry-After`: rounded up, and at least 1, since 0 would invite a busy loop.
/// Nothing where waiting is no use.
pub fn retry_seconds(retry: Retry) -> Option<u64> {
    match retry {
        Retry::Now | Retry::Unknown => Some(1),
        Retry::After(wait) => Some(wait.ceil_seconds().max(1)),
        Retry::Never => None,
    }
}

/// What may still be taken: a debt leaves nothing.
pub fn remaining(reading: Reading) -> u64 {
    u64::try_from(reading.remaining).unwrap_or(0)
}

fn plain(
    status: u16,
    details: Cow<'static, str>,
    error: &str,
    message: &str,
    code: GrpcCode,
    retry_after: Option<u64>,
) -> Answer {
    let body = ErrorBody {
        error,
        message,
        retry_after,
        details: None,
    };
    let mut headers = own_headers(JSON);
    headers.extend(retry_after.map(|seconds| ("retry-after".into(), seconds.to_string())));
    Answer {
        status,
        headers,
        body: to_json(&body),
        grpc: Grpc {
            code,
            message: message.to_string(),
        },
        details,
    }
}

fn own_headers(content_type: &str) -> Headers {
    let mut headers = Headers::with_capacity(10);
    headers.push(("content-type".into(), content_type.to_string()));
    headers.push(("cache-control".into(), "no-store".to_string()));
    headers
}

impl Met<'_> {
    /// Where the caller stands with a limit; `shown` is the last word on its own.
    fn status(&self, shown: LimitStatus, limit: LimitId) -> Option<LimitStatus> {
        if limit == shown.limit {
            return Some(shown);
        }
        let mut known = self.statuses.iter();
        known.find(|status| status.limit == limit).copied()
    }

    /// The limits that refuse the request, of which `shown` is one.
    fn violated(&self, shown: LimitStatus) -> impl Iterator<Item = LimitId> {
        let refuses = move |status: &LimitStatus| {
            status.limit == shown.limit || status.reading.retry != Retry::Now
        };
        let statuses = self.limits.iter();
        let statuses = statuses.filter_map(move |limit| self.status(shown, *limit));
        statuses.filter(refuses).map(|status| status.limit)
    }
}

fn write_status(headers: &mut Headers, policy: &Policy, shown: LimitStatus, met: Met<'_>) {
    let answers = &policy.answers;
    let Some(limit) = policy.limit(shown.limit) else {
        return;
    };
    if answers.x_ratelimit {
        let (limit, remaining) = (limit.terms.quota.limit(), remaining(shown.reading));
        let reset = shown.reading.reset.ceil_seconds();
        headers.push(("x-ratelimit-limit".into(), limit.to_string()));
        headers.push(("x-ratelimit-remaining".into(), remaining.to_string()));
        headers.push(("x-ratelimit-reset".into(), reset.to_string()));
    }
    if answers.ietf {
        let (policies, statuses) = ietf_fields(policy, shown, met);
        headers.push(("ratelimit-policy".into(), policies));
        headers.push(("ratelimit".into(), statuses));
    }
}

/// `RateLimit-Policy` and `RateLimit`, which name the limits in reporting order. Where they would be too
/// long, they name those that come first, and always the one that is shown.
fn ietf_fields(policy: &Policy, shown: LimitStatus, met: Met<'_>) -> (String, String) {
    let item = |id: LimitId| {
        let limit = policy.limit(id)?;
        let (title, quota) = (policy.title(id)?, limit.terms.quota);
        // Titles are of [A-Za-z0-9_.:/+=%@-]: nothing in them needs an escape in a string.
        let (q, w) = (quota.limit(), quota.window_seconds());
        let terms = format!("\"{title}\";q={q};w={w}");
        let status = met.status(shown, id).map(|status| {
            let r = remaining(status.reading);
            let t = status.reading.reset.ceil_seconds();
            format!("\"{title}\";r={r};t={t}")
        });
        Some((terms, status.unwrap_or_default()))
    };
    let is_shown = |id: &LimitId| *id == shown.limit;
    let mut fields = [String::new(), String::new()];
    let reserved = item(shown.limit).unwrap_or_default();
    let mut free = [&reserved.0, &reserved.1].map(|own| LONGEST_FIELD.saturating_sub(own.len()));
    let unnamed = [shown.limit];
    let limits = match met.limits.iter().any(is_shown) {
        true => met.limits,
        false => &unnamed,
    };
    for id in limits {
        let Some((terms, status)) = item(*id) else {
            continue;
        };
        let parts = [terms, status];
        if !is_shown(id) {
            let need = |part: &String| SEPARATOR.len() + part.len();
            if parts
                .iter()
                .zip(&free)
                .any(|(part, free)| need(part) > *free)
            {
                continue;
            }
            for (free, part) in free.iter_mut().zip(&parts) {
                *free -= need(part);
            }
        }
        for (field, part) in fields.iter_mut().zip(&parts) {
            if !part.is_empty() {
                let separator = if field.is_empty() { "" } else { SEPARATOR };
                field.push_str(separator);
                field.push_str(part);
            }
        }
    }
    let [policies, statuses] = fields;
    (policies, statuses)
}

fn details(limit: &Limit, reading: Reading) -> Details<'_> {
    let quota = limit.terms.quota;
    let window_ms = quota.window().as_millis();
    let rate = quota.limit() as f64 * 1000.0 / window_ms as f64;
    let algorithm = quota.algorithm();
    let bucket = matches!(algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket);
    Details {
        rule: &limit.rule,
        scope: limit.scope.name(),
        algorithm: algorithm.name(),
        limit: quota.limit(),
        remaining: remaining(reading),
        window: quota.window_seconds(),
        retry_after: retry_seconds(reading.retry),
        capacity: bucket.then(|| quota.capacity()),
        refill_rate: (algorithm == Algorithm::TokenBucket).then_some(rate),
        leak_rate: (algorithm == Algorithm::LeakyBucket).then_some(rate),
        never: (reading.retry == Retry::Never).then_some(true),
    }
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    // Serialising strings and numbers cannot fail; an empty body would still be an honest 429.
    serde_json::to_vec(body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
