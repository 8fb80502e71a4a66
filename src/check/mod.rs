//! Checking: who answers for a VIP, and does everyone follow?
//!
//! Where the VIP is on this host, an [`Announcement`] in the manner of a check asks; where it is
//! not, an [`Inquiry`] does, and compares the answers with this kernel's own entry.

mod inquirer;
mod inquiry;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use inquiry::Inquiry;

use crate::address::{Mac, Prefix, Vip};
use crate::announce::session::{self, Session};
use crate::announce::{self, Announcement, Claim, Confirm, Confirmation, Manner, Pace, Standing};
use crate::error::Error;
use crate::host::{HostSnapshot, Place, PlacedVip};
use crate::kernel::{Kernel, Link, Neighbour};
use crate::purge;
use crate::settings::Orders;
use crate::takeover::Age;

/// How long VIPs are asked for, unless the user says otherwise.
pub const WAIT: Duration = Duration::from_secs(1);
/// How long the kernel may take to resolve an address anew.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Order {
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
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Two or more hosts have the VIP.
    Conflict,
    /// It could not be asked for.
    Failed,
    /// Nobody has it.
    Unowned,
    /// One host has it, and this one, or a peer, sends to another.
    Stale,
    /// Too few answers to tell.
    Unproven,
    /// One host has it, and nothing that was heard contradicts that.
    Ok,
}

/// What was found of one VIP.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The virtual IP.
    pub vip: Vip,
    /// Where it is, or was asked for.
    pub interface: Option<String>,
    /// Interfaces of this host that have it without holding it, and why.
    pub also_on: Vec<(String, &'static str)>,
    /// What that means.
    pub verdict: Verdict,
    /// Why it failed or is unproven, in words, where that is not plain.
    pub why: Option<String>,
    /// The MACs that answered for it, with their hosts' addresses; this host's own first.
    pub owners: Vec<(Mac, Option<IpAddr>)>,
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
        peers: Vec<(Confirmation, announce::Verdict)>,
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
        let fit = !matches!(self.verdict, Verdict::Conflict | Verdict::Failed);
        fit && matches!(self.role, Role::Owner { .. })
    }
}

/// What a check would ask, in a line for each VIP.
///
/// # Errors
/// If the kernel can't be asked.
pub async fn plan(kernel: &Kernel, order: &Order) -> Result<String, Error> {
    let places = Places::find(kernel, order).await?;
    let mut plan = String::new();
    for placed in places.placed(&order.vips) {
        let vip = placed.vip;
        plan += &if places.holds(&placed) {
            format!("{vip} is here: its peers would be asked, and who else has it\n")
        } else {
            match places.link_to(kernel, &placed).await? {
                Ok(link) => format!("{vip} would be asked for on {}\n", link.name),
                Err(why) => format!("{vip} would not be asked for: {why}\n"),
            }
        };
    }
    Ok(plan)
}

/// Looks at every VIP.
///
/// # Errors
/// If the kernel can't be asked, or no packet socket can be had.
pub async fn look(kernel: &Kernel, order: &Order) -> Result<Vec<Finding>, Error> {
    let places = Places::find(kernel, order).await?;
    let placed = places.placed(&order.vips);
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        placed.into_iter().partition(|placed| places.holds(placed));
    // Both at once may not exceed the rate.
    let both = !here.is_empty() && !elsewhere.is_empty();
    let share = NonZeroU32::new(order.rate.get() / if both { 2 } else { 1 });
    let rate = share.unwrap_or(NonZeroU32::MIN);
    let order = Order {
        rate,
        ..order.clone()
    };
    let (owned, others) = tokio::try_join!(
        ask_peers(here, &order),
        inquirer::ask(kernel, &places, &elsewhere, &order),
    )?;
    let mut findings = [owned, others].concat();
    for finding in &mut findings {
        finding.also_on = places.also_on(finding.vip);
    }
    let place = |vip| order.vips.iter().position(|asked| asked.vip == vip);
    findings.sort_by_key(|finding| place(finding.vip));
    Ok(findings)
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
    let (Verdict::Stale, Role::Other(_), Some(interface)) =
        (finding.verdict, &finding.role, &finding.interface)
    else {
        return Ok(None);
    };
    let order = purge::Order {
        vips: vec![PlacedVip::anywhere(finding.vip)],
        interface: Some(interface.clone()),
        permanent,
        right: None,
        dry_run: false,
    };
    let purged = purge::purge(kernel, &order).await?;
    if let Some(why) = purged.entries.iter().find_map(|entry| entry.kept) {
        return Ok(Some(Mended::Kept(why.reason())));
    }
    if let Some(link) = kernel.link_named(interface).await? {
        kernel
            .resolve(link.index, finding.vip.ip(), RESOLVED_WITHIN)
            .await?;
    }
    Ok(Some(Mended::Deleted))
}

