//! The policies of one namespace in one Redis: reading them, and publishing another.

use anyhow::{Context, Error, Result, anyhow, ensure};
use redis::{Cmd, ConnectionLike, RedisError};
use serde_json::Value as Json;
use weir_core::codec::namespace::Namespace;

/// As many mistakes as anybody wants to go back behind.
pub const PREVIOUS: usize = 20;

/// What is kept of each publication, as `publish.lua` has them.
const FIELDS: [&str; 6] = [
    "version",
    "published_at",
    "author",
    "comment",
    "restores",
    "policy",
];

/// The policies of one namespace, in one Redis.
pub struct Shelf<'a> {
    redis: &'a mut dyn ConnectionLike,
    policy: String,
    history: String,
}

/// A policy that is or was published. Its fields are as they were found; a person may have written
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    pub version: String,
    /// Milliseconds since the Unix epoch.
    pub published_at: String,
    pub comment: String,
    pub author: String,
    /// The version whose document a rollback published again; empty for every other publication.
    pub restores: String,
    pub document: Vec<u8>,
}

/// What is written beside a document when it is published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note<'a> {
    pub author: &'a str,
    pub comment: &'a str,
    /// See [`Publication::restores`].
    pub restores: &'a str,
}

/// What became of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Published {
        version: u64,
    },
    /// Somebody else published meanwhile; nothing was changed.
    Overtaken,
}

impl Shelf<'_> {
    pub fn new<'a>(redis: &'a mut dyn ConnectionLike, namespace: &Namespace) -> Shelf<'a> {
        Shelf {
            redis,
            policy: namespace.policy(),
            history: namespace.history(),
        }
    }

    /// What is published now, if anything is.
    pub fn current(&mut self) -> Result<Option<Publication>> {
        let mut command = Cmd::new();
        command.arg("HMGET").arg(&self.policy).arg(&FIELDS);
        let fields: [Option<Vec<u8>>; 6] = command
            .query(self.redis)
            .map_err(|error| unread(&self.policy, "hash", error))?;
        let [version, published_at, author, comment, restores, document] = fields;
        let read = |field: Option<Vec<u8>>| text(&field.unwrap_or_default());
        Ok(version.map(|version| Publication {
            version: text(&version),
            published_at: read(published_at),
            author: read(author),
            comment: read(comment),
            restores: read(restores),
            document: document.unwrap_or_default(),
        }))
    }

    /// What was published before, the newest first.
    pub fn history(&mut self) -> Result<Vec<Publication>> {
        let mut command = Cmd::new();
        command.arg("LRANGE").arg(&self.history).arg(0).arg(-1);
        let entries: Vec<Vec<u8>> = command
            .query(self.redis)
            .map_err(|error| unread(&self.history, "list", error))?;
        let read = |entry: &Vec<u8>| read(entry).with_context(|| self.history.clone());
        entries.iter().map(read).collect()
    }

    /// Publishes a document in the place of what the publisher saw there. Atomic: of two who publish at
    /// once the second is told so.
    pub fn publish(
        &mut self,
        seen: Option<&Publication>,
        document: &[u8],
        note: &Note<'_>,
    ) -> Result<Outcome> {
        let version = match seen {
            Some(seen) => Some(self.after(&seen.version)?),
            // One that was deleted is not in the history, and had the number after its newest.
            None => match self.history()?.first() {
                Some(last) => Some(self.after(&last.version)? + 1),
                None => None,
            },
        };
        let seen = seen.cloned().unwrap_or_default();
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(include_str!("publish.lua"))
            .arg(2)
            .arg(&self.policy)
            .arg(&self.history)
            .arg(&seen.version)
            .arg(&seen.published_at)
            .arg(version.map_or_else(String::new, |version| version.to_string()))
            .arg(PREVIOUS)
            .arg(document)
            .arg(note.author)
            .arg(note.comment)
            .arg(note.restores);
        Ok(match command.query(self.redis)? {
            0 => Outcome::Overtaken,
            version => Outcome::Published { version },
        })
    }

    fn after(&self, version: &str) -> Result<u64> {
        let number = version.parse().ok().filter(|number| *number < u64::MAX / 2);
        number.map(|number: u64| number + 1).with_context(|| {
            format!(
                "the version in Redis is {version:?}, which no number follows: \
                 set the field version of {} to one",
                self.policy
            )
        })
    }
}

/// Why a key cannot be read, by its name: Redis tells neither that nor what to do.
fn unread(key: &str, kind: &str, error: RedisError) -> Error {
    match error.code() {
        Some("WRONGTYPE") => anyhow!(
            "{key} in Redis is no {kind}, so somebody else wrote it: \
             take it away with `redis-cli DEL {key}`, or name another Redis"
        ),
        _ => Error::new(error).context(format!("cannot read {key}")),
    }
}

fn read(entry: &[u8]) -> Result<Publication> {
    let entry: Json = serde_json::from_str(&text(entry)).context("an entry is not JSON")?;
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    ensure!(entry.is_object(), "an entry is no object");
    Ok(Publication {
        version: field("version"),
        published_at: field("published_at"),
        author: field("author"),
        comment: field("comment"),
        restores: field("restores"),
        document: field("policy").into_bytes(),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
