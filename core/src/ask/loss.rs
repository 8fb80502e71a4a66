//! What the answers so far say about the path: whether it is alive, and how much it loses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::address::InterfaceIndex;

/// A first answer after so long a silence means that the path has just come alive.
const SILENCE: Duration = Duration::from_secs(1);
/// A peer that is there goes unheard by chance alone less often than this.
const BY_CHANCE: f64 = 1e-5;
/// And another owner of a VIP, less often than this.
const OWNER_BY_CHANCE: f64 = 1e-6;
/// The share of questions that is taken to be answered, at the least and at the most.
const ANSWERED: (f64, f64) = (0.05, 0.9);
/// So many answers may have come by luck.
const LUCK: u32 = 2;
/// So many questions to which nobody answers mean that nobody is there: one in a million runs has
/// it by chance where half of the frames are lost both ways.
const ENOUGH_UNANSWERED: u32 = 48;

/// Probes that rule chance out where each of them is answered.
pub(crate) const PROBES_WITHOUT_LOSS: u32 = 12;

/// How many questions of which `share` is answered are lost all together less often than
/// `by_chance`: from 5 to 270.
fn enough(share: f64, by_chance: f64) -> u32 {
    let enough = by_chance.ln() / (1.0 - share.clamp(ANSWERED.0, ANSWERED.1)).ln();
    // Small and positive, by the bounds above.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let enough = enough.ceil() as u32;
    enough
}

/// How many probes for a VIP another owner does not leave all unanswered by chance, if it loses as
/// much as whoever answered `answered` of `asked`.
///
/// It may be asked again and again while the numbers grow. That the first answers come by luck is
/// made up for: two more questions are taken to have been lost, and two answers not to count. Of two
/// owners of which each answers a quarter of the probes, one then goes unheard in 12 of a million
/// runs (without that, in 98), and fewer where less, or more, is lost.
pub(crate) fn probes_to_rule_out_chance(answered: u32, asked: u32) -> u32 {
    if answered == 0 {
        return ENOUGH_UNANSWERED;
    }
    let counted = answered.min(asked).saturating_sub(LUCK);
    let share = f64::from(counted) / f64::from(asked.saturating_add(LUCK));
    enough(share, OWNER_BY_CHANCE)
}

/// The links that questions were put on.
#[derive(Debug, Default)]
pub(crate) struct LossEstimates(BTreeMap<InterfaceIndex, LossEstimate>);

#[derive(Debug, Default)]
struct LossEstimate {
    first_question: Option<Instant>,
    answers: bool,
    /// Peers that answered, and the questions that it took.
    answered: u32,
    asked: u32,
}

impl LossEstimates {
    /// A carrier came back, or another MAC is announced: what was before says nothing.
    pub(crate) fn forget(&mut self, interface: InterfaceIndex) {
        self.0.remove(&interface);
    }

    pub(crate) fn count_question(&mut self, now: Instant, interface: InterfaceIndex) {
        let path = self.0.entry(interface).or_default();
        path.first_question.get_or_insert(now);
    }

    /// A peer answered for the first time, after it was asked so many times.
    pub(crate) fn count_answer(&mut self, interface: InterfaceIndex, asked: u32) {
        let path = self.0.entry(interface).or_default();
        path.answered += 1;
        path.asked += asked;
    }

    /// Somebody answered. Returns whether the path came alive with it.
    pub(crate) fn comes_alive(&mut self, now: Instant, interface: InterfaceIndex) -> bool {
        let path = self.0.entry(interface).or_default();
        let was_dead = !path.answers
            && path
                .first_question
                .is_some_and(|asked| now.duration_since(asked) >= SILENCE);
        path.answers = true;
        was_dead
    }

    /// How many questions to one peer are not lost all by chance, if it loses as much as those
    /// did that answered. `None` while nobody answers.
    pub(crate) fn questions_to_rule_out_chance(&self, interface: InterfaceIndex) -> Option<u32> {
        let path = self.0.get(&interface).filter(|path| path.answers)?;
        let share = f64::from(path.answered) / f64::from(path.asked.max(1));
        Some(enough(share, BY_CHANCE))
    }

    /// How many probes for a VIP its other owner, if there is one, does not leave all unanswered
    /// by chance.
    pub(crate) fn probes_to_rule_out_chance(&self, interface: InterfaceIndex) -> u32 {
        match self.0.get(&interface) {
            // Too few have answered to tell how much is lost.
            Some(path) if (1..=LUCK).contains(&path.answered) => {
                let share = f64::from(path.answered) / f64::from(path.asked.max(1));
                enough(share, OWNER_BY_CHANCE).clamp(ENOUGH_UNANSWERED, 2 * ENOUGH_UNANSWERED)
            }
            Some(path) => probes_to_rule_out_chance(path.answered, path.asked),
            None => ENOUGH_UNANSWERED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: InterfaceIndex = InterfaceIndex(2);

    #[test]
    fn the_worse_the_path_the_more_questions_it_takes() {
        let mut paths = LossEstimates::default();
        assert_eq!(paths.questions_to_rule_out_chance(LINK), None);
        paths.comes_alive(Instant::now(), LINK);
        for _ in 0..20 {
            paths.count_answer(LINK, 1);
        }
        assert_eq!(paths.questions_to_rule_out_chance(LINK), Some(5));
        for _ in 0..20 {
            paths.count_answer(LINK, 12);
        }
        assert_eq!(paths.questions_to_rule_out_chance(LINK), Some(69));
    }

    #[test]
    fn another_owner_is_sought_until_chance_is_no_excuse() {
        assert_eq!(probes_to_rule_out_chance(0, 1000), 48);
        let without_loss = PROBES_WITHOUT_LOSS;
        assert_eq!(
            probes_to_rule_out_chance(without_loss, without_loss),
            without_loss
        );
        // Half of the frames lost both ways: a quarter of the probes is answered.
        assert!((50..=70).contains(&probes_to_rule_out_chance(12, 48)));
        assert_eq!(probes_to_rule_out_chance(1, u32::MAX), 270);
    }

    #[test]
    fn one_answer_or_two_are_taken_for_neither_a_good_path_nor_a_bad_one() {
        let mut good = LossEstimates::default();
        assert_eq!(good.probes_to_rule_out_chance(LINK), 48);
        good.count_answer(LINK, 1);
        assert_eq!(good.probes_to_rule_out_chance(LINK), 48);
        good.count_answer(LINK, 1);
        assert_eq!(good.probes_to_rule_out_chance(LINK), 48);
        for _ in 0..10 {
            good.count_answer(LINK, 1);
        }
        assert_eq!(good.probes_to_rule_out_chance(LINK), 12);
        let mut bad = LossEstimates::default();
        bad.count_answer(LINK, 20);
        assert_eq!(bad.probes_to_rule_out_chance(LINK), 96);
    }

    #[test]
    fn a_first_answer_after_a_second_means_that_the_path_came_alive() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut paths = LossEstimates::default();
        paths.count_question(start, LINK);
        paths.count_question(after(900), LINK);
        assert!(paths.comes_alive(after(1000), LINK));
        assert!(!paths.comes_alive(after(5000), LINK));
        paths.forget(LINK);
        paths.count_question(after(6000), LINK);
        assert!(!paths.comes_alive(after(6999), LINK));
    }
}
