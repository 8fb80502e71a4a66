//! Links as users have them: gateways with virtual MACs, tags, policers, old tables, port security,
//! routers that forward what is not theirs, hosts that answer no echo, and hosts that nobody knows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vipherald_lab::{Frame, Host, Lab, Mac, Manners, Responder, State, eventually};

use common::arp::{ARP, Arp, is_sent};
use common::{
    Ended, OLD_MAC, Run, SOON, VIP, VIP6, cable, give, meet, never_hears, old_mac, peer_in, since,
    verdict_in, vip_in, vipherald,
};

const VIRTUAL_MAC: Mac = Mac([0, 0, 0x0c, 7, 0xac, 1]);

/// Announces, for at most this many seconds.
fn announce(host: &Host, vip: &str, arguments: &str) -> (Ended, Value) {
    let arguments = format!("announce --json {vip} {arguments}");
    let ended = Run::start(vipherald(host, &arguments)).end();
    let report = ended.report();
    (ended, report)
}

/// A new owner of the VIP, and a router whose kernel has no address: a responder plays it.
fn owner_and_router(lab: &Lab) -> (Host, Host, Ipv4Addr) {
    let (owner, router) = (lab.host("owner"), lab.host("router"));
    let ip = router.ipv4();
    router.run("ip addr flush dev eth0");
    give(&owner, VIP, "eth0");
    owner.run(&format!("ip route add default via {ip}"));
    (owner, router, ip)
}

#[test]
fn a_gateway_that_replies_from_its_own_mac_is_proven() {
    let lab = Lab::new();
    let (owner, router, ip) = owner_and_router(&lab);
    let plain = Manners::plain(ip, VIRTUAL_MAC);
    for (name, manners, resolved) in [
        ("VRRP", plain, true),
        ("not resolved yet", plain, false),
        (
            "HSRP",
            Manners {
                arp_from_own: true,
                ..plain
            },
            true,
        ),
        (
            "HSRP, not resolved yet",
            Manners {
                arp_from_own: true,
                ..plain
            },
            false,
        ),
        (
            "with priority tags",
            Manners {
                tagged: true,
                ..plain
            },
            false,
        ),
    ] {
        let _gateway = Responder::start(&router, manners);
        owner.run("ip neigh flush dev eth0");
        if resolved {
            owner.remember(ip, VIRTUAL_MAC);
        }
        let (ended, told) = announce(&owner, VIP, "--timeout 2");
        assert_eq!(
            (ended.status, verdict_in(&told, VIP, ip)),
            (0, "proven"),
            "{name}: {told:#}"
        );
        let peer = peer_in(&told, VIP, ip);
        assert_eq!(peer["mac"], json!(VIRTUAL_MAC.to_string()), "{name}");
        assert_eq!(
            (&peer["proof"], &peer["source"]),
            (&json!("echo"), &json!("gateway"))
        );
    }
}

#[test]
fn arp_answers_to_all_acknowledge_and_the_echo_proves() {
    let lab = Lab::new();
    let (owner, router, ip) = owner_and_router(&lab);
    let to_all = Manners {
        arp_to_all: true,
        ..Manners::plain(ip, router.mac())
    };
    for (echo, verdict) in [(true, "proven"), (false, "acknowledged")] {
        owner.run("ip neigh flush dev eth0");
        let _peer = Responder::start(&router, Manners { echo, ..to_all });
        let (ended, told) = announce(&owner, VIP, "--timeout 2");
        assert_eq!(
            (ended.status, verdict_in(&told, VIP, ip)),
            (0, verdict),
            "{told:#}"
        );
    }
}

