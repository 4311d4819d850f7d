use super::*;
use crate::codec::resp;
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::Kind;
use crate::quota::packed::Terms;
use crate::store::check::Check;
use crate::time::StoreInstant;

const TIMEOUT: Span = Span::millis(50);
/// What the script is told of a look: a take from one limit.
const TAKE: &str = "\r\n\x01\x01\x01\x01\x01\r\n";

fn part(key: &str, topology: Topology) -> ShardRequest {
    let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
    let check = Check {
        key: key.as_bytes().to_vec(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    };
    let mut check_request = CheckRequest::default();
    check_request.ask(Kind::Take, [check]);
    Rc::new(check_request).split(topology).remove(0)
}

fn batcher() -> Batcher<u32> {
    Batcher::new(Topology::Single, TIMEOUT, 0)
}

fn ask_one(batcher: &mut Batcher<u32>, now: WorkerInstant, ticket: u32) -> Next {
    batcher.ask(
        now,
        Some(ticket),
        &part(&format!("key{ticket}"), Topology::Single),
    )
}

/// Requests `range` ask at `now`; the first one that finds the way free asks for the turn.
fn ask(batcher: &mut Batcher<u32>, now: WorkerInstant, range: std::ops::Range<u32>) {
    for ticket in range {
        assert_ne!(ask_one(batcher, now, ticket), Next::Failed);
    }
}

fn send(batcher: &mut Batcher<u32>, now: WorkerInstant, id: u32) -> String {
    let Effects { outgoing, settled } = batcher.turn(now);
    assert!(settled.is_empty());
    hand_over(batcher, outgoing, id)
}

/// Sends the one call that there is.
fn hand_over(batcher: &mut Batcher<u32>, mut outgoing: Vec<Outgoing<u32>>, id: u32) -> String {
    assert_eq!(outgoing.len(), 1, "one call is to be sent");
    let outgoing = outgoing.remove(0);
    let body = String::from_utf8_lossy(&outgoing.body).into_owned();
    batcher.sent(outgoing, CallId(id));
    body
}

fn answered(batcher: &mut Batcher<u32>, now: u64, id: u32, body: &[u8]) -> Effects<u32> {
    batcher.answered(WorkerInstant(now), CallId(id), Ok(body))
}

/// The reply to `count` check requests of one limit, each of which passed.
fn reply(count: usize) -> Vec<u8> {
    let mut integers: Vec<i64> = vec![1_000_000];
    for remaining in 0..count {
        integers.extend([1, remaining as i64, 0, 60_000]);
    }
    let doubles = integers
        .iter()
        .flat_map(|integer| (*integer as f64).to_le_bytes());
    let mut reply = Vec::new();
    resp::push_bulk(&mut reply, &doubles.collect::<Vec<_>>());
    reply
}

fn tickets(settled: &Settled<u32>) -> Vec<u32> {
    settled.iter().map(|(ticket, _)| *ticket).collect()
}

fn failed(settled: &Settled<u32>) -> bool {
    settled
        .iter()
        .all(|(_, outcome)| *outcome == Outcome::Failed)
}

#[test]
fn requests_of_one_turn_share_a_call_and_each_has_its_own_outcome() {
    let mut batcher = batcher();
    assert_eq!(ask_one(&mut batcher, WorkerInstant(0), 0), Next::AskFlush);
    assert_eq!(ask_one(&mut batcher, WorkerInstant(0), 1), Next::Wait);
    let body = send(&mut batcher, WorkerInstant(1), 7);
    assert!(body.contains("EVALSHA") && body.contains("key0") && body.contains("key1"));

    let Effects { outgoing, settled } = answered(&mut batcher, 2, 7, &reply(2));
    assert!(outgoing.is_empty() && batcher.is_idle());
    assert_eq!(tickets(&settled), [0, 1]);
    for (ticket, outcome) in settled {
        let Outcome::Answered { now, told, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(now, StoreInstant(1_000_000));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].limits[0].remaining, i64::from(ticket));
    }
}

/// A batcher whose last call but one asked `check requests`, while as many as `waiting` came; all have
/// been answered, each call after `round_trip`.
fn after(check_requests: u32, waiting: u32, round_trip: u64) -> Batcher<u32> {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..check_requests);
    send(&mut batcher, WorkerInstant(0), 1);
    ask(
        &mut batcher,
        WorkerInstant(0),
        check_requests..check_requests + waiting,
    );
    let next = answered(&mut batcher, round_trip, 1, &reply(check_requests as usize)).outgoing;
    if waiting > 0 {
        hand_over(&mut batcher, next, 2);
        answered(&mut batcher, 2 * round_trip, 2, &reply(waiting as usize));
    }
    batcher
}

