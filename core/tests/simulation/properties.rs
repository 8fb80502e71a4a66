//! The properties of every run.
//!
//! # Frames to one peer
//!
//! The core asks in *turns*. A peer's turns restart, with short gaps, on news: the VIP may be
//! announced (again), the path came alive, or the peer answered in a new way (itself, from another
//! MAC, to its control echo: at most three times); and once more after the last round, if the peer
//! has answered. The gaps after a restart are 5, 10, 20, 40, 80 and 160 ms, and then
//!
//! - 250 ms while nobody on the link answers, or while the core has not asked a peer that has
//!   answered often enough (at most 225 echoes to each MAC that answered for it) to tell a lost answer from a missing one;
//! - growing to 2 s otherwise.
//!
//! A turn is one frame, or two from the third turn on, to a peer that has not answered; and at most
//! four to one that has. So in a run of `t` seconds, with `n` restarts, a peer costs at most
//!
//! - `2 × (7 n + 4 t)` frames while nobody answers: about 490 in 60 s for a gateway that is down, or
//!   820 with the broadcasts;
//! - `2 × (10 n + t / 2)` frames if it is silent while others answer: 80 in 60 s with one restart
//!   (2 if it follows at once);
//! - `4 × (7 n + 4 t)` frames in any case.
//!
//! # Looks at other owners
//!
//! After the rounds of a VIP, if another host has claimed it, the core probes for its owners every
//! 15 ms, until all claimants have answered, or until it has sent enough probes (6 to 270, depending
//! on losses) to exclude chance. It repeats this look after 2 s. If all claimants answer within
//! 15 ms, a look costs one frame.

use std::collections::BTreeSet;
use std::time::Duration;

use vipherald_core::address::Mac;
use vipherald_core::announce::{Claim, State};
use vipherald_core::ask::{Confirmation, PeerVerdict, Proof, Source};

use crate::network::{Network, Truth};
use crate::peer::Entry;
use crate::scenario::{Happening, Kind, Member};
use crate::statistics::Statistics;

/// From the end of one look at other owners to the start of the next.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The most time, without losses, of a look and the gap to the next one.
const LOOK: Duration = Duration::from_secs(4);
/// How long an owner that came back has to be silent before it counts as gone.
const QUIET: Duration = Duration::from_secs(30);
/// The gap between two probes of a look.
const PROBE_GAP: Duration = Duration::from_millis(15);
/// Enough probes for the worst path.
const MOST_PROBES: usize = 270;

/// The most questions to a peer: see the module's documentation.
fn bound(network: &Network, vip: usize, has_answered: bool) -> f64 {
    let seconds = network.now.as_secs_f64();
    let truth = &network.vips[vip];
    // Restarts: the peers became known; the path came alive, once per start; and the peer's answers
    // after each start, after the rounds, and after it let go of the VIP.
    let answers = if has_answered {
        3 * (1 + truth.macs) + 10 * truth.starts
    } else {
        0
    };
    let restarts = f64::from(1 + 2 * truth.starts + answers);
    let untroubled = truth.starts == 1 && truth.macs == 0;
    let bound = match (has_answered, network.answered_since) {
        (false, Some(alive)) if untroubled => {
            let dead = alive.as_secs_f64();
            2.0 * (10.0 * restarts + 4.0 * dead + (seconds - dead) / 2.0 + 1.0)
        }
        (false, _) => 2.0 * (7.0 * restarts + 4.0 * seconds),
        (true, _) => 4.0 * (7.0 * restarts + 4.0 * seconds),
    };
    // A host with two addresses may be two peers.
    match network.scenario.vips[vip].ip.is_ipv6() {
        true => 2.0 * bound,
        false => bound,
    }
}

/// In any window of `w` seconds at most `rate` × (1 + w) frames left.
fn the_rate_was_kept(network: &Network) {
    let rate = f64::from(network.scenario.pace.rate.get());
    // Of the windows that end with a frame, the fullest starts at the minimum of `ahead`.
    let mut least = f64::INFINITY;
    for (count, at) in (0_u32..).zip(&network.sent_at) {
        let ahead = f64::from(count) - rate * at.as_secs_f64();
        least = least.min(ahead);
        assert!(
            ahead - least + 1.0 <= rate + 1e-3,
            "too many frames in a window that ends at {at:?}"
        );
    }
}

