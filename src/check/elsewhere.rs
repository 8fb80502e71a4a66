//! Searches for VIPs that are not here, and compares the answers with this kernel's entries, which stay
//! unchanged meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::debug;
use tokio::time::sleep;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::ask::{
    AskedFrom, Bucket, OwnerSearch, OwnerSearches, Subject, VipVerdict, unused_near,
};
use vipherald_core::host::{Link, Neighbour, NeighbourState, PlacedVip};

use super::{Finding, Places, RESOLVED_WITHIN, Request, Role};
use crate::announce::seed;
use crate::answering;
use crate::driver::Driver;
use crate::error::Error;
use crate::kernel::{Kernel, Replace};

/// Pins an entry again before `locktime` (1 s) is over.
const PIN_AGAIN: Duration = Duration::from_millis(600);

/// A VIP under search.
struct Asked {
    placed: PlacedVip,
    link: Link,
    /// Why this host's own kernel answers for the VIP, too, without holding it.
    answers_itself: Option<String>,
    /// The kernel's entry before the first probe.
    before: Option<Neighbour>,
    /// Whether to keep answers to this check out of the entry.
    pinned: bool,
}

pub(super) async fn ask(
    kernel: &Kernel,
    places: &Places,
    vips: &[PlacedVip],
    request: &Request,
) -> Result<Vec<Finding>, Error> {
    let mut driver = Driver::open(request.arp_rate)?;
    let mut searches = OwnerSearches::new(Bucket::new(request.rate, Instant::now()));
    let mut findings = Vec::new();
    let mut asked = Vec::new();
    let mut hosts = BTreeMap::new();
    let mut neighbours: BTreeMap<InterfaceIndex, Vec<IpAddr>> = BTreeMap::new();
    let all_vips = &request.all_vips;
    for placed in vips {
        let link = match places.link_to(kernel, placed).await? {
            Ok(link) => link,
            Err(why) => {
                let (only, failed) = (places.only.as_ref(), (VipVerdict::Failed, Some(why)));
                findings.push(Finding::new(
                    placed.clone(),
                    only,
                    failed,
                    Role::Other(None),
                ));
                continue;
            }
        };
        if let Entry::Vacant(none) = neighbours.entry(link.index) {
            none.insert(name_hosts(&mut hosts, kernel, link.index, all_vips).await?);
        }
        // The link has a MAC, or it would be unlike Ethernet.
        let Some(mac) = link.mac else { continue };
        let from = asked_from(places, link, mac, placed.vip, all_vips);
        if placed.vip.ip().is_ipv6() && from.ip.is_none() {
            debug!(
                "{}: {} has no IPv6 address of its own to ask from: the answers go to all nodes",
                placed.vip, link.name
            );
        }
        let known = |ip| all_vips.contains(&ip) || neighbours[&link.index].contains(&ip);
        let subject = Subject {
            vip: placed.vip,
            from,
            probes_from_address: request.openly,
            own_macs: places.host.macs().collect(),
            unused: unused(places, placed.vip, known),
            wait: request.wait,
        };
        asked.push(Asked {
            placed: placed.clone(),
            link: link.clone(),
            answers_itself: answers_itself(places, placed, link),
            before: kernel.neighbour(link.index, placed.vip.ip()).await?,
            pinned: true,
        });
        searches.add(link, OwnerSearch::new(subject, Instant::now()));
    }
    drive(kernel, &mut driver, &mut asked, &mut searches).await?;
    // An open check only wants to know whether there is one owner.
    if !request.openly {
        for (one, search) in asked.iter().zip(searches.iter_mut()) {
            let cached = one.cached(kernel, search).await?;
            search.identify(cached.and_then(|entry| entry.mac), Instant::now());
        }
        drive(kernel, &mut driver, &mut asked, &mut searches).await?;
    }
    for (one, search) in asked.iter().zip(searches.iter()) {
        findings.push(one.finding(kernel, search, &hosts).await?);
    }
    Ok(findings)
}

/// Runs the searches to their end, and keeps the entries pinned until then.
async fn drive(
    kernel: &Kernel,
    driver: &mut Driver,
    asked: &mut [Asked],
    searches: &mut OwnerSearches,
) -> Result<(), Error> {
    for one in &mut *asked {
        one.pin(kernel).await;
    }
    let keep_pinned = async {
        loop {
            sleep(PIN_AGAIN).await;
            for one in &mut *asked {
                one.pin(kernel).await;
            }
        }
    };
    tokio::select! {
        done = driver.run(searches) => done,
        () = keep_pinned => Ok(()),
    }
}

