//! What the tests of keepalived's events share: configurations, and what a host sent for a VIP.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use vipherald_lab::{Capture, Direction, Frame, Host, Lab, Mac, eventually};

use crate::common::{SOON, VIPHERALD};

/// A `vrrp_instance` on `eth0` that becomes master in 0.3 s when nobody else is.
pub(crate) fn instance(name: &str, id: u8, priority: u8, vips: &[&str], more: &str) -> String {
    let vips = vips.join("\n  ");
    format!(
        "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n \
         virtual_router_id {id}\n priority {priority}\n advert_int 0.1\n \
         virtual_ipaddress {{\n  {vips}\n }}\n {more}\n}}\n"
    )
}

/// A file of the lab.
pub(crate) fn file(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.directory().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The arguments that make a run read this keepalived.conf.
pub(crate) fn with(conf: &Path, arguments: &str) -> String {
    format!("--keepalived-conf {} {arguments}", conf.display())
}

/// Whether a frame says or asks anything for an IPv4 VIP: ARP from it or about it, or IPv4 from it.
pub(crate) fn is_about(frame: &Frame, vip: &str) -> bool {
    let vip = vip.parse::<Ipv4Addr>().unwrap().octets();
    let body = frame.payload();
    match frame.ether_type() {
        0x0806 => body[14..18] == vip || body[24..28] == vip,
        0x0800 => body[12..16] == vip,
        _ => false,
    }
}

/// The frames for a VIP that the captured host itself sent, of those not taken yet.
pub(crate) fn sent_for(frames: &[Frame], vip: &str) -> Vec<Frame> {
    frames
        .iter()
        .filter(|frame| frame.direction == Direction::FromHost && is_about(frame, vip))
        .cloned()
        .collect()
}

/// Waits for the first frame that the captured host sends for a VIP; none is taken.
pub(crate) fn wait_for_frame(capture: &Capture, vip: &str) -> Frame {
    wait_for_frame_after(capture, vip, SystemTime::UNIX_EPOCH)
}

/// The same, of those that left after a moment.
pub(crate) fn wait_for_frame_after(capture: &Capture, vip: &str, after: SystemTime) -> Frame {
    let wanted = |frame: &Frame| {
        frame.direction == Direction::FromHost && is_about(frame, vip) && frame.time > after
    };
    capture
        .wait_for(SOON, wanted)
        .unwrap_or_else(|| panic!("nothing was sent for {vip}"))
}

/// The MAC that a host has for an address now.
pub(crate) fn mac_of(host: &Host, vip: &str) -> Option<Mac> {
    host.neighbour(vip).and_then(|entry| entry.mac)
}

/// Waits until an entry is gone from a host's table.
pub(crate) fn wait_until_forgotten(host: &Host, vip: &str) {
    let what = format!("{} forgets {vip}", host.name());
    eventually(&what, SOON, || host.neighbour(vip).is_none().then_some(()));
}

pub(crate) fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later
        .duration_since(earlier)
        .unwrap_or_else(|e| panic!("{:?} too early", e.duration()))
}

/// A copy of the program where keepalived may run it.
pub(crate) fn hook(lab: &Lab) -> String {
    lab.install_hook(VIPHERALD).display().to_string()
}
