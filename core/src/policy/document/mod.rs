//! A policy as written: every field with what it means, its unit, its default and what it may be, said
//! once. From here come the strict reader, the JSON Schema, the reference in the docs and the seed of the
//! fuzzer. It knows nothing of what the filter makes of it; `compile` does.

mod form;
mod grammar;
mod status;
mod texts;

pub use form::{Ends, Items, Object, Place};
use form::{
    Flag, Form, ListOf, MapOf, Number, OneOrMore, Whole, Words, default, filled, object, optional,
    required,
};
pub use grammar::{About, Field, Presence, Shape, Word};
pub use status::{GrpcStatus, StatusSet};
use texts::{
    ANSWERS_HEADER, ASKED, BODY, COMPARED, FIELD_VALUE, FINGERPRINT, GRPC_STATUS, HEADER, HOST,
    KEY_DIGEST, LIMIT_NAME, MARK, METHOD, NAME, NETWORK, NETWORK_OR_DEFAULT, OPERATOR_HEADER,
    PATTERN, RULE, SECRET, SEGMENT, STATUS_SET, TIER, TIME, USER, UTC_OFFSET, VALUE, VALUE_NAME,
    WHOLE_KEY_DIGEST,
};

use super::assigned_tiers::Until;
use super::compiled::{Body, Host, OnStoreFailure};
use super::key_part::Part;
use super::keyed::{Missing, Unbelieved};
use super::lease_terms::Size;
use super::{Matching, Pattern};
use crate::codec::json::{At, ConfigError, Fields, Json, Mistakes, Path};
use crate::codec::secret::{Fingerprint, Secret};
use crate::quota::limit::{Algorithm, LONGEST_WINDOW_SECONDS};
use crate::quota::period::{Unit, UtcOffset};
use crate::request::address::Cidr;

/// Declares objects. A field reads
///
/// ```text
/// /// What it means.
/// name: Type = required, FORM, like "an example, as JSON";
/// ```
///
/// where `optional`, `default(value => "as JSON")` or `filled` (an object whose fields all have defaults)
/// may stand for `required`; `named "word"` gives it another name in JSON than in Rust, `in "seconds"`
/// its unit, `without "…"` what holds where it is left out, and `beside "…"` what the example needs.
/// `..field: Type;` at the end lets another object's fields stand beside these.
macro_rules! document {
    ($(
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(named $word:literal)? : $type:ty =
                    $presence:ident $(($value:expr => $shown:literal))? $(without $without:literal)?
                    $(in $unit:literal)?, $form:expr, like $like:literal $(beside $beside:literal)?;
            )+
            $(.. $flat:ident : $flat_type:ty;)?
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
            $( pub $flat: $flat_type, )?
        }

        impl Object for $name {
            fn take(fields: &mut Fields<'_>, mistakes: &mut Mistakes) -> Option<Self> {
                $(
                    let $field = $presence(
                        fields,
                        document!(@word $field $($word)?),
                        &$form,
                        mistakes
                        $(, || $value)?
                    );
                )+
                $( let $flat = <$flat_type>::take(fields, mistakes); )?
                Some($name { $( $field: $field?, )+ $( $flat: $flat?, )? })
            }

            fn about() -> About {
                #[allow(unused_mut)]
                let mut fields = vec![$( Field {
                    name: document!(@word $field $($word)?),
                    about: grammar::sentence(concat!($($doc),+)),
                    unit: document!(@option $($unit)?),
                    presence: document!(@$presence $($shown)? $($without)?),
                    shape: $form.shape(),
                    example: $like,
                    beside: concat!($($beside)?),
                }, )+];
                $( fields.extend(<$flat_type>::about().fields); )?
                About {
                    name: stringify!($name),
                    about: grammar::sentence(concat!($($about),+)),
                    fields,
                }
            }
        }
    )+};
    (@word $field:ident) => { stringify!($field) };
    (@word $field:ident $word:literal) => { $word };
    (@option) => { None };
    (@option $some:literal) => { Some($some) };
    (@required) => { Presence::Required };
    (@optional $($without:literal)?) => { Presence::Optional(concat!($($without)?)) };
    (@default $shown:literal) => { Presence::Default($shown) };
    (@filled) => { Presence::Default("{}") };
}

/// 2^53, from which on a double cannot tell a number from its neighbour.
const MOST: u64 = 1 << 53;

/// By the byte, a terabyte: beyond it nothing is a request, and a sum of many stays exact in Lua.
const MOST_COST: u64 = 1_000_000_000_000;

/// Between a few round trips, below which a lease hardly saves any, and a minute, above which unused
/// permits would be missed.
const LEASE_MS: std::ops::RangeInclusive<u64> = 50..=60_000;

/// Longer, and most clients have gone before they are answered.
const LONGEST_DELAY_MS: u64 = 60_000;

const ANY: Whole = Whole {
    least: 0,
    most: u64::MAX,
    why: ["", ""],
};

