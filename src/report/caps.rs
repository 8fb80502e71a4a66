//! What a report has at most, whatever the link carried.

use std::collections::BTreeMap;

use log::Level;

use super::Line;

/// Peers that the JSON of one report lists.
pub(super) const MOST_PEERS: usize = 4_096;
/// Lines of one kind.
const MOST_LINES: usize = 16;

/// Lines for people: the first ones of each kind, and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Similar {
    lines: Vec<Line>,
    kinds: BTreeMap<&'static str, (Level, usize)>,
}

impl Similar {
    /// Adds a line. `kind`: what it is about.
    pub(super) fn add(&mut self, level: Level, kind: &'static str, line: impl FnOnce() -> Line) {
        let (_, count) = self.kinds.entry(kind).or_insert((level, 0));
        *count += 1;
        if *count <= MOST_LINES {
            self.lines.push(line());
        }
    }

    /// Those so far; what is added later counts with them.
    pub(super) fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    pub(super) fn into_lines(self) -> impl Iterator<Item = Line> {
        let more = self.kinds.into_iter().filter_map(|(kind, (level, count))| {
            let more = count.checked_sub(MOST_LINES).filter(|more| *more > 0)?;
            let text = format!("{more} more lines like these, about {kind}");
            Some(Line::new(level, text))
        });
        self.lines.into_iter().chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_lines_of_a_kind_sixteen_and_their_number_remain() {
        let mut lines = Similar::default();
        lines.add(Level::Warn, "stale peers", || Line::new(Level::Warn, "one"));
        for _ in 0..1000 {
            lines.add(Level::Error, "conflicts", || Line::new(Level::Error, "two"));
        }
        let lines: Vec<_> = lines.into_lines().collect();
        assert_eq!(lines.len(), 1 + 16 + 1);
        let last = Line::new(Level::Error, "984 more lines like these, about conflicts");
        assert_eq!(lines.last(), Some(&last));
    }
}
