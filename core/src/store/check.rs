//! What one request asks of the store: script operations over limits. `lua/README.md` has the
//! contract. Where the keys live in more than one slot, a check request comes apart into one for each, and
//! one that is too large for a call into several.

use std::rc::Rc;

use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::{Kind, OperationReply, Verdict};
use crate::quota::packed::Terms;
use crate::store::encode::Encoder;
use crate::store::probe;
use crate::store::slot::{Lane, Slot, Topology};
use crate::time::StoreInstant;

/// Some operations, in order, each over the checks that follow those of the one before.
#[derive(Clone, Debug, Default)]
pub struct CheckRequest {
    operations: Vec<Operation>,
    checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: Kind,
    /// How many checks are its.
    pub checks: usize,
}

/// One limit with the key that it is counted in.
#[derive(Clone, Debug)]
pub struct Check {
    pub key: Vec<u8>,
    pub terms: Rc<Terms>,
    pub cost: Cost,
}

/// The part of a check request that one script call can answer.
#[derive(Clone, Debug)]
pub struct ShardRequest {
    pub slot: Slot,
    pub lane: Lane,
    pub check_request: Rc<CheckRequest>,
    /// Whether the whole was too large for a call, and looks at least in part, as a status call does: it
    /// waits for those who ask less, and longer.
    pub patient: bool,
    places: Places,
}

/// The most checks of a part that can be smaller. Redis serves nobody else while it answers: 1.5 ms.
const MOST_CHECKS: usize = 256;

/// Which of the whole's operations and checks a part's are, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    All,
    Some {
        operations: Vec<usize>,
        checks: Vec<usize>,
    },
}

impl CheckRequest {
    /// Adds an operation over some checks.
    pub fn ask(&mut self, kind: Kind, checks: impl IntoIterator<Item = Check>) {
        let before = self.checks.len();
        self.checks.extend(checks);
        self.operations.push(Operation {
            kind,
            checks: self.checks.len() - before,
        });
    }

    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Each operation with its checks.
    pub fn operations(&self) -> impl Iterator<Item = (Operation, &[Check])> {
        let mut rest = self.checks.as_slice();
        self.operations.iter().map(move |operation| {
            let (own, others) = rest
                .split_at_checked(operation.checks)
                .unwrap_or((rest, &[]));
            rest = others;
            (*operation, own)
        })
    }

    /// How many checks each operation has: what its part of a reply is read by.
    pub fn schema(&self) -> impl Iterator<Item = usize> {
        self.operations.iter().map(|operation| operation.checks)
    }

