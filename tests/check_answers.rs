//! What a check says of hosts that answer for a VIP: one with two cards, a proxy, one that answers
//! only direct questions; and of an owner that does not answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use vipherald_lab::{Host, Lab, eventually};

use common::arp::Arp;
use common::{
    Ended, Over, SOON, VIP, VIP6, address_beside, give, run, second_card, second_interface, take,
};

/// Checks one VIP and the exit status; gives the VIP's part of the report.
fn check(host: &Host, arguments: &str, status: i32) -> Value {
    let ended = run(host, &format!("check --json {arguments}")).exits(status);
    ended.report()["vips"][0].clone()
}

fn contains(told: &Value, words: &[&str]) {
    let text = told.to_string();
    for word in words {
        assert!(text.contains(word), "{word}: {told:#}");
    }
}

/// What was printed, without line breaks.
fn words(ended: &Ended) -> String {
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    words.join(" ")
}

/// Waits until a check has this exit status: an IPv6 VIP is answered for a moment after it was added.
fn wait_for_status(host: &Host, arguments: &str, status: i32) {
    eventually(&format!("{status} of check {arguments}"), SOON, || {
        (run(host, &format!("check {arguments}")).status == status).then_some(())
    });
}

#[test]
fn two_cards_of_one_host_are_no_conflict() {
    let lab = Lab::new();
    let (a, switch, c) = (lab.host("a"), lab.host("switch"), lab.host("c"));
    let other = second_card(&a, &switch).to_string();
    give(&a, VIP, "eth0");
    for cached in [None, Some(a.mac().to_string()), Some(other.clone())] {
        if let Some(mac) = &cached {
            c.remember(VIP, mac);
        }
        let told = check(&c, VIP, 0);
        assert_eq!(told["owners"].as_array().unwrap().len(), 2, "{told:#}");
        contains(&told, &["one host", "arp_ignore=1", &other]);
        let held = c.cached(VIP);
        assert_eq!(held.map(|mac| mac.to_string()), cached, "only looked");
    }
    c.remember(VIP, a.mac());
    let told = check(&a, VIP, 0);
    contains(&told, &["v0 of this host answers", "arp_ignore=1", &other]);

    // After the cure, neither mentions it.
    a.sysctl("net/ipv4/conf/all/arp_ignore", "1");
    for host in [&a, &c] {
        c.remember(VIP, a.mac());
        let told = check(host, VIP, 0);
        assert_eq!(told["notes"], json!([]));
        assert_eq!(told["owners"], json!([a.mac().to_string()]));
    }
    // An IPv6 VIP by mistake on both: each answers for itself, as two hosts would.
    give(&a, VIP6, "eth0");
    give(&a, VIP6, "v0");
    eventually("both answer", SOON, || {
        let told = run(&c, &format!("check --json {VIP6}")).stdout;
        let both = told.contains(&other) && told.contains(&a.mac().to_string());
        both.then_some(())
    });
    let words = words(&run(&c, &format!("check {VIP6}")));
    assert!(words.contains("two interfaces: take it off one"), "{words}");
}

#[test]
fn two_hosts_are_a_conflict_and_the_advice_can_be_pasted() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    for vip in [VIP, VIP6] {
        give(&a, vip, "eth0");
        give(&b, vip, "eth0");
        wait_for_status(&c, vip, 4);
        for host in [&a, &c] {
            let words = words(&run(host, &format!("check {vip}")).exits(4));
            for part in ["two hosts hold it", &format!("`vipherald release {vip}`")] {
                assert!(words.contains(part), "{part}: {words}");
            }
            assert!(!words.contains('…'), "{words}");
            let of_a_peer = words.contains("Should the MACs be of one host");
            assert_eq!(of_a_peer, host.name() == "c", "{words}");
        }
        let told = check(&c, vip, 4);
        assert_eq!((&told["proxies"], &told["notes"]), (&json!([]), &json!([])));
    }
}

