//! Announcing: what leaves the new owner, what the receivers make of it, and when nothing leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::json;
use vipherald_lab::{Capture, Direction, Frame, Host, Lab, Mac, State, eventually, write_pcap};

use common::arp::{ARP, is_sent};
use common::{
    Announced, BEFORE_THE_ROUNDS_END, Form, OLD_MAC, Run, SOON, SUSPENDED, VIP, VIP6, announcement,
    assert_followed, assert_seldom_late, give, give_all, keeps, old_mac, remember_old, run,
    second_interface, since, take, taken, told_frames, vipherald, wait_for_announcement,
    wait_until_followed, watch_for,
};

/// The first rounds only, and as many as the machine has time for: on an idle one four, as the
/// fifth is 2 s after the first.
const FEW_ROUNDS: &str = "--timeout 2";

const MILLISECOND: Duration = Duration::from_millis(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The announcements that a host sent, as its captures saw them, in the order they left.
fn sent(captures: &[&Capture]) -> Vec<Announced> {
    let mut sent: Vec<_> = captures
        .iter()
        .flat_map(|capture| taken(capture))
        .filter(|a| a.direction == Direction::FromHost)
        .collect();
    sent.sort_by_key(|a| a.time);
    sent
}

fn announcement_frames(capture: &Capture) -> Vec<Frame> {
    let mut frames = capture.frames();
    frames.retain(|frame| announcement(frame).is_some());
    frames
}

#[test]
fn both_arp_forms_leave_and_the_replys_target_is_its_sender() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let capture = b.capture();
    run(&a, &format!("announce {VIP} {FEW_ROUNDS}")).exits(0);

    let frames = announcement_frames(&capture);
    assert!(frames.len() >= 2, "{frames:?}");
    let mac = a.mac().0;
    let vip = [10, 9, 0, 100];
    let head = |operation: u8| [0, 1, 8, 0, 6, 4, 0, operation];
    for frame in &frames {
        assert_eq!(frame.destination().0, [0xff; 6]);
        assert_eq!(frame.source().0, mac);
    }
    let asked = [&head(1)[..], &mac, &vip, &[0; 6], &vip].concat();
    let told = [&head(2)[..], &mac, &vip, &mac, &vip].concat();
    let bodies: Vec<_> = frames.iter().map(|frame| &frame.payload()[..28]).collect();
    assert!(bodies.iter().all(|body| *body == asked || *body == told));
    assert!(bodies.contains(&&asked[..]) && bodies.contains(&&told[..]));
}

#[test]
fn the_advertisement_is_as_rfc_4861_says_and_its_router_flag_as_the_interface_forwards() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP6, "eth0");
    let capture = b.capture();
    for (forwarding, flags) in [("0", 0x20), ("1", 0xa0)] {
        a.sysctl("net/ipv6/conf/eth0/forwarding", forwarding);
        run(&a, &format!("announce {VIP6} {FEW_ROUNDS}")).exits(0);

        let frames = announcement_frames(&capture);
        assert!(!frames.is_empty());
        let mac = a.mac().0;
        let vip = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        for advertisement in &frames {
            assert_eq!(advertisement.destination().0, [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!(advertisement.source().0, mac);
            let packet = advertisement.payload();
            assert_eq!(packet.len(), 40 + 32, "nothing follows the option");
            assert_eq!(packet[..4], [0x60, 0, 0, 0], "version; no class, no label");
            assert_eq!(packet[4..8], [0, 32, 58, 255], "length, ICMPv6, hop limit");
            assert_eq!(
                (&packet[8..24], &packet[24..40]),
                (&vip[..], &all_nodes[..])
            );
            assert_eq!(packet[40..42], [136, 0]);
            assert_eq!(packet[44..48], [flags, 0, 0, 0], "R, S=0, O=1; reserved");
            assert_eq!(packet[48..64], vip);
            assert_eq!(packet[64..], [&[2, 1][..], &mac].concat());
        }
    }
}

#[test]
fn every_receivers_entry_holds_the_new_mac() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 4));
    let (reachable, stale) = peers.split_at(2);
    remember_old(reachable, &[VIP, VIP6]);
    for host in stale {
        for vip in [VIP, VIP6] {
            host.remember_as(vip, OLD_MAC, State::Stale);
        }
    }
    give(&a, VIP, "eth0");
    give(&a, VIP6, "eth0");
    run(&a, &format!("announce {VIP} {VIP6} {FEW_ROUNDS}")).exits(0);
    assert_followed(&peers, &[VIP, VIP6], a.mac());
}

