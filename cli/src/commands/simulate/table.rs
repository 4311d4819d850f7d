//! A simulation's report as lines for a terminal.

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use weir_core::decide::decision::Outcome;

use crate::console::{Console, DIM, GREEN, RED, YELLOW};
use crate::simulate::{Report, count_of};

pub fn tell(console: &mut Console, report: &Report) -> Result<()> {
    head(console, report)?;
    limits(console, report)?;
    callers(console, report)?;
    for count in &report.not_looked_at {
        writeln!(
            console,
            "{YELLOW}not looked at{YELLOW:#}: {} {}",
            thousands(count.count),
            count.what
        )?;
    }
    for example in &report.log.broken.examples {
        writeln!(console, "  {DIM}{example}{DIM:#}")?;
    }
    for note in &report.notes {
        writeln!(console, "{DIM}note: {note}{DIM:#}")?;
    }
    Ok(())
}

fn head(console: &mut Console, report: &Report) -> Result<()> {
    writeln!(
        console,
        "{} requests, {} – {} UTC, {} callers; format {}",
        thousands(report.requests),
        moment(report.from_ms),
        moment(report.to_ms),
        thousands(report.callers as u64),
        report.log.formats.join(", "),
    )?;
    if let Some(calibration) = &report.calibration {
        writeln!(
            console,
            "calibration: {}: the log says {} refused, simulated {}, {} of them the same requests; {:.2} % of all \
             agree",
            calibration.policy,
            thousands(calibration.refused_by_log),
            thousands(calibration.refused_by_simulation),
            thousands(calibration.refused_by_both),
            calibration.agreement * 100.0,
        )?;
    }
    let refused = count_of(&report.outcomes, Outcome::Denied);
    let before = report.outcomes_against.as_ref();
    let before = before.map_or_else(String::new, |outcomes| {
        format!(
            ", {} before",
            thousands(count_of(outcomes, Outcome::Denied))
        )
    });
    let style = if refused > 0 { RED } else { GREEN };
    writeln!(
        console,
        "{}: {style}{} refused{style:#} ({:.3} %){before}; {} callers hit",
        report.policy,
        thousands(refused),
        report.refused_share() * 100.0,
        thousands(report.callers_hit as u64),
    )?;
    Ok(())
}

fn limits(console: &mut Console, report: &Report) -> Result<()> {
    let mut rows = vec![
        [
            "rule",
            "limit",
            "requests",
            "refused",
            "",
            "callers hit",
            "worst caller",
            "p99.9 uses",
        ]
        .map(str::to_owned),
    ];
    for limit in report.limits.iter().filter(|limit| limit.requests > 0) {
        let before = limit.against.as_ref();
        let refused = match before {
            Some(before) => format!(
                "{} → {}",
                thousands(before.refused),
                thousands(limit.refused)
            ),
            None => thousands(limit.refused),
        };
        let scope = match limit.whom.as_str() {
            "" | "default" => limit.scope.to_owned(),
            whom => format!("{} {whom}", limit.scope),
        };
        let trial = if limit.is_on_trial { " (trial)" } else { "" };
        let now = format!("{scope} {}/{}s{trial}", limit.limit, limit.window_seconds);
        let worst = limit.worst.as_ref();
        let share = limit.refused as f64 * 100.0 / limit.requests as f64;
        rows.push([
            limit.rule.clone(),
            now,
            thousands(limit.requests),
            refused,
            format!("{share:.2} %"),
            thousands(limit.callers_hit),
            worst.map_or_else(
                || "–".to_owned(),
                |worst| format!("{} {}", worst.caller, worst.refused),
            ),
            format!(
                "{:.0} %",
                limit.usage.p999 as f64 * 100.0 / limit.limit as f64
            ),
        ]);
    }
    columns(console, &rows, &[2, 3, 4, 5, 7])?;
    for limit in &report.limits {
        if let Some(suggestion) = limit.suggestion {
            writeln!(
                console,
                "suggestion: {} {} {}: {} instead of {} would refuse at most 0.1 % by itself",
                limit.rule, limit.scope, limit.whom, suggestion, limit.limit
            )?;
        }
    }
    Ok(())
}

fn callers(console: &mut Console, report: &Report) -> Result<()> {
    if report.hit.is_empty() {
        return Ok(());
    }
    let is_beside = report.against.is_some();
    let mut rows = vec![["who is hit", "requests", "refused", "", "by"].map(str::to_owned)];
    for hit in report.hit.iter().take(5) {
        let before = hit.refused_against.filter(|_| is_beside);
        rows.push([
            hit.caller.clone(),
            thousands(hit.requests),
            match before {
                Some(before) => format!("{} → {}", thousands(before), thousands(hit.refused)),
                None => thousands(hit.refused),
            },
            format!("{:.1} %", hit.refused as f64 * 100.0 / hit.requests as f64),
            hit.rule.clone().unwrap_or_default(),
        ]);
    }
    columns(console, &rows, &[1, 2, 3])
}

/// Columns as wide as they need to be, the first row dim; numbers stand on the right.
fn columns<const N: usize>(
    console: &mut Console,
    rows: &[[String; N]],
    right: &[usize],
) -> Result<()> {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for (place, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = match right.contains(&column) {
                true => format!("{cell:>width$}  "),
                false => format!("{cell:width$}  "),
            };
            line.push_str(&cell);
        }
        let line = line.trim_end();
        match place {
            0 => writeln!(console, "{DIM}{line}{DIM:#}")?,
            _ => writeln!(console, "{line}")?,
        }
    }
    Ok(())
}

fn moment(millis: u64) -> String {
    let moment = i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    moment.map_or_else(String::new, |moment| {
        moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

/// `1,234,567`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut told = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}
