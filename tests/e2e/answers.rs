//! How an answer reads.

use std::time::Duration;

use serde_json::{Value, json};
use sfv::{BareItem, Item, List, ListEntry, Parser};
use weir_lab::client::Answer;

use crate::visitor::{Visitor, number, remaining, unique};
use crate::world::{World, wait_for_room};
use crate::{Case, cases, grpc};

pub const CASES: &[Case] = cases![
    a_refusal_by_a_fixed_window_reads_so,
    a_refusal_by_a_sliding_window_reads_so,
    a_refusal_by_a_token_bucket_reads_so,
    a_refusal_by_a_leaky_bucket_reads_so,
    what_passes_shows_its_tightest_limit,
    a_refused_head_request_has_headers_and_no_body,
    structured_fields_parse_and_agree_with_the_others,
    every_limit_that_applies_is_named_by_a_name_of_its_own,
    a_refusal_can_be_a_problem_document,
    a_grpc_call_is_refused_in_its_own_words,
    a_grpc_call_over_http_1_is_refused_in_its_own_words,
];

/// The first refusal, and how many passed before.
fn exhaust(visitor: &Visitor, path: &str) -> (usize, Answer) {
    let answers = (0..1000).map(|_| visitor.get(path));
    let refusal = answers.enumerate().find(|(_, answer)| answer.status != 200);
    refusal.expect("a thousand requests exceed every limit")
}

/// Checks all that a 429 says, and gives its `retry_after`.
fn assert_refusal(answer: &Answer, rule: &str, mut details: Value) -> u64 {
    let retry = number(answer, "retry-after");
    assert!(retry >= 1);
    details["retry_after"] = retry.into();
    let expected = json!({
        "error": "Rate limit exceeded",
        "message": format!("Too many requests. Rule: {rule}"),
        "retry_after": retry,
        "details": details,
    });
    assert_eq!((answer.status, answer.json().unwrap()), (429, expected));
    for (name, value) in [
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-envoy-ratelimited", "true".to_owned()),
        ("x-ratelimit-limit", details["limit"].to_string()),
        ("x-ratelimit-remaining", "0".to_owned()),
    ] {
        assert_eq!(answer.all(name), [value], "{name}");
    }
    assert!(number(answer, "x-ratelimit-reset") >= retry, "{answer:?}");
    assert_eq!(answer.all("ratelimit"), [""; 0], "not asked for");
    retry
}

fn a_refusal_by_a_fixed_window_reads_so(world: &World) {
    let window = Duration::from_secs(300);
    wait_for_room(window, Duration::from_secs(5));
    let (passed, answer) = exhaust(&Visitor::anonymous(world.reference()), "/api/v1/auth/login");
    assert_eq!(passed, 5);
    let details = json!({
        "rule": "auth_api", "scope": "user", "algorithm": "fixed_window",
        "limit": 5, "remaining": 0, "window": 300,
    });
    let retry = assert_refusal(&answer, "auth_api", details);
    // Both are the end of the window, which the clock says too.
    let left = 300 - crate::world::now().as_secs() % 300;
    assert!(
        (left..=left + 2).contains(&retry),
        "{retry} s, and {left} s are left"
    );
    assert_eq!(number(&answer, "x-ratelimit-reset"), retry);
}

fn a_refusal_by_a_sliding_window_reads_so(world: &World) {
    let (passed, answer) = exhaust(
        &Visitor::of_tier(world.reference(), "free"),
        "/api/v1/items",
    );
    assert_eq!(passed, 100);
    let details = json!({
        "rule": "general_api", "scope": "user", "algorithm": "sliding_window",
        "limit": 100, "remaining": 0, "window": 3600,
    });
    let retry = assert_refusal(&answer, "general_api", details);
    assert!((3580..=3600).contains(&retry), "{retry}");
}

fn a_refusal_by_a_token_bucket_reads_so(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    let (passed, answer) = exhaust(&visitor, "/api/v1/media/upload");
    assert_eq!(passed, 5);
    let details = json!({
        "rule": "upload_api", "scope": "user", "algorithm": "token_bucket",
        "limit": 10, "remaining": 0, "window": 3600, "capacity": 5, "refill_rate": 10.0 / 3600.0,
    });
    let retry = assert_refusal(&answer, "upload_api", details);
    // A token comes back every six minutes.
    assert!((340..=360).contains(&retry), "{retry}");
}