#[test]
fn the_rounds_go_on_for_ten_seconds_and_their_end_is_no_news() {
    let lab = Lab::new();
    let (a, late) = (lab.host("a"), lab.host("late"));
    give(&a, VIP, "eth0");
    lab.blackout(&late);
    late.remember(VIP, OLD_MAC);
    let capture = a.capture();
    let announcing = Run::start(vipherald(&a, &format!("-v announce {VIP} --json")));
    // The ramp is over: only the slow rounds reach who comes late.
    wait_for_announcement(&capture, VIP, 6);
    assert_followed([&late], &[VIP], old_mac());
    late.remember(VIP, OLD_MAC);
    lab.restore(&late);
    let ended = announcing.end().exits(0);
    assert_followed(&[late], &[VIP], a.mac());

    let sent = sent(&[&capture]);
    let requests: Vec<_> = sent
        .iter()
        .filter(|one| one.form == Form::Request)
        .collect();
    assert_eq!((requests.len(), sent.len()), (8, 14), "{sent:?}");
    for (request, due) in requests
        .iter()
        .zip([0, 50, 200, 600, 2000, 4000, 7000, 10_000])
    {
        let at = since(sent[0].time, request.time);
        // Each round keeps its distance from the one before, however late that was.
        let due = Duration::from_millis(due);
        assert!(
            at + SUSPENDED >= due && at < due + 3000 * MILLISECOND,
            "{at:?} for {due:?}"
        );
    }
    // The others reach hosts that ignore gratuitous ARP, or ask for other owners.
    let line = format!("{VIP} announced on eth0 as {}: ", a.mac());
    assert!(ended.stderr.starts_with(&line), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(&format!("{VIP}: 27 frames in ")),
        "{ended:?}"
    );
    let (_, took) = told_frames(last);
    let seen = since(sent[0].time, sent[13].time);
    assert!(
        took >= Duration::from_secs(10) && took < ended.lasted,
        "{took:?}"
    );
    assert!(took + SUSPENDED > seen, "{took:?} for {seen:?}: {ended:?}");
    assert_eq!(ended.stderr.matches("announced on").count(), 1, "{ended:?}");
}

#[test]
fn the_first_round_of_all_vips_on_all_interfaces_precedes_every_second_frame() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    second_interface(&a);
    let on_eth0 = [VIP, "10.9.0.101", VIP6, "fd09::101"];
    let on_v0 = ["10.8.0.100", "fd08::100"];
    for vip in on_eth0 {
        give(&a, vip, "eth0");
    }
    for vip in on_v0 {
        give(&a, vip, "v0");
    }
    remember_old(&peers, &on_eth0);
    let captures = [a.capture(), a.capture_on("v0")];
    let vips: Vec<_> = on_eth0.into_iter().chain(on_v0).collect();
    run(&a, &format!("announce {} {FEW_ROUNDS}", vips.join(" "))).exits(0);
    assert_followed(&peers, &on_eth0, a.mac());

    let [eth0, v0] = captures.map(|capture| sent(&[&capture]));
    let of = |sent: &[Announced]| sent.iter().map(|a| a.vip).collect::<BTreeSet<_>>();
    assert_eq!(of(&eth0), on_eth0.map(ip).into());
    assert_eq!(of(&v0), on_v0.map(ip).into());
    let mut all = [eth0, v0].concat();
    all.sort_by_key(|a| a.time);
    assert!(all.len() >= 3 * 2 + 3, "{all:?}");
    let first: BTreeSet<_> = all[..vips.len()].iter().map(|a| a.vip).collect();
    assert_eq!(first, vips.iter().map(|vip| ip(vip)).collect(), "{all:?}");
}

#[test]
fn three_hundred_vips_are_announced_in_one_run() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let vips: Vec<_> = (0..300)
        .map(|n| format!("10.9.{}.{}", 1 + n / 200, 1 + n % 200))
        .collect();
    give_all(&a, &vips);
    let entry = |vip| format!("neigh add {vip} lladdr {OLD_MAC} dev eth0 nud reachable\n");
    b.ip(&vips.iter().map(entry).collect::<String>());
    let capture = a.capture();
    let ended = run(&a, &format!("announce {} --timeout 4", vips.join(" "))).exits(0);

    let followed = |entry: &vipherald_lab::Neighbour| {
        entry.mac == Some(a.mac()) && vips.contains(&entry.ip.to_string())
    };
    let following = b.neighbours().into_iter().filter(followed).count();
    assert_eq!(following, 300);
    let sent = sent(&[&capture]);
    let first: BTreeSet<_> = sent[..300].iter().map(|a| a.vip).collect();
    assert_eq!(first.len(), 300, "each has one frame before any has two");
    assert!(sent[..300].iter().all(|a| a.form == Form::Request));
    let line = "10.9.1.1, 10.9.1.2, 10.9.1.3, 10.9.1.4 and 296 more announced on eth0";
    assert!(ended.stderr.starts_with(line), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[test]
fn a_vip_named_twice_is_announced_once() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let capture = a.capture();
    run(&a, &format!("announce {VIP} {VIP} {FEW_ROUNDS}")).exits(0);
    let forms: Vec<_> = sent(&[&capture]).iter().map(|a| a.form).collect();
    assert!(!forms.is_empty());
    let once = [Form::Request, Form::Reply, Form::Request, Form::Reply];
    assert_eq!(forms[..4], once, "{forms:?}");
}

