//! Forwards that the bastion dials itself: which addresses it must never reach for anybody.
//!
//! A grant names a place; what the name resolves to is not the grant's to say. So the bastion judges the addresses that it found and
//! dials one of those, and no name twice. What is its own, or what only a host itself should reach, is refused unless the operator's
//! configuration names its network: loopback, the bastion's own addresses and its database (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3),
//! link-local addresses, where clouds keep their metadata (RFC 3927, RFC 4291 §2.5.6), unspecified and multicast ones.
//! Addresses that carry an IPv4 address within (RFC 4291 §2.5.5, RFC 6052, RFC 3056) count as that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// What the bastion knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// The addresses of its interfaces, and those that people reach it by.
    pub addresses: Vec<IpAddr>,
    /// Its database and whatever else only it should speak to.
    pub services: Vec<SocketAddr>,
    /// Networks that the operator allows all the same.
    pub allowed: Vec<IpNet>,
}

/// Why the bastion does not dial an address. Its text is for the engineer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressDenial {
    #[error("{address} is the bastion's own address")]
    Own { address: IpAddr },
    #[error("{address} is a service of the bastion's own")]
    OwnService { address: SocketAddr },
    #[error("{address} is a loopback address, which on the bastion is the bastion")]
    Loopback { address: IpAddr },
    #[error("{address} is a link-local or metadata address")]
    LinkLocal { address: IpAddr },
    #[error("{address} is not the address of one host")]
    NoHost { address: IpAddr },
}

/// Metadata services that are not at link-local addresses: of AWS (IPv6), Azure, Alibaba and Oracle.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

impl Own {
    /// Whether the bastion may dial `address` for somebody whose grant names it.
    pub fn judge(&self, address: SocketAddr) -> Result<(), AddressDenial> {
        let ip = meant(address.ip());
        if self.allowed.iter().any(|network| network.contains(&ip)) {
            return Ok(());
        }
        judge_kind(ip)?;
        if self.addresses.iter().any(|own| meant(*own) == ip) {
            return Err(AddressDenial::Own { address: ip });
        }
        let is_service = |own: &SocketAddr| meant(own.ip()) == ip && own.port() == address.port();
        match self.services.iter().find(|own| is_service(own)) {
            Some(own) => Err(AddressDenial::OwnService { address: *own }),
            None => Ok(()),
        }
    }
}

/// The address that is reached by `address`: an IPv4 address within an IPv6 one.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // Mapped (::ffff:a.b.c.d), translated (::ffff:0:a.b.c.d), NAT64 (64:ff9b::/96 and the local 64:ff9b:1::/48).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        // "Compatible" (::a.b.c.d), but for :: and ::1.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => v4(high, low),
        // 6to4 (2002:a.b.c.d::/48).
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn judge_kind(ip: IpAddr) -> Result<(), AddressDenial> {
    let (link_local, no_host) = match ip {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            (v4.is_link_local(), first == 0 || first >= 240 || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            // fec0::/10 is the site-local of old (RFC 3879).
            (matches!(first & 0xffc0, 0xfe80 | 0xfec0), v6.is_unspecified() || v6.is_multicast())
        }
    };
    if ip.is_loopback() {
        Err(AddressDenial::Loopback { address: ip })
    } else if link_local || METADATA.contains(&ip) {
        Err(AddressDenial::LinkLocal { address: ip })
    } else if no_host {
        Err(AddressDenial::NoHost { address: ip })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own() -> Own {
        Own {
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            services: vec!["198.51.100.5:5432".parse().unwrap()],
            allowed: vec![],
        }
    }

    fn refused(address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        own().judge(SocketAddr::new(address, 5432)).is_err()
    }

    #[test]
    fn what_is_the_bastions_own_or_nobodys_is_not_dialled() {
        for address in [
            "127.0.0.1",
            "127.255.0.3",
            "::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "fe80::1",
            "fec0::1",
            "fd00:ec2::254",
            "168.63.129.16",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "192.0.2.7",
            "2001:db8::7",
            "198.51.100.5",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:192.0.2.7",
            "::ffff:198.51.100.5",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::ffff:0:127.0.0.1",
        ] {
            assert!(refused(address), "{address}");
        }
        for address in ["192.0.2.8", "10.0.0.1", "2001:db8::8", "198.51.100.6", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!refused(address), "{address}");
        }
        let other_port = own().judge("198.51.100.5:80".parse().unwrap());
        assert_eq!(other_port, Ok(()), "a host of its database's may serve others, too");
    }

    #[test]
    fn a_network_that_the_operator_names_is_dialled() {
        let own = Own { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..own() };
        for address in ["127.0.0.1:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(own.judge(address.parse().unwrap()), Ok(()));
        }
        assert!(own.judge("[::1]:80".parse().unwrap()).is_err());
    }

    proptest! {
        /// However an IPv4 address is dressed up, the answer is the one for it.
        #[test]
        fn an_ipv4_address_is_judged_the_same_in_every_form(bits in any::<u32>(), port in 1u16..) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let plain = own().judge(SocketAddr::new(v4.into(), port)).is_ok();
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(own().judge(SocketAddr::new(v6.into(), port)).is_ok(), plain, "{}", v6);
            }
        }
    }
}
