//! The address of a client behind proxies, from `X-Forwarded-For` and `Forwarded` (RFC 7239).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::access::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A hop that a header names: an address, or something else (`unknown`, an obfuscated name, malformed text).
type Hop = Option<IpAddr>;

/// Whether `address` is in one of the proxies' networks.
pub(crate) fn is_trusted_proxy(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// The proxies whose headers are trusted.
#[derive(Debug)]
pub(super) struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Whether it was logged that a trusted proxy sends what cannot be read.
    has_warned: AtomicBool,
}

impl TrustedProxies {
    /// The proxies in `networks`.
    pub(super) fn new(networks: Vec<IpNet>) -> TrustedProxies {
        TrustedProxies { networks, has_warned: AtomicBool::new(false) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        is_trusted_proxy(&self.networks, address)
    }

    /// The network of the client of a request that came from `peer`.
    ///
    /// Every proxy appends the address it received the request from. So the client is the last address that is not a
    /// trusted proxy; whatever precedes it may be forged. Where that address is not readable, or the two headers name
    /// different clients (a client may send the one that the proxy does not append to), the network is that of the
    /// proxy's unknown clients.
    pub(super) fn client_network(&self, peer: IpAddr, headers: &HeaderMap) -> Network {
        if !self.contains(peer) {
            return peer.into();
        }
        let clients = [
            headers.contains_key(X_FORWARDED_FOR).then(|| self.client(peer, &x_forwarded_for(headers))),
            headers.contains_key(header::FORWARDED).then(|| self.client(peer, &forwarded(headers))),
        ];
        let mut clients = clients.into_iter().flatten();
        let Some(client) = clients.next() else { return peer.into() };
        match (client, clients.all(|other| other == client)) {
            (Ok(address), true) => address.into(),
            (Ok(_), false) => self.unknown_behind(peer),
            (Err(proxy), _) => self.unknown_behind(proxy),
        }
    }

    /// The last of `hops` that is not a trusted proxy; the first if all are. Fails without hops, and at a hop without an
    /// address, with the proxy that reported it.
    fn client(&self, peer: IpAddr, hops: &[Hop]) -> Result<IpAddr, IpAddr> {
        let mut nearest = peer;
        if hops.is_empty() {
            return Err(peer);
        }
        for hop in hops.iter().rev() {
            nearest = hop.ok_or(nearest)?;
            if !self.contains(nearest) {
                break;
            }
        }
        Ok(nearest)
    }

    fn unknown_behind(&self, proxy: IpAddr) -> Network {
        // Once, since clients can cause it.
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %proxy,
                "the headers X-Forwarded-For and Forwarded of a trusted proxy do not name one client address: such requests \
                 share limits; further ones are not logged"
            );
        }
        Network::unknown_behind(proxy)
    }
}

/// The hops of all `X-Forwarded-For` headers, in order.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Hop> {
    let lists = headers.get_all(X_FORWARDED_FOR).iter();
    let elements = lists.flat_map(|list| list.as_bytes().split(|&byte| byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()).map(address).collect()
}

/// The hops of all `Forwarded` headers, in order. A malformed header is one hop without an address: its elements cannot
/// be told apart.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let lists = headers.get_all(header::FORWARDED).iter();
    lists.flat_map(|list| forwarded_elements(list.as_bytes()).unwrap_or_else(|| vec![None])).collect()
}

