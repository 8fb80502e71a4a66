//! One run per VIP, interface and network namespace: the newer run makes the older yield.
//!
//! A run informs the others by a multicast on a netlink socket between user processes
//! (`NETLINK_USERSOCK`). Such a socket belongs to one network namespace, has no name that somebody
//! else could take first, leaves nothing behind when a process dies, and the kernel vouches for the
//! sender's user. No lock file is as safe.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, NetlinkAddr, UnixCredentials, recvmsg, setsockopt,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Uid;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::time::sleep;
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::announce::{RunPlace, overlap};
use vipherald_core::ask::Observed;
use vipherald_core::watch::MOST_OBSERVED;

use crate::readable::Readable;

/// `NETLINK_USERSOCK`, whose messages the kernel only forwards.
const USERSOCK: isize = 2;
/// The multicast group, as a mask. Messages of other programs there lack the magic.
const GROUP: u32 = 1 << 21;
const MAGIC: [u8; 8] = *b"vipherld";
/// The magic of a report: behind it a VIP, and the address and MAC of a host that still sends to its old
/// owner.
const REPORT: [u8; 8] = *b"vipherst";
/// Reports that wait for the run; more are lost.
const MOST_REPORTS: usize = 64;
/// The magic of what a resident knows: behind it the index of an interface, and hosts that it has heard
/// there, each with its address, its MAC (zeroes: unknown), and two flags.
const KNOWN: [u8; 8] = *b"vipherkn";
/// Octets of a host in it.
const HOST: usize = 16 + 6 + 1;
/// Hosts in one message.
const HOSTS_AT_ONCE: usize = 256;
/// It has asked for a VIP; it was heard lately.
const ASKS: u8 = 1;
const RECENT: u8 = 2;
/// Runs that a resident remembers to have told; after more it forgets all of them.
const MOST_TOLD: usize = 256;
/// Octets before the VIPs: the magic, and the run_id.
const HEADER: usize = 8 + AGE;
const AGE: usize = 12;
/// VIPs in one message.
const VIPS_AT_ONCE: usize = 512;
/// Octets after the VIPs: the index of their interface; without it, any interface.
const INTERFACE: usize = 4;
/// Messages to read before the run's own work goes on.
const AT_ONCE: usize = 256;

/// When a run began, to tell the newer from the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId {
    nanos_since_boot: u64,
    process: u32,
}

impl RunId {
    /// A run that begins now.
    #[must_use]
    pub fn now() -> Self {
        let nanos = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
        });
        Self {
            nanos_since_boot: nanos,
            process: std::process::id(),
        }
    }

    fn to_bytes(self) -> [u8; AGE] {
        let mut bytes = [0; AGE];
        bytes[..8].copy_from_slice(&self.nanos_since_boot.to_be_bytes());
        bytes[8..].copy_from_slice(&self.process.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (nanos, process) = bytes.split_at_checked(8)?;
        Some(Self {
            nanos_since_boot: u64::from_be_bytes(nanos.try_into().ok()?),
            process: u32::from_be_bytes(process.try_into().ok()?),
        })
    }
}

/// A host that still sends to the old owner of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The VIP.
    pub vip: Vip,
    /// The host's address.
    pub ip: IpAddr,
    /// Its MAC.
    pub mac: Mac,
}

impl Reported {
    /// Tells all runs of this network namespace.
    ///
    /// # Errors
    /// If the process may open no more sockets.
    pub fn tell(all: &[Self]) -> io::Result<()> {
        let socket = Socket::new(USERSOCK)?;
        socket.set_non_blocking(true)?;
        for one in all {
            let ips = [mapped(one.vip.ip()), mapped(one.ip)].map(|ip| ip.octets());
            let message = [&REPORT[..], &ips.concat(), &one.mac.octets()].concat();
            // As in `Runs::tell`.
            let _ = socket.send_to(&message, &SocketAddr::new(0, GROUP), 0);
        }
        Ok(())
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let rest = message.strip_prefix(&REPORT)?;
        let (ips, mac) = rest.split_at_checked(32)?;
        let ip = |at: usize| {
            let octets = <[u8; 16]>::try_from(&ips[at..at + 16]).ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        };
        Some(Self {
            vip: Vip::try_from(ip(0)?).ok()?,
            ip: ip(16)?,
            mac: Mac::from_slice(mac)?,
        })
    }
}

/// This run's place among the runs of this network namespace.
#[derive(Debug)]
pub struct Runs {
    socket: Readable<Socket>,
    run_id: RunId,
    /// Whether there may be more messages to read.
    unread: Cell<bool>,
    last_read: Cell<usize>,
    /// Whether messages were lost since this run last announced its places.
    lost: Cell<bool>,
    reported: RefCell<Vec<Reported>>,
    /// What residents said they know.
    known: RefCell<Vec<(InterfaceIndex, Observed)>>,
    /// Who asks a resident what it knows, if this is one's.
    asking: Option<RefCell<Asking>>,
}