const WAIT: Whole = Whole {
    least: 1,
    most: LONGEST_DELAY_MS,
    why: ["", ": a client does not wait for ever"],
};

const LEVEL: Number = Number {
    least: 0.0,
    most: 1.0,
    ends: Ends::Outside,
    why: ", such as 0.8",
};

const MATCHING: Words<Matching> = Words(&[
    (
        "loose",
        Matching::Loose,
        "any way in which a server may read the path will do",
    ),
    ("exact", Matching::Exact, "only the path as Envoy routes it"),
]);

const ALGORITHMS: Words<Algorithm> = Words(&[
    (
        "fixed_window",
        Algorithm::FixedWindow,
        "at most `limit` in each window aligned to the clock or the calendar; for cheap, simple quotas",
    ),
    (
        "sliding_window",
        Algorithm::SlidingWindow,
        "at most `limit` in any `window` seconds, by an exact log; for strict limits up to about 10,000",
    ),
    (
        "token_bucket",
        Algorithm::TokenBucket,
        "bursts of `burst_limit`, refilled at limit/window; for APIs that allow bursts",
    ),
    (
        "leaky_bucket",
        Algorithm::LeakyBucket,
        "holds `limit`, leaks limit/window; for steady rates",
    ),
]);

const LIMIT_LIST: OneOrMore<form::ObjectOf<Limit>> = OneOrMore {
    of: object(),
    empty: "is an empty list; name a limit or leave the field out",
};

const fn list<F>(of: F) -> ListOf<F> {
    ListOf { of, empty: None }
}

const fn some<F>(of: F) -> ListOf<F> {
    ListOf {
        of,
        empty: Some("is an empty list and would match nothing; leave the field out"),
    }
}