#[test]
fn a_vip_on_two_interfaces_is_announced_on_both_or_on_the_one_named() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    give(&a, VIP, "eth0");
    give(&a, VIP, "v0");
    let captures = [a.capture(), a.capture_on("v0")];
    for (only, expected) in [
        ("", [true, true]),
        ("-i v0", [false, true]),
        ("-i eth0", [true, false]),
    ] {
        let ended = run(&a, &format!("announce {VIP} {only} {FEW_ROUNDS}"));
        let announced = [0, 1].map(|at| !sent(&[&captures[at]]).is_empty());
        assert_eq!(
            (ended.status, announced),
            (0, expected),
            "{only}: {ended:?}"
        );
    }
    // Elsewhere does not count.
    take(&a, VIP, "v0");
    run(&a, &format!("announce {VIP} -i v0 --wait 0")).exits(5);
    assert!(sent(&[&captures[0], &captures[1]]).is_empty());
}

#[test]
fn a_vmac_announces_its_own_mac() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    let [vmac, vmac6]: [Mac; 2] =
        ["00:00:5e:00:01:33", "00:00:5e:00:02:33"].map(|mac| mac.parse().unwrap());
    a.vmac("vrrp.51", vmac);
    a.vmac("vrrp6.51", vmac6);
    a.sysctl("net/ipv6/conf/vrrp6.51/disable_ipv6", "0");
    give(&a, VIP, "vrrp.51");
    give(&a, VIP6, "vrrp6.51");
    remember_old(&peers, &[VIP, VIP6]);
    let capture = peers[0].capture();
    run(&a, &format!("announce {VIP} {VIP6} {FEW_ROUNDS}")).exits(0);
    assert_followed(&peers, &[VIP], vmac);
    assert_followed(&peers, &[VIP6], vmac6);
    for frame in announcement_frames(&capture) {
        let announced = announcement(&frame).unwrap();
        let expected = if announced.vip.is_ipv4() { vmac } else { vmac6 };
        assert_eq!((frame.source(), announced.mac), (expected, Some(expected)));
    }
}

/// What tshark says of each frame: malformed, weight of the expert's remark, checksums.
fn dissect(lab: &Lab, name: &str, frames: &[Frame]) -> Vec<BTreeMap<&'static str, String>> {
    const FIELDS: [&str; 10] = [
        "_ws.malformed",
        "_ws.expert.severity",
        "_ws.expert.message",
        "arp.opcode",
        "arp.isgratuitous",
        "arp.src.hw_mac",
        "arp.dst.hw_mac",
        "icmpv6.type",
        "icmpv6.checksum.status",
        "icmpv6.opt.linkaddr",
    ];
    let file = lab.directory().join(name);
    write_pcap(&file, frames).unwrap();
    let mut tshark = Command::new("tshark");
    tshark
        // Nobody's preferences.
        .env("HOME", lab.directory())
        .env_remove("XDG_CONFIG_HOME")
        .arg("-r")
        .arg(&file)
        .args(["-o", "ip.check_checksum:TRUE"])
        .args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let output = tshark
        .output()
        .expect("tshark is not installed: apt-get install tshark");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            FIELDS
                .into_iter()
                .zip(line.split('|').map(str::to_owned))
                .collect()
        })
        .collect()
}

/// From this weight on a remark of tshark's is a warning or an error (`PI_WARN`).
const WARNING: u32 = 0x0060_0000;

fn is_sound(fields: &BTreeMap<&str, String>) -> bool {
    let severities = fields["_ws.expert.severity"].split(',');
    let warned = severities
        .filter_map(|severity| severity.parse::<u32>().ok())
        .any(|severity| severity >= WARNING);
    let checksum = fields["icmpv6.checksum.status"].as_str();
    fields["_ws.malformed"].is_empty() && !warned && matches!(checksum, "" | "1")
}

