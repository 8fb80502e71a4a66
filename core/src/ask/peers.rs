//! Who has to follow a VIP: its gateways, the peers that were named, and the kernel's neighbours.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::Confirm;
use super::confirmation::{Control, Peer, Source};
use crate::address::{Mac, Prefix, Vip};
use crate::host::{Address, Link, Neighbour, NeighbourState, Usability};

/// Neighbours that are asked for one VIP on one link.
pub const MOST_HOSTS: usize = 8_192;
/// Neighbours that are asked in one run, over all its VIPs. What is known of one takes some 200
/// octets.
pub const MOST_PAIRS: usize = 65_536;

/// What the kernel knows about one interface and whoever is on its link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// The interface.
    pub link: Link,
    /// The addresses that this host has there.
    pub addresses: Vec<Address>,
    /// The gateways of routes through it.
    pub gateways: Vec<IpAddr>,
    /// The neighbour entries.
    pub neighbours: Vec<Neighbour>,
}

impl LinkView {
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

/// Whether an entry tells of a host that there is.
fn is_live(neighbour: &Neighbour) -> bool {
    neighbour.mac.is_some_and(Mac::is_unicast)
        && !matches!(
            neighbour.state,
            NeighbourState::Noarp | NeighbourState::Failed | NeighbourState::Incomplete
        )
}

/// What lies around one VIP, on its interface and on the one below it (of a VMAC or a VLAN).
pub(crate) struct PeerFinder<'a> {
    vip: Vip,
    /// All the VIPs of the run: none of them is a peer, or this host's own address.
    vips: &'a HashSet<IpAddr>,
    /// The addresses of this host.
    own: &'a HashSet<IpAddr>,
    on: &'a LinkView,
    below: Option<&'a LinkView>,
    /// The subnets of the link that the VIP is in.
    subnets: Vec<Address>,
    /// The live neighbours, by address: tables have tens of thousands.
    live: HashMap<IpAddr, &'a Neighbour>,
    /// The addresses of all neighbours on the VIP's own link.
    on_link: HashSet<IpAddr>,
    /// The MACs of neighbours with an address in those subnets that is no link-local one.
    better_known: HashSet<Option<Mac>>,
}

impl<'a> PeerFinder<'a> {
    pub(crate) fn new(
        vip: Vip,
        vips: &'a HashSet<IpAddr>,
        own: &'a HashSet<IpAddr>,
        on: &'a LinkView,
        below: Option<&'a LinkView>,
    ) -> Self {
        let mut near = Self {
            vip,
            vips,
            own,
            on,
            below,
            subnets: Vec::new(),
            live: HashMap::new(),
            on_link: on.neighbours.iter().map(|known| known.ip).collect(),
            better_known: HashSet::new(),
        };
        near.subnets = near
            .addresses()
            .filter(|address| !is_host_prefix(address) && contains(address, vip.ip()))
            .copied()
            .collect();
        let mut live = HashMap::new();
        for neighbour in near.neighbours().filter(|neighbour| is_live(neighbour)) {
            live.entry(neighbour.ip).or_insert(neighbour);
        }
        near.live = live;
        near.better_known = near
            .neighbours()
            .filter(|other| other.ip.is_ipv6() && !is_link_local_v6(other.ip))
            .filter(|other| near.shares_subnet(other.ip))
            .map(|other| other.mac)
            .collect();
        near
    }

