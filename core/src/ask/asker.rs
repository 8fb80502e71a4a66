//! What the shell's one driver drives.

use std::time::Instant;

use super::Refusal;
use crate::address::InterfaceIndex;
use crate::host::{Address, Link};
use crate::wire::Frame;

/// A frame that shall leave now. Once that was tried, the asker learns how it went, by
/// [`Asker::sent`], [`Asker::put_off`] or [`Asker::refused`].
#[derive(Debug)]
#[must_use]
pub struct Transmit<T> {
    /// The interface to send on.
    pub interface: InterfaceIndex,
    /// What to send.
    pub frame: Frame,
    /// Whether it may be answered on that interface.
    pub is_question: bool,
    /// What the asker knows it by.
    pub(crate) ticket: T,
}

/// A state machine that asks.
///
/// The driver's duty: hand over every change on this host that is known ([`Asker::link_changed`] and
/// its kin) *before each* call of [`Asker::poll_transmit`], for a frame may leave only on what is
/// known.
pub trait Asker {
    /// What it knows its frames by.
    type Ticket;

    /// The next frame that may leave now.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<Self::Ticket>>;

    /// The frame left.
    fn sent(&mut self, now: Instant, transmit: &Transmit<Self::Ticket>);

    /// The frame did not leave, because something changed: whether it still may is looked at again.
    fn put_off(&mut self, now: Instant, transmit: &Transmit<Self::Ticket>);

    /// The frame could not leave: a full queue, an interface that is down.
    fn refused(&mut self, now: Instant, transmit: &Transmit<Self::Ticket>, why: Refusal);

    /// A frame came in on an interface.
    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame);

    /// Whether nothing more can happen.
    fn is_over(&self, now: Instant) -> bool;

    /// When to call [`Asker::poll_transmit`] again if nothing happens before.
    fn next_deadline(&self, now: Instant) -> Instant;

    /// An interface that it knows.
    fn link(&self, interface: InterfaceIndex) -> Option<&Link>;

    /// The interfaces that it knows.
    fn interfaces(&self) -> Vec<InterfaceIndex>;

    /// An interface that it has to know (by [`Asker::link_changed`]) before this address.
    fn unknown_link_of(&self, address: &Address) -> Option<InterfaceIndex>;

    /// An interface is like this from now on.
    fn link_changed(&mut self, now: Instant, link: &Link);

    /// An interface is gone, and every address on it.
    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex);

    /// This host has an address, in this state. Addresses that it does not ask about do not matter.
    fn address_changed(&mut self, now: Instant, address: &Address);

    /// This host has lost an address.
    fn address_gone(&mut self, now: Instant, address: &Address);

    /// Changes were lost: these are all the addresses of this host now.
    fn addresses_are(&mut self, now: Instant, addresses: &[Address]);
}