#[test]
fn who_is_alone_waits_for_no_turn() {
    for (check_requests, waiting, round_trip, alone) in [
        (1, 0, 400, true),
        (2, 0, 400, false),
        (3, 1, 400, true),
        (1, 2, 400, false),
        (1, 0, 1_000, false),
    ] {
        let case = format!("{check_requests}, then {waiting}, in {round_trip} µs");
        let mut batcher = after(check_requests, waiting, round_trip);
        let next = ask_one(&mut batcher, WorkerInstant(9_000), 10);
        assert_eq!(next == Next::AskFlush, !alone, "{case}");
        assert_eq!(batcher.hurries(), alone, "{case}");
        // What the same request asks besides goes with it.
        assert_eq!(ask_one(&mut batcher, WorkerInstant(9_000), 11), Next::Wait);
        send(&mut batcher, WorkerInstant(9_000), 3);
        assert!(!batcher.hurries(), "{case}");
        let settled = answered(&mut batcher, 9_001, 3, &reply(2)).settled;
        assert_eq!(tickets(&settled), [10, 11], "{case}");
    }
}

#[test]
fn who_comes_while_somebody_waits_hurries_nobody() {
    let mut batcher = after(1, 0, 400);
    ask(&mut batcher, WorkerInstant(500), 1..2);
    send(&mut batcher, WorkerInstant(500), 2);
    ask(&mut batcher, WorkerInstant(500), 2..3);
    assert!(!batcher.hurries());
    let next = answered(&mut batcher, 900, 2, &reply(1)).outgoing;
    hand_over(&mut batcher, next, 3);
    ask(&mut batcher, WorkerInstant(900), 3..4);
    assert!(!batcher.hurries(), "one call at a time");
}

#[test]
fn what_nobody_waits_for_does_not_hurry() {
    let mut batcher = after(1, 0, 400);
    let next = batcher.ask(WorkerInstant(400), None, &part("key", Topology::Single));
    assert_eq!(next, Next::AskFlush);
    assert_eq!(ask_one(&mut batcher, WorkerInstant(400), 1), Next::Wait);
    assert!(!batcher.hurries());
}

#[test]
fn who_could_not_be_told_is_told_in_the_next_turn() {
    let mut batcher = after(1, 0, 400);
    ask(&mut batcher, WorkerInstant(400), 1..2);
    let outgoing = batcher.turn(WorkerInstant(400)).outgoing.remove(0);
    let settled = batcher.not_sent(WorkerInstant(400), outgoing, String::new());
    batcher.put_off(settled);
    assert!(!batcher.is_idle());
    let settled = batcher.turn(WorkerInstant(401)).settled;
    assert!(failed(&settled) && tickets(&settled) == [1] && batcher.is_idle());
}

/// After a turn that never came nobody asked for another: all waited for ticks.
#[test]
fn a_tick_stands_in_for_a_turn_that_does_not_come() {
    let mut batcher = batcher();
    assert_eq!(ask_one(&mut batcher, WorkerInstant(0), 0), Next::AskFlush);
    let outgoing = batcher.tick(WorkerInstant(1)).outgoing;
    hand_over(&mut batcher, outgoing, 1);
    answered(&mut batcher, 2_000, 1, &reply(1));
    assert_eq!(
        ask_one(&mut batcher, WorkerInstant(2_000), 1),
        Next::AskFlush
    );
}

#[test]
fn newcomers_wait_for_the_call_in_flight_and_leave_with_its_reply() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..1);
    send(&mut batcher, WorkerInstant(0), 1);
    assert_eq!(ask_one(&mut batcher, WorkerInstant(1), 1), Next::Wait);
    assert!(batcher.turn(WorkerInstant(2)).outgoing.is_empty());
    let Effects { outgoing, settled } = answered(&mut batcher, 3, 1, &reply(1));
    assert_eq!(tickets(&settled), [0]);
    assert_eq!(outgoing.len(), 1, "the next call leaves at once");
}

#[test]
fn a_call_carries_no_more_than_its_cap() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..100);
    send(&mut batcher, WorkerInstant(0), 1);
    let Effects { outgoing, settled } = answered(&mut batcher, 1, 1, &reply(MOST_QUESTIONS));
    assert_eq!(settled.len(), MOST_QUESTIONS);
    hand_over(&mut batcher, outgoing, 2);
    let Effects { outgoing, settled } = answered(&mut batcher, 2, 2, &reply(36));
    assert_eq!((settled.len(), outgoing.len()), (36, 0));
}

