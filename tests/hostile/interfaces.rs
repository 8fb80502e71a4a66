//! Faults of the owner's interface while it announces: it still announces what it holds, with its own
//! MAC, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use vipherald_lab::{Host, Lab, Mac};

use crate::common::{
    Over, Run, VIP, VIP6, cable, give, meet, second_interface, take, taken, vip_in, vipherald,
    wait_for_announcement, wait_until_followed,
};
use crate::share_tables;

const NEW_MAC: &str = "02:00:00:77:00:01";
/// Between the last look at the kernel and the frame, on a busy machine.
const LATE: Duration = Duration::from_millis(50);
/// Addresses that come and go in one batch.
const BATCH: u32 = 5_000;

/// A new MAC is announced like a VIP that has just come; the old one was this host's own, and answers under
/// the new one are answers.
#[test]
fn an_interface_that_gets_another_mac_is_announced_again_and_conflicts_with_nobody() {
    let _shared = share_tables();
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    for vip in [VIP, VIP6] {
        give(&owner, vip, "eth0");
    }
    meet(&owner, [&peer]);
    let capture = peer.capture();
    let command = vipherald(&owner, &format!("--json announce {VIP} {VIP6}"));
    let announcing = Run::start(command);
    wait_for_announcement(&capture, VIP, 4);
    wait_for_announcement(&capture, VIP6, 2);
    // The first frames are out: from now on the run watches how this host answers.
    thread::sleep(Duration::from_secs(1));
    owner.run(&format!("ip link set eth0 address {NEW_MAC}"));
    let new: Mac = NEW_MAC.parse().unwrap();
    wait_until_followed([&peer], &[VIP, VIP6], new);
    // Requests of hosts that know nothing: the kernel answers them with the new MAC.
    for vip in [VIP, VIP6] {
        peer.run(&format!("ip neigh del {vip} dev eth0"));
        peer.run(&format!("ping -c 1 -W 5 {vip}"));
    }
    let ended = announcing.end().exits(0);
    ended.logs_no("conflict").logs_no("did not answer");
    ended.logs_no("answers for it, too");
    for vip in [VIP, VIP6] {
        assert_eq!(vip_in(&ended.report(), vip)["mac"], NEW_MAC);
        assert_eq!(peer.cached(vip), Some(new));
    }
}

#[test]
fn an_interface_that_gets_another_name_is_announced_under_that() {
    let _shared = share_tables();
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    give(&owner, VIP, "eth0");
    meet(&owner, [&peer]);
    let capture = peer.capture();
    let announcing = Run::start(vipherald(&owner, &format!("--json announce {VIP}")));
    wait_for_announcement(&capture, VIP, 4);
    owner.run("ip link set eth0 down");
    owner.run("ip link set eth0 name lan0");
    peer.remember(VIP, NEW_MAC);
    owner.run("ip link set lan0 up");
    wait_until_followed([&peer], &[VIP], owner.mac());
    let ended = announcing.end().exits(0);
    assert_eq!(vip_in(&ended.report(), VIP)["interface"], "lan0");
}

#[test]
fn an_interface_that_is_made_anew_is_announced_by_a_resident() {
    let _shared = share_tables();
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    cable(&owner, &peer);
    let watching = Run::start(vipherald(&owner, &format!("watch {VIP} {VIP6}")));
    for _ in 0..3 {
        let capture = peer.capture_on("v1");
        for vip in [VIP, VIP6] {
            give(&owner, vip, "v0");
        }
        let mac = Some(owner.interface_mac("v0"));
        for vip in [VIP, VIP6] {
            assert_eq!(wait_for_announcement(&capture, vip, 1).mac, mac);
        }
        owner.run("ip link del v0");
        cable(&owner, &peer);
    }
    watching.goes_on();
}

/// Before each frame, all changes are read, or what the kernel dropped of them is asked for.
#[test]
fn a_hundred_thousand_changes_hide_no_vip_that_is_here_and_none_that_left() {
    let _shared = share_tables();
    for leaves in [false, true] {
        let lab = Lab::new();
        let (owner, peer) = (lab.host("owner"), lab.host("peer"));
        give(&owner, VIP, "eth0");
        meet(&owner, [&peer]);
        let capture = peer.capture();
        let ends = AtomicBool::new(false);
        let made = thread::scope(|scope| {
            let _over = Over(&ends);
            let changes = scope.spawn(|| change_again_and_again(&owner, &ends));
            let announcing = Run::start(vipherald(&owner, &format!("announce {VIP}")));
            wait_for_announcement(&capture, VIP, 1);
            if leaves {
                let gone = take(&owner, VIP, "eth0");
                announcing.end().exits(5);
                thread::sleep(Duration::from_millis(500));
                let late = |at: SystemTime| at > gone + LATE;
                assert!(!taken(&capture).iter().any(|one| late(one.time)));
            } else {
                wait_until_followed([&peer], &[VIP], owner.mac());
                let ended = announcing.end().exits(0);
                ended.logs("1 of 1 who answer follow");
            }
            ends.store(true, Ordering::SeqCst);
            changes.join().unwrap()
        });
        println!("{made} changes");
        assert!(leaves || made >= 100_000, "{made}");
    }
}

/// Addresses come to an interface and go. Gives the number of changes.
fn change_again_and_again(host: &Host, ends: &AtomicBool) -> u32 {
    second_interface(host);
    let address = |n: u32| format!("10.200.{}.{}/32", n >> 8, n & 255);
    let batch: String = (0..BATCH)
        .map(|n| {
            let address = address(n);
            format!("addr add {address} dev v0\naddr del {address} dev v0\n")
        })
        .collect();
    let mut made = 0;
    while !ends.load(Ordering::SeqCst) {
        host.ip(&batch);
        made += 2 * BATCH;
    }
    made
}
