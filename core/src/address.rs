//! Addresses that must not be mixed up: the virtual IP, a hardware address, an interface's index.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A virtual IP: a unicast address that can belong to one host of a link at a time.
///
/// Multicast, loopback, unspecified, the limited broadcast address and IPv4-mapped IPv6 addresses
/// are none of those, so that no frame can ever be sent for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip(IpAddr);

impl Vip {
    /// The address itself.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Whether it is an IPv6 link-local address: another one on each link.
    #[must_use]
    pub fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

/// Why an address can't be a [`Vip`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAVip {
    /// The text is no IPv4 or IPv6 address.
    #[error("not an IPv4 or IPv6 address such as 192.0.2.10 or 2001:db8::10")]
    NotAnAddress,
    /// An address of which the prefix leaves nothing for a host.
    #[error("{0} is a whole subnet: a virtual IP is the address of one host in it")]
    Subnet(String),
    /// An address of a kind that no host of a link owns alone.
    #[error("{0} is {1}: a virtual IP is a unicast address that one host owns")]
    Kind(IpAddr, &'static str),
}

impl TryFrom<IpAddr> for Vip {
    type Error = NotAVip;

    fn try_from(ip: IpAddr) -> Result<Self, NotAVip> {
        let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        let kind = if ip.is_unspecified() {
            "the unspecified address"
        } else if ip.is_loopback() {
            "a loopback address"
        } else if ip.is_multicast() {
            "a multicast address"
        } else if broadcast {
            "the broadcast address"
        } else if mapped {
            "an IPv4-mapped IPv6 address (write it as IPv4)"
        } else {
            return Ok(Self(ip));
        };
        Err(NotAVip::Kind(ip, kind))
    }
}

impl FromStr for Vip {
    type Err = NotAVip;

    fn from_str(text: &str) -> Result<Self, NotAVip> {
        text.parse::<IpAddr>()
            .map_err(|_| NotAVip::NotAnAddress)?
            .try_into()
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Vip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A virtual IP as people write it: with a prefix length, as in keepalived.conf, which says nothing
/// of the address and is dropped, and with the zone of a link-local address (RFC 4007 §11), which is
/// the interface that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenVip {
    /// The address.
    pub vip: Vip,
    /// Its interface.
    pub zone: Option<String>,
}

impl FromStr for WrittenVip {
    type Err = NotAVip;

    fn from_str(text: &str) -> Result<Self, NotAVip> {
        let (text_of_address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let (address, zone) = match text_of_address.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (text_of_address, None),
        };
        let vip: Vip = address.parse()?;
        if zone.is_some_and(|zone| zone.is_empty() || vip.ip().is_ipv4()) {
            return Err(NotAVip::NotAnAddress);
        }
        if let Some(length) = length {
            let prefix: Prefix = format!("{address}/{length}")
                .parse()
                .map_err(|_| NotAVip::NotAnAddress)?;
            if prefix.is_subnet() {
                return Err(NotAVip::Subnet(text.to_owned()));
            }
        }
        Ok(Self {
            vip,
            zone: zone.map(str::to_owned),
        })
    }
}

/// A 48-bit hardware (link-layer) address, the only kind that Ethernet-like links have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// All hosts of the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeroes: "not known", as in the target hardware address of an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// The address from its six octets, in the order they are sent.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets, in the order they are sent.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether one host can have it: not a group address (RFC 7042 §2.1), not all zeroes.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// The address from a slice, if it has exactly six octets.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }
}

fn is_octet(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not the MAC of one host, such as 02:00:00:00:00:01";
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| is_octet(part)).ok_or(WRONG)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| WRONG)?;
        }
        let mac = Self(octets);
        (parts.next().is_none() && mac.is_unicast())
            .then_some(mac)
            .ok_or(WRONG)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The addresses that begin alike: a subnet, or with all bits, one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    ip: IpAddr,
    length: u8,
}

impl Prefix {
    /// The addresses whose first `length` bits are those of `ip`; more bits than it has are all.
    #[must_use]
    pub fn new(ip: IpAddr, length: u8) -> Self {
        let length = length.min(bits(ip));
        Self { ip, length }
    }

