//! The kernel's links, addresses, neighbours and routes as plain data.

use std::net::IpAddr;
use std::time::Duration;

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
    /// The state of duplicate address detection.
    pub usability: Usability,
}

/// Whether this host may use an address: duplicate address detection (RFC 4862 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usability {
    /// The address is unique, or needs no detection.
    Usable,
    /// Detection is running (`IFA_F_TENTATIVE`, `IFA_F_OPTIMISTIC`): do not announce it yet.
    Tentative,
    /// Another host answered (`IFA_F_DADFAILED`): do not announce it.
    DadFailed,
}

impl Prefix {
    /// The subnet of an interface's address.
    #[must_use]
    pub fn of(address: &Address) -> Self {
        Self::new(address.ip, address.prefix_len)
    }
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: InterfaceIndex,
    /// The name, such as `bond0.169`.
    pub name: String,
    /// The hardware address; `None` unless it has six octets that one host can own.
    pub mac: Option<Mac>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Up and with a carrier (`IFF_LOWER_UP`): frames can leave.
    pub carrier: bool,
    /// Why ARP and ND do not work here, as a clause after the name; `None` if they do.
    pub unlike_ethernet: Option<&'static str>,
    /// Whether it forwards IPv6: the R flag of its advertisements (RFC 4861 §4.4).
    pub forwards_ipv6: bool,
    /// The interface below a VLAN or macvlan, if it is in this network namespace.
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

    /// Whether neighbours can ask for an address here by ARP or ND.
    #[must_use]
    pub fn is_askable(&self) -> bool {
        self.unlike_ethernet.is_none() && self.up
    }

    /// Why they can't, as a clause after the interface's name; `None` if they can.
    #[must_use]
    pub fn why_unaskable(&self) -> Option<&'static str> {
        self.unlike_ethernet.or((!self.up).then_some("is down"))
    }

    /// The same, with the command that helps if there is one.
    #[must_use]
    pub fn why_unaskable_with_advice(&self) -> Option<String> {
        let why = self.why_unaskable()?;
        Some(match self.unlike_ethernet {
            Some(_) => why.to_owned(),
            None => format!("{why} (`ip link set {} up`)", self.name),
        })
    }
}

/// One entry of a neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address, if the kernel knows it.
    pub mac: Option<Mac>,
    /// The entry's state.
    pub state: NeighbourState,
    /// A control plane set the entry (`NTF_EXT_LEARNED`), and only it may remove it.
    pub externally_learned: bool,
    /// How long ago the host confirmed the entry (`NDA_CACHEINFO`), if the kernel says so.
    pub confirmed: Option<Duration>,
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

/// The states of a neighbour entry, named as in `ip neigh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NeighbourState {
    /// The kernel is resolving the address for the first time.
    Incomplete,
    /// Recently confirmed.
    Reachable,
    /// Not confirmed lately. The kernel uses it for the next frame.
    Stale,
    /// In use without confirmation. The kernel probes unless one comes.
    Delay,
    /// The kernel is probing the neighbour.
    Probe,
    /// Nobody answered.
    Failed,
    /// The interface needs no resolution.
    Noarp,
    /// Set by hand, for good.
    Permanent,
    /// A proxy entry: this host answers for the address. The kernel keeps a separate table.
    Proxy,
    /// No state, or an unknown one.
    None,
}

/// The route of a packet to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The outgoing interface.
    pub interface: InterfaceIndex,
    /// The next hop; `None` if the address is on-link.
    pub gateway: Option<IpAddr>,
}
