//! The log, which never waits for whoever reads it.

use std::fs::File;
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, process};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use syslog::{Facility, Formatter3164, LogFormat, LoggerBackend, Severity};

use crate::journal::{Journal, Notice};
use crate::printable::one_line;
use crate::{moment, regular_file};

/// Where the local syslog daemon listens.
const SYSLOG_SOCKET: &str = "/dev/log";

/// Where messages go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTo {
    /// Syslog where stderr leads nowhere, else stderr.
    #[default]
    Auto,
    /// stderr.
    Stderr,
    /// The local syslog daemon.
    Syslog,
    /// The end of a file.
    File(PathBuf),
}

impl FromStr for LogTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "stderr" => Ok(Self::Stderr),
            "syslog" => Ok(Self::Syslog),
            _ => match text.strip_prefix("file:") {
                Some("") | None => Err("it is auto, stderr, syslog or file:PATH"),
                Some(path) => Ok(Self::File(path.into())),
            },
        }
    }
}

static LOGGER: Logger = Logger(Mutex::new(Place {
    to: LogTo::Auto,
    sink: None,
}));

/// Starts logging. The first message opens the log, so that this does not delay the first frame.
pub fn start(to: LogTo, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::Warn,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    direct(to);
    // It can only fail the second time.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Logs elsewhere from now on.
pub fn direct(to: LogTo) {
    *LOGGER.place() = Place { to, sink: None };
}

/// Logs a line. The journal gets more than its text.
pub(crate) fn say(level: Level, text: &str, notice: Option<&Notice>) {
    if level <= log::max_level() {
        LOGGER.write(level, text, notice);
    }
}

struct Logger(Mutex<Place>);

/// Where messages go, once opened.
struct Place {
    to: LogTo,
    sink: Option<Sink>,
}

impl Logger {
    fn write(&self, level: Level, text: &str, notice: Option<&Notice>) {
        let mut place = self.place();
        let Place { to, sink } = &mut *place;
        let sink = sink.get_or_insert_with(|| Sink::open(to));
        if notice.is_some_and(|notice| sink.tell_journal(level, text, notice)) {
            return;
        }
        // A message that can't be written is lost: it must not stop the work.
        let _ = sink.write(level, &one_line(text));
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Sink {
    Terminal(Stderr),
    /// stderr is systemd's journal, which takes a priority in front of each line (sd-daemon(3)).
    Journal(Stderr, Option<Journal>),
    Syslog(
        Box<syslog::Logger<LoggerBackend, Formatter3164>>,
        Option<Journal>,
    ),
    File(File),
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Not what the netlink crates log.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.write(record.level(), &record.args().to_string(), None);
        }
    }

    fn flush(&self) {}
}

impl Sink {
    fn open(to: &LogTo) -> Self {
        let stderr = fstat(io::stderr().as_fd());
        let on_stderr = || match &stderr {
            Ok(file) if is_journal(file) => Self::Journal(io::stderr(), Journal::open()),
            _ => Self::Terminal(io::stderr()),
        };
        // Without a daemon, stderr is all there is.
        let to_syslog = || Self::syslog().unwrap_or_else(|_| on_stderr());
        let automatic = || match &stderr {
            Ok(file) if !leads_nowhere(file) => on_stderr(),
            _ => to_syslog(),
        };
        match to {
            LogTo::Stderr => on_stderr(),
            LogTo::Auto => automatic(),
            LogTo::Syslog => to_syslog(),
            LogTo::File(path) => Self::file(path).unwrap_or_else(|error| {
                let mut instead = automatic();
                let text = format!("cannot log to {}: {error}", path.display());
                let _ = instead.write(Level::Warn, &one_line(&text));
                instead
            }),
        }
    }

    fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(regular_file::append(path)?))
    }

    fn syslog() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG_SOCKET)?;
        // A daemon that does not read must not delay a failover.
        socket.set_nonblocking(true)?;
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: "vipherald".to_owned(),
            pid: process::id(),
        };
        let logger = syslog::Logger::new(LoggerBackend::Unix(socket), formatter);
        Ok(Self::Syslog(Box::new(logger), Journal::behind_syslog()))
    }

    /// Whether the journal has taken the line with its fields.
    fn tell_journal(&self, level: Level, text: &str, notice: &Notice) -> bool {
        let (Self::Journal(_, journal) | Self::Syslog(_, journal)) = self else {
            return false;
        };
        let priority = severity(level) as u8;
        let sent = journal
            .as_ref()
            .map(|journal| journal.send(notice, text, priority));
        sent.is_some_and(|sent| sent.is_ok())
    }

    fn write(&mut self, level: Level, message: &str) -> io::Result<()> {
        match self {
            Self::Terminal(stderr) => {
                write_if_ready(stderr, &format!("{}{message}\n", word(level)))
            }
            Self::Journal(stderr, _) => {
                write_if_ready(stderr, &format!("<{}>{message}\n", severity(level) as u8))
            }
            Self::Syslog(logger, _) => {
                let (formatter, socket) = (&logger.formatter, &mut logger.backend);
                formatter
                    .format(socket, severity(level), message)
                    .map_err(io::Error::other)
            }
            // One write for the line, so that lines of several runs do not mix.
            Self::File(file) => file.write_all(dated(level, message).as_bytes()),
        }
    }
}

/// A line of a file, with what syslog would add: the time and the process.
fn dated(level: Level, message: &str) -> String {
    format!(
        "{} vipherald[{}]: {}{message}\n",
        moment::text(moment::now()),
        process::id(),
        word(level)
    )
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug | Level::Trace => "",
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    }
}

/// Writes a line, unless that would wait: a terminal that is stopped (Ctrl-S), a full pipe.
fn write_if_ready(stderr: &mut Stderr, line: &str) -> io::Result<()> {
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stderr.write_all(line.as_bytes())
}

/// Whether stderr is /dev/null, as in keepalived's scripts, or was closed, which main() has replaced by
/// the root directory.
fn leads_nowhere(stderr: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(stderr.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFDIR || (kind == SFlag::S_IFCHR && stderr.st_rdev == makedev(1, 3))
}

/// Whether stderr is the stream that systemd connected to the journal: `JOURNAL_STREAM` names
/// its device and inode (systemd.exec(5)).
fn is_journal(stderr: &FileStat) -> bool {
    let Some((device, inode)) = env::var("JOURNAL_STREAM").ok().and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    stderr.st_dev == device && stderr.st_ino == inode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_messages_go_is_one_of_four() {
        assert_eq!("auto".parse(), Ok(LogTo::Auto));
        assert_eq!("file:/a b".parse(), Ok(LogTo::File("/a b".into())));
        for wrong in ["", "file", "file:", "Auto", "/var/log/x"] {
            assert!(wrong.parse::<LogTo>().is_err(), "{wrong}");
        }
    }
}
