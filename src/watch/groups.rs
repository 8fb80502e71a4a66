//! The multicast groups to which hosts send neighbour solicitations for the VIPs. A switch with MLD
//! snooping delivers those only to members.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use log::debug;
use socket2::{Domain, Socket, Type};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::host::Link;
use vipherald_core::wire::solicited_node;

/// The groups that this process is a member of. Its socket has no port, and receives nothing.
#[derive(Debug, Default)]
pub(super) struct Groups {
    socket: Option<Socket>,
    joined: BTreeSet<(Ipv6Addr, InterfaceIndex)>,
}

impl Groups {
    /// Joins the groups of these VIPs on these links, and leaves others.
    pub(super) fn join(&mut self, links: &[&Link], vips: impl Iterator<Item = Ipv6Addr>) {
        let groups: BTreeSet<_> = vips.map(|vip| solicited_node(vip).0).collect();
        let wanted: BTreeSet<_> = groups
            .iter()
            .flat_map(|group| links.iter().map(|link| (*group, link.index)))
            .collect();
        if self.socket.is_none() && !wanted.is_empty() {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None);
            self.socket = socket
                .inspect_err(|error| debug!("no IPv6 socket: {error}"))
                .ok();
        }
        let Some(socket) = &self.socket else { return };
        for (group, on) in self.joined.difference(&wanted) {
            // It fails if the interface is gone, and the membership with it.
            let _ = socket.leave_multicast_v6(group, on.0);
        }
        self.joined.retain(|joined| wanted.contains(joined));
        for (group, on) in wanted {
            if self.joined.contains(&(group, on)) {
                continue;
            }
            match socket.join_multicast_v6(&group, on.0) {
                Ok(()) => {
                    self.joined.insert((group, on));
                }
                Err(error) => debug!("interface {}: {group} not joined: {error}", on.0),
            }
        }
    }
}
