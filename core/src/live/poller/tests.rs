use super::*;

const PERIOD: Span = Span::millis(2000);
const POLICY: &str = r#"{"rules": []}"#;

fn watch() -> Watch {
    Watch::new(
        &Namespace::default(),
        PERIOD,
        Span::millis(50),
        7,
        WorkerInstant(0),
    )
}

/// A Redis that holds these fields of the hash.
#[derive(Clone, Copy)]
struct Redis<'a> {
    version: Option<&'a str>,
    published_at: Option<&'a str>,
    policy: Option<&'a str>,
}

impl Redis<'_> {
    fn reply(self, query: Query) -> Vec<u8> {
        let fields = match query {
            Query::Version => vec![self.version, self.published_at],
            Query::Measure => {
                let length = self.policy.map_or(0, str::len);
                return format!(":{length}\r\n").into_bytes();
            }
            Query::Fetch => vec![self.version, self.published_at, self.policy],
        };
        let mut out = format!("*{}\r\n", fields.len()).into_bytes();
        for field in fields {
            match field {
                Some(text) => resp::push_bulk(&mut out, text.as_bytes()),
                None => out.extend(b"$-1\r\n"),
            }
        }
        out
    }
}

const EMPTY: Redis<'_> = Redis {
    version: None,
    published_at: None,
    policy: None,
};

fn publishing<'a>(version: &'a str, policy: &'a str) -> Redis<'a> {
    Redis {
        version: Some(version),
        published_at: Some("1"),
        policy: Some(policy),
    }
}

/// Looks once at the next opportunity; what was sent, and what came of it.
fn look(watch: &mut Watch, redis: Redis<'_>) -> (Vec<Query>, News) {
    let mut sent = Vec::new();
    let mut query = watch.tick(watch.due).unwrap();
    loop {
        sent.push(query);
        watch.sent(watch.due, CallId(9), query);
        assert!(watch.answered(CallId(8), None).is_none());
        match watch.answered(CallId(9), Some(&redis.reply(query))) {
            Some(News::Ask(next)) => query = next,
            Some(news) => return (sent, news),
            None => panic!("the answer is the watch's"),
        }
    }
}

fn adopted(news: News) -> u64 {
    match news {
        News::Adopt(adoption) => adoption.version.0,
        other => panic!("{other:?}"),
    }
}

