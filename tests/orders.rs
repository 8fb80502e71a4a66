//! Orders: peers that get no event of keepalived's purge and prove it; a VIP that a dead keepalived
//! left behind is released.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use vipherald_core::order::message::PORT;
use vipherald_core::order::{Answer, Order, Outcome, Reason};
use vipherald_lab::{Direction, Frame, Host, Keepalived, Lab, State, eventually};

use common::arp::{IPV6, is_sent};
use common::tls::{TlsServer, tls_to_vip};
use common::{
    OLD_MAC, Run, SOON, VIP, VIP6, VIPHERALD, assert_at_once, give, old_mac, peer_in, run,
    second_interface, signal, vipherald, wait_until_followed,
};
use events::{file, instance, with};
use helpers::{Orders, ask, listen, obey, order_to, socket};

/// A node whose hook writes its report down.
struct Node {
    report: PathBuf,
    keepalived: Keepalived,
}

impl Node {
    fn start(lab: &Lab, host: &Host, priority: u8, settings: &Path, more: &str) -> Self {
        let name = host.name();
        let program = lab.install_hook(VIPHERALD);
        let vip = format!("{VIP}/24");
        let plain = instance("VI", 51, priority, &[&vip], more);
        let conf = file(lab, &format!("{name}.conf"), &plain);
        let report = lab.directory().join(format!("{name}.report"));
        let hook = lab.write_hook(
            &format!("hook-{name}"),
            &format!(
                "{program} --log stderr --json --config {settings} --keepalived-conf {conf} notify \
                 \"$@\" >{report}.part 2>>{report}.log\n\
                 echo $? >>{report}.part\n\
                 [ \"$3\" = MASTER ] && mv {report}.part {report}\nexit 0",
                program = program.display(),
                settings = settings.display(),
                conf = conf.display(),
                report = report.display(),
            ),
        );
        let notify = format!("{more}\n notify \"{}\"", hook.display());
        let keepalived = host.keepalived(&instance("VI", 51, priority, &[&vip], &notify));
        Self { report, keepalived }
    }

    fn becomes(&mut self, state: &str) {
        self.keepalived.wait_for_state("VI", state, SOON);
    }

    /// Its report as MASTER, and the exit status.
    fn report(&self) -> (Value, i32) {
        let text = eventually("the announcement ends", Duration::from_secs(70), || {
            fs::read_to_string(&self.report).ok()
        });
        let (json, status) = text.trim_end().rsplit_once('\n').unwrap_or_else(|| {
            let log = self.report.with_extension("report.log");
            panic!("{text} {:?}", fs::read_to_string(log))
        });
        (serde_json::from_str(json).unwrap(), status.parse().unwrap())
    }
}

/// What a report says of a host as a peer.
fn peer<'a>(report: &'a Value, host: &Host) -> &'a Value {
    peer_in(report, VIP, host.ipv4())
}

#[test]
fn a_node_that_stays_backup_and_a_host_without_keepalived_follow() {
    let lab = Lab::new();
    let (n1, n2, n3) = (lab.host("n1"), lab.host("n2"), lab.host("n3"));
    let client = lab.host("client");
    let orders = Orders::new(&lab, &n1);
    let general = format!("peers = [\"{}\"]\nconfirm = \"all\"", n3.ipv4());
    let settings = orders.settings(&lab, "settings", &general, "permanent = true");
    let _at_n3 = listen(&n3, &settings, "");
    let _at_client = listen(&client, &settings, "");
    let mut first = Node::start(&lab, &n1, 150, &settings, "");
    first.becomes("MASTER");
    let mut second = Node::start(&lab, &n2, 100, &settings, "");
    let mut third = Node::start(&lab, &n3, 50, &settings, "");
    second.becomes("BACKUP");
    third.becomes("BACKUP");
    // The new owner will know the client, and not that it has this. The hook of the first state
    // purges at first.
    n2.remember_as(client.ipv4(), client.mac(), State::Stale);
    eventually("n3 keeps the entry", SOON, || {
        n3.remember_as(VIP, OLD_MAC, State::Permanent);
        client.remember_as(VIP, OLD_MAC, State::Permanent);
        // A node orders its peers for this long after its first BACKUP.
        thread::sleep(Duration::from_secs(2));
        [&n3, &client]
            .iter()
            .all(|host| host.cached(VIP) == Some(old_mac()))
            .then_some(())
    });
    assert!(first.keepalived.stop().success());
    second.becomes("MASTER");
    wait_until_followed([&n3, &client], &[VIP], n2.mac());
    let (report, status) = second.report();
    assert_eq!(status, 0, "{report:#}");
    for host in [&n3, &client] {
        let peer = peer(&report, host);
        assert_eq!(peer["verdict"], "proven", "{report:#}");
        assert_eq!(peer["order"], "purged", "{report:#}");
        assert_eq!(host.cached(VIP), Some(n2.mac()));
    }
    assert_eq!(peer(&report, &n3)["source"], "configured");
    assert_eq!(peer(&report, &client)["source"], "learned");
    assert_eq!(third.keepalived.state("VI").as_deref(), Some("BACKUP"));
    let log = fs::read_to_string(second.report.with_extension("report.log")).unwrap();
    let told = format!("purged {OLD_MAC} on eth0 when ordered to, and has the right one now");
    assert_eq!(log.matches(&told).count(), 2, "{log}");
}

