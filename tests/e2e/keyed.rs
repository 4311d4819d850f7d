//! Limits that count by a key of their own: by tenant, by tenant and endpoint.

use weir_lab::client::Answer;

use crate::visitor::{Visitor, remaining, unique};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    users_of_one_tenant_share_its_count_and_others_have_theirs,
    an_endpoint_counts_apart_within_its_tenant,
    a_captured_segment_has_one_count_however_it_is_written,
    an_override_gives_more_or_all_or_nothing,
    a_header_that_is_rotated_buys_no_more_than_the_other_limit_and_fills_no_store,
    a_stranger_counts_by_address_whatever_it_calls_itself,
    a_request_that_lacks_what_it_is_counted_by_is_told,
];

fn statuses(count: usize, mut ask: impl FnMut(usize) -> Answer) -> Vec<u16> {
    (0..count).map(|number| ask(number).status).collect()
}

fn users_of_one_tenant_share_its_count_and_others_have_theirs(world: &World) {
    let gateway = world.keyed();
    let org = unique("org");
    let member = || Visitor::of_tier(gateway, "free").with("x-org", &org);
    let told = statuses(4, |number| member().get(format!("/tenants/{number}")));
    assert_eq!(told, [200, 200, 200, 429]);
    let refused = member().get("/tenants/9");
    let body = String::from_utf8(refused.body.clone()).unwrap();
    assert!(body.contains("tenants"), "{body}");
    let other = member().with("x-org", "more");
    assert_eq!(remaining(&other.get("/tenants/1")), 1);
    // Who says no tenant is in none.
    let nobody = Visitor::of_tier(gateway, "free");
    let told = statuses(5, |_| nobody.get("/tenants/1"));
    assert_eq!(told, [200; 5]);
}

fn an_endpoint_counts_apart_within_its_tenant(world: &World) {
    let gateway = world.keyed();
    let visitor = Visitor::anonymous(gateway).with("x-org", unique("org"));
    let paths = ["/tenants/a", "/tenants/A", "/tenants/%61", "/tenants/b"];
    let told = statuses(4, |number| visitor.get(paths[number]));
    assert_eq!(told, [200, 200, 429, 200]);
}

fn a_captured_segment_has_one_count_however_it_is_written(world: &World) {
    let visitor = Visitor::anonymous(world.keyed());
    let org = unique("org");
    let shouted = org.to_uppercase();
    let paths = [
        format!("/orgs/{org}/a"),
        format!("/orgs/{shouted};v=1/b"),
        format!("/ORGS/{org}/c"),
        format!("/orgs/{org}-2/a"),
        // There is no segment to capture: the rule is not for it.
        "/orgs/".to_owned(),
    ];
    let told = statuses(paths.len(), |number| visitor.get(&paths[number]));
    assert_eq!(told, [200, 200, 429, 200, 200]);
}

fn an_override_gives_more_or_all_or_nothing(world: &World) {
    let gateway = world.keyed();
    let of = |org: &str| {
        let visitor = Visitor::anonymous(gateway).with("x-org", org);
        statuses(6, |number| visitor.get(format!("/tenants/{number}")))
    };
    assert_eq!(of("big"), [200, 200, 200, 200, 200, 429]);
    assert_eq!(of("partner"), [200; 6]);
    assert_eq!(of("crawler"), [403; 6]);
}

fn a_header_that_is_rotated_buys_no_more_than_the_other_limit_and_fills_no_store(world: &World) {
    let gateway = world.keyed();
    let visitor = Visitor::anonymous(gateway);
    let rotated = unique("rotated");
    let told = statuses(300, |number| {
        let org = format!("{rotated}-{number}");
        visitor.clone().with("x-org", org).get("/tenants/x")
    });
    let passed = told.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 60);
    let pattern = format!("weir:2:{{v:{rotated}-*");
    let keys = world.redis().command(&["KEYS", &pattern]).unwrap();
    // Two counters for each that passed, and none for those that did not.
    assert_eq!(keys.as_sequence().unwrap().len(), 2 * passed);
}

fn a_stranger_counts_by_address_whatever_it_calls_itself(world: &World) {
    let gateway = world.keyed();
    let stranger = Visitor::distrusted(gateway);
    let told = statuses(3, |number| {
        stranger
            .clone()
            .with("x-org", format!("s{number}"))
            .get("/tenants/x")
    });
    assert_eq!(told, [200, 200, 429]);
    let crawler = Visitor::distrusted(gateway).with("x-org", "partner");
    assert_eq!(remaining(&crawler.get("/tenants/x")), 1);
}

fn a_request_that_lacks_what_it_is_counted_by_is_told(world: &World) {
    let answer = Visitor::anonymous(world.keyed()).get("/strict/x");
    assert_eq!(answer.status, 400);
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("lacks the claim jwt.org"), "{body}");
}
