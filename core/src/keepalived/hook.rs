//! The scripts that keepalived runs when something changes, and with whose rights.

use std::path::PathBuf;

use super::lexer;
use super::lines::Chunk;

/// A script that keepalived runs: `notify` and its kin, or what reads a FIFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The keyword that names it.
    pub keyword: String,
    /// The program and its arguments, without those that keepalived adds.
    pub command: Vec<String>,
    /// The user that the line itself names.
    pub user: Option<String>,
    /// The file that names it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Hook {
    /// The hook that a line is; `None` where keepalived can make nothing of it.
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

    /// Adds the hook that a line is; what keepalived passes over is the error. Of each kind the
    /// first one counts.
    pub(super) fn add(hooks: &mut Vec<Self>, chunk: &Chunk) -> Result<(), String> {
        let keyword = chunk.words.first().map_or("", String::as_str);
        if let Some(first) = hooks.iter().find(|hook| hook.keyword == keyword) {
            return Err(format!(
                "a second {keyword}: keepalived ignores it, and runs that of line {}",
                first.line
            ));
        }
        let hook = Self::read(chunk);
        hooks.extend(Some(hook.ok_or_else(|| {
            format!("{keyword} with a command that keepalived can't parse, and ignores")
        })?));
        Ok(())
    }
}

/// What `global_defs` says about scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// `enable_script_security`: keepalived runs none that others than root could have changed.
    pub security: bool,
    /// `script_user`: who runs them, unless they name a user of their own.
    pub user: Option<String>,
    /// The scripts that read a FIFO of VRRP's, if there is the FIFO.
    pub fifos: Vec<Hook>,
}

/// The FIFOs that VRRP's events go to, and who reads them.
const FIFOS: [(&str, &str); 2] = [
    ("notify_fifo", "notify_fifo_script"),
    ("vrrp_notify_fifo", "vrrp_notify_fifo_script"),
];

/// `global_defs`, while it is being read.
#[derive(Default)]
pub(super) struct ScriptsDraft {
    security: bool,
    user: Option<String>,
    /// The keywords of the FIFOs that there are.
    fifos: Vec<&'static str>,
    hooks: Vec<Hook>,
}

impl ScriptsDraft {
    /// A line of `global_defs`; the error is what keepalived passes over.
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