/// The source of questions about a VIP on a link: an address of this host there, not a VIP, in the
/// VIP's subnet if possible.
pub(super) fn asked_from(
    places: &Places,
    link: &Link,
    mac: Mac,
    vip: Vip,
    all_vips: &HashSet<IpAddr>,
) -> AskedFrom {
    AskedFrom {
        mac,
        ip: places.host.asking_address(link.index, vip, all_vips),
        seed: seed(),
    }
}

/// Unused addresses of a VIP's subnet.
pub(super) fn unused(places: &Places, vip: Vip, known: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let own = &places.host.addresses;
    let subnets = own.iter().map(Prefix::of);
    let subnet = subnets
        .filter(|subnet| !subnet.is_host())
        .find(|subnet| subnet.contains(vip.ip()));
    // Except on links of two hosts, hardly any subnet is smaller.
    let small = if vip.ip().is_ipv4() { 24 } else { 64 };
    let subnet = subnet.unwrap_or_else(|| Prefix::new(vip.ip(), small));
    unused_near(vip, subnet, |ip| {
        known(ip) || own.iter().any(|own| own.ip == ip)
    })
}

/// Why this host's kernel answers on this link for a VIP that it has elsewhere: an LVS real server
/// without `arp_ignore`.
fn answers_itself(places: &Places, placed: &PlacedVip, link: &Link) -> Option<String> {
    if placed.vip.ip().is_ipv6() || !answering::answers_for_others(&link.name) {
        return None;
    }
    let elsewhere = places.host.places_of(&PlacedVip::anywhere(placed.vip));
    // The kernel ignores addresses of interfaces that are down.
    let name = &elsewhere.into_iter().find(|link| link.up)?.name;
    Some(format!(
        "this host has it on {name}, and its kernel answers for it on {} as well: \
         `sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`",
        link.name
    ))
}

/// Adds an interface's neighbours to `hosts`, and returns their addresses. Ignores VIPs.
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

/// Says that this host's kernel accepts no answer for a VIP, and what to inspect.
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

impl Asked {
    fn ip(&self) -> IpAddr {
        self.placed.vip.ip()
    }

    /// Pins an entry that the kernel resolves itself and answers would change.
    async fn pin(&mut self, kernel: &Kernel) {
        let resolved = |entry: &Neighbour| {
            entry.ip.is_ipv4() && entry.is_resolved() && !entry.externally_learned
        };
        let mac = self.before.filter(resolved).and_then(|entry| entry.mac);
        let Some(mac) = mac.filter(|_| self.pinned) else {
            return;
        };
        // From any state, one of the two is a change. After STALE the kernel asks again before it
        // relies on the entry.
        for state in [NeighbourState::Reachable, NeighbourState::Stale] {
            let (interface, ip) = (self.link.index, self.ip());
            let set = kernel.set_neighbour(interface, ip, mac, state, Replace::SameMac);
            if let Err(error) = set.await {
                debug!("the answers to this check may change this host's entry: {error}");
                self.pinned = false;
                return;
            }
        }
    }

    /// The entry to compare: the current one if the owner announced the VIP meanwhile; else the one from
    /// before, without the effect of this check's answers.
    async fn cached(
        &self,
        kernel: &Kernel,
        search: &OwnerSearch,
    ) -> Result<Option<Neighbour>, Error> {
        if search.has_seen_claim() {
            return Ok(kernel.neighbour(self.link.index, self.ip()).await?);
        }
        Ok(self.before)
    }

