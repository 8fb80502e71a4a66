//! `$NAME=value` definitions and their uses.

use std::collections::HashMap;
use std::rc::Rc;

use super::lexer::BLANK;

/// Replaces a value that only keepalived knows. No line of a file contains it: for keepalived, and
/// so for us, a NUL ends the line.
pub(super) const UNKNOWN: char = '\0';

/// The most bytes of a line, before and after substitution.
pub(super) const LINE_MAX: usize = 1023;

/// The most replacements in one line. It has room for far fewer values that are not empty.
const SUBSTITUTIONS_PER_LINE_MAX: usize = 2_000;

/// What `$NAME` stands for.
#[derive(Clone)]
struct Definition {
    value: Rc<str>,
    /// Usable only at the end of a line.
    multiline: bool,
}

/// The values of built-in definitions that depend on the file and the host.
pub(super) struct Context<'a> {
    /// `$_INSTANCE`
    pub(super) config_id: Option<&'a str>,
    /// `$_PWD`
    pub(super) directory: &'a str,
}

/// The lines of a multi-line definition after those already used.
#[derive(Debug)]
pub(super) struct Remainder {
    text: Rc<str>,
    from: usize,
}

impl Remainder {
    /// The next line, and whether more follow.
    pub(super) fn next_line(&mut self) -> (String, bool) {
        let rest = &self.text[self.from..];
        if let Some((line, _)) = rest.split_once('\n') {
            self.from += line.len() + 1;
            (line.to_owned(), true)
        } else {
            (rest.to_owned(), false)
        }
    }
}

/// The result of replacing a line's `$NAME`s.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Substitution {
    /// None of them is defined.
    Nothing,
    /// At least one was replaced.
    Done,
    /// The line would exceed [`LINE_MAX`]; keepalived gives up on it.
    TooLong,
    /// The replacements exceed the budget: definitions refer to each other.
    Endless,
}

/// All definitions so far, as written: keepalived replaces a `$NAME` inside a value at each use.
#[derive(Default)]
pub(super) struct Definitions {
    by_name: HashMap<String, Definition>,
}

/// The start of a definition: `$NAME=` and the first line of its value.
pub(super) fn parse(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    is_name(name).then(|| (name, value.trim_start_matches(BLANK)))
}

fn is_name(text: &str) -> bool {
    name_length(text) == text.len() && !text.is_empty()
}

/// How many bytes of `text` are a name: letters, digits and `_`, starting with no digit.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// The name of the first `$NAME` or `${NAME` left in a substituted line: it is not defined.
pub(super) fn undefined(line: &str) -> Option<&str> {
    line.match_indices('$').find_map(|(at, _)| {
        let name = line[at + 1..].strip_prefix('{').unwrap_or(&line[at + 1..]);
        let length = name_length(name);
        (length > 0).then(|| &name[..length])
    })
}

impl Definitions {
    /// Sets a definition of one line.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.insert(name, value, false);
    }

    /// Sets a definition of several lines, separated by `\n`.
    pub(super) fn set_lines(&mut self, name: &str, lines: &str) {
        self.insert(name, lines, lines.contains('\n'));
    }

    fn insert(&mut self, name: &str, value: &str, multiline: bool) {
        let value = value.into();
        self.by_name
            .insert(name.to_owned(), Definition { value, multiline });
    }

    fn find(&self, name: &str, context: &Context<'_>) -> Option<Definition> {
        if let Some(definition) = self.by_name.get(name) {
            return Some(definition.clone());
        }
        let unknown = UNKNOWN.to_string();
        let value = match name {
            "_HASH" => "#",
            "_BANG" => "!",
            "_PWD" => context.directory,
            "_INSTANCE" => context.config_id.unwrap_or(&unknown),
            // keepalived draws the number, and reads its environment, when it starts.
            "_RANDOM" | "_ENV" => &unknown,
            _ => return None,
        };
        Some(Definition {
            value: value.into(),
            multiline: false,
        })
    }

    /// Replaces the defined `$NAME`s of `line`, and those in their values. Of a multi-line value,
    /// `line` gets the first line and `remainders` the others.
    ///
    /// Each replacement takes one from `budget`.
    pub(super) fn substitute(
        &self,
        line: &mut String,
        context: &Context<'_>,
        budget: &mut usize,
        remainders: &mut Vec<Remainder>,
    ) -> Substitution {
        let mut outcome = Substitution::Nothing;
        let mut left_for_line = SUBSTITUTIONS_PER_LINE_MAX.min(*budget);
        let mut from = 0;
        while let Some(offset) = line[from..].find('$') {
            let at = from + offset;
            let found = reference(&line[at..]).and_then(|(name, length)| {
                let definition = self.find(name, context)?;
                let last = at + length == line.len();
                (last || !definition.multiline).then_some((definition, length))
            });
            let Some((definition, length)) = found else {
                from = at + 1;
                continue;
            };
            if left_for_line == 0 {
                return Substitution::Endless;
            }
            left_for_line -= 1;
            *budget -= 1;
            let value = definition.value;
            let first = match value.find('\n') {
                Some(end) if definition.multiline => {
                    remainders.push(Remainder {
                        text: Rc::clone(&value),
                        from: end + 1,
                    });
                    &value[..end]
                }
                _ => &value,
            };
            if line.len() - length + first.len() > LINE_MAX {
                return Substitution::TooLong;
            }
            line.replace_range(at..at + length, first);
            outcome = Substitution::Done;
            from = at;
            // keepalived substitutes the text of a sequence at each step.
            if value.trim_start_matches(BLANK).starts_with('~') {
                break;
            }
        }
        outcome
    }
}

