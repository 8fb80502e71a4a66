//! Orders, as the host sends and obeys them: [`key`] files, [`send`] by hand, [`listen`] and what it
//! does (`carry_out`), the sockets (`order_sockets`, `activation`).

mod execute;
pub mod listen;
pub mod send;
mod socket_activation;
pub(crate) mod sockets;

use std::time::{SystemTime, UNIX_EPOCH};

/// This host's clock, as orders tell it: milliseconds since 1970, UTC.
#[must_use]
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
