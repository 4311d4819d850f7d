use super::*;
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::{Kind, OperationReply, Reading, Retry, Verdict};
use crate::quota::packed::Terms;
use crate::store::check::{Check, CheckRequest};
use crate::store::reply::{AnswerError, NO_INTEGER, ReplySchema, decode, integers};
use crate::time::{Span, StoreInstant};

#[test]
fn a_call_is_one_resp_command() {
    let script = Script::new("return 1".into());
    let key = |key: &[u8], permits: u64| Check {
        key: key.to_vec(),
        terms: Terms::new(Quota::try_new(Algorithm::FixedWindow, 5, 1, None).unwrap()),
        cost: Cost(permits.try_into().unwrap()),
    };
    let mut check_request = CheckRequest::default();
    check_request.ask(Kind::Take, [key(b"a\r\n\xff", 1), key(b"b", 1)]);
    check_request.ask(
        Kind::Refund {
            receipt: StoreInstant(7),
        },
        [key(b"b", 3)],
    );

    let call = |by| {
        let mut encoder = Encoder::with_room(0);
        check_request.encode(&mut encoder);
        let mut out = Vec::new();
        script.write_call(&mut out, by, &encoder);
        out
    };
    let quota = br"\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x03\xe8\x00\x00\x00\x00\x00\x00\x00\x05";
    assert_eq!(
        call(By::Source).escape_ascii().to_string(),
        [
            r"*10\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n2\r\n",
            r"$4\r\na\r\n\xff\r\n$1\r\nb\r\n",
            &format!(r"$25\r\n{}\r\n", String::from_utf8_lossy(quota)),
            r"$11\r\n\x01\x01\x02\x01\x01\x02\x01h\x01\x02\x01\r\n$0\r\n\r\n",
            r"$1\r\n7\r\n$1\r\n3\r\n",
        ]
        .concat()
    );
    assert!(call(By::Sha).starts_with(
        b"*10\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n"
    ));
}

#[test]
fn a_reply_is_doubles_and_what_is_no_integer_is_marked() {
    let bytes = |doubles: &[f64]| -> Vec<u8> {
        doubles
            .iter()
            .flat_map(|double| double.to_le_bytes())
            .collect()
    };
    let most = 9_007_199_254_740_991.0;
    assert_eq!(
        integers(&bytes(&[1.0, -0.0, -3.0, most])),
        Some(vec![1, 0, -3, (1 << 53) - 1])
    );
    assert_eq!(integers(b""), Some(Vec::new()));
    for strange in [0.5, f64::NAN, f64::INFINITY, 1e16] {
        let told = integers(&bytes(&[1.0, strange, 2.0]));
        assert_eq!(told, Some(vec![1, NO_INTEGER, 2]), "{strange}");
    }
    assert_eq!(integers(b"1234567"), None);
}

/// Operations of limits, each with its key's place and its cost.
fn schema(operations: &[&[(usize, u64)]]) -> ReplySchema {
    let mut schema = ReplySchema::default();
    for limits in operations {
        for (key, cost) in *limits {
            schema.limit(*key, Cost::try_new(*cost).unwrap());
        }
        schema.operation(limits.len());
    }
    schema
}

#[test]
fn an_answer_is_read_to_its_last_integer() {
    let answer = decode(
        &schema(&[&[(0, 1), (1, 1)], &[(0, 1)]]),
        [9, 0, 0, 30, 40, -2, -1, 50, 1, 3, 0, 0],
    )
    .unwrap();
    let reading = |remaining, retry, reset| Reading {
        remaining,
        retry,
        reset: Span::millis(reset),
    };
    assert_eq!(answer.now, StoreInstant(9));
    assert_eq!(
        answer.told,
        [
            OperationReply {
                verdict: Verdict::Refused,
                limits: vec![
                    reading(0, Retry::After(Span::millis(30)), 40),
                    reading(-2, Retry::Never, 50)
                ],
            },
            OperationReply {
                verdict: Verdict::Passed,
                limits: vec![reading(3, Retry::Now, 0)],
            },
        ]
    );
}

