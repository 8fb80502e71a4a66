//! Path patterns as in `glob(3)`: `{a,b}`, `*`, `?`, `[…]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Files, Kind};

/// What a pattern matches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In the order of the alternatives, sorted within each.
    pub(super) paths: Vec<PathBuf>,
    /// A name or directory without wildcards does not exist.
    pub(super) missing: bool,
    /// The pattern has alternatives in braces.
    pub(super) braces: bool,
    /// Where a change may change what matches: directories that were listed, and names without
    /// wildcards, whether they exist or not.
    pub(super) depends_on: BTreeSet<PathBuf>,
}

/// Everything that `pattern`, relative to `directory`, matches.
///
/// Each alternative, directory and name examined takes one from `places_left`; `None` if none is
/// left.
pub(super) fn find(
    files: &dyn Files,
    directory: &Path,
    pattern: &str,
    places_left: &mut usize,
) -> Option<Found> {
    let alternatives = expand_braces(pattern, places_left)?;
    let mut found = Found {
        braces: alternatives.len() > 1,
        ..Found::default()
    };
    for alternative in alternatives {
        let mut walk = Walk {
            files,
            places_left,
            depends_on: &mut found.depends_on,
            paths: Vec::new(),
            missing: false,
        };
        let start = if alternative.starts_with('/') {
            Path::new("/")
        } else {
            directory
        };
        let components: Vec<&str> = alternative.split('/').filter(|c| !c.is_empty()).collect();
        walk.descend(start, &components)?;
        walk.paths.sort();
        found.missing |= walk.missing;
        found.paths.append(&mut walk.paths);
    }
    Some(found)
}

struct Walk<'a> {
    files: &'a dyn Files,
    places_left: &'a mut usize,
    depends_on: &'a mut BTreeSet<PathBuf>,
    paths: Vec<PathBuf>,
    missing: bool,
}

impl Walk<'_> {
    fn descend(&mut self, directory: &Path, components: &[&str]) -> Option<()> {
        *self.places_left = self.places_left.checked_sub(1)?;
        let Some((&first, rest)) = components.split_first() else {
            self.paths.push(directory.to_owned());
            return Some(());
        };
        if !first.contains(['*', '?', '[']) {
            let path = directory.join(first);
            let exists = self.files.kind(&path).is_ok();
            if rest.is_empty() || !exists {
                self.depends_on.insert(path.clone());
            }
            if exists {
                return self.descend(&path, rest);
            }
            self.missing = true;
            return Some(());
        }
        self.depends_on.insert(directory.to_owned());
        let Ok(mut names) = self.files.names(directory) else {
            self.missing = true;
            return Some(());
        };
        *self.places_left = self.places_left.checked_sub(names.len())?;
        names.sort();
        for name in names {
            // A wildcard does not match a leading dot.
            let hidden = name.starts_with('.') && !first.starts_with('.');
            if hidden || !matches(first, &name) {
                continue;
            }
            let path = directory.join(&name);
            if rest.is_empty() {
                self.paths.push(path);
            } else if matches!(self.files.kind(&path), Ok(Kind::Directory)) {
                self.descend(&path, rest)?;
            }
        }
        Some(())
    }
}

/// Expands `{a,b}`, even nested; `None` if there are too many alternatives.
fn expand_braces(pattern: &str, places_left: &mut usize) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut todo = vec![pattern.to_owned()];
    while let Some(pattern) = todo.pop() {
        *places_left = places_left.checked_sub(1)?;
        let Some((before, alternatives, after)) = first_braces(&pattern) else {
            done.push(pattern);
            continue;
        };
        for alternative in alternatives.into_iter().rev() {
            todo.push(format!("{before}{alternative}{after}"));
        }
    }
    Some(done)
}

