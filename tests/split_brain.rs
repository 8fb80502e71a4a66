//! Two masters at once, of the real keepalived, and how that ends: whoever stays master gets no
//! event when the other one yields, and yet everyone follows it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use vipherald_lab::{Host, Keepalived, Lab, eventually};

use common::{
    Run, SOON, VIP, VIP6, give, remember_old, run, take, vipherald, wait_for_announcement,
    wait_until_followed,
};
use events::hook;

/// A node whose hook is `notify`.
struct Node {
    host: Host,
    keepalived: Keepalived,
    log: PathBuf,
}

impl Node {
    fn start(lab: &Lab, host: &Host, priority: u8, vip: &str, lower: bool, settings: &str) -> Self {
        let name = host.name();
        let (conf, log) = (
            lab.directory().join(format!("{name}.conf")),
            lab.directory().join(format!("{name}.log")),
        );
        let toml = events::file(lab, &format!("{name}.toml"), settings);
        let notify = lab.write_hook(
            &format!("notify-{name}"),
            &format!(
                "exec {} --log stderr --config {} --keepalived-conf {} notify \"$@\" 2>> {}",
                hook(lab),
                toml.display(),
                conf.display(),
                log.display()
            ),
        );
        let notify = notify.display();
        let rx_lower = if lower {
            format!("notify_master_rx_lower_pri \"{notify} INSTANCE VI_1 MASTER_RX_LOWER_PRI\"")
        } else {
            String::new()
        };
        let family = if vip.contains(':') { "native_ipv6" } else { "" };
        // keepalived itself says as little as it can be made to.
        let instance = format!(
            "vrrp_instance VI_1 {{\n interface eth0\n state BACKUP\n version 3\n {family}\n \
             virtual_router_id 51\n priority {priority}\n advert_int 0.3\n garp_master_repeat 1\n \
             garp_master_delay 60\n garp_lower_prio_repeat 0\n garp_master_refresh 0\n \
             virtual_ipaddress {{\n {vip}\n }}\n notify \"{notify}\"\n {rx_lower}\n}}\n"
        );
        fs::write(&conf, &instance).unwrap();
        Self {
            host: host.clone(),
            keepalived: host.keepalived(&instance),
            log,
        }
    }

    /// Hears no VRRP, or does again.
    fn deafen(host: &Host, deaf: bool) {
        if deaf {
            for command in [
                "nft add table inet deaf",
                "nft add chain inet deaf in { type filter hook input priority 0; }",
                "nft add rule inet deaf in meta l4proto vrrp drop",
            ] {
                host.run(command);
            }
        } else {
            host.run("nft delete table inet deaf");
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_log(&self, part: &str) {
        let what = format!("{} logs {part:?}", self.host.name());
        eventually(&what, SOON, || self.log().contains(part).then_some(()));
    }
}

/// Two masters; the clients follow the one that is going to yield. Then VRRP passes again, first to
/// one of the two. Gives how long it took until all clients follow the one that stays.
fn heals(vip: &str, first_hears: usize, lower: bool, settings: &str) -> Duration {
    let lab = Lab::new();
    let hosts = [lab.host("a"), lab.host("b")];
    let clients = lab.hosts("client", 4);
    for host in &hosts {
        Node::deafen(host, true);
        for client in &clients {
            host.remember(client.ipv4(), client.mac());
            host.remember(client.ipv6(), client.mac());
        }
    }
    let mut a = Node::start(&lab, &hosts[0], 150, vip, lower, settings);
    let mut b = Node::start(&lab, &hosts[1], 100, vip, lower, settings);
    a.keepalived.wait_for_state("VI_1", "MASTER", SOON);
    b.keepalived.wait_for_state("VI_1", "MASTER", SOON);
    a.wait_for_log("conflict: ");
    b.wait_for_log("conflict: ");
    for client in &clients {
        client.remember(vip, hosts[1].mac());
    }
    let healed = Instant::now();
    Node::deafen(&hosts[first_hears], false);
    thread::sleep(Duration::from_millis(800));
    Node::deafen(&hosts[1 - first_hears], false);
    b.keepalived.wait_for_state("VI_1", "BACKUP", SOON);
    wait_until_followed(&clients, &[vip], hosts[0].mac(), SOON);
    let took = healed.elapsed();
    // With the other event, that one's run took over, and it may not have met the other at all.
    if !lower {
        a.wait_for_log("the conflict is over");
    }
    took
}

#[test]
fn whoever_stays_master_tells_everyone_again_whichever_of_the_two_hears_first() {
    let orders = [VIP, VIP6].into_iter().flat_map(|vip| {
        [(0, false), (0, true), (1, false), (1, true)].map(|(first, lower)| (vip, first, lower))
    });
    thread::scope(|scope| {
        for (vip, first_hears, lower) in orders {
            scope.spawn(move || {
                let took = heals(vip, first_hears, lower, "");
                println!("{vip}, {first_hears} hears first, rx_lower_pri {lower}: {took:?}");
            });
        }
    });
}

#[test]
fn a_conflict_that_ends_during_the_run_is_told_as_past_and_the_exit_status_is_the_presents() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peers = lab.hosts("peer", 1);
    for (vip, healed) in [(VIP, true), (VIP6, true), (VIP, false)] {
        give(&a, vip, "eth0");
        give(&b, vip, "eth0");
        let capture = a.capture();
        let announcing = Run::start(vipherald(&a, &format!("--json announce {vip}")));
        // The rival is not believed to be one in the first tenth of a second.
        wait_for_announcement(&capture, vip, 7);
        if healed {
            take(&b, vip, "eth0");
            remember_old(&peers, &[vip]);
        }
        let ended = announcing.end();
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let found = |what: &str| report["vips"][0][what].as_array().unwrap().len();
        if healed {
            assert_eq!(ended.status, 0, "{ended:?}");
            assert_eq!(
                (found("conflicts"), found("past_conflicts")),
                (0, 1),
                "{report:#}"
            );
            assert!(
                ended.stderr.contains("a conflict that is over"),
                "{ended:?}"
            );
            wait_until_followed(&peers, &[vip], a.mac(), SOON);
            take(&a, vip, "eth0");
        } else {
            assert_eq!(ended.status, 4, "{ended:?}");
            assert_eq!(
                (found("conflicts"), found("past_conflicts")),
                (1, 0),
                "{report:#}"
            );
            assert!(ended.lasted < Duration::from_secs(20), "{ended:?}");
        }
    }
}

/// A host whose run watches a rival: its rounds are over.
fn watching(seconds: u32) -> (Lab, Host, Run) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    for host in [&a, &b] {
        give(host, VIP, "eth0");
    }
    let arguments = format!("--json announce {VIP} --conflict-watch {seconds}");
    let mut watching = Run::start(vipherald(&a, &arguments));
    thread::sleep(Duration::from_secs(13));
    assert!(!watching.has_ended());
    (lab, a, watching)
}

