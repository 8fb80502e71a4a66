//! Which host holds a VIP: the one rule that every command uses.
//!
//! This host holds a VIP that it has on an interface that is up and whose neighbours use ARP or ND.
//! In LVS every real server has the VIP on `lo`, and kube-proxy puts it on a dummy interface of
//! every node: those hosts do not hold it. If keepalived.conf names the interface of a VIP, the
//! same address on another interface has nothing to do with keepalived.

mod tables;

pub use tables::{Address, Link, Neighbour, NeighbourState, Route, Usability};

use std::collections::HashSet;
use std::net::IpAddr;

use crate::address::{InterfaceIndex, Mac, Prefix, Vip};

/// The interfaces where a VIP counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Every interface whose neighbours use ARP or ND.
    Anywhere,
    /// The interface of this name.
    On(String),
    /// The macvlan (VMAC) or ipvlan interface that keepalived creates. If its name is taken,
    /// keepalived chooses another one; then the interface below identifies it.
    Vmac {
        /// The name that keepalived chooses first.
        name: String,
        /// The interface below it.
        above: String,
    },
}

/// A VIP, and where it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlacedVip {
    /// The virtual IP.
    pub vip: Vip,
    /// Where it counts.
    pub place: Place,
}

impl PlacedVip {
    /// A VIP that counts on every interface.
    #[must_use]
    pub fn anywhere(vip: Vip) -> Self {
        Self {
            vip,
            place: Place::Anywhere,
        }
    }

    /// The same VIP, only on the interface of this name, if one is given.
    #[must_use]
    pub fn only_on(self, interface: Option<&str>) -> Self {
        let place = interface.map_or(self.place, |name| Place::On(name.to_owned()));
        Self { place, ..self }
    }

    /// Whether this host holds the VIP if `link` has it: the VIP counts there, and neighbours can
    /// ask for it. `lower` is the interface below `link`.
    #[must_use]
    pub fn is_held_on(&self, link: &Link, lower: Option<&Link>) -> bool {
        self.place.admits(link, lower) && link.is_askable()
    }
}

impl Place {
    /// Whether a VIP counts on `link`. `lower` is the interface below `link`.
    #[must_use]
    pub fn admits(&self, link: &Link, lower: Option<&Link>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::On(name) => link.name == *name,
            Self::Vmac { name, above } => {
                link.name == *name || lower.is_some_and(|lower| lower.name == *above)
            }
        }
    }

    /// Whether `link` is on the network of this place: [admitted](Self::admits), or below a VMAC.
    #[must_use]
    pub fn is_link(&self, link: &Link, lower: Option<&Link>) -> bool {
        let is_below = matches!(self, Self::Vmac { above, .. } if link.name == *above);
        is_below || self.admits(link, lower)
    }

    /// The interface's name; `None` for [`Place::Anywhere`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anywhere => None,
            Self::On(name) | Self::Vmac { name, .. } => Some(name),
        }
    }
}

/// This host's interfaces and addresses at one moment.
#[derive(Clone, Debug, Default)]
pub struct HostSnapshot {
    /// The interfaces.
    pub links: Vec<Link>,
    /// The addresses.
    pub addresses: Vec<Address>,
}

impl HostSnapshot {
    /// The interface with this index.
    #[must_use]
    pub fn link(&self, index: InterfaceIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The interface of this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interfaces that have a VIP and where it counts, each once, even if neighbours can't ask
    /// for it there.
    #[must_use]
    pub fn places_of(&self, placed: &PlacedVip) -> Vec<&Link> {
        let mut places: Vec<&Link> = Vec::new();
        let having = self.addresses.iter();
        let having = having.filter(|own| own.ip == placed.vip.ip());
        for link in having.filter_map(|own| self.link(own.interface)) {
            if !places.contains(&link) && placed.place.admits(link, self.lower(link)) {
                places.push(link);
            }
        }
        places
    }

    /// The interfaces on which this host holds a VIP.
    #[must_use]
    pub fn holders(&self, placed: &PlacedVip) -> Vec<&Link> {
        let mut places = self.places_of(placed);
        places.retain(|link| link.is_askable());
        places
    }

    /// The address on an interface from which this host can ask others about a VIP: usable, of the
    /// same family and no VIP, one of the VIP's subnet if there is one.
    #[must_use]
    pub fn asking_address(
        &self,
        interface: InterfaceIndex,
        vip: Vip,
        vips: &HashSet<IpAddr>,
    ) -> Option<IpAddr> {
        let there = self
            .addresses
            .iter()
            .filter(|own| own.interface == interface);
        asking_address(there, vip, |ip| vips.contains(&ip))
    }

    /// The MACs of this host's interfaces.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + '_ {
        self.links.iter().filter_map(|link| link.mac)
    }

    /// The interface below another one.
    #[must_use]
    pub fn lower(&self, link: &Link) -> Option<&Link> {
        self.link(link.lower?)
    }
}

/// The same of some addresses.
pub(crate) fn asking_address<'a>(
    addresses: impl Iterator<Item = &'a Address>,
    vip: Vip,
    is_vip: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let fit = addresses.filter(|own| {
        let same_family = own.ip.is_ipv4() == vip.ip().is_ipv4();
        same_family && own.usability == Usability::Usable && !is_vip(own.ip)
    });
    fit.min_by_key(|own| !Prefix::of(own).contains(vip.ip()))
        .map(|own| own.ip)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link::ethernet(index, name, Mac::new([2, 0, 0, 0, 0, 1]))
    }

    fn host(links: Vec<Link>, on: &[u32]) -> HostSnapshot {
        let address = |index: &u32| Address {
            ip: [10, 0, 0, 10].into(),
            interface: InterfaceIndex(*index),
            prefix_len: 32,
            usability: Usability::Usable,
        };
        HostSnapshot {
            links,
            addresses: on.iter().map(address).collect(),
        }
    }

    fn holders(host: &HostSnapshot, place: Place) -> Vec<String> {
        let vip = "10.0.0.10".parse().unwrap();
        let placed = PlacedVip { vip, place };
        let holders = host.holders(&placed).into_iter();
        holders.map(|link| link.name.clone()).collect()
    }

    #[test]
    fn a_host_does_not_hold_a_vip_on_lo_or_on_an_interface_that_is_down() {
        let mut lo = link(1, "lo");
        lo.unlike_ethernet = Some("is a loopback interface");
        let mut down = link(3, "eth1");
        (down.up, down.carrier) = (false, false);
        let host = host(vec![lo, link(2, "eth0"), down], &[1, 2, 2, 3]);
        assert_eq!(holders(&host, Place::Anywhere), ["eth0"]);
        assert_eq!(holders(&host, Place::On("eth1".to_owned())), [""; 0]);
        let placed = PlacedVip::anywhere("10.0.0.10".parse().unwrap());
        assert_eq!(host.places_of(&placed).len(), 3);
    }

    #[test]
    fn a_vip_counts_where_keepalived_puts_it() {
        let mut vmac = link(4, "vrrp1.51");
        vmac.lower = Some(InterfaceIndex(2));
        let host = host(vec![link(2, "eth0"), link(3, "eth1"), vmac], &[3, 4]);
        assert_eq!(holders(&host, Place::On("eth0".to_owned())), [""; 0]);
        assert_eq!(holders(&host, Place::On("eth1".to_owned())), ["eth1"]);
        let expected = |above: &str| Place::Vmac {
            name: "vrrp.51".to_owned(),
            above: above.to_owned(),
        };
        assert_eq!(holders(&host, expected("eth0")), ["vrrp1.51"]);
        assert_eq!(holders(&host, expected("eth1")), [""; 0]);
    }
}
