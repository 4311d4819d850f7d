use super::*;

fn index(patterns: &[&str], matching: Matching) -> Index {
    let mut index = IndexBuilder::default();
    for pattern in patterns {
        index.add(&[Pattern::try_new(pattern).unwrap()], matching);
    }
    index.build()
}

fn meets(pattern: &str, path: &[u8], matching: Matching) -> bool {
    !index(&[pattern], matching).rules(path).is_empty()
}

#[test]
fn a_pattern_is_a_glob_over_the_whole_path() {
    for (pattern, meets_it, does_not) in [
        ("/a", &["/a"][..], &["/", "/ab", "/a/b", "/b/a"][..]),
        ("*", &["/", "/a", "/a/b", "", "*"], &[]),
        ("/*", &["/", "/a", "/a/b"], &["", "*"]),
        ("/a/*", &["/a/", "/a/b", "/a/b/c"], &["/a", "/ab", "/b/a/"]),
        ("/a*", &["/a", "/ab", "/a/b"], &["/", "/b"]),
        ("/a/**", &["/a/", "/a/b/c"], &["/a"]),
        (
            "/a/**/b",
            &["/a/b", "/a/x/b", "/a/x/y/b"],
            &["/ab", "/a/xb", "/a/b/c"],
        ),
        ("**/b", &["/b", "/a/b", "/a/c/b"], &["/ab", "/b/a"]),
        (
            "*.json",
            &["/a.json", "/a/b.json", "/.json"],
            &["/a.jso", "/a.json/b"],
        ),
        ("/a?c", &["/abc", "/a%c"], &["/ac", "/a/c", "/abbc"]),
        ("/[a-c]x", &["/ax", "/cx"], &["/dx", "//x", "/x"]),
        ("/a[!b]c", &["/axc", "/a;c"], &["/abc", "/a/c", "/ac"]),
        ("/a[+-9]c", &["/a.c", "/a0c", "/a-c"], &["/a/c", "/axc"]),
        ("/a[]x]", &["/a]", "/ax"], &["/a"]),
        ("/a[/]b", &["/a/b"], &["/ab"]),
        ("/a[x-]", &["/a-", "/ax"], &["/a"]),
        ("{/a,/b}/*", &["/a/x", "/b/"], &["/a", "/c/x"]),
        ("/a{,/x}", &["/a", "/a/x"], &["/a/", "/a/y"]),
        ("/{a{1,2},b}", &["/a1", "/a2", "/b"], &["/a", "/ab"]),
        (
            "/a/*/b",
            &["/a/x/b", "/a/x/y/b", "/a//b"],
            &["/a/b", "/a/x/bc"],
        ),
        (
            "/a/*/b/*",
            &["/a/x/b/", "/a/x/b/y/b/z"],
            &["/a/b/x", "/a/x/c/b"],
        ),
        (
            "*/x/*/y/*",
            &["/x/1/y/", "/a/x/b/y/c"],
            &["/x/y/", "/y/1/x/2"],
        ),
        ("/*[0-9]z*", &["/a1z", "/1zz9z"], &["/z", "/az1"]),
        (
            "/*a?c*e",
            &["/abce", "/xxaacabcxe"],
            &["/abc", "/ace", "/a/ce"],
        ),
        (
            "/v1/models/*:generateContent",
            &["/v1/models/x:generateContent"],
            &["/v1/models/x"],
        ),
        ("/\\*", &["/*"], &["/a"]),
        ("/[:]id", &["/:id"], &["/x"]),
        ("/a[,]/b", &["/a,/b"], &["/a", "/b"]),
        ("/.git/*", &["/.git/config"], &["/git/config"]),
    ] {
        for path in meets_it {
            assert!(
                meets(pattern, path.as_bytes(), Matching::Exact),
                "{pattern} {path}"
            );
            assert!(
                meets(pattern, path.as_bytes(), Matching::Loose),
                "{pattern} {path}"
            );
        }
        for path in does_not {
            assert!(
                !meets(pattern, path.as_bytes(), Matching::Exact),
                "{pattern} {path}"
            );
        }
    }
}

