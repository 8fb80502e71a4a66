//! The shell around the core: it hands over the kernel's word before every frame, and sends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::pin;
use std::time::Instant;

use log::{debug, trace};
use tokio::time::sleep_until;

use super::{Announcement, Pace, Transmit};
use crate::address::{InterfaceIndex, Vip};
use crate::error::Error;
use crate::kernel::{Change, Changes, Drained, Kernel, Link};
use crate::port::Port;

/// What is to be announced.
#[derive(Clone, Debug)]
pub struct Order {
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// Only where they are on this interface; `None`: wherever they are.
    pub interface: Option<String>,
    /// The bounds of the run.
    pub pace: Pace,
}

/// A run that looked at the host, and has not sent anything yet.
#[derive(Debug)]
pub struct Session {
    kernel: Kernel,
    changes: Changes,
    core: Announcement,
    ports: HashMap<InterfaceIndex, Port>,
}

impl Session {
    /// Subscribes to changes, then looks where the VIPs are.
    ///
    /// # Errors
    /// If the kernel can't be asked, or an interface is none that a VIP can be announced on.
    pub async fn prepare(order: &Order, now: Instant) -> Result<Self, Error> {
        let changes = Changes::subscribe()?;
        let kernel = Kernel::connect()?;
        let only = match &order.interface {
            Some(name) => Some(named(&kernel, name).await?),
            None => None,
        };
        let mut session = Self {
            core: Announcement::new(&order.vips, only, order.pace, now),
            kernel,
            changes,
            ports: HashMap::new(),
        };
        session.look(now).await?;
        for claim in session.core.claims() {
            announceable(&claim.link)?;
        }
        Ok(session)
    }

    /// The core, for what it knows.
    #[must_use]
    pub fn core(&self) -> &Announcement {
        &self.core
    }

    /// Announces until the core is done, or `stop` is. Returns what `stop` gave, if it was.
    ///
    /// # Errors
    /// If the kernel stops answering, or no packet socket can be had.
    pub async fn run<S>(&mut self, stop: impl Future<Output = S>) -> Result<Option<S>, Error> {
        let mut stop = pin!(stop);
        loop {
            let now = self.send_due().await?;
            if self.core.is_over(now) {
                return Ok(None);
            }
            let deadline = self.core.next_deadline(now);
            tokio::select! {
                stopped = &mut stop => return Ok(Some(stopped)),
                readable = self.changes.readable() => readable.map_err(Error::Runtime)?,
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    /// Sends every frame that may leave now, knowing before each what the kernel knows.
    async fn send_due(&mut self) -> Result<Instant, Error> {
        loop {
            let now = Instant::now();
            self.hear_changes(now).await?;
            match self.core.poll_transmit(now) {
                Some(transmit) => self.send(now, &transmit)?,
                None => return Ok(now),
            }
        }
    }

    fn send(&mut self, now: Instant, transmit: &Transmit) -> Result<(), Error> {
        let claim = self.core.claim_of(transmit);
        let port = match self.ports.entry(claim.interface()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(Port::open(&claim.link)?),
        };
        match port.send(&transmit.frame.to_bytes()) {
            Ok(()) => {
                trace!("{}: sent {:?}", claim.link.name, transmit.frame);
                self.core.sent(now, transmit);
            }
            Err(errno) => {
                debug!(
                    "{}: {errno}, not sent: {:?}",
                    claim.link.name, transmit.frame
                );
                self.core.refused(now, transmit, errno);
            }
        }
        Ok(())
    }

    /// Tells the core every change that had happened when the last look at the queue found it
    /// empty, with nothing awaited since.
    async fn hear_changes(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            let mut changes = Vec::new();
            let drained = self.changes.drain(|change| changes.push(change))?;
            if changes.is_empty() && drained == Drained::Complete {
                return Ok(());
            }
            for change in changes {
                self.hear(now, change).await?;
            }
            if drained == Drained::Overrun {
                self.look(now).await?;
            }
        }
    }

    async fn hear(&mut self, now: Instant, change: Change) -> Result<(), Error> {
        match change {
            Change::Link(link) => self.core.link_changed(now, &link),
            Change::LinkGone(interface) => self.core.link_gone(interface),
            Change::AddressGone(address) => self.core.address_gone(&address),
            Change::Address(address) => {
                if let Some(interface) = self.core.unknown_link_of(&address) {
                    self.meet(now, interface).await?;
                }
                self.core.address_changed(now, &address);
            }
        }
        Ok(())
    }

    /// Asks for all that holds now.
    async fn look(&mut self, now: Instant) -> Result<(), Error> {
        for interface in self.core.interfaces() {
            self.meet(now, interface).await?;
        }
        let addresses = self.kernel.addresses().await?;
        for address in &addresses {
            if let Some(interface) = self.core.unknown_link_of(address) {
                self.meet(now, interface).await?;
            }
        }
        self.core.addresses_are(now, &addresses);
        Ok(())
    }

    async fn meet(&mut self, now: Instant, interface: InterfaceIndex) -> Result<(), Error> {
        match self.kernel.link(interface).await? {
            Some(link) => self.core.link_changed(now, &link),
            None => self.core.link_gone(interface),
        }
        Ok(())
    }
}

async fn named(kernel: &Kernel, name: &str) -> Result<InterfaceIndex, Error> {
    match kernel.link_named(name).await? {
        Some(link) => announceable(&link).map(|()| link.index),
        None => Err(Error::NoSuchInterface(name.to_owned())),
    }
}

/// Whether a VIP can be announced on an interface.
fn announceable(link: &Link) -> Result<(), Error> {
    if let Some(why) = link.unlike_ethernet {
        let interface = link.name.clone();
        return Err(Error::UnfitInterface { interface, why });
    }
    if !link.up {
        return Err(Error::InterfaceDown(link.name.clone()));
    }
    Ok(())
}