/// The master n1 has been killed, and n2 is taking over.
struct Killed {
    lab: Lab,
    n1: Host,
    n2: Host,
    client: Host,
    second: Node,
    _listen: Run,
}

impl Killed {
    fn new(more: &str) -> Self {
        let lab = Lab::new();
        let (n1, n2) = (lab.host("n1"), lab.host("n2"));
        let client = lab.host("client");
        let orders = Orders::new(&lab, &n1);
        let conf = lab.directory().join("n1.conf");
        let settings = orders.settings(&lab, "settings", "timeout = 20\nconflict_watch = 0", more);
        let peers = |host: &Host| format!("unicast_peer {{\n {}\n }}", host.ipv4());
        let listen = listen(
            &n1,
            &settings,
            &format!("--keepalived-conf {}", conf.display()),
        );
        let mut first = Node::start(&lab, &n1, 150, &settings, &peers(&n2));
        first.becomes("MASTER");
        let mut second = Node::start(&lab, &n2, 100, &settings, &peers(&n1));
        second.becomes("BACKUP");
        eventually("the client knows n1", SOON, || {
            client.try_run(&format!("ping -c 1 -W 1 {VIP}"));
            (client.cached(VIP) == Some(n1.mac())).then_some(())
        });
        first.keepalived.kill9_all();
        assert!(n1.holds(VIP), "a keepalived that is killed leaves it");
        second.becomes("MASTER");
        Self {
            lab,
            n1,
            n2,
            client,
            second,
            _listen: listen,
        }
    }
}

#[test]
fn a_vip_that_a_killed_keepalived_left_behind_is_released() {
    let killed = Killed::new("release_orphan = true");
    eventually("n1 lets go of the VIP", SOON, || {
        (!killed.n1.holds(VIP)).then_some(())
    });
    let _server = TlsServer::start(&killed.lab, &killed.n2);
    eventually("a TLS client reaches n2", SOON, || {
        (tls_to_vip(&killed.client).as_deref() == Some("n2")).then_some(())
    });
    let (report, status) = killed.second.report();
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["vips"][0]["conflicts"], json!([]), "{report:#}");
    let released = peer(&report, &killed.n1);
    assert_eq!(released["order"], "released", "{report:#}");
    assert_eq!(released["verdict"], "proven", "{report:#}");
    println!(
        "n1 follows n2 {} ms after its hook began",
        released["after_ms"]
    );
    assert!(killed.n1.holds(killed.n1.ipv4()), "nothing else went");
}

#[test]
fn without_permission_the_conflict_is_named_and_the_vip_stays() {
    let killed = Killed::new("");
    let (report, status) = killed.second.report();
    assert_eq!(status, 4, "{report:#}");
    assert_eq!(peer(&report, &killed.n1)["order"], "refused", "{report:#}");
    let other_owner = &report["vips"][0]["conflicts"][0];
    assert_eq!(
        other_owner["mac"],
        json!(killed.n1.mac().to_string()),
        "{report:#}"
    );
    assert!(killed.n1.holds(VIP));
    // By hand it goes.
    let conf = killed.lab.directory().join("n1.conf");
    let ended = run(&killed.n1, &with(&conf, "release --all --json")).exits(0);
    let released = &ended.report()["addresses"][0];
    assert_eq!(released["action"], "released", "{ended:?}");
    assert!(!killed.n1.holds(VIP));
    let ended = run(&killed.n1, &with(&conf, "release --all")).exits(0);
    ended.logs("nothing to release");
}

