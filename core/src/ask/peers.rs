//! Finds the peers of a VIP: configured peers, gateways, and the kernel's neighbours.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Confirm;
use super::confirmation::{Control, Peer, Source};
use crate::address::{Mac, Prefix, Vip};
use crate::host::{Address, Link, Neighbour, NeighbourState, Usability};

/// The most neighbours to ask about one VIP on one link.
pub const MOST_HOSTS: usize = 8_192;
/// The most neighbours to ask in one run, summed over its VIPs. Each takes some 200 octets.
pub const MOST_PAIRS: usize = 32_768;

/// What the kernel knows about one interface and its link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// The interface.
    pub link: Link,
    /// This host's addresses there.
    pub addresses: Vec<Address>,
    /// The gateways of routes through it.
    pub gateways: Vec<IpAddr>,
    /// The neighbour entries.
    pub neighbours: Vec<Neighbour>,
    /// The hosts that a resident has heard, those first that ask for VIPs.
    pub observed: Vec<Observed>,
}

/// A host that a resident has heard on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC, unless only others spoke of it.
    pub mac: Option<Mac>,
    /// Whether it has asked for a VIP, or a VIP's owner for it.
    pub asks: bool,
    /// Whether it was heard lately.
    pub is_recent: bool,
}

impl LinkView {
    /// An interface without addresses, gateways and neighbours.
    #[must_use]
    pub fn of(link: Link) -> Self {
        Self {
            link,
            addresses: Vec::new(),
            gateways: Vec::new(),
            neighbours: Vec::new(),
            observed: Vec::new(),
        }
    }
}

/// Whether an entry has the MAC of an existing host.
fn is_live(neighbour: &Neighbour) -> bool {
    neighbour.mac.is_some_and(Mac::is_unicast)
        && !matches!(
            neighbour.state,
            NeighbourState::Noarp | NeighbourState::Failed | NeighbourState::Incomplete
        )
}

/// The hosts of an interface's link, and of the one below (of a VMAC or a VLAN), sorted once for all VIPs:
/// tables have tens of thousands.
pub(crate) struct LinkHosts<'a> {
    /// The VIPs of the run: none is a peer, or an own address to ask from.
    vips: &'a HashSet<IpAddr>,
    own: &'a HashSet<IpAddr>,
    on: &'a LinkView,
    below: Option<&'a LinkView>,
    /// The live neighbours by address.
    live: HashMap<IpAddr, &'a Neighbour>,
    /// This host's addresses on the interface, and on the one below.
    own_here: HashSet<IpAddr>,
    /// Those to ask from, with their interfaces' MACs.
    controls: Vec<(&'a Address, Mac)>,
    /// The addresses of all neighbours on the interface's own link.
    on_link: HashSet<IpAddr>,
    /// The live neighbours, the surest first; from `doubtful` on they may be gone.
    ranked: Vec<&'a Neighbour>,
    doubtful: usize,
}

impl<'a> LinkHosts<'a> {
    pub(crate) fn new(
        vips: &'a HashSet<IpAddr>,
        own: &'a HashSet<IpAddr>,
        on: &'a LinkView,
        below: Option<&'a LinkView>,
    ) -> Self {
        let both = || std::iter::once(on).chain(below);
        let neighbours = both().flat_map(|view| &view.neighbours);
        let mut ranked: Vec<_> = neighbours.filter(|one| is_live(one)).collect();
        let mut live = HashMap::new();
        for neighbour in &ranked {
            live.entry(neighbour.ip).or_insert(*neighbour);
        }
        ranked.sort_by_key(|one| (is_doubtful(one), one.confirmed.unwrap_or(Duration::MAX)));
        let doubtful = ranked.partition_point(|one| !is_doubtful(one));
        let with_mac = |view: &'a LinkView| {
            let mac = view.link.mac;
            let addresses = view.addresses.iter();
            addresses.filter_map(move |own| Some((own, mac?)))
        };
        let controls = both().flat_map(with_mac);
        let controls = controls.filter(|(own, _)| own.usability == Usability::Usable);
        let addresses = both().flat_map(|view| &view.addresses);
        Self {
            vips,
            own,
            on,
            below,
            live,
            own_here: addresses.map(|own| own.ip).collect(),
            controls: controls
                .filter(|(own, _)| !vips.contains(&own.ip))
                .collect(),
            on_link: {
                let neighbours = on.neighbours.iter().map(|known| known.ip);
                let observed = on.observed.iter().map(|heard| heard.ip);
                neighbours.chain(observed).collect()
            },
            ranked,
            doubtful,
        }
    }

    fn both(&self) -> impl Iterator<Item = &'a LinkView> + use<'a> {
        std::iter::once(self.on).chain(self.below)
    }

    fn addresses(&self) -> impl Iterator<Item = &'a Address> + use<'a> {
        self.both().flat_map(|view| &view.addresses)
    }
}