fn refund(batcher: &mut Batcher<u32>, now: WorkerInstant, many: usize) {
    for number in 0..many {
        let part = part(&format!("back{number}"), Topology::Single);
        assert_ne!(batcher.ask(now, None, &part), Next::Failed);
    }
}

/// A client that hangs up leaves thousands of these at once. Requests waited behind them until their
/// time was over.
#[test]
fn what_nobody_waits_for_holds_up_nobody_and_is_asked_in_the_end() {
    let mut batcher = batcher();
    refund(&mut batcher, WorkerInstant(0), 4_000);
    ask(&mut batcher, WorkerInstant(1), 0..100);
    let (mut calls, mut asked) = (0, 0);
    let mut told = Vec::new();
    let mut outgoing = batcher.turn(WorkerInstant(2)).outgoing;
    while let Some(call) = outgoing.pop() {
        let check_requests = call.check_requests();
        assert!(check_requests <= MOST_QUESTIONS);
        asked += check_requests;
        calls += 1;
        batcher.sent(call, CallId(calls));
        // The last of them are asked when a request's time would be over.
        let now = u64::from(calls) * 900;
        let Effects { outgoing: more, .. } = batcher.tick(WorkerInstant(now));
        assert!(more.is_empty(), "one call at a time");
        let effects = answered(&mut batcher, now, calls, &reply(check_requests));
        told.extend(tickets(&effects.settled));
        outgoing = effects.outgoing;
        if calls == 3 {
            assert_eq!(told, (0..100).collect::<Vec<_>>());
        }
    }
    assert_eq!(asked, 4_100);
    assert!(u64::from(calls) * 900 > TIMEOUT.as_micros());
    assert!(batcher.is_idle());
}

#[test]
fn what_nobody_waits_for_is_bounded_and_is_not_asked_for_ever() {
    let mut batcher = batcher();
    refund(&mut batcher, WorkerInstant(0), 10_000);
    assert_eq!(batcher.lanes[0].back.len(), MOST_BACK);
    let mut outgoing = batcher.tick(WorkerInstant(5_000_000)).outgoing;
    assert!(outgoing.pop().is_none() && batcher.is_idle());
}

/// One event told all of them, or moved those that were put off from one list to another.
#[test]
fn however_many_wait_an_event_tells_a_bounded_number_and_the_next_tells_more() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..10_000);
    send(&mut batcher, WorkerInstant(0), 1);
    let mut told = Vec::new();
    let mut settled = batcher.tick(WorkerInstant(50_000)).settled;
    while !settled.is_empty() {
        assert!(failed(&settled) && settled.len() <= MOST_TOLD);
        told.extend(tickets(&settled));
        settled = batcher.turn(WorkerInstant(50_001)).settled;
    }
    told.sort_unstable();
    assert_eq!(told, (0..10_000).collect::<Vec<_>>());
}