/// What this host has, and the interface that was named.
struct Places {
    host: HostSnapshot,
    only: Option<Link>,
}

impl Places {
    async fn find(kernel: &Kernel, order: &Order) -> Result<Self, Error> {
        let host = HostSnapshot::take(kernel).await?;
        let only = match &order.interface {
            Some(name) => {
                let named = host.link_named(name).cloned();
                Some(named.ok_or_else(|| Error::NoSuchInterface(name.clone()))?)
            }
            None => None,
        };
        Ok(Self { host, only })
    }

    /// The VIPs, and where they count. A link-local address is another one on each link; for others
    /// the kernel knows better where they are than whoever named an interface.
    fn placed(&self, vips: &[PlacedVip]) -> Vec<PlacedVip> {
        let placed = |placed: &PlacedVip| match &self.only {
            Some(link) if placed.vip.is_link_local() => PlacedVip {
                place: Place::On(link.name.clone()),
                ..*placed
            },
            _ => placed.clone(),
        };
        vips.iter().map(placed).collect()
    }

    fn holds(&self, placed: &PlacedVip) -> bool {
        !self.host.holders(placed).is_empty()
    }

    /// The interfaces that have a VIP, and where nobody can ask for it.
    fn also_on(&self, vip: Vip) -> Vec<(String, &'static str)> {
        let anywhere = PlacedVip::anywhere(vip);
        let places = self.host.places_of(&anywhere).into_iter();
        places
            .filter_map(|link| Some((link.name.clone(), link.why_unaskable()?)))
            .collect()
    }

