//! The policy in force, which may change while traffic flows: an operator publishes one in Redis, and
//! every worker looks there now and then. [`Watch`] says when to look and what an answer means; it
//! sends nothing and reads no clock. A request finishes under the [`PolicySnapshot`] that it began with, so
//! nothing that it holds (a limit's id, a place in a list) changes its meaning on the way.
//!
//! What is published is a hash with the fields `version`, `published_at` and `policy`. A version that
//! is no policy is refused and what was in force stays. So it does when nothing is published any
//! more: a Redis that lost its data must not change anybody's limits. The way back to the plugin
//! configuration's own policy is to publish [`CONFIGURED`].

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::codec::json::{At, Json, Mistakes, Path};
use crate::codec::namespace::Namespace;
use crate::codec::packed::Layout;
use crate::codec::resp::{self, Reader, Token};
use crate::live::snapshot::Version;
use crate::policy::Policy;
use crate::store::call::CallId;
use crate::time::{Span, WorkerInstant};

/// The document that stands for the plugin configuration's own policy: this JSON string.
pub const CONFIGURED: &str = "configured";

/// What paths in messages begin with.
pub const ROOT: &str = "policy";

/// The longest document, in bytes. Envoy buffers 1 MiB of a connection, and a worker reads it
/// between two requests: it is about 2,000 rules.
pub const MOST_DOCUMENT: usize = 512 << 10;

/// A worker that has had no answer yet looks soon, and then ever less often: Envoy's main thread
/// has an instance of the filter too, and its calls may never get anywhere.
const FIRST_LOOK: Span = Span::millis(100);
const RAREST_LOOK: Span = Span::seconds(60);

/// What a document puts into force.
#[derive(Debug)]
pub enum Document {
    Policy(Box<Policy>),
    /// The plugin configuration's own policy.
    Configured,
}

/// What was published, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Published {
    stamp: Stamp,
    document: Vec<u8>,
}

/// Tells one publication from another. Of two that have the same version (a Redis that was emptied
/// counts anew) the time differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
struct Stamp {
    version: Vec<u8>,
    published_at: Vec<u8>,
}

const PUBLISHED: Layout = Layout::of::<Published>();

/// One worker's poller for what is published.
#[derive(Debug)]
pub struct Watch {
    period: Span,
    /// How long a call may be without an answer before it is taken for lost.
    patience: Span,
    random: u64,
    due: WorkerInstant,
    call: Option<Call>,
    /// What the last look found, while it is measured and fetched.
    found: Option<Stamp>,
    /// What was adopted or refused; none where nothing is published.
    seen: Option<Stamp>,
    /// As long as there was no answer: how much later the next look is.
    unheard: Option<Span>,
    /// Where policies are published, to be named where something is wrong there.
    key: String,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    since: WorkerInstant,
    query: Query,
}

/// A call to be sent, one command with one reply; [`Watch::sent`] follows if it was. There are no others.
/// The first is sent at every look, the rest when there is something new: a document that is too long is
/// not even fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    Version,
    Measure,
    Fetch,
}

/// What an answer means.
#[derive(Debug)]
pub enum News {
    /// No answer of Redis's: nobody knows.
    NoReply,
    /// All is as before.
    None,
    /// There is something new, and this is to be sent to learn of it.
    Ask(Query),
    Adopt(Adoption),
    /// What is published is no policy; what is in force stays.
    Refuse {
        version: String,
        reason: Mistakes,
    },
    /// Something was published and is there no more; what is in force stays.
    Gone,
    /// Redis does not let itself be asked, in its own words.
    Unreadable(String),
}

/// A policy to be taken into force.
#[derive(Debug)]
pub struct Adoption {
    pub version: Version,
    pub document: Document,
    pub published: Published,
}

impl Document {
    /// Reads a document whole, or says what in it is wrong, where, and how to mend it.
    pub fn read(bytes: &[u8]) -> Result<Document, Mistakes> {
        Document::by(bytes, Policy::try_new)
    }

    /// As [`Document::read`], for a person who wants to know of every mistake.
    pub fn judge(bytes: &[u8]) -> Result<Document, Mistakes> {
        Document::by(bytes, Policy::judge)
    }

