//! Captures: what an interface sends and receives, with the kernel's time stamps.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, IoSliceMut, PipeWriter, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, mem};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, CmsgIterator, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType,
    recvmsg, send, setsockopt, socket, sockopt,
};

use crate::lab::Direction;
use crate::mac::Mac;
use crate::wait::eventually;

/// The largest frame: segmentation offload hands over up to 64 KiB at once.
const LARGEST_FRAME: usize = 64 * 1024 + 256;

/// Room for bursts while the reader waits for its turn.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

const ETHERNET_HEADER: usize = 14;

/// A frame that an interface sent or received.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel saw it (`CLOCK_REALTIME`).
    pub time: SystemTime,
    /// Whether the host sent it or received it.
    pub direction: Direction,
    /// The frame from the destination MAC on, without a checksum.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The destination MAC.
    pub fn destination(&self) -> Mac {
        self.mac_at(0)
    }

    /// The source MAC.
    pub fn source(&self) -> Mac {
        self.mac_at(6)
    }

    /// The EtherType, such as 0x0806 for ARP.
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]])
    }

    /// What follows the Ethernet header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[ETHERNET_HEADER..]
    }

    fn mac_at(&self, offset: usize) -> Mac {
        Mac(self.bytes[offset..offset + 6]
            .try_into()
            .expect("six octets"))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to, kind) = (self.source(), self.destination(), self.ether_type());
        write!(f, "{:?} {from} > {to} {kind:04x}", self.direction)?;
        self.payload()
            .iter()
            .try_for_each(|octet| write!(f, " {octet:02x}"))
    }
}

/// A running capture. A thread empties the socket as frames come.
pub struct Capture {
    shared: Arc<Shared>,
    /// Closed with the capture, which ends the reader.
    _stop: PipeWriter,
}

struct Shared {
    socket: OwnedFd,
    frames: Mutex<VecDeque<Frame>>,
    arrived: Condvar,
}

impl Capture {
    /// Opens a capture in the thread's network namespace.
    pub(crate) fn open(interface: &str) -> Self {
        await_time_stamps();
        Self::on(packet_socket(interface))
    }

    /// The same for what the interface sends alone.
    pub(crate) fn open_for_sent(interface: &str) -> Self {
        await_time_stamps();
        let socket = packet_socket(interface);
        pass_sent_alone(&socket);
        Self::on(socket)
    }

    fn on(socket: OwnedFd) -> Self {
        let (frames, arrived) = Default::default();
        let shared = Arc::new(Shared {
            socket,
            frames,
            arrived,
        });
        let (stopped, stop) = io::pipe().expect("a pipe can be had");
        // It is not waited for: closing the socket, which the last to hold it does, takes up to 16 ms.
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while wait_readable(&shared.socket, &stopped) {
                    drop(shared.lock_and_drain());
                    shared.arrived.notify_all();
                }
            }
        });
        Self {
            shared,
            _stop: stop,
        }
    }

    /// All frames until now that were not taken yet.
    ///
    /// # Panics
    ///
    /// If the kernel had to drop some because the machine could not keep up.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = self.shared.lock_and_drain();
        let dropped = dropped(&self.shared.socket);
        assert_eq!(
            dropped, 0,
            "the capture is not complete: the kernel dropped {dropped} frames"
        );
        mem::take(&mut *frames).into()
    }

    /// Waits for a frame that `wanted` holds of, among those not taken yet. It is not taken.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Option<Frame> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        let mut frames = self.shared.lock_and_drain();
        loop {
            // Someone else may have taken frames meanwhile.
            seen = seen.min(frames.len());
            if let Some(frame) = frames.iter().skip(seen).find(|frame| wanted(frame)) {
                return Some(frame.clone());
            }
            seen = frames.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.arrived.wait_timeout(frames, left);
            (frames, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// The frames, together with those that wait in the socket.
    fn lock_and_drain(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; LARGEST_FRAME];
        loop {
            match receive(&self.socket, &mut buffer) {
                Ok(frame) => frames.extend(frame),
                // The interface went down or away; more may come once it is up.
                Err(Errno::EAGAIN | Errno::ENETDOWN) => return frames,
                Err(e) => panic!("capture: {e}"),
            }
        }
    }
}

/// Waits for frames; false once the capture is to stop.
fn wait_readable(socket: &OwnedFd, stopped: &impl AsFd) -> bool {
    let mut ready = [
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
    ];
    while let Err(e) = poll(&mut ready, PollTimeout::NONE) {
        assert_eq!(e, Errno::EINTR, "capture: {e}");
    }
    !ready[1].any().unwrap_or(true)
}

/// Receives one frame, if it came through Ethernet as far as its header.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Option<Frame>> {
    let mut control = nix::cmsg_space!(libc::timespec);
    let (length, time, address) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let time = stamp(message.cmsgs()?);
        (message.bytes, time, message.address)
    };
    let sent_by_host =
        address.is_some_and(|address| address.as_ref().sll_pkttype == libc::PACKET_OUTGOING);
    Ok((length >= ETHERNET_HEADER).then(|| Frame {
        time: time.expect("the socket was told to give time stamps"),
        direction: if sent_by_host {
            Direction::FromHost
        } else {
            Direction::ToHost
        },
        bytes: buffer[..length].to_vec(),
    }))
}

