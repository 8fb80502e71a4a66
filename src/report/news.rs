//! What an announcement says while it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::Level;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, News};
use vipherald_core::ask::{Confirmation, PeerVerdict};

use super::caps::Similar;
use super::findings::{Background, Findings, ToldOver};
use super::judged::Judged;
use super::wording::{
    Who, about, about_peer, blocked, conflict, flood, hosts, path_silent, silent, stale,
};
use super::{Line, list, seconds};
use crate::exit::AnnounceResult;
use crate::journal::{Kind, Notice};

/// Who follows, among the peers of some VIPs.
#[derive(Debug, Default)]
pub(super) struct Followers {
    verdicts: BTreeMap<PeerVerdict, u32>,
    /// The peers that answer, and whether each follows every VIP.
    hosts: BTreeMap<IpAddr, bool>,
    /// How long it took until the last one followed.
    last: Option<Duration>,
}

impl Followers {
    pub(super) fn of<'a>(
        core: &Announcement,
        claims: impl IntoIterator<Item = &'a Judged<'a>>,
    ) -> Self {
        let mut all = Self::default();
        let mut last: Option<Instant> = None;
        for claim in claims {
            for (one, verdict) in &claim.peers {
                *all.verdicts.entry(*verdict).or_default() += 1;
                let follows = match verdict {
                    PeerVerdict::Proven | PeerVerdict::Acknowledged => true,
                    PeerVerdict::Stale => false,
                    _ => continue,
                };
                *all.hosts.entry(one.peer.ip).or_insert(true) &= follows;
                last = last.max(one.settled().filter(|_| follows));
            }
        }
        all.last = last.map(|last| last.duration_since(core.started()));
        all
    }

    fn count(&self, verdict: PeerVerdict) -> u32 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    fn follow(&self) -> usize {
        self.hosts.values().filter(|follows| **follows).count()
    }

    /// What the journal gets about them.
    pub(super) fn notice<'a>(
        &self,
        claims: impl IntoIterator<Item = &'a Claim>,
        result: AnnounceResult,
    ) -> Notice {
        let claims: Vec<_> = claims.into_iter().collect();
        let all_follow =
            self.follow() > 0 && self.follow() == self.hosts.len() && result == AnnounceResult::Ok;
        let kind = if all_follow {
            Kind::AllFollow
        } else {
            Kind::TakenOver
        };
        let interfaces: BTreeSet<_> = claims.iter().map(|claim| &claim.link.name).collect();
        let macs: BTreeSet<_> = claims.iter().filter_map(|claim| claim.mac()).collect();
        Notice::new(kind)
            .with_each("VIP", claims.iter().map(|claim| claim.vip))
            .with_each("INTERFACE", interfaces)
            .with_each("MAC", macs)
            .with("RESULT", result.name())
            .with("PEERS_PROVEN", &self.count(PeerVerdict::Proven))
            .with("PEERS_ACKNOWLEDGED", &self.count(PeerVerdict::Acknowledged))
            .with("PEERS_STALE", &self.count(PeerVerdict::Stale))
            .with("PEERS_SILENT", &self.count(PeerVerdict::Silent))
            .with("PEERS_UNASKED", &self.count(PeerVerdict::Unasked))
    }
}

impl fmt::Display for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verdicts.is_empty() {
            return f.write_str("by broadcast alone, as nobody was known to be asked");
        }
        let was_asked =
            |one: &PeerVerdict| !matches!(one, PeerVerdict::Offlink | PeerVerdict::Unasked);
        if !self.verdicts.keys().any(was_asked) {
            return f.write_str("by broadcast alone, as nobody was asked");
        }
        if self.hosts.is_empty() {
            f.write_str("nobody who was asked answers")?;
        } else {
            let all = self.hosts.len();
            write!(f, "{} of {all} who answer follow", self.follow())?;
        }
        if let Some(last) = self.last {
            write!(f, ", the last after {}", seconds(last))?;
        }
        match self.count(PeerVerdict::Holder) {
            0 => Ok(()),
            holders => write!(f, ", {holders} holding it too"),
        }
    }
}

/// What was told while a run went on, so that its end repeats nothing.
#[derive(Debug, Default)]
pub struct Told {
    lines: Similar,
    /// How many peers of each VIP answered and followed when it was told last.
    followers: BTreeMap<(Vip, u32), (usize, usize)>,
    over: ToldOver,
}

