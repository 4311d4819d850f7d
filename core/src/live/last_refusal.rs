//! The body of the refusal that was written last under a policy: a caller who hammers is told the same
//! words again and again. It does not know how a body is worded.

use std::cell::RefCell;

use crate::policy::ids::LimitId;

/// The body that a policy's last refusal had. Refusals come in crowds that differ in nothing it tells, and
/// writing it is a quarter of what the filter itself does for one.
#[derive(Clone, Debug, Default)]
pub struct LastRefusal(RefCell<Option<(Words, Vec<u8>)>>);

/// All that a refusal's body depends on besides the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub limit: LimitId,
    /// All that refuse, where the body names them.
    pub violated: Vec<LimitId>,
    pub remaining: u64,
    pub retry_after: Option<u64>,
    /// Of the limit that is shown; the other is the longest of all.
    pub own_retry_after: Option<u64>,
}

impl LastRefusal {
    /// What `write` makes of these words, or has made of them just before.
    pub fn body(&self, words: Words, write: impl FnOnce(&Words) -> Vec<u8>) -> Vec<u8> {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((known, body)) if *known == words => body.clone(),
            _ => {
                let body = write(&words);
                *last = Some((words, body.clone()));
                body
            }
        }
    }
}