/// A check request of so many checks, and how many checks each of its parts has.
fn large(kind: Kind, checks: usize) -> (Vec<ShardRequest>, Vec<usize>) {
    let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
    let mut check_request = CheckRequest::default();
    let check = |number| Check {
        key: format!("large{number}").into_bytes(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    };
    check_request.ask(kind, (0..checks).map(check));
    let parts = Rc::new(check_request).split(Topology::Single);
    let sizes = parts.iter().map(|part| part.check_request.checks().len());
    let sizes = sizes.collect();
    (parts, sizes)
}

/// The reply to check requests of one operation over so many checks each.
fn reply_of(check_requests: &[usize]) -> Vec<u8> {
    let mut doubles = vec![1e6];
    for checks in check_requests {
        doubles.push(1.0);
        doubles.extend([1.0, 0.0, 60_000.0].repeat(*checks));
    }
    let bytes = doubles.into_iter().flat_map(f64::to_le_bytes);
    let mut reply = Vec::new();
    resp::push_bulk(&mut reply, &bytes.collect::<Vec<_>>());
    reply
}

#[test]
fn a_call_carries_no_more_checks_than_its_cap_unless_one_question_has_more() {
    let mut batcher = batcher();
    for (ticket, checks) in [(0, 200), (1, 200), (2, 112), (3, 1), (4, 700), (5, 1)] {
        let part = &large(Kind::Take, checks).0[0];
        assert_ne!(
            batcher.ask(WorkerInstant(0), Some(ticket), part),
            Next::Failed
        );
    }
    let mut outgoing = batcher.turn(WorkerInstant(0)).outgoing;
    for (id, expected) in [(0, vec![0, 1, 2]), (1, vec![3]), (2, vec![4]), (3, vec![5])] {
        hand_over(&mut batcher, outgoing, id);
        let checks = [200, 200, 112, 1, 700, 1];
        let own: Vec<usize> = expected
            .iter()
            .map(|ticket| checks[*ticket as usize])
            .collect();
        let effects = answered(&mut batcher, 1, id, &reply_of(&own));
        assert_eq!(tickets(&effects.settled), expected);
        outgoing = effects.outgoing;
    }
    assert!(batcher.is_idle());
}

/// A status call over 600 limits, among requests.
#[test]
fn a_part_of_what_is_too_large_goes_with_each_call_and_waits_longer() {
    let mut batcher = batcher();
    let (parts, sizes) = large(Kind::Peek, 600);
    assert_eq!(sizes, [256, 256, 88]);
    for part in &parts {
        batcher.ask(WorkerInstant(0), Some(7), part);
    }
    ask(&mut batcher, WorkerInstant(0), 0..2);
    send(&mut batcher, WorkerInstant(0), 0);
    ask(&mut batcher, WorkerInstant(0), 2..3);
    let effects = answered(&mut batcher, 1, 0, &reply_of(&[1, 1, 256]));
    assert_eq!(tickets(&effects.settled), [0, 1, 7]);
    hand_over(&mut batcher, effects.outgoing, 1);
    let effects = answered(&mut batcher, 2, 1, &reply_of(&[1, 256]));
    assert_eq!(tickets(&effects.settled), [2, 7]);
    assert_eq!(effects.outgoing.len(), 1, "the last part goes alone");
    // It waits ten times as long as others do, but for a call that is lost.
    for part in &parts {
        batcher.ask(WorkerInstant(0), Some(8), part);
    }
    hand_over(&mut batcher, effects.outgoing, 2);
    ask(&mut batcher, WorkerInstant(0), 3..4);
    assert_eq!(tickets(&batcher.tick(WorkerInstant(99_999)).settled), [3]);
    let next = answered(&mut batcher, 99_999, 2, &reply_of(&[88])).outgoing;
    hand_over(&mut batcher, next, 3);
    assert_eq!(
        tickets(&batcher.tick(WorkerInstant(500_000)).settled),
        [8, 8, 8]
    );
}

#[test]
fn calls_overlap_only_where_the_round_trip_is_long() {
    for (round_trip, later, expected) in [
        (400, 300, Next::Wait),
        (20_000, 9_000, Next::Wait),
        (20_000, 11_000, Next::AskFlush),
    ] {
        let mut batcher = batcher();
        ask(&mut batcher, WorkerInstant(0), 0..1);
        send(&mut batcher, WorkerInstant(0), 1);
        answered(&mut batcher, round_trip, 1, &reply(1));
        ask(&mut batcher, WorkerInstant(round_trip), 1..2);
        send(&mut batcher, WorkerInstant(round_trip), 2);
        let next = ask_one(&mut batcher, WorkerInstant(round_trip + later), 2);
        assert_eq!(
            next, expected,
            "{later} µs into a round trip of {round_trip} µs"
        );
    }
}

#[test]
fn an_unknown_script_is_sent_whole_once() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..2);
    send(&mut batcher, WorkerInstant(0), 1);
    let unknown = b"-NOSCRIPT No matching script.\r\n";
    let Effects { outgoing, settled } = answered(&mut batcher, 1, 1, unknown);
    assert!(settled.is_empty());
    let again = hand_over(&mut batcher, outgoing, 2);
    assert!(again.contains("\r\nEVAL\r\n") && again.contains("key0"));
    let Effects { outgoing, settled } = answered(&mut batcher, 2, 2, unknown);
    assert!(failed(&settled) && settled.len() == 2 && outgoing.is_empty());
}

#[test]
fn what_is_no_reply_fails_everybody_who_asked() {
    for body in [
        &b"-READONLY You can't write against a read only replica.\r\n"[..],
        b"upstream connect error",
        b"*1\r\n:5\r\n",
        b"*2\r\n:5\r\n$1\r\nx\r\n",
        b"",
    ] {
        let mut batcher = batcher();
        ask(&mut batcher, WorkerInstant(0), 0..3);
        send(&mut batcher, WorkerInstant(0), 1);
        let settled = answered(&mut batcher, 1, 1, body).settled;
        assert!(
            failed(&settled) && settled.len() == 3,
            "{}",
            body.escape_ascii()
        );
    }
}

