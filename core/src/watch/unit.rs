//! VIPs that are announced together: those of an instance, or those that the user named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::address::{InterfaceIndex, Mac};
use crate::host::PlacedVip;

/// Where this host has a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Presence {
    /// Whether any interface holds it.
    pub(super) is_held: bool,
    /// The interfaces that can announce it, with their MACs.
    pub(super) ready: BTreeSet<(InterfaceIndex, Option<Mac>)>,
}

/// A move: its number, and when the kernel reported it.
pub(super) type Step = (u64, Instant);

/// A VIP of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    presence: Presence,
    /// The moves by which it came and left last.
    came: Option<Step>,
    left: Option<Step>,
    /// Whether the move has not been taken.
    is_new: bool,
}

impl Member {
    /// Whether it can be announced.
    pub(super) fn is_ready(&self) -> bool {
        !self.presence.ready.is_empty()
    }

    /// The move by which it came, if that was after a move and a moment, and it is here.
    pub(super) fn came_after(&self, (number, moment): (u64, Option<Instant>)) -> Option<u64> {
        let is_after = |came: &Step| came.0 > number && Some(came.1) >= moment;
        let came = self.came.filter(|_| self.is_ready());
        came.filter(is_after).map(|(number, _)| number)
    }

    /// The move by which it left, if that was after a move and a moment. It may have come again.
    pub(super) fn left_after(&self, (number, moment): (u64, Option<Instant>)) -> Option<u64> {
        let is_after = |left: &Step| left.0 > number && Some(left.1) >= moment;
        self.left.filter(is_after).map(|(number, _)| number)
    }
}

/// The VIPs of a unit.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    members: BTreeMap<PlacedVip, Member>,
    /// The announcement that began last: when, and for which VIPs.
    began: Option<(Instant, BTreeSet<PlacedVip>)>,
}

impl Unit {
    pub(super) fn set_vips(&mut self, vips: BTreeSet<PlacedVip>) {
        let mut before = std::mem::take(&mut self.members);
        for placed in vips {
            let member = before.remove(&placed).unwrap_or_default();
            self.members.insert(placed, member);
        }
    }

    pub(super) fn vips(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        self.members.keys()
    }

    pub(super) fn presences(&self) -> impl Iterator<Item = &Member> + '_ {
        self.members.values()
    }

    pub(super) fn here_before(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        let here = self.members.iter();
        here.filter(|(_, one)| one.presence.is_held && one.came.is_none())
            .map(|(placed, _)| placed)
    }

    /// What is here was here before.
    pub(super) fn nothing_moved(&mut self) {
        for member in self.members.values_mut() {
            (member.came, member.left, member.is_new) = (None, None, false);
        }
    }

    /// This is where this host has a VIP now. Returns whether it moved, and if so that is this step.
    pub(super) fn is_now(&mut self, placed: &PlacedVip, presence: &Presence, step: Step) -> bool {
        let Some(member) = self.members.get_mut(placed) else {
            return false;
        };
        let before = std::mem::replace(&mut member.presence, presence.clone());
        if !presence.ready.is_subset(&before.ready) {
            (member.came, member.is_new) = (Some(step), true);
            return true;
        }
        let has_left = before.is_held && !presence.is_held;
        if has_left {
            (member.left, member.is_new) = (Some(step), true);
            if let Some((_, vips)) = &self.began
                && !vips.iter().any(|vip| self.holds(vip))
            {
                self.began = None;
            }
        }
        has_left
    }

    fn holds(&self, placed: &PlacedVip) -> bool {
        self.members
            .get(placed)
            .is_some_and(|one| one.presence.is_held)
    }

    /// The VIPs that left since the last call.
    pub(super) fn take_left(&mut self) -> Vec<PlacedVip> {
        self.take_new(|member| !member.presence.is_held)
    }

    /// The VIPs to announce, because some of them came since the last call; none if an announcement that
    /// has just begun picks them up.
    pub(super) fn take_came(&mut self, now: Instant, picked_up_within: Duration) -> Vec<PlacedVip> {
        let mut came = self.take_new(Member::is_ready);
        if came.is_empty() {
            return came;
        }
        if let Some((at, vips)) = &self.began
            && now < *at + picked_up_within
            && came.iter().all(|placed| vips.contains(placed))
        {
            return Vec::new();
        }
        let to_come = self.members.iter();
        let to_come = to_come.filter(|(_, member)| !member.is_ready());
        came.extend(to_come.map(|(placed, _)| placed.clone()));
        self.began = Some((now, came.iter().cloned().collect()));
        came
    }

    fn take_new(&mut self, is_it: impl Fn(&Member) -> bool) -> Vec<PlacedVip> {
        let new = self.members.iter_mut();
        new.filter(|(_, member)| member.is_new && is_it(member))
            .map(|(placed, member)| {
                member.is_new = false;
                placed.clone()
            })
            .collect()
    }
}
