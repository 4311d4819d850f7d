//! Plots as SVG: bars of what systems cost, and lines of how a cost grows. They are written by hand
//! and not by a plotting crate, because those write colours into every shape; here a style sheet holds
//! them, so that a plot follows its reader from light to dark.

use std::fmt::Write;

use crate::report::{FLAT, Point, Row, Sweep};
use crate::series::Spread;
use crate::table::thousands;

const WIDTH: f64 = 800.0;
const LABELS: f64 = 310.0;
const BAR: f64 = 20.0;
const GAP: f64 = 8.0;
const TOP: f64 = 44.0;
/// Room for the number behind the longest bar.
const NUMBERS: f64 = 110.0;
/// A bar beyond so many times plain Envoy's is broken off: it would make all others alike.
const BROKEN_ABOVE: f64 = 5.0;

const STYLE: &str = "<style>\
    text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}\
    .title{font-weight:600;font-size:14px}\
    .plain{fill:#8c959f}.weir{fill:#0969da}.other{fill:#bf8700}\
    .axis{stroke:#d1d9e0}.goal{stroke:#1a7f37;stroke-dasharray:4 3}.band{fill:#1a7f37;opacity:.12}\
    .spread{stroke:#1f2328}.line{stroke:#0969da;stroke-width:2;fill:none}.cut{stroke:#fff;stroke-width:4}\
    @media(prefers-color-scheme:dark){\
    text{fill:#f0f6fc}.small{fill:#9198a1}.plain{fill:#656c76}.weir{fill:#4493f8}.other{fill:#d29922}\
    .axis{stroke:#3d444d}.goal{stroke:#3fb950}.band{fill:#3fb950}.spread{stroke:#f0f6fc}\
    .line{stroke:#4493f8}.cut{stroke:#0d1117}}</style>";

/// What a request costs with each system, cheapest first, plain Envoy on top.
pub fn bars(title: &str, rows: &[&Row]) -> String {
    let Some((plain, others)) = rows.split_first() else {
        return String::new();
    };
    let cost = |row: &Row| row.spread(|sample| sample.cost_us());
    let mut measured: Vec<(&Row, Spread)> = others
        .iter()
        .filter_map(|row| Some((*row, cost(row)?)))
        .collect();
    measured.sort_by(|(_, one), (_, other)| one.median.total_cmp(&other.median));
    let Some(base) = cost(plain) else {
        return String::new();
    };
    measured.insert(0, (plain, base));
    let longest = measured
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(0.0, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / longest.min(base.median * BROKEN_ABOVE);

    let height = TOP + measured.len() as f64 * (BAR + GAP) + 8.0;
    let mut svg = begin(title, height);
    let _ = write!(
        svg,
        "<text class='small' x='{LABELS}' y='36'>CPU of a request in µs, all processes; median, least and most of the rounds</text>"
    );
    for (place, (row, spread)) in measured.iter().enumerate() {
        let y = TOP + place as f64 * (BAR + GAP);
        let class = match place {
            0 => "plain",
            _ if row.name.starts_with("Weir") => "weir",
            _ => "other",
        };
        let most = base.median * BROKEN_ABOVE;
        let is_broken = spread.max > most;
        let width = spread.median.min(most) * scale;
        let middle = y + BAR / 2.0;
        let _ = write!(
            svg,
            "<text x='{}' y='{}' text-anchor='end'>{}</text>\
             <rect class='{class}' x='{LABELS}' y='{y}' width='{width:.1}' height='{BAR}' rx='2'/>",
            LABELS - 8.0,
            middle + 4.5,
            escaped(&row.name),
        );
        let mut end = width;
        if is_broken {
            let x = LABELS + width - 26.0;
            let _ = write!(
                svg,
                "<line class='cut' x1='{}' y1='{}' x2='{x}' y2='{}'/>",
                x + 8.0,
                y - 2.0,
                y + BAR + 2.0
            );
        } else {
            let (least, farthest) = (LABELS + spread.min * scale, LABELS + spread.max * scale);
            let _ = write!(
                svg,
                "<line class='spread' x1='{least:.1}' y1='{middle}' x2='{farthest:.1}' y2='{middle}'/>"
            );
            end = spread.max * scale;
        }
        let ratio = row.ratio(plain).map_or(0.0, |ratio| ratio.median);
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{}'>{:.0} <tspan class='small'>({ratio:.2}×)</tspan></text>",
            LABELS + end + 8.0,
            middle + 4.5,
            spread.median,
        );
    }
    svg + "</svg>\n"
}