/// The present and past conflicts are the hosts that claimed the VIP after the handover.
fn conflicts_are_what_was_claimed(network: &Network, vip: usize, claim: &Claim) {
    const HANDOVER: Duration = Duration::from_millis(100);
    const TAKEOVER: Duration = Duration::from_secs(1);
    let truth = &network.vips[vip];
    let since = truth.ready_since.map(|since| since + HANDOVER);
    let claimed_after = |since: Option<Duration>| -> BTreeSet<_> {
        let counts = |at: &Duration| since.is_some_and(|since| *at >= since);
        let claims = truth.claims.iter();
        claims
            .filter(|(_, times)| times.iter().any(counts))
            .map(|(mac, _)| *mac)
            .collect()
    };
    let claimed = claimed_after(since);
    // Whoever let the VIP go by an order may be forgotten, and whoever began to claim it shortly before it
    // left, or was gone before and began again.
    let forgettable = |mac: &Mac| {
        let released = truth.released.get(mac);
        let let_go = released.is_some_and(|at| !claimed_after(since.max(Some(*at))).contains(mac));
        let mut lefts = truth.lefts.iter().filter(|left| {
            let times = truth.claims[mac].iter();
            let before = times.filter(|at| since.is_some_and(|since| **at >= since) && at <= left);
            before.clone().any(|at| *at + TAKEOVER >= **left)
        });
        let_go || lefts.any(|left| !claimed_after(Some(*left)).contains(mac))
    };
    let present: BTreeSet<_> = claim.conflicts().collect();
    let past: BTreeSet<_> = claim.past_conflicts().map(|(mac, _)| mac).collect();
    let who = format!(
        "about {}: {present:?}, past: {past:?}, ready since {:?}: {:?}",
        claim.vip, truth.ready_since, truth.claims
    );
    assert!(present.is_disjoint(&past), "{who}");
    let told = &present | &past;
    assert!(told.is_subset(&claimed), "{who}");
    assert!((&claimed - &told).iter().all(forgettable), "{who}");
    for (mac, at) in claim.past_conflicts() {
        let at = network.since_start(at);
        let last = truth.claims[&mac].last();
        assert!(
            last.is_none_or(|last| *last <= at),
            "it claimed the VIP later: {who}"
        );
        // Without losses, a host that had the VIP during a look has answered. The last answer may
        // take a quarter of a second.
        let look = at.saturating_sub(Duration::from_millis(250));
        assert!(
            !network.scenario.is_lossless() || !holds_since(network, mac, look, at),
            "it has the VIP: {who}"
        );
    }
}

/// Whether the host with this MAC had its VIP for the whole time span.
fn holds_since(network: &Network, mac: Mac, from: Duration, to: Duration) -> bool {
    let member = network.members.iter().position(|one| one.host.mac == mac);
    member.is_some_and(|member| {
        let mut holdings = network.holdings[member].iter();
        holdings.any(|(since, until)| *since <= from && until.is_none_or(|until| to < until))
    })
}

/// Without losses, after a run that ended by itself, the conflicts are the other owners.
fn conflicts_are_the_other_owners(network: &Network, vip: usize, claim: &Claim) {
    let scenario = &network.scenario;
    // A low rate delays looks.
    if !scenario.is_lossless() || scenario.pace.rate.get() < 2000 {
        return;
    }
    let ip = scenario.vips[vip].ip;
    for (index, member) in network.members.iter().enumerate() {
        let mac = member.host.mac;
        let is_conflict = claim.conflicts().any(|conflict| conflict == mac);
        let holdings = &network.holdings[index];
        let who = format!("{} at {:?}: {holdings:?} {member:#?}", ip, network.now);
        if member.host.holds == Some(ip) {
            // An owner from the start answers the probes of the rounds. One that took the VIP back
            // announced it, but the frame may still be on its way.
            let since = holdings.last().map(|(since, _)| *since);
            let silent = member.host.on_lo;
            let known = since.is_some_and(|since| since.is_zero() || since + LOOK < network.now);
            assert!(!silent || !is_conflict, "it claims nothing: {who}");
            assert!(silent || is_conflict || !known, "another owner: {who}");
            // Where something drops the VIP's frames, the other owner may be the only one that works.
            let released = member.listens
                && !scenario.blocked
                && !member.unknown
                && member.known_mac == Some(mac)
                && holdings.len() == 1;
            assert!(!(is_conflict && released), "it ignored an order: {who}");
        } else if is_conflict && scenario.can_look(vip) {
            let gone = holdings.last().and_then(|(_, until)| *until);
            let came_back = holdings.len() > 1;
            let quiet = if came_back { QUIET + LOOK } else { LOOK };
            assert!(
                gone.is_some_and(|gone| gone + quiet > network.now),
                "it let go: {who}"
            );
        }
    }
    let members: BTreeSet<_> = network.members.iter().map(|one| one.host.mac).collect();
    for mac in claim.conflicts().filter(|mac| !members.contains(mac)) {
        assert!(!scenario.can_look(vip), "{mac} never had the VIP");
    }
}