impl Told {
    /// Words for news of the run for the instance or group of this name, or for none.
    pub fn lines(
        &mut self,
        name: Option<&str>,
        core: &Announcement,
        news: &News,
        background: &Background<'_>,
    ) -> Vec<Line> {
        let claims = core.claims();
        let line = match news {
            News::Announced(all) => {
                let of: Vec<_> = all.iter().map(|at| Judged::of(&claims[*at])).collect();
                self.announced(core, &of, background)
            }
            News::PathSilent(all) => {
                let of: Vec<_> = all.iter().map(|at| &claims[*at]).collect();
                path_silent(&of).map(|line| ("silent paths", line))
            }
            News::Blocked(at) => Some(("blocked VIPs", blocked(&claims[*at]))),
            News::NotFollowing(at, peer) => {
                let claim = &claims[*at];
                let one = &claim.confirmations()[*peer];
                self.count(&Judged::of(claim));
                Some(match claim.verdict_of(one) {
                    PeerVerdict::Stale => ("stale peers", stale(claim, one)),
                    _ => ("silent peers", silent(claim, one, background.nodes)),
                })
            }
            News::Follows(at, peer) => {
                let claim = &claims[*at];
                self.count(&Judged::of(claim));
                Some((
                    "stragglers",
                    follows(core, claim, &claim.confirmations()[*peer]),
                ))
            }
            News::Conflict(at, by) => {
                let claim = &claims[*at];
                Some(match claim.more_conflicts() {
                    0 => ("conflicts", conflict(core, claim, by, false)),
                    more => ("floods of claims", flood(core, claim, more)),
                })
            }
            News::ConflictWatched(at, by) => {
                Some(("watched conflicts", watched(core, &claims[*at], by)))
            }
            News::ConflictOver(at, by) => {
                let claim = &claims[*at];
                self.over.extend(by.iter().map(|mac| (claim.vip, *mac)));
                Some(("past conflicts", over(core, claim, by)))
            }
        };
        if let Some((kind, line)) = line {
            self.lines.add(line.level, kind, || line);
        }
        let lines = self.lines.take().into_iter();
        lines.map(|line| line.about(name)).collect()
    }

    /// The numbers of the lines so far; the report's lines add to them.
    pub(super) fn take_lines(&mut self) -> Similar {
        std::mem::take(&mut self.lines)
    }

    /// Whether other numbers of peers answer and follow than the user was told.
    pub(super) fn is_outdated(&self, claims: &[&Judged<'_>]) -> bool {
        let known = |judged: &Judged<'_>| self.followers.get(&key(judged.claim)).copied();
        claims
            .iter()
            .any(|judged| known(judged) != Some(numbers(judged)))
    }

    pub(super) fn over(&self) -> &ToldOver {
        &self.over
    }

    fn count(&mut self, judged: &Judged<'_>) {
        self.followers.insert(key(judged.claim), numbers(judged));
    }

    fn announced(
        &mut self,
        core: &Announcement,
        judged: &[Judged<'_>],
        background: &Background<'_>,
    ) -> Option<(&'static str, Line)> {
        let claims = || judged.iter().map(|one| one.claim);
        let first = claims().next()?;
        judged.iter().for_each(|one| self.count(one));
        let followers = Followers::of(core, judged);
        let (none, lines) = (ToldOver::new(), Similar::default());
        let mut findings = Findings::new(core, background, &none, lines);
        judged.iter().for_each(|one| findings.of_claim(one));
        let vips: Vec<_> = claims().map(|claim| claim.vip).collect();
        let mac = first
            .mac()
            .map(|mac| format!(" as {mac}"))
            .unwrap_or_default();
        let text = format!(
            "{} announced on {}{mac}: {followers}",
            list(&vips),
            first.link.name
        );
        let notice = followers.notice(claims(), findings.worst);
        Some(("announcements", Line::new(Level::Info, text).of(notice)))
    }
}

fn key(claim: &Claim) -> (Vip, u32) {
    (claim.vip, claim.interface().0)
}

/// How many peers answer, and how many of these follow.
fn numbers(judged: &Judged<'_>) -> (usize, usize) {
    let (mut answer, mut follow) = (0, 0);
    for (_, verdict) in &judged.peers {
        let follows = match verdict {
            PeerVerdict::Proven | PeerVerdict::Acknowledged => true,
            PeerVerdict::Stale => false,
            _ => continue,
        };
        answer += 1;
        follow += usize::from(follows);
    }
    (answer, follow)
}

fn follows(core: &Announcement, claim: &Claim, one: &Confirmation) -> Line {
    let (vip, name, who) = (claim.vip, &claim.link.name, Who(&one.peer));
    let after = one.settled().map(|at| at.duration_since(core.started()));
    let text = format!(
        "{vip} on {name}: {who} follows after all, after {}",
        seconds(after.unwrap_or_default())
    );
    Line::new(Level::Info, text).of(about_peer(claim, one, Kind::FollowsLate))
}

fn watched(core: &Announcement, claim: &Claim, by: &[Mac]) -> Line {
    let (vip, name, owners) = (claim.vip, &claim.link.name, hosts(core, by));
    let text = format!(
        "{vip} on {name}: conflict: {owners} still answers for it, too; probed again every 2 s, and \
         announced again once it is gone"
    );
    Line::new(Level::Error, text).of(about(claim, Kind::Conflict).with_each("MAC", by))
}

fn over(core: &Announcement, claim: &Claim, by: &[Mac]) -> Line {
    let (vip, name, owners) = (claim.vip, &claim.link.name, hosts(core, by));
    let text = format!(
        "{vip} on {name}: the conflict is over: {owners} no longer answers for it; announced again"
    );
    Line::new(Level::Warn, text).of(about(claim, Kind::ConflictOver).with_each("MAC", by))
}
