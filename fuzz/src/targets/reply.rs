//! The script's reply: integers are an answer to what was asked or refused, and whatever the store
//! sends, everybody who waits has one outcome.

use std::rc::Rc;

use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::{Kind, Retry, Verdict};
use weir_core::quota::packed::Terms;
use weir_core::store::batch::{Batcher, Effects};
use weir_core::store::call::CallId;
use weir_core::store::check::{Check, CheckRequest};
use weir_core::store::reply::{Answer, ReplySchema, decode};
use weir_core::store::slot::Topology;
use weir_core::time::{Span, WorkerInstant};

use crate::Target;
use crate::input::Input;

pub const TARGET: Target = Target {
    name: "reply",
    run,
    words: &[
        "$128\r\n",
        "$40\r\n",
        "\0\0\0\0\0\0\u{f0}?",
        "*1\r\n",
        ":1\r\n",
        "-NOSCRIPT No matching script.\r\n",
        "-READONLY\r\n",
        "-upstream failure\r\n",
        "$-1\r\n",
        "\r\n",
        ":9223372036854775807\r\n",
    ],
};

const REQUESTS: u32 = 3;

fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.below(2) {
        0 => integers(input),
        _ => a_body(input),
    }
}

fn integers(mut input: Input<'_>) {
    let operations = [input.below(3), input.below(3)];
    let mut schema = ReplySchema::default();
    for limits in operations {
        for place in 0..limits {
            schema.limit(place, Cost::ONE);
        }
        schema.operation(limits);
    }
    let mut integers = Vec::new();
    while !input.0.is_empty() {
        // Small numbers mean something; large ones are to be refused or kept exactly.
        integers.push(match input.byte() {
            0x7f => i64::MAX,
            0x80 => i64::MIN,
            byte => i64::from(byte.cast_signed()),
        });
    }
    let Ok(answer) = decode(&schema, integers.iter().copied()) else {
        return;
    };
    assert_eq!(answer.told.len(), operations.len());
    for (told, limits) in answer.told.iter().zip(operations) {
        assert_eq!(told.limits.len(), limits);
    }
    if integers.get(1) == Some(&2) {
        return together(&answer, &integers);
    }
    let mut at = 1;
    let mut again = vec![answer.now.0 as i64];
    for told in &answer.told {
        let end = at + 1 + 3 * told.limits.len();
        let own = &integers[at..end];
        at = end;
        if told.verdict == Verdict::Unreadable {
            // It may be so because a number is out of range.
            again.extend(own);
            continue;
        }
        again.push(match told.verdict {
            Verdict::Passed => 1,
            Verdict::Refused => 0,
            Verdict::Unreadable => -1,
        });
        for reading in &told.limits {
            again.extend([
                reading.remaining,
                match reading.retry {
                    Retry::Now => 0,
                    Retry::After(wait) => wait.as_millis() as i64,
                    Retry::Never => -1,
                    Retry::Unknown => -2,
                },
                reading.reset.as_millis() as i64,
            ]);
        }
    }
    assert_eq!(again, integers, "nothing is lost on the way");
}

/// A key was told of once, as the last operation that named it left it.
fn together(answer: &Answer, integers: &[i64]) {
    if answer
        .told
        .iter()
        .any(|told| told.verdict != Verdict::Passed)
    {
        return;
    }
    let keys = answer.told.iter().map(|told| told.limits.len()).max();
    let mut again = vec![answer.now.0 as i64, 2];
    for key in 0..keys.unwrap_or(0) {
        let mut readings = answer.told.iter().filter_map(|told| told.limits.get(key));
        let last = readings.next_back().expect("a key that somebody named");
        assert_eq!(last.retry, Retry::Now);
        again.extend([last.remaining, last.reset.as_millis() as i64]);
    }
    assert_eq!(again, integers, "nothing is lost on the way");
}

fn a_body(mut input: Input<'_>) {
    let topology = [Topology::Single, Topology::Cluster][input.below(2)];
    let mut store = Store {
        batcher: Batcher::new(topology, Span::millis(50), 0),
        outcomes: vec![0; REQUESTS as usize],
        calls: 0,
    };
    for request in 0..REQUESTS {
        for part in check_request(request).split(topology) {
            store.batcher.ask(WorkerInstant(0), Some(request), &part);
        }
    }
    let asked = store.batcher.turn(WorkerInstant(1));
    store.perform(asked);
    let mut answered = 0;
    while answered < store.calls && answered < 64 {
        let effects = store
            .batcher
            .answered(WorkerInstant(2), CallId(answered), Ok(input.0));
        store.perform(effects);
        answered += 1;
    }
    let late = store.batcher.tick(WorkerInstant(60_000_000));
    store.perform(late);
    assert!(
        store.outcomes.iter().all(|outcomes| *outcomes == 1),
        "{:?}",
        store.outcomes
    );
}

struct Store {
    batcher: Batcher<u32>,
    outcomes: Vec<usize>,
    calls: u32,
}

impl Store {
    fn perform(&mut self, effects: Effects<u32>) {
        for outgoing in effects.outgoing {
            self.batcher.sent(outgoing, CallId(self.calls));
            self.calls += 1;
        }
        for (request, _) in effects.settled {
            self.outcomes[request as usize] += 1;
        }
    }
}

/// Of one slot, so that it is asked in one part.
fn check_request(request: u32) -> Rc<CheckRequest> {
    let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).expect("a quota");
    let check = |place: u32| Check {
        key: format!("weir:2:{{u:{request}}}:r:user:fw60s.{place}").into_bytes(),
        terms: Terms::new(quota),
        cost: Cost::ONE,
    };
    let mut check_request = CheckRequest::default();
    check_request.ask(Kind::Take, (0..=request % 2).map(check));
    Rc::new(check_request)
}