/// There are no more looks than stated, and none is missing.
fn looks_are_few(network: &Network, vip: usize, claim: &Claim) {
    let truth = &network.vips[vip];
    let scenario = &network.scenario;
    let mut burst = 0;
    let mut last = None;
    let steady = scenario.is_lossless()
        && scenario.is_prompt()
        && scenario.lateness.is_zero()
        && scenario.port_opens.is_zero()
        && network.holdings.iter().all(|one| one.len() < 2)
        && network.members.iter().all(|one| !one.listens)
        && truth
            .claims
            .keys()
            .all(|mac| holds_since(network, *mac, Duration::ZERO, network.now));
    for at in &truth.looks {
        let gap = last.map(|last| *at - last);
        assert!(gap.is_none_or(|gap| gap >= PROBE_GAP), "{gap:?} at {at:?}");
        burst = match gap {
            Some(gap) if gap < LOOK_AGAIN => burst + 1,
            _ => 1,
        };
        assert!(burst <= MOST_PROBES, "{burst} probes at {at:?}");
        assert!(burst == 1 || !steady, "a needless probe at {at:?}");
        last = Some(*at);
    }
    // A run does not end during its watch.
    if claim.state() == State::Ready
        && claim.conflicts().next().is_some()
        && let Some(until) = truth.watched_until
    {
        assert!(
            network.now + LOOK_AGAIN >= until,
            "it ended at {:?}, before its watch: {until:?}",
            network.now
        );
    }
}

/// The run agrees with the kernel on whether a VIP left, and waits as long as stated for its return.
fn absence_matches_the_kernel(network: &Network, vip: usize) {
    let truth = &network.vips[vip];
    let ip = network.scenario.vips[vip].ip;
    let absent = network.core.absent().any(|absent| absent.vip.ip() == ip);
    assert_eq!(absent, !truth.found, "was {ip} ever here?");
    let Some(claim) = network.claim(vip) else {
        assert!(!truth.found, "{ip} has no claim");
        return;
    };
    assert!(truth.found, "{ip} is elsewhere");
    assert_eq!(
        claim.state() == State::Left,
        truth.left || !truth.is_here(),
        "did {ip} leave? {truth:?}"
    );
    let back_until = truth
        .gone_since
        .filter(|_| !truth.left)
        .map(|gone| gone + network.scenario.pace.wait);
    assert!(
        back_until.is_none_or(|until| network.now >= until.min(network.ends_at())),
        "it ended at {:?}, though {ip} may come back: {truth:?}",
        network.now
    );
}

