//! The one driver of whatever asks: it hands over the kernel's word and every frame that came in
//! before a frame goes out, and sends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use log::{debug, trace};
use nix::errno::Errno;
use tokio::task::yield_now;
use tokio::time::sleep_until;
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::{Asker, Refusal, Transmit};
use vipherald_core::host::{Address, Link};
use vipherald_core::wire::Frame;

use crate::descriptors;
use crate::error::Error;
use crate::kernel::{Change, Changes, Drained, Kernel};
use crate::packet_socket::{self, PacketSocket};

/// Frames of a socket that are read before the next one is sent.
const FRAMES_AT_ONCE: u32 = 1024;

/// The clock, netlink and packet sockets of one run.
#[derive(Debug)]
pub(crate) struct Driver {
    kernel: Kernel,
    changes: Changes,
    sockets: HashMap<InterfaceIndex, PacketSocket>,
    out_of_descriptors: bool,
}

impl Driver {
    /// Subscribes to changes, then connects: what is asked of the kernel from now on holds until a
    /// change says otherwise.
    ///
    /// # Errors
    /// If the kernel can't be asked.
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self {
            changes: Changes::subscribe()?,
            kernel: Kernel::connect()?,
            sockets: HashMap::new(),
            out_of_descriptors: false,
        })
    }

    /// The connection to the kernel.
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Drives an asker until it is over.
    ///
    /// # Errors
    /// If the kernel stops answering, or no packet socket can be had.
    pub(crate) async fn run(&mut self, asker: &mut impl Asker) -> Result<(), Error> {
        loop {
            let now = self.send_due(asker, |_| ()).await?;
            if asker.is_over(now) {
                return Ok(());
            }
            tokio::select! {
                readable = future::poll_fn(|context| self.poll_readable(context)) => {
                    readable.map_err(Error::Runtime)?;
                }
                () = sleep_until(asker.next_deadline(now).into()) => {}
            }
        }
    }

    /// Sends every frame that may leave now, knowing before each what the kernel knows and what
    /// came in, and after `before_each`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn send_due<A: Asker>(
        &mut self,
        asker: &mut A,
        before_each: impl Fn(&mut A),
    ) -> Result<Instant, Error> {
        loop {
            let now = Instant::now();
            let all_heard = self.hear_frames(asker, now);
            before_each(asker);
            self.hear_changes(asker, now).await?;
            match asker.poll_transmit(now) {
                Some(transmit) => self.send(asker, now, &transmit).await?,
                None if all_heard || asker.is_over(now) => return Ok(now),
                None => {}
            }
            // Whoever shares the thread gets a turn, and time to act on the next event.
            yield_now().await;
        }
    }

    async fn send<A: Asker>(
        &mut self,
        asker: &mut A,
        now: Instant,
        transmit: &Transmit<A::Ticket>,
    ) -> Result<(), Error> {
        // An interface that is gone ends what is asked on it, as soon as the change is heard.
        let Some(link) = asker.link(transmit.interface) else {
            asker.refused(now, transmit, refusal(Errno::ENXIO));
            return Ok(());
        };
        if self.out_of_descriptors && !self.sockets.contains_key(&link.index) {
            asker.refused(now, transmit, Refusal::OutOfDescriptors);
            return Ok(());
        }
        if let Err(error) = ready_socket(&mut self.sockets, link, transmit.is_question) {
            // One interface's trouble keeps no other from its frames.
            let Some(errno) = error.errno() else {
                return Err(error.into());
            };
            if errno == Errno::EMFILE && descriptors::raise_limit() {
                asker.put_off(now, transmit);
            } else {
                // To try it again would take 8-16 ms each time: the kernel notices after it has made
                // the socket, and waits before it closes that.
                self.out_of_descriptors |= errno == Errno::EMFILE;
                debug!("{error}");
                asker.refused(now, transmit, refusal(errno));
            }
            return Ok(());
        }
        let octets = transmit.frame.to_bytes();
        // The last look, when there is nothing left to do but to send: what is between the two is
        // the time in which a frame may leave after its VIP did.
        if self.hear_changes(asker, now).await? {
            asker.put_off(now, transmit);
            return Ok(());
        }
        let interface = transmit.interface;
        match self.sockets[&interface].send(&octets) {
            Ok(()) => {
                trace!("interface {}: sent {:?}", interface.0, transmit.frame);
                asker.sent(now, transmit);
            }
            Err(errno) => {
                debug!(
                    "interface {}: {errno}, not sent: {:?}",
                    interface.0, transmit.frame
                );
                asker.refused(now, transmit, refusal(errno));
            }
        }
        Ok(())
    }

    /// Hands over frames that came in, of each socket a bounded number, so that a flood holds
    /// nothing up. Returns whether these were all.
    fn hear_frames(&mut self, asker: &mut impl Asker, now: Instant) -> bool {
        let mut all_heard = true;
        for (interface, socket) in &self.sockets {
            let mut heard = 0;
            for octets in (0..FRAMES_AT_ONCE).map_while(|_| socket.receive()) {
                heard += 1;
                if let Some(frame) = Frame::parse(&octets) {
                    trace!("interface {}: received {frame:?}", interface.0);
                    asker.received(now, *interface, &frame);
                }
            }
            all_heard &= heard < FRAMES_AT_ONCE;
        }
        all_heard
    }

    /// Hands over every change that had happened when the last look at the queue found it empty,
    /// with nothing awaited since. Whether there was any.
    ///
    /// # Errors
    /// If the kernel stops answering.
    pub(crate) async fn hear_changes(
        &mut self,
        asker: &mut impl Asker,
        now: Instant,
    ) -> Result<bool, Error> {
        let mut any = false;
        loop {
            let mut changes = Vec::new();
            let drained = self.changes.drain(|change| changes.push(change))?;
            if changes.is_empty() && drained == Drained::Complete {
                return Ok(any);
            }
            any = true;
            for change in changes {
                self.hear(asker, now, change).await?;
            }
            if drained == Drained::Overrun {
                self.look(asker, now).await?;
            }
        }
    }

    async fn hear(
        &self,
        asker: &mut impl Asker,
        now: Instant,
        change: Change,
    ) -> Result<(), Error> {
        match change {
            // Others are of no interest, however many there are.
            Change::Link(link) if asker.link(link.index).is_some() => {
                asker.link_changed(now, &link);
            }
            Change::Link(_) => {}
            Change::LinkGone(interface) => asker.link_gone(now, interface),
            Change::AddressGone(address) => asker.address_gone(now, &address),
            Change::Address(address) => {
                self.meet_links_of(asker, now, &address).await?;
                asker.address_changed(now, &address);
            }
        }
        Ok(())
    }

    /// Asks for all that holds now.
    ///
    /// # Errors
    /// If the kernel stops answering.
    pub(crate) async fn look(&self, asker: &mut impl Asker, now: Instant) -> Result<(), Error> {
        for interface in asker.interfaces() {
            self.meet(asker, now, interface).await?;
        }
        let addresses = self.kernel.addresses().await?;
        for address in &addresses {
            self.meet_links_of(asker, now, address).await?;
        }
        asker.addresses_are(now, &addresses);
        Ok(())
    }

    /// Hands over the interface that has an address, and the one below it, as far as they are needed.
    async fn meet_links_of(
        &self,
        asker: &mut impl Asker,
        now: Instant,
        address: &Address,
    ) -> Result<(), Error> {
        for _ in 0..2 {
            match asker.unknown_link_of(address) {
                Some(interface) => self.meet(asker, now, interface).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn meet(
        &self,
        asker: &mut impl Asker,
        now: Instant,
        interface: InterfaceIndex,
    ) -> Result<(), Error> {
        match self.kernel.link(interface).await? {
            Some(link) => asker.link_changed(now, &link),
            None => asker.link_gone(now, interface),
        }
        Ok(())
    }

    /// Whether there is a change or a frame to hear.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut any = self.changes.poll_readable(context);
        for socket in self.sockets.values() {
            let one = socket.poll_readable(context);
            any = if one.is_ready() { one } else { any };
        }
        any
    }
}

/// The kernel's word for why a frame could not leave.
fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::EMFILE => Refusal::OutOfDescriptors,
        other => Refusal::Other(other.to_string()),
    }
}

/// The open socket on an interface, which also listens if it has to.
fn ready_socket<'a>(
    sockets: &'a mut HashMap<InterfaceIndex, PacketSocket>,
    link: &Link,
    listen: bool,
) -> Result<&'a PacketSocket, packet_socket::Error> {
    let socket = match sockets.entry(link.index) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(none) => none.insert(PacketSocket::open(link)?),
    };
    if listen {
        socket.listen(link)?;
    }
    Ok(socket)
}
