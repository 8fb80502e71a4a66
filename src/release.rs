//! Releasing a VIP that a dead keepalived left on this host, which therefore still answers for it.
//!
//! It takes three proofs of death: this network namespace has no process that could be keepalived, it
//! has no VRRP socket (which reveals a keepalived outside this process's container), and no PID file
//! names a living process. In doubt the VIP stays.

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

/// Where keepalived writes its PIDs: by default, or with a directory of its own.
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
/// The IP protocol of VRRP (RFC 9568 §5.1.1.4), which the kernel lists as the port of raw sockets.
const VRRP: &str = ":0070";

/// What became of a VIP on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The VIP.
    pub vip: Vip,
    /// The interface that has it, or had it.
    pub interface: String,
    /// Why it is still there; `None`: it was released.
    pub kept: Option<Doubt>,
}

/// Why a VIP is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It is none of keepalived's.
    #[error("it is no VIP of keepalived.conf")]
    NotConfigured,
    /// A keepalived runs.
    #[error("keepalived runs here, as process {0}: stop it first")]
    Alive(u32),
    /// Something speaks VRRP.
    #[error("a VRRP socket is open in this network namespace: some keepalived runs")]
    Speaks,
    /// A PID file names a living process.
    #[error("{} names process {pid}, which is alive", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// The PID in it.
        pid: u32,
    },
    /// Something could not be inspected.
    #[error("cannot tell whether keepalived is dead: {0}")]
    Unknown(String),
    /// In a dry run.
    #[error("dry run: it would be released")]
    DryRun,
}

/// Checks that keepalived is dead in this network namespace.
///
/// # Errors
/// The sign that it may be alive.
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
    // `hidepid` and `ProtectProc=` hide the processes of others, process 1 first of all.
    if !Path::new("/proc/1").exists() {
        return Err(Doubt::Unknown(
            "/proc hides processes (hidepid, ProtectProc=): to see them takes CAP_SYS_PTRACE"
                .to_owned(),
        ));
    }
    let unknown = |error: io::Error| Doubt::Unknown(format!("/proc: {error}"));
    let own = namespace(Path::new("/proc/self")).map_err(unknown)?;
    for process in fs::read_dir("/proc").map_err(unknown)? {
        let process = process.map_err(unknown)?;
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

/// Whether the kernel's list of raw sockets has one for VRRP.
fn speaks_vrrp(sockets: &str) -> bool {
    let local = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    sockets
        .lines()
        .filter_map(local)
        .any(|local| local.ends_with(VRRP))
}

fn look_at(pid: u32, process: &Path, own: u64) -> Result<(), Doubt> {
    let lives_here =
        might_be_keepalived(process).and_then(|might| Ok(might && namespace(process)? == own));
    match lives_here {
        Ok(true) => Err(Doubt::Alive(pid)),
        Err(error) if is_denied(&error) => Err(Doubt::Unknown(format!(
            "process {pid}: {error}: to inspect the processes of others takes CAP_SYS_PTRACE"
        ))),
        // Or it has ended meanwhile.
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Judges by its name, which keepalived.conf can change, and by its program. A zombie is dead.
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
        // Kernel threads have none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EACCES | EPERM))
}

fn namespace(process: &Path) -> io::Result<u64> {
    Ok(fs::metadata(process.join("ns/net"))?.ino())
}

/// Whether a process is gone, or a zombie that its parent has not waited for.
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

/// Releases those of the VIPs that this host holds, if they are `configured` and keepalived is dead;
/// and only where keepalived puts them, because on `lo` or elsewhere somebody else does. Returns what
/// became of each on each interface, and nothing for one that is not here.
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
        // Before each deletion: somebody may have started keepalived meanwhile.
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

/// The VIPs on this host, except where keepalived does not put them.
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
