//! `~SEQ(…)`, `~SEQx(…)` and `~LST(…)`: keepalived repeats the line for each value.

use super::lexer::BLANK;

/// The most steps of one sequence. keepalived has no limit. A virtual router advertises at most 255
/// addresses, so that no useful sequence comes near.
pub(super) const STEPS_MAX: usize = 65_536;

/// A sequence in progress.
#[derive(Debug)]
pub(super) struct Sequence {
    values: Values,
    /// The line, with its `$NAME`s still in it.
    text: String,
}

#[derive(Debug)]
enum Values {
    Numbers {
        name: String,
        next: i64,
        step: i64,
        left: usize,
        hexadecimal: bool,
    },
    Lists {
        names: Vec<String>,
        /// The remaining sets in reverse.
        sets: Vec<Vec<String>>,
    },
}

/// Why a line starts no sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) why: String,
    /// keepalived ignores the line. Otherwise we don't know what it does.
    pub(super) ignored: bool,
}

impl From<&str> for Malformed {
    fn from(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            ignored: true,
        }
    }
}

impl Malformed {
    fn unlike_keepalived(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            ignored: false,
        }
    }
}

impl Sequence {
    /// Does the line start a sequence?
    pub(super) fn starts(line: &str) -> bool {
        line.starts_with("~SEQ") || line.starts_with("~LST")
    }

    /// The sequence that a line starts; `substitute` resolves the `$NAME`s in its numbers.
    pub(super) fn parse(
        line: &str,
        substitute: impl FnOnce(&str) -> String,
    ) -> Result<Self, Malformed> {
        let kind = &line[..4];
        let parsed = if kind == "~SEQ" {
            parse_numbers(&line[4..], substitute)
        } else {
            parse_lists(&line[4..])
        };
        let (values, text) = parsed.map_err(|malformed| Malformed {
            why: match malformed.why.as_str() {
                "" => format!("{kind}(…) is malformed"),
                why => format!("{kind}(…) {why}"),
            },
            ..malformed
        })?;
        let text = text.trim_start_matches(BLANK).to_owned();
        Ok(Self { values, text })
    }

    /// Takes the next step: sets its names with `define`, and returns the line and whether more
    /// steps follow.
    pub(super) fn step(&mut self, mut define: impl FnMut(&str, &str)) -> (&str, bool) {
        let more = match &mut self.values {
            Values::Numbers {
                name,
                next,
                step,
                left,
                hexadecimal,
            } => {
                let value = if *hexadecimal {
                    format!("{next:x}")
                } else {
                    next.to_string()
                };
                define(name, &value);
                *next = next.saturating_add(*step);
                *left -= 1;
                *left > 0
            }
            Values::Lists { names, sets } => {
                let set = sets.pop().unwrap_or_default();
                for (index, name) in names.iter().enumerate() {
                    define(name, set.get(index).map_or("", String::as_str));
                }
                !sets.is_empty()
            }
        };
        (&self.text, more)
    }
}

/// `[x] ( NAME , [START , [STEP ,]] END ) text`
fn parse_numbers(
    text: &str,
    substitute: impl FnOnce(&str) -> String,
) -> Result<(Values, &str), Malformed> {
    let (hexadecimal, text) = match text.strip_prefix('x') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let inside = text.trim_start_matches(BLANK).strip_prefix('(').ok_or("")?;
    let (inside, rest) = inside.split_once(')').ok_or("has no ')'")?;
    let (name, numbers) = inside.split_once(',').ok_or("")?;
    let name = name.trim_matches(BLANK);
    if name.is_empty() || name.contains(BLANK) {
        return Err("".into());
    }
    let numbers: Vec<i64> = substitute(numbers)
        .split(',')
        .map(|number| parse_integer(number.trim_matches(BLANK)))
        .collect::<Option<_>>()
        .ok_or_else(|| Malformed::unlike_keepalived("needs whole numbers"))?;
    let (start, step, end) = match *numbers {
        [end] => (
            if end < 0 { -1 } else { 1 },
            if end < 1 { -1 } else { 1 },
            end,
        ),
        [start, end] => (start, if start <= end { 1 } else { -1 }, end),
        [start, step, end] => (start, step, end),
        _ => return Err("".into()),
    };
    if hexadecimal && (start < 0 || end < 0) {
        return Err("counts in hexadecimal: no negative numbers".into());
    }
    let distance = end.abs_diff(start);
    if step == 0 || (distance > 0 && (step > 0) != (end > start)) {
        return Err("never reaches its end".into());
    }
    let left = usize::try_from(distance / step.unsigned_abs()).unwrap_or(usize::MAX);
    if left >= STEPS_MAX {
        return Err(Malformed::unlike_keepalived("has more than 65,536 steps"));
    }
    let values = Values::Numbers {
        name: name.to_owned(),
        next: start,
        step,
        left: left + 1,
        hexadecimal,
    };
    Ok((values, rest))
}