/// Whether a run has no reason to last until its timeout: all required peers can follow, without
/// losses, and nothing on this host delays it.
fn should_end_early(network: &Network) -> bool {
    let scenario = &network.scenario;
    let delays = scenario
        .happenings
        .iter()
        .any(|(_, what)| matches!(what, Happening::CarrierLost { .. }))
        || network
            .vips
            .iter()
            .any(|truth| truth.is_here() && !truth.is_usable());
    // An owner at an unknown MAC that let go: its earlier silence looks like losses.
    let let_go_unseen = network
        .members
        .iter()
        .zip(&network.holdings)
        .any(|(member, holdings)| {
            !is_found(member) && holdings.iter().any(|(_, until)| until.is_some())
        });
    let settles = |member: &Member, vip| {
        has_to_follow(network, member, vip) || has_to_be_holder(network, member, vip)
    };
    let required_follow = (0..scenario.vips.len()).all(|vip| {
        let is_ipv4 = scenario.vips[vip].ip.is_ipv4();
        let mut required = network.members.iter().filter(|member| {
            member.host.ip.is_ipv4() == is_ipv4 && member.source != Source::Learned
        });
        required.all(|member| settles(member, vip))
    });
    // An answer from an unexpected MAC does not count for the estimate of losses.
    let expected = |member: &Member| match member.known_mac {
        Some(_) => is_found(member),
        None => member.proxy.is_none(),
    };
    let answered = network.truths.iter().any(|truths| {
        let mut of_members = truths.iter().zip(&network.members);
        let answered = |truth: &Truth| truth.answered || truth.followed;
        of_members.any(|(truth, member)| answered(truth) && expected(member))
    });
    scenario.is_lossless()
        && scenario.port_opens.is_zero()
        && scenario.over_budget == 0
        && scenario.pace.arp_rate.is_none()
        && !network.forged
        && scenario.pace.timeout >= Duration::from_secs(60)
        && scenario.pace.rate.get() >= 2000
        && network.members.len() < 100
        && !delays
        && !let_go_unseen
        // No watch lasts longer.
        && network.ends_at() <= network.end_at
        && required_follow
        && answered
}

/// Whether only losses can keep a member from following.
fn has_to_follow(network: &Network, member: &Member, vip: usize) -> bool {
    let ip = network.scenario.vips[vip].ip;
    let found = is_found(member);
    let kind = match member.kind {
        _ if member.host.habits.dead => false,
        // A few questions to it are all, and a long table delays even these.
        _ if member.is_doubtful() => {
            member.kind == Kind::Honest
                && found
                && member.proxy.is_none()
                && network.scenario.port_opens.is_zero()
                && network.members.len() < 50
        }
        Kind::Honest => true,
        // Only a broadcast changes its entry, and ARP does not find it.
        Kind::ArpIgnoring | Kind::Deaf => {
            !another_owner_is_near(network, vip) && found && network.vips[vip].macs == 0
        }
        Kind::RealServer => member.host.holds != Some(ip),
        Kind::OtherOwner => !is_near(network, member, vip),
        _ => false,
    };
    // A proxy hides the member's MAC, unless the kernel knows it. If the proxy absorbs directed
    // requests, only gratuitous frames reach the member.
    let unreachable = network.scenario.blocked
        || member.host.habits.drops_gratuitous && member.proxy.is_some_and(|proxy| proxy.absorbs);
    kind && (member.proxy.is_none() || found) && !unreachable
}

/// Whether the kernel knows a member's MAC.
fn is_found(member: &Member) -> bool {
    member.known_mac == Some(member.host.virtual_mac.unwrap_or(member.host.mac))
}

/// Whether, without losses, the run has to find out that a member has the VIP.
fn has_to_be_holder(network: &Network, member: &Member, vip: usize) -> bool {
    member.host.holds == Some(network.scenario.vips[vip].ip)
        && network.holdings.iter().all(|one| one.len() < 2)
        && is_found(member)
        && !member.is_doubtful()
}

/// Whether a member has the VIP, or the run does not yet know that it let go.
fn is_near(network: &Network, member: &Member, vip: usize) -> bool {
    let holds = member.host.holds == Some(network.scenario.vips[vip].ip);
    let mut conflicts = network.claim(vip).into_iter().flat_map(Claim::conflicts);
    holds || conflicts.any(|mac| mac == member.host.mac)
}

fn another_owner_is_near(network: &Network, vip: usize) -> bool {
    let other_owners = network.members.iter();
    let mut other_owners = other_owners.filter(|member| member.kind == Kind::OtherOwner);
    let mut conflicts = network.claim(vip).into_iter().flat_map(Claim::conflicts);
    other_owners.any(|member| is_near(network, member, vip)) || conflicts.next().is_some()
}

/// Whether a member's entry is wrong, stays wrong, and the run can detect that.
fn is_stale(network: &Network, member: &Member, vip: usize, truth: &Truth) -> bool {
    let ip = network.scenario.vips[vip].ip;
    let entry = member.host.entry(ip);
    let stuck = match member.kind {
        Kind::Permanent => matches!(entry, Entry::Permanent(_)),
        Kind::ResolutionDropping => matches!(entry, Entry::Known(..)),
        _ => false,
    };
    stuck
        && !member.is_doubtful()
        && !network.scenario.blocked
        && is_found(member)
        && entry_is_wrong(network, member, vip)
        && !truth.followed
        && !member.host.habits.ignores_echo
}

