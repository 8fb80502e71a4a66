//! The interface between the core's state machines and the program's driver.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::Refusal;
use crate::address::{InterfaceIndex, Mac};
use crate::host::{Address, Link};
use crate::wire::{Advert, Frame, Header};

/// A frame to send now. Before it takes the next one, the driver calls [`Asker::sent`],
/// [`Asker::put_off`] or [`Asker::refused`].
#[derive(Debug)]
#[must_use]
pub struct Transmit {
    /// The interface to send on.
    pub interface: InterfaceIndex,
    /// What to send.
    pub frame: Frame,
    /// Whether answers may arrive on that interface.
    pub is_question: bool,
    /// Which of the asker's claims or searches it is for.
    pub(crate) at: usize,
}

/// What an asker wants to receive: ARP, neighbour discovery, echo replies, and this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Any frame of another host: it shows that the path is alive.
    pub any: bool,
    /// Echo replies with this identifier, and no others.
    pub echoes: Option<u16>,
    /// VRRP advertisements.
    pub adverts: bool,
    /// Frames of these hosts for `to`: they show that a host follows.
    pub from: BTreeSet<Mac>,
    /// Frames of all hosts but these for `to`: they show that a host does not follow.
    pub from_all_but: Option<BTreeSet<Mac>>,
    /// The VIPs.
    pub to: BTreeSet<IpAddr>,
}

/// A state machine that asks other hosts.
///
/// The driver must pass every known change on this host ([`Asker::link_changed`] and the methods
/// after it) *before each* call of [`Asker::poll_transmit`], because each frame relies on them.
pub trait Asker {
    /// The next frame that may leave now.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;

    /// The frame left.
    fn sent(&mut self, now: Instant, transmit: &Transmit);

    /// The frame did not leave because something changed: the asker decides again whether it may.
    fn put_off(&mut self, now: Instant, transmit: &Transmit);

    /// The frame did not leave because the link's budget of ARP frames is used up until then.
    fn over_budget(&mut self, now: Instant, transmit: &Transmit, until: Instant);

    /// The frame could not leave: the queue is full, or the interface is down.
    fn refused(&mut self, now: Instant, transmit: &Transmit, why: Refusal);

    /// An interface received a frame.
    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame);

    /// An interface received a VRRP advertisement.
    fn advertised(&mut self, _now: Instant, _interface: InterfaceIndex, _advert: &Advert) {}

    /// The addresses of a frame that an interface received, before [`Asker::received`] gets it, or if it
    /// is none of ours.
    fn heard(&mut self, _now: Instant, _interface: InterfaceIndex, _header: &Header) {}

    /// What to receive on an interface from now on, if that changed since the last call.
    fn listening_changed(
        &mut self,
        _now: Instant,
        _interface: InterfaceIndex,
    ) -> Option<Listening> {
        None
    }

    /// Interfaces where nothing leaves, to receive on from now on.
    fn more_links(&mut self) -> Vec<Link> {
        Vec::new()
    }

    /// The driver receives on an interface of [`Asker::more_links`].
    fn receives_on(&mut self, _now: Instant, _link: &Link) {}

    /// Whether nothing more can happen.
    fn is_over(&self, now: Instant) -> bool;

    /// When to call [`Asker::poll_transmit`] again if nothing happens earlier.
    fn next_deadline(&self, now: Instant) -> Instant;

    /// An interface that it knows.
    fn link(&self, interface: InterfaceIndex) -> Option<&Link>;

    /// The interfaces that it knows.
    fn interfaces(&self) -> Vec<InterfaceIndex>;

    /// An interface to pass to [`Asker::link_changed`] before this address: the one that has it, or the
    /// one below that.
    fn unknown_link_of(&self, _address: &Address) -> Option<InterfaceIndex> {
        None
    }

    /// An interface changed to this state.
    fn link_changed(&mut self, now: Instant, link: &Link);

    /// An interface is gone, with every address on it.
    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex);

    /// This host has an address in this state. What asks about other hosts' addresses ignores it.
    fn address_changed(&mut self, _now: Instant, _address: &Address) {}

    /// This host has lost an address.
    fn address_gone(&mut self, _now: Instant, _address: &Address) {}

    /// After lost changes: all addresses of this host.
    fn addresses_are(&mut self, _now: Instant, _addresses: &[Address]) {}
}
