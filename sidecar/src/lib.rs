//! weir-sidecar: the wire of Weir's store in front of Redis, for proxies without `redis_proxy`.
//!
//! A request is a pipeline of RESP2 commands in an HTTP body. `door` says who holds a connection and
//! for how long; `server` reads a request under caps;
//! `screen` takes it apart and refuses, in its place, every command that is not Weir's; `redis`
//! sends the rest as the bytes that came, in one write to each node, and cuts the replies apart;
//! `server` puts them together in order. `flags` is what the user types.
//!
//! Redis's own errors come through untouched. Where Redis says nothing, the sidecar does:
//!
//! | error | when | did the command run? |
//! |---|---|---|
//! | `-TIMEOUT weir-sidecar: …` | no reply in time | it may have |
//! | `-UNREACHABLE weir-sidecar: …` | no connection, or it broke | it may have, if it broke |
//! | `-ERR weir-sidecar: …` | a command that is not served | no |
//!
//! A body that is no pipeline is 400, one above the cap 413, a request without the secret that was
//! asked for 401, and nothing of it runs. A connection that sent no command yet is closed with its
//! answer.

pub mod door;
pub mod flags;
pub mod listen;
pub mod redis;
pub mod screen;
pub mod server;

use std::sync::Arc;

use anyhow::Result;

use door::Door;
use flags::Config;
use listen::{Listener, Place};
use redis::Redis;
use screen::{Script, Served};
use server::Service;

/// A sidecar that listens.
pub struct Sidecar {
    listener: Listener,
    service: Arc<Service>,
}

impl Sidecar {
    /// Listens, and begins to connect to Redis. `script` is the only one that may be called.
    pub async fn bind(config: Config, script: Script) -> Result<Sidecar> {
        let listener = Listener::bind(&config.place, config.reach, config.socket_mode).await?;
        Ok(Sidecar {
            listener,
            service: Arc::new(Service {
                served: Served::new(script, config.namespace),
                secret: config.secret,
                redis: Redis::spawn(config.topology, config.dial),
                timeout: config.timeout,
                door: Door::new(config.max_connections, config.bounds),
            }),
        })
    }

    /// Where it listens: with the port that was chosen, if 0 was asked for.
    pub fn place(&self) -> Result<Place> {
        Ok(self.listener.place()?)
    }

    /// Serves until `stop` is ready, and then what has begun.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        server::serve(self.listener, self.service, stop).await;
    }
}
