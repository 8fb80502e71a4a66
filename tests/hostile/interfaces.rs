//! Faults of the owner's interface while it announces: it still announces what it holds, with its own
//! MAC, and nothing else.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use vipherald_lab::{Host, Lab, Mac, eventually};

use crate::common::{
    OLD_MAC, Over, Run, SOON, VIP, VIP6, VIPHERALD, cable, give, meet, second_interface, take,
    taken, vip_in, vipherald, wait_for_announcement, wait_until_followed,
};
use crate::events::{fifo, file, instance, with};
use crate::share_tables;

const NEW_MAC: &str = "02:00:00:77:00:01";
/// Between the last look at the kernel and the frame, on a busy machine.
const LATE: Duration = Duration::from_millis(50);
/// Of linux/rtnetlink.h and linux/netlink.h.
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_CREATE: u16 = 0x400;

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

/// In another namespace it is another host's.
#[test]
fn an_interface_that_moves_to_another_namespace_is_announced_no_more() {
    let _shared = share_tables();
    let lab = Lab::new();
    let (owner, peer, other) = (lab.host("owner"), lab.host("peer"), lab.host("other"));
    cable(&owner, &peer);
    let on_v0 = instance("VI_1", 51, 100, &[VIP], "").replace("eth0", "v0");
    let conf = file(&lab, "conf", &on_v0);
    let (path, mut writer) = fifo(&lab, "fifo");
    let residents = [
        format!("watch {VIP}"),
        with(&conf, &format!("fifo {}", path.display())),
    ];
    let announce = format!("announce --wait 10 {VIP}");
    for command in [announce].iter().chain(&residents) {
        let goes_on = residents.contains(command);
        let capture = peer.capture_on("v1");
        let run = Run::start(vipherald(&owner, command));
        if goes_on {
            run.wait_until_it_waits();
        }
        give(&owner, VIP, "v0");
        if command.contains("fifo") {
            writer.write_all(b"INSTANCE \"VI_1\" MASTER 100\n").unwrap();
        }
        wait_for_announcement(&capture, VIP, 1);
        move_v0(&owner, &other);
        let gone = SystemTime::now();
        other.run("ip link set v0 up");
        let going_on = match goes_on {
            true => Some(run),
            false => {
                run.end().exits(5).logs("left v0");
                None
            }
        };
        thread::sleep(Duration::from_millis(500));
        let late = |at: SystemTime| at > gone + LATE;
        let sent = taken(&capture);
        assert!(
            !sent.iter().any(|one| late(one.time)),
            "{command}: {sent:?}"
        );
        // It comes back, without the VIP.
        move_v0(&other, &owner);
        owner.run("ip link set v0 up");
        if let Some(run) = going_on {
            let back = peer.capture_on("v1");
            give(&owner, VIP, "v0");
            wait_for_announcement(&back, VIP, 1);
            run.goes_on();
            take(&owner, VIP, "v0");
        }
    }
}

/// Moves an interface to the namespace of another host.
fn move_v0(from: &Host, to: &Host) {
    let mut there = to.command("sleep").arg("600").spawn().unwrap();
    from.run(&format!("ip link set v0 netns {}", there.id()));
    there.kill().unwrap();
    there.wait().unwrap();
}

/// A container's namespace, whose first process has ended.
#[test]
fn a_namespace_that_only_the_run_holds_is_announced_in_all_the_same() {
    let _shared = share_tables();
    for command in ["announce", "watch"] {
        let lab = Lab::new();
        let peer = lab.host("peer");
        let unshare = ["--net", "sleep", "600"];
        let mut first = peer.command("unshare").args(unshare).spawn().unwrap();
        let pid = first.id();
        eventually("the namespace is there", SOON, || {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            (comm == "sleep\n").then_some(())
        });
        let inside = |command: &str| peer.run(&format!("nsenter -t {pid} -n {command}"));
        peer.run(&format!(
            "ip link add v1 type veth peer name v0 netns {pid}"
        ));
        peer.run("ip addr add 10.77.0.2/24 dev v1");
        peer.run("ip link set v1 up");
        inside("ip addr add 10.77.0.1/24 dev v0");
        inside("ip addr add 10.77.0.100/24 dev v0");
        inside("ip link set v0 up");
        peer.run(&format!(
            "ip neigh replace 10.77.0.100 lladdr {OLD_MAC} dev v1 nud stale"
        ));
        let capture = peer.capture_on("v1");
        let mut entered = peer.command("nsenter");
        entered
            .args(["-t", &pid.to_string(), "-n", VIPHERALD])
            .args([command, "10.77.0.100"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if command == "announce" {
            entered.args(["-p", "10.77.0.2"]);
        }
        let run = Run::start(entered);
        if command == "announce" {
            wait_for_announcement(&capture, "10.77.0.100", 1);
        } else {
            run.wait_until_it_waits();
        }
        first.kill().unwrap();
        first.wait().unwrap();
        if command == "announce" {
            run.end().exits(0).logs("1 of 1 who answer follow");
        } else {
            run.goes_on();
        }
        eventually("the namespace ends with the run", SOON, || {
            let v1 = peer.try_run("ip link show dev v1");
            (!v1.status.success()).then_some(())
        });
    }
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
            let began = Instant::now();
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
            (changes.join().unwrap(), began.elapsed())
        });
        let (made, lasted) = made;
        println!("{made} changes in {lasted:?}");
        // Ten times as many on a machine with less other work.
        assert!(leaves || made >= 100_000, "{made} in {lasted:?}");
    }
}

/// Addresses come to an interface and go, as fast as one processor makes the kernel do that. Gives the number
/// of changes.
fn change_again_and_again(host: &Host, ends: &AtomicBool) -> u64 {
    second_interface(host);
    let index = host.interface_index("v0");
    let change = |(n, kind): (u8, u16)| {
        // RTM_NEWADDR or RTM_DELADDR, with IFA_LOCAL (rtnetlink(7)).
        let ip = [10, 200, 0, n];
        let flags: u16 = if kind == RTM_NEWADDR {
            NLM_F_REQUEST | NLM_F_CREATE
        } else {
            NLM_F_REQUEST
        };
        [
            &32_u32.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &[0; 8],
            &[2, 32, 0, 0],
            &index.to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &2_u16.to_ne_bytes(),
            &ip,
        ]
        .concat()
    };
    let both = |n| [(n, RTM_NEWADDR), (n, RTM_DELADDR)];
    let batch: Vec<u8> = (0..=255).flat_map(both).flat_map(change).collect();
    let open = || {
        socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
    };
    let kernel = host.enter(open).unwrap();
    let mut made = 0;
    while !ends.load(Ordering::SeqCst) {
        send(kernel.as_raw_fd(), &batch, MsgFlags::empty()).unwrap();
        made += 2 * 256;
    }
    made
}
