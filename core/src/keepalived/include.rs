//! `include PATTERN` and its stricter variants.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Files, Kind};
use super::glob;
use super::lexer::BLANK;

/// An `include` line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Include<'a> {
    pub(super) pattern: &'a str,
    strictness: Strictness,
}

/// What makes keepalived stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Strictness {
    /// A match that is a directory, is executable, or can't be read.
    readable: bool,
    /// No match for a pattern without wildcards.
    matched: bool,
    /// No match for a pattern with wildcards.
    wildcard_matched: bool,
    /// No match for one of the alternatives in braces.
    braces_matched: bool,
}

/// Parses an `include` line; `None` for any other line.
pub(super) fn parse(line: &str) -> Option<Include<'_>> {
    let rest = line.strip_prefix("include")?;
    let (variant, rest) = match rest.chars().next()? {
        variant @ ('r' | 'm' | 'w' | 'b' | 'a') => (Some(variant), &rest[1..]),
        _ => (None, rest),
    };
    if !rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '\x0b') {
        return None;
    }
    let strictness = Strictness {
        readable: variant.is_some(),
        matched: matches!(variant, Some('m' | 'w' | 'a')),
        wildcard_matched: matches!(variant, Some('w' | 'a')),
        braces_matched: matches!(variant, Some('b' | 'a')),
    };
    Some(Include {
        pattern: rest[1..].trim_start_matches(BLANK),
        strictness,
    })
}

/// The files of an include.
#[derive(Debug, Default)]
pub(super) struct Included {
    pub(super) files: Vec<PathBuf>,
    /// Why keepalived stops, or why we don't know the files.
    pub(super) problem: Option<String>,
    /// What keepalived ignores.
    pub(super) warning: Option<String>,
    /// Where a change may change what it includes.
    pub(super) depends_on: BTreeSet<PathBuf>,
}

impl Include<'_> {
    /// Finds the files, relative to the directory of the including file.
    pub(super) fn find(
        &self,
        files: &dyn Files,
        directory: &Path,
        places_left: &mut usize,
    ) -> Included {
        let mut included = Included::default();
        let pattern = self.pattern;
        let Some(found) = glob::find(files, directory, pattern, places_left) else {
            included.problem = Some(format!("include {pattern} leads to too many places"));
            return included;
        };
        included.depends_on = found.depends_on;
        if found.paths.is_empty() {
            let message = format!("include {pattern}: there is no such file");
            let strict = match (found.missing, found.braces) {
                (true, true) => self.strictness.braces_matched,
                (true, false) => self.strictness.matched,
                (false, _) => self.strictness.wildcard_matched,
            };
            if strict {
                included.problem = Some(message + ": keepalived stops");
            } else if found.missing {
                included.warning = Some(message);
            }
            return included;
        }
        if found.missing && self.strictness.braces_matched {
            included.problem = Some(format!(
                "include {pattern}: one of the files is missing: keepalived stops"
            ));
            return included;
        }
        for path in found.paths {
            let unusable = match files.kind(&path) {
                Ok(Kind::File) => {
                    included.files.push(path);
                    continue;
                }
                Ok(Kind::Executable) => "is executable",
                Ok(Kind::Directory) => "is a directory",
                Ok(Kind::Other) | Err(_) => "is no regular file",
            };
            let message = format!("{} {unusable}: keepalived ", path.display());
            if self.strictness.readable {
                included.problem = Some(message + "stops");
            } else {
                included.warning = Some(message + "ignores it");
            }
        }
        included
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_include_is_known() {
        for keyword in [
            "include",
            "include\t",
            "include  ",
            "includer",
            "includem",
            "includew",
            "includeb",
            "includea",
        ] {
            let line = format!("{keyword} a");
            let pattern = parse(&line).map(|include| include.pattern);
            assert_eq!(pattern, Some("a"), "{line}");
        }
        for line in [
            "include",
            "includes a",
            "includea",
            "include_check x",
            "xinclude a",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
