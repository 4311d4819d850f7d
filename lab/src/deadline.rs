//! Waiting for something that becomes true by itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Short beside the start of any part, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is something to see; `what` ends the sentence "no … within …".
pub fn poll<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if Instant::now() >= end {
            bail!("no {what} within {limit:?}");
        }
        thread::sleep(PAUSE);
    }
}
