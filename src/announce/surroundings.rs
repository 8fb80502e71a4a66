//! Who has to follow a VIP: its gateways, the peers that were named, and the kernel's neighbours.

use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;

use super::peer::{Control, Peer, Source};
use crate::address::{Mac, Vip};
use crate::kernel::{Address, Link, Neighbour, NeighbourState, Usability};

/// Who is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// The peers that were named, gateways, and every neighbour the kernel knows.
    #[default]
    All,
    /// The peers that were named, and gateways.
    Peers,
    /// Nobody.
    None,
}

/// What the kernel knows about one interface and whoever is on its link.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The interface.
    pub link: Link,
    /// The addresses that this host has there.
    pub addresses: Vec<Address>,
    /// The gateways of routes through it.
    pub gateways: Vec<IpAddr>,
    /// The neighbour entries.
    pub neighbours: Vec<Neighbour>,
}

impl Surroundings {
    /// An interface with nothing around it.
    #[must_use]
    pub fn of(link: Link) -> Self {
        Self {
            link,
            addresses: Vec::new(),
            gateways: Vec::new(),
            neighbours: Vec::new(),
        }
    }
}

/// The peers of `vip`, on an interface and on the one below it (of a VMAC or a VLAN), the most
/// important first.
///
/// `vips` are all the VIPs of the run: none of them is a peer, or this host's own address.
pub(super) fn peers(
    vip: Vip,
    vips: &[Vip],
    on: &Surroundings,
    below: Option<&Surroundings>,
    configured: &[IpAddr],
    confirm: Confirm,
) -> Vec<Peer> {
    if confirm == Confirm::None {
        return Vec::new();
    }
    let near = Near::new(vip, vips, on, below);
    let mut peers: Vec<Peer> = Vec::new();
    let mut add = |peer: Peer| {
        let known = peers.iter().any(|other| other.ip == peer.ip);
        if !known && near.can_be_peer(peer.ip) {
            peers.push(peer);
        }
    };
    for ip in configured {
        let onlink = near.leads_to(*ip);
        add(near.peer(*ip, Source::Configured, onlink, onlink));
    }
    for gateway in &on.gateways {
        // A gateway in another subnet of the link need not reach the VIP through it.
        add(near.peer(
            *gateway,
            Source::Gateway,
            true,
            near.shares_subnet(*gateway),
        ));
    }
    for gateway in below.iter().flat_map(|below| &below.gateways) {
        // Below a VLAN there is another link; only a shared subnet tells that it is the VIP's.
        if near.shares_subnet(*gateway) {
            add(near.peer(*gateway, Source::Gateway, true, true));
        }
    }
    if confirm == Confirm::All {
        for neighbour in near.neighbours().filter(|neighbour| is_live(neighbour)) {
            if near.shares_subnet(neighbour.ip) && !near.has_better_address(neighbour) {
                add(near.peer(neighbour.ip, Source::Learned, true, false));
            }
        }
    }
    peers.sort_by_key(|peer| !peer.required);
    peers
}

/// Whether an entry tells of a host that there is.
fn is_live(neighbour: &Neighbour) -> bool {
    neighbour.mac.is_some_and(Mac::is_unicast)
        && !matches!(
            neighbour.state,
            NeighbourState::Noarp | NeighbourState::Failed | NeighbourState::Incomplete
        )
}

/// What lies around one VIP.
struct Near<'a> {
    vip: Vip,
    vips: &'a [Vip],
    on: &'a Surroundings,
    below: Option<&'a Surroundings>,
    /// The subnets of the link that the VIP is in.
    subnets: Vec<Address>,
}

impl<'a> Near<'a> {
    fn new(
        vip: Vip,
        vips: &'a [Vip],
        on: &'a Surroundings,
        below: Option<&'a Surroundings>,
    ) -> Self {
        let mut near = Self {
            vip,
            vips,
            on,
            below,
            subnets: Vec::new(),
        };
        near.subnets = near
            .addresses()
            .filter(|address| !is_host_prefix(address) && contains(address, vip.ip()))
            .copied()
            .collect();
        near
    }