document! {
    /// A whole policy.
    Policy {
        /// How closely a path has to be what a rule's pattern says, where the rule does not say.
        matching named "match": Matching =
            default(Matching::Loose => "\"loose\""), MATCHING, like "\"exact\"";
        /// Whether rules refuse anybody: the switch for an emergency.
        mode: Enforcement =
            default(Enforcement::ByRule => "\"enforce\""),
            Words(&[
                ("enforce", Enforcement::ByRule, "as each rule's own `mode` says"),
                (
                    "shadow",
                    Enforcement::Shadow,
                    "every rule that is not off is on trial, and refuses nobody; `deny` still holds",
                ),
            ]),
            like "\"shadow\"";
        /// What is limited. Every rule that is for a request applies.
        rules: Items<Rule> =
            required, list(object::<Rule>()), like "[]";
        /// Variants of rules' limits, each for a share of the callers, to be compared on live traffic.
        experiments: Items<Experiment> =
            default(Items::default() => "[]"), list(object::<Experiment>()), like "[]";
        /// Callers who meet no limit and are counted nowhere.
        allow: Callers =
            filled, object::<Callers>(), like r#"{"users": ["prober"]}"#;
        /// Callers who are refused with 403 whatever they ask for. Who is on both lists is refused.
        deny: Callers =
            filled, object::<Callers>(), like r#"{"networks": ["203.0.113.0/24"]}"#;
        /// Who is in which tier by the operator's word, whatever header or claim tells. The first entry in force that
        /// names the caller wins. It comes before `allow` and `deny`, and makes nobody an operator.
        tiers: Items<Assignment> =
            default(Items::default() => "[]"), list(object::<Assignment>()),
            like r#"[{"tier": "vip", "users": ["acme"]}]"#;
        /// Which headers tell the limits.
        headers: Items<Family> =
            default(Items::new([Family::XRateLimit]) => "[\"x-ratelimit\"]"),
            list(Words(&[
                (
                    "x-ratelimit",
                    Family::XRateLimit,
                    "`X-RateLimit-Limit`, `-Remaining` and `-Reset` of the limit with the fewest requests left",
                ),
                (
                    "ietf",
                    Family::Ietf,
                    "`RateLimit` and `RateLimit-Policy` of the IETF draft: every limit that applies, as \
                     `\"upload_api.user.premium.1s\";q=10;w=1`: rule, scope, tier or network, and in a list the \
                     window. What exceeds 1 KB is left out",
                ),
            ])),
            like r#"["x-ratelimit", "ietf"]"#;
        /// In which shape a refusal's body comes. gRPC clients get 8 RESOURCE_EXHAUSTED and its like, behind
        /// `grpc_json_transcoder` and `grpc_web` the HTTP status too.
        body: Body =
            default(Body::Json => "\"json\""),
            Words(&[
                ("json", Body::Json, "`application/json`"),
                ("problem", Body::Problem, "`application/problem+json` (RFC 9457)"),
            ]),
            like "\"problem\"";
        /// The header that marks answers given without Redis.
        degraded_header: Option<String> =
            default(Some("x-weir-degraded".to_string()) => "\"x-weir-degraded\""), MARK, like "\"\"";
        /// The header of `warn_at`.
        warning_header: Option<String> =
            default(Some("x-ratelimit-warning".to_string()) => "\"x-ratelimit-warning\""), MARK,
            like "\"x-near-limit\"";
        /// The header that tells for how many ms a request was held back.
        delay_header: Option<String> =
            default(None => "\"\""), MARK, like "\"x-weir-delay\"";
        /// The header that tells what rules on trial would have done:
        /// `search_api=denied;scope=user;retry_after=12`.
        shadow_header: Option<String> =
            default(None => "\"\""), MARK, like "\"x-weir-shadow\"";
        /// The header that tells the caller's variants: `search_size=half`.
        variant_header: Option<String> =
            default(None => "\"\""), MARK, like "\"x-weir-variant\"";
        /// The status call's own limit, and who may ask about others.
        status: Status =
            filled, object::<Status>(), like r#"{"limit": 120}"#;
    }

    /// A rule: which requests it is for, and their limits.
    Rule {
        /// Under which it counts and is told of; no two rules have one name.
        name: String =
            required, NAME, like "\"search_api\"";
        /// The paths that it is for: see [Patterns](../README.md#patterns). Either this or `patterns` has to be
        /// there.
        pattern: Option<Pattern> =
            optional without "`patterns`", PATTERN, like "\"/api/v1/search*\"";
        /// Several patterns, which share the rule's counts.
        patterns: Option<Items<Pattern>> =
            optional without "`pattern`", some(PATTERN), like r#"["/v1/*", "/v2/*"]"#;
        /// The paths among them that it is not for. A path is left out only if every way in which a server may
        /// read it is, whatever `match` says.
        except: Items<Pattern> =
            default(Items::default() => "[]"), list(PATTERN), like r#"["/v1/health"]"#;
        /// How closely a path has to be what the pattern says.
        matching named "match": Option<Matching> =
            optional without "as the policy's `match` says", MATCHING, like "\"exact\"";
        /// Rules apply in this order, lower first; equal ones in the order of the file.
        priority: u64 =
            default(100 => "100"), ANY, like "50";
        /// Whether the rule is in force.
        mode: Mode =
            default(Mode::Enforce => "\"enforce\""),
            Words(&[
                ("enforce", Mode::Enforce, "it is"),
                ("shadow", Mode::Shadow, "it is on trial: it counts, apart from what is enforced, and refuses nobody"),
                ("off", Mode::Off, "it is not, as if it were not there"),
            ]),
            like "\"shadow\"";
        /// Enforces the rule for this share of its callers, and leaves the others on trial. The same callers are
        /// in the share at every gateway, and stay in it as it grows.
        enforce_percent: Option<f64> =
            optional without "100" in "percent",
            Number { least: 0.0, most: 100.0, ends: Ends::Within, why: "" },
            like "10";
        /// How many permits of each limit a request takes: a number, or who says it.
        cost: Cost =
            default(Cost::Fixed(1) => "1") in "permits", CostForm, like "5";
        /// The methods that it is for, without case; `GET` covers `HEAD`.
        methods: Option<Items<String>> =
            optional without "all", some(METHOD), like r#"["POST"]"#;
        /// The hosts that it is for, without port.
        hosts: Option<Items<Host>> =
            optional without "all", some(HOST), like r#"["*.example.com"]"#;
        /// What its refusals look like, in the place of Weir's own.
        respond: Option<Respond> =
            optional without "429 in Weir's words", object::<Respond>(), like r#"{"status": 503}"#;
        /// What else a request has to be: all of these.
        when: Items<Condition> =
            default(Items::default() => "[]"), list(object::<Condition>()),
            like r#"[{"header": "x-plan", "in": ["free", "trial"]}]"#;
        ..limits: Limits;
    }

    /// What a rule's refusals look like. The headers that tell of limits, `Retry-After` and `Cache-Control: no-store`
    /// stay. gRPC clients get 8 RESOURCE_EXHAUSTED in Weir's words and these headers.
    Respond {
        /// The status.
        status: u64 =
            default(429 => "429"), Whole { least: 400, most: 599, why: ["", ": a refusal is an error"] }, like "503";
        /// The body.
        body: Option<String> =
            optional without "Weir's own", BODY, like "\"Slow down, please.\"";
        /// What the body is.
        content_type: Option<String> =
            optional without "`text/plain; charset=utf-8`, where there is a `body`", FIELD_VALUE,
            like "\"text/html\"" beside r#""body": "<p>Slow down.</p>""#;
        /// Headers besides, by name.
        headers: Vec<(String, String)> =
            default(Vec::new() => "{}"), MapOf { name: ANSWERS_HEADER, of: FIELD_VALUE },
            like r#"{"x-support": "https://example.com/limits"}"#;
    }

    /// What a rule asks of a request besides path, method and host. It reads what was sent, whoever sent it. One
    /// of `part`, `header`, `cookie`, `query`, `claim` and `metadata` has to be there, and one of `is`, `in`,
    /// `not`, `prefix`, `glob` and `present`. What was sent more than once holds if any of it does.
    Condition {
        /// `user` (an id that is believed), `tier`, `ip`, `method` (`GET` covers `HEAD`), `host` (without port) or
        /// `route` (Envoy's name of it).
        part: Option<Part> =
            optional, ASKED, like "\"tier\"" beside r#""is": "free""#;
        /// A request header.
        header: Option<String> =
            optional, HEADER, like "\"x-plan\"" beside r#""is": "free""#;
        /// A cookie.
        cookie: Option<String> =
            optional, VALUE_NAME, like "\"beta\"" beside r#""present": true"#;
        /// A parameter of the query, decoded.
        query: Option<String> =
            optional, VALUE_NAME, like "\"export\"" beside r#""present": true"#;
        /// A claim that Envoy's JWT filter verified: its `payload_in_metadata`, then the claim.
        claim: Option<Items<String>> =
            optional, some(SEGMENT), like r#"["jwt", "plan"]"# beside r#""is": "free""#;
        /// What another filter wrote: its namespace, then the key.
        metadata: Option<Items<String>> =
            optional, some(SEGMENT), like r#"["envoy.lb", "canary"]"# beside r#""is": "1""#;
        /// It is this.
        is: Option<String> =
            optional, COMPARED, like "\"free\"" beside r#""header": "x-plan""#;
        /// It is one of these; of an address, it lies in one of these networks.
        one_of named "in": Option<Items<String>> =
            optional, some(COMPARED), like r#"["free", "trial"]"# beside r#""header": "x-plan""#;
        /// It is none of these, or not there.
        not: Option<Items<String>> =
            optional, OneOrMore { of: COMPARED, empty: "is an empty list and would match anything; leave the field out" },
            like "\"paid\"" beside r#""header": "x-plan""#;
        /// It begins so.
        prefix: Option<String> =
            optional, COMPARED, like "\"curl/\"" beside r#""header": "user-agent""#;
        /// It is like this, where `*` is anything.
        glob: Option<String> =
            optional, COMPARED, like "\"*bot*\"" beside r#""header": "user-agent""#;
        /// It is there, or it is not. An empty header is there.
        present: Option<bool> =
            optional, Flag, like "false" beside r#""header": "authorization""#;
    }

    /// The limits of a rule, or what a variant of an experiment puts in their place. Each is one limit or a list
    /// of them.
    Limits {
        /// What all callers together may do. It is checked first.
        global_limit: Option<Items<Limit>> =
            optional, LIMIT_LIST,
            like r#"{"type": "fixed_window", "limit": 5000, "window": 60}"#;
        /// What each caller may do, by tier: a user, an API key, or the address of somebody with neither.
        user_limits: Vec<(String, Items<Limit>)> =
            default(Vec::new() => "{}"), MapOf { name: TIER, of: LIMIT_LIST },
            like r#"{"default": {"type": "fixed_window", "limit": 60, "window": 60}}"#;
        /// What each address may do, by the longest matching network; IPv6 counts by /64.
        ip_limits: Vec<(String, Items<Limit>)> =
            default(Vec::new() => "{}"), MapOf { name: NETWORK_OR_DEFAULT, of: LIMIT_LIST },
            like r#"{"10.0.0.0/8": {"type": "fixed_window", "limit": 600, "window": 60}}"#;
        /// What else is counted, each by its own `key`. All of them apply.
        limits: Items<KeyedLimit> =
            default(Items::default() => "[]"), list(object::<KeyedLimit>()),
            like r#"[{"key": ["user", "path"], "type": "fixed_window", "limit": 10, "window": 60}]"#;
    }

    /// A limit that counts by its key: who differs in one part of it has a count apart.
    KeyedLimit {
        /// What it counts by: four parts at most; `[]` is one count for everybody. `user` is the subject, `ip` the
        /// address (IPv6 by its /64), `ip/24` and `ip/48` are networks of IPv4 and of IPv6, `route` is the name of
        /// Envoy's route, `{name}` the segment that each pattern of the rule has so.
        key: Items<Part> =
            required, list(PartForm), like r#"[{"header": "x-org"}, "method"]"#;
        /// What becomes of a request that lacks a part of the key.
        missing: Missing =
            default(Missing::Skip => "\"skip\""),
            Words(&[
                ("skip", Missing::Skip, "the limit is not for it"),
                ("share", Missing::Share, "all such requests share a count"),
                ("refuse", Missing::Refuse, "it is answered with 400"),
            ]),
            like "\"share\"";
        /// What becomes of a request whose peer is not believed, where the key has a header, a cookie or a query
        /// parameter.
        unbelieved: Unbelieved =
            default(Unbelieved::Address => "\"address\""),
            Words(&[
                ("address", Unbelieved::Address, "it counts in this limit under its address"),
                ("skip", Unbelieved::Skip, "the limit is not for it"),
            ]),
            like "\"skip\"";
        /// Other numbers for some values of the key. The one that names the most of them wins.
        overrides: Items<Override> =
            default(Items::default() => "[]"), list(object::<Override>()),
            like r#"[{"is": ["acme"], "limit": 50}]"#;
        ..limit: Limit;
    }

    /// Other numbers for some values of a key, in the same count. One of `limit`, `unlimited` and `deny` has to be
    /// there.
    Override {
        /// The values, part by part; what is left out at the end may be anything.
        is: Items<String> =
            required, some(VALUE), like r#"["acme", "GET"]"#;
        /// How much passes.
        limit: Option<u64> =
            optional without "as the limit says" in "permits",
            Whole { least: 1, most: MOST, why: [": to refuse all of it, write \"deny\": true", ""] },
            like "5000";
        /// How much a token bucket holds.
        burst_limit: Option<u64> =
            optional without "this `limit`" in "permits",
            Whole { least: 1, most: MOST, why: [": a bucket that holds nothing refuses everything", ""] },
            like "500" beside r#""limit": 5000"#;
        /// Lets all of them through, uncounted.
        unlimited: bool =
            default(false => "false"), Flag, like "true";
        /// Refuses all of them with 403.
        deny: bool =
            default(false => "false"), Flag, like "true";
    }

    /// A part of a key that has a name of its own. One of these has to be there.
    KeySource {
        /// A request header, of a peer that is believed. Several of one name are one value.
        header: Option<String> =
            optional, HEADER, like "\"x-org\"";
        /// A cookie, of a peer that is believed.
        cookie: Option<String> =
            optional, VALUE_NAME, like "\"session\"";
        /// A parameter of the query, of a peer that is believed: the first of its name.
        query: Option<String> =
            optional, VALUE_NAME, like "\"tenant\"";
        /// A claim that Envoy's JWT filter verified: its `payload_in_metadata`, then the claim.
        claim: Option<Items<String>> =
            optional, some(SEGMENT), like r#"["jwt", "org"]"#;
        /// What another filter wrote: its namespace, then the key.
        metadata: Option<Items<String>> =
            optional, some(SEGMENT), like r#"["envoy.lb", "tenant"]"#;
    }

    /// A limit: an algorithm with its numbers.
    Limit {
        /// Its count goes on wherever the limit stands in its list, and limits of several tiers with one name
        /// share a count.
        name: Option<String> =
            optional without "the algorithm and the window do the same", LIMIT_NAME, like "\"daily\"";
        /// The algorithm.
        algorithm named "type": Algorithm =
            required, ALGORITHMS, like "\"fixed_window\"";
        /// How much passes.
        limit: u64 =
            required in "permits",
            Whole { least: 1, most: MOST, why: [": to refuse a path, use a route", ""] },
            like "100";
        /// In how long. Ten years at most; or an hour, a day, a week from Monday on or a month of the calendar, for
        /// fixed windows.
        window: Window =
            required in "seconds", WindowForm, like "60";
        /// Where the calendar's windows begin: how far local time is ahead of UTC, from -12:00 to +14:00. It is the
        /// same all year, for there is no daylight saving time in it.
        utc_offset: Option<UtcOffset> =
            optional without "`+00:00`", UTC_OFFSET, like "\"+09:00\"" beside r#""window": "month""#;
        /// How much a token bucket holds.
        burst_limit: Option<u64> =
            optional without "`limit`" in "permits",
            Whole { least: 1, most: MOST, why: [": a bucket that holds nothing refuses everything", ""] },
            like "20" beside r#""type": "token_bucket""#;
        /// What the limit does when Redis cannot be asked.
        on_store_failure: OnStoreFailure =
            default(OnStoreFailure::Local => "\"local\""),
            Words(&[
                ("local", OnStoreFailure::Local, "each worker keeps its share of the limit in memory"),
                ("allow", OnStoreFailure::Allow, "requests pass"),
                ("deny", OnStoreFailure::Deny, "requests are answered with 503"),
            ]),
            like "\"deny\"";
        /// Once this share of the limit is used, answers are marked with
        /// `x-ratelimit-warning: "upload_api";scope=user;used=0.85`.
        warn_at: Option<f64> =
            optional in "share of the limit", LEVEL, like "0.8";
        /// From this share of the limit on requests are held back, longer and longer, up to `max_delay_ms`.
        slow_from: Option<f64> =
            optional in "share of the limit", LEVEL, like "0.8" beside r#""max_delay_ms": 500"#;
        /// How long the last request is held back that passes, with `slow_from`.
        max_delay_ms: Option<u64> =
            optional in "ms", WAIT, like "500" beside r#""slow_from": 0.8"#;
        /// Lets a leaky bucket's requests out one by one at limit/window, in turns that all gateways share.
        shape: bool =
            default(false => "false"), Flag,
            like "true" beside r#""type": "leaky_bucket", "max_wait_ms": 2000"#;
        /// Whoever would have to wait longer for a turn is refused at once, with `shape`.
        max_wait_ms: Option<u64> =
            optional in "ms", WAIT, like "2000" beside r#""type": "leaky_bucket", "shape": true"#;
        /// Lets each worker take permits in advance and spend them from memory.
        lease: Option<Lease> =
            optional, object::<Lease>(), like r#"{"size": 10, "ttl_ms": 1000}"#;
    }

    /// How a limit is leased. What is not used in time goes back. Permits that one worker holds are refused to the
    /// others meanwhile, at most workers × size; a window is never exceeded, a bucket by at most as much.
    Lease {
        /// How many permits a worker takes at once, fewer than the limit holds; `"auto"`: as many as the caller
        /// lately used in `ttl_ms`, and at most a quarter of what is left, divided among the workers of all gateways.
        size: Size =
            required in "permits", SizeForm, like "\"auto\"";
        /// How long they may be held, shorter than the window.
        ttl_ms: Option<u64> =
            optional without "1000, or half of a shorter window" in "ms",
            Whole { least: *LEASE_MS.start(), most: *LEASE_MS.end(), why: ["", ""] },
            like "500";
    }

    /// What tells what a request costs: one of `request_header`, `response_header`, `response_status`,
    /// `grpc_status` and `metadata`. All but the first tell it after, and are charged then: what is owed is kept
    /// as a debt, and the caller refused until time has paid.
    ToldCost {
        /// Callers say it in this header, if their identity headers are believed; others cost `default`. What is
        /// no whole number is a 400; a rule on trial takes `default`. A cost of 0 takes nothing.
        request_header: Option<String> =
            optional, HEADER, like "\"X-Cost\"" beside r#""max": 50"#;
        /// The upstream says it in this header of the response. What is sent twice, or is no whole number, is
        /// `default`.
        response_header: Option<String> =
            optional, HEADER, like "\"X-Tokens-Used\"" beside r#""max": 50"#;
        /// What a response costs by its status, or by the class of its status; what is not listed costs
        /// `default`. Answers of Envoy's other filters count, Weir's own never.
        response_status: Option<Vec<(StatusSet, u64)>> =
            optional, Costs(STATUS_SET, StatusSet::try_new), like r#"{"401": 1, "403": 1, "5xx": 0}"#;
        /// What a response costs by its gRPC status, by name or number, where the status stands in the
        /// response's head, as with errors before the first message; others cost `default`.
        grpc_status: Option<Vec<(GrpcStatus, u64)>> =
            optional, Costs(GRPC_STATUS, GrpcStatus::try_new), like r#"{"UNAUTHENTICATED": 1}"#;
        /// Another filter notes it until the stream ends: its namespace of the dynamic metadata, then the key. A
        /// number from 0 on, rounded up, or digits; all else is `default`.
        metadata: Option<Items<String>> =
            optional, some(SEGMENT),
            like r#"["io.envoy.ai_gateway", "llm_total_token"]"# beside r#""max": 100000"#;
        /// What a request costs of which nothing else is said.
        default: u64 =
            required in "permits", Whole { least: 0, most: MOST_COST, why: ["", ""] }, like "1";
        /// The most that one request is charged, where a header or metadata tells it: required there.
        max: Option<u64> =
            optional without "the largest cost that is listed" in "permits",
            Whole { least: 1, most: MOST_COST, why: ["", ""] }, like "50";
        /// What a request costs whose client left before its cost was known, or let its time run out.
        unfinished: Option<u64> =
            optional without "`max`" in "permits",
            Whole { least: 0, most: MOST_COST, why: ["", ""] }, like "0";
        /// What is held until the cost is known. With 0 nothing is: whoever has anything left goes on, however
        /// many are under way.
        hold: Option<u64> =
            optional without "`default`, and 1 at least" in "permits",
            Whole { least: 0, most: MOST_COST, why: ["", ""] }, like "0";
    }

    /// An experiment. Each caller is in one variant, drawn by weight, and stays in it at every gateway. A rule is in
    /// one experiment at most.
    Experiment {
        /// By which callers are drawn.
        name: String =
            required, NAME, like "\"search_size\"";
        /// Two at least; one that overrides nothing is the control.
        variants: Items<Variant> =
            required, list(object::<Variant>()), like "[]";
    }

    /// A variant. A user's count is one, whatever the variant; a `global_limit` or an address limit that a variant
    /// overrides is counted for that variant alone, so all together may let through more.
    Variant {
        /// By which results are told.
        name: String =
            required, NAME, like "\"half\"";
        /// Its share of the callers is this part of all weights.
        weight: u64 =
            required, Whole { least: 0, most: u32::MAX as u64, why: ["", ": shares of 100 will do"] }, like "50";
        /// By a rule's name, the limits in the place of the rule's. What is not named stays the rule's.
        rules: Vec<(String, Limits)> =
            default(Vec::new() => "{}"), MapOf { name: RULE, of: object::<Limits>() }, like "{}";
    }

    /// A list of callers: whoever is one of these is on it.
    Callers {
        /// By address.
        networks: Items<Cidr> =
            default(Items::default() => "[]"), list(NETWORK), like r#"["10.0.0.0/8"]"#;
        /// By id.
        users: Items<String> =
            default(Items::default() => "[]"), list(USER), like r#"["ann"]"#;
        /// By tier.
        tiers: Items<String> =
            default(Items::default() => "[]"), list(NAME), like r#"["internal"]"#;
        /// By an API key's SHA-256, as `printf %s KEY | sha256sum` prints it; in `deny` its first 12 digits will
        /// do, as the access log and the live page show them.
        api_keys: Items<String> =
            default(Items::default() => "[]"), list(KEY_DIGEST),
            like r#"["8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"]"#;
    }

    /// Callers whom the operator puts into a tier: whoever is one of these.
    Assignment {
        /// The tier.
        tier: String =
            required, NAME, like "\"vip\"";
        /// By id.
        users: Items<String> =
            default(Items::default() => "[]"), list(USER), like r#"["acme"]"#;
        /// By an API key's SHA-256, all of it, as `printf %s KEY | sha256sum` prints it.
        api_keys: Items<String> =
            default(Items::default() => "[]"), list(WHOLE_KEY_DIGEST),
            like r#"["8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"]"#;
        /// By address: whoever leaves their identity out does not leave the tier.
        networks: Items<Cidr> =
            default(Items::default() => "[]"), list(NETWORK), like r#"["203.0.113.0/24"]"#;
        /// When it ends, by the clock of each gateway. One that has ended is as if it were not there.
        until: Option<Until> =
            optional without "it does not end", TIME, like "\"2026-12-24T00:00:00Z\"";
    }

    /// The status call.
    Status {
        /// How many calls each caller may make.
        limit: u64 =
            default(60 => "60") in "calls", Whole { least: 1, most: MOST, why: ["", ""] }, like "120";
        /// In how long.
        window: u64 =
            default(60 => "60") in "seconds",
            Whole { least: 1, most: LONGEST_WINDOW_SECONDS, why: ["", ": ten years"] },
            like "10";
        /// Callers of this tier may ask about others.
        operator_tier: Option<String> =
            optional without "nobody by tier", NAME, like "\"ops\"";
        /// Whoever sends this header may ask about others, and see the live page.
        operator_header: Option<OperatorHeader> =
            optional without "nobody by header", object::<OperatorHeader>(),
            like r#"{"name": "X-Weir-Operator", "value": "a-secret-of-16-bytes"}"#;
    }

    /// The header that operators send what only they know in. It is removed from every request. One of `sha256`
    /// and `value` has to be there.
    OperatorHeader {
        /// A name that nothing else has.
        name: String =
            required, OPERATOR_HEADER, like "\"X-Weir-Operator\"";
        /// The digits that `printf %s SECRET | sha256sum` prints.
        sha256: Option<Fingerprint> =
            optional, FINGERPRINT,
            like "\"9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\"";
        /// The secret itself, which then everybody knows who reads the policy.
        value: Option<Secret> =
            optional, SECRET, like "\"0123456789abcdef\"";
    }
}