    async fn finding(
        &self,
        kernel: &Kernel,
        search: &OwnerSearch,
        hosts: &BTreeMap<Mac, IpAddr>,
    ) -> Result<Finding, Error> {
        let cached = self.cached(kernel, search).await?;
        let now = kernel.neighbour(self.link.index, self.ip()).await?;
        let mac = cached.and_then(|entry| entry.mac);
        self.put_back(kernel, search, now).await;
        let verdict = match search.refusal() {
            Some(_) if search.probes() == 0 => VipVerdict::Failed,
            _ => search.verdict(mac),
        };
        let (placed, link, role) = (self.placed.clone(), Some(&self.link), Role::Other(cached));
        let mut finding = Finding::new(placed, link, (verdict, None), role);
        finding.frames = search.frames();
        let answers = search.answers();
        finding.owners = answers
            .map(|(mac, _)| (mac, hosts.get(&mac).copied()))
            .collect();
        match (finding.verdict, search.refusal()) {
            (VipVerdict::Failed, Some(errno)) => {
                finding.why = Some(format!("{} takes no frames ({errno})", self.link.name));
            }
            (VipVerdict::Unproven, _) => {
                let ended = search.ended();
                let ended = ended.map(|why| format!("{} {why}: ask again", self.link.name));
                finding.why = ended.or_else(|| too_few_answers(search));
            }
            (VipVerdict::Stale, _) => examine_cached(search, &mut finding, mac),
            (VipVerdict::Conflict, _) => self.examine_owners(search, &mut finding, mac),
            (VipVerdict::Ok, _) if !self.is_accepted(kernel, now).await? => {
                finding.verdict = VipVerdict::Unproven;
                finding.why = Some(not_resolved(self.placed.vip));
                finding.role = Role::Other(now);
            }
            _ => {}
        }
        if search.more_answers() > 0 {
            let more = search.more_answers();
            let note =
                format!("{more} more answers by other MACs than these: a loop or an attack?");
            finding.notes.push(note);
        }
        if let Some(why) = &self.answers_itself {
            if matches!(finding.verdict, VipVerdict::Ok | VipVerdict::Stale) {
                finding.verdict = VipVerdict::Conflict;
            }
            finding
                .owners
                .insert(0, (search.from().mac, search.from().ip));
            finding.notes.push(why.clone());
        }
        Ok(finding)
    }

    /// Several MACs answer: those of two hosts, of two cards of one host, or of a proxy.
    fn examine_owners(&self, search: &OwnerSearch, finding: &mut Finding, cached: Option<Mac>) {
        let owners = || finding.owners.iter().map(|(mac, _)| *mac);
        finding.proxies = owners().filter(|mac| search.is_proxy(*mac)).collect();
        let echoes: Vec<_> = owners().map(|mac| search.echoed(mac)).collect();
        // One host sends all its IPv4 replies through the same card, whichever received the request.
        // (An IPv6 reply leaves by the card that received the request, and proves nothing.)
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

    /// Whether this host's kernel accepts the answers: it does if it has no entry, or one with a MAC.
    async fn is_accepted(&self, kernel: &Kernel, now: Option<Neighbour>) -> Result<bool, Error> {
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
        // A FAILED IPv6 entry accepts no answer until the kernel asks again.
        if entry.state == NeighbourState::Failed && self.ip().is_ipv6() {
            let resolved = kernel.resolve(self.link.index, self.ip(), RESOLVED_WITHIN);
            return match resolved.await {
                Ok(entry) => Ok(entry.is_some_and(|entry| entry.mac.is_some())),
                Err(error) => {
                    debug!("whether its entry can be resolved is not known: {error}");
                    Ok(false)
                }
            };
        }
        Ok(false)
    }

    /// Restores the entry's MAC. IPv6 has no `locktime`, so the kernel accepted the answers: if several
    /// hosts answered, chance could make a right entry wrong.
    async fn put_back(&self, kernel: &Kernel, search: &OwnerSearch, now: Option<Neighbour>) {
        let before = self.before.and_then(|entry| entry.mac);
        let (Some(before), Some(now)) = (before, now.and_then(|entry| entry.mac)) else {
            return;
        };
        let itself = |mac| search.answered_for_vip(mac) == Some(mac);
        let answered = |mac| search.answers().any(|(owner, _)| owner == mac) || itself(mac);
        if self.ip().is_ipv6()
            && before != now
            && answered(before)
            && answered(now)
            && !search.has_seen_claim()
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

fn too_few_answers(search: &OwnerSearch) -> Option<String> {
    // Several owners answered one after the other: nothing to add.
    if search.answers().count() > 1 {
        return None;
    }
    let answers = search.answers();
    let count = match answers.map(|(_, count)| count).sum::<u32>() {
        0 => "no answer".to_owned(),
        1 => "1 answer".to_owned(),
        many => format!("{many} answers"),
    };
    Some(format!(
        "{count} to {} probes: too few to tell; ask again, with a longer --wait",
        search.probes()
    ))
}

/// This host sends to a MAC that answered no broadcast: it may still be an owner's.
fn examine_cached(search: &OwnerSearch, finding: &mut Finding, cached: Option<Mac>) {
    let Some(cached) = cached else { return };
    if search.is_proxy(cached) {
        finding.proxies.push(cached);
        return;
    }
    let itself = match search.answered_for_vip(cached) {
        Some(by) if by == cached => true,
        // Another card answered, or a switch with ARP suppression. Only a host with the VIP echoes.
        Some(_) => search.echoed(cached).is_some(),
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
