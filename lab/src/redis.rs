//! A Redis on a loopback port of its own: empty, and nothing it holds is ever written to disk.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_core::observe::notice::Notice;
use weir_core::store::eviction;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{deadline, parts, port};

/// Redis starts in a few milliseconds; a loaded machine may take long to run it at all.
const START: Duration = Duration::from_secs(20);
/// A probe that meets a stopped Redis must not wait for it.
const PROBE: Duration = Duration::from_millis(200);
/// What every version of Redis and Valkey writes when it listens.
const READY: &str = "Ready to accept connections";
/// How often another process may take the port that was free a moment ago.
const ATTEMPTS: usize = 3;

#[derive(Debug)]
pub struct Redis {
    server: Option<Process>,
    port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    /// The commands that made its users, for when it starts again.
    users: Mutex<Vec<Vec<String>>>,
    scratch: Scratch,
}

impl Redis {
    /// On a free port, as configured by default.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// On a free port, with these arguments for the server, such as `--requirepass secret`.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            match Self::start_on(port::free()?, arguments) {
                Ok(redis) => return Ok(redis),
                Err(error) if error.to_string().contains("in use") => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.context("ATTEMPTS is above zero")?)
    }

    /// On a free port, asking its clients for a password.
    pub fn start_with_password(password: &str) -> Result<Self> {
        let mut redis = Self::start_with(&["--requirepass", password, "--masterauth", password])?;
        redis.password = Some(password.to_owned());
        Ok(redis)
    }

    pub fn start_on(port: u16, arguments: &[&str]) -> Result<Self> {
        let mut redis = Self {
            server: None,
            port,
            password: None,
            users: Mutex::default(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            scratch: Scratch::try_new("redis")?,
        };
        redis.start_again()?;
        Ok(redis)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `redis://127.0.0.1:PORT`, with the password before the address if there is one.
    pub fn url(&self) -> String {
        match &self.password {
            None => format!("redis://{}", self.address()),
            Some(password) => format!("redis://:{password}@{}", self.address()),
        }
    }

    /// A client's connection of its own.
    pub fn connection(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(self.url())?.get_connection_with_timeout(START)?)
    }

    /// One command on a connection of its own: `redis.command(&["GET", "key"])`.
    pub fn command(&self, words: &[impl Display]) -> Result<redis::Value> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.to_string());
        }
        Ok(command.query(&mut self.connection()?)?)
    }

    /// How often it has been asked for a command, in small letters.
    pub fn calls_of(&self, command: &str) -> Result<u64> {
        let stats: String = redis::from_redis_value(self.command(&["INFO", "commandstats"])?)?;
        let calls = |line: &str| -> Option<u64> {
            let rest = line.strip_prefix("cmdstat_")?.strip_prefix(command)?;
            rest.strip_prefix(":calls=")?
                .split(',')
                .next()?
                .parse()
                .ok()
        };
        Ok(stats.lines().find_map(calls).unwrap_or(0))
    }

    /// Makes for good the user of a file like envoy/redis-user.acl, with this password for the one that stands
    /// there; its name.
    pub fn add_user(&self, acl: &str, password: &str) -> Result<String> {
        let words: Vec<&str> = acl.split_whitespace().collect();
        let [_, name, rules @ ..] = &words[..] else {
            bail!("{acl}: no user");
        };
        let password = format!(">{password}");
        let rules = rules.iter().map(|rule| match rule.starts_with('>') {
            true => &password,
            false => *rule,
        });
        let words: Vec<&str> = ["ACL", "SETUSER", name].into_iter().chain(rules).collect();
        self.command(&words)?;
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if !users.contains(&words) {
            users.push(words);
        }
        Ok((*name).to_owned())
    }

    /// Holds it still: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.server()?.pause()
    }

    pub fn resume(&self) -> Result<()> {
        self.server()?.resume()
    }

    /// Ends it; connections are refused until [`restart`](Self::restart).
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// The same port, empty again but for its users.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.start_again()?;
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users
            .iter()
            .try_for_each(|words| self.command(words).map(drop))
    }

    /// Makes it a replica of another, and waits until it has what that one has.
    pub fn follow(&self, primary: &Redis) -> Result<()> {
        self.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
        self.in_sync()
    }

    /// Waits until this replica has what its primary has.
    pub fn in_sync(&self) -> Result<()> {
        deadline::poll(START, "replica in step", || {
            let info = self.command(&["INFO", "replication"])?;
            let info: String = redis::from_redis_value(info)?;
            Ok(info.contains("master_link_status:up").then_some(()))
        })
    }

    /// Makes a replica a primary.
    pub fn promote(&self) -> Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).map(drop)
    }

    pub fn server(&self) -> Result<&Process> {
        self.server.as_ref().context("this Redis is stopped")
    }

    fn start_again(&mut self) -> Result<()> {
        let program = parts::redis_server()?;
        let mut command = Command::new(program);
        command
            .current_dir(self.scratch.path())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.arguments);
        let log = self.scratch.file("redis.log");
        let server = Process::spawn("Redis", command, &log)?;
        let address = self.address();
        // Whoever else holds the port answers too, so this one's log must agree.
        let ready = || server.log().contains(READY) && answers(address);
        server.wait_ready(START, ready).map_err(|error| {
            if server.log().contains("Address already in use") {
                return error.context(format!("port {} is in use", self.port));
            }
            error
        })?;
        self.server = Some(server);
        Ok(())
    }
}

