//! Following keepalived's notify FIFO: every event in order, none of them late.
//!
//! keepalived drops a line without notice when the pipe is full. So the pipe is read all the
//! time, and each instance and group has a task of its own, in which a newer event ends the older
//! one's answer. Of events that come in while one is being ended only the last counts: the
//! kernel says what holds, and the last event asks it.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;

use log::{debug, warn};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use crate::error::Error;
use crate::event::{Event, Subject};
use crate::exit::Exit;

/// Octets of the longest line that keepalived can mean; what is longer is garbage.
const LONGEST_LINE: usize = 4096;
/// Octets that are read at once: what a pipe holds at first.
const AT_ONCE: usize = 64 * 1024;
/// Octets that the pipe is to hold, which is what the kernel grants to everybody
/// (`fs.pipe-max-size`): room for 10,000 lines that come faster than anybody can read.
const PIPE: i32 = 1024 * 1024;

/// Ends what is being done, and says with which status.
pub(crate) type Stop = Pin<Box<dyn Future<Output = Exit>>>;

/// Hands every event to `answer`, with what ends that when a newer event has come, until
/// keepalived closes the FIFO, and waits for the answers that then still run; or until `stop`.
pub(crate) async fn follow<A, F>(path: &Path, mut stop: Stop, answer: A) -> Result<Exit, Error>
where
    A: Fn(Event, Stop) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let unusable = |source| Error::Fifo {
        path: path.to_owned(),
        source,
    };
    let fifo = open(path).map_err(unusable)?;
    let tasks = LocalSet::new();
    let work = tasks.run_until(async {
        let mut workers = Workers::new(answer);
        read_events(fifo, |event| workers.hand(event)).await?;
        workers.finish().await;
        Ok(Exit::Done)
    });
    tokio::select! {
        exit = &mut stop => Ok(exit),
        done = work => done.map_err(unusable),
    }
}

/// Opens the FIFO, and waits until there is somebody to write to it.
fn open(path: &Path) -> io::Result<pipe::Receiver> {
    if !path.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other(
            "not a FIFO: keepalived's notify_fifo names it",
        ));
    }
    let fifo = File::open(path)?;
    if let Err(errno) = fcntl(&fifo, FcntlArg::F_SETPIPE_SZ(PIPE)) {
        debug!("the FIFO keeps its size: {errno}");
    }
    pipe::Receiver::from_file(fifo)
}

/// Hands over the events of the FIFO, in order, until it is closed.
async fn read_events(fifo: pipe::Receiver, mut on_event: impl FnMut(Event)) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut octets = vec![0; AT_ONCE];
    loop {
        fifo.readable().await?;
        match fifo.try_read(&mut octets) {
            Ok(0) => {
                lines.end();
                return Ok(());
            }
            Ok(read) => lines.add(&octets[..read], &mut on_event),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lines out of pieces.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    /// Whether the line at hand is already known to be garbage.
    overlong: bool,
}

impl Lines {
    fn add(&mut self, octets: &[u8], on_event: &mut impl FnMut(Event)) {
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.append(end);
                    self.take(on_event);
                }
                None => self.append(piece),
            }
        }
    }

    fn append(&mut self, piece: &[u8]) {
        if self.partial.len() + piece.len() > LONGEST_LINE {
            self.overlong = true;
            self.partial.clear();
        }
        if !self.overlong {
            self.partial.extend_from_slice(piece);
        }
    }

    fn take(&mut self, on_event: &mut impl FnMut(Event)) {
        let line = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.overlong) {
            warn!("the FIFO brought a line of more than {LONGEST_LINE} octets: passed over");
            return;
        }
        match std::str::from_utf8(&line).ok().and_then(Event::from_line) {
            Some(event) => on_event(event),
            None => warn!(
                "the FIFO brought a line that is no event: passed over: {:?}",
                String::from_utf8_lossy(&line)
            ),
        }
    }

    fn end(&self) {
        if !self.partial.is_empty() {
            warn!("the FIFO ended in the middle of a line: passed over");
        }
    }
}

/// A task for each instance and group that had an event.
struct Workers<A> {
    answer: Rc<A>,
    newest: HashMap<(Subject, String), watch::Sender<Option<Event>>>,
    tasks: JoinSet<()>,
}

impl<A, F> Workers<A>
where
    A: Fn(Event, Stop) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    fn new(answer: A) -> Self {
        Self {
            answer: Rc::new(answer),
            newest: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    fn hand(&mut self, event: Event) {
        // A mere change of priority ends no announcement.
        if event.calls_for().is_none() {
            debug!("{}: nothing to do for {}", event.name, event.state);
            return;
        }
        let newest = self
            .newest
            .entry((event.of, event.name.clone()))
            .or_insert_with(|| {
                let (newest, events) = watch::channel(None);
                let answer = Rc::clone(&self.answer);
                self.tasks.spawn_local(work(answer, events));
                newest
            });
        newest.send_replace(Some(event));
    }

    /// Waits for the answers that still run.
    async fn finish(mut self) {
        self.newest.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Answers one event after the other, each until the next one comes.
async fn work<A, F>(answer: Rc<A>, mut events: watch::Receiver<Option<Event>>)
where
    A: Fn(Event, Stop) -> F,
    F: Future<Output = ()>,
{
    while events.changed().await.is_ok() {
        let Some(event) = events.borrow_and_update().clone() else {
            continue;
        };
        let mut later = events.clone();
        let newer: Stop = Box::pin(async move {
            match later.changed().await {
                Ok(()) => Exit::Superseded,
                // keepalived closed the FIFO: this was the last event.
                Err(_) => std::future::pending().await,
            }
        });
        answer(event, newer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut names = Vec::new();
        for piece in pieces {
            lines.add(piece, &mut |event| names.push(event.name));
        }
        names
    }

    #[test]
    fn lines_come_in_pieces() {
        let whole = b"INSTANCE \"a\" MASTER 1\nGROUP \"b\" BACKUP 0\n";
        for cut in 0..whole.len() {
            let (one, two) = whole.split_at(cut);
            assert_eq!(events_of(&[one, two]), ["a", "b"]);
        }
    }

    #[test]
    fn garbage_is_survived() {
        let long = [b'x'; 3 * LONGEST_LINE];
        let good = b"\nINSTANCE \"a\" FAULT 1\n";
        assert_eq!(events_of(&[&long, &long, good]), ["a"]);
        assert_eq!(events_of(&[&[0xff, 0, 0xfe, b'\n'], good]), ["a"]);
    }
}
