//! The neighbour tables (`ip neigh`).

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::time::{Instant, sleep};
use vipherald_core::address::{InterfaceIndex, Mac};
use vipherald_core::host::{Neighbour, NeighbourState};

use super::{Error, Kernel, answered, each, family};

/// The unit of `NDA_CACHEINFO`: `USER_HZ` is 100 on every architecture in use.
const TICK: Duration = Duration::from_millis(10);
/// Time between two looks at an entry that is being resolved.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn state_of(state: Nud) -> NeighbourState {
    match state {
        Nud::Incomplete => NeighbourState::Incomplete,
        Nud::Reachable => NeighbourState::Reachable,
        Nud::Stale => NeighbourState::Stale,
        Nud::Delay => NeighbourState::Delay,
        Nud::Probe => NeighbourState::Probe,
        Nud::Failed => NeighbourState::Failed,
        Nud::Noarp => NeighbourState::Noarp,
        Nud::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::None,
    }
}

fn neighbour_of(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut ip, mut mac, mut confirmed) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                ip = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                ip = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(octets) => mac = Mac::from_slice(octets),
            NeighbourAttribute::CacheInfo(info) => {
                confirmed = Some(TICK * info.confirmed);
            }
            _ => {}
        }
    }
    let flags = message.header.flags;
    Some(Neighbour {
        ip: ip?,
        mac,
        state: if flags.contains(NeighbourFlags::Proxy) {
            NeighbourState::Proxy
        } else {
            state_of(message.header.state)
        },
        externally_learned: flags.contains(NeighbourFlags::ExtLearned),
        confirmed,
    })
}

/// Which MAC an entry may have before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Only the one that it is set to: just the state changes.
    SameMac,
    /// Any.
    AnyMac,
}

/// The two tables.
#[derive(Clone, Copy)]
enum Table {
    Neighbours,
    Proxies,
}

fn key(interface: InterfaceIndex, ip: IpAddr, table: Table) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface.0;
    message.header.family = family(ip);
    if let Table::Proxies = table {
        message.header.flags = NeighbourFlags::Proxy;
    }
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

impl Kernel {
    /// All entries of one interface, of both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn neighbours(&self, interface: InterfaceIndex) -> Result<Vec<Neighbour>, Error> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = self.handle.neighbours().get().set_address_family(family);
            // The kernel then returns entries of this interface only.
            request
                .message_mut()
                .attributes
                .push(NeighbourAttribute::IfIndex(interface.0));
            each("list the neighbours", request.execute(), |entry| {
                if entry.header.ifindex == interface.0 {
                    neighbours.extend(neighbour_of(&entry));
                }
            })
            .await?;
        }
        Ok(neighbours)
    }

    /// The entry for `ip` on an interface: one hash look-up in the kernel, whatever the size of the
    /// table.
    ///
    /// # Errors
    /// If the kernel does not answer; kernels before 5.0 can't look up one entry.
    pub async fn neighbour(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Result<Option<Neighbour>, Error> {
        self.neighbour_in(interface, ip, Table::Neighbours).await
    }

    /// The proxy entry for `ip` on an interface, if this host answers for it.
    ///
    /// # Errors
    /// As [`Kernel::neighbour`].
    pub async fn proxy(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Result<Option<Neighbour>, Error> {
        self.neighbour_in(interface, ip, Table::Proxies).await
    }

    async fn neighbour_in(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
        table: Table,
    ) -> Result<Option<Neighbour>, Error> {
        let mut request =
            NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(key(interface, ip, table)));
        // Without NLM_F_DUMP: one entry, not the table.
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        let answer = async move {
            let answer = handle.request(request)?.next().await;
            match answer.map(|message| message.payload) {
                Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry))) => {
                    Ok(neighbour_of(&entry))
                }
                Some(NetlinkPayload::Error(refusal)) => {
                    Err(rtnetlink::Error::NetlinkError(refusal))
                }
                _ => Err(rtnetlink::Error::RequestFailed),
            }
        };
        match answered(|| format!("look up neighbour {ip}"), answer).await {
            Err(error) if error.is_absent() => Ok(None),
            found => found,
        }
    }

    /// Deletes the entry for `ip` on an interface. Returns whether there was one.
    ///
    /// # Errors
    /// If the kernel refuses, as it does without `CAP_NET_ADMIN`.
    pub async fn delete_neighbour(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Result<bool, Error> {
        let request = self
            .handle
            .neighbours()
            .del(key(interface, ip, Table::Neighbours));
        match answered(
            || format!("delete the neighbour entry of {ip}"),
            request.execute(),
        )
        .await
        {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets an existing entry to a MAC and a state: REACHABLE, PROBE (the kernel asks at once), or else
    /// STALE.
    ///
    /// Linux ignores an ARP answer for an entry that changed within `locktime` (1 s): an entry whose
    /// state has just been set keeps its MAC while this host asks others for the address. (Gratuitous
    /// ARP changes it all the same.)
    ///
    /// # Errors
    /// If the kernel refuses: without `CAP_NET_ADMIN`, or without an entry.
    pub async fn set_neighbour(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
        mac: Mac,
        state: NeighbourState,
        over: Replace,
    ) -> Result<(), Error> {
        let mut entry = key(interface, ip, Table::Neighbours);
        entry.header.state = match state {
            NeighbourState::Reachable => Nud::Reachable,
            NeighbourState::Probe => Nud::Probe,
            _ => Nud::Stale,
        };
        let lladdr = NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec());
        entry.attributes.push(lladdr);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        // Without it, the kernel does not change an entry with another MAC.
        if over == Replace::AnyMac {
            request.header.flags |= NLM_F_REPLACE;
        }
        let mut handle = self.handle.clone();
        let answer = async move {
            match handle.request(request)?.next().await.map(|m| m.payload) {
                Some(NetlinkPayload::Error(answer)) if answer.code.is_some() => {
                    Err(rtnetlink::Error::NetlinkError(answer))
                }
                _ => Ok(()),
            }
        };
        answered(|| format!("set the neighbour entry of {ip}"), answer).await
    }

    /// Makes the kernel resolve `ip` on an interface, as a packet to it would (`NTF_USE`, `ip neigh …
    /// use`). Returns the entry once it has a MAC or is FAILED, or as it is when `patience` ends. An
    /// entry that already has a MAC is not resolved: delete it first.
    ///
    /// # Errors
    /// If the kernel refuses, as it does without `CAP_NET_ADMIN`.
    pub async fn resolve(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
        patience: Duration,
    ) -> Result<Option<Neighbour>, Error> {
        let request = self
            .handle
            .neighbours()
            .add(interface.0, ip)
            .state(Nud::None)
            .flags(NeighbourFlags::Use)
            .replace();
        answered(|| format!("resolve neighbour {ip}"), request.execute()).await?;
        let deadline = Instant::now() + patience;
        loop {
            let entry = self.neighbour(interface, ip).await?;
            let settled = entry
                .is_some_and(|entry| entry.mac.is_some() || entry.state == NeighbourState::Failed);
            if settled || Instant::now() >= deadline {
                return Ok(entry);
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
