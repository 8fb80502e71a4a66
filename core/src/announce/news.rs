//! What the user learns while a run goes on: each fact once, as soon as it is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Announcement, Claim, Mode, State};
use crate::address::{InterfaceIndex, Mac};
use crate::ask::{Confirmation, PeerVerdict, Question};

/// Hosts that nobody knows have this long to answer the first round.
const FIRST_ANSWERS: Duration = Duration::from_millis(100);
/// Peers that do not follow after this time are reported: the round after two seconds also corrects entries that
/// Linux kept because of `locktime`.
const CERTAIN: Duration = Duration::from_millis(2500);
/// The old owner has let go by then, and the rounds ask whether anybody else has the VIP.
const HANDED_OVER: Duration = Duration::from_secs(1);
/// An owner that takes the VIP over needs so long at most until it leaves here, if nothing gets lost.
const TAKES_OVER: Duration = Duration::from_millis(300);
/// The gap between two looks at all peers of a VIP.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The most peers of a VIP that are reported.
const MOST_TOLD: usize = 64;

/// What the user learns before the run ends. VIPs and peers are the places in
/// [`Announcement::claims`] and [`Claim::confirmations`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The first round of these VIPs of one interface is out, and the hosts that answer follow, or
    /// had the time to.
    Announced(Vec<usize>),
    /// No frame of another host has come in on the interface of these VIPs.
    PathSilent(Vec<usize>),
    /// Something on the way out drops the frames of this VIP.
    Blocked(usize),
    /// A peer is stale, or silent although it has to follow.
    NotFollowing(usize, usize),
    /// The same peer follows after all.
    Follows(usize, usize),
    /// Hosts with these MACs answer for a VIP, too.
    Conflict(usize, Vec<Mac>),
    /// The rounds are over, and the run starts to watch these other owners.
    ConflictWatched(usize, Vec<Mac>),
    /// They are gone, and the run announces the VIP again.
    ConflictOver(usize, Vec<Mac>),
}

/// What was told about one VIP.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// When the rounds started last.
    since: Option<Instant>,
    pub(super) first_round_is_out: bool,
    announced: bool,
    path_silent: bool,
    blocked: bool,
    /// How many of the first peers have a verdict.
    decided: usize,
    not_following: BTreeSet<usize>,
    conflicts: BTreeSet<Mac>,
    looked: Option<Instant>,
}

impl Told {
    /// The rounds start.
    pub(super) fn rounds_start(&mut self, now: Instant) {
        (self.since, self.looked, self.decided) = (Some(now), None, 0);
    }

    /// Another MAC is announced, or to hosts that were out of reach.
    pub(super) fn start_over(&mut self) {
        *self = Self::default();
    }

    /// Whether so much time passed since the rounds started.
    fn has_lasted(&self, now: Instant, time: Duration) -> bool {
        self.since.is_some_and(|since| since + time <= now)
    }

    /// When to look at all peers next.
    fn next_look(&self) -> Option<Instant> {
        let first = self.since.map(|since| since + CERTAIN);
        self.looked.map(|looked| looked + LOOK_AGAIN).or(first)
    }
}

impl Claim {
    /// Whether [`News::Announced`] told of it.
    #[must_use]
    pub fn is_announcement_told(&self) -> bool {
        self.told.announced
    }

    /// Whether [`News::PathSilent`] told of it.
    #[must_use]
    pub fn is_silence_told(&self) -> bool {
        self.told.path_silent
    }

    /// Whether [`News::Blocked`] told of it.
    #[must_use]
    pub fn is_block_told(&self) -> bool {
        self.told.blocked
    }

    /// Whether [`News::NotFollowing`] told of this peer, and it still holds.
    #[must_use]
    pub fn is_peer_told(&self, confirmation: &Confirmation) -> bool {
        let at = self.find_peer(confirmation.peer.ip);
        at.is_some_and(|at| self.told.not_following.contains(&at))
    }

    /// Whether [`News::Conflict`] told of this other owner.
    #[must_use]
    pub fn is_conflict_told(&self, mac: Mac) -> bool {
        self.told.conflicts.contains(&mac)
    }

    /// The conflict is over: if it comes back, that is news.
    pub(super) fn forget_told_conflicts(&mut self) {
        self.told.conflicts.clear();
    }

    /// Whether it was broadcast, so that there is something to tell.
    fn is_out(&self) -> bool {
        let is_announced = self.mode == Mode::Announce && self.told.first_round_is_out;
        is_announced && self.state() == State::Ready
    }
}

impl Announcement {
    /// Takes the news since the last call.
    pub fn take_news(&mut self, now: Instant) -> Vec<News> {
        self.find_announced(now);
        for index in 0..self.claims.len() {
            if self.claims[index].is_out() {
                self.find_followers(index);
                self.find_conflicts(now, index);
                self.look_at_peers(now, index);
            }
        }
        std::mem::take(&mut self.news)
    }

    /// When there may be news although nothing happens.
    pub(super) fn next_news(&self, now: Instant) -> Option<Instant> {
        let claims = self.claims.iter().filter(|claim| claim.is_out());
        let times = claims.flat_map(|claim| {
            let first = claim.told.since.filter(|_| !claim.told.announced);
            let told_until = now.checked_sub(TAKES_OVER).unwrap_or(now);
            let claimed = claim.other_owners.next_first(told_until);
            [
                first.map(|since| since + FIRST_ANSWERS),
                claim.told.since.map(|since| since + CERTAIN),
                claimed.map(|first| first + TAKES_OVER),
            ]
        });
        times.flatten().filter(|at| *at > now).min()
    }