#[test]
fn where_keepalived_is_alive_or_may_be_the_vip_is_never_touched() {
    let lab = Lab::new();
    let (n1, n2) = (lab.host("n1"), lab.host("n2"));
    let orders = Orders::new(&lab, &n1);
    let settings = orders.settings(&lab, "settings", "", "release_orphan = true");
    let mut node = Node::start(&lab, &n1, 150, &settings, "");
    node.becomes("MASTER");
    let conf = lab.directory().join("n1.conf");
    let listening = listen(
        &n1,
        &settings,
        &format!("--keepalived-conf {}", conf.display()),
    );
    // A split brain.
    give(&n2, VIP, "eth0");
    let announce = format!(
        "--config {} announce {VIP} -p {} --timeout 6 --json",
        settings.display(),
        n1.ipv4()
    );
    let ended = run(&n2, &announce).exits(4);
    assert_eq!(peer(&ended.report(), &n1)["order"], "refused");
    let words = "it holds the VIP itself, and its keepalived may be alive";
    ended.logs(words);
    assert!(n1.holds(VIP));
    let refused = |why: &str| {
        let ended = run(&n1, &with(&conf, &format!("release {VIP}"))).exits(5);
        ended.logs(why);
        assert!(n1.holds(VIP));
    };
    refused("keepalived runs");
    // Dead by now, but for what a PID file says.
    node.keepalived.kill9_all();
    let pid_file = lab.directory().join("other.pid");
    fs::write(&pid_file, std::process::id().to_string()).unwrap();
    let text = format!("pid_files = [\"{}\"]", pid_file.display());
    let with_pid = orders.settings(&lab, "with-pid", "", &text);
    let arguments = format!("--config {} release {VIP}", with_pid.display());
    let ended = run(&n1, &with(&conf, &arguments)).exits(5);
    ended.logs("which is alive");
    // Nor an address that is none of keepalived.conf's.
    let own = n1.ipv4();
    let ended = run(&n1, &with(&conf, &format!("release {own}"))).exits(5);
    ended.logs("no VIP of keepalived.conf");
    assert!(n1.holds(VIP) && n1.holds(own));
    let ended = listening.terminate().0;
    ended.logs("is held here");
}

#[test]
fn orders_get_through_heavy_loss_or_are_reported_unanswered() {
    let lab = Lab::new();
    let owner = lab.host("owner");
    let peers = lab.hosts("p", 6);
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "permanent = true");
    give(&owner, VIP, "eth0");
    let _listening: Vec<_> = peers
        .iter()
        .map(|peer| listen(peer, &settings, ""))
        .collect();
    for peer in &peers {
        peer.remember_as(VIP, OLD_MAC, State::Permanent);
    }
    lab.loss(&peers[..5], Direction::ToHost, 60.0);
    lab.loss(&peers[..5], Direction::FromHost, 60.0);
    // The last one is cut off for good.
    lab.blackout(&peers[5]);
    let named: String = peers.iter().map(|p| format!(" -p {}", p.ipv4())).collect();
    let arguments = format!(
        "--config {} announce {VIP} --timeout 25 --json{named}",
        settings.display()
    );
    let ended = run(&owner, &arguments);
    let report = ended.report();
    let mut through = 0;
    for host in &peers {
        let order = peer(&report, host)["order"].as_str().unwrap().to_owned();
        match order.as_str() {
            "unanswered" => {}
            // The first answer may have been lost.
            "purged" | "right" | "absent" => {
                through += 1;
                assert_ne!(host.cached(VIP), Some(old_mac()));
            }
            other => panic!("{other}: {report:#}"),
        }
    }
    assert_eq!(peer(&report, &peers[5])["order"], "unanswered");
    assert_eq!(ended.status, 3, "{ended:?}");
    // Each of five gets through with a chance of 98 % in the first seconds alone.
    assert!(through >= 3, "{through}: {report:#}");
}

