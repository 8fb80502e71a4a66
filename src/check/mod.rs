//! Checks who answers for a VIP, and whether everyone follows.
//!
//! If the VIP is on this host, an [`Announcement`](vipherald_core::announce::Announcement) in
//! [`Mode::Check`](vipherald_core::announce::Mode::Check) asks. If not, an
//! [`OwnerSearch`](vipherald_core::ask::OwnerSearch) does, and the check compares the answers with this
//! kernel's entry.

mod elsewhere;
mod here;
mod places;
mod resolution;

use std::collections::HashSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use places::Places;
use vipherald_core::address::Mac;
use vipherald_core::announce::Claim;
use vipherald_core::ask::{Confirm, Confirmation, PeerVerdict, VipVerdict};
use vipherald_core::host::{Link, Neighbour, PlacedVip};

use crate::error::Error;
use crate::kernel::Kernel;
use crate::printable::one_line;
use crate::purge;

/// The default of `--wait`.
pub const WAIT: Duration = Duration::from_secs(1);
/// How long the kernel may take to resolve an address again.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// What to check.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where this host would hold them.
    pub vips: Vec<PlacedVip>,
    /// All VIPs that are known, of other instances, too: nothing is asked from them.
    pub all_vips: Arc<HashSet<IpAddr>>,
    /// Where to probe for VIPs that are not here; `None`: where the route to each leads.
    pub interface: Option<String>,
    /// Configured peers.
    pub peers: Vec<IpAddr>,
    /// Which peers to ask.
    pub confirm: Confirm,
    /// Frames per second.
    pub rate: NonZeroU32,
    /// ARP frames per second and link.
    pub arp_rate: Option<NonZeroU32>,
    /// Whether to look for IPv6 hosts with an echo to all nodes.
    pub census: bool,
    /// How long to wait for answers.
    pub wait: Duration,
    /// Whether to send IPv4 probes, too, from an address of this host, as its kernel does. Then no other
    /// host learns anything about the VIP, but its owner gets an entry for this host.
    pub openly: bool,
}

/// The result for one VIP.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The VIP, and where it counts.
    pub placed: PlacedVip,
    /// The interface that holds it, or took the probes.
    pub interface: Option<String>,
    /// Interfaces of this host that have its address without holding it, and why.
    pub also_on: Vec<(String, &'static str)>,
    /// The verdict.
    pub verdict: VipVerdict,
    /// The reason, if not obvious.
    pub why: Option<String>,
    /// More that the user should know, a sentence each.
    pub notes: Vec<String>,
    /// The MACs that answer for it, with their hosts' addresses; this host's own first.
    pub owners: Vec<(Mac, Option<IpAddr>)>,
    /// The owners that also answer for unused addresses: proxies.
    pub proxies: Vec<Mac>,
    /// Sent frames.
    pub frames: u32,
    /// This host's role.
    pub role: Role,
}

/// This host's role for a VIP.
#[derive(Clone, Debug)]
pub enum Role {
    /// It has the VIP.
    Owner {
        /// When the check began.
        began: Instant,
        /// The peers, and what each proved.
        peers: Vec<(Confirmation, PeerVerdict)>,
    },
    /// It does not; its kernel has this entry.
    Other(Option<Neighbour>),
}

/// What corrected a wrong entry, or why nothing did.
#[derive(Clone, Debug)]
pub enum Mended {
    /// This host deleted its entry, and its kernel resolved the address again.
    Deleted,
    /// The entry stays.
    Kept(&'static str),
    /// This host announced the VIP.
    Announced,
}

impl Mended {
    /// Whether this host changed anything.
    #[must_use]
    pub fn is_a_change(&self) -> bool {
        !matches!(self, Self::Kept(_))
    }
}

impl Finding {
    /// A finding without owners and frames.
    fn new(
        placed: PlacedVip,
        interface: Option<&Link>,
        (verdict, why): (VipVerdict, Option<String>),
        role: Role,
    ) -> Self {
        Self {
            placed,
            interface: interface.map(|link| link.name.clone()),
            also_on: Vec::new(),
            verdict,
            why,
            notes: Vec::new(),
            owners: Vec::new(),
            proxies: Vec::new(),
            frames: 0,
            role,
        }
    }

    /// Whether it is here, and no other owner contests it.
    #[must_use]
    pub fn can_be_announced(&self) -> bool {
        let fit = !matches!(self.verdict, VipVerdict::Conflict | VipVerdict::Failed);
        fit && matches!(self.role, Role::Owner { .. })
    }

