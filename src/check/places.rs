//! Where VIPs are: on this host, or on which of its links.

use vipherald_core::address::{Prefix, Vip};
use vipherald_core::host::{HostSnapshot, Link, Place, PlacedVip};

use super::Request;
use crate::error::Error;
use crate::kernel::Kernel;

/// This host's links and addresses, and the interface that the user named.
pub(super) struct Places {
    pub(super) host: HostSnapshot,
    pub(super) only: Option<Link>,
}

impl Places {
    pub(super) async fn find(kernel: &Kernel, request: &Request) -> Result<Self, Error> {
        let host = kernel.snapshot().await?;
        let only = match &request.interface {
            Some(name) => {
                let named = host.link_named(name).cloned();
                Some(named.ok_or_else(|| Error::NoSuchInterface(name.clone()))?)
            }
            None => None,
        };
        Ok(Self { host, only })
    }

    /// A VIP, and where it counts. An IPv6 link-local address is a different one on each link. Any
    /// other, even in 169.254.0.0/16, belongs to the whole host, and the kernel knows better where it is
    /// than the user who named an interface.
    pub(super) fn place(&self, placed: &PlacedVip) -> PlacedVip {
        match &self.only {
            Some(link) if placed.vip.is_link_local() => PlacedVip {
                place: Place::On(link.name.clone()),
                ..*placed
            },
            _ => placed.clone(),
        }
    }

    pub(super) fn holds(&self, placed: &PlacedVip) -> bool {
        !self.host.holders(placed).is_empty()
    }

    /// The interfaces that have a VIP and on which nobody can ask for it, and why. For a link-local VIP
    /// other links do not count.
    pub(super) fn also_on(&self, placed: &PlacedVip) -> Vec<(String, &'static str)> {
        let anywhere = PlacedVip::anywhere(placed.vip);
        let counted = if placed.vip.is_link_local() {
            placed
        } else {
            &anywhere
        };
        let places = self.host.places_of(counted).into_iter();
        places
            .filter_map(|link| Some((link.name.clone(), link.why_unaskable()?)))
            .collect()
    }

    /// The link that leads to a VIP that is not here, or why none does.
    pub(super) async fn link_to(
        &self,
        kernel: &Kernel,
        placed: &PlacedVip,
    ) -> Result<Result<&Link, String>, Error> {
        if let Some(link) = &self.only {
            return Ok(unaskable(link).map_or(Ok(link), Err));
        }
        if placed.vip.is_link_local() {
            return Ok(self.link_of_link_local(placed));
        }
        if let Some((name, why)) = self.also_on(placed).first() {
            // The kernel's route ends at this host.
            let link = self.link_beside(kernel, placed).await?;
            return Ok(link.ok_or_else(|| {
                format!(
                    "it is here, where nobody can ask for it ({name} {why}), and neither a subnet \
                     nor a route of this host tells which link else it is on: name the interface \
                     with -i"
                )
            }));
        }
        let vip = placed.vip;
        let Some(route) = kernel.route(vip.ip()).await? else {
            return Ok(Err(
                "this host has no route to it: run this on a host of its link, or name the \
                 interface with -i"
                    .to_owned(),
            ));
        };
        let Some(link) = self.host.link(route.interface) else {
            return Ok(Err("the interface that leads to it is gone".to_owned()));
        };
        if let Some(gateway) = route.gateway {
            return Ok(Err(format!(
                "it is not on a link of this host: the route to it goes to {gateway} on {}; run \
                 this on {gateway}, or on another host of the VIP's link",
                link.name
            )));
        }
        Ok(unaskable(link).map_or(Ok(link), Err))
    }

    /// The link of a link-local VIP: the one that its place names, or the only one with link-local
    /// addresses.
    fn link_of_link_local(&self, placed: &PlacedVip) -> Result<&Link, String> {
        if let Some(name) = placed.place.name() {
            let link = self.named_link(placed).ok_or_else(|| {
                format!("keepalived.conf puts it on {name}, and there is no such interface")
            })?;
            return unaskable(link).map_or(Ok(link), Err);
        }
        let has_link_local = |link: &&Link| {
            self.host.addresses.iter().any(|own| {
                let of_a_link = Vip::try_from(own.ip).is_ok_and(Vip::is_link_local);
                own.interface == link.index && of_a_link
            })
        };
        let askable = |link: &&Link| unaskable(link).is_none();
        let links = self.host.links.iter().filter(askable);
        match links.filter(has_link_local).collect::<Vec<_>>().as_slice() {
            [] => Err("no interface has link-local addresses: see `ip -6 addr`".to_owned()),
            [only] => Ok(only),
            several => {
                let names: Vec<_> = several.iter().map(|link| link.name.as_str()).collect();
                Err(format!(
                    "it is another address on each link ({}): name the interface with -i",
                    names.join(", ")
                ))
            }
        }
    }

    /// The link that a place names, or the one below a missing VMAC.
    fn named_link(&self, placed: &PlacedVip) -> Option<&Link> {
        let name = placed.place.name()?;
        let below = match &placed.place {
            Place::Vmac { above, .. } => self.host.link_named(above),
            _ => None,
        };
        self.host.link_named(name).or(below)
    }

    /// The link on which other hosts have a VIP that this host has on `lo`: where keepalived would put
    /// it, or where a subnet of this host, or a route without a gateway, contains it.
    async fn link_beside(
        &self,
        kernel: &Kernel,
        placed: &PlacedVip,
    ) -> Result<Option<&Link>, Error> {
        let ip = placed.vip.ip();
        let askable = |link: &&Link| unaskable(link).is_none();
        let named = self.named_link(placed);
        let subnets = self.host.addresses.iter().filter(|own| {
            let subnet = Prefix::of(own);
            !subnet.is_host() && subnet.contains(ip)
        });
        let mut by_subnet = subnets.filter_map(|own| self.host.link(own.interface));
        let known = named.filter(askable).or_else(|| by_subnet.find(askable));
        if known.is_some() {
            return Ok(known);
        }
        let mut best = None;
        for link in self.host.links.iter().filter(askable) {
            let length = kernel.on_link_route(link.index, ip).await?;
            best = best.max(length.map(|length| (length, link.index)));
        }
        Ok(best.and_then(|(_, index)| self.host.link(index)))
    }
}

/// Why a link carries no questions, if so.
fn unaskable(link: &Link) -> Option<String> {
    let name = &link.name;
    match link.why_unaskable_with_advice() {
        Some(why) => Some(format!("{name} {why}: nobody can be asked there")),
        None if !link.carrier => Some(format!(
            "{name} has no carrier: look at its cable or switch port"
        )),
        None => None,
    }
}
