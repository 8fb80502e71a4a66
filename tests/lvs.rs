//! Hosts that have the VIP where nobody can ask for it: LVS real servers, with the VIP on `lo`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use vipherald_lab::{Host, Lab};

use common::{
    Ended, OLD_MAC, Run, VIP, VIP6, address_beside, assert_followed, give, in_shell, meet,
    remember_old, run, second_interface, take, verdict_in, vipherald, wait_for_announcement,
    wait_until_followed,
};
use events::{file, instance, with};

/// Long enough for the first rounds, and for verdicts.
const SHORT: &str = "--timeout 4";

/// As LVS wants it: the VIPs on `lo`, which no ARP answers for.
fn make_real_server(host: &Host) {
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        host.sysctl(&format!("net/ipv4/conf/all/{name}"), value);
    }
    give(host, VIP, "lo");
    give(host, VIP6, "lo");
}

fn conf(lab: &Lab) -> PathBuf {
    let vips = format!("virtual_ipaddress_excluded {{\n {VIP6}\n }}");
    file(
        lab,
        "keepalived.conf",
        &instance("VI_1", 51, 100, &[VIP], &vips),
    )
}

#[test]
fn a_director_that_is_a_real_server_too_announces_on_the_link_alone() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    let conf = conf(&lab);
    let vips = [VIP, VIP6];
    make_real_server(&a);
    second_interface(&a);
    // Where neighbours are not asked for, as on a dummy or tunnel interface, or on one that is down.
    a.run("ip link set v0 arp off");
    a.run("ip link set v1 down");
    for vip in vips {
        give(&a, vip, "eth0");
        give(&a, vip, "v0");
    }
    give(&a, VIP, "v1");
    let notify = with(&conf, "notify INSTANCE VI_1 MASTER 100");
    for arguments in [notify, format!("announce {VIP} {VIP6} {SHORT}")] {
        remember_old(&peers, &vips);
        let announcing = Run::start(vipherald(&a, &arguments));
        wait_until_followed(&peers, &vips, a.mac());
        let ended = announcing.end().exits(0);
        ended.logs("announced on eth0");
        ended.logs_no(" lo");
    }
}

#[test]
fn a_vip_on_lo_alone_is_absent_until_its_interface_has_it() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    let conf = conf(&lab);
    make_real_server(&a);
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 MASTER 100")).exits(5);
    let told = format!(
        "warning: VI_1: {VIP}, {VIP6} not on eth0, only on lo, which is a loopback interface: nothing \
         announced\n"
    );
    assert_eq!(ended.stderr, told);
    let ended = run(&a, &format!("announce {VIP} --wait 0.1")).exits(5);
    ended.logs("only on lo, which is a loopback interface");
    let capture = a.capture();
    remember_old(&peers, &[VIP]);
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} --wait 30")));
    announcing.wait_until_it_waits();
    give(&a, VIP, "eth0");
    wait_for_announcement(&capture, VIP, 1);
    wait_until_followed(&peers, &[VIP], a.mac());
    announcing.goes_on();
}

#[test]
fn for_an_instance_only_its_own_interface_counts() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    let conf = conf(&lab);
    second_interface(&a);
    give(&a, VIP, "v0");
    let capture = a.capture_on("v0");
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 MASTER 100")).exits(5);
    ended.logs(format!("{VIP} not on eth0, only on v0"));
    assert!(common::taken(&capture).is_empty());
    // To its entry on eth0, that somebody has it on v0 is no contradiction either.
    a.remember(VIP, OLD_MAC);
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 BACKUP 100"));
    assert_eq!((ended.status, a.cached(VIP)), (0, None), "{ended:?}");
    remember_old(&peers, &[VIP]);
    give(&a, VIP, "eth0");
    let announcing = Run::start(vipherald(
        &a,
        &with(&conf, "notify INSTANCE VI_1 MASTER 100"),
    ));
    wait_until_followed(&peers, &[VIP], a.mac());
    announcing.goes_on();
    assert!(common::taken(&capture).is_empty());
}

