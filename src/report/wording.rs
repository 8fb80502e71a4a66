//! The words for a VIP and its peers, while a run goes on and at its end.

use std::fmt;
use std::net::IpAddr;

use log::Level;
use vipherald_core::address::Mac;
use vipherald_core::announce::{Announcement, Claim};
use vipherald_core::ask::{Confirmation, Peer, PeerVerdict, Source};

use super::{Line, list, proxy_off, show_proxies};
use crate::journal::{Kind, Notice};

/// What may be the cause if nobody is heard.
pub(super) const SILENCE: &str = ": is the switch port in the right VLAN, does it forward (spanning tree), and is anybody \
     there?";

/// No frame of another host has come in on the interface of these VIPs so far.
pub(super) fn path_silent(claims: &[&Claim]) -> Option<Line> {
    let [first, ..] = claims else { return None };
    let vips: Vec<_> = claims.iter().map(|claim| claim.vip).collect();
    let (name, notice) = (&first.link.name, Notice::new(Kind::PathSilent));
    let text = format!(
        "{} on {name}: no frame of any other host has come in yet, so nobody is known to follow; \
         announced until one does{SILENCE}",
        list(&vips)
    );
    let notice = notice.with_each("VIP", &vips).with("INTERFACE", name);
    Some(Line::new(Level::Warn, text).of(notice))
}

/// Other hosts answer for a VIP. They may be proxies.
pub(super) fn conflict(core: &Announcement, claim: &Claim, by: &[Mac], are_proxies: bool) -> Line {
    let (vip, name) = (claim.vip, &claim.link.name);
    let what = match are_proxies {
        true => format!(
            ", and for addresses that nobody has: a proxy, no second owner; on it switch that off \
             for this link ({}), or route {vip} to this link",
            proxy_off(vip)
        ),
        false => format!(
            "; on that host run `vipherald release {vip}` if its keepalived is dead, or find out \
             why both are master; if it does not have the VIP, see whether it is a proxy (`{}`)",
            show_proxies(vip)
        ),
    };
    let owners = hosts(core, by);
    let text = format!("{vip} on {name}: conflict: {owners} answers for it, too{what}");
    Line::new(Level::Error, text).of(about(claim, Kind::Conflict).with_each("MAC", by))
}

/// Claims by more hosts than are counted one by one: one event.
pub(super) fn flood(core: &Announcement, claim: &Claim, more: u64) -> Line {
    // A rival is among them, with an entry of its own.
    let mut known: Vec<_> = claim.conflicts().collect();
    known.sort_by_key(|mac| core.host_of(*mac).is_none());
    let (level, who) = match known.is_empty() {
        true => (Level::Warn, "hosts that are gone".to_owned()),
        false => (Level::Error, hosts(core, &known)),
    };
    let (vip, name) = (claim.vip, &claim.link.name);
    let text = format!(
        "{vip} on {name}: conflict: a flood of claims, by {who} and, {more} times, by other MACs: a \
         loop or an attack?"
    );
    Line::new(level, text).of(about(claim, Kind::Conflict).with_each("MAC", known))
}

/// Something drops the frames from a VIP.
pub(super) fn blocked(claim: &Claim) -> Line {
    let (vip, name) = (claim.vip, &claim.link.name);
    let text = format!(
        "{vip} on {name}: blocked: several hosts answer this host's own address, but none ever a \
         frame from the VIP: something on the way out drops these frames. Does port security of the \
         cloud or hypervisor know the VIP (allowed address pairs), or MAC/IP binding, Dynamic ARP \
         Inspection, or an egress filter?"
    );
    Line::new(Level::Warn, text).of(about(claim, Kind::Blocked))
}

/// A peer sends to a wrong MAC.
pub(super) fn stale(claim: &Claim, confirmation: &Confirmation) -> Line {
    let (vip, name, who) = (claim.vip, &claim.link.name, Who(&confirmation.peer));
    let cure =
        format!("on it run `vipherald purge --permanent {vip}` or `ip neigh del {vip} dev …`");
    let text = match (confirmation.forwarded_by, confirmation.acknowledged) {
        (Some(by), _) => format!(
            "{vip} on {name}: {who} is stale: its answers to the VIP go to {by}, which forwards \
             them to this host; {cure}"
        ),
        // It took the request in, and its kernel would have changed the entry.
        (None, Some(_)) => format!(
            "{vip} on {name}: {who} is stale: it answers this host and took the VIP's ARP or ND in, \
             but does not answer the VIP: an entry set by hand is wrong ({cure}), or a filter on it \
             does not know the VIP"
        ),
        (None, None) => format!(
            "{vip} on {name}: {who} is stale: it answers this host but not the VIP, so its entry is \
             wrong; {cure}"
        ),
    };
    Line::new(Level::Warn, text).of(about_peer(claim, confirmation, Kind::StalePeer))
}

/// A peer that has to follow answers nothing. If it is the only one of the instance's other `nodes` that
/// does not answer, this host has its VIPs because it died.
pub(super) fn silent(claim: &Claim, confirmation: &Confirmation, nodes: &[IpAddr]) -> Line {
    let (vip, name, peer) = (claim.vip, &claim.link.name, &confirmation.peer);
    let is_silent_node = |one: &&Confirmation| {
        let verdict = claim.verdict_of(one);
        nodes.contains(&one.peer.ip)
            && matches!(verdict, PeerVerdict::Silent | PeerVerdict::Unasked)
    };
    let is_dead = nodes.contains(&peer.ip) && claim.peers().filter(is_silent_node).count() == 1;
    let what = match peer.source {
        Source::Gateway => "the gateway",
        Source::Configured => "the configured peer",
        Source::Learned | Source::Census | Source::Observed | Source::Reported | Source::Subnet => {
            "the neighbour"
        }
    };
    let who = Who(peer);
    let (level, text) = match is_dead {
        true => (
            Level::Info,
            format!(
                "{vip} on {name}: {what} {who} is silent: the node that has just died, probably"
            ),
        ),
        false => (
            Level::Warn,
            format!(
                "{vip} on {name}: {what} {who} is silent: nothing proves that it follows; is it up, \
                 and does a filter drop ARP or ND?"
            ),
        ),
    };
    Line::new(level, text).of(about_peer(claim, confirmation, Kind::SilentPeer))
}

/// A peer's address and MAC.
pub(super) struct Who<'a>(pub(super) &'a Peer);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.ip)?;
        self.0.mac.map_or(Ok(()), |mac| write!(f, " ({mac})"))
    }
}

pub(super) fn about(claim: &Claim, kind: Kind) -> Notice {
    let notice = Notice::new(kind).with("VIP", &claim.vip);
    notice.with("INTERFACE", &claim.link.name)
}

pub(super) fn about_peer(claim: &Claim, confirmation: &Confirmation, kind: Kind) -> Notice {
    let peer = &confirmation.peer;
    let notice = about(claim, kind).with("PEER", &peer.ip);
    notice.with_each("MAC", peer.mac)
}

/// MACs with their hosts, as far as they are known.
pub(super) fn hosts(core: &Announcement, macs: &[Mac]) -> String {
    let named = macs.iter();
    let named = named.map(|mac| format!("{mac} ({})", host_name(core, *mac)));
    list(&named.collect::<Vec<_>>())
}

pub(super) fn host_name(core: &Announcement, mac: Mac) -> String {
    core.host_of(mac).map_or_else(
        || "host not known".to_owned(),
        |host| format!("host {host}"),
    )
}
