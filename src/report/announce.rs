//! What became of an announcement.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, News, State};
use vipherald_core::ask::{Asker, Confirmation, PeerVerdict, Refusal, Source};
use vipherald_core::host::PlacedVip;
use vipherald_core::order::{Fate, Outcome};

use super::order::words;
use super::{Line, NAMED, Report, count, list, seconds};
use crate::answering::Silence;
use crate::exit::Exit;

/// How an announcement ended, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnounceResult {
    /// Another host claims a VIP.
    Conflict,
    /// Frames could not leave.
    Failed,
    /// A VIP was not here, or left.
    NotHeld,
    /// A peer follows a wrong MAC, or a required one is silent.
    Unproven,
    /// A newer run announces a VIP.
    Superseded,
    /// Every VIP was announced.
    Ok,
}

impl AnnounceResult {
    fn exit(self) -> Exit {
        match self {
            Self::Conflict => Exit::Conflict,
            Self::Failed => Exit::Failed,
            Self::NotHeld => Exit::Contradicted,
            Self::Unproven => Exit::Unproven,
            Self::Superseded => Exit::Superseded,
            Self::Ok => Exit::Done,
        }
    }
}

/// What became of an announcement.
#[derive(Debug, Serialize)]
pub struct AnnounceReport {
    command: &'static str,
    version: &'static str,
    instance: Option<String>,
    result: AnnounceResult,
    dry_run: bool,
    /// What ended the run before it was over by itself.
    cut_short: Option<&'static str>,
    duration_ms: u64,
    frames_sent: u32,
    vips: Vec<AnnouncedVip>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct AnnouncedVip {
    address: Vip,
    interface: Option<String>,
    mac: Option<Mac>,
    held: bool,
    frames_sent: u32,
    conflicts: Vec<Conflict>,
    past_conflicts: Vec<Conflict>,
    peers: Vec<AskedPeer>,
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
    source: Source,
    required: bool,
    pub(super) verdict: PeerVerdict,
    after_ms: Option<f64>,
    answered_by: Option<Mac>,
    order: Option<&'static str>,
}

/// What is known beside what the announcement itself found out.
#[derive(Debug, Default)]
pub struct Background<'a> {
    /// Real servers of keepalived.conf: that they hold VIPs, too, is no news.
    pub real_servers: &'a [IpAddr],
    /// VIPs for which this host's own kernel does not answer, with their interfaces. Who follows now
    /// does not need it to; whoever asks later finds nobody.
    pub silences: Vec<(Vip, String, Silence)>,
    /// MACs that contest a VIP only as they answer for everything.
    pub proxies: Vec<Mac>,
}

/// What the claims of one line have in common.
#[derive(Debug, Default)]
struct Group {
    vips: Vec<Vip>,
    frames: u32,
    verdicts: BTreeMap<PeerVerdict, u32>,
    /// When the last peer was proven or acknowledged.
    settled: Option<Instant>,
}

impl AnnounceReport {
    /// Reads the state of a run that ended at `now`, by itself or because it was `stopped`, for the
    /// instance or group of this name.
    #[must_use]
    pub fn new(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        stopped: Option<Exit>,
        background: &Background<'_>,
    ) -> Self {
        let cut_short = stopped.map(|exit| match exit {
            Exit::Superseded => "a newer event",
            Exit::Interrupted => "SIGINT",
            _ => "SIGTERM",
        });
        Self::read(name, core, now, false, cut_short, background)
    }

