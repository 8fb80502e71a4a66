//! Letting go of a VIP that a dead keepalived left on this host, which goes on answering for it.
//!
//! Only where nothing speaks against it: no process that could be keepalived in this network
//! namespace, no socket of its protocol there (which tells of one that this process cannot see,
//! outside of its container), no PID in its files that is alive. In any doubt nothing is done.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use log::debug;
use nix::errno::Errno;
use nix::libc::{EACCES, EPERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use vipherald_core::address::Vip;
use vipherald_core::host::{Address, HostSnapshot, PlacedVip};

use crate::kernel::{self, Kernel};

/// Where keepalived writes its PIDs by default; in a directory of its own where it is set to.
const PID_FILES: [&str; 9] = [
    "/run/keepalived.pid",
    "/run/vrrp.pid",
    "/run/checkers.pid",
    "/run/bfd.pid",
    "/run/keepalived_vrrp.pid",
    "/run/keepalived/keepalived.pid",
    "/run/keepalived/vrrp.pid",
    "/run/keepalived/checkers.pid",
    "/run/keepalived/bfd.pid",
];
/// The IP protocol of VRRP (RFC 9568 §5.1.1.4), as the kernel lists raw sockets: where a port is.
const VRRP: &str = ":0070";

/// What became of a VIP that was to be let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The VIP.
    pub vip: Vip,
    /// The interface that holds it, or held it.
    pub interface: String,
    /// Why it is still there; `None`: it was let go of.
    pub kept: Option<Doubt>,
}

/// What speaks against letting go of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It is none of keepalived's.
    #[error("it is no VIP of keepalived.conf")]
    NotConfigured,
    /// A keepalived runs.
    #[error("keepalived lives here, as process {0}: it has to be stopped")]
    Alive(u32),
    /// Something speaks VRRP.
    #[error("a VRRP socket is open in this network namespace: some keepalived lives")]
    Speaks,
    /// A PID file tells of a process that is alive.
    #[error("{} names process {pid}, which is alive", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// The PID in it.
        pid: u32,
    },
    /// Something could not be looked at.
    #[error("cannot tell whether keepalived is dead: {0}")]
    Unknown(String),
    /// It was only to be said what would be done.
    #[error("dry run: it would be let go of")]
    DryRun,
}

/// Whether anything tells of a keepalived that may be alive in this network namespace.
///
/// # Errors
/// What does.
pub fn keepalived_is_dead(pid_files: &[PathBuf]) -> Result<(), Doubt> {
    for table in ["/proc/self/net/raw", "/proc/self/net/raw6"] {
        match fs::read_to_string(table) {
            Ok(sockets) if speaks_vrrp(&sockets) => return Err(Doubt::Speaks),
            Ok(_) => {}
            // Without IPv6 there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(Doubt::Unknown(format!("{table}: {error}"))),
        }
    }
    // `hidepid` and `ProtectProc=` hide others' processes, and this one first.
    if !Path::new("/proc/1").exists() {
        return Err(Doubt::Unknown(
            "/proc hides processes (hidepid, ProtectProc=): to see them takes CAP_SYS_PTRACE"
                .to_owned(),
        ));
    }
    let own = namespace(Path::new("/proc/self"))
        .map_err(|error| Doubt::Unknown(format!("/proc/self/ns/net: {error}")))?;
    let processes = fs::read_dir("/proc");
    let processes = processes.map_err(|error| Doubt::Unknown(format!("/proc: {error}")))?;
    for process in processes {
        let process = process.map_err(|error| Doubt::Unknown(format!("/proc: {error}")))?;
        let name = process.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            look_at(pid, &process.path(), own)?;
        }
    }
    let default = PID_FILES.iter().map(Path::new);
    for path in default.chain(pid_files.iter().map(PathBuf::as_path)) {
        look_at_pid_file(path)?;
    }
    Ok(())
}

/// Whether the kernel's list of raw sockets has one of VRRP's protocol.
fn speaks_vrrp(sockets: &str) -> bool {
    let local = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    sockets
        .lines()
        .filter_map(local)
        .any(|local| local.ends_with(VRRP))
}

fn look_at(pid: u32, process: &Path, own: u64) -> Result<(), Doubt> {
    match might_be_keepalived(process) {
        Ok(false) => return Ok(()),
        Ok(true) => {}
        // One that ended meanwhile does not live.
        Err(error) if !is_denied(&error) => return Ok(()),
        Err(error) => return Err(Doubt::Unknown(denied(&format!("process {pid}"), &error))),
    }
    match namespace(process) {
        Ok(other) if other != own => Ok(()),
        Ok(_) => Err(Doubt::Alive(pid)),
        Err(error) if !is_denied(&error) => Ok(()),
        Err(error) => Err(Doubt::Unknown(denied(
            &format!("the network namespace of process {pid}"),
            &error,
        ))),
    }
}

