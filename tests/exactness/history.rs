//! What Redis decided: every call of the script that was recorded, read back into operations.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;

use weir_core::codec::resp::{Reader, Token};
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::{self, Kind, OperationReply};
use weir_core::quota::packed::PackedQuota;
use weir_core::store::reply::{self, Answer, ReplySchema};
use weir_core::time::{Span, StoreInstant};
use weir_lab::recorder::Exchange;

/// Why a run was not exact; it names the key, the window and the stamps.
#[derive(Debug)]
pub struct Fault(pub String);

pub type Checked<T> = Result<T, Fault>;

/// In a fault, more stamps than these help nobody.
const MOST_STAMPS: usize = 50;

#[derive(Debug, Default)]
pub struct History {
    /// In order of connection; across connections only `now` tells.
    pub calls: Vec<Call>,
    keys: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, KeyId>,
    /// EVALSHAs that met a Redis which did not know the script: nothing was done.
    pub unknown_script: usize,
}

/// Stands for a key: a million requests name few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// One run of the script: Redis does nothing else meanwhile.
#[derive(Clone, Debug)]
pub struct Call {
    pub connection: usize,
    pub now: StoreInstant,
    /// As in [`Answer`].
    pub together: bool,
    pub operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub kind: Kind,
    pub limits: Vec<(KeyId, Quota, Cost)>,
    pub told: OperationReply,
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn fault<T>(text: String) -> Checked<T> {
    Err(Fault(text))
}

// === impl History ===

impl History {
    /// Reads until the recorder is gone. A call whose outcome is not known ends it: whatever came
    /// after might depend on it.
    pub fn read(exchanges: impl IntoIterator<Item = Exchange>) -> Checked<History> {
        let mut history = History::default();
        for exchange in exchanges {
            history.add(&exchange)?;
        }
        Ok(history)
    }

    pub fn key(&self, id: KeyId) -> String {
        self.bytes(id).escape_ascii().to_string()
    }

    /// The key's id, if a call named it.
    pub fn find(&self, key: &str) -> Option<KeyId> {
        self.ids.get(key.as_bytes()).copied()
    }

