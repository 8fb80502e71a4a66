//! Checking: who answers for a VIP, and does everyone follow?
//!
//! Where the VIP is on this host, an [`Announcement`](crate::announce::Announcement) in the mode of
//! a check asks; where it is not, an [`OwnerSearch`] does, and compares the answers with this kernel's
//! own entry.

mod elsewhere;
mod here;
mod places;
mod resolution;

use std::net::IpAddr;
use std::num::NonZeroU32;
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

/// How long VIPs are asked for, unless the user says otherwise.
pub const WAIT: Duration = Duration::from_secs(1);
/// How long the kernel may take to resolve an address anew.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where they count as held here.
    pub vips: Vec<PlacedVip>,
    /// Where to ask for those that are not here; `None`: where the route to each leads.
    pub interface: Option<String>,
    /// Peers that must follow those that are here.
    pub peers: Vec<IpAddr>,
    /// Who else is asked whether they do.
    pub confirm: Confirm,
    /// Frames a second.
    pub rate: NonZeroU32,
    /// How long an answer is waited for.
    pub wait: Duration,
    /// Whether IPv4 VIPs, too, are asked for from an address of this host, as its kernel would. Other
    /// hosts then learn nothing of the VIP, but who has it learns of this host.
    pub openly: bool,
}

/// What was found of one VIP.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The virtual IP, and where it counts.
    pub placed: PlacedVip,
    /// Where it is, or was asked for.
    pub interface: Option<String>,
    /// Interfaces of this host that have it without holding it, and why.
    pub also_on: Vec<(String, &'static str)>,
    /// What that means.
    pub verdict: VipVerdict,
    /// Why that is the verdict, in words, where it is not plain.
    pub why: Option<String>,
    /// What else was seen and has to be known, a sentence each.
    pub notes: Vec<String>,
    /// The MACs that answered for it, with their hosts' addresses; this host's own first.
    pub owners: Vec<(Mac, Option<IpAddr>)>,
    /// Those of them that answer for addresses that nobody has, too: proxies.
    pub proxies: Vec<Mac>,
    /// Frames that left.
    pub frames: u32,
    /// What the role brings with it.
    pub role: Role,
}

/// From where a VIP was looked at.
#[derive(Clone, Debug)]
pub enum Role {
    /// It is on this host.
    Owner {
        /// When its peers were begun to be asked.
        began: Instant,
        /// They, and what is known of each.
        peers: Vec<(Confirmation, PeerVerdict)>,
    },
    /// It is not: this is the kernel's entry.
    Other(Option<Neighbour>),
}

/// What mended a VIP, or why nothing did.
#[derive(Clone, Debug)]
pub enum Mended {
    /// The kernel's entry was deleted, and resolved anew.
    Deleted,
    /// The entry stays.
    Kept(&'static str),
    /// It was announced.
    Announced,
}

impl Mended {
    /// Whether anything was done.
    #[must_use]
    pub fn is_a_change(&self) -> bool {
        !matches!(self, Self::Kept(_))
    }
}

impl Finding {
    /// Whether it is here, and announcing it does not mean to fight another owner.
    #[must_use]
    pub fn can_be_announced(&self) -> bool {
        let fit = !matches!(self.verdict, VipVerdict::Conflict | VipVerdict::Failed);
        fit && matches!(self.role, Role::Owner { .. })
    }

    /// Whether this host's entry holds the MAC of who answered.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        let Role::Other(Some(entry)) = &self.role else {
            return false;
        };
        let mut owners = self.owners.iter();
        owners.any(|(owner, _)| entry.mac == Some(*owner))
    }

    /// Its entry was deleted so that the kernel resolves the address anew: without that, nothing is
    /// mended.
    pub fn has_to_be_resolved(&mut self) {
        if self.verdict == VipVerdict::Ok && !self.is_resolved() {
            self.verdict = VipVerdict::Unproven;
            self.why = Some(elsewhere::not_resolved(self.placed.vip));
        }
    }
}

/// What a check would ask, in a line for each VIP.
///
/// # Errors
/// If the kernel can't be asked.
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

/// Looks at every VIP.
///
/// # Errors
/// If the kernel can't be asked, or no packet socket can be had.
pub async fn look(kernel: &Kernel, request: &Request) -> Result<Vec<Finding>, Error> {
    let places = Places::find(kernel, request).await?;
    let placed: Vec<_> = request.vips.iter().map(|vip| places.place(vip)).collect();
    let (here, elsewhere): (Vec<_>, Vec<_>) = placed
        .iter()
        .cloned()
        .partition(|placed| places.holds(placed));
    // Both at once may not exceed the rate.
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

/// Those of the MACs that contest a VIP that an announcement claims which answer for addresses that
/// nobody has, too: no owners, but proxies. `vips` are all of the announcement.
///
/// # Errors
/// If the kernel can't be asked, or no packet socket can be had.
pub async fn proxies(
    kernel: &Kernel,
    vips: &[PlacedVip],
    rate: NonZeroU32,
    claim: &Claim,
) -> Result<Vec<Mac>, Error> {
    let host = kernel.snapshot().await?;
    let places = Places { host, only: None };
    let (proxies, _) = here::proxies(kernel, &places, vips, rate, WAIT, claim).await?;
    Ok(proxies)
}

/// Mends what a finding on a host that does not hold the VIP shows: its stale entry goes, and the
/// kernel resolves the address anew. `None`: there is nothing to mend here.
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

/// A VIP that nobody was asked for.
fn not_asked(
    placed: PlacedVip,
    interface: Option<&Link>,
    verdict: VipVerdict,
    why: &str,
    role: Role,
) -> Finding {
    Finding {
        placed,
        interface: interface.map(|link| link.name.clone()),
        also_on: Vec::new(),
        verdict,
        why: Some(why.to_owned()),
        notes: Vec::new(),
        owners: Vec::new(),
        proxies: Vec::new(),
        frames: 0,
        role,
    }
}
