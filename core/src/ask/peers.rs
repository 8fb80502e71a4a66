//! Finds the peers of a VIP: configured peers, gateways, and the kernel's neighbours.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Confirm;
use super::confirmation::{Control, Peer, Source};
use crate::address::{InterfaceIndex, Mac, Prefix, Vip};
use crate::host::{Address, Link, Neighbour, NeighbourState, Usability};

/// The most neighbours to ask about one VIP on one link.
pub const MOST_HOSTS: usize = 8_192;
/// The most neighbours to ask in one run, summed over its VIPs. Each takes some 200 octets.
pub const MOST_PAIRS: usize = 32_768;
/// How many entries are read, and how many peers are found, before frames that are due leave. Each takes
/// less than a millisecond.
const ENTRIES_AT_ONCE: usize = 512;
const PEERS_AT_ONCE: usize = 128;

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

/// What a search for peers starts from.
#[derive(Debug)]
pub(crate) struct Given {
    /// The interfaces of the VIPs, and those below (of VMACs or VLANs).
    pub(crate) views: Vec<LinkView>,
    /// The VIPs of the run: none is a peer, or an own address to ask from.
    pub(crate) vips: HashSet<IpAddr>,
    /// VIPs of other runs: none is an own address to ask from.
    pub(crate) other_vips: Arc<HashSet<IpAddr>>,
    /// All addresses of this host.
    pub(crate) own: HashSet<IpAddr>,
    /// Configured peers.
    pub(crate) configured: Vec<IpAddr>,
    /// Which peers to ask.
    pub(crate) confirm: Confirm,
    /// The most neighbours to ask about one VIP.
    pub(crate) most: usize,
}

impl Given {
    pub(crate) fn view(&self, interface: InterfaceIndex) -> Option<&LinkView> {
        let mut views = self.views.iter();
        views.find(|view| view.link.index == interface)
    }

    fn asks_neighbours(&self) -> bool {
        matches!(self.confirm, Confirm::All | Confirm::Subnet)
    }
}

/// How sure it is that a neighbour exists, with its place in the tables: the least is the surest.
type Rank = (bool, Duration, usize);

/// Finds the peers of the VIPs that have the same hosts, some at a time: tables have tens of thousands.
#[derive(Debug)]
pub(crate) struct PeerFinder {
    /// One of the VIPs.
    vip: Vip,
    /// Their interface, and the one below.
    on: InterfaceIndex,
    below: Option<InterfaceIndex>,
    /// This host's addresses there, and their subnets.
    own_here: HashSet<IpAddr>,
    own_subnets: BTreeSet<Prefix>,
    /// Those of the subnets that contain the VIPs.
    subnets: Vec<Prefix>,
    /// Those to ask from, with their interfaces' MACs.
    controls: Vec<(Address, Mac)>,
    /// The hosts that are known without the tables, and their MACs there.
    named: HashMap<IpAddr, Option<Mac>>,
    /// The addresses on the interface's own link, if the VIPs are in no subnet.
    on_link: HashSet<IpAddr>,
    /// The MACs of neighbours with an address in the subnets that is not link-local.
    better_known: HashSet<Mac>,
    stage: Stage,
    /// The number of entries that were read.
    read: usize,
    ranked: BinaryHeap<Reverse<Rank>>,
    /// How many neighbours exist, and how many may be gone.
    sure: usize,
    doubtful: usize,
    /// The peers, the most important first: configured ones, gateways, hosts that were heard, neighbours
    /// that the kernel uses, and others by when it last confirmed them.
    likely: Vec<Peer>,
    /// Those that may not exist, in the same order.
    unlikely: Vec<Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The tables are read.
    Reading,
    /// The surest neighbours become peers.
    Ranking,
    Done,
}

