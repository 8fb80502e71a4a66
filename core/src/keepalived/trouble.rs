//! Why an instance or a group is refused.

use super::Problem;

/// Why a block is refused.
#[derive(Default)]
pub(super) struct Trouble {
    pub(super) refused: Option<Problem>,
    /// Refuses it only if our configuration id is not keepalived's.
    pub(super) doubtful: Option<Problem>,
}

impl Trouble {
    /// The problem that remains, where the file has conditions for other ids (`foreign_ids`) or not.
    pub(super) fn settle(self, foreign_ids: Option<&Problem>) -> Option<Problem> {
        let doubtful = self.doubtful.zip(foreign_ids);
        self.refused.or_else(|| {
            doubtful.map(|(problem, foreign)| Problem {
                message: format!("{}, while this file {}", problem.message, foreign.message),
                ..problem
            })
        })
    }
}
