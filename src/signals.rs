//! Somebody wants this process to end: SIGTERM or SIGINT.

use std::future;
use std::task::{Poll, ready};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Exit;
use crate::readable::Readable;

/// Ends when somebody wants this process to end, and says with which status. From when this is
/// first awaited, the signals are waited for; until then, and where they can't be for want of a
/// descriptor, the default holds: they end the process by themselves.
///
/// A signalfd, because tokio's own signals would be set up with the runtime, before the first
/// frame, and panic where no descriptor is left. The kernel is asked each time that this is polled,
/// so that who polls this first does nothing after a signal came.
pub(crate) async fn termination() -> Exit {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    let Ok(signals) = signals(&ends) else {
        // They may have been waited for before.
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
                // Rather ended than deaf.
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