/// A connection to any Redis.
pub fn open(
    host: &str,
    port: u16,
    user: Option<&str>,
    password: Option<&str>,
) -> redis::RedisResult<redis::Connection> {
    let info = redis::IntoConnectionInfo::into_connection_info((host, port))?;
    let mut settings = info.redis_settings().clone();
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let client = redis::Client::open(info.set_redis_settings(settings))?;
    client.get_connection_with_timeout(START)
}

/// Why whoever comes so is not served there, with the mend. Of one who is, what is to be known besides.
pub fn visit(
    address: SocketAddr,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<Option<String>> {
    let connect = || {
        let mut connection = open(&address.ip().to_string(), address.port(), user, password)?;
        redis::cmd("PING").exec(&mut connection)?;
        redis::RedisResult::Ok(connection)
    };
    let mut connection = match connect() {
        Ok(connection) => connection,
        Err(error) if error.code() == Some("NOPERM") => return Ok(None),
        Err(error) if error.code() == Some("NOAUTH") => bail!(
            "that Redis asks for a password: say REDIS_PASSWORD=…, and REDIS_USERNAME=… for a user \
             other than default"
        ),
        Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => {
            bail!("that Redis does not know this REDIS_PASSWORD (or REDIS_USERNAME): {error}")
        }
        Err(error) if error.is_io_error() => bail!("no Redis answers there: {error}"),
        Err(error) => bail!("that Redis does not serve now: {error}"),
    };
    let info: redis::RedisResult<String> = redis::cmd("INFO").arg("memory").query(&mut connection);
    let evicts = info
        .ok()
        .and_then(|info| Some(eviction::policy(&info)?.to_owned()));
    Ok(evicts.map(|policy| Notice::Evicts(policy).to_string()))
}

/// Whether a Redis answers there; one that wants a password first answers too.
pub fn answers(address: SocketAddr) -> bool {
    let exchange = || -> std::io::Result<[u8; 5]> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE)?;
        stream.set_read_timeout(Some(PROBE))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    };
    exchange().is_ok_and(|reply| reply == *b"+PONG" || reply == *b"-NOAU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_starts_empty_holds_still_and_restarts_empty() {
        let mut redis = Redis::start().unwrap();
        redis.command(&["SET", "key", "value"]).unwrap();
        redis.pause().unwrap();
        assert!(!answers(redis.address()));
        redis.resume().unwrap();
        assert_eq!(redis.command(&["DBSIZE"]).unwrap(), redis::Value::Int(1));
        let port = redis.port();
        redis.restart().unwrap();
        assert_eq!(
            (redis.port(), redis.command(&["DBSIZE"]).unwrap()),
            (port, redis::Value::Int(0))
        );
        redis.stop();
        assert!(!answers(redis.address()));
    }

    #[test]
    fn a_redis_with_a_password_counts_as_started() {
        let redis = Redis::start_with(&["--requirepass", "secret"]).unwrap();
        assert!(redis.command(&["DBSIZE"]).is_err());
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = Redis::start().unwrap();
        let error = Redis::start_on(first.port(), &[]).unwrap_err().to_string();
        assert_eq!(error, format!("port {} is in use", first.port()));
    }

    #[test]
    fn who_is_not_let_in_is_told_why_with_the_mend() {
        let redis = Redis::start_with_password("open sesame").unwrap();
        let visit = |user, password| visit(redis.address(), user, password);
        assert_eq!(visit(None, Some("open sesame")).unwrap(), None);
        let told = |user, password| visit(user, password).unwrap_err().to_string();
        assert!(told(None, None).contains("say REDIS_PASSWORD=…"));
        for user in [None, Some("weir")] {
            let told = told(user, Some("guessed"));
            assert!(told.contains("does not know this REDIS_PASSWORD"), "{told}");
        }
        redis
            .command(&["CONFIG", "SET", "maxmemory", "100mb"])
            .unwrap();
        let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
        redis.command(&policy).unwrap();
        let told = visit(None, Some("open sesame")).unwrap().unwrap();
        assert!(told.contains("maxmemory-policy allkeys-lru"), "{told}");
    }
}
