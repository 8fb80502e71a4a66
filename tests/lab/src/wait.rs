//! Waiting with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a look at something that gives no event is repeated after.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits until `look` finds something, looking again every 2 ms.
///
/// # Panics
///
/// When `timeout` has passed, with `what` in the message.
pub fn eventually<T>(what: &str, timeout: Duration, look: impl FnMut() -> Option<T>) -> T {
    poll(timeout, look).unwrap_or_else(|| panic!("not within {timeout:?}: {what}"))
}

/// The same, giving `None` once `timeout` has passed.
pub(crate) fn poll<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(LOOK_AGAIN);
    }
}
