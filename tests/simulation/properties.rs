//! What has to hold of every run, whatever it was up against.
//!
//! # Frames for one peer
//!
//! Questions come in *turns*. A peer's turns begin anew, with short gaps, whenever something new
//! is known: its VIP may be announced (again), the path came alive, or the peer itself was heard
//! in a new way (its answer, another MAC's answer, its control echo: at most three times); and once
//! more after the last round, for one that was heard. The gaps of new turns are 5, 10, 20, 40, 80 and 160 ms, and from then on
//!
//! - 250 ms while nobody answers on the link, or while a peer that was heard has not been asked
//!   often enough (at most 225 echoes) to tell a lost answer from a missing one;
//! - growing to 2 s otherwise.
//!
//! A turn is one frame, or two from the third turn on, to a peer that was not heard; and at most
//! three to one that was. So in a run of `t` seconds, with `n` new beginnings, a peer costs at most
//!
//! - `2 × (7 n + 4 t)` frames while nobody answers: 494 in 60 s for a gateway that is down, or 512
//!   with the broadcasts;
//! - `2 × (10 n + t / 2)` frames if it is silent while others answer: 80 in 60 s with one
//!   beginning (it costs 2 if it follows at once);
//! - `3 × (7 n + 4 t)` frames in any case.

use std::time::Duration;

use vipherald::announce::{Source, Standing, Verdict};

use crate::network::{Network, Truth};
use crate::peer::Entry;
use crate::scenario::{Happening, Kind, Member};
use crate::statistics::Statistics;