#[test]
fn a_real_server_purges_though_the_vip_is_on_lo() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = conf(&lab);
    make_real_server(&a);
    for arguments in [
        with(&conf, "notify INSTANCE VI_1 BACKUP 100"),
        with(&conf, "purge --instance VI_1"),
        format!("purge {VIP} {VIP6}"),
    ] {
        a.remember(VIP, OLD_MAC);
        a.remember(VIP6, OLD_MAC);
        let ended = run(&a, &arguments).exits(0);
        assert_eq!([a.cached(VIP), a.cached(VIP6)], [None, None], "{ended:?}");
    }
    // On the link it is held, of course.
    give(&a, VIP, "eth0");
    let ended = run(&a, &format!("purge {VIP}")).exits(5);
    ended.logs("held here, on eth0");
}

#[test]
fn release_takes_a_vip_only_from_where_keepalived_puts_it() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = conf(&lab);
    make_real_server(&a);
    second_interface(&a);
    for interface in ["eth0", "v0"] {
        give(&a, VIP, interface);
        give(&a, VIP6, interface);
    }
    let on = |interface: &str| {
        let addresses = a.run(&format!("ip addr show dev {interface}"));
        [VIP, VIP6].map(|vip| addresses.contains(&format!("{vip}/")))
    };
    let ended = run(&a, &with(&conf, "release --all --json")).exits(0);
    assert_eq!(ended.report()["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(
        (on("eth0"), on("lo"), on("v0")),
        ([false; 2], [true; 2], [true; 2])
    );
    let ended = run(&a, &with(&conf, &format!("release {VIP}"))).exits(0);
    ended.logs("nothing to release");
    assert_eq!((on("lo"), on("v0")), ([true; 2], [true; 2]));
}

#[test]
fn real_servers_are_holders_and_no_stale_peers() {
    let lab = Lab::new();
    let (director, client) = (lab.host("director"), lab.host("client"));
    let (known, named) = (lab.host("known"), lab.host("named"));
    for server in [&known, &named] {
        make_real_server(server);
    }
    meet(&director, [&known, &named, &client]);
    let vips = [VIP, VIP6];
    for vip in vips {
        give(&director, vip, "eth0");
    }
    let peers = format!("-p {} -p {}", named.ipv4(), named.ipv6());
    let arguments = format!("--json announce {VIP} {VIP6} {peers}");
    let ended = run(&director, &arguments).exits(0);
    // At the timeout, after 60 s, the verdicts would be the same.
    assert!(ended.lasted < Duration::from_secs(30), "{ended:#?}");
    let found = ended.report();
    for vip in vips {
        let of = [&known, &named, &client].map(|host| address_beside(vip, host));
        let verdicts = of.map(|peer| verdict_in(&found, vip, peer));
        assert_eq!(verdicts, ["holder", "holder", "proven"], "{found:#}");
        let told = ended.stderr.lines().filter(|line| {
            line.starts_with(&format!("{vip} on eth0: {} ", of[1])) && line.contains("VIP itself")
        });
        assert_eq!(told.count(), 1, "{ended:?}");
    }
    ended.logs_no("stale:");
    let ended = run(&director, &format!("--json check {VIP} {VIP6}")).exits(0);
    let found = ended.report();
    for vip in vips {
        let verdict = verdict_in(&found, vip, address_beside(vip, &known));
        assert_eq!(verdict, "holder", "{found:#}");
    }
}

