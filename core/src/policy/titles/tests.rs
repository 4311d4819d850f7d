use super::super::Policy;
use crate::codec::json::{At, Json};

#[test]
fn no_two_limits_have_one_title() {
    let fixed = |window| format!(r#"{{"type": "fixed_window", "limit": 1, "window": {window}}}"#);
    let one = fixed(60);
    let rules = [
        format!(r#""name": "a", "global_limit": {one}, "ip_limits": {{"10.0.0.0/8": {one}}}"#),
        format!(
            r#""name": "b", "user_limits": {{"free": [{}, {}, {}], "default": {one}}}"#,
            fixed(1),
            fixed(60),
            fixed(60)
        ),
        format!(
            r#""name": "c", "user_limits": {{"free": [{}, {}], "paid": {}}}"#,
            fixed(60),
            fixed(86_400).replace('{', r#"{"name": "daily", "#),
            fixed(86_400).replace('{', r#"{"name": "daily", "#),
        ),
        // Its tier is called as another rule and scope are.
        format!(r#""name": "a.global", "user_limits": {{"default": {one}}}"#),
        format!(r#""name": "b.user.free", "user_limits": {{"60s": {one}}}"#),
        format!(r#""name": "b.user", "user_limits": {{"x": {one}}}"#),
        format!(r#""name": "b.user.user", "global_limit": {one}"#),
    ];
    let rules = rules
        .iter()
        .map(|rule| format!(r#"{{"pattern": "/x", {rule}}}"#));
    let rules: Vec<String> = rules.collect();
    let variant = format!(r#"{{"user_limits": {{"free": {one}}}}}"#);
    let experiments = format!(
        r#"[{{"name": "e", "variants": [
            {{"name": "v", "weight": 1, "rules": {{"b": {variant}}}}},
            {{"name": "w", "weight": 1, "rules": {{"b": {variant}}}}}]}}]"#
    );
    let text = format!(
        r#"{{"rules": [{}], "experiments": {experiments}}}"#,
        rules.join(",")
    );
    let json = Json::parse(&text, "policy").unwrap();
    let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
    let titles: Vec<&str> = policy
        .limits()
        .filter_map(|(id, _)| policy.title(id))
        .collect();
    assert_eq!(
        titles,
        [
            "a.global",
            "a.ip.10.0.0.0/8",
            "b.user.free.1s",
            "b.user.free.60s",
            "b.user.free.60s.2",
            "b.user.default",
            "c.user.free.60s",
            "c.user.free.daily",
            "c.user.paid.daily",
            "a.global.user.default",
            "b.user.free.user.60s",
            "b.user.user.x",
            "b.user.user.global",
            "b.user.free",
            "b.user.free.2",
        ]
    );
}