    /// One of its addresses.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Whether it is of one address only.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.length == bits(self.ip)
    }

    /// Whether it was written for all of its addresses: with nothing but zeroes behind the prefix,
    /// where it is longer than a link of two needs (RFC 3021, RFC 6164).
    fn is_subnet(self) -> bool {
        let free = u32::from(bits(self.ip) - self.length);
        let zeroes = match self.ip {
            IpAddr::V4(ip) => ip.to_bits().trailing_zeros(),
            IpAddr::V6(ip) => ip.to_bits().trailing_zeros(),
        };
        free > 1 && zeroes >= free
    }

    /// Whether an address begins so.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        let differing = match (self.ip, ip) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                u128::from(one.to_bits()) ^ u128::from(other.to_bits())
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        let free = u32::from(bits(self.ip) - self.length);
        // A shift by all 128 bits is out of range; then every address is contained.
        differing.checked_shr(free).unwrap_or(0) == 0
    }

    /// Its first address: of an IPv4 subnet that of the network itself.
    #[must_use]
    pub fn first(self) -> IpAddr {
        let free = u32::from(bits(self.ip) - self.length);
        match self.ip {
            IpAddr::V4(ip) => {
                let hosts = u32::MAX.checked_shr(32 - free).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & !hosts).into()
            }
            IpAddr::V6(ip) => {
                let hosts = u128::MAX.checked_shr(128 - free).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & !hosts).into()
            }
        }
    }

    /// The address of all its hosts, where it is of a link with more than two (RFC 3021).
    #[must_use]
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(ip) if self.length < 31 => {
                Some(Ipv4Addr::from_bits(ip.to_bits() | u32::MAX >> self.length))
            }
            _ => None,
        }
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not an address or a prefix such as 192.0.2.0/24: {text}");
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let length = match length {
            Some(length) => length.parse().map_err(|_| wrong())?,
            None => bits(ip),
        };
        (length <= bits(ip))
            .then(|| Self::new(ip, length))
            .ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The kernel's index of an interface: it stays the same when the interface is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceIndex(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_one_host_owns_are_vips() {
        for good in ["192.0.2.10", "10.24.69.222", "2001:db8::10", "fe80::1"] {
            let vip = good.parse::<Vip>().map(|vip| vip.to_string());
            assert_eq!(vip, Ok(good.to_owned()));
        }
        for bad in [
            "",
            "vip",
            "10.0.0.1/24",
            "10.0.0.256",
            "fe80::1%eth0",
            "224.0.0.18",
            "ff02::12",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "::ffff:10.0.0.1",
        ] {
            assert!(bad.parse::<Vip>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_vip_may_be_written_with_its_prefix_length_and_its_interface() {
        for (text, vip, zone) in [
            ("192.0.2.10", "192.0.2.10", None),
            ("192.0.2.10/24", "192.0.2.10", None),
            ("192.0.2.10/32", "192.0.2.10", None),
            ("192.0.2.0/31", "192.0.2.0", None),
            ("2001:db8::10/64", "2001:db8::10", None),
            ("fe80::10%eth0", "fe80::10", Some("eth0")),
            ("fe80::10%bond0.169/64", "fe80::10", Some("bond0.169")),
        ] {
            let written: WrittenVip = text.parse().unwrap();
            assert_eq!(written.vip.to_string(), vip, "{text}");
            assert_eq!(written.zone.as_deref(), zone, "{text}");
        }
        for bad in [
            "192.0.2.10/",
            "192.0.2.10/24x",
            "192.0.2.10/33",
            "192.0.2.10/-1",
            "192.0.2.10/24/24",
            "192.0.2.10%eth0",
            "fe80::10%",
            "fe80::10/129",
            "fe80::10/64%eth0",
            "ff02::1%eth0",
        ] {
            assert!(bad.parse::<WrittenVip>().is_err(), "{bad}");
        }
        for subnet in ["192.0.2.0/24", "10.0.0.0/30", "2001:db8::/64"] {
            let told = subnet.parse::<WrittenVip>().unwrap_err();
            assert_eq!(told, NotAVip::Subnet(subnet.to_owned()));
        }
    }

    #[test]
    fn a_prefix_contains_what_begins_alike() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        for (text, inside, outside) in [
            ("10.9.0.7/24", "10.9.0.255", "10.9.1.0"),
            ("10.9.0.7", "10.9.0.7", "10.9.0.6"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd09::/64", "fd09::ffff:0:0:1", "fd09:0:0:1::"),
            ("::/0", "ff02::1", "10.0.0.1"),
            ("fd09::1/128", "fd09::1", "fd09::2"),
        ] {
            assert!(prefix(text).contains(inside.parse().unwrap()), "{text}");
            assert!(!prefix(text).contains(outside.parse().unwrap()), "{text}");
        }
        let broadcast = |text| prefix(text).broadcast().map(|ip| ip.to_string());
        assert_eq!(broadcast("10.9.0.7/24").as_deref(), Some("10.9.0.255"));
        assert_eq!(broadcast("10.9.0.7/31"), None);
        assert_eq!(broadcast("fd09::/64"), None);
        for (text, first) in [
            ("10.9.0.7/24", "10.9.0.0"),
            ("10.9.0.7/0", "0.0.0.0"),
            ("10.9.0.7/32", "10.9.0.7"),
            ("fd09::7/64", "fd09::"),
            ("fd09::7/0", "::"),
        ] {
            assert_eq!(prefix(text).first().to_string(), first, "{text}");
        }
        for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_is_written_as_ip_link_writes_it() {
        let mac = Mac::new([0x38, 0x68, 0xdd, 0x4f, 0xe7, 0xe8]);
        assert_eq!(mac.to_string(), "38:68:dd:4f:e7:e8");
        assert_eq!(format!("{mac:?}"), "38:68:dd:4f:e7:e8");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "38:68:dd:4f:e7",
            "38:68:dd:4f:e7:e8:0",
            "+8:68:dd:4f:e7:e8",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(mac.is_unicast());
        assert!(!Mac::BROADCAST.is_unicast() && !Mac::ZERO.is_unicast());
        assert_eq!(Mac::from_slice(&[1, 2, 3]), None);
    }
}
