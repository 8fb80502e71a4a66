//! The lab: a switch and the hosts on it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use tempfile::TempDir;

use crate::filter::Port;
use crate::host::Host;
use crate::netns::{self, Netns};
use crate::programs;
use crate::talker::Talker;
use crate::wait::eventually;

/// Where the lab's files live: every component belongs to root and is writable by no one else,
/// which keepalived's `enable_script_security` asks for.
const RUN: &str = "/run";

/// Long enough for the kernel to bring links up on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Hosts are numbered within one /24.
const MAX_HOSTS: usize = 254;

/// Which way a frame goes on the wire between a host and the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the switch to the host: what the host receives.
    ToHost,
    /// From the host to the switch: what the host sends.
    FromHost,
}

/// A switch, the hosts plugged into it, and a directory for their files.
///
/// The switch is a bridge without STP or multicast snooping in a namespace of its own. Dropping the
/// lab kills every process in its namespaces and removes its directory.
pub struct Lab {
    switch: Netns,
    ports: Mutex<Vec<(Host, Port)>>,
    directory: TempDir,
    /// Who makes the link carry something now and then.
    talker: Option<Talker>,
}

impl Lab {
    /// Makes a switch without hosts. As on links of users, somebody is always heard: a stranger that
    /// broadcasts a datagram that nobody answers, twenty times a second.
    ///
    /// # Panics
    ///
    /// Where namespaces are not permitted or a program is missing, saying what to do about it.
    #[expect(
        clippy::new_without_default,
        reason = "making a lab does a lot and can fail"
    )]
    pub fn new() -> Self {
        let mut lab = Self::silent();
        lab.talker = Some(lab.switch.enter(|| Talker::start("br0")));
        lab
    }

    /// The same, but only what hosts send is heard.
    ///
    /// # Panics
    ///
    /// As [`Lab::new`].
    pub fn silent() -> Self {
        for program in ["ip", "nft", "keepalived"] {
            programs::find(program);
        }
        let switch = Netns::new();
        let directory = private_directory();
        let lab = Self {
            switch,
            ports: Mutex::default(),
            directory,
            talker: None,
        };
        lab.switch.enter(|| {
            // A switch has no addresses and says nothing of its own.
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                .expect("IPv6 can be switched off on the switch");
        });
        lab.ip("link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up\n");
        lab
    }

    /// Adds a host: a namespace whose `eth0` is plugged into the switch. Number N, counted from 1,
    /// has the addresses 10.9.0.N/24, fd09::N/64 and fe80::N/64, and the MAC 02:00:00:09:00:N, in
    /// hexadecimal but for the first. All are usable at once: there is no duplicate address
    /// detection for them.
    pub fn host(&self, name: &str) -> Host {
        self.add(&[name.to_owned()]).remove(0)
    }

    /// Adds many hosts at once, named `PREFIX1`, `PREFIX2` and so on.
    pub fn hosts(&self, prefix: &str, count: usize) -> Vec<Host> {
        let names: Vec<_> = (1..=count).map(|n| format!("{prefix}{n}")).collect();
        self.add(&names)
    }

    fn add(&self, names: &[String]) -> Vec<Host> {
        let mut ports = self.ports();
        assert!(
            ports.len() + names.len() <= MAX_HOSTS,
            "a lab has room for {MAX_HOSTS} hosts"
        );
        let mut hosts: Vec<Host> = Vec::with_capacity(names.len());
        for name in names {
            let taken = ports
                .iter()
                .map(|(host, _)| host)
                .chain(&hosts)
                .any(|h| h.name() == name);
            assert!(!taken, "there is a host {name} already");
            let number = u8::try_from(ports.len() + hosts.len() + 1).expect("at most 254 hosts");
            hosts.push(Host::new(name, number, self.directory()));
        }
        self.ip(&hosts.iter().map(Host::wiring).collect::<String>());
        for host in &hosts {
            host.configure();
        }
        self.wait_until_wired(&hosts);
        ports.extend(hosts.iter().map(|host| (host.clone(), Port::default())));
        hosts
    }

    /// Waits until frames pass both ways. The kernel looks at a link that was set up when it has time
    /// to; until then the host drops what it sends, and the switch what it is to forward.
    fn wait_until_wired(&self, hosts: &[Host]) {
        eventually("the switch forwards to the new hosts", SOON, || {
            let links = programs::run(self.switch.command("bridge").arg("link"), "");
            let forwards = |host: &Host| {
                let port = format!(": {}@", host.port());
                links
                    .lines()
                    .any(|line| line.contains(&port) && line.contains("state forwarding"))
            };
            hosts.iter().all(forwards).then_some(())
        });
        for host in hosts {
            eventually("the new host's link runs", SOON, || {
                host.is_running().then_some(())
            });
        }
    }

    /// Loses `percent` of the frames of each host in one direction, each frame and each host by
    /// chance of its own; 0 ends it. A broadcast is lost to one host and not to the other.
    pub fn loss<'a>(
        &self,
        hosts: impl IntoIterator<Item = &'a Host>,
        direction: Direction,
        percent: f64,
    ) {
        self.set_ports(hosts, |port| port.lose(direction, percent));
    }

    /// Makes the host's switch port drop everything both ways, while the carrier stays up.
    pub fn blackout(&self, host: &Host) {
        self.set_ports([host], |port| port.set_blackout(true));
    }

    /// Ends a blackout; the loss that was set before holds again.
    pub fn restore(&self, host: &Host) {
        self.set_ports([host], |port| port.set_blackout(false));
    }

    /// Takes the host's carrier away. Its kernel forgets all neighbours but the permanent ones.
    pub fn unplug(&self, host: &Host) {
        self.ip(&format!("link set {} down\n", host.port()));
    }

    /// Gives the host its carrier back; the switch forwards at once.
    pub fn plug(&self, host: &Host) {
        self.ip(&format!("link set {} up\n", host.port()));
    }

    /// From now on the switch learns no MAC from this host's frames, which may forge any: frames for
    /// others do not reach it.
    pub fn learn_nothing_from(&self, host: &Host) {
        let port = host.port();
        self.ip(&format!("link set {port} type bridge_slave learning off\n"));
    }

    /// Copies a program to where keepalived's `enable_script_security` lets it run as a hook. It
    /// is removed with the lab. A copy that is there already stays: it may be running.
    pub fn install_hook(&self, program: impl AsRef<Path>) -> PathBuf {
        let program = program.as_ref();
        let name = program
            .file_name()
            .unwrap_or_else(|| panic!("{program:?} is not a file"));
        let hook = self.directory().join(name);
        if !hook.exists() {
            install(program, &hook);
        }
        hook
    }

    /// Writes a shell script to where keepalived lets it run as a hook; `body` follows `#!/bin/sh`.
    pub fn write_hook(&self, name: &str, body: &str) -> PathBuf {
        let hook = self.directory().join(name);
        place(
            "/dev/stdin".as_ref(),
            &format!("#!/bin/sh\n{body}\n"),
            &hook,
        );
        hook
    }

    /// The lab's directory, for files that go with it. It belongs to root, as do all above it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn set_ports<'a>(
        &self,
        hosts: impl IntoIterator<Item = &'a Host>,
        mut set: impl FnMut(&mut Port),
    ) {
        let mut ports = self.ports();
        let mut rules = String::new();
        for host in hosts {
            let (_, port) = ports
                .iter_mut()
                .find(|(known, _)| known.name() == host.name())
                .unwrap_or_else(|| panic!("{} is a host of another lab", host.name()));
            set(port);
            rules.push_str(&port.rules(&host.port()));
        }
        programs::run(self.switch.command("nft").args(["-f", "-"]), &rules);
    }

    /// Runs `ip` commands, one a line, on the switch.
    fn ip(&self, batch: &str) {
        programs::run(self.switch.command("ip").args(["-batch", "-"]), batch);
    }

    fn ports(&self) -> MutexGuard<'_, Vec<(Host, Port)>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.talker = None;
        let mut namespaces: Vec<_> = self
            .ports()
            .iter()
            .map(|(h, _)| h.netns().clone())
            .collect();
        namespaces.push(self.switch.clone());
        netns::kill_processes(&namespaces);
    }
}

