//! `docs/benchmarks.md` and its plots, drawn from a report. No number stands in it that the report does
//! not hold.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::{BUSY_CORES, Report, Row};
use crate::scenario::Scenario;
use crate::{plot, table};

const NAME: &str = "benchmarks";

/// Keeps the raw results of a run.
pub fn keep(report: &Report, folder: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    save(folder, &format!("{NAME}.json"), &text)
}

/// The document and its plots. The raw results stay as they are: a number that was read and is written
/// again may end in another digit.
pub fn draw(report: &Report, folder: &Path) -> Result<()> {
    save(folder, &format!("{NAME}.md"), &markdown(report))?;
    plots(report)
        .iter()
        .try_for_each(|(name, svg)| save(folder, name, svg))
}

fn save(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The report of an earlier run.
pub fn read(folder: &Path) -> Result<Report> {
    let path = folder.join(format!("{NAME}.json"));
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; make bench writes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn plots(report: &Report) -> Vec<(String, String)> {
    let of = |scenario: Scenario| -> Vec<&Row> {
        let rows = report.rows.iter().filter(|row| row.scenario == scenario);
        let plain = report.plain().filter(|plain| plain.scenario != scenario);
        plain.into_iter().chain(rows).collect()
    };
    let mut plots = vec![
        (
            "allowed".to_owned(),
            plot::bars("A request that is allowed", &of(Scenario::Allowed)),
        ),
        (
            "denied".to_owned(),
            plot::bars("A request that is denied", &of(Scenario::Denied)),
        ),
    ];
    for sweep in &report.sweeps {
        plots.push((
            sweep.of.clone(),
            plot::line(&format!("From few {0} to many", sweep.of), sweep),
        ));
    }
    plots
        .into_iter()
        .map(|(name, svg)| (format!("{NAME}-{name}.svg"), svg))
        .collect()
}

fn markdown(report: &Report) -> String {
    let Report {
        rounds,
        sweep_rounds,
        connections,
        measured_ms,
        ..
    } = report;
    let (allowed, denied) = (Scenario::Allowed.callers(), Scenario::Denied.callers());
    let seconds = *measured_ms as f64 / 1000.0;
    let mut text = format!(
        "# What a request costs\n\n\
         Written by `make bench` on {}; the raw results are in [`{NAME}.json`]({NAME}.json), from which \
         `make bench-redraw` draws this again. Every number comes from one run.\n\n\
         ## Goals\n\n{}\n\
         ## How it was measured\n\n\
         - **Systems take turns.** All run side by side on one machine; one round is a turn of each, A B C A B \
         C …, and there are {rounds} rounds ({sweep_rounds} where Weir is compared with itself) of {seconds} s a \
         turn, after a warm-up. A ratio is always to plain Envoy's turn of the *same* round. Tables show the \
         median of the rounds, with the least and the most in parentheses. *Added* is what stands above plain \
         Envoy, or above the system's own baseline where it has one.\n\
         - **What counts is processor time**, as the system accounts it, of every process that a system \
         consists of: Envoy, Redis, the sidecar, a peer with all its children. The one that asks and the \
         upstream are in the benchmark's own process and are not counted; every system has the same.\n\
         - **Load**: {connections} connections, each with an address of its own, that ask again as soon as they \
         are answered; HTTP/1.1, small requests, small answers. Every gateway has one worker. Latency under such \
         a load is that of a machine at its limit; the table at one connection shows what a quiet one adds.\n\
         - **Every request is checked** against three limits: of all together, of its user, of its address. \
         *Allowed*: {allowed} users take turns, far below their limits. *Denied*: {denied} users who have used up \
         what they had. An answer of any other status, or one that Weir gave without Redis, spoils its turn: that is taken \
         again, and a system that fails three times in a row is named under *Skipped*.\n\
         - **Plain Envoy** is Weir's own configuration without Weir. local_ratelimit counts in each process \
         for itself, by descriptors for user and address; it is shown for what counting costs, and shares \
         nothing. Sliding logs are measured with windows of one second, so that entries expire as fast as they \
         come. FastAPI answers by itself; all others pass the request on. What is given to peers: their clients of \
         Redis do no more than they must, and they too tell on every answer how much is left.\n\
         - The machine has {} cores for all of this together, so Envoy, Redis, the load and the upstream get in \
         each other's way: times are higher than on a machine with a core for each, for every system.\n\n",
        report.date,
        table::goals(report).markdown(),
        report.machine.cores,
    );
    if let Some(others) = report.others().filter(|others| others.median > BUSY_CORES) {
        let warning = format!(
            "> **Not to be quoted**: other work kept {:.1} cores busy during this run.\n\n## Goals",
            others.median
        );
        text = text.replacen("## Goals", &warning, 1);
    }
    section(
        &mut text,
        "Allowed",
        &[
            &image("allowed", "CPU of an allowed request by system"),
            &table::costs(&report.rows, Scenario::Allowed).markdown(),
        ],
    );
    section(
        &mut text,
        "Denied",
        &[
            &image("denied", "CPU of a denied request by system"),
            &table::costs(&report.rows, Scenario::Denied).markdown(),
        ],
    );
    section(
        &mut text,
        "Where it goes",
        &[
            "Redis commands count those that scripts run.\n",
            &table::parts(&report.rows).markdown(),
        ],
    );
    section(
        &mut text,
        "At one connection",
        &[
            "What a quiet gateway adds to the latency of a request, beside the same EVALSHA sent by a client \
         through Envoy's `redis_proxy` and nothing else.\n",
            &table::latency(report).markdown(),
        ],
    );
    let mut flat = vec![
        "Fixed windows. Of the rules one applies. Every caller is known to Redis before it is measured. With \
         more connections plain Envoy costs more too; there multiples of plain Envoy at as many connections are \
         compared.\n".to_owned(),
    ];
    for (place, sweep) in report.sweeps.iter().enumerate() {
        flat.push(image(
            &sweep.of,
            &format!("CPU of a request by {}", sweep.of),
        ));
        flat.push(table::sweep(report, place).markdown());
    }
    section(
        &mut text,
        "Does it stay flat?",
        &flat.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    section(
        &mut text,
        "Memory",
        &[
            "Resident memory of Envoy after some load; Weir has a VM for each worker and role, and the main \
         thread has its own.\n",
            &table::workers(report).markdown(),
            "What Redis holds for callers with one limit each, and for each further request of theirs.\n",
            &table::stored(report).markdown(),
        ],
    );
    let machine = &report.machine;
    let mut where_ = format!(
        "{}, {} cores, {} GiB, {}. Other work kept {} cores busy (median, least and most of all turns; \
         the kernel's own and that of the systems whose turn it was not are in it). The run took {} min {} s.\n\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        report
            .others()
            .map_or_else(String::new, |others| table::spread(others, 2)),
        report.took_seconds / 60,
        report.took_seconds % 60,
    );
    for (what, version) in &report.versions {
        let _ = writeln!(where_, "- {what}: {version}");
    }
    section(&mut text, "Machine and versions", &[&where_]);
    if !report.skipped.is_empty() {
        let lines = report.skipped.iter().map(|skipped| {
            format!(
                "- {}: {}\n",
                skipped.name,
                skipped.reason.replace('\n', " ")
            )
        });
        section(&mut text, "Skipped", &[&lines.collect::<String>()]);
    }
    text.trim_end().to_owned() + "\n"
}

fn section(text: &mut String, title: &str, parts: &[&str]) {
    let _ = write!(text, "## {title}\n\n");
    for part in parts {
        let _ = writeln!(text, "{part}");
    }
}

fn image(name: &str, what: &str) -> String {
    format!("![{what}]({NAME}-{name}.svg)\n")
}

#[cfg(test)]
mod tests {
    use weir_lab::scratch::Scratch;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_document_can_be_drawn_again_from_its_raw_results() {
        let scratch = Scratch::try_new("bench-document").unwrap();
        keep(&report(), scratch.path()).unwrap();
        draw(&report(), scratch.path()).unwrap();
        let text = |name| fs::read_to_string(scratch.file(name)).unwrap();
        let first = text("benchmarks.md");
        // Written otherwise than it would be now.
        let raw = text("benchmarks.json").replace("1,\n", "1,\n\n");
        fs::write(scratch.file("benchmarks.json"), &raw).unwrap();
        draw(&read(scratch.path()).unwrap(), scratch.path()).unwrap();
        assert_eq!(text("benchmarks.md"), first);
        assert_eq!(text("benchmarks.json"), raw);
    }

    #[test]
    fn a_document_shows_its_plots_its_goals_and_what_is_missing() {
        let report = report();
        let text = markdown(&report);
        for (name, svg) in plots(&report) {
            assert!(
                text.contains(&format!("({name})")) && svg.starts_with("<svg"),
                "{name}"
            );
        }
        for part in [
            "✓",
            "✗",
            "- other: there is none",
            "A Processor, 2 cores",
            "1 min 1 s",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_run_on_a_busy_machine_says_so() {
        let mut report = report();
        assert!(!markdown(&report).contains("Not to be quoted"));
        for row in &mut report.rows {
            row.samples
                .iter_mut()
                .for_each(|sample| sample.others_us = 3000.0);
        }
        assert!(markdown(&report).contains("kept 0.3 cores busy during this run"));
    }

    #[test]
    fn a_missing_report_says_what_writes_it() {
        let scratch = Scratch::try_new("bench-document").unwrap();
        let error = read(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("make bench writes it"), "{error}");
    }
}
