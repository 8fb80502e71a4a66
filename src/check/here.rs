//! Checks the VIPs that are here: an [`Announcement`] in [`Mode::Check`] asks their peers, while an
//! [`Observer`] watches how this host answers.

use std::collections::HashSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vipherald_core::address::Mac;
use vipherald_core::announce::{Announcement, Claim, Mode, Pace, State};
use vipherald_core::ask::{Bucket, OwnerSearch, OwnerSearches, PeerVerdict, Subject, VipVerdict};
use vipherald_core::host::PlacedVip;

use super::elsewhere::{asked_from, unused};
use super::places::Places;
use super::resolution::why_deaf;
use super::{Finding, Request, Role};
use crate::announce;
use crate::announce::Session;
use crate::answering::{self, Observer, Silence, why_silent};
use crate::driver::Driver;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::settings::Orders;
use crate::supersede::RunId;

pub(super) async fn ask_peers(
    kernel: &Kernel,
    places: &Places,
    vips: Vec<PlacedVip>,
    request: &Request,
) -> Result<Vec<Finding>, Error> {
    if vips.is_empty() {
        return Ok(Vec::new());
    }
    let mut observer = Observer::start(&places.host, &vips)?;
    let mut session = prepare(&vips, request).await?;
    tokio::select! {
        done = session.run(std::future::pending::<()>(), |_, _| ()) => drop(done?),
        // It returns only errors.
        watched = observer.watch() => watched?,
    }
    observer.look();
    let core = session.core();
    let mut findings = Vec::new();
    for claim in core.claims() {
        let mut finding = finding_of(core, claim, placed(places, &vips, claim));
        if claim.state() == State::Ready {
            let silence = why_unanswered(kernel, places, &observer, claim).await?;
            add_own_answers(&mut finding, places, &observer, claim, silence);
        }
        let (all, rates) = (&request.all_vips, (request.rate, request.arp_rate));
        let (proxies, frames) = proxies(kernel, places, all, rates, request.wait, claim).await?;
        finding.proxies = proxies;
        finding.frames += frames;
        findings.push(finding);
    }
    let gone = core.absent().map(|placed| {
        let why = Some("it has just left this host: ask again".to_owned());
        Finding::new(
            placed.clone(),
            None,
            (VipVerdict::Unproven, why),
            Role::Other(None),
        )
    });
    findings.extend(gone);
    Ok(findings)
}

async fn prepare(vips: &[PlacedVip], request: &Request) -> Result<Session, Error> {
    let request = announce::Request {
        mode: Mode::Check,
        vips: vips.to_vec(),
        all_vips: Arc::clone(&request.all_vips),
        // The kernel knows where they are better than the user's -i.
        interface: None,
        peers: request.peers.clone(),
        confirm: request.confirm,
        sweeps_all: false,
        expects_all: true,
        heard: None,
        late: announce::Late::new(),
        pace: Pace {
            rate: request.rate,
            arp_rate: request.arp_rate,
            census: request.census,
            wait: Duration::ZERO,
            // Peers get questions of three kinds.
            timeout: (2 * request.wait).max(Duration::from_millis(1)),
            repeats: true,
            conflict_watch: Duration::ZERO,
        },
        run_id: RunId::now(),
        // A check sends none.
        orders: Orders::default(),
        instance: String::new(),
    };
    Session::prepare(&request, Instant::now()).await
}

/// The VIP of a claim, as the request places it.
fn placed(places: &Places, vips: &[PlacedVip], claim: &Claim) -> PlacedVip {
    let lower = places.host.lower(&claim.link);
    let mut vips = vips.iter().filter(|placed| placed.vip == claim.vip);
    let its_own = vips.find(|placed| placed.place.admits(&claim.link, lower));
    its_own
        .cloned()
        .unwrap_or_else(|| PlacedVip::anywhere(claim.vip))
}

fn finding_of(core: &Announcement, claim: &Claim, placed: PlacedVip) -> Finding {
    let name = &claim.link.name;
    let verdict = match claim.state() {
        State::DadFailed => (
            VipVerdict::Conflict,
            Some(format!(
                "duplicate address detection on {name} found another owner"
            )),
        ),
        State::Left => (
            VipVerdict::Unproven,
            Some(format!("it has just left {name}")),
        ),
        State::Unfit(why) => (
            VipVerdict::Failed,
            Some(format!("nobody can be asked on {name}: it {why}")),
        ),
        State::Waiting(why) => (VipVerdict::Failed, Some(why.to_owned())),
        State::Superseded => (VipVerdict::Unproven, None),
        State::Ready => verdict_of(core, claim),
    };
    let peers = claim.peers();
    let role = Role::Owner {
        began: core.started(),
        peers: peers
            .map(|peer| (peer.clone(), claim.verdict_of(peer)))
            .collect(),
    };
    let mut finding = Finding::new(placed, Some(&claim.link), verdict, role);
    let conflicts = claim.conflicts().map(|mac| (mac, core.host_of(mac)));
    let own = claim.mac().map(|mac| (mac, None));
    finding.owners = own.into_iter().chain(conflicts).collect();
    finding.frames = claim.frames_sent;
    finding
}

