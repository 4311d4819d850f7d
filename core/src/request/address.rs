//! Network addresses and networks: who a client is by its address. It knows no headers and no trust.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};

/// A network in CIDR notation, without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

/// Any number of networks, asked for an address by one bisection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last of each, ascending and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<N>(Vec<(N, N)>);

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// Neither an address nor an address with a prefix length.
    NotAnAddress,
    /// The prefix length exceeds the address's bits.
    PrefixTooLong { most: u8 },
    /// Bits beyond the prefix are set; the network meant is probably the one given.
    HostBits { meant: Cidr },
}

impl Cidr {
    /// The network of this prefix that an address lies in; none where the address has fewer bits.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Cidr> {
        let network = IpNet::new(unmapped(address), prefix).ok()?;
        Some(Cidr(network.trunc()))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&unmapped(address))
    }

    /// The length of the prefix: of two networks that hold an address, the longer is the closer.
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }
}

impl Networks {
    /// The network that holds the address: of those that lie within each other the widest.
    pub fn find(&self, address: IpAddr) -> Option<Cidr> {
        let (network, beyond) = match unmapped(address) {
            IpAddr::V4(v4) => {
                let (first, last) = self.v4.find(v4.into())?;
                (IpAddr::V4(first.into()), (first ^ last).leading_zeros())
            }
            IpAddr::V6(v6) => {
                let (first, last) = self.v6.find(v6.into())?;
                (IpAddr::V6(first.into()), (first ^ last).leading_zeros())
            }
        };
        let prefix = u8::try_from(beyond).ok()?;
        IpNet::new(network, prefix).ok().map(Cidr)
    }

    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// The families of addresses all of which are in it.
    pub fn whole_families(&self) -> Vec<&'static str> {
        let v4 = self.v4.hold_all(0, u32::MAX, |last| last.checked_add(1));
        let v6 = self.v6.hold_all(0, u128::MAX, |last| last.checked_add(1));
        let families = [(v4, "IPv4"), (v6, "IPv6")];
        families
            .into_iter()
            .filter(|(all, _)| *all)
            .map(|(_, name)| name)
            .collect()
    }
}

impl FromIterator<Cidr> for Networks {
    fn from_iter<I: IntoIterator<Item = Cidr>>(networks: I) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Cidr(network) in networks {
            match network {
                IpNet::V4(v4s) => v4.push((v4s.network().into(), v4s.broadcast().into())),
                IpNet::V6(v6s) => v6.push((v6s.network().into(), v6s.broadcast().into())),
            }
        }
        Networks {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }
    }
}

impl<N: Copy + Ord> Ranges<N> {
    /// Of networks one lies within the other, or they share nothing: the widest of each nest stay.
    fn new(mut ranges: Vec<(N, N)>) -> Ranges<N> {
        ranges.sort_unstable_by_key(|&(first, last)| (first, std::cmp::Reverse(last)));
        let mut widest: Vec<(N, N)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if widest.last().is_none_or(|&(_, last)| last < range.0) {
                widest.push(range);
            }
        }
        Ranges(widest)
    }

    /// Whether no number from the first to the last is left out.
    fn hold_all(&self, first: N, last: N, next: impl Fn(N) -> Option<N>) -> bool {
        let mut wanted = Some(first);
        for &(first, end) in &self.0 {
            if wanted.is_none_or(|wanted| first > wanted) {
                return false;
            }
            wanted = next(end);
        }
        wanted.is_none() && self.0.last().is_some_and(|&(_, end)| end == last)
    }

    fn find(&self, number: N) -> Option<(N, N)> {
        let begun = self.0.partition_point(|&(first, _)| first <= number);
        let closest = self.0.get(begun.checked_sub(1)?).copied();
        closest.filter(|&(_, last)| number <= last)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::NotAnAddress)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let beyond = |_| CidrError::PrefixTooLong { most };
                digits.parse().map_err(beyond)?
            }
            Some(_) => return Err(CidrError::NotAnAddress),
        };
        let given = IpNet::new(address, prefix).map_err(|_| CidrError::PrefixTooLong { most })?;
        let meant = given.trunc();
        if meant == given {
            Ok(Cidr(given))
        } else {
            Err(CidrError::HostBits { meant: Cidr(meant) })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::NotAnAddress => {
                f.write_str("is not a network; write one such as 10.0.0.0/8 or 2001:db8::/32")
            }
            CidrError::PrefixTooLong { most } => {
                write!(f, "has a prefix length that is not within 0 to {most}")
            }
            CidrError::HostBits { meant } => {
                write!(f, "has bits beyond its prefix; did you mean {meant}?")
            }
        }
    }
}

/// Reads Envoy's `address:port` (`[v6]:port`), or an address alone.
pub fn parse_peer(text: &[u8]) -> Option<IpAddr> {
    // Nearly all peers are such, and two are read at each request.
    v4_peer(text).map(IpAddr::V4).or_else(|| any_peer(text))
}

