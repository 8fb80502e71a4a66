//! The one driver of every [`Asker`]: before it sends a frame, it delivers all changes from the kernel
//! and all received frames.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{future, io};

use log::{debug, trace, warn};
use nix::errno::Errno;
use tokio::task::yield_now;
use tokio::time::sleep_until;
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::{Asker, Listening, Refusal, Transmit};
use vipherald_core::host::{Address, Link};
use vipherald_core::wire::{Advert, Frame, Header, Payload};

use crate::arp_budget::SharedBudget;
use crate::error::Error;
use crate::kernel::{Change, Changes, Drained, Kernel};
use crate::packet_socket::{self, PacketSocket};
use crate::{descriptors, readable};

/// How long to read frames before the next one leaves and signals are looked at: a flood delays nothing.
const READING: Duration = Duration::from_millis(4);
/// The longest time in which frames leave and nothing else on this thread gets a turn.
const TURN: Duration = Duration::from_micros(200);

/// The clock, netlink and packet sockets of one run.
#[derive(Debug)]
pub(crate) struct Driver {
    kernel: Kernel,
    changes: Changes,
    /// The number of changes that were delivered.
    delivered: u64,
    sockets: HashMap<InterfaceIndex, PacketSocket>,
    out_of_descriptors: bool,
    /// The most ARP frames per second and link.
    arp_rate: Option<NonZeroU32>,
    arp_budgets: BTreeMap<InterfaceIndex, SharedBudget>,
}

impl Driver {
    /// Subscribes to changes, then connects: whatever the kernel reports from now on holds until a
    /// change. At most `arp_rate` ARP frames leave per second and link.
    pub(crate) fn open(arp_rate: Option<NonZeroU32>) -> Result<Self, Error> {
        Ok(Self {
            changes: Changes::subscribe()?,
            kernel: Kernel::connect()?,
            delivered: 0,
            sockets: HashMap::new(),
            out_of_descriptors: false,
            arp_rate,
            arp_budgets: BTreeMap::new(),
        })
    }