#[test]
fn a_loose_pattern_meets_every_spelling() {
    for (pattern, spellings) in [
        (
            "/api/v1/auth/*",
            &[
                "/API/v1/auth/login",
                "/api/v1/auth%2flogin",
                "/api%2Fv1%2fauth/login",
                "/api/v1/auth/login/",
                "/api;x=1/v1/auth;y/login",
                "/api%3bx/v1/auth/login",
                "/api/v1/auth",
                "/api/v1/AUTH/",
                "/api/v1/x%2f..%2fauth/login",
                "/api/v1/x/..;/auth/login",
                "/api/v1%5cauth%5Clogin",
            ][..],
        ),
        (
            "/API/Login/",
            &["/api/login", "/API/LOGIN", "/api/login/", "/Api/Login"],
        ),
        ("/caf%C3%A9", &["/caf%c3%a9", "/CAF%C3%A9/"]),
        ("/a%2Fb", &["/a%2fb", "/a/b", "/A/B"]),
        ("/a;v=1/b", &["/a/b", "/a;v=2/b", "/A;V=1/B"]),
        ("/x[A-C]", &["/xa", "/XB"]),
        // A server that ignores case, and decodes and cuts nothing before it routes.
        ("/items/*", &["/ITEMS/x%2f..%2f..%2f..%2fq", "/ITEMS/..;/q"]),
        (
            "*.csv",
            &["/A.CSV", "/a.csv;v=1", "/a;v.csv", "/export%2ecsv/"],
        ),
    ] {
        for path in spellings {
            assert!(
                meets(pattern, path.as_bytes(), Matching::Loose),
                "{pattern} {path}"
            );
        }
    }
    // None of these is another spelling.
    for (pattern, path) in [
        ("/api/v1/*", "/api/v10/x"),
        ("/api/v1/*", "/api"),
        ("/login", "/login/x"),
        ("/login", "/log%252fin"),
        ("/a", "/"),
    ] {
        assert!(
            !meets(pattern, path.as_bytes(), Matching::Loose),
            "{pattern} {path}"
        );
    }
}

#[test]
fn of_many_patterns_all_that_a_path_meets_are_found_in_order() {
    let patterns = [
        "/a/*", "*", "/a/b", "*b", "/a/*b", "/a/b/*", "/A/B", "/x", "/a/[bc]", "/a/b*", "/*/b",
    ];
    let index = index(&patterns, Matching::Loose);
    assert_eq!(index.rules(b"/a/b"), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]);
    assert_eq!(index.rules(b"/a/c"), [0, 1, 8]);
    assert_eq!(index.rules(b"/"), [1]);
    assert_eq!(index.rules(b"/A%2FB/"), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]);
}

#[test]
fn a_rule_of_several_patterns_is_met_by_each_of_them_and_once() {
    let patterns = |texts: &[&str]| -> Vec<Pattern> {
        let texts = texts.iter().map(|text| Pattern::try_new(text).unwrap());
        texts.collect()
    };
    let mut index = IndexBuilder::default();
    index.add(&patterns(&["/a/*", "/a/b", "/c"]), Matching::Loose);
    index.add(&patterns(&["/c", "/d"]), Matching::Exact);
    let index = index.build();
    assert_eq!(index.rules(b"/a/b"), [0]);
    assert_eq!(index.rules(b"/c"), [0, 1]);
    assert_eq!(index.rules(b"/C"), [0]);
    assert_eq!(index.rules(b"/d"), [1]);
    assert!(index.rules(b"/e").is_empty());
}

#[test]
fn patterns_begin_apart_where_no_path_begins_as_both_do() {
    for (one, other, apart) in [
        ("/v1/*", "/v2/*", true),
        ("/v1/*", "/v1/health", false),
        ("/V1/*", "/v1/health", false),
        ("/v1/*", "*.css", false),
        ("{/a,/b}/*", "/b/x", false),
        ("{/a,/b}/*", "/c", true),
        ("/v?/x", "/v1/y", false),
    ] {
        let pattern = |text| Pattern::try_new(text).unwrap();
        let is_apart = pattern(one).begins_apart_from(&pattern(other));
        assert_eq!(is_apart, apart, "{one} {other}");
    }
}

#[test]
fn an_exact_rule_beside_a_loose_one_stays_exact() {
    let mut index = IndexBuilder::default();
    for matching in [Matching::Exact, Matching::Loose] {
        index.add(&[Pattern::try_new("/a/*").unwrap()], matching);
    }
    let index = index.build();
    assert_eq!(index.rules(b"/a/x"), [0, 1]);
    assert_eq!(index.rules(b"/A/x"), [1]);
    assert_eq!(index.rules(b"/a"), [1]);
}

#[test]
fn a_path_beyond_the_bound_meets_every_rule() {
    let index = index(&["/a/*", "/b"], Matching::Loose);
    let path = |length: usize| [b"/a/".as_slice(), &vec![b'x'; length - 3]].concat();
    assert_eq!(index.rules(&path(LONGEST_PATH)), [0]);
    assert_eq!(index.rules(&path(LONGEST_PATH + 1)), [0, 1]);
}

#[test]
fn patterns_that_have_to_be_gone_through_are_counted_where_they_begin_alike() {
    for (patterns, most) in [
        (&["/a/*", "/b", "*.x", "/a?b", "/a/*/b"][..], 0),
        (&["/a/*/x/*", "/a/b/*/x/*", "/c/*/x/*"], 2),
        (&["*/x/*", "/c/*/x/*"], 2),
    ] {
        assert_eq!(
            index(patterns, Matching::Exact).most_gone_through(),
            most,
            "{patterns:?}"
        );
    }
}
