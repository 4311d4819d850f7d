//! `weirctl history`: what was published when, by whom, and why.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::console::{Console, GREEN, Output};
use crate::exit::Exit;
use crate::moment::readable;
use crate::place::Place;
use crate::publication::Publication;

/// List what is and was published
#[derive(Args)]
pub struct History {
    #[command(flatten)]
    place: Place,
}

/// One publication, for scripts. A person may have written its fields, so they are text.
#[derive(Serialize)]
pub struct Entry {
    version: String,
    published_at_ms: String,
    author: String,
    comment: String,
    restores: String,
}

#[derive(Serialize)]
struct Listed {
    current: Option<Entry>,
    /// The newest first.
    previous: Vec<Entry>,
}

impl History {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut redis = self.place.open()?;
        let mut shelf = self.place.shelf(console, &mut *redis);
        let (current, previous) = (shelf.current()?, shelf.history()?);
        if console.output == Output::Json {
            let listed = Listed {
                current: current.as_ref().map(Entry::of),
                previous: previous.iter().map(Entry::of).collect(),
            };
            console.json("weirctl.history/1", &listed)?;
            return Ok(Exit::Done);
        }
        match &current {
            Some(current) => {
                let line = line(current);
                writeln!(console, "{line} {GREEN}<- published now{GREEN:#}")?;
            }
            None => writeln!(console, "nothing is published now")?,
        }
        for previous in &previous {
            writeln!(console, "{}", line(previous))?;
        }
        Ok(Exit::Done)
    }
}

impl Entry {
    pub fn of(publication: &Publication) -> Entry {
        Entry {
            version: publication.version.clone(),
            published_at_ms: publication.published_at.clone(),
            author: publication.author.clone(),
            comment: publication.comment.clone(),
            restores: publication.restores.clone(),
        }
    }
}

/// `version 7  2026-11-24 22:36:06 UTC  ann@desk  search: 120 a minute`
pub fn line(publication: &Publication) -> String {
    let Publication {
        version,
        published_at,
        author,
        comment,
        ..
    } = publication;
    let published_at = readable(published_at);
    let line = format!("version {version}  {published_at}  {author}  {comment}");
    line.trim_end().to_owned()
}
