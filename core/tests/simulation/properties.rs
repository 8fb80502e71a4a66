//! What has to hold of every run, whatever it was up against.
//!
//! # Frames for one peer
//!
//! Questions come in *turns*. A peer's turns begin anew, with short gaps, whenever something new
//! is known: its VIP may be announced (again), the path came alive, or the peer itself was heard
//! in a new way (its answer, another MAC's answer, its control echo: at most three times); and once
//! more after the last round, for one that was heard. The gaps of new turns are 5, 10, 20, 40, 80
//! and 160 ms, and from then on
//!
//! - 250 ms while nobody answers on the link, or while a peer that was heard has not been asked
//!   often enough (at most 225 echoes) to tell a lost answer from a missing one;
//! - growing to 2 s otherwise.
//!
//! A turn is one frame, or two from the third turn on, to a peer that was not heard; and at most
//! four to one that was. So in a run of `t` seconds, with `n` new beginnings, a peer costs at most
//!
//! - `2 × (7 n + 4 t)` frames while nobody answers: 494 in 60 s for a gateway that is down, or 512
//!   with the broadcasts;
//! - `2 × (10 n + t / 2)` frames if it is silent while others answer: 80 in 60 s with one
//!   beginning (it costs 2 if it follows at once);
//! - `4 × (7 n + 4 t)` frames in any case.
//!
//! # Looks at other owners
//!
//! Once the rounds of a VIP are over, and only if somebody else has claimed it, probes ask who still
//! has it: 15 ms apart, until all that claimed it were heard or so many (6 to 270, as frames are
//! lost) were sent that none can have been missed; and again 2 s later. While all of them answer,
//! within 15 ms, that is one frame every 2 s.

use std::collections::BTreeSet;
use std::time::Duration;

use vipherald_core::address::Mac;
use vipherald_core::announce::{Claim, State};
use vipherald_core::ask::{PeerVerdict, Source};

use crate::network::{Network, Truth};
use crate::peer::Entry;
use crate::scenario::{Happening, Kind, Member};
use crate::statistics::Statistics;

/// From the end of one look at other owners to the beginning of the next.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A look at other owners, and the time to the next one, take no longer where nothing is lost.
const LOOK: Duration = Duration::from_secs(4);
/// An owner that came back has to be silent for longer, before it is gone again.
const QUIET: Duration = Duration::from_secs(30);
/// The gap between two probes of a look.
const PROBE_GAP: Duration = Duration::from_millis(15);
/// So many probes are enough on the worst of paths.
const MOST_PROBES: usize = 270;

/// Questions to a peer at most: see the module's documentation.
fn bound(network: &Network, vip: usize, heard: bool) -> f64 {
    let seconds = network.now.as_secs_f64();
    let told = &network.vips[vip];
    // The peers became known; the path came alive once for each start; and what was heard of it,
    // each time that it was asked anew: at the start, after the rounds, and when it let go.
    let news = if heard {
        3 * (1 + told.macs) + 10 * told.starts
    } else {
        0
    };
    let beginnings = f64::from(1 + 2 * told.starts + news);
    let untroubled = told.starts == 1 && told.macs == 0;
    match (heard, network.alive_since) {
        (false, Some(alive)) if untroubled => {
            let dead = alive.as_secs_f64();
            2.0 * (10.0 * beginnings + 4.0 * dead + (seconds - dead) / 2.0 + 1.0)
        }
        (false, _) => 2.0 * (7.0 * beginnings + 4.0 * seconds),
        (true, _) => 4.0 * (7.0 * beginnings + 4.0 * seconds),
    }
}