/// Parses a number like C's `strtol`: decimal, `0x…` or octal.
fn parse_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

/// `( NAME , VALUE , … ) text` or `( { NAME , … } , { VALUE , … } , … ) text`
fn parse_lists(text: &str) -> Result<(Values, &str), Malformed> {
    let inside = text.trim_start_matches(BLANK).strip_prefix('(').ok_or("")?;
    let (names, mut rest) = parse_set(inside)?;
    let mut sets = Vec::new();
    let rest = loop {
        if let Some(after) = rest.strip_prefix(')') {
            break after;
        }
        let set;
        (set, rest) = parse_set(rest.strip_prefix(',').ok_or("")?)?;
        if set.len() > names.len() {
            return Err("gives a set more values than there are names".into());
        }
        sets.push(set);
    };
    if sets.is_empty() {
        return Err("has no values".into());
    }
    if names.iter().any(String::is_empty) {
        return Err(Malformed::unlike_keepalived("has a name that is empty"));
    }
    sets.reverse();
    Ok((Values::Lists { names, sets }, rest))
}

/// One item, or several in braces, and the rest of the text.
fn parse_set(text: &str) -> Result<(Vec<String>, &str), Malformed> {
    let text = text.trim_start_matches(BLANK);
    let Some(mut rest) = text.strip_prefix('{') else {
        let end = text.find([',', ')']).ok_or("has no ')'")?;
        return Ok((vec![parse_item(&text[..end])?], &text[end..]));
    };
    let mut items = Vec::new();
    loop {
        let end = rest.find([',', '}', ')']).ok_or("has no '}'")?;
        items.push(parse_item(&rest[..end])?);
        match rest.as_bytes()[end] {
            b',' => rest = &rest[end + 1..],
            b'}' => return Ok((items, rest[end + 1..].trim_start_matches(BLANK))),
            _ => return Err("".into()),
        }
    }
}

fn parse_item(text: &str) -> Result<String, Malformed> {
    let text = text.trim_matches(BLANK);
    if text.contains(['{', '}']) {
        return Err(Malformed::unlike_keepalived("has a brace inside a value"));
    }
    if text.contains(BLANK) {
        return Err("".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a sequence, each as `NAME=value …: text`.
    fn steps(line: &str) -> Vec<String> {
        let mut sequence = Sequence::parse(line, str::to_owned).unwrap();
        let mut steps = Vec::new();
        loop {
            let mut defined = String::new();
            let (text, more) =
                sequence.step(|name, value| defined.push_str(&format!("{name}={value} ")));
            steps.push(format!("{}: {text}", defined.trim_end()));
            if !more {
                return steps;
            }
        }
    }

    #[test]
    fn numbers_run_from_start_to_end() {
        assert_eq!(steps("~SEQ(i,2) $i"), ["i=1: $i", "i=2: $i"]);
        assert_eq!(steps("~SEQ (i, 3, 1) x").len(), 3);
        assert_eq!(steps("~SEQ(i, 1, 4, 10) x").len(), 3);
        assert_eq!(steps("~SEQ(i,0) x"), ["i=1: x", "i=0: x"]);
        assert_eq!(steps("~SEQ(i,-2) x"), ["i=-1: x", "i=-2: x"]);
        assert_eq!(steps("~SEQx(i,10,11) x"), ["i=a: x", "i=b: x"]);
        assert_eq!(steps("~SEQx(i,0,1) x"), ["i=0: x", "i=1: x"]);
        assert_eq!(steps("~SEQ(i,0x10,020) x"), ["i=16: x"]);
        assert_eq!(steps("~SEQ(i,5,5) x"), ["i=5: x"]);
    }

    #[test]
    fn lists_name_one_value_or_several() {
        assert_eq!(steps("~LST(d,eth0,eth1) $d"), ["d=eth0: $d", "d=eth1: $d"]);
        assert_eq!(
            steps("~LST({a,b},{1, 2},{3}, 4) x"),
            ["a=1 b=2: x", "a=3 b=: x", "a=4 b=: x"]
        );
    }

    #[test]
    fn malformed_and_endless_sequences_are_rejected() {
        for line in [
            "~SEQ",
            "~SEQ(i)",
            "~SEQ(i,1",
            "~SEQ(i,1,2,3,4) x",
            "~SEQ(i,1,0,5) x",
            "~SEQ(i,1,-1,5) x",
            "~SEQx(i,-1) x",
            "~SEQx(i,-1,1) x",
            "~SEQ(i,) x",
            "~SEQ(i,1,1000000000) x",
            "~SEQ(i,-9223372036854775808,9223372036854775807) x",
            "~LST(",
            "~LST(a)",
            "~LST({a,b},{1,2,3}) x",
            "~LST({a,1) x",
            "~LST(a,1 2) x",
        ] {
            assert!(Sequence::parse(line, str::to_owned).is_err(), "{line}");
        }
    }
}
