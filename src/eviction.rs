//! Whether Redis may evict counters: asked once by the workers of a process, and again now and then.

use std::cell::Cell;

use log::{info, warn};
use weir_core::batch::CallId;
use weir_core::eviction;
use weir_core::notice::Notice;
use weir_core::units::{Micros, Millis};
use weir_core::wire::resp::{self, Reader, Token};

use crate::host;
use crate::store::Store;

/// Somebody may change it while Redis runs, and hardly ever does.
const EVERY: Micros = Micros(600_000_000);
/// Redis may not be there yet.
const AGAIN: Micros = Micros(10_000_000);

pub struct Eviction {
    due: Cell<Micros>,
    call: Cell<Option<CallId>>,
}

impl Eviction {
    pub fn new(now: Micros) -> Eviction {
        Eviction {
            due: Cell::new(now),
            call: Cell::new(None),
        }
    }

    pub fn next_tick(&self, now: Micros) -> Millis {
        Millis(self.due.get().0.saturating_sub(now.0).div_ceil(1000))
    }

    /// Time has passed. To be called in the root context, where the answer comes to.
    pub fn tick(&self, store: &Store, now: Micros) {
        if now.0 < self.due.get().0 {
            return;
        }
        self.due.set(Micros(now.0 + AGAIN.0));
        let time = host::wall_clock().0;
        let asked = host::shared(&asked(store)).and_then(|bytes| bytes.try_into().ok());
        let answered = asked.map_or(0, u64::from_le_bytes);
        if time < answered.saturating_add(EVERY.0) {
            self.due.set(Micros(now.0 + EVERY.0));
            return;
        }
        let mut body = Vec::new();
        resp::command(&mut body, eviction::COMMAND.into_iter());
        // One that cannot be sent is one that is not answered.
        self.call.set(store.call(now, 1, &body).ok());
    }

    /// Whether the call was this one.
    pub fn answered(&self, store: &Store, now: Micros, id: CallId, body: Option<&[u8]>) -> bool {
        if self.call.get() != Some(id) {
            return false;
        }
        self.call.set(None);
        match Reader::new(body.unwrap_or_default()).token() {
            Ok(Some(Token::Bulk(Some(info)))) => {
                let policy = String::from_utf8_lossy(info);
                learn(store, eviction::policy(&policy).unwrap_or_default());
            }
            // A user who may not ask, or the sidecar, which asks by itself: nobody will be told.
            Ok(Some(Token::Error(error))) if error.starts_with(b"NOPERM") => {
                if host::claim(&evicts(store), b"?") {
                    info!(
                        "weir: whether Redis evicts counters is not known: its user may not ask \
                         INFO (+info)"
                    );
                }
            }
            Ok(Some(Token::Error(error))) if error.starts_with(b"ERR") => {}
            _ => return true,
        }
        self.due.set(Micros(now.0 + EVERY.0));
        let time = host::wall_clock().0.to_le_bytes();
        host::share(&asked(store), &time);
        true
    }

    pub fn notice(&self, store: &Store) -> Option<Notice> {
        let policy = host::shared(&evicts(store))?;
        let policy = String::from_utf8_lossy(&policy).into_owned();
        let is_known = !policy.is_empty() && policy != "?";
        is_known.then_some(Notice::Evicts(policy))
    }
}

/// The log hears once of each change.
fn learn(store: &Store, policy: &str) {
    if host::claim(&evicts(store), policy.as_bytes()) && !policy.is_empty() {
        warn!("weir: {}", Notice::Evicts(policy.to_string()));
    }
}

/// Under this name stands when Redis told it last.
fn asked(store: &Store) -> String {
    format!("weir.store.eviction.asked.{}", store.config.cluster)
}

/// And under this one the policy.
fn evicts(store: &Store) -> String {
    format!("weir.store.eviction.{}", store.config.cluster)
}
