//! `weirctl diff`: what does one policy change about another, and whom would it hit?

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use weir_core::live::poller::Document;

use super::check::tell_mistakes;
use super::publish::find;
use super::simulate::{Replay, table};
use crate::console::{Console, Output};
use crate::difference::Difference;
use crate::document::{Judged, Source};
use crate::exit::Exit;
use crate::place::Place;
use crate::publication::Publication;
use crate::simulate::{Curves, Named, Report};

/// What is published, or was under a version.
const REDIS: &str = "redis:";

/// Tell what one policy changes about another, rule by rule, and which counts begin anew
///
/// Exits with 1 if they differ, and with 4 if one of them is no policy.
#[derive(Args)]
pub struct Diff {
    /// A file, redis: for what is published, or redis:VERSION
    before: String,
    /// Likewise
    after: String,
    /// Replay these access logs against both, to tell whom the change hits
    #[arg(long, value_name = "LOG")]
    simulate: Vec<PathBuf>,
    #[command(flatten)]
    replay: Replay,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    difference: Difference,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulation: Option<Report>,
}

impl Diff {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut sides = Vec::new();
        for side in [&self.before, &self.after] {
            let judged = self.read(side, console)?;
            if judged.document.is_none() {
                tell_mistakes(console, judged)?;
                return Ok(Exit::Failed);
            }
            sides.push(judged);
        }
        let [before, after]: [Judged; 2] = match sides.try_into() {
            Ok(sides) => sides,
            Err(_) => bail!("two policies are compared"),
        };
        let (Some(old), Some(new)) = (before.document, after.document) else {
            bail!("two policies are compared");
        };
        let difference = Difference::between((&before.text, &old), (&after.text, &new))?;
        let is_same = difference.is_nothing();
        let simulation = match self.simulate.is_empty() {
            true => None,
            false => {
                let old = named(before.source.name, old)?;
                let new = named(after.source.name, new)?;
                let identity = after.identity.or(before.identity);
                let curves = Curves::Left;
                let report = self
                    .replay
                    .run(&self.simulate, new, Some(old), identity, curves)?;
                Some(report)
            }
        };
        match console.output {
            Output::Json => console.json(
                "weirctl.difference/1",
                &Told {
                    difference,
                    simulation,
                },
            )?,
            Output::Table => {
                if is_same {
                    writeln!(console, "they say the same")?;
                }
                for change in &difference.changes {
                    writeln!(console, "{change}")?;
                }
                for count in &difference.counts {
                    writeln!(console, "! {count}")?;
                }
                if let Some(report) = &simulation {
                    table::tell(console, report)?;
                }
            }
        }
        Ok(if is_same { Exit::Done } else { Exit::No })
    }

    fn read(&self, side: &str, console: &Console) -> Result<Judged> {
        let Some(version) = side.strip_prefix(REDIS) else {
            return Ok(Source::read(Path::new(side))?.judge());
        };
        let mut redis = self.place.open()?;
        let mut shelf = self.place.shelf(console, &mut *redis);
        let publication = match version {
            "" => shelf
                .current()?
                .context("nothing is published; gateways run their configurations' policies")?,
            version => {
                let version = version
                    .parse()
                    .with_context(|| format!("{side}: expected redis: or redis:VERSION"))?;
                let is_it = |one: &Publication| one.version == u64::to_string(&version);
                match shelf.current()?.filter(is_it) {
                    Some(current) => current,
                    None => find(&shelf.history()?, version)?.clone(),
                }
            }
        };
        let source = Source {
            name: format!("version {}", publication.version),
            text: publication.document,
        };
        Ok(source.judge())
    }
}

fn named(name: String, document: Document) -> Result<Named> {
    match document {
        Document::Policy(policy) => Ok(Named {
            name,
            policy: *policy,
        }),
        Document::Configured => {
            bail!("{name}: says to run the gateways' own policy, which is not known here")
        }
    }
}
