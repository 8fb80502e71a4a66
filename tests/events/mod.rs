//! What the tests of keepalived's events share: configurations, and a host's frames for a VIP.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use vipherald_lab::{Capture, Frame, Host, Lab, eventually};

use crate::common::arp::{Arp, IPV4, is_sent};
use crate::common::{
    OLD_MAC, SOON, VIP, VIPHERALD, assert_seldom_late, give, since, take, wait_until_followed,
};

/// A `vrrp_instance` on `eth0` that becomes master in a second when nobody else is. On a busy
/// machine the master's advertisements may be late by less.
pub(crate) fn instance(name: &str, id: u8, priority: u8, vips: &[&str], more: &str) -> String {
    let vips = vips.join("\n  ");
    format!(
        "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n \
         virtual_router_id {id}\n priority {priority}\n advert_int 0.3\n \
         virtual_ipaddress {{\n  {vips}\n }}\n {more}\n}}\n"
    )
}

/// A file of the lab.
pub(crate) fn file(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.directory().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Makes a FIFO, and opens it as keepalived does, which never waits there.
pub(crate) fn fifo(lab: &Lab, name: &str) -> (PathBuf, File) {
    let path = lab.directory().join(name);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    (path, writer)
}

/// The arguments that make a run read this keepalived.conf.
pub(crate) fn with(conf: &Path, arguments: &str) -> String {
    format!("--keepalived-conf {} {arguments}", conf.display())
}

/// Whether a frame speaks for an IPv4 VIP: ARP or IPv4 from it, or an ARP probe for it.
pub(crate) fn is_about(frame: &Frame, vip: &str) -> bool {
    let vip: Ipv4Addr = vip.parse().unwrap();
    if let Some(Arp { sender, target, .. }) = Arp::read(frame) {
        return sender.1 == vip || (sender.1.is_unspecified() && target.1 == vip);
    }
    frame.ether_type() == IPV4 && frame.payload()[12..16] == vip.octets()
}

/// The frames for a VIP that the captured host itself sent, of those not taken yet.
pub(crate) fn sent_for(frames: &[Frame], vip: &str) -> Vec<Frame> {
    frames
        .iter()
        .filter(|frame| is_sent(frame) && is_about(frame, vip))
        .cloned()
        .collect()
}

/// Waits for the first frame that the captured host sends for a VIP; none is taken.
pub(crate) fn wait_for_frame(capture: &Capture, vip: &str) -> Frame {
    wait_for_frame_after(capture, vip, SystemTime::UNIX_EPOCH)
}

/// The same, of those that left after a moment.
pub(crate) fn wait_for_frame_after(capture: &Capture, vip: &str, after: SystemTime) -> Frame {
    let wanted = |frame: &Frame| is_sent(frame) && is_about(frame, vip) && frame.time > after;
    capture
        .wait_for(SOON, wanted)
        .unwrap_or_else(|| panic!("nothing was sent for {vip}"))
}

/// Waits until an entry is gone from a host's table.
pub(crate) fn wait_until_forgotten(host: &Host, vip: &str) {
    let what = format!("{} forgets {vip}", host.name());
    eventually(&what, SOON, || host.neighbour(vip).is_none().then_some(()));
}

/// A copy of the program where keepalived may run it.
pub(crate) fn hook(lab: &Lab) -> String {
    lab.install_hook(VIPHERALD).display().to_string()
}

/// Moves a VIP to and fro between two hosts, 200 times, as fast as `ip` can; `tell` gets the loser and
/// the owner each time. Then a third host follows the last owner, and neither of the two spoke for
/// the VIP while it did not have it.
pub(crate) fn storm(lab: &Lab, mut tell: impl FnMut(&Host, &str)) {
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    let captures = [a.capture(), b.capture()];
    let hosts = [a, b];
    c.remember(VIP, OLD_MAC);
    // When each host is sure not to hold the VIP: from its removal to just before it comes back.
    let began = SystemTime::now();
    let mut gone_since = [Some(began); 2];
    let mut absent: [Vec<(SystemTime, SystemTime)>; 2] = Default::default();
    let mut owner = 0;
    for move_ in 0..200 {
        owner = move_ % 2;
        let loser = 1 - owner;
        if move_ > 0 {
            gone_since[loser] = Some(take(&hosts[loser], VIP, "eth0"));
        }
        if let Some(since) = gone_since[owner].take() {
            absent[owner].push((since, SystemTime::now()));
        }
        give(&hosts[owner], VIP, "eth0");
        tell(&hosts[loser], "BACKUP");
        tell(&hosts[owner], "MASTER");
    }
    let lasted = began.elapsed().unwrap();
    wait_until_followed([&c], &[VIP], hosts[owner].mac());
    // The owner goes on to announce, past the rounds within `locktime`.
    let settled = SystemTime::now();
    wait_for_frame_after(&captures[owner], VIP, settled);
    assert_eq!(c.cached(VIP), Some(hosts[owner].mac()));

    absent[1 - owner].push((gone_since[1 - owner].unwrap(), SystemTime::now()));
    let mut sent = 0;
    let mut late = Vec::new();
    for (capture, absent) in captures.iter().zip(&absent) {
        for frame in sent_for(&capture.frames(), VIP) {
            sent += 1;
            let within =
                |(from, to): &&(SystemTime, SystemTime)| (*from..*to).contains(&frame.time);
            if let Some((from, _)) = absent.iter().find(within) {
                late.push((since(*from, frame.time), VIP.parse().unwrap()));
            }
        }
    }
    println!("200 moves in {lasted:?}; {sent} frames; after the VIP had left: {late:?}");
    // On an idle machine, each owner has time for a frame; on a busy one, perhaps only the last.
    assert!(sent >= 10, "{sent}");
    assert_seldom_late(&late, 200);
}
