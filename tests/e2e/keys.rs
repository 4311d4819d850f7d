//! What is left in Redis.

use std::collections::BTreeMap;
use std::net::IpAddr;

use redis::{Connection, cmd};
use weir_lab::redis::Redis;

use crate::visitor::{Visitor, unique};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    every_key_says_what_it_counts_and_ends_in_time,
    one_subject_shares_a_slot,
];

/// Everything that a key holds, as text, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub value: String,
    /// When it expires, in ms since the Unix epoch; less than nothing if never.
    pub ends_ms: i64,
}

/// A rule's windows in seconds, by what it counts by and algorithm; a bucket's is what it takes to fill.
const WINDOWS: [(&str, &str, &str, i64); 17] = [
    ("auth_api", "user", "fw", 300),
    ("auth_api", "ip", "sl", 3600),
    // 5 of 10 an hour, 20 of 100, 100 of 1000: the slowest of them.
    ("upload_api", "user", "tb", 1800),
    ("search_api", "user", "lb", 60),
    ("search_api", "ip", "lb", 60),
    ("general_api", "user", "sl", 3600),
    ("general_api", "ip", "sl", 3600),
    ("general_api", "all", "sl", 60),
    ("", "user", "fw", 60),
    ("brief_fixed_window", "user", "fw", 2),
    ("brief_sliding_window", "user", "sl", 2),
    ("brief_token_bucket", "user", "tb", 3),
    ("brief_leaky_bucket", "user", "lb", 2),
    ("waits", "user", "sl", 3600),
    ("shared", "all", "sl", 86_400),
    ("pair", "ip", "sl", 3600),
    ("metered", "user", "sl", 3600),
];
/// That of every rule that is not listed.
const LONGEST_WINDOW: i64 = 2_592_000;
/// Between reading the clock and reading a key's end.
const SLACK_MS: i64 = 2_000;

fn every_key_says_what_it_counts_and_ends_in_time(world: &World) {
    let names = [&b"a b:{c}%\xff"[..], b"}{::", &[b'x'; 10_000]];
    for name in names {
        for path in [
            "auth/login",
            "media/upload",
            "search",
            "items",
            "rate-limits/status",
        ] {
            let visitor = Visitor::anonymous(world.reference()).named(name);
            assert_eq!(visitor.get(format!("/api/v1/{path}")).status, 200);
        }
    }
    // With these, whatever other cases have left so far.
    let now_ms = i64::try_from(crate::world::now().as_millis()).unwrap();
    let all = all_held(world.redis());
    assert!(all.len() > 10, "{all:?}");
    for (key, held) in all {
        let (subject, rule, kinds, counter) = parts(&key).unwrap_or_else(|| {
            panic!("{key:?} is not weir:2:{{subject}}:rule:kinds:counter[:x:experiment:variant][:shadow]")
        });
        // A limit by a key says the values that the slot does not.
        let (counter, values) = counter.split_once('=').unwrap_or((counter, ""));
        let (algorithm, called) = counter.split_at(2);
        let (kind, id) = subject.split_once(':').unwrap();
        let of_scope = match kinds {
            "all" => kind == "g" && id == rule,
            "user" => matches!(kind, "u" | "U" | "k" | "a"),
            "ip" => kind == "a",
            key => !key.is_empty() && matches!(kind, "v" | "u" | "U" | "k" | "a"),
        };
        assert!(of_scope, "{key}");
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"%._@-".contains(&byte);
        let is_of_values = |byte: u8| harmless(byte) || b"+~#".contains(&byte);
        let is_harmless = match kind {
            "a" => id.parse::<IpAddr>().is_ok(),
            "v" => id.bytes().all(is_of_values),
            _ => id.bytes().all(harmless),
        };
        assert!(is_harmless && values.bytes().all(is_of_values), "{key}");
        assert!(key.len() < 400, "{key}");
        let is_window = called
            .strip_suffix('s')
            .is_some_and(|window| window.parse::<u32>().is_ok());
        assert!(is_window || called.starts_with('.'), "{key}");
        let listed = WINDOWS
            .iter()
            .find(|window| (window.0, window.1, window.2) == (rule, kinds, algorithm));
        let window_ms = 1000 * listed.map_or(LONGEST_WINDOW, |window| window.3);
        // A bucket's key may outlive its level by a quarter of the window (`lua/bucket.lua`): of those
        // here, by half of what it takes to fill at most. A log's as `lua/sliding_window.lua` says.
        let most_ms = match algorithm {
            "tb" | "lb" => window_ms + window_ms / 2,
            "sl" => window_ms + 1000.max(window_ms / 4),
            _ => window_ms,
        };
        let left = held.ends_ms - now_ms;
        assert!(
            held.ends_ms > 0 && left <= most_ms + SLACK_MS,
            "{key}: {left} ms left"
        );
    }
}

