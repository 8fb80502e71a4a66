//! Other hosts that claim a VIP which is here: whether they still do, and when to ask again.
//!
//! A split brain ends without an event for the host that stays master, but leaves hosts that follow
//! the other one. So the run asks for its owners until they are gone, and then announces anew.

use std::time::{Duration, Instant};

use super::{Claimant, Claimants};
use crate::address::Mac;

/// From one look at owners that are there to the next.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// One that was thought to be gone and came back answers no probe: only when it has not been
/// heard for so long is it gone again. Otherwise its every claim would begin new rounds.
const QUIET: Duration = Duration::from_secs(30);

/// A look at all owners: probes until each was heard again, or would have been.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Instant,
    probes: u32,
}

/// What to do about owners next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a probe.
    Probe,
    /// This look is over: some are still there, and shall be looked at again.
    StillThere,
    /// This look is over: none is left.
    Gone,
    /// There is nobody to look at.
    Nothing,
}

/// The owners for one VIP.
#[derive(Clone, Debug)]
pub(crate) struct OwnerWatch {
    known: Claimants,
    look: Option<Look>,
    /// How long they are watched once they were found.
    watch: Duration,
    watch_until: Option<Instant>,
    /// Whether the run lasts no longer for them: that time is over, and they were looked at last
    /// since the rounds.
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

    /// Another host claims the VIP. Returns whether it did not so far.
    pub(crate) fn heard(&mut self, now: Instant, mac: Mac) -> bool {
        self.known.heard(now, mac)
    }

    /// The hosts of these MACs are known to have let go of the VIP.
    pub(crate) fn forget(&mut self, of: impl Fn(Mac) -> bool) {
        self.known.forget(of);
        if !self.is_contested() {
            self.end_watch();
        }
    }

    fn end_watch(&mut self) {
        (self.watch_until, self.over) = (None, false);
    }

    /// Whether another owner is known by now.
    fn is_contested(&self) -> bool {
        self.known.has_second_owner(true)
    }

    /// The MACs of the other owners.
    pub(crate) fn present(&self) -> impl Iterator<Item = Mac> + '_ {
        self.known.present().map(|(mac, _)| mac)
    }

    /// Those that are gone, and since when.
    pub(crate) fn past(&self) -> impl Iterator<Item = (Mac, Instant)> + '_ {
        let gone = |(mac, one): (Mac, &Claimant)| Some((mac, one.gone?));
        self.known.all().filter_map(gone)
    }

    /// Claims by more MACs than are remembered.
    pub(crate) fn more(&self) -> u64 {
        self.known.more()
    }

    pub(crate) fn is_present(&self, mac: Mac) -> bool {
        self.known.is_present(mac)
    }

    /// Whether a look shall begin: there are owners, and none is under way or to come.
    pub(crate) fn wants_look(&self) -> bool {
        self.look.is_none() && self.is_contested()
    }

    /// Whether the run lasts for a look. A run that lasts for another reason goes on looking.
    pub(crate) fn is_open(&self) -> bool {
        let under_way = self.look.is_some_and(|look| look.probes > 0);
        (!self.over || under_way) && self.is_contested()
    }

    /// The look under way ends without a result: the rounds begin again, and another look comes
    /// after them.
    pub(crate) fn drop_look(&mut self) {
        (self.look, self.over) = (None, false);
    }

    /// Until when they are watched: set by the first look that found them.
    pub(crate) fn watched_until(&self) -> Option<Instant> {
        self.watch_until.filter(|_| self.is_contested())
    }

    /// Begins a look.
    pub(crate) fn begin_look(&mut self, now: Instant) {
        self.look = Some(Look {
            began: now,
            probes: 0,
        });
    }

    /// A probe of the look left. Returns whether enough have: then the answer to the last one is
    /// waited for. `enough` probes are not lost all by chance.
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
        let heard = |(_, one): (Mac, &Claimant)| one.last > look.began;
        let all_heard = look.probes > 0 && self.known.present().all(heard);
        if !all_heard && look.probes < enough {
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

    const A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);
    const ENOUGH: u32 = 5;

    /// A look in which the owners `there` answer every probe. Gives its result.
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
                        owners.heard(*now, *mac);
                    }
                }
                step => return (probes, step),
            }
        }
    }

    #[test]
    fn who_answers_is_there_and_who_leaves_many_probes_unanswered_is_gone() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(600));
        assert!(!owners.wants_look() && !owners.is_open());
        owners.heard(now, A);
        owners.heard(now, B);
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
    fn they_are_watched_for_a_bounded_time() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(3));
        owners.heard(now, A);
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(owners.is_open());
        now += LOOK_AGAIN;
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(!owners.is_open());
        let mut at_once = OwnerWatch::new(Duration::ZERO);
        at_once.heard(now, A);
        assert!(at_once.is_open());
        assert_eq!(look(&mut at_once, &mut now, &[A]).1, Step::StillThere);
        assert!(!at_once.is_open());
    }

    #[test]
    fn a_run_that_lasts_for_another_reason_goes_on_looking() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::ZERO);
        owners.heard(now, A);
        assert_eq!(look(&mut owners, &mut now, &[A]).1, Step::StillThere);
        assert!(owners.wants_look() && !owners.is_open());
        owners.begin_look(now);
        owners.probed(ENOUGH);
        assert!(owners.is_open(), "the answer is awaited");
        owners.drop_look();
        assert!(owners.is_open(), "a look comes after the rounds");
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
    }

    #[test]
    fn who_claims_but_answers_no_probe_does_not_begin_new_rounds_again_and_again() {
        let mut now = Instant::now();
        let mut owners = OwnerWatch::new(Duration::from_secs(600));
        owners.heard(now, A);
        now += Duration::from_secs(1);
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
        owners.heard(now, A);
        now += Duration::from_secs(5);
        assert!(owners.wants_look());
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::StillThere);
        now += QUIET;
        assert_eq!(look(&mut owners, &mut now, &[]).1, Step::Gone);
    }
}
