//! Two masters of the real keepalived at once, and how that ends: the one that stays master gets no
//! event when the other yields, and yet everyone follows it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use vipherald_lab::{Host, Keepalived, Lab, eventually};

use common::{
    Run, SOON, VIP, VIP6, give, meet, remember_old, run, take, vipherald, wait_for_announcement,
    wait_until_followed, watch_for,
};
use events::{file, hook, instance, with};
use helpers::{Orders, listen};

/// A node whose hook is `notify`.
struct Node {
    host: Host,
    keepalived: Keepalived,
    log: PathBuf,
}

impl Node {
    fn start(lab: &Lab, host: &Host, priority: u8, vip: &str, lower: bool) -> Self {
        let name = host.name();
        let (conf, log) = (
            lab.directory().join(format!("{name}.conf")),
            lab.directory().join(format!("{name}.log")),
        );
        let notify = lab.write_hook(
            &format!("notify-{name}"),
            &format!(
                "exec {} --log stderr --keepalived-conf {} notify \"$@\" 2>> {}",
                hook(lab),
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

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_log(&self, part: &str) {
        let what = format!("{} logs {part:?}", self.host.name());
        eventually(&what, SOON, || self.log().contains(part).then_some(()));
    }
}

/// Makes a host hear no VRRP, or hear it again.
fn deafen(host: &Host, deaf: bool) {
    host.nft(if deaf {
        "add table inet deaf\n\
         add chain inet deaf in { type filter hook input priority 0; }\n\
         add rule inet deaf in meta l4proto vrrp drop\n"
    } else {
        "delete table inet deaf\n"
    });
}

/// Two masters; the clients follow the one that is going to yield. Then VRRP passes again, first to
/// one of the two; and all clients follow the one that stays.
fn heals(vip: &str, first_hears: usize, lower: bool) {
    let lab = Lab::new();
    let hosts = [lab.host("a"), lab.host("b")];
    let clients = lab.hosts("client", 4);
    for host in &hosts {
        deafen(host, true);
        meet(host, &clients);
    }
    let mut a = Node::start(&lab, &hosts[0], 150, vip, lower);
    let mut b = Node::start(&lab, &hosts[1], 100, vip, lower);
    a.keepalived.wait_for_state("VI_1", "MASTER", SOON);
    b.keepalived.wait_for_state("VI_1", "MASTER", SOON);
    a.wait_for_log("conflict: ");
    b.wait_for_log("conflict: ");
    for client in &clients {
        client.remember(vip, hosts[1].mac());
    }
    deafen(&hosts[first_hears], false);
    thread::sleep(Duration::from_millis(800));
    deafen(&hosts[1 - first_hears], false);
    b.keepalived.wait_for_state("VI_1", "BACKUP", SOON);
    wait_until_followed(&clients, &[vip], hosts[0].mac());
    // With the other event, a newer run took over, and may not have met the other owner at all.
    if !lower {
        a.wait_for_log("the conflict is over");
    }
}

#[test]
fn whoever_stays_master_tells_everyone_again_whichever_of_the_two_hears_first() {
    let orders = [VIP, VIP6].into_iter().flat_map(|vip| {
        [(0, false), (0, true), (1, false), (1, true)].map(|(first, lower)| (vip, first, lower))
    });
    thread::scope(|scope| {
        for (vip, first_hears, lower) in orders {
            scope.spawn(move || heals(vip, first_hears, lower));
        }
    });
}

#[test]
fn a_conflict_that_ends_during_the_run_is_reported_as_past_and_is_no_failure() {
    thread::scope(|scope| {
        for (vip, healed) in [(VIP, true), (VIP6, true), (VIP, false)] {
            scope.spawn(move || conflict_during_a_run(vip, healed));
        }
    });
}

/// Two hosts have the VIP, and only one of them while the other's run goes on, if that is `healed`.
fn conflict_during_a_run(vip: &str, healed: bool) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peers = lab.hosts("peer", 1);
    give(&a, vip, "eth0");
    give(&b, vip, "eth0");
    let capture = a.capture();
    let announcing = Run::start(vipherald(&a, &format!("--json announce {vip}")));
    // In the first tenth of a second the run ignores another owner.
    wait_for_announcement(&capture, vip, 7);
    if healed {
        take(&b, vip, "eth0");
        remember_old(&peers, &[vip]);
    }
    let ended = announcing.end();
    let report = ended.report();
    let found = |what: &str| report["vips"][0][what].as_array().unwrap().len();
    let (now, past) = (found("conflicts"), found("past_conflicts"));
    let expected = if healed { (0, 0, 1) } else { (4, 1, 0) };
    assert_eq!((ended.status, now, past), expected, "{ended:#?}");
    if healed {
        ended.logs("the conflict is over");
        wait_until_followed(&peers, &[vip], a.mac());
    } else {
        // A watch is only of the hooks': with one, all else would be the same.
        assert!(ended.lasted < Duration::from_secs(20), "{ended:?}");
    }
}

/// A host whose run watches another owner, after its rounds.
fn watching(seconds: u32) -> (Lab, Host, Run) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    for host in [&a, &b] {
        give(host, VIP, "eth0");
    }
    let arguments = format!("--json announce {VIP} --conflict-watch {seconds}");
    let capture = a.capture();
    let mut watching = Run::start(vipherald(&a, &arguments));
    // Two frames in each of eight rounds.
    wait_for_announcement(&capture, VIP, 14);
    watch_for(Duration::from_secs(1));
    assert!(!watching.has_ended());
    (lab, a, watching)
}

#[test]
fn a_watch_ends_with_the_vip_with_a_newer_run_or_when_its_time_is_over() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (_lab, _, watching) = watching(10);
            watching.end().exits(4);
        });
        scope.spawn(|| {
            let (_lab, a, watching) = watching(600);
            let newer = Run::start(vipherald(&a, &format!("announce {VIP}")));
            watching.end().exits(6);
            newer.goes_on();
        });
        scope.spawn(|| {
            let (_lab, a, watching) = watching(600);
            take(&a, VIP, "eth0");
            watching.end().exits(5);
        });
    });
}

