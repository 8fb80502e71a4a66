//! What an announcement achieved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Instant;

use log::Level;
use serde::Serialize;
use tokio::task::yield_now;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, State};
use vipherald_core::ask::{PeerVerdict, Refusal};
use vipherald_core::host::PlacedVip;

use super::asked_peer::AskedPeer;
use super::caps::{MOST_PEERS, NotKept, shorten};
use super::findings::{Background, Findings};
use super::judged::Judged;
use super::news::{Followers, Told};
use super::{Header, Line, Report, count, list, seconds};
use crate::exit::{AnnounceResult, Exit};

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
    began: Instant,
    #[serde(skip)]
    is_in_vain: bool,
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

/// The VIPs that share one line.
#[derive(Debug, Default)]
struct Group<'a> {
    vips: Vec<Vip>,
    claims: Vec<&'a Judged<'a>>,
}

impl AnnounceReport {
    /// Reports on a run that ended at `now`, by itself or because it was `stopped`, for the instance or
    /// group of this name, or for none. Its lines repeat nothing of what was `told`.
    /// Others run meanwhile: hosts can have tens of thousands of peers.
    pub async fn new(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        stopped: Option<Exit>,
        background: &Background<'_>,
        told: Told,
    ) -> Self {
        let cut_short = stopped.map(CutShort::by);
        Self::read(name, core, now, false, cut_short, background, told).await
    }

    /// The same for a run that was for late hosts alone and reached none. Forged ones could fill the log
    /// and the history with such runs.
    pub(crate) fn in_vain(self) -> Self {
        Self {
            is_in_vain: true,
            lines: self.lines.into_iter().map(Line::quiet).collect(),
            ..self
        }
    }

    async fn read(
        name: Option<&str>,
        core: &Announcement,
        now: Instant,
        dry_run: bool,
        cut_short: Option<CutShort>,
        background: &Background<'_>,
        mut told: Told,
    ) -> Self {
        let lines = told.take_lines();
        let mut findings = Findings::new(core, background, told.over(), lines);
        // One line for all VIPs that ended alike.
        let mut judged = Vec::new();
        for claim in core.claims() {
            judged.push(Judged::of(claim));
            give_way(judged.len()).await;
        }
        let mut alike: BTreeMap<(AnnounceResult, String), Group<'_>> = BTreeMap::new();
        let counts_silent_paths = !dry_run && cut_short.is_none();
        let mut of_claims = Vec::new();
        for one in &judged {
            let fate = fate_of(one.claim, dry_run, cut_short);
            let result = findings.result_of(one, counts_silent_paths).min(fate.0);
            of_claims.push(result);
            let group = alike.entry(fate).or_default();
            group.vips.push(one.claim.vip);
            group.claims.push(one);
            give_way(of_claims.len()).await;
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
        let (mut vips, mut room) = (Vec::new(), MOST_PEERS);
        for (one, result) in judged.iter().zip(of_claims) {
            vips.push(AnnouncedVip::of(core, one, result, &mut room));
            give_way(vips.len()).await;
        }
        let absent = core.absent().map(|placed| placed.vip);
        let absent = absent.map(|vip| AnnouncedVip::absent(vip, AnnounceResult::NotHeld));
        let yielded = core.yielded();
        let yielded = yielded.map(|vip| AnnouncedVip::absent(vip, AnnounceResult::Superseded));
        vips.extend(absent.chain(yielded));
        Self {
            header: Header::new("announce", result).about(name).dry_run(dry_run),
            cut_short,
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            frames_sent: core.claims().iter().map(|claim| claim.frames_sent).sum(),
            vips,
            began: core.started(),
            is_in_vain: false,
            lines,
        }
    }

    /// What a run would do, after it has looked at the host and before it sends anything.
    pub async fn planned(name: Option<&str>, core: &Announcement) -> Self {
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
            _ => format!("{} {}", claim.vip, fate_of(claim, true, None).1),
        };
        let absent = |placed: &PlacedVip| format!("{} is {}", placed.vip, absence(core, placed));
        let lines = core.claims().iter().map(plan);
        let lines = lines.chain(core.absent().map(absent));
        Self {
            lines: lines
                .map(|text| Line::new(Level::Info, text).about(name))
                .collect(),
            ..Self::read(name, core, now, true, None, &background, Told::default()).await
        }
    }
}

/// Others run after every fourth VIP.
async fn give_way(done: usize) {
    const AT_ONCE: usize = 4;
    if done.is_multiple_of(AT_ONCE) {
        yield_now().await;
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
        let claims = || self.claims.iter().map(|one| one.claim);
        let Some(first) = claims().next() else {
            return Some(Line::new(level, format!("{vips} {fate}")));
        };
        if result != AnnounceResult::Ok || first.frames_sent == 0 {
            return Some(Line::new(level, format!("{vips} {fate}")));
        }
        let on = &first.link.name;
        let followers = Followers::of(core, self.claims.iter().copied());
        let is_told = claims().all(Claim::is_announcement_told);
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
        let notice = followers.notice(claims(), of_run);
        let line = Line::new(level, text + &cut_short.unwrap_or_default());
        Some(if is_told { line } else { line.of(notice) })
    }

    /// How many frames that took.
    fn frames(&self, core: &Announcement) -> Option<Line> {
        let claims = self.claims.iter();
        let frames: u32 = claims.map(|one| one.claim.frames_sent).sum();
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

/// Whether nobody is known to follow, and nothing else is known of the VIP either.
fn has_achieved_nothing(claim: &Claim) -> bool {
    let follows = |verdict| matches!(verdict, PeerVerdict::Proven | PeerVerdict::Acknowledged);
    let is_refused = claim.frames_sent == 0 && claim.last_refusal.is_some();
    let is_open = matches!(claim.state(), State::Ready | State::Waiting(_)) && !is_refused;
    is_open && !claim.peers().any(|one| follows(claim.verdict_of(one)))
}

/// How one claim ended, and the words for it, to follow the VIP.
fn fate_of(claim: &Claim, dry_run: bool, cut_short: Option<CutShort>) -> (AnnounceResult, String) {
    let name = &claim.link.name;
    match claim.state() {
        _ if cut_short == Some(CutShort::NewerEvent) && has_achieved_nothing(claim) => (
            AnnounceResult::Superseded,
            format!("left on {name} to a newer event"),
        ),
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
                    "was not announced on {name}: the run ended before its turn came; raise \
                     --timeout or, for many VIPs, --rate"
                ),
            ),
            (Some(mac), _) => (AnnounceResult::Ok, format!("announced on {name} as {mac}")),
            (None, _) => (AnnounceResult::Failed, format!("{name} has no MAC")),
        },
    }
}

impl AnnouncedVip {
    /// With at most `room` peers, from which it takes what it needs.
    fn of(
        core: &Announcement,
        judged: &Judged<'_>,
        result: AnnounceResult,
        room: &mut usize,
    ) -> Self {
        let claim = judged.claim;
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
        let asked = judged.peers.iter().filter(|(peer, _)| peer.is_asked());
        let asked = asked.count();
        let peers = judged.peers.iter().copied();
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
                asked,
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

    fn began(&self) -> Option<Instant> {
        Some(self.began)
    }

    fn is_worth_a_receipt(&self) -> bool {
        !self.is_in_vain
    }
}
