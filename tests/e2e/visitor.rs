//! One client of a gateway: an address nobody else has, and headers that go with each request.

use std::sync::atomic::{AtomicU32, Ordering};

use weir_lab::{
    client::{Answer, Client, Request},
    gateway::Gateway,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

#[derive(Clone)]
pub struct Visitor {
    client: Client,
    pub address: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Visitor {
    /// Nobody in particular, from an address whose identity headers every gateway here believes.
    pub fn anonymous(gateway: &Gateway) -> Self {
        Self::at(gateway, 1)
    }

    /// From an address that the workshop's gateway does not believe.
    pub fn distrusted(gateway: &Gateway) -> Self {
        Self::at(gateway, 128)
    }

    /// Somebody of this tier whose id nobody else has.
    pub fn of_tier(gateway: &Gateway, tier: &str) -> Self {
        Self::anonymous(gateway).named(unique("visitor")).tier(tier)
    }

    /// 127.`block`.x.y, or the blocks above where the numbers run out of x.
    fn at(gateway: &Gateway, block: u32) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let (x, y) = (number / 250, number % 250 + 1);
        let address = format!("127.{}.{}.{y}", block + x / 250, x % 250);
        Self {
            client: gateway.client(),
            address,
            headers: Vec::new(),
        }
    }

    pub fn named(self, id: impl AsRef<[u8]>) -> Self {
        self.with("X-User-ID", id)
    }

    pub fn tier(self, tier: &str) -> Self {
        self.with("X-User-Tier", tier)
    }

    /// One more header with each request.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// The same caller at an address of its own.
    pub fn elsewhere(&self, gateway: &Gateway) -> Self {
        Self {
            headers: self.headers.clone(),
            ..Self::anonymous(gateway)
        }
    }

    /// The same caller at that address.
    pub fn moved_to(self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self
        }
    }

    /// The same caller from the same address, on connections of its own.
    pub fn apart(&self, gateway: &Gateway) -> Self {
        Self {
            client: gateway.client(),
            ..self.clone()
        }
    }

    /// The same caller on the connections of another, and so from its address.
    pub fn over(&self, other: &Visitor) -> Self {
        Self {
            headers: self.headers.clone(),
            ..other.clone()
        }
    }

    pub fn get(&self, path: impl AsRef<[u8]>) -> Answer {
        self.request("GET", path).send().unwrap()
    }

    pub fn request(&self, method: &str, path: impl AsRef<[u8]>) -> Request<'_> {
        let request = self.client.request(method, path).from(&self.address);
        let headers = self.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }
}

/// An id that no other case uses.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A header that is a whole number.
pub fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header);
    let parsed = value.as_ref().and_then(|value| value.parse().ok());
    parsed.unwrap_or_else(|| panic!("{header}: {value:?} in {answer:?}"))
}

/// `X-RateLimit-Remaining`.
pub fn remaining(answer: &Answer) -> u64 {
    number(answer, "x-ratelimit-remaining")
}

/// Whether Weir told anything of limits.
pub fn tells_limits(answer: &Answer) -> bool {
    answer
        .headers
        .iter()
        .any(|(name, _)| name.to_ascii_lowercase().contains("ratelimit"))
}
