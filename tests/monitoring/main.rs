//! What `monitoring/` asks Prometheus, held against a running Weir: alert rules by promtool and their
//! own tests, every query of dashboard and alerts by a real Prometheus that scrapes a real Envoy.
//! Where promtool or Prometheus is missing, the cases that need it say so; the names are checked anyway.

mod prometheus;
mod queries;
mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use weir_lab::place;

use crate::prometheus::Prometheus;
use crate::queries::Query;
use crate::scene::Scene;

fn file(name: &str) -> PathBuf {
    place::project().join("monitoring").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// The program's path, or a word on what is not proven without it.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no {name} on the PATH (Debian: apt-get install prometheus)");
    }
    found
}

#[test]
fn each_alert_fires_where_it_should_and_stays_quiet_for_what_is_near() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let output = Command::new(promtool)
        .args(["test", "rules"])
        .arg(file("alerts.test.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// An alert that nobody tried, or that sends its reader nowhere, is worse than none.
#[test]
fn each_alert_has_a_test_and_a_section_in_the_guide() {
    let (alerts, tests) = (text("alerts.yaml"), text("alerts.test.yaml"));
    let guide = fs::read_to_string(place::project().join("docs/operating.md")).unwrap();
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        assert!(guide.contains(&format!("### {name}\n")), "{name}");
        let anchor = format!("/operating.md#{}\"\n", name.to_lowercase());
        assert!(alerts.contains(&anchor), "{name}");
    }
}

/// The queries of the dashboard find something, each of them, while a Weir lives through a day of an
/// operator's in a minute: callers within and above their limits, rules on trial, Redis dying.
#[test]
fn every_query_finds_what_a_running_weir_tells() {
    let queries: Vec<Query> = queries::of_dashboard(&text("dashboard.json"))
        .into_iter()
        .chain(queries::of_alerts(&text("alerts.yaml")))
        .collect();
    assert!(queries.len() > 30, "{}", queries.len());
    let scene = Scene::play();

    let scraped = scene.scrape();
    for query in &queries {
        for (name, labels) in query.series() {
            let found = scraped.iter().any(|(known, known_labels)| {
                *known == name
                    && labels.iter().all(|(label, values)| {
                        known_labels
                            .get(label)
                            .is_some_and(|value| values.is_empty() || values.contains(value))
                    })
            });
            assert!(found, "{}: no {name} {labels:?} in the scrape", query.title);
        }
    }

    let Some(program) = program("prometheus") else {
        return;
    };
    let prometheus = Prometheus::watch(&program, &scene).unwrap();
    let finds = |query: &&Query| query.is_always_there && !prometheus.finds(&query.expression);
    let mut left: Vec<&Query> = queries.iter().filter(|query| finds(query)).collect();
    scene.live_until(|| {
        left.retain(finds);
        left.is_empty()
    });
    let left: BTreeSet<&str> = left.iter().map(|query| query.title.as_str()).collect();
    assert!(left.is_empty(), "these queries find nothing: {left:?}");
}