/// A family of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    XRateLimit,
    Ietf,
}

/// A policy's `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    ByRule,
    Shadow,
}

/// A rule's `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Shadow,
    Off,
}

/// A rule's `cost`.
#[derive(Clone, Debug)]
pub enum Cost {
    Fixed(u64),
    Told(ToldCost),
}

struct CostForm;

const COST: Whole = Whole {
    least: 1,
    most: MOST_COST,
    why: [
        ": what costs nothing needs no limit; to switch a rule off say \"mode\": \"off\"",
        "",
    ],
};

impl Form for CostForm {
    type Value = Cost;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Cost> {
        match at.value {
            Json::Object(_) => ToldCost::read(at, mistakes).map(Cost::Told),
            _ if at.whole().is_ok() => COST.read(at, mistakes).map(Cost::Fixed),
            _ => {
                mistakes.add(at.error(format!(
                    "is no cost; write a number of permits, or an object with \"default\" and one of \
                     {COST_SOURCES}"
                )));
                None
            }
        }
    }

    fn shape(&self) -> Shape {
        Shape::Either(vec![COST.shape(), object::<ToldCost>().shape()])
    }
}

/// A limit's `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Seconds(u64),
    Calendar(Unit),
}

struct WindowForm;

const WINDOW: Whole = Whole {
    least: 1,
    most: LONGEST_WINDOW_SECONDS,
    why: ["", ": ten years"],
};