const PLOT_HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// How the cost grows with one number, and the band within which it is called flat.
pub fn line(title: &str, sweep: &Sweep) -> String {
    let measured: Vec<(&Point, Spread)> = sweep
        .points
        .iter()
        .filter_map(|point| Some((point, sweep.relative(point)?)))
        .collect();
    let Some(((first, _), (last, _))) = measured.first().zip(measured.last()) else {
        return String::new();
    };
    let most = measured
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(1.5, f64::max);
    let decades = (last.at as f64 / first.at as f64)
        .log10()
        .max(f64::MIN_POSITIVE);
    let x = |at: u64| {
        LEFT + 20.0
            + (at as f64 / first.at as f64).log10() / decades * (WIDTH - LEFT - RIGHT - 60.0)
    };
    let floor = TOP + PLOT_HEIGHT;
    let y = |value: f64| floor - value / (most * 1.05) * PLOT_HEIGHT;

    let what = match first.plain {
        None => "CPU of a request",
        Some(_) => "CPU of a request as a multiple of plain Envoy's",
    };
    let mut svg = begin(title, floor + BOTTOM);
    let right = WIDTH - RIGHT;
    let (above, below) = (y(FLAT), y(1.0 / FLAT));
    let _ = write!(
        svg,
        "<text class='small' x='{LEFT}' y='36'>{what}, × the first point; the band is ±10 %</text>\
         <rect class='band' x='{LEFT}' y='{above:.1}' width='{}' height='{:.1}'/>",
        right - LEFT,
        below - above,
    );
    for tick in [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0] {
        if tick <= most * 1.05 {
            let y = y(tick);
            let _ = write!(
                svg,
                "<line class='axis' x1='{LEFT}' y1='{y:.1}' x2='{right}' y2='{y:.1}'/>\
                 <text class='small' x='{}' y='{:.1}' text-anchor='end'>{tick}</text>",
                LEFT - 8.0,
                y + 4.0,
            );
        }
    }
    let points: Vec<String> = measured
        .iter()
        .map(|(point, spread)| format!("{:.1},{:.1}", x(point.at), y(spread.median)))
        .collect();
    let _ = write!(
        svg,
        "<polyline class='line' points='{}'/>",
        points.join(" ")
    );
    for (point, spread) in &measured {
        let x = x(point.at);
        let _ = write!(
            svg,
            "<line class='spread' x1='{x:.1}' y1='{:.1}' x2='{x:.1}' y2='{:.1}'/>\
             <circle class='weir' cx='{x:.1}' cy='{:.1}' r='4'/>\
             <text class='small' x='{x:.1}' y='{}' text-anchor='middle'>{}</text>",
            y(spread.min),
            y(spread.max),
            y(spread.median),
            floor + 18.0,
            thousands(point.at),
        );
    }
    let _ = write!(
        svg,
        "<text class='small' x='{}' y='{}' text-anchor='middle'>{}</text>",
        f64::midpoint(LEFT, right),
        floor + 38.0,
        escaped(&sweep.of),
    );
    svg + "</svg>\n"
}

fn begin(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' role='img'>\
         <title>{title}</title>{STYLE}<text class='title' x='8' y='18'>{title}</text>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, row, sample};
    use crate::scenario::Scenario;

    #[test]
    fn bars_stand_in_order_with_plain_envoy_on_top() {
        let report = report();
        let dear = row("peer <x>", Scenario::Allowed, [sample(900.0, None, 1.0)]);
        let rows = [&report.rows[0], &dear, &report.rows[1]];
        let svg = bars("Allowed", &rows);
        let at = |text: &str| {
            svg.find(text)
                .unwrap_or_else(|| panic!("no {text} in {svg}"))
        };
        assert!(at("plain Envoy") < at("Weir, fixed windows"));
        assert!(at("Weir, fixed windows") < at("peer &lt;x&gt;"));
        // What would dwarf the others is broken off, and still says its number.
        assert!(
            svg.matches("class='cut'").count() == 1 && svg.contains(">900 "),
            "{svg}"
        );
        assert!(svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_line_has_a_point_for_each_that_was_measured() {
        let report = report();
        let svg = line("Rules", &report.sweeps[0]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(
            svg.contains(">100</text>") && svg.contains("class='band'"),
            "{svg}"
        );
        let empty = Sweep {
            of: "x".to_owned(),
            points: Vec::new(),
        };
        assert_eq!(line("x", &empty), "");
    }
}
