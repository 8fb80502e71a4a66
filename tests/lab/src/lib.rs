//! A test lab: hosts as network namespaces on a switch, with real kernels as peers and the real
//! keepalived.
//!
//! ```no_run
//! use vipherald_lab::{Lab, State};
//!
//! let lab = Lab::new();
//! let (a, b) = (lab.host("a"), lab.host("b"));
//! b.remember("10.9.0.100", "02:00:00:00:00:99");
//! a.run("ip addr add 10.9.0.100/24 dev eth0");
//! a.run("arping -U -c 1 -I eth0 10.9.0.100");
//! assert_eq!(b.neighbour("10.9.0.100").and_then(|n| n.mac), Some(a.mac()));
//! ```
//!
//! The lab panics where a test would unwrap, with a message that says what failed and what to
//! install. Nothing of it has a name outside the process that made it, so labs in parallel threads
//! and processes never meet; when a [`Lab`] is dropped, by a panic too, its processes are killed
//! and its files removed.
//!
//! `tests/lab/isolate`, as the runner of `cargo test`, gives each test binary namespaces of its own:
//! then no root is needed, and nothing survives a SIGKILL of the tests either.
//!
//! The IPv4 settings of a new host are the machine's (`rp_filter` and the like). Kernel limits that namespaces share: the neighbour tables of all hosts together hold at most
//! `net.ipv4.neigh.default.gc_thresh3` (1,024) entries per family, and above `gc_thresh2` (512)
//! the kernel may collect stale ones.

mod capture;
mod checksum;
mod filter;
mod host;
mod keepalived;
mod lab;
mod mac;
mod neighbour;
mod netns;
mod process;
mod programs;
mod responder;
mod rootless;
mod talker;
mod wait;

pub use capture::{Capture, Frame, write_pcap};
pub use checksum::write_checksum;
pub use host::Host;
pub use keepalived::Keepalived;
pub use lab::{Direction, Lab};
pub use mac::Mac;
pub use neighbour::{Neighbour, NeighbourEvent, NeighbourWatch, State};
pub use responder::{Manners, Responder};
pub use wait::eventually;
