//! The old owner of a VIP names the hosts that still send to it, and tells the new owner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use vipherald_lab::{Host, Lab, State, eventually};

use common::{Run, SOON, VIP, VIP6, give, signal, take, vipherald};
use events::{file, instance, with};
use helpers::{Orders, wait_until_it_listens};

/// Who sends once does so again after this time at the latest.
const NEXT_PACKET: Duration = Duration::from_millis(200);

/// Starts a command whose log goes to a file.
fn logging(lab: &Lab, name: &str, mut command: Command) -> (Run, PathBuf) {
    let log = lab.directory().join(name);
    command.stderr(File::create(&log).unwrap());
    command.stdout(File::create(log.with_extension("out")).unwrap());
    (Run::start(command), log)
}

/// The clients that keep the old owner's MAC: two ignore ARP and ND, the entry of one is PERMANENT.
fn make_deaf(clients: &[Host], old: &Host) {
    for client in &clients[..2] {
        client.nft(
            "add table netdev deaf\n\
             add chain netdev deaf in { type filter hook ingress device eth0 priority 0; }\n\
             add rule netdev deaf in ether type arp drop\n\
             add rule netdev deaf in icmpv6 type { 135, 136 } drop\n",
        );
    }
    for vip in [VIP, VIP6] {
        clients[2].remember_as(vip, old.mac(), State::Permanent);
    }
}

/// Lets each client send to the VIPs, again and again.
fn send_always(clients: &[Host], vips: &[&str]) -> Vec<Run> {
    let ping = |client: &Host, vip: &str| {
        let mut command = client.command("ping");
        let every = NEXT_PACKET.as_secs_f64().to_string();
        command.args(["-q", "-i", &every, vip]);
        command.stdout(std::process::Stdio::null());
        Run::start(command)
    };
    let each = clients.iter();
    each.flat_map(|client| vips.iter().map(move |vip| ping(client, vip)))
        .collect()
}

/// The addresses with which a host may be named.
fn addresses(hosts: &[Host]) -> BTreeSet<String> {
    let each = hosts.iter();
    each.flat_map(|host| [host.ipv4().to_string(), host.ipv6().to_string()])
        .collect()
}

/// Who is named in a log, with how many lines.
fn named(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.contains(" still sends to "));
    let words = lines.map(|line| {
        let (before, _) = line.split_once(" (").unwrap();
        before.rsplit(' ').next().unwrap().to_owned()
    });
    words.collect()
}

/// Moves the VIPs from `a` to `b`, lets `leave` do what follows on `a`, and asserts that just the deaf
/// clients are named on both, each once.
fn assert_named(lab: &Lab, count: usize, old_by_hook: bool) {
    let (a, b) = (lab.host("a"), lab.host("b"));
    let clients = lab.hosts("c", count);
    let orders = Orders::new(lab, &a);
    let vips = [VIP, VIP6];
    vips.iter().for_each(|vip| give(&a, vip, "eth0"));
    make_deaf(&clients, &a);
    for client in &clients {
        vips.iter().for_each(|vip| client.remember(vip, a.mac()));
    }
    for vip in vips {
        clients[2].remember_as(vip, a.mac(), State::Permanent);
    }
    let peer = |host: &Host| {
        format!(
            "peers = [\"{}\", \"{}\"]\ntimeout = 3",
            host.ipv4(),
            host.ipv6()
        )
    };
    let at_a = orders.settings(lab, "a.toml", &peer(&b), "");
    let at_b = orders.settings(lab, "b.toml", "timeout = 3", "");
    let (listening, listens) = logging(
        lab,
        "listen.log",
        vipherald(
            &b,
            &format!("--config {} listen --bind [::]:11120", at_b.display()),
        ),
    );
    wait_until_it_listens(&b, &listening);
    let watch = |host: &Host, settings: &Path| {
        vipherald(
            host,
            &format!("--json --config {} watch {VIP} {VIP6}", settings.display()),
        )
    };
    let (at_new, new) = logging(lab, "new.log", watch(&b, &at_b));
    at_new.wait_until_it_waits();
    let resident = (!old_by_hook).then(|| logging(lab, "old.log", watch(&a, &at_a)));
    if let Some((resident, _)) = &resident {
        resident.wait_until_it_waits();
    }
    let sending = send_always(&clients, &vips);
    for vip in vips {
        take(&a, vip, "eth0");
        give(&b, vip, "eth0");
    }
    let excluded = format!("virtual_ipaddress_excluded {{\n  {VIP6}/64\n }}");
    let conf = instance("VI_1", 51, 100, &[&format!("{VIP}/24")], &excluded);
    let conf = file(lab, "keepalived.conf", &conf);
    let (old, log) = resident.unwrap_or_else(|| {
        let arguments = format!(
            "--config {} notify --straggler-watch 60 INSTANCE VI_1 BACKUP 100",
            at_a.display()
        );
        logging(lab, "old.log", vipherald(&a, &with(&conf, &arguments)))
    });
    let expected = addresses(&clients[..3]);
    let both = [&log, &listens];
    let deadline = Instant::now() + SOON;
    let are_named = || both.map(|log| BTreeSet::from_iter(named(log)) == expected);
    while are_named() != [true; 2] {
        let all = both.map(|log| named(log));
        assert!(Instant::now() < deadline, "{all:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The new owner asks them, and says where it knows them from.
    eventually("the new owner reports them", SOON, || {
        let printed = fs::read_to_string(new.with_extension("out")).unwrap();
        let reports: Vec<Value> = printed
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let peers = reports.iter().flat_map(|report| {
            let vips = report["vips"].as_array().into_iter().flatten();
            vips.flat_map(|vip| vip["peers"].as_array().into_iter().flatten())
        });
        let reported: Vec<_> = peers.filter(|peer| peer["source"] == "reported").collect();
        let all: BTreeSet<_> = reported
            .iter()
            .map(|peer| peer["address"].as_str().unwrap().to_owned())
            .collect();
        let proven = reported.iter().any(|peer| peer["verdict"] == "proven");
        (all == expected && !proven).then_some(())
    });
    // Each once, and nobody else.
    for log in [&log, &listens] {
        let mut all = named(log);
        all.sort();
        assert_eq!(all, Vec::from_iter(expected.clone()), "{}", log.display());
    }
    for run in sending {
        signal(run.pid(), Signal::SIGKILL);
    }
    old.goes_on();
}

#[test]
fn a_hook_names_who_still_sends_to_the_old_owner_and_the_new_one_asks_them() {
    assert_named(&Lab::new(), 30, true);
}
