//! `weirctl check`: is it a policy, what does it say, and what of it is probably not meant?

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use weir_core::live::poller::Document;

use crate::console::{Console, GREEN, Output, YELLOW};
use crate::document::{self, Message, Severity, Source};
use crate::exit::Exit;

/// Say whether files are policies, without asking Redis
#[derive(Args)]
pub struct Check {
    /// Policies; - reads one from the input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

/// What is to be said of one file.
#[derive(Serialize)]
struct Checked {
    file: String,
    is_policy: bool,
    messages: Vec<Message>,
}

#[derive(Serialize)]
struct Report {
    files: Vec<Checked>,
}

impl Check {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut files = Vec::new();
        for file in &self.files {
            let source = Source::read(file)?;
            let judged = source.judge();
            if let (Ok(document), Output::Table) = (&judged, console.output) {
                tell_rules(console, document)?;
            }
            let (is_policy, messages) = match &judged {
                Ok(document) => (true, document::warnings(document)),
                Err(mistakes) => (false, mistakes.clone()),
            };
            let checked = Checked {
                file: source.name,
                is_policy,
                messages,
            };
            if console.output == Output::Table {
                checked.tell(console)?;
            }
            files.push(checked);
        }
        let exit = match files.iter().all(|file| file.is_good(self.strict)) {
            true => Exit::Done,
            false => Exit::No,
        };
        match console.output {
            Output::Json => console.json("weirctl.check/1", &Report { files })?,
            Output::Table if self.strict => strictly(console, &files),
            Output::Table => {}
        }
        Ok(exit)
    }
}

impl Checked {
    fn is_good(&self, strict: bool) -> bool {
        self.is_policy && !(strict && !self.messages.is_empty())
    }

    fn tell(&self, console: &mut Console) -> Result<()> {
        tell_messages(console, &self.file, &self.messages)?;
        if self.is_policy {
            writeln!(console, "{GREEN}ok{GREEN:#}: {} is a policy", self.file)?;
        }
        Ok(())
    }
}

/// The rules in words, in the order in which they apply.
pub fn tell_rules(out: &mut impl Write, document: &Document) -> Result<()> {
    let Document::Policy(policy) = document else {
        writeln!(out, "the policy of the gateways' own configuration")?;
        return Ok(());
    };
    write!(out, "{}", policy.table())?;
    Ok(())
}

/// Why there is nothing to go on with.
pub fn tell_mistakes(console: &mut Console, file: String, messages: Vec<Message>) -> Result<()> {
    let checked = Checked {
        file,
        is_policy: false,
        messages,
    };
    match console.output {
        Output::Table => checked.tell(console),
        Output::Json => {
            let files = vec![checked];
            Ok(console.json("weirctl.check/1", &Report { files })?)
        }
    }
}

/// Warnings are a part of the answer; mistakes are why there is none.
pub fn tell_messages(console: &mut Console, file: &str, messages: &[Message]) -> Result<()> {
    for message in messages {
        match message.severity {
            Severity::Error => console.error(&format!("{file}: {message}")),
            Severity::Warning => writeln!(console, "{YELLOW}warning{YELLOW:#}: {message}")?,
        }
    }
    Ok(())
}

fn strictly(console: &Console, files: &[Checked]) {
    let warnings = |file: &Checked| match file.is_policy {
        true => file.messages.len(),
        false => 0,
    };
    match files.iter().map(warnings).sum() {
        0 => {}
        count => console.error(&strictness(count)),
    }
}

/// Why `--strict` is not content.
pub fn strictness(warnings: usize) -> String {
    let there_are = match warnings {
        1 => "there is 1 warning".to_owned(),
        count => format!("there are {count} warnings"),
    };
    format!("{there_are}, and --strict takes each for an error")
}
