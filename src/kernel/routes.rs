//! The gateways of this host's routes.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::{Error, Kernel, answered};
use crate::address::InterfaceIndex;

impl Kernel {
    /// The gateways of all routes, of both families, that leave through an interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn gateways(&self, interface: InterfaceIndex) -> Result<Vec<IpAddr>, Error> {
        let mut gateways = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            // The kernel hands over this interface's routes alone: a router may have a million.
            message.attributes.push(RouteAttribute::Oif(interface.0));
            let dump = self.handle.route().get(message).execute();
            let routes: Vec<_> =
                answered(|| "list the routes".to_owned(), dump.try_collect()).await?;
            for route in &routes {
                gateways.extend(gateways_through(&route.attributes, interface));
            }
        }
        gateways.sort_unstable();
        gateways.dedup();
        Ok(gateways)
    }
}

/// The gateways of one route through `interface`: its own, or those of its next hops.
fn gateways_through(attributes: &[RouteAttribute], interface: InterfaceIndex) -> Vec<IpAddr> {
    let leaves_here = attributes.contains(&RouteAttribute::Oif(interface.0));
    attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Gateway(gateway) if leaves_here => vec![address(gateway)],
            RouteAttribute::MultiPath(hops) => hops
                .iter()
                .filter(|hop| hop.interface_index == interface.0)
                .flat_map(|hop| &hop.attributes)
                .map(|attribute| match attribute {
                    RouteAttribute::Gateway(gateway) => address(gateway),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        })
        .flatten()
        .collect()
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
