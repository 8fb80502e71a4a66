//! A netlink socket that shares its thread.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BufMut;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use tokio::task::yield_now;

/// How long to read without a pause. The datagram that exceeds it takes some milliseconds more to decode.
const SLICE: Duration = Duration::from_millis(2);

/// Reads in slices. The connection reads until it finds nothing, and the kernel answers a request for a
/// table datagram by datagram, as fast as they are read: without a pause, the dump of a large table would
/// keep signals, changes and frames waiting until its end.
pub(super) struct GivingWay {
    socket: TokioSocket,
    /// When the present slice began.
    began: Cell<Option<Instant>>,
}

impl GivingWay {
    fn poll_slice<T>(
        &self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let began = self.began.get();
        if began.is_some_and(|began| began.elapsed() >= SLICE) {
            self.began.set(None);
            // It wakes this task once the others had their turn, and the runtime looked for events.
            let _ = pin!(yield_now()).poll(context);
            return Poll::Pending;
        }
        let read = read(context);
        self.began.set(match read {
            Poll::Ready(_) => began.or_else(|| Some(Instant::now())),
            Poll::Pending => None,
        });
        read
    }
}

impl AsyncSocket for GivingWay {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Ok(Self {
            socket: TokioSocket::new(protocol)?,
            began: Cell::new(None),
        })
    }

    fn poll_send(&self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, buffer)
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        buffer: &[u8],
        to: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(context, buffer, to)
    }

    fn poll_recv<B: BufMut>(
        &self,
        context: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<()>> {
        self.poll_slice(context, |context| self.socket.poll_recv(context, buffer))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        context: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.poll_slice(context, |context| {
            self.socket.poll_recv_from(context, buffer)
        })
    }

    fn poll_recv_from_full(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.poll_slice(context, |context| self.socket.poll_recv_from_full(context))
    }
}