impl PeerFinder {
    /// For a VIP on an interface, and the one below.
    pub(crate) fn new(vip: Vip, on: &LinkView, below: Option<&LinkView>, given: &Given) -> Self {
        let both = || std::iter::once(on).chain(below);
        let addresses = || both().flat_map(|view| &view.addresses);
        let own_subnets = addresses().map(|own| Prefix::of(own).network());
        let own_subnets: BTreeSet<_> = own_subnets.filter(|subnet| !subnet.is_host()).collect();
        let mac_of = |own: &Address| {
            both()
                .find(|view| view.link.index == own.interface)?
                .link
                .mac
        };
        let is_vip = |ip| given.vips.contains(&ip) || given.other_vips.contains(&ip);
        let may_ask = |own: &&Address| own.usability == Usability::Usable && !is_vip(own.ip);
        let subnets = own_subnets.iter();
        let gateways = both().flat_map(|view| &view.gateways);
        let heard = both().flat_map(|view| &view.observed).map(|one| &one.ip);
        let named = gateways.chain(heard).chain(&given.configured);
        Self {
            vip,
            on: on.link.index,
            below: below.map(|below| below.link.index),
            own_here: addresses().map(|own| own.ip).collect(),
            subnets: subnets
                .filter(|subnet| subnet.contains(vip.ip()))
                .copied()
                .collect(),
            own_subnets,
            controls: addresses()
                .filter(may_ask)
                .filter_map(|own| Some((*own, mac_of(own)?)))
                .collect(),
            named: named.map(|ip| (*ip, None)).collect(),
            on_link: on.observed.iter().map(|heard| heard.ip).collect(),
            better_known: HashSet::new(),
            stage: match given.confirm {
                Confirm::None => Stage::Done,
                _ => Stage::Reading,
            },
            read: 0,
            ranked: BinaryHeap::new(),
            sure: 0,
            doubtful: 0,
            likely: Vec::new(),
            unlikely: Vec::new(),
        }
    }

    /// Some of the peers, from this one on; none if more have to be found first. `None`: these were all.
    /// Those that may not exist come last, and only if `with_unlikely`. An address may come again.
    pub(crate) fn peers_from(
        &mut self,
        at: usize,
        with_unlikely: bool,
        given: &Given,
    ) -> Option<Vec<Peer>> {
        if at < self.likely.len() {
            let some = self.likely.iter().skip(at).take(PEERS_AT_ONCE);
            return Some(some.cloned().collect());
        }
        if self.stage != Stage::Done {
            self.find_more(given);
            return Some(Vec::new());
        }
        let unlikely = self.unlikely.iter().skip(at - self.likely.len());
        let some = unlikely.filter(|_| with_unlikely).take(PEERS_AT_ONCE);
        Some(some.cloned().collect()).filter(|some: &Vec<_>| !some.is_empty())
    }

    /// How many neighbours these peers leave out.
    pub(crate) fn left_out(&self, with_unlikely: bool, given: &Given) -> usize {
        let unlikely = if with_unlikely { self.doubtful } else { 0 };
        (self.sure + unlikely).saturating_sub(given.most)
    }

    fn find_more(&mut self, given: &Given) {
        match self.stage {
            Stage::Reading => {
                if !self.read_entries(given) {
                    self.add_named(given);
                    self.stage = Stage::Ranking;
                }
            }
            Stage::Ranking => {
                for _ in 0..ENTRIES_AT_ONCE {
                    let Some(Reverse((doubtful, _, place))) = self.ranked.pop() else {
                        self.add_swept(given);
                        self.stage = Stage::Done;
                        break;
                    };
                    self.add_neighbour(given, doubtful, place);
                }
            }
            Stage::Done => {}
        }
    }