    /// The first verdicts on the VIPs of each interface.
    fn find_announced(&mut self, now: Instant) {
        let mut untold: BTreeMap<InterfaceIndex, Vec<usize>> = BTreeMap::new();
        for (index, claim) in self.claims.iter().enumerate() {
            if claim.state() == State::Ready && !claim.told.announced {
                untold.entry(claim.interface()).or_default().push(index);
            }
        }
        for (interface, mut claims) in untold {
            let is_late = |index: &usize| self.claims[*index].told.has_lasted(now, CERTAIN);
            let is_late = claims.iter().all(is_late);
            if is_late {
                claims.retain(|index| self.claims[*index].is_out());
            }
            if claims.is_empty() || !claims.iter().all(|index| self.claims[*index].is_out()) {
                continue;
            }
            let is_alive = self.paths.is_alive(interface);
            let asks_nobody = |index: &usize| {
                let claim = &self.claims[*index];
                !claim.awaits_peers() && claim.confirmations().is_empty()
            };
            let is_told = if is_alive {
                is_late || claims.iter().all(|index| self.is_decided(now, *index))
            } else {
                let waited =
                    |index: &usize| self.claims[*index].told.has_lasted(now, FIRST_ANSWERS);
                claims.iter().all(asks_nobody) && claims.iter().all(waited)
            };
            if is_told {
                claims
                    .iter()
                    .for_each(|index| self.claims[*index].told.announced = true);
                self.news.push(News::Announced(claims));
            } else if is_late && !is_alive {
                claims.retain(|index| !self.claims[*index].told.path_silent);
                claims
                    .iter()
                    .for_each(|index| self.claims[*index].told.path_silent = true);
                if !claims.is_empty() {
                    self.news.push(News::PathSilent(claims));
                }
            }
        }
    }

    /// Whether each peer that exists follows, or is silent or stale beyond chance.
    fn is_decided(&mut self, now: Instant, index: usize) -> bool {
        let claim = &self.claims[index];
        let may_be_found = self.pace.census && claim.vip.ip().is_ipv6();
        let waits = may_be_found || claim.confirmations().is_empty();
        if claim.awaits_peers() || waits && !claim.told.has_lasted(now, FIRST_ANSWERS) {
            return false;
        }
        let enough = self.paths.questions_to_rule_out_chance(claim.interface());
        let all = claim.confirmations().iter().skip(claim.told.decided);
        let decided = all.take_while(|one| is_decided(one, enough)).count();
        let claim = &mut self.claims[index];
        claim.told.decided += decided;
        claim.told.decided == claim.confirmations().len()
    }

    /// Peers that follow although the user was told that they do not.
    fn find_followers(&mut self, index: usize) {
        let claim = &self.claims[index];
        let follows = |at: &usize| {
            let verdict = claim.verdict_of(&claim.confirmations()[*at]);
            matches!(verdict, PeerVerdict::Proven | PeerVerdict::Acknowledged)
        };
        let told = claim.told.not_following.iter().copied();
        for peer in told.filter(follows).collect::<Vec<_>>() {
            self.claims[index].told.not_following.remove(&peer);
            self.news.push(News::Follows(index, peer));
        }
    }

    /// Other owners. If there are many, they come together.
    fn find_conflicts(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        let Some(since) = claim.began.map(|began| began + HANDED_OVER) else {
            return;
        };
        let is_first = claim.told.conflicts.is_empty();
        let is_due = is_first || claim.told.next_look().is_some_and(|at| at <= now);
        let mut new: Vec<_> = match is_due {
            true => {
                let until = now.checked_sub(TAKES_OVER).unwrap_or(now);
                claim.other_owners.present_since(since, until).collect()
            }
            false => return,
        };
        new.retain(|mac| claim.told.conflicts.insert(*mac));
        if !new.is_empty() {
            self.news.push(News::Conflict(index, new));
        }
    }

    /// Who does not follow for certain.
    fn look_at_peers(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        if claim.told.next_look().is_none_or(|at| at > now) || claim.awaits_peers() {
            return;
        }
        claim.told.looked = Some(now);
        let claim = &self.claims[index];
        if claim.is_blocked() {
            if !std::mem::replace(&mut self.claims[index].told.blocked, true) {
                self.news.push(News::Blocked(index));
            }
            return;
        }
        let enough = self.paths.questions_to_rule_out_chance(claim.interface());
        let is_news = |at: &usize| {
            let one = &claim.confirmations()[*at];
            let does_not_follow = match claim.verdict_of(one) {
                PeerVerdict::Stale => true,
                PeerVerdict::Silent => one.peer.required && !claim.is_other_owner(&one.peer),
                _ => false,
            };
            does_not_follow && is_decided(one, enough) && !claim.told.not_following.contains(at)
        };
        let room = MOST_TOLD.saturating_sub(claim.told.not_following.len());
        let found = (0..claim.confirmations().len()).filter(is_news).take(room);
        for peer in found.collect::<Vec<_>>() {
            self.claims[index].told.not_following.insert(peer);
            self.news.push(News::NotFollowing(index, peer));
        }
    }
}

/// Whether more questions would hardly change the verdict on a peer, or it may not even exist. `enough`
/// unanswered questions rule out chance.
fn is_decided(one: &Confirmation, enough: Option<u32>) -> bool {
    let is_silent =
        |enough| !one.has_replied() && one.asked_while_alive(Question::Directed) >= enough;
    one.peer.doubtful || !one.is_open(enough) || enough.is_some_and(is_silent)
}
