//! Purging: this host forgets which hardware address a VIP had.

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::error::Error;
use crate::kernel::{Kernel, Link, Neighbour, NeighbourState};

/// What is to be purged.
#[derive(Clone, Debug)]
pub struct Order {
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// Only on this interface; `None`: on every one.
    pub interface: Option<String>,
    /// PERMANENT entries, too.
    pub permanent: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The VIP it was for.
    pub vip: Vip,
    /// The interface it was on.
    pub interface: String,
    /// The hardware address it held, if any.
    pub mac: Option<Mac>,
    /// The state it was in.
    pub state: NeighbourState,
    /// Why it was kept; `None`: it was deleted.
    pub kept: Option<&'static str>,
}

/// What a purge found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// The entries there were.
    pub entries: Vec<Entry>,
    /// The VIPs that this host holds itself, with the interface: nothing was done for them.
    pub held_here: Vec<(Vip, String)>,
}

/// Purges the VIPs' entries, each by its key: the rest of the tables is neither read nor touched.
///
/// # Errors
/// If the interface does not exist, or the kernel refuses.
pub async fn purge(kernel: &Kernel, order: &Order) -> Result<Purged, Error> {
    let links = match &order.interface {
        None => kernel.links().await?,
        Some(name) => match kernel.link_named(name).await? {
            Some(link) => vec![link],
            None => return Err(Error::NoSuchInterface(name.clone())),
        },
    };
    let addresses = kernel.addresses().await?;
    let mut purged = Purged::default();
    for (at, vip) in order.vips.iter().enumerate() {
        if order.vips[..at].contains(vip) {
            continue;
        }
        match addresses.iter().find(|address| address.ip == vip.ip()) {
            Some(address) => {
                let holder = name_of(kernel, &links, address.interface).await?;
                purged.held_here.push((*vip, holder));
            }
            None => {
                for link in &links {
                    purged
                        .entries
                        .extend(purge_on(kernel, *vip, link, order).await?);
                }
            }
        }
    }
    Ok(purged)
}

async fn purge_on(
    kernel: &Kernel,
    vip: Vip,
    link: &Link,
    order: &Order,
) -> Result<Vec<Entry>, Error> {
    let entry = |neighbour: &Neighbour, kept| Entry {
        vip,
        interface: link.name.clone(),
        mac: neighbour.mac,
        state: neighbour.state,
        kept,
    };
    let mut entries = Vec::new();
    if let Some(neighbour) = kernel.neighbour(link.index, vip.ip()).await? {
        let kept = reason_to_keep(&neighbour, order);
        // An entry that went in between is as good as deleted.
        if kept.is_none() {
            kernel.delete_neighbour(link.index, vip.ip()).await?;
        }
        entries.push(entry(&neighbour, kept));
    }
    if let Some(proxy) = kernel.proxy(link.index, vip.ip()).await? {
        entries.push(entry(&proxy, Some("a proxy entry, set by hand")));
    }
    Ok(entries)
}

fn reason_to_keep(neighbour: &Neighbour, order: &Order) -> Option<&'static str> {
    match neighbour.state {
        NeighbourState::Permanent if !order.permanent => {
            Some("PERMANENT, set by hand: `vipherald purge --permanent` deletes it")
        }
        NeighbourState::Noarp => Some("NOARP: the interface resolves no addresses"),
        _ if neighbour.externally_learned => Some("externally learned: its control plane keeps it"),
        _ if order.dry_run => Some("dry run: it would be deleted"),
        _ => None,
    }
}

async fn name_of(kernel: &Kernel, links: &[Link], index: InterfaceIndex) -> Result<String, Error> {
    if let Some(link) = links.iter().find(|link| link.index == index) {
        return Ok(link.name.clone());
    }
    let link = kernel.link(index).await?;
    Ok(link.map_or_else(|| format!("interface {}", index.0), |link| link.name))
}
