//! The budget of ARP frames on a link, which all processes of a network namespace share.
//!
//! A switch counts the frames of a port, whichever process sent them. So the times of the last frames are
//! in a file for each interface; its name has the namespace, because /run is often shared.

use std::fs::{DirBuilder, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use log::debug;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use nix::time::{ClockId, clock_gettime};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::ArpBudget;

/// Where the files are.
const FOLDER: &str = "/run/vipherald";
/// How soon to try again while another process has the file locked.
const TRY_AGAIN: Duration = Duration::from_millis(1);
/// A process that has it locked for longer is suspended, and does not count.
const PATIENCE: u32 = 100;
/// Octets of a time.
const TIME: usize = 8;

/// The budget of one link.
#[derive(Debug)]
pub(crate) struct SharedBudget {
    rate: NonZeroU32,
    /// `None` where no file can be had: then the budget is this process's own.
    file: Option<File>,
    own: ArpBudget,
    tries: u32,
}

impl SharedBudget {
    /// Opens the budget of an interface, in frames per second.
    pub(crate) fn open(interface: InterfaceIndex, rate: NonZeroU32) -> Self {
        let file = file_of(interface).inspect_err(|error| {
            debug!("{FOLDER}: {error}: other processes' ARP frames do not count");
        });
        Self {
            rate,
            file: file.ok(),
            own: ArpBudget::default(),
            tries: 0,
        }
    }

    /// Uses the budget for one frame, or returns when to try again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let clock = nanoseconds();
        let later = |at: u64| now + Duration::from_nanos(at.saturating_sub(clock));
        let Some(file) = &self.file else {
            return self.own.take(clock, self.rate).map_err(later);
        };
        let lock = match file
            .try_clone()
            .map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock))
        {
            Ok(Ok(lock)) => Some(lock),
            _ if self.tries < PATIENCE => {
                self.tries += 1;
                return Err(now + TRY_AGAIN);
            }
            _ => None,
        };
        self.tries = 0;
        let taken = take_from(file, clock, self.rate);
        drop(lock);
        match taken {
            Ok(taken) => taken.map_err(later),
            Err(error) => {
                debug!("{FOLDER}: {error}: other processes' ARP frames do not count");
                self.file = None;
                self.take(now)
            }
        }
    }
}

fn take_from(file: &File, clock: u64, rate: NonZeroU32) -> io::Result<Result<(), u64>> {
    let most = usize::try_from(rate.get())
        .unwrap_or(usize::MAX)
        .saturating_mul(TIME);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut octets = vec![0; length.min(most)];
    file.read_exact_at(&mut octets, 0)?;
    let times = octets.chunks_exact(TIME).map(|time| {
        let mut octets = [0; TIME];
        octets.copy_from_slice(time);
        u64::from_be_bytes(octets)
    });
    let mut budget = ArpBudget::used(times);
    let taken = budget.take(clock, rate);
    if taken.is_ok() {
        let octets: Vec<_> = budget.frames().flat_map(u64::to_be_bytes).collect();
        file.write_all_at(&octets, 0)?;
        file.set_len(octets.len() as u64)?;
    }
    Ok(taken)
}

fn file_of(interface: InterfaceIndex) -> io::Result<File> {
    match DirBuilder::new().mode(0o755).create(FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Others must not be able to use the budget up.
    let folder = Path::new(FOLDER).symlink_metadata()?;
    if !folder.is_dir() || folder.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write there"));
    }
    let namespace = Path::new("/proc/self/ns/net").metadata()?.ino();
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(O_NOFOLLOW);
    options.open(format!("{FOLDER}/arp-{namespace}-{}", interface.0))
}

/// The monotonic clock, which is the same for all processes.
fn nanoseconds() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}
