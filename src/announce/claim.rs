//! One VIP on one interface: whether it may be announced, and how far that has come.

use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;

use super::schedule;
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::kernel::{Link, Usability};
use crate::wire::{Arp, Frame, Ndp};

/// Whether frames for a VIP may leave an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The address is usable here and the interface has a carrier.
    Ready,
    /// It is here, but frames must wait: duplicate address detection runs, or no carrier.
    Waiting(&'static str),
    /// Duplicate address detection found another owner: never overridden.
    DadFailed,
    /// The address left, or its interface did. For good: should it come back, that is another
    /// move of the VIP, with an event of its own.
    Left,
    /// The interface is of a kind whose neighbours do not ask by ARP or ND.
    Unfit(&'static str),
}

/// A VIP on an interface that holds it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The virtual IP.
    pub vip: Vip,
    /// The interface that holds it, as it was seen last.
    pub link: Link,
    /// What the kernel last said of the address; `None` once it is gone.
    pub(super) usability: Option<Usability>,
    /// Whether it was seen gone when a frame could have left.
    pub(super) left: bool,
    /// Frames that left.
    pub frames_sent: u32,
    /// Frames in a row that the interface's queue refused.
    pub(super) refusals: u32,
    /// Why the last of them was refused.
    pub last_refusal: Option<Errno>,
    /// Counts the times that the rounds started: an older count's tasks are void.
    pub(super) epoch: u32,
    /// Whether the last round was sent.
    pub(super) rounds_over: bool,
}

/// A place in the rounds: which round, and which of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    round: usize,
    frame: usize,
}

impl Place {
    pub(super) const FIRST: Self = Self { round: 0, frame: 0 };
}

impl Claim {
    pub(super) fn new(vip: Vip, link: Link, usability: Usability) -> Self {
        Self {
            vip,
            link,
            usability: Some(usability),
            left: false,
            frames_sent: 0,
            refusals: 0,
            last_refusal: None,
            epoch: 0,
            rounds_over: false,
        }
    }

    /// The interface's index.
    #[must_use]
    pub fn interface(&self) -> InterfaceIndex {
        self.link.index
    }

    /// The MAC that is announced: the interface's own. Only a claim that is not
    /// [`Standing::Unfit`] has one.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.link.mac
    }

    /// Whether frames may leave now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if self.left {
            return Standing::Left;
        }
        match self.usability {
            None => Standing::Left,
            Some(Usability::DadFailed) => Standing::DadFailed,
            _ if self.link.unlike_ethernet.is_some() => {
                Standing::Unfit(self.link.unlike_ethernet.unwrap_or_default())
            }
            Some(Usability::Tentative) => {
                Standing::Waiting("its duplicate address detection has not ended")
            }
            Some(Usability::Usable) if !self.link.carrier => {
                Standing::Waiting("the interface has no carrier")
            }
            Some(Usability::Usable) => Standing::Ready,
        }
    }

    /// Whether it may still come to frames.
    pub(super) fn is_open(&self) -> bool {
        match self.standing() {
            Standing::Ready => !self.rounds_over,
            Standing::Waiting(_) => true,
            Standing::DadFailed | Standing::Left | Standing::Unfit(_) => false,
        }
    }

    /// The frame at a place of the rounds, and the place after it with its distance in time.
    pub(super) fn broadcast(&self, place: Place) -> Option<(Frame, Option<(Duration, Place)>)> {
        let mac = self.mac()?;
        let (frame, frames) = match self.vip.ip() {
            // Hosts differ in which of the two forms they take (RFC 5944 §4.6, RFC 5227 §3).
            IpAddr::V4(vip) if place.frame == 0 => (Arp::gratuitous_request(vip, mac), 2),
            IpAddr::V4(vip) => (Arp::gratuitous_reply(vip, mac), 2),
            IpAddr::V6(vip) => {
                let router = self.link.forwards_ipv6;
                (Ndp::unsolicited_advertisement(vip, mac, router), 1)
            }
        };
        let next = if place.frame + 1 < frames {
            let frame = place.frame + 1;
            Some((Duration::ZERO, Place { frame, ..place }))
        } else {
            let round = place.round + 1;
            schedule::gap_after(place.round).map(|gap| (gap, Place { round, frame: 0 }))
        };
        Some((frame, next))
    }

    /// How many broadcast frames the rounds have in all.
    #[must_use]
    pub fn planned_frames(&self) -> usize {
        let per_round = if self.vip.ip().is_ipv4() { 2 } else { 1 };
        schedule::COUNT * per_round
    }

    /// How long the rounds take.
    #[must_use]
    pub fn planned_time() -> Duration {
        schedule::LENGTH
    }
}
