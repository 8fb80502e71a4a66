//! This host's own addresses on a claim's link: where questions come from.

use std::collections::{BTreeMap, BTreeSet};
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
pub(super) struct OwnAddresses(BTreeMap<InterfaceIndex, BTreeMap<(IpAddr, u8), Usability>>);

impl OwnAddresses {
    pub(super) fn insert(&mut self, address: &Address) {
        let on = self.0.entry(address.interface).or_default();
        on.insert((address.ip, address.prefix_len), address.usability);
    }

    pub(super) fn remove(&mut self, address: &Address) {
        if let Some(on) = self.0.get_mut(&address.interface) {
            on.remove(&(address.ip, address.prefix_len));
        }
    }

    pub(super) fn remove_all(&mut self, interface: InterfaceIndex) {
        self.0.remove(&interface);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn on(&self, interface: InterfaceIndex) -> impl Iterator<Item = Address> + '_ {
        let on = self.0.get(&interface).into_iter().flatten();
        on.map(move |((ip, prefix_len), usability)| Address {
            ip: *ip,
            interface,
            prefix_len: *prefix_len,
            usability: *usability,
        })
    }

    /// The sources for a VIP on a link. None of the `vips` is one.
    pub(super) fn sources(&self, vip: Vip, link: &Link, vips: &BTreeSet<IpAddr>) -> Sources {
        let near = || {
            std::iter::once(link.index)
                .chain(link.lower)
                .flat_map(|on| self.on(on))
        };
        let is_free = |own: &Address| own.usability == Usability::Usable && !vips.contains(&own.ip);
        let link_local = |own: Address| match own.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() && is_free(&own) => {
                Some((own.interface, ip))
            }
            _ => None,
        };
        let subnets = near().map(|own| Prefix::of(&own));
        let subnets = subnets.filter(|subnet| !subnet.is_host() && subnet.contains(vip.ip()));
        let subnets: Vec<_> = subnets.collect();
        let here: Vec<_> = self.on(link.index).filter(is_free).collect();
        let own = asking_address(here.iter(), vip, |_| false);
        Sources {
            own,
            link_local: near().find_map(link_local),
            nobody: subnets.iter().find_map(|subnet| subnet.broadcast()),
            too_large: subnets
                .iter()
                .copied()
                .find(|subnet| vip.ip().is_ipv4() && subnet.hosts().is_none()),
            in_subnet: near()
                .filter(|own| is_free(own) && !Prefix::of(own).is_host())
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
                claim.sources = self.own.sources(claim.vip, &claim.link, &self.vip_ips);
            }
        }
    }
}