#[test]
fn an_independent_dissector_finds_nothing_wrong() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    give(&a, VIP6, "eth0");
    let capture = b.capture();
    for forwarding in ["0", "1"] {
        a.sysctl("net/ipv6/conf/eth0/forwarding", forwarding);
        run(&a, &format!("announce {VIP} {VIP6} {FEW_ROUNDS}")).exits(0);
    }
    let frames = announcement_frames(&capture);
    let dissected = dissect(&lab, "sent.pcap", &frames);
    assert!(frames.len() >= 6 && dissected.len() == frames.len());
    let mac = a.mac().to_string();
    for fields in &dissected {
        assert!(is_sound(fields), "{fields:?}");
        match (
            fields["arp.opcode"].as_str(),
            fields["icmpv6.type"].as_str(),
        ) {
            ("1", "") => assert_eq!(fields["arp.src.hw_mac"], mac),
            ("2", "") => {
                assert_eq!(fields["arp.src.hw_mac"], mac);
                assert_eq!(fields["arp.dst.hw_mac"], mac);
            }
            ("", "136") => {
                assert_eq!(fields["icmpv6.checksum.status"], "1");
                assert_eq!(fields["icmpv6.opt.linkaddr"], mac);
                continue;
            }
            _ => panic!("{fields:?}"),
        }
        assert!(
            ["1", "True"].contains(&fields["arp.isgratuitous"].as_str()),
            "{fields:?}"
        );
    }

    // It does find what is wrong: a flipped bit, a hop limit that routers lowered, a cut frame.
    let spoil = |spoil: fn(&mut Vec<u8>), v6: bool| {
        let is_v6 = |frame: &&Frame| frame.ether_type() == 0x86dd;
        let mut frame = frames.iter().find(|f| is_v6(f) == v6).unwrap().clone();
        spoil(&mut frame.bytes);
        frame
    };
    let spoilt = [
        spoil(|bytes| bytes[14 + 42] ^= 1, true),
        spoil(|bytes| bytes.truncate(14 + 20), false),
        spoil(|bytes| bytes.truncate(14 + 66), true),
    ];
    for fields in dissect(&lab, "spoilt.pcap", &spoilt) {
        assert!(!is_sound(&fields), "{fields:?}");
    }
}

#[test]
fn a_vip_that_never_comes_gets_no_frame_and_exit_5() {
    let lab = Lab::new();
    let a = lab.host("a");
    let capture = a.capture();
    for (wait, least) in [("0", 0), ("0.4", 400)] {
        let least = Duration::from_millis(least);
        // Without the option it would wait for 1 s.
        keeps(900 * MILLISECOND, || {
            let ended = run(&a, &format!("announce {VIP} {VIP6} --wait {wait}")).exits(5);
            assert!(ended.lasted >= least, "{ended:?}");
            let line = format!("warning: {VIP}, {VIP6} not on this host: nothing announced\n");
            assert_eq!(ended.stderr, line);
            ended.lasted
        });
    }
    assert_eq!(sent(&[&capture]), []);
}

#[test]
fn a_vip_that_comes_while_waited_for_is_announced_at_once() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    for vip in [VIP, VIP6] {
        keeps(20 * MILLISECOND, || {
            remember_old(&peers, &[vip]);
            let capture = a.capture();
            let arguments = format!("announce {vip} --wait 30 --timeout 60");
            let announcing = Run::start(vipherald(&a, &arguments));
            announcing.wait_until_it_waits();
            give(&a, vip, "eth0");
            let given = SystemTime::now();
            let first = wait_for_announcement(&capture, vip, 1);
            wait_until_followed(&peers, &[vip], a.mac());
            take(&a, vip, "eth0");
            // It would wait for the VIP to come back.
            announcing.goes_on();
            // It may well leave before the command is over.
            first.time.duration_since(given).unwrap_or_default()
        });
    }
}

#[test]
fn absent_vips_exit_5_and_the_others_are_announced() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    remember_old(&peers, &[VIP]);
    give(&a, VIP, "eth0");
    let arguments = format!("announce 10.9.0.101 {VIP} --wait 0.1 {FEW_ROUNDS}");
    let ended = run(&a, &arguments).exits(5);
    assert_followed(&peers, &[VIP], a.mac());
    ended.logs("warning: 10.9.0.101 not on this host");
    ended.logs(format!("{VIP} announced on eth0"));
}

#[test]
fn no_frame_leaves_after_the_vip_was_removed() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let vips: Vec<String> = (0..120)
        .map(|n| {
            if n % 2 == 0 {
                format!("10.9.1.{}", 1 + n)
            } else {
                format!("fd09::1:{n:x}")
            }
        })
        .collect();
    for vip in &vips {
        give(&a, vip, "eth0");
    }
    let captures = [a.capture(), b.capture()];
    // 200 at once, then a frame every 5 ms: at any moment some VIP is about to be announced.
    let arguments = format!("announce {} --rate 200", vips.join(" "));
    let announcing = Run::start(vipherald(&a, &arguments));
    let mut after = SystemTime::UNIX_EPOCH;
    let mut removed = BTreeMap::new();
    let (one_by_one, at_once) = vips.split_at(60);
    for (count, vip) in one_by_one.iter().enumerate() {
        // Some frames later, so that the stream goes on between any two removals.
        let mut more = if count == 0 { 210 } else { 2 };
        let next = captures[0].wait_for(SOON, |frame| {
            more -= i32::from(frame.time > after && announcement(frame).is_some());
            more == 0
        });
        assert!(next.is_some(), "no frames while {vip} was to be removed");
        after = take(&a, vip, "eth0");
        removed.insert(ip(vip), after);
    }
    let lines = |vip: &String| {
        let length = if vip.contains(':') { 128 } else { 32 };
        format!("addr del {vip}/{length} dev eth0\n")
    };
    a.ip(&at_once.iter().map(lines).collect::<String>());
    let all_gone = SystemTime::now();
    removed.extend(at_once.iter().map(|vip| (ip(vip), all_gone)));
    let ended = announcing.end();
    let end = SystemTime::now();
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(since(all_gone, end) < BEFORE_THE_ROUNDS_END, "ends at once");
    ended.logs("left eth0: stopped");

    let seen = captures.map(|capture| taken(&capture));
    assert_eq!(seen[0].len(), seen[1].len());
    let late: Vec<_> = seen[0]
        .iter()
        .filter_map(|a| Some((a.time.duration_since(*removed.get(&a.vip)?).ok()?, a.vip)))
        .collect();
    assert_seldom_late(&late, one_by_one.len());
}

