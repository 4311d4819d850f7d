//! The tables of a report, once for the terminal and once for the document.

use crate::report::{Report, Row};
use crate::scenario::Scenario;
use crate::series::Spread;
use crate::turn::Sample;

/// The first column holds names, the others numbers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }

    /// Without the columns that no row has anything in.
    fn trimmed(&self) -> Table {
        let is_used = |column: usize| self.rows.iter().any(|row| !row[column].is_empty());
        let used: Vec<usize> = (0..self.head.len())
            .filter(|&column| is_used(column))
            .collect();
        let trim = |row: &Vec<String>| used.iter().map(|&column| row[column].clone()).collect();
        Table {
            head: trim(&self.head),
            rows: self.rows.iter().map(trim).collect(),
        }
    }

    pub fn markdown(&self) -> String {
        let Table { head, rows } = self.trimmed();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut rule = vec!["---:".to_owned(); head.len()];
        if let Some(first) = rule.first_mut() {
            "---".clone_into(first);
        }
        let rows = rows.iter().map(|row| line(row));
        line(&head) + &line(&rule) + &rows.collect::<String>()
    }

    pub fn text(&self) -> String {
        let Table { head, rows } = self.trimmed();
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]);
            cells
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let padded = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(place, (cell, &width))| {
                    if place == 0 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
        };
        [&head].into_iter().chain(&rows).map(line).collect()
    }
}

/// What a request costs: rows of one scenario, with plain Envoy before those that are denied.
pub fn costs<'a>(rows: &'a [Row], scenario: Scenario) -> Table {
    let mut table = Table::new([
        "",
        "CPU µs/request",
        "added",
        "× plain Envoy",
        "goal",
        "× own baseline",
        "req/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
    ]);
    let Some(plain) = rows.first() else {
        return table;
    };
    let shown = rows.iter().filter(|row| row.scenario == scenario);
    let before = (scenario != plain.scenario).then_some(plain);
    for row in before.into_iter().chain(shown) {
        let baseline = row.baseline.as_ref();
        let baseline: Option<&'a Row> =
            baseline.and_then(|name| rows.iter().find(|row| row.name == *name));
        let (Some(cost), Some(added), Some(ratio)) = (
            row.spread(|s| s.cost_us()),
            row.added(baseline.unwrap_or(plain)),
            row.ratio(plain),
        ) else {
            continue;
        };
        let is_plain = row.name == plain.name;
        let name = match &*row.note {
            "" => row.name.clone(),
            note => format!("{} ({note})", row.name),
        };
        let millis = |of: fn(&Sample) -> f64| format!("{:.2}", row.median(of) / 1000.0);
        table.push([
            name,
            spread(cost, 1),
            if is_plain {
                String::new()
            } else {
                format!("{:.1}", added.median)
            },
            if is_plain {
                "1".to_owned()
            } else {
                spread(ratio, 2)
            },
            row.goal.map_or(String::new(), |goal| {
                format!("{goal:.2} {}", if ratio.median <= goal { "✓" } else { "✗" })
            }),
            baseline
                .and_then(|baseline| row.ratio(baseline))
                .map_or(String::new(), |ratio| spread(ratio, 2)),
            format!("{:.0}", row.median(|sample| sample.per_second())),
            millis(|sample| sample.p50_us),
            millis(|sample| sample.p99_us),
            millis(|sample| sample.p999_us),
        ]);
    }
    table
}

/// Where the time goes, and what Redis is asked.
pub fn parts(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "",
        "CPU µs/request by process",
        "EVALSHA/request",
        "Redis commands/request",
        "bytes to Redis/request",
        "bytes back/request",
        "not counted: load, upstream",
    ]);
    for row in rows {
        let processes: Vec<String> = row
            .by_process()
            .iter()
            .map(|(name, micros)| format!("{} {micros:.1}", short(name, row)))
            .collect();
        let uncounted = |of: fn(&Sample) -> f64| row.median(|s| of(s) / s.requests as f64);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        table.push([
            row.name.clone(),
            processes.join(", "),
            number(row.commands(Some("evalsha")), 3),
            number(row.commands(None), 2),
            number(row.bytes().map(|(to, _)| to), 0),
            number(row.bytes().map(|(_, back)| back), 0),
            format!(
                "{:.1}, {:.1}",
                uncounted(|s| s.generator_us),
                uncounted(|s| s.upstream_us)
            ),
        ]);
    }
    table
}

/// A peer's process has the peer's long name.
fn short<'a>(process: &'a str, row: &Row) -> &'a str {
    match row.name.starts_with(process) {
        true => process.split_whitespace().next().unwrap_or(process),
        false => process,
    }
}

