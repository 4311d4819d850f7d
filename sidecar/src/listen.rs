//! Where the sidecar listens: a loopback port or a unix socket. Who comes is asked for a secret at
//! most, so another machine reaches it only if the user says so.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// A machine that is gone without a word is noticed within a minute and a half, and holds no place
/// for the hour that an idle connection may last.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Where to listen, as in `127.0.0.1:6380` or `unix:/run/weir.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    ThisMachine,
    Anywhere,
}

/// Permissions of a unix socket, as in `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Place> {
        if let Some(path) = text.strip_prefix("unix:") {
            ensure!(
                !path.is_empty(),
                "unix: needs a path, as in unix:/run/weir.sock"
            );
            return Ok(Place::Unix(path.into()));
        }
        text.parse()
            .map(Place::Tcp)
            .ok()
            .context("must be an address and a port, as in 127.0.0.1:6380, or unix: and a path")
    }
}

impl FromStr for SocketMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<SocketMode> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(SocketMode)
            .context("must be octal, from 0 to 0777, as in 0660")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    pub async fn bind(place: &Place, reach: Reach, mode: SocketMode) -> Result<Listener> {
        match place {
            Place::Tcp(address) => {
                ensure!(
                    address.ip().is_loopback() || reach == Reach::Anywhere,
                    "{address} can be reached from other machines, and whoever reaches it can \
                     spend permits; listen on 127.0.0.1, or add --allow-remote if your network \
                     keeps others out"
                );
                let listener = TcpListener::bind(address).await;
                let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
                Ok(Listener::Tcp(listener))
            }
            Place::Unix(path) => {
                let listener = bind_unix(path, mode);
                let listener =
                    listener.with_context(|| format!("cannot listen on {}", path.display()))?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens: with the port that was chosen, if 0 was asked for.
    pub fn place(&self) -> io::Result<Place> {
        Ok(match self {
            Listener::Tcp(listener) => Place::Tcp(listener.local_addr()?),
            Listener::Unix(_, path) => Place::Unix(path.clone()),
        })
    }

    pub async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // One that has gone already is found out when it is read.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
                Box::new(stream)
            }
            Listener::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// Takes the place of a socket that nobody listens on any more, and of nothing else.
fn bind_unix(path: &PathBuf, mode: SocketMode) -> Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        ensure!(
            found.file_type().is_socket(),
            "a file that is no socket is there; choose another path"
        );
        if StdUnixStream::connect(path).is_ok() {
            bail!("another process listens there; stop it, or choose another path");
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode.0))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_modes_are_read() {
        let tcp = |text: &str| Some(Place::Tcp(text.parse().unwrap()));
        let table = [
            ("127.0.0.1:6380", tcp("127.0.0.1:6380")),
            ("[::1]:0", tcp("[::1]:0")),
            (
                "unix:/run/weir.sock",
                Some(Place::Unix("/run/weir.sock".into())),
            ),
            ("unix:", None),
            ("6380", None),
            ("localhost:6380", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Place>().ok(), expected, "{text}");
        }
        let table = [
            ("0660", Some(SocketMode(0o660))),
            ("777", Some(SocketMode(0o777))),
            ("1777", None),
            ("0888", None),
            ("rw", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<SocketMode>().ok(), expected, "{text}");
        }
    }
}