    /// The peers, the most important first: those that were named, the gateways, and the kernel's
    /// neighbours. Of the neighbours at most `most`, those that the kernel uses or has just confirmed
    /// before the others; also how many were left out.
    pub(crate) fn peers(
        &self,
        configured: &[IpAddr],
        confirm: Confirm,
        most: usize,
    ) -> (Vec<Peer>, usize) {
        if confirm == Confirm::None {
            return (Vec::new(), 0);
        }
        let mut peers: Vec<Peer> = Vec::new();
        let mut known = HashSet::new();
        let mut add = |peer: Peer| {
            if self.can_be_peer(peer.ip) && known.insert(peer.ip) {
                peers.push(peer);
            }
        };
        for ip in configured {
            let onlink = self.leads_to(*ip);
            add(self.peer(*ip, Source::Configured, onlink, onlink));
        }
        for gateway in &self.on.gateways {
            // A gateway in another subnet of the link need not reach the VIP through it.
            let required = self.shares_subnet(*gateway);
            add(self.peer(*gateway, Source::Gateway, true, required));
        }
        for gateway in self.below.iter().flat_map(|below| &below.gateways) {
            // Below a VLAN there is another link; only a shared subnet tells that it is the VIP's.
            if self.shares_subnet(*gateway) {
                add(self.peer(*gateway, Source::Gateway, true, true));
            }
        }
        let mut left_out = 0;
        if confirm == Confirm::All {
            let is_peer = |one: &&Neighbour| {
                is_live(one) && self.shares_subnet(one.ip) && !self.has_better_address(one)
            };
            let mut neighbours: Vec<_> = self.neighbours().filter(is_peer).collect();
            if neighbours.len() > most {
                neighbours.sort_by_key(|one| one.state == NeighbourState::Stale);
                left_out = neighbours.len() - most;
                neighbours.truncate(most);
            }
            for neighbour in neighbours {
                add(self.peer(neighbour.ip, Source::Learned, true, false));
            }
        }
        peers.sort_by_key(|peer| !peer.required);
        (peers, left_out)
    }

    fn both(&self) -> impl Iterator<Item = &'a LinkView> {
        std::iter::once(self.on).chain(self.below)
    }

    fn addresses(&self) -> impl Iterator<Item = &'a Address> {
        self.both().flat_map(|views| &views.addresses)
    }

    fn neighbours(&self) -> impl Iterator<Item = &'a Neighbour> {
        self.both().flat_map(|views| &views.neighbours)
    }

    /// Of the VIP's family, and neither a VIP nor this host, whichever interface has the address. On
    /// another link the same link-local address is another host's.
    fn can_be_peer(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.vip.ip().is_ipv4()
            && !self.vips.contains(&ip)
            && (is_link_local_v6(ip) || !self.own.contains(&ip))
            && !self.addresses().any(|own| own.ip == ip)
    }

    /// Whether the peer reaches the VIP on the link, as far as this host can tell: both are in
    /// one of its subnets. Where the VIP is in none, everyone on the VIP's own link may.
    fn shares_subnet(&self, ip: IpAddr) -> bool {
        is_link_local_v6(ip)
            || self.subnets.iter().any(|subnet| contains(subnet, ip))
            || (self.subnets.is_empty() && self.on_link.contains(&ip))
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
            && self.better_known.contains(&neighbour.mac)
    }

    fn peer(&self, ip: IpAddr, source: Source, onlink: bool, required: bool) -> Peer {
        Peer {
            ip,
            mac: self.live.get(&ip).and_then(|entry| entry.mac),
            source,
            required,
            onlink,
            control: self.control(ip),
        }
    }

    /// An own address to ask the peer from, beside the VIP.
    fn control(&self, peer: IpAddr) -> Option<Control> {
        let own = |views: &LinkView| {
            let mac = views.link.mac?;
            views
                .addresses
                .iter()
                .filter(|own| own.ip.is_ipv4() == peer.is_ipv4())
                .filter(|own| own.usability == Usability::Usable && !is_host_prefix(own))
                .filter(|own| contains(own, peer))
                .find(|own| !self.vips.contains(&own.ip))
                .map(|own| Control {
                    ip: own.ip,
                    interface: own.interface,
                    mac,
                    in_vips_subnet: self.shares_subnet(peer) && !self.subnets.is_empty(),
                })
        };
        self.both().find_map(own)
    }
}