#[test]
fn a_node_that_yields_orders_its_peers_to_purge_its_mac() {
    let lab = Lab::new();
    let (yields, stays, peer) = (lab.host("yields"), lab.host("stays"), lab.host("peer"));
    let orders = Orders::new(&lab, &yields);
    let both = format!("peers = [\"{}\", \"{}\"]", peer.ipv4(), stays.ipv4());
    let mine = orders.settings(&lab, "yields.toml", &both, "");
    let theirs = orders.settings(&lab, "peer.toml", "", "");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let listening = [&peer, &stays].map(|host| listen(host, &theirs, &with(&conf, "-v")));
    // The one that stays announces nothing by itself.
    give(&stays, VIP, "eth0");
    peer.remember(VIP, yields.mac());
    let backup = format!(
        "--config {} notify INSTANCE VI_1 BACKUP 100",
        mine.display()
    );
    run(&yields, &with(&conf, &backup)).exits(0);
    eventually("the peer forgets who yielded", SOON, || {
        (peer.cached(VIP) != Some(yields.mac())).then_some(())
    });
    // The owner itself gets the order, too, and has nothing to say.
    let [_, owner] = listening;
    let (ended, _) = owner.terminate();
    let warnings = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning: "));
    // On a busy machine, an order is sent again before its answer is there.
    let others = warnings.filter(|line| !line.contains("sent again"));
    assert_eq!(others.count(), 0, "{ended:#?}");
    // While nobody has the VIP, no order leaves.
    take(&stays, VIP, "eth0");
    peer.remember(VIP, yields.mac());
    run(&yields, &with(&conf, &backup)).exits(0);
    assert_eq!(peer.cached(VIP), Some(yields.mac()));
}
