//! Checking: what a check says from any host and from the owner, beside what is so; what it mends,
//! and that it changes nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;

use serde_json::{Value, json};
use vipherald_lab::{Capture, Direction, Host, Lab, Mac, State, eventually};

use common::arp::ARP;
use common::tls::{TlsServer, tls_to_vip};
use common::{
    OLD_MAC, Run, SOON, VIP, VIP6, address_beside, by_address, cable, old_mac, run,
    second_interface, take, taken, vipherald, without_privilege,
};
use events::{file, instance, with};

const VIPS: [&str; 2] = [VIP, VIP6];

/// The VIP on a host's interface, once it answers for it: the kernel joins an IPv6 address's
/// solicited-node group a while after `ip` is done, on a busy machine a long while.
fn give(host: &Host, vip: &str, interface: &str) {
    common::give(host, vip, interface);
    if vip == VIP6 {
        eventually("the group is joined", SOON, || {
            let groups = host.run(&format!("ip -6 maddr show dev {interface}"));
            groups.contains("ff02::1:ff00:100").then_some(())
        });
    }
}

/// Checks one VIP and the exit status; gives the VIP's part of the report.
fn check(host: &Host, arguments: &str, status: i32) -> Value {
    let ended = run(host, &format!("check --json {arguments}")).exits(status);
    let report = ended.report();
    assert_eq!(report["vips"].as_array().unwrap().len(), 1, "{report}");
    report["vips"][0].clone()
}

fn verdict(told: &Value) -> &str {
    told["verdict"].as_str().unwrap()
}

fn assert_none_announced(capture: &Capture, vip: &str) {
    let mut announced = taken(capture);
    announced.retain(|one| one.vip.to_string() == vip);
    assert_eq!(announced, []);
}

/// The VIPs' entries on a host: all but the state, which answering changes.
fn entries(host: &Host) -> BTreeSet<(IpAddr, Option<Mac>, u32)> {
    let vips = VIPS.map(|vip| vip.parse::<IpAddr>().unwrap());
    let entries = host.neighbours().into_iter();
    entries
        .filter(|entry| vips.contains(&entry.ip))
        .map(|entry| (entry.ip, entry.mac, entry.interface))
        .collect()
}

/// No host's entries for the VIPs have changed.
fn assert_same(before: &[BTreeSet<(IpAddr, Option<Mac>, u32)>], hosts: &[&Host]) {
    for (before, host) in before.iter().zip(hosts) {
        assert_eq!(*before, entries(host), "{}", host.name());
    }
}

#[test]
fn the_tls_handshake_that_hangs_is_explained_and_mended() {
    let lab = Lab::new();
    let (dead, new, node3) = (lab.host("dead"), lab.host("new"), lab.host("node3"));
    for node in [&dead, &new] {
        give(node, VIP, "eth0");
        node3.run(&format!("ping -c 1 -W 5 {}", node.ipv4()));
    }
    let frozen = TlsServer::start(&lab, &dead);
    frozen.freeze();
    let _server = TlsServer::start(&lab, &new);
    node3.remember(VIP, dead.mac());
    node3.run(&format!("ping -c 1 -W 5 {VIP}"));
    assert_eq!(tls_to_vip(&node3), None, "it hangs");

    let ended = run(&node3, &format!("check {VIP}")).exits(4);
    for node in [&dead, &new] {
        let named = format!("{} ({})", node.mac(), node.ipv4());
        ended.prints(&named);
    }
    // With two owners, a new answer would be a matter of luck.
    let told = check(&node3, &format!("--fix {VIP}"), 4);
    assert_eq!(told["action"], json!(null));
    assert_eq!(node3.cached(VIP), Some(dead.mac()));

    take(&dead, VIP, "eth0");
    let told = check(&node3, &format!("--fix {VIP}"), 0);
    assert_eq!(
        (&told["before"], &told["action"]),
        (&json!("stale"), &json!("deleted"))
    );
    assert_eq!(node3.cached(VIP), Some(new.mac()));
    assert_eq!(tls_to_vip(&node3).as_deref(), Some("new"), "it is mended");

    // Another wrong MAC, and only one owner.
    node3.remember(VIP, dead.mac());
    assert_eq!(tls_to_vip(&node3), None);
    let told = check(&node3, VIP, 3);
    assert_eq!(verdict(&told), "stale");
    assert_eq!(told["cached"]["mac"], json!(dead.mac().to_string()));
    assert_eq!(node3.cached(VIP), Some(dead.mac()), "only looked");
    assert_eq!(verdict(&check(&node3, &format!("--fix {VIP}"), 0)), "ok");
    assert_eq!(tls_to_vip(&node3).as_deref(), Some("new"));
    let again = check(&node3, &format!("--fix {VIP}"), 0);
    assert_eq!(
        again["action"],
        json!(null),
        "there is nothing left to mend"
    );
}

