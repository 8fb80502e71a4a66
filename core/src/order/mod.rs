//! How a new owner makes peers purge that get no event from keepalived.
//!
//! The new owner sends a peer an *order*, a datagram that only a holder of the key can sign. The
//! peer purges what contradicts it, and answers with what it did.
//!
//! - [`message`]: the two datagrams, octet by octet; [`Keys`] sign and verify them
//! - [`admission`]: the receiver's checks
//! - [`outbox`]: when the sender sends and repeats orders, and which answers it accepts
//! - [`report`]: how an old owner tells its peers who still sends to it

pub mod admission;
mod keys;
pub mod message;
pub mod outbox;
pub mod report;

pub use keys::Keys;
pub use message::{Answer, Done, Order, Outcome, Reason};
pub use outbox::Fate;
