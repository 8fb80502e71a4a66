//! This host's own addresses on a claim's link: where questions come from.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Announcement;
use crate::address::{InterfaceIndex, Prefix, Vip};
use crate::host::{Address, Link, Usability, asking_address};

/// The sources of a claim's questions besides the VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// An own address on the interface, of the VIP's family and no VIP.
    pub(super) own: Option<IpAddr>,
    /// An own IPv6 link-local address, on the interface or on the one below.
    pub(super) link_local: Option<(InterfaceIndex, Ipv6Addr)>,
    /// The subnets of the link that the VIP is in.
    pub(super) subnets: Vec<Prefix>,
    /// An address of the VIP's subnet that no host has.
    pub(super) nobody: Option<Ipv4Addr>,
    /// A subnet of the VIP that is too large to ask every address.
    pub(super) too_large: Option<Prefix>,
    /// An own address in a subnet with the VIP, on the interface or on the one below.
    pub(super) in_subnet: Option<(InterfaceIndex, IpAddr)>,
}

/// This host's addresses, by interface.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses(BTreeMap<InterfaceIndex, OnLink>);

/// The addresses of an interface. Each of a thousand VIPs looks at them before its first frame.
#[derive(Debug, Default)]
struct OnLink {
    /// The subnets, and the addresses that are in them.
    subnets: BTreeMap<Prefix, BTreeSet<IpAddr>>,
    /// The addresses that are no VIPs.
    others: BTreeMap<(IpAddr, u8), Usability>,
}

impl OwnAddresses {
    pub(super) fn insert(&mut self, address: &Address, is_vip: bool) {
        let on = self.0.entry(address.interface).or_default();
        let prefix = Prefix::of(address).network();
        if !prefix.is_host() {
            on.subnets.entry(prefix).or_default().insert(address.ip);
        }
        if !is_vip {
            let key = (address.ip, address.prefix_len);
            on.others.insert(key, address.usability);
        }
    }

    pub(super) fn remove(&mut self, address: &Address) {
        let Some(on) = self.0.get_mut(&address.interface) else {
            return;
        };
        on.others.remove(&(address.ip, address.prefix_len));
        if let Entry::Occupied(mut subnet) = on.subnets.entry(Prefix::of(address).network()) {
            subnet.get_mut().remove(&address.ip);
            if subnet.get().is_empty() {
                subnet.remove();
            }
        }
    }

    pub(super) fn remove_all(&mut self, interface: InterfaceIndex) {
        self.0.remove(&interface);
    }

    /// Those that are no VIPs.
    pub(super) fn others(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let others = self.0.values().flat_map(|on| on.others.keys());
        others.map(|(ip, _)| *ip)
    }

    /// The usable addresses of an interface that are no VIPs.
    fn usable(&self, interface: InterfaceIndex) -> impl Iterator<Item = Address> + '_ {
        let others = self.0.get(&interface).into_iter().flat_map(|on| &on.others);
        let usable = others.filter(|(_, usability)| **usability == Usability::Usable);
        usable.map(move |((ip, prefix_len), usability)| Address {
            ip: *ip,
            interface,
            prefix_len: *prefix_len,
            usability: *usability,
        })
    }

    /// The sources for a VIP on a link.
    pub(super) fn sources(&self, vip: Vip, link: &Link) -> Sources {
        let near = || std::iter::once(link.index).chain(link.lower);
        let usable = || near().flat_map(|on| self.usable(on));
        let link_local = |own: Address| match own.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some((own.interface, ip)),
            _ => None,
        };
        let on = near().filter_map(|on| self.0.get(&on));
        let subnets = on.flat_map(|on| on.subnets.keys().copied());
        let subnets: Vec<_> = subnets.filter(|one| one.contains(vip.ip())).collect();
        let here: Vec<_> = self.usable(link.index).collect();
        Sources {
            own: asking_address(here.iter(), vip, |_| false),
            link_local: usable().find_map(link_local),
            nobody: subnets.iter().find_map(|subnet| subnet.broadcast()),
            too_large: subnets
                .iter()
                .copied()
                .find(|subnet| vip.ip().is_ipv4() && subnet.hosts().is_none()),
            in_subnet: usable()
                .filter(|own| !Prefix::of(own).is_host())
                .find(|own| Prefix::of(own).contains(vip.ip()))
                .map(|own| (own.interface, own.ip)),
            subnets,
        }
    }
}

impl Announcement {
    /// The IPv4 VIPs in subnets with more than [`Prefix::MOST_SWEPT`] addresses, and these subnets.
    pub fn too_large_to_sweep(&self) -> impl Iterator<Item = (Vip, Prefix)> + '_ {
        let claims = self.claims.iter();
        claims.filter_map(|claim| Some((claim.vip, claim.sources.too_large?)))
    }

    /// Finds the sources of the claims whose links have this interface.
    pub(super) fn find_sources(&mut self, interface: InterfaceIndex) {
        for claim in &mut self.claims {
            if claim.interface() == interface || claim.link.lower == Some(interface) {
                claim.sources = self.own.sources(claim.vip, &claim.link);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mac;
    use crate::ask::testing::address;

    #[test]
    fn a_subnet_lasts_as_long_as_any_address_is_in_it() {
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let link = Link::ethernet(2, "eth0", Mac::new([2, 0, 0, 0, 0, 1]));
        let in_subnet = |ip: &str| address(&format!("{ip}/24"), link.index);
        let mut own = OwnAddresses::default();
        // A VIP makes a subnet, but is no source.
        own.insert(&in_subnet("10.0.0.10"), true);
        own.insert(&in_subnet("10.0.0.1"), false);
        let sources = own.sources(vip, &link);
        assert_eq!(sources.own, Some([10, 0, 0, 1].into()));
        assert_eq!(
            (sources.subnets.len(), sources.nobody),
            (1, Some([10, 0, 0, 255].into()))
        );
        own.remove(&in_subnet("10.0.0.1"));
        let sources = own.sources(vip, &link);
        assert_eq!(
            (sources.own, sources.in_subnet, sources.subnets.len()),
            (None, None, 1)
        );
        own.remove(&in_subnet("10.0.0.10"));
        assert_eq!(own.sources(vip, &link), Sources::default());
    }
}
