//! Other hosts that claim a VIP which is here: whether they still do, and when to ask again.
//!
//! A split brain ends without an event for the host that stays master, but leaves hosts that follow
//! the other one. So the run asks for its rivals until they are gone, and then announces anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::address::Mac;

/// From one look at rivals that are there to the next.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A rival that was thought to be gone and came back answers no probe: only when it has not been
/// heard for so long is it gone again. Otherwise its every claim would begin new rounds.
const QUIET: Duration = Duration::from_secs(30);

/// A MAC, not this host's, that the VIP was claimed with.
#[derive(Clone, Copy, Debug)]
struct Rival {
    heard: Instant,
    gone: Option<Instant>,
    came_back: bool,
}

/// A look at all rivals: probes until each was heard again, or would have been.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Instant,
    probes: u32,
}

/// What to do about rivals next.
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

/// The rivals for one VIP.
#[derive(Clone, Debug)]
pub(crate) struct Rivals {
    known: BTreeMap<Mac, Rival>,
    look: Option<Look>,
    /// How long they are watched once they were found.
    watch: Duration,
    watch_until: Option<Instant>,
    /// Whether the run lasts no longer for them: that time is over, and they were looked at last
    /// since the rounds.
    over: bool,
}

impl Rivals {
    pub(crate) fn new(watch: Duration) -> Self {
        Self {
            known: BTreeMap::new(),
            look: None,
            watch,
            watch_until: None,
            over: false,
        }
    }

    /// Another host claimed the VIP.
    pub(crate) fn heard(&mut self, now: Instant, mac: Mac) {
        let new = Rival {
            heard: now,
            gone: None,
            came_back: false,
        };
        let rival = self.known.entry(mac).or_insert(new);
        rival.heard = now;
        rival.came_back |= rival.gone.take().is_some();
    }

    /// The hosts of these MACs are known to have let go of the VIP.
    pub(crate) fn forget(&mut self, of: impl Fn(Mac) -> bool) {
        self.known.retain(|mac, _| !of(*mac));
        if self.present().next().is_none() {
            self.end_watch();
        }
    }

    fn end_watch(&mut self) {
        (self.watch_until, self.over) = (None, false);
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = Mac> + '_ {
        let present = self.known.iter().filter(|(_, rival)| rival.gone.is_none());
        present.map(|(mac, _)| *mac)
    }