#[test]
fn an_order_carried_out_twice_does_no_harm() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    give(&owner, VIP, "eth0");
    give(&owner, VIP6, "eth0");
    let settings = orders.settings(&lab, "settings", "", "");
    let _listening = listen(&peer, &settings, "");
    peer.remember(VIP, OLD_MAC);
    let order = order_to(&peer, [1; 16], VIP, owner.mac());
    let datagram = order.to_bytes(&orders.keys);
    let from = socket(&owner);
    let first = ask(&from, &peer, &orders.keys, &datagram);
    assert_eq!(first.done[0].outcome, Outcome::Purged);
    assert_eq!(peer.cached(VIP), Some(owner.mac()));
    // The very same: the same answer, and nothing is done, whatever the table has by now.
    peer.remember(VIP, OLD_MAC);
    assert_eq!(ask(&from, &peer, &orders.keys, &datagram), first);
    assert_eq!(peer.cached(VIP), Some(old_mac()));
    // Made again: obeyed, and then there is nothing to do.
    for outcome in [Outcome::Purged, Outcome::Right] {
        let mut anew = order_to(&peer, [2; 16], VIP, owner.mac());
        anew.id[0] = match outcome {
            Outcome::Purged => 3,
            _ => 4,
        };
        let answer = obey(&owner, &peer, &orders, &anew);
        assert_eq!(answer.done[0].outcome, outcome);
        assert_eq!(peer.cached(VIP), Some(owner.mac()));
    }
    // By hand, of both families.
    peer.remember(VIP6, OLD_MAC);
    let by_hand = |peers: &str| {
        let config = settings.display();
        run(
            &owner,
            &format!("--config {config} order {VIP} {VIP6} {peers} --json"),
        )
    };
    let ended = by_hand(&format!("-p {}", peer.ipv4()));
    assert_eq!(ended.status, 0, "{ended:?}");
    let report = ended.report();
    assert_eq!(report["orders"][0]["order"], "right", "{report:#}");
    assert_eq!(report["orders"][1]["order"], "purged", "{report:#}");
    assert_eq!(report["orders"][1]["was"], OLD_MAC, "{report:#}");
    assert_eq!(peer.cached(VIP6), Some(owner.mac()));
    let ended = by_hand(&format!("-p {}", peer.ipv6()));
    assert_eq!(ended.status, 0, "{ended:?}");
    // Nobody listens there.
    let ended = by_hand(&format!("-p {} --timeout 2", lab.host("deaf").ipv4()));
    assert_eq!(ended.status, 3, "{ended:?}");
    assert_eq!(ended.report()["orders"][0]["order"], "unanswered");
}

#[test]
fn forbidden_orders_are_refused_and_change_nothing() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "");
    let listening = listen(&peer, &settings, "");
    let gateway = "10.9.0.254";
    peer.run(&format!("ip route add default via {gateway}"));
    let own = peer.ipv4().to_string();
    for (id, vip, reason) in [
        (1, gateway, Reason::Gateway),
        (2, own.as_str(), Reason::HeldThere),
        (3, "192.0.2.1", Reason::NotAllowed),
    ] {
        if vip != own {
            peer.remember(vip, OLD_MAC);
        }
        let order = order_to(&peer, [id; 16], vip, owner.mac());
        let answer = obey(&owner, &peer, &orders, &order);
        assert_eq!(answer.done[0].outcome, Outcome::Refused(reason), "{vip}");
        if vip != own {
            assert_eq!(peer.cached(vip), Some(old_mac()));
        }
    }
    // A PERMANENT entry, without permission.
    peer.remember_as(VIP, OLD_MAC, State::Permanent);
    let order = order_to(&peer, [4; 16], VIP, owner.mac());
    let answer = obey(&owner, &peer, &orders, &order);
    assert_eq!(answer.done[0].outcome, Outcome::Kept(Reason::Permanent));
    assert_eq!(peer.neighbour(VIP).unwrap().state, State::Permanent);
    drop(listening.terminate());
    // Named by itself, a gateway may be a VIP.
    let allow = format!("allow = [\"links\", \"{gateway}\"]");
    let settings = orders.settings(&lab, "by-name", "", &allow);
    let _listening = listen(&peer, &settings, "");
    let order = order_to(&peer, [5; 16], gateway, owner.mac());
    let answer = obey(&owner, &peer, &orders, &order);
    assert_eq!(answer.done[0].outcome, Outcome::Purged);
}