fn a_refusal_by_a_leaky_bucket_reads_so(world: &World) {
    let (passed, answer) = exhaust(
        &Visitor::of_tier(world.reference(), "free"),
        "/api/v1/search",
    );
    // One leaks every second.
    assert!((60..75).contains(&passed), "{passed}");
    let details = json!({
        "rule": "search_api", "scope": "user", "algorithm": "leaky_bucket",
        "limit": 60, "remaining": 0, "window": 60, "capacity": 60, "leak_rate": 1.0,
    });
    assert_eq!(assert_refusal(&answer, "search_api", details), 1);
}

fn what_passes_shows_its_tightest_limit(world: &World) {
    // The user's, of 5, before those of 100 and 200 that the general rule has.
    let visitor = Visitor::of_tier(world.reference(), "free");
    let answer = visitor.get("/api/v1/media/upload");
    let shown = (number(&answer, "x-ratelimit-limit"), remaining(&answer));
    assert_eq!(shown, (10, 4));
    let reset = number(&answer, "x-ratelimit-reset");
    assert!((355..=360).contains(&reset), "{reset}");
    assert_eq!(answer.header("x-envoy-ratelimited"), None);
    assert_eq!(answer.header("retry-after"), None);
    // Of equals the first in order of report: the user's 100 at the rule for everything.
    let premium = Visitor::of_tier(world.reference(), "premium");
    for left in (190..200).rev() {
        let answer = premium.get("/api/v1/items");
        let shown = (number(&answer, "x-ratelimit-limit"), remaining(&answer));
        assert_eq!(shown, (200, left));
    }
}

fn a_refused_head_request_has_headers_and_no_body(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    exhaust(&visitor, "/api/v1/media/upload");
    let answer = visitor
        .request("HEAD", "/api/v1/media/upload")
        .send()
        .unwrap();
    assert_eq!((answer.status, answer.body.len()), (429, 0));
    assert!(number(&answer, "retry-after") >= 1);
    let answer = visitor
        .request("POST", "/api/v1/media/upload")
        .send()
        .unwrap();
    assert_eq!(answer.status, 429);
}

fn structured_fields_parse_and_agree_with_the_others(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "premium");
    let answer = visitor.get("/identity/x");
    let name = "identity.user.premium".to_owned();
    assert_eq!(policies(&answer), [(name.clone(), 500, 2_592_000)]);
    let reset = number(&answer, "x-ratelimit-reset");
    assert_eq!(standings(&answer), [(name, 499, reset)]);

    let visitor = Visitor::anonymous(world.workshop()).moved_to("127.100.7.20");
    let answer = visitor.get("/networks/x");
    let name = "networks.ip.127.100.7.0/24".to_owned();
    assert_eq!(policies(&answer), [(name, 30, 2_592_000)]);
}

/// Two rules had one name for both of their limits, and one of the two was told.
fn every_limit_that_applies_is_named_by_a_name_of_its_own(world: &World) {
    let named = |name: &str, limit, window| (name.to_owned(), limit, window);
    let visitor = Visitor::of_tier(world.workshop(), "free");
    let answer = visitor.get("/list/x");
    let list = [
        named("list.user.default.3600s", 8, 3600),
        named("list.user.default.86400s", 5, 86400),
        named("list.user.default.2592000s", 7, 2_592_000),
    ];
    assert_eq!(policies(&answer), list);
    let left = standings(&answer);
    let left: Vec<_> = left
        .iter()
        .map(|(name, left, _)| (&**name, *left))
        .collect();
    let names = list.iter().map(|(name, ..)| name.as_str());
    assert_eq!(left, names.zip([7, 4, 6]).collect::<Vec<_>>());

    let (_, refusal) = exhaust(&visitor, "/pair/tight-last/x");
    let pair = policies(&refusal);
    assert_eq!(
        pair.last(),
        Some(&named("tight_last.user.default", 3, 3600))
    );
    assert!(pair.len() > 1, "{pair:?}");
    let left = standings(&refusal);
    let (name, left, reset) = left.last().unwrap();
    assert_eq!((name.as_str(), *left), ("tight_last.user.default", 0));
    assert!((3590..=3600).contains(reset), "{reset}");
}