#[test]
fn a_removed_vip_ends_the_run_in_every_phase() {
    let lab = Lab::new();
    let a = lab.host("a");
    let end_after = |frames| {
        give(&a, VIP, "eth0");
        let capture = a.capture();
        let arguments = format!("announce {VIP} --json --wait 0");
        let announcing = Run::start(vipherald(&a, &arguments));
        wait_for_announcement(&capture, VIP, frames);
        let removed = take(&a, VIP, "eth0");
        let ended = announcing.end();
        let lasted = since(removed, SystemTime::now());
        assert_eq!(ended.status, 5, "{ended:?}");
        assert!(sent(&[&capture]).iter().all(|a| a.time <= removed));
        let report = ended.report();
        assert_eq!(
            (&report["result"], &report["vips"][0]["held"]),
            (&json!("not-held"), &json!(false))
        );
        lasted
    };
    // In the pauses after the frames of the first, second, third and fourth round.
    for frames in [2, 4, 6, 8] {
        end_after(frames);
    }
    // The fourth is 400 ms after the third: it does not end because that is due.
    keeps(200 * MILLISECOND, || end_after(6));
}

#[test]
fn a_vip_whose_prefix_changes_or_that_is_taken_and_given_back_is_announced_anew() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    for (vip, short, long) in [(VIP, 24, 32), (VIP6, 64, 128)] {
        a.run(&format!("ip addr add {vip}/{long} dev eth0 nodad"));
        let capture = a.capture();
        let announcing = Run::start(vipherald(&a, &format!("announce --wait 10 {vip}")));
        wait_for_announcement(&capture, vip, 4);
        // As keepalived does at a reload, within a tenth of a millisecond.
        a.ip(&format!(
            "addr del {vip}/{long} dev eth0\naddr add {vip}/{short} dev eth0 nodad\n"
        ));
        remember_old(&peers, &[vip]);
        wait_until_followed(&peers, &[vip], a.mac());
        // A network manager takes its time.
        a.run(&format!("ip addr del {vip}/{short} dev eth0"));
        let gone = SystemTime::now();
        watch_for(300 * MILLISECOND);
        remember_old(&peers, &[vip]);
        let back = SystemTime::now();
        a.run(&format!("ip addr add {vip}/{short} dev eth0 nodad"));
        wait_until_followed(&peers, &[vip], a.mac());
        let seen = taken(&capture);
        let meanwhile = seen.iter().filter(|a| a.time > gone && a.time < back);
        assert_eq!(meanwhile.count(), 0, "{seen:?}");
        announcing.goes_on();
        a.run(&format!("ip addr del {vip}/{short} dev eth0"));
    }
}

#[test]
fn an_address_that_is_there_twice_has_not_left_when_one_of_them_goes() {
    let is_announced_without = |gone: u8| {
        let lab = Lab::new();
        let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
        for length in [24, 32] {
            a.run(&format!("ip addr add {VIP}/{length} dev eth0"));
        }
        let capture = a.capture();
        let announcing = Run::start(vipherald(&a, &format!("announce {VIP}")));
        wait_for_announcement(&capture, VIP, 4);
        remember_old(&peers, &[VIP]);
        a.run(&format!("ip addr del {VIP}/{gone} dev eth0"));
        wait_until_followed(&peers, &[VIP], a.mac());
        announcing.end().exits(0);
    };
    thread::scope(|scope| {
        for gone in [24, 32] {
            scope.spawn(move || is_announced_without(gone));
        }
    });
}

#[test]
fn sigterm_ends_a_run_within_50_ms_and_no_frame_follows() {
    let lab = Lab::new();
    let a = lab.host("a");
    let absent = "10.9.0.101";
    give(&a, VIP, "eth0");
    for vip in [VIP, absent] {
        keeps(50 * MILLISECOND, || {
            let capture = a.capture();
            let announcing = Run::start(vipherald(&a, &format!("announce {vip} --wait 60")));
            if vip == VIP {
                wait_for_announcement(&capture, VIP, 4);
            } else {
                announcing.wait_until_it_waits();
            }
            let (ended, after) = announcing.terminate();
            let gone = SystemTime::now();
            assert_eq!(ended.status, 143, "{ended:?}");
            // The next round would be 150 ms after the second.
            watch_for(250 * MILLISECOND);
            assert!(sent(&[&capture]).iter().all(|a| a.time <= gone));
            after
        });
    }
}