/// The verdict on a VIP in [`State::Ready`].
fn verdict_of(core: &Announcement, claim: &Claim) -> (VipVerdict, Option<String>) {
    let name = &claim.link.name;
    let has = |verdict, required: bool| {
        let mut peers = claim.peers();
        peers.any(|peer| claim.verdict_of(peer) == verdict && (peer.peer.required || !required))
    };
    let (verdict, why) = match &claim.last_refusal {
        _ if claim.conflicts().next().is_some() => return (VipVerdict::Conflict, None),
        Some(why) if claim.frames_sent == 0 => (
            VipVerdict::Failed,
            format!("{name} takes no frames ({why})"),
        ),
        _ if has(PeerVerdict::Stale, false) => return (VipVerdict::Stale, None),
        _ if has(PeerVerdict::Silent, true) => {
            let why = "a peer that has to follow is silent";
            (VipVerdict::Unproven, why.to_owned())
        }
        _ if claim
            .peers()
            .any(|one| core.may_follow_other_card(claim, one)) =>
        {
            let why = "a peer seems to send to another card of this host, which may drop that (rp_filter)";
            (VipVerdict::Unproven, why.to_owned())
        }
        _ if !claim.is_certain_of_owners() => {
            let why = "the time was too short to rule out another owner";
            (VipVerdict::Unproven, why.to_owned())
        }
        _ => return (VipVerdict::Ok, None),
    };
    (verdict, Some(why))
}

/// Why this host does not answer requests for a VIP that it holds: its settings, a kernel that
/// resolves no neighbour, or observed silence.
async fn why_unanswered(
    kernel: &Kernel,
    places: &Places,
    observer: &Observer,
    claim: &Claim,
) -> Result<Option<Silence>, Error> {
    let (link, vip) = (&claim.link, claim.vip);
    if let Some(silence) = why_silent(kernel, &places.host, link, vip).await? {
        return Ok(Some(silence));
    }
    let answering = claim.confirmations().iter().filter(|peer| {
        let answered = peer.acknowledged.is_some() || peer.proven.is_some();
        answered && peer.answered_by.is_none()
    });
    let answering = answering.map(|peer| peer.peer.ip);
    if let Some(silence) = why_deaf(kernel, link, answering).await? {
        return Ok(Some(silence));
    }
    Ok(observer.why_unanswered(link, vip))
}

/// Adds to a finding how this host itself answers.
fn add_own_answers(
    finding: &mut Finding,
    places: &Places,
    observer: &Observer,
    claim: &Claim,
    silence: Option<Silence>,
) {
    if let Some(silence) = silence {
        // Peers can follow only once this host answers, so this outranks other verdicts.
        if matches!(finding.verdict, VipVerdict::Conflict | VipVerdict::Failed) {
            finding.notes.push(silence.to_string());
        } else {
            finding.verdict = VipVerdict::Unproven;
            finding.why = Some(format!(
                "this host holds it, but who asks for it does not find it: {silence}"
            ));
        }
    }
    let seen = observer.seen(claim.interface(), claim.vip);
    for mac in seen.iter().flat_map(|seen| &seen.also_answered) {
        let mut links = places.host.links.iter();
        if let Some(link) = links.find(|link| link.mac == Some(*mac)) {
            let cure = if answering::answers_for_others(&link.name) && claim.vip.ip().is_ipv4() {
                ": `sysctl -w net.ipv4.conf.all.arp_ignore=1` ends that"
            } else {
                ""
            };
            finding.notes.push(format!(
                "{} of this host answers for it as well, as {mac}, and peers may follow that{cure}",
                link.name
            ));
        }
    }
}

/// The MACs in conflict with a claim that also answer for unused addresses, and the number of frames
/// that it took to find them. Nobody looks for them if there are more than
/// [`MOST_CLAIMANTS`](vipherald_core::ask::MOST_CLAIMANTS).
pub(super) async fn proxies(
    kernel: &Kernel,
    places: &Places,
    all_vips: &HashSet<IpAddr>,
    (rate, arp_rate): (NonZeroU32, Option<NonZeroU32>),
    wait: Duration,
    claim: &Claim,
) -> Result<(Vec<Mac>, u32), Error> {
    let mut others: Vec<Mac> = claim.conflicts().collect();
    // Who they are makes no difference if they are a flood.
    let is_flood = claim.more_conflicts() > 0;
    let Some(mac) = claim.mac().filter(|_| !others.is_empty() && !is_flood) else {
        return Ok((Vec::new(), 0));
    };
    let (link, now) = (&claim.link, Instant::now());
    let neighbours = kernel.neighbours(link.index).await?;
    let known = |ip| {
        let mut neighbours = neighbours.iter().filter(|entry| entry.mac.is_some());
        all_vips.contains(&ip) || neighbours.any(|entry| entry.ip == ip)
    };
    let subject = Subject {
        vip: claim.vip,
        from: asked_from(places, link, mac, claim.vip, all_vips),
        probes_from_address: false,
        own_macs: places.host.macs().collect(),
        unused: unused(places, claim.vip, known),
        wait,
    };
    let mut searches = OwnerSearches::new(Bucket::new(rate, now));
    searches.add(link, OwnerSearch::for_proxies(subject, &others, now));
    Driver::open(arp_rate)?.run(&mut searches).await?;
    let Some(search) = searches.iter().next() else {
        return Ok((Vec::new(), 0));
    };
    others.retain(|mac| search.is_proxy(*mac));
    Ok((others, search.frames()))
}
