//! One Redis and the gateways in front of it, all over the same way; each starts when a case first
//! asks for it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use weir_lab::gateway::{Builder, Gateway, Policy, Store};
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::{deadline, place};

use crate::failure;
use crate::live_policy::Stage;
use crate::visitor::Visitor;

/// Longer than anything here takes; only a hang is cut short.
pub const SOON: Duration = Duration::from_secs(60);

pub struct World {
    way: Store,
    // A gateway before what it talks to: fields are dropped in order.
    reference: OnceLock<Gateway>,
    workshop: OnceLock<Gateway>,
    rollout: OnceLock<Gateway>,
    eased: OnceLock<[Gateway; 2]>,
    watched: OnceLock<Gateway>,
    keyed: OnceLock<Gateway>,
    leasing: OnceLock<[Gateway; 2]>,
    fragile: Mutex<Option<Fragile>>,
    stage: Mutex<Option<Stage>>,
    redis: OnceLock<Redis>,
}

/// A gateway and a Redis that a case may do anything to. One case at a time has them.
pub struct Fragile {
    pub gateway: Gateway,
    pub redis: Redis,
}

/// What cases break things in: held by one of them, whole again for the next.
pub struct Lease<'a, T = Fragile>(MutexGuard<'a, Option<T>>);

impl World {
    pub fn new(way: Store) -> Self {
        Self {
            way,
            reference: OnceLock::new(),
            workshop: OnceLock::new(),
            rollout: OnceLock::new(),
            eased: OnceLock::new(),
            watched: OnceLock::new(),
            keyed: OnceLock::new(),
            leasing: OnceLock::new(),
            fragile: Mutex::default(),
            stage: Mutex::default(),
            redis: OnceLock::new(),
        }
    }

    pub fn way(&self) -> Store {
        self.way
    }

    /// The Redis of the gateways that are shared.
    pub fn redis(&self) -> &Redis {
        self.redis.get_or_init(|| Redis::start().unwrap())
    }

    /// A gateway with the reference policy.
    pub fn reference(&self) -> &Gateway {
        self.reference
            .get_or_init(|| self.gateway().start().unwrap())
    }

    /// A gateway with `workshop.json`: all that the reference policy has no use for. It believes
    /// peers in the lower half of 127.0.0.0/8.
    pub fn workshop(&self) -> &Gateway {
        self.workshop.get_or_init(|| {
            let policy = include_str!("workshop.json").to_owned();
            let gateway = self.gateway().policy(Policy::Text(policy));
            gateway.trust(json!(["127.0.0.0/9"])).start().unwrap()
        })
    }

    /// A gateway with `rollout.json`: who is exempt, what is on trial, what costs more. It believes the
    /// same peers as the workshop's.
    pub fn rollout(&self) -> &Gateway {
        self.rollout.get_or_init(|| {
            let policy = include_str!("rollout.json").to_owned();
            let gateway = self.gateway().policy(Policy::Text(policy));
            gateway.trust(json!(["127.0.0.0/9"])).start().unwrap()
        })
    }

    /// A gateway with `keyed.json`: limits that count by keys of their own. It believes the same peers as
    /// the workshop's.
    pub fn keyed(&self) -> &Gateway {
        self.keyed.get_or_init(|| {
            let policy = include_str!("keyed.json").to_owned();
            let gateway = self.gateway().policy(Policy::Text(policy));
            gateway.trust(json!(["127.0.0.0/9"])).start().unwrap()
        })
    }

    /// Two gateways with `no_wall.json`, of two workers and of one.
    pub fn eased(&self) -> &[Gateway; 2] {
        self.eased.get_or_init(|| {
            [2, 1].map(|workers| {
                let policy = include_str!("no_wall.json").to_owned();
                let gateway = self.gateway().workers(workers);
                gateway.policy(Policy::Text(policy)).start().unwrap()
            })
        })
    }

    /// A gateway with `metrics.json`, whose statistics nobody else changes.
    pub fn watched(&self) -> &Gateway {
        self.watched.get_or_init(|| {
            let policy = include_str!("metrics.json").to_owned();
            let gateway = self.gateway().policy(Policy::Text(policy));
            gateway.start().unwrap()
        })
    }

    /// Two gateways with `leases.json`, of one worker and of two.
    pub fn leasing(&self) -> &[Gateway; 2] {
        self.leasing.get_or_init(|| {
            [1, 2].map(|workers| {
                let policy = include_str!("leases.json").to_owned();
                let gateway = self.gateway().workers(workers);
                gateway.policy(Policy::Text(policy)).start().unwrap()
            })
        })
    }

