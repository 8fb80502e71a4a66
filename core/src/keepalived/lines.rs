//! The lines of a configuration, as keepalived comes to see them: files and includes, comments,
//! conditions, definitions and sequences resolved, cut at braces.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::condition::{self, Condition, Ids};
use super::definitions::{self, Definitions, LINE_MAX, LinkView, Remainder, Substitution, UNKNOWN};
use super::files::Files;
use super::include::{self, Include};
use super::lexer;
use super::sequence::{Malformed, Sequence};

/// The most bytes that all files together may have. keepalived has no such bound; with it and the
/// next one all commands keep within the 64 MiB of memory that the systemd units allow.
const BYTES_MAX: usize = 8 << 20;
/// The most bytes of words and definitions that may be handed out or kept.
const WORDS_MAX: usize = 2 << 20;
/// What a line, or the part of one up to a brace, counts for beside its words: a line for an address
/// takes less room in the file than in memory.
const PER_CHUNK: usize = 16;
/// What a definition counts for beside its name and value.
const PER_DEFINITION: usize = 64;
/// The most files that may be opened: includes that include each other twice grow without end.
const FILES_MAX: usize = 4096;
/// The deepest that includes may be nested.
const DEPTH_MAX: usize = 64;
/// The most lines that sequences and multi-line definitions may make.
const MADE_LINES_MAX: usize = 100_000;
/// Replacements of `$NAME` that are allowed for beside one per two bytes of the files, which is
/// more than a file can ask for unless its definitions multiply each other.
const SUBSTITUTIONS_MIN: usize = 50_000;
/// The most places that all include patterns together may make us look at.
const PLACES_MAX: usize = 100_000;

/// Where a line was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Rc<Path>,
    /// From 1; 0 for the file as a whole.
    pub(super) line: usize,
}

/// A line, or the part of one up to a brace, or a brace.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) words: Vec<String>,
    /// The words before they were split.
    pub(super) text: String,
    pub(super) place: Place,
}

/// Something that was noticed between two chunks.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) weight: Weight,
}

/// What a notice means for the block around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing: keepalived reads on, and so do we.
    Remark,
    /// Nothing, if our configuration id is keepalived's.
    Doubtful,
    /// What comes of the block is not certain.
    Uncertain,
    /// Nothing is read from here on.
    Stop,
}

/// A file that is being read.
struct Open {
    name: Rc<Path>,
    /// Without symbolic links: tells whether a file includes itself.
    real_path: PathBuf,
    directory: PathBuf,
    contents: Vec<u8>,
    at: usize,
    line: usize,
}

/// A multi-line definition that is being used.
struct Use {
    remainder: Remainder,
    /// Sequences that were under way before it: they wait until it is through.
    sequences: usize,
}

/// Reads chunk after chunk.
pub(super) struct Lines<'a> {
    files: &'a dyn Files,
    config_id: Option<&'a str>,
    /// The configuration ids that conditions name.
    ids: Ids,
    /// Where the first condition is.
    first_condition: Option<Place>,
    open: Vec<Open>,
    /// Files still to be read after the last of `open`: those of the same include, next one last.
    waiting: Vec<Vec<PathBuf>>,
    definitions: Definitions,
    sequences: Vec<Sequence>,
    uses: Vec<Use>,
    /// What is left of a line after a brace.
    rest: Option<String>,
    place: Place,
    notices: Vec<Notice>,
    /// The files that were opened.
    read: Vec<PathBuf>,
    bytes_read: usize,
    words_left: usize,
    lines_made: usize,
    substitutions_left: usize,
    places_left: usize,
    stopped: bool,
}

/// A line that comes from a file, and whether keepalived sees at once that it is an include.
struct Line {
    text: String,
    plain_include: bool,
}