/// In any window of `w` seconds at most `rate` × (1 + w) frames left.
fn the_rate_was_kept(network: &Network) {
    let rate = f64::from(network.scenario.pace.rate.get());
    // Of the windows that end with a frame, the fullest begins where this was least.
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

/// Whoever claimed the VIP after the handover has it, or has let go of it; and nobody else.
fn conflicts_are_what_was_claimed(network: &Network, vip: usize, claim: &Claim) {
    const HANDOVER: Duration = Duration::from_millis(100);
    let truth = &network.vips[vip];
    let since = truth.ready_since.map(|since| since + HANDOVER);
    let counts = |at: &Duration| since.is_some_and(|since| *at >= since);
    let claimed: BTreeSet<_> = truth
        .claims
        .iter()
        .filter(|(_, times)| times.iter().any(counts))
        .map(|(mac, _)| *mac)
        .collect();
    let present: BTreeSet<_> = claim.conflicts().collect();
    let past: BTreeSet<_> = claim.past_conflicts().map(|(mac, _)| mac).collect();
    let who = format!("about {}: {present:?}, past: {past:?}", claim.vip);
    assert!(present.is_disjoint(&past), "{who}");
    assert_eq!(&present | &past, claimed, "{who}");
    for (mac, at) in claim.past_conflicts() {
        let at = network.since_start(at);
        let last = truth.claims[&mac].last();
        assert!(last.is_none_or(|last| *last <= at), "it was heard: {who}");
        // What had the VIP during a look, whose last answer may take a quarter of a second, was
        // heard if nothing is lost.
        let look = at.saturating_sub(Duration::from_millis(250));
        assert!(
            !network.scenario.is_lossless() || !holds_since(network, mac, look, at),
            "it has the VIP: {who}"
        );
    }
}

/// Whether the host of this MAC had its VIP from one moment to another.
fn holds_since(network: &Network, mac: Mac, from: Duration, to: Duration) -> bool {
    let member = network.members.iter().position(|one| one.host.mac == mac);
    member.is_some_and(|member| {
        let mut holdings = network.holdings[member].iter();
        holdings.any(|(since, until)| *since <= from && until.is_none_or(|until| to < until))
    })
}

/// Nothing was lost, and the run was not cut: another owner that is there is a conflict, and one
/// that is not there is none.
fn conflicts_are_who_is_there(network: &Network, vip: usize, claim: &Claim) {
    let scenario = &network.scenario;
    // Where few frames may leave, a look may have to wait.
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
            // One that has it from the beginning answers the probes of the rounds; one that took it
            // back was heard when it said so, which may be on its way.
            let since = holdings.last().map(|(since, _)| *since);
            let silent = member.host.on_lo;
            let heard = since.is_some_and(|since| since.is_zero() || since + LOOK < network.now);
            assert!(!silent || !is_conflict, "it claims nothing: {who}");
            assert!(silent || is_conflict || !heard, "another owner: {who}");
            let obeys = member.listens && member.known_mac == Some(mac) && holdings.len() == 1;
            assert!(!(is_conflict && obeys), "it obeys, but has it still: {who}");
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
        assert!(
            !scenario.can_look(vip),
            "{mac} has not had it since the beginning"
        );
    }
}

/// No more looks than stated, none without another owner, and none missing.
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
        assert!(
            burst == 1 || !steady,
            "another probe at {at:?}, though all answer"
        );
        last = Some(*at);
    }
    // The run does not end while it watches.
    let watched = truth
        .watched_until
        .filter(|_| claim.conflicts().next().is_some());
    if claim.state() == State::Ready && watched.is_some() {
        assert!(
            watched.is_some_and(|until| network.now + LOOK_AGAIN >= until),
            "it ended at {:?}, and not with its watch: {watched:?}",
            network.now
        );
    }
}

