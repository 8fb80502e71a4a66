//! What this process may do, and what to do where it may not: all messages word it here.

use std::fs;

use nix::unistd::Uid;

/// A capability that a command may need (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Change neighbour entries and addresses, and hear other runs.
    NetAdmin,
    /// Send and receive frames.
    NetRaw,
}

impl Capability {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
        }
    }

    /// Its bit among the capabilities of a process (linux/capability.h).
    fn bit(self) -> u64 {
        match self {
            Self::NetAdmin => 1 << 12,
            Self::NetRaw => 1 << 13,
        }
    }

    /// Whether this process has it. Where /proc does not tell, it is taken to have it, until the
    /// kernel refuses something.
    #[must_use]
    pub fn is_here(self) -> bool {
        effective().is_none_or(|effective| effective & self.bit() != 0)
    }

    /// Why the kernel may have refused what takes this capability, and what to do.
    #[must_use]
    pub fn advice(self) -> String {
        let name = self.name();
        if self.is_here() {
            // As for the root of a user namespace that shares the host's network.
            return format!(
                "though {name} is here: does the network namespace belong to another user \
                 namespace, or does a sandbox (seccomp, SELinux) forbid it?"
            );
        }
        if Uid::effective().is_root() {
            return format!(
                "no {name}, though run by root: the container (`--cap-add`, or \
                 `capabilities.add` in Kubernetes) or the systemd unit (`CapabilityBoundingSet=`) \
                 has to grant it"
            );
        }
        format!("no {name}: {}", run_as_root())
    }
}

/// What to do where a file may not be read.
#[must_use]
pub fn advice_on_reading() -> String {
    if Uid::effective().is_root() {
        "root may not read it: is there a security module, or a container without \
         CAP_DAC_OVERRIDE?"
            .to_owned()
    } else {
        run_as_root()
    }
}

fn run_as_root() -> String {
    format!(
        "run by user {}: run it as root, and for keepalived's scripts set `script_user root` in \
         keepalived.conf",
        user_name()
    )
}

/// The capabilities of this process that are in effect.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Who runs this, by name if `/etc/passwd` has it. (`getpwuid` would bring all of NSS into a
/// static program, a third of its size.)
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
