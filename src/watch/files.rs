//! Changes of files: inotify on their directories, because editors and package managers put a new file
//! in the place of the old one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::task::{Poll, ready};

use log::debug;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::readable::Readable;

/// Inotify, which nix gives no number.
#[derive(Debug)]
struct Changes(Inotify);

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A directory, and what counts there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    directory: PathBuf,
    /// Only this name; `None`: all that is in it.
    name: Option<OsString>,
}

/// The files of a configuration, and where others may appear that it includes.
#[derive(Debug)]
pub(crate) struct FileChanges {
    changes: Readable<Changes>,
    watched: Vec<(Place, WatchDescriptor)>,
}

impl FileChanges {
    /// Watches nothing yet.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self {
            changes: Readable::new(Changes(inotify))?,
            watched: Vec::new(),
        })
    }

    /// Watches these files and directories, and no longer others; of those that do not exist, the nearest
    /// directory that does. Returns whether any place was not watched before: what changed there until
    /// now was not seen.
    pub(crate) fn watch<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) -> bool {
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        let wanted: BTreeSet<_> = paths.flat_map(places).collect();
        let before = std::mem::take(&mut self.watched);
        let inotify = &self.changes.get().0;
        for (_, watch) in before.iter().filter(|(place, _)| !wanted.contains(place)) {
            // It fails if the directory is gone, and its watch with it.
            let _ = inotify.rm_watch(*watch);
        }
        for place in wanted {
            // Again, because another directory may have taken its place.
            match inotify.add_watch(&place.directory, events) {
                Ok(watch) => self.watched.push((place, watch)),
                Err(errno) => debug!(
                    "{}: {errno}: its changes count after SIGHUP",
                    place.directory.display()
                ),
            }
        }
        self.watched.iter().any(|one| !before.contains(one))
    }

    /// Ends when something has changed since the last call.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            loop {
                match self.changes.get().0.read_events() {
                    Ok(events) if events.iter().any(|event| self.counts(event)) => {
                        return Poll::Ready(Ok(()));
                    }
                    // There may be more, of which nothing would tell.
                    Ok(events) if !events.is_empty() => continue,
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Poll::Ready(Err(errno.into())),
                }
                ready!(self.changes.poll_readable(context))?;
            }
        })
        .await
    }

    fn counts(&self, event: &InotifyEvent) -> bool {
        let of_place = self.watched.iter().filter(|(_, watch)| *watch == event.wd);
        // Without a name, it is about the directory itself.
        let mut of_place = of_place.filter(|(place, _)| {
            place.name.is_none() || event.name.is_none() || place.name == event.name
        });
        event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            || of_place.any(|(place, _)| !is_yet_to_be_written(&place.directory, event))
    }
}

/// Whether it is a new file that somebody has still to write: one more event comes when that is done.
fn is_yet_to_be_written(directory: &Path, event: &InotifyEvent) -> bool {
    let is_symlink = |name: &OsString| directory.join(name).is_symlink();
    event.mask.contains(AddWatchFlags::IN_CREATE)
        && !event.mask.contains(AddWatchFlags::IN_ISDIR)
        && !event.name.as_ref().is_some_and(is_symlink)
}

/// Where a change may change what is found at `path`.
fn places(path: &Path) -> BTreeSet<Place> {
    let all_of = |directory: &Path| Place {
        directory: here_if_empty(directory).to_owned(),
        name: None,
    };
    let parent_of = |path: &Path| path.parent().map(all_of);
    if path.is_dir() {
        let link = path.is_symlink().then(|| parent_of(path)).flatten();
        return link.into_iter().chain([all_of(path)]).collect();
    }
    if let Ok(real) = path.canonicalize() {
        // The directory that has the file's name, and the one that has the file itself.
        return [path, &real].into_iter().filter_map(parent_of).collect();
    }
    let mut ancestors = path.ancestors().skip(1);
    let nearest = ancestors.find(|directory| here_if_empty(directory).is_dir());
    let awaited = nearest.and_then(|nearest| {
        let name = path.strip_prefix(nearest).ok()?.components().next()?;
        Some(Place {
            directory: here_if_empty(nearest).to_owned(),
            name: Some(name.as_os_str().to_owned()),
        })
    });
    awaited.into_iter().collect()
}

fn here_if_empty(directory: &Path) -> &Path {
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}
