//! Checking: who answers for a VIP, and does everyone follow?
//!
//! Where the VIP is on this host, an [`Announcement`] in the manner of a check asks; where it is
//! not, an [`Inquiry`] does, and compares the answers with this kernel's own entry.

mod inquirer;
mod inquiry;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use log::debug;
use serde::Serialize;

pub use inquiry::Inquiry;

use crate::address::{Mac, Vip};
use crate::announce::session::{self, Session};
use crate::announce::{self, Announcement, Claim, Confirm, Confirmation, Manner, Pace, Standing};
use crate::error::Error;
use crate::kernel::{Address, Kernel, Link, Neighbour};
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
    /// The VIPs.
    pub vips: Vec<Vip>,
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
    /// As for [`session::Order`].
    pub configured: bool,
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
    for vip in &order.vips {
        plan += &if places.holds(*vip) {
            format!("{vip} is here: its peers would be asked, and who else has it\n")
        } else {
            match places.link_to(kernel, *vip).await? {
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
    let (mut here, elsewhere): (Vec<Vip>, Vec<Vip>) =
        order.vips.iter().partition(|vip| places.holds(**vip));
    let mut findings = places.held_in_vain(&mut here, order.configured);
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
    findings.extend(owned.into_iter().chain(others));
    let place = |vip| order.vips.iter().position(|asked| *asked == vip);
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
        vips: vec![finding.vip],
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

/// What this host knows of itself.
struct Places {
    links: Vec<Link>,
    addresses: Vec<Address>,
    only: Option<Link>,
}

impl Places {
    async fn find(kernel: &Kernel, order: &Order) -> Result<Self, Error> {
        let links = kernel.links().await?;
        let only = match &order.interface {
            Some(name) => {
                let named = links.iter().find(|link| link.name == *name);
                Some(named.ok_or_else(|| Error::NoSuchInterface(name.clone()))?)
            }
            None => None,
        };
        Ok(Self {
            only: only.cloned(),
            addresses: kernel.addresses().await?,
            links,
        })
    }

    fn holds(&self, vip: Vip) -> bool {
        self.addresses.iter().any(|own| own.ip == vip.ip())
    }

    /// Takes the VIPs out of `here` that are on an interface where nobody can be asked. Those that
    /// keepalived.conf names may be on one that never has neighbours.
    fn held_in_vain(&self, here: &mut Vec<Vip>, configured: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        here.retain(|vip| {
            let holders = self.addresses.iter().filter(|own| own.ip == vip.ip());
            let links = holders
                .filter_map(|own| self.links.iter().find(|link| link.index == own.interface));
            let mut unaskable = links.filter_map(|link| Some((link, unaskable(link)?)));
            let Some((link, why)) = unaskable.next() else {
                return true;
            };
            if configured && link.unlike_ethernet.is_some() {
                debug!("{vip} is passed over: {why}");
            } else {
                let role = Role::Owner {
                    began: Instant::now(),
                    peers: Vec::new(),
                };
                findings.push(not_asked(*vip, Some(link), Verdict::Failed, &why, role));
            }
            false
        });
        findings
    }

    fn own_macs(&self) -> BTreeSet<Mac> {
        self.links.iter().filter_map(|link| link.mac).collect()
    }

    /// The link that leads to a VIP that is not here, or why none does.
    async fn link_to(&self, kernel: &Kernel, vip: Vip) -> Result<Result<&Link, String>, Error> {
        let link = match &self.only {
            Some(link) => link,
            None => match kernel.route(vip.ip()).await? {
                None => {
                    return Ok(Err(
                        "this host has no route to it: run this on a host of its link, or name \
                         the interface with -i"
                            .to_owned(),
                    ));
                }
                Some(route) => {
                    let name = |link: &&Link| link.index == route.interface;
                    let Some(link) = self.links.iter().find(name) else {
                        return Ok(Err("the interface that leads to it is gone".to_owned()));
                    };
                    if let Some(gateway) = route.gateway {
                        return Ok(Err(format!(
                            "it is not on a link of this host: the route to it goes to {gateway} \
                             on {}; run this on {gateway}, or on another host of the VIP's link",
                            link.name
                        )));
                    }
                    link
                }
            },
        };
        Ok(unaskable(link).map_or(Ok(link), Err))
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
        verdict,
        why: Some(why.to_owned()),
        owners: Vec::new(),
        frames: 0,
        role,
    }
}

/// Looks at the VIPs that are here.
async fn ask_peers(vips: Vec<Vip>, order: &Order) -> Result<Vec<Finding>, Error> {
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
        },
        age: Age::now(),
        configured: order.configured,
        // Who only asks gives none.
        orders: Orders::default(),
        instance: String::new(),
    };
    let mut session = Session::prepare(&order, Instant::now()).await?;
    session.run(std::future::pending::<()>()).await?;
    let core = session.core();
    let gone = core.absent().map(|vip| {
        let why = "it has just left this host: ask again";
        not_asked(vip, None, Verdict::Unproven, why, Role::Other(None))
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
