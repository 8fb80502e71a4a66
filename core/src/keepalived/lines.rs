//! The lines of a configuration as keepalived interprets them: with includes, comments, conditions,
//! definitions and sequences resolved, and split at braces.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::condition::{self, Condition, Ids};
use super::definitions::{self, Context, Definitions, LINE_MAX, Remainder, Substitution, UNKNOWN};
use super::files::Files;
use super::include::{self, Include};
use super::lexer;
use super::sequence::{Malformed, Sequence};

/// The most bytes of all files together. keepalived has no such limit. With this one and the next,
/// all commands stay within the 64 MiB of memory that the systemd units allow.
const BYTES_MAX: usize = 8 << 20;
/// The most bytes of words and definitions.
const WORDS_MAX: usize = 2 << 20;
/// What a chunk costs in addition to its words: an address takes more memory than its line.
const PER_CHUNK: usize = 16;
/// What a definition costs in addition to its name and value.
const PER_DEFINITION: usize = 64;
/// The most files. Files that include the next one twice grow exponentially.
const FILES_MAX: usize = 4096;
/// The deepest nesting of includes.
const DEPTH_MAX: usize = 64;
/// The most lines that sequences and multi-line definitions generate.
const GENERATED_LINES_MAX: usize = 100_000;
/// The most replacements of `$NAME`, in addition to one per two bytes of the files. No file needs
/// more unless its definitions multiply each other.
const SUBSTITUTIONS_MIN: usize = 50_000;
/// The most paths that all include patterns together make us examine.
const PLACES_MAX: usize = 100_000;

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Rc<Path>,
    /// From 1; 0 for the file as a whole.
    pub(super) line: usize,
}

/// A line, the part of a line up to a brace, or a brace.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) words: Vec<String>,
    /// The words before they were split.
    pub(super) text: String,
    pub(super) place: Place,
}

/// A problem found between two chunks.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) severity: Severity,
}

/// What a notice means for the block around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Nothing: keepalived reads on, and so do we.
    Warning,
    /// Nothing, if our configuration id is keepalived's.
    Doubtful,
    /// We don't know what keepalived makes of the block.
    Unknown,
    /// We stop reading here.
    Stop,
}

/// A file that is being read.
struct Open {
    name: Rc<Path>,
    /// Without symbolic links, to recognise a file that includes itself.
    real_path: PathBuf,
    directory: PathBuf,
    contents: Vec<u8>,
    at: usize,
    line: usize,
}

/// A multi-line definition in use.
struct Use {
    remainder: Remainder,
    /// The number of sequences that wait until it ends.
    sequences: usize,
}

/// Reads chunk after chunk.
pub(super) struct Lines<'a> {
    files: &'a dyn Files,
    config_id: Option<&'a str>,
    ids: Ids,
    first_condition: Option<Place>,
    open: Vec<Open>,
    /// For each of `open`, the files of the same include that follow it, in reverse.
    waiting: Vec<Vec<PathBuf>>,
    definitions: Definitions,
    sequences: Vec<Sequence>,
    uses: Vec<Use>,
    /// The rest of a line after a brace.
    rest: Option<String>,
    place: Place,
    notices: Vec<Notice>,
    read: Vec<PathBuf>,
    depends_on: BTreeSet<PathBuf>,
    bytes_read: usize,
    words_left: usize,
    lines_generated: usize,
    substitutions_left: usize,
    places_left: usize,
    stopped: bool,
}

/// A line, and whether it is an `include` as it stands in the file.
struct Line {
    text: String,
    plain_include: bool,
}

impl<'a> Lines<'a> {
    /// Starts with `contents`, read from `path`.
    pub(super) fn new(
        files: &'a dyn Files,
        config_id: Option<&'a str>,
        path: &Path,
        contents: Vec<u8>,
    ) -> Self {
        let mut lines = Self {
            files,
            config_id,
            ids: Ids::default(),
            first_condition: None,
            open: Vec::new(),
            waiting: vec![Vec::new()],
            definitions: Definitions::default(),
            sequences: Vec::new(),
            uses: Vec::new(),
            rest: None,
            place: Place {
                file: path.into(),
                line: 0,
            },
            notices: Vec::new(),
            read: Vec::new(),
            depends_on: BTreeSet::new(),
            bytes_read: 0,
            words_left: WORDS_MAX,
            lines_generated: 0,
            substitutions_left: SUBSTITUTIONS_MIN,
            places_left: PLACES_MAX,
            stopped: false,
        };
        lines.push_file(path, contents);
        lines
    }

