//! Following keepalived's notify FIFO: every event in order, none of them late.
//!
//! keepalived drops a line without notice when the pipe is full. So the pipe is read all the
//! time, and each instance and group has a task of its own, in which a newer event ends the older
//! one's answer. Of events that come in while one is being ended only the last counts: the
//! kernel says what holds, and the last event asks it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, warn};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};
use vipherald_core::event::{Call, Event, Subject, is_about_servers};
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived::Configuration;
use vipherald_core::log_limit::RateLimit;

use crate::error::Error;
use crate::exit::Exit;

/// Octets of the longest line that keepalived can mean; what is longer is garbage.
const LONGEST_LINE: usize = 4096;
/// Octets that are read at once: what a pipe holds at first.
const AT_ONCE: usize = 64 * 1024;
/// Octets that the pipe is to hold, which is what the kernel grants to everybody
/// (`fs.pipe-max-size`): room for 10,000 lines that come faster than anybody can read.
const PIPE: i32 = 1024 * 1024;
/// By when keepalived has told of every instance, if it is only starting: it takes 0.3 s. After a
/// reload it tells of none.
const TOLD_BY: Duration = Duration::from_secs(1);
/// Warnings a minute about lines that make no sense.
const WARNINGS: u32 = 6;

/// Ends what is being done, and says with which status.
pub(crate) type Stop = Pin<Box<dyn Future<Output = Exit>>>;

/// What there is to answer.
#[derive(Clone, Debug)]
pub(crate) enum Occasion {
    /// keepalived told of an event that calls for something.
    Told(Event, Call),
    /// It told nothing of this instance, of which these VIPs are here.
    Untold(String, Vec<PlacedVip>),
}

impl Occasion {
    /// The instance or group.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Told(event, _) => &event.name,
            Self::Untold(instance, _) => instance,
        }
    }

    fn subject(&self) -> Subject {
        match self {
            Self::Told(event, _) => event.of,
            Self::Untold(..) => Subject::Instance,
        }
    }

    fn announces(&self) -> bool {
        !matches!(self, Self::Told(_, Call::Purge))
    }
}

/// Who answers what the FIFO brings.
pub(crate) trait Answers {
    /// Which of these instances have VIPs on this host, and which VIPs those are.
    async fn held(&self, instances: &BTreeSet<String>) -> Vec<(String, Vec<PlacedVip>)>;

    /// Does what is called for, until `newer` ends it.
    async fn answer(&self, occasion: Occasion, newer: Stop);
}

/// Has every event answered until keepalived closes the FIFO, and waits for the answers that then
/// still run; or until `stop`.
///
/// Of the instances in `untold` that no event was about in the first moment, those VIPs are
/// announced that are here: keepalived has reloaded its configuration, which ended the reader before
/// this one and what it announced.
pub(crate) async fn follow(
    path: &Path,
    mut stop: Stop,
    untold: Untold,
    answers: impl Answers + 'static,
) -> Result<Exit, Error> {
    let unusable = |source| Error::Fifo {
        path: path.to_owned(),
        source,
    };
    let fifo = open(path).map_err(unusable)?;
    let mut workers = Workers::new(answers);
    let announcing = Rc::clone(&workers.announcing);
    let work = async {
        if let Some(exit) = read(fifo, &mut stop, untold, &mut workers).await? {
            return Ok(exit);
        }
        tokio::select! {
            biased;
            exit = &mut stop => Ok(exit),
            () = workers.finish() => Ok(Exit::Done),
        }
    };
    let exit = LocalSet::new().run_until(work).await.map_err(unusable)?;
    let cut = announcing.borrow();
    if !cut.is_empty() {
        let names: Vec<_> = cut.iter().map(String::as_str).collect();
        warn!(
            "ended by a signal: the announcement of {} is cut short; where keepalived reloads, the \
             next reader announces anew",
            names.join(", ")
        );
    }
    Ok(exit)
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

/// Hands over the events of the FIFO, in order, until it is closed, or until `stop`: then nothing
/// more is read, because another reader may already wait for what comes.
async fn read<A: Answers + 'static>(
    fifo: pipe::Receiver,
    stop: &mut Stop,
    mut untold: Untold,
    workers: &mut Workers<A>,
) -> io::Result<Option<Exit>> {
    let mut lines = Lines::default();
    let mut octets = vec![0; AT_ONCE];
    let told_by = Instant::now() + TOLD_BY;
    let mut all_told = false;
    loop {
        tokio::select! {
            biased;
            exit = &mut *stop => return Ok(Some(exit)),
            ready = fifo.readable() => ready?,
            () = sleep_until(told_by), if !all_told => {
                all_told = true;
                let instances = std::mem::take(&mut untold.instances);
                tokio::select! {
                    biased;
                    exit = &mut *stop => return Ok(Some(exit)),
                    held = workers.answers.held(&instances) => for (instance, vips) in held {
                        workers.hand(Occasion::Untold(instance, vips));
                    }
                }
                continue;
            }
        }
        let mut on_event = |event, call| {
            untold.strike(&event);
            workers.hand(Occasion::Told(event, call));
        };
        match fifo.try_read(&mut octets) {
            Ok(0) => {
                lines.end();
                return Ok(None);
            }
            Ok(read) => lines.add(&octets[..read], &mut on_event),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The instances that no event was about.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    instances: BTreeSet<String>,
    groups: HashMap<String, Vec<String>>,
}

impl Untold {
    /// At first, all of them.
    pub(crate) fn all(configuration: &Configuration) -> Self {
        let instances = configuration.instances().iter();
        let groups = configuration.groups().iter();
        Self {
            instances: instances.map(|instance| instance.name.clone()).collect(),
            groups: groups
                .map(|group| (group.name.clone(), group.instances.clone()))
                .collect(),
        }
    }

    /// Strikes off what an event is about.
    fn strike(&mut self, event: &Event) {
        match event.of {
            Subject::Instance => {
                self.instances.remove(&event.name);
            }
            Subject::Group => {
                for member in self.groups.get(&event.name).into_iter().flatten() {
                    self.instances.remove(member);
                }
            }
        }
    }
}

/// Lines out of pieces.
#[derive(Debug)]
struct Lines {
    partial: Vec<u8>,
    /// Whether the line at hand is already known to be garbage.
    overlong: bool,
    warnings: RateLimit,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            overlong: false,
            warnings: RateLimit::a_minute(WARNINGS),
        }
    }
}

