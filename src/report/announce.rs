//! What an announcement achieved.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use log::{Level, log_enabled};
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, State};
use vipherald_core::ask::{Confirmation, Peer, PeerVerdict, Proof, Refusal, Source};
use vipherald_core::host::PlacedVip;
use vipherald_core::order::{Fate, Outcome};

use super::caps::{MOST_PEERS, NotKept, Similar, shorten};
use super::news::{Followers, Told};
use super::order::words;
use super::{Header, Line, NAMED, Report, count, list, proxy_off, seconds, show_proxies};
use crate::answering::Silence;
use crate::exit::{AnnounceResult, Exit};
use crate::journal::{Kind, Notice};

/// What ended a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum CutShort {
    #[serde(rename = "a newer event")]
    NewerEvent,
    #[serde(rename = "SIGINT")]
    Interrupt,
    #[serde(rename = "SIGTERM")]
    Termination,
}

impl CutShort {
    fn by(exit: Exit) -> Self {
        match exit {
            Exit::Superseded => Self::NewerEvent,
            Exit::Interrupted => Self::Interrupt,
            _ => Self::Termination,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NewerEvent => "a newer event",
            Self::Interrupt => "SIGINT",
            Self::Termination => "SIGTERM",
        }
    }
}

/// What an announcement achieved.
#[derive(Debug, Serialize)]
pub struct AnnounceReport {
    #[serde(flatten)]
    header: Header<AnnounceResult>,
    cut_short: Option<CutShort>,
    duration_ms: u64,
    frames_sent: u32,
    vips: Vec<AnnouncedVip>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct AnnouncedVip {
    address: Vip,
    result: AnnounceResult,
    interface: Option<String>,
    mac: Option<Mac>,
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    frames_sent: u32,
    reach: Reach,
    conflicts: Vec<Conflict>,
    past_conflicts: Vec<Conflict>,
    /// Claims by other MACs than these.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_conflicts: Option<NonZeroU64>,
    peers: Vec<AskedPeer>,
    /// Those that are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_peers: Option<NonZeroUsize>,
    /// Those that the receipt leaves out.
    #[serde(flatten)]
    not_kept: NotKept,
    /// Neighbours beyond those that were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    peers_left_out: Option<NonZeroUsize>,
}

/// Whether anybody can be reached, and how many were told and asked.
#[derive(Debug, Default, Serialize)]
struct Reach {
    path: PathState,
    broadcasts: u32,
    asked: usize,
}

/// Whether any frame of another host came in.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum PathState {
    Alive,
    #[default]
    Silent,
}

#[derive(Debug, Serialize)]
struct Conflict {
    mac: Option<Mac>,
    host: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
pub(super) struct AskedPeer {
    pub(super) address: IpAddr,
    pub(super) mac: Option<Mac>,
    pub(super) source: Source,
    pub(super) required: bool,
    pub(super) verdict: PeerVerdict,
    pub(super) after_ms: Option<f64>,
    pub(super) proof: Option<Proof>,
    pub(super) answered_by: Option<Mac>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forwarded_by: Option<Mac>,
    pub(super) order: Option<&'static str>,
}

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

/// The VIPs that share one line.
#[derive(Debug, Default)]
struct Group<'a> {
    vips: Vec<Vip>,
    claims: Vec<&'a Claim>,
}

impl AnnounceReport {
    /// Reports on a run that ended at `now`, by itself or because it was `stopped`, for the instance or
    /// group of this name, or for none. Its lines repeat nothing of what was `told`.
    #[must_use]
    pub fn new(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        stopped: Option<Exit>,
        background: &Background<'_>,
        told: Told,
    ) -> Self {
        let cut_short = stopped.map(CutShort::by);
        Self::read(name, core, now, false, cut_short, background, told)
    }