/// The first `{…}` of a pattern: the text before, the alternatives, the text after.
fn first_braces(pattern: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = pattern.find('{')?;
    let mut alternatives = Vec::new();
    let mut depth = 0;
    let mut from = open + 1;
    for (at, c) in pattern.char_indices().skip_while(|&(at, _)| at < open) {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => {
                alternatives.push(&pattern[from..at]);
                from = at + 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    alternatives.push(&pattern[from..at]);
                    return Some((&pattern[..open], alternatives, &pattern[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether the pattern of one path component matches the name.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // If what follows the last `*` does not match, that `*` takes one more character.
    let mut retry = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&pattern[p..], name[n]),
            Some(&c) => (c == name[n]).then_some(1),
            None => None,
        };
        if let Some(length) = step {
            p += length;
            n += 1;
        } else if let Some((star, taken)) = retry {
            p = star + 1;
            n = taken + 1;
            retry = Some((star, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The length of the `[…]` at the start of `pattern`, if it matches `c`.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let Some(close) = (first + 1..pattern.len()).find(|&at| pattern[at] == ']') else {
        // An unclosed bracket is an ordinary character.
        return (c == '[').then_some(1);
    };
    let mut set = &pattern[first..close];
    let mut within = false;
    while let [low, rest @ ..] = set {
        let (high, rest) = match rest {
            ['-', high, rest @ ..] => (high, rest),
            _ => (low, rest),
        };
        within |= (*low..=*high).contains(&c);
        set = rest;
    }
    (within != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::super::files::Memory;
    use super::*;

    #[test]
    fn patterns_match_as_in_glob_3() {
        let names = "b.conf a.conf .hidden.conf d/x.conf e/x.conf".split(' ');
        let files = names.fold(Memory::default(), |files, name| {
            files.with(format!("/etc/k/{name}"), "")
        });
        for (pattern, paths, missing) in [
            ("*.conf", "a.conf b.conf", false),
            ("./a.conf", "a.conf", false),
            ("/etc/k/[ab].conf", "a.conf b.conf", false),
            ("[!a].conf", "b.conf", false),
            ("[b-z].conf", "b.conf", false),
            ("*/x.conf", "d/x.conf e/x.conf", false),
            ("{b,a}.conf", "b.conf a.conf", false),
            ("{d/{x,y},b}.conf", "d/x.conf b.conf", true),
            (".h*", ".hidden.conf", false),
            ("z*", "", false),
            ("z/*", "", true),
            ("z", "", true),
            ("?.co*f", "a.conf b.conf", false),
            ("{a}.conf", "a.conf", false),
            ("}{b,a}.conf", "", true),
            ("*", "a.conf b.conf d e", false),
        ] {
            let found = find(&files, Path::new("/etc/k"), pattern, &mut 100).unwrap();
            let names = found.paths.iter().map(|path| {
                let path = path.strip_prefix("/etc/k").unwrap();
                path.to_string_lossy().into_owned()
            });
            let names: Vec<_> = names.collect();
            assert_eq!(names.join(" "), paths, "{pattern}");
            assert_eq!(found.missing, missing, "{pattern}");
            assert_eq!(found.braces, pattern.contains(','), "{pattern}");
        }
    }

    #[test]
    fn where_a_new_file_could_match_is_known() {
        let files = ["d/x.conf", "e/y"];
        let files = files.iter().fold(Memory::default(), |files, name| {
            files.with(format!("/k/{name}"), "")
        });
        for (pattern, expected) in [
            ("d/*.conf", "d"),
            ("e/*.conf", "e"),
            ("none/*.conf", "none"),
            ("none/at/all/*.conf", "none"),
            ("d/x.conf", "d/x.conf"),
            ("d/y.conf", "d/y.conf"),
            ("*/x.conf", " d/x.conf e/x.conf"),
            ("*/*.conf", " d e"),
            ("{d,f}/*.conf", "d f"),
            ("e/y/*.conf", "e/y"),
        ] {
            let found = find(&files, Path::new("/k"), pattern, &mut 100).unwrap();
            let depends_on = found.depends_on.iter().map(|path| {
                let path = path.strip_prefix("/k").unwrap();
                path.to_str().unwrap()
            });
            assert_eq!(
                depends_on.collect::<Vec<_>>().join(" "),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn hostile_patterns_take_bounded_time() {
        let files = Memory::default();
        assert_eq!(
            find(&files, Path::new("/"), &"{a,b}".repeat(200), &mut 9999),
            None
        );
        assert!(!matches(&("a*".repeat(100) + "b"), &"a".repeat(2000)));
        assert!(!matches("[", "a") && matches("[", "["));
    }
}
