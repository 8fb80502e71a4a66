//! Watches the requests of others for the VIPs that this host holds: a packet socket sees a request
//! before a firewall does, and an answer only after the firewall let it pass.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::debug;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::host::{HostSnapshot, Link, PlacedVip};
use vipherald_core::wire::{Arp, ArpOperation, Frame, Ndp, NdpMessage, Payload};

use super::Silence;
use crate::error::Error;
use crate::packet_socket::PacketSocket;
use crate::readable;

/// The kernel answers at once: an older request has got its answer, or gets none.
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);
/// Frames to read from one socket before the others get their turn.
const FRAMES_AT_ONCE: u32 = 1024;
/// More frames a second than this, beyond the first ones, are not worth reading.
const MOST_FRAMES: f64 = 5_000.0;
const FIRST_FRAMES: f64 = 10_000.0;

/// What was seen for one VIP on one interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    requests: u32,
    first_request: Option<Instant>,
    answers: u32,
    /// The MACs of other interfaces of this host that answered for it.
    pub(crate) also_answered: BTreeSet<Mac>,
}

impl Seen {
    /// How many requests came, if none was answered.
    pub(crate) fn unanswered(&self, now: Instant) -> Option<u32> {
        let asked = self.first_request.filter(|_| self.answers == 0)?;
        (now.duration_since(asked) >= ANSWERED_WITHIN).then_some(self.requests)
    }
}

/// An interface that is watched.
struct Watched {
    link: Link,
    socket: PacketSocket,
    /// The kernel answers hosts of these subnets there.
    subnets: Vec<Prefix>,
    vips: BTreeMap<Vip, Seen>,
    began: Instant,
    read: u32,
}

/// Watches the interfaces that hold the VIPs.
pub(crate) struct Observer {
    own_macs: BTreeSet<Mac>,
    own_ips: BTreeSet<IpAddr>,
    watched: Vec<Watched>,
}

impl Observer {
    /// Starts to watch.
    ///
    /// # Errors
    /// If a packet socket can't be opened.
    pub(crate) fn start(host: &HostSnapshot, vips: &[PlacedVip]) -> Result<Self, Error> {
        let mut watched: BTreeMap<InterfaceIndex, Watched> = BTreeMap::new();
        for placed in vips {
            for link in host.holders(placed) {
                let one = match watched.entry(link.index) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(none) => none.insert(Watched::start(host, link)?),
                };
                one.vips.entry(placed.vip).or_default();
            }
        }
        Ok(Self {
            own_macs: host.macs().collect(),
            own_ips: host.addresses.iter().map(|own| own.ip).collect(),
            watched: watched.into_values().collect(),
        })
    }

    /// Watches until it is dropped.
    ///
    /// # Errors
    /// If the runtime can no longer watch a socket.
    pub(crate) async fn watch(&mut self) -> Result<(), Error> {
        loop {
            self.look();
            let sockets = self.watched.iter().map(|one| &one.socket);
            future::poll_fn(|context| {
                readable::any(sockets.clone().map(|socket| socket.poll_readable(context)))
            })
            .await
            .map_err(Error::Runtime)?;
        }
    }

    /// Reads what has come in or gone out.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        for one in &mut self.watched {
            for _ in 0..FRAMES_AT_ONCE {
                let Some(octets) = one.socket.receive() else {
                    break;
                };
                one.read = one.read.saturating_add(1);
                if let Some(frame) = Frame::parse(&octets) {
                    one.see(now, &frame, &self.own_macs, &self.own_ips);
                }
            }
            one.give_up_in_a_flood(now);
        }
    }

    /// Why this host does not answer requests for a VIP on an interface, if that was seen.
    #[must_use]
    pub(crate) fn why_unanswered(&self, link: &Link, vip: Vip) -> Option<Silence> {
        let watched = self
            .watched
            .iter()
            .find(|one| one.link.index == link.index)?;
        // With another MAC it answers otherwise than was expected.
        let seen = watched
            .vips
            .get(&vip)
            .filter(|_| watched.link.mac == link.mac)?;
        let times = seen.unanswered(Instant::now())?;
        let cure = match vip.ip() {
            IpAddr::V4(_) => {
                "does a filter of this host drop the requests or the answers? See `nft list ruleset` \
                 (tables arp, netdev), `arptables -S`"
            }
            IpAddr::V6(_) => {
                "does a filter of this host drop neighbour solicitations or advertisements? See `nft \
                 list ruleset`, `ip6tables -S`"
            }
        };
        Some(Silence {
            why: format!(
                "this host got {times} requests for it on {}, and its kernel did not answer",
                link.name
            ),
            cure: cure.to_owned(),
        })
    }

    /// What was seen for a VIP on an interface.
    pub(crate) fn seen(&self, interface: InterfaceIndex, vip: Vip) -> Option<&Seen> {
        let mut watched = self.watched.iter();
        let one = watched.find(|one| one.link.index == interface)?;
        one.vips.get(&vip)
    }
}

