//! `@id …` and `@^id …`: lines for one configuration id, or for all but one.

use super::lexer::BLANK;

/// What a conditional line comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
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
pub(super) fn weigh<'a>(line: &'a str, config_id: Option<&str>) -> Verdict<'a> {
    let Some(condition) = line.strip_prefix('@') else {
        return Verdict::Unconditional;
    };
    let (negated, condition) = match condition.strip_prefix('^') {
        Some(condition) => (true, condition),
        None => (false, condition),
    };
    // The line needs something after the id.
    let Some((id, rest)) = condition.split_once(BLANK) else {
        return Verdict::Fails;
    };
    match config_id {
        None => Verdict::Unknown,
        Some(ours) if (id == ours) != negated => Verdict::Holds(rest.trim_start_matches(BLANK)),
        Some(_) => Verdict::Fails,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_one_id_or_all_but_one() {
        let node1 = |line| weigh(line, Some("node1"));
        assert_eq!(node1("priority 1"), Verdict::Unconditional);
        assert_eq!(node1("@node1  priority 1"), Verdict::Holds("priority 1"));
        assert_eq!(node1("@^node2\tpriority 1"), Verdict::Holds("priority 1"));
        for line in ["@node2 x", "@^node1 x", "@node x", "@node1", "@", "@^"] {
            assert_eq!(node1(line), Verdict::Fails, "{line}");
        }
        assert_eq!(weigh("@node1 x", None), Verdict::Unknown);
    }
}