#[test]
fn from_any_host_each_verdict_is_true_and_nothing_changes() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    let hosts = [&a, &b, &c];
    for vip in VIPS {
        let before = hosts.map(entries);
        let told = check(&c, vip, 5);
        assert_eq!((verdict(&told), &told["cached"]), ("unowned", &json!(null)));
        assert_same(&before, &hosts);

        give(&a, vip, "eth0");
        let told = check(&c, vip, 0);
        let (ipv4, mac) = (a.ipv4().to_string(), a.mac().to_string());
        assert_eq!(told["owners"], json!([mac]));
        assert_eq!(
            (&told["held_here"], &told["interface"]),
            (&json!(false), &json!("eth0"))
        );
        assert!(c.neighbour(vip).is_none(), "no entry is made");
        for state in [State::Reachable, State::Stale, State::Permanent] {
            c.remember_as(vip, a.mac(), state);
            let before = hosts.map(entries);
            assert_eq!(verdict(&check(&c, vip, 0)), "ok");
            assert_same(&before, &hosts);
        }
        for state in [State::Reachable, State::Stale, State::Permanent] {
            c.remember_as(vip, OLD_MAC, state);
            let told = check(&c, vip, 3);
            assert_eq!(
                (verdict(&told), &told["cached"]["mac"]),
                ("stale", &json!(OLD_MAC))
            );
            let held = c.neighbour(vip).unwrap();
            // IPv6 has no locktime: there the answer to the question mends, unless PERMANENT.
            let keeps = vip == VIP || state == State::Permanent;
            let expected = if keeps { old_mac() } else { a.mac() };
            assert_eq!(held.mac, Some(expected), "{state} {vip}");
        }

        give(&b, vip, "eth0");
        for host in [&a, &b] {
            c.remember(host.ipv4(), host.mac());
        }
        for entry in [a.mac(), b.mac()] {
            c.remember(vip, entry);
            let before = hosts.map(entries);
            let told = check(&c, vip, 4);
            assert_eq!(told["owners"], json!([mac, b.mac().to_string()]));
            assert_eq!(told["hosts"][&mac], json!(ipv4));
            assert_eq!(told["peers"], json!([]));
            assert_same(&before, &hosts);
        }
        c.run(&format!("ip neigh del {vip} dev eth0"));
    }
}

