//! The shell around inquiries: it reads this kernel's entries, keeps them as they are while others
//! are asked, and says what the answers mean.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::debug;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::ask::{
    self, Bucket, FollowUp, LinkView, OwnerSearch, Refusal, VipVerdict, asking_address, unused_near,
};
use vipherald_core::host::{Address, Link, Neighbour, NeighbourState, PlacedVip, Usability};
use vipherald_core::wire::Frame;

use super::drive::{Asker, drive};
use super::{Finding, Places, RESOLVED_WITHIN, Request, Role, not_asked};
use crate::answering;
use crate::error::Error;
use crate::kernel::{Kernel, Replace};
use crate::packet_socket::PacketSocket;

/// An entry is set anew before `locktime` (1 s) is over.
const PIN_AGAIN: Duration = Duration::from_millis(600);

/// One VIP that is being asked for.
struct Asked {
    placed: PlacedVip,
    link: Link,
    search: OwnerSearch,
    /// What is asked once the search is over, where its answers do not tell all.
    follow_up: Option<FollowUp>,
    asker: ask::Asker,
    /// Addresses of the VIP's subnet that nobody has.
    unused: Vec<IpAddr>,
    /// Why this host's own kernel answers for the VIP, too, though it does not count as held here.
    answers_itself: Option<String>,
    wait: Duration,
    /// As [`Order::openly`].
    openly: bool,
    /// The kernel's entry before anything was asked.
    before: Option<Neighbour>,
    /// When its entry was kept last from taking in the answers that this host asks for.
    pinned: Option<Instant>,
}

/// Asks for VIPs that are not here.
pub(super) async fn ask(
    kernel: &Kernel,
    places: &Places,
    vips: &[PlacedVip],
    request: &Request,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut asked = Vec::new();
    let mut sockets = BTreeMap::new();
    let mut hosts = BTreeMap::new();
    let mut neighbours: BTreeMap<InterfaceIndex, Vec<IpAddr>> = BTreeMap::new();
    let all_vips: HashSet<_> = request.vips.iter().map(|placed| placed.vip.ip()).collect();
    for placed in vips {
        let link = match places.link_to(kernel, placed).await? {
            Ok(link) => link,
            Err(why) => {
                let (only, failed) = (places.only.as_ref(), VipVerdict::Failed);
                findings.push(not_asked(
                    placed.clone(),
                    only,
                    failed,
                    &why,
                    Role::Other(None),
                ));
                continue;
            }
        };
        if let Entry::Vacant(none) = sockets.entry(link.index) {
            none.insert(PacketSocket::open(link)?).listen(link)?;
            let known = name_hosts(&mut hosts, kernel, link.index, &all_vips).await?;
            neighbours.insert(link.index, known);
        }
        // The link has a MAC, or it would be unlike Ethernet.
        let Some(mac) = link.mac else { continue };
        let asker = asker(places, link, mac, placed.vip, &all_vips);
        if placed.vip.ip().is_ipv6() && asker.ip.is_none() {
            debug!(
                "{}: {} has no IPv6 address of its own to ask from: the answers go to all nodes",
                placed.vip, link.name
            );
        }
        let before = kernel.neighbour(link.index, placed.vip.ip()).await?;
        let known = |ip| all_vips.contains(&ip) || neighbours[&link.index].contains(&ip);
        let mut one = Asked {
            placed: placed.clone(),
            link: link.clone(),
            search: OwnerSearch::new(
                placed.vip,
                mac,
                asker.ip.filter(|ip| ip.is_ipv6() || request.openly),
                places.host.macs().collect(),
                request.wait,
                Instant::now(),
            ),
            follow_up: None,
            asker,
            unused: unused(places, placed.vip, known),
            answers_itself: answers_itself(places, placed, link),
            wait: request.wait,
            openly: request.openly,
            before,
            pinned: None,
        };
        one.pin(kernel).await;
        asked.push(one);
    }
    let bucket = Bucket::new(request.rate, Instant::now());
    drive(kernel, &mut asked, &sockets, bucket).await?;
    for one in asked {
        findings.push(one.finding(kernel, &hosts).await?);
    }
    Ok(findings)
}