fn one_subject_shares_a_slot(world: &World) {
    let id = unique("whole");
    let visitor = Visitor::anonymous(world.reference()).named(&id);
    for path in ["media/upload", "search", "rate-limits/status"] {
        visitor.get(format!("/api/v1/{path}"));
    }
    let tag = format!("u:{id}");
    let keys: Vec<String> = of(world.redis(), &[tag.as_str()]).into_keys().collect();
    assert_eq!(
        keys,
        [
            format!("weir:2:{{u:{id}}}::user:fw60s"),
            format!("weir:2:{{u:{id}}}:general_api:user:sl3600s"),
            format!("weir:2:{{u:{id}}}:search_api:user:lb60s"),
            format!("weir:2:{{u:{id}}}:upload_api:user:tb3600s"),
        ]
    );
}

/// The parts of a key, if it is one of Weir's.
fn parts(key: &str) -> Option<(&str, &str, &str, &str)> {
    let (subject, rest) = key.strip_prefix("weir:2:{")?.split_once("}:")?;
    let mut rest = rest.split(':');
    let parts = (subject, rest.next()?, rest.next()?, rest.next()?);
    let rest: Vec<&str> = rest.collect();
    matches!(
        rest[..],
        [] | ["shadow"] | ["x", _, _] | ["x", _, _, "shadow"]
    )
    .then_some(parts)
}

/// What the keys of these subjects hold, such as `u:ann`.
pub fn of(redis: &Redis, subjects: &[&str]) -> BTreeMap<String, Held> {
    let mut all = all_held(redis);
    let is_theirs = |key: &str| {
        subjects
            .iter()
            .any(|subject| key.contains(&format!("{{{subject}}}")))
    };
    all.retain(|key, _| is_theirs(key));
    all
}

/// Every key with what it holds.
pub fn all(redis: &Redis) -> impl Iterator<Item = (String, String)> {
    all_held(redis)
        .into_iter()
        .map(|(key, held)| (key, held.value))
}

fn all_held(redis: &Redis) -> BTreeMap<String, Held> {
    let mut connection = redis.connection().unwrap();
    let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut connection).unwrap();
    // A key may end while the others are read.
    keys.into_iter()
        .filter_map(|key| Some((key.clone(), held(&mut connection, &key)?)))
        .collect()
}

fn held(connection: &mut Connection, key: &str) -> Option<Held> {
    let kind: String = cmd("TYPE").arg(key).query(connection).unwrap();
    let value = match kind.as_str() {
        "string" => cmd("GET")
            .arg(key)
            .query::<Option<Vec<u8>>>(connection)
            .unwrap()?,
        "list" => {
            let range = cmd("LRANGE").arg(key).arg(&["0", "-1"]).query(connection);
            range.map(|texts: Vec<Vec<u8>>| texts.concat()).unwrap()
        }
        "none" => return None,
        other => panic!("{key} is a {other}"),
    };
    // Logs are no text that a person reads.
    let value = value.escape_ascii().to_string();
    // PEXPIRETIME is younger than the oldest Redis that serves.
    let now: (i64, i64) = cmd("TIME").query(connection).unwrap();
    let left_ms: i64 = cmd("PTTL").arg(key).query(connection).unwrap();
    match left_ms {
        -2 => None,
        -1 => Some(Held { value, ends_ms: -1 }),
        left_ms => Some(Held {
            value,
            ends_ms: now.0 * 1000 + now.1 / 1000 + left_ms,
        }),
    }
}