const UNITS: Words<Unit> = Words(&[
    ("hour", Unit::Hour, "an hour of the clock"),
    ("day", Unit::Day, "a day, from midnight on"),
    ("week", Unit::Week, "a week, from Monday on"),
    ("month", Unit::Month, "a month of the calendar"),
]);

impl Form for WindowForm {
    type Value = Window;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Window> {
        match at.value {
            Json::Text(_) => UNITS.read(at, mistakes).map(Window::Calendar),
            _ => WINDOW.read(at, mistakes).map(Window::Seconds),
        }
    }

    fn shape(&self) -> Shape {
        Shape::Either(vec![WINDOW.shape(), UNITS.shape()])
    }
}

/// What can tell a cost.
pub(super) const COST_SOURCES: &str = "\"request_header\", \"response_header\", \"response_status\", \
                                       \"grpc_status\" and \"metadata\"";

/// The `max` of a cost that a header or metadata tells.
pub(super) fn most(told: &ToldCost, at: &Path<'_>) -> Result<u64, ConfigError> {
    let Some(most) = told.max else {
        return Err(at.error("lacks the field \"max\""));
    };
    if most < told.default {
        return Err(at.member("max").error(format!(
            "is {most}; expected no less than \"default\", which is {}",
            told.default
        )));
    }
    Ok(most)
}

