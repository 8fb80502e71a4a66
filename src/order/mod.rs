//! Orders: peers that no event of keepalived's reaches purge, too.
//!
//! The new owner sends a peer an *order*, a datagram that only who holds the key can make; the
//! peer's `listen` purges what contradicts it and answers with what it did.
//!
//! - [`message`]: the two datagrams, octet by octet; [`key`]: who may make them
//! - [`judge`]: which orders are carried out, and which are dropped; [`listen`]: the receiver
//!   around it, which `carry_out` serves
//! - [`courier`]: which peer is sent an order when, and which answers count; `post`: the sockets
//!   around it; [`send`]: orders by hand
//!
//! [`message`], [`judge`] and [`courier`] are pure: they do no I/O and read no clock.

mod activation;
mod carry_out;
pub mod courier;
pub mod judge;
pub mod key;
pub mod listen;
pub mod message;
pub(crate) mod post;
pub mod send;

use std::time::{SystemTime, UNIX_EPOCH};

pub use courier::Fate;
pub use key::Keys;
pub use message::{Answer, Done, Order, Outcome, Reason};

/// This host's clock, as orders tell it: milliseconds since 1970, UTC.
#[must_use]
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
