//! One call's arguments, gathered from the check requests that it answers. Each key and each quota stands
//! there once, however many checks name it, and a check is two small numbers: the fewer words a call
//! has, the less the proxy and Redis have to take apart.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::codec::resp::Command;
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::{Holder, Kind};
use crate::quota::packed::PackedQuota;
use crate::store::check::Check;
use crate::store::reply::ReplySchema;

/// What the script knows an operation by is raised by this where costs follow: where any is not 1.
const WITH_COSTS: u32 = 100;

/// Beyond so many keys Lua's stack could not hold what all takes together want of each.
const MOST_TOGETHER: usize = 1_000;

/// No usage grows beyond what a double counts exactly, so no cost need be more.
const MOST_COST: u64 = (1 << 53) - 1;

/// Operations over numbered keys and quotas. `lua/README.md` has the grammar.
#[derive(Debug)]
pub struct Encoder<'a> {
    keys: Vec<&'a [u8]>,
    numbers_of_keys: HashMap<&'a [u8], u32, BuildHasherDefault<KeyHasher>>,
    quotas: Vec<&'a PackedQuota>,
    /// Where the quota of the check before was: the next one's is often behind it.
    latest_quota: usize,
    numbers: Vec<u32>,
    large: Vec<u64>,
    /// By the key's number: the number of its quota, and what all operations take of it. Nothing where
    /// they cannot be decided together: some operation is no take or names a key twice, a key is asked
    /// about by two quotas, permits in use are asked about, two operations share a leaky bucket, or costs
    /// are too large.
    totals: Option<Vec<(u32, u32)>>,
    schema: ReplySchema,
    key_bytes: usize,
    /// Whether permits in use are asked about, so that it must be told who asks.
    names_holder: bool,
}

