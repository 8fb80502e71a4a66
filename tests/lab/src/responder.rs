//! Peers that Linux cannot play: a thread that answers ARP and echo on a raw socket.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use crate::checksum::write_checksum;
use crate::host::Host;
use crate::mac::Mac;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

/// How a peer answers.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Its address, which its host's kernel must not have.
    pub ip: Ipv4Addr,
    /// The MAC that it claims to have, in the payload of its ARP answers.
    pub mac: Mac,
    /// Whether its ARP frames come from its host's own MAC instead.
    pub arp_from_own: bool,
    /// Whether it sends its ARP answers to all.
    pub arp_to_all: bool,
    /// Whether its frames have a priority tag (802.1p): VLAN 0.
    pub tagged: bool,
    /// Whether it answers echo at all.
    pub echo: bool,
}

impl Manners {
    /// A host that behaves like any other.
    pub fn plain(ip: Ipv4Addr, mac: Mac) -> Self {
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

/// Which MAC last claimed an address, and since when.
type Table = HashMap<Ipv4Addr, (Mac, SystemTime)>;

/// A peer that answers until it is dropped. It sends echo replies from its host's own MAC to whichever
/// MAC last claimed their destination by ARP.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    table: Arc<Mutex<Table>>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// A peer behind a host's interface.
    pub fn start(host: &Host, manners: Manners) -> Self {
        let socket = host.packet_socket();
        let own = host.mac();
        let stop = Arc::new(AtomicBool::new(false));
        let table = Arc::<Mutex<Table>>::default();
        let (stopped, known) = (Arc::clone(&stop), Arc::clone(&table));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(20_u8));
                let mut frame = [0; 2048];
                while let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT)
                {
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    let answer = answer(&frame[..length], own, manners, &mut known);
                    if let Some(answer) = answer {
                        let _ = nix::unistd::write(&socket, &answer);
                    }
                }
            }
        });
        Self {
            stop,
            table,
            thread: Some(thread),
        }
    }

    /// The MAC that it sends to for an address, and since when.
    pub fn cached(&self, ip: Ipv4Addr) -> Option<(Mac, SystemTime)> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&ip).copied()
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

fn answer(frame: &[u8], own: Mac, manners: Manners, known: &mut Table) -> Option<Vec<u8>> {
    if frame.len() < 42 || mac_at(frame, 6) == own || mac_at(frame, 6) == manners.mac {
        return None;
    }
    match [frame[12], frame[13]] {
        [8, 6] => {
            let (sender, ip) = (mac_at(frame, 22), ip_at(frame, 28));
            if known.get(&ip).is_none_or(|(mac, _)| *mac != sender) {
                known.insert(ip, (sender, SystemTime::now()));
            }
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
            let mac = known.get(&from).map_or(mac_at(frame, 6), |(mac, _)| *mac);
            if to != manners.ip {
                return None;
            }
            let mut packet = frame[14..].to_vec();
            packet[12..16].copy_from_slice(&to.octets());
            packet[16..20].copy_from_slice(&from.octets());
            packet[8] = 64;
            write_checksum(&mut packet[..20], 10);
            packet[20] = 0;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            write_checksum(&mut packet[20..length], 2);
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