fn entry_is_wrong(network: &Network, member: &Member, vip: usize) -> bool {
    member.host.follows(network.scenario.vips[vip].ip) != network.announced_mac()
}

/// Whether a host's entry has to be right at the end, whether or not anybody knows the host: frames reach
/// it, nothing pins its entry, and no filter drops ARP and neighbour discovery.
fn entry_has_to_be_right(network: &Network, member: &Member, vip: usize) -> bool {
    let ip = network.scenario.vips[vip].ip;
    let habits = member.host.habits;
    // IPv6 has no oblique broadcast: such a host follows if it is asked.
    let is_told = ip.is_ipv4() || !habits.drops_gratuitous;
    let is_asked = member.kind == Kind::Honest
        && is_found(member)
        && member.proxy.is_none()
        && !member.is_doubtful()
        && (!member.unknown || network.scenario.pace.census);
    ip.is_ipv4() == member.host.ip.is_ipv4()
        && network.scenario.is_lossless()
        && !network.scenario.blocked
        && matches!(member.host.entry(ip), Entry::Known(..))
        && member.host.holds != Some(ip)
        && !habits.dead
        && !habits.drops_resolution
        && (is_told || is_asked)
        && (network.vips[vip].macs == 0 || is_told && !habits.drops_gratuitous)
        && !another_owner_is_near(network, vip)
}

/// Everybody with an entry follows, known or not.
fn everybody_follows(network: &Network, vip: usize, statistics: &mut Statistics) {
    for member in &network.members {
        if entry_has_to_be_right(network, member, vip) {
            assert!(
                !entry_is_wrong(network, member, vip),
                "it still follows another one at {:?}: {member:#?}",
                network.now
            );
            statistics.unknown += u64::from(member.unknown);
        }
    }
}

/// When the announcements of a VIP leave, counted from the first.
const ANNOUNCED: [u64; 8] = [0, 50, 200, 600, 2000, 4000, 7000, 10_000];
/// How late each may be.
const PUNCTUAL: Duration = Duration::from_millis(20);

/// If the driver is prompt, announcements leave at their times, whatever is due besides.
fn announcements_are_punctual(network: &Network, vip: usize) {
    let scenario = &network.scenario;
    let truth = &network.vips[vip];
    let Some(first) = truth.announced.first() else {
        return;
    };
    // Another VIP's first frame may have left before.
    let began = network.sent_at.first();
    let silent_for = network.alive_since.zip(began);
    let silent_for = silent_for.map(|(alive, began)| alive.saturating_sub(*began));
    let prompt = scenario.refused == 0 && scenario.over_budget == 0;
    let goes_on = silent_for < Some(Duration::from_millis(900)) && silent_for.is_some();
    if !prompt || !goes_on || scenario.pace.rate.get() < 2000 || truth.starts != 1 {
        return;
    }
    for (at, planned) in truth.announced.iter().zip(ANNOUNCED) {
        let planned = *first + Duration::from_millis(planned);
        assert!(
            planned <= *at && *at <= planned + PUNCTUAL + 8 * scenario.lateness,
            "it left at {at:?}, not at {planned:?}: {:?}",
            truth.announced
        );
    }
}

/// Where something drops all frames from a VIP, no host is called stale for that.
fn blocked_vips_accuse_nobody(network: &Network, claim: &Claim, statistics: &mut Statistics) {
    if !network.scenario.blocked {
        return;
    }
    let stale = |one: &Confirmation| one.verdict() == PeerVerdict::Stale;
    let suspects = claim
        .confirmations()
        .iter()
        .filter(|one| stale(one))
        .count();
    // Somebody who sends traffic shows that frames from the VIP got out, unless it knew the way before.
    let nobody_follows = claim.confirmations().iter().all(|one| one.proven.is_none());
    let unproxied = network.members.iter().all(|one| one.proxy.is_none());
    if suspects >= 2 && nobody_follows && unproxied && !network.forged {
        assert!(claim.is_blocked(), "{} is blocked", claim.vip);
        statistics.blocked += 1;
    }
    let mut all = claim.confirmations().iter();
    assert!(
        !claim.is_blocked() || all.all(|one| claim.verdict_of(one) != PeerVerdict::Stale),
        "{} is blocked, and nobody is stale",
        claim.vip
    );
}

