//! Estimates from answers whether a path is alive and how much it loses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::address::InterfaceIndex;

/// A first answer after this much silence means that the path has just come alive.
const SILENCE: Duration = Duration::from_secs(1);
/// The highest probability that chance alone hides a peer.
const BY_CHANCE: f64 = 1e-5;
/// The highest probability that chance alone hides another owner of a VIP.
const OWNER_BY_CHANCE: f64 = 1e-6;
/// The lowest and highest share of answered questions to assume.
const ANSWERED: (f64, f64) = (0.05, 0.9);
/// This many answers may be luck.
const LUCK: u32 = 2;
/// This many questions without any answer mean that nobody is there: where half of the frames are lost
/// in each direction, chance does that in one of a million runs.
const ENOUGH_UNANSWERED: u32 = 48;

/// Probes that rule out chance where each gets an answer.
pub(crate) const PROBES_WITHOUT_LOSS: u32 = 12;

/// The smallest number of questions (5 to 270) that all stay unanswered with a probability below
/// `by_chance`, if a share of them gets answers.
fn enough(share: f64, by_chance: f64) -> u32 {
    let enough = by_chance.ln() / (1.0 - share.clamp(ANSWERED.0, ANSWERED.1)).ln();
    // Small and positive, by the bounds above.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let enough = enough.ceil() as u32;
    enough
}

/// How many unanswered probes rule out another owner, if its path loses as much as that of the owner
/// who answered `answered` of `asked`.
///
/// Callers may repeat this while the numbers grow. To offset lucky first answers, it subtracts two
/// answers and adds two questions. If two owners each answer a quarter of the probes, this misses one
/// of them in 12 of a million runs (98 without the offset), and in fewer at lower or higher loss.
pub(crate) fn probes_to_rule_out_chance(answered: u32, asked: u32) -> u32 {
    if answered == 0 {
        return ENOUGH_UNANSWERED;
    }
    let counted = answered.min(asked).saturating_sub(LUCK);
    let share = f64::from(counted) / f64::from(asked.saturating_add(LUCK));
    enough(share, OWNER_BY_CHANCE)
}

/// One estimate per link with questions.
#[derive(Debug, Default)]
pub(crate) struct LossEstimates(BTreeMap<InterfaceIndex, LossEstimate>);

#[derive(Debug, Default)]
struct LossEstimate {
    first_frame: Option<Instant>,
    /// Whether any frame of another host came in.
    alive: bool,
    /// Whether any of them answered a question.
    answers: bool,
    /// Peers that answered, and the questions they needed.
    answered: u32,
    asked: u32,
}

impl LossEstimates {
    /// The carrier came back or the MAC changed: earlier answers no longer count.
    pub(crate) fn forget(&mut self, interface: InterfaceIndex) {
        self.0.remove(&interface);
    }

    /// A frame left.
    pub(crate) fn count_frame(&mut self, now: Instant, interface: InterfaceIndex) {
        let path = self.0.entry(interface).or_default();
        path.first_frame.get_or_insert(now);
    }

    /// Whether any frame of another host came in.
    pub(crate) fn is_alive(&self, interface: InterfaceIndex) -> bool {
        self.0.get(&interface).is_some_and(|path| path.alive)
    }

    /// A peer answered for the first time, after `asked` questions.
    pub(crate) fn count_answer(&mut self, interface: InterfaceIndex, asked: u32) {
        let path = self.0.entry(interface).or_default();
        path.answered += 1;
        path.asked += asked;
    }

    /// A frame of another host came in. Returns whether the path has just come alive.
    pub(crate) fn comes_alive(&mut self, now: Instant, interface: InterfaceIndex) -> bool {
        let path = self.0.entry(interface).or_default();
        let sent_before = |sent| now.duration_since(sent) >= SILENCE;
        let was_dead = !path.alive && path.first_frame.is_some_and(sent_before);
        path.alive = true;
        was_dead
    }

    /// A host answered a question.
    pub(crate) fn hear_answer(&mut self, interface: InterfaceIndex) {
        self.0.entry(interface).or_default().answers = true;
    }

    /// How many unanswered questions to one peer rule out chance, if its path loses as much as those
    /// of the peers that answered. `None` while nobody answers.
    pub(crate) fn questions_to_rule_out_chance(&self, interface: InterfaceIndex) -> Option<u32> {
        let path = self.0.get(&interface).filter(|path| path.answers)?;
        let share = f64::from(path.answered) / f64::from(path.asked.max(1));
        Some(enough(share, BY_CHANCE))
    }

    /// The same for a host that may not exist: if others are heard, it needs no answer to tell that the
    /// path is alive.
    pub(crate) fn questions_to_doubtful(&self, interface: InterfaceIndex) -> Option<u32> {
        let without_loss = || enough(ANSWERED.1, BY_CHANCE);
        let estimate = self.questions_to_rule_out_chance(interface);
        estimate.or_else(|| self.is_alive(interface).then(without_loss))
    }

    /// How many unanswered probes for a VIP rule out another owner.
    pub(crate) fn probes_to_rule_out_chance(&self, interface: InterfaceIndex) -> u32 {
        match self.0.get(&interface) {
            // Too few answers to estimate the loss.
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
        paths.hear_answer(LINK);
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
    fn probes_go_on_until_chance_cannot_hide_another_owner() {
        assert_eq!(probes_to_rule_out_chance(0, 1000), 48);
        let without_loss = PROBES_WITHOUT_LOSS;
        assert_eq!(
            probes_to_rule_out_chance(without_loss, without_loss),
            without_loss
        );
        // Half of the frames are lost in each direction: a quarter of the probes gets answers.
        assert!((50..=70).contains(&probes_to_rule_out_chance(12, 48)));
        assert_eq!(probes_to_rule_out_chance(1, u32::MAX), 270);
    }

    #[test]
    fn one_or_two_answers_prove_neither_a_good_path_nor_a_bad_one() {
        let mut good = LossEstimates::default();
        assert_eq!(good.probes_to_rule_out_chance(LINK), 48);
        for _ in 0..LUCK {
            good.count_answer(LINK, 1);
            assert_eq!(good.probes_to_rule_out_chance(LINK), 48);
        }
        for _ in 0..10 {
            good.count_answer(LINK, 1);
        }
        assert_eq!(good.probes_to_rule_out_chance(LINK), 12);
        let mut bad = LossEstimates::default();
        bad.count_answer(LINK, 20);
        assert_eq!(bad.probes_to_rule_out_chance(LINK), 96);
    }

    #[test]
    fn a_first_frame_after_a_second_means_that_the_path_came_alive() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut paths = LossEstimates::default();
        paths.count_frame(start, LINK);
        paths.count_frame(after(900), LINK);
        assert!(!paths.is_alive(LINK));
        assert!(paths.comes_alive(after(1000), LINK) && paths.is_alive(LINK));
        assert!(!paths.comes_alive(after(5000), LINK));
        assert_eq!(paths.questions_to_rule_out_chance(LINK), None, "no answer");
        assert_eq!(paths.questions_to_doubtful(LINK), Some(5));
        paths.forget(LINK);
        paths.count_frame(after(6000), LINK);
        assert!(!paths.comes_alive(after(6999), LINK));
    }
}