/// Copies a program, or links to the copy of another lab, if that is still there: a debug build has a
/// hundred megabytes, and /run is memory.
fn install(program: &Path, hook: &Path) {
    static COPIES: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let other = copies.get(program);
    if other.is_none_or(|other| fs::hard_link(other, hook).is_err()) {
        place(program, "", hook);
    }
    copies.insert(program.to_owned(), hook.to_owned());
}

/// Makes an executable of a file, or of `text` as standard input.
///
/// Another process writes it: while this one has a file open for writing, a child that another
/// thread starts inherits that, and until the child has become its program the file is busy.
fn place(from: &Path, text: &str, hook: &Path) {
    programs::run(Command::new("cp").arg(from).arg(hook), text);
    fs::set_permissions(hook, Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("cannot make {hook:?} executable: {e}"));
}

/// A directory that hooks can be run from.
fn private_directory() -> TempDir {
    let noexec = statvfs(RUN).is_ok_and(|run| run.flags().contains(FsFlags::ST_NOEXEC));
    assert!(
        !noexec,
        "{RUN} is mounted noexec, so no hook can run there: run through `make test`"
    );
    let directory = tempfile::Builder::new()
        .prefix("vipherald-lab-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(RUN)
        .unwrap_or_else(|e| panic!("cannot write to {RUN}: {e}: run through `make test`"));
    // The umask may have taken bits away that hooks of other users need.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))
        .expect("one's own directory can be opened to others");
    directory
}