/// Whether a VIP has left is the kernel's to say, and how long it may take to come back the run's.
fn who_left_is_left(network: &Network, vip: usize) {
    let truth = &network.vips[vip];
    let ip = network.scenario.vips[vip].ip;
    let absent = network.core.absent().any(|absent| absent.vip.ip() == ip);
    assert_eq!(absent, !truth.found, "whether {ip} was ever here");
    let Some(claim) = network.claim(vip) else {
        assert!(!truth.found, "{ip} is nobody's claim");
        return;
    };
    assert!(truth.found, "{ip} is elsewhere");
    assert_eq!(
        claim.state() == State::Left,
        truth.left || !truth.is_here(),
        "whether {ip} left: {truth:?}"
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

/// Whether a run has no reason to last longer than its rounds: whoever has to follow can, nothing
/// is lost, and nothing on this host delays it.
fn nothing_holds_it_up(network: &Network) -> bool {
    let scenario = &network.scenario;
    let delays = scenario
        .happenings
        .iter()
        .any(|(_, what)| matches!(what, Happening::CarrierLost { .. }))
        || network
            .vips
            .iter()
            .any(|truth| truth.is_here() && !truth.is_usable());
    // Its silence before, when nobody knew where it was, looks like losses.
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
        network
            .members
            .iter()
            .filter(|member| member.host.ip.is_ipv4() == scenario.vips[vip].ip.is_ipv4())
            .filter(|member| member.source != Source::Learned)
            .all(|member| settles(member, vip))
    });
    // An answer from where nobody expects it does not tell how much is lost.
    let expected = |member: &Member| match member.known_mac {
        Some(_) => is_found(member),
        None => member.proxy.is_none(),
    };
    let answered = network.truths.iter().any(|truths| {
        let mut of_members = truths.iter().zip(&network.members);
        of_members.any(|(truth, member)| truth.answered && expected(member))
    });
    scenario.is_lossless()
        && scenario.port_opens.is_zero()
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

/// Whether nothing but losses can keep a member from following.
fn has_to_follow(network: &Network, member: &Member, vip: usize) -> bool {
    let ip = network.scenario.vips[vip].ip;
    let found = is_found(member);
    let kind = match member.kind {
        _ if member.host.habits.dead => false,
        Kind::Honest => true,
        // A gratuitous frame alone mends it, or breaks it; and it can't be found by ARP.
        Kind::ArpIgnoring => {
            !another_owner_is_near(network, vip) && found && network.vips[vip].macs == 0
        }
        Kind::RealServer => member.host.holds != Some(ip),
        // Once it is known to have let go.
        Kind::Rival => !is_near(network, member, vip),
        _ => false,
    };
    // Who answers for it hides where it is, unless the kernel knows.
    // Where that proxy keeps directed requests to itself, only gratuitous frames are left.
    let unreachable =
        member.host.habits.drops_gratuitous && member.proxy.is_some_and(|proxy| proxy.absorbs);
    kind && (member.proxy.is_none() || found) && !unreachable
}

/// Whether the kernel knows where a member is.
fn is_found(member: &Member) -> bool {
    member.known_mac == Some(member.host.mac)
}

/// Whether a member that has the VIP has to be known to have it, if nothing is lost.
fn has_to_be_holder(network: &Network, member: &Member, vip: usize) -> bool {
    member.host.holds == Some(network.scenario.vips[vip].ip)
        && network.holdings.iter().all(|one| one.len() < 2)
        && is_found(member)
}

/// Whether a member has the VIP, or is not yet known to have let go of it.
fn is_near(network: &Network, member: &Member, vip: usize) -> bool {
    let holds = member.host.holds == Some(network.scenario.vips[vip].ip);
    let mut conflicts = network.claim(vip).into_iter().flat_map(Claim::conflicts);
    holds || conflicts.any(|mac| mac == member.host.mac)
}

fn another_owner_is_near(network: &Network, vip: usize) -> bool {
    let rivals = network.members.iter();
    let mut rivals = rivals.filter(|member| member.kind == Kind::Rival);
    let mut conflicts = network.claim(vip).into_iter().flat_map(Claim::conflicts);
    rivals.any(|member| is_near(network, member, vip)) || conflicts.next().is_some()
}

/// Whether a member's entry is wrong, will stay so, and can be told to be.
fn is_stale(network: &Network, member: &Member, vip: usize, truth: &Truth) -> bool {
    let ip = network.scenario.vips[vip].ip;
    let entry = member.host.entry(ip);
    let stuck = match member.kind {
        Kind::Permanent => matches!(entry, Entry::Permanent(_)),
        Kind::ResolutionDropping | Kind::Deaf => matches!(entry, Entry::Known(..)),
        _ => false,
    };
    stuck
        && is_found(member)
        && entry_is_wrong(network, member, vip)
        && !truth.followed
        && !member.host.habits.ignores_echo
}

fn entry_is_wrong(network: &Network, member: &Member, vip: usize) -> bool {
    member.host.follows(network.scenario.vips[vip].ip) != network.announced_mac()
}

/// Checks all that a finished run has to show, and counts what was seen.
pub(crate) fn hold(network: &Network, statistics: &mut Statistics) {
    the_rate_was_kept(network);
    let ends_at = network.ends_at();
    assert!(
        network.now <= ends_at + network.scenario.lateness,
        "it ended late: {:?}",
        network.now
    );
    // From then on nobody was asked whether they follow.
    let cut = network.now >= network.end_at;
    if cut && nothing_holds_it_up(network) {
        panic!("it did not end by itself, though everyone could be told soon");
    }
    statistics.runs += 1;
    statistics.frames += network.sent_at.len() as u64;
    statistics.cut += u64::from(cut);
    for (vip, truth) in network.vips.iter().enumerate() {
        who_left_is_left(network, vip);
        let Some(claim) = network.claim(vip) else {
            statistics.elsewhere += 1;
            continue;
        };
        conflicts_are_what_was_claimed(network, vip, claim);
        looks_are_few(network, vip, claim);
        let ready = claim.state() == State::Ready;
        let settled = ready && !cut;
        statistics.left += u64::from(claim.state() == State::Left);
        statistics.returned += u64::from(ready && truth.returned > 0);
        statistics.conflicts += u64::from(claim.conflicts().next().is_some());
        statistics.past_conflicts += u64::from(claim.past_conflicts().next().is_some());
        statistics.watched += u64::from(truth.watched_until.is_some());
        if settled {
            conflicts_are_who_is_there(network, vip, claim);
            // Eight rounds of two kinds of gratuitous ARP and a probe, or of an advertisement and
            // a probe, which the last round may lack.
            let least = if claim.vip.ip().is_ipv4() { 24 } else { 15 };
            let sent = network.broadcasts[vip];
            assert!(
                sent >= least,
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
                who: format!(
                    "{:?} at {:?} {member:#?}\n{confirmation:#?}\n{:?}\n{truth:?} {:?}",
                    claim.verdict_of(confirmation),
                    network.now,
                    network.truths[vip][index],
                    network.scenario.happenings
                ),
            };
            // Those of an owner are read together with the conflicts.
            let is_rival = claim.is_rival(&confirmation.peer);
            let claims = claim.conflicts().any(|mac| mac == member.host.mac);
            let known = confirmation.peer.mac == Some(member.host.mac);
            assert_eq!(is_rival, claims && known, "{}", seen.who);
            if is_rival && confirmation.verdict() != PeerVerdict::Holder {
                statistics.owners_without_echo += 1;
            }
            seen.is_no_better_than_the_truth();
            if settled {
                seen.is_as_good_as_the_truth(statistics);
            }
            seen.cost_no_more_than_stated(confirmation.answered_by.is_some(), statistics);
            statistics.count(member.kind, seen.verdict);
        }
    }
}

/// What a run says of a member's entry for a VIP, and what is true.
struct Seen<'a> {
    network: &'a Network,
    vip: usize,
    member: &'a Member,
    truth: &'a Truth,
    verdict: PeerVerdict,
    who: String,
}

