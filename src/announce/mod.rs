//! Announcing VIPs as their new owner.
//!
//! [`Announcement`] is the core: what to send and when, and what a change on this host means.
//! It does no I/O and reads no clock, so that a test can drive it through hours in milliseconds.
//! [`session`] is the thin shell that gives it the kernel's word, the time, and ports to send on.

mod agenda;
mod announcement;
mod claim;
mod rate;
mod schedule;
pub mod session;

pub use announcement::{Announcement, Pace, Transmit};
pub use claim::{Claim, Standing};
