//! What one worker remembers between requests, all of it bounded: refusals, leases, the fallback's
//! counters, what is held, who waits until when. It knows limits by their keys and quotas, no rule.

pub mod denial_cache;
pub mod fallback;
pub mod guesses;
pub mod holds;
pub mod lease;
pub mod timer_queue;
pub mod two_generations;
