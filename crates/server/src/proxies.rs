//! Whose request it is: the address of a connection or, behind a trusted proxy, what that says.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use rustorch_llama::ClientId;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

/// A network: the addresses that begin with the same bits as one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// The text is no address, nor an address, a slash and a number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address or a network, such as 10.0.0.1 or 10.0.0.0/8")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, prefix)| (a, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| NetworkError)?;
        if prefix > bits { Err(NetworkError) } else { Ok(Self { address, prefix }) }
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        // A shift by all bits is none.
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(pub Vec<Network>);

impl Proxies {
    pub fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who sent a request that came from `peer`. A trusted proxy says from whom it has it, and so on: the answer is the last that is
    /// no trusted proxy itself. What stands before that in the header is what that one says, and anybody can say anything.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trust(peer) {
            return peer;
        }
        let follow = |hops: Option<Vec<Hop>>| hops.map(|hops| self.follow(peer, &hops));
        match (follow(forwarded_for(headers)), follow(forwarded(headers))) {
            (Some(client), None) | (None, Some(client)) => client,
            (Some(client), Some(same)) if client == same => client,
            // A proxy writes one of them and passes the other on as the client wrote it; nobody here knows which.
            _ => peer,
        }
    }

    fn follow(&self, peer: IpAddr, hops: &[Hop]) -> IpAddr {
        let mut client = peer;
        for hop in hops.iter().rev() {
            let Some(address) = *hop else { break };
            client = address;
            if !self.trust(address) {
                break;
            }
        }
        client
    }
}

/// An address in a header; `None` for what is none.
type Hop = Option<IpAddr>;

/// The elements of all headers of a name. `None` if there is no such header.
fn elements(headers: &HeaderMap, name: HeaderName, hop: fn(&str) -> Hop) -> Option<Vec<Hop>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::to_str).peekable();
    values.peek()?;
    let hops = |value: Result<&str, _>| match value {
        Ok(value) => value.split(',').map(|element| hop(element.trim())).collect(),
        Err(_) => vec![None],
    };
    Some(values.flat_map(hops).collect())
}

fn forwarded_for(headers: &HeaderMap) -> Option<Vec<Hop>> {
    elements(headers, X_FORWARDED_FOR, address)
}

/// RFC 7239: `for=192.0.2.1;proto=http, for="[2001:db8::1]:4711"`.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Hop>> {
    elements(headers, header::FORWARDED, |element| {
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut of = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        address(of.next()?.1.trim_matches('"'))
    })
}

/// An address, perhaps with a port, and of version 6 perhaps in brackets.
fn address(text: &str) -> Hop {
    let bracketed = || text.strip_prefix('[')?.split_once(']')?.0.parse().ok();
    let with_port = || text.split_once(':')?.0.parse().ok();
    let found: IpAddr = text.parse().ok().or_else(bracketed).or_else(with_port)?;
    Some(found.to_canonical())
}

/// Who has this address, as far as that can be known: an IPv6 network has a client for each 64 bits, whose rest is its own to choose.
pub(crate) fn client_of(address: IpAddr) -> ClientId {
    ClientId(match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_bits_of_addresses() {
        let check = |network: &str, inside: &[&str], outside: &[&str]| {
            let network: Network = network.parse().unwrap();
            inside.iter().for_each(|address| assert!(network.contains(ip(address)), "{address}"));
            outside.iter().for_each(|address| assert!(!network.contains(ip(address)), "{address}"));
        };
        check("10.0.0.1", &["10.0.0.1"], &["10.0.0.0", "::a00:1"]);
        check("10.1.2.3/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "9.255.255.255"]);
        check("0.0.0.0/0", &["1.2.3.4", "255.0.0.0"], &["::1"]);
        check("2001:db8::/33", &["2001:db8::1", "2001:db8:7fff::"], &["2001:db8:8000::", "10.0.0.1"]);
        check("::/0", &["::1", "ffff::"], &["0.0.0.0"]);
        for text in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "a.example/8"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }

    #[test]
    fn trusted_proxies_are_believed_up_to_the_first_that_is_not() {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let check = |peer: &str, headers: &[(HeaderName, &'static str)], client: &str| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(proxies.client(ip(peer), &headers), ip(client), "{peer}: {headers:?}");
        };
        let (list, element) = (X_FORWARDED_FOR, header::FORWARDED);
        check("192.0.2.1", &[(list.clone(), "192.0.2.7")], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[(list.clone(), "192.0.2.7")], "192.0.2.7");
        check("fd00::1", &[(list.clone(), "198.51.100.1, 192.0.2.7,10.1.1.1")], "192.0.2.7");
        check("10.0.0.1", &[(list.clone(), "10.0.0.9, 10.0.0.8")], "10.0.0.9");
        check("10.0.0.1", &[(list.clone(), "192.0.2.7:4711")], "192.0.2.7");
        check("10.0.0.1", &[(list.clone(), "[2001:db8::1]:80")], "2001:db8::1");
        check("10.0.0.1", &[(list.clone(), "::ffff:192.0.2.7")], "192.0.2.7");
        check("10.0.0.1", &[(list.clone(), "192.0.2.7, unknown")], "10.0.0.1");
        check("10.0.0.1", &[(list.clone(), "192.0.2.7, _hidden, 10.0.0.8")], "10.0.0.8");
        check("10.0.0.1", &[(element.clone(), "for=192.0.2.7;proto=http, By=x;For=10.0.0.3")], "192.0.2.7");
        check("10.0.0.1", &[(element.clone(), "for=\"[2001:db8::1]:4711\"")], "2001:db8::1");
        check("10.0.0.1", &[(element.clone(), "proto=http")], "10.0.0.1");
        let both = |one, other| [(list.clone(), one), (element.clone(), other)];
        check("10.0.0.1", &both("192.0.2.7", "for=192.0.2.7"), "192.0.2.7");
        check("10.0.0.1", &both("192.0.2.7", "for=192.0.2.8"), "10.0.0.1");
    }

    #[test]
    fn headers_of_one_name_are_one_list() {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.66"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.7"));
        assert_eq!(proxies.client(ip("10.0.0.1"), &headers), ip("192.0.2.7"));
    }
}
