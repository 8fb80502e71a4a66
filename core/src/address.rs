//! Addresses as types that can't be confused: virtual IP, MAC, prefix, interface index.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A virtual IP: a unicast address that one host of a link owns at a time.
///
/// The type excludes multicast, loopback, unspecified, limited broadcast and IPv4-mapped IPv6
/// addresses, so that no frame can ever announce one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Vip(IpAddr);

impl Vip {
    /// The address itself.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Whether it is an IPv6 link-local address, which names a different host on each link.
    #[must_use]
    pub fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

/// Why text or an address is not a [`Vip`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAVip {
    /// The text is not an IPv4 or IPv6 address.
    #[error("not an IPv4 or IPv6 address such as 192.0.2.10 or 2001:db8::10")]
    NotAnAddress,
    /// All bits after the prefix are zero.
    #[error("{0} is a whole subnet: a virtual IP is the address of one host in it")]
    Subnet(String),
    /// No single host can own an address of this kind.
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

/// A virtual IP as people write it: `ADDRESS[%ZONE][/LENGTH]`.
///
/// The prefix length, as in keepalived.conf, is checked and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenVip {
    /// The address.
    pub vip: Vip,
    /// The zone of a link-local address (RFC 4007 §11): the name of its interface.
    pub zone: Option<String>,
}

impl FromStr for WrittenVip {
    type Err = NotAVip;

    fn from_str(text: &str) -> Result<Self, NotAVip> {
        let (address, length) = split_optional(text, '/');
        let (address, zone) = split_optional(address, '%');
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

/// The text before a separator, and what follows the separator if there is one.
fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The 48-bit hardware (link-layer) address of an Ethernet-like interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// All hosts of the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeroes: unknown, as in the target hardware address of an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// The address from its six octets, in transmission order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets, in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether one host can own it: neither a group address (RFC 7042 §2.1) nor all zeroes.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether a host or a cluster can answer with it: clusters with network load balancing use group
    /// addresses.
    #[must_use]
    pub const fn can_own(self) -> bool {
        !matches!(self.0, [0, 0, 0, 0, 0, 0] | [255, 255, 255, 255, 255, 255])
    }

    /// The address from a slice of exactly six octets.
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

/// A network prefix: a subnet, or at full length a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    ip: IpAddr,
    length: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.length)
    }
}

impl Prefix {
    /// The most addresses to ask one by one: a /22.
    pub const MOST_SWEPT: usize = 1_024;

    /// The prefix of `length` bits, at most all, that contains `ip`.
    #[must_use]
    pub fn new(ip: IpAddr, length: u8) -> Self {
        let length = length.min(full_length(ip));
        Self { ip, length }
    }

    /// The address that the prefix was made from.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Whether it contains only one address.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.length == full_length(self.ip)
    }

    fn host_bits(self) -> u32 {
        u32::from(full_length(self.ip) - self.length)
    }

    /// Whether all host bits are zero. /31 and /127 are point-to-point links without such a network
    /// address (RFC 3021, RFC 6164).
    fn is_subnet(self) -> bool {
        self.host_bits() > 1 && to_bits(self.ip).trailing_zeros() >= self.host_bits()
    }

    /// Whether an address has this prefix.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        let differing = to_bits(self.ip) ^ to_bits(ip);
        // Shifting by all 128 bits is out of range: ::/0 contains every IPv6 address.
        self.ip.is_ipv4() == ip.is_ipv4()
            && differing.checked_shr(self.host_bits()).unwrap_or(0) == 0
    }

    /// Its first address; in IPv4 the network address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                let hosts = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & !hosts).into()
            }
            IpAddr::V6(ip) => {
                let hosts = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & !hosts).into()
            }
        }
    }

    /// The same, made from its first address: equal for all of its addresses.
    pub(crate) fn network(self) -> Self {
        Self::new(self.first(), self.length)
    }

    /// The addresses of its hosts, in IPv4 and for at most [`Prefix::MOST_SWEPT`]; else `None`.
    pub(crate) fn hosts(self) -> Option<impl Iterator<Item = Ipv4Addr>> {
        let (IpAddr::V4(first), Some(last)) = (self.first(), self.broadcast()) else {
            return None;
        };
        let hosts = first.to_bits() + 1..last.to_bits();
        (hosts.len() <= Self::MOST_SWEPT).then(|| hosts.map(Ipv4Addr::from_bits))
    }

    /// Its directed broadcast address. IPv6, /31 (RFC 3021) and /32 have none.
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

/// The prefix length of a single address.
pub(crate) const fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not an address or a prefix such as 192.0.2.0/24: {text}");
        let (ip, length) = split_optional(text, '/');
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let length = match length {
            Some(length) => length.parse().map_err(|_| wrong())?,
            None => full_length(ip),
        };
        (length <= full_length(ip))
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

/// The kernel's index of an interface. Renaming the interface does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceIndex(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_an_address_that_one_host_owns() {
        for good in ["192.0.2.10", "10.24.69.222", "2001:db8::10", "fe80::1"] {
            let vip = good.parse::<Vip>().map(|vip| vip.to_string());
            assert_eq!(vip, Ok(good.to_owned()));
        }
        let malformed = "vip 10.0.0.1/24 10.0.0.256 fe80::1%eth0";
        let of_other_kinds = "224.0.0.18 ff02::12 127.0.0.1 ::1 0.0.0.0 :: 255.255.255.255 \
                              ::ffff:10.0.0.1";
        for bad in malformed
            .split(' ')
            .chain(of_other_kinds.split(' '))
            .chain([""])
        {
            assert!(bad.parse::<Vip>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_vip_may_be_written_with_prefix_length_and_zone() {
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
        let bad_lengths = "192.0.2.10/ 192.0.2.10/24x 192.0.2.10/33 192.0.2.10/-1 192.0.2.10/24/24 \
                           fe80::10/129";
        let bad_zones = "192.0.2.10%eth0 fe80::10% fe80::10/64%eth0 ff02::1%eth0";
        for bad in bad_lengths.split(' ').chain(bad_zones.split(' ')) {
            assert!(bad.parse::<WrittenVip>().is_err(), "{bad}");
        }
        for subnet in ["192.0.2.0/24", "10.0.0.0/30", "2001:db8::/64"] {
            let error = subnet.parse::<WrittenVip>().unwrap_err();
            assert_eq!(error, NotAVip::Subnet(subnet.to_owned()));
        }
    }

    #[test]
    fn a_prefix_contains_its_addresses_and_no_others() {
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
        let bad = "38:68:dd:4f:e7 38:68:dd:4f:e7:e8:0 +8:68:dd:4f:e7:e8 ff:ff:ff:ff:ff:ff";
        for bad in bad.split(' ').chain([""]) {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(mac.is_unicast());
        assert!(!Mac::BROADCAST.is_unicast() && !Mac::ZERO.is_unicast());
        assert_eq!(Mac::from_slice(&[1, 2, 3]), None);
    }
}