/// Who asks about a VIP on a link: this host, from an address of its own there that is no VIP, one
/// of the VIP's subnet if there is one.
pub(super) fn asker(
    places: &Places,
    link: &Link,
    mac: Mac,
    vip: Vip,
    all_vips: &HashSet<IpAddr>,
) -> ask::Asker {
    let mut around = LinkView::of(link.clone());
    let here = |own: &&Address| own.interface == link.index;
    around.addresses = places.host.addresses.iter().filter(here).copied().collect();
    let ip = match vip.ip() {
        IpAddr::V4(_) => {
            let own = around.addresses.iter().filter(|own| {
                let usable = own.usability == Usability::Usable;
                own.ip.is_ipv4() && usable && !all_vips.contains(&own.ip)
            });
            own.max_by_key(|own| Prefix::of(own).contains(vip.ip()))
                .map(|own| own.ip)
        }
        IpAddr::V6(_) => asking_address(all_vips, &around).map(IpAddr::V6),
    };
    // Whatever is left of it tells runs apart well enough.
    let [.., high, low] = std::process::id().to_be_bytes();
    ask::Asker {
        mac,
        ip,
        identifier: u16::from_be_bytes([high, low]) ^ 0x5a5a,
    }
}

/// Addresses of a VIP's subnet that nobody is known to have.
pub(super) fn unused(places: &Places, vip: Vip, known: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let own = &places.host.addresses;
    let subnets = own.iter().map(Prefix::of);
    let subnet = subnets
        .filter(|subnet| !subnet.is_host())
        .find(|subnet| subnet.contains(vip.ip()));
    // No subnet that is in use is smaller, but for links of two hosts.
    let small = if vip.ip().is_ipv4() { 24 } else { 64 };
    let subnet = subnet.unwrap_or_else(|| Prefix::new(vip.ip(), small));
    unused_near(vip, subnet, |ip| {
        known(ip) || own.iter().any(|own| own.ip == ip)
    })
}

/// Why this host's kernel answers for a VIP on a link, where it has that elsewhere: a real server of
/// LVS without `arp_ignore`.
fn answers_itself(places: &Places, placed: &PlacedVip, link: &Link) -> Option<String> {
    if placed.vip.ip().is_ipv6() || !answering::answers_for_others(&link.name) {
        return None;
    }
    let elsewhere = places.host.places_of(&PlacedVip::anywhere(placed.vip));
    // The kernel has no address that is on an interface which is down.
    let name = &elsewhere.into_iter().find(|link| link.up)?.name;
    Some(format!(
        "this host has it on {name}, and its kernel answers for it on {} as well: \
         `sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`",
        link.name
    ))
}

/// Collects the hosts that have a MAC, by the neighbour table of an interface, and gives their
/// addresses. A VIP is no host.
async fn name_hosts(
    hosts: &mut BTreeMap<Mac, IpAddr>,
    kernel: &Kernel,
    interface: InterfaceIndex,
    vips: &HashSet<IpAddr>,
) -> Result<Vec<IpAddr>, Error> {
    let mut known = Vec::new();
    for neighbour in kernel.neighbours(interface).await? {
        let is_vip = vips.contains(&neighbour.ip);
        if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
            let host = hosts.entry(mac).or_insert(neighbour.ip);
            *host = neighbour.ip.min(*host);
            known.push(neighbour.ip);
        }
    }
    Ok(known)
}

/// That a kernel takes in no answer for a VIP, and what to look at.
pub(super) fn not_resolved(vip: Vip) -> String {
    let look_at = if vip.ip().is_ipv4() {
        "`nft list ruleset` (tables arp, netdev), `arptables -S`"
    } else {
        "`nft list ruleset`, `ip6tables -S`"
    };
    format!(
        "its owner answers, but this host's kernel does not take the answers in, and reaches nobody \
         at it: a filter of this host drops them? See {look_at}"
    )
}