#[test]
fn from_the_owner_each_verdict_is_true_and_no_announcement_leaves() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    for vip in VIPS {
        let peer = |host: &Host| address_beside(vip, host);
        give(&a, vip, "eth0");
        let capture = b.capture();
        assert_eq!(verdict(&check(&a, vip, 0)), "ok", "nobody is known");
        for host in [&b, &c] {
            a.remember(peer(host), host.mac());
            host.remember(peer(&a), a.mac());
            host.remember(vip, a.mac());
        }
        let of = |told: &Value, host: &Host| {
            let one = by_address(&told["peers"], &peer(host).to_string());
            one["verdict"].as_str().unwrap().to_owned()
        };
        let told = check(&a, vip, 0);
        assert_eq!(
            (of(&told, &b), of(&told, &c)),
            ("proven".into(), "proven".into())
        );
        assert_eq!(
            (&told["held_here"], &told["owners"]),
            (&json!(true), &json!([a.mac().to_string()]))
        );

        // Unlike an announcement, the check does not mend the peer that it asks.
        b.remember_as(vip, OLD_MAC, State::Reachable);
        let told = check(&a, vip, 3);
        assert_eq!((verdict(&told), of(&told, &b)), ("stale", "stale".into()));
        assert_eq!(b.cached(vip), Some(old_mac()));
        assert_eq!(of(&told, &c), "proven");
        b.remember(vip, a.mac());

        let ignore = match vip {
            VIP => "net/ipv4/icmp_echo_ignore_all",
            _ => "net/ipv6/icmp/echo_ignore_all",
        };
        b.sysctl(ignore, "1");
        let told = check(&a, vip, 0);
        assert_eq!(
            (verdict(&told), of(&told, &b)),
            ("ok", "acknowledged".into())
        );
        b.sysctl(ignore, "0");

        assert_none_announced(&capture, vip);

        give(&c, vip, "eth0");
        let told = check(&a, vip, 4);
        assert_eq!(
            told["owners"],
            json!([a.mac().to_string(), c.mac().to_string()])
        );
        take(&c, vip, "eth0");

        // A peer that has to follow does not answer.
        lab.blackout(&b);
        let peers = format!("peers = [\"{}\"]\n", peer(&b));
        let config = file(&lab, "settings.toml", &peers);
        let told = check(&a, &format!("{vip} --config {}", config.display()), 3);
        assert_eq!(
            (verdict(&told), of(&told, &b)),
            ("unproven", "silent".into())
        );
        lab.restore(&b);
        a.run(&format!("ip neigh del {} dev eth0", peer(&b)));
        a.run(&format!("ip neigh del {} dev eth0", peer(&c)));
    }
}

#[test]
fn a_peer_whose_filter_does_not_know_the_vip_is_not_said_to_send_elsewhere() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    for host in [&b, &c] {
        a.remember(host.ipv4(), host.mac());
        host.remember(VIP, a.mac());
    }
    give(&a, VIP, "eth0");
    b.nft(&format!(
        "add table ip f\n\
         add chain ip f i {{ type filter hook input priority 0; }}\n\
         add rule ip f i icmp type echo-request ip saddr {VIP} drop\n"
    ));
    let peer = b.ipv4();
    for how in ["", "--nagios"] {
        let told = run(&a, &format!("check {how} {VIP}")).stdout;
        let words: Vec<_> = told.split_whitespace().collect();
        let told = words.join(" ");
        let known = format!(
            "{peer} answers this host's own address and not the VIP: it sends to another MAC, or a \
             filter there does not know the VIP"
        );
        assert!(told.contains(&known), "{told}");
        assert!(!told.contains("frames for it"), "{told}");
    }
}

