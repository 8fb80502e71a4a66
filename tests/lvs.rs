//! Hosts that have the VIP where nobody can ask for it: LVS real servers, with the VIP on `lo`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vipherald_lab::{Host, Lab};

use common::{
    Ended, OLD_MAC, Run, SOON, VIP, VIP6, VIPHERALD, assert_followed, give, remember_old, run,
    second_interface, take, vipherald, wait_for_announcement, wait_until_followed,
};
use events::{file, instance, mac_of, with};

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

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Makes the host's table know another one.
fn meet(host: &Host, other: &Host) {
    host.remember(other.ipv4(), other.mac());
    host.remember(other.ipv6(), other.mac());
}

fn verdict<'a>(report: &'a Value, vip: &str, peer: &str) -> &'a Value {
    let of = |list: &'a Value, name: &str| {
        let found = list.as_array().unwrap().iter();
        let mut found = found.filter(|one| one["address"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no {name}: {report:#}"))
    };
    &of(&of(&report["vips"], vip)["peers"], peer)["verdict"]
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
        wait_until_followed(&peers, &vips, a.mac(), SOON);
        let ended = announcing.end();
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.stderr.contains("announced on eth0"), "{ended:?}");
        assert!(!ended.stderr.contains(" lo"), "{ended:?}");
    }
}

#[test]
fn a_vip_that_is_only_where_nobody_asks_is_absent_until_it_comes_to_its_interface() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    let conf = conf(&lab);
    make_real_server(&a);
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 MASTER 100"));
    assert_eq!(ended.status, 5, "{ended:?}");
    let told = format!(
        "warning: VI_1: {VIP}, {VIP6} not on eth0, only on lo, which is a loopback interface: nothing \
         announced\n"
    );
    assert_eq!(ended.stderr, told);
    let ended = run(&a, &format!("announce {VIP} --wait 0.1"));
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("only on lo, which is a loopback interface"),
        "{ended:?}"
    );
    let capture = a.capture();
    remember_old(&peers, &[VIP]);
    let announcing = Run::start(vipherald(&a, &format!("announce {VIP} --wait 30")));
    announcing.wait_until_it_waits();
    give(&a, VIP, "eth0");
    wait_for_announcement(&capture, VIP, 1);
    wait_until_followed(&peers, &[VIP], a.mac(), SOON);
    assert_eq!(announcing.terminate().0.status, 143);
}

#[test]
fn for_an_instance_its_own_interface_counts() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 1));
    let conf = conf(&lab);
    second_interface(&a);
    give(&a, VIP, "v0");
    let capture = a.capture_on("v0");
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 MASTER 100"));
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains(&format!("{VIP} not on eth0, only on v0")),
        "{ended:?}"
    );
    assert!(common::taken(&capture).is_empty());
    // To its entry on eth0, that somebody has it on v0 is no contradiction either.
    a.remember(VIP, OLD_MAC);
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 BACKUP 100"));
    assert_eq!((ended.status, mac_of(&a, VIP)), (0, None), "{ended:?}");
    remember_old(&peers, &[VIP]);
    give(&a, VIP, "eth0");
    let announcing = Run::start(vipherald(
        &a,
        &with(&conf, "notify INSTANCE VI_1 MASTER 100"),
    ));
    wait_until_followed(&peers, &[VIP], a.mac(), SOON);
    assert_eq!(announcing.terminate().0.status, 143);
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
        let ended = run(&a, &arguments);
        assert_eq!(ended.status, 0, "{ended:?}");
        assert_eq!(
            [mac_of(&a, VIP), mac_of(&a, VIP6)],
            [None, None],
            "{ended:?}"
        );
    }
    // On the link it is held, of course.
    give(&a, VIP, "eth0");
    let ended = run(&a, &format!("purge {VIP}"));
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(ended.stderr.contains("held here, on eth0"), "{ended:?}");
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
    let ended = run(&a, &with(&conf, "release --all --json"));
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(report(&ended)["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(
        (on("eth0"), on("lo"), on("v0")),
        ([false; 2], [true; 2], [true; 2])
    );
    let ended = run(&a, &with(&conf, &format!("release {VIP}")));
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stderr.contains("nothing to release"), "{ended:?}");
    assert_eq!((on("lo"), on("v0")), ([true; 2], [true; 2]));
}