    /// Whether this host's entry has an owner's MAC.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        let Role::Other(Some(entry)) = &self.role else {
            return false;
        };
        let mut owners = self.owners.iter();
        owners.any(|(owner, _)| entry.mac == Some(*owner))
    }

    /// For a VIP whose entry this host deleted: `Ok` requires that the kernel resolved it again.
    pub fn has_to_be_resolved(&mut self) {
        if self.verdict == VipVerdict::Ok && !self.is_resolved() {
            self.verdict = VipVerdict::Unproven;
            self.why = Some(elsewhere::not_resolved(self.placed.vip));
        }
    }
}

/// Says in a line per VIP what a check would ask.
///
/// # Errors
/// If netlink fails.
pub async fn plan(kernel: &Kernel, request: &Request) -> Result<String, Error> {
    let places = Places::find(kernel, request).await?;
    let mut plan = String::new();
    for placed in &request.vips {
        let placed = places.place(placed);
        let vip = placed.vip;
        let line = if places.holds(&placed) {
            format!("{vip} is here: its peers would be asked, and who else has it")
        } else {
            match places.link_to(kernel, &placed).await? {
                Ok(link) => format!("{vip} would be asked for on {}", link.name),
                Err(why) => format!("{vip} would not be asked for: {why}"),
            }
        };
        plan += &one_line(&line);
        plan.push('\n');
    }
    Ok(plan)
}

/// Checks every VIP.
///
/// # Errors
/// If netlink or a packet socket fails.
pub async fn look(kernel: &Kernel, request: &Request) -> Result<Vec<Finding>, Error> {
    let places = Places::find(kernel, request).await?;
    let placed: Vec<_> = request.vips.iter().map(|vip| places.place(vip)).collect();
    let (here, elsewhere): (Vec<_>, Vec<_>) = placed
        .iter()
        .cloned()
        .partition(|placed| places.holds(placed));
    // The two run at once, and share the rate.
    let both = !here.is_empty() && !elsewhere.is_empty();
    let share = NonZeroU32::new(request.rate.get() / if both { 2 } else { 1 });
    let rate = share.unwrap_or(NonZeroU32::MIN);
    let request = Request {
        rate,
        ..request.clone()
    };
    let (owned, others) = tokio::try_join!(
        here::ask_peers(kernel, &places, here, &request),
        elsewhere::ask(kernel, &places, &elsewhere, &request),
    )?;
    let mut findings = [owned, others].concat();
    for finding in &mut findings {
        finding.also_on = places.also_on(&finding.placed);
    }
    findings.sort_by_key(|finding| placed.iter().position(|asked| *asked == finding.placed));
    Ok(findings)
}

/// The MACs in conflict with a claim that also answer for unused addresses: they are proxies, not
/// owners. `all_vips` are all that are known.
///
/// # Errors
/// If netlink or a packet socket fails.
pub async fn proxies(
    kernel: &Kernel,
    all_vips: &HashSet<IpAddr>,
    rates: (NonZeroU32, Option<NonZeroU32>),
    claim: &Claim,
) -> Result<Vec<Mac>, Error> {
    let host = kernel.snapshot().await?;
    let places = Places { host, only: None };
    let (proxies, _) = here::proxies(kernel, &places, all_vips, rates, WAIT, claim).await?;
    Ok(proxies)
}

/// On a host without the VIP, deletes its stale entry and makes the kernel resolve the address again.
/// `None`: there is nothing to correct.
///
/// # Errors
/// If the kernel refuses.
pub async fn mend(
    kernel: &Kernel,
    finding: &Finding,
    permanent: bool,
) -> Result<Option<Mended>, Error> {
    let (VipVerdict::Stale, Role::Other(_), Some(interface)) =
        (finding.verdict, &finding.role, &finding.interface)
    else {
        return Ok(None);
    };
    let request = purge::Request {
        vips: vec![finding.placed.clone()],
        interface: Some(interface.clone()),
        permanent,
        right: None,
        dry_run: false,
    };
    let purged = purge::purge(kernel, &request).await?;
    if let Some(why) = purged.entries.iter().find_map(|entry| entry.kept) {
        return Ok(Some(Mended::Kept(why.reason())));
    }
    if let Some(link) = kernel.link_named(interface).await? {
        kernel
            .resolve(link.index, finding.placed.vip.ip(), RESOLVED_WITHIN)
            .await?;
    }
    Ok(Some(Mended::Deleted))
}