    fn by(
        bytes: &[u8],
        policy: fn(&At<'_>) -> Result<Policy, Mistakes>,
    ) -> Result<Document, Mistakes> {
        let wrong = |message: String| Path::root(ROOT).error(message);
        if bytes.len() > MOST_DOCUMENT {
            return Err(wrong(too_long(bytes.len() as u64)).into());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| wrong(format!("is not UTF-8 after byte {}", error.valid_up_to())))?;
        let json = Json::parse(text, ROOT)?;
        let at = At::new(&json, ROOT);
        match at.value {
            Json::Text(_) => {
                at.choice(&[(CONFIGURED, ())])?;
                Ok(Document::Configured)
            }
            _ => policy(&at).map(|policy| Document::Policy(Box::new(policy))),
        }
    }
}

fn too_long(bytes: u64) -> String {
    format!(
        "has {bytes} bytes; at most {MOST_DOCUMENT} are read from Redis, so leave out blanks or rules"
    )
}

impl Query {
    pub const ALL: [Query; 3] = [Query::Version, Query::Measure, Query::Fetch];

    /// The command, as it is sent.
    pub fn command(self, namespace: &Namespace) -> Vec<u8> {
        let (name, fields): (&str, &[&str]) = match self {
            Query::Version => ("HMGET", &["version", "published_at"]),
            Query::Measure => ("HSTRLEN", &["policy"]),
            Query::Fetch => ("HMGET", &["version", "published_at", "policy"]),
        };
        let key = namespace.policy();
        let words = [name, &key].into_iter().chain(fields.iter().copied());
        let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
        let mut body = Vec::new();
        resp::command(&mut body, words.into_iter());
        body
    }
}

impl Published {
    /// For those who start later in this process: what it was when it was last good.
    pub fn to_bytes(&self) -> Vec<u8> {
        PUBLISHED.pack(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Published> {
        PUBLISHED.unpack(bytes)
    }

    /// Tells this publication from every other.
    pub fn stamp(&self) -> Vec<u8> {
        [self.stamp.version.as_slice(), &self.stamp.published_at].join(&b'\n')
    }

    fn judge(self, key: &str) -> News {
        let verdict = Version::read(&self.stamp.version, key)
            .map_err(Mistakes::from)
            .and_then(|version| Ok((version, Document::read(&self.document)?)));
        match verdict {
            Ok((version, document)) => News::Adopt(Adoption {
                version,
                document,
                published: self,
            }),
            Err(reason) => self.stamp.refuse(reason),
        }
    }
}

impl Stamp {
    fn refuse(&self, reason: impl Into<Mistakes>) -> News {
        News::Refuse {
            version: words(&self.version),
            reason: reason.into(),
        }
    }
}

impl Watch {
    /// Looks every `period` at the latest; `timeout` is the longest that the store is waited for.
    /// `seed` differs from worker to worker, so that a thousand of them do not look at once.
    pub fn new(
        namespace: &Namespace,
        period: Span,
        timeout: Span,
        seed: u64,
        now: WorkerInstant,
    ) -> Watch {
        let mut watch = Watch {
            period,
            patience: timeout.times(2),
            random: seed,
            due: now,
            call: None,
            found: None,
            seen: None,
            unheard: Some(FIRST_LOOK),
            key: namespace.policy(),
        };
        watch.due = now + watch.up_to(FIRST_LOOK);
        watch
    }

    /// Begins with what somebody else in this process found.
    pub fn begin_with(&mut self, published: Published) -> News {
        self.seen = Some(published.stamp.clone());
        published.judge(&self.key)
    }

    /// Whether the store ever answered.
    pub fn has_replies(&self) -> bool {
        self.unheard.is_none()
    }

    /// When to call [`Watch::tick`] next.
    pub fn next_tick(&self, now: WorkerInstant) -> Span {
        self.due.since(now).ceil_millis().max(Span::millis(1))
    }

    /// There are requests: a worker that has had no answer yet asks again soon.
    pub fn stir(&mut self, now: WorkerInstant) {
        if let Some(wait) = &mut self.unheard
            && *wait > FIRST_LOOK
        {
            *wait = FIRST_LOOK;
            self.due = self.due.min(now + FIRST_LOOK);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: WorkerInstant) -> Option<Query> {
        if now < self.due {
            return None;
        }
        self.due = now + self.pause();
        let waits = |call: &Call| now.since(call.since) < self.patience;
        if self.call.as_ref().is_some_and(waits) {
            return None;
        }
        self.call = None;
        Some(Query::Version)
    }

    /// An query was sent under this name.
    pub fn sent(&mut self, now: WorkerInstant, id: CallId, query: Query) {
        self.call = Some(Call {
            id,
            since: now,
            query,
        });
    }

    /// What a call's answer means, if it is the watch's: the store's bytes, or nothing if it failed.
    pub fn answered(&mut self, id: CallId, body: Option<&[u8]>) -> Option<News> {
        let query = self.call.take_if(|call| call.id == id)?.query;
        let reply = Reply::read(body.unwrap_or_default());
        if !matches!(reply, Reply::Nothing) {
            self.unheard = None;
        }
        Some(match reply {
            Reply::Nothing => News::NoReply,
            Reply::Error(words) => News::Unreadable(words),
            Reply::Length(length) => self.measured(query, length),
            Reply::Fields(fields) => self.told(query, fields),
        })
    }

    fn measured(&mut self, query: Query, length: u64) -> News {
        match query {
            Query::Measure if length <= MOST_DOCUMENT as u64 => News::Ask(Query::Fetch),
            Query::Measure => {
                let Some(stamp) = self.found.take() else {
                    return News::None;
                };
                let refusal = stamp.refuse(Path::root(ROOT).error(too_long(length)));
                // Were it another by now, the next look would say so.
                self.seen = Some(stamp);
                refusal
            }
            Query::Version | Query::Fetch => News::NoReply,
        }
    }

    fn told(&mut self, query: Query, fields: Vec<Option<Vec<u8>>>) -> News {
        let mut fields = fields.into_iter();
        let (version, published_at) = (fields.next().flatten(), fields.next().flatten());
        let Some(version) = version else {
            return match self.seen.take() {
                Some(_) => News::Gone,
                None => News::None,
            };
        };
        let stamp = Stamp {
            version,
            published_at: published_at.unwrap_or_default(),
        };
        let document = fields.next();
        match (query, document) {
            (Query::Version, None) => {
                if self.seen.as_ref() == Some(&stamp) {
                    return News::None;
                }
                self.found = Some(stamp);
                News::Ask(Query::Measure)
            }
            (Query::Fetch, Some(document)) => {
                self.seen = Some(stamp.clone());
                match document {
                    Some(document) => Published { stamp, document }.judge(&self.key),
                    None => {
                        let key = Path::root(&self.key);
                        stamp.refuse(key.error(r#"lacks the field "policy""#))
                    }
                }
            }
            _ => News::NoReply,
        }
    }

    /// How long until the next look: never as long as the period, and never the same for long.
    fn pause(&mut self) -> Span {
        match &mut self.unheard {
            Some(wait) => {
                let pause = *wait;
                *wait = pause.times(2).min(RAREST_LOOK.max(self.period));
                pause
            }
            None => {
                let quarter = self.period.divided(4);
                self.period.divided(8).times(5) + self.up_to(quarter)
            }
        }
    }

    /// Something below `most`. The generator is SplitMix64, which is good from any seed.
    fn up_to(&mut self, most: Span) -> Span {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        Span::micros(mixed % most.as_micros().max(1))
    }
}

/// As much as a log line should hold of what stands in Redis.
const LONGEST_WORDS: usize = 200;

pub(super) fn words(bytes: &[u8]) -> String {
    let bytes = bytes.get(..LONGEST_WORDS).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).replace(char::is_control, " ")
}

#[derive(Debug)]
enum Reply {
    Nothing,
    Error(String),
    Length(u64),
    Fields(Vec<Option<Vec<u8>>>),
}

impl Reply {
    fn read(body: &[u8]) -> Reply {
        let mut reader = Reader::new(body);
        let reply = match reader.token() {
            Ok(None) => Some(Reply::Nothing),
            Ok(Some(Token::Error(words))) => Some(Reply::Error(self::words(words))),
            Ok(Some(Token::Integer(length))) => u64::try_from(length).ok().map(Reply::Length),
            Ok(Some(Token::Array(Some(count)))) => (0..count)
                .map(|_| match reader.token() {
                    Ok(Some(Token::Bulk(field))) => Some(field.map(<[u8]>::to_vec)),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
                .map(Reply::Fields),
            _ => None,
        };
        // A proxy's own page, most likely: whether the store is there is for the checks to say.
        reply.unwrap_or(Reply::Nothing)
    }
}

#[cfg(test)]
mod tests;
