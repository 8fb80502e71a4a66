//! Hosts that only answer: more of them than network namespaces could play.
//!
//! A thread answers ARP requests and ICMP echoes for all of them (RFC 826, RFC 792), by octets at
//! their offsets, with nothing of the code under test. Each follows at once: it sends to the MAC
//! that it was asked from.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use vipherald_lab::{Host, Mac};

const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;

/// The hosts of a range of addresses; dropped, they are gone.
pub(crate) struct Responders {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responders {
    /// They sit behind a host's interface.
    pub(crate) fn start(behind: &Host, addresses: Range<Ipv4Addr>) -> Self {
        let socket = behind.packet_socket();
        // How often it looks whether all is over.
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(100),
        )
        .expect("a receiver can be impatient");
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let mut frame = [0; 2048];
                while !over.load(Ordering::Relaxed) {
                    match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                        Ok(length) => {
                            let frame = &mut frame[..length];
                            if answer(frame, &addresses) {
                                send(socket.as_raw_fd(), frame, MsgFlags::empty())
                                    .expect("the answer leaves");
                            }
                        }
                        Err(Errno::EAGAIN) => {}
                        Err(e) => panic!("responders: {e}"),
                    }
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Responders {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has told of itself.
            let _ = thread.join();
        }
    }
}

/// The MAC of the host that has an address.
pub(crate) fn mac_of(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([2, 0, a, b, c, d])
}

/// Turns a question to one of the hosts into its answer; false, if it is none.
fn answer(frame: &mut [u8], addresses: &Range<Ipv4Addr>) -> bool {
    let octets = |frame: &[u8], at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).ok();
    let asked = |at| {
        let ip = Ipv4Addr::from(octets(frame, at)?);
        addresses.contains(&ip).then_some(ip)
    };
    if frame.len() < 42 {
        return false;
    }
    if frame[12..14] == ARP && frame[20..22] == [0, 1] {
        let Some(ip) = asked(38) else { return false };
        let mac = mac_of(ip).0;
        // The sender becomes the target.
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&mac);
        frame[28..32].copy_from_slice(&ip.octets());
        frame[20..22].copy_from_slice(&[0, 2]);
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&mac);
        true
    } else if frame[12..14] == IPV4 && frame[23] == ICMP && frame[34] == ECHO_REQUEST {
        let Some(ip) = asked(30) else { return false };
        if frame[..6] != mac_of(ip).0 {
            return false;
        }
        let (destination, source) = frame[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        let (source, destination) = frame[26..34].split_at_mut(4);
        source.swap_with_slice(destination);
        // An echo reply is 0; the checksum is the complement of a sum, so it grows by as much.
        frame[34] = 0;
        let checksum = u16::from_be_bytes([frame[36], frame[37]]);
        let (sum, carry) = checksum.overflowing_add(u16::from(ECHO_REQUEST) << 8);
        frame[36..38].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
        true
    } else {
        false
    }
}
