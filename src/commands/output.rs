//! What a command prints and logs.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::cli::Global;
use crate::error::Error;
use crate::exit::Exit;
use crate::history::receipt::Fresh;
use crate::moment;
use crate::privileges::Capability;
use crate::report::Report;
use crate::signals::termination;
use crate::stragglers::Departure;

/// Reports that may wait for stdout; more are lost.
const MOST_WAITING: usize = 1000;
/// After a signal, give stdout up if it takes nothing for this long.
const STUCK: Duration = Duration::from_millis(25);
/// After a signal, give stdout up after this, even if it takes a little at a time.
const SLOW: Duration = Duration::from_millis(500);

/// How a command ended, and what is left to print.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) exit: Exit,
    pub(super) stdout: String,
    /// What to keep in the history.
    pub(super) receipts: Vec<Fresh>,
    /// VIPs that left: who still sends to them is looked for after all else.
    pub(super) departure: Option<Departure>,
}

impl Done {
    /// A command with nothing to print.
    pub(super) fn silent(exit: Exit) -> Self {
        Self {
            exit,
            stdout: String::new(),
            receipts: Vec::new(),
            departure: None,
        }
    }

    /// Logs a report, and prints it with `--json`. A dry run only prints it.
    pub(super) fn report<R>(global: &Global, report: R) -> Result<Self, Error>
    where
        R: Report + Send + 'static,
    {
        if global.dry_run {
            return Self::print(global, &report);
        }
        report.log();
        let done = if global.json {
            Self::print(global, &report)?
        } else {
            Self::silent(report.exit())
        };
        Ok(done.kept(report))
    }

    /// The same with a receipt, if the report is worth one.
    pub(super) fn kept(mut self, mut report: impl Report + Send + 'static) -> Self {
        if report.is_worth_a_receipt() {
            let lasts = report.began().map(|began| began.elapsed());
            let began = moment::now().saturating_sub(lasts.unwrap_or_default());
            report.shorten();
            self.receipts.push(Fresh::of(report, began));
        }
        self
    }

    /// Prints a report.
    pub(super) fn print(global: &Global, report: &impl Report) -> Result<Self, Error> {
        let stdout = if global.json {
            let json = serde_json::to_string(report);
            escape_c1(json.map_err(|error| Error::Stdout(error.into()))?) + "\n"
        } else {
            report.text()
        };
        let exit = report.exit();
        Ok(Self {
            exit,
            stdout,
            receipts: Vec::new(),
            departure: None,
        })
    }

    /// The same with the exit status of the signal, or newer event, that stopped the command.
    pub(super) fn stopped(self, stopped: Option<Exit>) -> Self {
        Self {
            exit: stopped.unwrap_or(self.exit),
            ..self
        }
    }

    /// Writes to stdout what is left to print. A signal ends the wait for a slow reader. Returns the
    /// exit status.
    pub(super) async fn write(self) -> Result<Exit, Error> {
        let Self { exit, stdout, .. } = self;
        if stdout.is_empty() {
            return Ok(exit);
        }
        let mut written = pin!(written(stdout));
        let ended = match exit {
            Exit::Terminated | Exit::Interrupted => exit,
            // The signal first: it must be blocked when the thread starts, which inherits that.
            _ => tokio::select! {
                biased;
                ended = termination() => ended,
                done = &mut written => return done.map(|()| exit),
            },
        };
        let began = Instant::now();
        while began.elapsed() < SLOW {
            tokio::select! {
                biased;
                done = &mut written => return done.map(|()| ended),
                () = sleep(STUCK) => if !takes_more() {
                    break;
                }
            }
        }
        warn!("nobody reads stdout: the report is not printed to its end");
        Ok(ended)
    }
}

/// Prints reports in order while the command goes on, as fast as stdout takes them.
#[derive(Debug)]
pub(super) struct Printer(mpsc::Sender<String>);

impl Printer {
    /// Starts a printer. The future ends once the printer is dropped and all is printed.
    pub(super) fn start() -> (Self, impl Future<Output = ()>) {
        let (texts, mut waiting) = mpsc::channel::<String>(MOST_WAITING);
        let printing = tokio::spawn(async move {
            while let Some(text) = waiting.recv().await {
                if let Err(error) = written(text).await {
                    error!("{error}");
                }
            }
        });
        (Self(texts), async {
            // It can only fail by a panic, which aborts the process.
            let _ = printing.await;
        })
    }

    pub(super) fn print(&self, text: String) {
        if !text.is_empty() && self.0.try_send(text).is_err() {
            warn!("nobody reads stdout: a report is lost");
        }
    }
}

/// Ends when `text` is written. A thread writes it, because a write to any kind of file may block,
/// and stdout can't be set non-blocking: whoever started this process shares it.
async fn written(text: String) -> Result<(), Error> {
    let (done, end) = oneshot::channel();
    let write = move || {
        // Fails if nobody waits any more: the process ends.
        let _ = done.send(write_all(text.as_bytes()));
    };
    thread::Builder::new().spawn(write).map_err(Error::Stdout)?;
    end.await
        .unwrap_or_else(|_| Err(io::Error::other("the writing thread ended")))
        .map_err(Error::Stdout)
}

/// Writes to stdout. Rust's own `write_all` calls it done where stdout is closed (`EBADF`).
fn write_all(mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match write(io::stdout(), octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => octets = &octets[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether stdout would take anything now.
fn takes_more() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Escapes the control characters that JSON allows unescaped, and that terminals obey.
fn escape_c1(json: String) -> String {
    const C1: RangeInclusive<char> = '\u{7f}'..='\u{9f}';
    // It nearly always is, and to look at each character of a long report takes a while.
    if json.is_ascii() && !json.contains('\u{7f}') {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if C1.contains(&character) {
            escaped += &format!("\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Warns of missing capabilities, even if they were not needed this time: the next event may be the
/// first MASTER. Call it after the work, which it must not delay. It does not repeat what made the
/// work fail.
pub(super) fn warn_of_missing(needed: &[Capability], done: &Result<Done, Error>) {
    let failure = done.as_ref().err().map(Error::to_string);
    let failure = failure.unwrap_or_default();
    for capability in needed {
        if !capability.is_here() && !failure.contains(capability.name()) {
            warn!("{}", capability.advice());
        }
    }
}
