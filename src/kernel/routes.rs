//! This host's routes: their gateways, and the one to an address.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use vipherald_core::address::{InterfaceIndex, Prefix};
use vipherald_core::host::Route;

use super::{Error, Kernel, answered, each, family};

impl Kernel {
    /// The route of a packet from this host to an address, if there is one.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn route(&self, ip: IpAddr) -> Result<Option<Route>, Error> {
        self.look_up(ip, None).await
    }

    /// The same for a packet with this source address.
    ///
    /// # Errors
    /// As [`Kernel::route`].
    pub async fn route_from(&self, source: IpAddr, ip: IpAddr) -> Result<Option<Route>, Error> {
        self.look_up(ip, Some(source)).await
    }

    async fn look_up(&self, ip: IpAddr, source: Option<IpAddr>) -> Result<Option<Route>, Error> {
        let mut message = RouteMessage::default();
        let prefix_len = if ip.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = prefix_len;
        message.attributes = vec![RouteAttribute::Destination(ip.into())];
        if let Some(source) = source {
            message.header.source_prefix_length = prefix_len;
            let source = RouteAttribute::Source(source.into());
            message.attributes.push(source);
        }
        // With a destination, this is one look-up and not a dump.
        let mut answers = Box::pin(self.handle.route().get(message).execute());
        match answered(|| format!("find the route to {ip}"), answers.try_next()).await {
            Ok(route) => Ok(route.and_then(|route| route_of(&route.attributes))),
            // There is no route, or one of type unreachable, prohibit or blackhole.
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The gateways of all routes through an interface, for both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn gateways(&self, interface: InterfaceIndex) -> Result<Vec<IpAddr>, Error> {
        let mut gateways = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            self.each_route(interface, family, |route| {
                gateways.extend(gateways_through(&route.attributes, interface));
            })
            .await?;
        }
        gateways.sort_unstable();
        gateways.dedup();
        Ok(gateways)
    }

    /// The prefix length of the most specific route without a gateway to an address through an
    /// interface: then the address is on that link, even if this host has it itself.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn on_link_route(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Result<Option<u8>, Error> {
        let mut longest = None;
        self.each_route(interface, family(ip), |route| {
            let length = on_link_length(&route, interface, ip);
            longest = longest.max(length);
        })
        .await?;
        Ok(longest)
    }

    async fn each_route(
        &self,
        interface: InterfaceIndex,
        family: AddressFamily,
        take: impl FnMut(RouteMessage),
    ) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        // The kernel then returns routes of this interface only: a router may have a million.
        message.attributes.push(RouteAttribute::Oif(interface.0));
        let dump = self.handle.route().get(message).execute();
        each("list the routes", Box::pin(dump), take).await
    }
}

/// The prefix length of a route without a gateway, if it leads to `ip`.
fn on_link_length(route: &RouteMessage, interface: InterfaceIndex, ip: IpAddr) -> Option<u8> {
    let unicast = route.header.kind == RouteType::Unicast;
    let via = gateways_through(&route.attributes, interface);
    let destination = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Destination(to) => address(to),
        _ => None,
    })?;
    let length = route.header.destination_prefix_length;
    let contains = Prefix::new(destination, length).contains(ip);
    (unicast && via.is_empty() && contains).then_some(length)
}

fn route_of(attributes: &[RouteAttribute]) -> Option<Route> {
    let interface = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(InterfaceIndex(*index)),
        _ => None,
    })?;
    let gateway = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some((*gateway).into()),
        _ => None,
    });
    Some(Route { interface, gateway })
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
