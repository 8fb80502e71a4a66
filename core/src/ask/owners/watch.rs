//! Watches the other owners of a VIP that is here.
//!
//! When a split brain ends, the host that stays master gets no event, and some hosts still follow the
//! other one. So the run probes until all other owners are gone, and then announces again.

use std::time::{Duration, Instant};

use super::{Claimant, Claimants};
use crate::address::Mac;

/// The gap between two looks.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// An owner that missed a look and came back does not answer probes. Such an owner is gone only after
/// this much time without a claim: otherwise each of its claims would start new rounds.
const QUIET: Duration = Duration::from_secs(30);

/// A look at all owners: probes until each answered, or should have.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Instant,
    probes: u32,
}

/// The next step of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a probe.
    Probe,
    /// The look is over: an owner remains.
    StillThere,
    /// The look is over: no owner remains.
    Gone,
    /// There is no look, or no owner.
    Nothing,
}

/// The other owners of one VIP.
#[derive(Clone, Debug)]
pub(crate) struct OwnerWatch {
    known: Claimants,
    look: Option<Look>,
    /// How long to watch owners once found.
    watch: Duration,
    watch_until: Option<Instant>,
    /// Whether that time is over and a last look followed the rounds: the run no longer lasts for them.
    over: bool,
}

impl OwnerWatch {
    pub(crate) fn new(watch: Duration) -> Self {
        Self {
            known: Claimants::default(),
            look: None,
            watch,
            watch_until: None,
            over: false,
        }
    }

    /// Another host claims the VIP. Returns whether that is new.
    pub(crate) fn on_claim(&mut self, now: Instant, mac: Mac) -> bool {
        self.known.on_claim(now, mac)
    }

    /// The hosts of these MACs no longer have the VIP.
    pub(crate) fn forget(&mut self, of: impl Fn(Mac) -> bool) {
        self.known.forget(|mac, _| of(mac));
        self.end_watch_if_over();
    }

    /// The hosts that have begun to claim the VIP since then take it over.
    pub(crate) fn forget_since(&mut self, since: Instant) {
        let takes_over = |one: &Claimant| one.gone.is_none() && one.first >= since;
        self.known.forget(|_, one| takes_over(one));
        self.end_watch_if_over();
    }

    fn end_watch_if_over(&mut self) {
        if !self.is_contested() {
            self.end_watch();
        }
    }

    fn end_watch(&mut self) {
        (self.watch_until, self.over) = (None, false);
    }

    fn is_contested(&self) -> bool {
        self.known.has_second_owner(true)
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = Mac> + '_ {
        self.known.present().map(|(mac, _)| mac)
    }