/// A socket that gets a copy of every frame on the interface.
pub(crate) fn packet_socket(interface: &str) -> OwnedFd {
    // Without a protocol the socket is silent until it is bound, so nothing of other interfaces
    // gets in.
    let socket = silent_socket(interface);
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("frames have time stamps");
    // The forced size needs privilege in the initial user namespace; what is left without it is
    // capped by net.core.rmem_max.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER).expect("any size is taken");
    }
    bind(&socket, interface, libc::ETH_P_ALL);
    socket
}

/// Makes the kernel drop what an interface receives before it takes room in the socket.
fn pass_sent_alone(socket: &OwnedFd) {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, jump_if_equal, end) = (0x30, 0x15, 0x06);
    // SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h).
    let packet_type = (-0x1000 + 4_i32).cast_unsigned();
    let mut program = [
        instruction(load, 0, 0, packet_type),
        instruction(jump_if_equal, 0, 1, libc::PACKET_OUTGOING.into()),
        instruction(end, 0, 0, u32::MAX),
        instruction(end, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len().try_into().expect("it is short"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option's value is a sock_fprog, whose instructions outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of(&program),
        )
    };
    Errno::result(result).expect("the filter is taken");
}

/// Sends a frame as it is, from the destination MAC on, in the thread's network namespace.
pub(crate) fn send_frame(interface: &str, frame: &[u8]) {
    let socket = sending_socket(interface);
    let sent = send(socket.as_raw_fd(), frame, MsgFlags::empty());
    let sent = sent.unwrap_or_else(|e| panic!("cannot send on {interface}: {e}"));
    assert_eq!(sent, frame.len());
}

/// A socket that only sends, in the thread's network namespace.
pub(crate) fn sending_socket(interface: &str) -> OwnedFd {
    let socket = silent_socket(interface);
    // Bound without a protocol it hears nothing, which makes closing it quick.
    bind(&socket, interface, 0);
    socket
}

fn silent_socket(interface: &str) -> OwnedFd {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap_or_else(|e| panic!("no packet socket for {interface}: {e}"))
}

/// Binds a packet socket to an interface, for frames of an EtherType.
fn bind(socket: &OwnedFd, interface: &str, protocol: libc::c_int) {
    let index = if_nametoindex(interface).unwrap_or_else(|e| panic!("{interface}: {e}"));
    // SAFETY: zero is a value of every field of this C struct.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("families are small");
    address.sll_protocol = u16::try_from(protocol).expect("an EtherType").to_be();
    address.sll_ifindex = index.try_into().expect("indexes are positive");
    // SAFETY: the address is a sockaddr_ll, of the length given, and outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            length_of(&address),
        )
    };
    Errno::result(result).unwrap_or_else(|e| panic!("cannot use {interface}: {e}"));
}

/// Waits until the kernel stamps what it sends and receives. It begins to some time after the first
/// socket of the machine asks for it, and until then gives the time at which a frame is read. The
/// socket that asked is kept, so that this process waits once.
fn await_time_stamps() {
    static ASKING: OnceLock<UdpSocket> = OnceLock::new();
    ASKING.get_or_init(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("every host has loopback");
        let own = socket.local_addr().expect("it is bound");
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .expect("datagrams have time stamps");
        eventually("the kernel stamps frames", Duration::from_secs(10), || {
            socket.send_to(&[0], own).expect("loopback takes all");
            let sent = SystemTime::now();
            // A stamp given at the time of reading is at least this much later.
            thread::sleep(Duration::from_millis(1));
            let mut control = nix::cmsg_space!(libc::timespec);
            let mut octet = [0];
            let mut parts = [IoSliceMut::new(&mut octet)];
            let flags = MsgFlags::empty();
            let message =
                recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
            (stamp(message.cmsgs().ok()?)? <= sent).then_some(())
        });
        socket
    });
}

fn stamp(mut control: CmsgIterator<'_>) -> Option<SystemTime> {
    control.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(SystemTime::UNIX_EPOCH + time.into()),
        _ => None,
    })
}

/// How many frames found no room in the socket since the last time this was asked.
fn dropped(socket: &OwnedFd) -> u32 {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = length_of(&statistics);
    // SAFETY: the option's value is a tpacket_stats, and the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).expect("a packet socket counts");
    statistics.tp_drops
}

fn length_of<T>(structure: &T) -> libc::socklen_t {
    size_of_val(structure)
        .try_into()
        .expect("C structs of the kernel are small")
}

/// Writes frames to a pcap file with nanosecond time stamps, for tcpdump and tshark.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_pcap(path: impl AsRef<Path>, frames: &[Frame]) -> io::Result<()> {
    const NANOSECOND_MAGIC: u32 = 0xa1b2_3c4d;
    const VERSION_2_4: u32 = 2 | 4 << 16;
    const SNAPLEN: u32 = 0x4_0000;
    const LINKTYPE_ETHERNET: u32 = 1;

    let mut file = BufWriter::new(File::create(path)?);
    let header = [
        NANOSECOND_MAGIC,
        VERSION_2_4,
        0,
        0,
        SNAPLEN,
        LINKTYPE_ETHERNET,
    ];
    file.write_all(&header.map(u32::to_le_bytes).concat())?;
    for frame in frames {
        let time = frame
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(io::Error::other)?;
        let seconds = u32::try_from(time.as_secs()).map_err(io::Error::other)?;
        let length = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
        let header = [seconds, time.subsec_nanos(), length, length];
        file.write_all(&header.map(u32::to_le_bytes).concat())?;
        file.write_all(&frame.bytes)?;
    }
    file.flush()
}