impl Asker for Asked {
    fn interface(&self) -> InterfaceIndex {
        self.link.index
    }

    async fn prepare(&mut self, kernel: &Kernel, now: Instant) -> Result<(), Error> {
        if self.pinned.is_some_and(|at| at.elapsed() >= PIN_AGAIN) {
            self.pin(kernel).await;
        }
        if self.follow_up.is_none() && self.search.is_over(now) {
            let cached = self.cached(kernel).await?;
            self.follow_up = Some(self.follow(cached.and_then(|entry| entry.mac), now));
        }
        Ok(())
    }

    fn received(&mut self, now: Instant, frame: &Frame) {
        match &mut self.follow_up {
            Some(follow_up) => follow_up.received(frame),
            None => self.search.received(now, frame),
        }
    }

    fn poll_transmit(&self, now: Instant) -> Option<Frame> {
        match &self.follow_up {
            Some(follow_up) => follow_up.poll_transmit(now),
            None => self.search.poll_transmit(now),
        }
    }

    fn sent(&mut self, now: Instant, result: Result<(), Refusal>) {
        match (&mut self.follow_up, result) {
            (Some(follow_up), result) => follow_up.sent(now, result.is_ok()),
            (None, Ok(())) => self.search.sent(now),
            (None, Err(why)) => self.search.refused(now, why),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let followed = self.follow_up.as_ref();
        followed.is_some_and(|follow_up| follow_up.is_over(now))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        match &self.follow_up {
            Some(follow_up) => follow_up.next_deadline(now),
            None => self.search.next_deadline(now),
        }
    }

    fn frames(&self) -> u32 {
        let followed = self.follow_up.as_ref().map_or(0, FollowUp::frames);
        self.search.probes() + followed
    }
}

impl Asked {
    fn ip(&self) -> IpAddr {
        self.placed.vip.ip()
    }

    /// Pins the entry, where answers would change it and the kernel resolves it itself.
    async fn pin(&mut self, kernel: &Kernel) {
        let pinned = |entry: &Neighbour| {
            let resolved = matches!(
                entry.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
            );
            entry.ip.is_ipv4() && resolved && !entry.externally_learned
        };
        let Some(mac) = self.before.filter(pinned).and_then(|entry| entry.mac) else {
            return;
        };
        self.pinned = Some(Instant::now());
        // Whichever of the two it is in, one of them is a change; and STALE means that the kernel
        // asks again before it relies on the entry.
        for state in [NeighbourState::Reachable, NeighbourState::Stale] {
            let (interface, ip) = (self.link.index, self.ip());
            let set = kernel.set_neighbour(interface, ip, mac, state, Replace::SameMac);
            if let Err(error) = set.await {
                debug!("the answers to this check may change this host's entry: {error}");
                self.pinned = None;
                return;
            }
        }
    }

    /// The entry that counts: what the VIP's owner announced meanwhile holds; what only this check's
    /// answers did, does not.
    async fn cached(&self, kernel: &Kernel) -> Result<Option<Neighbour>, Error> {
        if self.search.heard_a_claim() {
            return Ok(kernel.neighbour(self.link.index, self.ip()).await?);
        }
        Ok(self.before)
    }

