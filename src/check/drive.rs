//! What asks is driven: frames that came in are handed over, those that are due are sent, and no
//! faster than may be.

use std::collections::BTreeMap;
use std::future;
use std::task::Poll;
use std::time::Instant;

use log::trace;
use tokio::time::sleep_until;
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::{Bucket, FollowUp, Refusal};
use vipherald_core::wire::Frame;

use crate::announce::refusal;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::packet_socket::PacketSocket;

/// Somebody who asks about one VIP on one interface.
pub(super) trait Asker {
    fn interface(&self) -> InterfaceIndex;

    /// Gets ready for the next frame.
    async fn prepare(&mut self, kernel: &Kernel, now: Instant) -> Result<(), Error>;

    /// A frame came in on the interface.
    fn received(&mut self, now: Instant, frame: &Frame);

    /// The frame that may leave now.
    fn poll_transmit(&self, now: Instant) -> Option<Frame>;

    /// It left, or could not.
    fn sent(&mut self, now: Instant, result: Result<(), Refusal>);

    /// Whether nothing more can happen.
    fn is_over(&self, now: Instant) -> bool;

    /// When to look again if nothing happens before.
    fn next_deadline(&self, now: Instant) -> Instant;

    /// The frames that left.
    fn frames(&self) -> u32;
}

/// A follow-up of its own, on an interface.
pub(super) struct Alone {
    pub(super) interface: InterfaceIndex,
    pub(super) follow_up: FollowUp,
}

impl Asker for Alone {
    fn interface(&self) -> InterfaceIndex {
        self.interface
    }

    async fn prepare(&mut self, _: &Kernel, _: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn received(&mut self, _: Instant, frame: &Frame) {
        self.follow_up.received(frame);
    }

    fn poll_transmit(&self, now: Instant) -> Option<Frame> {
        self.follow_up.poll_transmit(now)
    }

    fn sent(&mut self, now: Instant, result: Result<(), Refusal>) {
        self.follow_up.sent(now, result.is_ok());
    }

    fn is_over(&self, now: Instant) -> bool {
        self.follow_up.is_over(now)
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        self.follow_up.next_deadline(now)
    }

    fn frames(&self) -> u32 {
        self.follow_up.frames()
    }
}

/// Drives all askers until each is over. There is a socket for every interface.
pub(super) async fn drive(
    kernel: &Kernel,
    askers: &mut [impl Asker],
    sockets: &BTreeMap<InterfaceIndex, PacketSocket>,
    mut bucket: Bucket,
) -> Result<(), Error> {
    loop {
        let now = Instant::now();
        for (interface, socket) in sockets {
            while let Some(octets) = socket.receive() {
                let Some(frame) = Frame::parse(&octets) else {
                    continue;
                };
                trace!("interface {}: received {frame:?}", interface.0);
                for one in askers
                    .iter_mut()
                    .filter(|one| one.interface() == *interface)
                {
                    one.received(now, &frame);
                }
            }
        }
        for one in askers.iter_mut() {
            one.prepare(kernel, now).await?;
        }
        if askers.iter().all(|one| one.is_over(now)) {
            return Ok(());
        }
        for one in askers.iter_mut() {
            let Some(frame) = one.poll_transmit(now) else {
                continue;
            };
            if !bucket.take(now) {
                break;
            }
            let interface = one.interface();
            let result = sockets[&interface].send(&frame.to_bytes()).map_err(refusal);
            trace!("interface {}: sent ({result:?}) {frame:?}", interface.0);
            one.sent(now, result);
        }
        // Who asks first is first in line for the next token, too.
        askers.sort_by_key(Asker::frames);
        let next = |one: &_| {
            let due = Asker::next_deadline(one, now);
            match Asker::poll_transmit(one, now) {
                Some(_) => due.max(bucket.ready_at()),
                None => due,
            }
        };
        let open = askers.iter().filter(|one| !one.is_over(now));
        let deadline = open.map(next).min().unwrap_or(now);
        tokio::select! {
            readable = readable(sockets) => readable.map_err(Error::Runtime)?,
            () = sleep_until(deadline.into()) => {}
        }
    }
}

async fn readable(sockets: &BTreeMap<InterfaceIndex, PacketSocket>) -> std::io::Result<()> {
    future::poll_fn(|context| {
        let mut any = Poll::Pending;
        for socket in sockets.values() {
            let one = socket.poll_readable(context);
            any = if one.is_ready() { one } else { any };
        }
        any
    })
    .await
}