/// Runs that ask a resident by telling their places, and that it told.
#[derive(Debug, Default)]
struct Asking {
    new: Vec<(u32, InterfaceIndex)>,
    told: BTreeSet<(RunId, InterfaceIndex)>,
}

impl Runs {
    /// Only listens, and never makes another run yield.
    ///
    /// # Errors
    /// As [`Runs::claim`].
    pub fn overhear() -> io::Result<Self> {
        let oldest = RunId {
            nanos_since_boot: 0,
            process: 0,
        };
        let runs = Self::claim(oldest, &[])?;
        let asking = Some(RefCell::default());
        Ok(Self { asking, ..runs })
    }

    /// Tells the runs that have begun since the last call what hosts this process knows on their
    /// interfaces.
    pub fn tell_known(&self, of: impl Fn(InterfaceIndex) -> Vec<Observed>) {
        let asking = self.asking.iter();
        let new = asking.flat_map(|asking| std::mem::take(&mut asking.borrow_mut().new));
        for (port, interface) in new {
            for hosts in of(interface).chunks(HOSTS_AT_ONCE) {
                let mut message = [&KNOWN[..], &interface.0.to_be_bytes()].concat();
                hosts
                    .iter()
                    .for_each(|host| message.extend(host_to_bytes(host)));
                // A run that does not take it goes on with what the kernel knows.
                let _ = self
                    .socket
                    .get()
                    .send_to(&message, &SocketAddr::new(port, 0), 0);
            }
        }
    }

    /// What residents know, as [`Runs::taken`] has read it.
    pub fn take_known(&self) -> Vec<(InterfaceIndex, Observed)> {
        self.known.take()
    }

    fn asks(&self, port: u32, run_id: RunId, claimed: &[RunPlace]) {
        let Some(asking) = &self.asking else { return };
        // This process's runs know what it knows.
        if run_id.process == std::process::id() {
            return;
        }
        let mut asking = asking.borrow_mut();
        if asking.told.len() >= MOST_TOLD {
            asking.told.clear();
        }
        let interfaces: BTreeSet<_> = claimed.iter().filter_map(|(_, on)| *on).collect();
        for interface in interfaces {
            if asking.told.insert((run_id, interface)) {
                asking.new.push((port, interface));
            }
        }
    }

    /// The reports that [`Runs::taken`] has read.
    pub fn take_reported(&self) -> Vec<Reported> {
        self.reported.take()
    }

    /// Starts to listen to other runs, and tells them that this one has these places from now on.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, or if the process may open no more sockets.
    pub fn claim(run_id: RunId, places: &[RunPlace]) -> io::Result<Self> {
        let mut socket = Socket::new(USERSOCK)?;
        socket.set_non_blocking(true)?;
        setsockopt(&socket, PassCred, &true)?;
        socket.bind(&SocketAddr::new(0, GROUP))?;
        let runs = Self {
            socket: Readable::new(socket)?,
            run_id,
            unread: Cell::new(false),
            last_read: Cell::new(0),
            lost: Cell::new(false),
            reported: RefCell::default(),
            known: RefCell::default(),
            asking: None,
        };
        runs.tell(places);
        Ok(runs)
    }

    /// How many messages [`Runs::taken`] has read in its last call.
    pub(crate) fn last_read(&self) -> usize {
        self.last_read.get()
    }