#[test]
fn a_check_that_cannot_ask_says_why_and_what_to_do() {
    let lab = Lab::new();
    let a = lab.host("a");
    let router = lab.host("router");
    let fails = |arguments: &str, words: &[&str]| {
        let told = check(&a, arguments, 1);
        assert_eq!(verdict(&told), "failed");
        let why = told["reason"].as_str().unwrap();
        for word in words {
            assert!(why.contains(word), "{word}: {why}");
        }
    };
    fails("192.0.2.10", &["no route", "-i"]);
    let gateway = router.ipv4().to_string();
    a.run(&format!("ip route add 192.0.2.0/24 via {gateway}"));
    fails(
        "192.0.2.10",
        &["not on a link", &gateway, "eth0", "run this on"],
    );
    let gateway = router.ipv6().to_string();
    a.run(&format!("ip route add 2001:db8::/64 via {gateway}"));
    fails("2001:db8::10", &["not on a link", &gateway]);
    fails(&format!("{VIP} -i lo"), &["lo", "loopback"]);
    second_interface(&a);
    a.ip("link set v0 down\n");
    fails(
        &format!("{VIP} -i v0"),
        &["v0 is down", "ip link set v0 up"],
    );
    fails(&format!("{VIP} -i v1"), &["v1 has no carrier"]);
    let ended = run(&a, &format!("check {VIP} -i eth7")).exits(1);
    ended.logs("no interface eth7");

    let ended = Run::start(without_privilege(&lab, &a, &format!("check {VIP}")))
        .end()
        .exits(1);
    ended.logs("CAP_NET_RAW");

    // A VIP of this host, on an interface without neighbours.
    give(&a, "10.8.0.100", "v0");
    fails("10.8.0.100", &["v0 is down"]);
    give(&a, "10.8.0.101", "lo");
    fails("10.8.0.101", &["lo", "loopback"]);

    // The host has the VIP on another interface than the one that was named: it is its own.
    a.ip("link set v0 up\n");
    give(&a, VIP, "v0");
    let told = check(&a, &format!("{VIP} -i eth0"), 0);
    assert_eq!(
        (&told["held_here"], &told["interface"]),
        (&json!(true), &json!("v0"))
    );
}

#[test]
fn a_dry_run_asks_nobody() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&b, VIP, "eth0");
    let capture = b.capture();
    let ended = run(&a, &format!("check {VIP} --fix --dry-run"));
    assert_eq!(ended.stdout, format!("{VIP} would be asked for on eth0\n"));
    let ended = run(&b, &format!("check {VIP} --dry-run"));
    ended.prints("is here");
    let frames = capture.frames();
    assert!(!frames.iter().any(|f| f.ether_type() == ARP), "{frames:?}");
}

/// Tries of each case; `CHECK_TRIES=N` makes it N.
const TRIES: u32 = 3;

#[test]
fn under_loss_both_ways_no_verdict_is_wrong() {
    type Entry = Option<fn(Mac) -> Mac>;
    let (old, owners): (Entry, Entry) = (Some(|_| old_mac()), Some(|owner| owner));
    let tries = std::env::var("CHECK_TRIES").map_or(TRIES, |tries| tries.parse().unwrap());
    let proven: u32 = thread::scope(|scope| {
        let mut running = Vec::new();
        for vip in VIPS {
            for (entry, two, truth) in [
                (old, false, "stale"),
                (owners, false, "ok"),
                (owners, true, "conflict"),
                (None, false, "ok"),
            ] {
                running.push(scope.spawn(move || proven_under_loss(vip, entry, two, truth, tries)));
            }
        }
        running.into_iter().map(|one| one.join().unwrap()).sum()
    });
    println!(
        "{proven} of {} proved the truth, the others nothing",
        tries * 8
    );
    assert!(proven > tries * 4, "most prove it: {proven}");
}

/// How many of a number of checks prove the truth about an entry, with one owner or `two`; no other proves
/// anything.
fn proven_under_loss(
    vip: &str,
    entry: Option<fn(Mac) -> Mac>,
    two: bool,
    truth: &str,
    tries: u32,
) -> u32 {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    give(&a, vip, "eth0");
    if two {
        give(&b, vip, "eth0");
    }
    for direction in [Direction::ToHost, Direction::FromHost] {
        lab.loss([&c], direction, 50.0);
    }
    let mut proven = 0;
    for try_ in 0..tries {
        match entry {
            Some(mac) => c.remember(vip, mac(a.mac())),
            None => drop(c.try_run(&format!("ip neigh del {vip} dev eth0"))),
        }
        let report = run(&c, &format!("check --json {vip}")).report();
        let told = report["result"].as_str().unwrap();
        let true_or_none = told == truth || told == "unproven";
        assert!(true_or_none, "not {truth}, try {try_}: {report}");
        proven += u32::from(told == truth);
    }
    proven
}

