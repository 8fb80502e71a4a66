//! Announcing VIPs as their new owner, until everyone who can follow is proven to.
//!
//! [`Announcement`] is the core: what to send and when, and what a frame that came in or a change
//! on this host means. It does no I/O and reads no clock, so that a test can drive it through
//! hours, with thousands of peers, in milliseconds. [`session`] is the thin shell that gives it
//! the kernel's word, the time, and ports to send and receive on.

mod agenda;
mod announcement;
mod claim;
mod path;
mod peer;
mod rate;
mod schedule;
pub mod session;
mod surroundings;

pub use announcement::{Announcement, DueOrder, Pace, Transmit};
pub use claim::{Claim, Standing};
pub use peer::{Confirmation, Control, Peer, Source, Verdict};
pub use surroundings::Surroundings;

pub use crate::settings::Confirm;