    fn read(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        dry_run: bool,
        cut_short: Option<CutShort>,
        background: &Background<'_>,
        mut told: Told,
    ) -> Self {
        let lines = told.take_lines();
        let mut findings = Findings::new(core, background, &told, lines);
        // One line for all VIPs that ended alike.
        let mut alike: BTreeMap<(AnnounceResult, String), Group<'_>> = BTreeMap::new();
        let counts_silent_paths = !dry_run && cut_short.is_none();
        let mut of_claims = Vec::new();
        for claim in core.claims() {
            let fate = fate_of(claim, dry_run);
            let result = findings.result_of(claim, counts_silent_paths).min(fate.0);
            of_claims.push(result);
            let group = alike.entry(fate).or_default();
            group.vips.push(claim.vip);
            group.claims.push(claim);
        }
        if counts_silent_paths {
            findings.of_silent_paths();
        }
        let mut add = |result, vip, fate| alike.entry((result, fate)).or_default().vips.push(vip);
        for placed in core.absent() {
            let fate = format!("{}: nothing announced", absence(core, placed));
            add(AnnounceResult::NotHeld, placed.vip, fate);
        }
        for placed in core.set_aside() {
            let on = placed.place.name().unwrap_or_default();
            let fate = format!(
                "not announced on {on}, where keepalived puts it: nobody asks for it there"
            );
            add(AnnounceResult::Ok, placed.vip, fate);
        }
        for vip in core.yielded() {
            let fate = "is left to a newer run".to_owned();
            add(AnnounceResult::Superseded, vip, fate);
        }
        for (vip, on, silence) in &background.silences {
            let text = || format!("{vip} on {on}: {silence}");
            findings.add(
                AnnounceResult::Unproven,
                Level::Warn,
                "silent kernels",
                text,
            );
        }
        let results = alike.keys().map(|(result, _)| *result);
        let result = results.fold(findings.worst, AnnounceResult::min);
        let lines = alike
            .iter()
            .flat_map(|((of_group, fate), group)| {
                let line = group.line(core, *of_group, fate, cut_short, result, &told);
                line.into_iter().chain(group.frames(core))
            })
            .chain(findings.lines.into_lines())
            .map(|line| line.about(name))
            .collect();
        let lasted = now.duration_since(core.started());
        let mut room = MOST_PEERS;
        let claimed = core.claims().iter().zip(of_claims);
        let claimed =
            claimed.map(|(claim, result)| AnnouncedVip::of(core, claim, result, &mut room));
        let absent = core.absent().map(|placed| placed.vip);
        let absent = absent.map(|vip| AnnouncedVip::absent(vip, AnnounceResult::NotHeld));
        let yielded = core.yielded();
        let yielded = yielded.map(|vip| AnnouncedVip::absent(vip, AnnounceResult::Superseded));
        let absent = absent.chain(yielded);
        Self {
            header: Header::new("announce", result).about(name).dry_run(dry_run),
            cut_short,
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            frames_sent: core.claims().iter().map(|claim| claim.frames_sent).sum(),
            vips: claimed.chain(absent).collect(),
            lines,
        }
    }

    /// What a run would do, after it has looked at the host and before it sends anything.
    #[must_use]
    pub fn planned(name: Option<&str>, core: &Announcement) -> Self {
        let (now, background) = (core.started(), Background::default());
        let plan = |claim: &Claim| match (claim.state(), claim.mac()) {
            (State::Ready, Some(mac)) => format!(
                "{} would be announced on {} as {mac}: at most {} frames in {}, and questions to \
                 every peer",
                claim.vip,
                claim.link.name,
                claim.planned_frames(),
                seconds(Claim::planned_time())
            ),
            _ => format!("{} {}", claim.vip, fate_of(claim, true).1),
        };
        let absent = |placed: &PlacedVip| format!("{} is {}", placed.vip, absence(core, placed));
        let lines = core.claims().iter().map(plan);
        let lines = lines.chain(core.absent().map(absent));
        Self {
            lines: lines
                .map(|text| Line::new(Level::Info, text).about(name))
                .collect(),
            ..Self::read(name, core, now, true, None, &background, Told::default())
        }
    }
}