    /// The link that leads to a VIP that is not here, or why none does.
    async fn link_to(
        &self,
        kernel: &Kernel,
        placed: &PlacedVip,
    ) -> Result<Result<&Link, String>, Error> {
        if let Some(link) = &self.only {
            return Ok(unaskable(link).map_or(Ok(link), Err));
        }
        let vip = placed.vip;
        let also_on = self.also_on(vip);
        if let Some((name, _)) = also_on.first() {
            // The kernel's route ends at this host itself.
            let link = self.link_beside(placed);
            return Ok(link.ok_or_else(|| {
                format!(
                    "{name} has it, and none of this host's subnets tells on which link others \
                     do: name the interface with -i"
                )
            }));
        }
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

    /// The link that a VIP which this host has on `lo` is on for others: where keepalived would put
    /// it, or where an own subnet contains it.
    fn link_beside(&self, placed: &PlacedVip) -> Option<&Link> {
        let askable = |link: &&Link| unaskable(link).is_none();
        let named = placed
            .place
            .name()
            .and_then(|name| self.host.link_named(name));
        named.filter(askable).or_else(|| {
            let subnets = self.host.addresses.iter().filter(|own| {
                let subnet = Prefix::of(own);
                !subnet.is_host() && subnet.contains(placed.vip.ip())
            });
            let mut links = subnets.filter_map(|own| self.host.link(own.interface));
            links.find(askable)
        })
    }
}

/// Why nobody can be asked on a link, if so.
fn unaskable(link: &Link) -> Option<String> {
    let name = &link.name;
    if let Some(why) = link.unlike_ethernet {
        Some(format!("nobody can be asked on {name}: it {why}"))
    } else if !link.up {
        Some(format!("{name} is down; `ip link set {name} up`"))
    } else if !link.carrier {
        Some(format!(
            "{name} has no carrier: look at its cable or switch port"
        ))
    } else {
        None
    }
}

/// A VIP that nobody was asked for.
fn not_asked(
    vip: Vip,
    interface: Option<&Link>,
    verdict: Verdict,
    why: &str,
    role: Role,
) -> Finding {
    Finding {
        vip,
        interface: interface.map(|link| link.name.clone()),
        also_on: Vec::new(),
        verdict,
        why: Some(why.to_owned()),
        owners: Vec::new(),
        frames: 0,
        role,
    }
}

/// Looks at the VIPs that are here.
async fn ask_peers(vips: Vec<PlacedVip>, order: &Order) -> Result<Vec<Finding>, Error> {
    if vips.is_empty() {
        return Ok(Vec::new());
    }
    let order = session::Order {
        manner: Manner::Check,
        vips,
        // Wherever they are: the kernel knows better than whoever typed -i.
        interface: None,
        peers: order.peers.clone(),
        confirm: order.confirm,
        pace: Pace {
            rate: order.rate,
            wait: Duration::ZERO,
            // Peers take questions of three kinds.
            timeout: (2 * order.wait).max(Duration::from_millis(1)),
            conflict_watch: Duration::ZERO,
        },
        age: Age::now(),
        // Who only asks gives none.
        orders: Orders::default(),
        instance: String::new(),
    };
    let mut session = Session::prepare(&order, Instant::now()).await?;
    session.run(std::future::pending::<()>(), |_, _| ()).await?;
    let core = session.core();
    let gone = core.absent().map(|placed| {
        let why = "it has just left this host: ask again";
        not_asked(placed.vip, None, Verdict::Unproven, why, Role::Other(None))
    });
    let claims = core.claims().iter();
    Ok(claims.map(|claim| owner(core, claim)).chain(gone).collect())
}

fn owner(core: &Announcement, claim: &Claim) -> Finding {
    let conflicts = claim.conflicts().map(|mac| (mac, core.host_of(mac)));
    let owners: Vec<_> = claim
        .mac()
        .map(|mac| (mac, None))
        .into_iter()
        .chain(conflicts)
        .collect();
    let name = &claim.link.name;
    let peers = claim.confirmations();
    let is = |peer: &Confirmation, verdict| claim.verdict_of(peer) == verdict;
    let (verdict, why) = match claim.standing() {
        Standing::DadFailed => (
            Verdict::Conflict,
            Some(format!(
                "duplicate address detection on {name} found another owner"
            )),
        ),
        Standing::Left => (Verdict::Unproven, Some(format!("it has just left {name}"))),
        Standing::Unfit(why) => (
            Verdict::Failed,
            Some(format!("nobody can be asked on {name}: it {why}")),
        ),
        Standing::Waiting(why) => (Verdict::Failed, Some(why.to_owned())),
        Standing::Superseded => (Verdict::Unproven, None),
        Standing::Ready if claim.conflicts().next().is_some() => (Verdict::Conflict, None),
        Standing::Ready => match claim.last_refusal {
            Some(errno) if claim.frames_sent == 0 => (
                Verdict::Failed,
                Some(format!("{name} takes no frames ({errno})")),
            ),
            _ if peers.iter().any(|peer| is(peer, announce::Verdict::Stale)) => {
                (Verdict::Stale, None)
            }
            _ if peers
                .iter()
                .any(|peer| peer.peer.required && is(peer, announce::Verdict::Silent)) =>
            {
                (
                    Verdict::Unproven,
                    Some("a peer that has to follow is silent".to_owned()),
                )
            }
            _ if !claim.is_certain_of_owners() => (
                Verdict::Unproven,
                Some("the time was too short to rule out another owner".to_owned()),
            ),
            _ => (Verdict::Ok, None),
        },
    };
    Finding {
        vip: claim.vip,
        interface: Some(name.clone()),
        also_on: Vec::new(),
        verdict,
        why,
        owners,
        frames: claim.frames_sent,
        role: Role::Owner {
            began: core.started(),
            peers: peers
                .iter()
                .map(|peer| (peer.clone(), claim.verdict_of(peer)))
                .collect(),
        },
    }
}
