//! Where messages go, without ever waiting for whoever reads them.

use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};
use std::{env, process};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use syslog::{Facility, Formatter3164, LogFormat, LoggerBackend};

use crate::cli::LogTo;

/// Where the local syslog daemon listens.
const SYSLOG_SOCKET: &str = "/dev/log";

/// Starts logging. Nothing is opened until the first message, so that this costs nothing on the
/// way to the first frame.
pub fn start(to: LogTo, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::Warn,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let logger = Box::new(Logger {
        to,
        sink: Mutex::new(None),
    });
    // A second start would be a second main().
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

struct Logger {
    to: LogTo,
    sink: Mutex<Option<Sink>>,
}

enum Sink {
    Terminal(Stderr),
    /// stderr is systemd's journal, which takes a priority in front of each line (sd-daemon(3)).
    Journal(Stderr),
    Syslog(Box<syslog::Logger<LoggerBackend, Formatter3164>>),
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The netlink crates log, too: their inner life is of no interest here.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = sink.get_or_insert_with(|| Sink::open(self.to));
        // A message that can't be delivered is lost: the work is more important than the word.
        let _ = sink.write(record.level(), &record.args().to_string());
    }

    fn flush(&self) {}
}

impl Sink {
    fn open(to: LogTo) -> Self {
        let stderr = io::stderr();
        let journal = is_journal(&stderr);
        let on_stderr = || {
            if journal {
                Self::Journal(io::stderr())
            } else {
                Self::Terminal(io::stderr())
            }
        };
        match to {
            LogTo::Stderr => on_stderr(),
            LogTo::Auto if journal || io::IsTerminal::is_terminal(&stderr) => on_stderr(),
            // Without a daemon there is still stderr, wherever that leads.
            LogTo::Auto | LogTo::Syslog => Self::syslog().unwrap_or_else(|_| on_stderr()),
        }
    }

    fn syslog() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG_SOCKET)?;
        // A daemon that does not read must not stop a failover.
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
                let word = match level {
                    Level::Error => "error: ",
                    Level::Warn => "warning: ",
                    Level::Info | Level::Debug | Level::Trace => "",
                };
                write_if_ready(stderr, &format!("{word}{message}\n"))
            }
            Self::Journal(stderr) => {
                write_if_ready(stderr, &format!("<{}>{message}\n", severity(level)))
            }
            Self::Syslog(logger) => {
                let (formatter, socket) = (&logger.formatter, &mut logger.backend);
                let severity = match level {
                    Level::Error => syslog::Severity::LOG_ERR,
                    Level::Warn => syslog::Severity::LOG_WARNING,
                    Level::Info => syslog::Severity::LOG_INFO,
                    Level::Debug | Level::Trace => syslog::Severity::LOG_DEBUG,
                };
                formatter
                    .format(socket, severity, message)
                    .map_err(io::Error::other)
            }
        }
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
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

/// Whether stderr is the stream that systemd connected to the journal: `JOURNAL_STREAM` names
/// its device and inode (systemd.exec(5)).
fn is_journal(stderr: &Stderr) -> bool {
    let Some((device, inode)) = env::var("JOURNAL_STREAM").ok().and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    fstat(stderr.as_fd()).is_ok_and(|file| file.st_dev == device && file.st_ino == inode)
}
