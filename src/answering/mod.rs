//! Whether this host's kernel answers requests for a VIP that it holds.
//!
//! An announcement reaches the hosts that are there; a host that comes later asks. If the owner does
//! not answer, all hosts follow it and no new host finds it. For IPv4, some kernel settings alone tell
//! that it won't answer; an observer sees what a firewall drops.

mod observer;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use vipherald_core::address::{Prefix, Vip};
use vipherald_core::host::{Address, HostSnapshot, Link, PlacedVip};

use crate::kernel::{self, Kernel};

pub(crate) use observer::Observer;

/// Why the kernel does not answer requests for a VIP, and what changes that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Why, as a clause.
    pub why: String,
    /// What to run, or what to look at.
    pub cure: String,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.cure)
    }
}

/// The kernel setting that keeps it from answering requests for a VIP that `link` holds.
///
/// # Errors
/// If the kernel does not answer.
pub async fn why_silent(
    kernel: &Kernel,
    host: &HostSnapshot,
    link: &Link,
    vip: Vip,
) -> Result<Option<Silence>, kernel::Error> {
    let IpAddr::V4(ip) = vip.ip() else {
        // IPv6 has no such setting.
        return Ok(None);
    };
    let ignore = Setting::read(&link.name, "arp_ignore");
    if ignore.value() == 8 {
        let why = format!("this host's kernel answers no ARP request on {}", link.name);
        return Ok(Some(ignore.blamed(&why, "1")));
    }
    let subnets: Vec<_> = host
        .addresses
        .iter()
        .filter(|own| !Prefix::of(own).is_host() && Prefix::of(own).contains(vip.ip()))
        .collect();
    let here = subnets.iter().any(|own| own.interface == link.index);
    if !here && let Some(silence) = elsewhere(host, link, vip, &subnets) {
        return Ok(Some(silence));
    }
    if ignore.value() == 2 && !here {
        let name = &link.name;
        let why = format!(
            "this host's kernel answers no ARP request for it: {name} has no other address in its \
             subnet"
        );
        return Ok(Some(ignore.blamed(&why, "1")));
    }
    let Some(own) = subnets.first() else {
        return Ok(None);
    };
    answers_would_leave_elsewhere(kernel, host, link, (ip, Prefix::of(own))).await
}

/// The VIP's subnet is on another interface, which does not answer for addresses of others.
fn elsewhere(host: &HostSnapshot, link: &Link, vip: Vip, subnets: &[&Address]) -> Option<Silence> {
    let asked_on = subnets.iter().find_map(|own| {
        let other = host.link(own.interface)?;
        // A VMAC answers requests that arrive on the interface below it.
        let is_below = link.lower == Some(other.index) || other.lower == Some(link.index);
        let holds = host
            .holders(&PlacedVip::anywhere(vip))
            .iter()
            .any(|holder| holder.index == other.index);
        (other.is_askable() && !is_below && !holds).then_some(other)
    })?;
    let ignore = Setting::read(&asked_on.name, "arp_ignore");
    matches!(ignore.value(), 1 | 2 | 8).then(|| {
        let why = format!(
            "it is on {}, but hosts of its subnet ask on {}, which does not answer for other \
             interfaces",
            link.name, asked_on.name
        );
        let mut silence = ignore.blamed(&why, "0");
        silence.cure = format!(
            "put the VIP on {} (`dev` in keepalived.conf), or {}",
            asked_on.name, silence.cure
        );
        silence
    })
}

/// With `arp_filter`, or a strict `rp_filter`, the kernel answers only on the interface by which it
/// would send a packet to the host that asks.
async fn answers_would_leave_elsewhere(
    kernel: &Kernel,
    host: &HostSnapshot,
    link: &Link,
    (vip, subnet): (Ipv4Addr, Prefix),
) -> Result<Option<Silence>, kernel::Error> {
    let filter = Setting::read(&link.name, "arp_filter");
    let reverse = Setting::read(&link.name, "rp_filter");
    let setting = match (filter.value(), reverse.value()) {
        (1.., _) => filter,
        (_, 1) => reverse,
        _ => return Ok(None),
    };
    // Any host will do: routes into a subnet seldom differ.
    let somebody = (1..=3)
        .map(|distance| IpAddr::from(Ipv4Addr::from_bits(vip.to_bits() ^ distance)))
        .find(|ip| subnet.contains(*ip) && host.addresses.iter().all(|own| own.ip != *ip));
    let Some(somebody) = somebody else {
        return Ok(None);
    };
    let route = kernel.route_from(vip.into(), somebody).await?;
    let leaves_by = route.filter(|route| route.interface != link.index);
    let Some(other) = leaves_by.and_then(|route| host.link(route.interface)) else {
        return Ok(None);
    };
    let why = format!(
        "this host's kernel answers no ARP request for it on {}, because its route to that subnet \
         leaves by {}",
        link.name, other.name
    );
    Ok(Some(setting.blamed(&why, "0")))
}

/// Whether this host's kernel answers on an interface, with its MAC, for an address of another
/// interface.
#[must_use]
pub fn answers_for_others(interface: &str) -> bool {
    !matches!(Setting::read(interface, "arp_ignore").value(), 1 | 2 | 8)
}

/// An IPv4 setting. The higher of two values counts: that for all interfaces, and that for one.
struct Setting {
    name: &'static str,
    interface: String,
    all: u32,
    own: u32,
}

impl Setting {
    fn read(interface: &str, name: &'static str) -> Self {
        let read = |of: &str| {
            let path = Path::new("/proc/sys/net/ipv4/conf").join(of).join(name);
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        Self {
            name,
            interface: interface.to_owned(),
            all: read("all"),
            own: read(interface),
        }
    }

    fn value(&self) -> u32 {
        self.all.max(self.own)
    }

    /// Blames this setting, and says what to set it to.
    fn blamed(&self, why: &str, better: &str) -> Silence {
        let value = self.value();
        // sysctl would take a dot in an interface's name for a separator.
        let of = |interface: &str| {
            let interface = interface.replace('.', "/");
            format!("net.ipv4.conf.{interface}.{}", self.name)
        };
        let both = [("all", self.all), (&self.interface, self.own)];
        let to_set: Vec<_> = both
            .into_iter()
            .filter(|(_, held)| *held == value)
            .map(|(interface, _)| format!("{}={better}", of(interface)))
            .collect();
        Silence {
            why: format!("{why} ({} is {value})", self.name),
            cure: format!("`sysctl -w {}`", to_set.join(" ")),
        }
    }
}
