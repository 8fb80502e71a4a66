//! Faults of the host itself, under each command: it does its work, or fails and says what to do.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{self, c_long};
use nix::sys::signal::Signal;
use vipherald_core::order::message::{Id, PORT};
use vipherald_lab::{Host, Lab};

use crate::common::{
    Ended, OLD_MAC, Run, SOON, address_beside, give, in_shell, signal, take, vipherald,
    with_own_directory,
};
use crate::events::{fifo, file, instance, with};
use crate::helpers::{Orders, listen, order_to};
use crate::seccomp;

const FIFO: &str = "keepalived.fifo";

/// A command, and what it is to achieve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Announce,
    Purge,
    Check,
    Notify,
    Fifo,
    Watch,
    Listen,
    Order,
    Release,
    Show,
}

pub(crate) const TASKS: [Task; 10] = [
    Task::Announce,
    Task::Purge,
    Task::Check,
    Task::Notify,
    Task::Fifo,
    Task::Watch,
    Task::Listen,
    Task::Order,
    Task::Release,
    Task::Show,
];

/// What is wrong with the host.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The limit on descriptors.
    Descriptors(u32),
    /// The limit on memory, in KiB (`RLIMIT_AS`).
    Memory(u32),
    /// A system call that fails with EPERM.
    Denied(&'static str, c_long),
    /// stdout is full (/dev/full), or closed.
    FullStdout,
    ClosedStdout,
    /// Nobody reads /dev/log.
    BlockedSyslog,
    /// It is stopped for a while, right after its start.
    Stopped,
}

/// Hosts, and what the tasks need there: `owner` has the VIP, `peer` sends to a wrong MAC.
pub(crate) struct Scene {
    lab: Lab,
    owner: Host,
    peer: Host,
    orders: Orders,
    settings: PathBuf,
    conf: PathBuf,
    vip: &'static str,
    listening: Option<Run>,
    /// A syslog socket that nobody reads, and whose queue is full.
    log: PathBuf,
    _unread: UnixDatagram,
}