/// Sends a datagram to a host, which neither answers nor changes its entry for the VIP.
fn is_not_obeyed(from: &UdpSocket, host: &Host, to: impl ToSocketAddrs, datagram: &[u8]) {
    host.remember_as(VIP, OLD_MAC, State::Permanent);
    for _ in 0..3 {
        from.send_to(datagram, &to).unwrap();
        let answer = from.recv_from(&mut [0; 1000]);
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(host.cached(VIP), Some(old_mac()));
}

#[test]
fn an_order_counts_in_its_own_network_alone() {
    // Two networks with the same addresses and key.
    let (here, there) = (Lab::new(), Lab::new());
    let host = |lab: &Lab| (lab.host("owner"), lab.host("peer"));
    let ((owner, peer), (other_owner, other_peer)) = (host(&here), host(&there));
    assert_eq!(
        (owner.ipv4(), peer.ipv4()),
        (other_owner.ipv4(), other_peer.ipv4())
    );
    let orders = Orders::new(&here, &owner);
    let settings = |lab: &Lab, site: &str| {
        orders.settings(
            lab,
            "settings",
            "",
            &format!("site = \"{site}\"\npermanent = true"),
        )
    };
    let listening = listen(&peer, &settings(&here, "here"), "");
    let other_listening = listen(&other_peer, &settings(&there, "there"), "");
    let keys = vipherald::key_file::read(std::slice::from_ref(&orders.key), "here", None).unwrap();
    give(&owner, VIP, "eth0");
    let recorded = order_to(&peer, [1; 16], VIP, owner.mac()).to_bytes(&keys);
    let port = (peer.ipv4(), PORT);
    is_not_obeyed(&socket(&other_owner), &other_peer, port, &recorded);
    peer.remember_as(VIP, OLD_MAC, State::Permanent);
    let answer = ask(&socket(&owner), &peer, &keys, &recorded);
    assert_eq!(answer.done[0].outcome, Outcome::Purged);
    other_listening
        .goes_on()
        .logs("signed with none of the keys");

    let mut old = recorded;
    old[4] = 1;
    is_not_obeyed(&socket(&owner), &peer, port, &old);
    listening
        .goes_on()
        .logs("of an older vipherald, which has to be updated");
}

#[test]
fn an_order_counts_only_to_an_address_of_the_link_that_it_came_in_by() {
    const ELSEWHERE: [u8; 4] = [10, 8, 0, 1];
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "permanent = true");
    let listening = listen(&peer, &settings, "");
    second_interface(&peer);
    peer.run("ip addr add 10.8.0.1/24 dev v0");
    owner.run(&format!("ip route add 10.8.0.0/24 via {}", peer.ipv4()));
    let to = |to: IpAddr, id: u8| {
        let order = Order {
            to,
            ..order_to(&peer, [id; 16], VIP, owner.mac())
        };
        order.to_bytes(&orders.keys)
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let from = socket(&owner);
    // Meant for every host, and for none.
    is_not_obeyed(&from, &peer, (peer.ipv4(), PORT), &to(loopback, 1));
    let local = peer.enter(|| UdpSocket::bind((loopback, 0))).unwrap();
    local
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    is_not_obeyed(&local, &peer, (loopback, PORT), &to(loopback, 2));
    // By another link than that of the address.
    is_not_obeyed(&from, &peer, (peer.ipv4(), PORT), &to(ELSEWHERE.into(), 3));
    give(&owner, VIP, "eth0");
    let answer = ask(&from, &peer, &orders.keys, &to(peer.ipv4().into(), 4));
    assert_eq!(answer.done[0].outcome, Outcome::Purged);
    listening.goes_on().logs("for other hosts");
}

#[test]
fn both_sides_report_clocks_that_differ() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "");
    give(&owner, VIP, "eth0");
    peer.remember(VIP, OLD_MAC);
    let listening = listen(&peer, &settings, "");
    // A sender whose clock is 95 s behind.
    let mut order = order_to(&peer, [1; 16], VIP, owner.mac());
    order.time -= 95_000;
    let answer = obey(&owner, &peer, &orders, &order);
    assert_eq!(answer.done[0].outcome, Outcome::Refused(Reason::Clock));
    assert!((95_000..96_000 + 10_000).contains(&(answer.time - order.time)));
    assert_eq!(peer.cached(VIP), Some(old_mac()));
    let ended = listening.terminate().0;
    let told = "s behind this host's clock";
    assert!(
        ended.stderr.contains(told) && ended.stderr.contains(" 95."),
        "{ended:?}"
    );
    // A peer whose clock is 95 s ahead: this test, at the real one's port.
    let clock = peer.enter(|| UdpSocket::bind((peer.ipv4(), PORT))).unwrap();
    clock.set_read_timeout(Some(SOON)).unwrap();
    let arguments = format!(
        "--config {} order {VIP} -p {}",
        settings.display(),
        peer.ipv4()
    );
    let by_hand = Run::start(vipherald(&owner, &arguments));
    let mut buffer = [0; 1000];
    let (length, from) = clock.recv_from(&mut buffer).unwrap();
    let order = Order::parse(orders.keys.authenticate(&buffer[..length]).unwrap()).unwrap();
    let refusal = Answer::refusal(&order, order.time + 95_300, Reason::Clock);
    clock
        .send_to(&refusal.to_bytes(&orders.keys), from)
        .unwrap();
    let ended = by_hand.end().exits(3);
    let told = "its clock is 95.3 s ahead of this host's";
    ended.logs(told);
}