impl Lines {
    fn add(&mut self, octets: &[u8], on_event: &mut impl FnMut(Event, Call)) {
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

    fn take(&mut self, on_event: &mut impl FnMut(Event, Call)) {
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        if std::mem::take(&mut self.overlong) {
            self.warn(|| {
                format!("the FIFO brought a line of more than {LONGEST_LINE} octets: passed over")
            });
            return;
        }
        let Some(event) = Event::from_line(&line) else {
            if is_about_servers(&line) {
                debug!("passed over, as it is about servers: {line:?}");
            } else {
                self.warn(|| {
                    format!("the FIFO brought a line that is no event: passed over: {line:?}")
                });
            }
            return;
        };
        match event.calls_for() {
            Ok(Some(call)) => on_event(event, call),
            // A mere change of priority ends no announcement.
            Ok(None) => debug!("{}: nothing to do for {}", event.name, event.state),
            Err(unknown) => self.warn(|| unknown.to_string()),
        }
    }

    /// Warns, though not of each line of a flood.
    fn warn(&mut self, text: impl FnOnce() -> String) {
        if !self.warnings.take(std::time::Instant::now()) {
            return;
        }
        let text = text();
        if self.warnings.is_spent() {
            warn!("{text}; for a minute, no more lines like this are told of");
        } else {
            warn!("{text}");
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
    answers: Rc<A>,
    newest: HashMap<(Subject, String), watch::Sender<Option<Occasion>>>,
    tasks: JoinSet<()>,
    /// Whose VIPs are being announced now.
    announcing: Rc<RefCell<Vec<String>>>,
}

impl<A: Answers + 'static> Workers<A> {
    fn new(answers: A) -> Self {
        Self {
            answers: Rc::new(answers),
            newest: HashMap::new(),
            tasks: JoinSet::new(),
            announcing: Rc::default(),
        }
    }

    fn hand(&mut self, occasion: Occasion) {
        let key = (occasion.subject(), occasion.name().to_owned());
        let newest = self.newest.entry(key).or_insert_with(|| {
            let (newest, occasions) = watch::channel(None);
            let (answers, announcing) = (Rc::clone(&self.answers), Rc::clone(&self.announcing));
            self.tasks.spawn_local(work(answers, announcing, occasions));
            newest
        });
        newest.send_replace(Some(occasion));
    }

    /// Waits for the answers that still run.
    async fn finish(mut self) {
        self.newest.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Answers one occasion after the other, each until the next one comes.
async fn work(
    answers: Rc<impl Answers>,
    announcing: Rc<RefCell<Vec<String>>>,
    mut occasions: watch::Receiver<Option<Occasion>>,
) {
    while occasions.changed().await.is_ok() {
        let Some(occasion) = occasions.borrow_and_update().clone() else {
            continue;
        };
        let mut later = occasions.clone();
        let newer: Stop = Box::pin(async move {
            match later.changed().await {
                Ok(()) => Exit::Superseded,
                // keepalived closed the FIFO: this was the last event.
                Err(_) => std::future::pending().await,
            }
        });
        if occasion.announces() {
            let name = occasion.name().to_owned();
            announcing.borrow_mut().push(name.clone());
            answers.answer(occasion, newer).await;
            announcing.borrow_mut().retain(|other| *other != name);
        } else {
            answers.answer(occasion, newer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut names = Vec::new();
        for piece in pieces {
            lines.add(piece, &mut |event, _| names.push(event.name));
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
    #[test]
    fn what_an_instance_or_its_group_is_told_is_told() {
        let groups = [("G".to_owned(), vec!["b".to_owned(), "c".to_owned()])];
        let mut untold = Untold {
            instances: ["a", "b", "c", "d"].map(str::to_owned).into(),
            groups: groups.into(),
        };
        for line in ["INSTANCE \"a\" BACKUP 1", "GROUP \"G\" MASTER 0"] {
            untold.strike(&Event::from_line(line).unwrap());
        }
        // Another group, and an instance that has the group's name.
        for line in ["GROUP \"d\" MASTER 0", "INSTANCE \"G\" MASTER 1"] {
            untold.strike(&Event::from_line(line).unwrap());
        }
        assert_eq!(untold.instances, ["d".to_owned()].into());
    }
}
