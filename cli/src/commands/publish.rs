//! What push, rollback and withdraw do alike: tell what would change, publish, say so.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use weir_core::live::poller::Document;

use super::check::{tell_messages, tell_rules};
use crate::console::{Console, Output};
use crate::difference::{Difference, Seen};
use crate::document::Message;
use crate::publication::{self, Note, Outcome, Publication, Shelf};

/// What whoever reads the history wants to know.
#[derive(Args)]
pub struct Reason {
    /// Why, for whoever reads the history
    #[arg(long, default_value = "")]
    pub comment: String,
    /// Who, for whoever reads the history; USER@HOST unless it is said
    #[arg(long, env = "WEIR_AUTHOR", default_value_t = publication::author(), hide_default_value = true)]
    pub author: String,
}

/// What came of it, for scripts.
#[derive(Serialize)]
pub struct Published {
    /// None where nothing was published: nothing changes, or it was only asked.
    pub version: Option<u64>,
    /// The version that said the same before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restores: Option<String>,
    #[serde(flatten)]
    pub difference: Difference,
    pub warnings: Vec<Message>,
}

impl Published {
    pub fn nothing(difference: Difference, warnings: Vec<Message>) -> Published {
        Published {
            version: None,
            restores: None,
            difference,
            warnings,
        }
    }

    pub fn tell(&self, console: &mut Console) -> Result<()> {
        match console.output {
            Output::Json => Ok(console.json("weirctl.published/1", self)?),
            Output::Table => Ok(()),
        }
    }
}

/// Says what a document changes, rule by rule.
pub fn tell_difference(
    console: &mut Console,
    seen: Seen<'_>,
    difference: &Difference,
    document: &Document,
) -> Result<()> {
    if console.output == Output::Json {
        return Ok(());
    }
    if let Some(why) = &difference.nothing_before {
        writeln!(console, "{why}")?;
        return tell_rules(console, document);
    }
    for change in &difference.changes {
        writeln!(console, "{change}")?;
    }
    for count in &difference.counts {
        writeln!(console, "! {count}")?;
    }
    if let (true, Some(current)) = (difference.is_nothing(), seen.current) {
        writeln!(
            console,
            "nothing changes: version {} says the same",
            current.version
        )?;
    }
    Ok(())
}

pub fn tell_warnings(
    console: &mut Console,
    file: (&str, &[u8]),
    warnings: &[Message],
) -> Result<()> {
    match console.output {
        Output::Json => Ok(()),
        Output::Table => tell_messages(console, file, warnings),
    }
}

/// The version that it is published as.
pub fn publish(
    shelf: &mut Shelf<'_>,
    current: Option<&Publication>,
    text: &[u8],
    note: &Note<'_>,
) -> Result<u64> {
    match shelf.publish(current, text, note)? {
        Outcome::Published { version } => Ok(version),
        Outcome::Overtaken => bail!(
            "somebody else published meanwhile, and nothing was changed: \
             see what with `weirctl history`, and do it again"
        ),
    }
}

pub fn find(history: &[Publication], version: u64) -> Result<&Publication> {
    let version = version.to_string();
    if let Some(found) = history.iter().find(|one| one.version == version) {
        return Ok(found);
    }
    let kept: Vec<&str> = history.iter().map(|one| one.version.as_str()).collect();
    let kept = match kept.is_empty() {
        true => "none".to_owned(),
        false => kept.join(", "),
    };
    bail!("version {version} is not kept; those before are {kept}")
}