    /// A gateway with `fragile.json` and a Redis of its own.
    pub fn fragile(&self) -> Lease<'_> {
        let mut fragile = self.fragile.lock().unwrap_or_else(PoisonError::into_inner);
        let fragile_parts = fragile.take().unwrap_or_else(|| self.build_fragile());
        *fragile = Some(fragile_parts.whole());
        Lease(fragile)
    }

    /// A gateway that follows what is published in a Redis of its own.
    pub fn stage(&self) -> Lease<'_, Stage> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        stage.get_or_insert_with(|| Stage::new(self));
        Lease(stage)
    }

    /// What a gateway of a case's own begins with. Its timeout is so long that a busy machine lets
    /// no request pass uncounted.
    pub fn gateway(&self) -> Builder {
        let gateway = Gateway::builder().store(self.way).timeout_ms(1000);
        at_home(gateway, self.redis())
    }

    /// Where the shared gateways' logs are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let pairs = [self.eased.get(), self.leasing.get()];
        let pairs = pairs.into_iter().flatten().flatten();
        let shared = [
            &self.reference,
            &self.workshop,
            &self.rollout,
            &self.watched,
        ]
        .map(OnceLock::get);
        let logs = shared.into_iter().flatten().chain(pairs);
        let mut logs: Vec<PathBuf> = logs.map(|g| g.process().log_path().to_owned()).collect();
        let fragile = self.fragile.lock().unwrap_or_else(PoisonError::into_inner);
        logs.extend(
            fragile
                .iter()
                .map(|f| f.gateway.process().log_path().to_owned()),
        );
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        logs.extend(
            stage
                .iter()
                .map(|s| s.gateway.process().log_path().to_owned()),
        );
        logs
    }

    fn build_fragile(&self) -> Fragile {
        let redis = Redis::start().unwrap();
        let policy = include_str!("fragile.json").to_owned();
        let gateway = Gateway::builder().store(self.way).redis(&redis);
        let timeout_ms = u64::try_from(failure::TIMEOUT.as_millis()).unwrap();
        let gateway = gateway.timeout_ms(timeout_ms);
        let gateway = gateway.policy(Policy::Text(policy)).start().unwrap();
        Fragile { gateway, redis }
    }
}

/// The gateway goes to that Redis as the user with the least permissions that Weir needs: so the list
/// that is shipped holds for all that is tried here.
pub fn at_home(gateway: Builder, redis: &Redis) -> Builder {
    let name = redis.add_user(&user(), PASSWORD).unwrap();
    gateway.redis(redis).user(&name, PASSWORD)
}

pub fn user() -> String {
    fs::read_to_string(place::envoy().join("redis-user.acl")).unwrap()
}

const PASSWORD: &str = "for the gateways";

impl Fragile {
    /// As the case before should have left it, and may not have.
    fn whole(mut self) -> Self {
        let lives = self
            .redis
            .server()
            .is_ok_and(|server| server.exited().is_none());
        if lives {
            self.redis.resume().unwrap();
        } else {
            self.redis.restart().unwrap();
        }
        // A worker may not know yet that Redis is back.
        let stranger = Visitor::of_tier(&self.gateway, "free");
        failure::recovers(&self.gateway, &stranger, "/open/x");
        self
    }
}

impl<T> std::ops::Deref for Lease<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("a lease is of something")
    }
}

impl<T> std::ops::DerefMut for Lease<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("a lease is of something")
    }
}

/// The time by this machine's clock, which is Redis's too: nothing here is on another machine.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Waits for that time. It is for time itself, not for something to become ready.
pub fn wait_until(time: Duration) {
    let limit = time.saturating_sub(now()) + SOON;
    deadline::poll(limit, "end of time", || Ok((now() >= time).then_some(()))).unwrap();
}

/// Returns when the current window, aligned to the Unix epoch, has at least `room` left.
pub fn wait_for_room(window: Duration, room: Duration) {
    let into_window = now().as_micros() % window.as_micros();
    let left = window - Duration::from_micros(u64::try_from(into_window).unwrap());
    if left < room {
        wait_until(now() + left);
    }
}

/// A folder that is `envoy/` but for what `change` makes of a file's text.
pub fn changed_configuration(name: &str, change: impl Fn(&str, String) -> String) -> Scratch {
    let folder = Scratch::try_new(name).unwrap();
    let mut changes = 0;
    for file in fs::read_dir(place::envoy()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let changed = change(&name, text.clone());
        changes += usize::from(changed != text);
        fs::write(folder.file(&name), changed).unwrap();
    }
    assert!(changes > 0, "there is nothing to change");
    folder
}