    /// What is still to be asked, where this host sends frames for the VIP to `cached`.
    fn follow(&self, cached: Option<Mac>, now: Instant) -> FollowUp {
        let (vip, enough) = (self.placed.vip, self.search.enough());
        let mut follow_up = FollowUp::new(vip, self.asker, enough, self.wait, now);
        match (self.search.verdict(cached), cached) {
            // Who asks like that wants to know of an owner that nobody contests, and no more.
            _ if self.openly => {}
            (VipVerdict::Stale, Some(cached)) if cached.is_unicast() => {
                follow_up.ask_for_vip(cached, now);
                for (owner, _) in self.search.answers() {
                    follow_up.introduce(owner, now);
                }
                follow_up.ask_for_echo(cached, now);
                follow_up.ask_for_unused(cached, &self.unused, now);
            }
            (VipVerdict::Conflict, _) => {
                for (mac, _) in self.search.answers() {
                    follow_up.introduce(mac, now);
                    follow_up.ask_for_echo(mac, now);
                    follow_up.ask_for_unused(mac, &self.unused, now);
                }
            }
            _ => {}
        }
        follow_up
    }

    async fn finding(
        self,
        kernel: &Kernel,
        hosts: &BTreeMap<Mac, IpAddr>,
    ) -> Result<Finding, Error> {
        let cached = self.cached(kernel).await?;
        let now = kernel.neighbour(self.link.index, self.ip()).await?;
        let mac = cached.and_then(|entry| entry.mac);
        self.put_back(kernel, now).await;
        let mut finding = Finding {
            placed: self.placed.clone(),
            interface: Some(self.link.name.clone()),
            also_on: Vec::new(),
            verdict: match self.search.refusal() {
                Some(_) if self.search.probes() == 0 => VipVerdict::Failed,
                _ => self.search.verdict(mac),
            },
            why: None,
            notes: Vec::new(),
            owners: self
                .search
                .answers()
                .map(|(mac, _)| (mac, hosts.get(&mac).copied()))
                .collect(),
            proxies: Vec::new(),
            frames: self.frames(),
            role: Role::Other(cached),
        };
        match (finding.verdict, self.search.refusal()) {
            (VipVerdict::Failed, Some(errno)) => {
                finding.why = Some(format!("{} takes no frames ({errno})", self.link.name));
            }
            (VipVerdict::Unproven, _) => finding.why = self.too_few_answers(),
            (VipVerdict::Stale, _) => self.judge_cached(&mut finding, mac),
            (VipVerdict::Conflict, _) => self.judge_owners(&mut finding, mac),
            (VipVerdict::Ok, _) if !self.is_taken_in(kernel, now).await? => {
                finding.verdict = VipVerdict::Unproven;
                finding.why = Some(not_resolved(self.placed.vip));
                finding.role = Role::Other(now);
            }
            _ => {}
        }
        if let Some(why) = &self.answers_itself {
            if matches!(finding.verdict, VipVerdict::Ok | VipVerdict::Stale) {
                finding.verdict = VipVerdict::Conflict;
            }
            finding.owners.insert(0, (self.asker.mac, self.asker.ip));
            finding.notes.push(why.clone());
        }
        Ok(finding)
    }

    fn too_few_answers(&self) -> Option<String> {
        // Of several that answered one after the other there is nothing to add.
        if self.search.answers().count() > 1 {
            return None;
        }
        let answers = self.search.answers();
        let heard = match answers.map(|(_, count)| count).sum::<u32>() {
            0 => "no answer".to_owned(),
            1 => "1 answer".to_owned(),
            many => format!("{many} answers"),
        };
        Some(format!(
            "{heard} to {} probes: too few to tell; ask again, with a longer --wait",
            self.search.probes()
        ))
    }

    /// This host sends to a MAC that answered no broadcast.
    fn judge_cached(&self, finding: &mut Finding, cached: Option<Mac>) {
        let (Some(follow_up), Some(cached)) = (&self.follow_up, cached) else {
            return;
        };
        if follow_up.is_proxy(cached) {
            finding.proxies.push(cached);
            return;
        }
        let itself = match follow_up.answered_for_vip(cached) {
            Some(by) if by == cached => true,
            // By another card; or a switch said what it knows. Only who has the VIP echoes.
            Some(_) => follow_up.echoed(cached).is_some(),
            None => false,
        };
        if itself {
            finding.verdict = VipVerdict::Ok;
            let owner = finding.owners.first().map(|(mac, _)| mac.to_string());
            finding.why = Some(format!(
                "it is answered by {}; {cached}, to which this host sends, answers for it when it \
                 is asked itself, as a bond in mode balance-alb does",
                owner.unwrap_or_default()
            ));
        }
    }

