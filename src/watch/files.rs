//! Changes of files: inotify on their directories, because editors and package managers put a new file
//! in the place of the old one.

use std::collections::BTreeSet;
use std::future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::task::{Poll, ready};

use log::debug;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

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

/// The files of a configuration, and what else is in their directories: an include may match a new file.
#[derive(Debug)]
pub(crate) struct FileChanges {
    changes: Readable<Changes>,
    watched: Vec<(PathBuf, WatchDescriptor)>,
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

    /// Watches these files, and no longer others.
    pub(crate) fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        let directories: BTreeSet<_> = files.flat_map(directories).collect();
        let inotify = &self.changes.get().0;
        self.watched.retain(|(directory, watch)| {
            let stays = directories.contains(directory);
            if !stays {
                // It fails if the directory is gone, and its watch with it.
                let _ = inotify.rm_watch(*watch);
            }
            stays
        });
        for directory in directories {
            // Again, because another directory may have taken its place.
            match inotify.add_watch(&directory, events) {
                Ok(watch) => {
                    self.watched.retain(|(known, _)| *known != directory);
                    self.watched.push((directory, watch));
                }
                Err(errno) => debug!(
                    "{}: {errno}: its changes count after SIGHUP",
                    directory.display()
                ),
            }
        }
    }

    /// Ends when something has changed since the last call.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            loop {
                match self.changes.get().0.read_events() {
                    Ok(events) if !events.is_empty() => return Poll::Ready(Ok(())),
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Poll::Ready(Err(errno.into())),
                }
                ready!(self.changes.poll_readable(context))?;
            }
        })
        .await
    }
}

/// The directory that has a file's name, and the one that has the file itself.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let real = file.canonicalize().ok();
    let both = [Some(file.to_owned()), real];
    let parents = both.into_iter().flatten().filter_map(|file| {
        let parent = file.parent()?;
        Some(match parent.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => parent.to_owned(),
        })
    });
    parents.collect()
}