#[test]
fn a_deadline_is_kept_whether_the_request_was_sent_or_not() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..1);
    send(&mut batcher, WorkerInstant(0), 1);
    ask(&mut batcher, WorkerInstant(10_000), 1..2);
    assert!(batcher.tick(WorkerInstant(49_999)).settled.is_empty());
    let settled = batcher.tick(WorkerInstant(50_000)).settled;
    assert!(failed(&settled) && tickets(&settled) == [0]);
    let settled = batcher.tick(WorkerInstant(60_000)).settled;
    assert!(failed(&settled) && tickets(&settled) == [1]);
    // The late reply finds nobody, and settles nobody twice.
    assert!(
        answered(&mut batcher, 70_000, 1, &reply(1))
            .settled
            .is_empty()
    );
    assert!(batcher.is_idle());
}

#[test]
fn a_call_that_is_never_answered_holds_up_nobody_for_ever() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..1);
    send(&mut batcher, WorkerInstant(0), 1);
    ask(&mut batcher, WorkerInstant(99_000), 1..2);
    assert_eq!(
        batcher.tick(WorkerInstant(100_000)).outgoing.len(),
        1,
        "the way is free again"
    );
    assert!(
        answered(&mut batcher, 101_000, 1, &reply(1))
            .settled
            .is_empty()
    );
}

#[test]
fn a_call_that_cannot_be_sent_fails_at_once() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 0..2);
    let outgoing = batcher.turn(WorkerInstant(0)).outgoing.remove(0);
    let settled = batcher.not_sent(WorkerInstant(0), outgoing, String::new());
    assert!(failed(&settled) && settled.len() == 2 && batcher.is_idle());
}

/// A batcher whose calls have failed three times in a row by now.
fn broken() -> Batcher<u32> {
    let mut batcher = batcher();
    for id in 0..3 {
        ask(&mut batcher, WorkerInstant(0), id..id + 1);
        send(&mut batcher, WorkerInstant(0), id);
        batcher.answered(WorkerInstant(0), CallId(id), Err(NoReply::Late));
    }
    batcher
}

#[test]
fn a_store_that_keeps_failing_is_not_asked_and_nobody_waits_for_it() {
    let mut batcher = broken();
    assert_eq!(ask_one(&mut batcher, WorkerInstant(1), 9), Next::Failed);
    assert_eq!(
        batcher.health(),
        Health {
            lanes: 1,
            open: 1,
            opened: 1,
            calls: 3,
            failures: 3,
        }
    );
    assert!(!batcher.is_idle(), "it is still looked after");
    assert_eq!(batcher.last_error(), Some("no answer in time"));
}

#[test]
fn whoever_waits_when_the_breaker_opens_is_settled_at_once() {
    let mut batcher = batcher();
    for id in 0..3 {
        ask(&mut batcher, WorkerInstant(0), id..id + 1);
        send(&mut batcher, WorkerInstant(0), id);
        ask(&mut batcher, WorkerInstant(0), 10 + id..11 + id);
        let effects = batcher.answered(WorkerInstant(0), CallId(id), Err(NoReply::Late));
        if id < 2 {
            hand_over(&mut batcher, effects.outgoing, 20 + id);
            answered(&mut batcher, 0, 20 + id, b"-ERR\r\n");
            break;
        }
    }
    ask(&mut batcher, WorkerInstant(0), 30..31);
    send(&mut batcher, WorkerInstant(0), 30);
    ask(&mut batcher, WorkerInstant(0), 31..33);
    let Effects { outgoing, settled } =
        batcher.answered(WorkerInstant(0), CallId(30), Err(NoReply::Late));
    assert!(failed(&settled) && outgoing.is_empty());
    assert_eq!(tickets(&settled), [30, 31, 32]);
}

#[test]
fn a_look_is_a_take_and_brings_the_store_back() {
    let mut batcher = broken();
    assert!(batcher.tick(WorkerInstant(50_000)).outgoing.is_empty());
    let outgoing = batcher.tick(WorkerInstant(100_000)).outgoing;
    let look = hand_over(&mut batcher, outgoing, 50);
    assert!(look.contains(TAKE) && look.contains("key2:probe"), "{look}");
    assert!(
        batcher.tick(WorkerInstant(100_001)).outgoing.is_empty(),
        "one look at a time"
    );
    answered(&mut batcher, 101_000, 50, &reply(1));
    ask(&mut batcher, WorkerInstant(101_001), 60..61);
    send(&mut batcher, WorkerInstant(101_002), 61);
    answered(&mut batcher, 101_003, 61, &reply(1));
    assert_eq!(batcher.health().open, 0);
    assert!(batcher.is_idle());
}

