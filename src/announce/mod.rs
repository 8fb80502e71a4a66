//! Announcing VIPs as their new owner, until everyone who can follow is proven to.
//!
//! [`Announcement`] is the core: what to send and when, and what a frame that came in or a change
//! on this host means. It does no I/O and reads no clock, so that a test can drive it through
//! hours, with thousands of peers, in milliseconds. [`session`] is the thin shell that gives it
//! the kernel's word, the time, and ports to send and receive on.
//!
//! In the [`Manner::Check`] the same run announces nothing: it only asks.

mod agenda;
mod announcement;
mod claim;
mod path;
mod peer;
mod rate;
mod rivals;
mod schedule;
pub mod session;
mod surroundings;

pub use announcement::{Announcement, DueOrder, News, Pace, RunPlace, Transmit};
pub(crate) use announcement::{LAST_ANSWER, overlap};
pub use claim::{Claim, Manner, Standing};
pub(crate) use path::enough_probes;
pub use peer::{Confirmation, Control, Peer, Source, Verdict};
pub(crate) use rate::Bucket;
pub use surroundings::Surroundings;
pub(crate) use surroundings::asking_address;

pub use crate::settings::Confirm;
