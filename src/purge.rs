//! Purging: deleting this host's neighbour entries for VIPs.

use std::slice;

use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::host::{HostSnapshot, Link, Neighbour, NeighbourState, PlacedVip};

use crate::error::Error;
use crate::kernel::Kernel;

/// What to purge.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where they count as held here.
    pub vips: Vec<PlacedVip>,
    /// Only on this interface; `None`: on all.
    pub interface: Option<String>,
    /// Whether to delete PERMANENT entries, too.
    pub permanent: bool,
    /// Entries with this MAC are right, and stay; `None`: all go.
    pub right: Option<Mac>,
    /// Whether to delete nothing.
    pub dry_run: bool,
}

/// Why an entry was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It holds the right MAC.
    Right,
    /// It was set by hand.
    Permanent,
    /// It was set by hand, never to be resolved.
    Noarp,
    /// A control plane keeps it (`NTF_EXT_LEARNED`).
    Learned,
    /// This host answers for the address.
    Proxy,
    /// In a dry run.
    DryRun,
}

impl Kept {
    /// The reason, for people.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Right => "it is right",
            Self::Permanent => "PERMANENT, set by hand: `vipherald purge --permanent` deletes it",
            Self::Noarp => "NOARP, set by hand: `ip neigh del` deletes it",
            Self::Learned => "externally learned: its control plane keeps it",
            Self::Proxy => "a proxy entry, set by hand",
            Self::DryRun => "dry run: it would be deleted",
        }
    }
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The VIP it was for.
    pub vip: Vip,
    /// The interface it was on.
    pub interface: String,
    /// Its hardware address, if any.
    pub mac: Option<Mac>,
    /// Its state.
    pub state: NeighbourState,
    /// Its interface.
    pub index: InterfaceIndex,
    /// Why it was kept; `None`: it was deleted.
    pub kept: Option<Kept>,
}

/// What a purge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// The entries that it found.
    pub entries: Vec<Entry>,
    /// The VIPs that this host holds itself, with the interface: their entries stay.
    pub held_here: Vec<(Vip, String)>,
}

/// Purges the VIPs' entries, each by its key, without reading or changing the rest of the tables.
///
/// A VIP that this host holds where it counts keeps all its entries: this host is its owner. (But a
/// link-local VIP is a different address on each link.)
///
/// # Errors
/// If the interface does not exist, or the kernel refuses.
pub async fn purge(kernel: &Kernel, request: &Request) -> Result<Purged, Error> {
    let (host, only) = match &request.interface {
        None => (kernel.snapshot().await?, None),
        Some(name) => {
            // By an alternative name, too.
            let link = kernel.link_named(name).await?;
            let link = link.ok_or_else(|| Error::NoSuchInterface(name.clone()))?;
            let host = kernel.snapshot_around(&request.vips).await?;
            (host, Some(link))
        }
    };
    let only = only.as_ref();
    let mut purged = Purged::default();
    for (at, placed) in request.vips.iter().enumerate() {
        if request.vips[..at].contains(placed) {
            continue;
        }
        let (held, rest) = divide(&host, placed, only);
        let held = held.into_iter().map(|name| (placed.vip, name));
        purged.held_here.extend(held);
        for link in rest {
            let entries = purge_on(kernel, placed.vip, link, request).await?;
            purged.entries.extend(entries);
        }
    }
    Ok(purged)
}

/// The names of the interfaces that hold a VIP and thereby forbid a purge; and the interfaces to purge
/// it on.
fn divide<'a>(
    host: &'a HostSnapshot,
    placed: &PlacedVip,
    only: Option<&'a Link>,
) -> (Vec<String>, Vec<&'a Link>) {
    let all = only.map_or(host.links.as_slice(), slice::from_ref).iter();
    let counts = host.holders(placed);
    if !placed.vip.is_link_local() {
        // The host as a whole holds it.
        return match counts.first() {
            Some(holder) => (vec![holder.name.clone()], Vec::new()),
            None => (Vec::new(), all.collect()),
        };
    }
    // It is a different address on each link: only entries on its own link matter.
    let its_own = all.filter(|link| placed.place.is_link(link, host.lower(link)));
    let holds = |link: &&Link| counts.iter().any(|holder| holder.index == link.index);
    let (held, rest): (Vec<&Link>, Vec<&Link>) = its_own.partition(holds);
    (held.iter().map(|link| link.name.clone()).collect(), rest)
}

async fn purge_on(
    kernel: &Kernel,
    vip: Vip,
    link: &Link,
    request: &Request,
) -> Result<Vec<Entry>, Error> {
    let entry = |neighbour: &Neighbour, kept| Entry {
        vip,
        interface: link.name.clone(),
        index: link.index,
        mac: neighbour.mac,
        state: neighbour.state,
        kept,
    };
    let mut entries = Vec::new();
    let neighbour = kernel.neighbour(link.index, vip.ip()).await?;
    if let Some(neighbour) = neighbour.filter(|one| !is_local(one, link)) {
        let kept = reason_to_keep(&neighbour, request);
        // An entry that went in between is as good as deleted.
        if kept.is_none() {
            kernel.delete_neighbour(link.index, vip.ip()).await?;
        }
        entries.push(entry(&neighbour, kept));
    }
    if let Some(proxy) = kernel.proxy(link.index, vip.ip()).await? {
        entries.push(entry(&proxy, Some(Kept::Proxy)));
    }
    Ok(entries)
}

/// Whether no frame to another host could use an entry: for packets that stay on this host, or that leave
/// without a MAC, the kernel makes such entries, too, as those of this host's own IPv6 addresses on lo.
fn is_local(neighbour: &Neighbour, link: &Link) -> bool {
    neighbour.state == NeighbourState::Noarp && link.unlike_ethernet.is_some()
}

fn reason_to_keep(neighbour: &Neighbour, request: &Request) -> Option<Kept> {
    match neighbour.state {
        _ if request.right.is_some() && neighbour.mac == request.right => Some(Kept::Right),
        NeighbourState::Permanent if !request.permanent => Some(Kept::Permanent),
        NeighbourState::Noarp => Some(Kept::Noarp),
        _ if neighbour.externally_learned => Some(Kept::Learned),
        _ if request.dry_run => Some(Kept::DryRun),
        _ => None,
    }
}