impl Group<'_> {
    /// What became of the VIPs, unless the user was told.
    fn line(
        &self,
        core: &Announcement,
        result: AnnounceResult,
        fate: &str,
        cut_short: Option<CutShort>,
        of_run: AnnounceResult,
        told: &Told,
    ) -> Option<Line> {
        let level = match (result, cut_short) {
            (AnnounceResult::Failed | AnnounceResult::Conflict, _) => Level::Error,
            (AnnounceResult::NotHeld, _)
            | (AnnounceResult::Ok, Some(CutShort::Interrupt | CutShort::Termination)) => {
                Level::Warn
            }
            _ => Level::Info,
        };
        let vips = list(&self.vips);
        let [first, ..] = &self.claims[..] else {
            return Some(Line::new(level, format!("{vips} {fate}")));
        };
        if result != AnnounceResult::Ok || first.frames_sent == 0 {
            return Some(Line::new(level, format!("{vips} {fate}")));
        }
        let on = &first.link.name;
        let followers = Followers::of(core, self.claims.iter().copied());
        let is_told = self.claims.iter().all(|claim| claim.is_announcement_told());
        let text = match (is_told, cut_short) {
            (true, None) if !told.is_outdated(&self.claims) => return None,
            (true, None) => format!("{vips} on {on}, at the end: {followers}"),
            (true, Some(_)) => format!("{vips} on {on}"),
            (false, _) => format!("{vips} {fate}: {followers}"),
        };
        let cut_short = cut_short.map(CutShort::name).map(|what| {
            let mark = if is_told { ": " } else { "; " };
            format!("{mark}cut short by {what}: not all was sent and asked")
        });
        let notice = followers.notice(&self.claims, of_run);
        let line = Line::new(level, text + &cut_short.unwrap_or_default());
        Some(if is_told { line } else { line.of(notice) })
    }

    /// How many frames that took.
    fn frames(&self, core: &Announcement) -> Option<Line> {
        let frames: u32 = self.claims.iter().map(|claim| claim.frames_sent).sum();
        let time = seconds(core.last_sent().duration_since(core.started()));
        let frames = Some(frames).filter(|frames| *frames > 0)?;
        let text = format!("{}: {} in {time}", list(&self.vips), count(frames, "frame"));
        Some(Line::new(Level::Debug, text))
    }
}

/// Why a VIP counts as absent.
fn absence(core: &Announcement, placed: &PlacedVip) -> String {
    let mut elsewhere = core.passed_over(placed.vip).map(|link| {
        let name = &link.name;
        match link.why_unaskable_with_advice() {
            Some(why) => format!("{name}, which {why}"),
            None => name.clone(),
        }
    });
    match (elsewhere.next(), placed.place.name()) {
        (None, None) => "not on this host".to_owned(),
        (None, Some(place)) => format!("not on {place}"),
        (Some(first), place) => {
            let all = elsewhere.fold(first, |all, one| format!("{all}, and on {one}"));
            match place.filter(|place| !all.starts_with(place)) {
                Some(place) => format!("not on {place}, only on {all}"),
                None => format!("only on {all}"),
            }
        }
    }
}

