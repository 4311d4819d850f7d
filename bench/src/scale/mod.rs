//! `make scale`: what one Redis carries, what a cluster carries, what a limit for everybody does to
//! both. [`measure`] says what a script call costs here, [`fleet`] simulates fleets with it, and
//! this module writes the tables of `docs/scale.md`, whose text is written by hand.

pub mod fleet;
pub mod measure;

use std::fs;

use anyhow::{Context, Result, bail};
use weir_lab::place;

use fleet::{Cost, Fleet, Global, Policy, Seen, Store};
use measure::{CHECKS, Measured};

/// A primary that works more than this has no room for a neighbour's failover.
const FULL: f64 = 0.6;
/// Within one zone, without waiting.
const ROUND_TRIP_US: f64 = 500.0;
const WORKERS: usize = 4;
/// Enough that a run lasts many round trips even where there are thousands of workers.
const REQUESTS: usize = 300_000;
/// By user and by address.
const OWN_LIMITS: usize = 2;

/// Measures, or takes what was measured before, and writes the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    Measuring,
    Before,
}

pub fn run(from: From) -> Result<()> {
    let folder = place::project().join("docs");
    let (raw, page) = (folder.join("scale.json"), folder.join("scale.md"));
    let measured = match from {
        From::Measuring => measure::measure()?,
        From::Before => {
            let text = fs::read_to_string(&raw)
                .with_context(|| format!("nothing was measured yet: no {}", raw.display()))?;
            serde_json::from_str(&text)?
        }
    };
    let text = fs::read_to_string(&page).with_context(|| format!("no {}", page.display()))?;
    let text = redraw(&text, &measured)?;
    if from == From::Measuring {
        fs::write(&raw, serde_json::to_string_pretty(&measured)? + "\n")?;
        println!("wrote {}", raw.display());
    }
    fs::write(&page, text)?;
    println!("wrote {}", page.display());
    Ok(())
}

type Draw = fn(&Measured) -> Table;

/// The page with every table drawn anew, between the marks that name it.
fn redraw(page: &str, measured: &Measured) -> Result<String> {
    let tables: [(&str, Draw); 6] = [
        ("call", call),
        ("one-primary", one_primary),
        ("cluster", cluster),
        ("hot-key", hot_key),
        ("fleet", fleet_sizes),
        ("early", early),
    ];
    let mut page = page.to_owned();
    for (name, draw) in tables {
        let (open, close) = (format!("<!-- table: {name} -->\n"), "<!-- end -->");
        let Some((before, rest)) = page.split_once(&open) else {
            bail!("the page has no {}", open.trim());
        };
        let Some((_, after)) = rest.split_once(close) else {
            bail!("the page's table {name} has no {close}");
        };
        page = format!("{before}{open}{}{close}{after}", draw(measured).markdown());
    }
    Ok(page)
}

// === The tables ===

fn call(measured: &Measured) -> Table {
    let mut table = Table::new(&[
        "requests in a call",
        "µs a call, measured",
        "by the line",
        "µs a request",
        "most requests/s of one primary",
    ]);
    for (requests, spread) in &measured.calls {
        let each = spread.median / *requests as f64;
        table.row([
            requests.to_string(),
            format!("{:.1} ({:.1}–{:.1})", spread.median, spread.min, spread.max),
            format!("{:.1}", measured.cost.of(requests * CHECKS)),
            format!("{each:.1}"),
            thousands(1e6 / each),
        ]);
    }
    table
}

fn one_primary(measured: &Measured) -> Table {
    let mut table = Table::new(&[
        "gateways",
        "offered/s",
        "answered/s",
        "primary busy",
        "requests in a call",
        "p50 µs",
        "p99 µs",
    ]);
    let policy = Policy {
        global: Global::Keys(1),
        own_limits: OWN_LIMITS,
    };
    for (gateways, rate) in [
        (2, 5e3),
        (2, 20e3),
        (10, 20e3),
        (10, 50e3),
        (10, 100e3),
        (50, 50e3),
        (50, 100e3),
        (50, 200e3),
    ] {
        let seen = simulate(measured, gateways, rate, 1, policy);
        table.row([
            gateways.to_string(),
            thousands(rate),
            thousands(seen.throughput),
            percent(seen.hottest),
            format!("{:.1}", seen.batch / CHECKS as f64),
            thousands(seen.p50_us),
            thousands(seen.p99_us),
        ]);
    }
    table
}

fn cluster(measured: &Measured) -> Table {
    let mut table = Table::new(&[
        "primaries",
        "requests/s at 60 %",
        "busiest, simulated",
        "p50 µs",
        "p99 µs",
    ]);
    for primaries in [3, 6, 12, 24, 48] {
        let rate = carries(measured.cost, primaries, OWN_LIMITS as f64);
        let seen = simulate(measured, 100, rate, primaries, own_only());
        table.row([
            primaries.to_string(),
            thousands(rate),
            percent(seen.hottest),
            thousands(seen.p50_us),
            thousands(seen.p99_us),
        ]);
    }
    table
}

