//! A kernel that refuses one system call, as a container's seccomp profile does.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// Makes `call` fail with EPERM in what the command starts.
pub(crate) fn deny(command: &mut Command, call: c_long) {
    let number = u32::try_from(call).unwrap();
    let statement = |code: u32, k: u32| jump(code, 0, 0, k);
    let filter = [
        // The number of the call is the first field of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: after fork, this makes system calls alone, and allocates nothing.
    unsafe { command.pre_exec(move || install(&filter)) };
}

fn jump(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).unwrap();
    sock_filter { code, jt, jf, k }
}

fn install(filter: &[sock_filter; 4]) -> io::Result<()> {
    let program = sock_fprog {
        len: 4,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lasts as long as the calls.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