/// What each of some statuses costs.
struct Costs<T>(form::Text<()>, fn(&str) -> Result<T, String>);

impl<T> Form for Costs<T> {
    type Value = Vec<(T, u64)>;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut read = Vec::new();
        for (name, at) in at.entries(mistakes)? {
            let status = mistakes.note((self.1)(name).map_err(|why| at.error(why)));
            let cost = STATUS_COST.read(&at, mistakes);
            read.extend(status.zip(cost));
        }
        Some(read)
    }

    fn shape(&self) -> Shape {
        Shape::Map {
            name: self.0.kind,
            of: Box::new(STATUS_COST.shape()),
        }
    }
}

const STATUS_COST: Whole = Whole {
    least: 0,
    most: MOST_COST,
    why: ["", ""],
};

/// A part of a `key`.
struct PartForm;

impl Form for PartForm {
    type Value = Part;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Part> {
        match at.value {
            Json::Text(word) => mistakes.note(Part::read(word).map_err(|why| at.error(why))),
            _ => {
                let source = KeySource::read(at, mistakes)?;
                // One that cannot be read is not there, and would be missed once more.
                match mistakes.touch(&at.path) {
                    true => None,
                    false => mistakes.note(source.part().map_err(|why| at.error(why))),
                }
            }
        }
    }

