//! Where a Redis is and how to log in: `redis://[user:password@]host[:port][/db]`, or `rediss://`
//! for TLS.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use percent_encoding::percent_decode_str;
use url::{Host, ParseError, Url};

const DEFAULT_PORT: u16 = 6379;

const SCHEME: &str = "the URL must start with redis:// or rediss://";
const PORT: &str = "the port must be a number from 1 to 65535";
const NO_HOST: &str = "the URL names no host";

/// A node. The host is a name or an address, an IPv6 one without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// What a URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub address: Address,
    pub transport: Transport,
    pub login: Login,
    pub db: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

/// Without a password, none is sent. `Debug` is not derived, so that no log can tell it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, db {})", self.address, self.transport, self.db)
    }
}

impl FromStr for RedisUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<RedisUrl> {
        // The errors do not repeat the URL: it may hold a password.
        let unclear = "not a URL; write redis://host:6379, and % escapes in a password";
        // A blank would be dropped or escaped, and another password sent than was meant.
        ensure!(text.bytes().all(|byte| byte.is_ascii_graphic()), unclear);
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::InvalidPort => Error::msg(PORT),
            ParseError::EmptyHost => Error::msg(NO_HOST),
            ParseError::RelativeUrlWithoutBase => Error::msg(SCHEME),
            _ => Error::msg(unclear),
        })?;
        let transport = match url.scheme() {
            "redis" => Transport::Plain,
            "rediss" => Transport::Tls,
            _ => bail!(SCHEME),
        };
        let host = match url.host().context(NO_HOST)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        ensure!(!host.is_empty(), NO_HOST);
        let port = url.port().unwrap_or(DEFAULT_PORT);
        ensure!(port > 0, PORT);
        let db = match url.path().trim_start_matches('/') {
            "" => 0,
            db => db
                .parse()
                .ok()
                .context("what follows the host must be a database number, as in /0")?,
        };
        ensure!(url.query().is_none(), "the URL takes no parameters after ?");
        ensure!(
            url.fragment().is_none(),
            "the URL takes nothing after #; write %23 for one in a password"
        );
        let login = Login {
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?,
        };
        Ok(RedisUrl {
            address: Address { host, port },
            transport,
            login,
            db,
        })
    }
}

/// None where there is nothing.
fn decoded(text: &str) -> Result<Option<String>> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .context("the user and the password must be UTF-8")?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let table = [
            (
                "redis://localhost",
                "localhost:6379 (Plain, db 0) None None",
            ),
            (
                "redis://10.0.0.1:7000/3",
                "10.0.0.1:7000 (Plain, db 3) None None",
            ),
            ("rediss://[::1]:7000", "[::1]:7000 (Tls, db 0) None None"),
            ("redis://[::1]/", "[::1]:6379 (Plain, db 0) None None"),
            (
                "redis://:s%40cret@h",
                r#"h:6379 (Plain, db 0) None Some("s@cret")"#,
            ),
            (
                "redis://ann:s:t@h:1",
                r#"h:1 (Plain, db 0) Some("ann") Some("s:t")"#,
            ),
            (
                "redis://:%23%2F%3F@h",
                r##"h:6379 (Plain, db 0) None Some("#/?")"##,
            ),
            ("redis://ann@h", r#"h:6379 (Plain, db 0) Some("ann") None"#),
        ];
        for (url, expected) in table {
            let parsed: RedisUrl = url.parse().unwrap();
            let Login { user, password } = &parsed.login;
            assert_eq!(
                format!("{parsed:?} {user:?} {password:?}"),
                expected,
                "{url}"
            );
        }
    }

    #[test]
    fn a_bad_url_is_refused_with_its_mend_and_without_its_password() {
        let table = [
            (
                "localhost:6379",
                "the URL must start with redis:// or rediss://",
            ),
            (
                "http://localhost",
                "the URL must start with redis:// or rediss://",
            ),
            ("redis://", "the URL names no host"),
            ("redis:h", "the URL names no host"),
            ("redis://:secret@", "the URL names no host"),
            (
                "redis://a:b#c@h",
                "the port must be a number from 1 to 65535",
            ),
            (
                "redis://h/0#x",
                "the URL takes nothing after #; write %23 for one in a password",
            ),
            ("redis://h:0", "the port must be a number from 1 to 65535"),
            (
                "redis://h:99999",
                "the port must be a number from 1 to 65535",
            ),
            (
                "redis://h/x",
                "what follows the host must be a database number, as in /0",
            ),
            ("redis://h/0?a=b", "the URL takes no parameters after ?"),
            (
                "redis://a:hush me@h",
                "not a URL; write redis://host:6379, and % escapes in a password",
            ),
        ];
        for (url, expected) in table {
            let error = url.parse::<RedisUrl>().unwrap_err();
            assert_eq!(format!("{error:#}"), expected, "{url}");
        }
    }
}
