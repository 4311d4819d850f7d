use super::*;

const TIMEOUT: Span = Span::millis(50);
const START: WorkerInstant = WorkerInstant(1_000_000);
const OK: &[u8] = b"+OK\r\n";
const REPLY: &[u8] = b"$2\r\n\x01\x02\r\n";

fn links() -> Links {
    Links::new(TIMEOUT)
}

fn after(millis: u64) -> WorkerInstant {
    WorkerInstant(START.0 + millis * 1000)
}

fn open(links: &mut Links, id: u32) -> LinkId {
    links.opened(LinkId(id));
    LinkId(id)
}

fn answer(call: CallId, body: &[u8]) -> Option<Answer> {
    Some(Answer {
        call,
        body: body.to_vec(),
    })
}

#[test]
fn a_link_carries_one_call_after_the_other() {
    let mut links = links();
    assert_eq!(links.idle(), None);
    let link = open(&mut links, 7);
    let first = links.sent(START, link, 1);
    assert_eq!(links.idle(), None, "it is busy");
    assert_eq!(links.received(link, REPLY.to_vec()), answer(first, REPLY));
    links.rested();
    assert_eq!(links.idle(), Some(link));
    let second = links.sent(START, link, 1);
    assert_ne!(second, first);
    assert_eq!(links.received(link, REPLY.to_vec()), answer(second, REPLY));
}

#[test]
fn a_link_rests_while_its_answer_is_handed_over() {
    let mut links = links();
    let (first, second) = (open(&mut links, 1), open(&mut links, 2));
    let call = links.sent(START, first, 1);
    assert_eq!(links.received(first, REPLY.to_vec()), answer(call, REPLY));
    assert_eq!(links.idle(), Some(second), "the first may end now");
    links.rested();
    assert_eq!(links.closed(first), None, "and takes no call along");
    assert_eq!(links.idle(), Some(second));
}

#[test]
fn an_answer_is_whole_however_it_comes() {
    let whole = [REPLY, OK, b"-NOSCRIPT no\r\n"].concat();
    for cut in 1..whole.len() {
        let mut links = links();
        let link = open(&mut links, 1);
        let call = links.sent(START, link, 3);
        let (head, tail) = whole.split_at(cut);
        assert_eq!(links.received(link, head.to_vec()), None, "{cut}");
        assert_eq!(links.received(link, tail.to_vec()), answer(call, &whole));
        assert_eq!(links.broken(), None);
    }
}

#[test]
fn what_is_late_fails_alone_and_its_link_is_closed() {
    let mut links = links();
    let (slow, quick) = (open(&mut links, 1), open(&mut links, 2));
    let late = links.sent(START, slow, 1);
    let call = links.sent(after(1), quick, 1);
    assert_eq!(links.next_late(), Some(after(50)));
    assert_eq!(links.late(after(49)), None);
    assert_eq!(links.late(after(50)), Some(late));
    assert_eq!(links.late(after(50)), None);
    // It would be taken for what the next call asks.
    assert_eq!(links.received(slow, REPLY.to_vec()), None);
    assert_eq!(links.received(quick, REPLY.to_vec()), answer(call, REPLY));
    links.rested();
    assert_eq!(links.broken(), Some(slow));
    assert_eq!(links.broken(), None);
    assert_eq!(links.idle(), Some(quick));
    assert_eq!(links.next_late(), None);
}

#[test]
fn what_is_closed_at_the_other_end_fails_its_call() {
    let mut links = links();
    let (busy, idle) = (open(&mut links, 1), open(&mut links, 2));
    let call = links.sent(START, busy, 1);
    assert_eq!(links.closed(busy), Some(call));
    assert_eq!(links.closed(busy), None);
    assert_eq!(links.closed(idle), None);
    assert_eq!(links.idle(), None);
}

#[test]
fn what_is_out_of_step_carries_no_further_call() {
    let bodies: [&[u8]; 3] = [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$2\r\n\x01\x02\r\n+more than was asked\r\n",
        b"+OK\r\n+O",
    ];
    for body in bodies {
        let mut links = links();
        let link = open(&mut links, 1);
        let call = links.sent(START, link, 1);
        assert_eq!(links.received(link, body.to_vec()), answer(call, body));
        assert_eq!(links.broken(), Some(link));
        assert_eq!(links.idle(), None);
    }
}

#[test]
fn an_error_is_an_answer() {
    let mut links = links();
    let link = open(&mut links, 1);
    let call = links.sent(START, link, 1);
    let error = b"-LOADING Redis is loading the dataset in memory\r\n";
    assert_eq!(links.received(link, error.to_vec()), answer(call, error));
    assert_eq!(links.broken(), None);
    links.rested();
    assert_eq!(links.idle(), Some(link));
}

#[test]
fn replies_that_nobody_asked_for_end_a_link() {
    let mut links = links();
    let link = open(&mut links, 1);
    assert_eq!(links.received(link, OK.to_vec()), None);
    assert_eq!(links.broken(), Some(link));
    assert_eq!(links.received(link, OK.to_vec()), None, "it is forgotten");
}

#[test]
fn a_link_without_end_is_not_read_without_end() {
    let mut links = links();
    let link = open(&mut links, 1);
    let call = links.sent(START, link, usize::MAX);
    let piece = REPLY.repeat(1 << 16);
    let pieces = MAX_BODY / piece.len();
    for _ in 0..pieces {
        assert_eq!(links.received(link, piece.clone()), None);
    }
    let end = links.received(link, piece).unwrap();
    assert_eq!(end.call, call);
    assert_eq!(links.broken(), Some(link));
}
