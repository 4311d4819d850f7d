//! `weirctl push`: publish a policy.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use redis::{Cmd, ConnectionLike};
use weir_core::observe::notice::Notice;
use weir_core::store::eviction;

use super::check::{strictness, tell_mistakes};
use super::publish::{Published, Reason, publish, tell_difference, tell_warnings};
use crate::console::{Console, Output};
use crate::difference::{Difference, Seen};
use crate::document::Source;
use crate::exit::Exit;
use crate::place::Place;
use crate::publication::Note;

/// Publish a policy
#[derive(Args)]
pub struct Push {
    /// The policy; - reads it from the input
    file: PathBuf,
    #[command(flatten)]
    reason: Reason,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Take warnings for errors, and publish nothing then
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    place: Place,
}

impl Push {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let judged = Source::read(&self.file)?.judge();
        let Some(document) = &judged.document else {
            tell_mistakes(console, judged)?;
            return Ok(Exit::No);
        };
        let mut redis = self.place.open()?;
        if let Some(notice) = notice(&mut *redis) {
            console.warning(&notice.to_string());
        }
        let mut shelf = self.place.shelf(console, &mut *redis);
        let (current, history) = (shelf.current()?, shelf.history()?);
        let seen = Seen {
            current: current.as_ref(),
            history: &history,
        };
        let difference = Difference::of(seen, &judged.text, document)?;
        tell_difference(console, seen, &difference, document)?;
        let warnings = judged.messages;
        let Source { name, text } = &judged.source;
        tell_warnings(console, (name, text), &warnings)?;
        let is_refused = self.strict && !warnings.is_empty();
        if is_refused || self.dry_run || difference.is_nothing() {
            if is_refused {
                console.error(&strictness(warnings.len()));
            }
            Published::nothing(difference, warnings).tell(console)?;
            return Ok(if is_refused { Exit::No } else { Exit::Done });
        }
        let note = Note {
            author: &self.reason.author,
            comment: &self.reason.comment,
            restores: "",
        };
        let version = publish(&mut shelf, seen.current, &judged.text, &note)?;
        if console.output == Output::Table {
            writeln!(console, "version {version} is published")?;
        }
        let published = Published {
            version: Some(version),
            restores: None,
            difference,
            warnings,
        };
        published.tell(console)?;
        Ok(Exit::Done)
    }
}

/// What is to be known of that Redis, if its user may ask.
fn notice(redis: &mut dyn ConnectionLike) -> Option<Notice> {
    let info: String = Cmd::new().arg("INFO").arg("memory").query(redis).ok()?;
    let policy = eviction::policy(&info)?;
    Some(Notice::Evicts(policy.to_owned()))
}
