//! Network namespaces without names: each lives as long as someone holds it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use crate::{process, programs};

/// A network namespace.
#[derive(Clone)]
pub(crate) struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// Makes an empty namespace: just `lo`, down.
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| match e {
                Errno::EPERM => panic!(
                    "no permission to make network namespaces: run through `make test`, or as root"
                ),
                _ => panic!("cannot make a network namespace: {e}"),
            });
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        };
        Self {
            file: Arc::new(in_scratch_thread(make)),
        }
    }

    /// Runs `f` in a thread inside the namespace. Sockets opened there stay there.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_scratch_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            f()
        })
    }

    /// A command that will run inside the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs::find(program));
        command.env("PATH", programs::search_path());
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call on an open descriptor;
        // it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// A path that names the namespace to other processes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The symbolic link `/proc/PID/ns/net` of the processes inside.
    fn link(&self) -> PathBuf {
        let inode = self
            .file
            .metadata()
            .expect("an open file has metadata")
            .ino();
        format!("net:[{inode}]").into()
    }
}

/// Kills every process inside `namespaces`, whoever started it, and waits until all have ended.
pub(crate) fn kill_processes(namespaces: &[Netns]) {
    process::kill_all(|| processes(namespaces));
}

/// Every process inside `namespaces`, whoever started it.
pub(crate) fn processes(namespaces: &[Netns]) -> Vec<Pid> {
    let links: Vec<_> = namespaces.iter().map(Netns::link).collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            // A process that is over, a zombie too, has no namespace to read.
            fs::read_link(entry.path().join("ns/net")).is_ok_and(|link| links.contains(&link))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Runs `f` in a thread of its own, so that the caller keeps its namespace.
fn in_scratch_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
