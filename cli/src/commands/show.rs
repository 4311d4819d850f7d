//! `weirctl show`: print a policy that is or was published.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::history::{Entry, line};
use super::publish::find;
use crate::console::{Console, Output};
use crate::exit::Exit;
use crate::place::Place;
use crate::publication::Publication;

/// Print the policy that is published, or a previous one
#[derive(Args)]
pub struct Show {
    /// Of this version
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: Entry,
    policy: Value,
}

impl Show {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut redis = self.place.open()?;
        let mut shelf = self.place.shelf(console, &mut *redis);
        let current = shelf.current()?;
        let is_asked = |publication: &Publication| {
            let version = self.version.map(|version| version.to_string());
            version.is_none_or(|version| publication.version == version)
        };
        let shown = match (current, self.version) {
            (Some(current), _) if is_asked(&current) => current,
            (_, Some(version)) => find(&shelf.history()?, version)?.clone(),
            (_, None) => bail!("nothing is published"),
        };
        match console.output {
            Output::Json => {
                let shown = Shown {
                    entry: Entry::of(&shown),
                    policy: serde_json::from_slice(&shown.document)?,
                };
                console.json("weirctl.show/1", &shown)?;
            }
            Output::Table => {
                // The document alone on the output, as a file to edit and push.
                console.note(&line(&shown));
                console.write_all(&shown.document)?;
                if !shown.document.ends_with(b"\n") {
                    writeln!(console)?;
                }
            }
        }
        Ok(Exit::Done)
    }
}
