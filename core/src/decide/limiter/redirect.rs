//! A request that the proxy redirects by itself: it ends as one stream without a response, and begins as
//! another at once, with the same headers but for where it goes. What it was counted for it is not counted
//! for again. That it was redirected the proxy says as the first one ends; a header alone, which a client may
//! have sent, says nothing.

use std::rc::Rc;

use super::{Passage, Pending, Settlement, Wants};
use crate::decide::answer::Headers;
use crate::live::snapshot::PolicySnapshot;
use crate::policy::ids::LimitId;
use crate::request::subject::Subject;
use crate::time::{Span, WorkerInstant};

/// The other stream begins in the same turn, unless a filter before Weir takes its time.
const LONGEST: Span = Span::seconds(5);
/// So many wait for such filters at most.
const MOST: usize = 256;

/// What a request that passed was counted for.
#[derive(Debug)]
pub struct Counted {
    snapshot: Rc<PolicySnapshot>,
    subject: Subject,
    limits: Vec<LimitId>,
}

/// What goes over from one stream to the other.
#[derive(Debug)]
pub struct Redirected {
    pub counted: Counted,
    pub headers: Headers,
    pub settlements: Vec<Settlement>,
}

/// Those of a worker whose other stream has not begun, each by its connection.
#[derive(Debug, Default)]
pub struct Redirects(Vec<(Vec<u8>, WorkerInstant, Redirected)>);

impl Pending {
    /// What it was counted for, once it has passed; nothing of a status call.
    pub fn counted(self) -> Option<Counted> {
        match self.wants {
            Wants::Status(_) => None,
            Wants::Passage(Passage {
                subject,
                mut limits,
                shadows,
                ..
            }) => {
                limits.extend(shadows.into_iter().flat_map(|shadow| shadow.limits));
                Some(Counted {
                    snapshot: self.snapshot,
                    subject,
                    limits,
                })
            }
        }
    }
}

impl Counted {
    pub fn limits(&self) -> &[LimitId] {
        &self.limits
    }

    /// The same request, redirected before, was counted for these too.
    pub fn join(&mut self, earlier: Counted) {
        self.limits.extend(earlier.limits);
    }
}

impl Redirects {
    /// A request of this connection was redirected. What comes of those that were too many must be
    /// settled.
    pub fn add(
        &mut self,
        connection: Vec<u8>,
        now: WorkerInstant,
        redirected: Redirected,
    ) -> Vec<Settlement> {
        self.0.push((connection, now, redirected));
        let surplus = self.0.len().saturating_sub(MOST);
        let surplus = self.0.drain(..surplus);
        surplus.flat_map(|(_, _, gone)| gone.settlements).collect()
    }

    /// That of this caller on this connection, under the policy that it was counted under.
    pub fn take(
        &mut self,
        connection: &[u8],
        snapshot: &Rc<PolicySnapshot>,
        subject: &Subject,
    ) -> Option<Redirected> {
        let place = self.0.iter().position(|(own, _, redirected)| {
            let counted = &redirected.counted;
            own == connection
                && counted.subject == *subject
                && counted.snapshot.generation == snapshot.generation
        })?;
        Some(self.0.remove(place).2)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those that were not followed by another stream in time; their settlements are to be settled.
    pub fn expire(&mut self, now: WorkerInstant) -> Vec<Settlement> {
        let late = |since: WorkerInstant| now.since(since) >= LONGEST;
        let gone = self.0.extract_if(.., |(_, since, _)| late(*since));
        gone.flat_map(|(_, _, gone)| gone.settlements).collect()
    }

    /// When the first of them is forgotten.
    pub fn next(&self) -> Option<WorkerInstant> {
        let (_, since, _) = self.0.first()?;
        Some(*since + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json::{At, Json};
    use crate::codec::namespace::Namespace;
    use crate::live::snapshot::Version;
    use crate::policy::Policy;

    fn snapshot() -> Rc<PolicySnapshot> {
        let json = Json::parse(r#"{"rules": []}"#, "policy").unwrap();
        let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
        Rc::new(PolicySnapshot::configured(
            Rc::new(policy),
            Namespace::default(),
        ))
    }

    fn user(id: &str) -> Subject {
        Subject::User(id.as_bytes().to_vec())
    }

    fn redirected(snapshot: &Rc<PolicySnapshot>, id: &str) -> Redirected {
        Redirected {
            counted: Counted {
                snapshot: snapshot.clone(),
                subject: user(id),
                limits: vec![LimitId::nth(7)],
            },
            headers: Headers::new(),
            settlements: Vec::new(),
        }
    }

    #[test]
    fn a_redirect_is_for_one_stream_of_that_connection_and_caller() {
        let snapshot = snapshot();
        let next = Rc::new(snapshot.followed_by(snapshot.policy.clone(), Version(1)));
        let mut redirects = Redirects::default();
        redirects.add(
            b"1".to_vec(),
            WorkerInstant(0),
            redirected(&snapshot, "ann"),
        );
        let mut take = |connection: &[u8], snapshot, id| {
            let taken = redirects.take(connection, snapshot, &user(id));
            taken.map(|redirected| redirected.counted.limits().to_vec())
        };
        assert_eq!(take(b"2", &snapshot, "ann"), None);
        assert_eq!(take(b"1", &snapshot, "bob"), None);
        assert_eq!(take(b"1", &next, "ann"), None);
        assert_eq!(take(b"1", &snapshot, "ann"), Some(vec![LimitId::nth(7)]));
        assert_eq!(take(b"1", &snapshot, "ann"), None);
    }

    #[test]
    fn those_that_nothing_follows_are_bounded_in_number_and_time() {
        let snapshot = snapshot();
        let mut redirects = Redirects::default();
        for at in 0..2 * MOST as u64 {
            redirects.add(
                b"1".to_vec(),
                WorkerInstant(at),
                redirected(&snapshot, "ann"),
            );
        }
        assert_eq!(redirects.0.len(), MOST);
        let first = redirects.next().unwrap();
        assert_eq!(first, WorkerInstant(MOST as u64) + LONGEST);
        redirects.expire(WorkerInstant(first.0 - 1));
        assert_eq!(redirects.0.len(), MOST);
        redirects.expire(first);
        assert_eq!(redirects.0.len(), MOST - 1);
        redirects.expire(WorkerInstant(u64::MAX));
        assert!(redirects.is_empty() && redirects.next().is_none());
    }
}