/// A replica tells what a key holds, but takes nothing.
#[test]
fn a_look_that_took_nothing_leaves_the_lane_shut_until_a_take_passes() {
    let verdict = |verdict: f64| {
        let mut reply = Vec::new();
        let bytes = [1e6, verdict, 0.0, 0.0, 0.0].map(f64::to_le_bytes).concat();
        resp::push_bulk(&mut reply, &bytes);
        reply
    };
    for (look, peeked) in [(-1.0, false), (0.0, false), (-1.0, true)] {
        let mut batcher = broken();
        let outgoing = batcher.tick(WorkerInstant(100_000)).outgoing;
        hand_over(&mut batcher, outgoing, 50);
        answered(&mut batcher, 101_000, 50, &verdict(look));
        assert_eq!(batcher.health().open, 1);
        assert_eq!(batcher.last_error(), Some("no answer in time"));
        if peeked {
            batcher.ask(WorkerInstant(101_001), Some(60), &large(Kind::Peek, 1).0[0]);
            send(&mut batcher, WorkerInstant(101_001), 60);
            answered(&mut batcher, 101_002, 60, &verdict(1.0));
            assert_eq!(batcher.health().open, 1, "it only looked");
        }
        ask(&mut batcher, WorkerInstant(101_003), 61..62);
        send(&mut batcher, WorkerInstant(101_003), 61);
        answered(&mut batcher, 101_004, 61, &verdict(1.0));
        assert_eq!(batcher.health().open, 0);
    }
}

/// A lane without callers stayed open, and was shown to operators, until somebody called.
#[test]
fn the_store_is_looked_after_where_nobody_calls_any_more() {
    let mut batcher = broken();
    let outgoing = batcher.tick(WorkerInstant(100_000)).outgoing;
    let look = hand_over(&mut batcher, outgoing, 50);
    assert!(look.contains(TAKE) && look.contains("key2:probe"), "{look}");
    answered(&mut batcher, 101_000, 50, &reply(1));
    assert_eq!(batcher.health().open, 0);
    assert!(batcher.is_idle());
}

#[test]
fn a_cluster_is_asked_a_command_for_each_slot_and_one_may_fail_alone() {
    let mut batcher: Batcher<u32> = Batcher::new(Topology::Cluster, TIMEOUT, 0);
    let place = |key: &str| Topology::Cluster.place(key.as_bytes());
    let (slot, lane) = place("foo");
    let neighbour = (0..)
        .map(|i| format!("key{i}"))
        .find(|key| place(key).1 == lane && place(key).0 > slot)
        .unwrap();
    assert_ne!(place("{bar}").1, lane);
    for (ticket, key) in [(0, "foo"), (1, &neighbour), (2, "{foo}2"), (3, "{bar}")] {
        batcher.ask(
            WorkerInstant(0),
            Some(ticket),
            &part(key, Topology::Cluster),
        );
    }
    let mut outgoing = batcher.turn(WorkerInstant(0)).outgoing;
    outgoing.sort_by_key(|outgoing| outgoing.commands);
    let commands: Vec<usize> = outgoing.iter().map(|outgoing| outgoing.commands).collect();
    assert_eq!(commands, [1, 2]);
    for (id, outgoing) in (0..).zip(outgoing) {
        batcher.sent(outgoing, CallId(id));
    }
    let mut replies = reply(2);
    replies.extend(b"-CLUSTERDOWN The cluster is down\r\n");
    let settled = answered(&mut batcher, 1, 1, &replies).settled;
    assert_eq!(tickets(&settled), [0, 2, 1]);
    assert!(matches!(settled[0].1, Outcome::Answered { .. }));
    assert_eq!(settled[2].1, Outcome::Failed);
    let mut replies = b"-NOSCRIPT\r\n".to_vec();
    let again = answered(&mut batcher, 1, 0, &replies).outgoing;
    hand_over(&mut batcher, again, 7);
    replies = reply(1);
    assert_eq!(
        tickets(&answered(&mut batcher, 2, 7, &replies).settled),
        [3]
    );
}

const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
const HANGS_UP: &str = "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";
const FAILURE: &[u8] = b"-upstream failure\r\n";

