//! Reads keepalived's notify FIFO: every event in order, and at once. Beside it, this follows the kernel,
//! which reports a move of a VIP sooner than keepalived does, and moves of which keepalived says nothing.
//!
//! keepalived silently drops a line when the pipe is full. So this reads the pipe all the time, and
//! each instance and group has a task of its own, in which a newer event stops the work for the older
//! one. Of the events that come while that stops, only the last counts: the kernel says who holds the
//! VIPs, and the last event asks it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use log::{Level, debug, log, warn};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};
use vipherald_core::event::{Call, Event, Subject, is_about_servers};
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived::Configuration;
use vipherald_core::log_limit::RateLimit;
use vipherald_core::watch::{COME_WITHIN, Progress};

use crate::error::Error;
use crate::exit::Exit;
use crate::signals::Stop;
use crate::watch::{Act, Announcements, Watcher};

/// No line of keepalived has more octets; a longer one is garbage.
const LONGEST_LINE: usize = 4096;
/// Octets to read at once: what a pipe holds by default.
const AT_ONCE: usize = 64 * 1024;
/// Octets that the pipe shall hold, which the kernel grants to everybody (`fs.pipe-max-size`): room
/// for a burst of 10,000 lines.
const PIPE: i32 = 1024 * 1024;
/// Within this time a keepalived that is starting has reported every instance (it takes 0.3 s). After
/// a reload it reports none.
const ALL_MENTIONED_WITHIN: Duration = Duration::from_secs(1);
/// Warnings a minute about lines that make no sense, and errors about instances that are not known.
const WARNINGS: u32 = 6;

/// What calls for an announcement or a purge.
#[derive(Clone, Debug)]
pub(crate) enum Occasion {
    /// An event of keepalived.
    Event(Event, Call),
    /// An event that calls for what is done when the kernel reports the moves of its VIPs.
    Done(Event),
    /// No event was about this instance, and these VIPs of it are here.
    Unmentioned(String, Vec<PlacedVip>),
}

impl Occasion {
    /// The instance or group.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Event(event, _) | Self::Done(event) => &event.name,
            Self::Unmentioned(instance, _) => instance,
        }
    }

    fn subject(&self) -> Subject {
        match self {
            Self::Event(event, _) | Self::Done(event) => event.of,
            Self::Unmentioned(..) => Subject::Instance,
        }
    }

    fn announces(&self) -> bool {
        matches!(self, Self::Event(_, Call::Announce) | Self::Unmentioned(..))
    }
}

/// Does what the FIFO's events call for.
pub(crate) trait Respond: Act {
    /// The instances that an event is about.
    fn members(&self, event: &Event) -> Vec<String>;

    /// Whether this knows the instance or group of an event. A worker lasts as long as the FIFO, so
    /// there is none for a name that keepalived.conf does not have.
    ///
    /// # Errors
    /// Why not, for the log.
    fn serves(&self, event: &Event) -> Result<(), String>;

    /// Does what the occasion calls for, until `newer` ends it.
    async fn respond(&self, occasion: Occasion, newer: Stop);
}

/// Responds to every event, and to every move of a VIP that the kernel reports to `watcher`, until
/// keepalived closes the FIFO, and then waits for the responses in progress; or until `stop`.
///
/// If no event mentions an instance of `unmentioned` in the first moment, keepalived has reloaded its
/// configuration, which ended the reader before this one and its announcements. So those VIPs of the
/// instance that are here are announced.
pub(crate) async fn follow(
    path: &Path,
    mut stop: Stop,
    unmentioned: Unmentioned,
    watcher: impl Future<Output = Option<Watcher>>,
    responder: impl Respond + 'static,
) -> Result<Exit, Error> {
    let unusable = |source| Error::Fifo {
        path: path.to_owned(),
        source,
    };
    let fifo = open(path).map_err(unusable)?;
    let mut workers = Workers::new(responder);
    let announcing = Rc::clone(&workers.announcing);
    let work = async {
        let watcher = watcher.await;
        if let Some(exit) = read(fifo, &mut stop, unmentioned, watcher, &mut workers).await? {
            return Ok(exit);
        }
        tokio::select! {
            biased;
            exit = &mut stop => Ok(exit),
            () = workers.finish() => Ok(Exit::Done),
        }
    };
    let exit = LocalSet::new().run_until(work).await.map_err(unusable)?;
    let mut cut = announcing.borrow().clone();
    cut.extend(workers.begun.units());
    if !cut.is_empty() {
        let names: Vec<_> = cut.iter().map(String::as_str).collect();
        warn!(
            "ended by a signal: the announcement of {} is cut short; if keepalived reloads, the next \
             reader announces again",
            names.join(", ")
        );
    }
    Ok(exit)
}

