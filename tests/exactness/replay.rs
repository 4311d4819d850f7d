//! The first check: the algorithms in memory, one operation after the other, must decide and tell
//! what Redis decided and told with all its callers at once.
//!
//! The order is that of Redis's clock. Calls of different connections may share a microsecond; then
//! any order that explains them will do, and the one that was found is what later checks go by.

use weir_core::quota::model::Counters;
use weir_core::time::StoreInstant;

use crate::history::{Call, Checked, Fault, History, KeyId, Operation, fault};

/// The calls in an order in which they can have happened.
pub struct Order<'a> {
    pub calls: Vec<&'a Call>,
    /// How many calls shared their microsecond with another.
    pub tied: usize,
}

pub fn replay(history: &History) -> Checked<Order<'_>> {
    let mut calls: Vec<&Call> = history.calls.iter().collect();
    check_clock(&calls)?;
    // Stable: calls of one connection stay as they came.
    calls.sort_by_key(|call| call.now);
    let mut counters = Counters::default();
    let mut order = Order {
        calls: Vec::with_capacity(calls.len()),
        tied: 0,
    };
    for tied in calls.chunk_by(|a, b| a.now == b.now) {
        if let [call] = tied {
            run(history, &mut counters, call)?;
            order.calls.push(call);
        } else {
            order.tied += tied.len();
            counters = arrange(history, &counters, tied.to_vec(), &mut order.calls)?;
        }
    }
    Ok(order)
}

/// Each connection's replies must be in order of time, or time tells nothing about the order.
fn check_clock(calls: &[&Call]) -> Checked<()> {
    let mut latest: Vec<StoreInstant> = Vec::new();
    for call in calls {
        if latest.len() <= call.connection {
            latest.resize(call.connection + 1, StoreInstant(0));
        }
        let before = std::mem::replace(&mut latest[call.connection], call.now);
        if call.now < before {
            return fault("Redis's clock went back during the run: repeat it".to_owned());
        }
    }
    Ok(())
}

/// Tries every order of calls that share a microsecond. The counters after the first that fits.
fn arrange<'a>(
    history: &History,
    before: &Counters<KeyId>,
    calls: Vec<&'a Call>,
    order: &mut Vec<&'a Call>,
) -> Checked<Counters<KeyId>> {
    if calls.is_empty() {
        return Ok(before.clone());
    }
    let mut first_fault = None;
    for at in 0..calls.len() {
        let connection = calls[at].connection;
        if calls[..at].iter().any(|call| call.connection == connection) {
            continue;
        }
        let mut rest = calls.clone();
        let call = rest.remove(at);
        let mut counters = before.clone();
        let length = order.len();
        let outcome = run(history, &mut counters, call).and_then(|()| {
            order.push(call);
            arrange(history, &counters, rest, order)
        });
        match outcome {
            Ok(counters) => return Ok(counters),
            Err(fault) => {
                order.truncate(length);
                first_fault.get_or_insert(fault);
            }
        }
    }
    let Fault(reason) = first_fault.unwrap_or(Fault(String::new()));
    fault(format!(
        "no order of {} calls in one microsecond explains them; in the order that came:\n{reason}",
        calls.len()
    ))
}

fn run(history: &History, counters: &mut Counters<KeyId>, call: &Call) -> Checked<()> {
    let batch = call
        .operations
        .iter()
        .map(|one| (one.kind, one.limits.as_slice()));
    let expected = counters.run_batch(batch, call.now, call.together);
    for (operation, expected) in call.operations.iter().zip(expected) {
        let Operation { kind, limits, told } = operation;
        if *told == expected {
            continue;
        }
        let mut text = format!(
            "Redis decided otherwise than the algorithms in memory: {kind:?}, told {:?}, expected \
             {:?}",
            told.verdict, expected.verdict
        );
        let readings = limits.iter().zip(&told.limits).zip(&expected.limits);
        for (((key, quota, cost), told), expected) in readings {
            let mark = if told == expected { ' ' } else { '≠' };
            let place = history.place((*key, *quota), call.now);
            let cost = cost.get();
            text += &format!(
                "\n{mark} {place}, cost {cost}\n    told     {told:?}\n    expected {expected:?}"
            );
        }
        return fault(text);
    }
    Ok(())
}