    /// Ready when there may be messages.
    ///
    /// # Errors
    /// If the runtime can no longer watch the socket.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.get() {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_readable(context)
    }

    /// The places that newer runs have taken over. This tells an older run that started listening late
    /// about this one; and if messages were lost, it tells all runs, so that a newer one answers. `ours`
    /// are the places of this run. Never waits.
    #[must_use]
    pub fn taken(&self, ours: impl Fn() -> Vec<RunPlace>) -> Vec<RunPlace> {
        let mut taken = Vec::new();
        // Bounded, so that a flood can't delay the run.
        self.unread.set(true);
        for read in 0..AT_ONCE {
            self.last_read.set(read);
            let (message, port) = match self.receive() {
                Heard::Message(message, port) => (message, port),
                Heard::Nothing => continue,
                Heard::Overrun => {
                    self.lost.set(true);
                    continue;
                }
                Heard::All => {
                    self.unread.set(false);
                    // Only now: the kernel would drop the answers, too, while the queue is full.
                    if self.lost.take() {
                        self.tell(&ours());
                    }
                    break;
                }
            };
            if let Some(reported) = Reported::parse(&message) {
                let mut all = self.reported.borrow_mut();
                if all.len() < MOST_REPORTS {
                    all.push(reported);
                }
                continue;
            }
            if let Some(known) = parse_known(&message) {
                let mut all = self.known.borrow_mut();
                let room = MOST_OBSERVED.saturating_sub(all.len());
                all.extend(known.into_iter().take(room));
                continue;
            }
            let Some((run_id, claimed)) = parse(&message) else {
                continue;
            };
            self.asks(port, run_id, &claimed);
            if run_id > self.run_id {
                taken.extend(claimed);
                continue;
            }
            let mut shared = ours();
            shared.retain(|ours| claimed.iter().any(|theirs| overlap(*ours, *theirs)));
            // (The kernel does not deliver a run's own messages to itself.)
            self.tell(&shared);
        }
        taken
    }

    /// Tells the other runs that this one has these places from now on, in a message per interface.
    pub fn tell(&self, places: &[RunPlace]) {
        let mut by_interface: BTreeMap<Option<InterfaceIndex>, Vec<Vip>> = BTreeMap::new();
        for (vip, interface) in places {
            by_interface.entry(*interface).or_default().push(*vip);
        }
        let chunks = by_interface.iter().flat_map(|(interface, vips)| {
            let chunks = vips.chunks(VIPS_AT_ONCE);
            chunks.map(move |vips| (interface, vips))
        });
        for (interface, vips) in chunks {
            let mut message = [MAGIC.as_slice(), &self.run_id.to_bytes()].concat();
            for vip in vips {
                message.extend_from_slice(&mapped(vip.ip()).octets());
            }
            if let Some(interface) = interface {
                message.extend_from_slice(&interface.0.to_be_bytes());
            }
            // Always ECONNREFUSED: after the multicast, the kernel tries to deliver to itself. A run
            // that misses the message goes on; both then announce what this host holds.
            let _ = self
                .socket
                .get()
                .send_to(&message, &SocketAddr::new(0, GROUP), 0);
        }
    }

    fn receive(&self) -> Heard {
        let mut buffer = vec![0; HEADER + VIPS_AT_ONCE * 16 + INTERFACE];
        let mut control = cmsg_space!(UnixCredentials);
        let mut octets = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<NetlinkAddr>(
            self.socket.get().as_raw_fd(),
            &mut octets,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let (length, trusted, port) = match received {
            Ok(message) => {
                let trusted = message.cmsgs().is_ok_and(|mut all| {
                    all.any(|one| match one {
                        ControlMessageOwned::ScmCredentials(sender) => is_trusted(&sender),
                        _ => false,
                    })
                });
                let port = message.address.map_or(0, |from| from.pid());
                (message.bytes, trusted, port)
            }
            Err(Errno::ENOBUFS) => return Heard::Overrun,
            Err(Errno::EINTR) => return Heard::Nothing,
            Err(_) => return Heard::All,
        };
        buffer.truncate(length);
        if trusted {
            Heard::Message(buffer, port)
        } else {
            Heard::Nothing
        }
    }
}

/// How long a newer run may take to answer, and the time between two questions.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Asks, until `ends`, whether the newer run that took these places over is alive: it answers an older one
/// that tells its places. Returns whether it no longer is before `ends`.
pub(crate) async fn is_lost(run_id: RunId, places: Vec<RunPlace>, ends: Instant) -> bool {
    let Ok(runs) = Runs::claim(run_id, &places) else {
        return false;
    };
    while Instant::now() < ends {
        sleep(ANSWERS_WITHIN).await;
        let taken = runs.taken(|| places.clone());
        let is_ours = |place: &RunPlace| places.iter().any(|ours| overlap(*ours, *place));
        if !taken.iter().any(is_ours) {
            return Instant::now() < ends;
        }
        runs.tell(&places);
    }
    false
}

/// What was read.
enum Heard {
    /// A message of a process that runs as root or as this one does, and its socket's port.
    Message(Vec<u8>, u32),
    /// A message to ignore.
    Nothing,
    /// A flood by others made messages be lost; the rest can still be read.
    Overrun,
    /// Nothing is left.
    All,
}

fn is_trusted(sender: &UnixCredentials) -> bool {
    sender.uid() == 0 || sender.uid() == Uid::effective().as_raw()
}

