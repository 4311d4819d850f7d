//! What publishing a document would change: in words, rule by rule ([`written`]), and for what was
//! counted ([`counts`]).

pub mod counts;
pub mod written;

use anyhow::Result;
use serde::Serialize;
use weir_core::live::poller::Document;

use crate::publication::Publication;

/// What was found in Redis: what is published, and what was before, the newest first.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub current: Option<&'a Publication>,
    pub history: &'a [Publication],
}

/// What one document changes about what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Why there is nothing to compare with, where there is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing_before: Option<String>,
    pub changes: Vec<String>,
    /// Which counts begin anew or are left behind.
    pub counts: Vec<String>,
}

impl Difference {
    pub fn of(seen: Seen<'_>, text: &[u8], document: &Document) -> Result<Difference> {
        let Some(current) = seen.current else {
            return Ok(Difference::without(nothing_now(seen.history)));
        };
        let old = match Document::read(&current.document) {
            Ok(old) => old,
            Err(defect) => {
                let version = &current.version;
                return Ok(Difference::without(format!(
                    "version {version} is no policy, and gateways refuse it: {defect}"
                )));
            }
        };
        Difference::between((&current.document, &old), (text, document))
    }

    /// What one document changes about another.
    pub fn between(
        (old_text, old): (&[u8], &Document),
        (text, document): (&[u8], &Document),
    ) -> Result<Difference> {
        let (before, after) = (
            serde_json::from_slice(old_text)?,
            serde_json::from_slice(text)?,
        );
        let changes = written::between(&before, &after);
        let counts = match (old, document) {
            _ if changes.is_empty() => Vec::new(),
            (Document::Policy(old), Document::Policy(new)) => counts::between(old, new),
            _ => vec![
                "which counts begin anew is not known here: it depends on the gateways' configurations"
                    .to_owned(),
            ],
        };
        Ok(Difference {
            nothing_before: None,
            changes,
            counts,
        })
    }

    fn without(why: String) -> Difference {
        Difference {
            nothing_before: Some(why),
            ..Difference::default()
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing_before.is_none() && self.changes.is_empty()
    }
}

/// A gateway keeps what it found last, so an empty Redis does not tell what any of them runs.
fn nothing_now(history: &[Publication]) -> String {
    match history.first() {
        Some(last) => format!(
            "nothing is published now; after version {} there was one that is gone. Gateways that run it \
             keep it; those that start run the policies of their configurations",
            last.version
        ),
        None => "nothing is published now, and this Redis knows of nothing before. Gateways run the policies \
                 of their configurations; if this Redis has lost its data, they keep what they found last"
            .to_owned(),
    }
}