    fn read(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        dry_run: bool,
        cut_short: Option<&'static str>,
        background: &Background<'_>,
    ) -> Self {
        let mut results = vec![if core.is_blind() {
            AnnounceResult::Unproven
        } else {
            AnnounceResult::Ok
        }];
        // One line for all VIPs that fared alike.
        let mut alike: BTreeMap<(AnnounceResult, String), Group> = BTreeMap::new();
        let mut peculiar = Vec::new();
        for claim in core.claims() {
            let (result, fate) = fate_of(claim, dry_run);
            results.push(result);
            let group = alike.entry((result, fate)).or_default();
            group.vips.push(claim.vip);
            group.frames += claim.frames_sent;
            for confirmation in claim.confirmations() {
                let verdict = claim.verdict_of(confirmation);
                *group.verdicts.entry(verdict).or_default() += 1;
                let settled = confirmation.proven.or(confirmation.acknowledged);
                group.settled = group.settled.max(settled);
            }
            let (worst, lines) = peculiarities(core, claim, background);
            results.push(worst);
            peculiar.extend(lines);
            peculiar.extend(unproven_peers(claim));
        }
        for placed in core.absent() {
            results.push(AnnounceResult::NotHeld);
            let fate = format!("{}: nothing announced", absence(core, placed));
            let group = alike.entry((AnnounceResult::NotHeld, fate)).or_default();
            group.vips.push(placed.vip);
        }
        for placed in core.set_aside() {
            let on = placed.place.name().unwrap_or_default();
            let fate = format!(
                "not announced on {on}, where keepalived puts it: nobody asks for it there"
            );
            let group = alike.entry((AnnounceResult::Ok, fate)).or_default();
            group.vips.push(placed.vip);
        }
        for vip in core.yielded() {
            results.push(AnnounceResult::Superseded);
            let fate = "is awaited by a newer run".to_owned();
            let group = alike.entry((AnnounceResult::Superseded, fate));
            group.or_default().vips.push(vip);
        }
        for (vip, on, silence) in &background.silences {
            results.push(AnnounceResult::Unproven);
            let text = format!("{vip} on {on}: {silence}");
            peculiar.push(Line(Level::Warn, text));
        }
        let lines = alike
            .iter()
            .map(|((result, fate), group)| group.line(core, *result, fate, cut_short))
            .chain(peculiar)
            .map(|line| line.about(name))
            .collect();
        let lasted = now.duration_since(core.started());
        Self {
            command: "announce",
            version: env!("CARGO_PKG_VERSION"),
            instance: name.map(str::to_owned),
            result: results.into_iter().min().unwrap_or(AnnounceResult::Ok),
            dry_run,
            cut_short,
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            frames_sent: core.claims().iter().map(|claim| claim.frames_sent).sum(),
            vips: core
                .claims()
                .iter()
                .map(|claim| AnnouncedVip::of(core, claim))
                .chain(
                    core.absent()
                        .map(|placed| placed.vip)
                        .chain(core.yielded())
                        .map(AnnouncedVip::absent),
                )
                .collect(),
            lines,
        }
    }

    /// What a run would do that has looked at the host, and shall not send.
    #[must_use]
    pub fn planned(name: Option<&str>, core: &Announcement) -> Self {
        let mut report = Self::read(
            name,
            core,
            core.started(),
            true,
            None,
            &Background::default(),
        );
        report.lines = core
            .claims()
            .iter()
            .map(|claim| match (claim.state(), claim.mac()) {
                (State::Ready, Some(mac)) => {
                    let (vip, name) = (claim.vip, &claim.link.name);
                    let frames = claim.planned_frames();
                    let time = seconds(Claim::planned_time());
                    format!(
                        "{vip} would be announced on {name} as {mac}: at most {frames} frames in \
                         {time}, and questions to every peer"
                    )
                }
                _ => format!("{} {}", claim.vip, fate_of(claim, true).1),
            })
            .chain(
                core.absent()
                    .map(|placed| format!("{} is {}", placed.vip, absence(core, placed))),
            )
            .map(|text| Line(Level::Info, text).about(name))
            .collect();
        report
    }

    /// The exit status that tells the result.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.result.exit()
    }
}