#[test]
fn an_interface_that_is_deleted_ends_the_run() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, VIP6] {
        second_interface(&a);
        give(&a, vip, "v0");
        let capture = a.capture_on("v0");
        let announcing = Run::start(vipherald(&a, &format!("announce {vip} -i v0")));
        wait_for_announcement(&capture, vip, 2);
        a.run("ip link del v0");
        let removed = SystemTime::now();
        let ended = announcing.end().exits(5);
        assert!(since(removed, SystemTime::now()) < BEFORE_THE_ROUNDS_END);
        ended.logs("left v0: stopped");
    }
}

#[test]
fn an_interface_that_is_set_down_sends_nothing_and_starts_over_when_up() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} --timeout 20")));
    wait_for_announcement(&capture, VIP, 2);
    a.run("ip link set eth0 down");
    let down = SystemTime::now();
    watch_for(300 * MILLISECOND);
    assert!(taken(&capture).iter().all(|a| a.time <= down));
    remember_old(&peers, &[VIP]);
    a.run("ip link set eth0 up");
    // The ramp: rounds 1 to 4.
    wait_for_announcement(&capture, VIP, 8);
    assert_followed(&peers, &[VIP], a.mac());
    announcing.goes_on();
}

#[test]
fn the_rounds_start_over_when_the_carrier_comes_back() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    let vips = [VIP, VIP6];
    for vip in vips {
        give(&a, vip, "eth0");
    }
    let capture = peers[0].capture();
    let arguments = format!("announce {VIP} {VIP6} --timeout 30");
    let announcing = Run::start(vipherald(&a, &arguments));
    // The ramp is over: rounds are seconds apart.
    wait_for_announcement(&capture, VIP, 8);
    wait_for_announcement(&capture, VIP6, 4);
    lab.unplug(&a);
    eventually("a has no carrier", SOON, || {
        a.run("ip link show eth0")
            .contains("NO-CARRIER")
            .then_some(())
    });
    remember_old(&peers, &vips);
    capture.frames();
    lab.plug(&a);
    wait_for_announcement(&capture, VIP, 8);
    let followed: Vec<_> = taken(&capture)
        .into_iter()
        .filter(|a| a.vip == ip(VIP))
        .collect();
    assert_followed(&peers, &vips, a.mac());
    // The ramp once more, 0.6 s from the first to the fourth round. Later rounds are 2 s and more
    // apart, so that three gaps take 6 s: only the time shows which these are.
    let ramp = since(followed[0].time, followed[6].time);
    assert!(
        ramp + SUSPENDED > 600 * MILLISECOND && ramp < 5000 * MILLISECOND,
        "{ramp:?}"
    );
    announcing.goes_on();
}

#[test]
fn a_mac_that_changes_is_announced_and_the_old_one_no_more() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    let vips = [VIP, VIP6];
    for vip in vips {
        give(&a, vip, "eth0");
    }
    remember_old(&peers, &vips);
    let capture = a.capture();
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} {VIP6}")));
    wait_for_announcement(&capture, VIP6, 3);
    assert_followed(&peers, &vips, a.mac());
    let new: Mac = "02:00:00:00:0a:01".parse().unwrap();
    a.run(&format!("ip link set eth0 address {new}"));
    let changed = SystemTime::now();
    wait_until_followed(&peers, &vips, new);
    // All rounds again, from the first one on.
    wait_for_announcement(&capture, VIP, 6 + 8);
    announcing.goes_on();
    let sent = sent(&[&capture]);
    let with = |mac: Mac| sent.iter().filter(move |a| a.mac == Some(mac));
    assert!(with(a.mac()).all(|a| a.time <= changed));
    assert!(with(new).filter(|a| a.vip == ip(VIP)).count() >= 8);
}

fn arp_frames(capture: &Capture) -> impl Iterator<Item = Frame> {
    let frames = capture.frames().into_iter();
    frames.filter(|frame| frame.ether_type() == ARP)
}

/// When each ARP frame left: announcements and questions alike.
fn arp_sent(capture: &Capture) -> Vec<SystemTime> {
    arp_frames(capture)
        .filter(is_sent)
        .map(|frame| frame.time)
        .collect()
}

/// In no window of `w` seconds more than `rate` × (1 + w) frames, and one for the kernel's clock.
/// A frame may leave some time after the look at the clock that allowed it, and so the window that
/// begins with it be shorter than the run knew.
fn assert_rate_kept(sent: &[SystemTime], rate: u32) {
    for (from, first) in sent.iter().enumerate() {
        for (to, last) in sent.iter().enumerate().skip(from) {
            let window = (since(*first, *last) + SUSPENDED).as_secs_f64();
            let allowed = f64::from(rate) * (1.0 + window) + 1.0;
            let count = f64::from(u32::try_from(to - from + 1).unwrap());
            assert!(count <= allowed, "{count} frames in {window} s at {rate}/s");
        }
    }
}

