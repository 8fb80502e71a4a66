//! The shell around inquiries: it reads this kernel's entries, keeps them as they are while others
//! are asked, sends, and hands over what comes in.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::future;
use std::net::IpAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use log::{debug, trace};
use tokio::time::sleep_until;

use super::{Finding, Inquiry, Order, Places, Role, Verdict, not_asked};
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::announce::{Bucket, Surroundings, asking_address};
use crate::error::Error;
use crate::host::PlacedVip;
use crate::kernel::{Address, Kernel, Link, Neighbour, NeighbourState, Over};
use crate::port::Port;
use crate::wire::Frame;

/// An entry is set anew before `locktime` (1 s) is over.
const PIN_AGAIN: Duration = Duration::from_millis(600);

/// One VIP that is being asked for.
struct Asked {
    vip: Vip,
    link: Link,
    inquiry: Inquiry,
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
    order: &Order,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut asked = Vec::new();
    let mut ports = BTreeMap::new();
    let mut hosts = BTreeMap::new();
    let all_vips: HashSet<_> = order.vips.iter().map(|placed| placed.vip.ip()).collect();
    for placed in vips {
        let vip = &placed.vip;
        let link = match places.link_to(kernel, placed).await? {
            Ok(link) => link,
            Err(why) => {
                let (only, failed) = (places.only.as_ref(), Verdict::Failed);
                findings.push(not_asked(*vip, only, failed, &why, Role::Other(None)));
                continue;
            }
        };
        if let Entry::Vacant(none) = ports.entry(link.index) {
            none.insert(Port::open(link)?).listen(link)?;
            name_hosts(&mut hosts, kernel, link.index, &all_vips).await?;
        }
        let mut around = Surroundings::of(link.clone());
        let here = |own: &&Address| own.interface == link.index;
        around.addresses = places.host.addresses.iter().filter(here).copied().collect();
        // The link has a MAC, or it would be unlike Ethernet.
        let Some(mac) = link.mac else { continue };
        let from = asking_address(&all_vips, &around);
        if vip.ip().is_ipv6() && from.is_none() {
            debug!(
                "{vip}: {} has no IPv6 address of its own to ask from: the answers go to all nodes",
                link.name
            );
        }
        let before = kernel.neighbour(link.index, vip.ip()).await?;
        let mut one = Asked {
            vip: *vip,
            link: link.clone(),
            inquiry: Inquiry::new(
                *vip,
                mac,
                from,
                places.host.macs().collect(),
                order.wait,
                Instant::now(),
            ),
            before,
            pinned: None,
        };
        one.pin(kernel).await;
        asked.push(one);
    }
    let bucket = Bucket::new(order.rate, Instant::now());
    drive(kernel, &mut asked, &ports, bucket).await?;
    for one in asked {
        findings.push(one.finding(kernel, &hosts).await?);
    }
    Ok(findings)
}

/// The hosts that have a MAC, by the neighbour table of an interface. A VIP is no host.
async fn name_hosts(
    hosts: &mut BTreeMap<Mac, IpAddr>,
    kernel: &Kernel,
    interface: InterfaceIndex,
    vips: &HashSet<IpAddr>,
) -> Result<(), Error> {
    for neighbour in kernel.neighbours(interface).await? {
        let is_vip = vips.contains(&neighbour.ip);
        if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
            let host = hosts.entry(mac).or_insert(neighbour.ip);
            *host = neighbour.ip.min(*host);
        }
    }
    Ok(())
}

async fn drive(
    kernel: &Kernel,
    asked: &mut [Asked],
    ports: &BTreeMap<InterfaceIndex, Port>,
    mut bucket: Bucket,
) -> Result<(), Error> {
    loop {
        let now = Instant::now();
        for (interface, port) in ports {
            while let Some(octets) = port.receive() {
                let Some(frame) = Frame::parse(&octets) else {
                    continue;
                };
                trace!("interface {}: received {frame:?}", interface.0);
                for one in asked.iter_mut().filter(|one| one.link.index == *interface) {
                    one.inquiry.received(now, &frame);
                }
            }
        }
        if asked.iter().all(|one| one.inquiry.is_over(now)) {
            return Ok(());
        }
        for one in asked.iter_mut() {
            one.pin_again(kernel).await;
            let Some(frame) = one.inquiry.poll_transmit(now) else {
                continue;
            };
            if !bucket.take(now) {
                break;
            }
            match ports[&one.link.index].send(&frame.to_bytes()) {
                Ok(()) => {
                    trace!("interface {}: sent {frame:?}", one.link.index.0);
                    one.inquiry.sent(now);
                }
                Err(errno) => one.inquiry.refused(now, errno),
            }
        }
        // Who asks first is first in line for the next token, too.
        asked.sort_by_key(|one| one.inquiry.probes());
        let next = |one: &Asked| {
            let due = one.inquiry.next_deadline(now);
            match one.inquiry.poll_transmit(now) {
                Some(_) => due.max(bucket.ready_at()),
                None => due,
            }
        };
        let open = asked.iter().filter(|one| !one.inquiry.is_over(now));
        let deadline = open.map(next).min().unwrap_or(now);
        tokio::select! {
            readable = readable(ports) => readable.map_err(Error::Runtime)?,
            () = sleep_until(deadline.into()) => {}
        }
    }
}

