//! What the benchmarks share: programs and the moment of their exec, and figures for people.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, SystemTime};

use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};

/// Starts a program. Gives also the moment of its exec: the child takes it as the last thing that
/// it does before, so that what it costs to fork this process is not the program's.
pub(crate) fn start(command: &mut Command) -> (Child, SystemTime) {
    let (mut reader, writer) = io::pipe().expect("a pipe can be had");
    let pipe = writer.as_raw_fd();
    // SAFETY: between fork and exec the closure reads the clock and writes 16 octets to an open
    // descriptor; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
            let stamp = [now.tv_sec().to_ne_bytes(), now.tv_nsec().to_ne_bytes()];
            match libc::write(pipe, stamp.as_ptr().cast(), size_of_val(&stamp)) {
                16 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stamp = [[0; 8]; 2];
    reader
        .read_exact(stamp.as_flattened_mut())
        .expect("the child has written its time");
    let [seconds, nanos] = stamp.map(u64::from_ne_bytes);
    drop(writer);
    let since_epoch = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    (child, SystemTime::UNIX_EPOCH + since_epoch)
}

/// The value below which a share of all lie; `None` of no values.
pub(crate) fn quantile<T: Copy + Ord>(values: &[T], share: f64) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among some thousands"
    )]
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}

/// A time with three digits that count.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..1e-3 => format!("{:.0} µs", seconds * 1e6),
        ..1e-2 => format!("{:.2} ms", seconds * 1e3),
        ..1e-1 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// How a program ended, and what it took.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// From its exec to its end.
    pub(crate) took: Duration,
    /// User and system time.
    pub(crate) processor: Duration,
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let (child, began) = start(command);
    end(&child, began)
}

/// Waits for the end of a program that began then.
pub(crate) fn end(child: &Child, began: SystemTime) -> Ended {
    let pid = i32::try_from(child.id()).expect("process IDs fit");
    let mut status = 0;
    // SAFETY: zero is a value of every field of this C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values of this function that outlive the call.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let took = SystemTime::now().duration_since(began).unwrap_or_default();
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    let time = |time: libc::timeval| {
        let time = TimeVal::from(time);
        Duration::from_micros(time.num_microseconds().try_into().unwrap_or_default())
    };
    Ended {
        status: ExitStatus::from_raw(status),
        took,
        processor: time(usage.ru_utime) + time(usage.ru_stime),
    }
}