/// How one claim ended, and the words for it, to follow the VIP.
fn fate_of(claim: &Claim, dry_run: bool) -> (AnnounceResult, String) {
    let name = &claim.link.name;
    match claim.state() {
        State::Left => (AnnounceResult::NotHeld, format!("left {name}: stopped")),
        State::DadFailed => (
            AnnounceResult::Conflict,
            format!(
                "is not announced: duplicate address detection on {name} found another owner; \
                 take the address from that host, then from {name}, and add it here again"
            ),
        ),
        State::Superseded => (
            AnnounceResult::Superseded,
            format!("left on {name} to a newer run"),
        ),
        State::Unfit(why) => (
            AnnounceResult::Failed,
            format!("cannot be announced on {name}: it {why}"),
        ),
        State::Waiting(why) => (
            AnnounceResult::Failed,
            format!("could not be fully announced on {name}: {why}"),
        ),
        State::Ready => match (claim.mac(), &claim.last_refusal) {
            (_, Some(Refusal::OutOfDescriptors)) if claim.frames_sent == 0 => (
                AnnounceResult::Failed,
                format!(
                    "could not be announced on {name}: no descriptor is left for it; raise the limit \
                     (`ulimit -n`, LimitNOFILE=)"
                ),
            ),
            (_, Some(why)) if claim.frames_sent == 0 => (
                AnnounceResult::Failed,
                format!("could not be announced: {name} takes no frames ({why})"),
            ),
            (_, None) if claim.frames_sent == 0 && !dry_run => (
                AnnounceResult::Failed,
                format!(
                    "was not announced on {name}: the run ended before its turn came; with so \
                     many VIPs, raise --rate or --timeout"
                ),
            ),
            (Some(mac), _) => (AnnounceResult::Ok, format!("announced on {name} as {mac}")),
            (None, _) => (AnnounceResult::Failed, format!("{name} has no MAC")),
        },
    }
}

/// What needs attention, and the worst result that follows from it.
pub(super) struct Findings<'a> {
    core: &'a Announcement,
    background: &'a Background<'a>,
    told: &'a Told,
    pub(super) worst: AnnounceResult,
    lines: Similar,
}

impl<'a> Findings<'a> {
    /// None yet, but for these lines.
    pub(super) fn new(
        core: &'a Announcement,
        background: &'a Background<'a>,
        told: &'a Told,
        lines: Similar,
    ) -> Self {
        let worst = match core.is_blind() {
            true => AnnounceResult::Unproven,
            false => AnnounceResult::Ok,
        };
        Self {
            core,
            background,
            told,
            worst,
            lines,
        }
    }

