//! Where clients come from, as far as it matters who tries what: one number for each.

use std::net::IpAddr;

/// Where a client comes from: its IPv4 address, or the network of its IPv6 address, of which it has
/// as many as it likes (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(u64);

impl Address {
    /// The address of this number; tests have them count.
    #[cfg(test)]
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Reads `CF-Connecting-IP`. All clients that have no address share one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(match text.parse() {
            Ok(IpAddr::V4(address)) => u32::from(address).into(),
            Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => u32::from(address).into(),
                None => u64::try_from(u128::from(address) >> 64).unwrap_or(0),
            },
            Err(_) => 0,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ipv4_address_or_an_ipv6_network() {
        let one = |text: &str, other: &str| Address::parse(text) == Address::parse(other);
        assert!(one("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!one("192.0.2.1", "192.0.2.2"));
        assert!(one("2001:db8:0:1::1", "2001:db8:0:1:ffff::7"));
        assert!(!one("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(one("", "nonsense"));
        assert!(!one("", "192.0.2.1"));
    }
}