    /// The most bytes of all files together.
    pub(super) const fn limit() -> usize {
        BYTES_MAX
    }

    /// The notices since the last call.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The files, in the order of their first lines; and where a change may change what is included.
    pub(super) fn into_files(self) -> (Vec<PathBuf>, BTreeSet<PathBuf>) {
        (self.read, self.depends_on)
    }

    /// A message, with the place of the first `@id` line, if there are such lines but none for our
    /// configuration id.
    pub(super) fn foreign_ids(&self) -> Option<(Place, String)> {
        let message = self.ids.foreign(self.config_id?)?;
        Some((self.first_condition.clone()?, message))
    }

    /// The next chunk with a word; `None` at the end.
    pub(super) fn next_chunk(&mut self) -> Option<Chunk> {
        while !self.stopped {
            let line = self.next_line()?;
            let Some(text) = self.resolve(line.text) else {
                continue;
            };
            if let Some(include) = include::parse(&text) {
                self.include(&include, line.plain_include);
                continue;
            }
            self.check_braces(&text);
            let (chunk, rest) = lexer::split_at_brace(&text);
            self.rest = rest.map(str::to_owned);
            let (words, unclosed_quote) = lexer::words(chunk);
            if unclosed_quote {
                self.warn(
                    "a double quote that is never closed: keepalived ignores the rest of the line",
                );
            }
            let costs = !words.is_empty() || unclosed_quote;
            if costs && !self.has_room(PER_CHUNK + chunk.len()) {
                return None;
            }
            if !words.is_empty() {
                return Some(Chunk {
                    text: chunk.to_owned(),
                    words,
                    place: self.place.clone(),
                });
            }
        }
        None
    }

    /// Takes memory for words or definitions. If there is none left, this stops.
    fn has_room(&mut self, bytes: usize) -> bool {
        match self.words_left.checked_sub(bytes) {
            Some(left) => self.words_left = left,
            None => self.stop("follows more words than vipherald keeps (2 MiB)"),
        }
        !self.stopped
    }

    /// Warns that the braces of an undefined `${NAME}` begin and end a block.
    fn check_braces(&mut self, text: &str) {
        let before = lexer::first_brace(text).and_then(|at| text[..at].strip_suffix('$'));
        if let Some(name) = before.and_then(|before| definitions::undefined(&text[before.len()..]))
        {
            let message = format!("${name} is not defined here: its braces count as a block's");
            self.notice(&message, Severity::Doubtful);
        }
    }

    /// The next line, before conditions and definitions are resolved.
    fn next_line(&mut self) -> Option<Line> {
        if let Some(text) = self.rest.take() {
            return Some(Line::generated(text));
        }
        let waiting = self.uses.last().map_or(0, |used| used.sequences);
        if self.sequences.len() > waiting {
            return self.next_of_sequence();
        }
        if let Some(used) = self.uses.last_mut() {
            let (text, more) = used.remainder.next_line();
            if !more {
                self.uses.pop();
            }
            return self.may_generate().then(|| Line::generated(text));
        }
        let (text, _) = self.next_of_file()?;
        let plain_include = include::parse(&text).is_some();
        Some(Line {
            text,
            plain_include,
        })
    }

    fn next_of_sequence(&mut self) -> Option<Line> {
        if !self.may_generate() {
            return None;
        }
        let definitions = &mut self.definitions;
        let sequence = self.sequences.last_mut()?;
        let (text, more) = sequence.step(|name, value| definitions.set(name, value));
        let text = text.to_owned();
        if !more {
            self.sequences.pop();
        }
        Some(Line::generated(text))
    }

    /// Counts a generated line. Beyond the limit, this stops.
    fn may_generate(&mut self) -> bool {
        self.lines_generated += 1;
        if self.lines_generated > GENERATED_LINES_MAX {
            self.stop("sequences and definitions make more than 100,000 lines");
        }
        !self.stopped
    }