impl<'a> Encoder<'a> {
    /// With room for so many checks.
    pub fn with_room(checks: usize) -> Encoder<'a> {
        Encoder {
            keys: Vec::with_capacity(checks),
            numbers_of_keys: HashMap::with_capacity_and_hasher(checks, Default::default()),
            // An operation has two numbers of its own, and a check at least.
            numbers: Vec::with_capacity(4 * checks),
            quotas: Vec::new(),
            latest_quota: 0,
            large: Vec::new(),
            totals: Some(Vec::with_capacity(checks)),
            schema: ReplySchema::with_room(checks),
            key_bytes: 0,
            names_holder: false,
        }
    }

    /// Adds an operation.
    pub fn ask(&mut self, kind: Kind, checks: &'a [Check]) {
        let (code, operand) = kind.code();
        let costs = kind == Kind::Release || checks.iter().any(|check| check.cost != Cost::ONE);
        let code = if costs { code + WITH_COSTS } else { code };
        self.numbers.extend([code, checks.len() as u32]);
        self.large.extend(operand);
        if kind != Kind::Take {
            self.totals = None;
        }
        let first = self.numbers.len();
        for Check { key, terms, cost } in checks {
            let (key, quota) = (self.key(key), self.quota(terms.packed()));
            self.numbers.extend([key, quota]);
            match kind {
                Kind::Release => self.large.push(0),
                _ if costs => self.large.push(cost.get().min(MOST_COST)),
                _ => {}
            }
            if terms.quota.algorithm() == Algorithm::Concurrency {
                self.names_holder = true;
                self.totals = None;
            }
            let place = key as usize - 1;
            if !self.total(place, (quota, terms.quota), *cost) && self.names_twice(key, first) {
                self.totals = None;
            }
            self.schema.limit(place, *cost);
        }
        self.schema.operation(checks.len());
    }

    /// What its reply is read by.
    pub fn into_schema(self) -> ReplySchema {
        self.schema
    }

    /// How many arguments there are, the keys among them.
    pub fn arguments(&self) -> usize {
        self.keys.len() + 3 + self.large.len() + usize::from(self.names_holder)
    }

    /// About how many bytes they have.
    pub fn size(&self) -> usize {
        let word = "$99\r\n\r\n".len();
        self.key_bytes
            + self.quotas.len() * size_of::<PackedQuota>()
            + (self.numbers.len() + 2 * self.keys.len()) * 4
            + self.arguments() * word
            + self.large.len() * 20
    }

    /// Writes the number of keys, and all arguments after it.
    pub fn write(&self, command: Command<'_>, holder: Holder) {
        let command = command.number(self.keys.len() as u64);
        let command = self
            .keys
            .iter()
            .fold(command, |command, key| command.arg(key));
        let quotas: Vec<u8> = self.quotas.iter().copied().flatten().copied().collect();
        let command = command.arg(&quotas);
        let command = command.arg(&packed(self.numbers.iter().copied()));
        let totals = self
            .totals
            .as_ref()
            .filter(|totals| totals.len() <= MOST_TOGETHER);
        let totals = totals.map_or_else(Vec::new, |totals| {
            packed(totals.iter().flat_map(|(quota, total)| [*quota, *total]))
        });
        let command = command.arg(&totals);
        let large = self.large.iter();
        let command = large.fold(command, |command, number| command.number(*number));
        if self.names_holder {
            command.arg(format!("{:016x}", holder.0).as_bytes());
        }
    }

    /// Whether the operation whose keys and quotas begin here names this key once before its latest.
    fn names_twice(&self, key: u32, first: usize) -> bool {
        let own = self.numbers.get(first..).unwrap_or_default();
        own.iter().step_by(2).filter(|own| **own == key).count() > 1
    }

    /// Adds a take of the key at this place; whether it is the first. `number` is the quota's.
    fn total(&mut self, place: usize, (number, quota): (u32, Quota), Cost(cost): Cost) -> bool {
        let Some(totals) = &mut self.totals else {
            return true;
        };
        let first = place >= totals.len();
        let cost = u32::try_from(cost.get()).ok();
        let sum = match totals.get_mut(place) {
            None => {
                totals.extend(cost.map(|cost| (number, cost)));
                cost
            }
            Some((by, _)) if *by != number => None,
            // Each is told by the reset that it leaves when its turn is.
            Some(_) if quota.algorithm() == Algorithm::LeakyBucket => None,
            Some((_, total)) => {
                let sum = cost.and_then(|cost| total.checked_add(cost));
                *total = sum.unwrap_or(*total);
                sum
            }
        };
        if sum.is_none() {
            self.totals = None;
        }
        first
    }

    /// Counted from 1, as Lua does.
    fn key(&mut self, key: &'a [u8]) -> u32 {
        let next = self.keys.len() as u32 + 1;
        let number = *self.numbers_of_keys.entry(key).or_insert(next);
        if number == next {
            self.keys.push(key);
            self.key_bytes += key.len();
        }
        number
    }

    fn quota(&mut self, quota: &'a PackedQuota) -> u32 {
        let (before, behind) = self
            .quotas
            .split_at_checked(self.latest_quota)
            .unwrap_or_default();
        let place = match behind.iter().position(|known| *known == quota) {
            Some(place) => before.len() + place,
            None => before
                .iter()
                .position(|known| *known == quota)
                .unwrap_or_else(|| {
                    self.quotas.push(quota);
                    self.quotas.len() - 1
                }),
        };
        self.latest_quota = place + 1;
        place as u32 + 1
    }
}

/// One byte each where that is enough, else four; the first byte tells which.
fn packed(numbers: impl Iterator<Item = u32> + Clone) -> Vec<u8> {
    if numbers.clone().all(|number| number <= u8::MAX.into()) {
        let short = numbers.map(|number| number as u8);
        return [1].into_iter().chain(short).collect();
    }
    let long = numbers.flat_map(u32::to_be_bytes);
    [4].into_iter().chain(long).collect()
}

/// Quicker than the standard one, which is safe against keys that collide on purpose; but a call has
/// too few keys for that to matter.
#[derive(Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest
            .iter()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.0 = words.chain([rest]).fold(self.0, |hash, word| {
            // The product's high half holds what all bits of the word did to it.
            let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 32)
        });
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
