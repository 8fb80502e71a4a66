//! What this process may do, and the advice in every message where it may not.

use std::{fs, io};

use nix::libc::{EACCES, EMFILE, ENFILE, ENOMEM, EPERM};
use nix::unistd::Uid;

/// A capability that a command may need (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To give a file to another group.
    Chown,
    /// To change neighbour entries and addresses, and to hear other runs.
    NetAdmin,
    /// To send and receive frames.
    NetRaw,
}

impl Capability {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chown => "CAP_CHOWN",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
        }
    }

    /// Its bit among the capabilities of a process (linux/capability.h).
    fn bit(self) -> u64 {
        match self {
            Self::Chown => 1 << 0,
            Self::NetAdmin => 1 << 12,
            Self::NetRaw => 1 << 13,
        }
    }

    /// Whether this process has it. If /proc does not say, assume so, until the kernel refuses.
    #[must_use]
    pub fn is_here(self) -> bool {
        effective().is_none_or(|effective| effective & self.bit() != 0)
    }

    /// Why the kernel may have refused what needs this capability, and what to do.
    #[must_use]
    pub fn advice(self) -> String {
        let name = self.name();
        if self.is_here() {
            // Such as root of a user namespace that shares the host's network.
            return format!(
                "although this process has {name}: does the network namespace belong to another \
                 user namespace, or does a sandbox (seccomp, SELinux) forbid it?"
            );
        }
        if Uid::effective().is_root() {
            return format!(
                "no {name}, though run as root: grant it to the container (`--cap-add`, or \
                 `capabilities.add` in Kubernetes) or to the systemd unit \
                 (`CapabilityBoundingSet=`)"
            );
        }
        format!("no {name}: {}", run_as_root())
    }
}

/// What to do about a system call that failed, to follow the error's text: nothing, unless the cause is
/// a limit or a sandbox.
#[must_use]
pub fn advice_on_call(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => "; raise the limit on descriptors (`ulimit -n`, LimitNOFILE=)",
        Some(ENOMEM) => "; raise the limit on memory (`ulimit -v`, LimitAS=, MemoryMax=)",
        Some(EPERM | EACCES) => "; does a sandbox (seccomp, SELinux) or a firewall forbid it?",
        _ => "",
    }
}

/// What to do about an error with a file, to follow its text.
#[must_use]
pub fn advice_on_file(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return advice_on_call(error).to_owned();
    }
    if Uid::effective().is_root() {
        "; root may not access it: does a security module forbid it, or does the container lack \
         CAP_DAC_OVERRIDE?"
            .to_owned()
    } else {
        format!("; {}", run_as_root())
    }
}

fn run_as_root() -> String {
    format!(
        "it was run as user {}: run it as root; for keepalived's scripts, set `script_user root` in \
         keepalived.conf",
        user_name()
    )
}

/// The effective capabilities of this process.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The user that this process runs as, by name if `/etc/passwd` has it. (`getpwuid` would add all
/// of NSS to a static program, a third of its size.)
fn user_name() -> String {
    let uid = Uid::effective().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or(uid)
}
