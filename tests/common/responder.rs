//! Peers that Linux cannot play: a thread that answers ARP and echo on a raw socket.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use vipherald_lab::{Host, Mac};

/// How a peer answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Its address, which its host's kernel must not have.
    pub(crate) ip: Ipv4Addr,
    /// The MAC that it claims to have, in the payload of its ARP answers.
    pub(crate) mac: Mac,
    /// Whether its ARP frames come from its host's own MAC instead.
    pub(crate) arp_from_own: bool,
    /// Whether it sends its ARP answers to all.
    pub(crate) arp_to_all: bool,
    /// Whether its frames have a priority tag (802.1p): VLAN 0.
    pub(crate) tagged: bool,
    /// Whether it answers echo at all.
    pub(crate) echo: bool,
}

impl Manners {
    /// A host that behaves like any other.
    pub(crate) fn plain(ip: Ipv4Addr, mac: Mac) -> Self {
        Self {
            ip,
            mac,
            arp_from_own: false,
            arp_to_all: false,
            tagged: false,
            echo: true,
        }
    }
}

/// A peer that answers until it is dropped. It sends echo replies from its host's own MAC to whichever
/// MAC last claimed their destination by ARP.
pub(crate) struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub(crate) fn start(host: &Host, manners: Manners) -> Self {
        let socket = host.packet_socket();
        let own = host.mac();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut known: Vec<(Ipv4Addr, Mac)> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(20_u8));
                let mut frame = [0; 2048];
                while let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT)
                {
                    let answer = answer(&frame[..length], own, manners, &mut known);
                    if let Some(answer) = answer {
                        let _ = nix::unistd::write(&socket, &answer);
                    }
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    Mac(frame[at..at + 6].try_into().unwrap())
}

fn ip_at(frame: &[u8], at: usize) -> Ipv4Addr {
    <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into()
}

fn answer(
    frame: &[u8],
    own: Mac,
    manners: Manners,
    known: &mut Vec<(Ipv4Addr, Mac)>,
) -> Option<Vec<u8>> {
    if frame.len() < 42 || mac_at(frame, 6) == own || mac_at(frame, 6) == manners.mac {
        return None;
    }
    match [frame[12], frame[13]] {
        [8, 6] => {
            let (sender, ip) = (mac_at(frame, 22), ip_at(frame, 28));
            known.retain(|(one, _)| *one != ip);
            known.push((ip, sender));
            if frame[21] != 1 || ip_at(frame, 38) != manners.ip {
                return None;
            }
            let source = if manners.arp_from_own {
                own
            } else {
                manners.mac
            };
            let to = if manners.arp_to_all {
                Mac([0xff; 6])
            } else {
                sender
            };
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2];
            arp.extend(manners.mac.0);
            arp.extend(manners.ip.octets());
            arp.extend(sender.0);
            arp.extend(ip.octets());
            Some(ethernet(to, source, [8, 6], &arp, manners.tagged))
        }
        // An ICMP echo request, with an IP header of 20 octets.
        [8, 0] if manners.echo && frame[23] == 1 && frame[34] == 8 => {
            let (from, to) = (ip_at(frame, 26), ip_at(frame, 30));
            // As if it had asked for a host that it does not know.
            let mac = known.iter().find(|(ip, _)| *ip == from);
            let mac = mac.map_or(mac_at(frame, 6), |(_, mac)| *mac);
            if to != manners.ip {
                return None;
            }
            let mut packet = frame[14..].to_vec();
            packet[12..16].copy_from_slice(&to.octets());
            packet[16..20].copy_from_slice(&from.octets());
            packet[8] = 64;
            checksum(&mut packet[..20], 10);
            packet[20] = 0;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            checksum(&mut packet[20..length], 2);
            Some(ethernet(
                mac,
                own,
                [8, 0],
                &packet[..length],
                manners.tagged,
            ))
        }
        _ => None,
    }
}

fn ethernet(to: Mac, from: Mac, kind: [u8; 2], body: &[u8], tagged: bool) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    if tagged {
        // Priority 5, VLAN 0.
        frame.extend([0x81, 0, 0xa0, 0]);
    }
    frame.extend(kind);
    frame.extend(body);
    frame
}

/// Writes the Internet checksum (RFC 1071) of `octets` at an offset.
fn checksum(octets: &mut [u8], at: usize) {
    octets[at..at + 2].fill(0);
    let words = octets.chunks(2).map(|two| {
        u32::from(u16::from_be_bytes([
            two[0],
            two.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    octets[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