#[test]
fn what_was_decided_together_is_told_one_by_one() {
    let asked = schema(&[&[(0, 1), (1, 3)], &[(1, 2)], &[(0, 1), (2, 1)]]);
    let whole = [9, 2, 10, 40, 100, 50, 7, 60];
    let answer = decode(&asked, whole).unwrap();
    let passed = |limits: &[(i64, u64)]| OperationReply {
        verdict: Verdict::Passed,
        limits: limits
            .iter()
            .map(|(remaining, reset)| Reading {
                remaining: *remaining,
                retry: Retry::Now,
                reset: Span::millis(*reset),
            })
            .collect(),
    };
    let told = [
        passed(&[(11, 40), (102, 50)]),
        passed(&[(100, 50)]),
        passed(&[(10, 40), (7, 60)]),
    ];
    assert_eq!(
        (answer.now, answer.told.as_slice()),
        (StoreInstant(9), &told[..])
    );
    for length in 2..whole.len() {
        let short = decode(&asked, whole[..length].iter().copied());
        assert_eq!(
            short,
            Err(AnswerError::TooShort { operation: 0 }),
            "{length}"
        );
    }
    let long = whole.into_iter().chain([0]);
    assert_eq!(decode(&asked, long), Err(AnswerError::TooLong));
}

#[test]
fn what_is_not_an_answer_is_refused() {
    let two = schema(&[&[(0, 1)], &[(0, 1)]]);
    let whole = [9, 1, 3, 0, 0, -1, 0, 0, 0];
    for length in 0..whole.len() {
        assert!(
            matches!(
                decode(&two, whole[..length].iter().copied()),
                Err(AnswerError::TooShort { .. })
            ),
            "{length} integers"
        );
    }
    let one = schema(&[&[(0, 1)]]);
    assert_eq!(decode(&one, whole), Err(AnswerError::TooLong));
    for strange in [-1, NO_INTEGER] {
        let mut reply = whole;
        reply[0] = strange;
        assert_eq!(decode(&two, reply), Err(AnswerError::Now(strange)));
    }
}

#[test]
fn a_number_out_of_range_spoils_its_operation_and_no_other() {
    let asked = schema(&[&[(0, 1)], &[(1, 1), (2, 1)], &[(0, 1)]]);
    let whole = [9, 1, 3, 0, 0, 1, 5, 0, 7, 0, 70, 80, 1, 2, 0, 0];
    let sound = decode(&asked, whole).unwrap().told;
    let spoiled = [
        sound[0].clone(),
        OperationReply::unreadable(2),
        sound[2].clone(),
    ];
    for (at, value) in [
        (5, 3),
        (5, NO_INTEGER),
        (6, NO_INTEGER),
        (6, (1 << 53) + 1),
        (7, -3),
        (8, -1),
        (10, NO_INTEGER),
        (11, i64::MAX),
    ] {
        let mut reply = whole;
        reply[at] = value;
        assert_eq!(
            decode(&asked, reply).unwrap().told,
            spoiled,
            "{at}: {value}"
        );
    }
    // Of a key that takes were decided of together it spoils those that name it.
    let asked = schema(&[&[(0, 1)], &[(0, 1), (1, 1)], &[(1, 2)]]);
    for (at, spoiled) in [(2, [0, 1]), (3, [0, 1]), (4, [1, 2]), (5, [1, 2])] {
        let mut reply = [9, 2, 10, 40, 100, 50];
        reply[at] = NO_INTEGER;
        let told = decode(&asked, reply).unwrap().told;
        for (operation, told) in told.iter().enumerate() {
            let expected = match spoiled.contains(&operation) {
                true => Verdict::Unreadable,
                false => Verdict::Passed,
            };
            assert_eq!(told.verdict, expected, "{operation} by {at}");
        }
    }
}

/// What the way to the script needs besides: the calls themselves, the reads of the policy, and what
/// keeps a connection.
const AROUND: [&str; 7] = [
    "evalsha",
    "eval",
    "hmget",
    "hstrlen",
    "ping",
    "client|reply",
    "info",
];
/// Words in capitals that are no commands.
const OPTIONS: [&str; 3] = ["PXAT", "KEEPTTL", "WRONGTYPE"];

#[test]
fn the_user_that_is_shipped_may_do_what_weir_does_and_nothing_else() {
    let acl = include_str!("../../../../envoy/redis-user.acl");
    let mut granted: Vec<&str> = acl
        .split_whitespace()
        .filter_map(|rule| rule.strip_prefix('+'))
        .collect();
    let script = Script::production();
    // An apostrophe of a comment opens nothing.
    let code = script.source().lines();
    let code = code.map(|line| line.split("--").next().unwrap());
    let quoted = code.flat_map(|line| line.split('\'').skip(1).step_by(2));
    let is_command =
        |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let called = quoted
        .filter(is_command)
        .filter(|word| !OPTIONS.contains(word));
    let called = called.map(str::to_lowercase);
    let mut used: Vec<String> = called.chain(AROUND.map(str::to_owned)).collect();
    granted.sort_unstable();
    used.sort_unstable();
    used.dedup();
    assert_eq!(granted, used);
    assert_eq!(acl.lines().count(), 1, "an ACL file has no comments");
}