#[test]
fn a_broadcast_reaches_hosts_that_nobody_knows() {
    let lab = Lab::new();
    let (owner, unknown) = (lab.host("owner"), lab.host("unknown"));
    let orders = Orders::new(&lab, &owner);
    let more = "permanent = true\nbroadcast = true";
    let settings = orders.settings(&lab, "settings", "confirm = \"peers\"", more);
    let _listening = listen(&unknown, &settings, "");
    unknown.remember_as(VIP, OLD_MAC, State::Permanent);
    give(&owner, VIP, "eth0");
    let arguments = format!(
        "--config {} announce {VIP} --timeout 20",
        settings.display()
    );
    let announce = Run::start(vipherald(&owner, &arguments));
    wait_until_followed([&unknown], &[VIP], owner.mac());
    announce.terminate();
}

#[test]
fn without_a_usable_key_an_announcement_goes_on_without_orders() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    give(&owner, VIP, "eth0");
    let announce = |settings: &Path| {
        let config = settings.display();
        let peer = peer.ipv4();
        let arguments = format!("--config {config} announce {VIP} -p {peer} --timeout 2 --json");
        let ended = run(&owner, &arguments).exits(0);
        (ended.report(), ended.stderr)
    };
    let settings = orders.settings(&lab, "settings", "", "");
    // Nobody listens: only the JSON report says so.
    let (report, log) = announce(&settings);
    assert_eq!(
        self::peer(&report, &peer)["order"],
        "unanswered",
        "{report:#}"
    );
    assert!(!log.contains("order"), "{log}");
    owner.run(&format!("chmod 640 {}", orders.key.display()));
    let (report, log) = announce(&settings);
    assert_eq!(
        self::peer(&report, &peer)["order"],
        Value::Null,
        "{report:#}"
    );
    assert!(log.contains("chmod 600"), "{log}");
    let (report, log) = announce(&file(&lab, "none", ""));
    assert_eq!(
        self::peer(&report, &peer)["order"],
        Value::Null,
        "{report:#}"
    );
    assert!(!log.contains("order"), "{log}");
    // The others can't do without.
    for (settings, words) in [("settings", "chmod 600"), ("none", "orders.key_file")] {
        let config = lab.directory().join(settings);
        for command in [
            format!("order {VIP} -p 10.9.0.2"),
            "listen --bind 127.0.0.1:0".to_owned(),
        ] {
            let ended = run(&owner, &format!("--config {} {command}", config.display())).exits(2);
            ended.logs(words);
        }
    }
    let ended = run(&owner, &format!("keygen {}", orders.key.display())).exits(2);
    ended.logs("not overwritten");
    let ended = run(&owner, &format!("--config {} listen", settings.display())).exits(1);
    ended.logs("--bind");
}

