//! The queries of `monitoring/`, and the series that they name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub struct Query {
    /// Where it stands, for whoever has to mend it.
    pub title: String,
    /// With the dashboard's variables filled in.
    pub expression: String,
    /// Whether it finds something whenever Weir runs; an alert's finds something when it fires.
    pub is_always_there: bool,
}

/// A label with the values that it may have; any, where there are none. Only what Weir sets: where a
/// series comes from is Prometheus's to say.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

pub fn of_dashboard(json: &str) -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(json).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$instance", ".*")
                .replace("$rule", ".*")
                .replace("$__rate_interval", "2m");
            assert!(!expression.contains('$'), "{expression}");
            queries.push(Query {
                title: format!("dashboard, {}", panel["title"].as_str().unwrap()),
                expression,
                is_always_there: true,
            });
        }
    }
    queries
}

/// What follows `expr:` in each alert, in one line or as a block.
pub fn of_alerts(yaml: &str) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut lines = yaml.lines().peekable();
    let mut title = "";
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            title = name;
        }
        let Some(first) = line.trim().strip_prefix("expr: ") else {
            continue;
        };
        let mut expression = first.trim_start_matches('|').to_owned();
        if first == "|" {
            while let Some(more) = lines.next_if(|line| line.starts_with("      ")) {
                expression = expression + " " + more.trim();
            }
        }
        queries.push(Query {
            title: format!("alert {title}"),
            expression,
            is_always_there: false,
        });
    }
    queries
}

impl Query {
    /// The names of Weir's series in it, with the labels that are asked for.
    pub fn series(&self) -> Vec<(String, Labels)> {
        let mut series = Vec::new();
        for (at, _) in self.expression.match_indices("weir_") {
            let (before, word) = self.expression.split_at(at);
            let end = word
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(word.len());
            let (name, after) = word.split_at(end);
            // Labels are named weir_… too: in matchers and behind "by".
            let is_series = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                && (after.starts_with(['{', '[', ')', ' ']) || after.is_empty())
                && !names_label(before);
            if is_series {
                series.push((name.to_owned(), labels(after)));
            }
        }
        series
    }
}

/// Whether what comes next stands in a `by (…)`.
fn names_label(before: &str) -> bool {
    before
        .rsplit_once('(')
        .is_some_and(|(head, inside)| head.trim_end().ends_with("by") && !inside.contains(')'))
}

fn labels(after: &str) -> Labels {
    let matchers = after
        .strip_prefix('{')
        .and_then(|inside| inside.split_once('}'))
        .map_or("", |(matchers, _)| matchers);
    let matchers = matchers
        .split(',')
        .filter(|matcher| matcher.starts_with("weir_"));
    matchers
        .map(|matcher| {
            let (name, value) = matcher.split_once('=').unwrap();
            let value = value.trim_start_matches('~').trim_matches('"');
            let values = value.split('|').filter(|value| *value != ".*");
            (name.to_owned(), values.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn a_querys_series_are_told_from_its_labels() {
    let query = Query {
        title: String::new(),
        expression:
            "sum by (weir_rule, weir_scope) (rate(weir_requests_total{instance=~\".*\",weir_rule=~\".*\",\
                     weir_outcome=~\"allowed|delayed\"}[2m])) > sum(weir_breaker_open_lanes)"
                .to_owned(),
        is_always_there: true,
    };
    let either = ["allowed", "delayed"].map(str::to_owned);
    let labels = Labels::from([
        ("weir_rule".to_owned(), BTreeSet::new()),
        ("weir_outcome".to_owned(), either.into()),
    ]);
    assert_eq!(
        query.series(),
        [
            ("weir_requests_total".to_owned(), labels),
            ("weir_breaker_open_lanes".to_owned(), Labels::new()),
        ]
    );
}
