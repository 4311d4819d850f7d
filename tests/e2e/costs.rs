//! Requests that cost more than one permit, before or after they are served.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::gateway::Policy;

use crate::visitor::{Visitor, number, remaining, unique};
use crate::world::{SOON, World};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    a_rule_has_a_cost,
    a_trusted_caller_says_the_cost_and_a_stranger_does_not,
    a_cost_that_cannot_be_read_is_told,
    a_cost_that_never_fits_is_never_promised,
    a_response_is_charged_for_and_a_debt_refuses,
    a_response_that_costs_nothing_gives_back_what_was_held,
    what_remains_falls_by_what_the_response_cost,
    a_cost_that_a_response_states_twice_is_the_default,
    a_debt_is_paid_by_time,
    whoever_leaves_before_the_response_pays_for_an_unfinished_one,
    nobody_waits_for_a_charge,
];

/// What the status says is used of the caller's own limit.
fn used(visitor: &Visitor, rule: &str) -> u64 {
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    status["rate_limits"][rule]["current_usage"]
        .as_u64()
        .unwrap_or_else(|| panic!("{rule}: {status}"))
}

/// A charge is on its way when the response is: the status comes to tell it.
fn comes_to_use(visitor: &Visitor, rule: &str, expected: u64) {
    let is_so = || Ok((used(visitor, rule) == expected).then_some(()));
    deadline::poll(SOON, "charge", is_so)
        .unwrap_or_else(|_| panic!("{} of {rule}, not {expected}", used(visitor, rule)));
}

fn served(visitor: &Visitor, path: &str, costs: &str) -> Answer {
    let request = visitor
        .request("GET", path)
        .header("x-answer-x-used", costs);
    request.send().unwrap()
}

fn a_rule_has_a_cost(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    for left in [6, 2] {
        assert_eq!(remaining(&visitor.get("/dear/x")), left);
    }
    let refused = visitor.get("/dear/x");
    assert_eq!((refused.status, remaining(&refused)), (429, 2));
    // Two more are there in a month's tenth of twice.
    let wait = number(&refused, "retry-after");
    assert!((518_000..=518_400).contains(&wait), "{wait}");
    let log = world.rollout().log();
    assert!(log.contains("rule dear pattern /dear/* priority 100 cost 4: "));
    assert!(log.contains(" cost by request header x-cost default 2 max 50: "));
    assert!(log.contains(" cost by response header x-used default 0 max 100: "));
}

fn a_trusted_caller_says_the_cost_and_a_stranger_does_not(world: &World) {
    let gateway = world.rollout();
    let visitor = Visitor::of_tier(gateway, "free");
    let costly =
        |visitor: &Visitor, cost: &str| visitor.clone().with("X-Cost", cost).get("/declared/x");
    assert_eq!(remaining(&visitor.get("/declared/x")), 18);
    assert_eq!(remaining(&costly(&visitor, "11")), 7);
    assert_eq!(costly(&visitor, "0").status, 200);
    assert_eq!(costly(&visitor, "8").status, 429);
    assert_eq!(remaining(&costly(&visitor, "7")), 0);
    let stranger = Visitor::distrusted(gateway);
    assert_eq!(remaining(&costly(&stranger, "1")), 18);
    assert_eq!(remaining(&costly(&stranger, "lots")), 16);
    // The header is no identity: it goes on to the upstream, from whomever it is.
    let told = costly(&stranger, "9").json().unwrap();
    let headers = told["headers"].as_array().unwrap();
    assert!(
        headers.contains(&serde_json::json!(["x-cost", "9"])),
        "{told}"
    );
}

fn a_cost_that_cannot_be_read_is_told(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    let bad = ["much", "1.5", "-1", "\u{e9}"].map(|cost| visitor.clone().with("X-Cost", cost));
    let twice = visitor.clone().with("X-Cost", "1").with("X-Cost", "1");
    for visitor in bad.iter().chain([&twice]) {
        let answer = visitor.get("/declared/x");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(
            answer.json().unwrap()["message"],
            "The header x-cost holds no cost; send it once, as a whole number."
        );
    }
    assert_eq!(used(&visitor, "declared"), 0);
}

fn a_cost_that_never_fits_is_never_promised(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    let answer = visitor.clone().with("X-Cost", "1000").get("/declared/x");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.json().unwrap()["details"]["never"], true);
    assert_eq!(remaining(&visitor.get("/declared/x")), 18);
}