#[test]
fn permanent_entries_are_mended_only_with_the_option() {
    let lab = Lab::new();
    let (a, c) = (lab.host("a"), lab.host("c"));
    for vip in VIPS {
        give(&a, vip, "eth0");
        c.remember_as(vip, OLD_MAC, State::Permanent);
        let ended = run(&c, &format!("check --fix {vip}")).exits(3);
        ended.prints("--permanent");
        assert_eq!(c.neighbour(vip).unwrap().state, State::Permanent);
        let told = check(&c, &format!("--fix --permanent {vip}"), 0);
        assert_eq!(told["action"], json!("deleted"));
        assert_eq!(c.cached(vip), Some(a.mac()));
    }
}

#[test]
fn fix_on_the_owner_announces() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    a.remember(b.ipv4(), b.mac());
    b.remember(VIP, OLD_MAC);
    let told = check(&a, &format!("--fix {VIP}"), 0);
    assert_eq!(
        (&told["before"], &told["action"]),
        (&json!("stale"), &json!("announced"))
    );
    assert_eq!(b.cached(VIP), Some(a.mac()));
}

#[test]
fn all_instances_are_checked_in_one_report() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let text = [
        instance("VI_1", 1, 100, &["10.9.0.100/24"], ""),
        instance("VI_2", 2, 100, &["10.9.0.101/24"], ""),
        instance("VI_6", 6, 100, &["fd09::100/64"], ""),
    ];
    let conf = file(&lab, "keepalived.conf", &text.concat());
    give(&a, "10.9.0.101", "eth0");
    give(&b, VIP, "eth0");
    let ended = run(&a, &with(&conf, "check --all --json")).exits(5);
    let told = ended.report();
    let found = told["vips"].as_array().unwrap().iter();
    let found: Vec<_> = found
        .map(|one| (one["address"].as_str().unwrap(), verdict(one)))
        .collect();
    assert_eq!(
        found,
        [
            ("10.9.0.100", "ok"),
            ("10.9.0.101", "ok"),
            ("fd09::100", "unowned")
        ]
    );
    let one = run(&a, &with(&conf, "check --instance VI_1 --json")).exits(0);
    assert_eq!(one.report()["instance"], "VI_1");
}

#[test]
fn monitors_and_jq_read_the_outputs() {
    let lab = Lab::new();
    let (a, c) = (lab.host("a"), lab.host("c"));
    let plugin = |status: i32, words: &[&str]| {
        // As a monitor does it: the first line and the status.
        let script = format!(
            "out=$({} check --nagios {VIP}); status=$?; echo \"$status $out\"",
            common::VIPHERALD
        );
        let output = c.command("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with(&format!("{status} VIPHERALD ")), "{text}");
        let (told, numbers) = text.split_once(" | ").unwrap();
        assert!(words.iter().all(|word| told.contains(word)), "{text}");
        for number in numbers.split_whitespace() {
            let (_, value) = number.split_once('=').unwrap();
            value.trim_end_matches('s').parse::<f64>().unwrap();
        }
    };
    plugin(2, &["CRITICAL", "unowned"]);
    give(&a, VIP, "eth0");
    plugin(0, &["OK", VIP]);
    c.remember(VIP, OLD_MAC);
    plugin(2, &["CRITICAL", "stale", OLD_MAC]);

    let script = format!(
        "{} check --json {VIP} | jq -r '.result, .vips[0].cached.mac, .vips[0].owners[0]'",
        common::VIPHERALD
    );
    let output = c.command("sh").args(["-c", &script]).output().unwrap();
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read, format!("stale\n{OLD_MAC}\n{}\n", a.mac()));

    lab.unplug(&c);
    plugin(3, &["UNKNOWN"]);
    let ended = run(&c, &format!("check --nagios {VIP} -i eth7")).exits(3);
    assert!(
        ended.stdout.starts_with("VIPHERALD UNKNOWN - "),
        "{ended:?}"
    );
}

