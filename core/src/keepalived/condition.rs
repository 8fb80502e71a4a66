//! `@id …` and `@^id …`: lines for one configuration id, or for all but one.

use std::collections::BTreeSet;

use super::lexer::BLANK;

/// What a conditional line comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// The line has no condition.
    Unconditional,
    /// The condition holds for this rest of the line.
    Holds(&'a str),
    /// The line does not count.
    Fails,
    /// The line is for some id, and ours is not known.
    Unknown,
}

/// Weighs the first condition of a line. keepalived looks at no more than one at a time.
pub(super) fn weigh<'a>(line: &'a str, config_id: Option<&str>) -> Condition<'a> {
    let Some(condition) = line.strip_prefix('@') else {
        return Condition::Unconditional;
    };
    let (negated, condition) = match condition.strip_prefix('^') {
        Some(condition) => (true, condition),
        None => (false, condition),
    };
    // The line needs something after the id.
    let Some((id, rest)) = condition.split_once(BLANK) else {
        return Condition::Fails;
    };
    match config_id {
        None => Condition::Unknown,
        Some(ours) if (id == ours) != negated => Condition::Holds(rest.trim_start_matches(BLANK)),
        Some(_) => Condition::Fails,
    }
}

/// How many ids are kept: whoever has more mentions ours among those.
const IDS_MAX: usize = 64;

/// The configuration ids that the conditions of all files name, but for negated ones.
#[derive(Default)]
pub(super) struct Ids(BTreeSet<String>);

impl Ids {
    /// Takes note of a line's condition; whether it names an id.
    pub(super) fn note(&mut self, line: &str) -> bool {
        let condition = line
            .strip_prefix('@')
            .and_then(|rest| rest.split_once(BLANK));
        let Some((id, _)) = condition else {
            return false;
        };
        if id.is_empty() || id.starts_with(['^', '$']) {
            return false;
        }
        if self.0.len() < IDS_MAX {
            self.0.insert(id.to_owned());
        }
        true
    }

    /// What to say when there are ids, but not ours.
    pub(super) fn foreign(&self, ours: &str) -> Option<String> {
        if self.0.is_empty() || self.0.len() == IDS_MAX || self.0.contains(ours) {
            return None;
        }
        let named: Vec<_> = self
            .0
            .iter()
            .take(NAMED)
            .map(|id| format!("@{id}"))
            .collect();
        let more = if self.0.len() > NAMED {
            " and others"
        } else {
            ""
        };
        Some(format!(
            "has lines for {}{more}, and none for {ours}: give the id that keepalived gets by its \
             -i, by --config-id",
            named.join(", ")
        ))
    }
}

/// How many ids a message names.
const NAMED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_all_foreign_are_told() {
        let mut ids = Ids::default();
        assert!(!ids.note("priority 1") && !ids.note("@^c x") && !ids.note("@d"));
        assert_eq!(ids.foreign("c"), None);
        assert!(ids.note("@a priority 1") && ids.note("@b priority 2"));
        assert_eq!(ids.foreign("a"), None);
        assert!(
            ids.foreign("c")
                .unwrap()
                .starts_with("has lines for @a, @b, and none for c")
        );
    }

    #[test]
    fn a_condition_names_one_id_or_all_but_one() {
        let node1 = |line| weigh(line, Some("node1"));
        assert_eq!(node1("priority 1"), Condition::Unconditional);
        assert_eq!(node1("@node1  priority 1"), Condition::Holds("priority 1"));
        assert_eq!(node1("@^node2\tpriority 1"), Condition::Holds("priority 1"));
        for line in ["@node2 x", "@^node1 x", "@node x", "@node1", "@", "@^"] {
            assert_eq!(node1(line), Condition::Fails, "{line}");
        }
        assert_eq!(weigh("@node1 x", None), Condition::Unknown);
    }
}
