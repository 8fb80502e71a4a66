//! SIGTERM, SIGINT and SIGHUP.

use std::pin::Pin;
use std::task::{Poll, ready};
use std::{future, io};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Exit;
use crate::readable::Readable;

/// Ends the work in progress, and gives the exit status.
pub(crate) type Stop = Pin<Box<dyn Future<Output = Exit>>>;

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

fn signals(which: &SigSet) -> nix::Result<Readable<SignalFd>> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(which, flags)?;
    let watched = Readable::new(signals).map_err(|_| Errno::EMFILE)?;
    which.thread_block()?;
    Ok(watched)
}

/// SIGHUP, which by default ends the process.
#[derive(Debug)]
pub(crate) struct HangUps(Readable<SignalFd>);

impl HangUps {
    /// Receives it from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut hang_up = SigSet::empty();
        hang_up.add(Signal::SIGHUP);
        Ok(Self(signals(&hang_up)?))
    }

    /// Ends when it has come since the last call.
    pub(crate) async fn next(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            loop {
                if let Ok(Some(_)) = self.0.get().read_signal() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.0.poll_readable(context))?;
            }
        })
        .await
    }
}
