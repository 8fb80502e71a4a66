//! SIGTERM and SIGINT.

use std::future;
use std::task::{Poll, ready};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Exit;
use crate::readable::Readable;

/// Ends when SIGTERM or SIGINT comes, with the exit status for it. Until this is first polled, or if no
/// descriptor is left for it, the signals kill the process, as by default.
///
/// It uses a signalfd, because tokio's own signals would be set up with the runtime, before the first
/// frame, and panic if no descriptor is left. Each poll asks the kernel, so that a caller who polls
/// this first does nothing more after a signal.
pub(crate) async fn termination() -> Exit {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    let Ok(signals) = signals(&ends) else {
        // An earlier call may have blocked them.
        let _ = ends.thread_unblock();
        return future::pending().await;
    };
    future::poll_fn(|context| {
        loop {
            if let Ok(Some(signal)) = signals.get().read_signal() {
                return Poll::Ready(match Signal::try_from(signal.ssi_signo.cast_signed()) {
                    Ok(Signal::SIGINT) => Exit::Interrupted,
                    _ => Exit::Terminated,
                });
            }
            if ready!(signals.poll_readable(context)).is_err() {
                // Better to end than to be deaf to signals.
                return Poll::Ready(Exit::Terminated);
            }
        }
    })
    .await
}

fn signals(ends: &SigSet) -> nix::Result<Readable<SignalFd>> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(ends, flags)?;
    let watched = Readable::new(signals).map_err(|_| Errno::EMFILE)?;
    ends.thread_block()?;
    Ok(watched)
}