    /// The next line of the files, without its comment, and whether it was empty even with its
    /// comment. After an included file, the file with the include continues.
    fn next_of_file(&mut self) -> Option<(String, bool)> {
        loop {
            let file = self.open.last_mut()?;
            let bytes = &file.contents[file.at..];
            if bytes.is_empty() {
                self.open.pop();
                self.open_waiting();
                continue;
            }
            // keepalived reads at most LINE_MAX bytes at once, with the newline.
            let window = &bytes[..bytes.len().min(LINE_MAX)];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let length = newline.map_or(window.len(), |at| at + 1);
            let text = &window[..length];
            // For keepalived a NUL ends the line.
            let text = text.split(|&byte| byte == b'\0').next().unwrap_or(text);
            let text = String::from_utf8_lossy(text);
            let text = text.trim_end_matches(['\n', '\r']);
            let (bare, text) = (text.is_empty(), lexer::decomment(text));
            let continues = file.at > 0 && file.contents[file.at - 1] != b'\n';
            file.at += length;
            if !continues {
                file.line += 1;
            }
            self.place = Place {
                file: Rc::clone(&file.name),
                line: file.line,
            };
            if continues && !text.is_empty() {
                self.warn("is longer than 1,023 bytes: keepalived reads the rest as another line");
            }
            return Some((text, bare));
        }
    }

    /// Resolves conditions and definitions; `None` if nothing is left of the line.
    fn resolve(&mut self, mut text: String) -> Option<String> {
        loop {
            if self.ids.note(&text) {
                self.first_condition.get_or_insert(self.place.clone());
            }
            match condition::evaluate(&text, self.config_id) {
                Condition::Unconditional => {}
                Condition::Holds(rest) => {
                    if rest.is_empty() {
                        return None;
                    }
                    text = rest.to_owned();
                }
                Condition::Fails => {
                    if text.starts_with("@$") || text.starts_with("@^$") {
                        self.warn("has a definition as configuration id, which keepalived does not replace");
                    }
                    // An opening brace may be one of several, each with its own condition.
                    if text.matches('}').count() > text.matches('{').count() {
                        self.warn(
                            "has a closing brace that doesn't count because its condition fails",
                        );
                    }
                    return None;
                }
                Condition::Unknown => {
                    self.unknown(
                        "is for one configuration id, and ours is unknown because the host name is",
                    );
                    return None;
                }
            }
            if let Some((name, value)) = definitions::parse(&text) {
                if self.has_room(PER_DEFINITION + text.len()) {
                    self.define(name, value);
                }
                return None;
            }
            if Sequence::starts(&text) {
                self.start_sequence(&text);
                return None;
            }
            if text.starts_with('~') || !text.contains('$') {
                break;
            }
            if !self.substitute(&mut text) {
                break;
            }
            // A definition's value can contain comments, conditions and definitions.
            text = lexer::decomment(&text);
            if !text.starts_with('@') && !text.contains('$') {
                break;
            }
        }
        (!text.is_empty()).then_some(text)
    }

    fn define(&mut self, name: &str, value: &str) {
        let Some(first) = value.strip_suffix('\\') else {
            self.definitions.set(name, value);
            return;
        };
        let mut lines = String::new();
        push_line(&mut lines, first);
        while let Some((line, bare)) = self.next_of_definition() {
            if line.is_empty() {
                if !bare {
                    self.warn("is a comment that ends a multi-line definition (end the comment with \\ to go on)");
                }
                break;
            }
            if include::parse(&line).is_some() {
                self.warn("is an include inside a multi-line definition, and ends it");
                break;
            }
            if !self.has_room(line.len()) {
                return;
            }
            let Some(line) = line.strip_suffix('\\') else {
                lines.push_str(&line);
                break;
            };
            push_line(&mut lines, line);
        }
        self.definitions.set_lines(name, &lines);
    }

    /// The next line of a multi-line definition, as it stands.
    fn next_of_definition(&mut self) -> Option<(String, bool)> {
        if self.rest.is_none() && self.sequences.is_empty() && self.uses.is_empty() {
            return self.next_of_file();
        }
        Some((self.next_line()?.text, true))
    }

    fn start_sequence(&mut self, text: &str) {
        let mut known = true;
        let parsed = Sequence::parse(text, |text| {
            let mut text = text.to_owned();
            let before = self.uses.len();
            self.substitute(&mut text);
            if self.uses.len() > before || text.contains(UNKNOWN) {
                known = false;
                self.uses.truncate(before);
            }
            text
        });
        match parsed {
            _ if !known => self.unknown("has a number that can't be known"),
            Ok(sequence) => self.sequences.push(sequence),
            Err(Malformed { why, ignored: true }) => self.warn(&why),
            Err(Malformed { why, .. }) => self.unknown(&why),
        }
    }