/// A call was answered READONLY, and this is what follows.
fn after_readonly(batcher: &mut Batcher<u32>, now: u64, id: u32) -> Effects<u32> {
    ask(batcher, WorkerInstant(now), 1..2);
    send(batcher, WorkerInstant(now), id);
    answered(batcher, now + 100, id, READONLY)
}

#[test]
fn an_answer_that_stays_makes_redis_proxy_hang_up_while_others_wait() {
    let mut batcher = batcher();
    let effects = after_readonly(&mut batcher, 0, 1);
    assert_eq!(effects.settled, [(1, Outcome::Failed)]);
    assert_eq!(hand_over(&mut batcher, effects.outgoing, 2), HANGS_UP);
    assert!(!batcher.is_idle());

    ask(&mut batcher, WorkerInstant(200), 3..5);
    assert!(batcher.tick(WorkerInstant(10_000)).outgoing.is_empty());
    let effects = answered(&mut batcher, 40_000, 2, FAILURE);
    assert!(effects.settled.is_empty());
    let body = hand_over(&mut batcher, effects.outgoing, 3);
    assert!(body.contains("key3") && body.contains("key4"), "{body}");
    assert_eq!(batcher.kept(), None);
}

#[test]
fn every_answer_that_stays_does_and_no_other() {
    let wrapped = "-ERR Error running script (call to f_ff42): @user_script:2: -READONLY You";
    for (error, hangs_up) in [
        ("-MASTERDOWN Link with MASTER is down", true),
        ("-NOAUTH Authentication required.", true),
        ("-WRONGPASS invalid username-password pair", true),
        ("-NOPERM this user has no permissions", true),
        ("-MISCONF Redis is configured to save RDB snapshots", true),
        ("-NOREPLICAS Not enough good replicas to write.", true),
        ("-LOADING Redis is loading the dataset in memory", true),
        (wrapped, true),
        ("-OOM command not allowed", false),
        ("-BUSY Redis is busy running a script.", false),
        ("-upstream failure", false),
        ("-UNREACHABLE weir-sidecar: gone", false),
    ] {
        let mut batcher = batcher();
        ask(&mut batcher, WorkerInstant(0), 1..2);
        send(&mut batcher, WorkerInstant(0), 1);
        let effects = answered(&mut batcher, 100, 1, format!("{error}\r\n").as_bytes());
        assert_eq!(effects.outgoing.len(), usize::from(hangs_up), "{error}");
    }
}

#[test]
fn who_was_not_let_in_says_more_than_a_stranger_may() {
    let mut batcher = batcher();
    ask(&mut batcher, WorkerInstant(0), 1..2);
    send(&mut batcher, WorkerInstant(0), 1);
    let effects = answered(
        &mut batcher,
        100,
        1,
        b"-NOAUTH Authentication required.\r\n",
    );
    let body = hand_over(&mut batcher, effects.outgoing, 2);
    assert!(body.starts_with("*11\r\n$6\r\nCLIENT\r\n"), "{body}");
    let told = b"-ERR Protocol error: unauthenticated multibulk length\r\n";
    answered(&mut batcher, 200, 2, told);
    assert_eq!(batcher.kept(), None);
}

#[test]
fn nothing_is_under_way_when_replies_stop() {
    let mut batcher = batcher();
    // Where the round trip is long, calls overlap.
    ask(&mut batcher, WorkerInstant(0), 1..2);
    send(&mut batcher, WorkerInstant(0), 1);
    answered(&mut batcher, 20_000, 1, &reply(1));
    for id in [2, 3] {
        let now = WorkerInstant(20_000 * u64::from(id));
        ask(&mut batcher, now, id..id + 1);
        send(&mut batcher, now, id);
    }
    let effects = answered(&mut batcher, 61_000, 2, READONLY);
    assert!(effects.outgoing.is_empty());
    let effects = answered(&mut batcher, 62_000, 3, READONLY);
    assert_eq!(hand_over(&mut batcher, effects.outgoing, 4), HANGS_UP);
}

#[test]
fn a_server_that_means_it_is_left_once_a_second() {
    let mut batcher = batcher();
    let effects = after_readonly(&mut batcher, 0, 1);
    hand_over(&mut batcher, effects.outgoing, 2);
    answered(&mut batcher, 40_000, 2, FAILURE);
    let effects = after_readonly(&mut batcher, 50_000, 3);
    assert!(effects.outgoing.is_empty());
    let effects = after_readonly(&mut batcher, 1_000_500, 4);
    // That is the third failure, and the breaker opens; it is left all the same.
    assert_eq!(hand_over(&mut batcher, effects.outgoing, 5), HANGS_UP);
}