#[test]
fn nothing_is_ordered_after_the_vip_left() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "");
    give(&owner, VIP, "eth0");
    // It takes orders in, and never answers.
    let deaf = peer.enter(|| UdpSocket::bind((peer.ipv4(), PORT))).unwrap();
    deaf.set_read_timeout(Some(SOON)).unwrap();
    let arguments = format!(
        "--config {} announce {VIP} -p {}",
        settings.display(),
        peer.ipv4()
    );
    let announce = Run::start(vipherald(&owner, &arguments));
    deaf.recv_from(&mut [0; 1000]).expect("an order, at once");
    common::take(&owner, VIP, "eth0");
    announce.end().exits(5);
    // What had been sent by then is read; nothing came after.
    deaf.set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    while deaf.recv_from(&mut [0; 1000]).is_ok() {}
    deaf.set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    assert!(deaf.recv_from(&mut [0; 1000]).is_err());
}

#[test]
fn listen_ends_when_nothing_comes_and_on_a_signal() {
    let lab = Lab::new();
    let host = lab.host("a");
    let orders = Orders::new(&lab, &host);
    let settings = orders.settings(&lab, "settings", "", "window = 1");
    let ended = listen(&host, &settings, "--idle 0.5").end().exits(0);
    assert_eq!(ended.stderr, "");
    // The option is a time.
    assert!(ended.lasted >= Duration::from_millis(500), "{ended:?}");
    let running = listen(&host, &settings, "");
    signal(running.pid(), Signal::SIGTERM);
    assert_eq!(running.end().status, 143);
}

/// Starts `listen` as systemd does, with a socket. Gives another socket that is connected to it.
fn activated(lab: &Lab, host: &Host, settings: &Path) -> (Run, UdpSocket) {
    let own = (host.ipv4(), 0);
    let (socket, from) = host
        .enter(|| Ok::<_, io::Error>((UdpSocket::bind(own)?, UdpSocket::bind(own)?)))
        .unwrap();
    from.connect(socket.local_addr().unwrap()).unwrap();
    let command = listen_on(lab, host, socket, settings);
    (Run::start(command), from)
}

/// `listen` as systemd starts it, with a socket.
fn listen_on(lab: &Lab, host: &Host, socket: UdpSocket, settings: &Path) -> Command {
    let mut command = helpers::activated(host, socket);
    command
        .arg("--keepalived-conf")
        .arg(lab.directory())
        .arg("--config")
        .arg(settings)
        .arg("listen")
        .stderr(Stdio::piped());
    command
}

#[test]
fn an_order_that_starts_listen_is_obeyed_at_the_latest_when_it_comes_again() {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "allow = [\"links\"]");
    for (id, bind, informed) in [
        (1, "0.0.0.0:0", true),
        (2, "[::]:0", true),
        (3, "0.0.0.0:0", false),
        (4, "[::]:0", false),
    ] {
        let listening = peer.enter(|| UdpSocket::bind(bind)).unwrap();
        let port = listening.local_addr().unwrap().port();
        if informed {
            // As a socket unit with PassPacketInfo=yes.
            let set = match bind.starts_with('[') {
                true => setsockopt(&listening, sockopt::Ipv6RecvPacketInfo, &true),
                false => setsockopt(&listening, sockopt::Ipv4PacketInfo, &true),
            };
            set.unwrap();
        }
        peer.remember(VIP, OLD_MAC);
        let from = socket(&owner);
        let order = order_to(&peer, [id; 16], VIP, owner.mac()).to_bytes(&orders.keys);
        let to = (peer.ipv4(), port);
        from.send_to(&order, to).unwrap();
        let run = Run::start(listen_on(&lab, &peer, listening, &settings));
        let mut buffer = [0; 1000];
        let answer = eventually("an answer", SOON, || {
            if !informed {
                from.send_to(&order, to).unwrap();
            }
            let length = from.recv(&mut buffer).ok()?;
            Answer::read(&buffer[..length], &orders.keys)
        });
        assert_eq!(answer.done[0].outcome, Outcome::Purged, "{bind}");
        assert_ne!(peer.cached(VIP), Some(old_mac()));
        drop(run.terminate());
    }
}