impl Watched {
    fn start(host: &HostSnapshot, link: &Link) -> Result<Self, Error> {
        let mut socket = PacketSocket::open(link)?;
        socket.observe(link)?;
        let on = [Some(link.index), link.lower];
        let own = host.addresses.iter();
        let there = own.filter(|own| on.contains(&Some(own.interface)));
        Ok(Self {
            link: link.clone(),
            socket,
            subnets: there.map(Prefix::of).collect(),
            vips: BTreeMap::new(),
            began: Instant::now(),
            read: 0,
        })
    }

    /// A flood costs more than what it would show; and what its frames displace looks unanswered.
    fn give_up_in_a_flood(&mut self, now: Instant) {
        let most = FIRST_FRAMES + MOST_FRAMES * (now - self.began).as_secs_f64();
        if f64::from(self.read) > most && !self.vips.is_empty() {
            debug!(
                "{}: a flood: who answers there is not watched",
                self.link.name
            );
            self.vips.clear();
            if let Err(error) = self.socket.ignore_all() {
                debug!("{}: {error}", self.link.name);
            }
        }
    }

    fn see(
        &mut self,
        now: Instant,
        frame: &Frame,
        own_macs: &BTreeSet<Mac>,
        own_ips: &BTreeSet<IpAddr>,
    ) {
        let (target, message) = match &frame.payload {
            Payload::Arp(arp) => arp_of(arp),
            Payload::Ndp(ndp) => ndp_of(frame, ndp),
            Payload::Mld(_) | Payload::Echo(_) => return,
        };
        let own = self.link.mac;
        // A promiscuous interface also sees frames for others.
        let for_us = !frame.destination.is_unicast() || Some(frame.destination) == own;
        let is_answered = |from: IpAddr| {
            let on_link = || self.subnets.iter().any(|subnet| subnet.contains(from));
            !own_ips.contains(&from) && (from.is_unspecified() || on_link())
        };
        let asks = |from| for_us && !own_macs.contains(&frame.source) && is_answered(from);
        let counts = match message {
            Message::Request(from) => asks(from),
            Message::Answer(_) => true,
            Message::Other => false,
        };
        let seen = self.vips.iter_mut().find(|(vip, _)| vip.ip() == target);
        let Some((_, seen)) = seen.filter(|_| counts) else {
            return;
        };
        match message {
            Message::Answer(mac) if Some(mac) == own => seen.answers += 1,
            Message::Answer(mac) if own_macs.contains(&mac) => {
                seen.also_answered.insert(mac);
            }
            Message::Request(_) => {
                seen.requests += 1;
                seen.first_request.get_or_insert(now);
            }
            Message::Answer(_) | Message::Other => {}
        }
    }
}

/// What a frame means for its target.
#[derive(Clone, Copy)]
enum Message {
    /// A request, from this address.
    Request(IpAddr),
    /// An answer: it is at this MAC.
    Answer(Mac),
    Other,
}

fn arp_of(arp: &Arp) -> (IpAddr, Message) {
    let gratuitous = arp.sender_ip == arp.target_ip;
    match arp.operation {
        _ if gratuitous => (arp.target_ip.into(), Message::Other),
        ArpOperation::Request => {
            let from = arp.sender_ip.into();
            (arp.target_ip.into(), Message::Request(from))
        }
        ArpOperation::Reply => (arp.sender_ip.into(), Message::Answer(arp.sender_mac)),
    }
}

fn ndp_of(frame: &Frame, ndp: &Ndp) -> (IpAddr, Message) {
    match ndp.message {
        // The answer to a request from `::` goes to all nodes, and is not a solicited one.
        NdpMessage::Solicitation(ns) if !ndp.source.is_unspecified() => {
            (ns.target.into(), Message::Request(ndp.source.into()))
        }
        NdpMessage::Solicitation(ns) => (ns.target.into(), Message::Other),
        NdpMessage::Advertisement(na) if na.solicited => {
            let mac = na.target_lladdr.unwrap_or(frame.source);
            (na.target.into(), Message::Answer(mac))
        }
        NdpMessage::Advertisement(na) => (na.target.into(), Message::Other),
    }
}