#[test]
fn a_real_server_that_keepalived_conf_names_is_an_expected_holder() {
    let lab = Lab::new();
    let (director, server) = (lab.host("director"), lab.host("server"));
    make_real_server(&server);
    meet(&director, [&server]);
    give(&director, VIP, "eth0");
    let vip = instance("VI_1", 51, 100, &[VIP], "");
    let servers = format!(
        "virtual_server {VIP} 80 {{\n lb_algo rr\n lb_kind DR\n protocol TCP\n real_server {} 80 {{\n \
         weight 1\n }}\n}}\n",
        server.ipv4()
    );
    let conf = file(&lab, "conf", &(vip + &servers));
    for (verbose, told) in [("", false), ("-v", true)] {
        let arguments = format!("{verbose} announce --instance VI_1 {SHORT}");
        let ended = run(&director, &with(&conf, &arguments)).exits(0);
        ended.logs("1 holding it too");
        let tells = ended.stderr.contains("has the VIP itself");
        assert_eq!(tells, told, "{ended:#?}");
    }
}

#[test]
fn a_second_owner_that_answers_is_a_conflict_and_a_silent_one_a_holder() {
    let lab = Lab::new();
    let (a, loud, quiet) = (lab.host("a"), lab.host("loud"), lab.host("quiet"));
    quiet.sysctl("net/ipv4/conf/all/arp_ignore", "8");
    for host in [&a, &loud, &quiet] {
        give(host, VIP, "eth0");
    }
    meet(&a, [&loud, &quiet]);
    let ended = run(&a, &format!("--json announce {VIP} {SHORT}")).exits(4);
    let found = ended.report();
    let conflicts = &found["vips"][0]["conflicts"];
    assert_eq!(conflicts.as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(conflicts[0]["mac"], loud.mac().to_string(), "{found:#}");
    assert_eq!(verdict_in(&found, VIP, quiet.ipv4()), "holder", "{found:#}");
}

/// `vipherald` with soft and hard limits on open descriptors.
fn limited(host: &Host, soft: u32, hard: u32, arguments: &str) -> Command {
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    in_shell(host, &script, &vipherald(host, arguments))
}

#[test]
fn with_few_descriptors_the_limit_is_raised_or_some_vips_are_announced() {
    const INTERFACES: usize = 60;
    let lab = Lab::new();
    let a = lab.host("a");
    let lines = |n: usize| {
        format!(
            "link add v{n} type veth peer name w{n}\nlink set v{n} addrgenmode none\n\
             link set w{n} addrgenmode none\nlink set w{n} up\nlink set v{n} up\n\
             addr add {VIP}/32 dev v{n}\n"
        )
    };
    a.ip(&(0..INTERFACES).map(lines).collect::<String>());
    for n in 0..INTERFACES {
        a.talk_on(&format!("w{n}"));
    }
    thread::sleep(Duration::from_millis(200));
    let announced = |ended: &Ended| {
        let found = ended.report();
        let vips = found["vips"].as_array().unwrap().clone();
        assert_eq!(vips.len(), INTERFACES, "{found:#}");
        vips.iter()
            .filter(|vip| vip["frames_sent"].as_u64() > Some(0))
            .count()
    };
    let arguments = format!("--json announce {VIP} --timeout 3");
    let ended = Run::start(limited(&a, 40, 4096, &arguments)).end();
    assert_eq!(
        (ended.status, announced(&ended)),
        (0, INTERFACES),
        "{ended:?}"
    );
    let ended = Run::start(limited(&a, 40, 40, &arguments)).end().exits(1);
    let some = announced(&ended);
    assert!((20..40).contains(&some), "{some}: {ended:?}");
    ended.logs("no descriptor is left");
    take(&a, VIP, "v0");
}

#[test]
fn an_address_on_another_card_of_this_host_is_no_peer() {
    let lab = Lab::new();
    let (a, client) = (lab.host("a"), lab.host("client"));
    second_interface(&a);
    a.run("ip addr add 10.9.0.201/24 dev v0");
    a.remember("10.9.0.201", "02:00:00:00:02:01");
    meet(&a, [&client]);
    give(&a, VIP, "eth0");
    let ended = run(&a, &format!("--json announce {VIP} {SHORT} -p 10.9.0.201")).exits(0);
    let found = ended.report();
    let peers = found["vips"][0]["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1, "{found:#}");
    assert_followed(&[client], &[VIP], a.mac());
}
