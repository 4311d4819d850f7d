//! `weirctl schema`: the language of policies, for editors.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;

use crate::console::Console;
use crate::exit::Exit;
use crate::grammar;

/// Print the JSON Schema of policies, for editors
#[derive(Args)]
pub struct Schema;

impl Schema {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        writeln!(console, "{:#}", grammar::schema())?;
        Ok(Exit::Done)
    }
}
