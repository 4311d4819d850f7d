//! Which requests a rule is for.

use std::time::Duration;

use crate::visitor::{Visitor, number, remaining, tells_limits, unique};
use crate::world::{World, wait_for_room};
use crate::{Case, cases, grpc, keys};

pub const CASES: &[Case] = cases![
    every_spelling_of_a_path_meets_its_rule,
    the_upstream_is_asked_for_the_path_that_was_counted,
    what_a_lenient_upstream_takes_for_the_path_meets_its_rule,
    an_escaped_slash_is_forwarded_as_a_slash,
    an_exact_rule_is_for_what_it_says_alone,
    weirs_own_paths_are_exact,
    a_path_without_a_rule_passes_unasked,
    a_rule_is_for_its_methods_only,
    a_method_is_compared_without_case,
    a_rule_for_get_covers_head,
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

/// Other paths to Envoy, and the same one to some server: they share what is left.
const LENIENT_SPELLINGS: [&str; 12] = [
    "/API/v1/auth/login",
    "/api/v1/Auth/Login",
    "/api/v1/auth/login/",
    "/api/v1/auth/login;x=1",
    "/api;a/v1;b/auth;c/login",
    "/api/v1/auth%3Bx/login",
    "/api/v1%2Fauth/login",
    "/api/v1%2fauth%2Flogin",
    "/api/v1%5Cauth/login",
    "/api/v1/x/..;/auth/login",
    "/web%2F..%2Fapi/v1/auth/login",
    "/API/v1/auth/LOGIN/;x",
];

fn what_a_lenient_upstream_takes_for_the_path_meets_its_rule(world: &World) {
    let limit_window = Duration::from_secs(300);
    for spellings in LENIENT_SPELLINGS.chunks(5) {
        wait_for_room(limit_window, Duration::from_secs(5));
        let visitor = Visitor::anonymous(world.reference());
        for (used, spelling) in (1..).zip(spellings) {
            let answer = visitor.get(spelling);
            let shown = (
                answer.status,
                number(&answer, "x-ratelimit-limit"),
                remaining(&answer),
            );
            assert_eq!(shown, (200, 5, 5 - used), "{spelling}");
        }
        for _ in spellings.len()..5 {
            assert_eq!(visitor.get(SPELLINGS[0]).status, 200);
        }
        for spelling in LENIENT_SPELLINGS {
            assert_eq!(visitor.get(spelling).status, 429, "{spelling}");
        }
    }
}

/// As shipped, Envoy gives the upstream one path, and the rules the same.
fn an_escaped_slash_is_forwarded_as_a_slash(world: &World) {
    for path in [
        "/api/v1/auth%2Flogin",
        "/api/v1/auth%2flogin",
        "/api/v1/auth%5Clogin",
    ] {
        let told = Visitor::anonymous(world.reference())
            .get(path)
            .json()
            .unwrap();
        assert_eq!(told["path"], "/api/v1/auth/login", "{path}");
    }
}

fn an_exact_rule_is_for_what_it_says_alone(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for (path, counts) in [
        ("/exact/aBc", true),
        ("/exact/../exact/x", true),
        ("/EXACT/aBc", false),
        ("/exact;x/aBc", false),
        ("/exact", false),
    ] {
        let answer = visitor.get(path);
        assert_eq!(
            (answer.status, tells_limits(&answer)),
            (200, counts),
            "{path}"
        );
    }
}

/// Loose, they would hide an upstream's own.
fn weirs_own_paths_are_exact(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    for path in [
        "/API/v1/rate-limits/status",
        "/api/v1/rate-limits/status/",
        "/api/v1/rate-limits/status;x",
    ] {
        let told = visitor.get(path).json().unwrap();
        assert!(
            told.get("path").is_some(),
            "{path} is not the upstream's: {told}"
        );
    }
}

fn a_path_without_a_rule_passes_unasked(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    for path in [
        "/",
        "/web/index.html",
        "/api",
        "/api/v10/x",
        "/API/v10/search",
        "/api/v1/..",
        "/api/v1%252Fx",
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

fn a_method_is_compared_without_case(world: &World) {
    let gateway = world.workshop();
    for method in ["post", "Post", "pUT"] {
        let user = unique("visitor");
        let identity = [("x-user-id", user.as_str()), ("x-user-tier", "free")];
        let answer = grpc::request(gateway.address(), method, "/methods/x", &identity).unwrap();
        let left = answer.metadata.get("x-ratelimit-remaining");
        assert_eq!(left.map(String::as_str), Some("99"), "{method}: {answer:?}");
    }
}

fn a_rule_for_get_covers_head(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for (method, left) in [("GET", Some(99)), ("HEAD", Some(98)), ("POST", None)] {
        let answer = visitor.request(method, "/reads/x").send().unwrap();
        let told = tells_limits(&answer).then(|| remaining(&answer));
        assert_eq!(told, left, "{method}");
    }
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