/// The name after the `$` at the start of `text`, and the length of the whole reference.
fn reference(text: &str) -> Option<(&str, usize)> {
    if let Some(braced) = text.strip_prefix("${") {
        let name = &braced[..name_length(braced)];
        let parameters = &braced[name.len()..];
        let end = parameters.find('}')?;
        let allowed = match name {
            "" => return None,
            "_RANDOM" => parameters[..end]
                .chars()
                .all(|c| c == ' ' || c.is_ascii_digit()),
            "_ENV" => true,
            _ => end == 0,
        };
        allowed.then_some((name, 2 + name.len() + end + 1))
    } else {
        let name = text.strip_prefix('$')?;
        let name = &name[..name_length(name)];
        let after = text[1 + name.len()..].chars().next();
        let ends = matches!(after, None | Some(' ' | '\t' | ',' | ')'));
        (ends && !name.is_empty()).then_some((name, 1 + name.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Context<'_> = Context {
        config_id: Some("node1"),
        directory: "/etc/keepalived",
    };

    fn substituted(definitions: &[(&str, &str)], line: &str) -> (Substitution, String) {
        let mut all = Definitions::default();
        for (name, value) in definitions {
            all.set_lines(name, value);
        }
        let mut line = line.to_owned();
        let outcome = all.substitute(&mut line, &HERE, &mut 100, &mut Vec::new());
        (outcome, line)
    }

    #[test]
    fn a_name_ends_where_keepalived_says() {
        let x = [("X", "1")];
        for (line, expected) in [
            ("$X", "1"),
            ("a $X b", "a 1 b"),
            ("$X,$X)", "1,1)"),
            ("$X.2", "$X.2"),
            ("${X}.2", "1.2"),
            ("${X }", "${X }"),
            ("\"$X\"", "\"$X\""),
            ("\"${X}\"", "\"1\""),
            ("$Y ${Y}", "$Y ${Y}"),
            ("$", "$"),
            ("$$X", "$1"),
        ] {
            assert_eq!(substituted(&x, line).1, expected, "{line}");
        }
    }

    #[test]
    fn values_are_substituted_where_they_are_used() {
        for (b, expected) in [("10.0.$C", "10.0.$C.1"), ("10.0.${C}", "10.0.7.1")] {
            let chain = [("A", "${B}.1"), ("B", b), ("C", "7")];
            assert_eq!(substituted(&chain, "$A").1, expected);
        }
    }

    #[test]
    fn endless_references_are_bounded() {
        for (a, outcome) in [
            ("$A", Substitution::Endless),
            ("${A}${A}", Substitution::Endless),
            ("${A}123456789012345678901234567890", Substitution::TooLong),
        ] {
            assert_eq!(substituted(&[("A", a)], "$A").0, outcome, "{a}");
        }
    }

    #[test]
    fn a_multi_line_definition_is_used_only_at_the_end_of_a_line() {
        let lines = [("M", "one\ntwo\nthree")];
        assert_eq!(substituted(&lines, "$M x").0, Substitution::Nothing);
        let mut all = Definitions::default();
        all.set_lines("M", "one\ntwo\nthree");
        let (mut line, mut remainders) = ("x $M".to_owned(), Vec::new());
        all.substitute(&mut line, &HERE, &mut 100, &mut remainders);
        assert_eq!(line, "x one");
        let mut rest = remainders.pop().unwrap();
        assert_eq!(rest.next_line(), ("two".to_owned(), true));
        assert_eq!(rest.next_line(), ("three".to_owned(), false));
    }

    #[test]
    fn values_that_only_keepalived_knows_are_marked() {
        for line in ["$_RANDOM", "${_RANDOM 1 10}", "${_ENV HOME}"] {
            assert_eq!(substituted(&[], line).1, UNKNOWN.to_string(), "{line}");
        }
        assert_eq!(substituted(&[], "$_INSTANCE ${_HASH}").1, "node1 #");
        assert_eq!(substituted(&[], "$_PWD $_BANG").1, "/etc/keepalived !");
        assert_eq!(substituted(&[("_HASH", "mine")], "$_HASH").1, "mine");
        assert_eq!(undefined("10.0.0.${NET}"), Some("NET"));
        assert_eq!(undefined("10.0.0.$NET/24"), Some("NET"));
        assert_eq!(undefined("a$ $1"), None);
    }

    #[test]
    fn a_definition_has_no_blank_before_its_equals_sign() {
        assert_eq!(parse("$A= 1 2"), Some(("A", "1 2")));
        assert_eq!(parse("$A="), Some(("A", "")));
        for line in ["$A =1", "$1=1", "A=1", "$=1", "$A-B=1", "$A"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
