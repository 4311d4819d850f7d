//! `weirctl test`: does a policy do what its tests want?

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::check::tell_mistakes;
use crate::console::{Console, DIM, GREEN, Output, RED};
use crate::document::Source;
use crate::exit::Exit;
use crate::suite::{self, Coverage, Met, Results, Suite};

/// Run the tests of policies: cases in YAML, with time, callers and what is wanted
///
/// Every decision is made by the code that decides in Envoy, against counters in memory and on a clock
/// of the case's own. Each case begins with nothing counted.
#[derive(Args)]
pub struct Test {
    /// Tests, or folders with files whose names end in .test.yaml
    #[arg(default_value = ".", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Test this policy, in the place of those that the tests name
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// In which form a table comes
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// Exit with 1 if fewer of the limits are met by any case, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Lines,
    /// The Test Anything Protocol
    Tap,
    /// JUnit's XML
    Junit,
}

#[derive(Serialize)]
struct Report<'a> {
    suites: &'a [Results],
}

impl Test {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let mut files = Vec::new();
        for file in &self.files {
            find(file, &mut files)?;
        }
        ensure!(
            !files.is_empty(),
            "there are no tests: no file here has a name that ends in .test.yaml"
        );
        let mut suites = Vec::new();
        for file in &files {
            match run(file, self.policy.as_deref(), console)? {
                Some(results) => suites.push(results),
                None => return Ok(Exit::No),
            }
        }
        match (console.output, self.format) {
            (Output::Json, _) => console.json("weirctl.test/1", &Report { suites: &suites })?,
            (Output::Table, Format::Lines) => lines(console, &suites)?,
            (Output::Table, Format::Tap) => tap(console, &suites)?,
            (Output::Table, Format::Junit) => console.write_all(junit(&suites).as_bytes())?,
        }
        let is_covered = |coverage: &Coverage| {
            let Met { met, of, .. } = coverage.limits;
            let least = usize::from(self.min_coverage.unwrap_or(0));
            met * 100 >= least * of
        };
        let mut exit = Exit::Done;
        for suite in &suites {
            if !is_covered(&suite.coverage) {
                console.error(&format!(
                    "{}: fewer than {} % of the limits are met",
                    suite.name,
                    self.min_coverage.unwrap_or(0)
                ));
                exit = Exit::No;
            }
            if suite.failed() > 0 {
                exit = Exit::No;
            }
        }
        Ok(exit)
    }
}

/// The tests that a name stands for.
fn find(file: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !file.is_dir() {
        found.push(file.to_owned());
        return Ok(());
    }
    let failed = || format!("cannot read {}", file.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(file).with_context(failed)? {
        entries.push(entry.with_context(failed)?.path());
    }
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let is_test = [".test.yaml", ".test.yml"]
            .iter()
            .any(|end| name.ends_with(end));
        let is_folder = entry.is_dir() && !entry.is_symlink() && !name.starts_with('.');
        if is_test || is_folder {
            find(&entry, found)?;
        }
    }
    Ok(())
}

/// The results of one file; nothing where it or its policy has mistakes, which are told.
fn run(file: &Path, policy: Option<&Path>, console: &mut Console) -> Result<Option<Results>> {
    let source = Source::read(file)?;
    let text =
        String::from_utf8(source.text).with_context(|| format!("{} is no text", source.name))?;
    let read = match Suite::read(&text) {
        Ok(read) => read,
        Err(message) => {
            console.note_as_is(&message.render(&source.name, text.as_bytes()));
            return Ok(None);
        }
    };
    ensure!(!read.is_empty(), "{}: has no cases", source.name);
    let beside = match policy {
        Some(policy) => policy.to_owned(),
        None => file.parent().unwrap_or(Path::new("")).join(&read.policy),
    };
    let judged = Source::read(&beside)
        .with_context(|| format!("the policy of {}", source.name))?
        .judge();
    if judged.document.is_none() {
        tell_mistakes(console, judged)?;
        return Ok(None);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split(".test.").next().unwrap_or_default().to_owned();
    let (text, identity) = (judged.text, judged.identity);
    let results = read.run(name, identity, || suite::policy(&text));
    results
        .map(Some)
        .map_err(|error| anyhow!("{}: {error}", beside.display()))
}

fn lines(console: &mut Console, suites: &[Results]) -> Result<()> {
    for suite in suites {
        for case in &suite.cases {
            match &case.failure {
                None => writeln!(
                    console,
                    "{GREEN}ok{GREEN:#}    {}: {}",
                    suite.name, case.name
                )?,
                Some(failure) => writeln!(
                    console,
                    "{RED}FAIL{RED:#}  {}: {}\n        {failure}",
                    suite.name, case.name
                )?,
            }
        }
        writeln!(console, "{DIM}{}{DIM:#}", coverage(&suite.coverage))?;
    }
    Ok(())
}

/// `coverage: rules 4/5, limits 7/11 (never met: …)`
fn coverage(coverage: &Coverage) -> String {
    let Coverage { rules, limits } = coverage;
    let never = match limits.never.is_empty() {
        true => String::new(),
        false => format!(" (never met: {})", limits.never.join(", ")),
    };
    format!(
        "coverage: rules {}/{}, limits {}/{}{never}",
        rules.met, rules.of, limits.met, limits.of
    )
}

fn tap(console: &mut Console, suites: &[Results]) -> Result<()> {
    let count: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    writeln!(console, "TAP version 13\n1..{count}")?;
    let cases = suites
        .iter()
        .flat_map(|suite| suite.cases.iter().map(move |case| (&suite.name, case)));
    for (nth, (suite, case)) in cases.enumerate() {
        // A # begins a directive.
        let name = case.name.replace('#', "\\#");
        let nth = nth + 1;
        match &case.failure {
            None => writeln!(console, "ok {nth} - {suite}: {name}")?,
            Some(failure) => writeln!(
                console,
                "not ok {nth} - {suite}: {name}\n  ---\n  message: {failure:?}\n  ..."
            )?,
        }
    }
    for suite in suites {
        writeln!(console, "# {}: {}", suite.name, coverage(&suite.coverage))?;
    }
    Ok(())
}

fn junit(suites: &[Results]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in suites {
        let (count, failed) = (suite.cases.len(), suite.failed());
        let name = escaped(&suite.name);
        let _ = writeln!(
            xml,
            r#"  <testsuite name="{name}" tests="{count}" failures="{failed}">"#
        );
        for case in &suite.cases {
            let case_name = escaped(&case.name);
            let _ = write!(
                xml,
                r#"    <testcase classname="{name}" name="{case_name}""#
            );
            let _ = match &case.failure {
                None => writeln!(xml, "/>"),
                Some(failure) => writeln!(
                    xml,
                    r#"><failure message="{}"/></testcase>"#,
                    escaped(failure)
                ),
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('"', "&quot;");
    text.chars().filter(|c| !c.is_control()).collect()
}
