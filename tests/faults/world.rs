//! What the cases of one way to Redis share: a gateway with two workers, and what is behind it. A
//! case that fails leaves nothing to the next.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use weir_lab::{
    gateway::{Builder, Gateway, Policy, Store, Topology},
    place,
    proxy::Proxy,
    redis::Redis,
    redis_cluster::{RedisCluster, Replicas},
};

use crate::watch::TIMEOUT_MS;

pub const PASSWORD: &str = "open sesame";

/// A Redis with a password, behind a network that can fail.
pub struct Single {
    pub gateway: Gateway,
    pub proxy: Proxy,
    pub redis: Redis,
}

pub struct Cluster {
    pub gateway: Gateway,
    pub redis: RedisCluster,
}

pub trait World: Sized {
    fn start(way: Store) -> Result<Self>;
}

/// A world for those who come one after the other.
pub struct Shared<W> {
    way: Store,
    world: Mutex<Option<W>>,
}

impl<W: World> Shared<W> {
    pub const fn new(way: Store) -> Self {
        Self {
            way,
            world: Mutex::new(None),
        }
    }

    pub fn visit(&self, case: impl FnOnce(&mut W) -> Result<()>) -> Result<()> {
        let mut place = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = match place.take() {
            Some(world) => world,
            None => W::start(self.way).context("the world does not start")?,
        };
        case(&mut world)?;
        *place = Some(world);
        Ok(())
    }

    /// Ends it, before the process does.
    pub fn end(&self) {
        self.world
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

impl World for Single {
    fn start(way: Store) -> Result<Self> {
        let redis = Redis::start_with_password(PASSWORD)?;
        let proxy = Proxy::start(redis.address())?;
        let gateway = gateway(way)
            .redis_at("127.0.0.1", proxy.address().port())
            .password(PASSWORD)
            .start()?;
        Ok(Self {
            gateway,
            proxy,
            redis,
        })
    }
}

impl World for Cluster {
    fn start(way: Store) -> Result<Self> {
        let redis = RedisCluster::start(Replicas::OneEach)?;
        let gateway = gateway(way)
            .redis(redis.node(0))
            .topology(Topology::Cluster)
            .start()?;
        Ok(Self { gateway, redis })
    }
}

/// A gateway with the policy of these cases.
pub fn gateway(way: Store) -> Builder {
    let policy = place::project().join("tests/faults/policy.json");
    Gateway::builder()
        .timeout_ms(TIMEOUT_MS)
        .store(way)
        .policy(Policy::File(policy))
}