    /// Those that are gone, and since when.
    pub(crate) fn past(&self) -> impl Iterator<Item = (Mac, Instant)> + '_ {
        let gone = |(mac, rival): (&Mac, &Rival)| Some((*mac, rival.gone?));
        self.known.iter().filter_map(gone)
    }

    pub(crate) fn is_present(&self, mac: Mac) -> bool {
        self.known
            .get(&mac)
            .is_some_and(|rival| rival.gone.is_none())
    }

    /// Whether a look shall begin: there are rivals, and none is under way or to come.
    pub(crate) fn wants_look(&self) -> bool {
        self.look.is_none() && self.present().next().is_some()
    }

    /// Whether the run lasts for a look. A run that lasts for another reason goes on looking.
    pub(crate) fn is_open(&self) -> bool {
        let under_way = self.look.is_some_and(|look| look.probes > 0);
        (!self.over || under_way) && self.present().next().is_some()
    }

    /// The look under way ends without a result: the rounds begin again, and another look comes
    /// after them.
    pub(crate) fn drop_look(&mut self) {
        (self.look, self.over) = (None, false);
    }

    /// Until when they are watched: set by the first look that found them.
    pub(crate) fn watched_until(&self) -> Option<Instant> {
        self.watch_until.filter(|_| self.present().next().is_some())
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
        if self.present().next().is_none() {
            self.look = None;
            return Step::Nothing;
        }
        let mut present = self.known.values_mut().filter(|rival| rival.gone.is_none());
        let all_heard = look.probes > 0 && present.all(|rival| rival.heard > look.began);
        if !all_heard && look.probes < enough {
            return Step::Probe;
        }
        self.look = None;
        for rival in self.known.values_mut().filter(|rival| rival.gone.is_none()) {
            let quiet = now.duration_since(rival.heard) >= QUIET;
            if rival.heard <= look.began && (quiet || !rival.came_back) {
                rival.gone = Some(now);
            }
        }
        if self.present().next().is_none() {
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

    /// A look in which the rivals `there` answer every probe. Gives its result.
    fn look(rivals: &mut Rivals, now: &mut Instant, there: &[Mac]) -> (u32, Step) {
        rivals.begin_look(*now);
        let mut probes = 0;
        loop {
            match rivals.next_step(*now, ENOUGH) {
                Step::Probe => {
                    probes += 1;
                    rivals.probed(ENOUGH);
                    *now += Duration::from_millis(15);
                    for mac in there {
                        rivals.heard(*now, *mac);
                    }
                }
                step => return (probes, step),
            }
        }
    }

    #[test]
    fn who_answers_is_there_and_who_leaves_many_probes_unanswered_is_gone() {
        let mut now = Instant::now();
        let mut rivals = Rivals::new(Duration::from_secs(600));
        assert!(!rivals.wants_look() && !rivals.is_open());
        rivals.heard(now, A);
        rivals.heard(now, B);
        now += Duration::from_secs(1);
        assert!(rivals.wants_look());
        let still_there = Step::StillThere;
        assert_eq!(look(&mut rivals, &mut now, &[A, B]), (1, still_there));
        assert_eq!(look(&mut rivals, &mut now, &[B]), (ENOUGH, still_there));
        assert_eq!(rivals.present().collect::<Vec<_>>(), [B]);
        assert!(rivals.is_open() && !rivals.is_present(A));
        assert_eq!(look(&mut rivals, &mut now, &[]), (ENOUGH, Step::Gone));
        assert!(!rivals.is_open());
        assert_eq!(rivals.past().count(), 2);
    }

    #[test]
    fn they_are_watched_for_a_bounded_time() {
        let mut now = Instant::now();
        let mut rivals = Rivals::new(Duration::from_secs(3));
        rivals.heard(now, A);
        assert_eq!(look(&mut rivals, &mut now, &[A]).1, Step::StillThere);
        assert!(rivals.is_open());
        now += LOOK_AGAIN;
        assert_eq!(look(&mut rivals, &mut now, &[A]).1, Step::StillThere);
        assert!(!rivals.is_open());
        let mut at_once = Rivals::new(Duration::ZERO);
        at_once.heard(now, A);
        assert!(at_once.is_open());
        assert_eq!(look(&mut at_once, &mut now, &[A]).1, Step::StillThere);
        assert!(!at_once.is_open());
    }

    #[test]
    fn a_run_that_lasts_for_another_reason_goes_on_looking() {
        let mut now = Instant::now();
        let mut rivals = Rivals::new(Duration::ZERO);
        rivals.heard(now, A);
        assert_eq!(look(&mut rivals, &mut now, &[A]).1, Step::StillThere);
        assert!(rivals.wants_look() && !rivals.is_open());
        rivals.begin_look(now);
        rivals.probed(ENOUGH);
        assert!(rivals.is_open(), "the answer is awaited");
        rivals.drop_look();
        assert!(rivals.is_open(), "a look comes after the rounds");
        assert_eq!(look(&mut rivals, &mut now, &[]).1, Step::Gone);
    }

    #[test]
    fn who_claims_but_answers_no_probe_does_not_begin_new_rounds_again_and_again() {
        let mut now = Instant::now();
        let mut rivals = Rivals::new(Duration::from_secs(600));
        rivals.heard(now, A);
        now += Duration::from_secs(1);
        assert_eq!(look(&mut rivals, &mut now, &[]).1, Step::Gone);
        rivals.heard(now, A);
        now += Duration::from_secs(5);
        assert!(rivals.wants_look());
        assert_eq!(look(&mut rivals, &mut now, &[]).1, Step::StillThere);
        now += QUIET;
        assert_eq!(look(&mut rivals, &mut now, &[]).1, Step::Gone);
    }
}