    /// `kind`: what the line is about.
    fn add(
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
    fn result_of(&mut self, claim: &Claim, counts_silent_path: bool) -> AnnounceResult {
        let of_others = std::mem::replace(&mut self.worst, AnnounceResult::Ok);
        self.of_claim(claim);
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
    pub(super) fn of_claim(&mut self, claim: &Claim) {
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
            let is_told = self.told.is_over(vip, mac);
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
                format!(
                    "{vip} on {name}: {other} of this host ({mac}) answers for it, too, so that \
                     hosts may follow either; `sysctl net.ipv4.conf.all.arp_ignore=1` ends that"
                )
            });
        }
        if claim.is_blocked() {
            let is_told = claim.is_block_told();
            self.add_untold(is_told, AnnounceResult::Unproven, "blocked VIPs", || {
                blocked(claim)
            });
        }
        for confirmation in claim.peers() {
            self.of_peer(claim, confirmation);
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
            self.of_others(claim, verdict, kind, words);
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
    fn of_silent_paths(&mut self) {
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

    fn of_peer(&mut self, claim: &Claim, confirmation: &Confirmation) {
        let (vip, name, peer) = (claim.vip, &claim.link.name, &confirmation.peer);
        let who = Who(peer);
        let verdict = claim.verdict_of(confirmation);
        let is_told = claim.is_peer_told(confirmation);
        match verdict {
            PeerVerdict::Stale => {
                self.add_untold(is_told, AnnounceResult::Unproven, "stale peers", || {
                    stale(claim, confirmation)
                });
            }
            PeerVerdict::Silent | PeerVerdict::Unasked
                if peer.required && !claim.is_other_owner(peer) && !claim.is_blocked() =>
            {
                let nodes = self.background.nodes;
                self.add_untold(is_told, AnnounceResult::Unproven, "silent peers", || {
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
    fn of_others(&mut self, claim: &Claim, verdict: PeerVerdict, kind: &'static str, words: &str) {
        let is_other = |peer: &&Confirmation| {
            claim.verdict_of(peer) == verdict
                && !(peer.peer.required && verdict == PeerVerdict::Silent)
                && !claim.is_other_owner(&peer.peer)
        };
        let peers = claim.peers().filter(is_other);
        let ips: Vec<_> = peers.map(|peer| peer.peer.ip).collect();
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

/// What may be the cause if nobody is heard.
const SILENCE: &str = ": is the switch port in the right VLAN, does it forward (spanning tree), and is anybody \
     there?";

/// No frame of another host has come in on the interface of these VIPs so far.
pub(super) fn path_silent(claims: &[&Claim]) -> Option<Line> {
    let [first, ..] = claims else { return None };
    let vips: Vec<_> = claims.iter().map(|claim| claim.vip).collect();
    let (name, notice) = (&first.link.name, Notice::new(Kind::PathSilent));
    let text = format!(
        "{} on {name}: no frame of any other host has come in yet, so nobody is known to follow; \
         announced until one does{SILENCE}",
        list(&vips)
    );
    let notice = notice.with_each("VIP", &vips).with("INTERFACE", name);
    Some(Line::new(Level::Warn, text).of(notice))
}

/// Other hosts answer for a VIP. They may be proxies.
pub(super) fn conflict(core: &Announcement, claim: &Claim, by: &[Mac], are_proxies: bool) -> Line {
    let (vip, name) = (claim.vip, &claim.link.name);
    let what = match are_proxies {
        true => format!(
            ", and for addresses that nobody has: a proxy, no second owner; on it switch that off \
             for this link ({}), or route {vip} to this link",
            proxy_off(vip)
        ),
        false => format!(
            "; on that host run `vipherald release {vip}` if its keepalived is dead, or find out \
             why both are master; if it does not have the VIP, see whether it is a proxy (`{}`)",
            show_proxies(vip)
        ),
    };
    let owners = hosts(core, by);
    let text = format!("{vip} on {name}: conflict: {owners} answers for it, too{what}");
    Line::new(Level::Error, text).of(about(claim, Kind::Conflict).with_each("MAC", by))
}

/// So many hosts that claim a VIP are one event.
pub(super) fn flood(core: &Announcement, claim: &Claim, more: u64) -> Line {
    // A rival is among them, with an entry of its own.
    let mut known: Vec<_> = claim.conflicts().collect();
    known.sort_by_key(|mac| core.host_of(*mac).is_none());
    let (level, who) = match known.is_empty() {
        true => (Level::Warn, "hosts that are gone".to_owned()),
        false => (Level::Error, hosts(core, &known)),
    };
    let (vip, name) = (claim.vip, &claim.link.name);
    let text = format!(
        "{vip} on {name}: conflict: a flood of claims, by {who} and, {more} times, by other MACs: a \
         loop or an attack?"
    );
    Line::new(level, text).of(about(claim, Kind::Conflict).with_each("MAC", known))
}

/// Something drops the frames from a VIP.
pub(super) fn blocked(claim: &Claim) -> Line {
    let (vip, name) = (claim.vip, &claim.link.name);
    let text = format!(
        "{vip} on {name}: blocked: several hosts answer this host's own address, but none ever a \
         frame from the VIP: something on the way out drops these frames. Does port security of the \
         cloud or hypervisor know the VIP (allowed address pairs), or MAC/IP binding, Dynamic ARP \
         Inspection, or an egress filter?"
    );
    Line::new(Level::Warn, text).of(about(claim, Kind::Blocked))
}

/// A peer sends to a wrong MAC.
pub(super) fn stale(claim: &Claim, confirmation: &Confirmation) -> Line {
    let (vip, name, who) = (claim.vip, &claim.link.name, Who(&confirmation.peer));
    let cure =
        format!("on it run `vipherald purge --permanent {vip}` or `ip neigh del {vip} dev …`");
    let text = match (confirmation.forwarded_by, confirmation.acknowledged) {
        (Some(by), _) => format!(
            "{vip} on {name}: {who} is stale: its answers to the VIP go to {by}, which forwards \
             them to this host; {cure}"
        ),
        // It took the request in, and its kernel would have changed the entry.
        (None, Some(_)) => format!(
            "{vip} on {name}: {who} is stale: it answers this host and took the VIP's ARP or ND in, \
             but does not answer the VIP: an entry set by hand is wrong ({cure}), or a filter on it \
             does not know the VIP"
        ),
        (None, None) => format!(
            "{vip} on {name}: {who} is stale: it answers this host but not the VIP, so its entry is \
             wrong; {cure}"
        ),
    };
    Line::new(Level::Warn, text).of(about_peer(claim, confirmation, Kind::StalePeer))
}

/// A peer that has to follow answers nothing. If it is the only one of the instance's other `nodes` that
/// does not answer, this host has its VIPs because it died.
pub(super) fn silent(claim: &Claim, confirmation: &Confirmation, nodes: &[IpAddr]) -> Line {
    let (vip, name, peer) = (claim.vip, &claim.link.name, &confirmation.peer);
    let is_silent_node = |one: &&Confirmation| {
        let verdict = claim.verdict_of(one);
        nodes.contains(&one.peer.ip)
            && matches!(verdict, PeerVerdict::Silent | PeerVerdict::Unasked)
    };
    let is_dead = nodes.contains(&peer.ip) && claim.peers().filter(is_silent_node).count() == 1;
    let what = match peer.source {
        Source::Gateway => "the gateway",
        Source::Configured => "the configured peer",
        Source::Learned | Source::Census | Source::Observed | Source::Reported | Source::Subnet => {
            "the neighbour"
        }
    };
    let who = Who(peer);
    let (level, text) = match is_dead {
        true => (
            Level::Info,
            format!(
                "{vip} on {name}: {what} {who} is silent: the node that has just died, probably"
            ),
        ),
        false => (
            Level::Warn,
            format!(
                "{vip} on {name}: {what} {who} is silent: nothing proves that it follows; is it up, \
                 and does a filter drop ARP or ND?"
            ),
        ),
    };
    Line::new(level, text).of(about_peer(claim, confirmation, Kind::SilentPeer))
}

/// A peer's address and MAC.
pub(super) struct Who<'a>(pub(super) &'a Peer);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.ip)?;
        self.0.mac.map_or(Ok(()), |mac| write!(f, " ({mac})"))
    }
}

pub(super) fn about(claim: &Claim, kind: Kind) -> Notice {
    let notice = Notice::new(kind).with("VIP", &claim.vip);
    notice.with("INTERFACE", &claim.link.name)
}

pub(super) fn about_peer(claim: &Claim, confirmation: &Confirmation, kind: Kind) -> Notice {
    let peer = &confirmation.peer;
    let notice = about(claim, kind).with("PEER", &peer.ip);
    notice.with_each("MAC", peer.mac)
}

/// Not if nothing was wrong, nor if a peer that follows anyway did not answer the order.
fn is_worth_logging(fate: &Fate, verdict: PeerVerdict) -> bool {
    match fate.outcome() {
        None => verdict == PeerVerdict::Stale,
        Some(Outcome::Right | Outcome::Absent) => false,
        Some(_) => true,
    }
}

/// MACs with their hosts, as far as they are known.
pub(super) fn hosts(core: &Announcement, macs: &[Mac]) -> String {
    let named = macs.iter();
    let named = named.map(|mac| format!("{mac} ({})", host_name(core, *mac)));
    list(&named.collect::<Vec<_>>())
}

fn host_name(core: &Announcement, mac: Mac) -> String {
    core.host_of(mac).map_or_else(
        || "host not known".to_owned(),
        |host| format!("host {host}"),
    )
}

impl AskedPeer {
    /// The peers to list, and the number of the others: those whose turn did not come or that may not even
    /// exist, unless they are required; and those beyond `room`, which this takes from. What needs
    /// attention is listed first.
    pub(super) fn listed<'a>(
        started: Instant,
        peers: impl Iterator<Item = (&'a Confirmation, PeerVerdict)>,
        room: &mut usize,
    ) -> (Vec<Self>, Option<NonZeroUsize>) {
        let (mut listed, others): (Vec<_>, Vec<_>) = peers.partition(|(one, verdict)| {
            let is_told = match verdict {
                PeerVerdict::Unasked => false,
                PeerVerdict::Silent => !one.peer.doubtful,
                _ => true,
            };
            one.peer.required || is_told
        });
        let all = listed.len() + others.len();
        if listed.len() > *room {
            listed.sort_by_key(|(one, verdict)| {
                (!one.peer.required, *verdict == PeerVerdict::Proven)
            });
            listed.truncate(*room);
        }
        *room -= listed.len();
        let more = NonZeroUsize::new(all - listed.len());
        let listed = listed.into_iter();
        let listed = listed.map(|(one, verdict)| Self::of(started, verdict, one));
        (listed.collect(), more)
    }

    fn of(started: Instant, verdict: PeerVerdict, confirmation: &Confirmation) -> Self {
        // To the microsecond: the rest is noise.
        let after_ms = |at: Instant| {
            let after = at.duration_since(started);
            (after.as_secs_f64() * 1e6).round() / 1e3
        };
        Self {
            address: confirmation.peer.ip,
            mac: confirmation.peer.mac,
            source: confirmation.peer.source,
            required: confirmation.peer.required,
            verdict,
            after_ms: confirmation.settled().map(after_ms),
            proof: confirmation.proven.map(|(_, proof)| proof),
            forwarded_by: confirmation.forwarded_by,
            answered_by: confirmation.answered_by,
            order: confirmation.order.as_ref().map(Fate::word),
        }
    }
}

impl AnnouncedVip {
    /// With at most `room` peers, from which it takes what it needs.
    fn of(core: &Announcement, claim: &Claim, result: AnnounceResult, room: &mut usize) -> Self {
        let conflict = |mac| Conflict {
            mac: Some(mac),
            host: core.host_of(mac),
        };
        let dad_failed = (claim.state() == State::DadFailed).then_some(Conflict {
            mac: None,
            host: None,
        });
        let conflicts = claim.conflicts().map(conflict);
        let past_conflicts = claim.past_conflicts().map(|(mac, _)| conflict(mac));
        let peers = claim.peers().map(|peer| (peer, claim.verdict_of(peer)));
        let (peers, more_peers) = AskedPeer::listed(core.started(), peers, room);
        Self {
            interface: Some(claim.link.name.clone()),
            mac: claim.mac(),
            held: claim.state() != State::Left,
            verdict: claim.is_blocked().then_some("blocked"),
            reach: Reach {
                path: match core.is_path_alive(claim.interface()) {
                    true => PathState::Alive,
                    false => PathState::Silent,
                },
                broadcasts: claim.broadcasts,
                asked: claim.peers().filter(|peer| peer.is_asked()).count(),
            },
            frames_sent: claim.frames_sent,
            conflicts: conflicts.chain(dad_failed).collect(),
            past_conflicts: past_conflicts.collect(),
            more_conflicts: NonZeroU64::new(claim.more_conflicts()),
            peers,
            more_peers,
            not_kept: NotKept::default(),
            peers_left_out: NonZeroUsize::new(claim.left_out),
            ..Self::absent(claim.vip, result)
        }
    }

    fn absent(vip: Vip, result: AnnounceResult) -> Self {
        Self {
            address: vip,
            result,
            interface: None,
            mac: None,
            held: false,
            verdict: None,
            reach: Reach::default(),
            frames_sent: 0,
            conflicts: Vec::new(),
            past_conflicts: Vec::new(),
            more_conflicts: None,
            peers: Vec::new(),
            more_peers: None,
            not_kept: NotKept::default(),
            peers_left_out: None,
        }
    }
}

impl Report for AnnounceReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }

    fn shorten(&mut self) {
        let vips = self.vips.iter_mut();
        shorten(vips.map(|vip| (&mut vip.peers, &mut vip.not_kept)));
    }

    fn exit(&self) -> Exit {
        self.header.result.into()
    }

    fn lasted(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }
}