#[test]
fn an_open_breaker_looks_at_the_new_connection_at_once() {
    let mut batcher = batcher();
    let effects = after_readonly(&mut batcher, 0, 1);
    hand_over(&mut batcher, effects.outgoing, 2);
    answered(&mut batcher, 40_000, 2, FAILURE);
    for (now, id) in [(50_000, 3), (60_000, 4)] {
        after_readonly(&mut batcher, now, id);
    }
    assert_eq!(batcher.health().open, 1);
    // Looks fail, until one comes when it may be left again.
    let (mut now, mut id) = (60_100, 5);
    let left = loop {
        now += 10_000;
        let effects = batcher.tick(WorkerInstant(now));
        if effects.outgoing.is_empty() {
            continue;
        }
        assert!(hand_over(&mut batcher, effects.outgoing, id).contains("EVALSHA"));
        let effects = answered(&mut batcher, now + 100, id, READONLY);
        id += 1;
        if !effects.outgoing.is_empty() {
            break effects.outgoing;
        }
    };
    assert_eq!(hand_over(&mut batcher, left, id), HANGS_UP);
    assert!((1_000_000..2_000_000).contains(&now), "{now}");
    let effects = answered(&mut batcher, now + 50_000, id, FAILURE);
    let body = hand_over(&mut batcher, effects.outgoing, id + 1);
    assert!(body.contains("EVALSHA"), "{body}");
}

#[test]
fn without_an_answer_redis_proxy_is_given_its_own_time() {
    let mut batcher = batcher();
    let effects = after_readonly(&mut batcher, 0, 1);
    hand_over(&mut batcher, effects.outgoing, 2);
    let silence = batcher.answered(WorkerInstant(50_100), CallId(2), Err(NoReply::Late));
    assert!(silence.outgoing.is_empty());
    ask(&mut batcher, WorkerInstant(80_000), 7..8);
    assert!(batcher.tick(WorkerInstant(90_000)).outgoing.is_empty());
    let effects = batcher.tick(WorkerInstant(100_200));
    assert!(hand_over(&mut batcher, effects.outgoing, 3).contains("key7"));
}

#[test]
fn a_redis_proxy_that_would_not_hang_up_is_told_of_with_the_mend() {
    for (answer, told) in [
        ("ERR unknown command 'CLIENT', with args", true),
        ("NOPERM User weir has no permissions to run 'client'", true),
        ("ERR weir-sidecar: only EVALSHA and reads are served", false),
    ] {
        let mut batcher = batcher();
        let effects = after_readonly(&mut batcher, 0, 1);
        hand_over(&mut batcher, effects.outgoing, 2);
        answered(&mut batcher, 300, 2, format!("-{answer}\r\n").as_bytes());
        let kept = batcher.kept();
        let is_told = kept.is_some_and(|kept| kept.contains("custom_commands: [client]"));
        assert_eq!(is_told, told, "{answer}");
        ask(&mut batcher, WorkerInstant(400), 8..9);
        assert!(send(&mut batcher, WorkerInstant(400), 3).contains("key8"));
    }
}

#[test]
fn in_a_cluster_nobody_is_made_to_hang_up() {
    let mut batcher: Batcher<u32> = Batcher::new(Topology::Cluster, TIMEOUT, 0);
    batcher.ask(WorkerInstant(0), Some(1), &part("key", Topology::Cluster));
    let effects = batcher.turn(WorkerInstant(0));
    hand_over(&mut batcher, effects.outgoing, 1);
    let effects = answered(&mut batcher, 100, 1, READONLY);
    assert!(effects.outgoing.is_empty());
}

#[test]
fn a_command_that_the_user_lacks_is_named_with_the_mend() {
    let mut batcher = batcher();
    let error = "ERR ACL failure in script: User t has no permissions to run the 'exists' \
                 command script: on @user_script:2.";
    for id in 1..4 {
        ask(&mut batcher, WorkerInstant(0), id..id + 1);
        send(&mut batcher, WorkerInstant(0), id);
        let effects = answered(&mut batcher, 1, id, format!("-{error}\r\n").as_bytes());
        if !effects.outgoing.is_empty() {
            hand_over(&mut batcher, effects.outgoing, 90);
            answered(&mut batcher, 1, 90, FAILURE);
        }
    }
    let told = "may not use EXISTS: ACL SETUSER … +exists";
    let last_error = batcher.last_error().unwrap();
    assert!(last_error.contains(told), "{last_error}");
}
