use super::*;
use crate::codec::json::{At, Json};

#[test]
fn a_reply_has_the_true_status_in_either_language() {
    let answers = [
        (blocked(), 403, 7),
        (unavailable(), 503, 14),
        (no_identity("x"), 400, 3),
        (json("weir_status", &""), 200, 3),
    ];
    for (answer, status, code) in &answers {
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let reply = answer.reply(protocol);
            assert_eq!((reply.status, reply.code as i32), (*status, *code));
            assert!(reply.details.starts_with("weir_"));
        }
    }
    let answer = repeated_header("x%\u{e9}");
    let reply = answer.reply(Protocol::Http);
    assert_eq!(reply.body, answer.body);
    assert!(reply.headers.contains(&("content-type", JSON.into())));
    let reply = answer.reply(Protocol::Grpc);
    let message = "The header x%25%C3%A9 was sent more than once; send it once.";
    let expected = [
        ("cache-control", "no-store".into()),
        ("grpc-status", "3".into()),
        ("grpc-message", message.into()),
    ];
    assert_eq!(
        (reply.headers.as_slice(), reply.body),
        (&expected[..], &[][..])
    );
}

/// As many limits as there are windows, of which the one at `shown` is shown with nothing left.
fn fields(name: &str, windows: std::ops::Range<u64>, shown: usize) -> (String, String) {
    let limit = |window| format!(r#"{{"type": "fixed_window", "limit": 9, "window": {window}}}"#);
    let limits: Vec<String> = windows.map(limit).collect();
    let text = format!(
        r#"{{"headers": ["ietf"], "rules": [{{"name": "{name}", "pattern": "*",
            "user_limits": {{"{name}": [{}]}}}}]}}"#,
        limits.join(",")
    );
    let json = Json::parse(&text, "policy").unwrap();
    let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
    let status = |limit, remaining| LimitStatus {
        limit,
        reading: Reading {
            remaining,
            retry: Retry::Now,
            reset: Span::millis(1001),
        },
    };
    let limits: Vec<LimitId> = policy.limits().map(|(id, _)| id).collect();
    // Of the second nothing is known.
    let known = limits.iter().enumerate().filter(|(place, _)| *place != 1);
    let known: Vec<LimitStatus> = known.map(|(_, id)| status(*id, 5)).collect();
    let met = Met {
        limits: &limits,
        statuses: &known,
    };
    let headers = status_headers(&policy, status(limits[shown], -3), met);
    match headers.as_slice() {
        [(policies, terms), (statuses, told)] => {
            assert_eq!(
                (&**policies, &**statuses),
                ("ratelimit-policy", "ratelimit")
            );
            (terms.clone(), told.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn structured_fields_name_every_limit_in_a_bounded_length() {
    let (terms, told) = fields("r", 1..4, 2);
    assert_eq!(
        terms,
        r#""r.user.r.1s";q=9;w=1, "r.user.r.2s";q=9;w=2, "r.user.r.3s";q=9;w=3"#
    );
    assert_eq!(told, r#""r.user.r.1s";r=5;t=2, "r.user.r.3s";r=0;t=2"#);
    let longest = "n".repeat(64);
    for (name, shown) in [("r", 0), ("r", 99), (longest.as_str(), 0), (&longest, 99)] {
        let (terms, told) = fields(name, 1..101, shown);
        // What is free at the end of the longer one is less than one more needs.
        assert!(
            terms.len() + 2 * SEPARATOR.len() + terms.split(", ").map(str::len).max().unwrap()
                > LONGEST_FIELD
        );
        for field in [terms, told] {
            let named: Vec<&str> = field.split(", ").collect();
            assert!(field.len() <= LONGEST_FIELD, "{}", field.len());
            let own = |place: usize| format!(".{}s\"", place + 1);
            assert!(named[0].contains(&own(0)), "{field}");
            assert_eq!(
                named
                    .iter()
                    .filter(|item| item.contains(&own(shown)))
                    .count(),
                1
            );
        }
    }
}

#[test]
fn a_body_is_told_again_for_the_same_words_and_no_others() {
    let last = LastRefusal::default();
    let words = Words {
        limit: LimitId::nth(0),
        violated: Vec::new(),
        remaining: 0,
        retry_after: Some(9),
        own_retry_after: Some(8),
    };
    let tell = |words: &Words, text: &str| last.body(words.clone(), |_| text.into());
    assert_eq!(tell(&words, "first"), b"first");
    assert_eq!(tell(&words, "not written"), b"first");
    let others = [
        Words {
            limit: LimitId::nth(1),
            ..words.clone()
        },
        Words {
            violated: vec![LimitId::nth(0)],
            ..words.clone()
        },
        Words {
            remaining: 1,
            ..words.clone()
        },
        Words {
            retry_after: None,
            ..words.clone()
        },
        Words {
            own_retry_after: Some(9),
            ..words.clone()
        },
    ];
    for (other, text) in others
        .into_iter()
        .zip(["second", "third", "fourth", "fifth", "sixth"])
    {
        assert_eq!(tell(&other, text), text.as_bytes());
    }
    assert_eq!(tell(&words, "again"), b"again");
}

#[test]
fn a_rule_s_own_answer_keeps_what_tells_of_limits_and_stays_out_of_caches() {
    let text = r#"{"rules": [{"name": "own", "pattern": "*",
        "respond": {"status": 503, "body": "<p>later</p>", "content_type": "text/html",
                    "headers": {"X-Support": "help"}},
        "global_limit": {"type": "fixed_window", "limit": 9, "window": 60}}]}"#;
    let json = Json::parse(text, "policy").unwrap();
    let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
    let (limit, _) = policy.limits().next().unwrap();
    let retry = Retry::After(Span::seconds(5));
    let shown = LimitStatus {
        limit,
        reading: Reading {
            remaining: 0,
            retry,
            reset: Span::seconds(5),
        },
    };
    let answer = refused(
        &policy,
        shown,
        retry,
        Met::default(),
        &LastRefusal::default(),
    );
    let reply = answer.reply(Protocol::Http);
    assert_eq!((reply.status, reply.body), (503, &b"<p>later</p>"[..]));
    assert_eq!(reply.details, "weir_denied{own}");
    for header in [
        ("content-type", "text/html"),
        ("cache-control", "no-store"),
        ("retry-after", "5"),
        ("x-ratelimit-limit", "9"),
        ("x-support", "help"),
    ] {
        assert!(
            reply.headers.contains(&(header.0, header.1.into())),
            "{header:?}"
        );
    }
    let reply = answer.reply(Protocol::Grpc);
    assert_eq!((reply.code as i32, reply.body), (8, &[][..]));
    assert!(reply.headers.contains(&("x-support", "help".into())));
}
