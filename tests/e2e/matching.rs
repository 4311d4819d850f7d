//! Which requests a rule is for.

use std::time::Duration;

use crate::{
    Case, cases, keys,
    visitor::{Visitor, number, remaining, tells_limits},
    world::{World, wait_for_room},
};

pub const CASES: &[Case] = cases![
    every_spelling_of_a_path_meets_its_rule,
    the_upstream_is_asked_for_the_path_that_was_counted,
    an_escaped_slash_is_no_slash,
    a_path_without_a_rule_passes_unasked,
    a_rule_is_for_its_methods_only,
    a_rule_is_for_its_hosts_only,
    every_rule_that_matches_applies,
];

/// What the router takes for `/api/v1/auth/login`. As shipped Envoy rewrites these itself before the
/// filter sees them; that the filter alone would take them the same way is proven in `paths/`.
const SPELLINGS: [&[u8]; 17] = [
    b"/api/v1/auth/login",
    b"/api/v1/auth/../auth/login",
    b"/api/v1/auth/./login",
    b"//api/v1/auth/login",
    b"/api//../v1/auth/login",
    b"/api///v1//auth/login",
    b"/api/v1/%61uth/login",
    b"/api/v1/%61%75%74%68/%6Cogin",
    b"/api/v1\\auth/login",
    b"/api\\v1\\auth\\login",
    b"/api/v1/auth/login?x=1",
    b"/api/v1/auth/login?x=/../../web",
    b"/api/v1/auth/%2e%2e/auth/login",
    b"/api/v1/x/%2E%2e/auth/login",
    b"/../api/v1/auth/login",
    b"/web/..//api/v1/auth/login",
    b"http://elsewhere.test/api/v1/auth/login",
];

fn every_spelling_of_a_path_meets_its_rule(world: &World) {
    let limit_window = Duration::from_secs(300);
    for spellings in SPELLINGS.chunks(5) {
        wait_for_room(limit_window, Duration::from_secs(5));
        let visitor = Visitor::anonymous(world.reference());
        for (used, spelling) in (1..).zip(spellings) {
            let answer = visitor.get(spelling);
            let shown = (
                answer.status,
                number(&answer, "x-ratelimit-limit"),
                remaining(&answer),
            );
            assert_eq!(
                shown,
                (200, 5, 5 - used),
                "{}",
                String::from_utf8_lossy(spelling)
            );
        }
        for _ in spellings.len()..5 {
            assert_eq!(visitor.get(SPELLINGS[0]).status, 200);
        }
        for spelling in SPELLINGS {
            let answer = visitor.get(spelling);
            assert_eq!(answer.status, 429, "{}", String::from_utf8_lossy(spelling));
        }
    }
}

fn the_upstream_is_asked_for_the_path_that_was_counted(world: &World) {
    for spelling in SPELLINGS {
        let told = Visitor::anonymous(world.reference())
            .get(spelling)
            .json()
            .unwrap();
        let path = told["path"].as_str().unwrap();
        let path = path.split('?').next();
        assert_eq!(
            path,
            Some("/api/v1/auth/login"),
            "{}",
            String::from_utf8_lossy(spelling)
        );
    }
}

fn an_escaped_slash_is_no_slash(world: &World) {
    for path in [
        "/api/v1/auth%2Flogin",
        "/api/v1/auth%2flogin",
        "/api/v1/auth%5Clogin",
    ] {
        let answer = Visitor::anonymous(world.reference()).get(path);
        // The rule for everything below /api/v1/ allows an address 200.
        assert_eq!(number(&answer, "x-ratelimit-limit"), 200, "{path}");
    }
}

fn a_path_without_a_rule_passes_unasked(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    for path in [
        "/",
        "/web/index.html",
        "/api/v1",
        "/api/v10/x",
        "/API/v1/search",
        "/api/v1/..",
    ] {
        let answer = visitor.get(path);
        assert_eq!(
            (answer.status, tells_limits(&answer)),
            (200, false),
            "{path}"
        );
    }
    let at_address = format!("a:{}", visitor.address);
    assert!(keys::of(world.redis(), &[at_address.as_str()]).is_empty());
}

fn a_rule_is_for_its_methods_only(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for (method, counts) in [
        ("POST", true),
        ("PUT", true),
        ("GET", false),
        ("DELETE", false),
        ("OPTIONS", false),
    ] {
        let answer = visitor.request(method, "/methods/x").send().unwrap();
        assert_eq!(
            (answer.status, tells_limits(&answer)),
            (200, counts),
            "{method}"
        );
    }
    assert_eq!(
        remaining(&visitor.request("POST", "/methods/x").send().unwrap()),
        97
    );
}

fn a_rule_is_for_its_hosts_only(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for (host, counts) in [
        ("api.test", true),
        ("API.Test", true),
        ("api.test:8080", true),
        ("x.wild.test", true),
        ("x.y.WILD.test:1", true),
        ("wild.test", false),
        ("xwild.test", false),
        ("api.test.evil", false),
        ("xapi.test", false),
    ] {
        let answer = visitor
            .request("GET", "/hosts/x")
            .header("host", host)
            .send()
            .unwrap();
        assert_eq!(
            (answer.status, tells_limits(&answer)),
            (200, counts),
            "{host}"
        );
    }
}

fn every_rule_that_matches_applies(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    assert_eq!(remaining(&visitor.get("/api/v1/media/upload")), 4);
    assert_eq!(remaining(&visitor.get("/api/v1/search")), 59);
    // Both were counted here too.
    assert_eq!(remaining(&visitor.get("/api/v1/items")), 97);
}