async fn readable(ports: &BTreeMap<InterfaceIndex, Port>) -> std::io::Result<()> {
    future::poll_fn(|context| {
        let mut any = Poll::Pending;
        for port in ports.values() {
            let one = port.poll_readable(context);
            any = if one.is_ready() { one } else { any };
        }
        any
    })
    .await
}

impl Asked {
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
            let (interface, ip) = (self.link.index, self.vip.ip());
            let set = kernel.set_neighbour(interface, ip, mac, state, Over::SameMac);
            if let Err(error) = set.await {
                debug!("the answers to this check may change this host's entry: {error}");
                self.pinned = None;
                return;
            }
        }
    }

    async fn pin_again(&mut self, kernel: &Kernel) {
        if self.pinned.is_some_and(|at| at.elapsed() >= PIN_AGAIN) {
            self.pin(kernel).await;
        }
    }

    async fn finding(
        self,
        kernel: &Kernel,
        hosts: &BTreeMap<Mac, IpAddr>,
    ) -> Result<Finding, Error> {
        let (interface, ip) = (self.link.index, self.vip.ip());
        let now = kernel.neighbour(interface, ip).await?;
        // What its owner announced meanwhile holds; what only this check's answers did, does not.
        let cached = if self.inquiry.heard_a_claim() {
            now
        } else {
            self.before
        };
        let mac = cached.and_then(|entry| entry.mac);
        let verdict = match self.inquiry.refusal() {
            Some(_) if self.inquiry.probes() == 0 => Verdict::Failed,
            _ => self.inquiry.verdict(mac),
        };
        self.put_back(kernel, now).await;
        let why = match (verdict, self.inquiry.refusal()) {
            (Verdict::Failed, Some(errno)) => {
                Some(format!("{} takes no frames ({errno})", self.link.name))
            }
            // Of several that answered one after the other there is nothing to add.
            (Verdict::Unproven, _) if self.inquiry.answers().count() < 2 => {
                let answers = self.inquiry.answers();
                let heard = match answers.map(|(_, count)| count).sum::<u32>() {
                    0 => "no answer".to_owned(),
                    1 => "1 answer".to_owned(),
                    many => format!("{many} answers"),
                };
                Some(format!(
                    "{heard} to {} probes: too few to tell; ask again, with a longer --wait",
                    self.inquiry.probes()
                ))
            }
            _ => None,
        };
        let owners = self.inquiry.answers();
        Ok(Finding {
            vip: self.vip,
            interface: Some(self.link.name.clone()),
            also_on: Vec::new(),
            verdict,
            why,
            owners: owners
                .map(|(mac, _)| (mac, hosts.get(&mac).copied()))
                .collect(),
            frames: self.inquiry.probes(),
            role: Role::Other(cached),
        })
    }

    /// IPv6 has no `locktime`: the kernel took the answers in. Where several hosts answered, this
    /// would make a good entry a bad one by chance, and so it gets the MAC back that it had.
    async fn put_back(&self, kernel: &Kernel, now: Option<Neighbour>) {
        let before = self.before.and_then(|entry| entry.mac);
        let (Some(before), Some(now)) = (before, now.and_then(|entry| entry.mac)) else {
            return;
        };
        let answered = |mac| self.inquiry.answers().any(|(owner, _)| owner == mac);
        if self.vip.ip().is_ipv6()
            && before != now
            && answered(before)
            && answered(now)
            && !self.inquiry.heard_a_claim()
        {
            let (interface, ip) = (self.link.index, self.vip.ip());
            let state = NeighbourState::Stale;
            let set = kernel.set_neighbour(interface, ip, before, state, Over::AnyMac);
            if let Err(error) = set.await {
                debug!("{ip}: the entry was changed by the answers, and stays: {error}");
            }
        }
    }
}
