//! When keepalived last read its files.
//!
//! When it starts, and at every reload (SIGHUP), keepalived (since 2.2) writes all that it reads to a
//! file in memory, which its processes keep open. Unlike the start of a process, the time of that file
//! tells of reloads, too.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The link of a process's descriptor for that file.
const COPY: &str = "/memfd:/keepalived/consolidated_configuration";
/// The first line is `# PATH`.
const FIRST_LINE_MAX: u64 = 4096 + 3;

/// What a running keepalived has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its main file.
    pub main: PathBuf,
    /// When.
    pub at: SystemTime,
}

/// What each keepalived in this network namespace last read. This misses an older keepalived, and one
/// that this process may not inspect.
#[must_use]
pub fn loaded() -> Vec<Loaded> {
    let Ok(here) = fs::read_link("/proc/self/ns/net") else {
        return Vec::new();
    };
    let mut all: Vec<Loaded> = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = process.path();
        if !is_keepalived(&process)
            || fs::read_link(process.join("ns/net")).ok().as_ref() != Some(&here)
        {
            continue;
        }
        // Processes of one keepalived share the file.
        if let Some(loaded) = copy_of(&process).filter(|loaded| !all.contains(loaded)) {
            all.push(loaded);
        }
    }
    all
}

fn is_keepalived(process: &Path) -> bool {
    // The kernel appends " (deleted)" if the program was upgraded.
    fs::read_link(process.join("exe")).is_ok_and(|program| {
        let name = program.file_name().unwrap_or_default();
        name.to_string_lossy().split(' ').next() == Some("keepalived")
    })
}

fn copy_of(process: &Path) -> Option<Loaded> {
    let descriptors = fs::read_dir(process.join("fd")).ok()?;
    let copy = descriptors
        .flatten()
        .map(|entry| entry.path())
        .find(|descriptor| {
            fs::read_link(descriptor).is_ok_and(|shown| shown.to_string_lossy().starts_with(COPY))
        })?;
    // Opened again, it is read from the start, and keepalived's own offset stays.
    let file = File::open(copy).ok()?;
    let metadata = file.metadata().ok()?;
    let mut line = Vec::new();
    BufReader::new(file.take(FIRST_LINE_MAX))
        .read_until(b'\n', &mut line)
        .ok()?;
    let name = line.strip_prefix(b"# ")?.strip_suffix(b"\n")?;
    // A relative path would start at keepalived's working directory, which is not known.
    let main = fs::canonicalize(OsString::from_vec(name.to_vec())).ok()?;
    let at = time(metadata.mtime(), metadata.mtime_nsec())?;
    Some(Loaded { main, at })
}

/// When a file was changed, renamed into place, or given other permissions.
#[must_use]
pub fn changed_at(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok()?;
    time(metadata.ctime(), metadata.ctime_nsec())
}

fn time(seconds: i64, nanoseconds: i64) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
    let nanoseconds = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    Some(SystemTime::UNIX_EPOCH + seconds + nanoseconds)
}
