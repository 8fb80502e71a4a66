//! What the answers so far say about the path: whether it is alive, and how much it loses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::address::InterfaceIndex;

/// A first answer after so long a silence means that the path has just come alive.
const SILENCE: Duration = Duration::from_secs(1);
/// A peer that is there goes unheard by chance alone less often than this.
const BY_CHANCE: f64 = 1e-5;
/// The share of questions that is taken to be answered, at the least and at the most.
const ANSWERED: (f64, f64) = (0.05, 0.9);

/// The links that questions were put on.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeMap<InterfaceIndex, Path>);

#[derive(Debug, Default)]
struct Path {
    first_question: Option<Instant>,
    answers: bool,
    /// Peers that answered, and the questions that it took.
    answered: u32,
    asked: u32,
}

impl Paths {
    /// A carrier came back, or another MAC is announced: what was before says nothing.
    pub(super) fn forget(&mut self, interface: InterfaceIndex) {
        self.0.remove(&interface);
    }

    pub(super) fn count_question(&mut self, now: Instant, interface: InterfaceIndex) {
        let path = self.0.entry(interface).or_default();
        path.first_question.get_or_insert(now);
    }

    /// A peer answered for the first time, after it was asked so many times.
    pub(super) fn count_answer(&mut self, interface: InterfaceIndex, asked: u32) {
        let path = self.0.entry(interface).or_default();
        path.answered += 1;
        path.asked += asked;
    }

    /// Somebody answered. Returns whether the path came alive with it.
    pub(super) fn comes_alive(&mut self, now: Instant, interface: InterfaceIndex) -> bool {
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
    pub(super) fn enough_questions(&self, interface: InterfaceIndex) -> Option<u32> {
        let path = self.0.get(&interface).filter(|path| path.answers)?;
        let answered = f64::from(path.answered) / f64::from(path.asked.max(1));
        let answered = answered.clamp(ANSWERED.0, ANSWERED.1);
        let enough = BY_CHANCE.ln() / (1.0 - answered).ln();
        // From 5 to 225, by the bounds above.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(enough.ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: InterfaceIndex = InterfaceIndex(2);

    #[test]
    fn the_worse_the_path_the_more_questions_it_takes() {
        let mut paths = Paths::default();
        assert_eq!(paths.enough_questions(LINK), None);
        paths.comes_alive(Instant::now(), LINK);
        for _ in 0..20 {
            paths.count_answer(LINK, 1);
        }
        assert_eq!(paths.enough_questions(LINK), Some(5));
        for _ in 0..20 {
            paths.count_answer(LINK, 12);
        }
        assert_eq!(paths.enough_questions(LINK), Some(69));
    }

    #[test]
    fn a_first_answer_after_a_second_means_that_the_path_came_alive() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut paths = Paths::default();
        paths.count_question(start, LINK);
        paths.count_question(after(900), LINK);
        assert!(paths.comes_alive(after(1000), LINK));
        assert!(!paths.comes_alive(after(5000), LINK));
        paths.forget(LINK);
        paths.count_question(after(6000), LINK);
        assert!(!paths.comes_alive(after(6999), LINK));
    }
}