#[test]
fn the_text_fits_eighty_columns_and_is_coloured_on_terminals_only() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    for host in [&a, &b] {
        for vip in VIPS {
            give(host, vip, "eth0");
        }
        c.remember(host.ipv6(), host.mac());
    }
    let ended = run(&c, &format!("check {VIP} {VIP6}"));
    assert_eq!((ended.status, ended.stderr.as_str()), (4, ""));
    for line in ended.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!ended.stdout.contains('\x1b'));
    let on_terminal = |before: &str| {
        let check = format!("{before} {} check {VIP}", common::VIPHERALD);
        let mut script = c.command("script");
        script.args(["--quiet", "--command", check.trim(), "/dev/null"]);
        let output = script.env_remove("NO_COLOR").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(on_terminal("").contains("\x1b[1;31mCONFLICT\x1b[0m"));
    let plain = on_terminal("NO_COLOR=1");
    assert!(
        plain.contains("CONFLICT") && !plain.contains('\x1b'),
        "{plain}"
    );
}

#[test]
fn a_check_yields_to_a_run_that_announces_and_does_not_end_it() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} --timeout 4 --json")));
    announcing.wait_until_it_waits();
    run(&a, &format!("check {VIP}")).exits(0);
    let ended = announcing.end().exits(0);
    assert_eq!(ended.report()["result"], "ok");
}

/// An instance of keepalived.conf with one VIP on an interface, as an option.
fn conf_of(lab: &Lab, name: &str, interface: &str, vip: &str) -> String {
    let text = instance(name, 51, 100, &[vip], "").replace("eth0", interface);
    with(&file(lab, &format!("{name}.conf"), &text), "")
}

#[test]
fn a_real_server_asks_its_link_and_says_that_lo_has_the_vip_too() {
    let lab = Lab::new();
    let (director, real) = (lab.host("director"), lab.host("real"));
    for host in [&director, &real] {
        host.sysctl("net/ipv4/conf/all/arp_ignore", "1");
        host.sysctl("net/ipv4/conf/all/arp_announce", "2");
    }
    let mac = json!([director.mac().to_string()]);
    for vip in VIPS {
        give(&director, vip, "eth0");
        common::give(&real, vip, "lo");
        common::give(&director, vip, "lo");
        let told = check(&director, vip, 0);
        assert_eq!((&told["owners"], &told["held_here"]), (&mac, &json!(true)));
        assert_eq!(
            (&told["interface"], &told["also_on"]),
            (&json!("eth0"), &json!(["lo"]))
        );
        director.remember(address_beside(vip, &real), real.mac());
        real.remember(director.ipv4(), director.mac());
        let ended = run(&director, &format!("check {vip}"));
        ended.prints("1 holder");
        let conf = conf_of(&lab, "VI_1", "eth0", vip);
        for arguments in [
            vip.to_owned(),
            format!("{vip} -i eth0"),
            format!("--instance VI_1 {conf}"),
        ] {
            let told = check(&real, &arguments, 0);
            assert_eq!((verdict(&told), &told["owners"]), ("ok", &mac));
            assert_eq!(
                (&told["held_here"], &told["interface"], &told["also_on"]),
                (&json!(false), &json!("eth0"), &json!(["lo"]))
            );
        }
        let ended = run(&real, &format!("check {vip}"));
        let also = "  also on            lo, which is a loopback interface\n";
        ended.prints(also);
        take(&director, vip, "eth0");
        assert_eq!(verdict(&check(&real, vip, 5)), "unowned");
    }
    // Where the subnet is on another interface than the one that is down.
    second_interface(&real);
    real.ip("link set v0 down\n");
    take(&real, VIP, "lo");
    give(&real, VIP, "v0");
    give(&director, VIP, "eth0");
    let told = check(&real, VIP, 0);
    assert_eq!(
        (&told["interface"], &told["also_on"]),
        (&json!("eth0"), &json!(["v0"]))
    );
    // The VIP is of another subnet, and a route names the link.
    for host in [&director, &real] {
        host.run("ip route add 192.0.2.0/24 dev eth0");
    }
    give(&director, "192.0.2.10", "eth0");
    give(&real, "192.0.2.10", "lo");
    let told = check(&real, "192.0.2.10", 0);
    assert_eq!(
        (&told["interface"], &told["also_on"]),
        (&json!("eth0"), &json!(["lo"]))
    );
}

