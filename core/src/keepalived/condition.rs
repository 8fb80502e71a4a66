//! `@id …` and `@^id …`: lines for one configuration id, or for all but one.

use std::collections::BTreeSet;

use super::lexer::BLANK;

/// The condition of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// The line has none.
    Unconditional,
    /// It holds for this rest of the line.
    Holds(&'a str),
    /// It does not hold, so that keepalived ignores the line.
    Fails,
    /// Our id is unknown.
    Unknown,
}

/// Evaluates the first condition of a line. keepalived evaluates one at a time.
pub(super) fn evaluate<'a>(line: &'a str, config_id: Option<&str>) -> Condition<'a> {
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

/// How many ids [`Ids`] keeps. If there are more, ours is probably one of them.
const IDS_MAX: usize = 64;

/// How many ids a message names.
const NAMED: usize = 4;

/// The configuration ids in the conditions of all files, without negated ones.
#[derive(Default)]
pub(super) struct Ids(BTreeSet<String>);

impl Ids {
    /// Remembers the id in a line's condition; `false` if there is none.
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

    /// A message if there are ids, but not ours.
    pub(super) fn foreign(&self, ours: &str) -> Option<String> {
        let Self(ids) = self;
        if ids.is_empty() || ids.len() == IDS_MAX || ids.contains(ours) {
            return None;
        }
        let named: Vec<_> = ids.iter().take(NAMED).map(|id| format!("@{id}")).collect();
        let more = if ids.len() > NAMED { " and others" } else { "" };
        Some(format!(
            "has lines for {}{more}, and none for {ours}: if keepalived runs with -i, pass the same \
             id with --config-id",
            named.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_without_ours_are_a_problem() {
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
        let node1 = |line| evaluate(line, Some("node1"));
        assert_eq!(node1("priority 1"), Condition::Unconditional);
        assert_eq!(node1("@node1  priority 1"), Condition::Holds("priority 1"));
        assert_eq!(node1("@^node2\tpriority 1"), Condition::Holds("priority 1"));
        for line in ["@node2 x", "@^node1 x", "@node x", "@node1", "@", "@^"] {
            assert_eq!(node1(line), Condition::Fails, "{line}");
        }
        assert_eq!(evaluate("@node1 x", None), Condition::Unknown);
    }
}