fn refused(news: News) -> String {
    match news {
        News::Refuse { version, reason } => format!("{version}: {reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_is_adopted_once_and_then_costs_a_look() {
    let mut watch = watch();
    let redis = publishing("3", POLICY);
    let (sent, news) = look(&mut watch, redis);
    assert_eq!(sent, [Query::Version, Query::Measure, Query::Fetch]);
    assert_eq!(adopted(news), 3);
    let (sent, news) = look(&mut watch, redis);
    assert_eq!(sent, [Query::Version]);
    assert!(matches!(news, News::None));
    assert_eq!(adopted(look(&mut watch, publishing("4", POLICY)).1), 4);
}

/// What Redis says is in force, also where it fell back: all gateways agree.
#[test]
fn an_older_version_is_adopted_too() {
    let mut watch = watch();
    look(&mut watch, publishing("4", POLICY));
    assert_eq!(adopted(look(&mut watch, publishing("3", POLICY)).1), 3);
}

/// A Redis that was emptied counts from 1 again.
#[test]
fn the_same_version_of_another_time_is_another() {
    let mut watch = watch();
    look(&mut watch, publishing("1", POLICY));
    let later = Redis {
        published_at: Some("2"),
        ..publishing("1", POLICY)
    };
    assert_eq!(adopted(look(&mut watch, later).1), 1);
}

#[test]
fn what_is_no_policy_is_refused_once_with_its_place() {
    let mut watch = watch();
    adopted(look(&mut watch, publishing("1", POLICY)).1);
    let broken = publishing("2", r#"{"rules": [], "rulez": 1}"#);
    let told = refused(look(&mut watch, broken).1);
    assert!(
        told.starts_with("2: policy.rulez: is not a field here"),
        "{told}"
    );
    let (sent, news) = look(&mut watch, broken);
    assert_eq!(sent, [Query::Version]);
    assert!(matches!(news, News::None));
    assert_eq!(adopted(look(&mut watch, publishing("3", POLICY)).1), 3);
}

#[test]
fn every_way_to_be_no_publication_is_told_apart() {
    for (redis, told) in [
        (
            publishing("x", POLICY),
            r#"weir:policy version: is "x"; expected a whole number from 1"#,
        ),
        (publishing("0", POLICY), r#"weir:policy version: is "0""#),
        (publishing("+1", POLICY), r#"weir:policy version: is "+1""#),
        (
            publishing("1", "null"),
            "policy: is null; expected an object",
        ),
        (publishing("1", ""), "policy: is not JSON"),
        (
            publishing("1", "\"\""),
            r#"policy: is ""; expected one of "configured""#,
        ),
        (
            Redis {
                policy: None,
                ..publishing("1", "")
            },
            r#"weir:policy: lacks the field "policy""#,
        ),
    ] {
        let refusal = refused(look(&mut watch(), redis).1);
        assert!(refusal.contains(told), "{refusal}");
    }
    assert!(
        Document::read(b"{\xff")
            .unwrap_err()
            .to_string()
            .contains("not UTF-8 after byte 1")
    );
}

#[test]
fn a_document_that_is_too_long_is_refused_unread() {
    let long = " ".repeat(MOST_DOCUMENT + 1);
    let mut watch = watch();
    let (sent, news) = look(&mut watch, publishing("5", &long));
    assert_eq!(sent, [Query::Version, Query::Measure]);
    let told = refused(news);
    assert!(
        told.starts_with("5: policy: has 524289 bytes; at most 524288"),
        "{told}"
    );
    assert_eq!(look(&mut watch, publishing("5", &long)).0, [Query::Version]);
    assert!(Document::read(long.as_bytes()).is_err());
}

#[test]
fn what_disappears_is_told_once_and_changes_nothing() {
    let mut watch = watch();
    assert!(matches!(look(&mut watch, EMPTY).1, News::None));
    look(&mut watch, publishing("1", POLICY));
    assert!(matches!(look(&mut watch, EMPTY).1, News::Gone));
    assert!(matches!(look(&mut watch, EMPTY).1, News::None));
    assert_eq!(adopted(look(&mut watch, publishing("1", POLICY)).1), 1);
}

#[test]
fn the_way_back_to_the_configuration_is_a_publication_too() {
    let News::Adopt(adoption) = look(&mut watch(), publishing("2", "\"configured\"")).1 else {
        panic!()
    };
    assert!(matches!(adoption.document, Document::Configured));
    assert_eq!(adoption.version, Version(2));
}

#[test]
fn a_store_that_does_not_answer_leaves_all_as_it_is() {
    let mut watch = watch();
    look(&mut watch, publishing("1", POLICY));
    for (body, expected) in [
        (None, "NoReply"),
        (Some(&b""[..]), "NoReply"),
        (
            Some(b"-WRONGTYPE Operation against a key\r\n"),
            "Unreadable(\"WRONGTYPE Operation against a key\")",
        ),
        (Some(b"upstream connect error"), "NoReply"),
        (Some(b"*2\r\n:1\r\n:2\r\n"), "NoReply"),
        (Some(b":5\r\n"), "NoReply"),
    ] {
        let query = watch.tick(watch.due).unwrap();
        watch.sent(watch.due, CallId(1), query);
        let news = watch.answered(CallId(1), body).unwrap();
        assert_eq!(format!("{news:?}"), expected);
    }
    assert!(matches!(
        look(&mut watch, publishing("1", POLICY)).1,
        News::None
    ));
}

#[test]
fn a_call_without_an_answer_holds_up_the_look_out_no_longer_than_it_may_take() {
    let mut watch = watch();
    let start = watch.due;
    watch.tick(start).unwrap();
    watch.sent(start, CallId(1), Query::Version);
    // The first looks come so soon that the first call might still be answered.
    watch.due = WorkerInstant(start.0 + 99_999);
    assert_eq!(watch.tick(watch.due), None);
    watch.due = WorkerInstant(start.0 + 100_000);
    assert_eq!(watch.tick(watch.due), Some(Query::Version));
    watch.sent(watch.due, CallId(2), Query::Version);
    assert!(
        watch.answered(CallId(1), None).is_none(),
        "late, and nobody's"
    );
}

#[test]
fn looks_are_closer_than_the_period_and_spread() {
    let mut pauses = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut watch = Watch::new(
            &Namespace::default(),
            PERIOD,
            Span::millis(50),
            seed,
            WorkerInstant(0),
        );
        look(&mut watch, EMPTY);
        let before = watch.due;
        look(&mut watch, EMPTY);
        let pause = watch.due.0 - before.0;
        assert!((1_250_000..1_750_000).contains(&pause), "{pause}");
        pauses.insert(pause / 10_000);
    }
    assert!(pauses.len() > 25, "{pauses:?}");
}

#[test]
fn whoever_has_had_no_answer_looks_soon_and_then_ever_less_often() {
    let mut watch = watch();
    assert!(watch.due < WorkerInstant(0) + FIRST_LOOK);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let before = watch.due;
        watch.tick(before).unwrap();
        pauses.push((watch.due.0 - before.0) / 1000);
    }
    let expected = [
        100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
    ];
    assert_eq!(pauses, expected);
    let now = WorkerInstant(watch.due.0 - 30_000_000);
    watch.stir(now);
    assert_eq!(watch.due, WorkerInstant(now.0 + 100_000));
    assert_eq!(watch.next_tick(now), Span::millis(100));
}

#[test]
fn what_was_good_is_where_another_worker_begins() {
    let News::Adopt(Adoption { published, .. }) = look(&mut watch(), publishing("6", POLICY)).1
    else {
        panic!()
    };
    let kept = Published::from_bytes(&published.to_bytes()).unwrap();
    assert_eq!(kept, published);
    let mut other = watch();
    assert_eq!(adopted(other.begin_with(kept)), 6);
    assert!(matches!(
        look(&mut other, publishing("6", POLICY)).1,
        News::None
    ));
    assert_eq!(Published::from_bytes(b"6\n1"), None);
}