    /// The entries of the interface's own table, and of the one below.
    fn tables<'a>(&self, given: &'a Given) -> [&'a [Neighbour]; 2] {
        [Some(self.on), self.below].map(|interface| {
            let view = interface.and_then(|interface| given.view(interface));
            view.map_or(&[][..], |view| &view.neighbours)
        })
    }

    /// Reads some entries. Returns whether there were any.
    fn read_entries(&mut self, given: &Given) -> bool {
        let [on, below] = self.tables(given);
        let unread = on.iter().chain(below).enumerate().skip(self.read);
        let before = self.read;
        for (place, entry) in unread.take(ENTRIES_AT_ONCE) {
            self.read += 1;
            if entry.ip.is_ipv4() != self.vip.ip().is_ipv4() {
                continue;
            }
            if self.subnets.is_empty() && place < on.len() {
                self.on_link.insert(entry.ip);
            }
            if !is_live(entry) {
                continue;
            }
            if let Some(mac) = self.named.get_mut(&entry.ip) {
                *mac = mac.or(entry.mac);
            }
            let is_peer = self.can_be_peer(entry.ip, given) && self.shares_subnet(entry.ip);
            if is_peer && given.asks_neighbours() {
                let is_better = entry.ip.is_ipv6() && !is_link_local_v6(entry.ip);
                self.better_known.extend(entry.mac.filter(|_| is_better));
                let confirmed = entry.confirmed.unwrap_or(Duration::MAX);
                let rank = (is_doubtful(entry), confirmed, place);
                self.ranked.push(Reverse(rank));
            }
        }
        self.read > before
    }

    fn add_named(&mut self, given: &Given) {
        let view = |interface| given.view(interface);
        for ip in &given.configured {
            let onlink = self.leads_to(*ip);
            self.add(self.peer(*ip, Source::Configured, onlink, onlink), given);
        }
        for gateway in view(self.on).iter().flat_map(|on| &on.gateways) {
            // A gateway in another subnet of the link may reach the VIP by another link.
            let required = self.shares_subnet(*gateway);
            self.add(self.peer(*gateway, Source::Gateway, true, required), given);
        }
        let below = self.below.and_then(view);
        for gateway in below.iter().flat_map(|below| &below.gateways) {
            // The link below a VLAN is another link: only a shared subnet makes its gateways count.
            if self.shares_subnet(*gateway) {
                self.add(self.peer(*gateway, Source::Gateway, true, true), given);
            }
        }
        self.likely.sort_by_key(|peer| !peer.required);
        if given.asks_neighbours() {
            for one in self.observed(given).iter().take(given.most) {
                // Anybody can forge a sender.
                let peer = self.peer(one.ip, Source::Observed, true, false);
                let heard = Peer {
                    mac: peer.mac.or(one.mac),
                    doubtful: true,
                    ..peer
                };
                self.add(heard, given);
            }
        }
    }

    fn add_neighbour(&mut self, given: &Given, doubtful: bool, place: usize) {
        let [on, below] = self.tables(given);
        let entry = on.get(place).or_else(|| below.get(place - on.len()));
        let Some(entry) = entry.filter(|one| !self.has_better_address(one)) else {
            return;
        };
        if self.sure + self.doubtful < given.most {
            let peer = Peer {
                mac: entry.mac,
                doubtful,
                ..self.peer(entry.ip, Source::Learned, true, false)
            };
            self.add(peer, given);
        }
        match doubtful {
            true => self.doubtful += 1,
            false => self.sure += 1,
        }
    }

    /// For [`Confirm::Subnet`]: the other addresses of the VIP's IPv4 subnets that are small enough.
    fn add_swept(&mut self, given: &Given) {
        if given.confirm == Confirm::Subnet {
            let subnets = self.subnets.clone().into_iter();
            for ip in subnets.filter_map(Prefix::hosts).flatten() {
                let swept = Peer {
                    doubtful: true,
                    ..self.peer(ip.into(), Source::Subnet, true, false)
                };
                self.add(swept, given);
            }
        }
    }

    fn add(&mut self, peer: Peer, given: &Given) {
        if self.can_be_peer(peer.ip, given) {
            match peer.doubtful {
                true => self.unlikely.push(peer),
                false => self.likely.push(peer),
            }
        }
    }

    /// The hosts that were heard, those first that were lately. Of one that has another address, the
    /// link-local one is not asked.
    fn observed(&self, given: &Given) -> Vec<Observed> {
        let views = [Some(self.on), self.below].into_iter().flatten();
        let views = views.filter_map(|on| given.view(on));
        let mut heard: Vec<_> = views.flat_map(|view| &view.observed).copied().collect();
        let is_better = |one: &&Observed| one.ip.is_ipv6() && !is_link_local_v6(one.ip);
        let better = heard.iter().filter(is_better);
        let better: HashSet<_> = better.filter_map(|one| one.mac).collect();
        heard.retain(|one| {
            let has_better = is_link_local_v6(one.ip)
                && !is_link_local_v6(self.vip.ip())
                && one.mac.is_some_and(|mac| better.contains(&mac));
            self.shares_subnet(one.ip) && !has_better && !self.is_broadcast(one.ip)
        });
        heard.sort_by_key(|one| !one.is_recent);
        heard
    }

    /// Whether an address is the broadcast address of a subnet on the link: the rounds themselves ask for
    /// that.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let mut subnets = self.own_subnets.iter();
        subnets.any(|subnet| subnet.broadcast().map(IpAddr::V4) == Some(ip))
    }

    /// Whether an address is of the VIP's family, and neither a VIP nor this host's. A link-local
    /// address of this host on another link is another host's here.
    fn can_be_peer(&self, ip: IpAddr, given: &Given) -> bool {
        ip.is_ipv4() == self.vip.ip().is_ipv4()
            && !given.vips.contains(&ip)
            && (is_link_local_v6(ip) || !given.own.contains(&ip))
            && !self.own_here.contains(&ip)
    }

    /// Whether the peer reaches the VIP on the link, as far as this host knows: both are in one of its
    /// subnets. If the VIP is in none, every neighbour on its link counts.
    fn shares_subnet(&self, ip: IpAddr) -> bool {
        is_link_local_v6(ip)
            || self.subnets.iter().any(|subnet| subnet.contains(ip))
            || (self.subnets.is_empty() && self.on_link.contains(&ip))
    }

    fn leads_to(&self, ip: IpAddr) -> bool {
        let mut subnets = self.own_subnets.iter();
        self.shares_subnet(ip) || subnets.any(|subnet| subnet.contains(ip))
    }

    /// Whether the host of a link-local entry has another entry: one question is enough.
    fn has_better_address(&self, neighbour: &Neighbour) -> bool {
        let mac = neighbour.mac;
        is_link_local_v6(neighbour.ip)
            && !is_link_local_v6(self.vip.ip())
            && mac.is_some_and(|mac| self.better_known.contains(&mac))
    }

    fn peer(&self, ip: IpAddr, source: Source, onlink: bool, required: bool) -> Peer {
        Peer {
            ip,
            mac: self.named.get(&ip).copied().flatten(),
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
        let is_near = |own: &Address| {
            let subnet = Prefix::of(own);
            !subnet.is_host() && subnet.contains(near)
        };
        self.controls
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

/// Whether an entry's host may be gone: the kernel has not confirmed it lately. It uses an entry as soon as
/// it answers a question, which anybody can forge: then that is in DELAY, and after 5 s in PROBE.
fn is_doubtful(neighbour: &Neighbour) -> bool {
    let state = neighbour.state;
    let is_confirmed = !matches!(
        state,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
    );
    !is_confirmed && !neighbour.externally_learned
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
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
        let given = Given {
            views: std::iter::once(on).chain(below).cloned().collect(),
            vips,
            other_vips: Arc::new(ips(given, "other-vips")),
            own,
            configured: ips(given, "configured"),
            confirm,
            most,
        };
        let mut finder = PeerFinder::new(vip, on, below, &given);
        let (mut peers, mut known, mut at) = (Vec::new(), HashSet::new(), 0);
        while let Some(some) = finder.peers_from(at, true, &given) {
            assert!(some.len() <= PEERS_AT_ONCE);
            at += some.len();
            peers.extend(some.into_iter().filter(|peer| known.insert(peer.ip)));
        }
        (peers, finder.left_out(true, &given))
    }

    #[test]
    fn observed_hosts_of_the_subnet_may_not_exist_and_come_before_old_neighbours() {
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
                    true,
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
                "other-vips 10.0.0.11; eth 10.0.0.11/24 10.0.0.1/24; eth-neighbours 10.0.0.5",
                Some(control([10, 0, 0, 1], ETH, true)),
            ),
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