pub fn goals(report: &Report) -> Table {
    let mut table = Table::new(["goal", "at most", "measured", ""]);
    for goal in report.goals() {
        table.push([
            goal.what.clone(),
            format!("{:.2}", goal.most),
            spread(goal.measured, 2),
            if goal.is_met() { "✓" } else { "✗" }.to_owned(),
        ]);
    }
    table
}

pub fn latency(report: &Report) -> Table {
    let mut table = Table::new([
        "",
        "p50 µs",
        "p99 µs",
        "added to plain, p50 µs",
        "÷ bare EVALSHA",
    ]);
    let Some(plain) = report.latency.first() else {
        return table;
    };
    for row in &report.latency {
        let Some(p50) = row.spread(|sample| sample.p50_us) else {
            continue;
        };
        let is_gateway = row.name.starts_with("Weir") || row.name.contains("wasm");
        let added = is_gateway.then(|| row.beside(plain, |own, plain| own.p50_us - plain.p50_us));
        let ratio = is_gateway.then(|| report.latency_added(row));
        table.push([
            row.name.clone(),
            spread(p50, 0),
            format!("{:.0}", row.median(|sample| sample.p99_us)),
            added
                .flatten()
                .map_or(String::new(), |added| spread(added, 0)),
            ratio
                .flatten()
                .map_or(String::new(), |ratio| spread(ratio, 2)),
        ]);
    }
    table
}

pub fn sweep(report: &Report, place: usize) -> Table {
    let sweep = &report.sweeps[place];
    let mut table = Table::new([
        &*sweep.of,
        "CPU µs/request",
        "plain Envoy",
        "× the first",
        "req/s",
        "p99 ms",
    ]);
    for point in &sweep.points {
        let (Some(cost), Some(relative)) = (
            point.weir.spread(|sample| sample.cost_us()),
            sweep.relative(point),
        ) else {
            continue;
        };
        let plain = point
            .plain
            .as_ref()
            .and_then(|plain| plain.spread(|sample| sample.cost_us()));
        table.push([
            thousands(point.at),
            spread(cost, 1),
            plain.map_or(String::new(), |plain| spread(plain, 1)),
            spread(relative, 2),
            format!("{:.0}", point.weir.median(|sample| sample.per_second())),
            format!("{:.2}", point.weir.median(|sample| sample.p99_us) / 1000.0),
        ]);
    }
    table
}

pub fn workers(report: &Report) -> Table {
    let mut table = Table::new([
        "Envoy's memory",
        "one worker, MiB",
        "each further worker, MiB",
    ]);
    for worker in &report.workers {
        let further = worker.many_bytes.saturating_sub(worker.few_bytes) as f64;
        table.push([
            worker.name.clone(),
            format!("{:.1}", mebibytes(worker.few_bytes as f64)),
            format!(
                "{:.1}",
                mebibytes(further / (worker.many - worker.few).max(1) as f64)
            ),
        ]);
    }
    table
}

pub fn stored(report: &Report) -> Table {
    let mut table = Table::new([
        "Redis's memory",
        "callers",
        "keys",
        "bytes/key",
        "bytes/further request",
    ]);
    for stored in &report.stored {
        let further =
            stored.more_bytes as f64 / (stored.callers * stored.more_requests).max(1) as f64;
        table.push([
            stored.algorithm.clone(),
            thousands(stored.callers),
            thousands(stored.keys),
            format!(
                "{:.0}",
                stored.first_bytes as f64 / stored.keys.max(1) as f64
            ),
            format!("{further:.1}"),
        ]);
    }
    table
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// A median with the least and the largest.
pub fn spread(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    if min == max {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn thousands_are_set_apart() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in table {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let mut table = Table::new(["", "µs"]);
        table.push(["a|b".to_owned(), "10.5".to_owned()]);
        assert_eq!(table.text(), "        µs\na|b   10.5\n");
        assert_eq!(
            table.markdown(),
            "|  | µs |\n| --- | ---: |\n| a\\|b | 10.5 |\n"
        );
    }

    #[test]
    fn denied_rows_stand_below_plain_envoy() {
        let report = report();
        let text = costs(&report.rows, Scenario::Denied).text();
        let names: Vec<&str> = text.lines().skip(1).map(|line| &line[..12]).collect();
        assert_eq!(names, ["plain Envoy ", "Weir, denied"]);
        assert!(text.contains("0.50 ✗"), "{text}");
        let allowed = costs(&report.rows, Scenario::Allowed).text();
        assert!(
            allowed.contains("1.40 ✓") && !allowed.contains("denied"),
            "{allowed}"
        );
    }
}