    /// The owners that have claimed the VIP since `since`, and began to until `until`.
    pub(crate) fn present_since(
        &self,
        since: Instant,
        until: Instant,
    ) -> impl Iterator<Item = Mac> + '_ {
        let claims = self.known.present();
        let late = claims.filter(move |(_, one)| one.last >= since && one.first <= until);
        late.map(|(mac, _)| mac)
    }

    /// When the first of them began to claim it that did so after then.
    pub(crate) fn next_first(&self, after: Instant) -> Option<Instant> {
        let firsts = self.known.present().map(|(_, one)| one.first);
        firsts.filter(|first| *first > after).min()
    }

    /// The owners that are gone, and since when.
    pub(crate) fn past(&self) -> impl Iterator<Item = (Mac, Instant)> + '_ {
        let gone = |(mac, one): (Mac, &Claimant)| Some((mac, one.gone?));
        self.known.all().filter_map(gone)
    }

    pub(crate) fn more(&self) -> u64 {
        self.known.more()
    }

    pub(crate) fn is_present(&self, mac: Mac) -> bool {
        self.known.is_present(mac)
    }

    /// Whether to begin a look: there are owners, and no look is under way or scheduled.
    pub(crate) fn wants_look(&self) -> bool {
        self.look.is_none() && self.is_contested()
    }

    /// Whether the run must last for a look. A run that lasts for another reason goes on looking.
    pub(crate) fn is_open(&self) -> bool {
        let under_way = self.look.is_some_and(|look| look.probes > 0);
        (!self.over || under_way) && self.is_contested()
    }

    /// Drops the look without a result: the rounds start over, and another look follows them.
    pub(crate) fn drop_look(&mut self) {
        (self.look, self.over) = (None, false);
    }

    /// Until when to watch: the first look that finds owners sets it.
    pub(crate) fn watched_until(&self) -> Option<Instant> {
        self.watch_until.filter(|_| self.is_contested())
    }

    pub(crate) fn begin_look(&mut self, now: Instant) {
        self.look = Some(Look {
            began: now,
            probes: 0,
        });
    }

    /// A probe of the look left. Returns whether it was the last, whose answer the look awaits.
    /// `enough` unanswered probes rule out chance.
    pub(crate) fn probed(&mut self, enough: u32) -> bool {
        self.look.as_mut().is_none_or(|look| {
            look.probes += 1;
            look.probes >= enough
        })
    }

    /// The next step of the look.
    pub(crate) fn next_step(&mut self, now: Instant, enough: u32) -> Step {
        let Some(look) = self.look else {
            return Step::Nothing;
        };
        if !self.is_contested() {
            self.look = None;
            return Step::Nothing;
        }
        let answered = |(_, one): (Mac, &Claimant)| one.last > look.began;
        let all_answered = look.probes > 0 && self.known.present().all(answered);
        if !all_answered && look.probes < enough {
            return Step::Probe;
        }
        self.look = None;
        for one in self.known.all_mut().filter(|one| one.gone.is_none()) {
            let quiet = now.duration_since(one.last) >= QUIET;
            if one.last <= look.began && (quiet || !one.came_back) {
                one.gone = Some(now);
            }
        }
        if !self.is_contested() {
            self.end_watch();
            return Step::Gone;
        }
        let until = *self.watch_until.get_or_insert(now + self.watch);
        self.over = now + LOOK_AGAIN >= until;
        Step::StillThere
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::testing::{A, B};

    const ENOUGH: u32 = 5;

    /// A look during which the owners `there` answer every probe: its probes and its result.
    fn look(owners: &mut OwnerWatch, now: &mut Instant, there: &[Mac]) -> (u32, Step) {
        owners.begin_look(*now);
        let mut probes = 0;
        loop {
            match owners.next_step(*now, ENOUGH) {
                Step::Probe => {
                    probes += 1;
                    owners.probed(ENOUGH);
                    *now += Duration::from_millis(15);
                    for mac in there {
                        owners.on_claim(*now, *mac);
                    }
                }
                step => return (probes, step),
            }
        }
    }

    #[test]
    fn an_owner_that_answers_is_present_and_one_that_misses_many_probes_is_gone() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(600));
        assert!(!owners.wants_look() && !owners.is_open());
        owners.on_claim(now, A);
        owners.on_claim(now, B);
        now += Duration::from_secs(1);
        assert!(owners.wants_look());
        let still_there = Step::StillThere;
        assert_eq!(look(&mut owners, &mut now, &[A, B]), (1, still_there));
        assert_eq!(look(&mut owners, &mut now, &[B]), (ENOUGH, still_there));
        assert_eq!(owners.present().collect::<Vec<_>>(), [B]);
        assert!(owners.is_open() && !owners.is_present(A));
        assert_eq!(look(&mut owners, &mut now, &[]), (ENOUGH, Step::Gone));
        assert!(!owners.is_open());
        assert_eq!(owners.past().count(), 2);
    }

    #[test]
    fn the_watch_takes_a_bounded_time() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(3));
        owners.on_claim(now, A);
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(owners.is_open());
        now += LOOK_AGAIN;
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(!owners.is_open());
        let mut at_once = OwnerWatch::new(Duration::ZERO);
        at_once.on_claim(now, A);
        assert!(at_once.is_open());
        assert_eq!(look(&mut at_once, &mut now, &[A]).1, Step::StillThere);
        assert!(!at_once.is_open());
    }

    #[test]
    fn a_run_that_lasts_for_another_reason_goes_on_looking() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::ZERO);
        owners.on_claim(now, A);
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(owners.wants_look() && !owners.is_open());
        owners.begin_look(now);
        owners.probed(ENOUGH);
        assert!(owners.is_open(), "the look awaits the answer");
        owners.drop_look();
        assert!(owners.is_open(), "a look follows the rounds");
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
    }

    #[test]
    fn an_owner_that_claims_but_answers_no_probe_does_not_restart_the_rounds_each_time() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(600));
        owners.on_claim(now, A);
        now += Duration::from_secs(1);
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
        owners.on_claim(now, A);
        now += Duration::from_secs(5);
        assert!(owners.wants_look());
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::StillThere);
        now += QUIET;
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
    }
}
