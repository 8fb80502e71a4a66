//! What a command prints and logs.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::cli::Global;
use crate::error::Error;
use crate::exit::Exit;
use crate::report::Report;
use crate::signals::termination;

/// Reports that wait for stdout; more are lost.
const MOST_WAITING: usize = 1000;
/// Once a signal has come, stdout that takes nothing for this long is given up.
const STUCK: Duration = Duration::from_millis(25);
/// And one that takes little at a time is given up after this.
const SLOW: Duration = Duration::from_millis(500);

/// How a command ended, and what it has to print.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) exit: Exit,
    pub(super) stdout: String,
}

impl Done {
    /// Done, with nothing to print.
    pub(super) fn silent(exit: Exit) -> Self {
        Self {
            exit,
            stdout: String::new(),
        }
    }
}

/// Logs what happened. Returns what to print: with `--json`, the report.
pub(super) fn deliver(global: &Global, report: &impl Report) -> Result<String, Error> {
    report.log();
    if global.json {
        print(global, report)
    } else {
        Ok(String::new())
    }
}

/// What to print of a report.
pub(super) fn print(global: &Global, report: &impl Report) -> Result<String, Error> {
    if global.json {
        let json = serde_json::to_string(report).map_err(|error| Error::Stdout(error.into()))?;
        Ok(escape_c1(json) + "\n")
    } else {
        Ok(report.text())
    }
}

/// Prints what a command that ends with `exit` has to print. A signal ends the wait for whoever
/// reads it. Returns the exit status.
pub(super) async fn write(text: String, exit: Exit) -> Result<Exit, Error> {
    if text.is_empty() {
        return Ok(exit);
    }
    let mut written = pin!(written(text));
    let ended = match exit {
        Exit::Terminated | Exit::Interrupted => exit,
        // First the signal, so that it is blocked when the thread starts, which inherits that.
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
    warn!("stdout takes nothing: the report is not printed to its end");
    Ok(ended)
}

/// Where reports go that are not the last thing that happens: they are printed in their order, as
/// soon as stdout takes them.
#[derive(Debug)]
pub(super) struct Printer(mpsc::Sender<String>);

impl Printer {
    /// Begins to print, until the printer is dropped. The second part ends when all is printed.
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
            // It fails only by a panic, which ends the process.
            let _ = printing.await;
        })
    }

    pub(super) fn print(&self, text: String) {
        if !text.is_empty() && self.0.try_send(text).is_err() {
            warn!("stdout takes nothing: a report is lost");
        }
    }
}

/// Ends when `text` is written. A thread writes it, because no file tells for sure that a write
/// will not wait, and stdout can't be made not to wait: it is shared with whoever started this.
async fn written(text: String) -> Result<(), Error> {
    let (done, end) = oneshot::channel();
    let write = move || {
        // Nobody waits for it any more: the process ends.
        let _ = done.send(io::stdout().write_all(text.as_bytes()));
    };
    thread::Builder::new().spawn(write).map_err(Error::Stdout)?;
    end.await
        .unwrap_or_else(|_| Err(io::Error::other("the writing thread ended")))
        .map_err(Error::Stdout)
}

/// Whether stdout would take something now.
fn takes_more() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// JSON without the control characters that it allows as they are, and terminals obey.
fn escape_c1(json: String) -> String {
    const C1: RangeInclusive<char> = '\u{7f}'..='\u{9f}';
    if !json.contains(|character| C1.contains(&character)) {
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