/// Checks all properties of a finished run, and counts its results.
pub(crate) fn hold(network: &Network, statistics: &mut Statistics) {
    the_rate_was_kept(network);
    let ends_at = network.ends_at();
    assert!(
        network.now <= ends_at + network.scenario.lateness,
        "it ended late: {:?}",
        network.now
    );
    // Whether the timeout ended the questions.
    let cut = network.now >= network.end_at;
    assert!(
        !cut || !should_end_early(network),
        "it did not end early: {:#?} {:?}",
        network.core.claims(),
        network.members
    );
    statistics.runs += 1;
    statistics.frames += network.sent_at.len() as u64;
    statistics.cut += u64::from(cut);
    for (vip, truth) in network.vips.iter().enumerate() {
        absence_matches_the_kernel(network, vip);
        let Some(claim) = network.claim(vip) else {
            statistics.elsewhere += 1;
            continue;
        };
        conflicts_are_what_was_claimed(network, vip, claim);
        looks_are_few(network, vip, claim);
        announcements_are_punctual(network, vip);
        blocked_vips_accuse_nobody(network, claim, statistics);
        let ready = claim.state() == State::Ready;
        let settled = ready && !cut;
        // One round may be lost, and asks for no other owner in IPv4.
        let repeats = network.scenario.pace.repeats;
        statistics.left += u64::from(claim.state() == State::Left);
        statistics.returned += u64::from(ready && truth.returned > 0);
        statistics.conflicts += u64::from(claim.conflicts().next().is_some());
        statistics.past_conflicts += u64::from(claim.past_conflicts().next().is_some());
        statistics.watched += u64::from(truth.watched_until.is_some());
        if settled && repeats {
            conflicts_are_the_other_owners(network, vip, claim);
            everybody_follows(network, vip, statistics);
        }
        if settled {
            // All frames of the rounds; for IPv6, advertisements and probes (of which the last may be
            // missing).
            let is_ipv4 = claim.vip.ip().is_ipv4();
            let (least, most) = match (repeats, is_ipv4) {
                (true, true) => (26, None),
                (true, false) => (16, None),
                (false, true) => (3, Some(3)),
                (false, false) => (4, Some(5)),
            };
            // Rounds also start anew when the path comes alive.
            let count = |all: &[Duration]| u32::try_from(all.len()).unwrap_or(u32::MAX);
            let (rounds, looks) = (count(&truth.announced), count(&truth.looks));
            let sent = network.broadcasts[vip];
            assert!(
                sent >= least && most.is_none_or(|most| sent <= most * rounds + looks),
                "{sent} frames in the rounds of {}: {truth:?}",
                claim.vip
            );
        }
        for confirmation in claim.confirmations() {
            let Some(index) = network.member(confirmation.peer.ip) else {
                assert_eq!(Some(confirmation.peer.ip), network.scenario.offlink);
                assert_eq!(confirmation.verdict(), PeerVerdict::Offlink);
                continue;
            };
            let member = &network.members[index];
            let seen = Seen {
                network,
                vip,
                member,
                truth: &network.truths[vip][index],
                verdict: claim.verdict_of(confirmation),
                proof: confirmation.proven.map(|(_, proof)| proof),
                is_forwarded: confirmation.forwarded_by.is_some(),
                who: format!(
                    "{:?} at {:?} {member:#?}\n{confirmation:#?}\n{:?}\n{truth:?} {:?}",
                    claim.verdict_of(confirmation),
                    network.now,
                    network.truths[vip][index],
                    network.scenario.happenings
                ),
            };
            // Reports show an owner's confirmation with the conflicts.
            let is_other_owner = claim.is_other_owner(&confirmation.peer);
            let claims = claim.conflicts().any(|mac| mac == member.host.mac);
            let known = confirmation.peer.mac == Some(member.host.mac);
            // A forged answer may name another owner's MAC.
            assert!(
                is_other_owner == (claims && known) || seen.truth.forged_answer,
                "{}",
                seen.who
            );
            if is_other_owner && confirmation.verdict() != PeerVerdict::Holder {
                statistics.owners_without_echo += 1;
            }
            seen.claims_no_more_than_the_truth();
            seen.no_forgery_decides();
            if settled && repeats {
                seen.finds_the_truth(statistics);
            }
            seen.costs_no_more_than_stated(confirmation.answered_by.is_some(), statistics);
            statistics.count(member.kind, seen.verdict);
        }
    }
}

