//! The receipts on disk, one a line: `history`, and what was there before it, `history.1`.
//!
//! A receipt is appended by one write(2), under a lock. A line that a crash has torn is no JSON, and
//! readers pass over it; the next receipt begins on a line of its own. When `history` is full, it
//! becomes `history.1`, and a new one begins with what all receipts so far add up to: counters must not
//! fall because old receipts are deleted.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use serde_json::{Value, json};

use super::receipt::{Fresh, Receipt};
use super::totals::Totals;
use crate::privileges::Capability;
use crate::regular_file;
use crate::settings::{DEFAULT_HISTORY_DIR, Settings};

/// Octets of each of the two files.
const LONGEST: u64 = 512 * 1024;
/// Who may read it besides root: whoever may read logs.
const GROUP: &[u8] = b"adm";
const GROUPS: &str = "/etc/group";
/// Octets of /etc/group that are read.
const LONGEST_GROUPS: u64 = 1 << 20;
const MODE: u32 = 0o640;
/// How long to wait for other processes that write.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon to try again.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// Where receipts and metrics are.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    metrics: Option<PathBuf>,
}

/// Why the metrics are not up to date. The history may be.
#[derive(Debug)]
pub(super) struct MetricsError {
    pub(super) file: PathBuf,
    pub(super) source: io::Error,
}

impl Store {
    /// Where the settings say. systemd gives a unit with `StateDirectory=vipherald` a directory of this
    /// name; that of another name is another program's, such as keepalived's, which runs the hooks.
    pub(crate) fn of(settings: &Settings) -> Self {
        let given = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        let given = given.filter(|path| path.is_absolute() && path.ends_with("vipherald"));
        let set = &settings.history_dir;
        let given = given.filter(|_| set == Path::new(DEFAULT_HISTORY_DIR));
        Self {
            directory: given.unwrap_or_else(|| set.clone()),
            metrics: settings.metrics_file().map(Path::to_owned),
        }
    }

    /// The newer file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("history")
    }

    /// The file of the metrics, if there shall be one.
    pub(super) fn metrics(&self) -> Option<&Path> {
        self.metrics.as_deref()
    }

    fn older(&self) -> PathBuf {
        self.directory.join("history.1")
    }

    /// Appends receipts, and brings the metrics up to date.
    /// Once it `hurries`, it does not wait for other processes.
    pub(super) fn append(
        &self,
        receipts: Vec<Fresh>,
        hurries: &AtomicBool,
    ) -> io::Result<Result<(), MetricsError>> {
        let _lock = self.lock(hurries)?;
        for one in receipts {
            if let Some(line) = one.line() {
                self.append_line(line)?;
            }
        }
        let Some(file) = &self.metrics else {
            return Ok(Ok(()));
        };
        let totals = self.totals()?;
        let written = replace(file, &totals.exposition());
        Ok(written.map_err(|source| MetricsError {
            file: file.clone(),
            source,
        }))
    }

    /// All receipts that can be read, the oldest first.
    pub(crate) fn read(&self) -> io::Result<Vec<Value>> {
        // The newer file first: should it become the older one meanwhile, receipts come twice rather
        // than not at all, and that is remedied here.
        let newer = lines(&self.path())?;
        let mut all = lines(&self.older())?;
        if newer.first().is_some_and(|first| !all.contains(first)) {
            all.extend(newer);
        }
        Ok(all)
    }

    /// What all receipts add up to. The older file counts where the newer one does not begin with its
    /// totals: a crash has torn that line, or somebody has deleted the file.
    fn totals(&self) -> io::Result<Totals> {
        let newer = lines(&self.path())?;
        let begins = newer.first().and_then(Receipt::read);
        if begins.is_some_and(|first| first.totals.is_some()) {
            return Ok(totals([&newer]));
        }
        Ok(totals([&lines(&self.older())?, &newer]))
    }

    /// Locks the history, whose directory it makes if that is missing. The lock is a file of its own that
    /// root alone can open: whoever can open a file can lock it, and keep it locked.
    fn lock(&self, hurries: &AtomicBool) -> io::Result<Flock<File>> {
        let path = self.directory.join("lock");
        let file = match regular_file::append(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                regular_file::append(&path)?
            }
            opened => opened?,
        };
        locked(file, hurries)
    }

    fn make_directory(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o755).create(&self.directory) {
            // keepalived's umask has taken search permission.
            Ok(()) => fs::set_permissions(&self.directory, Permissions::from_mode(0o755)),
            // By another run.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            failed => failed,
        }
    }

    fn append_line(&self, line: String) -> io::Result<()> {
        let (path, length) = (self.path(), line.len() as u64);
        let mut file = regular_file::append(&path)?;
        let mut before = file.metadata()?.len();
        if before > 0 && before + length > LONGEST {
            fs::rename(&path, self.older())?;
            file = regular_file::append(&path)?;
            before = 0;
        }
        let text = if before == 0 {
            let totals = totals([&lines(&self.older())?]);
            match totals == Totals::default() {
                true => line,
                false => json!({"command": "totals", "totals": totals}).to_string() + "\n" + &line,
            }
        } else if ends_torn(&path, before)? {
            format!("\n{line}")
        } else {
            line
        };
        make_readable(&file);
        let written = file.write(text.as_bytes());
        match written {
            Ok(count) if count == text.len() => Ok(()),
            // A disk that is full, or a limit.
            failed => {
                file.set_len(before)?;
                failed.and(Err(io::ErrorKind::WriteZero.into()))
            }
        }
    }
}

