//! What a run found that needs attention.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use log::{Level, log_enabled};
use vipherald_core::address::{Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, State};
use vipherald_core::ask::{Confirmation, Peer, PeerVerdict};
use vipherald_core::order::{Fate, Outcome};

use super::caps::Similar;
use super::judged::Judged;
use super::order::words;
use super::wording::{SILENCE, Who, about, blocked, conflict, flood, host_name, silent, stale};
use super::{Line, NAMED, list};
use crate::answering::Silence;
use crate::exit::AnnounceResult;
use crate::journal::{Kind, Notice};

/// The conflicts that the user was told to be over.
pub(super) type ToldOver = BTreeSet<(Vip, Mac)>;

/// What is known besides what the announcement itself found out.
#[derive(Debug, Default)]
pub struct Background<'a> {
    /// Real servers of keepalived.conf, which are expected to hold VIPs, too.
    pub real_servers: &'a [IpAddr],
    /// The other nodes of the instance: one of them may have died, and be silent because of that.
    pub nodes: &'a [IpAddr],
    /// VIPs that this host's own kernel does not answer for, with their interfaces. Hosts that follow
    /// now need no answer, but whoever asks later finds nobody.
    pub silences: Vec<(Vip, String, Silence)>,
    /// MACs that answer for a VIP only because they answer for every address.
    pub proxies: Vec<Mac>,
}

/// What needs attention, and the worst result that follows from it.
pub(super) struct Findings<'a> {
    core: &'a Announcement,
    background: &'a Background<'a>,
    over: &'a ToldOver,
    pub(super) worst: AnnounceResult,
    pub(super) lines: Similar,
}

impl<'a> Findings<'a> {
    /// None yet, but for these lines.
    pub(super) fn new(
        core: &'a Announcement,
        background: &'a Background<'a>,
        over: &'a ToldOver,
        lines: Similar,
    ) -> Self {
        let worst = match core.is_blind() {
            true => AnnounceResult::Unproven,
            false => AnnounceResult::Ok,
        };
        Self {
            core,
            background,
            over,
            worst,
            lines,
        }
    }

    /// `kind`: what the line is about.
    pub(super) fn add(
        &mut self,
        result: AnnounceResult,
        level: Level,
        kind: &'static str,
        text: impl FnOnce() -> String,
    ) {
        self.add_line(result, level, kind, || Line::new(level, text()));
    }

    fn add_line(
        &mut self,
        result: AnnounceResult,
        level: Level,
        kind: &'static str,
        line: impl FnOnce() -> Line,
    ) {
        self.worst = self.worst.min(result);
        self.lines.add(level, kind, line);
    }

    /// The same, unless the user was told.
    fn add_untold(
        &mut self,
        is_told: bool,
        result: AnnounceResult,
        kind: &'static str,
        line: impl FnOnce() -> Line,
    ) {
        self.worst = self.worst.min(result);
        if !is_told {
            let line = line();
            self.lines.add(line.level, kind, || line);
        }
    }

    /// What was found about this VIP alone.
    pub(super) fn result_of(
        &mut self,
        judged: &Judged<'_>,
        counts_silent_path: bool,
    ) -> AnnounceResult {
        let claim = judged.claim;
        let of_others = std::mem::replace(&mut self.worst, AnnounceResult::Ok);
        self.of_claim(judged);
        let found = self.worst;
        self.worst = found.min(of_others);
        let mut silences = self.background.silences.iter();
        let is_silent = silences.any(|(vip, on, _)| *vip == claim.vip && *on == claim.link.name);
        let is_unproven =
            is_silent || self.core.is_blind() || counts_silent_path && self.has_silent_path(claim);
        match is_unproven {
            true => found.min(AnnounceResult::Unproven),
            false => found,
        }
    }

    /// Whether it was broadcast where no frame of another host came in.
    fn has_silent_path(&self, claim: &Claim) -> bool {
        let is_alive = self.core.is_path_alive(claim.interface());
        claim.state() == State::Ready && claim.broadcasts > 0 && !is_alive
    }

