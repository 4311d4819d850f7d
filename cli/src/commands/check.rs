//! `weirctl check`: is it a policy, what does it say, and what of it is probably not meant?

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use weir_core::live::poller::Document;

use crate::console::{Console, GREEN, Output};
use crate::document::{Judged, Message, Severity, Source};
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
    #[serde(skip)]
    text: Vec<u8>,
}

#[derive(Serialize)]
struct Report {
    files: Vec<Checked>,
}

impl Check {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut files = Vec::new();
        for file in &self.files {
            let judged = Source::read(file)?.judge();
            if let (Some(document), Output::Table) = (&judged.document, console.output) {
                tell_rules(console, document)?;
            }
            let checked = Checked::of(judged);
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
    fn of(judged: Judged) -> Checked {
        Checked {
            file: judged.source.name,
            is_policy: judged.document.is_some(),
            messages: judged.messages,
            text: judged.source.text,
        }
    }

    fn is_good(&self, strict: bool) -> bool {
        self.is_policy && (!strict || self.messages.is_empty())
    }

    fn tell(&self, console: &mut Console) -> Result<()> {
        tell_messages(console, (&self.file, &self.text), &self.messages)?;
        match (self.is_policy, self.messages.len()) {
            (true, _) => writeln!(console, "{GREEN}ok{GREEN:#}: {} is a policy", self.file)?,
            (false, ..2) => {}
            (false, count) => console.note_as_is(&format!("{}: {count} mistakes", self.file)),
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
pub fn tell_mistakes(console: &mut Console, judged: Judged) -> Result<()> {
    let checked = Checked::of(judged);
    match console.output {
        Output::Table => checked.tell(console),
        Output::Json => {
            let files = vec![checked];
            Ok(console.json("weirctl.check/1", &Report { files })?)
        }
    }
}

/// Warnings are a part of the answer; mistakes are why there is none.
pub fn tell_messages(
    console: &mut Console,
    (file, text): (&str, &[u8]),
    messages: &[Message],
) -> Result<()> {
    for message in messages {
        let rendered = message.render(file, text);
        match message.severity {
            Severity::Error => console.note_as_is(&rendered),
            Severity::Warning => writeln!(console, "{rendered}")?,
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
