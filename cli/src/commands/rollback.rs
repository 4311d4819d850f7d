//! `weirctl rollback`: publish a previous policy again.

use std::io::Write;

use anyhow::{Result, anyhow};
use clap::Args;
use weir_core::live::poller::Document;

use super::publish::{Published, Reason, find, publish, tell_difference};
use crate::console::{Console, Output};
use crate::difference::{Difference, Seen};
use crate::exit::Exit;
use crate::place::Place;
use crate::publication::Note;
use crate::publication::rollback::{self, Nowhere};

/// Publish a previous policy again; each further rollback goes further back
#[derive(Args)]
pub struct Rollback {
    /// Its version; without it, the one before that which is in force
    #[arg(long)]
    to: Option<u64>,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    place: Place,
}

impl Rollback {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut redis = self.place.open()?;
        let mut shelf = self.place.shelf(console, &mut *redis);
        let (current, history) = (shelf.current()?, shelf.history()?);
        let seen = Seen {
            current: current.as_ref(),
            history: &history,
        };
        let target = match self.to {
            None => rollback::before(seen.current, &history)
                .map_err(|nowhere| anyhow!(instead(&nowhere, seen)))?,
            Some(to) => find(&history, to)?,
        };
        let document = Document::read(&target.document)
            .map_err(|defect| anyhow!("version {} is no policy: {defect}", target.version))?;
        let difference = Difference::of(seen, &target.document, &document)?;
        tell_difference(console, seen, &difference, &document)?;
        if difference.is_nothing() {
            Published::nothing(difference, Vec::new()).tell(console)?;
            return Ok(Exit::Done);
        }
        let restores = rollback::origin(target, &history).to_owned();
        let comment = match self.reason.comment.as_str() {
            "" => format!("rollback to version {restores}"),
            comment => comment.to_owned(),
        };
        let note = Note {
            author: &self.reason.author,
            comment: &comment,
            restores: &restores,
        };
        let version = publish(&mut shelf, seen.current, &target.document, &note)?;
        if console.output == Output::Table {
            writeln!(
                console,
                "version {version} is published; it says what version {restores} said"
            )?;
            if let Some(current) = seen.current {
                let undone = rollback::origin(current, &history);
                writeln!(
                    console,
                    "to undo this: `weirctl rollback --to {undone}` (`make policy-rollback TO={undone}`)"
                )?;
            }
        }
        let published = Published {
            version: Some(version),
            restores: Some(restores),
            difference,
            warnings: Vec::new(),
        };
        published.tell(console)?;
        Ok(Exit::Done)
    }
}

/// Why there is nothing to go back to, and what to do instead.
fn instead(nowhere: &Nowhere, seen: Seen<'_>) -> String {
    let withdraw = "to give the gateways back to the policies of their configurations, use `weirctl \
                    withdraw` (`make policy-withdraw`)";
    match nowhere {
        Nowhere::NothingPublished => {
            "nothing is published, and nothing was before: there is nothing to go back to"
                .to_owned()
        }
        Nowhere::First { version } => {
            let is_restored = seen.current.is_some_and(|one| one.version != *version);
            let newest = seen.history.iter().find(|one| one.restores.is_empty());
            let again = match (is_restored, newest) {
                (true, Some(newest)) if newest.version != *version => format!(
                    "; `weirctl rollback --to {0}` brings version {0} back",
                    newest.version
                ),
                _ => String::new(),
            };
            format!("nothing is kept from before version {version}{again}; {withdraw}")
        }
    }
}