/// `RateLimit-Policy`: of each its name, quota and window.
fn policies(answer: &Answer) -> Vec<(String, u64, u64)> {
    let items = items(answer, "ratelimit-policy").into_iter();
    let told = |item| (name(&item), parameter(&item, "q"), parameter(&item, "w"));
    items.map(told).collect()
}

/// `RateLimit`: of each its name, requests left and seconds to the reset.
fn standings(answer: &Answer) -> Vec<(String, u64, u64)> {
    let items = items(answer, "ratelimit").into_iter();
    let told = |item| (name(&item), parameter(&item, "r"), parameter(&item, "t"));
    items.map(told).collect()
}

fn items(answer: &Answer, header: &str) -> Vec<Item> {
    let values = answer.all(header);
    assert_eq!(values.len(), 1, "{header}: {values:?}");
    let list: List = Parser::new(&values[0]).parse().unwrap();
    let item = |entry| match entry {
        ListEntry::Item(item) => item,
        other => panic!("{header}: {other:?}"),
    };
    list.into_iter().map(item).collect()
}

fn name(item: &Item) -> String {
    match &item.bare_item {
        BareItem::String(name) => name.as_str().to_owned(),
        other => panic!("not a string: {other:?}"),
    }
}

fn parameter(item: &Item, name: &str) -> u64 {
    let (_, value) = item
        .params
        .iter()
        .find(|(key, _)| key.as_str() == name)
        .unwrap();
    match value {
        BareItem::Integer(value) => u64::try_from(i64::from(*value)).unwrap(),
        other => panic!("{name} is not an integer: {other:?}"),
    }
}

fn a_refusal_can_be_a_problem_document(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    let (passed, answer) = exhaust(&visitor, "/pair/tight-last/x");
    assert_eq!((passed, answer.status), (3, 429));
    assert_eq!(answer.all("content-type"), ["application/problem+json"]);
    let retry = number(&answer, "retry-after");
    let expected = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Too many requests. Rule: tight_last",
        "violated-policies": ["tight_last.user.default"],
        "retry_after": retry,
        "details": {
            "rule": "tight_last", "scope": "user", "algorithm": "sliding_window", "limit": 3,
            "remaining": 0, "window": 3600, "retry_after": retry,
        },
    });
    assert_eq!(answer.json().unwrap(), expected);
}

const RESOURCE_EXHAUSTED: &str = "8";

fn a_grpc_call_is_refused_in_its_own_words(world: &World) {
    let gateway = world.workshop();
    let id = unique("grpc");
    let call = |content_type: &str| {
        let headers = [("x-user-id", id.as_str()), ("content-type", content_type)];
        grpc::call(gateway.address(), "/pair/tight-first/Call", &headers).unwrap()
    };
    for _ in 0..3 {
        let passed = call("application/grpc");
        assert_eq!(
            (passed.http_status, passed.metadata.get("grpc-status")),
            (200, None)
        );
    }
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let refused = call(content_type);
        let said = |name: &str| refused.metadata.get(name).map(String::as_str);
        assert_eq!(
            (refused.http_status, said("grpc-status")),
            (200, Some(RESOURCE_EXHAUSTED))
        );
        let message = said("grpc-message").unwrap();
        assert!(message.contains("tight_first"), "{message}");
        let retry: u64 = said("retry-after").unwrap().parse().unwrap();
        assert!((3590..=3600).contains(&retry), "{refused:?}");
        assert_eq!(said("x-ratelimit-remaining"), Some("0"));
        assert_eq!(said("x-envoy-ratelimited"), Some("true"));
    }
    // Another content type is another kind of call.
    assert_eq!(call("application/json").http_status, 429);
}

fn a_grpc_call_over_http_1_is_refused_in_its_own_words(world: &World) {
    let visitor =
        Visitor::of_tier(world.workshop(), "free").with("Content-Type", "application/grpc");
    let answers: Vec<_> = (0..4)
        .map(|_| visitor.get("/pair/tight-first/Call"))
        .collect();
    let statuses = answers
        .iter()
        .map(|answer| answer.header("grpc-status"))
        .collect::<Vec<_>>();
    assert_eq!(
        statuses,
        [None, None, None, Some(RESOURCE_EXHAUSTED.to_owned())]
    );
    assert!((3590..=3600).contains(&number(&answers[3], "retry-after")));
}