    /// Appends its operations.
    pub fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) {
        for (operation, checks) in self.operations() {
            encoder.ask(operation.kind, checks);
        }
    }

    /// Tells whether the store takes: of one permit, where these keys are, of what nobody counts. It
    /// always has room, so that it always writes, and a second later nothing is left of it. Nothing
    /// where there are no keys.
    pub fn probing(&self) -> Option<CheckRequest> {
        const ROOM: u64 = 1_000_000;
        let check = Check {
            key: probe::of_probe(&self.checks.first()?.key),
            terms: Terms::new(Quota::try_new(Algorithm::FixedWindow, ROOM, 1, None).ok()?),
            cost: Cost::ONE,
        };
        let mut probe = CheckRequest::default();
        probe.ask(Kind::Take, [check]);
        Some(probe)
    }

    /// Whether the store, as it told of its operations, took something: then it takes writes.
    pub fn took(&self, told: &[OperationReply]) -> bool {
        let all = self.operations.iter().zip(told);
        all.into_iter().any(|(operation, told)| {
            let takes = matches!(operation.kind, Kind::Take | Kind::Charge);
            takes && told.verdict == Verdict::Passed && !told.limits.is_empty()
        })
    }

    /// Undoes what the operations at these places took at the time of the receipt.
    pub fn giving_back(&self, receipt: StoreInstant, places: &[usize]) -> CheckRequest {
        let mut back = CheckRequest::default();
        for (place, (operation, checks)) in self.operations().enumerate() {
            if operation.kind == Kind::Take && places.contains(&place) {
                let kind = Kind::Refund { receipt };
                back.ask(kind, checks.iter().cloned());
            }
        }
        back
    }

    /// The parts that can be asked on their own; a single primary answers the whole, unless it is too
    /// large.
    pub fn split(self: &Rc<CheckRequest>, topology: Topology) -> Vec<ShardRequest> {
        let (slot, lane) = match self.checks.first() {
            None => return Vec::new(),
            Some(first) => topology.place(&first.key),
        };
        let here = |check: &Check| topology.place(&check.key) == (slot, lane);
        let small = self.checks.len() <= MOST_CHECKS;
        if small && (topology == Topology::Single || self.checks.iter().all(here)) {
            return vec![ShardRequest {
                slot,
                lane,
                check_request: self.clone(),
                patient: false,
                places: Places::All,
            }];
        }
        self.split_without(topology, &[])
    }

    /// The same without some checks, whose answers are known. An operation of which none is left is
    /// not asked.
    pub fn split_without(&self, topology: Topology, known: &[usize]) -> Vec<ShardRequest> {
        let place = |(number, check): (usize, &Check)| {
            (!known.contains(&number)).then(|| topology.place(&check.key))
        };
        let places: Vec<Option<(Slot, Lane)>> = self.checks.iter().enumerate().map(place).collect();
        let mut distinct: Vec<(Slot, Lane)> = places.iter().copied().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        distinct
            .into_iter()
            .flat_map(|place| self.parts(place, &places))
            .collect()
    }

    /// The checks at one place, in the operations that have some there. A take is whole in one part, for
    /// all of it passes or none; all else comes apart wherever a part is full.
    fn parts(&self, place: (Slot, Lane), places: &[Option<(Slot, Lane)>]) -> Vec<ShardRequest> {
        let mut parts = vec![Piece::default()];
        let mut all = self.checks.iter().zip(places).enumerate();
        for (at, operation) in self.operations.iter().enumerate() {
            let own = all
                .by_ref()
                .take(operation.checks)
                .filter(|(_, (_, at))| **at == Some(place));
            let mut own: Vec<(usize, Check)> = own
                .map(|(number, (check, _))| (number, check.clone()))
                .collect();
            while !own.is_empty() {
                let taken = parts.last().map_or(0, |part| part.checks.len());
                let room = MOST_CHECKS.saturating_sub(taken);
                let now = match operation.kind {
                    Kind::Take if taken == 0 => own.len(),
                    Kind::Take if own.len() > room => 0,
                    _ => own.len().min(room),
                };
                let rest = own.split_off(now);
                if let Some(part) = parts.last_mut().filter(|_| now > 0) {
                    part.add(at, operation.kind, own);
                }
                if !rest.is_empty() {
                    parts.push(Piece::default());
                }
                own = rest;
            }
        }
        let (slot, lane) = place;
        let looks = self.operations.iter().any(|one| one.kind == Kind::Peek);
        let patient = looks && parts.len() > 1;
        let parts = parts.into_iter().map(|piece| ShardRequest {
            slot,
            lane,
            check_request: Rc::new(piece.check_request),
            patient,
            places: Places::Some {
                operations: piece.operations,
                checks: piece.checks,
            },
        });
        parts.collect()
    }
}

/// A part as it grows: its check request, and the places of its operations and checks in the whole.
#[derive(Default)]
struct Piece {
    check_request: CheckRequest,
    operations: Vec<usize>,
    checks: Vec<usize>,
}

impl Piece {
    fn add(&mut self, operation: usize, kind: Kind, checks: Vec<(usize, Check)>) {
        let (numbers, own): (Vec<usize>, Vec<Check>) = checks.into_iter().unzip();
        self.check_request.ask(kind, own);
        self.operations.push(operation);
        self.checks.extend(numbers);
    }
}

impl ShardRequest {
    /// The place of its nth operation in the whole.
    pub fn operation(&self, nth: usize) -> Option<usize> {
        match &self.places {
            Places::All => Some(nth),
            Places::Some { operations, .. } => operations.get(nth).copied(),
        }
    }

    /// The place of its nth check in the whole.
    pub fn check(&self, nth: usize) -> Option<usize> {
        match &self.places {
            Places::All => Some(nth),
            Places::Some { checks, .. } => checks.get(nth).copied(),
        }
    }

    /// Whether checks of the whole's operation of this place are among its.
    pub fn holds(&self, operation: usize) -> bool {
        match &self.places {
            Places::All => true,
            Places::Some { operations, .. } => operations.contains(&operation),
        }
    }