fn is_host_prefix(address: &Address) -> bool {
    Prefix::of(address).is_host()
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Whether the subnet of an interface's address contains `ip`.
fn contains(subnet: &Address, ip: IpAddr) -> bool {
    Prefix::of(subnet).contains(ip)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::address::InterfaceIndex;
    use crate::host::asking_address;

    const ETH: InterfaceIndex = InterfaceIndex(2);
    const ABOVE: InterfaceIndex = InterfaceIndex(3);

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    fn around(index: InterfaceIndex, addresses: &[&str], neighbours: &[&str]) -> LinkView {
        let own = mac(u8::try_from(index.0).unwrap());
        let mut around = LinkView::of(Link {
            lower: (index == ABOVE).then_some(ETH),
            ..Link::ethernet(index.0, &format!("if{}", index.0), own)
        });
        around.addresses = addresses
            .iter()
            .map(|text| {
                let (ip, prefix_len) = text.split_once('/').unwrap();
                Address {
                    ip: ip.parse().unwrap(),
                    interface: index,
                    prefix_len: prefix_len.parse().unwrap(),
                    usability: Usability::Usable,
                }
            })
            .collect();
        around.neighbours = neighbours
            .iter()
            .zip(0x10..)
            .map(|(ip, last)| Neighbour {
                ip: ip.parse().unwrap(),
                mac: Some(mac(last)),
                state: NeighbourState::Stale,
                externally_learned: false,
            })
            .collect();
        around
    }

    fn peers_of(
        vip: &str,
        on: &LinkView,
        below: Option<&LinkView>,
        configured: &[&str],
    ) -> Vec<Peer> {
        let vip: Vip = vip.parse().unwrap();
        let configured: Vec<_> = configured.iter().map(|ip| ip.parse().unwrap()).collect();
        PeerFinder::new(vip, &set(&[vip]), &HashSet::new(), on, below)
            .peers(&configured, Confirm::All, usize::MAX)
            .0
    }

    fn set(vips: &[Vip]) -> HashSet<IpAddr> {
        vips.iter().map(|vip| vip.ip()).collect()
    }

    fn who(peers: &[Peer]) -> Vec<(String, Source, bool)> {
        peers
            .iter()
            .map(|peer| (peer.ip.to_string(), peer.source, peer.required))
            .collect()
    }

    fn is(ip: &str, source: Source, required: bool) -> (String, Source, bool) {
        (ip.to_owned(), source, required)
    }

    #[test]
    fn named_peers_and_gateways_have_to_follow_and_come_first() {
        let mut on = around(
            ETH,
            &["10.0.0.1/24", "10.0.0.10/32"],
            &["10.0.0.5", "10.0.0.7", "10.0.0.254"],
        );
        on.gateways = vec![[10, 0, 0, 254].into()];
        assert_eq!(
            who(&peers_of("10.0.0.10", &on, None, &["10.0.0.7"])),
            [
                is("10.0.0.7", Source::Configured, true),
                is("10.0.0.254", Source::Gateway, true),
                is("10.0.0.5", Source::Learned, false),
            ]
        );
    }

    #[test]
    fn this_host_and_the_vips_are_no_peers() {
        let on = around(
            ETH,
            &["10.0.0.1/24"],
            &["10.0.0.1", "10.0.0.10", "10.0.0.11"],
        );
        let vips = ["10.0.0.10", "10.0.0.11"].map(|vip| vip.parse().unwrap());
        assert_eq!(
            PeerFinder::new(vips[0], &set(&vips), &HashSet::new(), &on, None)
                .peers(&[], Confirm::All, usize::MAX)
                .0,
            []
        );
    }

    #[test]
    fn neighbours_that_are_gone_or_of_another_subnet_or_family_are_no_peers() {
        let mut on = around(
            ETH,
            &["10.0.0.1/24", "10.1.0.1/24", "fd00::1/64"],
            &["10.0.0.5", "10.0.0.6", "10.1.0.5", "fd00::5"],
        );
        on.neighbours[1].state = NeighbourState::Failed;
        assert_eq!(
            who(&peers_of("10.0.0.10", &on, None, &[])),
            [is("10.0.0.5", Source::Learned, false)]
        );
    }

    #[test]
    fn confirm_says_who_is_asked() {
        let mut on = around(ETH, &["10.0.0.1/24"], &["10.0.0.5"]);
        on.gateways = vec![[10, 0, 0, 254].into()];
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let (vips, own) = (set(&[vip]), HashSet::new());
        let near = PeerFinder::new(vip, &vips, &own, &on, None);
        let count = |confirm| near.peers(&[], confirm, usize::MAX).0.len();
        assert_eq!(
            [Confirm::All, Confirm::Peers, Confirm::None].map(count),
            [2, 1, 0]
        );
    }

    #[test]
    fn a_named_peer_that_the_link_does_not_lead_to_is_offlink_and_not_required() {
        let on = around(ETH, &["10.0.0.1/24"], &[]);
        let peers = peers_of("10.0.0.10", &on, None, &["192.0.2.1", "10.0.0.5"]);
        let peer = peers.iter().find(|peer| !peer.onlink).unwrap();
        assert_eq!(peer.ip, IpAddr::from([192, 0, 2, 1]));
        assert!(!peer.required && peer.control.is_none());
        assert!(peers[0].onlink && peers[0].required);
    }

    #[test]
    fn a_gateway_outside_the_vips_subnet_is_asked_but_not_required() {
        let mut on = around(ETH, &["10.0.0.1/24", "10.1.0.1/24"], &[]);
        on.gateways = vec![[10, 1, 0, 254].into()];
        let peers = peers_of("10.0.0.10", &on, None, &[]);
        assert_eq!(who(&peers), [is("10.1.0.254", Source::Gateway, false)]);
        // It may reach the VIP by another way.
        assert!(
            peers[0]
                .control
                .is_some_and(|control| !control.in_vips_subnet)
        );
    }

    #[test]
    fn a_vmacs_peers_are_below_it_and_so_are_their_controls() {
        let on = around(ABOVE, &["10.0.0.10/32"], &[]);
        let below = around(ETH, &["10.0.0.1/24"], &["10.0.0.5"]);
        let peers = peers_of("10.0.0.10", &on, Some(&below), &[]);
        assert_eq!(who(&peers), [is("10.0.0.5", Source::Learned, false)]);
        assert_eq!(
            peers[0].control,
            Some(Control {
                ip: [10, 0, 0, 1].into(),
                interface: ETH,
                mac: mac(2),
                in_vips_subnet: true,
            })
        );
    }

    #[test]
    fn a_vlans_controls_stay_on_it_and_the_link_below_is_another() {
        let on = around(ABOVE, &["10.0.0.1/24", "10.0.0.10/32"], &["10.0.0.5"]);
        let mut below = around(ETH, &["172.16.0.1/24"], &["172.16.0.5"]);
        below.gateways = vec![[172, 16, 0, 254].into()];
        let peers = peers_of("10.0.0.10", &on, Some(&below), &[]);
        assert_eq!(who(&peers), [is("10.0.0.5", Source::Learned, false)]);
        assert_eq!(
            peers[0].control.map(|control| control.interface),
            Some(ABOVE)
        );
    }

    #[test]
    fn a_control_is_no_vip_and_in_the_subnet_of_vip_and_peer() {
        let on = around(
            ETH,
            &["10.0.0.10/24", "10.1.0.1/24", "10.0.0.1/24"],
            &["10.0.0.5"],
        );
        let control = peers_of("10.0.0.10", &on, None, &[])[0].control;
        assert_eq!(
            control.map(|control| control.ip),
            Some([10, 0, 0, 1].into())
        );
        let lonely = around(ETH, &["10.0.0.10/24"], &["10.0.0.5"]);
        assert_eq!(peers_of("10.0.0.10", &lonely, None, &[])[0].control, None);
        let mut tentative = around(ETH, &["fd00::1/64"], &["fd00::5"]);
        tentative.addresses[0].usability = Usability::Tentative;
        assert_eq!(peers_of("fd00::10", &tentative, None, &[])[0].control, None);
    }

    #[test]
    fn a_named_peer_in_any_subnet_of_the_interface_is_onlink() {
        let on = around(ETH, &["10.0.0.1/24", "10.1.0.1/24", "10.2.0.1/32"], &[]);
        let peers = peers_of("10.0.0.10", &on, None, &["10.1.0.5", "10.2.0.5"]);
        assert_eq!(
            who(&peers),
            [
                is("10.1.0.5", Source::Configured, true),
                is("10.2.0.5", Source::Configured, false),
            ]
        );
        let onlink: Vec<_> = peers.iter().map(|peer| peer.onlink).collect();
        assert_eq!(onlink, [true, false]);
    }

    #[test]
    fn of_a_vip_in_no_subnet_whoever_is_on_its_link_is_a_peer() {
        let on = around(ETH, &["10.0.0.10/32", "10.1.0.1/24"], &["10.1.0.5"]);
        let peers = peers_of("10.0.0.10", &on, None, &[]);
        assert_eq!(who(&peers), [is("10.1.0.5", Source::Learned, false)]);
        assert!(
            peers[0]
                .control
                .is_some_and(|control| !control.in_vips_subnet)
        );
    }

    #[test]
    fn an_own_address_on_another_card_is_no_peer() {
        let on = around(
            ETH,
            &["10.0.0.1/24", "fd00::1/64"],
            &["10.0.0.2", "fe80::2"],
        );
        let own = ["10.0.0.2", "fe80::2"].map(|ip| ip.parse().unwrap()).into();
        let (v4, v6): (Vip, Vip) = ("10.0.0.10".parse().unwrap(), "fd00::10".parse().unwrap());
        let count = |vip| {
            let vips = set(&[vip]);
            let near = PeerFinder::new(vip, &vips, &own, &on, None);
            near.peers(&["10.0.0.2".parse().unwrap()], Confirm::All, usize::MAX)
                .0
                .len()
        };
        assert_eq!(count(v4), 0);
        assert_eq!(
            count(v6),
            1,
            "a link-local address is another host's on another link"
        );
    }

    #[test]
    fn a_host_is_asked_by_its_link_local_address_only_where_it_has_no_other() {
        let mut on = around(ETH, &["fd00::1/64"], &["fe80::5", "fd00::5", "fe80::6"]);
        on.neighbours[1].mac = on.neighbours[0].mac;
        let peers = peers_of("fd00::10", &on, None, &[]);
        let asked: Vec<_> = peers.iter().map(|peer| peer.ip.to_string()).collect();
        assert_eq!(asked, ["fd00::5", "fe80::6"]);
    }

    #[test]
    fn beyond_the_most_named_peers_gateways_and_confirmed_neighbours_stay() {
        let neighbours = ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.9"];
        let mut on = around(ETH, &["10.0.0.1/24"], &neighbours);
        on.neighbours[3].state = NeighbourState::Reachable;
        on.gateways = vec![[10, 0, 0, 254].into()];
        let (vips, own) = (set(&["10.0.0.10".parse().unwrap()]), HashSet::new());
        let vip = "10.0.0.10".parse().unwrap();
        let finder = PeerFinder::new(vip, &vips, &own, &on, None);
        let named = [[10, 0, 0, 77].into()];
        let (peers, left_out) = finder.peers(&named, Confirm::All, 2);
        let asked: Vec<_> = peers.iter().map(|peer| peer.ip.to_string()).collect();
        assert_eq!(asked, ["10.0.0.77", "10.0.0.254", "10.0.0.8", "10.0.0.5"]);
        assert_eq!(left_out, 3);
    }

    #[test]
    fn others_are_probed_for_from_an_own_address_that_is_no_vip() {
        let vip = "fd00::10".parse().unwrap();
        let vips = set(&[vip]);
        let mut on = around(ETH, &["10.0.0.1/24", "fd00::10/64", "fd00::1/64"], &[]);
        let from = |on: &LinkView| asking_address(on.addresses.iter(), vip, &vips);
        assert_eq!(from(&on), Some("fd00::1".parse().unwrap()));
        on.addresses[2].usability = Usability::Tentative;
        assert_eq!(from(&on), None);
    }

    #[test]
    fn a_large_table_takes_no_long_time() {
        let neighbours: Vec<_> = (0..60_000_u32)
            .map(|host| Ipv4Addr::from_bits(0x0a01_0000 + host).to_string())
            .collect();
        let neighbours: Vec<_> = neighbours.iter().map(String::as_str).collect();
        let mut on = around(ETH, &["10.0.0.1/8"], &[]);
        on.neighbours = neighbours
            .iter()
            .map(|ip| Neighbour {
                ip: ip.parse().unwrap(),
                mac: Some(mac(5)),
                state: NeighbourState::Stale,
                externally_learned: false,
            })
            .collect();
        let begun = Instant::now();
        assert_eq!(
            peers_of("10.0.0.10", &on, None, &[]).len(),
            neighbours.len()
        );
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
