//! What a Redis says it has done: commands and bytes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use weir_lab::redis::Redis;

/// Totals since it started, or between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Calls by command, those that scripts make too.
    pub commands: BTreeMap<String, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A connection to look through, kept open so that looking costs a Redis little.
pub struct Observer(redis::Connection);

impl Observer {
    pub fn new(redis: &Redis) -> Result<Self> {
        Ok(Self(redis.connection()?))
    }

    pub fn traffic(&mut self) -> Result<Traffic> {
        let commands = commands(&self.info("commandstats")?)?;
        let stats = self.info("stats")?;
        Ok(Traffic {
            commands,
            bytes_in: number(&stats, "total_net_input_bytes")?,
            bytes_out: number(&stats, "total_net_output_bytes")?,
        })
    }

    /// Bytes that the data takes, with what Redis needs to keep it.
    pub fn memory(&mut self) -> Result<u64> {
        number(&self.info("memory")?, "used_memory")
    }

    pub fn version(&mut self) -> Result<String> {
        let server = self.info("server")?;
        let line = |name: &str| {
            server
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
        };
        let version = line("valkey_version").map(|version| format!("Valkey {version}"));
        version
            .or_else(|| Some(format!("Redis {}", line("redis_version")?)))
            .context("this Redis does not tell its version")
    }

    pub fn keys(&mut self) -> Result<u64> {
        Ok(redis::cmd("DBSIZE").query(&mut self.0)?)
    }

    fn info(&mut self, section: &str) -> Result<String> {
        Ok(redis::cmd("INFO").arg(section).query(&mut self.0)?)
    }
}

impl Traffic {
    /// What came since `earlier`, without the looks themselves.
    pub fn since(&self, earlier: &Traffic) -> Traffic {
        let grown = |(name, calls): (&String, &u64)| {
            let before = earlier.commands.get(name).copied().unwrap_or_default();
            let grown = calls.saturating_sub(before);
            (grown > 0 && name != "info").then(|| (name.clone(), grown))
        };
        Traffic {
            commands: self.commands.iter().filter_map(grown).collect(),
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
        }
    }
}

fn commands(info: &str) -> Result<BTreeMap<String, u64>> {
    let lines = info
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    lines
        .map(|line| {
            let calls = line.split_once(":calls=").and_then(|(name, rest)| {
                let calls = rest.split(',').next()?.parse().ok()?;
                Some((name.to_owned(), calls))
            });
            calls.with_context(|| format!("cannot read: cmdstat_{line}"))
        })
        .collect()
}

fn number(info: &str, name: &str) -> Result<u64> {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("this Redis does not tell {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_between_two_looks() {
        let before =
            "# Commandstats\r\ncmdstat_get:calls=2,usec=1\r\ncmdstat_info:calls=1,usec=9\r\n";
        let after = "cmdstat_get:calls=5,usec=2\r\ncmdstat_info:calls=3,usec=9\r\ncmdstat_config|get:calls=1,usec=1\r\n";
        let traffic = |info| Traffic {
            commands: commands(info).unwrap(),
            ..Traffic::default()
        };
        let between = traffic(after).since(&traffic(before)).commands;
        let expected = [("config|get".to_owned(), 1), ("get".to_owned(), 3)];
        assert_eq!(between, expected.into());
        assert!(commands("cmdstat_get:rejected=2").is_err());
    }

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let info = "used_memory_rss:7\r\nused_memory:5\r\n";
        assert_eq!(number(info, "used_memory").unwrap(), 5);
        assert!(number(info, "used").is_err());
    }

    #[test]
    fn a_redis_tells_what_it_was_asked() {
        let redis = Redis::start().unwrap();
        let mut observer = Observer::new(&redis).unwrap();
        let before = observer.traffic().unwrap();
        redis.command(&["SET", "key", "value"]).unwrap();
        let traffic = observer.traffic().unwrap().since(&before);
        assert_eq!(traffic.commands.get("set"), Some(&1));
        assert!(traffic.bytes_in > 30 && observer.memory().unwrap() > 1000);
        assert_eq!(observer.keys().unwrap(), 1);
        assert!(observer.version().unwrap().contains('.'));
    }
}
