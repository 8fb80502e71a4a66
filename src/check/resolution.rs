//! Whether this host's kernel itself can resolve addresses. If a firewall drops ARP or neighbour
//! discovery, a packet socket sees no request leave, or sees answers that the kernel ignores.

use std::net::IpAddr;
use std::time::Duration;

use log::debug;
use tokio::time::{Instant, sleep};
use vipherald_core::host::{Link, NeighbourState};
use vipherald_core::wire::{ArpOperation, Frame, NdpMessage, Payload};

use crate::answering::Silence;
use crate::error::Error;
use crate::kernel::{Kernel, Replace};
use crate::packet_socket::PacketSocket;

/// How many times to make the kernel ask one neighbour, as frames get lost now and then.
const TRIES: u32 = 5;
/// How long the answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_millis(60);
/// The gap between two reads of the entry.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The most neighbours to try: one resolved neighbour is proof enough.
const NEIGHBOURS: usize = 3;

/// What a packet socket saw of the kernel's request.
#[derive(Default)]
struct Seen {
    question: bool,
    answer: bool,
}

/// Why this host's kernel resolves none of some neighbours that all answer this program. `None`: it
/// resolves one, or the test is inconclusive. Entries keep their MACs.
pub(super) async fn why_deaf(
    kernel: &Kernel,
    link: &Link,
    neighbours: impl Iterator<Item = IpAddr>,
) -> Result<Option<Silence>, Error> {
    let mut socket = PacketSocket::open(link)?;
    socket.observe(link)?;
    let mut seen = Seen::default();
    let mut by = None;
    for ip in neighbours.take(NEIGHBOURS) {
        match resolves(kernel, &socket, link, ip, &mut seen).await {
            Ok(Some(true)) => return Ok(None),
            Ok(Some(false)) => by = by.or(Some(ip)),
            Ok(None) => {}
            // Such as without CAP_NET_ADMIN.
            Err(error) => {
                debug!("whether {} answers can't be tried: {error}", link.name);
                return Ok(None);
            }
        }
    }
    let Some(ip) = by else { return Ok(None) };
    let (protocol, look_at) = match ip {
        IpAddr::V4(_) => (
            "ARP",
            "`nft list ruleset` (tables arp, netdev), `arptables -S`",
        ),
        IpAddr::V6(_) => ("neighbour discovery", "`nft list ruleset`, `ip6tables -S`"),
    };
    let name = &link.name;
    let why = match seen {
        Seen {
            question: false, ..
        } => format!("a filter of this host drops the {protocol} that its kernel sends on {name}"),
        Seen { answer: true, .. } => format!(
            "a filter of this host drops the {protocol} that comes in on {name}: its kernel does \
             not even resolve {ip}, which answers"
        ),
        // The network lost the frames.
        _ => return Ok(None),
    };
    Ok(Some(Silence {
        why: why + "; so who asks for the VIP gets no answer",
        cure: format!("see {look_at}, and let {protocol} pass both ways"),
    }))
}

/// Whether the kernel resolves a neighbour. `None`: it has no suitable entry.
async fn resolves(
    kernel: &Kernel,
    socket: &PacketSocket,
    link: &Link,
    ip: IpAddr,
    seen: &mut Seen,
) -> Result<Option<bool>, Error> {
    let Some(entry) = kernel.neighbour(link.index, ip).await? else {
        return Ok(None);
    };
    let mac = match (entry.state, entry.mac) {
        _ if entry.externally_learned => return Ok(None),
        (_, Some(mac)) if entry.is_resolved() => mac,
        (NeighbourState::Failed, _) => {
            let entry = kernel.resolve(link.index, ip, ANSWERED_WITHIN).await?;
            look(socket, link, ip, seen);
            return Ok(Some(entry.is_some_and(|entry| entry.mac.is_some())));
        }
        _ => return Ok(None),
    };
    let set = |state| kernel.set_neighbour(link.index, ip, mac, state, Replace::SameMac);
    for _ in 0..TRIES {
        // The kernel asks only after a change of state.
        set(NeighbourState::Stale).await?;
        set(NeighbourState::Probe).await?;
        let deadline = Instant::now() + ANSWERED_WITHIN;
        while Instant::now() < deadline {
            let entry = kernel.neighbour(link.index, ip).await?;
            if entry.is_none_or(|entry| entry.state == NeighbourState::Reachable) {
                return Ok(Some(true));
            }
            sleep(LOOK_AGAIN).await;
        }
        look(socket, link, ip, seen);
        // By now the kernel has accepted an answer from the meantime, or never will.
        let entry = kernel.neighbour(link.index, ip).await?;
        if entry.is_some_and(|entry| entry.state == NeighbourState::Reachable) {
            return Ok(Some(true));
        }
    }
    set(NeighbourState::Stale).await?;
    Ok(Some(false))
}

/// Reads from the socket what it saw of the request for `ip`.
fn look(socket: &PacketSocket, link: &Link, ip: IpAddr, seen: &mut Seen) {
    while let Some(octets) = socket.receive() {
        let Some(frame) = Frame::parse(&octets) else {
            continue;
        };
        let ours = Some(frame.source) == link.mac;
        match frame.payload {
            Payload::Arp(arp) => match arp.operation {
                ArpOperation::Request => {
                    seen.question |= ours && IpAddr::V4(arp.target_ip) == ip;
                }
                ArpOperation::Reply => {
                    seen.answer |= !ours && IpAddr::V4(arp.sender_ip) == ip;
                }
            },
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => {
                    seen.question |= ours && IpAddr::V6(ns.target) == ip;
                }
                NdpMessage::Advertisement(na) => {
                    seen.answer |= !ours && IpAddr::V6(na.target) == ip;
                }
            },
            Payload::Mld(_) | Payload::Echo(_) => {}
        }
    }
}