impl Seen<'_> {
    fn cost_no_more_than_stated(&self, was_answered_for: bool, statistics: &mut Statistics) {
        let asked_anew = self.network.vips[self.vip].starts > 1;
        let heard = !matches!(self.verdict, PeerVerdict::Silent)
            || self.truth.heard
            || was_answered_for
            || (self.member.proxy.is_some() && asked_anew);
        let frames = self.truth.frames();
        let bound = bound(self.network, self.vip, heard);
        assert!(
            f64::from(frames) <= bound,
            "{frames} frames, not {bound}: {}",
            self.who
        );
        statistics.most_frames = statistics.most_frames.max(frames);
    }

    fn is_no_better_than_the_truth(&self) {
        let Self { truth, who, .. } = self;
        let has_vip = self.member.host.holds == Some(self.network.scenario.vips[self.vip].ip);
        // Where the kernel knows no MAC, who answers first is taken for the peer until an echo.
        let mistaken = self.member.proxy.is_some() && self.member.known_mac.is_none();
        match self.verdict {
            PeerVerdict::Proven => assert!(truth.followed, "no proof: {who}"),
            PeerVerdict::Acknowledged => assert!(truth.answered || mistaken, "not taken in: {who}"),
            PeerVerdict::Stale => {
                assert!(truth.control, "it did not answer: {who}");
                assert!(
                    truth.echoes_anew >= 3 && truth.holders_anew >= 3,
                    "it was not asked: {who}"
                );
                let prompt =
                    self.network.scenario.is_lossless() && self.network.scenario.is_prompt();
                assert!(!(has_vip && prompt), "it has the VIP: {who}");
            }
            PeerVerdict::Holder => assert!(truth.holder, "it does not have the VIP: {who}"),
            PeerVerdict::Silent | PeerVerdict::Offlink => {}
        }
        let is_real_server = has_vip && self.member.host.on_lo;
        let follows = match self.verdict {
            PeerVerdict::Proven => true,
            PeerVerdict::Acknowledged => !mistaken,
            _ => false,
        };
        assert!(
            !(is_real_server && follows),
            "it drops what comes from the VIP: {who}"
        );
    }

    fn is_as_good_as_the_truth(&self, statistics: &mut Statistics) {
        let Self {
            network,
            vip,
            member,
            truth,
            verdict,
            who,
        } = self;
        let (vip, verdict) = (*vip, *verdict);
        let lossless = network.scenario.is_lossless();
        if has_to_follow(network, member, vip) {
            statistics.honest += 1;
            if verdict != PeerVerdict::Proven {
                assert!(!lossless, "it follows, and nothing was lost: {who}");
                statistics.unproven += 1;
                statistics.wrongly_stale += u64::from(verdict == PeerVerdict::Stale);
                // Nobody is given up on early. 5 questions are the least that can be enough. What
                // had the VIP when it was asked, and was not heard to claim it, is asked no more.
                let enough = network
                    .questions_to_rule_out_chance()
                    .unwrap_or(u32::MAX)
                    .max(5);
                let asked = truth.echoes_anew.max(truth.directed_anew);
                assert!(
                    asked >= enough || verdict == PeerVerdict::Holder,
                    "given up after {asked} of {enough} questions: {who}"
                );
            } else if lossless
                && !another_owner_is_near(network, vip)
                && !(network.vips[vip].macs > 0 && member.host.habits.drops_gratuitous)
            {
                // Nor does anyone follow a former owner. (Frames with a former MAC of this host may
                // be overtaken by those with the new one; the rounds mend that.)
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
                // It is told as a conflict.
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
            assert!(has_vip || !lossless, "it has the VIP no more: {who}");
        }
        if is_stale(network, member, vip, truth) {
            statistics.stale += 1;
            if verdict != PeerVerdict::Stale {
                assert!(!lossless, "its entry is wrong: {who}");
                statistics.missed_stale += 1;
            }
        }
        if member.host.habits.dead {
            assert_eq!(
                verdict,
                if truth.answered {
                    verdict
                } else {
                    silent_or_proxied(member)
                },
                "{who}"
            );
        }
        if member.source != Source::Learned && verdict == PeerVerdict::Silent {
            statistics.required_silent += 1;
        }
    }
}

/// What is said of a host that is not there.
fn silent_or_proxied(member: &Member) -> PeerVerdict {
    if member.proxy.is_some() && member.known_mac.is_none() {
        PeerVerdict::Acknowledged
    } else {
        PeerVerdict::Silent
    }
}