#[test]
fn whatever_is_wrong_listen_drains_its_socket_and_says_so_once() {
    let lab = Lab::new();
    let host = lab.host("a");
    let orders = Orders::new(&lab, &host);
    let key = orders.key.display();
    let open = file(&lab, "open.key", "no key");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
    let with_key = format!("rat = 5\n[orders]\nidle = 1\nkey_file = \"{key}\"\n");
    for (text, status, words) in [
        (with_key.as_str(), 0, "unknown field `rat`"),
        ("[orders]\nidle = 1\nkey_file = 5\n", 2, "no key for orders"),
        ("[orders]\nidle = 1\nrat = 1\n", 2, "no key for orders"),
        ("[orders]\nidle = 1\nkey_file = \"/none\"\n", 2, "/none"),
        (
            &format!("[orders]\nidle = 1\nkey_file = \"{}\"\n", open.display()),
            2,
            "chmod 600",
        ),
    ] {
        let settings = file(&lab, "typos.toml", text);
        let began = Instant::now();
        let (mut run, from) = activated(&lab, &host, &settings);
        // One datagram of one octet from anybody, again and again.
        while began.elapsed() < Duration::from_millis(700) {
            from.send(b"x").unwrap();
            thread::sleep(Duration::from_millis(10));
            assert!(!run.has_ended(), "{text}");
        }
        let ended = run.end().exits(status);
        // The setting is a time.
        assert!(ended.lasted >= Duration::from_secs(1), "{text}: {ended:?}");
        assert_eq!(ended.stderr.matches(words).count(), 1, "{text}: {ended:?}");
    }
    // And a signal ends it then, too.
    let (mut run, from) = activated(&lab, &host, &file(&lab, "typos.toml", "rat = 5\n"));
    from.send(b"x").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(!run.has_ended());
    let (ended, lasted) = run.terminate();
    assert_at_once(lasted, &ended.exits(143));
}

/// What leaves from an address, but for neighbour discovery.
fn leaves_from(frame: &Frame, from: Ipv6Addr) -> bool {
    const ECHO_REPLY: u8 = 129;
    let body = frame.payload();
    is_sent(frame)
        && frame.ether_type() == IPV6
        && body[8..24] == from.octets()
        && (body[6] != 58 || body[40] <= ECHO_REPLY)
}

#[test]
fn neither_questions_nor_orders_leave_from_a_vip_of_another_instance() {
    const OTHER_VIP6: &str = "fd09::101";
    for state in ["MASTER", "BACKUP"] {
        let lab = Lab::new();
        let (a, b, peer) = (lab.host("a"), lab.host("b"), lab.host("peer"));
        let orders = Orders::new(&lab, &a);
        let peers = format!("peers = [\"{}\"]", peer.ipv6());
        let settings = orders.settings(&lab, "settings", &peers, "permanent = true");
        let _listens = listen(&peer, &settings, "");
        let instances =
            instance("VI_1", 51, 100, &[VIP6], "") + &instance("VI_2", 52, 100, &[OTHER_VIP6], "");
        let conf = file(&lab, "conf", &instances);
        let owner = if state == "MASTER" { &a } else { &b };
        give(owner, VIP6, "eth0");
        // The kernel lists it before the host's own address, which is older.
        a.run(&format!("ip addr add {OTHER_VIP6}/64 dev eth0 nodad"));
        peer.remember_as(VIP6, OLD_MAC, State::Permanent);
        let capture = a.capture();
        let event = format!(
            "--config {} notify INSTANCE VI_1 {state} 100",
            settings.display()
        );
        run(&a, &with(&conf, &event)).exits(0);
        wait_until_followed([&peer], &[VIP6], owner.mac());
        let sent = capture.frames();
        let own = sent.iter().filter(|frame| leaves_from(frame, a.ipv6()));
        assert!(own.count() > 0, "{state}: {sent:?}");
        let foreign = OTHER_VIP6.parse().unwrap();
        let foreign = sent.iter().filter(|frame| leaves_from(frame, foreign));
        assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&Frame>::new(), "{state}");
    }
}
