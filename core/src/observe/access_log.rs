//! What an access log says of a decision: one line of `name=value` with a space between, in a fixed
//! order, what does not apply left out. No value needs quotes: names are `[A-Za-z0-9_.-]`, the rest are
//! numbers and hashes. Subjects are told by a short hash, which finds all lines of one caller and is
//! no secret: who has the id can compute it.

use std::fmt::Write;

use crate::decide::decision::{Outcome, Record, Source};
use crate::policy::Policy;
use crate::policy::ids::LimitId;
use crate::policy::lists::Listed;
use crate::request::subject::{Subject, hex_digest};
use crate::time::Span;

/// Hex digits of a subject's hash: two of a million callers share one once in 500 logs.
const SUBJECT_DIGITS: usize = 12;

/// The line of a request that met limits. `waited` is how long it waited for the store, if it did.
pub fn line(
    policy: &Policy,
    record: &Record,
    subject: Option<&Subject>,
    waited: Option<Span>,
) -> String {
    let mut line = begun(record.outcome);
    let mut add = |name: &str, value: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = write!(line, " {name}={value}");
    };
    add("source", format_args!("{}", source(record.source)));
    if let Some(how) = record.degraded() {
        add("degraded", format_args!("{}", how.name()));
    }
    if let Some(shown) = record.shown
        && let Some(limit) = policy.limit(shown.limit)
    {
        add("rule", format_args!("{}", limit.rule));
        add("scope", format_args!("{}", limit.scope.name()));
        add("remaining", format_args!("{}", shown.reading.remaining));
    }
    if let Some(subject) = subject {
        add("subject", format_args!("{}", hashed(subject)));
    }
    if let Some(waited) = waited {
        add("store_us", format_args!("{}", waited.as_micros()));
    }
    if record.delay > Span::ZERO {
        add("delay_ms", format_args!("{}", record.delay.as_millis()));
    }
    for (name, limits) in [
        ("warned", &record.warned),
        ("shadow_denied", &record.shadow_denied),
        ("shadow_allowed", &record.shadow_passed),
    ] {
        if !limits.is_empty() {
            add(name, format_args!("{}", listed(policy, limits)));
        }
    }
    if !record.variants.is_empty() {
        let variants = record.variants.iter().filter_map(|id| policy.variant(*id));
        let names: Vec<String> = variants
            .map(|(experiment, variant)| format!("{}/{}", experiment.name, variant.name))
            .collect();
        add("variant", format_args!("{}", names.join(",")));
    }
    line
}

/// The line of a request that met none, whoever sent it being on a list or not.
pub fn of(outcome: Outcome, listed: Option<&Listed>) -> String {
    let mut line = begun(outcome);
    if let Some(listed) = listed {
        let subject = hashed(&listed.caller.subject);
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " subject={subject} list={}.{}",
            listed.list(),
            listed.field()
        );
        if let Some(entry) = listed.entry() {
            let _ = write!(line, " entry={entry}");
        }
    }
    line
}

fn begun(outcome: Outcome) -> String {
    let mut line = String::with_capacity(160);
    line.push_str("outcome=");
    line.push_str(outcome.name());
    line
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Store => "store",
        Source::Denials => "cached",
        Source::Leases => "leased",
        Source::Failure(_) => "degraded",
        Source::Policy => "policy",
    }
}

/// Each limit as `rule/scope`.
fn listed(policy: &Policy, limits: &[LimitId]) -> String {
    let limits = limits.iter().filter_map(|id| policy.limit(*id));
    let names: Vec<String> = limits
        .map(|limit| format!("{}/{}", limit.rule, limit.scope.name()))
        .collect();
    names.join(",")
}