impl<'a> Lines<'a> {
    /// Starts with the file at `path`, whose contents are given.
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
            bytes_read: 0,
            words_left: WORDS_MAX,
            lines_made: 0,
            substitutions_left: SUBSTITUTIONS_MIN,
            places_left: PLACES_MAX,
            stopped: false,
        };
        lines.push_file(path, contents);
        lines
    }

    /// How many bytes may still be read.
    pub(super) const fn limit() -> usize {
        BYTES_MAX
    }

    /// What was noticed since this was asked last.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The files that were read, in the order of their first lines.
    pub(super) fn into_files(self) -> Vec<PathBuf> {
        self.read
    }

    /// Where the first line for a configuration id is, and what to say, if the files have such lines
    /// but none for ours.
    pub(super) fn foreign_ids(&self) -> Option<(Place, String)> {
        let message = self.ids.foreign(self.config_id?)?;
        Some((self.first_condition.clone()?, message))
    }

    /// The next chunk that has a word, or `None` at the end.
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
                self.notice(
                    "a double quote that is never closed: keepalived passes over the rest of the line",
                    Weight::Remark,
                );
            }
            let counts = !words.is_empty() || unclosed_quote;
            if counts && !self.count_words(PER_CHUNK + chunk.len()) {
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

    /// Counts what is handed out or kept; whether there is room for it.
    fn count_words(&mut self, bytes: usize) -> bool {
        match self.words_left.checked_sub(bytes) {
            Some(left) => self.words_left = left,
            None => self.stop("is behind more words than vipherald keeps (2 MiB)"),
        }
        !self.stopped
    }

    /// The braces of a `${NAME}` that is not defined are like any others.
    fn check_braces(&mut self, text: &str) {
        let before = lexer::first_brace(text).and_then(|at| text[..at].strip_suffix('$'));
        if let Some(name) = before.and_then(|before| definitions::undefined(&text[before.len()..]))
        {
            self.notice(
                &format!("${name} is not defined here: its braces count as a block's"),
                Weight::Doubtful,
            );
        }
    }

    /// The next line, before conditions and definitions.
    fn next_line(&mut self) -> Option<Line> {
        if let Some(text) = self.rest.take() {
            return Some(Line::made(text));
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
            return self.count_made().then(|| Line::made(text));
        }
        let (text, _) = self.next_of_file()?;
        let plain_include = include::parse(&text).is_some();
        Some(Line {
            text,
            plain_include,
        })
    }

    fn next_of_sequence(&mut self) -> Option<Line> {
        if !self.count_made() {
            return None;
        }
        let definitions = &mut self.definitions;
        let sequence = self.sequences.last_mut()?;
        let (text, more) = sequence.step(|name, value| definitions.set(name, value));
        let text = text.to_owned();
        if !more {
            self.sequences.pop();
        }
        Some(Line::made(text))
    }

    fn count_made(&mut self) -> bool {
        self.lines_made += 1;
        if self.lines_made > MADE_LINES_MAX {
            self.stop("sequences and definitions make more than 100,000 lines");
        }
        !self.stopped
    }

    /// The next line of the files, without its comment, and whether there was nothing on it at
    /// all. An included file goes on where its include stands.
    fn next_of_file(&mut self) -> Option<(String, bool)> {
        loop {
            let file = self.open.last_mut()?;
            let bytes = &file.contents[file.at..];
            if bytes.is_empty() {
                self.next_file();
                continue;
            }
            // keepalived reads at most LINE_MAX bytes at once, newline included.
            let window = &bytes[..bytes.len().min(LINE_MAX)];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let length = newline.map_or(window.len(), |at| at + 1);
            let text = &window[..length];
            // For keepalived a NUL ends the line.
            let text = text.split(|&byte| byte == b'\0').next().unwrap_or(text);
            let text = String::from_utf8_lossy(text);
            let text = text.trim_end_matches(['\n', '\r']);
            let (bare, text) = (text.is_empty(), lexer::decomment(text));
            // A line's number holds for all of its parts.
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
                self.notice(
                    "is longer than 1,023 bytes: keepalived reads the rest as a line of its own",
                    Weight::Remark,
                );
            }
            return Some((text, bare));
        }
    }

    /// Resolves conditions and definitions; `None` when nothing is left of the line.
    fn resolve(&mut self, mut text: String) -> Option<String> {
        loop {
            if self.ids.note(&text) {
                self.first_condition.get_or_insert(self.place.clone());
            }
            match condition::weigh(&text, self.config_id) {
                Condition::Unconditional => {}
                Condition::Holds(rest) => {
                    if rest.is_empty() {
                        return None;
                    }
                    text = rest.to_owned();
                }
                Condition::Fails => {
                    if text.starts_with("@$") || text.starts_with("@^$") {
                        self.notice("has a definition for a configuration id, which keepalived compares as it stands", Weight::Remark);
                    }
                    // An opening brace may well be one of several, each with a condition.
                    if text.matches('}').count() > text.matches('{').count() {
                        self.notice(
                            "has a closing brace that doesn't count because its condition fails",
                            Weight::Remark,
                        );
                    }
                    return None;
                }
                Condition::Unknown => {
                    self.notice("is for one configuration id, and the host name that stands for ours can't be read", Weight::Uncertain);
                    return None;
                }
            }
            if let Some((name, value)) = definitions::parse(&text) {
                if self.count_words(PER_DEFINITION + text.len()) {
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
            // What a definition brings in can hold comments, conditions and definitions.
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
                    self.notice(
                        "is a comment that ends a multi-line definition (end the comment with \\ to go on)", Weight::Remark);
                }
                break;
            }
            if include::parse(&line).is_some() {
                self.notice(
                    "is an include inside a multi-line definition, which ends there",
                    Weight::Remark,
                );
                break;
            }
            if !self.count_words(line.len()) {
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

    /// The next line of a multi-line definition: it is taken as it stands.
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
            _ if !known => self.notice("has a number that can't be known", Weight::Uncertain),
            Ok(sequence) => self.sequences.push(sequence),
            Err(Malformed { why, passed_over }) => self.notice(
                &why,
                if passed_over {
                    Weight::Remark
                } else {
                    Weight::Uncertain
                },
            ),
        }
    }

    /// Replaces definitions in a line; whether there was one.
    fn substitute(&mut self, text: &mut String) -> bool {
        let directory = match self.open.last() {
            Some(file) if text.contains("_PWD") => self.files.real_path(&file.directory),
            _ => PathBuf::new(),
        };
        let surroundings = LinkView {
            config_id: self.config_id,
            directory: &directory.to_string_lossy(),
        };
        let mut remainders = Vec::new();
        let outcome = self.definitions.substitute(
            text,
            &surroundings,
            &mut self.substitutions_left,
            &mut remainders,
        );
        match outcome {
            Substitution::Nothing => return false,
            Substitution::Done => {}
            Substitution::TooLong => {
                self.notice(
                    "is longer than 1,023 bytes with its definitions, which keepalived gives up on",
                    Weight::Uncertain,
                );
                // What has come of it could grow again behind each brace, without end.
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
            self.notice(
                "includes a file whose name can't be known",
                Weight::Uncertain,
            );
            return;
        }
        if !plain {
            self.notice(
                "has an include behind a condition, a definition or a brace, which keepalived reads twice", Weight::Remark);
        }
        let Some(file) = self.open.last() else {
            return;
        };
        let mut included = include.find(self.files, &file.directory, &mut self.places_left);
        if let Some(problem) = included.problem {
            self.notice(&problem, Weight::Uncertain);
        }
        if let Some(warning) = included.warning {
            self.notice(&warning, Weight::Remark);
        }
        included.files.reverse();
        if !plain {
            included.files.extend_from_within(..);
        }
        self.waiting.push(included.files);
        self.open_waiting();
    }

    /// The current file is at its end: on to the next of its include, or back to the file that
    /// holds the include.
    fn next_file(&mut self) {
        self.open.pop();
        self.open_waiting();
    }

    /// Opens the next file of the innermost include that can be opened; drops the include when
    /// none is left.
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
            self.notice(
                &format!("includes {shown}, which includes this"),
                Weight::Uncertain,
            );
            return None;
        }
        if self.open.len() >= DEPTH_MAX {
            self.notice("includes files more than 64 deep", Weight::Uncertain);
            return None;
        }
        if self.read.len() >= FILES_MAX {
            self.stop("includes more than 4,096 files in all");
            return None;
        }
        match self.files.read(path, BYTES_MAX - self.bytes_read + 1) {
            Ok(contents) => Some(contents),
            Err(error) => {
                self.notice(
                    &format!("includes {shown}, which can't be read: {error}"),
                    Weight::Uncertain,
                );
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

    fn notice(&mut self, message: &str, weight: Weight) {
        self.notices.push(Notice {
            place: self.place.clone(),
            message: message.to_owned(),
            weight,
        });
    }

    /// Gives up reading: what follows is not known.
    fn stop(&mut self, message: &str) {
        self.stopped = true;
        self.notice(message, Weight::Stop);
    }
}

impl Line {
    fn made(text: String) -> Self {
        Self {
            text,
            plain_include: false,
        }
    }
}

/// Adds a line of a multi-line definition; blank ones are left out.
fn push_line(lines: &mut String, line: &str) {
    let line = line.trim_end_matches(lexer::BLANK);
    if !line.is_empty() {
        lines.push_str(line);
        lines.push('\n');
    }
}
