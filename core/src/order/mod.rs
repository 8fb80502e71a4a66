//! Orders: how a new owner makes peers purge that get no event from keepalived.
//!
//! The new owner sends a peer an *order*, a datagram that only a holder of the key can make; the
//! peer purges what contradicts it and answers with what it did.
//!
//! - [`message`]: the two datagrams, octet by octet; [`Keys`]: who may make them
//! - [`admission`]: which orders are obeyed, and which are dropped
//! - [`outbox`]: which peer is sent an order when, and which answers count

pub mod admission;
mod keys;
pub mod message;
pub mod outbox;

pub use keys::Keys;
pub use message::{Answer, Done, Order, Outcome, Reason};
pub use outbox::Fate;
