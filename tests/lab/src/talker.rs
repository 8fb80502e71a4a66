//! A stranger on the link that is heard now and then.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

use crate::capture;

/// The gap between two datagrams.
const GAP: Duration = Duration::from_millis(50);

/// A UDP datagram from 0.0.0.0 to all, to the discard port, in its frame: nobody answers it, and it
/// changes no table.
const DATAGRAM: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0x7a, 0x1c, 1, 8, 0, // Ethernet
    0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0xb9, 0xd2, 0, 0, 0, 0, 255, 255, 255, 255, // IPv4
    0, 9, 0, 9, 0, 8, 0, 0, // UDP, without a checksum
];

/// Sends until it is dropped.
pub(crate) struct Talker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Talker {
    /// Starts on an interface of this thread's network namespace.
    pub(crate) fn start(interface: &str) -> Self {
        let socket = capture::sending_socket(interface);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A full queue loses one of many.
                let _ = send(socket.as_raw_fd(), &DATAGRAM, MsgFlags::MSG_DONTWAIT);
                thread::park_timeout(GAP);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