/// Opens the FIFO, which waits until somebody has it open for writing.
fn open(path: &Path) -> io::Result<pipe::Receiver> {
    if !path.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other(
            "not a FIFO: see notify_fifo in keepalived.conf",
        ));
    }
    let fifo = File::open(path)?;
    if let Err(errno) = fcntl(&fifo, FcntlArg::F_SETPIPE_SZ(PIPE)) {
        debug!("the FIFO keeps its size: {errno}");
    }
    pipe::Receiver::from_file(fifo)
}

/// Gives the FIFO's events to the workers, in order, until it is closed, or until `stop`: from then on
/// it reads nothing more, because the next reader may already wait for it.
async fn read<R: Respond + 'static>(
    fifo: pipe::Receiver,
    stop: &mut Stop,
    mut unmentioned: Unmentioned,
    mut watcher: Option<Watcher>,
    workers: &mut Workers<R>,
) -> io::Result<Option<Exit>> {
    let mut lines = Lines::default();
    let mut octets = vec![0; AT_ONCE];
    let all_mentioned = Instant::now() + ALL_MENTIONED_WITHIN;
    let mut is_past = false;
    loop {
        tokio::select! {
            biased;
            exit = &mut *stop => return Ok(Some(exit)),
            changed = changed(watcher.as_ref()) => {
                changed?;
                workers.act_on_moves(&mut watcher).await;
                continue;
            }
            () = at(workers.due()) => {
                workers.act_on_moves(&mut watcher).await;
                continue;
            }
            ready = fifo.readable() => ready?,
            () = sleep_until(all_mentioned), if !is_past => {
                is_past = true;
                for instance in std::mem::take(&mut unmentioned.instances) {
                    let here = watcher.as_ref().map(|watcher| watcher.here_before(&instance));
                    if let Some(vips) = here.filter(|vips| !vips.is_empty()) {
                        workers.assign(Occasion::Unmentioned(instance, vips));
                    }
                }
                continue;
            }
        }
        let read = fifo.try_read(&mut octets);
        // keepalived writes after it has moved the VIPs: the kernel has reported what these lines are about,
        // except for some IPv6 addresses.
        workers.act_on_moves(&mut watcher).await;
        let mut on_event = |event: Event, call| {
            workers.responder.serves(&event)?;
            unmentioned.remove(&event);
            workers.respond(event, call, watcher.as_mut());
            Ok(())
        };
        match read {
            Ok(0) => {
                lines.end();
                workers.act_on_waiting();
                return Ok(None);
            }
            Ok(read) => lines.add(&octets[..read], &mut on_event),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends when the kernel may have reported a move.
async fn changed(watcher: Option<&Watcher>) -> io::Result<()> {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The instances that no event has mentioned, themselves or by their group.
#[derive(Debug, Default)]
pub(crate) struct Unmentioned {
    instances: BTreeSet<String>,
    groups: HashMap<String, Vec<String>>,
}

impl Unmentioned {
    /// At first, all.
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

    fn remove(&mut self, event: &Event) {
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

/// Assembles lines from pieces.
#[derive(Debug)]
struct Lines {
    partial: Vec<u8>,
    /// Whether the current line is already too long.
    overlong: bool,
    warnings: RateLimit,
    errors: RateLimit,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            overlong: false,
            warnings: RateLimit::a_minute(WARNINGS),
            errors: RateLimit::a_minute(WARNINGS),
        }
    }
}

impl Lines {
    fn add(&mut self, octets: &[u8], on_event: &mut impl FnMut(Event, Call) -> Result<(), String>) {
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

    fn take(&mut self, on_event: &mut impl FnMut(Event, Call) -> Result<(), String>) {
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        if std::mem::take(&mut self.overlong) {
            self.warn(|| format!("ignored a line of more than {LONGEST_LINE} octets in the FIFO"));
            return;
        }
        let Some(event) = Event::from_line(&line) else {
            if is_about_servers(&line) {
                debug!("ignored, because it is about servers: {line:?}");
            } else {
                self.warn(|| format!("ignored a line in the FIFO that is no event: {line:?}"));
            }
            return;
        };
        match event.calls_for() {
            Ok(Some(call)) => {
                let refused = on_event(event, call).err();
                if let Some(error) = refused {
                    log_limited(&mut self.errors, Level::Error, || error);
                }
            }
            // A change of priority alone must not end an announcement.
            Ok(None) => debug!("{}: nothing to do for {}", event.name, event.state),
            Err(unknown) => self.warn(|| unknown.to_string()),
        }
    }

    fn warn(&mut self, text: impl FnOnce() -> String) {
        log_limited(&mut self.warnings, Level::Warn, text);
    }

    fn end(&self) {
        if !self.partial.is_empty() {
            warn!("the FIFO ended in the middle of a line, which is ignored");
        }
    }
}

/// Logs, but not every line of a flood.
fn log_limited(limit: &mut RateLimit, level: Level, text: impl FnOnce() -> String) {
    if !limit.take(std::time::Instant::now()) {
        return;
    }
    let text = text();
    if limit.is_spent() {
        log!(level, "{text}; for a minute, no more such lines are logged");
    } else {
        log!(level, "{text}");
    }
}

/// An event that waits for the kernel's reports on its VIPs.
struct Waiting {
    event: Event,
    call: Call,
    until: Instant,
}

/// A task for each instance and group that had an event.
struct Workers<R> {
    responder: Rc<R>,
    /// One event of an instance or group at most.
    waiting: Vec<Waiting>,
    newest: HashMap<(Subject, String), watch::Sender<Option<Occasion>>>,
    tasks: JoinSet<()>,
    /// Whose VIPs are being announced now.
    announcing: Rc<RefCell<Vec<String>>>,
    /// What moves of VIPs began.
    begun: Announcements<R>,
}

impl<R: Respond + 'static> Workers<R> {
    fn new(responder: R) -> Self {
        let responder = Rc::new(responder);
        Self {
            begun: Announcements::new(Rc::clone(&responder)),
            responder,
            waiting: Vec::new(),
            newest: HashMap::new(),
            tasks: JoinSet::new(),
            announcing: Rc::default(),
        }
    }

    /// Responds to the moves that the kernel has reported, and to the events that waited for them.
    async fn act_on_moves(&mut self, watcher: &mut Option<Watcher>) {
        if let Some(watching) = watcher
            && let Err(error) = self.begun.act(watching).await
        {
            warn!("{error}: from now on, only keepalived's events count");
            *watcher = None;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            match self.progress(&waiting, watcher.as_mut()) {
                Progress::Done => {}
                Progress::Begun => self.waiting.push(waiting),
                Progress::New => self.act_on(waiting),
            }
        }
    }

    /// Responds to an event, unless the kernel reported the same before, or is about to.
    fn respond(&mut self, event: Event, call: Call, watcher: Option<&mut Watcher>) {
        let is_newer = |one: &Waiting| one.event.of == event.of && one.event.name == event.name;
        self.waiting.retain(|one| !is_newer(one));
        let until = Instant::now() + COME_WITHIN;
        let waiting = Waiting { event, call, until };
        let progress = self.progress(&waiting, watcher);
        if progress == Progress::New {
            self.act_on(waiting);
            return;
        }
        let event = waiting.event.clone();
        debug!("{}: {}: {progress:?}", event.name, event.state);
        self.assign(Occasion::Done(event));
        if progress == Progress::Begun {
            self.waiting.push(waiting);
        }
    }

    fn progress(&self, waiting: &Waiting, watcher: Option<&mut Watcher>) -> Progress {
        let Waiting { event, call, until } = waiting;
        let members = self.responder.members(event);
        match watcher.map(|watcher| watcher.progress(event, *call, &members)) {
            None => Progress::New,
            Some(Progress::Begun) if Instant::now() >= *until => Progress::New,
            Some(progress) => progress,
        }
    }

    /// Does what an event calls for that is news.
    fn act_on(&mut self, Waiting { event, call, .. }: Waiting) {
        self.begun.stop(&self.responder.members(&event));
        self.assign(Occasion::Event(event, call));
    }

    /// When an event has waited long enough.
    fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|one| one.until).min()
    }

    /// Acts on the events that still wait: from now on, the kernel is not heard.
    fn act_on_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.act_on(waiting);
        }
    }

    fn assign(&mut self, occasion: Occasion) {
        let key = (occasion.subject(), occasion.name().to_owned());
        let newest = self.newest.entry(key).or_insert_with(|| {
            let (newest, occasions) = watch::channel(None);
            let (responder, announcing) = (Rc::clone(&self.responder), Rc::clone(&self.announcing));
            self.tasks
                .spawn_local(work(responder, announcing, occasions));
            newest
        });
        newest.send_replace(Some(occasion));
    }

    /// Waits for the responses in progress.
    async fn finish(&mut self) {
        self.newest.clear();
        while self.tasks.join_next().await.is_some() {}
        self.begun.finish().await;
    }
}

/// Responds to one occasion after the other, each until the next one comes.
async fn work(
    responder: Rc<impl Respond>,
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
            responder.respond(occasion, newer).await;
            announcing.borrow_mut().retain(|other| *other != name);
        } else {
            responder.respond(occasion, newer).await;
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
            lines.add(piece, &mut |event, _| {
                names.push(event.name);
                Ok(())
            });
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
    fn an_event_mentions_an_instance_or_all_of_a_group() {
        let groups = [("G".to_owned(), vec!["b".to_owned(), "c".to_owned()])];
        let mut unmentioned = Unmentioned {
            instances: ["a", "b", "c", "d"].map(str::to_owned).into(),
            groups: groups.into(),
        };
        for line in ["INSTANCE \"a\" BACKUP 1", "GROUP \"G\" MASTER 0"] {
            unmentioned.remove(&Event::from_line(line).unwrap());
        }
        // Another group, and an instance that has the group's name.
        for line in ["GROUP \"d\" MASTER 0", "INSTANCE \"G\" MASTER 1"] {
            unmentioned.remove(&Event::from_line(line).unwrap());
        }
        assert_eq!(unmentioned.instances, ["d".to_owned()].into());
    }
}