fn hot_key(measured: &Measured) -> Table {
    let mut table = Table::new(&[
        "limit for everybody",
        "answered/s",
        "busiest primary",
        "average primary",
        "p50 µs",
        "p99 µs",
    ]);
    let (gateways, primaries) = (100, 12);
    let rate = carries(measured.cost, primaries, OWN_LIMITS as f64);
    let globals = [
        ("none", Global::None),
        ("one key", Global::Keys(1)),
        ("4 keys", Global::Keys(4)),
        ("12 keys", Global::Keys(12)),
        ("lease of 10", Global::Leased(10)),
        ("lease of 100", Global::Leased(100)),
        ("lease of 1,000", Global::Leased(1_000)),
    ];
    for (name, global) in globals {
        let policy = Policy {
            global,
            own_limits: OWN_LIMITS,
        };
        let seen = simulate(measured, gateways, rate, primaries, policy);
        table.row([
            name.to_owned(),
            thousands(seen.throughput),
            percent(seen.hottest),
            percent(seen.average),
            thousands(seen.p50_us),
            thousands(seen.p99_us),
        ]);
    }
    table
}

fn fleet_sizes(measured: &Measured) -> Table {
    let mut table = Table::new(&[
        "requests/s",
        "gateways",
        "a request asks about",
        "primaries at 60 %",
        "busiest, simulated",
        "p99 µs",
    ]);
    for (rate, gateways, lease) in [(1e5, 10, 100), (1e6, 100, 1_000), (1e7, 1_000, 10_000)] {
        for (own_limits, own) in [(2, "user and address"), (1, "user")] {
            let what = format!("{own}; everybody leased at {}", thousands(lease as f64));
            let primaries = needs(measured.cost, rate, own_limits as f64);
            let policy = Policy {
                global: Global::Leased(lease),
                own_limits,
            };
            let seen = simulate(measured, gateways, rate, primaries, policy);
            table.row([
                thousands(rate),
                thousands(gateways as f64),
                what,
                primaries.to_string(),
                percent(seen.hottest),
                thousands(seen.p99_us),
            ]);
        }
        // A worker that asks once for ten requests of a caller asks a tenth as often.
        let primaries = needs(measured.cost, rate, OWN_LIMITS as f64 / 10.0);
        table.row([
            thousands(rate),
            thousands(gateways as f64),
            "all leased at 10, callers that stay with a worker".to_owned(),
            primaries.to_string(),
            "–".to_owned(),
            "–".to_owned(),
        ]);
    }
    table
}

/// How far a limit for everybody may refuse before it is used up, at most.
fn early(_: &Measured) -> Table {
    let mut table = Table::new(&[
        "workers",
        "limit",
        "lease of 10",
        "lease of 100",
        "lease of 1,000",
        "lease of 10,000",
        "12 keys",
    ]);
    for (workers, limit) in [(8, 1e5), (400, 1e6), (400, 6e7), (4_000, 6e8)] {
        let leased = |size: f64| share(workers as f64 * size / limit);
        table.row([
            thousands(workers as f64),
            thousands(limit),
            leased(10.0),
            leased(100.0),
            leased(1_000.0),
            leased(10_000.0),
            share(3.0 * (12.0_f64 / limit).sqrt()),
        ]);
    }
    table
}

// === The arithmetic ===

fn own_only() -> Policy {
    Policy {
        global: Global::None,
        own_limits: OWN_LIMITS,
    }
}

/// Requests a second that keep so many primaries at [`FULL`], where each asks about `own` keys, each
/// in a script call of its own.
fn carries(cost: Cost, primaries: usize, own: f64) -> f64 {
    FULL * primaries as f64 * 1e6 / (own * cost.of(1))
}

fn needs(cost: Cost, rate: f64, own: f64) -> usize {
    ((rate * own * cost.of(1) / 1e6 / FULL).ceil() as usize).max(3)
}

fn simulate(
    measured: &Measured,
    gateways: usize,
    rate: f64,
    primaries: usize,
    policy: Policy,
) -> Seen {
    let fleet = Fleet {
        gateways,
        workers: WORKERS,
        rate,
    };
    let store = Store {
        primaries,
        cost: measured.cost,
        round_trip_us: ROUND_TRIP_US,
    };
    fleet::run(fleet, store, policy, REQUESTS)
}

// === Words ===

struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
        let rule = head.iter().map(|_| "---".to_owned()).collect();
        Self {
            rows: vec![head, rule],
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn markdown(&self) -> String {
        self.rows
            .iter()
            .map(|cells| format!("| {} |\n", cells.join(" | ")))
            .collect()
    }
}

/// Three digits that count, and commas.
fn thousands(number: f64) -> String {
    let digits = number.abs().max(1.0).log10().floor() as i32;
    let unit = 10f64.powi((digits - 2).max(0));
    let rounded = ((number / unit).round() * unit) as u64;
    let digits = rounded.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn share(share: f64) -> String {
    match share {
        share if share >= 1.0 => "all of it".to_owned(),
        share => format!("{:.2} %", share * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        call_us: 9.0,
        check_us: 3.0,
    };

    #[test]
    fn numbers_are_written_with_three_digits_that_count() {
        let table = [
            (7.4, "7"),
            (1234.0, "1,230"),
            (98_765.0, "98,800"),
            (1e7, "10,000,000"),
        ];
        for (number, text) in table {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn what_primaries_carry_and_what_a_rate_needs_agree() {
        let rate = carries(COST, 12, 2.0);
        assert!((rate - 300_000.0).abs() < 1e-6);
        assert_eq!(needs(COST, rate, 2.0), 12);
        assert_eq!(needs(COST, rate + 1.0, 2.0), 13);
        assert_eq!(needs(COST, 1.0, 2.0), 3, "a cluster has three at least");
    }

    #[test]
    fn a_page_without_its_marks_is_refused() {
        let measured = Measured {
            redis: String::new(),
            calls: Vec::new(),
            cost: COST,
        };
        let error = redraw("<!-- table: call -->\n<!-- end -->", &measured).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the page has no <!-- table: one-primary -->"
        );
    }
}
