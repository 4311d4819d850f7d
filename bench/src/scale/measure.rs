//! What a script call takes of a Redis's time, by how many requests it carries: the assumption that
//! everything in `docs/scale.md` rests on. Calls are put together by the filter's own code and sent
//! one after the other; what is read is the processor time of the Redis process, the kernel's part in
//! reading and writing included.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use weir_core::codec::resp::Replies;
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::Kind;
use weir_core::quota::packed::Terms;
use weir_core::store::batch::{Batcher, Effects};
use weir_core::store::call::CallId;
use weir_core::store::check::{Check, CheckRequest};
use weir_core::store::fan_in::Outcome;
use weir_core::store::slot::Topology;
use weir_core::time::{Span, WorkerInstant};
use weir_lab::redis::Redis;

use super::fleet;
use crate::cpu;
use crate::series::Spread;

/// Requests in a call: alone, the smallest crowds, what 32 connections gather, and the most there are.
const CALLS: [usize; 5] = [1, 4, 8, 16, 64];
/// A global limit that all share, and one by user and one by address.
pub const CHECKS: usize = 3;
const USERS: u64 = 100_000;
const ROUNDS: usize = 5;
/// Long enough that what is read is no matter of the clock's ticks.
const TURN: Duration = Duration::from_millis(300);
/// Nothing fails here: no deadline is to be met.
const NO_TIMEOUT: Span = Span::millis(3_600_000);

/// What was measured, and what follows for a call of any size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub redis: String,
    /// Requests in a call, and µs of Redis's time for the call.
    pub calls: Vec<(usize, Spread)>,
    pub cost: fleet::Cost,
}

pub fn measure() -> Result<Measured> {
    let redis = Redis::start()?;
    let pid = redis.server()?.pid();
    let mut asker = Asker::connect(&redis)?;
    let mut seen = vec![Vec::new(); CALLS.len()];
    for round in 0..=ROUNDS {
        for (place, &requests) in CALLS.iter().enumerate() {
            let (begin, before) = (Instant::now(), cpu::time(pid)?);
            let mut calls = 0u32;
            while begin.elapsed() < TURN {
                asker.call(requests)?;
                calls += 1;
            }
            let spent = cpu::time(pid)? - before;
            // The first round fills Redis and its caches.
            if round > 0 {
                seen[place].push(spent.as_secs_f64() * 1e6 / f64::from(calls));
            }
        }
    }
    let calls: Vec<(usize, Spread)> = CALLS
        .into_iter()
        .zip(seen)
        .filter_map(|(requests, seen)| Some((requests, Spread::of(seen)?)))
        .collect();
    Ok(Measured {
        redis: crate::store::Observer::new(&redis)?.version()?,
        cost: line(&calls),
        calls,
    })
}

/// The straight line through the smallest and the largest call. Those between show whether it is one.
fn line(calls: &[(usize, Spread)]) -> fleet::Cost {
    let (Some((few, least)), Some((many, most))) = (calls.first(), calls.last()) else {
        return fleet::Cost {
            call_us: 0.0,
            check_us: 0.0,
        };
    };
    let checks = |requests: &usize| (requests * CHECKS) as f64;
    let check_us = (most.median - least.median) / (checks(many) - checks(few));
    fleet::Cost {
        call_us: least.median - check_us * checks(few),
        check_us,
    }
}

/// A worker's batches, on a connection of their own.
struct Asker {
    batcher: Batcher<()>,
    stream: TcpStream,
    origin: Instant,
    calls: u32,
    requests: u64,
    terms: Rc<Terms>,
}

impl Asker {
    fn connect(redis: &Redis) -> Result<Self> {
        let stream = TcpStream::connect(redis.address())?;
        stream.set_nodelay(true)?;
        let quota = Quota::try_new(Algorithm::FixedWindow, 1_000_000_000, 3600, None)
            .map_err(|error| anyhow::anyhow!("the quota {error}"))?;
        Ok(Self {
            batcher: Batcher::new(Topology::Single, NO_TIMEOUT, 0),
            stream,
            origin: Instant::now(),
            calls: 0,
            requests: 0,
            terms: Terms::new(quota),
        })
    }

    /// Asks for so many requests at once; all of them pass.
    fn call(&mut self, requests: usize) -> Result<()> {
        for _ in 0..requests {
            let check_request = Rc::new(self.check_request());
            for part in check_request.split(Topology::Single) {
                self.batcher.ask(self.now(), Some(()), &part);
            }
        }
        let mut effects = self.batcher.turn(self.now());
        let mut passed = 0;
        // A Redis that does not know the script is asked once more.
        while let Some(outgoing) = effects.outgoing.pop() {
            let id = CallId(self.calls);
            self.calls += 1;
            self.stream.write_all(&outgoing.body)?;
            let replies = self.replies(outgoing.commands)?;
            self.batcher.sent(outgoing, id);
            effects = self.batcher.answered(self.now(), id, Ok(&replies));
            passed += told(&effects);
        }
        ensure!(passed == requests, "{passed} of {requests} were answered");
        Ok(())
    }

    fn check_request(&mut self) -> CheckRequest {
        self.requests += 1;
        // Scattered over the users, the same in every run.
        let user = self.requests.wrapping_mul(0x9E37_79B9_7F4A_7C15) % USERS;
        let keys = [
            "weir:2:{g:api}:api:all:fw60s".to_owned(),
            format!("weir:2:{{u:user-{user}}}:api:user:fw60s"),
            format!(
                "weir:2:{{a:10.{}.{}.7}}:api:ip:fw60s",
                user / 250,
                user % 250
            ),
        ];
        let mut check_request = CheckRequest::default();
        check_request.ask(
            Kind::Take,
            keys.map(|key| Check {
                key: key.into_bytes(),
                terms: self.terms.clone(),
                cost: Cost::ONE,
            }),
        );
        check_request
    }

    fn replies(&mut self, commands: usize) -> Result<Vec<u8>> {
        let (mut bytes, mut piece, mut replies) = (Vec::new(), [0; 16 * 1024], Replies::new());
        while replies.complete() < commands {
            let read = self.stream.read(&mut piece)?;
            ensure!(read > 0, "Redis closed the connection");
            let fresh = piece.get(..read).context("what was read")?;
            replies
                .push(fresh)
                .map_err(|error| anyhow::anyhow!("Redis answered what is no RESP: {error:?}"))?;
            bytes.extend_from_slice(fresh);
        }
        Ok(bytes)
    }

    fn now(&self) -> WorkerInstant {
        WorkerInstant(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn told(effects: &Effects<()>) -> usize {
    let told = |outcome: &Outcome| matches!(outcome, Outcome::Answered { .. });
    effects
        .settled
        .iter()
        .filter(|(_, outcome)| told(outcome))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_any_size_is_answered_whole() {
        let redis = Redis::start().unwrap();
        let mut asker = Asker::connect(&redis).unwrap();
        for requests in CALLS {
            asker.call(requests).unwrap();
        }
        assert_eq!(asker.requests, CALLS.iter().sum::<usize>() as u64);
    }

    #[test]
    fn the_line_goes_through_the_ends() {
        let at = |median| Spread {
            median,
            min: median,
            max: median,
        };
        let cost = line(&[(1, at(13.0)), (8, at(60.0)), (64, at(202.0))]);
        assert!((cost.check_us - 1.0).abs() < 1e-9 && (cost.call_us - 10.0).abs() < 1e-9);
    }
}