    /// Conflicts, stale peers, required peers that are silent, and other peers that prove nothing.
    pub(super) fn of_claim(&mut self, judged: &Judged<'_>) {
        let claim = judged.claim;
        let (vip, name, core) = (claim.vip, &claim.link.name, self.core);
        if claim.state() != State::Ready {
            return;
        }
        match claim.more_conflicts() {
            0 => self.of_conflicts(claim),
            more => {
                // They count as long as any that is known does.
                let result = match claim.conflicts().next() {
                    Some(_) => AnnounceResult::Conflict,
                    None => AnnounceResult::Ok,
                };
                self.add_untold(false, result, "floods of claims", || {
                    flood(core, claim, more)
                });
            }
        }
        for (mac, _) in claim.past_conflicts() {
            let host = host_name(core, mac);
            let is_told = self.over.contains(&(vip, mac));
            self.add_untold(is_told, AnnounceResult::Ok, "past conflicts", || {
                let text = format!(
                    "{vip} on {name}: {mac} ({host}) answered for it, too, but no longer does: a \
                     conflict that is over"
                );
                let notice = about(claim, Kind::ConflictOver).with("MAC", &mac);
                Line::new(Level::Warn, text).of(notice)
            });
        }
        // If another interface holds the VIP as well, it has to answer.
        let holds = |mac: &Mac| {
            let mut claims = core.claims().iter();
            claims.any(|other| other.vip == vip && other.mac() == Some(*mac))
        };
        for mac in claim.own_answers().filter(|mac| !holds(mac)) {
            let other = core.interface_of(mac).unwrap_or("another interface");
            self.add(AnnounceResult::Ok, Level::Warn, "answers of this host", || {
                let what_to_do = match vip.ip() {
                    IpAddr::V4(_) => "if it does so itself, `sysctl net.ipv4.conf.all.arp_ignore=1` ends that",
                    IpAddr::V6(_) => "look who sends that: Linux does not",
                };
                format!(
                    "{vip} on {name}: {mac}, the MAC of {other} of this host, answers for it, too, so \
                     that hosts may follow either; {what_to_do}"
                )
            });
        }
        if claim.is_blocked() {
            let is_told = claim.is_block_told();
            self.add_untold(is_told, AnnounceResult::Unproven, "blocked VIPs", || {
                blocked(claim)
            });
        }
        for (confirmation, verdict) in &judged.peers {
            self.of_peer(claim, confirmation, *verdict);
        }
        if claim.left_out > 0 {
            self.add(AnnounceResult::Ok, Level::Warn, "tables with too many hosts", || {
                format!(
                    "{vip} on {name}: the neighbour table has too many hosts: {} of them are not \
                     asked",
                    claim.left_out
                )
            });
        }
        for (verdict, kind, words) in [
            (
                PeerVerdict::Silent,
                "silent neighbours",
                "silent, so that nothing is known of them",
            ),
            (
                PeerVerdict::Offlink,
                "peers elsewhere",
                "not asked, because they are not on this link",
            ),
            (
                PeerVerdict::Unasked,
                "neighbours that were not asked",
                "not asked, because their turn did not come",
            ),
        ] {
            self.of_others(judged, verdict, kind, words);
        }
    }

    fn of_conflicts(&mut self, claim: &Claim) {
        for mac in claim.conflicts() {
            // That it is a proxy is found out at the end.
            let is_proxy = self.background.proxies.contains(&mac);
            let is_told = claim.is_conflict_told(mac) && !is_proxy;
            let core = self.core;
            self.add_untold(is_told, AnnounceResult::Conflict, "conflicts", || {
                conflict(core, claim, &[mac], is_proxy)
            });
        }
    }

    /// The links on which no frame of another host came in.
    pub(super) fn of_silent_paths(&mut self) {
        let mut silent: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
        for claim in self.core.claims() {
            if self.has_silent_path(claim) {
                silent.entry(&claim.link.name).or_default().push(claim);
            }
        }
        for (name, claims) in silent {
            self.add_untold(false, AnnounceResult::Unproven, "silent links", || {
                let vips: Vec<_> = claims.iter().map(|claim| claim.vip).collect();
                let cause = match claims.iter().all(|claim| claim.is_silence_told()) {
                    true => "",
                    false => SILENCE,
                };
                let text = format!(
                    "{} on {name}: no frame of any other host came in, so nobody is known to follow\
                     {cause}",
                    list(&vips)
                );
                let notice = Notice::new(Kind::PathSilent).with_each("VIP", &vips);
                Line::new(Level::Warn, text).of(notice.with("INTERFACE", name))
            });
        }
    }

