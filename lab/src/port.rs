//! Loopback ports: free ones for tests, and those that a user chose.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result, bail};

/// Below the kernel's range for outgoing connections (32768 and up), so that a part which restarts
/// finds its port as it left it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on. Another process may take it before you do: try again then.
pub fn free() -> Result<u16> {
    // Test processes that run side by side begin in different places.
    let start = process::id().wrapping_mul(101);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = start.wrapping_add(step) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).context("an offset is below COUNT")?;
        if is_free(Ipv4Addr::LOCALHOST, port) {
            return Ok(port);
        }
    }
    bail!("every port from {FIRST} to {} is in use", FIRST + COUNT - 1)
}

/// Refuses a port that somebody listens on, and names the variable that chooses another.
pub fn claim(host: Ipv4Addr, port: u16, variable: &str) -> Result<()> {
    if is_free(host, port) {
        return Ok(());
    }
    let other = if port < 60_000 { port + 1 } else { port - 1 };
    bail!(
        "port {port} is in use. Stop what listens there, or choose another port: \
         {variable}={other}"
    )
}

fn is_free(host: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_the_variable_to_change() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = claim(Ipv4Addr::LOCALHOST, port, "REDIS_PORT")
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("port {port} is in use")), "{error}");
        assert!(error.contains("REDIS_PORT="), "{error}");
        drop(listener);
        claim(Ipv4Addr::LOCALHOST, port, "REDIS_PORT").unwrap();
    }

    #[test]
    fn free_ports_differ() {
        assert_ne!(free().unwrap(), free().unwrap());
    }
}