    fn shape(&self) -> Shape {
        let word = Shape::Text {
            kind: "`user`, `api_key`, `tier`, `ip`, `ip/24`, `path`, `method`, `host`, `route`, or `{name}` for a \
                   segment that the pattern captures",
            pattern: Some(
                "^(user|api_key|tier|ip(/[0-9]+)?|path|method|host|route|\\{[A-Za-z][A-Za-z0-9_-]{0,63}\\})$",
            ),
        };
        Shape::Either(vec![word, object::<KeySource>().shape()])
    }
}

impl KeySource {
    fn part(self) -> Result<Part, String> {
        let KeySource {
            header,
            cookie,
            query,
            claim,
            metadata,
        } = self;
        let path = |items: Items<String>| items.into_iter().map(|(_, segment)| segment).collect();
        let mut parts = [
            header.map(Part::Header),
            cookie.map(Part::Cookie),
            query.map(Part::Query),
            claim.map(|segments| Part::Claim(path(segments))),
            metadata.map(|segments| Part::Metadata(path(segments))),
        ]
        .into_iter()
        .flatten();
        match (parts.next(), parts.next()) {
            (Some(Part::Claim(path) | Part::Metadata(path)), None) if path.len() < 2 => Err(
                "is too short; name the payload_in_metadata of the JWT provider or the namespace, then the key"
                    .to_string(),
            ),
            (Some(part), None) => Ok(part),
            _ => Err(
                "has to name one of \"header\", \"cookie\", \"query\", \"claim\" and \"metadata\"".to_string(),
            ),
        }
    }
}

/// A lease's `size`.
struct SizeForm;

const SIZE: Whole = Whole {
    least: 1,
    most: MOST,
    why: [": to ask for each permit, leave \"lease\" out", ""],
};

impl Form for SizeForm {
    type Value = Size;

    fn read(&self, at: &At<'_>, mistakes: &mut Mistakes) -> Option<Size> {
        match at.value {
            Json::Text(word) if word == "auto" => Some(Size::Auto),
            _ if at.whole().is_ok() => SIZE.read(at, mistakes).map(Size::Fixed),
            _ => {
                mistakes.add(at.expected("a whole number or \"auto\""));
                None
            }
        }
    }

    fn shape(&self) -> Shape {
        let auto = Word {
            word: "auto",
            about: "as many as the caller lately used",
        };
        Shape::Either(vec![SIZE.shape(), Shape::Words(vec![auto])])
    }
}

#[cfg(test)]
mod tests;
