//! The scripts that keepalived runs on state changes, and their users.

use std::path::PathBuf;

use super::lexer;
use super::lines::Chunk;

/// A script that keepalived runs: `notify` and its variants, or a FIFO's reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The keyword, such as `notify_master`.
    pub keyword: String,
    /// The program and its arguments, without those that keepalived adds.
    pub command: Vec<String>,
    /// The user that the line names.
    pub user: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Hook {
    /// Parses a line; `None` if keepalived can't.
    fn read(chunk: &Chunk) -> Option<Self> {
        let mut words = lexer::command_words(&chunk.text)?.into_iter();
        let keyword = words.next()?;
        let command = lexer::command_words(&words.next()?)?;
        (!command.is_empty()).then(|| Self {
            keyword,
            command,
            user: words.next(),
            file: chunk.place.file.to_path_buf(),
            line: chunk.place.line,
        })
    }

    /// Adds the hook of a line, unless keepalived ignores it: it runs the first hook of each kind.
    /// The error says why it ignores the line.
    pub(super) fn add(hooks: &mut Vec<Self>, chunk: &Chunk) -> Result<(), String> {
        let keyword = chunk.words.first().map_or("", String::as_str);
        if let Some(first) = hooks.iter().find(|hook| hook.keyword == keyword) {
            return Err(format!(
                "a second {keyword}: keepalived ignores it, and runs that of line {}",
                first.line
            ));
        }
        let hook = Self::read(chunk).ok_or_else(|| {
            format!("{keyword} with a command that keepalived can't parse, and ignores")
        })?;
        hooks.push(hook);
        Ok(())
    }
}

/// What `global_defs` says about scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// `enable_script_security`: keepalived runs no script that users other than root can change.
    pub security: bool,
    /// `script_user`: runs the scripts that name no user.
    pub user: Option<String>,
    /// The scripts that read a FIFO with VRRP events, if that FIFO is configured.
    pub fifos: Vec<Hook>,
}

/// The FIFOs that get VRRP events, and the keywords of their scripts.
const FIFOS: [(&str, &str); 2] = [
    ("notify_fifo", "notify_fifo_script"),
    ("vrrp_notify_fifo", "vrrp_notify_fifo_script"),
];

/// The part of `global_defs` read so far.
#[derive(Default)]
pub(super) struct ScriptsDraft {
    security: bool,
    user: Option<String>,
    /// The keywords of the configured FIFOs.
    fifos: Vec<&'static str>,
    hooks: Vec<Hook>,
}

impl ScriptsDraft {
    /// Applies a line of `global_defs`. The error says why keepalived ignores it.
    pub(super) fn keyword(&mut self, chunk: &Chunk) -> Result<(), String> {
        let (keyword, parameter) = match &chunk.words[..] {
            [] => return Ok(()),
            [keyword] => (keyword.as_str(), None),
            [keyword, parameter, ..] => (keyword.as_str(), Some(parameter)),
        };
        match keyword {
            "enable_script_security" => self.security = true,
            "script_user" if parameter.is_some() => self.user = parameter.cloned(),
            _ => {
                for (fifo, script) in FIFOS {
                    if keyword == fifo && parameter.is_some() {
                        self.fifos.push(fifo);
                    } else if keyword == script {
                        return Hook::add(&mut self.hooks, chunk);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Scripts {
        let is_read = |hook: &Hook| {
            FIFOS
                .iter()
                .any(|(fifo, script)| *script == hook.keyword && self.fifos.contains(fifo))
        };
        Scripts {
            security: self.security,
            user: self.user,
            fifos: self.hooks.into_iter().filter(is_read).collect(),
        }
    }
}