/// By its name, which its configuration can change, or by its program. A zombie is dead.
fn might_be_keepalived(process: &Path) -> io::Result<bool> {
    if is_dead(process) {
        return Ok(false);
    }
    let name = fs::read_to_string(process.join("comm"))?;
    if name.starts_with("keepalived") {
        return Ok(true);
    }
    match fs::read_link(process.join("exe")) {
        Ok(program) => {
            let name = program.file_name().unwrap_or_default();
            Ok(name.to_string_lossy().starts_with("keepalived"))
        }
        // The kernel's own threads have none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn denied(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}: to look at others' processes takes CAP_SYS_PTRACE")
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EACCES | EPERM))
}

fn namespace(process: &Path) -> io::Result<u64> {
    Ok(fs::metadata(process.join("ns/net"))?.ino())
}

/// Whether a process is gone, or a zombie whose parent has not asked yet.
fn is_dead(process: &Path) -> bool {
    match fs::read_to_string(process.join("stat")) {
        // The state follows the name, which is in parentheses and may contain anything.
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(error) => !is_denied(&error),
    }
}

fn look_at_pid_file(path: &Path) -> Result<(), Doubt> {
    let unknown = |what: String| Doubt::Unknown(format!("{}: {what}", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unknown(error.to_string())),
    };
    let pid: u32 = text
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| unknown("no PID is in it".to_owned()))?;
    let gone = i32::try_from(pid).map_or(Ok(()), |pid| kill(Pid::from_raw(pid), None));
    if gone == Err(Errno::ESRCH) || is_dead(&PathBuf::from(format!("/proc/{pid}"))) {
        return Ok(());
    }
    Err(Doubt::PidFile {
        path: path.to_owned(),
        pid,
    })
}

/// Lets go of those of the VIPs that this host holds, if they are `configured` and keepalived is
/// dead: only where keepalived puts them, for on `lo` or elsewhere they are somebody else's. Gives
/// what became of each on each interface; nothing for one that is not here.
///
/// # Errors
/// If the kernel refuses.
pub async fn release(
    kernel: &Kernel,
    vips: &[Vip],
    configured: &[PlacedVip],
    pid_files: &[PathBuf],
    dry_run: bool,
) -> Result<Vec<Held>, kernel::Error> {
    let host = kernel.snapshot().await?;
    let mut all = Vec::new();
    for (vip, address, interface) in here(&host, vips, configured) {
        // Right before each deletion: a keepalived may have been started meanwhile.
        let kept = if configured.iter().all(|placed| placed.vip != vip) {
            Some(Doubt::NotConfigured)
        } else if let Err(doubt) = keepalived_is_dead(pid_files) {
            Some(doubt)
        } else if dry_run {
            Some(Doubt::DryRun)
        } else {
            kernel.delete_address(&address).await?;
            None
        };
        all.push(Held {
            vip,
            interface,
            kept,
        });
    }
    Ok(all)
}

/// The VIPs' addresses on this host, without those that keepalived puts elsewhere.
fn here(
    host: &HostSnapshot,
    vips: &[Vip],
    configured: &[PlacedVip],
) -> Vec<(Vip, Address, String)> {
    let mut all = Vec::new();
    for address in &host.addresses {
        let vip = vips.iter().find(|vip| vip.ip() == address.ip);
        let (Some(vip), Some(link)) = (vip, host.link(address.interface)) else {
            continue;
        };
        let placed = || configured.iter().filter(|placed| placed.vip == *vip);
        let lower = host.lower(link);
        if placed().next().is_none() || placed().any(|placed| placed.place.admits(link, lower)) {
            all.push((*vip, *address, link.name.clone()));
        } else {
            debug!("{vip} on {} stays: keepalived puts it elsewhere", link.name);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_socket_of_protocol_112_speaks_vrrp() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let socket = |port: &str| format!("{head}   1: 00000000:{port} 00000000:0000 07 0:0\n");
        assert!(speaks_vrrp(&socket("0070")));
        assert!(!speaks_vrrp(&socket("0001")) && !speaks_vrrp(head));
        let v6 = format!("{head} 112: {}:0070 {0}:0000 07 0:0\n", "0".repeat(32));
        assert!(speaks_vrrp(&v6));
    }

    #[test]
    fn a_pid_file_counts_as_dead_only_if_its_process_is() {
        let file = std::env::temp_dir().join(format!("vipherald-pid-{}", std::process::id()));
        assert_eq!(look_at_pid_file(&file), Ok(()));
        for (text, dead) in [
            (std::process::id().to_string(), false),
            // More than any kernel gives (PID_MAX_LIMIT is 2^22).
            ("4194305\n".to_owned(), true),
            (String::new(), false),
            ("x".to_owned(), false),
        ] {
            fs::write(&file, &text).unwrap();
            assert_eq!(look_at_pid_file(&file).is_ok(), dead, "{text:?}");
        }
        fs::remove_file(&file).unwrap();
    }
}