#[test]
fn a_real_server_that_answers_for_the_vip_is_a_conflict() {
    let lab = Lab::new();
    let (director, real) = (lab.host("director"), lab.host("real"));
    give(&director, VIP, "eth0");
    give(&real, VIP, "lo");
    let told = check(&real, VIP, 4);
    let owners = [real.mac(), director.mac()].map(|mac| mac.to_string());
    assert_eq!(told["owners"], json!(owners));
    let note = told["notes"][0].as_str().unwrap();
    assert!(note.contains("net.ipv4.conf.all.arp_ignore=1"), "{note}");
    real.sysctl("net/ipv4/conf/all/arp_ignore", "1");
    assert_eq!(verdict(&check(&real, VIP, 0)), "ok");
}

#[test]
fn a_check_that_looked_at_nothing_is_no_success() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = conf_of(&lab, "VI_1", "eth0", "127.0.0.77/32");
    let ended = run(&a, &format!("check --all --nagios {conf}")).exits(3);
    assert!(
        ended.stdout.starts_with("VIPHERALD UNKNOWN - "),
        "{ended:?}"
    );
    let ended = run(&a, &format!("check --all --json {conf}")).exits(1);
    assert_eq!(ended.report()["result"], json!("failed"));
    for command in ["announce", "purge", "check", "order --peer 10.9.0.2"] {
        let ended = run(&a, &format!("{command} --instance VI_1 {conf}")).exits(1);
        ended.logs("vrrp_instance VI_1 in ");
        ended.logs("has no virtual IP");
    }
    // The VIP is only on lo, and nothing names the link where others have it.
    let conf = conf_of(&lab, "VI_1", "eth7", "192.0.2.77/32");
    give(&a, "192.0.2.77", "lo");
    let ended = run(&a, &format!("check --all --nagios {conf}")).exits(3);
    ended.prints("failed=1");
}

