//! Whether Redis may evict counters: asked once by the workers of a process, and again now and then. It
//! does not know what INFO tells.

use super::host::{Host, Level};
use super::shared;
use super::store_calls::StoreCalls;
use super::ticker::until;
use crate::codec::resp::{self, Reader, Token};
use crate::observe::notice::Notice;
use crate::store::call::CallId;
use crate::store::eviction;
use crate::time::{Span, WallTime, WorkerInstant};

/// Somebody may change it while Redis runs, and hardly ever does.
const EVERY: Span = Span::seconds(600);
/// Redis may not be there yet.
const AGAIN: Span = Span::seconds(10);

#[derive(Debug)]
pub struct EvictionWatch {
    due: WorkerInstant,
    call: Option<CallId>,
    /// Under this name stands when Redis told it last.
    asked: String,
    /// And under this one the policy.
    evicts: String,
}

impl EvictionWatch {
    pub fn new(cluster: &str, now: WorkerInstant) -> EvictionWatch {
        EvictionWatch {
            due: now,
            call: None,
            asked: format!("weir.store.eviction.asked.{cluster}"),
            evicts: format!("weir.store.eviction.{cluster}"),
        }
    }

    pub fn next_tick(&self, now: WorkerInstant) -> Span {
        until(now, self.due)
    }

    /// Time has passed.
    pub fn tick(&mut self, host: &impl Host, calls: &mut StoreCalls, now: WorkerInstant) {
        if now < self.due {
            return;
        }
        self.due = now + AGAIN;
        let time = host.wall_clock();
        let asked = shared::read(host, &self.asked).and_then(|bytes| bytes.try_into().ok());
        let answered = WallTime(asked.map_or(0, u64::from_le_bytes));
        if time < answered + EVERY {
            self.due = now + EVERY;
            return;
        }
        let mut body = Vec::new();
        resp::command(&mut body, eviction::COMMAND.into_iter());
        // One that cannot be sent is one that is not answered.
        self.call = calls.call(host, now, 1, &body).ok();
    }

    /// Whether the call was this one.
    pub fn answered(
        &mut self,
        host: &impl Host,
        now: WorkerInstant,
        (id, body): (CallId, Option<&[u8]>),
    ) -> bool {
        if self.call != Some(id) {
            return false;
        }
        self.call = None;
        match Reader::new(body.unwrap_or_default()).token() {
            Ok(Some(Token::Bulk(Some(info)))) => {
                let info = String::from_utf8_lossy(info);
                self.learn(host, eviction::policy(&info).unwrap_or_default());
            }
            // A user who may not ask, or the sidecar, which asks by itself: nobody will be told.
            Ok(Some(Token::Error(error))) if error.starts_with(b"NOPERM") => {
                if shared::claim(host, &self.evicts, b"?") {
                    host.log(
                        Level::Info,
                        format_args!(
                            "whether Redis evicts counters is not known: its user may not ask INFO \
                             (+info)"
                        ),
                    );
                }
            }
            Ok(Some(Token::Error(error))) if error.starts_with(b"ERR") => {}
            _ => return true,
        }
        self.due = now + EVERY;
        let time = host.wall_clock().0.to_le_bytes();
        shared::write(host, &self.asked, &time);
        true
    }

    pub fn notice(&self, host: &impl Host) -> Option<Notice> {
        let policy = shared::read(host, &self.evicts)?;
        let policy = String::from_utf8_lossy(&policy).into_owned();
        let is_known = !policy.is_empty() && policy != "?";
        is_known.then_some(Notice::Evicts(policy))
    }

    /// The log hears once of each change.
    fn learn(&self, host: &impl Host, policy: &str) {
        if shared::claim(host, &self.evicts, policy.as_bytes()) && !policy.is_empty() {
            let notice = Notice::Evicts(policy.to_string());
            host.log(Level::Warn, format_args!("{notice}"));
        }
    }
}