/// The hops of a `Forwarded` header: `for=192.0.2.1;proto=http, for="[2001:db8::1]:4711"`. `None` if it is malformed.
fn forwarded_elements(mut rest: &[u8]) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    loop {
        // One element: pairs separated by semicolons.
        let (mut hop, mut pairs) = (None, 0);
        let separator = loop {
            rest = rest.trim_ascii_start();
            let name_end = rest.iter().position(|&byte| !is_token(byte)).unwrap_or(rest.len());
            if name_end > 0 {
                let (name, after) = rest.split_at(name_end);
                let value;
                (value, rest) = forwarded_value(after.strip_prefix(b"=")?)?;
                pairs += 1;
                if name.eq_ignore_ascii_case(b"for") && hop.replace(address(&value)).is_some() {
                    return None;
                }
            }
            rest = rest.trim_ascii_start();
            let Some((&separator, after)) = rest.split_first() else { break None };
            rest = after;
            match separator {
                b';' => {}
                b',' => break Some(b','),
                _ => return None,
            }
        };
        // Lists may have empty elements (RFC 9110, section 5.6.1.2).
        if pairs > 0 {
            hops.push(hop.flatten());
        }
        if separator.is_none() {
            return Some(hops);
        }
    }
}

/// A value, which is a token or a quoted string, and what follows. `None` if it is malformed.
fn forwarded_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        // Unquoted colons and brackets are not tokens, but some proxies send them.
        let is_value = |byte| is_token(byte) || matches!(byte, b':' | b'[' | b']');
        let end = text.iter().position(|&byte| !is_value(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((value, rest)),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                value.push(escaped);
                rest = after;
            }
            byte => value.push(byte),
        }
    }
}