    fn of_peer(&mut self, claim: &Claim, confirmation: &Confirmation, verdict: PeerVerdict) {
        let (vip, name, peer) = (claim.vip, &claim.link.name, &confirmation.peer);
        let who = Who(peer);
        let is_told = || claim.is_peer_told(confirmation);
        match verdict {
            PeerVerdict::Stale => {
                self.add_untold(is_told(), AnnounceResult::Unproven, "stale peers", || {
                    stale(claim, confirmation)
                });
            }
            PeerVerdict::Silent | PeerVerdict::Unasked
                if peer.required && !claim.is_other_owner(peer) && !claim.is_blocked() =>
            {
                let nodes = self.background.nodes;
                self.add_untold(is_told(), AnnounceResult::Unproven, "silent peers", || {
                    silent(claim, confirmation, nodes)
                });
            }
            PeerVerdict::Holder => {
                let text = || {
                    format!(
                        "{vip} on {name}: {who} has the VIP itself, and does not answer for it: a \
                         real server"
                    )
                };
                let level = match self.background.real_servers.contains(&peer.ip) {
                    true => Level::Debug,
                    false => Level::Info,
                };
                self.add(AnnounceResult::Ok, level, "real servers", text);
            }
            _ => {}
        }
        if self.core.may_follow_other_card(claim, confirmation) {
            let text = || {
                let sends = match confirmation.follows_other_card() {
                    true => "sends",
                    // So many interfaces have its MAC, or no descriptor is left.
                    false => "may send",
                };
                format!(
                    "{vip} on {name}: {who} {sends} to another card of this host, which may drop that \
                     (rp_filter); on it run `vipherald purge --permanent {vip}`"
                )
            };
            self.add(
                AnnounceResult::Unproven,
                Level::Warn,
                "peers of other cards",
                text,
            );
        }
        if let Some(mac) = confirmation.answered_by {
            let text = || format!("{vip} on {name}: {mac} answers for {who}: a proxy or a switch?");
            self.add(
                AnnounceResult::Ok,
                Level::Warn,
                "answers by other MACs",
                text,
            );
        }
        if let (Some(fate), Some(mac)) = (&confirmation.order, claim.mac())
            && is_worth_logging(fate, verdict)
        {
            let (level, text) = words(fate, mac);
            let text = || format!("{vip} on {name}: {who} {text}");
            self.add(AnnounceResult::Ok, level, "orders", text);
        }
    }

    /// The peers of this verdict that nobody required: the first few, and with `-v` all.
    fn of_others(
        &mut self,
        judged: &Judged<'_>,
        verdict: PeerVerdict,
        kind: &'static str,
        words: &str,
    ) {
        let claim = judged.claim;
        let has_line = |peer: &Peer| peer.required && verdict == PeerVerdict::Silent;
        let is_other = |peer: &Peer| !has_line(peer) && !claim.is_other_owner(peer);
        let peers = judged.peers.iter().filter(|(_, its)| *its == verdict);
        let peers = peers.map(|(one, _)| &one.peer);
        let ips: Vec<_> = peers
            .filter(|peer| is_other(peer))
            .map(|peer| peer.ip)
            .collect();
        if ips.is_empty() {
            return;
        }
        let text = |ips: String| format!("{} on {}: {words}: {ips}", claim.vip, claim.link.name);
        self.add(AnnounceResult::Ok, Level::Info, kind, || text(list(&ips)));
        if ips.len() > NAMED && log_enabled!(Level::Debug) {
            let all: Vec<_> = ips.iter().map(ToString::to_string).collect();
            self.add(AnnounceResult::Ok, Level::Debug, "lists of peers", || {
                text(all.join(", "))
            });
        }
    }
}

/// Not if nothing was wrong, nor if a peer that follows anyway did not answer the order.
fn is_worth_logging(fate: &Fate, verdict: PeerVerdict) -> bool {
    match fate.outcome() {
        None => verdict == PeerVerdict::Stale,
        Some(Outcome::Right | Outcome::Absent) => false,
        Some(_) => true,
    }
}