impl Group {
    fn line(
        &self,
        core: &Announcement,
        result: AnnounceResult,
        fate: &str,
        cut_short: Option<&str>,
    ) -> Line {
        let level = match result {
            AnnounceResult::Ok if cut_short.is_some_and(|what| what.starts_with("SIG")) => {
                Level::Warn
            }
            AnnounceResult::Ok | AnnounceResult::Unproven | AnnounceResult::Superseded => {
                Level::Info
            }
            AnnounceResult::NotHeld => Level::Warn,
            AnnounceResult::Failed | AnnounceResult::Conflict => Level::Error,
        };
        let mut text = format!("{} {fate}", list(&self.vips));
        if !self.verdicts.is_empty() {
            let count = |verdict| self.verdicts.get(&verdict).copied().unwrap_or(0);
            text += &format!(
                ": {} proven, {} acknowledged, {} stale, {} silent",
                count(PeerVerdict::Proven),
                count(PeerVerdict::Acknowledged),
                count(PeerVerdict::Stale),
                count(PeerVerdict::Silent)
            );
            for (verdict, name) in [
                (PeerVerdict::Holder, "holding it too"),
                (PeerVerdict::Offlink, "offlink"),
            ] {
                if count(verdict) > 0 {
                    text += &format!(", {} {name}", count(verdict));
                }
            }
            if let Some(settled) = self.settled {
                text += &format!(" in {}", seconds(settled.duration_since(core.started())));
            }
        }
        if self.frames > 0 {
            let separator = if self.verdicts.is_empty() { ":" } else { ";" };
            let time = seconds(core.last_sent().duration_since(core.started()));
            text += &format!("{separator} {} in {time}", count(self.frames, "frame"));
            if self.verdicts.is_empty() && result == AnnounceResult::Ok {
                text += ", by broadcast alone: nobody was known to be asked";
            }
            if let Some(what) = cut_short.filter(|_| result == AnnounceResult::Ok) {
                text += &format!("; cut short by {what}: not all was sent and asked");
            }
        }
        Line(level, text)
    }
}