/// Finds the peers of one VIP among the hosts of its link.
pub(crate) struct PeerFinder<'a> {
    vip: Vip,
    hosts: &'a LinkHosts<'a>,
    /// This host's addresses there whose subnets contain the VIP.
    subnets: Vec<Address>,
    /// The MACs of neighbours with an address in those subnets that is not link-local.
    better_known: HashSet<Option<Mac>>,
}

impl<'a> PeerFinder<'a> {
    pub(crate) fn new(vip: Vip, hosts: &'a LinkHosts<'a>) -> Self {
        let mut finder = Self {
            vip,
            hosts,
            subnets: Vec::new(),
            better_known: HashSet::new(),
        };
        finder.subnets = hosts
            .addresses()
            .filter(|address| !is_host_prefix(address) && contains(address, vip.ip()))
            .copied()
            .collect();
        if vip.ip().is_ipv6() {
            finder.better_known = hosts
                .ranked
                .iter()
                .filter(|other| other.ip.is_ipv6() && !is_link_local_v6(other.ip))
                .filter(|other| finder.shares_subnet(other.ip))
                .map(|other| other.mac)
                .collect();
        }
        finder
    }

    /// The peers, the most important first: configured ones, gateways, neighbours that the kernel uses,
    /// and others by when it last confirmed them. Takes at most `most` neighbours; also returns how many
    /// that leaves out. For [`Confirm::Subnet`], the other addresses of the VIP's subnets follow.
    pub(crate) fn peers(
        &self,
        configured: &[IpAddr],
        confirm: Confirm,
        most: usize,
        with_doubtful: bool,
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
        for gateway in &self.hosts.on.gateways {
            // A gateway in another subnet of the link may reach the VIP by another link.
            let required = self.shares_subnet(*gateway);
            add(self.peer(*gateway, Source::Gateway, true, required));
        }
        for gateway in self.hosts.below.iter().flat_map(|below| &below.gateways) {
            // The link below a VLAN is another link: only a shared subnet makes its gateways count.
            if self.shares_subnet(*gateway) {
                add(self.peer(*gateway, Source::Gateway, true, true));
            }
        }
        let mut left_out = 0;
        if matches!(confirm, Confirm::All | Confirm::Subnet) {
            let observed = self.observed().map(|one| {
                let peer = self.peer(one.ip, Source::Observed, true, false);
                let mac = peer.mac.or(one.mac);
                let doubtful = !one.is_recent || mac.is_none();
                Peer {
                    mac,
                    doubtful,
                    ..peer
                }
            });
            let observed = observed.filter(|one| with_doubtful || !one.doubtful);
            observed.take(most).for_each(&mut add);
            let ranked = match with_doubtful {
                true => &self.hosts.ranked[..],
                false => &self.hosts.ranked[..self.hosts.doubtful],
            };
            let is_peer =
                |one: &&&Neighbour| self.shares_subnet(one.ip) && !self.has_better_address(one);
            let count = ranked.iter().filter(is_peer).count();
            left_out = count.saturating_sub(most);
            for neighbour in ranked.iter().filter(is_peer).take(most) {
                let doubtful = is_doubtful(neighbour);
                add(Peer {
                    doubtful,
                    ..self.peer(neighbour.ip, Source::Learned, true, false)
                });
            }
        }
        if confirm == Confirm::Subnet && with_doubtful {
            for ip in self.swept() {
                add(Peer {
                    doubtful: true,
                    ..self.peer(ip, Source::Subnet, true, false)
                });
            }
        }
        peers.sort_by_key(|peer| !peer.required);
        (peers, left_out)
    }

