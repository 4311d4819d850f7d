//! Many clients at once, on both workers: limits hold to the request.

use std::collections::BTreeMap;

use weir_lab::client::Answer;
use weir_lab::gateway::Gateway;

use crate::crowd::rush;
use crate::visitor::{Visitor, remaining, unique};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    each_algorithm_admits_exactly_the_limit_of_each_user,
    each_algorithm_admits_exactly_the_limit_for_everybody,
    a_crowd_that_meets_two_limits_leaves_both_exact,
    an_enterprise_user_has_exactly_ten_thousand,
    both_workers_take_part,
];

const CLIENTS: usize = 64;
const ALGORITHMS: [&str; 4] = [
    "fixed_window",
    "sliding_window",
    "token_bucket",
    "leaky_bucket",
];

/// Each of `visitors` asks `times`, spread over all clients; what each was answered.
fn crowd(gateway: &Gateway, visitors: &[Visitor], path: &str, times: usize) -> Vec<Vec<Answer>> {
    let requests = visitors.len() * times;
    let answers = rush(CLIENTS, |client| {
        let connection = visitors[0].apart(gateway);
        let own = (client..requests).step_by(CLIENTS);
        let ask = |request: usize| {
            let who = request % visitors.len();
            (who, visitors[who].over(&connection).get(path))
        };
        own.map(ask).collect::<Vec<_>>()
    });
    let mut by_visitor = vec![Vec::new(); visitors.len()];
    for (who, answer) in answers.into_iter().flatten() {
        by_visitor[who].push(answer);
    }
    by_visitor
}

/// Those that passed each saw another number of requests left: `limit` − 1 down to 0.
fn assert_exactly(limit: u64, answers: &[Answer], what: &str) {
    let (passed, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(refused.iter().all(|answer| answer.status == 429), "{what}");
    let mut left: Vec<u64> = passed.into_iter().map(remaining).collect();
    left.sort_unstable();
    assert_eq!(left, (0..limit).collect::<Vec<_>>(), "{what}");
}

fn each_algorithm_admits_exactly_the_limit_of_each_user(world: &World) {
    let gateway = world.workshop();
    for algorithm in ALGORITHMS {
        let visitors: Vec<_> = (0..3).map(|_| Visitor::of_tier(gateway, "free")).collect();
        let path = format!("/crowd/{algorithm}");
        for answers in crowd(gateway, &visitors, &path, 200) {
            assert_exactly(150, &answers, algorithm);
        }
    }
}

fn each_algorithm_admits_exactly_the_limit_for_everybody(world: &World) {
    let gateway = world.workshop();
    for algorithm in ALGORITHMS {
        let visitors: Vec<_> = (0..20).map(|_| Visitor::of_tier(gateway, "free")).collect();
        let path = format!("/everybody/{algorithm}");
        let answers = crowd(gateway, &visitors, &path, 20).concat();
        assert_exactly(300, &answers, algorithm);
    }
}

/// 120 for everybody, 50 for each of four: what the limit for everybody refuses must not count.
fn a_crowd_that_meets_two_limits_leaves_both_exact(world: &World) {
    let gateway = world.workshop();
    let visitors: Vec<_> = (0..4).map(|_| Visitor::of_tier(gateway, "free")).collect();
    let answers = crowd(gateway, &visitors, "/shared/x", 80);
    let passed = |answers: &Vec<Answer>| answers.iter().filter(|a| a.status == 200).count() as u64;
    assert_eq!(answers.iter().map(passed).sum::<u64>(), 120);
    for (visitor, answers) in visitors.iter().zip(&answers) {
        let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
        let limits = status["rate_limits"]["shared"]["limits"]
            .as_array()
            .unwrap();
        let used: BTreeMap<_, _> = limits
            .iter()
            .map(|limit| {
                (
                    limit["scope"].as_str().unwrap(),
                    limit["current_usage"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            used,
            BTreeMap::from([("global", 120), ("user", passed(answers))])
        );
    }
}

/// From so many addresses that none of them runs into its own limit.
fn an_enterprise_user_has_exactly_ten_thousand(world: &World) {
    let gateway = world.reference();
    let id = unique("enterprise");
    let answers = rush(CLIENTS, |_| {
        let visitor = Visitor::anonymous(gateway).named(&id).tier("enterprise");
        let statuses = (0..160).map(|_| visitor.get("/api/v1/items").status);
        statuses.filter(|status| *status == 200).count()
    });
    assert_eq!(answers.iter().sum::<usize>(), 10_000);
}

/// Else the cases above would prove little.
fn both_workers_take_part(world: &World) {
    let gateway = world.workshop();
    let visitor = Visitor::anonymous(gateway);
    rush(CLIENTS, |_| {
        assert_eq!(visitor.apart(gateway).get("/web").status, 200)
    });
    for worker in 0..2 {
        // Envoy's name for a listener is the address it was configured with.
        let stat = format!("listener.127.0.0.1_0.worker_{worker}.downstream_cx_total");
        let connections = gateway.stat(&stat).unwrap();
        assert!(
            connections.is_some_and(|count| count > 0),
            "{stat}: {connections:?}"
        );
    }
}
