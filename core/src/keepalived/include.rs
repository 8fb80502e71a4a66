//! `include PATTERN` and its stricter variants.

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

/// What makes keepalived stop rather than read on.
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

/// The include that a line is, if it is one.
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

/// The files that an include leads to.
#[derive(Debug, Default)]
pub(super) struct Included {
    pub(super) files: Vec<PathBuf>,
    /// What keepalived would stop for, or what we can't tell.
    pub(super) problem: Option<String>,
    /// What keepalived passes over.
    pub(super) warning: Option<String>,
}

impl Include<'_> {
    /// Finds the files, relative to the directory of the file that holds the include.
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
        if found.paths.is_empty() {
            let message = format!("include {pattern}: there is no such file");
            let strict = match (found.missing, found.braces) {
                (true, true) => self.strictness.braces_matched,
                (true, false) => self.strictness.matched,
                (false, _) => self.strictness.wildcard_matched,
            };
            if strict {
                included.problem = Some(message + ", for which keepalived stops");
            } else if found.missing {
                included.warning = Some(message);
            }
            return included;
        }
        if found.missing && self.strictness.braces_matched {
            included.problem = Some(format!(
                "include {pattern}: one of the files is missing, for which keepalived stops"
            ));
            return included;
        }
        for path in found.paths {
            let passed_over = match files.kind(&path) {
                Ok(Kind::File) => {
                    included.files.push(path);
                    continue;
                }
                Ok(Kind::Executable) => "is executable",
                Ok(Kind::Directory) => "is a directory",
                Ok(Kind::Other) | Err(_) => "is no regular file",
            };
            let message = format!("{} {passed_over}: keepalived ", path.display());
            if self.strictness.readable {
                included.problem = Some(message + "stops for it");
            } else {
                included.warning = Some(message + "passes it over");
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
        for line in [
            "include a",
            "include\ta",
            "includer a",
            "includem a",
            "includew a",
            "includeb a",
            "includea a",
            "include   a",
        ] {
            assert_eq!(
                parse(line).map(|include| include.pattern),
                Some("a"),
                "{line}"
            );
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
