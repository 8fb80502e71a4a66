//! Sending orders: [`send`] by hand, and the `sockets` that announcements use, too.

pub mod send;
pub(crate) mod sockets;

use std::time::{SystemTime, UNIX_EPOCH};

use vipherald_core::order::Reason;

/// Why a host refused an order, or kept the entry: in words that fit its own log and that of the
/// host which sent the order.
#[must_use]
pub fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Clock => "the clocks differ",
        Reason::NotAllowed => "neither keepalived.conf nor orders.allow has the VIP",
        Reason::Gateway => "the VIP is a gateway, and orders.allow does not name it",
        Reason::HeldThere => "it holds the VIP itself",
        Reason::MaybeAlive => "it holds the VIP itself, and its keepalived may be alive",
        Reason::Failed => "its kernel refused, and its log says why",
        Reason::Busy => "there are too many orders",
        Reason::Permanent => "the entry is PERMANENT, and orders.permanent is not set",
        Reason::Foreign => "the entry is NOARP, a proxy's, or externally learned",
    }
}

/// How far one clock is from another, which is ahead if `skew` (ms) is positive.
#[must_use]
pub fn clock_difference(skew: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = skew.unsigned_abs() as f64 / 1000.0;
    let way = if skew < 0 { "behind" } else { "ahead of" };
    format!("{seconds:.1} s {way}")
}

/// This host's clock, as orders carry it: milliseconds since 1970, UTC.
#[must_use]
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
