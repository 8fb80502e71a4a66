//! Purging: this host forgets which hardware address a VIP had.

use std::slice;

use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::host::{HostSnapshot, Link, Neighbour, NeighbourState, PlacedVip};

use crate::error::Error;
use crate::kernel::Kernel;

/// What is to be purged.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where they count as held here.
    pub vips: Vec<PlacedVip>,
    /// Only on this interface; `None`: on every one.
    pub interface: Option<String>,
    /// PERMANENT entries, too.
    pub permanent: bool,
    /// Entries that hold this MAC are right, and stay; `None`: all go.
    pub right: Option<Mac>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Why an entry was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It holds the right MAC.
    Right,
    /// It was set by hand.
    Permanent,
    /// Its interface resolves no addresses.
    Noarp,
    /// A control plane keeps it (`NTF_EXT_LEARNED`).
    Learned,
    /// This host answers for the address.
    Proxy,
    /// It was only to be said what would be done.
    DryRun,
}

impl Kept {
    /// The reason, for people.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Right => "it is right",
            Self::Permanent => "PERMANENT, set by hand: `vipherald purge --permanent` deletes it",
            Self::Noarp => "NOARP: the interface resolves no addresses",
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
    /// The hardware address it held, if any.
    pub mac: Option<Mac>,
    /// The state it was in.
    pub state: NeighbourState,
    /// Its interface.
    pub index: InterfaceIndex,
    /// Why it was kept; `None`: it was deleted.
    pub kept: Option<Kept>,
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
/// A VIP that is held where it counts keeps all its entries: this host is its owner. On an interface
/// that holds it elsewhere (a link-local VIP is another one on each link) there is none to purge.
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

/// The interfaces that hold a VIP, as far as that contradicts a purge, by name; and those to purge
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
    // It is another address on each link: what others than its own say of it is of no interest.
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
    if let Some(neighbour) = kernel.neighbour(link.index, vip.ip()).await? {
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