#[test]
fn the_rate_is_kept_in_every_window_and_the_timeout_ends_the_run() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let vips: Vec<_> = (1..=40).map(|n| format!("10.9.1.{n}")).collect();
    give_all(&a, &vips);
    let vips = vips.join(" ");
    for (rate, timeout) in [(30, 4), (200, 3)] {
        let captures = [a.capture(), b.capture()];
        let arguments = format!("announce {vips} --rate {rate} --timeout {timeout}");
        let ended = run(&a, &arguments).exits(0);
        let least = Duration::from_secs(timeout);
        assert!(
            ended.lasted >= least && ended.lasted < BEFORE_THE_ROUNDS_END,
            "{ended:?}"
        );
        let sent = arp_sent(&captures[0]);
        assert_rate_kept(&sent, rate);
        assert_eq!(arp_frames(&captures[1]).count(), sent.len());
        // It uses what it may, too: else the promise would be cheap. At 30/s these are 150 frames
        // if nothing delays it, and at 200/s the 480 of four rounds.
        let count = u32::try_from(sent.len()).unwrap();
        assert!(count >= 2 * rate, "{count} at {rate}/s in {timeout} s");
    }
}

#[test]
fn one_frame_a_second_is_one_frame_a_second() {
    let lab = Lab::new();
    let a = lab.host("a");
    let other = "10.9.0.101";
    give(&a, VIP, "eth0");
    give(&a, other, "eth0");
    let capture = a.capture();
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} {other} --rate 1")));
    wait_for_announcement(&capture, VIP, 2);
    announcing.goes_on();
    let sent = sent(&[&capture]);
    let vips: Vec<_> = sent.iter().map(|a| a.vip).collect();
    assert_eq!(vips[..3], [ip(VIP), ip(other), ip(VIP)]);
    for pair in sent.windows(2) {
        let gap = since(pair[0].time, pair[1].time);
        assert!(gap + SUSPENDED > 1000 * MILLISECOND, "{gap:?}");
    }
}

#[test]
fn a_vip_whose_turn_never_came_is_no_success() {
    let lab = Lab::new();
    let a = lab.host("a");
    let other = "10.9.0.101";
    give(&a, VIP, "eth0");
    give(&a, other, "eth0");
    let capture = a.capture();
    let ended = run(
        &a,
        &format!("announce {VIP} {other} --rate 1 --timeout 0.9"),
    );
    assert_eq!(sent(&[&capture]).len(), 1);
    assert_eq!(ended.status, 1, "{ended:?}");
    ended.logs(format!("error: {other} "));
}

#[test]
fn a_tentative_vip_waits_for_duplicate_address_detection() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    remember_old(&peers, &[VIP6]);
    let capture = a.capture();
    a.run(&format!("ip addr add {VIP6}/128 dev eth0"));
    let arguments = format!("announce {VIP6} --timeout 60 --wait 0");
    let announcing = Run::start(vipherald(&a, &arguments));
    let solicits = |frame: &Frame| {
        let body = frame.payload();
        frame.ether_type() == 0x86dd && body[40] == 135 && body[8..24] == [0; 16]
    };
    let detection = capture
        .wait_for(SOON, solicits)
        .expect("a DAD solicitation");
    let first = wait_for_announcement(&capture, VIP6, 1);
    // RetransTimer is 1 s.
    assert!(since(detection.time, first.time) > 900 * MILLISECOND);
    wait_until_followed(&peers, &[VIP6], a.mac());
    announcing.goes_on();
}

#[test]
fn a_vip_that_another_host_defends_is_a_conflict_and_never_announced() {
    let lab = Lab::new();
    let (a, owner, peers) = (lab.host("a"), lab.host("owner"), lab.hosts("peer", 1));
    give(&owner, VIP6, "eth0");
    peers[0].remember(VIP6, owner.mac());
    let capture = a.capture();
    a.run(&format!("ip addr add {VIP6}/128 dev eth0"));
    let waiting = run(&a, &format!("announce {VIP6} --json")).exits(4);
    // Found so from the start, too.
    let known = run(&a, &format!("announce {VIP6}")).exits(4);
    assert_eq!(sent(&[&capture]), []);
    assert_followed(&peers, &[VIP6], owner.mac());
    let report = waiting.report();
    assert_eq!(report["result"], json!("conflict"));
    assert!(known.stderr.starts_with("error: "), "{known:?}");
}

