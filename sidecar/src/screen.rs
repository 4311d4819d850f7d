//! Which commands pass: calls of Weir's own script on Weir's own keys, the three reads of the policy
//! that is published, word for word, and nothing else. Whoever reaches the sidecar can spend permits;
//! it must not be able to read or write other data.

use std::fmt;

use bytes::Bytes;
use weir_core::codec::namespace::Namespace;
use weir_core::codec::resp::{Malformed, Reader, Token};
use weir_core::live::poller::Query;
use weir_core::store::slot::Slot;
use weir_core::store::wire::MAX_COMMANDS;

/// The script that may be called.
#[derive(Clone, Debug)]
pub struct Script {
    /// Exactly what EVAL must carry.
    pub source: Bytes,
    /// The SHA-1 of the source in lower-case hexadecimal, as EVALSHA names it.
    pub sha: String,
}

/// What may be asked for: the script on the keys of one namespace, and the reads of its policy.
#[derive(Clone, Debug)]
pub struct Served {
    script: Script,
    namespace: Namespace,
    /// Exactly as the limiter sends them.
    reads: [Vec<u8>; Query::ALL.len()],
    policy: Slot,
}

impl Served {
    pub fn new(script: Script, namespace: Namespace) -> Served {
        Served {
            script,
            reads: Query::ALL.map(|query| query.command(&namespace)),
            policy: Slot::of(namespace.policy().as_bytes()),
            namespace,
        }
    }
}

/// A command of a request, judged.
#[derive(Debug)]
pub enum Screened {
    Passes(CheckRequest),
    Refused(Refusal),
}

/// A command for Redis, as the bytes that came.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    pub command: Bytes,
    /// Of its first key.
    pub slot: Slot,
}

/// Why one command is not served. The others of its request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither EVALSHA nor EVAL, nor a read of the policy.
    Command,
    /// Another script than Weir's.
    Script,
    /// The number of keys is not a number, is 0, or exceeds the arguments.
    KeyCount,
    /// A key that is not a limit's.
    Key,
}

/// Why a body is not a pipeline of commands. Nothing of it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    Malformed(Malformed),
    /// A value that is not an array of bulk strings.
    NotACommand,
    /// The last command has no end.
    Incomplete,
    Empty,
    TooManyCommands,
}

/// Takes a body apart and judges each command.
pub fn screen(body: &Bytes, served: &Served) -> Result<Vec<Screened>, BadBody> {
    let mut reader = Reader::new(body);
    let mut commands = Vec::new();
    while !reader.rest().is_empty() {
        if commands.len() == MAX_COMMANDS {
            return Err(BadBody::TooManyCommands);
        }
        let start = body.len() - reader.rest().len();
        let rest = reader.rest();
        let mut reads = served.reads.iter();
        let verdict = match reads.find_map(|read| rest.strip_prefix(read.as_slice())) {
            Some(after) => {
                reader = Reader::new(after);
                Ok(served.policy)
            }
            None => judge(&mut reader, served)?,
        };
        let end = body.len() - reader.rest().len();
        commands.push(match verdict {
            Ok(slot) => Screened::Passes(CheckRequest {
                command: body.slice(start..end),
                slot,
            }),
            Err(refusal) => Screened::Refused(refusal),
        });
    }
    if commands.is_empty() {
        return Err(BadBody::Empty);
    }
    Ok(commands)
}

/// Reads one command to its end, whatever the verdict: the slot of its first key, or a refusal.
fn judge(reader: &mut Reader<'_>, served: &Served) -> Result<Result<Slot, Refusal>, BadBody> {
    let Served {
        script, namespace, ..
    } = served;
    let count = match token(reader)? {
        Token::Array(Some(count)) if count > 0 => count as usize,
        _ => return Err(BadBody::NotACommand),
    };
    let mut verdict = Ok(None);
    let mut expected_script: &[u8] = &[];
    let mut keys = 0;
    for place in 0..count {
        let Token::Bulk(Some(arg)) = token(reader)? else {
            return Err(BadBody::NotACommand);
        };
        if verdict.is_err() {
            continue;
        }
        match place {
            0 => match arg {
                b"EVALSHA" => expected_script = script.sha.as_bytes(),
                b"EVAL" => expected_script = &script.source,
                _ => verdict = Err(Refusal::Command),
            },
            1 if arg != expected_script => verdict = Err(Refusal::Script),
            1 => {}
            2 => match key_count(arg) {
                Some(number) if (1..=count - 3).contains(&number) => keys = number,
                _ => verdict = Err(Refusal::KeyCount),
            },
            _ if place < 3 + keys => {
                // The script can forget a key, and the policy is not a caller's to forget.
                if !namespace.holds(arg) {
                    verdict = Err(Refusal::Key);
                } else if place == 3 {
                    verdict = Ok(Some(Slot::of(arg)));
                }
            }
            _ => {}
        }
    }
    // Without a first key the command ended before its number of keys.
    Ok(verdict.and_then(|slot| slot.ok_or(Refusal::KeyCount)))
}

fn token<'a>(reader: &mut Reader<'a>) -> Result<Token<'a>, BadBody> {
    match reader.token() {
        Ok(Some(token)) => Ok(token),
        Ok(None) => Err(BadBody::Incomplete),
        Err(malformed) => Err(BadBody::Malformed(malformed)),
    }
}

/// Not `str::parse` alone: it takes a sign, and Redis does not.
fn key_count(arg: &[u8]) -> Option<usize> {
    if !arg.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(arg).ok()?.parse().ok()
}

impl Refusal {
    /// The reply in the command's place.
    pub fn reply(self) -> Bytes {
        Bytes::from_static(match self {
            Refusal::Command => b"-ERR weir-sidecar: only EVALSHA, EVAL and reads of the policy are served\r\n",
            Refusal::Script => {
                b"-ERR weir-sidecar: only the script of this version of Weir is served: \
                  run the same version in the gateway and here\r\n"
            }
            Refusal::KeyCount => {
                b"-ERR weir-sidecar: the number of keys must be from 1 to the arguments after it\r\n"
            }
            Refusal::Key => {
                b"-ERR weir-sidecar: every key must be a limit's, of this sidecar's namespace: \
                  --namespace here must be store.namespace there\r\n"
            }
        })
    }
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBody::Malformed(malformed) => malformed.fmt(f),
            BadBody::NotACommand => f.write_str("a command must be an array of bulk strings"),
            BadBody::Incomplete => f.write_str("the last command has no end"),
            BadBody::Empty => f.write_str("the body holds no command"),
            BadBody::TooManyCommands => {
                write!(f, "the body holds more than {MAX_COMMANDS} commands")
            }
        }
    }
}

#[cfg(test)]
mod tests;
