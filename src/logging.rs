//! The log, which never waits for whoever reads it.

use std::fs::File;
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{env, process};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use syslog::{Facility, Formatter3164, LogFormat, LoggerBackend, Severity};

use crate::printable::one_line;

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

struct Logger(Mutex<Place>);

/// Where messages go, once opened.
struct Place {
    to: LogTo,
    sink: Option<Sink>,
}

impl Logger {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Sink {
    Terminal(Stderr),
    /// stderr is systemd's journal, which takes a priority in front of each line (sd-daemon(3)).
    Journal(Stderr),
    Syslog(Box<syslog::Logger<LoggerBackend, Formatter3164>>),
    File(File),
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Not what the netlink crates log.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut place = self.place();
        let Place { to, sink } = &mut *place;
        let sink = sink.get_or_insert_with(|| Sink::open(to));
        // A message that can't be written is lost: it must not stop the work.
        let _ = sink.write(record.level(), &one_line(&record.args().to_string()));
    }

    fn flush(&self) {}
}

impl Sink {
    fn open(to: &LogTo) -> Self {
        let stderr = fstat(io::stderr().as_fd());
        let on_stderr = || match &stderr {
            Ok(file) if is_journal(file) => Self::Journal(io::stderr()),
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

    /// Only a regular file, because a write to anything else may wait for a reader. Not through a
    /// symbolic link, which could make root append to any file that others choose.
    fn file(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.append(true).create(true).mode(0o640);
        options.custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self::File(file))
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
        Ok(Self::Syslog(Box::new(syslog::Logger::new(
            LoggerBackend::Unix(socket),
            formatter,
        ))))
    }

    fn write(&mut self, level: Level, message: &str) -> io::Result<()> {
        match self {
            Self::Terminal(stderr) => {
                write_if_ready(stderr, &format!("{}{message}\n", word(level)))
            }
            Self::Journal(stderr) => {
                write_if_ready(stderr, &format!("<{}>{message}\n", severity(level) as u8))
            }
            Self::Syslog(logger) => {
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
    // A clock set before 1970 counts as 1970.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!(
        "{} vipherald[{}]: {}{message}\n",
        timestamp(now.unwrap_or_default()),
        process::id(),
        word(level)
    )
}

/// Time since 1970 as RFC 3339 writes it, in UTC.
fn timestamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years from March to February, so that the leap day is the last one; 1970-01-01 is day
    // 719,468 of them, and 400 of them have 146,097 days.
    days += 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year + later,
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_millis()
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
    fn timestamps_are_those_of_date() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let since = Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(timestamp(since), text);
        }
    }

    #[test]
    fn where_messages_go_is_one_of_four() {
        assert_eq!("auto".parse(), Ok(LogTo::Auto));
        assert_eq!("file:/a b".parse(), Ok(LogTo::File("/a b".into())));
        for wrong in ["", "file", "file:", "Auto", "/var/log/x"] {
            assert!(wrong.parse::<LogTo>().is_err(), "{wrong}");
        }
    }
}