#[test]
fn a_reply_that_an_old_owner_forwards_makes_a_peer_stale() {
    let lab = Lab::new();
    let (owner, old, peer) = (lab.host("owner"), lab.host("old"), lab.host("peer"));
    old.sysctl("net/ipv4/conf/all/forwarding", "1");
    give(&owner, VIP, "eth0");
    meet(&owner, [&peer]);
    peer.remember_as(VIP, old.mac(), State::Permanent);
    // Ping works, through the old owner.
    eventually("the detour", SOON, || {
        let ping = peer.try_run(&format!("ping -c 1 -W 1 {VIP}"));
        ping.status.success().then_some(())
    });
    let (ended, told) = announce(&owner, VIP, "--timeout 3");
    assert_eq!(
        (ended.status, verdict_in(&told, VIP, peer.ipv4())),
        (3, "stale"),
        "{told:#}"
    );
    let told = peer_in(&told, VIP, peer.ipv4());
    assert_eq!(told["forwarded_by"], json!(old.mac().to_string()));
    ended.logs(format!("go to {}, which forwards them", old.mac()));
    peer.remember(VIP, owner.mac());
    let (_, told) = announce(&owner, VIP, "--timeout 3");
    assert_eq!(verdict_in(&told, VIP, peer.ipv4()), "proven");
}

#[test]
fn port_security_is_one_diagnosis_and_accuses_no_host() {
    for vip in [VIP, VIP6] {
        let lab = Lab::new();
        let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 4));
        give(&owner, vip, "eth0");
        meet(&owner, &peers);
        for peer in &peers {
            peer.remember(vip, OLD_MAC);
            never_hears(peer, vip);
        }
        let (ended, told) = announce(&owner, vip, "--timeout 4");
        assert_eq!(
            (ended.status, &told["result"]),
            (3, &json!("unproven")),
            "{told:#}"
        );
        assert_eq!(vip_in(&told, vip)["verdict"], json!("blocked"));
        let verdicts = vip_in(&told, vip)["peers"].to_string();
        assert!(!verdicts.contains("stale"), "{told:#}");
        ended.logs("allowed address pairs").logs_no("purge");
        assert_eq!(ended.stderr.matches("blocked").count(), 1, "{ended:#?}");
        // Questions end, or almost: 4 s at full speed would be hundreds.
        let frames = told["frames_sent"].as_u64().unwrap();
        assert!(frames < 250, "{frames} frames");
        // A check announces nothing, and so cannot tell.
        let check = Run::start(vipherald(&owner, &format!("check {vip}")));
        let told = check.end().exits(3).stdout;
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["something on the way out drops", "vipherald announce"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(!told.contains("--fix"), "{told}");
    }
}

/// Entries for hosts that do not exist, as old as the kernel makes them.
fn fill_table(host: &Host, count: u32) {
    let lines = (0..count).map(|at| {
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 9, 128, 0)) + at);
        let [.., c, d] = ip.octets();
        format!("neigh add {ip} lladdr 02:00:00:01:{c:02x}:{d:02x} dev eth0 nud stale\n")
    });
    host.ip(&lines.collect::<String>());
}

#[test]
fn old_entries_cost_little_and_delay_nobody() {
    let lab = Lab::new();
    let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 5));
    owner.run("ip addr add 10.9.0.250/16 dev eth0");
    give(&owner, VIP, "eth0");
    meet(&owner, &peers);
    // The kernel's limit (1,024 by default) holds for the hosts of all tests together.
    fill_table(&owner, 250);
    let capture = owner.capture();
    let (ended, told) = announce(&owner, VIP, "");
    assert_eq!(ended.status, 0, "{ended:#?}");
    let asked = vip_in(&told, VIP)["peers"].as_array().unwrap();
    for peer in &peers {
        assert_eq!(verdict_in(&told, VIP, peer.ipv4()), "proven");
    }
    assert!(asked.iter().all(|one| one["verdict"] == "proven"
        || one["verdict"] == "silent"
        || one["verdict"] == "unasked"));
    // Ten seconds of rounds, and no longer.
    assert!(
        told["duration_ms"].as_u64().unwrap() < 15_000,
        "{}",
        told["duration_ms"]
    );
    let mut questions: Vec<_> = capture.frames();
    questions.retain(|frame| is_sent(frame) && frame.destination().0[..4] == [2, 0, 0, 1]);
    let to = |mac: Mac| {
        questions
            .iter()
            .filter(|one| one.destination() == mac)
            .count()
    };
    assert!(questions.iter().all(|one| to(one.destination()) <= 3));
    let times: Vec<_> = questions.iter().map(|one| one.time).collect();
    assert!(most_a_second(&times) <= 200, "{}", most_a_second(&times));
    assert!(
        questions.len() > 500,
        "the rest is asked, too: {}",
        questions.len()
    );

    // A check that runs out of time is no worse for them.
    let ended = Run::start(vipherald(&owner, &format!("check --json {VIP}")))
        .end()
        .exits(0);
    assert_eq!(ended.report()["result"], json!("ok"));
    for peer in &peers {
        assert_eq!(verdict_in(&ended.report(), VIP, peer.ipv4()), "proven");
    }
}

