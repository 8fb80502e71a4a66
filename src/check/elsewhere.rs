//! Asking for VIPs that are not here. This kernel's entries stay as they are meanwhile, and are
//! compared with the answers.

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

use super::{Finding, Places, RESOLVED_WITHIN, Request, Role, not_asked};
use crate::answering;
use crate::driver::Driver;
use crate::error::Error;
use crate::kernel::{Kernel, Replace};

/// An entry is set anew before `locktime` (1 s) is over.
const PIN_AGAIN: Duration = Duration::from_millis(600);

/// One VIP that is being asked for.
struct Asked {
    placed: PlacedVip,
    link: Link,
    /// Why this host's own kernel answers for the VIP, too, though it does not count as held here.
    answers_itself: Option<String>,
    /// The kernel's entry before anything was asked.
    before: Option<Neighbour>,
    /// Whether its entry is kept from taking in the answers that this host asks for.
    pinned: bool,
}

/// Asks for VIPs that are not here.
pub(super) async fn ask(
    kernel: &Kernel,
    places: &Places,
    vips: &[PlacedVip],
    request: &Request,
) -> Result<Vec<Finding>, Error> {
    let mut driver = Driver::open()?;
    let mut searches = OwnerSearches::new(Bucket::new(request.rate, Instant::now()));
    let mut findings = Vec::new();
    let mut asked = Vec::new();
    let mut hosts = BTreeMap::new();
    let mut neighbours: BTreeMap<InterfaceIndex, Vec<IpAddr>> = BTreeMap::new();
    let all_vips: HashSet<_> = request.vips.iter().map(|placed| placed.vip.ip()).collect();
    for placed in vips {
        let link = match places.link_to(kernel, placed).await? {
            Ok(link) => link,
            Err(why) => {
                let (only, role) = (places.only.as_ref(), Role::Other(None));
                let failed = VipVerdict::Failed;
                findings.push(not_asked(placed.clone(), only, failed, &why, role));
                continue;
            }
        };
        if let Entry::Vacant(none) = neighbours.entry(link.index) {
            none.insert(name_hosts(&mut hosts, kernel, link.index, &all_vips).await?);
        }
        // The link has a MAC, or it would be unlike Ethernet.
        let Some(mac) = link.mac else { continue };
        let from = asked_from(places, link, mac, placed.vip, &all_vips);
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
        let mut one = Asked {
            placed: placed.clone(),
            link: link.clone(),
            answers_itself: answers_itself(places, placed, link),
            before: kernel.neighbour(link.index, placed.vip.ip()).await?,
            pinned: true,
        };
        one.pin(kernel).await;
        searches.add(link, OwnerSearch::new(subject, Instant::now()));
        asked.push(one);
    }
    drive(kernel, &mut driver, &mut asked, &mut searches).await?;
    // Who asks openly wants to know of an owner that nobody contests, and no more.
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

/// Drives the searches to their end, and keeps the entries pinned until then.
async fn drive(
    kernel: &Kernel,
    driver: &mut Driver,
    asked: &mut [Asked],
    searches: &mut OwnerSearches,
) -> Result<(), Error> {
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

/// Where a VIP on a link is asked from: an address of this host there that is no VIP, one of the
/// VIP's subnet if there is one.
pub(super) fn asked_from(
    places: &Places,
    link: &Link,
    mac: Mac,
    vip: Vip,
    all_vips: &HashSet<IpAddr>,
) -> AskedFrom {
    // Whatever is left of it tells runs apart well enough.
    let [.., high, low] = std::process::id().to_be_bytes();
    AskedFrom {
        mac,
        ip: places.host.asking_address(link.index, vip, all_vips),
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

impl Asked {
    fn ip(&self) -> IpAddr {
        self.placed.vip.ip()
    }

    /// Pins the entry, where answers would change it and the kernel resolves it itself.
    async fn pin(&mut self, kernel: &Kernel) {
        let resolved = |entry: &Neighbour| {
            entry.ip.is_ipv4() && entry.is_resolved() && !entry.externally_learned
        };
        let mac = self.before.filter(resolved).and_then(|entry| entry.mac);
        let Some(mac) = mac.filter(|_| self.pinned) else {
            return;
        };
        // Whichever of the two it is in, one of them is a change; and STALE means that the kernel
        // asks again before it relies on the entry.
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

    /// The entry that counts: what the VIP's owner announced meanwhile holds; what only this check's
    /// answers did, does not.
    async fn cached(
        &self,
        kernel: &Kernel,
        search: &OwnerSearch,
    ) -> Result<Option<Neighbour>, Error> {
        if search.heard_a_claim() {
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
        let mut finding = Finding {
            placed: self.placed.clone(),
            interface: Some(self.link.name.clone()),
            also_on: Vec::new(),
            verdict: match search.refusal() {
                Some(_) if search.probes() == 0 => VipVerdict::Failed,
                _ => search.verdict(mac),
            },
            why: None,
            notes: Vec::new(),
            owners: search
                .answers()
                .map(|(mac, _)| (mac, hosts.get(&mac).copied()))
                .collect(),
            proxies: Vec::new(),
            frames: search.frames(),
            role: Role::Other(cached),
        };
        match (finding.verdict, search.refusal()) {
            (VipVerdict::Failed, Some(errno)) => {
                finding.why = Some(format!("{} takes no frames ({errno})", self.link.name));
            }
            (VipVerdict::Unproven, _) => finding.why = too_few_answers(search),
            (VipVerdict::Stale, _) => judge_cached(search, &mut finding, mac),
            (VipVerdict::Conflict, _) => self.judge_owners(search, &mut finding, mac),
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
            finding
                .owners
                .insert(0, (search.from().mac, search.from().ip));
            finding.notes.push(why.clone());
        }
        Ok(finding)
    }

    /// Several MACs answer: two hosts, or one by two cards, or a proxy.
    fn judge_owners(&self, search: &OwnerSearch, finding: &mut Finding, cached: Option<Mac>) {
        let owners = || finding.owners.iter().map(|(mac, _)| *mac);
        finding.proxies = owners().filter(|mac| search.is_proxy(*mac)).collect();
        let echoes: Vec<_> = owners().map(|mac| search.echoed(mac)).collect();
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
            && !search.heard_a_claim()
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
    // Of several that answered one after the other there is nothing to add.
    if search.answers().count() > 1 {
        return None;
    }
    let answers = search.answers();
    let heard = match answers.map(|(_, count)| count).sum::<u32>() {
        0 => "no answer".to_owned(),
        1 => "1 answer".to_owned(),
        many => format!("{many} answers"),
    };
    Some(format!(
        "{heard} to {} probes: too few to tell; ask again, with a longer --wait",
        search.probes()
    ))
}

/// This host sends to a MAC that answered no broadcast.
fn judge_cached(search: &OwnerSearch, finding: &mut Finding, cached: Option<Mac>) {
    let Some(cached) = cached else { return };
    if search.is_proxy(cached) {
        finding.proxies.push(cached);
        return;
    }
    let itself = match search.answered_for_vip(cached) {
        Some(by) if by == cached => true,
        // By another card; or a switch said what it knows. Only who has the VIP echoes.
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