    fn both(&self) -> impl Iterator<Item = &'a Surroundings> {
        std::iter::once(self.on).chain(self.below)
    }

    fn addresses(&self) -> impl Iterator<Item = &'a Address> {
        self.both().flat_map(|surroundings| &surroundings.addresses)
    }

    fn neighbours(&self) -> impl Iterator<Item = &'a Neighbour> {
        self.both()
            .flat_map(|surroundings| &surroundings.neighbours)
    }

    /// Of the VIP's family, and neither a VIP nor this host.
    fn can_be_peer(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.vip.ip().is_ipv4()
            && !self.vips.iter().any(|vip| vip.ip() == ip)
            && !self.addresses().any(|own| own.ip == ip)
    }

    /// Whether the peer reaches the VIP on the link, as far as this host can tell: both are in
    /// one of its subnets. Where the VIP is in none, everyone on the VIP's own link may.
    fn shares_subnet(&self, ip: IpAddr) -> bool {
        is_link_local_v6(ip)
            || self.subnets.iter().any(|subnet| contains(subnet, ip))
            || (self.subnets.is_empty() && self.on.neighbours.iter().any(|known| known.ip == ip))
    }

    fn leads_to(&self, ip: IpAddr) -> bool {
        self.shares_subnet(ip)
            || self
                .addresses()
                .any(|address| !is_host_prefix(address) && contains(address, ip))
    }

    /// Whether a host that has a link-local entry has another one, too: it is asked once.
    fn has_better_address(&self, neighbour: &Neighbour) -> bool {
        is_link_local_v6(neighbour.ip)
            && !is_link_local_v6(self.vip.ip())
            && self.neighbours().any(|other| {
                other.mac == neighbour.mac
                    && other.ip.is_ipv6()
                    && !is_link_local_v6(other.ip)
                    && self.shares_subnet(other.ip)
            })
    }

    fn peer(&self, ip: IpAddr, source: Source, onlink: bool, required: bool) -> Peer {
        let entry = self
            .neighbours()
            .find(|neighbour| neighbour.ip == ip && is_live(neighbour));
        Peer {
            ip,
            mac: entry.and_then(|entry| entry.mac),
            source,
            required,
            onlink,
            control: self.control(ip),
        }
    }

    /// An own address that shares a subnet with both the peer and the VIP: only there does a
    /// missing answer to the VIP, beside one to the control, mean a wrong entry.
    fn control(&self, peer: IpAddr) -> Option<Control> {
        let own = |surroundings: &Surroundings| {
            let mac = surroundings.link.mac?;
            surroundings
                .addresses
                .iter()
                .filter(|own| own.ip.is_ipv4() == peer.is_ipv4())
                .filter(|own| own.usability == Usability::Usable && !is_host_prefix(own))
                .filter(|own| !self.vips.iter().any(|vip| vip.ip() == own.ip))
                .find(|own| contains(own, peer))
                .map(|own| Control {
                    ip: own.ip,
                    interface: own.interface,
                    mac,
                })
        };
        if !self.shares_subnet(peer) || self.subnets.is_empty() {
            return None;
        }
        self.both().find_map(own)
    }
}

/// An IPv6 address of this host from which others can be asked about the VIP.
pub(super) fn asking_address(vips: &[Vip], on: &Surroundings) -> Option<Ipv6Addr> {
    on.addresses
        .iter()
        .filter(|own| own.usability == Usability::Usable)
        .filter(|own| !vips.iter().any(|vip| vip.ip() == own.ip))
        .find_map(|own| match own.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        })
}

fn is_host_prefix(address: &Address) -> bool {
    address.prefix_len == if address.ip.is_ipv4() { 32 } else { 128 }
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Whether the subnet of an interface's address contains `ip`.
fn contains(subnet: &Address, ip: IpAddr) -> bool {
    let (network, host, bits) = match (subnet.ip, ip) {
        (IpAddr::V4(network), IpAddr::V4(host)) => (
            u128::from(network.to_bits()),
            u128::from(host.to_bits()),
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(host)) => (network.to_bits(), host.to_bits(), 128),
        _ => return false,
    };
    let shift = bits - subnet.prefix_len.min(bits);
    // A shift by all 128 bits is out of range; then every address is contained.
    let differing = (network ^ host).checked_shr(shift.into()).unwrap_or(0);
    differing == 0
}
