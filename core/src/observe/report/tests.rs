use std::rc::Rc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::observe::counters::Series;
use crate::policy::ids::Scope;
use crate::request::subject::Subject;

const NOW: WallTime = WallTime(1_700_000_005_000_000);

fn ago(seconds: u64) -> WallTime {
    WallTime(NOW.0 - seconds * 1_000_000)
}

/// A worker that refused ann so often and let one pass, so long ago.
fn view(seconds: u64, denied: u32) -> View {
    let mut view = View {
        at: ago(seconds),
        version: 3,
        lanes: 1,
        open_lanes: 1,
        opened: 2,
        shut_at: ago(seconds + 60),
        last_error: "READONLY You can't write".to_string(),
        ..View::default()
    };
    let rule: Rc<str> = "api".into();
    let interval = view.traffic.now(ago(seconds)).unwrap();
    let count = |count| Series::Rule {
        rule: 0,
        scope: Scope::User,
        count,
    };
    interval.add(Series::Decision(Outcome::Denied), None, denied);
    interval.add(Series::Decision(Outcome::Allowed), None, 1);
    interval.add(Series::Degraded(Degraded::Local), None, 4);
    interval.add(count(Count::Denied), Some(&rule), denied);
    interval.add(count(Count::Allowed), Some(&rule), 1);
    interval.add(count(Count::Allowed), Some(&"other".into()), 1);
    interval.calls += 2;
    interval.failures += 1;
    interval.check_requests += 5;
    interval.latency.add(Span::micros(300));
    interval.latency.add(Span::micros(300));
    view.heavy_hitters.age(ago(seconds));
    for _ in 0..denied {
        view.heavy_hitters
            .refused(&Subject::User(b"ann".to_vec()), &By::Rule(rule.clone()));
    }
    view
}

fn told(views: &[View]) -> Value {
    let answer = report(views, &Node::default(), &[], Version(3), NOW);
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

fn sum(list: &Value) -> u64 {
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), INTERVALS);
    list.iter().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn the_views_of_all_workers_are_put_together() {
    let report = told(&[view(0, 7), view(12, 5)]);
    assert_eq!(report["scope"], "this gateway");
    assert_eq!(report["timestamp"], 1_700_000_005u64);
    assert_eq!(report["workers"], json!({"seen": 2, "active": 2}));
    assert_eq!(report["policy"], json!({"version": 3, "everywhere": true}));
    assert_eq!(report["from"], 1_700_000_000u64 - 890);
    assert_eq!(sum(&report["requests"]["denied"]), 12);
    assert_eq!(report["requests"]["denied"][89], 7);
    assert_eq!(report["requests"]["denied"][88], 5);
    assert_eq!(report["requests"]["denied"][87], 0);
    assert_eq!(report["rules"][0]["name"], "api");
    assert_eq!(sum(&report["rules"][0]["denied"]), 12);
    assert_eq!(sum(&report["rules"][1]["allowed"]), 2);
    assert!(report["rules"][1].get("denied").is_none());
    assert_eq!(
        report["degraded"],
        json!({"allow": 0, "local": 8, "deny": 0})
    );
    let store = &report["store"];
    assert_eq!((sum(&store["calls"]), sum(&store["failures"])), (4, 2));
    assert_eq!(store["open_lanes"], 2);
    assert_eq!(store["untried_lanes"], 0);
    let not_asked = &store["not_asked"];
    assert_eq!(not_asked["since"], 1_700_000_005u64 - 72);
    assert_eq!(not_asked["why"], "READONLY You can't write");
    assert!(not_asked["advice"].as_str().unwrap().contains("primary"));
    assert_eq!(store["batch_size"], 2.5);
    assert_eq!(store["latency_micros"], json!({"p50": 384, "p99": 384}));
    assert_eq!(
        report["heavy_hitters"],
        json!([{"kind": "user", "subject": "ann", "query": "user_id=ann", "rule": "api",
                "denied_at_least": 12, "denied_at_most": 12}])
    );
}

#[test]
fn a_worker_that_is_no_more_leaves_its_counts_and_nothing_of_its_store() {
    let report = told(&[view(0, 1), view(400, 8), view(1000, 40)]);
    assert_eq!(report["workers"], json!({"seen": 2, "active": 1}));
    assert_eq!(sum(&report["requests"]["denied"]), 9);
    assert_eq!(report["store"]["open_lanes"], 1);
    // Of eight that were long ago, two count.
    assert_eq!(report["heavy_hitters"][0]["denied_at_most"], 3);
}

/// Half of the lanes shut read as half of a Redis, when the other half had not been asked.
#[test]
fn a_lane_that_nobody_has_asked_since_is_not_told_as_one_that_is_well() {
    let idle = |seconds| View {
        answered_at: ago(seconds),
        open_lanes: 0,
        shut_at: WallTime(0),
        last_error: String::new(),
        ..view(0, 0)
    };
    let mut shut = view(0, 1);
    shut.shut_at = ago(5);
    for (other, untried) in [(idle(8), 1), (idle(5), 1), (idle(3), 0)] {
        let report = told(&[shut.clone(), other]);
        assert_eq!(report["store"]["untried_lanes"], untried);
        assert_eq!(report["store"]["open_lanes"], 1);
    }
    let well = told(&[idle(8), idle(3)]);
    assert_eq!(well["store"]["untried_lanes"], 0);
    assert_eq!(well["store"]["not_asked"], Value::Null);
}

#[test]
fn a_gateway_says_which_one_it_is_if_it_knows() {
    let node = Node {
        id: "edge-7".to_string(),
        cluster: "edge".to_string(),
    };
    let answer = report(&[], &node, &[], Version(3), NOW);
    let named: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&named["node"], &named["cluster"]),
        (&json!("edge-7"), &json!("edge"))
    );
    assert_eq!(told(&[])["node"], Value::Null);
}

#[test]
fn a_gateway_that_nobody_called_says_so() {
    let report = told(&[]);
    assert_eq!(report["workers"], json!({"seen": 0, "active": 0}));
    assert_eq!(report["requests"], json!({}));
    assert_eq!(
        report["store"]["latency_micros"],
        json!({"p50": null, "p99": null})
    );
    assert_eq!(report["store"]["batch_size"], Value::Null);
}

#[test]
fn a_view_that_waits_for_another_policy_is_told() {
    let old = View {
        version: 2,
        ..view(1, 0)
    };
    let report = told(&[view(0, 0), old]);
    assert_eq!(report["policy"], json!({"version": 3, "everywhere": false}));
}

#[test]
fn what_is_packed_comes_out_again_and_another_layout_does_not() {
    let view = view(0, 7);
    let packed = view.pack();
    let mut told = View::unpack(&packed).unwrap();
    // Where names are drafted is not told.
    told.heavy_hitters = view.heavy_hitters.clone();
    assert_eq!(told, view);
    for end in 0..packed.len() {
        assert_eq!(View::unpack(&packed[..end]), None);
    }
    let without_counts = Layout::of::<View>();
    assert_eq!(View::unpack(&without_counts.pack(&view)), None);
}

proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes: Vec<u8>) {
        View::unpack(&bytes);
        View::unpack(&[&LAYOUT.pack(&()), &bytes[..]].concat());
    }
}