impl Scene {
    pub(crate) fn new(vip: &'static str) -> Self {
        let lab = Lab::new();
        let (owner, peer) = (lab.host("owner"), lab.host("peer"));
        let orders = Orders::new(&lab, &owner);
        let settings = orders.settings(&lab, "settings", "", "");
        let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[vip], ""));
        give(&owner, vip, "eth0");
        let log = lab.directory().join("log");
        let unread = UnixDatagram::bind(&log).unwrap();
        let writer = UnixDatagram::unbound().unwrap();
        writer.set_nonblocking(true).unwrap();
        while writer.send_to(b"x", &log).is_ok() {}
        Self {
            lab,
            owner,
            peer,
            orders,
            settings,
            conf,
            vip,
            listening: None,
            log,
            _unread: unread,
        }
    }

    /// Runs a task under a fault. `Err` if it claims to have done what it did not, or fails silently.
    pub(crate) fn run(&mut self, task: Task, fault: &Fault) -> Result<(), String> {
        self.prepare(task);
        let command = self.under(task, self.command(task), fault);
        let ended = self.play(task, command, fault);
        let done = self.is_done(task, &ended);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        // A check that was stopped may have asked too little to tell: it says that as the `reason`.
        let said_why = [
            r#""result":"failed""#,
            r#""reason":""#,
            "error:",
            "warning:",
        ]
        .iter()
        .any(|word| said.contains(word));
        // Whoever can't write can't say why.
        let may_be_mute = matches!(
            fault,
            Fault::ClosedStdout | Fault::BlockedSyslog | Fault::Memory(_)
        ) || matches!(fault, Fault::Denied("poll", _));
        match ended.status {
            0 if done => Ok(()),
            // They work until a signal: `listen` answers each order with what it did.
            _ if [Task::Watch, Task::Listen].contains(&task)
                && (done || said_why)
                && ended.status != 0 =>
            {
                Ok(())
            }
            0 => Err(format!("{task:?} under {fault:?} was not done: {ended:#?}")),
            // A panic aborts: only a lack of memory may end so.
            // The loader of a program that is not static is no part of it.
            127 => Ok(()),
            134.. if !matches!(fault, Fault::Memory(_)) && ended.status != 143 => {
                Err(format!("{task:?} under {fault:?} was killed: {ended:#?}"))
            }
            _ if said_why || may_be_mute => Ok(()),
            _ => Err(format!(
                "{task:?} under {fault:?} failed silently: {ended:#?}"
            )),
        }
    }

    fn prepare(&mut self, task: Task) {
        match task {
            Task::Release if self.peer.holds(self.vip) => {}
            Task::Release => give(&self.peer, self.vip, "eth0"),
            // It finds no fault with this.
            Task::Check => self.peer.remember(self.vip, self.owner.mac()),
            _ => self.peer.remember(self.vip, OLD_MAC),
        }
        if task == Task::Order && self.listening.is_none() {
            self.listening = Some(listen(&self.peer, &self.settings, ""));
        }
    }

    fn command(&self, task: Task) -> Command {
        let (vip, peer) = (self.vip, address_beside(self.vip, &self.peer));
        let key = format!("--config {}", self.settings.display());
        let arguments = match task {
            Task::Announce => format!("--json announce --timeout 1 {vip} -p {peer}"),
            Task::Purge => format!("purge {vip}"),
            Task::Check => format!("--json check {vip}"),
            Task::Notify => with(&self.conf, "notify INSTANCE VI_1 BACKUP"),
            Task::Fifo => with(&self.conf, &format!("fifo {}", self.fifo().display())),
            Task::Watch => format!("watch {vip}"),
            Task::Listen => format!("{key} listen --bind [::]:{PORT}"),
            Task::Order => format!("{key} --json order {vip} -p {peer} --timeout 1"),
            Task::Release => with(&self.conf, &format!("release {vip}")),
            Task::Show => with(&self.conf, "show"),
        };
        vipherald(self.host_of(task), &arguments)
    }

    fn under(&self, task: Task, mut command: Command, fault: &Fault) -> Command {
        let host = self.host_of(task);
        match fault {
            Fault::Descriptors(most) => {
                in_shell(host, &format!("ulimit -n {most} && exec \"$@\""), &command)
            }
            Fault::Memory(most) => {
                in_shell(host, &format!("ulimit -v {most} && exec \"$@\""), &command)
            }
            Fault::Denied(_, call) => {
                seccomp::deny(&mut command, *call);
                command
            }
            Fault::FullStdout => in_shell(host, "exec \"$@\" >/dev/full", &command),
            Fault::ClosedStdout => in_shell(host, "exec \"$@\" >&-", &command),
            Fault::BlockedSyslog => {
                command.args(["--log", "syslog"]);
                let prepare = format!("ln -s {} /dev/log", self.log.display());
                with_own_directory(host, "/dev", &prepare, &command)
            }
            Fault::Stopped => command,
        }
    }

    fn host_of(&self, task: Task) -> &Host {
        match task {
            Task::Announce | Task::Watch | Task::Order => &self.owner,
            _ => &self.peer,
        }
    }

    fn play(&self, task: Task, command: Command, fault: &Fault) -> Ended {
        let mut writer = None;
        if task == Task::Fifo {
            let _ = fs::remove_file(self.fifo());
            let (_, open) = fifo(&self.lab, FIFO);
            (&open)
                .write_all(b"INSTANCE \"VI_1\" BACKUP 100\n")
                .unwrap();
            writer = Some(open);
        }
        let mut run = Run::start(command);
        if matches!(fault, Fault::Stopped) {
            signal(run.pid(), Signal::SIGSTOP);
            thread::sleep(Duration::from_secs(5));
            signal(run.pid(), Signal::SIGCONT);
        }
        if task == Task::Fifo {
            // Once it has read the line, or has ended, or is stuck.
            let _ = wait_for(Duration::from_secs(2), || {
                run.has_ended() || self.peer.cached(self.vip).is_none()
            });
            drop(writer);
        }
        if task == Task::Watch {
            // It may not look yet.
            let _ = wait_for(Duration::from_secs(2), || {
                take(&self.owner, self.vip, "eth0");
                give(&self.owner, self.vip, "eth0");
                run.has_ended()
                    || wait_for(Duration::from_millis(500), || {
                        self.peer.cached(self.vip) == Some(self.owner.mac())
                    })
            });
            return run.end_or_terminate(Duration::ZERO);
        }
        if task == Task::Listen {
            let mut order = order_to(&self.peer, Id::default(), self.vip, self.owner.mac());
            order.to = address_beside(self.vip, &self.peer);
            let own = address_beside(self.vip, &self.owner);
            let from = self.owner.enter(|| UdpSocket::bind((own, 0))).unwrap();
            let _ = wait_for(Duration::from_secs(2), || {
                order.id[0] += 1;
                let datagram = order.to_bytes(&self.orders.keys);
                let _ = from.send_to(&datagram, (order.to, PORT));
                thread::sleep(Duration::from_millis(50));
                run.has_ended() || self.peer.cached(self.vip) == Some(self.owner.mac())
            });
            return run.end_or_terminate(Duration::ZERO);
        }
        run.end_or_terminate(SOON)
    }

    fn fifo(&self) -> PathBuf {
        self.lab.directory().join(FIFO)
    }

    fn is_done(&self, task: Task, ended: &Ended) -> bool {
        let report =
            || serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap_or_default();
        let forgotten = || self.peer.cached(self.vip).is_none();
        match task {
            Task::Announce => {
                self.peer.cached(self.vip) == Some(self.owner.mac())
                    && report()["vips"][0]["peers"][0]["verdict"] == "proven"
            }
            Task::Purge | Task::Notify | Task::Fifo => forgotten(),
            Task::Check => report()["result"] == "ok",
            Task::Watch | Task::Listen | Task::Order => {
                self.peer.cached(self.vip) == Some(self.owner.mac())
            }
            Task::Release => !self.peer.holds(self.vip),
            Task::Show => ended.stdout.contains(self.vip),
        }
    }
}

/// Waits until something is so, but not long.
fn wait_for(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < patience {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// System calls on the way of the commands, as `strace` lists them. Without `epoll_wait` or `write`
/// the runtime aborts the process, which is no success; the rest only starts or ends a process.
pub(crate) const CALLS: [(&str, c_long); 27] = [
    ("bind", libc::SYS_bind),
    ("clone3", libc::SYS_clone3),
    ("close", libc::SYS_close),
    ("connect", libc::SYS_connect),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("eventfd2", libc::SYS_eventfd2),
    ("fcntl", libc::SYS_fcntl),
    ("fstat", libc::SYS_fstat),
    ("getdents64", libc::SYS_getdents64),
    ("getrandom", libc::SYS_getrandom),
    ("getsockname", libc::SYS_getsockname),
    ("getsockopt", libc::SYS_getsockopt),
    ("ioctl", libc::SYS_ioctl),
    ("newfstatat", libc::SYS_newfstatat),
    ("openat", libc::SYS_openat),
    ("poll", libc::SYS_poll),
    ("read", libc::SYS_read),
    ("readlink", libc::SYS_readlink),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmsg", libc::SYS_recvmsg),
    ("rt_sigaction", libc::SYS_rt_sigaction),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("setsockopt", libc::SYS_setsockopt),
    ("socket", libc::SYS_socket),
    ("statx", libc::SYS_statx),
];