#[test]
fn a_dry_run_sends_nothing_and_says_what_it_would() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    remember_old(&peers, &[VIP, VIP6]);
    give(&a, VIP, "eth0");
    give(&a, VIP6, "eth0");
    let capture = a.capture();
    let arguments = format!("announce {VIP} {VIP6} 10.9.0.101 --dry-run");
    let ended = run(&a, &arguments).exits(0);
    assert!(ended.lasted < BEFORE_THE_ROUNDS_END, "{ended:?}");
    let mac = a.mac();
    assert_eq!(
        ended.stdout,
        format!(
            "{VIP} would be announced on eth0 as {mac}: at most 27 frames in 10.0 s, and questions to \
             every peer\n\
             {VIP6} would be announced on eth0 as {mac}: at most 38 frames in 10.0 s, and questions to \
             every peer\n\
             10.9.0.101 is not on this host\n"
        )
    );
    let report = run(&a, &(arguments + " --json")).report();
    assert_eq!(
        (&report["dry_run"], &report["frames_sent"]),
        (&json!(true), &json!(0))
    );
    watch_for(100 * MILLISECOND);
    assert_eq!(sent(&[&capture]), []);
    assert_followed(&peers, &[VIP, VIP6], old_mac());
}

#[test]
fn the_json_report_has_the_shape_that_monitors_rely_on() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let arguments = format!("announce {VIP} 10.9.0.101 --json {FEW_ROUNDS} --wait 0");
    let ended = run(&a, &arguments).exits(5);
    assert_eq!(ended.stdout.lines().count(), 1, "one object: {ended:?}");
    let mut report = ended.report();
    let duration = report["duration_ms"].take().as_u64().unwrap();
    assert!((2000..8000).contains(&duration), "{duration}");
    let frames = arp_sent(&capture).len();
    assert_eq!(
        report,
        json!({
            "command": "announce",
            "version": env!("CARGO_PKG_VERSION"),
            "instance": null,
            "result": "not-held",
            "dry_run": false,
            "cut_short": null,
            "duration_ms": null,
            "frames_sent": frames,
            "vips": [
                {
                    "address": VIP,
                    "interface": "eth0",
                    "mac": a.mac().to_string(),
                    "held": true,
                    "result": "ok",
                    "frames_sent": frames,
                    "reach": {"path": "alive", "broadcasts": frames, "asked": 0},
                    "conflicts": [],
                    "past_conflicts": [],
                    "peers": [],
                },
                {
                    "address": "10.9.0.101",
                    "interface": null,
                    "mac": null,
                    "held": false,
                    "result": "not-held",
                    "frames_sent": 0,
                    "reach": {"path": "silent", "broadcasts": 0, "asked": 0},
                    "conflicts": [],
                    "past_conflicts": [],
                    "peers": [],
                },
            ],
        })
    );
}

/// Makes the host's own queue refuse every frame: to the sender it looks full (`ENOBUFS`).
fn refuse_frames(host: &Host) {
    host.nft(
        "add table netdev t\n\
         add chain netdev t c { type filter hook egress device eth0 priority 0; policy drop; }\n",
    );
}

#[test]
fn frames_that_the_queue_refuses_are_tried_again_until_they_leave() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    give(&a, VIP, "eth0");
    remember_old(&peers, &[VIP]);
    let capture = a.capture();
    refuse_frames(&a);
    let log = lab.directory().join("log");
    let mut command = vipherald(&a, &format!("announce {VIP} -v --timeout 20"));
    command.stderr(fs::File::create(&log).unwrap());
    let announcing = Run::start(command);
    eventually("some frames were refused", SOON, || {
        let refused = fs::read_to_string(&log)
            .unwrap()
            .matches("not sent")
            .count();
        (refused >= 5).then_some(())
    });
    assert_eq!(sent(&[&capture]), []);
    a.nft("delete table netdev t\n");
    wait_for_announcement(&capture, VIP, 8);
    assert_followed(&peers, &[VIP], a.mac());
    // None was left out: the first round came first.
    let forms: Vec<_> = sent(&[&capture]).iter().map(|a| a.form).collect();
    assert_eq!(forms[..2], [Form::Request, Form::Reply]);
    announcing.goes_on();
}

#[test]
fn a_queue_that_refuses_to_the_end_is_reported_as_failed() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    refuse_frames(&a);
    let ended = run(&a, &format!("announce {VIP} {FEW_ROUNDS} --json")).exits(1);
    let report = ended.logs("error: ").logs("ENOBUFS").report();
    assert_eq!(
        (&report["result"], &report["frames_sent"]),
        (&json!("failed"), &json!(0))
    );
}

#[test]
fn other_addresses_of_the_host_are_never_announced() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    for vip in [VIP, "10.9.0.101", "fd09::101"] {
        give(&a, vip, "eth0");
    }
    let capture = b.capture();
    run(&a, &format!("announce {VIP} {FEW_ROUNDS}")).exits(0);
    let announced: BTreeSet<_> = taken(&capture).iter().map(|a| a.vip).collect();
    assert_eq!(announced, [ip(VIP)].into());
}