    /// Opens a packet socket on each of some links, until descriptors run out, so that the first frame
    /// does not wait for that. They receive nothing yet.
    pub(crate) fn open_sockets<'a>(&mut self, links: impl Iterator<Item = &'a Link>) {
        for link in links {
            if ready_socket(&mut self.sockets, link, false).is_err() {
                break;
            }
        }
    }

    /// Receives on these links and no others, as far as descriptors go. What is `wanted` besides answers
    /// counts for links that are new.
    pub(crate) fn listen_on<'a>(
        &mut self,
        links: impl Iterator<Item = &'a Link>,
        wanted: &Listening,
    ) {
        let links: Vec<_> = links.collect();
        let is_on = |index: &InterfaceIndex| links.iter().any(|link| link.index == *index);
        self.sockets.retain(|index, _| is_on(index));
        for link in links {
            let is_new = !self.sockets.contains_key(&link.index);
            if let Err(error) = ready_socket(&mut self.sockets, link, true) {
                debug!("{error}: what other hosts say there is not heard");
            } else if is_new && let Some(socket) = self.sockets.get_mut(&link.index) {
                admit(socket, link.index, wanted.clone());
            }
        }
    }

    /// Nothing is sent or received any more, unless a socket is opened again. Says how much was not read.
    pub(crate) fn close_sockets(&mut self, asker: &dyn Asker) {
        for (interface, socket) in self.sockets.drain() {
            let unread = socket.unread();
            if unread > 0 {
                let name = asker.link(interface).map_or("?", |link| &link.name);
                warn!("{name}: about {unread} frames were not looked at");
            }
        }
    }

    /// Forgets the changes that wait to be delivered. What holds now must be known from elsewhere.
    pub(crate) fn subscribe_again(&mut self) -> Result<(), Error> {
        self.changes = Changes::subscribe()?;
        Ok(())
    }

    /// The number of changes that were delivered, about anything on this host.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The connection to the kernel.
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Drives an asker until it is over.
    pub(crate) async fn run<A: Asker>(&mut self, asker: &mut A) -> Result<(), Error> {
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

    /// Sends every frame that may leave now. Before each, delivers received frames, calls `before_each`
    /// and delivers changes. Other tasks on this thread (some wait for signals) get a turn after
    /// each [`TURN`]: a turn costs more system calls than a frame.
    pub(crate) async fn send_due<A: Asker>(
        &mut self,
        asker: &mut A,
        before_each: impl Fn(&mut A),
    ) -> Result<Instant, Error> {
        let mut turn_ends = Instant::now();
        loop {
            let now = Instant::now();
            let all_read = self.deliver_frames(asker, now);
            before_each(asker);
            // Within a turn, the last check before each frame delivers them.
            if now >= turn_ends {
                self.deliver_changes(asker, now).await?;
                turn_ends = now + TURN;
            }
            match asker.poll_transmit(now) {
                Some(transmit) => self.send(asker, now, &transmit).await?,
                None if all_read || asker.is_over(now) => return Ok(now),
                None => {}
            }
            if Instant::now() >= turn_ends {
                yield_now().await;
            }
        }
    }

    async fn send(
        &mut self,
        asker: &mut dyn Asker,
        now: Instant,
        transmit: &Transmit,
    ) -> Result<(), Error> {
        // The change that removes the interface also ends its questions.
        let Some(link) = asker.link(transmit.interface) else {
            asker.refused(now, transmit, refusal(Errno::ENXIO));
            return Ok(());
        };
        if self.out_of_descriptors && !self.sockets.contains_key(&link.index) {
            asker.refused(now, transmit, Refusal::OutOfDescriptors);
            return Ok(());
        }
        if let Err(error) = ready_socket(&mut self.sockets, link, transmit.is_question) {
            // The failure of one interface must not stop the others.
            let Some(errno) = error.errno() else {
                return Err(error.into());
            };
            if errno == Errno::EMFILE && descriptors::raise_limit() {
                asker.put_off(now, transmit);
            } else {
                // Each further try would take 8-16 ms: the kernel fails only after it has made the
                // socket, and waits before it closes that.
                self.out_of_descriptors |= errno == Errno::EMFILE;
                debug!("{error}");
                asker.refused(now, transmit, refusal(errno));
            }
            return Ok(());
        }
        let octets = transmit.frame.to_bytes();
        let interface = transmit.interface;
        // What changed meanwhile shall cost no budget.
        if self.arp_rate.is_some() {
            if self.deliver_changes(asker, now).await? {
                asker.put_off(now, transmit);
                return Ok(());
            }
            if let Err(until) = self.take_budget(now, transmit) {
                asker.over_budget(now, transmit, until);
                return Ok(());
            }
        }
        // The last check before the send: only in between can a frame leave after its VIP did.
        if self.deliver_changes(asker, now).await? {
            asker.put_off(now, transmit);
            return Ok(());
        }
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

    /// Uses the link's budget for an ARP frame, or returns when there is some again.
    fn take_budget(&mut self, now: Instant, transmit: &Transmit) -> Result<(), Instant> {
        let (Some(rate), Payload::Arp(_)) = (self.arp_rate, &transmit.frame.payload) else {
            return Ok(());
        };
        let interface = transmit.interface;
        let budget = self.arp_budgets.entry(interface);
        budget
            .or_insert_with(|| SharedBudget::open(interface, rate))
            .take(now)
    }

    /// Delivers received frames for a bounded time, in which each socket has its share. Returns whether
    /// these were all.
    fn deliver_frames(&mut self, asker: &mut dyn Asker, now: Instant) -> bool {
        let mut all_read = true;
        let share = READING / u32::try_from(self.sockets.len()).unwrap_or(u32::MAX).max(1);
        for (interface, socket) in &mut self.sockets {
            let mut began = None;
            while let Some(octets) = socket.receive() {
                if let Some(header) = Header::parse(&octets) {
                    asker.heard(now, *interface, &header);
                }
                if let Some(frame) = Frame::parse(&octets) {
                    trace!("interface {}: received {frame:?}", interface.0);
                    asker.received(now, *interface, &frame);
                } else if let Some(advert) = Advert::parse(&octets) {
                    trace!("interface {}: received {advert:?}", interface.0);
                    asker.advertised(now, *interface, &advert);
                }
                socket.was_read(&octets);
                if began.get_or_insert_with(Instant::now).elapsed() >= share {
                    all_read = false;
                    break;
                }
            }
            match socket.settle(now) {
                Ok(true) => warn!(
                    "{}: more frames come in than are worth reading, from a loop or an attack: only some \
                     are looked at",
                    asker.link(*interface).map_or("?", |link| &link.name)
                ),
                Ok(false) => {}
                Err(error) => debug!("interface {}: {error}: all frames are read", interface.0),
            }
            if let Some(wanted) = asker.listening_changed(now, *interface) {
                admit(socket, *interface, wanted);
            }
        }
        for link in asker.more_links() {
            if self.out_of_descriptors && !self.sockets.contains_key(&link.index) {
                continue;
            }
            match ready_socket(&mut self.sockets, &link, true) {
                Ok(_) => asker.receives_on(now, &link),
                Err(error) => {
                    debug!("{error}: replies that come in there are not seen");
                    break;
                }
            }
        }
        all_read
    }

    /// Delivers every change up to the moment when it finds the queue empty, and awaits nothing after
    /// that. While there are more, other tasks get their turns. Returns whether there was any.
    pub(crate) async fn deliver_changes(
        &mut self,
        asker: &mut dyn Asker,
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
            self.delivered += 1 + changes.len() as u64;
            for change in changes {
                self.deliver(asker, now, change).await?;
            }
            match drained {
                Drained::Complete => {}
                Drained::More => yield_now().await,
                Drained::Overrun => self.load(asker, now).await?,
            }
        }
    }

    async fn deliver(
        &self,
        asker: &mut dyn Asker,
        now: Instant,
        change: Change,
    ) -> Result<(), Error> {
        match change {
            // A host may have thousands of other links.
            Change::Link(link) if asker.link(link.index).is_some() => {
                asker.link_changed(now, &link);
            }
            Change::Link(_) => {}
            Change::LinkGone(interface) => asker.link_gone(now, interface),
            Change::AddressGone(address) => asker.address_gone(now, &address),
            Change::Address(address) => {
                self.load_links_of(asker, now, &address).await?;
                asker.address_changed(now, &address);
            }
        }
        Ok(())
    }

    /// Loads the current links and addresses from the kernel.
    pub(crate) async fn load(&self, asker: &mut dyn Asker, now: Instant) -> Result<(), Error> {
        for interface in asker.interfaces() {
            self.load_link(asker, now, interface).await?;
        }
        let addresses = self.kernel.addresses().await?;
        for address in &addresses {
            self.load_links_of(asker, now, address).await?;
        }
        asker.addresses_are(now, &addresses);
        Ok(())
    }

    /// Loads the interface that has an address, and the one below it, if the asker needs them.
    async fn load_links_of(
        &self,
        asker: &mut dyn Asker,
        now: Instant,
        address: &Address,
    ) -> Result<(), Error> {
        for _ in 0..2 {
            match asker.unknown_link_of(address) {
                Some(interface) => self.load_link(asker, now, interface).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn load_link(
        &self,
        asker: &mut dyn Asker,
        now: Instant,
        interface: InterfaceIndex,
    ) -> Result<(), Error> {
        match self.kernel.link(interface).await? {
            Some(link) => asker.link_changed(now, &link),
            None => asker.link_gone(now, interface),
        }
        Ok(())
    }

    /// Ready when there is a change or a frame to read.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let changes = self.changes.poll_readable(context);
        let sockets = self.sockets.values();
        let sockets = sockets.map(|socket| socket.poll_readable(context));
        readable::any(sockets.chain([changes]))
    }
}

fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::EMFILE => Refusal::OutOfDescriptors,
        other => Refusal::Other(other.to_string()),
    }
}

fn admit(socket: &mut PacketSocket, interface: InterfaceIndex, wanted: Listening) {
    if let Err(error) = socket.admit(wanted) {
        debug!(
            "interface {}: {error}: only answers are received",
            interface.0
        );
    }
}

/// The socket on an interface, opened if necessary, and listening if asked to.
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
