//! The multicast groups to which hosts send neighbour solicitations for the VIPs, and masters their VRRP
//! advertisements. A network card drops what is sent to other groups, and a switch with MLD snooping
//! delivers it only to members.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use log::debug;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::host::Link;
use vipherald_core::wire::{VRRP_GROUPS, solicited_node};

/// The groups that this process is a member of. There is a socket for each link and family (whether IPv6):
/// the kernel lets one be a member of 20 IPv4 groups.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<(InterfaceIndex, bool), Member>);

/// A socket without a port, which receives nothing, and its groups.
#[derive(Debug)]
struct Member {
    socket: Socket,
    joined: BTreeSet<IpAddr>,
}

impl Groups {
    /// Joins the groups of these VIPs on these links, and leaves others.
    pub(super) fn join(&mut self, links: &[&Link], vips: impl Iterator<Item = IpAddr>) {
        let mut families: BTreeMap<bool, BTreeSet<IpAddr>> = BTreeMap::new();
        for vip in vips {
            let groups = families.entry(vip.is_ipv6()).or_default();
            groups.extend(
                VRRP_GROUPS
                    .iter()
                    .filter(|ip| ip.is_ipv6() == vip.is_ipv6()),
            );
            if let IpAddr::V6(vip) = vip {
                groups.insert(solicited_node(vip).0.into());
            }
        }
        let mut before = std::mem::take(&mut self.0);
        for link in links {
            for (is_v6, wanted) in &families {
                let key = (link.index, *is_v6);
                let member = before.remove(&key).map_or_else(|| Member::new(*is_v6), Ok);
                match member {
                    Ok(mut member) => {
                        member.join(link, wanted);
                        self.0.insert(key, member);
                    }
                    Err(error) => debug!("{}: no multicast group joined: {error}", link.name),
                }
            }
        }
    }
}

impl Member {
    fn new(is_v6: bool) -> io::Result<Self> {
        let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
        Ok(Self {
            socket: Socket::new(domain, Type::DGRAM, None)?,
            joined: BTreeSet::new(),
        })
    }

    /// Joins the groups that are `wanted`, and leaves others.
    fn join(&mut self, link: &Link, wanted: &BTreeSet<IpAddr>) {
        let on = InterfaceIndexOrAddress::Index(link.index.0);
        for group in self.joined.difference(wanted) {
            // It fails if the interface is gone, and the membership with it.
            let _ = match group {
                IpAddr::V4(group) => self.socket.leave_multicast_v4_n(group, &on),
                IpAddr::V6(group) => self.socket.leave_multicast_v6(group, link.index.0),
            };
        }
        self.joined.retain(|joined| wanted.contains(joined));
        for group in wanted {
            if self.joined.contains(group) {
                continue;
            }
            let joined = match group {
                IpAddr::V4(group) => self.socket.join_multicast_v4_n(group, &on),
                IpAddr::V6(group) => self.socket.join_multicast_v6(group, link.index.0),
            };
            match joined {
                Ok(()) => {
                    self.joined.insert(*group);
                }
                Err(error) => debug!("{}: {group} not joined: {error}", link.name),
            }
        }
    }
}