/// The most of these times, in their order, within any second.
fn most_a_second(times: &[SystemTime]) -> usize {
    let within = |from: &SystemTime| {
        times
            .iter()
            .filter(|at| *at >= from && since(*from, **at) < Duration::from_secs(1))
            .count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

/// When a host sent ARP frames.
fn arp_times(frames: &[Frame]) -> Vec<SystemTime> {
    let sent = frames
        .iter()
        .filter(|frame| is_sent(frame) && frame.ether_type() == ARP);
    sent.map(|frame| frame.time).collect()
}

#[test]
fn rounds_keep_their_times_beside_questions_to_old_entries() {
    let lab = Lab::new();
    let owner = lab.host("owner");
    let _other = lab.host("other");
    let vips: Vec<_> = (100..110).map(|last| format!("10.9.0.{last}")).collect();
    common::give_all(&owner, &vips);
    owner.run("ip addr add 10.9.0.250/16 dev eth0");
    fill_table(&owner, 100);
    let capture = owner.capture();
    let arguments = format!("announce {} --timeout 11", vips.join(" "));
    Run::start(vipherald(&owner, &arguments)).end().exits(0);
    let mut rounds = capture.frames();
    let first: Ipv4Addr = VIP.parse().unwrap();
    rounds.retain(|frame| {
        let arp = Arp::read(frame).filter(|arp| arp.operation == 1 && is_sent(frame));
        arp.is_some_and(|arp| arp.sender.1 == first && arp.target.1 == first)
    });
    let at: Vec<_> = rounds
        .iter()
        .map(|frame| since(rounds[0].time, frame.time).as_millis())
        .collect();
    // The times are the promise. A busy machine may delay a frame, but none is early.
    for (due, at) in [0, 50, 200, 600, 2000, 4000, 7000, 10_000]
        .into_iter()
        .zip(&at)
    {
        assert!(*at >= due && *at < due + 250, "due {due}: {at}");
    }
    assert_eq!(at.len(), 8);
}

#[test]
fn without_anybody_to_ask_a_second_has_at_most_nine_arp_frames() {
    // The other host has no IPv6, with which it would be heard at once.
    let lab = Lab::silent();
    let owner = lab.host("owner");
    let other = lab.host("other");
    for host in [&owner, &other] {
        host.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    }
    give(&owner, VIP, "eth0");
    for heard in [false, true] {
        let capture = owner.capture();
        let run = Run::start(vipherald(&owner, &format!("announce {VIP} --timeout 6")));
        if heard {
            eventually("a first frame", SOON, || {
                (!capture.frames().is_empty()).then_some(())
            });
            other.try_run("arping -c 1 -w 1 -I eth0 10.9.0.222");
        }
        run.end().exits(if heard { 0 } else { 3 });
        let times = arp_times(&capture.frames());
        assert!((15..=60).contains(&times.len()), "{}", times.len());
        assert!(most_a_second(&times) <= 9, "{}", most_a_second(&times));
    }
}

#[test]
fn runs_side_by_side_share_the_arp_budget_of_the_link() {
    let lab = Lab::new();
    let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 12));
    let vips: Vec<_> = (100..104).map(|last| format!("10.9.0.{last}")).collect();
    common::give_all(&owner, &vips);
    for peer in &peers {
        owner.remember(peer.ipv4(), peer.mac());
        for vip in &vips {
            peer.remember(vip, OLD_MAC);
        }
    }
    let capture = owner.capture();
    let arguments = |vip: &String| format!("announce --json {vip} --arp-rate 15 --timeout 6");
    let runs: Vec<_> = vips
        .iter()
        .map(|vip| Run::start(vipherald(&owner, &arguments(vip))))
        .collect();
    for run in runs {
        run.end().exits(0);
    }
    // Without what the kernel itself asks and answers.
    let mut frames = capture.frames();
    frames.retain(|frame| {
        let is_vip = |ip: Ipv4Addr| vips.contains(&ip.to_string());
        let ours = |arp: Arp| {
            let asks = arp.operation == 1 && (is_vip(arp.sender.1) || is_vip(arp.target.1));
            asks || arp.sender.1 == arp.target.1
        };
        Arp::read(frame).is_some_and(ours)
    });
    let times = arp_times(&frames);
    assert!(most_a_second(&times) <= 15, "{}", most_a_second(&times));
    assert!(times.len() > 40, "{}", times.len());
    for (peer, vip) in peers
        .iter()
        .flat_map(|peer| vips.iter().map(move |vip| (peer, vip)))
    {
        assert_eq!(peer.cached(vip), Some(owner.mac()), "{} {vip}", peer.name());
    }
}