/// An API key's is what the status call shows of it.
fn hashed(subject: &Subject) -> String {
    let (kind, hash) = match subject {
        Subject::User(id) => ("user", hex_digest(id)),
        Subject::ApiKey(hash) => ("api_key", hash.clone()),
        Subject::Address(Some(address)) => ("address", hex_digest(address.to_string().as_bytes())),
        Subject::Address(None) => ("address", hex_digest(b"")),
    };
    format!("{kind}:{}", hash.get(..SUBJECT_DIGITS).unwrap_or(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json::{At, Json};
    use crate::decide::verdict::{Degraded, LimitStatus};
    use crate::policy::ids::VariantId;
    use crate::policy::lists::Entry;
    use crate::quota::operation::{Reading, Retry};
    use crate::request::identity::Caller;

    const POLICY: &str = r#"{"rules": [
        {"name": "a.b", "pattern": "/*",
         "user_limits": {"default": {"type": "fixed_window", "limit": 9, "window": 60}},
         "ip_limits": {"default": {"type": "fixed_window", "limit": 9, "window": 60}}}],
        "experiments": [{"name": "tight", "variants": [{"name": "control", "weight": 1},
            {"name": "half", "weight": 1, "rules": {"a.b": {"user_limits": {"default":
                {"type": "fixed_window", "limit": 4, "window": 60}}}}}]}]}"#;

    #[test]
    fn a_line_tells_what_applies_and_no_more() {
        let json = Json::parse(POLICY, "policy").unwrap();
        let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
        let ids: Vec<LimitId> = policy.limits().map(|(id, _)| id).collect();
        let shown = |remaining| {
            let (retry, reset) = (Retry::Now, Span::ZERO);
            let reading = Reading {
                remaining,
                retry,
                reset,
            };
            Some(LimitStatus {
                limit: ids[0],
                reading,
            })
        };
        let ann = Subject::User(b"ann: x=y".to_vec());
        let key = Subject::ApiKey(hex_digest(b"secret"));
        for (record, subject, waited, expected) in [
            (
                Record::new(Outcome::Allowed, Source::Store, shown(7)),
                &ann,
                Some(Span::micros(312)),
                "outcome=allowed source=store rule=a.b scope=user remaining=7 \
                 subject=user:9627943d0fa8 store_us=312",
            ),
            (
                Record::new(Outcome::Denied, Source::Denials, shown(-3)),
                &key,
                None,
                "outcome=denied source=cached rule=a.b scope=user remaining=-3 \
                 subject=api_key:2bb80d537b1d",
            ),
            (
                Record {
                    delay: Span::millis(250),
                    warned: vec![ids[0], ids[1]],
                    shadow_denied: vec![ids[1]],
                    variants: vec![VariantId(1)],
                    ..Record::new(Outcome::Delayed, Source::Failure(Degraded::Local), None)
                },
                &Subject::Address(None),
                None,
                "outcome=delayed source=degraded degraded=local subject=address:e3b0c44298fc \
                 delay_ms=250 warned=a.b/user,a.b/ip shadow_denied=a.b/ip variant=tight/half",
            ),
        ] {
            assert_eq!(line(&policy, &record, Some(subject), waited), expected);
        }
        assert_eq!(of(Outcome::Unmatched, None), "outcome=unmatched");
    }

    #[test]
    fn a_line_tells_who_is_on_which_list_by_which_entry() {
        let caller = |subject| Caller {
            subject,
            tier: "expelled".to_string(),
            client: None,
            address: None,
        };
        let ann = || caller(Subject::User(b"ann: x=y".to_vec()));
        let key = caller(Subject::ApiKey(hex_digest(b"secret")));
        let network = Entry::Network("10.0.0.0/8".parse().unwrap());
        for (outcome, listed, expected) in [
            (
                Outcome::Blocked,
                Listed::denied(ann(), Entry::User),
                "outcome=blocked subject=user:9627943d0fa8 list=deny.users",
            ),
            (
                Outcome::Blocked,
                Listed::denied(ann(), network),
                "outcome=blocked subject=user:9627943d0fa8 list=deny.networks entry=10.0.0.0/8",
            ),
            (
                Outcome::Exempt,
                Listed::allowed(ann(), Entry::Tier),
                "outcome=exempt subject=user:9627943d0fa8 list=allow.tiers entry=expelled",
            ),
            (
                Outcome::Blocked,
                Listed::denied(key, Entry::ApiKey("2bb80d537b1d".to_string())),
                "outcome=blocked subject=api_key:2bb80d537b1d list=deny.api_keys entry=2bb80d537b1d",
            ),
        ] {
            assert_eq!(of(outcome, Some(&listed)), expected);
        }
    }
}
