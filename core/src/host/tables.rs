//! What the kernel's tables hold, as plain data: links, addresses, neighbours and routes.

use std::net::IpAddr;

use serde::Serialize;

use crate::address::{InterfaceIndex, Mac, Prefix};

/// One address on one interface of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The interface that holds it.
    pub interface: InterfaceIndex,
    /// Length of the on-link prefix, in bits.
    pub prefix_len: u8,
    /// Whether it may be used.
    pub usability: Usability,
}

/// Whether an address may be used, as duplicate address detection (RFC 4862 §5.4) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usability {
    /// It is this host's.
    Usable,
    /// Detection still runs (`IFA_F_TENTATIVE`, `IFA_F_OPTIMISTIC`): not to be claimed yet.
    Tentative,
    /// Another host answered (`IFA_F_DADFAILED`): not to be claimed at all.
    DadFailed,
}

impl Prefix {
    /// The subnet of an interface's address.
    #[must_use]
    pub fn of(address: &Address) -> Self {
        Self::new(address.ip, address.prefix_len)
    }
}

/// One interface, as far as an announcement needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index of it.
    pub index: InterfaceIndex,
    /// Its name, such as `bond0.169`.
    pub name: String,
    /// Its hardware address, if it has one of six octets that one host can own.
    pub mac: Option<Mac>,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether frames can leave: it is up and has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Why its neighbours can't be told by ARP or ND, if so.
    pub unlike_ethernet: Option<&'static str>,
    /// Whether it forwards IPv6, which an NA's R flag tells (RFC 4861 §4.4).
    pub forwards_ipv6: bool,
    /// The interface below a VLAN or a macvlan, in this network namespace.
    pub lower: Option<InterfaceIndex>,
}

impl Link {
    /// An Ethernet interface that is up, as tests and fuzzing need one.
    #[must_use]
    pub fn ethernet(index: u32, name: &str, mac: Mac) -> Self {
        Self {
            index: InterfaceIndex(index),
            name: name.to_owned(),
            mac: Some(mac),
            up: true,
            carrier: true,
            unlike_ethernet: None,
            forwards_ipv6: false,
            lower: None,
        }
    }

    /// Whether neighbours can ask for an address here, by ARP or ND.
    #[must_use]
    pub fn is_askable(&self) -> bool {
        self.unlike_ethernet.is_none() && self.up
    }

    /// Why they cannot, as a clause after the interface's name; `None`: they can.
    #[must_use]
    pub fn why_unaskable(&self) -> Option<&'static str> {
        self.unlike_ethernet.or((!self.up).then_some("is down"))
    }
}

/// One entry of a neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub ip: IpAddr,
    /// The hardware address that frames for it are sent to, where it is known.
    pub mac: Option<Mac>,
    /// How the kernel holds it.
    pub state: NeighbourState,
    /// Set by a control plane (`NTF_EXT_LEARNED`), which alone may remove it.
    pub externally_learned: bool,
}

impl Neighbour {
    /// Whether the kernel resolved it itself, and uses it.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        matches!(
            self.state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
        )
    }
}

/// The states of a neighbour entry, by their names in `ip neigh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NeighbourState {
    /// Being asked for, the first time.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Not confirmed lately; used as it is at the next frame.
    Stale,
    /// Used unconfirmed; asked for if no confirmation comes.
    Delay,
    /// Being asked for again.
    Probe,
    /// Asked for in vain.
    Failed,
    /// Needs no resolution on this interface.
    Noarp,
    /// Set by hand, for good.
    Permanent,
    /// Answered for on behalf of another host; a table of its own.
    Proxy,
    /// No state, or one this program does not know.
    None,
}

/// Where a packet to an address leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interface.
    pub interface: InterfaceIndex,
    /// The router that it goes to; `None`: the address is on the interface's link.
    pub gateway: Option<IpAddr>,
}