/// Locks a file, unless another process keeps it locked for so long: a run that was suspended then must
/// not hold up all others, nor this one once it hurries.
fn locked(mut file: File, hurries: &AtomicBool) -> io::Result<Flock<File>> {
    let until = Instant::now() + PATIENCE;
    let waits = || !hurries.load(Ordering::Relaxed) && Instant::now() < until;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EAGAIN)) if waits() => file = unlocked,
            Err((_, errno)) => return Err(errno.into()),
        }
        thread::sleep(TRY_AGAIN);
    }
}

/// Whether a crash has torn the last line.
fn ends_torn(path: &Path, length: u64) -> io::Result<bool> {
    let mut last = [0];
    regular_file::open(path, O_NOFOLLOW)?.read_exact_at(&mut last, length - 1)?;
    Ok(last != *b"\n")
}

/// Lets the group read it, whatever the umask. As another user than root it can't, nor in a sandbox.
fn make_readable(file: &File) {
    let Ok(metadata) = file.metadata() else {
        return;
    };
    if metadata.mode() & 0o777 != MODE {
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
    // A sandbox without the capability may kill a process that calls fchown(2).
    if metadata.gid() == 0
        && Capability::Chown.is_here()
        && let Ok(groups) = regular_file::read(Path::new(GROUPS), LONGEST_GROUPS)
        && let Some(group) = group(&groups)
    {
        let _ = fchown(file, None, Some(group));
    }
}

fn group(groups: &[u8]) -> Option<u32> {
    let mut lines = groups.split(|octet| *octet == b'\n');
    let fields = lines.find_map(|line| line.strip_prefix(GROUP)?.strip_prefix(b":"))?;
    let id = fields.split(|octet| *octet == b':').nth(1)?;
    str::from_utf8(id).ok()?.parse().ok()
}

/// The lines of a file that are JSON. None if it is missing.
fn lines(path: &Path) -> io::Result<Vec<Value>> {
    // A receipt, or a longer file of another version, may exceed the limit a little.
    match regular_file::read(path, 4 * LONGEST) {
        Ok(octets) => {
            let lines = octets.split(|octet| *octet == b'\n');
            Ok(lines
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What the receipts of these files add up to, the older one first.
fn totals<const FILES: usize>(files: [&[Value]; FILES]) -> Totals {
    let mut totals = Totals::default();
    let receipts = files.into_iter().flatten().filter_map(Receipt::read);
    receipts.for_each(|receipt| totals.add(&receipt));
    totals
}

/// Replaces a file that all may read, so that readers see the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The collector reads `*.prom`.
    name.push(".new");
    let new = path.with_file_name(name);
    let create = || {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        options.open(&new)
    };
    let mut file = create().or_else(|error| match error.kind() {
        // A crash has left it, or somebody else has put it there, who shall not write to it.
        io::ErrorKind::AlreadyExists => fs::remove_file(&new).and_then(|()| create()),
        _ => Err(error),
    })?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(&new, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    static CALM: AtomicBool = AtomicBool::new(false);

    struct Scratch(Store);

    impl Scratch {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("vipherald-history-{}-{number}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            let metrics = Some(directory.join("m.prom"));
            Self(Store { directory, metrics })
        }

        fn append(&self, receipt: Value) {
            self.0.append(vec![fresh(receipt)], &CALM).unwrap().unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.directory);
        }
    }

    fn fresh(receipt: Value) -> Fresh {
        Fresh::of(receipt, Duration::ZERO)
    }

    fn announced(number: usize) -> Value {
        json!({"command": "announce", "time": "1970-01-01T00:00:00.000Z", "result": "ok",
               "number": number, "vips": [{"address": "10.0.0.100", "interface": "eth0"}]})
    }

    #[test]
    fn what_is_appended_is_read() {
        let scratch = Scratch::new();
        assert_eq!(scratch.0.read().unwrap(), Vec::<Value>::new());
        scratch.append(announced(1));
        scratch.append(announced(2));
        assert_eq!(scratch.0.read().unwrap(), [announced(1), announced(2)]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&scratch.0.path()), 0o640);
        assert_eq!(mode(&scratch.0.directory), 0o755);
        assert_eq!(mode(scratch.0.metrics.as_ref().unwrap()), 0o644);
    }

    #[test]
    fn a_torn_line_is_passed_over_and_the_next_one_is_whole() {
        let scratch = Scratch::new();
        for receipt in 1..4 {
            scratch.append(announced(receipt));
        }
        let whole = fs::read(scratch.0.path()).unwrap();
        let last = whole.len() - whole.len() / 3;
        for cut in last + 1..whole.len() {
            fs::write(scratch.0.path(), &whole[..cut]).unwrap();
            scratch.append(announced(9));
            let read = scratch.0.read().unwrap();
            // The last octet is the newline, without which the line is still JSON.
            let intact = if cut == whole.len() - 1 { 4 } else { 3 };
            assert_eq!(read.len(), intact, "{cut}");
            assert_eq!(read.last(), Some(&announced(9)), "{cut}");
        }
        // After a power cut, a file may end with zeros.
        fs::write(scratch.0.path(), [whole.as_slice(), &[0; 100]].concat()).unwrap();
        scratch.append(announced(9));
        assert_eq!(scratch.0.read().unwrap().len(), 4);
    }

    #[test]
    fn the_files_stay_below_their_limit_and_counters_do_not_fall() {
        let scratch = Scratch::new();
        let long = "x".repeat(60_000);
        for number in 1..=100 {
            let mut receipt = announced(number);
            receipt["filler"] = long.as_str().into();
            scratch.append(receipt);
            let metrics = fs::read_to_string(scratch.0.metrics.as_ref().unwrap()).unwrap();
            let expected = format!("result=\"ok\"}} {number}\n");
            assert!(metrics.contains(&expected), "{number}: {metrics}");
            let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
            assert!(size(&scratch.0.path()) + size(&scratch.0.older()) <= 1 << 20);
        }
        let read = scratch.0.read().unwrap();
        assert_eq!(read.last().unwrap()["number"], 100);
        assert!(read.len() > 8);
    }

    #[test]
    fn counters_do_not_fall_if_a_crash_tears_the_first_line() {
        let scratch = Scratch::new();
        for number in 1..=3 {
            scratch.append(announced(number));
        }
        fs::rename(scratch.0.path(), scratch.0.older()).unwrap();
        scratch.append(announced(4));
        let text = fs::read_to_string(scratch.0.path()).unwrap();
        let (totals, receipt) = text.split_once('\n').unwrap();
        let torn = format!("{}\n{receipt}", &totals[..totals.len() / 2]);
        fs::write(scratch.0.path(), torn).unwrap();
        scratch.append(announced(5));
        let metrics = fs::read_to_string(scratch.0.metrics.as_ref().unwrap()).unwrap();
        assert!(metrics.contains("result=\"ok\"} 5\n"), "{metrics}");
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let scratch = Scratch::new();
        thread::scope(|scope| {
            for writer in 0..8 {
                let store = &scratch.0;
                scope.spawn(move || {
                    for number in 0..50 {
                        store
                            .append(vec![fresh(announced(writer * 50 + number))], &CALM)
                            .unwrap()
                            .unwrap();
                    }
                });
            }
        });
        let read = scratch.0.read().unwrap();
        let mut numbers: Vec<_> = read
            .iter()
            .map(|one| one["number"].as_u64().unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_makes_root_write_elsewhere() {
        let scratch = Scratch::new();
        scratch.append(announced(1));
        let elsewhere = scratch.0.directory.join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        let metrics = scratch.0.metrics.as_ref().unwrap();
        std::os::unix::fs::symlink(&elsewhere, metrics.with_file_name("m.prom.new")).unwrap();
        scratch.append(announced(2));
        fs::remove_file(scratch.0.path()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, scratch.0.path()).unwrap();
        assert!(scratch.0.append(vec![fresh(announced(3))], &CALM).is_err());
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
    }

    #[test]
    fn the_group_is_that_of_etc_group() {
        assert_eq!(group(b"root:x:0:\nadm:x:4:syslog,x\n"), Some(4));
        assert_eq!(group(b"root:x:0:\nadmin:x:4:\n"), None);
        assert_eq!(group(b"adm\nadm:x:\n"), None);
    }

    #[test]
    fn a_run_that_keeps_the_lock_holds_up_nobody_for_ever() {
        let scratch = Scratch::new();
        let _lock = scratch.0.lock(&CALM).unwrap();
        for (hurries, waits) in [(&CALM, true), (&AtomicBool::new(true), false)] {
            let began = Instant::now();
            let denied = scratch.0.lock(hurries).unwrap_err();
            assert_eq!(denied.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(began.elapsed() >= PATIENCE, waits);
        }
    }
}