    /// Several MACs answer: two hosts, or one by two cards, or a proxy.
    fn judge_owners(&self, finding: &mut Finding, cached: Option<Mac>) {
        let Some(follow_up) = &self.follow_up else {
            return;
        };
        let owners = || finding.owners.iter().map(|(mac, _)| *mac);
        finding.proxies = owners().filter(|mac| follow_up.is_proxy(*mac)).collect();
        let echoes: Vec<_> = owners().map(|mac| follow_up.echoed(mac)).collect();
        // Through whichever card the question comes in, an IPv4 answer leaves by the same. (An IPv6
        // one leaves by the card that it came in by, and tells nothing.)
        let one_host = echoes.iter().all(|by| by.is_some() && *by == echoes[0]);
        if one_host && finding.proxies.is_empty() && self.ip().is_ipv4() {
            let sends_there = cached.is_none_or(|cached| owners().any(|owner| owner == cached));
            finding.verdict = if sends_there {
                VipVerdict::Ok
            } else {
                VipVerdict::Stale
            };
            let all: Vec<_> = owners().map(|mac| mac.to_string()).collect();
            finding.notes.push(format!(
                "{} are interfaces of one host, which all answer for it; \
                 `sysctl -w net.ipv4.conf.all.arp_ignore=1` there makes one answer",
                all.join(" and ")
            ));
        }
    }

    /// Whether this host's kernel takes the answers in, as far as it can be told: it does where it
    /// has no entry, or one with a MAC.
    async fn is_taken_in(&self, kernel: &Kernel, now: Option<Neighbour>) -> Result<bool, Error> {
        let unresolved = |entry: Neighbour| {
            let waits = matches!(
                entry.state,
                NeighbourState::Failed | NeighbourState::Incomplete
            );
            waits && entry.mac.is_none()
        };
        let Some(entry) = now.filter(|entry| unresolved(*entry)) else {
            return Ok(true);
        };
        // An IPv6 entry that has FAILED takes no answer in until the kernel asks again.
        if entry.state == NeighbourState::Failed && self.ip().is_ipv6() {
            let anew = kernel.resolve(self.link.index, self.ip(), RESOLVED_WITHIN);
            return match anew.await {
                Ok(entry) => Ok(entry.is_some_and(|entry| entry.mac.is_some())),
                Err(error) => {
                    debug!("whether its entry can be resolved is not known: {error}");
                    Ok(false)
                }
            };
        }
        Ok(false)
    }

    /// IPv6 has no `locktime`: the kernel took the answers in. Where several hosts answered, this
    /// would make a good entry a bad one by chance, and so it gets the MAC back that it had.
    async fn put_back(&self, kernel: &Kernel, now: Option<Neighbour>) {
        let before = self.before.and_then(|entry| entry.mac);
        let (Some(before), Some(now)) = (before, now.and_then(|entry| entry.mac)) else {
            return;
        };
        let itself = |mac| {
            let follow_up = self.follow_up.as_ref();
            follow_up.is_some_and(|follow_up| follow_up.answered_for_vip(mac) == Some(mac))
        };
        let answered = |mac| self.search.answers().any(|(owner, _)| owner == mac) || itself(mac);
        if self.ip().is_ipv6()
            && before != now
            && answered(before)
            && answered(now)
            && !self.search.heard_a_claim()
        {
            let (interface, ip) = (self.link.index, self.ip());
            let state = NeighbourState::Stale;
            let set = kernel.set_neighbour(interface, ip, before, state, Replace::AnyMac);
            if let Err(error) = set.await {
                debug!("{ip}: the entry was changed by the answers, and stays: {error}");
            }
        }
    }
}