/// Why a VIP counts as absent.
fn absence(core: &Announcement, placed: &PlacedVip) -> String {
    let mut elsewhere = core.passed_over(placed.vip).map(|link| {
        let name = &link.name;
        match link.why_unaskable() {
            Some(why) if link.unlike_ethernet.is_none() => {
                format!("{name}, which {why} (`ip link set {name} up`)")
            }
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

/// What became known of a VIP while its run goes on.
#[must_use]
pub fn news_line(name: Option<&str>, core: &Announcement, news: &News) -> Line {
    let vip = news.vip;
    let on = core.link(news.interface).map_or("", |link| &link.name);
    let rivals = news.rivals.iter();
    let rivals = rivals.map(|mac| format!("{mac} ({})", host_name(core, *mac)));
    let rivals = rivals.collect::<Vec<_>>().join(", ");
    let line = if news.is_over {
        let text = format!(
            "{vip} on {on}: the conflict is over: {rivals} answers for it no more; announced anew"
        );
        Line(Level::Warn, text)
    } else {
        let text = format!(
            "{vip} on {on}: conflict: {rivals} answers for it, too; asked again every 2 s, and \
             announced anew once it is gone"
        );
        Line(Level::Error, text)
    };
    line.about(name)
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
            format!("could not be announced on {name} to the end: {why}"),
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

/// Where a human should look: conflicts, stale peers, required peers that are silent.
fn peculiarities(
    core: &Announcement,
    claim: &Claim,
    background: &Background<'_>,
) -> (AnnounceResult, Vec<Line>) {
    let (vip, name) = (claim.vip, &claim.link.name);
    if claim.state() != State::Ready {
        return (AnnounceResult::Ok, Vec::new());
    }
    let conflicts = claim.conflicts().map(|mac| {
        let host = host_name(core, mac);
        let text = if background.proxies.contains(&mac) {
            format!(
                "{vip} on {name}: conflict: {mac} ({host}) answers for it, too, and for addresses that \
                 nobody has: a proxy, no second owner; on it switch proxy ARP off for this link \
                 (`sysctl -w net.ipv4.conf.IF.proxy_arp=0`), or route {vip} to this link"
            )
        } else {
            format!(
            "{vip} on {name}: conflict: {mac} ({host}) answers for it, too; \
             on that host run `vipherald release {vip}` if its keepalived is dead, or find out why \
             both are master"
            )
        };
        (
            AnnounceResult::Conflict,
            [Some(Line(Level::Error, text)), None, None],
        )
    });
    let past = claim.past_conflicts().map(|(mac, _)| {
        let host = host_name(core, mac);
        let text = format!(
            "{vip} on {name}: {mac} ({host}) answered for it, too, and does so no more: a conflict \
             that is over"
        );
        (
            AnnounceResult::Ok,
            [Some(Line(Level::Warn, text)), None, None],
        )
    });
    // Where another interface holds the VIP as well, its answers are as they should be.
    let holds = |mac: &Mac| {
        let mut claims = core.claims().iter();
        claims.any(|other| other.vip == vip && other.mac() == Some(*mac))
    };
    let own = claim.own_answers().filter(|mac| !holds(mac)).map(|mac| {
        let other = core.interface_of(mac).unwrap_or("another interface");
        let text = format!(
            "{vip} on {name}: {other} of this host ({mac}) answers for it, too, so that hosts may \
             follow either; `sysctl net.ipv4.conf.all.arp_ignore=1` ends that"
        );
        (
            AnnounceResult::Ok,
            [Some(Line(Level::Warn, text)), None, None],
        )
    });
    let peers = claim.confirmations().iter().map(|confirmation| {
        let peer = &confirmation.peer;
        let who = match peer.mac {
            Some(mac) => format!("{} ({mac})", peer.ip),
            None => peer.ip.to_string(),
        };
        let proxy = confirmation.answered_by.map(|mac| {
            let text = format!("{vip} on {name}: {mac} answers for {who}: a proxy or a switch?");
            Line(Level::Warn, text)
        });
        let verdict = claim.verdict_of(confirmation);
        let order = confirmation
            .order
            .as_ref()
            .filter(|fate| is_worth_telling(fate, verdict))
            .zip(claim.mac())
            .map(|(fate, mac)| {
                let (level, text) = words(fate, mac);
                Line(level, format!("{vip} on {name}: {who} {text}"))
            });
        match verdict {
            PeerVerdict::Stale => {
                let text = format!(
                    "{vip} on {name}: {who} is stale: it answers this host but not the VIP, so \
                     its entry is wrong; on it run `vipherald purge --permanent {vip}` or \
                     `ip neigh del {vip} dev …`"
                );
                (
                    AnnounceResult::Unproven,
                    [Some(Line(Level::Warn, text)), proxy, order],
                )
            }
            PeerVerdict::Silent if peer.required && !claim.is_rival(peer) => {
                let what = match peer.source {
                    Source::Gateway => "the gateway",
                    Source::Configured => "the configured peer",
                    Source::Learned => "the neighbour",
                };
                let text = format!(
                    "{vip} on {name}: {what} {who} is silent: nothing proves that it follows; \
                     is it up, and does a filter drop ARP or ND?"
                );
                (
                    AnnounceResult::Unproven,
                    [Some(Line(Level::Warn, text)), proxy, order],
                )
            }
            PeerVerdict::Holder => {
                let text = format!(
                    "{vip} on {name}: {who} has the VIP itself, and does not answer for it: a real \
                     server"
                );
                let level = match background.real_servers.contains(&peer.ip) {
                    true => Level::Debug,
                    false => Level::Info,
                };
                (AnnounceResult::Ok, [Some(Line(level, text)), proxy, order])
            }
            _ => (AnnounceResult::Ok, [None, proxy, order]),
        }
    });
    let (results, lines): (Vec<_>, Vec<_>) = conflicts.chain(past).chain(own).chain(peers).unzip();
    (
        results.into_iter().min().unwrap_or(AnnounceResult::Ok),
        lines.into_iter().flatten().flatten().collect(),
    )
}

/// Who was asked in vain, though nobody said that it had to follow: the first few, and with `-v`
/// all of them.
fn unproven_peers(claim: &Claim) -> Vec<Line> {
    if claim.state() != State::Ready {
        return Vec::new();
    }
    let (vip, on) = (claim.vip, &claim.link.name);
    let of = |verdict| {
        let told = |peer: &&Confirmation| {
            claim.verdict_of(peer) == verdict
                && !(peer.peer.required && verdict == PeerVerdict::Silent)
                && !claim.is_rival(&peer.peer)
        };
        let peers = claim.confirmations().iter().filter(told);
        peers.map(|peer| peer.peer.ip).collect::<Vec<_>>()
    };
    [
        (
            PeerVerdict::Silent,
            "silent, so that nothing is known of them",
        ),
        (
            PeerVerdict::Offlink,
            "not asked, for they are not on this link",
        ),
    ]
    .into_iter()
    .filter_map(|(verdict, words)| Some((of(verdict), words)).filter(|(ips, _)| !ips.is_empty()))
    .flat_map(|(ips, words)| {
        let all = ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let few = Line(
            Level::Info,
            format!("{vip} on {on}: {words}: {}", list(&ips)),
        );
        let rest = (ips.len() > NAMED).then(|| {
            Line(
                Level::Debug,
                format!("{vip} on {on}: {words}: {}", all.join(", ")),
            )
        });
        [Some(few), rest].into_iter().flatten()
    })
    .collect()
}

/// What was as it should be is not, nor that a peer which follows anyhow obeys no orders.
fn is_worth_telling(fate: &Fate, verdict: PeerVerdict) -> bool {
    match fate.outcome() {
        None => verdict == PeerVerdict::Stale,
        Some(Outcome::Right | Outcome::Absent) => false,
        Some(_) => true,
    }
}

fn host_name(core: &Announcement, mac: Mac) -> String {
    core.host_of(mac).map_or_else(
        || "host not known".to_owned(),
        |host| format!("host {host}"),
    )
}

impl AskedPeer {
    pub(super) fn of(started: Instant, verdict: PeerVerdict, confirmation: &Confirmation) -> Self {
        // To the microsecond: what is beyond is noise.
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
            after_ms: confirmation
                .proven
                .or(confirmation.acknowledged)
                .map(after_ms),
            answered_by: confirmation.answered_by,
            order: confirmation.order.as_ref().map(Fate::word),
        }
    }
}

impl AnnouncedVip {
    fn of(core: &Announcement, claim: &Claim) -> Self {
        let dad_failed = (claim.state() == State::DadFailed).then_some(Conflict {
            mac: None,
            host: None,
        });
        Self {
            address: claim.vip,
            interface: Some(claim.link.name.clone()),
            mac: claim.mac(),
            held: claim.state() != State::Left,
            frames_sent: claim.frames_sent,
            conflicts: claim
                .conflicts()
                .map(|mac| Conflict {
                    mac: Some(mac),
                    host: core.host_of(mac),
                })
                .chain(dad_failed)
                .collect(),
            past_conflicts: claim
                .past_conflicts()
                .map(|(mac, _)| Conflict {
                    mac: Some(mac),
                    host: core.host_of(mac),
                })
                .collect(),
            peers: claim
                .confirmations()
                .iter()
                .map(|confirmation| {
                    let verdict = claim.verdict_of(confirmation);
                    AskedPeer::of(core.started(), verdict, confirmation)
                })
                .collect(),
        }
    }

    fn absent(vip: Vip) -> Self {
        Self {
            address: vip,
            interface: None,
            mac: None,
            held: false,
            frames_sent: 0,
            conflicts: Vec::new(),
            past_conflicts: Vec::new(),
            peers: Vec::new(),
        }
    }
}

impl Report for AnnounceReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }
}
