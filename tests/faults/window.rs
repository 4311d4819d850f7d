//! Redis goes within a window, after it has told each gateway what is left. What passes from then on
//! is what `core/src/local/fallback.rs` promises: each gateway's share of what it was told last.
//!
//! Two gateways of one worker each, so that it is known who was told what.

use std::thread;

use anyhow::{Context, Result, ensure};
use weir_lab::client::{Answer, Client};
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Store};
use weir_lab::redis::Redis;

use crate::watch::{MARK, START, TIGHT};
use crate::world::gateway;

pub type Case = fn(&str, Store) -> Result<()>;

pub const CASES: &[(&str, Case)] = &[
    ("redis_is_killed_within_a_window", killed),
    ("redis_hangs_within_a_window", hung),
];

const GATEWAYS: usize = 2;
/// At once, while Redis hangs.
const CLIENTS: usize = 16;

struct Fleet {
    redis: Redis,
    gateways: Vec<Gateway>,
}

/// Somebody who asks, and what each gateway told them last.
struct Caller {
    user: String,
    told: [Option<usize>; GATEWAYS],
    passed: usize,
}

impl Fleet {
    fn start(way: Store) -> Result<Self> {
        let redis = Redis::start()?;
        let one = || {
            let gateway = gateway(way).workers(1).redis(&redis);
            gateway.variable("GATEWAYS", &GATEWAYS.to_string()).start()
        };
        let gateways = (0..GATEWAYS).map(|_| one()).collect::<Result<_>>()?;
        let fleet = Self { redis, gateways };
        fleet.recovers()?;
        Ok(fleet)
    }

    /// Waits until each gateway asks Redis.
    fn recovers(&self) -> Result<()> {
        for gateway in &self.gateways {
            let client = gateway.client();
            deadline::poll(START, "answer of Redis", || {
                let answer = ask(&client, "/wide/x", "anybody")?;
                Ok((answer.header(MARK).is_none() && answer.status == 200).then_some(()))
            })?;
        }
        Ok(())
    }
}

fn ask(client: &Client, path: &str, user: &str) -> Result<Answer> {
    let answer = client.get(path).header("X-User-ID", user).send()?;
    ensure!([200, 429].contains(&answer.status), "{answer:?}");
    Ok(answer)
}

impl Caller {
    fn new(user: String) -> Self {
        Self {
            user,
            told: [None; GATEWAYS],
            passed: 0,
        }
    }

    /// Asks so often, at the gateways in turn, while Redis answers.
    fn counted(&mut self, fleet: &Fleet, times: usize) -> Result<()> {
        let clients: Vec<Client> = fleet.gateways.iter().map(Gateway::client).collect();
        for place in (0..GATEWAYS).cycle().take(times) {
            let answer = ask(&clients[place], "/tight/x", &self.user)?;
            ensure!(answer.header(MARK).is_none(), "without Redis: {answer:?}");
            let left = answer.header("x-ratelimit-remaining");
            self.told[place] = Some(left.context("what is left")?.parse()?);
            self.passed += usize::from(answer.status == 200);
        }
        Ok(())
    }

    /// Asks a gateway more than it may let through without Redis; how much it did.
    fn uncounted(&mut self, gateway: &Gateway) -> Result<usize> {
        let client = gateway.client();
        let mut passed = 0;
        for _ in 0..TIGHT + 5 {
            let answer = ask(&client, "/tight/x", &self.user)?;
            // One that was refused just now is refused from memory.
            let is_local = answer.header(MARK).is_some() || answer.status == 429;
            ensure!(is_local, "by Redis: {answer:?}");
            passed += usize::from(answer.status == 200);
        }
        self.passed += passed;
        Ok(passed)
    }

    /// What a gateway begins with, by what it was told.
    fn begins(&self, place: usize) -> usize {
        match self.told[place] {
            Some(0) => 0,
            Some(left) if 2 * left < TIGHT => (left / GATEWAYS).max(1),
            Some(_) | None => TIGHT / GATEWAYS,
        }
    }
}

fn killed(name: &str, way: Store) -> Result<()> {
    let mut fleet = Fleet::start(way)?;
    let caller = |used: usize| Caller::new(format!("{name}-{used}"));
    let mut callers: Vec<Caller> = [0, 10, 23, 33, TIGHT + 4].map(caller).into();
    for (caller, used) in callers.iter_mut().zip([0, 10, 23, 33, TIGHT + 4]) {
        caller.counted(&fleet, used)?;
    }
    fleet.redis.stop();
    for caller in &mut callers {
        for (place, gateway) in fleet.gateways.iter().enumerate() {
            let (passed, begins) = (caller.uncounted(gateway)?, caller.begins(place));
            ensure!(
                passed == begins,
                "{} was told of {:?}: {passed} passed, not {begins}",
                caller.user,
                caller.told
            );
        }
    }
    // It comes back, empty, and goes again: what passed without it is remembered.
    fleet.redis.restart()?;
    fleet.recovers()?;
    for caller in &mut callers {
        caller.counted(&fleet, GATEWAYS)?;
    }
    fleet.redis.stop();
    for caller in &mut callers {
        for gateway in &fleet.gateways {
            let passed = caller.uncounted(gateway)?;
            ensure!(passed == 0, "{}: {passed} more passed", caller.user);
        }
    }
    Ok(())
}

/// Calls are late while the breakers are closed yet, and what is late may have counted.
fn hung(name: &str, way: Store) -> Result<()> {
    let fleet = Fleet::start(way)?;
    let mut caller = Caller::new(name.to_owned());
    caller.counted(&fleet, 30)?;
    let begins: usize = (0..GATEWAYS).map(|place| caller.begins(place)).sum();
    fleet.redis.pause()?;
    let passed = thread::scope(|scope| {
        let client = |number: usize| {
            let (client, user) = (fleet.gateways[number % GATEWAYS].client(), &caller.user);
            scope.spawn(move || -> Result<usize> {
                let mut passed = 0;
                for _ in 0..TIGHT / 4 {
                    passed += usize::from(ask(&client, "/tight/x", user)?.status == 200);
                }
                Ok(passed)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let passed = clients.into_iter().map(|client| client.join());
        passed
            .map(|passed| passed.unwrap_or(Ok(0)))
            .sum::<Result<usize>>()
    });
    fleet.redis.resume()?;
    let passed = passed?;
    fleet.recovers()?;
    caller.counted(&fleet, TIGHT)?;
    let all = caller.passed + passed;
    ensure!(
        passed > 0 && all <= TIGHT + begins,
        "{all} of {TIGHT} passed, {passed} of them while Redis hung; the gateways began with {begins}"
    );
    Ok(())
}