    /// The hosts that were heard. Of one that has another address, the link-local one is not asked.
    fn observed(&self) -> impl Iterator<Item = &'a Observed> + '_ {
        let heard = || self.hosts.both().flat_map(|view| &view.observed);
        let is_better = |one: &&Observed| one.ip.is_ipv6() && !is_link_local_v6(one.ip);
        let better: HashSet<_> = match is_link_local_v6(self.vip.ip()) {
            true => HashSet::new(),
            false => heard()
                .filter(is_better)
                .filter_map(|one| one.mac)
                .collect(),
        };
        heard().filter(move |one| {
            let has_better =
                is_link_local_v6(one.ip) && one.mac.is_some_and(|mac| better.contains(&mac));
            self.shares_subnet(one.ip) && !has_better && !self.is_broadcast(one.ip)
        })
    }

    /// Whether an address is the broadcast address of a subnet on the link: the rounds themselves ask for
    /// that.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let mut subnets = self.hosts.addresses().map(Prefix::of);
        subnets.any(|subnet| subnet.broadcast().map(IpAddr::V4) == Some(ip))
    }

    /// The addresses of a sweep: all hosts of the VIP's IPv4 subnets that are small enough.
    fn swept(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let subnets = self.subnets.iter().map(Prefix::of);
        subnets.filter_map(Prefix::hosts).flatten().map(IpAddr::V4)
    }

    /// Whether an address is of the VIP's family, and neither a VIP nor this host's. A link-local
    /// address of this host on another link is another host's here.
    fn can_be_peer(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.vip.ip().is_ipv4()
            && !self.hosts.vips.contains(&ip)
            && (is_link_local_v6(ip) || !self.hosts.own.contains(&ip))
            && !self.hosts.own_here.contains(&ip)
    }

    /// Whether the peer reaches the VIP on the link, as far as this host knows: both are in one of its
    /// subnets. If the VIP is in none, every neighbour on its link counts.
    fn shares_subnet(&self, ip: IpAddr) -> bool {
        is_link_local_v6(ip)
            || self.subnets.iter().any(|subnet| contains(subnet, ip))
            || (self.subnets.is_empty() && self.hosts.on_link.contains(&ip))
    }

    fn leads_to(&self, ip: IpAddr) -> bool {
        self.shares_subnet(ip)
            || self
                .hosts
                .addresses()
                .any(|address| !is_host_prefix(address) && contains(address, ip))
    }

    /// Whether the host of a link-local entry has another entry: one question is enough.
    fn has_better_address(&self, neighbour: &Neighbour) -> bool {
        is_link_local_v6(neighbour.ip)
            && !is_link_local_v6(self.vip.ip())
            && self.better_known.contains(&neighbour.mac)
    }

    fn peer(&self, ip: IpAddr, source: Source, onlink: bool, required: bool) -> Peer {
        Peer {
            ip,
            mac: self.hosts.live.get(&ip).and_then(|entry| entry.mac),
            source,
            required,
            onlink,
            doubtful: false,
            control: self.control(ip),
        }
    }

    /// An own address, not a VIP, to ask the peer from: one of its subnet, or else any. A host with
    /// only a link-local address may have no route to the VIP's subnet: so it is asked from
    /// there, and who answers that has one.
    fn control(&self, peer: IpAddr) -> Option<Control> {
        let needs_route = is_link_local_v6(peer) && !is_link_local_v6(self.vip.ip());
        let near = if needs_route { self.vip.ip() } else { peer };
        let is_near = |own: &Address| !is_host_prefix(own) && contains(own, near);
        self.hosts
            .controls
            .iter()
            .filter(|(own, _)| own.ip.is_ipv4() == peer.is_ipv4())
            .min_by_key(|(own, _)| !is_near(own))
            .map(|(own, mac)| Control {
                ip: own.ip,
                interface: own.interface,
                mac: *mac,
                in_vips_subnet: self.shares_subnet(peer)
                    && !self.subnets.is_empty()
                    && (is_near(own) || !needs_route),
            })
    }
}

/// Whether an entry's host may be gone: the kernel has not confirmed it lately.
fn is_doubtful(neighbour: &Neighbour) -> bool {
    neighbour.state == NeighbourState::Stale && !neighbour.externally_learned
}

