//! What clients are told a limit is called: by its rule, its scope and whom it is for, such as
//! `auth_api.user.free`, and by its name (`auth_api.user.free.daily`). Of several in one list each without a
//! name has its window besides (`auth_api.user.free.60s`), and a title that would stand twice is numbered: an
//! experiment's variant then does not tell its name.

use std::collections::{HashMap, HashSet};

use super::compiled::Limit;

/// The title of each limit.
pub(super) fn of(limits: &[Limit]) -> Vec<String> {
    // A variant's limits stand in the place of the rule's, not beside them.
    let list = |limit: &Limit| (whose(limit), limit.variant.clone());
    let mut lists = HashMap::new();
    for limit in limits {
        *lists.entry(list(limit)).or_insert(0) += 1;
    }
    let mut given = HashSet::new();
    // From which number on a title may be free.
    let mut numbers: HashMap<String, u64> = HashMap::new();
    let title = |limit: &Limit| {
        let mut title = whose(limit);
        if let Some(name) = &limit.name {
            title = format!("{title}.{name}");
        } else if lists.get(&list(limit)).is_some_and(|length| *length > 1) {
            title = format!("{title}.{}s", limit.terms.quota.window_seconds());
        }
        if given.insert(title.clone()) {
            return title;
        }
        let next = numbers.entry(title.clone()).or_insert(2);
        loop {
            let numbered = format!("{title}.{next}");
            *next += 1;
            if given.insert(numbered.clone()) {
                return numbered;
            }
        }
    };
    limits.iter().map(title).collect()
}

fn whose(limit: &Limit) -> String {
    let scope = limit.scope.name();
    match limit.whom.as_str() {
        "" => format!("{}.{scope}", limit.rule),
        whom => format!("{}.{scope}.{whom}", limit.rule),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use crate::codec::json::{At, Json};

    #[test]
    fn no_two_limits_have_one_title() {
        let fixed =
            |window| format!(r#"{{"type": "fixed_window", "limit": 1, "window": {window}}}"#);
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
}