    /// Replaces definitions in a line; `false` if there were none.
    fn substitute(&mut self, text: &mut String) -> bool {
        let directory = match self.open.last() {
            Some(file) if text.contains("_PWD") => self.files.real_path(&file.directory),
            _ => PathBuf::new(),
        };
        let context = Context {
            config_id: self.config_id,
            directory: &directory.to_string_lossy(),
        };
        let mut remainders = Vec::new();
        let left = &mut self.substitutions_left;
        let definitions = &self.definitions;
        match definitions.substitute(text, &context, left, &mut remainders) {
            Substitution::Nothing => return false,
            Substitution::Done => {}
            Substitution::TooLong => {
                self.unknown(
                    "is longer than 1,023 bytes with its definitions: keepalived gives up on it",
                );
                // The part so far could grow again after each brace, endlessly.
                text.clear();
                return false;
            }
            Substitution::Endless => {
                self.stop("uses definitions that refer to each other without end");
                return false;
            }
        }
        let sequences = self.sequences.len();
        self.uses
            .extend(remainders.into_iter().map(|remainder| Use {
                remainder,
                sequences,
            }));
        true
    }

    fn include(&mut self, include: &Include<'_>, plain: bool) {
        if include.pattern.contains(UNKNOWN) {
            self.unknown("includes a file whose name can't be known");
            return;
        }
        if !plain {
            self.warn("has an include after a condition, a definition or a brace: keepalived reads the file twice");
        }
        let Some(file) = self.open.last() else {
            return;
        };
        let mut included = include.find(self.files, &file.directory, &mut self.places_left);
        if let Some(problem) = included.problem {
            self.unknown(&problem);
        }
        if let Some(warning) = included.warning {
            self.warn(&warning);
        }
        self.depends_on.append(&mut included.depends_on);
        included.files.reverse();
        if !plain {
            included.files.extend_from_within(..);
        }
        self.waiting.push(included.files);
        self.open_waiting();
    }

    /// Opens the innermost include's next readable file; without one, the include ends.
    fn open_waiting(&mut self) {
        while let Some(path) = self.waiting.last_mut().and_then(Vec::pop) {
            if let Some(contents) = self.read_included(&path) {
                self.push_file(&path, contents);
                return;
            }
        }
        self.waiting.pop();
    }

    fn read_included(&mut self, path: &Path) -> Option<Vec<u8>> {
        let shown = path.display();
        let real_path = self.files.real_path(path);
        if self.open.iter().any(|file| file.real_path == real_path) {
            self.unknown(&format!("includes {shown}, which includes this"));
            return None;
        }
        if self.open.len() >= DEPTH_MAX {
            self.unknown("includes files more than 64 deep");
            return None;
        }
        if self.read.len() >= FILES_MAX {
            self.stop("includes more than 4,096 files in all");
            return None;
        }
        match self.files.read(path, BYTES_MAX - self.bytes_read + 1) {
            Ok(contents) => Some(contents),
            Err(error) => {
                self.unknown(&format!("includes {shown}, which can't be read: {error}"));
                None
            }
        }
    }

    fn push_file(&mut self, path: &Path, contents: Vec<u8>) {
        self.read.push(path.to_owned());
        self.bytes_read += contents.len();
        self.substitutions_left += contents.len() / 2;
        if self.bytes_read > BYTES_MAX {
            self.stop("is part of a configuration of more than 8 MiB");
            return;
        }
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        self.open.push(Open {
            name: path.into(),
            real_path: self.files.real_path(path),
            directory: directory.unwrap_or(Path::new(".")).to_owned(),
            contents,
            at: 0,
            line: 0,
        });
    }

    fn notice(&mut self, message: &str, severity: Severity) {
        self.notices.push(Notice {
            place: self.place.clone(),
            message: message.to_owned(),
            severity,
        });
    }

    fn warn(&mut self, message: &str) {
        self.notice(message, Severity::Warning);
    }

    fn unknown(&mut self, message: &str) {
        self.notice(message, Severity::Unknown);
    }

    /// Whether it stopped before the end.
    pub(super) fn is_cut_short(&self) -> bool {
        self.stopped
    }

    fn stop(&mut self, message: &str) {
        self.stopped = true;
        self.notice(message, Severity::Stop);
    }
}

impl Line {
    fn generated(text: String) -> Self {
        Self {
            text,
            plain_include: false,
        }
    }
}

/// Adds a line of a multi-line definition, unless it is blank.
fn push_line(lines: &mut String, line: &str) {
    let line = line.trim_end_matches(lexer::BLANK);
    if !line.is_empty() {
        lines.push_str(line);
        lines.push('\n');
    }
}
