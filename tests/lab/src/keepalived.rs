//! The real keepalived on a host.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::process;
use crate::rootless;
use crate::wait::{eventually, poll};

/// How long keepalived may take to start, reload, stop or dump: it answers signals between other
/// work, and shares its processor.
const SOON: Duration = Duration::from_secs(30);

/// A running keepalived; dropping it kills it.
pub struct Keepalived {
    host: Host,
    directory: PathBuf,
    child: Child,
}

impl Keepalived {
    /// Starts keepalived with files of its own in a new directory below `parent`.
    pub(crate) fn start(host: &Host, parent: &Path, configuration: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("keepalived-{}-", host.name()))
            .tempdir_in(parent)
            .expect("the lab's directory is there")
            .keep();
        write_configuration(&directory, configuration);
        let log = File::create(directory.join("log")).expect("one's own directory is writable");
        let errors = log.try_clone().expect("a file can be opened twice");
        let mut command = host.command("keepalived");
        rootless::tolerate_setgroups(&mut command);
        let child = command
            .args([
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--no-syslog",
                "--vrrp",
            ])
            .arg("--use-file")
            .arg(directory.join("keepalived.conf"))
            .arg("--pid")
            .arg(directory.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("vrrp.pid"))
            .arg("--checkers_pid")
            .arg(directory.join("checkers.pid"))
            .env("TMPDIR", &directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: keepalived: {e}", host.name()));
        Self {
            host: host.clone(),
            directory,
            child,
        }
    }

    /// The process ID of the parent process, which takes all signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process ID of the VRRP process, which holds the VIPs and runs the scripts.
    pub fn vrrp_pid(&self) -> u32 {
        eventually("keepalived's VRRP process writes its pid", SOON, || {
            let text = fs::read_to_string(self.directory.join("vrrp.pid")).ok()?;
            text.trim().parse().ok()
        })
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The state that an instance entered last, such as `MASTER`.
    pub fn state(&self, instance: &str) -> Option<String> {
        let entering = format!("({instance}) Entering ");
        let log = self.log();
        let (_, state) = log
            .lines()
            .rev()
            .find_map(|line| line.split_once(&entering))?;
        state.split_whitespace().next().map(str::to_owned)
    }

    /// Waits until an instance is in a state.
    ///
    /// # Panics
    ///
    /// With keepalived's log, when `timeout` has passed or keepalived has ended.
    pub fn wait_for_state(&mut self, instance: &str, state: &str, timeout: Duration) {
        self.wait_until(&format!("{instance} is {state}"), timeout, |keepalived| {
            (keepalived.state(instance).as_deref() == Some(state)).then_some(())
        });
    }

    /// Gives it a new configuration and waits until it has read it.
    pub fn reload(&mut self, configuration: &str) {
        self.wait_until_started();
        write_configuration(&self.directory, configuration);
        let before = reloads(&self.log());
        self.signal(Signal::SIGHUP as i32);
        self.wait_until("reloaded", SOON, |keepalived| {
            (reloads(&keepalived.log()) > before).then_some(())
        });
    }

    /// What keepalived itself says that it has read and does: its JSON dump.
    pub fn json(&mut self) -> serde_json::Value {
        self.wait_until_started();
        let dump = self.directory.join("keepalived.json");
        // An older dump would be taken for the new one.
        let _ = fs::remove_file(&dump);
        let number = self.host.run("keepalived --signum=JSON");
        self.signal(number.trim().parse().expect("--signum gives a number"));
        self.wait_until("dumped as JSON", SOON, |_| {
            serde_json::from_slice(&fs::read(&dump).ok()?).ok()
        })
    }

    /// Stops it as the service manager does (SIGTERM) and waits for its end. It takes its VIPs away
    /// and runs `notify_stop`.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM as i32);
        self.wait_for_end(SOON)
    }

    /// Waits until it ends by itself, as it does for a configuration that it refuses.
    ///
    /// # Panics
    ///
    /// With keepalived's log, when `timeout` has passed.
    pub fn wait_for_end(&mut self, timeout: Duration) -> ExitStatus {
        poll(timeout, || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .unwrap_or_else(|| panic!("{}", self.complaint("still runs")))
    }

    /// Kills all its processes as a crash does: the VIPs stay on their interfaces. Hooks that run
    /// get a SIGTERM, as keepalived arranged.
    pub fn kill9_all(&mut self) {
        // The child first, and the parent stopped meanwhile: a VRRP process that sees its parent
        // die takes its VIPs away, and a parent that sees its child die starts another.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let parent = self.pid();
        // Errors tell that it ended meanwhile; and nothing may panic while a panic drops it.
        let _ = kill(raw_pid(parent), Signal::SIGSTOP);
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        let mut children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        process::kill_all(|| children.by_ref().map(Pid::from_raw).collect());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait_until_started(&mut self) {
        self.wait_until("started", SOON, |keepalived| {
            let log = keepalived.log();
            // 2.1 does not say so: this is the last thing that it does before.
            let ready = if log.contains("Starting Keepalived v2.1") {
                "Registering gratuitous "
            } else {
                "Startup complete"
            };
            log.contains(ready).then_some(())
        });
    }

    fn wait_until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let found = poll(timeout, || match look(self) {
            Some(found) => Some(Ok(found)),
            None => self
                .child
                .try_wait()
                .expect("a child can be waited for")
                .map(Err),
        });
        match found {
            Some(Ok(found)) => found,
            Some(Err(status)) => {
                panic!(
                    "{}",
                    self.complaint(&format!("not {what}: ended, {status}"))
                )
            }
            None => panic!(
                "{}",
                self.complaint(&format!("not {what} within {timeout:?}"))
            ),
        }
    }

    fn complaint(&self, what: &str) -> String {
        format!(
            "keepalived on {}: {what}; its log:\n{}",
            self.host.name(),
            self.log()
        )
    }

    /// Sends a signal by number: those for dumps are real-time signals, which have no names.
    fn signal(&mut self, number: i32) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "{}", self.complaint("has ended already"));
        // SAFETY: kill(2) takes no pointers.
        let result = unsafe { libc::kill(raw_pid(self.pid()).as_raw(), number) };
        Errno::result(result).expect("one's own child can be sent signals");
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.kill9_all();
    }
}

/// How many reloads the VRRP process has logged whole: not every version says `Reload complete`, but in
/// each the sockets, which it lists at its start, too, come last.
fn reloads(log: &str) -> usize {
    let begun = log.split(" Reloading\n").skip(1);
    begun.filter(|log| log.contains("VRRP sockpool:")).count()
}

fn raw_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().expect("process IDs fit"))
}

fn write_configuration(directory: &Path, configuration: &str) {
    // In a user namespace the host's root shows up as nobody in the paths of all programs, and
    // under enable_script_security keepalived would disable every script.
    let security = if rootless::is_real_root() {
        "enable_script_security"
    } else {
        ""
    };
    let text =
        format!("global_defs {{\n    {security}\n    script_user root\n}}\n{configuration}\n");
    fs::write(directory.join("keepalived.conf"), text).expect("one's own directory is writable");
}
