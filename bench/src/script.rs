//! The check itself without a gateway: the very EVALSHA that Weir sends for one request, caught on
//! its way to Redis and sent again as it was.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use redis::Value;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::recorder::Recorder;
use weir_lab::redis::Redis;

use crate::crowd::{Dialogue, Heard};
use crate::scenario::{Limits, PATH};

/// One command again and again.
#[derive(Clone, Debug)]
pub struct Script {
    command: Vec<u8>,
}

impl Script {
    /// Has a Weir send one, with the Redis `redis` to answer it, which knows the script from then on.
    pub fn catch(limits: &Limits, redis: &Redis) -> Result<Self> {
        let (recorder, recorded) = Recorder::start(redis.address())?;
        let SocketAddr::V4(proxy) = recorder.address() else {
            bail!("the recorder listens on IPv4");
        };
        let gateway = Gateway::builder()
            .redis_at(&proxy.ip().to_string(), proxy.port())
            .policy(Policy::Text(limits.policy(1, None).to_string()))
            .timeout_ms(500)
            .workers(1)
            .start()?;
        // The first brings the script to Redis.
        for _ in 0..2 {
            let answer = gateway
                .client()
                .get(PATH)
                .header("x-user-id", "user-0")
                .send()?;
            if answer.status != 200 {
                bail!("a request was answered with {}", answer.status);
            }
        }
        drop(gateway);
        drop(recorder);
        let of_script = |command: &Vec<u8>| command.windows(7).any(|word| word == b"EVALSHA");
        let commands = recorded.iter().map(|exchange| exchange.command);
        let command = commands.filter(of_script).last();
        let command = command.context("Weir sent no EVALSHA")?;
        Ok(Self { command })
    }
}

impl Dialogue for Script {
    fn ask(&mut self, request: &mut Vec<u8>) {
        request.extend(&self.command);
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<Option<Heard>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        // One request is under way on a connection, so what is there is one reply, or the beginning of it.
        let Ok(reply) = redis::parse_redis_value(bytes) else {
            return Ok(None);
        };
        Ok(Some(Heard {
            bytes: bytes.len(),
            is_expected: !is_error(&reply),
            closes: false,
        }))
    }
}

/// An error is one wherever it stands: a script tells what failed within its reply.
fn is_error(value: &Value) -> bool {
    match value {
        Value::ServerError(_) | Value::Nil => true,
        Value::Array(values) => values.iter().any(is_error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_heard_when_it_is_whole_and_an_error_is_not_what_is_expected() {
        let mut script = Script {
            command: Vec::new(),
        };
        let whole = b"*2\r\n:1\r\n$2\r\nhi\r\n";
        for bytes in 0..whole.len() {
            assert_eq!(script.hear(&whole[..bytes]).unwrap(), None, "{bytes}");
        }
        let heard = script.hear(whole).unwrap().unwrap();
        assert!(heard.bytes == whole.len() && heard.is_expected);
        for error in ["-NOSCRIPT none\r\n", "*1\r\n-ERR no\r\n", "$-1\r\n"] {
            assert!(
                !script.hear(error.as_bytes()).unwrap().unwrap().is_expected,
                "{error}"
            );
        }
    }
}