#[test]
fn the_same_link_local_address_on_two_links_is_two_vips() {
    const LINK_LOCAL: &str = "fe80::1:100";
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    cable(&a, &b);
    a.run("ip addr add fe80::a/64 dev v0 nodad");
    b.run("ip addr add fe80::b/64 dev v1 nodad");
    let v1 = b.interface_mac("v1").to_string();
    let conf = ["eth0", "v0"].map(|on| {
        let vip = format!("{LINK_LOCAL}/64 dev {on}");
        format!(
            "--instance VI_{on} {}",
            conf_of(&lab, &format!("VI_{on}"), on, &vip)
        )
    });
    let remember = |mac: &str| {
        a.run(&format!(
            "ip neigh replace {LINK_LOCAL} lladdr {mac} dev v0 nud reachable"
        ));
    };
    let on_v0 = || a.run(&format!("ip neigh show {LINK_LOCAL} dev v0"));

    // Nobody has it, and it could be on either of two links.
    let told = check(&a, LINK_LOCAL, 1);
    let why = told["reason"].as_str().unwrap();
    assert!(why.contains("eth0, v0") && why.contains("-i"), "{why}");

    common::give(&a, LINK_LOCAL, "eth0");
    common::give(&b, LINK_LOCAL, "v1");
    // The kernel joins the solicited-node group a while later.
    eventually("both answer", SOON, || {
        let on_eth0 = run(&c, &format!("check {LINK_LOCAL}")).status == 0;
        (on_eth0 && run(&a, &format!("check {LINK_LOCAL} -i v0")).status == 0).then_some(())
    });
    for arguments in [format!("{LINK_LOCAL} -i eth0"), conf[0].clone()] {
        let told = check(&a, &arguments, 0);
        assert_eq!(
            (&told["held_here"], &told["interface"]),
            (&json!(true), &json!("eth0"))
        );
        run(&a, &format!("purge {arguments}")).exits(5);
    }
    for arguments in [format!("{LINK_LOCAL} -i v0"), conf[1].clone()] {
        let told = check(&a, &arguments, 0);
        assert_eq!(
            (&told["held_here"], &told["interface"]),
            (&json!(false), &json!("v0"))
        );
        assert_eq!(told["owners"], json!([v1]));
        assert_eq!(told["also_on"], json!([]));

        // This mends the entry on that link, and does not announce the VIP of the other link.
        let capture = c.capture();
        remember(OLD_MAC);
        let told = check(&a, &format!("--fix {arguments}"), 0);
        assert_eq!(
            (&told["before"], &told["action"]),
            (&json!("stale"), &json!("deleted"))
        );
        assert!(on_v0().contains(&v1), "{}", on_v0());
        assert_none_announced(&capture, LINK_LOCAL);

        remember(OLD_MAC);
        let purged = run(&a, &format!("purge {arguments}"));
        assert_eq!((purged.status, on_v0().as_str()), (0, ""), "{purged:?}");
    }
    // Without an interface, purge keeps the VIP that is here, and purges the one on the other link.
    remember(OLD_MAC);
    let purged = run(&a, &format!("purge {LINK_LOCAL}"));
    assert_eq!((purged.status, on_v0().as_str()), (5, ""), "{purged:?}");
    assert!(purged.stdout.contains("eth0") || purged.stderr.contains("eth0"));
}

/// Makes a host drop what resolves one VIP.
fn drop_answers(host: &Host, vip: &str) {
    let rule = match vip {
        VIP => format!("arp f i arp saddr ip {vip} drop"),
        _ => "ip6 f i icmpv6 type nd-neighbor-advert drop".to_owned(),
    };
    let family = rule.split(' ').next().unwrap();
    host.nft(&format!(
        "add table {family} f\n\
         add chain {family} f i {{ type filter hook input priority 0; }}\n\
         add rule {rule}\n"
    ));
}

#[test]
fn an_entry_that_does_not_resolve_anew_is_not_mended() {
    let lab = Lab::new();
    let (a, c) = (lab.host("a"), lab.host("c"));
    for vip in VIPS {
        // The owner was away for a while; the kernel accepts its next answer.
        c.try_run(&format!("ping -c 1 -W 4 {vip}"));
        eventually("its entry has failed", SOON, || {
            let entry = c.neighbour(vip)?;
            (entry.state == State::Failed).then_some(())
        });
        give(&a, vip, "eth0");
        assert_eq!(verdict(&check(&c, vip, 0)), "ok");
        assert_eq!(c.cached(vip), Some(a.mac()));

        drop_answers(&c, vip);
        c.remember(vip, OLD_MAC);
        let told = check(&c, &format!("--fix {vip}"), 3);
        assert_eq!(
            (verdict(&told), &told["before"], &told["action"]),
            ("unproven", &json!("stale"), &json!("deleted"))
        );
        let why = told["reason"].as_str().unwrap();
        assert!(why.contains("nft list ruleset"), "{why}");
        // Nor is the check "ok" without --fix.
        assert_eq!(verdict(&check(&c, vip, 3)), "unproven");
        let ended = run(&c, &format!("check --fix {vip}")).exits(3);
        ended.prints("UNPROVEN");
        c.run("nft flush ruleset");
        assert_eq!(verdict(&check(&c, &format!("--fix {vip}"), 0)), "ok");
    }
}
