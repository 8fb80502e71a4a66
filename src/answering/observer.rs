//! What is seen of the questions that others put to this host for the VIPs that it holds: a
//! packet socket sees them before a firewall does, and the answers only after it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::net::IpAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::host::{HostSnapshot, Link, PlacedVip};
use vipherald_core::wire::{Arp, ArpOperation, Frame, Ndp, NdpMessage, Payload};

use super::Silence;
use crate::error::Error;
use crate::packet_socket::PacketSocket;

/// The kernel answers at once: a question that is older has got its answer, or gets none.
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);
/// Frames that are read before others get their turn.
const FRAMES_AT_ONCE: u32 = 1024;

/// What was seen of one VIP on one interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    questions: u32,
    first_question: Option<Instant>,
    answers: u32,
    /// The MACs of other interfaces of this host that answered for it.
    pub(crate) also_answered: BTreeSet<Mac>,
}

impl Seen {
    /// How often it was asked for, if nobody got an answer.
    pub(crate) fn unanswered(&self, now: Instant) -> Option<u32> {
        let asked = self.first_question.filter(|_| self.answers == 0)?;
        (now.duration_since(asked) >= ANSWERED_WITHIN).then_some(self.questions)
    }
}

/// One interface that is watched.
struct Watched {
    link: Link,
    socket: PacketSocket,
    /// The subnets of who is answered there.
    subnets: Vec<Prefix>,
    vips: BTreeMap<Vip, Seen>,
}

/// Watches the interfaces that hold some VIPs.
pub(crate) struct Observer {
    own_macs: BTreeSet<Mac>,
    own_ips: BTreeSet<IpAddr>,
    watched: Vec<Watched>,
}

impl Observer {
    /// Begins to watch.
    ///
    /// # Errors
    /// If no packet socket can be had.
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
            let readable = future::poll_fn(|context| {
                let mut any = Poll::Pending;
                for one in &self.watched {
                    let readable = one.socket.poll_readable(context);
                    any = if readable.is_ready() { readable } else { any };
                }
                any
            });
            readable.await.map_err(Error::Runtime)?;
        }
    }

    /// Reads what came in or went out so far.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        for one in &mut self.watched {
            for _ in 0..FRAMES_AT_ONCE {
                let Some(octets) = one.socket.receive() else {
                    break;
                };
                if let Some(frame) = Frame::parse(&octets) {
                    one.see(now, &frame, &self.own_macs, &self.own_ips);
                }
            }
        }
    }

    /// Why this host does not answer who asks for a VIP on an interface, if that was seen.
    #[must_use]
    pub(crate) fn why_unanswered(&self, link: &Link, vip: Vip) -> Option<Silence> {
        let times = self.seen(link.index, vip)?.unanswered(Instant::now())?;
        let cure = match vip.ip() {
            IpAddr::V4(_) => {
                "a filter of this host drops the questions or the answers? See `nft list ruleset` \
                 (tables arp, netdev), `arptables -S`"
            }
            IpAddr::V6(_) => {
                "a filter of this host drops neighbour solicitations or advertisements? See `nft \
                 list ruleset`, `ip6tables -S`"
            }
        };
        Some(Silence {
            why: format!(
                "this host was asked for it {times} times on {}, and its kernel did not answer",
                link.name
            ),
            cure: cure.to_owned(),
        })
    }

    /// What was seen of a VIP on an interface.
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
        })
    }

    fn see(
        &mut self,
        now: Instant,
        frame: &Frame,
        own_macs: &BTreeSet<Mac>,
        own_ips: &BTreeSet<IpAddr>,
    ) {
        let (target, question) = match &frame.payload {
            Payload::Arp(arp) => arp_of(arp),
            Payload::Ndp(ndp) => ndp_of(frame, ndp),
            Payload::Echo(_) => return,
        };
        let own = self.link.mac;
        // To nobody else: an interface may be promiscuous.
        let for_us = !frame.destination.is_unicast() || Some(frame.destination) == own;
        let is_answered = |from: IpAddr| {
            let on_link = || self.subnets.iter().any(|subnet| subnet.contains(from));
            !own_ips.contains(&from) && (from.is_unspecified() || on_link())
        };
        let asks = |from| for_us && !own_macs.contains(&frame.source) && is_answered(from);
        let counts = match question {
            Said::Question(from) => asks(from),
            Said::Answer(_) => true,
            Said::Other => false,
        };
        let seen = self.vips.iter_mut().find(|(vip, _)| vip.ip() == target);
        let Some((_, seen)) = seen.filter(|_| counts) else {
            return;
        };
        match question {
            Said::Answer(mac) if Some(mac) == own => seen.answers += 1,
            Said::Answer(mac) if own_macs.contains(&mac) => drop(seen.also_answered.insert(mac)),
            Said::Question(_) => {
                seen.questions += 1;
                seen.first_question.get_or_insert(now);
            }
            Said::Answer(_) | Said::Other => {}
        }
    }
}

/// What a frame says of its target.
#[derive(Clone, Copy)]
enum Said {
    /// Somebody asks for it, from this address.
    Question(IpAddr),
    /// It is at this MAC, says an answer.
    Answer(Mac),
    /// Nothing of interest.
    Other,
}

fn arp_of(arp: &Arp) -> (IpAddr, Said) {
    let gratuitous = arp.sender_ip == arp.target_ip;
    match arp.operation {
        _ if gratuitous => (arp.target_ip.into(), Said::Other),
        ArpOperation::Request => {
            let from = arp.sender_ip.into();
            (arp.target_ip.into(), Said::Question(from))
        }
        ArpOperation::Reply => (arp.sender_ip.into(), Said::Answer(arp.sender_mac)),
    }
}

fn ndp_of(frame: &Frame, ndp: &Ndp) -> (IpAddr, Said) {
    match ndp.message {
        // Asked from `::`, the answer goes to all nodes, and is no solicited one.
        NdpMessage::Solicitation(ns) if !ndp.source.is_unspecified() => {
            (ns.target.into(), Said::Question(ndp.source.into()))
        }
        NdpMessage::Solicitation(ns) => (ns.target.into(), Said::Other),
        NdpMessage::Advertisement(na) if na.solicited => {
            let mac = na.target_lladdr.unwrap_or(frame.source);
            (na.target.into(), Said::Answer(mac))
        }
        NdpMessage::Advertisement(na) => (na.target.into(), Said::Other),
    }
}