#[test]
fn a_cached_mac_that_answers_a_direct_question_is_right() {
    let lab = Lab::new();
    let (a, switch, c) = (lab.host("a"), lab.host("switch"), lab.host("c"));
    let other = second_card(&a, &switch).to_string();
    // As the second card of a bond in mode balance-alb: it takes what is sent to it, and answers no
    // broadcast.
    a.nft(
        "add table netdev lab\n\
         add chain netdev lab in { type filter hook ingress device v0 priority 0; }\n\
         add rule netdev lab in ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop\n",
    );
    give(&a, VIP6, "v0");
    for vip in [VIP, VIP6] {
        give(&a, vip, "eth0");
        wait_for_status(&switch, &format!("{vip} -i br1"), 0);
        c.remember(vip, &other);
        let told = check(&c, vip, 0);
        assert_eq!(told["owners"], json!([a.mac().to_string()]), "{told:#}");
        assert_eq!(told["cached"]["mac"], json!(other));
        contains(&told, &["asked itself", &other]);
        let held = c.cached(vip).unwrap();
        assert_eq!(held.to_string(), other, "only looked");
        let told = check(&c, &format!("--fix {vip}"), 0);
        assert_eq!(told["action"], json!(null), "nothing is to be mended");
        // The MAC of nobody, or of a host without the VIP, is as wrong as ever.
        for wrong in [common::OLD_MAC.to_owned(), switch.mac().to_string()] {
            c.remember(vip, &wrong);
            assert_eq!(check(&c, vip, 3)["verdict"], json!("stale"), "{wrong}");
        }
    }
    // The answer comes by another card than the one that was asked: only who has the VIP echoes.
    a.nft(
        "add table arp out\n\
         add chain arp out o { type filter hook output priority 0; }\n\
         add rule arp out o oifname v0 arp operation reply drop\n",
    );
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&ends);
        scope.spawn(|| answer_for(&a, "v0", &ends, |target| target == VIP));
        c.remember(VIP, &other);
        let told = check(&c, VIP, 0);
        contains(&told, &["asked itself", &other]);
        a.sysctl("net/ipv4/icmp_echo_ignore_all", "1");
        c.remember(VIP, &other);
        assert_eq!(check(&c, VIP, 3)["verdict"], json!("stale"));
    });
}