fn any_peer(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map(|(inner, _)| inner);
    let address = match bare {
        Some(inner) => inner.parse().ok(),
        None => text
            .parse()
            .ok()
            .or_else(|| text.rsplit_once(':')?.0.parse().ok()),
    };
    address.map(unmapped)
}

/// `a.b.c.d` or `a.b.c.d:port`, where it is written as everybody writes it.
fn v4_peer(mut text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    for (place, octet) in octets.iter_mut().enumerate() {
        if place > 0 {
            text = text.strip_prefix(b".")?;
        }
        (*octet, text) = v4_octet(text)?;
    }
    let is_port = |rest: &[u8]| rest.iter().all(u8::is_ascii_digit);
    let is_whole = match text.split_first() {
        None => true,
        Some((colon, rest)) => *colon == b':' && is_port(rest),
    };
    is_whole.then(|| octets.into())
}

/// A number up to 255 without leading zeros, and what follows its digits.
fn v4_octet(mut text: &[u8]) -> Option<(u8, &[u8])> {
    let mut octet: Option<u8> = None;
    while let Some((digit @ b'0'..=b'9', rest)) = text.split_first() {
        let digit = digit - b'0';
        octet = Some(match octet {
            None => digit,
            Some(0) => return None,
            Some(tens) => tens.checked_mul(10)?.checked_add(digit)?,
        });
        text = rest;
    }
    Some((octet?, text))
}

/// The network of an address, by the prefix of its family.
pub fn network(address: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> Option<Cidr> {
    let address = unmapped(address);
    let prefix = match address {
        IpAddr::V4(_) => ipv4_prefix,
        IpAddr::V6(_) => ipv6_prefix,
    };
    IpNet::new(address, prefix)
        .ok()
        .map(|net| Cidr(net.trunc()))
}

/// Who counts as one client: an IPv4 address, or an IPv6 network of `ipv6_prefix` bits (a household
/// or host commonly holds a /64, so that counting single addresses would count nothing).
pub fn client(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Net::new(v6, ipv6_prefix).map_or(address, |net| net.network().into()),
    }
}

/// `::ffff:a.b.c.d` is the IPv4 client a.b.c.d on a socket that speaks both.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(
                network.contains(ip(address)),
                holds,
                "{network} and {address}"
            );
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused_with_the_reason() {
        for (text, reason) in [
            ("everyone", "is not a network"),
            ("10.0.0.0/", "within 0 to 32"),
            ("10.0.0.0/33", "within 0 to 32"),
            ("::/129", "within 0 to 128"),
            ("10.0.0.0/+8", "is not a network"),
            ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_peer_is_read_with_and_without_its_port() {
        for (text, address) in [
            ("10.1.2.3:4567", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
        ] {
            assert_eq!(parse_peer(text.as_bytes()), Some(ip(address)), "{text}");
        }
        assert_eq!(parse_peer(b"@/run/envoy.sock"), None);
        assert_eq!(parse_peer(b"\xff"), None);
    }

    #[test]
    fn ipv6_clients_are_their_network() {
        assert_eq!(client(ip("2001:db8:1:2:3::4"), 64), ip("2001:db8:1:2::"));
        assert_eq!(
            client(ip("2001:db8:1:2:3::4"), 128),
            ip("2001:db8:1:2:3::4")
        );
        assert_eq!(client(ip("2001:db8:1:2:3::4"), 0), ip("::"));
        assert_eq!(client(ip("10.0.0.9"), 64), ip("10.0.0.9"));
    }

    /// Few bits that differ, so that networks nest and addresses hit them.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..8u8, 0..8u8).prop_map(|(a, b)| IpAddr::from([10, a, b * 32, b])),
            (0..8u16, 0..8u16).prop_map(|(a, b)| IpAddr::from([0x2001, a << 13, 0, b, 0, 0, 0, a])),
        ]
    }

    fn networks() -> impl Strategy<Value = Cidr> {
        (addresses(), any::<u8>()).prop_map(|(address, prefix)| {
            let prefix = prefix % if address.is_ipv4() { 33 } else { 129 };
            Cidr(IpNet::new(address, prefix).unwrap().trunc())
        })
    }

    proptest! {
        #[test]
        fn a_peer_is_read_quickly_as_it_is_read_slowly(
            text in r"(1?[0-9]{1,2}|25[4-6])(\.(1?[0-9]{1,2}|25[4-6])){2,4}(:[0-9]{0,5}){0,2}[ x:.]?",
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(parse_peer(text), any_peer(text));
        }

        #[test]
        fn many_networks_find_the_widest_that_holds_an_address(
            networks in prop::collection::vec(networks(), 0..12),
            addresses in prop::collection::vec(addresses(), 1..40),
        ) {
            let together: Networks = networks.iter().copied().collect();
            for address in addresses {
                let holding = networks.iter().filter(|network| network.contains(address));
                let widest = holding.min_by_key(|network| network.prefix());
                prop_assert_eq!(together.find(address), widest.copied(), "{}", address);
            }
        }
    }
}