/// The verdict about a member's entry for a VIP, and the truth.
struct Seen<'a> {
    network: &'a Network,
    vip: usize,
    member: &'a Member,
    truth: &'a Truth,
    verdict: PeerVerdict,
    proof: Option<Proof>,
    is_forwarded: bool,
    who: String,
}

impl Seen<'_> {
    fn costs_no_more_than_stated(&self, was_answered_for: bool, statistics: &mut Statistics) {
        let restarted = self.network.vips[self.vip].starts > 1;
        let has_answered = !matches!(self.verdict, PeerVerdict::Silent)
            || self.truth.ever_answered
            || was_answered_for
            || (self.member.proxy.is_some() && restarted);
        let frames = self.truth.frames();
        let bound = bound(self.network, self.vip, has_answered);
        assert!(
            f64::from(frames) <= bound,
            "{frames} frames, not {bound}: {}",
            self.who
        );
        statistics.most_frames = statistics.most_frames.max(frames);
    }

    fn claims_no_more_than_the_truth(&self) {
        let Self { truth, who, .. } = self;
        let has_vip = self.member.host.holds == Some(self.network.scenario.vips[self.vip].ip);
        // If the kernel knows no MAC, the first one to answer counts as the peer until an echo.
        let mistaken = self.member.proxy.is_some() && self.member.known_mac.is_none();
        match self.verdict {
            PeerVerdict::Proven if self.proof == Some(Proof::Traffic) => {
                // Whoever answers this host's own address is asked until it answers the VIP, too.
                let is_fooled = truth.forged_traffic || truth.forged_answer;
                assert!(truth.traffic || is_fooled, "no traffic: {who}");
                // One of its two addresses may have answered, and the other one not.
                let is_two = self.member.host.link_local.is_some();
                let started_over = self.network.vips[self.vip].starts > 1;
                assert!(
                    !truth.control || started_over || is_two,
                    "it answers echoes: {who}"
                );
            }
            PeerVerdict::Proven => assert!(truth.followed, "no proof: {who}"),
            PeerVerdict::Acknowledged => assert!(
                truth.answered || mistaken || truth.forged_answer,
                "no answer: {who}"
            ),
            PeerVerdict::Stale => {
                assert!(truth.control, "it did not answer: {who}");
                assert!(
                    !self.is_forwarded || truth.forwarded,
                    "nobody forwarded its reply: {who}"
                );
                assert!(
                    self.is_forwarded
                        || truth.echoes_since_start >= 3
                            && truth.holders_since_start >= 3
                            && truth.control_answers >= 3,
                    "too few questions: {who}"
                );
                let prompt =
                    self.network.scenario.is_lossless() && self.network.scenario.is_prompt();
                assert!(!(has_vip && prompt), "it has the VIP: {who}");
            }
            PeerVerdict::Holder => assert!(truth.holder, "it does not have the VIP: {who}"),
            PeerVerdict::Silent | PeerVerdict::Unasked | PeerVerdict::Offlink => {}
        }
        let is_real_server = has_vip && self.member.host.on_lo;
        let follows = match self.verdict {
            PeerVerdict::Proven => true,
            PeerVerdict::Acknowledged => !mistaken,
            _ => false,
        };
        // A liar can forge traffic and ARP answers.
        let is_forged =
            truth.forged_answer || self.proof == Some(Proof::Traffic) && truth.forged_traffic;
        assert!(
            !(is_real_server && follows) || is_forged,
            "it drops packets from the VIP: {who}"
        );
    }

    /// Who knows no nonce makes no peer look proven that answers only this host's own address, and none
    /// stale whose answer to the VIP came.
    fn no_forgery_decides(&self) {
        let Self { truth, who, .. } = self;
        if !self.network.scenario.adversary {
            return;
        }
        let restarted = self.network.vips[self.vip].starts > 1;
        match self.verdict {
            PeerVerdict::Proven if truth.control && !truth.followed => {
                let is_two = self.member.host.link_local.is_some();
                assert!(restarted || is_two, "a forgery proved it: {who}");
            }
            // One that followed may have followed another owner since.
            PeerVerdict::Stale if truth.followed && !truth.forwarded => {
                let is_wrong = entry_is_wrong(self.network, self.member, self.vip);
                assert!(restarted || is_wrong, "a forgery made it stale: {who}");
            }
            _ => {}
        }
    }

    fn finds_the_truth(&self, statistics: &mut Statistics) {
        let Self {
            network,
            vip,
            member,
            truth,
            verdict,
            who,
            ..
        } = self;
        let (vip, verdict) = (*vip, *verdict);
        // Nothing tells a forged ARP answer from a real one.
        if network
            .truths
            .iter()
            .flatten()
            .any(|truth| truth.forged_answer)
        {
            return;
        }
        statistics.forwarded += u64::from(self.is_forwarded && verdict == PeerVerdict::Stale);
        statistics.by_traffic += u64::from(self.proof == Some(Proof::Traffic));
        statistics.virtual_macs +=
            u64::from(member.host.virtual_mac.is_some() && verdict == PeerVerdict::Proven);
        let lossless = network.scenario.is_lossless();
        if has_to_follow(network, member, vip) {
            let (had_to_follow, unproven) = match member.is_doubtful() {
                true => (&mut statistics.doubtful, &mut statistics.doubtful_unproven),
                false => (&mut statistics.honest, &mut statistics.unproven),
            };
            *had_to_follow += 1;
            if verdict != PeerVerdict::Proven {
                assert!(!lossless, "it follows, and nothing was lost: {who}");
                *unproven += 1;
                statistics.wrongly_stale += u64::from(verdict == PeerVerdict::Stale);
                // The core gives up on no peer early; it needs at least 5 questions. It stops asking
                // a host that had the VIP at first and did not claim it.
                let enough = network
                    .questions_to_rule_out_chance()
                    .unwrap_or(u32::MAX)
                    .max(5);
                let asked = truth.echoes_since_start.max(truth.directed_since_start);
                assert!(
                    asked >= enough || verdict == PeerVerdict::Holder || member.is_doubtful(),
                    "given up after {asked} of {enough} questions: {who}"
                );
            } else if lossless
                && !another_owner_is_near(network, vip)
                && !(network.vips[vip].macs > 0 && member.host.habits.drops_gratuitous)
            {
                // No peer follows a former owner. (Frames with this host's former MAC may arrive
                // after those with the new one; the rounds correct that.)
                assert!(
                    !entry_is_wrong(network, member, vip),
                    "it follows another one: {who}"
                );
            }
        }
        if has_to_be_holder(network, member, vip) {
            statistics.holders += u64::from(truth.control);
            let claims = is_near(network, member, vip) && !member.host.on_lo;
            let right = if claims {
                // Reports show it as a conflict.
                [PeerVerdict::Holder, PeerVerdict::Silent].contains(&verdict)
            } else {
                verdict == PeerVerdict::Holder
            };
            if !right {
                assert!(!lossless, "it has the VIP: {who}");
                statistics.missed_holders += u64::from(truth.control);
                statistics.silent_holders += u64::from(!truth.control);
            }
        }
        if verdict == PeerVerdict::Holder {
            let has_vip = member.host.holds == Some(network.scenario.vips[vip].ip);
            assert!(has_vip || !lossless, "it no longer has the VIP: {who}");
        }
        if is_stale(network, member, vip, truth) {
            statistics.stale += 1;
            if verdict != PeerVerdict::Stale {
                // For IPv6, wrong entries everywhere look like frames that never get out.
                let is_blocked = network.claim(vip).is_some_and(Claim::is_blocked);
                let is_fooled = self.proof == Some(Proof::Traffic) && truth.forged_traffic;
                assert!(
                    !lossless || is_blocked || is_fooled,
                    "its entry is wrong: {who}"
                );
                statistics.missed_stale += u64::from(!is_blocked && !is_fooled);
            }
        }
        if member.host.habits.dead && !truth.answered {
            let proxied = member.proxy.is_some() && member.known_mac.is_none();
            let expected = if proxied {
                PeerVerdict::Acknowledged
            } else {
                PeerVerdict::Silent
            };
            let unasked = member.is_doubtful() && verdict == PeerVerdict::Unasked;
            let is_forged = truth.forged_traffic || truth.forged_answer;
            assert!(verdict == expected || unasked || is_forged, "{who}");
        }
    }
}
