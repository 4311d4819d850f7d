//! `weirctl withdraw`: give the gateways back to the policies of their configurations.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use weir_core::live::poller::{CONFIGURED, Document};

use super::publish::{Published, Reason, publish, tell_difference};
use crate::console::{Console, Output};
use crate::difference::{Difference, Seen};
use crate::exit::Exit;
use crate::place::Place;
use crate::publication::Note;

/// Give the gateways back to the policies of their configurations
#[derive(Args)]
pub struct Withdraw {
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    place: Place,
}

impl Withdraw {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut redis = self.place.open()?;
        let mut shelf = self.place.shelf(console, &mut *redis);
        let (current, history) = (shelf.current()?, shelf.history()?);
        let seen = Seen {
            current: current.as_ref(),
            history: &history,
        };
        let text = Value::from(CONFIGURED).to_string();
        let text = text.as_bytes();
        let document = Document::Configured;
        let difference = Difference::of(seen, text, &document)?;
        tell_difference(console, seen, &difference, &document)?;
        if difference.is_nothing() {
            Published::nothing(difference, Vec::new()).tell(console)?;
            return Ok(Exit::Done);
        }
        let note = Note {
            author: &self.reason.author,
            comment: &self.reason.comment,
            restores: "",
        };
        let version = publish(&mut shelf, seen.current, text, &note)?;
        if console.output == Output::Table {
            writeln!(
                console,
                "version {version} is published; the gateways run the policies of their configurations"
            )?;
        }
        let published = Published {
            version: Some(version),
            restores: None,
            difference,
            warnings: Vec::new(),
        };
        published.tell(console)?;
        Ok(Exit::Done)
    }
}
