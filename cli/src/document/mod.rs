//! A policy's file, judged as the gateways will judge it: JSON, YAML, or a file that holds a policy among
//! other things. What is wrong with it is a value that knows its place; it knows no command.

mod find;
mod json;
mod message;
pub mod tree;
pub mod yaml;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use weir_core::live::poller::Document;
use weir_core::time::WallTime;

pub use self::message::{Message, Severity};
use self::tree::{Node, Places};

/// The file that stands for the input.
const STDIN: &str = "-";

/// What was read, before anybody judged it.
pub struct Source {
    /// As messages call it.
    pub name: String,
    pub text: Vec<u8>,
}

/// A policy as it was read, or as much of it as could be.
pub struct Judged {
    pub source: Source,
    /// What gateways would read: the file's own bytes if it is a policy in JSON, and else JSON that says
    /// the same.
    pub text: Vec<u8>,
    /// Whom the configuration that it stands in believes, as JSON.
    pub identity: Option<String>,
    pub document: Option<Document>,
    pub messages: Vec<Message>,
}

impl Source {
    pub fn read(file: &Path) -> Result<Source> {
        let is_stdin = file.as_os_str() == STDIN;
        let name = match is_stdin {
            true => "the input".to_owned(),
            false => file.display().to_string(),
        };
        let text = match is_stdin {
            true => {
                let mut text = Vec::new();
                io::stdin().read_to_end(&mut text).map(|_| text)
            }
            false => fs::read(file),
        };
        let text = text.with_context(|| format!("cannot read {name}"))?;
        Ok(Source { name, text })
    }

    /// Every mistake, or the policy with what is probably not meant in it.
    pub fn judge(self) -> Judged {
        match self.find() {
            Err(message) => Judged {
                text: Vec::new(),
                identity: None,
                document: None,
                messages: vec![message],
                source: self,
            },
            Ok((text, places, identity)) => {
                let (document, mut messages) = match Document::judge(&text) {
                    Ok(document) => {
                        let warnings = warnings(&document);
                        (Some(document), warnings)
                    }
                    Err(mistakes) => (None, Message::all(&mistakes)),
                };
                for message in &mut messages {
                    message.find(&places, &self.text);
                }
                Judged {
                    text,
                    identity,
                    document,
                    messages,
                    source: self,
                }
            }
        }
    }

    /// The policy's JSON, where its parts stand in the file, and whom to believe.
    fn find(&self) -> Result<(Vec<u8>, Places, Option<String>), Message> {
        let whole = || (self.text.clone(), Places::default(), None);
        let Ok(text) = std::str::from_utf8(&self.text) else {
            return Ok(whole());
        };
        let is_yaml = [".yaml", ".yml"].iter().any(|end| self.name.ends_with(end));
        let is_json = !is_yaml && text.trim_start().starts_with(['{', '[', '"', '\u{feff}']);
        let documents = match is_json {
            true => match json::parse(text) {
                Ok(document) => vec![document],
                // The gateways' reader says what is wrong with it.
                Err(_) => return Ok(whole()),
            },
            false => yaml::parse(text).map_err(|error| Message::unreadable(error, text))?,
        };
        let found = find::policies(&documents, text);
        match found.as_slice() {
            [one] => {
                let json = match is_json && one.is_whole_file {
                    true => self.text.clone(),
                    false => one.policy.to_json().into_bytes(),
                };
                let identity = one.identity.as_ref().map(Node::to_json);
                Ok((json, Places::of(&one.policy, "policy"), identity))
            }
            [] => match documents.as_slice() {
                // Whatever it is, the gateways' reader says what it lacks.
                [one] => Ok((one.to_json().into_bytes(), Places::of(one, "policy"), None)),
                _ => Err(Message::none(text)),
            },
            several => {
                let spans: Vec<_> = several.iter().map(|one| one.policy.span.start).collect();
                Err(Message::several(&spans, text))
            }
        }
    }
}

/// What is legal in a policy and probably not meant.
fn warnings(document: &Document) -> Vec<Message> {
    let Document::Policy(policy) = document else {
        return Vec::new();
    };
    let mut warnings = policy.warnings.clone();
    let header = policy.status.operator_header.as_ref();
    if header.is_some_and(|header| header.is_written_out) {
        warnings.push(
            "the operators' secret is in this policy: whoever reads Redis reads it, and whoever reaches a \
             sidecar that has no --secret-file; instead of \"value\" write its \"sha256\", which `printf %s \
             SECRET | sha256sum` prints"
                .into(),
        );
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since_epoch.map_or(0, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    });
    warnings.extend(policy.assigned_tiers.ended(WallTime(now)));
    warnings.into_iter().map(Message::warning).collect()
}