/// Whether a token may contain the byte (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
/// The zone of an IPv6 address (`%eth0`) is ignored.
fn address(text: &[u8]) -> Hop {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, port) = bracketed.split_once(']')?;
        let inside = inside.split_once('%').map_or(inside, |(address, _)| address);
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_forwarded_port);
        return is_port.then(|| inside.parse::<Ipv6Addr>().ok()).flatten().map(IpAddr::V6);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    if let Some((address, port)) = text.split_once(':')
        && let Ok(address) = address.parse::<Ipv4Addr>()
    {
        return is_forwarded_port(port).then_some(IpAddr::V4(address));
    }
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// A port: up to five digits, or an obfuscated one (RFC 7239, section 6).
fn is_forwarded_port(port: &str) -> bool {
    let is_obfuscated = port.len() > 1 && port.starts_with('_') && port.bytes().all(is_token);
    is_obfuscated || (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const PROXY: &str = "10.0.0.1";

    /// The network of a request that a proxy in 10.0.0.0/8 passed on with these headers.
    fn network(pairs: &[(HeaderName, &[u8])]) -> Network {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        proxies.client_network(PROXY.parse().unwrap(), &headers)
    }

    fn of(address: &str) -> Network {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn unknown(proxy: &str) -> Network {
        Network::unknown_behind(proxy.parse().unwrap())
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("192.0.2.1:_port", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]:_port", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%eth0]:80", "fe80::1"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ] {
            assert_eq!(address(text.as_bytes()), Some(expected.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[192.0.2.1]",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "[2001:db8::1]:",
            "2001:db8::1]",
            "unix:",
            "\u{e9}",
            "192.0.2.1 192.0.2.2",
        ] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        let lists = |lists: &[&str]| {
            let pairs: Vec<_> = lists.iter().map(|list| (X_FORWARDED_FOR, list.as_bytes())).collect();
            network(&pairs)
        };
        assert_eq!(lists(&[]), of(PROXY));
        assert_eq!(lists(&["192.0.2.1"]), of("192.0.2.1"));
        assert_eq!(lists(&["192.0.2.9, 192.0.2.1:80,10.0.0.2"]), of("192.0.2.1"));
        assert_eq!(lists(&["192.0.2.9", "[2001:db8::1]:80", "10.0.0.2"]), of("2001:db8::1"));
        assert_eq!(lists(&["192.0.2.1,, 10.0.0.2 ,"]), of("192.0.2.1"));
        assert_eq!(lists(&["10.0.0.3, 10.0.0.2"]), of("10.0.0.3"), "a client among the proxies");
        // What precedes the client's address does not matter.
        assert_eq!(lists(&["unknown, 192.0.2.1"]), of("192.0.2.1"));
        let bytes = [&b"\xe9\xff, 192.0.2.1"[..]].map(|list| (X_FORWARDED_FOR, list));
        assert_eq!(network(&bytes), of("192.0.2.1"));
    }

    #[test]
    fn clients_without_a_readable_address_are_apart_from_the_proxy() {
        for list in ["", ",", "unknown", "192.0.2.1, unknown", "192.0.2.1:x", ", \u{e9}"] {
            assert_eq!(network(&[(X_FORWARDED_FOR, list.as_bytes())]), unknown(PROXY), "{list}");
        }
        assert_eq!(network(&[(X_FORWARDED_FOR, b"unknown, 10.0.0.2")]), unknown("10.0.0.2"));
        assert_ne!(unknown(PROXY), of(PROXY));
        assert_ne!(unknown(PROXY), unknown("10.0.0.2"));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_describes_it() {
        let lists = |lists: &[&str]| {
            let pairs: Vec<_> = lists.iter().map(|list| (header::FORWARDED, list.as_bytes())).collect();
            network(&pairs)
        };
        for (list, expected) in [
            ("for=192.0.2.1", of("192.0.2.1")),
            ("FOR=\"192.0.2.1:4711\"", of("192.0.2.1")),
            ("for=192.0.2.1:4711", of("192.0.2.1")),
            ("For=\"[2001:db8:cafe::17]:4711\"", of("2001:db8:cafe::17")),
            ("for=192.0.2.1; proto=http ;by=203.0.113.43", of("192.0.2.1")),
            ("for=192.0.2.9, for=192.0.2.1, for=10.0.0.2", of("192.0.2.1")),
            ("for=unknown, for=192.0.2.1", of("192.0.2.1")),
            ("proto=\"a,b;for=192.0.2.9\";for=192.0.2.1", of("192.0.2.1")),
            ("for=\"192.0.2.\\1\"", of("192.0.2.1")),
            (", for=192.0.2.1,", of("192.0.2.1")),
            ("for=unknown", unknown(PROXY)),
            ("for=_hidden", unknown(PROXY)),
            ("for=192.0.2.1, for=unknown", unknown(PROXY)),
            ("for=unknown, for=10.0.0.2", unknown("10.0.0.2")),
            ("proto=http", unknown(PROXY)),
            ("for=192.0.2.1;for=192.0.2.2", unknown(PROXY)),
            ("for", unknown(PROXY)),
            ("for=", unknown(PROXY)),
            ("for=192.0.2.1 192.0.2.2", unknown(PROXY)),
        ] {
            assert_eq!(lists(&[list]), expected, "{list}");
        }
        // A client cannot hide the proxy's element in a string that it leaves open.
        for forged in ["for=192.0.2.9;x=\"", "for=\"", "for=192.0.2.9, x=\"\\"] {
            assert_eq!(lists(&[&format!("{forged}, for=192.0.2.1")]), unknown(PROXY), "{forged}");
            assert_eq!(lists(&[&format!("{forged}, for=\"[2001:db8::1]\"")]), unknown(PROXY), "{forged}");
            assert_eq!(lists(&[forged, "for=192.0.2.1"]), of("192.0.2.1"), "{forged}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_are_not_believed() {
        let both = |list: &str, forwarded: &str| {
            network(&[(X_FORWARDED_FOR, list.as_bytes()), (header::FORWARDED, forwarded.as_bytes())])
        };
        assert_eq!(both("192.0.2.1", "for=192.0.2.1"), of("192.0.2.1"));
        assert_eq!(both("192.0.2.1", "for=192.0.2.9"), unknown(PROXY));
        assert_eq!(both("192.0.2.1", "nonsense"), unknown(PROXY));
        assert_eq!(both("nonsense", "for=192.0.2.1"), unknown(PROXY));
    }

    #[test]
    fn headers_of_others_are_ignored() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"))]);
        let network = |peer: &str| proxies.client_network(peer.parse().unwrap(), &headers);
        assert_eq!(network("203.0.113.1"), of("203.0.113.1"));
        assert_eq!(network("::ffff:10.0.0.1"), of("192.0.2.1"));
    }
}