/// Sends a datagram to a VIP twenty times a second, until it is dropped.
fn talk(host: &Host, vip: &str) -> common::Talker {
    let script = format!("while :; do echo x > /dev/udp/{vip}/9; sleep 0.05; done");
    common::Talker(host.command("bash").args(["-c", &script]).spawn().unwrap())
}

#[test]
fn traffic_proves_hosts_that_answer_no_echo() {
    for (vip, setting, value) in [
        (VIP, "net/ipv4/icmp_echo_ignore_all", "1"),
        (VIP6, "net/ipv6/icmp/echo_ignore_all", "1"),
    ] {
        let lab = Lab::new();
        let (owner, right, wrong) = (lab.host("owner"), lab.host("right"), lab.host("wrong"));
        give(&owner, vip, "eth0");
        meet(&owner, [&right, &wrong]);
        for peer in [&right, &wrong] {
            peer.sysctl(setting, value);
            peer.remember(vip, OLD_MAC);
        }
        wrong.remember_as(vip, OLD_MAC, State::Permanent);
        let _talk = [talk(&right, vip), talk(&wrong, vip)];
        let (_, told) = announce(&owner, vip, "--timeout 5");
        let of = |peer: &Host| peer_in(&told, vip, common::address_beside(vip, peer)).clone();
        assert_eq!(of(&right)["verdict"], json!("proven"), "{told:#}");
        assert_eq!(of(&right)["proof"], json!("traffic"));
        assert_ne!(of(&wrong)["verdict"], json!("proven"), "{told:#}");
        assert_eq!(wrong.cached(vip), Some(old_mac()));
    }
}

/// Hosts with entries for the old owner, that the new one does not know and that ignore unsolicited
/// announcements.
fn unknown_hosts(lab: &Lab, count: usize) -> (Host, Vec<Host>) {
    let (owner, hosts) = (lab.host("owner"), lab.hosts("host", count));
    for host in &hosts {
        host.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
        host.sysctl("net/ipv6/conf/eth0/drop_unsolicited_na", "1");
    }
    for vip in [VIP, VIP6] {
        give(&owner, vip, "eth0");
        for host in &hosts {
            host.remember(vip, OLD_MAC);
        }
    }
    // The kernel obeys only gratuitous ARP within `locktime` of the last change.
    common::watch_for(Duration::from_millis(1100));
    (owner, hosts)
}

fn assert_follow(hosts: &[Host], owner: &Host, vip: &str) {
    for host in hosts {
        assert_eq!(host.cached(vip), Some(owner.mac()), "{} {vip}", host.name());
    }
}