    /// Another check request about the same keys.
    pub fn asking(&self, check_request: CheckRequest) -> ShardRequest {
        ShardRequest {
            check_request: Rc::new(check_request),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::limit::Algorithm;

    fn check(key: &str) -> Check {
        let quota = Quota::try_new(Algorithm::FixedWindow, 5, 60, None).unwrap();
        Check {
            key: key.as_bytes().to_vec(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        }
    }

    fn check_request() -> Rc<CheckRequest> {
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Take, ["{a}1", "{b}1"].map(check));
        check_request.ask(Kind::Peek, ["{b}2", "{c}1", "{b}3"].map(check));
        Rc::new(check_request)
    }

    #[test]
    fn a_single_primary_answers_the_whole() {
        let parts = check_request().split(Topology::Single);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].places, Places::All);
    }

    #[test]
    fn each_slot_of_a_cluster_is_asked_its_own_checks_in_order() {
        let parts = check_request().split(Topology::Cluster);
        let told: Vec<(String, Vec<usize>, Places)> = parts
            .iter()
            .map(|part| {
                let tag =
                    String::from_utf8_lossy(&part.check_request.checks[0].key[..3]).into_owned();
                (
                    tag,
                    part.check_request.schema().collect(),
                    part.places.clone(),
                )
            })
            .collect();
        let places = |operations: &[usize], checks: &[usize]| Places::Some {
            operations: operations.to_vec(),
            checks: checks.to_vec(),
        };
        assert_eq!(
            told,
            [
                ("{b}".to_string(), vec![1, 2], places(&[0, 1], &[1, 2, 4])),
                ("{c}".to_string(), vec![1], places(&[1], &[3])),
                ("{a}".to_string(), vec![1], places(&[0], &[0])),
            ]
        );
    }

    #[test]
    fn what_is_known_is_not_asked() {
        let parts = check_request().split_without(Topology::Single, &[1, 2]);
        let part = &parts[0];
        let keys: Vec<_> = part
            .check_request
            .checks()
            .iter()
            .map(|check| check.key.as_slice())
            .collect();
        assert_eq!(
            (parts.len(), keys),
            (1, vec![&b"{a}1"[..], b"{c}1", b"{b}3"])
        );
        assert_eq!(
            [0, 1, 2].map(|nth| part.check(nth)),
            [Some(0), Some(3), Some(4)]
        );
        let parts = check_request().split_without(Topology::Single, &[0, 1]);
        assert_eq!(
            parts[0].operation(0),
            Some(1),
            "of the first operation nothing is left"
        );
        assert!(!parts[0].holds(0));
    }

    #[test]
    fn what_is_too_large_for_a_call_comes_apart_but_for_takes() {
        let checks = |prefix: char, count: usize| {
            (0..count).map(move |number| check(&format!("{{{prefix}}}{number}")))
        };
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Take, checks('t', 1));
        check_request.ask(Kind::Peek, checks('p', 2 * MOST_CHECKS));
        check_request.ask(Kind::Take, checks('u', MOST_CHECKS));
        check_request.ask(Kind::Take, checks('v', MOST_CHECKS + 5));
        let count = check_request.checks().len();
        let parts = Rc::new(check_request).split(Topology::Single);
        let shapes: Vec<Vec<usize>> = parts
            .iter()
            .map(|part| part.check_request.schema().collect())
            .collect();
        assert_eq!(
            shapes,
            [
                vec![1, MOST_CHECKS - 1],
                vec![MOST_CHECKS],
                vec![1],
                vec![MOST_CHECKS],
                vec![MOST_CHECKS + 5],
            ]
        );
        let operations: Vec<Option<usize>> = parts.iter().map(|part| part.operation(0)).collect();
        assert_eq!(operations, [0, 1, 1, 2, 3].map(Some));
        let places = parts.iter().flat_map(|part| {
            let checks = part.check_request.checks().len();
            (0..checks).filter_map(|nth| part.check(nth))
        });
        assert!(places.eq(0..count), "each check is in one part, in order");
        assert!(parts.iter().all(|part| part.patient));
    }

    #[test]
    fn keys_of_one_slot_stay_together() {
        let mut check_request = CheckRequest::default();
        check_request.ask(Kind::Take, ["{a}1", "{a}2"].map(check));
        assert_eq!(Rc::new(check_request).split(Topology::Cluster).len(), 1);
    }

    #[test]
    fn only_what_was_taken_is_given_back() {
        let back = check_request().giving_back(StoreInstant(7), &[0, 1]);
        let kinds: Vec<Kind> = back
            .operations
            .iter()
            .map(|operation| operation.kind)
            .collect();
        assert_eq!(
            kinds,
            [Kind::Refund {
                receipt: StoreInstant(7)
            }]
        );
        assert_eq!(back.checks.len(), 2);
    }
}
