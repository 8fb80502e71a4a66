//! What the benchmarks share: running programs on hosts, and knowing their frames.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use vipherald_lab::{Capture, Direction, Frame, Host, Lab};

/// Long enough for what is to happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The root of the source.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// Runs `ip` commands.
pub(crate) fn batch(host: &Host, lines: impl IntoIterator<Item = String>) {
    host.ip(&lines.into_iter().collect::<Vec<_>>().join("\n"));
}

/// Compiles a C program of this folder, statically.
pub(crate) fn compile(lab: &Lab, name: &str) -> PathBuf {
    let program = lab.directory().join(name);
    let status = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(format!("benches/{name}.c"))
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "no C compiler, or no static C library: apt-get install gcc libc6-dev"
    );
    program
}

/// A copy of a program, in the state that it is in after a boot: on the disk alone, so that its first
/// exec reads it in. In which pieces the page cache holds a file makes up to a fifth of the time to the
/// first frame: one that was just written starts soonest.
pub(crate) fn as_after_boot(program: &Path, name: &str) -> PathBuf {
    let copy = Path::new(ROOT).join("target/bench").join(name);
    fs::copy(program, &copy).unwrap_or_else(|e| panic!("{program:?}: {e}"));
    let file = File::open(&copy).expect("it was just written");
    // What is not on the disk yet stays in the cache.
    file.sync_all().expect("the disk takes it");
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .expect("a file can be let go of");
    copy
}

/// Ends a program, which may have ended by itself.
pub(crate) fn end(mut child: Child) {
    let _ = child.kill();
    child.wait().expect("one's own child can be waited for");
}

/// The IPv4 address that a frame announces by ARP: its sender is its target.
pub(crate) fn announced(frame: &Frame) -> Option<Ipv4Addr> {
    if frame.ether_type() != 0x0806 {
        return None;
    }
    let body = frame.payload();
    let octets = |at: usize| <[u8; 4]>::try_from(&body[at..at + 4]).expect("four octets");
    (octets(14) == octets(24)).then(|| octets(14).into())
}

/// Whether it came in and announces something by ARP.
pub(crate) fn is_gratuitous(frame: &Frame) -> bool {
    frame.direction == Direction::ToHost && announced(frame).is_some()
}

/// The VRID of the VRRP advertisement that a frame is (RFC 9568 §5.2).
pub(crate) fn advertised(frame: &Frame) -> Option<u8> {
    const VRRP: u8 = 112;
    let body = frame.payload();
    match frame.ether_type() {
        0x0800 if body[9] == VRRP => Some(body[21]),
        0x86dd if body[6] == VRRP => Some(body[41]),
        _ => None,
    }
}

/// The moment of the first advertisement that a host sends: it is the master.
pub(crate) fn first_advertisement(capture: &Capture) -> SystemTime {
    capture
        .wait_for(SOON, |frame| {
            frame.direction == Direction::FromHost && advertised(frame).is_some()
        })
        .expect("it becomes the master")
        .time
}

pub(crate) fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