#[test]
fn hosts_that_nobody_knows_and_that_ignore_announcements_follow() {
    let lab = Lab::new();
    let (owner, hosts) = unknown_hosts(&lab, 6);
    let (_, told) = announce(&owner, VIP, "--timeout 2");
    assert_follow(&hosts, &owner, VIP);
    assert_eq!(vip_in(&told, VIP)["peers"], json!([]));
    let (ended, told) = announce(&owner, VIP6, "--timeout 1");
    assert_follow(&hosts, &owner, VIP6);
    let told = vip_in(&told, VIP6);
    assert_eq!(ended.status, 0, "{told:#}");
    assert_eq!(told["reach"]["path"], json!("alive"));
    let peers = told["peers"].as_array().unwrap();
    let found = peers.iter().filter(|peer| peer["source"] == "census");
    assert_eq!(
        found.filter(|peer| peer["verdict"] == "proven").count(),
        hosts.len(),
        "{told:#}"
    );
}

#[test]
fn a_census_names_the_hosts_whose_entries_are_wrong() {
    let lab = Lab::new();
    let (owner, hosts) = unknown_hosts(&lab, 5);
    for host in &hosts[..2] {
        host.remember_as(VIP6, OLD_MAC, State::Permanent);
    }
    let (ended, told) = announce(&owner, VIP6, "--timeout 2");
    assert_eq!(ended.status, 3);
    let peers = vip_in(&told, VIP6)["peers"].as_array().unwrap();
    let mut stale: Vec<_> = peers
        .iter()
        .filter(|peer| peer["verdict"] == "stale")
        .collect();
    stale.sort_by_key(|peer| peer["address"].to_string());
    let macs: Vec<_> = stale.iter().map(|peer| peer["mac"].clone()).collect();
    let wrong: Vec<_> = hosts[..2]
        .iter()
        .map(|host| json!(host.mac().to_string()))
        .collect();
    assert_eq!(macs, wrong, "{told:#}");
    // A check finds the same; without a census, neither knows them.
    let check = Run::start(vipherald(&owner, &format!("check --json {VIP6}")))
        .end()
        .exits(3);
    assert_eq!(
        check.stdout.matches(r#""verdict":"stale""#).count(),
        3,
        "{check:#?}"
    );
    owner.run("ip neigh flush dev eth0");
    let settings = lab.directory().join("no-census.toml");
    std::fs::write(&settings, "census = false\n").unwrap();
    let (_, told) = announce(
        &owner,
        VIP6,
        &format!("--timeout 1 --config {}", settings.display()),
    );
    assert_eq!(vip_in(&told, VIP6)["peers"], json!([]));
}

#[test]
fn when_a_dead_port_opens_everyone_follows() {
    let lab = Lab::new();
    let (owner, hosts) = unknown_hosts(&lab, 4);
    lab.blackout(&owner);
    let run = Run::start(vipherald(&owner, &format!("announce --json {VIP} {VIP6}")));
    // Longer than the rounds.
    common::watch_for(Duration::from_secs(12));
    for host in &hosts {
        assert_eq!(host.cached(VIP), Some(old_mac()));
    }
    lab.restore(&owner);
    for vip in [VIP, VIP6] {
        eventually("everyone follows", SOON, || {
            hosts
                .iter()
                .all(|host| host.cached(vip) == Some(owner.mac()))
                .then_some(())
        });
    }
    let ended = run.end().exits(0);
    assert_eq!(
        vip_in(&ended.report(), VIP)["reach"]["path"],
        json!("alive")
    );
}

#[test]
fn a_path_on_which_nobody_is_ever_heard_is_unproven() {
    let lab = Lab::silent();
    let owner = lab.host("owner");
    give(&owner, VIP, "eth0");
    let (ended, told) = announce(&owner, VIP, "--timeout 3");
    assert_eq!((ended.status, &told["result"]), (3, &json!("unproven")));
    let reach = &vip_in(&told, VIP)["reach"];
    assert_eq!(
        (&reach["path"], &reach["asked"]),
        (&json!("silent"), &json!(0))
    );
    assert!(reach["broadcasts"].as_u64().unwrap() > 10);
    ended.logs("eth0: no frame of any other host came in");

    let other = lab.host("other");
    let run = Run::start(vipherald(&owner, &format!("announce {VIP} --timeout 3")));
    other.try_run("arping -c 3 -w 3 -I eth0 10.9.0.222");
    run.end()
        .exits(0)
        .logs("by broadcast alone, as nobody was known to be asked");
}

#[test]
fn a_sweep_asks_every_address_of_a_small_subnet() {
    let lab = Lab::new();
    let (owner, hosts) = (lab.host("owner"), lab.hosts("host", 3));
    give(&owner, VIP, "eth0");
    for host in &hosts {
        host.remember_as(VIP, OLD_MAC, State::Permanent);
    }
    let (ended, told) = announce(&owner, VIP, "--confirm subnet --timeout 8");
    assert_eq!(ended.status, 3, "{told:#}");
    let peers = vip_in(&told, VIP)["peers"].as_array().unwrap();
    assert_eq!(peers.len(), hosts.len(), "only who exists: {told:#}");
    for host in &hosts {
        let peer = peer_in(&told, VIP, host.ipv4());
        assert_eq!(
            (&peer["source"], &peer["verdict"]),
            (&json!("subnet"), &json!("stale"))
        );
    }
    owner.run("ip addr add 10.9.0.251/21 dev eth0");
    let ended = Run::start(vipherald(
        &owner,
        &format!("announce {VIP} --confirm subnet"),
    ))
    .end()
    .exits(2);
    ended.logs("10.9.0.0/21").logs("at most 1024");
}

/// Puts a switch between a host and the others that suppresses ARP and ND on its port, as an EVPN edge
/// does.
fn suppress(host: &Host, switch: &Host) {
    cable(host, switch);
    let (v4, v6) = (host.ipv4(), host.ipv6());
    host.run("ip link set eth0 down");
    host.run(&format!("ip addr add {v4}/24 dev v0"));
    host.run(&format!("ip addr add {v6}/64 dev v0 nodad"));
    switch.ip("addr flush dev eth0\n\
         link add br1 type bridge stp_state 0 mcast_snooping 0\n\
         link set eth0 master br1\n\
         link set v1 master br1\n\
         link set br1 up\n");
    switch.run("bridge link set dev eth0 neigh_suppress on");
    switch.run("bridge link set dev v1 neigh_suppress on");
}

#[test]
fn a_check_behind_arp_suppression_finds_owners() {
    let lab = Lab::new();
    let (switch, client, a, b) = (
        lab.host("switch"),
        lab.host("client"),
        lab.host("a"),
        lab.host("b"),
    );
    suppress(&client, &switch);
    give(&a, VIP, "eth0");
    let check = |status| {
        let ended = Run::start(vipherald(&client, &format!("check --json {VIP}")))
            .end()
            .exits(status);
        ended.report()["result"].clone()
    };
    eventually("the way is open", SOON, || {
        let ping = client.try_run(&format!("ping -c 1 -W 1 {}", a.ipv4()));
        ping.status.success().then_some(())
    });
    assert_eq!(check(0), json!("ok"));
    give(&b, VIP, "eth0");
    assert_eq!(check(4), json!("conflict"));
    for host in [&a, &b] {
        common::take(host, VIP, "eth0");
    }
    assert_eq!(check(5), json!("unowned"));
}

#[test]
fn each_round_reports_the_listener_of_an_ipv6_vip() {
    let lab = Lab::new();
    let (owner, _other) = (lab.host("owner"), lab.host("other"));
    give(&owner, VIP6, "eth0");
    common::watch_for(Duration::from_secs(2));
    let capture = owner.capture();
    announce(&owner, VIP6, "--timeout 1.5");
    let mut reports = capture.frames();
    // ICMPv6 type 143 behind a hop-by-hop header with the router alert.
    reports.retain(|frame| {
        is_sent(frame)
            && frame.destination() == Mac([0x33, 0x33, 0, 0, 0, 0x16])
            && frame.payload()[48] == 143
    });
    assert!(reports.len() >= 4, "{reports:?}");
}