fn parse(message: &[u8]) -> Option<(RunId, Vec<RunPlace>)> {
    let rest = message.strip_prefix(&MAGIC)?;
    let (run_id, rest) = rest.split_at_checked(AGE)?;
    let vips = rest.chunks_exact(16);
    let interface = <[u8; INTERFACE]>::try_from(vips.remainder()).ok();
    let interface = interface.map(|index| InterfaceIndex(u32::from_be_bytes(index)));
    let places = vips
        .filter_map(|octets| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)))
        .filter_map(|ip| Some((Vip::try_from(ip.to_canonical()).ok()?, interface)))
        .collect();
    Some((RunId::from_bytes(run_id)?, places))
}

fn host_to_bytes(host: &Observed) -> Vec<u8> {
    let flags = [(host.asks, ASKS), (host.is_recent, RECENT)];
    let flags = flags.iter().filter(|(is_set, _)| *is_set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    let mac = host.mac.unwrap_or(Mac::ZERO).octets();
    [&mapped(host.ip).octets()[..], &mac, &[flags]].concat()
}

fn parse_known(message: &[u8]) -> Option<Vec<(InterfaceIndex, Observed)>> {
    let rest = message.strip_prefix(&KNOWN)?;
    let (index, hosts) = rest.split_at_checked(INTERFACE)?;
    let interface = InterfaceIndex(u32::from_be_bytes(index.try_into().ok()?));
    let host = |octets: &[u8]| {
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&octets[..16]).ok()?).to_canonical();
        let mac = Mac::from_slice(&octets[16..22])?;
        let observed = Observed {
            ip,
            mac: Some(mac).filter(|mac| *mac != Mac::ZERO),
            asks: octets[22] & ASKS != 0,
            is_recent: octets[22] & RECENT != 0,
        };
        Some((interface, observed))
    };
    Some(hosts.chunks_exact(HOST).filter_map(host).collect())
}

/// An IPv4 VIP as an IPv4-mapped address, which no IPv6 VIP is.
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_is_newer() {
        let first = RunId::now();
        let second = RunId::now();
        assert!(first < second);
        assert_eq!(RunId::from_bytes(&first.to_bytes()), Some(first));
    }

    #[test]
    fn a_report_is_told_whole_or_not_at_all() {
        let (vip, ip) = ([10, 0, 0, 1].into(), [10, 0, 0, 7].into());
        let reported = Reported {
            vip: Vip::try_from(vip).unwrap(),
            ip,
            mac: Mac::new([2, 0, 0, 0, 0, 7]),
        };
        let ips = [mapped(vip), mapped(ip)].map(|ip| ip.octets()).concat();
        let whole = [&REPORT[..], &ips, &reported.mac.octets()].concat();
        assert_eq!(Reported::parse(&whole), Some(reported));
        assert_eq!(parse(&whole), None);
        for cut in 0..whole.len() {
            assert_eq!(Reported::parse(&whole[..cut]), None);
        }
        assert_eq!(Reported::parse(&[&whole[..], &[0]].concat()), None);
    }

    #[test]
    fn what_a_resident_knows_is_read_as_it_was_told() {
        let host = |last, mac, asks| Observed {
            ip: [10, 0, 0, last].into(),
            mac,
            asks,
            is_recent: !asks,
        };
        let mac = Mac::new([2, 0, 0, 0, 0, 7]);
        let hosts = [host(7, Some(mac), true), host(8, None, false)];
        let mut message = [&KNOWN[..], &3_u32.to_be_bytes()].concat();
        hosts
            .iter()
            .for_each(|host| message.extend(host_to_bytes(host)));
        let expected = hosts.map(|host| (InterfaceIndex(3), host));
        assert_eq!(parse_known(&message).unwrap(), expected);
        assert_eq!(parse_known(&message[..40]).unwrap(), expected[..1]);
        assert_eq!(parse_known(&message[..9]), None);
        assert_eq!((parse(&message), Reported::parse(&message)), (None, None));
    }

    #[test]
    fn foreign_messages_mean_nothing() {
        let run_id = RunId::now().to_bytes();
        let vip = [0xfd; 16];
        let whole = [MAGIC.as_slice(), &run_id, &vip].concat();
        let places = |message: &[u8]| parse(message).map(|(_, places)| places);
        let expected = Vip::try_from(IpAddr::from(vip)).unwrap();
        assert_eq!(places(&whole), Some(vec![(expected, None)]));
        let on = [&whole[..], &7_u32.to_be_bytes()].concat();
        assert_eq!(places(&on), Some(vec![(expected, Some(InterfaceIndex(7)))]));
        for cut in 0..HEADER {
            assert_eq!(parse(&whole[..cut]), None);
        }
        assert_eq!(parse(&whole[1..]), None);
        let none_of_ours = [MAGIC.as_slice(), &run_id, &[0xff; 16], &[0; 7]].concat();
        assert_eq!(parse(&none_of_ours).map(|(_, all)| all), Some(Vec::new()));
    }
}
