//! `weirctl simulate`: what would a policy have done with yesterday's requests?

pub mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use weir_core::live::poller::Document;

use super::check::tell_mistakes;
use crate::console::{Console, Output};
use crate::document::Source;
use crate::exit::Exit;
use crate::log::{Format, Log, Merged, Progress};
use crate::recommend::Usage;
use crate::simulate::{Assumptions, Caller, Curves, Named, Report, page, simulate};

/// Replay access logs against a policy, or two beside each other
///
/// Logs are Weir's own, Envoy's, Istio's, Envoy Gateway's, nginx's, CSV or lines of JSON, plain or
/// gzipped. Several are merged by time. Every decision is made by the code that decides in Envoy.
#[derive(Args)]
pub struct Simulate {
    /// The policy to try
    policy: PathBuf,
    /// Access logs; - reads one from the input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// The policy that is in force: both are replayed, and this one is held against what the log says
    #[arg(long, value_name = "POLICY")]
    against: Option<PathBuf>,
    #[command(flatten)]
    replay: Replay,
    /// Write the report as a page that needs nothing from elsewhere
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Tell what other limits would refuse, as pages and JSON do; it takes up to twice the time
    #[arg(long)]
    curves: bool,
    /// Exit with 1 if more of the requests are refused: 0.1%
    #[arg(long, value_name = "SHARE")]
    max_denied: Option<String>,
}

/// How logs are read, and what is assumed where they do not tell.
#[derive(Args)]
pub struct Replay {
    /// A format by name (json, envoy-text, istio-text, nginx-combined), or as Envoy's or nginx's
    /// configuration has it; without it, it is seen
    #[arg(long)]
    format: Option<String>,
    /// Which members of JSON or columns of CSV are what: time=ts,path=url,user=sub
    #[arg(long, value_delimiter = ',', value_name = "WHAT=NAME")]
    map: Vec<String>,
    /// The tier of whoever has an id and, in the log, no tier
    #[arg(long)]
    tier: Option<String>,
    /// How many proxies stand before the gateway: as many addresses are left out at the end of
    /// x-forwarded-for
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    trusted_hops: usize,
}

impl Replay {
    /// Replays logs against a policy, and one beside it.
    pub fn run(
        &self,
        logs: &[PathBuf],
        policy: Named,
        against: Option<Named>,
        identity: Option<String>,
        curves: Curves,
    ) -> Result<Report> {
        let progress = Progress::over(logs);
        let mut logs = self.open(logs, &progress)?;
        let assumptions = Assumptions {
            caller: self.caller(identity),
            curves,
        };
        let report = simulate(&mut logs, policy, against, &assumptions);
        progress.finish();
        report
    }

    /// What callers ask for, by groups of paths.
    pub fn usage(&self, logs: &[PathBuf], depth: usize) -> Result<Usage> {
        let progress = Progress::over(logs);
        let mut logs = self.open(logs, &progress)?;
        let usage = Usage::of(&mut logs, &self.caller(None), depth);
        progress.finish();
        usage
    }

    fn open(&self, logs: &[PathBuf], progress: &Progress) -> Result<Merged> {
        let map = self.map.iter().map(|entry| pair(entry));
        let map: Vec<(String, String)> = map.collect::<Result<_>>()?;
        let format = self
            .format
            .as_deref()
            .map(|format| Format::try_new(format, &map));
        let format = format.transpose()?;
        let logs = logs.iter();
        let logs = logs.map(|file| Log::open(file, format.as_ref(), &map, progress));
        Ok(Merged::of(logs.collect::<Result<_>>()?))
    }

    fn caller(&self, identity: Option<String>) -> Caller {
        Caller {
            identity,
            tier: self.tier.clone(),
            trusted_hops: self.trusted_hops,
        }
    }
}

impl Simulate {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let most = self.max_denied.as_deref().map(share).transpose()?;
        let mut policies = Vec::new();
        let mut identity = None;
        for file in [&self.policy].into_iter().chain(&self.against) {
            let judged = Source::read(file)?.judge();
            if judged.document.is_none() {
                tell_mistakes(console, judged)?;
                return Ok(Exit::No);
            }
            let name = judged.source.name;
            match judged.document {
                Some(Document::Policy(policy)) => policies.push(Named {
                    name,
                    policy: *policy,
                }),
                _ => bail!("{name}: says to run the gateways' own policy, which is not known here"),
            }
            identity = identity.or(judged.identity);
        }
        let curves = match self.curves || self.html.is_some() || console.output == Output::Json {
            true => Curves::Drawn,
            false => Curves::Left,
        };
        let mut policies = policies.into_iter();
        let policy = policies.next().ok_or_else(|| anyhow!("no policy"))?;
        let against = policies.next();
        let report = self
            .replay
            .run(&self.logs, policy, against, identity, curves)?;
        if let Some(file) = &self.html {
            let page = page(&report)?;
            let failed = || format!("cannot write {}", file.display());
            fs::write(file, &page).with_context(failed)?;
            console.note(&format!(
                "wrote {} ({} KB)",
                file.display(),
                page.len().div_ceil(1024)
            ));
        }
        match console.output {
            Output::Json => console.json("weirctl.simulation/1", &report)?,
            Output::Table => table::tell(console, &report)?,
        }
        if let Some(most) = most
            && report.refused_share() > most
        {
            console.error(&format!(
                "{:.3} % of the requests are refused; --max-denied allows {:.3} %",
                report.refused_share() * 100.0,
                most * 100.0
            ));
            return Ok(Exit::No);
        }
        Ok(Exit::Done)
    }
}

fn pair(entry: &str) -> Result<(String, String)> {
    let pair = entry
        .split_once('=')
        .filter(|(what, name)| !what.is_empty() && !name.is_empty());
    let (what, name) =
        pair.with_context(|| format!("--map {entry}: expected WHAT=NAME, such as time=ts"))?;
    Ok((what.to_owned(), name.to_owned()))
}

/// `0.1%` or `0.001`.
fn share(text: &str) -> Result<f64> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().ok().map(|number| number / whole);
    let share =
        share.with_context(|| format!("--max-denied {text}: expected a share, such as 0.1%"))?;
    ensure!(
        (0.0..=1.0).contains(&share),
        "--max-denied {text}: is no share"
    );
    Ok(share)
}