fn a_response_is_charged_for_and_a_debt_refuses(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    let answer = served(&visitor, "/metered/x", "4");
    assert_eq!(
        (answer.status, answer.header("x-used")),
        (200, Some("4".to_owned()))
    );
    comes_to_use(&visitor, "metered", 4);
    assert_eq!(served(&visitor, "/metered/x", "31").status, 200);
    comes_to_use(&visitor, "metered", 35);
    let refused = served(&visitor, "/metered/x", "1");
    assert_eq!((refused.status, remaining(&refused)), (429, 0));
    let wait = number(&refused, "retry-after");
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    assert_eq!(used(&visitor, "metered"), 35);
}

fn a_response_that_costs_nothing_gives_back_what_was_held(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    for cost in ["0", "", "some"] {
        assert_eq!(served(&visitor, "/metered/x", cost).status, 200);
        comes_to_use(&visitor, "metered", 0);
    }
    assert_eq!(visitor.get("/metered/x").status, 200);
    comes_to_use(&visitor, "metered", 0);
}

fn what_remains_falls_by_what_the_response_cost(world: &World) {
    let limit = json!({ "type": "token_bucket", "limit": 100, "window": 2_592_000 });
    let rule = json!({
        "name": "llm", "pattern": "/llm/*",
        "cost": { "response_header": "X-Used", "default": 1, "max": 1000 },
        "user_limits": { "default": limit },
    });
    let policy = json!({ "headers": ["x-ratelimit", "ietf"], "rules": [rule] });
    let gateway = world.gateway().policy(Policy::Text(policy.to_string()));
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    for (cost, left) in [("60", 40), ("0", 40), ("30", 10), ("50", 0)] {
        let answer = served(&visitor, "/llm/x", cost);
        assert_eq!((answer.status, remaining(&answer)), (200, left), "{cost}");
        assert_eq!(answer.all("x-ratelimit-remaining").len(), 1);
        let ietf = answer.header("ratelimit").unwrap();
        assert!(ietf.contains(&format!(";r={left};")), "{ietf}");
        // The charge is on its way.
        comes_to_use(&visitor, "llm", if cost == "50" { 140 } else { 100 - left });
    }
    assert_eq!(served(&visitor, "/llm/x", "1").status, 429);
}

fn a_cost_that_a_response_states_twice_is_the_default(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    let twice = visitor.clone().with("x-answer-x-used", "9");
    let answer = served(&twice, "/metered/x", "9");
    assert_eq!((answer.status, answer.all("x-used").len()), (200, 2));
    comes_to_use(&visitor, "metered", 0);
}

fn a_debt_is_paid_by_time(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    // Five a second: fifteen beyond what the bucket holds are three seconds.
    let begun = Instant::now();
    assert_eq!(served(&visitor, "/brief/x", "25").status, 200);
    let passes = || Ok((visitor.get("/brief/x").status == 200).then_some(()));
    let first = visitor.get("/brief/x");
    deadline::poll(SOON, "end of the debt", passes).unwrap();
    let waited = begun.elapsed();
    assert!(
        first.status == 429 || waited > Duration::from_secs(3),
        "{first:?}"
    );
    assert!(waited > Duration::from_millis(2_900), "{waited:?}");
}

fn whoever_leaves_before_the_response_pays_for_an_unfinished_one(world: &World) {
    let gateway = world.rollout();
    let id = unique("impatient");
    let visitor = Visitor::anonymous(gateway).named(&id);
    let mut connection = TcpStream::connect(gateway.address()).unwrap();
    let request = format!(
        "GET /metered/x HTTP/1.1\r\nhost: x\r\nx-user-id: {id}\r\nx-answer-after-ms: 3000\r\n\
         x-answer-x-used: 9\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).unwrap();
    comes_to_use(&visitor, "metered", 1);
    drop(connection);
    comes_to_use(&visitor, "metered", 100);
}

/// The response goes on in the turn in which it came: the charge is sent after it.
fn nobody_waits_for_a_charge(world: &World) {
    let fragile = world.fragile();
    let visitor = Visitor::of_tier(&fragile.gateway, "free");
    let request = visitor
        .request("GET", "/metered/x")
        .header("x-answer-after-ms", "400");
    let request = request.header("x-answer-x-used", "3");
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let begun = Instant::now();
            (request.send().unwrap(), begun.elapsed())
        });
        comes_to_use(&visitor, "metered", 1);
        fragile.redis.pause().unwrap();
        answer.join().unwrap()
    });
    fragile.redis.resume().unwrap();
    let (answer, took) = answer;
    assert_eq!(answer.status, 200);
    assert!(
        took < Duration::from_millis(400) + crate::failure::TIMEOUT,
        "{took:?}"
    );
}