#[test]
fn a_watch_ends_with_the_vip_with_a_newer_run_or_when_its_time_is_over() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (_lab, _, watching) = watching(10);
            assert_eq!(watching.end().status, 4);
        });
        scope.spawn(|| {
            let (_lab, a, watching) = watching(600);
            run(&a, &format!("announce {VIP} --timeout 0.1"));
            assert_eq!(watching.end().status, 6);
        });
        scope.spawn(|| {
            let (_lab, a, watching) = watching(600);
            take(&a, VIP, "eth0");
            assert_eq!(watching.end().status, 5);
        });
    });
}

#[test]
fn whoever_yields_and_has_a_key_has_its_peers_purge_what_they_learned_of_it() {
    let lab = Lab::new();
    let (yields, stays, peer) = (lab.host("yields"), lab.host("stays"), lab.host("peer"));
    let key = lab.directory().join("orders.key");
    assert_eq!(run(&yields, &format!("keygen {}", key.display())).status, 0);
    let toml = |name: &str, peers: &str| {
        let text = format!(
            "peers = [{peers}]\n[orders]\nkey_file = \"{}\"\n",
            key.display()
        );
        events::file(&lab, name, &text)
    };
    let both = format!("\"{}\", \"{}\"", peer.ipv4(), stays.ipv4());
    let (mine, theirs) = (toml("yields.toml", &both), toml("peer.toml", ""));
    let conf = events::file(&lab, "conf", &events::instance("VI_1", 51, 100, &[VIP], ""));
    let listening = [&peer, &stays].map(|host| {
        let listen = format!(
            "--config {} -v listen --bind 0.0.0.0:11120",
            theirs.display()
        );
        let listening = Run::start(vipherald(host, &events::with(&conf, &listen)));
        let pid = listening.pid();
        eventually("it listens", SOON, || {
            let sockets = fs::read_to_string(format!("/proc/{pid}/net/udp")).ok()?;
            sockets.contains(":2B70 ").then_some(())
        });
        listening
    });
    // Whoever stays says nothing by itself.
    give(&stays, VIP, "eth0");
    peer.remember(VIP, yields.mac());
    let backup = format!(
        "--config {} notify INSTANCE VI_1 BACKUP 100",
        mine.display()
    );
    let ended = run(&yields, &events::with(&conf, &backup));
    assert_eq!(ended.status, 0, "{ended:?}");
    eventually("the peer forgets who yielded", SOON, || {
        (events::mac_of(&peer, VIP) != Some(yields.mac())).then_some(())
    });
    // And it is no matter to the owner itself.
    let [_, owner] = listening;
    let (ended, _) = owner.terminate();
    assert!(!ended.stderr.contains("warning"), "{ended:?}");
    // Where nobody has the VIP, nobody is told anything.
    take(&stays, VIP, "eth0");
    peer.remember(VIP, yields.mac());
    let ended = run(&yields, &events::with(&conf, &backup));
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(events::mac_of(&peer, VIP), Some(yields.mac()));
}