#[test]
fn real_servers_are_holders_and_no_stale_peers() {
    let lab = Lab::new();
    let (director, client) = (lab.host("director"), lab.host("client"));
    let (known, named) = (lab.host("known"), lab.host("named"));
    for server in [&known, &named] {
        make_real_server(server);
        meet(&director, server);
    }
    meet(&director, &client);
    let vips = [VIP, VIP6];
    for vip in vips {
        give(&director, vip, "eth0");
    }
    let peers = format!("-p {} -p {}", named.ipv4(), named.ipv6());
    let arguments = format!("--json announce {VIP} {VIP6} {peers}");
    let ended = run(&director, &arguments);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        ended.lasted < Duration::from_secs(30),
        "it does not last for them: {ended:?}"
    );
    let found = report(&ended);
    for (vip, of) in [
        (
            VIP,
            [&known, &named, &client].map(|host| host.ipv4().to_string()),
        ),
        (
            VIP6,
            [&known, &named, &client].map(|host| host.ipv6().to_string()),
        ),
    ] {
        let verdicts = of.clone().map(|peer| verdict(&found, vip, &peer).clone());
        assert_eq!(verdicts, ["holder", "holder", "proven"], "{found:#}");
        let told = ended.stderr.lines().filter(|line| {
            line.starts_with(&format!("{vip} on eth0: {} ", of[1])) && line.contains("VIP itself")
        });
        assert_eq!(told.count(), 1, "{ended:?}");
    }
    assert!(!ended.stderr.contains("stale:"), "{ended:?}");
    let ended = run(&director, &format!("--json check {VIP} {VIP6}"));
    assert_eq!(ended.status, 0, "{ended:?}");
    let found = report(&ended);
    assert_eq!(
        verdict(&found, VIP, &known.ipv4().to_string()),
        "holder",
        "{found:#}"
    );
    assert_eq!(
        verdict(&found, VIP6, &known.ipv6().to_string()),
        "holder",
        "{found:#}"
    );
}

#[test]
fn a_real_server_that_keepalived_conf_names_is_an_expected_holder() {
    let lab = Lab::new();
    let (director, server) = (lab.host("director"), lab.host("server"));
    make_real_server(&server);
    meet(&director, &server);
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
        let ended = run(&director, &with(&conf, &arguments));
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.stderr.contains("1 holding it too"), "{ended:?}");
        assert_eq!(
            ended.stderr.contains("has the VIP itself"),
            told,
            "{ended:?}"
        );
    }
}

#[test]
fn who_has_the_vip_and_answers_for_it_is_a_conflict_and_who_is_silent_a_holder() {
    let lab = Lab::new();
    let (a, loud, quiet) = (lab.host("a"), lab.host("loud"), lab.host("quiet"));
    quiet.sysctl("net/ipv4/conf/all/arp_ignore", "8");
    for host in [&a, &loud, &quiet] {
        give(host, VIP, "eth0");
    }
    meet(&a, &loud);
    meet(&a, &quiet);
    let ended = run(&a, &format!("--json announce {VIP} {SHORT}"));
    assert_eq!(ended.status, 4, "{ended:?}");
    let found = report(&ended);
    let conflicts = &found["vips"][0]["conflicts"];
    assert_eq!(conflicts.as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(conflicts[0]["mac"], loud.mac().to_string(), "{found:#}");
    assert_eq!(
        verdict(&found, VIP, &quiet.ipv4().to_string()),
        "holder",
        "{found:#}"
    );
}

/// `vipherald` where at most so many descriptors may be open, softly and at all.
fn limited(host: &Host, soft: u32, hard: u32, arguments: &str) -> Command {
    let mut command = host.command("sh");
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    command
        .args(["-c", &script, "sh"])
        .arg(Path::new(VIPHERALD))
        .args(["--log", "stderr", "--json"])
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn where_descriptors_are_few_the_limit_is_raised_or_as_many_are_announced_as_can_be() {
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
    common::ip_batch(&a, &(0..INTERFACES).map(lines).collect::<String>());
    thread::sleep(Duration::from_millis(200));
    let announced = |ended: &Ended| {
        let found = report(ended);
        let vips = found["vips"].as_array().unwrap().clone();
        assert_eq!(vips.len(), INTERFACES, "{found:#}");
        vips.iter()
            .filter(|vip| vip["frames_sent"].as_u64() > Some(0))
            .count()
    };
    let arguments = format!("announce {VIP} --timeout 3");
    let ended = Run::start(limited(&a, 40, 4096, &arguments)).end();
    assert_eq!(
        (ended.status, announced(&ended)),
        (0, INTERFACES),
        "{ended:?}"
    );
    let ended = Run::start(limited(&a, 40, 40, &arguments)).end();
    assert_eq!(ended.status, 1, "{ended:?}");
    let some = announced(&ended);
    assert!((20..40).contains(&some), "{some}: {ended:?}");
    assert!(ended.stderr.contains("no descriptor is left"), "{ended:?}");
    take(&a, VIP, "v0");
}

#[test]
fn an_address_on_another_card_of_this_host_is_no_peer() {
    let lab = Lab::new();
    let (a, client) = (lab.host("a"), lab.host("client"));
    second_interface(&a);
    a.run("ip addr add 10.9.0.201/24 dev v0");
    a.remember("10.9.0.201", "02:00:00:00:02:01");
    meet(&a, &client);
    give(&a, VIP, "eth0");
    let ended = run(&a, &format!("--json announce {VIP} {SHORT} -p 10.9.0.201"));
    assert_eq!(ended.status, 0, "{ended:?}");
    let found = report(&ended);
    let peers = found["vips"][0]["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1, "{found:#}");
    assert_followed(&[client], &[VIP], a.mac());
}