    pub fn bytes(&self, id: KeyId) -> &[u8] {
        &self.keys[id.0 as usize]
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What a fault says first: which limit, and when.
    pub fn place(&self, (key, quota): (KeyId, Quota), now: StoreInstant) -> String {
        let capacity = match quota.capacity() {
            capacity if capacity == quota.limit() => String::new(),
            capacity => format!(", capacity {capacity}"),
        };
        format!(
            "{} ({} {} in {} s{capacity}) at {}",
            self.key(key),
            quota.algorithm().name(),
            quota.limit(),
            quota.window_seconds(),
            stamp(now)
        )
    }

    fn add(&mut self, exchange: &Exchange) -> Checked<()> {
        let words = words(&exchange.command)?;
        let (arguments, keys) = match words.as_slice() {
            [b"EVALSHA" | b"EVAL", _, count, rest @ ..] => {
                let count: usize = number(count)?;
                let (keys, arguments) = rest.split_at(count);
                (arguments, keys)
            }
            // Not of Weir: whoever keeps the connection alive, or introduces itself.
            _ => return Ok(()),
        };
        let (mut operations, schema) = self.operations(keys, arguments)?;
        let Some(answer) = answer(&schema, exchange.reply.as_deref())? else {
            self.unknown_script += 1;
            return Ok(());
        };
        for (operation, told) in operations.iter_mut().zip(answer.told) {
            operation.told = told;
        }
        self.calls.push(Call {
            connection: exchange.connection,
            now: answer.now,
            together: answer.together,
            operations,
        });
        Ok(())
    }

    /// `lua/README.md` has the grammar. What they were told is not known yet.
    fn operations(
        &mut self,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Checked<(Vec<Operation>, ReplySchema)> {
        // What all takes together want says nothing that they do not say themselves.
        let [quotas, numbers, _totals, large @ ..] = arguments else {
            return fault("a call without operations".to_owned());
        };
        let quotas = read_quotas(quotas)?;
        let mut numbers = read_numbers(numbers)?.into_iter();
        let mut large = large.iter().map(|digits| number(digits));
        let mut large = || {
            large
                .next()
                .unwrap_or_else(|| malformed("a large number is missing"))
        };
        let (mut operations, mut schema) = (Vec::new(), ReplySchema::default());
        while let Some(code) = numbers.next() {
            let with_costs = code > 100;
            let kind = match code % 100 {
                1 => Kind::Take,
                2 => Kind::Peek,
                3 => Kind::Charge,
                4 => Kind::Refund {
                    receipt: StoreInstant(large()?),
                },
                5 => Kind::Reset,
                6 => Kind::Lease {
                    ttl: Span::millis(large()?),
                },
                _ => return malformed("no such operation"),
            };
            let mut next = || numbers.next().map_or_else(|| malformed("cut short"), Ok);
            let mut limits = Vec::new();
            for _ in 0..next()? {
                let (key, quota) = (next()? - 1, next()? - 1);
                let cost = match with_costs {
                    true => NonZeroU64::new(large()?).map_or_else(|| malformed("no cost"), Ok)?,
                    false => NonZeroU64::MIN,
                };
                schema.limit(key, Cost(cost));
                let (Some(key), Some(quota)) = (keys.get(key), quotas.get(quota)) else {
                    return malformed("no such key or quota");
                };
                limits.push((self.id(key), *quota, Cost(cost)));
            }
            schema.operation(limits.len());
            operations.push(Operation {
                kind,
                limits,
                told: OperationReply {
                    verdict: operation::Verdict::Unreadable,
                    limits: Vec::new(),
                },
            });
        }
        Ok((operations, schema))
    }

    fn id(&mut self, key: &[u8]) -> KeyId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = KeyId(self.keys.len() as u32);
        self.keys.push(key.to_vec());
        self.ids.insert(key.to_vec(), id);
        id
    }
}

/// Seconds of Redis's clock, to the microsecond.
pub fn stamp(StoreInstant(at): StoreInstant) -> String {
    format!("{}.{:06}", at / 1_000_000, at % 1_000_000)
}

/// The latest of these, in order.
pub fn stamps(
    all: impl DoubleEndedIterator<Item = (StoreInstant, u64)> + ExactSizeIterator,
) -> String {
    let left_out = match all.len().checked_sub(MOST_STAMPS) {
        None | Some(0) => String::new(),
        Some(more) => format!("({more} earlier) "),
    };
    let one = |(at, cost)| match cost {
        1 => stamp(at),
        cost => format!("{}×{cost}", stamp(at)),
    };
    let mut latest: Vec<String> = all.rev().take(MOST_STAMPS).map(one).collect();
    latest.reverse();
    left_out + &latest.join(" ")
}

fn words(command: &[u8]) -> Checked<Vec<&[u8]>> {
    let mut reader = Reader::new(command);
    let mut words = Vec::new();
    if let Ok(Some(Token::Array(Some(count)))) = reader.token() {
        for _ in 0..count {
            match reader.token() {
                Ok(Some(Token::Bulk(Some(word)))) => words.push(word),
                _ => return fault(format!("not a command: {}", command.escape_ascii())),
            }
        }
    }
    Ok(words)
}

/// None where Redis did not know the script.
fn answer(schema: &ReplySchema, reply: Option<&[u8]>) -> Checked<Option<Answer>> {
    let Some(reply) = reply else {
        return fault("Redis closed a connection with a call unanswered: did it count?".to_owned());
    };
    let mut reader = Reader::new(reply);
    let integers = match reader.token() {
        Ok(Some(Token::Bulk(Some(packed)))) => reply::integers(packed),
        Ok(Some(Token::Error(error))) if error.starts_with(b"NOSCRIPT") => return Ok(None),
        _ => None,
    };
    let Some(integers) = integers else {
        return fault(format!("Redis replied {}", reply.escape_ascii()));
    };
    match reply::decode(schema, integers) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => fault(format!("Redis replied {}: {error}", reply.escape_ascii())),
    }
}

fn malformed<T>(what: &str) -> Checked<T> {
    fault(format!("not a program: {what}"))
}

fn read_numbers(packed: &[u8]) -> Checked<Vec<usize>> {
    match packed.split_first() {
        Some((1, short)) => Ok(short.iter().map(|number| usize::from(*number)).collect()),
        Some((4, long)) => {
            let (long, _) = long.as_chunks();
            Ok(long
                .iter()
                .map(|number| u32::from_be_bytes(*number) as usize)
                .collect())
        }
        _ => malformed("numbers of an unknown width"),
    }
}

fn read_quotas(packed: &[u8]) -> Checked<Vec<Quota>> {
    let read = |quota: &PackedQuota| {
        let (code, numbers) = quota.split_first()?;
        let algorithm = match code {
            1 => Algorithm::FixedWindow,
            2 => Algorithm::SlidingWindow,
            3 => Algorithm::TokenBucket,
            4 => Algorithm::LeakyBucket,
            _ => return None,
        };
        let (numbers, _) = numbers.as_chunks();
        let [limit, window_ms, capacity] = numbers else {
            return None;
        };
        let [limit, window_ms, capacity] =
            [limit, window_ms, capacity].map(|n| u64::from_be_bytes(*n));
        let burst = (algorithm == Algorithm::TokenBucket).then_some(capacity);
        Quota::try_new(algorithm, limit, window_ms / 1000, burst).ok()
    };
    let (quotas, _) = packed.as_chunks();
    let quotas: Option<Vec<Quota>> = quotas.iter().map(read).collect();
    quotas.map_or_else(|| malformed("no such quota"), Ok)
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Checked<T> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    text.parse()
        .or_else(|_| fault(format!("not a number: {}", digits.escape_ascii())))
}
