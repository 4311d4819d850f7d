//! `weirctl import`: what another limiter was configured with, as a policy.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};

use crate::console::{Console, Output, YELLOW};
use crate::document::Source;
use crate::exit::Exit;
use crate::import::ratelimit;
use crate::suite;

/// Convert another limiter's configuration into a policy in shadow mode
///
/// The policy is JSON on the output. What was not converted is told with its line and the nearest thing that
/// could be done; the exit code is 3 then.
#[derive(Args)]
pub struct Import {
    kind: Kind,
    file: PathBuf,
    /// Which paths a descriptor's value stands for: 'login=/api/v1/login'
    #[arg(long = "pattern", value_name = "VALUE=PATTERN")]
    patterns: Vec<String>,
    /// Enforce the rules at once
    #[arg(long)]
    enforce: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// envoyproxy/ratelimit
    Ratelimit,
}

impl Import {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let pair = |entry: &String| {
            let pair = entry.split_once('=');
            let (value, pattern) =
                pair.with_context(|| format!("--pattern {entry}: expected VALUE=PATTERN"))?;
            Ok((value.to_owned(), pattern.to_owned()))
        };
        let patterns = self.patterns.iter().map(pair).collect::<Result<_>>()?;
        let source = Source::read(&self.file)?;
        let text = String::from_utf8(source.text)
            .with_context(|| format!("{} is no text", source.name))?;
        let mode = if self.enforce { "enforce" } else { "shadow" };
        let Kind::Ratelimit = self.kind;
        let imported = match ratelimit::read(&text, &patterns, mode) {
            Ok(imported) => imported,
            Err(message) => {
                console.note_as_is(&message.render(&source.name, text.as_bytes()));
                return Ok(Exit::No);
            }
        };
        // What no gateway would adopt is nothing to hand out.
        suite::policy(imported.policy.to_string().as_bytes())
            .map_err(|error| anyhow!("what would come of {}: {error}", source.name))?;
        match console.output {
            Output::Json => console.json("weirctl.import/1", &imported)?,
            Output::Table => {
                writeln!(
                    console,
                    "{}",
                    serde_json::to_string_pretty(&imported.policy)?
                )?;
                let all = imported.converted + imported.left.len();
                console.note(&format!("converted {} of {all}", imported.converted));
                for left in &imported.left {
                    console.note_as_is(&format!(
                        "{YELLOW}not converted{YELLOW:#}: {}:{}: {} → {}",
                        source.name, left.line, left.what, left.instead
                    ));
                }
            }
        }
        Ok(match imported.left.is_empty() {
            true => Exit::Done,
            false => Exit::Partly,
        })
    }
}