fn is_host_prefix(address: &Address) -> bool {
    Prefix::of(address).is_host()
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn contains(subnet: &Address, ip: IpAddr) -> bool {
    Prefix::of(subnet).contains(ip)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use super::*;
    use crate::address::InterfaceIndex;
    use crate::ask::testing::{address, mac, neighbour};
    use crate::host::asking_address;

    const ETH: InterfaceIndex = InterfaceIndex(2);
    const ABOVE: InterfaceIndex = InterfaceIndex(3);

    /// The words after `key` in a text such as `eth 10.0.0.1/24; eth-neighbours 10.0.0.5 10.0.0.6!`.
    fn words<'a>(given: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
        let mut lists = given.split("; ").map(str::split_whitespace);
        let list = lists.find_map(|mut list| (list.next() == Some(key)).then_some(list));
        list.into_iter().flatten()
    }

    fn ips<T: FromIterator<IpAddr>>(given: &str, key: &str) -> T {
        words(given, key).map(|ip| ip.parse().unwrap()).collect()
    }

    /// The view of `eth`, or of `above` it. `!` marks what is tentative or failed.
    fn view(given: &str, name: &str) -> LinkView {
        let (index, lower) = if name == "eth" {
            (ETH, None)
        } else {
            (ABOVE, Some(ETH))
        };
        let own = mac(u8::try_from(index.0).unwrap());
        let own_address = |text: &str| Address {
            usability: if text.ends_with('!') {
                Usability::Tentative
            } else {
                Usability::Usable
            },
            ..address(text.trim_end_matches('!'), index)
        };
        let entry = |(text, last): (&str, u8)| {
            let failed = text.ends_with('!');
            let state = if failed {
                NeighbourState::Failed
            } else {
                NeighbourState::Stale
            };
            neighbour(text.trim_end_matches('!'), mac(last), state)
        };
        LinkView {
            link: Link {
                lower,
                ..Link::ethernet(index.0, name, own)
            },
            addresses: words(given, name).map(own_address).collect(),
            gateways: ips(given, &format!("{name}-gateways")),
            neighbours: words(given, &format!("{name}-neighbours"))
                .zip(0x10..)
                .map(entry)
                .collect(),
            observed: words(given, &format!("{name}-observed"))
                .zip(0x40..)
                .map(|(text, last): (&str, u8)| Observed {
                    ip: text.trim_end_matches('!').parse().unwrap(),
                    mac: Some(mac(last)),
                    asks: false,
                    is_recent: !text.ends_with('!'),
                })
                .collect(),
        }
    }

    /// The peers of the first of the `vips`.
    fn peers_of(given: &str) -> Vec<Peer> {
        let (above, eth) = (view(given, "above"), view(given, "eth"));
        let (on, below) = if above.addresses.is_empty() {
            (eth, None)
        } else {
            (above, Some(eth))
        };
        limited_peers(given, &on, below.as_ref(), Confirm::All, usize::MAX).0
    }

    fn limited_peers(
        given: &str,
        on: &LinkView,
        below: Option<&LinkView>,
        confirm: Confirm,
        most: usize,
    ) -> (Vec<Peer>, usize) {
        let vip: Vip = words(given, "vips")
            .next()
            .unwrap_or("10.0.0.10")
            .parse()
            .unwrap();
        let (mut vips, own): (HashSet<_>, _) = (ips(given, "vips"), ips(given, "own"));
        vips.insert(vip.ip());
        let hosts = LinkHosts::new(&vips, &own, on, below);
        let finder = PeerFinder::new(vip, &hosts);
        finder.peers(&ips::<Vec<_>>(given, "configured"), confirm, most, true)
    }

    #[test]
    fn observed_hosts_of_the_subnet_come_before_neighbours() {
        let peers = peers_of(
            "vips 10.0.0.10; eth 10.0.0.1/24; eth-observed 10.0.0.7 10.9.9.9 10.0.0.8! 10.0.0.1 10.0.0.255 fe80::7; \
             eth-neighbours 10.0.0.5 10.0.0.7",
        );
        let found: Vec<_> = peers
            .iter()
            .map(|peer| (peer.ip.to_string(), peer.source, peer.doubtful, peer.mac))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "10.0.0.7".to_owned(),
                    Source::Observed,
                    false,
                    Some(mac(0x11))
                ),
                (
                    "10.0.0.8".to_owned(),
                    Source::Observed,
                    true,
                    Some(mac(0x42))
                ),
                (
                    "10.0.0.5".to_owned(),
                    Source::Learned,
                    true,
                    Some(mac(0x10))
                ),
            ]
        );
    }

    #[test]
    fn peers_are_configured_ones_gateways_and_live_neighbours_of_the_subnet() {
        for (what, given, expected) in [
            (
                "configured peers and gateways are required and come first",
                "eth 10.0.0.1/24 10.0.0.10/32; eth-neighbours 10.0.0.5 10.0.0.7 10.0.0.254; \
                 eth-gateways 10.0.0.254; configured 10.0.0.7",
                "10.0.0.7 Configured required, 10.0.0.254 Gateway required, 10.0.0.5 Learned",
            ),
            (
                "this host and the VIPs are no peers",
                "vips 10.0.0.10 10.0.0.11; eth 10.0.0.1/24; \
                 eth-neighbours 10.0.0.1 10.0.0.10 10.0.0.11",
                "",
            ),
            (
                "nor is a neighbour that failed, or is of another subnet or family",
                "eth 10.0.0.1/24 10.1.0.1/24 fd00::1/64; \
                 eth-neighbours 10.0.0.5 10.0.0.6! 10.1.0.5 fd00::5",
                "10.0.0.5 Learned",
            ),
            (
                "a configured peer is onlink in any subnet of the interface",
                "eth 10.0.0.1/24 10.1.0.1/24 10.2.0.1/32; \
                 configured 192.0.2.1 10.2.0.5 10.1.0.5 10.0.0.5",
                "10.1.0.5 Configured required, 10.0.0.5 Configured required, \
                 192.0.2.1 Configured offlink, 10.2.0.5 Configured offlink",
            ),
            (
                "a gateway outside the VIP's subnet is not required",
                "eth 10.0.0.1/24 10.1.0.1/24; eth-gateways 10.1.0.254",
                "10.1.0.254 Gateway",
            ),
            (
                "an own address on another card is no peer",
                "own 10.0.0.2; eth 10.0.0.1/24; eth-neighbours 10.0.0.2; configured 10.0.0.2",
                "",
            ),
            (
                "a link-local address is another host's on another link",
                "vips fd00::10; own fe80::2; eth fd00::1/64; eth-neighbours fe80::2; configured 10.0.0.2",
                "fe80::2 Learned",
            ),
            (
                "if the VIP is in no subnet, all neighbours on its link are peers",
                "eth 10.0.0.10/32 10.1.0.1/24; eth-neighbours 10.1.0.5",
                "10.1.0.5 Learned",
            ),
            (
                "a VMAC's peers are below it",
                "above 10.0.0.10/32; eth 10.0.0.1/24; eth-neighbours 10.0.0.5",
                "10.0.0.5 Learned",
            ),
            (
                "below a VLAN is another link",
                "above 10.0.0.1/24 10.0.0.10/32; above-neighbours 10.0.0.5; eth 172.16.0.1/24; \
                 eth-neighbours 172.16.0.5; eth-gateways 172.16.0.254",
                "10.0.0.5 Learned",
            ),
        ] {
            let text = |peer: &Peer| {
                let required = if peer.required { " required" } else { "" };
                let offlink = if peer.onlink { "" } else { " offlink" };
                format!("{} {:?}{required}{offlink}", peer.ip, peer.source)
            };
            let peers: Vec<_> = peers_of(given).iter().map(text).collect();
            assert_eq!(peers.join(", "), expected, "{what}");
        }
    }

    #[test]
    fn confirm_selects_the_peers() {
        let given = "eth 10.0.0.1/24; eth-neighbours 10.0.0.5; eth-gateways 10.0.0.254";
        let on = view(given, "eth");
        let count = |confirm| limited_peers(given, &on, None, confirm, usize::MAX).0.len();
        let counts = [Confirm::All, Confirm::Peers, Confirm::None].map(count);
        assert_eq!(counts, [2, 1, 0]);
    }

    #[test]
    fn a_control_is_no_vip_and_in_the_subnet_of_the_peer() {
        let control = |ip: [u8; 4], interface: InterfaceIndex, in_vips_subnet| Control {
            ip: ip.into(),
            interface,
            mac: mac(u8::try_from(interface.0).unwrap()),
            in_vips_subnet,
        };
        for (given, expected) in [
            (
                "eth 10.0.0.10/24 10.1.0.1/24 10.0.0.1/24; eth-neighbours 10.0.0.5",
                Some(control([10, 0, 0, 1], ETH, true)),
            ),
            ("eth 10.0.0.10/24; eth-neighbours 10.0.0.5", None),
            (
                "vips fd00::10; eth fd00::1/64!; eth-neighbours fd00::5",
                None,
            ),
            // These peers may reach the VIP by another way.
            (
                "eth 10.0.0.1/24; configured 192.0.2.1",
                Some(control([10, 0, 0, 1], ETH, false)),
            ),
            (
                "eth 10.0.0.1/24 10.1.0.1/24; eth-gateways 10.1.0.254",
                Some(control([10, 1, 0, 1], ETH, false)),
            ),
            (
                "eth 10.0.0.10/32 10.1.0.1/24; eth-neighbours 10.1.0.5",
                Some(control([10, 1, 0, 1], ETH, false)),
            ),
            // A VMAC's controls are below it, a VLAN's stay on it.
            (
                "above 10.0.0.10/32; eth 10.0.0.1/24; eth-neighbours 10.0.0.5",
                Some(control([10, 0, 0, 1], ETH, true)),
            ),
            (
                "above 10.0.0.1/24 10.0.0.10/32; above-neighbours 10.0.0.5; eth 172.16.0.1/24",
                Some(control([10, 0, 0, 1], ABOVE, true)),
            ),
            (
                "above 10.0.0.10/32 172.16.0.1/24; eth 10.0.0.1/24; eth-neighbours 10.0.0.5",
                Some(control([10, 0, 0, 1], ETH, true)),
            ),
        ] {
            assert_eq!(peers_of(given)[0].control, expected, "{given}");
        }
    }

    #[test]
    fn a_link_local_address_counts_only_if_its_host_has_no_other() {
        let given = "vips fd00::10; eth fd00::1/64; eth-neighbours fe80::5 fd00::5 fe80::6";
        let mut on = view(given, "eth");
        on.neighbours[1].mac = on.neighbours[0].mac;
        let (peers, _) = limited_peers(given, &on, None, Confirm::All, usize::MAX);
        let asked: Vec<_> = peers.iter().map(|peer| peer.ip.to_string()).collect();
        assert_eq!(asked, ["fd00::5", "fe80::6"]);
    }

    #[test]
    fn the_limit_keeps_configured_peers_gateways_and_confirmed_neighbours() {
        let given = "configured 10.0.0.77; eth 10.0.0.1/24; eth-gateways 10.0.0.254; \
                     eth-neighbours 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8 10.0.0.9";
        let mut on = view(given, "eth");
        on.neighbours[3].state = NeighbourState::Reachable;
        let (peers, left_out) = limited_peers(given, &on, None, Confirm::All, 2);
        let asked: Vec<_> = peers.iter().map(|peer| peer.ip.to_string()).collect();
        assert_eq!(asked, ["10.0.0.77", "10.0.0.254", "10.0.0.8", "10.0.0.5"]);
        assert_eq!(left_out, 3);
    }

    #[test]
    fn probes_leave_from_an_own_address_that_is_no_vip() {
        let vip: Vip = "fd00::10".parse().unwrap();
        for (given, expected) in [
            (
                "eth 10.0.0.1/24 fd00::10/64 fd00::1/64",
                Some("fd00::1".parse().unwrap()),
            ),
            ("eth 10.0.0.1/24 fd00::10/64 fd00::1/64!", None),
        ] {
            let on = view(given, "eth");
            let from = asking_address(on.addresses.iter(), vip, |ip| ip == vip.ip());
            assert_eq!(from, expected);
        }
    }

    // Only the time shows that no lookup scans the table for each neighbour.
    #[test]
    fn a_large_table_takes_little_time() {
        let ip = |host: u32| Ipv4Addr::from_bits(0x0a01_0000 + host).to_string();
        let mut large = view("eth 10.0.0.1/8", "eth");
        large.neighbours = (0..60_000)
            .map(|host| neighbour(&ip(host), mac(5), NeighbourState::Stale))
            .collect();
        let begun = Instant::now();
        let (peers, _) = limited_peers("", &large, None, Confirm::All, usize::MAX);
        assert_eq!(peers.len(), 60_000);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
