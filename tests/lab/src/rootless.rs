//! What differs where root is only root of a user namespace.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;

/// Whether root here is root outside: the initial user namespace maps every user to itself.
pub(crate) fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Makes `setgroups` a success that does nothing, where a user namespace forbids it: keepalived
/// calls it before each script, and runs none when it fails.
pub(crate) fn tolerate_setgroups(command: &mut Command) {
    if fs::read_to_string("/proc/self/setgroups").is_ok_and(|answer| answer.trim() == "allow") {
        return;
    }
    let setgroups = u32::try_from(libc::SYS_setgroups).expect("system calls have small numbers");
    let filter = [
        // The number of the system call comes first in seccomp_data.
        operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        operation(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, setgroups),
        operation(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO),
        operation(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let length = u16::try_from(filter.len()).expect("four instructions");
    // SAFETY: between fork and exec the closure makes one system call, which reads the filter that
    // the closure owns; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: length,
                filter: filter.as_ptr().cast_mut(),
            };
            let mode = libc::SECCOMP_MODE_FILTER;
            Errno::result(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program))?;
            Ok(())
        });
    }
}

/// One instruction of a filter; a jump that fails skips `skip` instructions.
fn operation(code: u32, skip: u8, value: u32) -> libc::sock_filter {
    let code = u16::try_from(code).expect("instructions have 16 bits");
    libc::sock_filter {
        code,
        jt: 0,
        jf: skip,
        k: value,
    }
}