/// Questions to a peer at most: see the module's documentation.
fn bound(network: &Network, vip: usize, heard: bool) -> f64 {
    let seconds = network.now.as_secs_f64();
    let told = &network.vips[vip];
    // The peers became known; the path came alive once for each start; and what was heard of it.
    let news = if heard {
        3 * (1 + told.macs) + 2 * told.starts
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
        (true, _) => 3.0 * (7.0 * beginnings + 4.0 * seconds),
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

fn conflicts_are_what_was_claimed(network: &Network) {
    const HANDOVER: Duration = Duration::from_millis(100);
    for (index, truth) in network.vips.iter().enumerate() {
        let Some(claim) = network.claim(index) else {
            continue;
        };
        let claimed: Vec<_> = truth
            .claims
            .iter()
            .filter(|(_, times)| {
                times.iter().any(|at| {
                    truth
                        .ready_since
                        .is_some_and(|since| *at >= since + HANDOVER)
                })
            })
            .map(|(mac, _)| *mac)
            .collect();
        assert_eq!(
            claim.conflicts().collect::<Vec<_>>(),
            claimed,
            "conflicts about {}",
            claim.vip
        );
    }
}

/// Whether a run has no reason to last longer than its rounds: whoever has to follow can, nothing
/// is lost, and nothing on this host delays it.
fn nothing_holds_it_up(network: &Network) -> bool {
    let scenario = &network.scenario;
    let delays = scenario
        .happenings
        .iter()
        .any(|(_, what)| matches!(what, Happening::CarrierLost));
    let required_follow = (0..scenario.vips.len()).all(|vip| {
        network
            .members
            .iter()
            .filter(|member| member.host.ip.is_ipv4() == scenario.vips[vip].0.is_ipv4())
            .filter(|member| member.source != Source::Learned)
            .all(|member| has_to_follow(network, member, vip))
    });
    let answered = network
        .truths
        .iter()
        .any(|truths| truths.iter().any(|truth| truth.answered));
    scenario.is_lossless()
        && scenario.port_opens.is_zero()
        && scenario.pace.timeout >= Duration::from_secs(60)
        && scenario.pace.rate.get() >= 2000
        && network.members.len() < 100
        && !delays
        && required_follow
        && answered
}

/// Whether nothing but losses can keep a member from following.
fn has_to_follow(network: &Network, member: &Member, vip: usize) -> bool {
    let rivals_claim = network
        .members
        .iter()
        .any(|member| member.kind == Kind::Rival);
    let found = member.known_mac == Some(member.host.mac);
    let kind = match member.kind {
        _ if member.host.habits.dead => false,
        Kind::Honest => true,
        // A gratuitous frame alone mends it, or breaks it; and it can't be found by ARP.
        Kind::ArpIgnoring => !rivals_claim && found && network.vips[vip].macs == 0,
        Kind::Rival => member.host.holds != Some(network.scenario.vips[vip].0),
        _ => false,
    };
    // Who answers for it hides where it is, unless the kernel knows.
    // Where that proxy keeps directed requests to itself, only gratuitous frames are left.
    let unreachable =
        member.host.habits.drops_gratuitous && member.proxy.is_some_and(|proxy| proxy.absorbs);
    kind && (member.proxy.is_none() || found) && !unreachable
}

/// Whether a member's entry is wrong, will stay so, and can be told to be.
fn is_stale(network: &Network, member: &Member, vip: usize, truth: &Truth) -> bool {
    let ip = network.scenario.vips[vip].0;
    let entry = member.host.entry(ip);
    let stuck = match member.kind {
        Kind::Permanent => matches!(entry, Entry::Permanent(_)),
        Kind::ResolutionDropping | Kind::Deaf => matches!(entry, Entry::Known(..)),
        _ => false,
    };
    let found = member.known_mac == Some(member.host.mac);
    stuck
        && found
        && entry_is_wrong(network, member, vip)
        && !truth.followed
        && !member.host.habits.ignores_echo
}

fn entry_is_wrong(network: &Network, member: &Member, vip: usize) -> bool {
    member.host.follows(network.scenario.vips[vip].0) != network.announced_mac()
}

/// Checks all that a finished run has to show, and counts what was seen.
pub(crate) fn hold(network: &Network, statistics: &mut Statistics) {
    the_rate_was_kept(network);
    conflicts_are_what_was_claimed(network);
    let timeout = network.scenario.pace.timeout;
    assert!(
        network.now <= timeout + network.scenario.lateness,
        "it ended late: {:?}",
        network.now
    );
    let cut = network.now >= timeout;
    if cut && nothing_holds_it_up(network) {
        panic!("it did not end by itself, though everyone could be told soon");
    }
    statistics.runs += 1;
    statistics.frames += network.sent_at.len() as u64;
    statistics.cut += u64::from(cut);
    for vip in 0..network.scenario.vips.len() {
        let Some(claim) = network.claim(vip) else {
            continue;
        };
        let ready = claim.standing() == Standing::Ready;
        statistics.left += u64::from(claim.standing() == Standing::Left);
        statistics.conflicts += u64::from(claim.conflicts().next().is_some());
        if ready && !cut {
            // Eight rounds of two kinds of gratuitous ARP and a probe, or of an advertisement and
            // a probe, which the last round may lack.
            let least = if claim.vip.ip().is_ipv4() { 24 } else { 15 };
            let sent = network.broadcasts[vip];
            assert!(
                sent >= least,
                "{sent} frames in the rounds of {}",
                claim.vip
            );
        }
        for confirmation in claim.confirmations() {
            let verdict = confirmation.verdict();
            let Some(index) = network.member(confirmation.peer.ip) else {
                assert_eq!(Some(confirmation.peer.ip), network.scenario.offlink);
                assert_eq!(verdict, Verdict::Offlink);
                continue;
            };
            let member = &network.members[index];
            let truth = &network.truths[vip][index];
            let settled = ready && !cut;
            let who = format!("{verdict:?} {member:#?}\n{confirmation:#?}\n{truth:?}");
            never_better_than_the_truth(member, truth, verdict, &who);
            if settled {
                as_good_as_the_truth(network, vip, member, truth, verdict, &who, statistics);
            }
            // Verdicts about an owner are read together with the conflicts.
            if settled && member.host.holds == Some(claim.vip.ip()) {
                let known = confirmation.peer.mac == Some(member.host.mac);
                let claimed = claim.conflicts().any(|mac| mac == member.host.mac);
                assert_eq!(
                    claim.is_rival(&confirmation.peer),
                    known && claimed,
                    "{who}"
                );
                let unheard = !claimed && !network.scenario.is_lossless();
                assert!(
                    verdict != Verdict::Stale || claim.is_rival(&confirmation.peer) || unheard,
                    "an owner is no stale peer: {who}"
                );
            }
            let heard = verdict == Verdict::Proven
                || verdict == Verdict::Acknowledged
                || truth.control
                || confirmation.answered_by.is_some();
            let frames = truth.directed + truth.echoes + truth.controls;
            let bound = bound(network, vip, heard);
            assert!(
                f64::from(frames) <= bound,
                "{frames} frames, not {bound}: {who}"
            );
            statistics.most_frames = statistics.most_frames.max(frames);
            statistics.count(member.kind, verdict);
        }
    }
}

fn never_better_than_the_truth(member: &Member, truth: &Truth, verdict: Verdict, who: &str) {
    // Where the kernel knows no MAC, who answers first is taken for the peer until an echo.
    let mistaken = member.proxy.is_some() && member.known_mac.is_none();
    match verdict {
        Verdict::Proven => assert!(truth.followed, "no proof: {who}"),
        Verdict::Acknowledged => assert!(truth.answered || mistaken, "not taken in: {who}"),
        Verdict::Stale => assert!(truth.control, "it did not answer: {who}"),
        Verdict::Silent | Verdict::Offlink => {}
    }
}

fn as_good_as_the_truth(
    network: &Network,
    vip: usize,
    member: &Member,
    truth: &Truth,
    verdict: Verdict,
    who: &str,
    statistics: &mut Statistics,
) {
    let lossless = network.scenario.is_lossless();
    if has_to_follow(network, member, vip) {
        statistics.honest += 1;
        if verdict != Verdict::Proven {
            assert!(!lossless, "it follows, and nothing was lost: {who}");
            statistics.unproven += 1;
            statistics.wronged += u64::from(verdict == Verdict::Stale);
            // Nobody is given up on early. 5 questions are the least that can be enough.
            let enough = network.enough_questions().unwrap_or(u32::MAX).max(5);
            let asked = truth.echoes_this_mac.max(truth.directed_this_mac);
            assert!(
                asked >= enough,
                "given up after {asked} of {enough} questions: {who}"
            );
        }
    }
    if is_stale(network, member, vip, truth) {
        statistics.stale += 1;
        if verdict != Verdict::Stale {
            assert!(!lossless, "its entry is wrong: {who}");
            statistics.unnamed += 1;
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
    if member.source != Source::Learned && verdict == Verdict::Silent {
        statistics.required_silent += 1;
    }
}

/// What is said of a host that is not there.
fn silent_or_proxied(member: &Member) -> Verdict {
    if member.proxy.is_some() && member.known_mac.is_none() {
        Verdict::Acknowledged
    } else {
        Verdict::Silent
    }
}
