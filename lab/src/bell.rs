//! What another terminal can ask of a running demonstration: to end its Redis, and to start it again.
//! It knows how that is said, not how it is done.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Whoever rings says at once what they want.
const PATIENCE: Duration = Duration::from_secs(1);
/// A Redis starts in much less.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    Outage,
    Recovery,
}

/// Where a demonstration is asked. It is gone with its process.
pub struct Bell(UnixListener);

impl Bell {
    /// For the demonstration whose own Redis has that port: no two have the same.
    pub fn hang(redis_port: u16) -> Result<Self> {
        let listener = UnixListener::bind_addr(&name(redis_port)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Answers whoever asks now with what `grant` says; waits for nobody.
    pub fn answer(&self, grant: impl FnOnce(Wish) -> String) {
        let Ok((mut stream, _)) = self.0.accept() else {
            return;
        };
        let mut wish = [0];
        let read = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.read_exact(&mut wish));
        let wish = match (read, wish) {
            (Ok(()), [b'o']) => Wish::Outage,
            (Ok(()), [b'r']) => Wish::Recovery,
            _ => return,
        };
        // Whoever does not wait for the answer has what they asked for all the same.
        let _ = stream.write_all(grant(wish).as_bytes());
    }
}

/// Asks the demonstration whose Redis has that port.
pub fn ask(redis_port: u16, wish: Wish) -> Result<String> {
    let Ok(mut stream) = UnixStream::connect_addr(&name(redis_port)?) else {
        bail!(
            "no demo runs whose Redis is its own on port {redis_port}. `make run` starts one; \
             REDIS_PORT=… names another port"
        );
    };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(match wish {
        Wish::Outage => b"o",
        Wish::Recovery => b"r",
    })?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("the demo does not answer")?;
    Ok(answer)
}

/// Not a file: none is left behind, and no folder's name is too long for it. Anybody on this machine
/// may ask, as anybody may send SHUTDOWN to a Redis on loopback that has no password.
fn name(redis_port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::from_abstract_name(format!(
        "weir-demo-{redis_port}"
    ))?)
}
