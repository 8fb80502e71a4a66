//! Waits until a descriptor is readable, without a thread and without giving the descriptor away.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket or pipe that the runtime watches for input.
#[derive(Debug)]
pub(crate) struct Readable<T: AsRawFd>(AsyncFd<T>);

impl<T: AsFd + AsRawFd> Readable<T> {
    /// Watches `inner`, which must not block when read. Needs a running tokio runtime.
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        // SAFETY: `inner` is `AsFd`, so its descriptor is open for as long as `inner` lives;
        // it is moved in here, and nothing hands out a `&mut T` to replace it with.
        let watched = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    pub(crate) fn get(&self) -> &T {
        self.0.get_ref()
    }

    /// Ready when there may be something to read. The caller then reads until
    /// [`io::ErrorKind::WouldBlock`].
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0
            .poll_read_ready(context)
            .map_ok(|mut ready| ready.clear_ready())
    }
}

/// Ready when any of these is, or failed. Each is the `poll_readable` of one socket, and all of them
/// are polled, so that whichever becomes readable first wakes the task.
pub(crate) fn any(polls: impl IntoIterator<Item = Poll<io::Result<()>>>) -> Poll<io::Result<()>> {
    polls.into_iter().fold(
        Poll::Pending,
        |any, one| if any.is_ready() { any } else { one },
    )
}
