//! The operators' secret is not to be found by trying: from an address only so many different wrong
//! ones are looked at in a minute, and then none. In memory that is bounded, in each worker apart.
//!
//! What repeats is no guess: a script that goes on with last year's secret does not shut out whoever
//! comes from its address with this year's. And nobody is shut out by what another address does.

use std::net::IpAddr;

use crate::codec::secret::Fingerprint;
use crate::local::two_generations::Generations;
use crate::time::{Span, WorkerInstant};

/// Different wrong secrets that are looked at: more than somebody mistypes.
const MOST_WRONG: usize = 10;
/// In so long, from the first of them on. Who was shut out by another behind the same address does not
/// wait for long either.
const SPAN: Span = Span::seconds(60);
/// Addresses of a generation. Who has more of them than this has as many guesses all the same.
const MOST_ADDRESSES: usize = 512;
/// The log is told of one address in so long: who guesses must not be able to fill it.
const RARELY: Span = Span::seconds(10);

/// Somebody came with a secret where the gateway looks at one.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub client: Option<IpAddr>,
    pub secret: Fingerprint,
    pub is_right: bool,
}

#[derive(Debug)]
pub struct Guesses {
    by_address: Generations<Tried>,
    told_wrong: Option<WorkerInstant>,
    told_shut: Option<WorkerInstant>,
}

#[derive(Clone, Debug)]
struct Tried {
    since: WorkerInstant,
    /// Short forms of the wrong ones.
    wrong: Vec<u64>,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Right,
    Wrong(Log),
    /// It was not looked at, and none from that address will be for so long.
    Shut(Span),
}

/// Whether the log is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Nothing,
    /// Of a wrong one.
    Wrong,
    /// That it was the last that was looked at, for so long.
    Shut(Span),
}

impl Ruling {
    /// What the log is told, of an attempt from this address.
    pub fn words(self, client: Option<IpAddr>) -> Option<String> {
        let client = client.map_or("a client without an address".to_string(), |client| {
            client.to_string()
        });
        match self {
            Ruling::Wrong(Log::Wrong) => {
                Some(format!("a wrong operators' secret came from {client}"))
            }
            Ruling::Wrong(Log::Shut(wait)) => Some(format!(
                "{MOST_WRONG} different wrong operators' secrets came from {client}: none from there is \
                 looked at for {} seconds",
                wait.ceil_seconds()
            )),
            Ruling::Right | Ruling::Wrong(Log::Nothing) | Ruling::Shut(_) => None,
        }
    }
}

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses {
            by_address: Generations::new(MOST_ADDRESSES),
            told_wrong: None,
            told_shut: None,
        }
    }
}

impl Guesses {
    /// Where no more are looked at, a right one is treated as a wrong one is: else it could be found
    /// all the same.
    pub fn judge(&mut self, attempt: &Attempt, now: WorkerInstant) -> Ruling {
        let address = key(attempt.client);
        let tried = self.by_address.get(&address);
        let tried = tried.filter(|tried| now.since(tried.since) < SPAN);
        let left = |tried: &Tried| (tried.since + SPAN).since(now).ceil_millis();
        if let Some(tried) = tried
            && tried.wrong.len() >= MOST_WRONG
        {
            return Ruling::Shut(left(tried));
        }
        if attempt.is_right {
            return Ruling::Right;
        }
        let mut tried = tried.cloned().unwrap_or(Tried {
            since: now,
            wrong: Vec::new(),
        });
        let short = attempt.secret.short();
        if tried.wrong.contains(&short) {
            return Ruling::Wrong(Log::Nothing);
        }
        tried.wrong.push(short);
        let log = match tried.wrong.len() {
            1 if is_time(&mut self.told_wrong, now) => Log::Wrong,
            MOST_WRONG if is_time(&mut self.told_shut, now) => Log::Shut(left(&tried)),
            _ => Log::Nothing,
        };
        self.by_address.insert(&address, tried);
        Ruling::Wrong(log)
    }
}

/// Whether the log may be told again; it is.
fn is_time(told: &mut Option<WorkerInstant>, now: WorkerInstant) -> bool {
    let is_time = told.is_none_or(|told| now.since(told) >= RARELY);
    if is_time {
        *told = Some(now);
    }
    is_time
}

/// A client without an address is the one client called so.
fn key(client: Option<IpAddr>) -> Vec<u8> {
    match client {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "the right one";

    fn attempt(client: &str, secret: &str) -> Attempt {
        Attempt {
            client: client.parse().ok(),
            secret: Fingerprint::of(secret.as_bytes()),
            is_right: secret == RIGHT,
        }
    }

    fn seconds(seconds: u64) -> WorkerInstant {
        WorkerInstant(seconds * 1_000_000)
    }

    #[test]
    fn an_address_has_ten_guesses_a_minute_and_then_not_even_the_right_one() {
        let mut guesses = Guesses::default();
        for number in 0..10 {
            let attempt = attempt("192.0.2.7", &format!("guess {number}"));
            let ruling = guesses.judge(&attempt, seconds(number));
            let expected = match number {
                0 => Log::Wrong,
                9 => Log::Shut(Span::millis(51_000)),
                _ => Log::Nothing,
            };
            assert_eq!(ruling, Ruling::Wrong(expected), "{number}");
        }
        for secret in ["guess 0", "guess 11", RIGHT] {
            let ruling = guesses.judge(&attempt("192.0.2.7", secret), seconds(15));
            assert_eq!(ruling, Ruling::Shut(Span::millis(45_000)), "{secret}");
        }
        let right = |guesses: &mut Guesses, client, at| guesses.judge(&attempt(client, RIGHT), at);
        assert_eq!(right(&mut guesses, "192.0.2.8", seconds(15)), Ruling::Right);
        assert_eq!(right(&mut guesses, "-", seconds(15)), Ruling::Right);
        assert_eq!(right(&mut guesses, "192.0.2.7", seconds(60)), Ruling::Right);
        // A new minute, with guesses of its own.
        let ruling = guesses.judge(&attempt("192.0.2.7", "guess 0"), seconds(60));
        assert_eq!(ruling, Ruling::Wrong(Log::Wrong));
    }

    #[test]
    fn a_wrong_secret_that_repeats_shuts_nobody_out() {
        let mut guesses = Guesses::default();
        for number in 0..1000 {
            let old = attempt("192.0.2.7", "last year's");
            assert!(matches!(
                guesses.judge(&old, WorkerInstant(number)),
                Ruling::Wrong(_)
            ));
        }
        let ruling = guesses.judge(&attempt("192.0.2.7", RIGHT), WorkerInstant(1000));
        assert_eq!(ruling, Ruling::Right);
    }

    #[test]
    fn the_log_is_told_that_an_address_was_shut_and_of_many_addresses_now_and_then() {
        let mut guesses = Guesses::default();
        let mut told = 0;
        for second in 0..100 {
            for guess in 0..10 {
                let client = format!("192.0.2.{second}");
                let ruling = guesses.judge(&attempt(&client, &guess.to_string()), seconds(second));
                told += usize::from(!matches!(ruling, Ruling::Wrong(Log::Nothing)));
            }
        }
        assert_eq!(told, 20, "one of each kind in ten seconds");
    }

    #[test]
    fn what_is_remembered_is_bounded_whoever_comes() {
        let mut guesses = Guesses::default();
        for number in 0..10_000u32 {
            let address = IpAddr::from(number.to_be_bytes()).to_string();
            guesses.judge(&attempt(&address, "wrong"), WorkerInstant(1));
        }
        assert!(guesses.by_address.len() <= 2 * MOST_ADDRESSES);
    }
}