/// Answers the ARP requests that come in on an interface, for some addresses, from `eth0` and with
/// its MAC.
fn answer_for(host: &Host, interface: &str, ends: &AtomicBool, has: impl Fn(&str) -> bool) {
    let capture = host.capture_on(interface);
    let mut socket = File::from(host.packet_socket());
    while !ends.load(Ordering::Relaxed) {
        for frame in capture.frames() {
            let asked =
                Arp::read(&frame).filter(|arp| arp.operation == 1 && frame.source() != host.mac());
            let Some(Arp { sender, target, .. }) = asked else {
                continue;
            };
            if has(&target.1.to_string()) {
                let reply = Arp {
                    operation: 2,
                    sender: (host.mac(), target.1),
                    target: sender,
                };
                let frame = reply.frame(host.mac(), sender.0);
                socket.write_all(&frame).unwrap();
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_proxy_is_told_from_a_second_owner() {
    let lab = Lab::new();
    let (a, router, c) = (lab.host("a"), lab.host("router"), lab.host("c"));
    let proxy = router.mac().to_string();
    give(&a, VIP, "eth0");
    // A proxy that answers probes, too.
    let ends = AtomicBool::new(false);
    let hosts: HashSet<String> = [&a, &router, &c].map(|host| host.ipv4().to_string()).into();
    thread::scope(|scope| {
        let _over = Over(&ends);
        scope.spawn(|| answer_for(&router, "eth0", &ends, |target| !hosts.contains(target)));
        for host in [&c, &a] {
            wait_for_status(host, VIP, 4);
            let told = check(host, VIP, 4);
            assert_eq!(told["proxies"], json!([proxy]), "{told:#}");
            let words = words(&run(host, &format!("check {VIP}")));
            for part in ["a proxy (proxy ARP", "proxy_arp=0"] {
                assert!(words.contains(part), "{part}: {words}");
            }
            for part in ["two hosts hold it", "vipherald release"] {
                assert!(!words.contains(part), "{part}: {words}");
            }
        }
    });
    // Linux's own answers no probes, but all other requests.
    second_interface(&router);
    router.sysctl("net/ipv4/conf/all/forwarding", "1");
    router.sysctl("net/ipv4/conf/eth0/proxy_arp", "1");
    router.run("ip addr add 192.0.2.1/24 dev v0");
    router.run("ip route add 10.9.0.64/26 via 192.0.2.2 dev v0");
    c.remember(VIP, &proxy);
    let told = check(&c, VIP, 3);
    assert_eq!(
        (&told["verdict"], &told["proxies"]),
        (&json!("stale"), &json!([proxy]))
    );
    assert!(run(&c, &format!("check {VIP}")).stdout.contains("a proxy"));
}

#[test]
fn who_answers_as_a_proxy_for_the_vip_alone_may_be_one_and_the_words_say_so() {
    let lab = Lab::new();
    let (a, proxy) = (lab.host("a"), lab.host("proxy"));
    second_interface(&proxy);
    proxy.run("ip addr add 192.0.2.1/24 dev v0");
    proxy.sysctl("net/ipv4/conf/all/forwarding", "1");
    proxy.sysctl("net/ipv6/conf/all/forwarding", "1");
    proxy.sysctl("net/ipv6/conf/eth0/proxy_ndp", "1");
    proxy.run("ip route add 10.9.0.64/26 via 192.0.2.2 dev v0");
    for (vip, show) in [(VIP, "`ip neigh"), (VIP6, "`ip -6 neigh")] {
        proxy.run(&format!("ip neigh add proxy {vip} dev eth0"));
        give(&a, vip, "eth0");
        wait_for_status(&a, vip, 4);
        let words = words(&run(&a, &format!("check {vip}")).exits(4));
        let advice = format!(
            "If such a host does not have the VIP, a proxy entry answers for it: {show} show proxy` \
             there shows it."
        );
        for part in ["two hosts hold it, it seems", &advice] {
            assert!(words.contains(part), "{part}: {words}");
        }
        let told = run(&a, &format!("announce {vip} --timeout 3")).exits(4);
        told.logs(format!("see whether it is a proxy ({show} show proxy`)"));
    }
}

/// On the owner, the check is unproven and says why.
fn is_silent(owner: &Host, vip: &str, words: &[&str]) {
    let told = check(owner, vip, 3);
    assert_eq!(told["verdict"], json!("unproven"), "{words:?}: {told:#}");
    contains(&told, words);
}

#[test]
fn a_check_names_the_setting_that_keeps_the_owner_from_answering() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let cannot_be_found = |vip: &str| {
        let found = b.try_run(&format!("arping -c 1 -w 1 -I eth0 {vip}"));
        assert!(!found.status.success(), "{found:?}");
    };
    give(&a, VIP, "eth0");
    for (setting, interface) in [("all", "all"), ("eth0", "eth0")] {
        a.sysctl(&format!("net/ipv4/conf/{setting}/arp_ignore"), "8");
        cannot_be_found(VIP);
        let cure = format!("`sysctl -w net.ipv4.conf.{interface}.arp_ignore=1`");
        is_silent(&a, VIP, &["arp_ignore is 8", &cure]);
        a.sysctl(&format!("net/ipv4/conf/{setting}/arp_ignore"), "0");
        assert_eq!(check(&a, VIP, 0)["verdict"], json!("ok"));
    }
    // 2: only who shares a subnet with an address of the interface is answered.
    a.sysctl("net/ipv4/conf/all/arp_ignore", "2");
    assert_eq!(check(&a, VIP, 0)["verdict"], json!("ok"));
    give(&a, "192.0.2.10", "eth0");
    is_silent(&a, "192.0.2.10", &["arp_ignore is 2"]);
    // 1 or 2, and the VIP is on another interface than its subnet.
    take(&a, VIP, "eth0");
    second_interface(&a);
    give(&a, VIP, "v0");
    for value in ["1", "2"] {
        a.sysctl("net/ipv4/conf/all/arp_ignore", value);
        cannot_be_found(VIP);
        let is = format!("arp_ignore is {value}");
        is_silent(&a, VIP, &[&is, "put the VIP on eth0", "v0"]);
    }
    a.sysctl("net/ipv4/conf/all/arp_ignore", "0");
    assert_eq!(check(&a, VIP, 0)["verdict"], json!("ok"));

    // The route to its subnet leaves elsewhere, and the kernel minds.
    a.run("ip addr add 10.9.0.201/24 dev v0");
    for setting in ["arp_filter", "rp_filter"] {
        a.sysctl(&format!("net/ipv4/conf/v0/{setting}"), "1");
        let cure = format!("`sysctl -w net.ipv4.conf.v0.{setting}=0`");
        is_silent(&a, VIP, &[setting, "leaves by eth0", &cure]);
        a.sysctl(&format!("net/ipv4/conf/v0/{setting}"), "0");
    }
}

#[test]
fn a_vmac_as_keepalived_makes_it_is_not_called_silent() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.vmac("vrrp.51", "00:00:5e:00:01:33");
    give(&a, VIP, "vrrp.51");
    a.remember(b.ipv4(), b.mac());
    let told = check(&a, VIP, 0);
    assert_eq!(
        (&told["verdict"], &told["notes"]),
        (&json!("ok"), &json!([]))
    );
}

#[test]
fn a_check_names_the_firewall_that_keeps_the_owner_from_answering() {
    let filters = [
        // All that comes in, or goes out.
        (VIP, "arp", "input", "drop"),
        (VIP, "arp", "output", "drop"),
        (
            VIP6,
            "ip6",
            "input",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop",
        ),
        (
            VIP6,
            "ip6",
            "output",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop",
        ),
        // Only what is about the VIP.
        (VIP, "arp", "input", "arp daddr ip 10.9.0.100 drop"),
        (VIP, "arp", "output", "arp saddr ip 10.9.0.100 drop"),
        (VIP, "arp", "output", "arp operation reply drop"),
        (VIP6, "ip6", "input", "icmpv6 type nd-neighbor-solicit drop"),
        (VIP6, "ip6", "output", "icmpv6 type nd-neighbor-advert drop"),
    ];
    thread::scope(|scope| {
        for (vip, family, hook, rule) in filters {
            scope.spawn(move || a_check_names_the_firewall(vip, family, hook, rule));
        }
    });
}

fn a_check_names_the_firewall(vip: &str, family: &str, hook: &str, rule: &str) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peer = |host: &Host| address_beside(vip, host);
    give(&a, vip, "eth0");
    a.remember(peer(&b), b.mac());
    b.remember(peer(&a), a.mac());
    wait_for_status(&a, vip, 0);
    b.try_run(&format!("ip neigh del {vip} dev eth0"));
    a.nft(&format!(
        "add table {family} f\n\
         add chain {family} f c {{ type filter hook {hook} priority 0; }}\n\
         add rule {family} f c {rule}\n"
    ));
    is_silent(&a, vip, &["nft list ruleset"]);
    // A peer with an entry does not ask; a filter that drops everything shows all the same.
    if rule == "drop" || rule.contains('{') {
        a.remember(peer(&b), b.mac());
        b.remember(vip, a.mac());
        is_silent(&a, vip, &["a filter of this host drops"]);
        assert_eq!(a.cached(peer(&b)), Some(b.mac()));
    }
}
