//! What the hook makes of keepalived's events: by itself, and run by the real keepalived with
//! nothing else wired.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use vipherald_lab::{Host, Keepalived, Lab, eventually};

use common::{
    OLD_MAC, Run, SOON, VIP, VIP6, assert_followed, give, heard, old_mac, peer_in, remember_old,
    run, signal, vipherald, wait_until_followed, watch_for, without_privilege,
};
use events::{file, hook, instance, sent_for, wait_for_frame, with};

const OTHER_VIP: &str = "10.9.0.101";

// The hook by itself.

#[test]
fn master_without_the_vip_announces_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let capture = a.capture();
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 MASTER 100")).exits(5);
    ended.logs(VIP);
    assert_eq!(sent_for(&capture.frames(), VIP), []);
}

#[test]
fn backup_with_the_vip_purges_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    give(&a, VIP, "eth0");
    a.remember(VIP, OLD_MAC);
    for state in ["BACKUP", "FAULT", "STOP", "DELETED"] {
        let ended = run(&a, &with(&conf, &format!("notify INSTANCE VI_1 {state} 0"))).exits(5);
        ended.logs("held here");
        assert_eq!(a.cached(VIP), Some(old_mac()));
    }
}

#[test]
fn every_state_without_the_vip_purges_it_and_nothing_else() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    for state in ["BACKUP", "FAULT", "STOP", "DELETED"] {
        remember_old([&a], &[VIP, OTHER_VIP]);
        run(&a, &with(&conf, &format!("notify INSTANCE VI_1 {state} 0"))).exits(0);
        assert_eq!(a.neighbour(VIP), None);
        assert_followed([&a], &[OTHER_VIP], old_mac());
    }
}

#[test]
fn master_and_a_healed_split_brain_are_announced() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    give(&a, VIP, "eth0");
    for state in ["MASTER", "MASTER_RX_LOWER_PRI"] {
        remember_old([&b], &[VIP]);
        let arguments = with(&conf, &format!("notify INSTANCE VI_1 {state} 100"));
        let run = Run::start(vipherald(&a, &arguments));
        wait_until_followed([&b], &[VIP], a.mac());
        run.goes_on();
    }
}

#[test]
fn other_states_do_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(
        &lab,
        "conf",
        &instance("VI_1", 51, 100, &[VIP, OTHER_VIP], ""),
    );
    give(&a, VIP, "eth0");
    a.remember(OTHER_VIP, OLD_MAC);
    let capture = a.capture();
    for state in ["MASTER_PRIORITY", "BACKUP_PRIORITY"] {
        let arguments = with(&conf, &format!("notify INSTANCE VI_1 {state} 100"));
        let ended = run(&a, &arguments);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
        let ended = run(&a, &format!("-v {arguments}"));
        ended.logs(state);
    }
    for state in ["A_NEW_STATE", "MASTER_RX_LOWER_PRIO", "master", "INIT", ""] {
        let mut command = vipherald(&a, &with(&conf, "notify INSTANCE VI_1"));
        command.args([state, "100"]);
        let ended = Run::start(command).end().exits(2);
        let told = format!("warning: VI_1: keepalived knows no state {state}: ");
        assert!(ended.stderr.starts_with(&told), "{ended:?}");
        ended.logs("FAULT, STOP, DELETED");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    assert_eq!(sent_for(&capture.frames(), VIP), []);
    assert_eq!(a.cached(OTHER_VIP), Some(old_mac()));
}

#[test]
fn a_typo_in_the_settings_does_not_turn_the_hooks_off() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let peers = [&b];
    give(&a, VIP, "eth0");
    let fifo = lab.directory().join("fifo.toml");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    // Wrong lines are dropped with a warning; right ones hold, here the end after 1 s.
    let typos = "rates = 10\nrate = \"fast\"\ntimeout = 1\n";
    let no_toml = "timeout = 1\nrate 10\n";
    for (settings, told) in [
        (file(&lab, "typos.toml", typos), ":1: unknown field `rates`"),
        (file(&lab, "no.toml", no_toml), ":2: "),
    ] {
        remember_old(peers, &[VIP]);
        let place = settings.display();
        for command in [
            "notify INSTANCE VI_1 MASTER 100",
            "announce --lenient 10.9.0.100",
        ] {
            let arguments = with(&conf, &format!("--config {place} {command}"));
            let ended = run(&a, &arguments).exits(0);
            // The setting is a time: all rounds take 10 s.
            assert!(ended.lasted < Duration::from_secs(5), "{ended:?}");
            let first = ended.stderr.lines().next().unwrap_or_default();
            let start = format!("warning: {place}{told}");
            assert!(first.starts_with(&start), "{ended:?}");
        }
        assert_followed(peers, &[VIP], a.mac());
        // People can mend it.
        for command in [
            "announce 10.9.0.100",
            "purge 10.9.0.101",
            "check 10.9.0.101",
        ] {
            run(&a, &with(&conf, &format!("--config {place} {command}"))).exits(2);
        }
    }
    let typos = lab.directory().join("typos.toml");
    let arguments = format!(
        "--config {} notify INSTANCE VI_1 MASTER 100",
        typos.display()
    );
    let ended = run(&a, &with(&conf, &arguments));
    ended.logs("default is used: rate = 2000");
    // One that can't be read at all.
    for settings in [
        lab.directory(),
        &fifo,
        Path::new("/dev/zero"),
        Path::new("/none"),
    ] {
        remember_old(peers, &[VIP]);
        let place = settings.display();
        let arguments = format!("--config {place} notify INSTANCE VI_1 MASTER 100");
        let hook = Run::start(vipherald(&a, &with(&conf, &arguments)));
        wait_until_followed(peers, &[VIP], a.mac());
        let ended = hook.goes_on();
        let told = format!("warning: cannot read the settings {place}: ");
        assert!(ended.stderr.starts_with(&told), "{ended:?}");
        ended.logs("the defaults are used");
        let purge = format!("--config {place} purge 10.9.0.101");
        run(&a, &with(&conf, &purge)).exits(2);
    }
}

#[test]
fn every_event_warns_of_a_missing_capability() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let without =
        |arguments: &str| Run::start(without_privilege(&lab, &a, &with(&conf, arguments))).end();
    // There is nothing to purge, so that nothing is refused.
    for (command, missing) in [
        (
            "notify INSTANCE VI_1 BACKUP 100",
            &["CAP_NET_ADMIN", "CAP_NET_RAW"][..],
        ),
        ("purge --instance VI_1", &["CAP_NET_ADMIN"]),
    ] {
        let ended = without(command).exits(0);
        let lines = ended.stderr.lines();
        let warnings: Vec<_> = lines.filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), missing.len(), "{ended:?}");
        for (warning, name) in warnings.iter().zip(missing) {
            assert!(warning.contains(&format!("no {name}")), "{ended:?}");
        }
    }
    // What fails says it once.
    give(&a, VIP, "eth0");
    let ended = without("notify INSTANCE VI_1 MASTER 100").exits(1);
    assert_eq!(
        ended.stderr.matches("no CAP_NET_RAW").count(),
        1,
        "{ended:?}"
    );
    ended.logs("no CAP_NET_ADMIN");
    // With all capabilities, there is no warning.
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 BACKUP 100"));
    ended.logs_no("CAP_");
}

#[test]
fn root_without_a_capability_learns_who_took_it() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    a.remember(OTHER_VIP, OLD_MAC);
    for (arguments, name) in [
        (["announce", VIP], "CAP_NET_RAW"),
        (["purge", OTHER_VIP], "CAP_NET_ADMIN"),
    ] {
        let mut command = a.command("setpriv");
        command
            .args(["--bounding-set=-net_raw,-net_admin", "--inh-caps=-all"])
            .arg(lab.install_hook(common::VIPHERALD))
            .args(["--log", "stderr"])
            .args(arguments);
        let command = heard(command);
        let ended = Run::start(command).end().exits(1);
        let told = format!("no {name}, though run as root");
        assert_eq!(ended.stderr.matches(&told).count(), 1, "{ended:?}");
        ended.logs("CapabilityBoundingSet");
        for wrong in ["script_user", "keepalived_script"] {
            ended.logs_no(wrong);
        }
    }
}

#[test]
fn an_unknown_instance_or_group_is_an_error_with_advice() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let hooks = "or name the VIPs in hooks of their own: `vipherald announce VIP…`";
    for (arguments, way_out) in [
        ("notify INSTANCE VI_2 MASTER 100", hooks),
        ("notify GROUP VI_2 BACKUP 0", hooks),
        (
            "announce --instance VI_2",
            "or pass the VIPs as arguments: `vipherald announce VIP…`",
        ),
        (
            "purge --instance VI_2",
            "or pass the VIPs as arguments: `vipherald purge VIP…`",
        ),
        (
            "check --instance VI_2",
            "or pass the VIPs as arguments: `vipherald check VIP…`",
        ),
        ("show --instance VI_2", "--keepalived-conf FILE\n"),
    ] {
        let ended = run(&a, &with(&conf, arguments)).exits(1);
        let told = &ended.stderr;
        let file = "(there is VI_1); if keepalived reads another file, name it by \
                    --keepalived-conf FILE";
        // There are no groups to name.
        let file = file.trim_start_matches(if arguments.contains("GROUP") {
            "(there is VI_1)"
        } else {
            ""
        });
        assert!(told.contains("VI_2") && told.contains(file), "{told}");
        assert!(told.contains(way_out), "{told}");
    }
    // In the right file, what is wrong with it has its line.
    let refused = file(
        &lab,
        "refused",
        "vrrp_instance VI_1 {\n  virtual_ipaddress {\n    $_RANDOM\n  }\n}\n",
    );
    for (command, way_out) in [
        (
            "purge --instance VI_1",
            "; pass the VIPs as arguments: `vipherald purge VIP…`\n",
        ),
        (
            "notify INSTANCE VI_1 MASTER 1",
            "; name the VIPs in hooks of their own: ",
        ),
        ("show --instance VI_1", "which only keepalived knows\n"),
    ] {
        let ended = run(&a, &with(&refused, command));
        ended.logs("refused:3: vrrp_instance VI_1: depends on");
        ended.logs(way_out);
        ended.logs_no("--keepalived-conf");
    }
    let missing = run(&a, "--keepalived-conf /none release --all").exits(1);
    assert!(
        missing.stderr.contains("can't read /none: ")
            && missing.stderr.ends_with("--keepalived-conf FILE\n"),
        "{missing:?}"
    );
    run(&a, &with(&conf, "notify instance VI_1 MASTER 100")).exits(2);
}

#[test]
fn a_group_acts_for_its_members() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let third = "10.9.0.102";
    let text = "vrrp_sync_group G {\n group {\n VI_1\n VI_2\n }\n}\n".to_owned()
        + &instance("VI_1", 51, 100, &[VIP], "")
        + &instance("VI_2", 52, 100, &[OTHER_VIP], "")
        + &instance("VI_3", 53, 100, &[third], "");
    let conf = file(&lab, "conf", &text);
    let peers = [&b];
    for vip in [VIP, OTHER_VIP, third] {
        give(&a, vip, "eth0");
    }
    remember_old(peers, &[VIP, OTHER_VIP, third]);
    let master = Run::start(vipherald(&a, &with(&conf, "notify GROUP G MASTER 0")));
    wait_until_followed(peers, &[VIP, OTHER_VIP], a.mac());
    assert_followed(peers, &[third], old_mac());
    master.goes_on();

    remember_old(peers, &[VIP, OTHER_VIP, third]);
    run(&b, &with(&conf, "notify GROUP G BACKUP 0")).exits(0);
    let left = [VIP, OTHER_VIP, third].map(|vip| b.cached(vip));
    assert_eq!(left, [None, None, Some(old_mac())]);
}

#[test]
fn a_vip_on_the_loopback_is_left_out() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let vips = [VIP, &format!("{OTHER_VIP}/32 dev lo")];
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &vips, ""));
    give(&a, VIP, "eth0");
    give(&a, OTHER_VIP, "lo");
    remember_old([&b], &[VIP]);
    let capture = a.capture();
    let settings = file(&lab, "settings.toml", "timeout = 2\n");
    let arguments = format!(
        "--config {} notify INSTANCE VI_1 MASTER 100",
        settings.display()
    );
    run(&a, &with(&conf, &arguments)).exits(0);
    assert_followed([&b], &[VIP], a.mac());
    assert_eq!(sent_for(&capture.frames(), OTHER_VIP), []);
}

#[test]
fn an_instance_names_its_vips_and_its_peers() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let more = format!(
        "unicast_peer {{\n {}\n 10.9.0.99\n }}\n virtual_ipaddress_excluded {{\n {OTHER_VIP}\n }}",
        b.ipv4()
    );
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], &more));
    give(&a, VIP, "eth0");
    give(&a, OTHER_VIP, "eth0");
    remember_old([&b], &[VIP, OTHER_VIP]);
    let announce = "--json announce --instance VI_1 --timeout 3";
    let ended = run(&a, &with(&conf, announce));
    // Nobody has the second peer's address.
    assert_eq!(ended.status, 3, "{ended:?}");
    assert_followed([&b], &[VIP, OTHER_VIP], a.mac());
    let report = ended.report();
    assert_eq!(report["instance"], "VI_1");
    for vip in [VIP, OTHER_VIP] {
        for (peer, verdict) in [(b.ipv4(), "proven"), ([10, 9, 0, 99].into(), "silent")] {
            let told = peer_in(&report, vip, peer);
            assert_eq!(told["verdict"], verdict, "{report:#}");
            assert_eq!(told["source"], "configured", "{report:#}");
            assert_eq!(told["required"], true, "{report:#}");
        }
    }

    remember_old([&b], &[VIP, OTHER_VIP]);
    run(&b, &with(&conf, "purge --instance VI_1")).exits(0);
    assert_eq!((b.neighbour(VIP), b.neighbour(OTHER_VIP)), (None, None));
}

#[test]
fn show_says_what_the_configuration_means() {
    let lab = Lab::new();
    let a = lab.host("a");
    let peers = "unicast_peer {\n 10.9.0.2\n }";
    let text = instance("VI_1", 51, 100, &["10.9.0.100/24"], peers)
        + &instance("VI_2", 52, 100, &["10.9.0.101/32 dev lo"], "")
        + "vrrp_sync_group G {\n group {\n VI_1\n VI_2\n }\n}\n";
    let conf = file(&lab, "conf", &text);
    let shown = |arguments: &str| {
        let ended = run(&a, &with(&conf, arguments)).exits(0);
        ended.stdout
    };
    let vip = |address: &str, prefix_len: u8, dev: &str| json!([{ "address": address, "prefix_len": prefix_len, "dev": dev }]);
    let one = json!({
        "name": "VI_1", "interface": "eth0", "vmac": null, "virtual_router_id": 51,
        "vips": vip("10.9.0.100", 24, "eth0"), "excluded": [], "peers": ["10.9.0.2"], "wired": [],
        "ignored": [],
    });
    let two = json!({
        "name": "VI_2", "interface": "eth0", "vmac": null, "virtual_router_id": 52,
        "vips": vip("10.9.0.101", 32, "lo"), "excluded": [], "peers": [], "wired": [],
        "ignored": [],
    });
    let parsed = |arguments| serde_json::from_str::<Value>(&shown(arguments)).unwrap();
    let groups = json!([{ "name": "G", "instances": ["VI_1", "VI_2"] }]);
    assert_eq!(
        parsed("show --json"),
        json!({ "instances": [one, two], "groups": groups, "refused": [], "warnings": [] })
    );
    assert_eq!(
        parsed("show --json --instance VI_2"),
        json!({ "instances": [two], "groups": [], "refused": [], "warnings": [] })
    );
    let text = shown("show");
    for part in [
        "VI_1",
        "eth0",
        "10.9.0.100/24",
        "10.9.0.101/32 dev lo",
        "G: VI_1, VI_2",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!shown("show --instance VI_1").contains("10.9.0.101"));
}

// Run by the real keepalived.

/// How `keepalived.conf` calls the hook; the rest of the file follows from it.
struct Wiring {
    hook: String,
    /// The whole configuration of a host, given how it calls `vipherald`, its priority and VIPs.
    configuration: fn(call: &Calls, priority: u8, vips: &[&str]) -> String,
}

/// What a configuration calls.
struct Calls {
    /// `vipherald` with the options it needs, for a subcommand to follow.
    vipherald: String,
    /// Where this host's FIFO is to be.
    fifo: PathBuf,
}

impl Calls {
    fn fifo_globals(&self) -> String {
        format!(
            "global_defs {{\n notify_fifo {}\n notify_fifo_script \"{} fifo\"\n}}\n",
            self.fifo.display(),
            self.vipherald
        )
    }
}

impl Wiring {
    /// Writes the configuration to where the hook reads it, too.
    fn configuration(&self, lab: &Lab, host: &Host, priority: u8, vips: &[&str]) -> String {
        let conf = lab.directory().join(format!("{}.conf", host.name()));
        let call = Calls {
            vipherald: format!("{} --keepalived-conf {}", self.hook, conf.display()),
            fifo: lab.directory().join(format!("{}.fifo", host.name())),
        };
        let text = (self.configuration)(&call, priority, vips);
        fs::write(&conf, &text).unwrap();
        text
    }
}

fn by_instance(call: &Calls, priority: u8, vips: &[&str]) -> String {
    let notify = format!("notify \"{} notify\"", call.vipherald);
    instance("VI_1", 51, priority, vips, &notify)
}

fn by_group(call: &Calls, priority: u8, vips: &[&str]) -> String {
    let (first, others) = vips.split_at(1);
    format!(
        "vrrp_sync_group G {{\n group {{\n VI_1\n VI_2\n }}\n notify \"{} notify\"\n}}\n",
        call.vipherald
    ) + &instance("VI_1", 51, priority, first, "")
        + &instance("VI_2", 52, priority, others, "")
}

fn by_fifo(call: &Calls, priority: u8, vips: &[&str]) -> String {
    call.fifo_globals() + &instance("VI_1", 51, priority, vips, "")
}

fn started(host: &Host, configuration: &str, state: &str) -> Keepalived {
    let mut keepalived = host.keepalived(configuration);
    keepalived.wait_for_state("VI_1", state, SOON);
    keepalived
}

/// A peer that ignores keepalived's own announcements: nothing but a request to itself, which
/// only `vipherald` sends, makes it follow.
fn deaf_peer(lab: &Lab, others: [&Host; 2]) -> Host {
    let peer = lab.host("peer");
    peer.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    for other in others {
        // They know it.
        other.run(&format!("ping -c 1 -W 5 {}", peer.ipv4()));
    }
    peer
}

/// Two failovers, a reload that adds a VIP, and two more: one of them is a restart.
fn failovers_are_followed(configuration: fn(&Calls, u8, &[&str]) -> String, vips: &[&str]) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peer = deaf_peer(&lab, [&a, &b]);
    let peers = [&peer];
    let wiring = Wiring {
        hook: hook(&lab),
        configuration,
    };

    // Without a hook, the peer does not follow.
    remember_old(peers, vips);
    let mut unwired = started(&b, &instance("VI_1", 51, 100, vips, ""), "MASTER");
    watch_for(Duration::from_millis(500));
    assert_followed(peers, vips, old_mac());
    unwired.stop();

    let mut kb = started(&b, &wiring.configuration(&lab, &b, 100, vips), "MASTER");
    wait_until_followed(peers, vips, b.mac());
    // What b remembers, when a takes over, it forgets.
    b.remember(vips[0], OLD_MAC);
    let forgets = b.watch_neighbours();
    let mut ka = started(&a, &wiring.configuration(&lab, &a, 200, vips), "MASTER");
    wait_until_followed(peers, vips, a.mac());
    let first: IpAddr = vips[0].parse().unwrap();
    let forgot = forgets.wait_for(SOON, |event| event.gone && event.neighbour.ip == first);
    assert!(forgot.is_some(), "b remembers {first}");

    let more: Vec<_> = vips.iter().copied().chain(["10.9.0.110"]).collect();
    kb.reload(&wiring.configuration(&lab, &b, 100, &more));
    ka.reload(&wiring.configuration(&lab, &a, 200, &more));
    remember_old(peers, &more[vips.len()..]);
    assert!(ka.stop().success());
    wait_until_followed(peers, &more, b.mac());

    let mut ka = started(&a, &wiring.configuration(&lab, &a, 200, &more), "MASTER");
    wait_until_followed(peers, &more, a.mac());
    assert!(kb.stop().success() && ka.stop().success());
}

#[test]
fn instance_failovers_are_followed() {
    failovers_are_followed(by_instance, &[VIP]);
}

#[test]
fn sync_group_failovers_are_followed() {
    failovers_are_followed(by_group, &[VIP, OTHER_VIP]);
}

#[test]
fn failovers_are_followed_through_the_fifo() {
    failovers_are_followed(by_fifo, &[VIP]);
}

/// Three instances of two families, each with what `more` says.
fn three_instances(more: &str) -> String {
    instance("VI_1", 51, 100, &[VIP], more)
        + &instance("VI_2", 52, 100, &[OTHER_VIP], more)
        + &instance("VI_6", 53, 100, &[VIP6], more)
}

fn three_by_notify(call: &Calls, _: u8, more: &[&str]) -> String {
    let notify = format!("notify \"{} notify\"", call.vipherald);
    three_instances(&notify) + &more.concat()
}

fn three_by_fifo(call: &Calls, _: u8, more: &[&str]) -> String {
    call.fifo_globals() + &three_instances("") + &more.concat()
}

/// keepalived reloads while the owner's switch port drops everything; then the port comes alive.
fn a_reload_in_mid_announcement_loses_nothing(configuration: fn(&Calls, u8, &[&str]) -> String) {
    const VIPS: [&str; 3] = [VIP, OTHER_VIP, VIP6];
    let lab = Lab::new();
    let (a, peer) = (lab.host("a"), lab.host("peer"));
    // Deaf to keepalived's own announcements, which it repeats.
    peer.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    peer.sysctl("net/ipv6/conf/eth0/drop_unsolicited_na", "1");
    let peers = [&peer];
    remember_old(peers, &VIPS);
    let named = format!("peers = [\"{}\", \"{}\"]\n", peer.ipv4(), peer.ipv6());
    let settings = file(&lab, "settings.toml", &named);
    let wiring = Wiring {
        hook: format!("{} --config {}", hook(&lab), settings.display()),
        configuration,
    };
    lab.blackout(&a);
    let conf = wiring.configuration(&lab, &a, 100, &[]);
    let mut keepalived = started(&a, &conf, "MASTER");
    for name in ["VI_2", "VI_6"] {
        keepalived.wait_for_state(name, "MASTER", SOON);
    }
    watch_for(Duration::from_millis(1500));
    keepalived.reload(&conf);
    // And once more, before the new reader has begun.
    keepalived.reload(&conf);
    watch_for(Duration::from_secs(4));
    assert_followed(peers, &VIPS, old_mac());
    lab.restore(&a);
    wait_until_followed(peers, &VIPS, a.mac());
    assert!(keepalived.stop().success());
}

#[test]
fn a_reload_in_mid_announcement_loses_nothing_by_notify() {
    a_reload_in_mid_announcement_loses_nothing(three_by_notify);
}

#[test]
fn a_reload_in_mid_announcement_loses_nothing_by_fifo() {
    a_reload_in_mid_announcement_loses_nothing(three_by_fifo);
}

#[test]
fn what_a_reload_adds_is_announced_by_fifo() {
    let lab = Lab::new();
    let a = lab.host("a");
    let added = ["10.9.0.110", "10.9.0.111", "fd09::110"];
    let peer = deaf_peer(&lab, [&a, &a]);
    peer.sysctl("net/ipv6/conf/eth0/drop_unsolicited_na", "1");
    // It knows it by this family, too.
    a.run(&format!("ping -c 1 -W 5 {}", peer.ipv6()));
    let peers = [&peer];
    let wiring = Wiring {
        hook: hook(&lab),
        configuration: three_by_fifo,
    };
    let mut keepalived = started(&a, &wiring.configuration(&lab, &a, 100, &[]), "MASTER");
    wait_until_followed(peers, &[VIP, OTHER_VIP], a.mac());
    remember_old(peers, &added);
    // A VIP of each family for an instance that is master.
    let conf = wiring
        .configuration(&lab, &a, 100, &[])
        .replace(&format!("{VIP}\n"), &format!("{VIP}\n  {}\n", added[0]))
        .replace(&format!("{VIP6}\n"), &format!("{VIP6}\n  {}\n", added[2]))
        .replace(OTHER_VIP, &format!("{OTHER_VIP}\n  {}", added[1]));
    fs::write(lab.directory().join("a.conf"), &conf).unwrap();
    keepalived.reload(&conf);
    wait_until_followed(peers, &added, a.mac());
    assert!(keepalived.stop().success());
}

/// keepalived in a mount namespace of its own, whose `/dev/log` is a socket of this test, and
/// whose users include `keepalived_script`.
struct Installed {
    run: Run,
    directory: PathBuf,
    hook: String,
    syslog: UnixDatagram,
}

impl Installed {
    fn start(lab: &Lab, host: &Host, user: &str, mode: u32) -> Self {
        const SCRIPT: &str = r#"
            set -e
            cd "$1"
            mkdir dev
            mount -t tmpfs dev dev
            for node in null zero full random urandom tty; do
                touch dev/$node
                mount --bind /dev/$node dev/$node
            done
            ln -s "$1/syslog" dev/log
            mount --rbind dev /dev
            for file in passwd group; do mount --bind $file /etc/$file; done
            shift
            exec "$@""#;
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        assert!(
            map.split_whitespace().eq(["0", "0", "4294967295"]),
            "there is no other user in this namespace: run this test as the real root"
        );
        let directory = lab.directory().to_owned();
        let hook = hook(lab);
        let syslog = UnixDatagram::bind(directory.join("syslog")).unwrap();
        let everybody = fs::Permissions::from_mode(0o666);
        fs::set_permissions(directory.join("syslog"), everybody).unwrap();
        for (file_, entry) in [
            (
                "passwd",
                "keepalived_script:x:64123:64123::/nonexistent:/bin/false",
            ),
            ("group", "keepalived_script:x:64123:"),
        ] {
            let text = fs::read_to_string(Path::new("/etc").join(file_)).unwrap();
            file(lab, file_, &format!("{text}{entry}\n"));
        }
        let conf = directory.join("keepalived.conf");
        let notify = format!(
            "notify \"{hook} --keepalived-conf {} notify\"",
            conf.display()
        );
        let text = format!(
            "global_defs {{\n enable_script_security\n {user}\n}}\n{}",
            instance("VI_1", 51, 100, &[VIP], &notify)
        );
        fs::write(&conf, text).unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(mode)).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut command = host.command("unshare");
        command
            .args(["--mount", "sh", "-c", SCRIPT, "sh"])
            .arg(&directory)
            .args(["keepalived", "--dont-fork", "--log-console", "--log-detail"])
            .args(["--no-syslog", "--vrrp", "--use-file"])
            .arg(&conf)
            .arg("--pid")
            .arg(directory.join("pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("vrrp.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self {
            run: Run::start(command),
            directory,
            hook,
            syslog,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// Waits for a message of the hook.
    fn wait_for_message(&self, part: &str) -> String {
        self.syslog.set_read_timeout(Some(SOON)).unwrap();
        let mut octets = [0; 4096];
        loop {
            let length = self
                .syslog
                .recv(&mut octets)
                .unwrap_or_else(|e| panic!("no message with {part:?}: {e}; {}", self.log()));
            let message = String::from_utf8_lossy(&octets[..length]).into_owned();
            if message.contains(part) {
                return message;
            }
        }
    }

    /// The processes of the hook that run now.
    fn hooks(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            // Not by `exe`, whose path a chroot and another mount namespace change.
            let command_line = fs::read_to_string(entry.path().join("cmdline"));
            command_line.is_ok_and(|line| line.split('\0').next() == Some(self.hook.as_str()))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
    }
}

#[test]
fn under_keepalived_the_hook_works_as_root_and_ends_with_it() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peer = deaf_peer(&lab, [&a, &b]);
    remember_old([&peer], &[VIP]);
    let capture = a.capture();
    let installed = Installed::start(&lab, &a, "script_user root", 0o600);
    wait_until_followed([&peer], &[VIP], a.mac());
    wait_for_frame(&capture, VIP);
    // That of BACKUP, which looked who still sends here, has ended.
    let hook = eventually("one hook", SOON, || match installed.hooks()[..] {
        [hook] => Some(hook),
        _ => None,
    });
    // The hook runs as keepalived runs hooks.
    let proc = Path::new("/proc").join(hook.to_string());
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("Umask:\t0177"), "{status}");
    for fd in ["0", "1", "2"] {
        let open = fs::read_link(proc.join("fd").join(fd)).unwrap();
        assert!(open.ends_with("null"), "{fd}: {open:?}");
    }
    let command_line = fs::read_to_string(proc.join("cmdline")).unwrap();
    assert!(
        command_line.starts_with(&format!("{}\0", installed.hook)),
        "{command_line:?}"
    );

    // keepalived dies; nobody is to start it again.
    let vrrp = fs::read_to_string(installed.directory.join("vrrp.pid")).unwrap();
    signal(installed.run.pid(), Signal::SIGSTOP);
    let killed = Instant::now();
    signal(vrrp.trim().parse().unwrap(), Signal::SIGKILL);
    eventually("the hook ends", SOON, || {
        installed.hooks().is_empty().then_some(())
    });
    let lasted = killed.elapsed();
    println!("from keepalived's death to the hook's: {lasted:?}");
    // By itself it would have gone on to the end of the rounds, for some 10 s.
    assert!(lasted < Duration::from_secs(5), "{lasted:?}");
    let message = installed.wait_for_message(&format!("{VIP} announced on eth0"));
    assert!(
        message.contains(&format!("vipherald[{hook}]: ")),
        "{message}"
    );
    signal(installed.run.pid(), Signal::SIGKILL);
    installed.run.end();
}

#[test]
fn an_unprivileged_hook_logs_what_to_change() {
    for (mode, causes) in [
        // The one for the initial BACKUP, and the one for MASTER.
        (0o644, &["no CAP_NET_ADMIN", "no CAP_NET_RAW"][..]),
        (0o600, &["Permission denied"]),
    ] {
        let lab = Lab::new();
        let a = lab.host("a");
        a.remember(VIP, OLD_MAC);
        // No script_user: keepalived takes the user of its default name, if there is one.
        let installed = Installed::start(&lab, &a, "", mode);
        for cause in causes {
            let message = installed.wait_for_message(cause);
            assert!(
                message.contains("set `script_user root`"),
                "{mode:o}: {message}"
            );
        }
    }
}

// The user's own script, beside.

/// A script that writes down what it was run with: the words, and what it inherited.
fn own_script(lab: &Lab, name: &str) -> (PathBuf, PathBuf) {
    let told = lab.directory().join(format!("{name}.told"));
    let body = format!(
        "{{ echo \"$@\"; umask; ulimit -n\n\
         while read -r line; do case $line in Sig[BI]*) echo \"$line\" ;; esac; done </proc/$$/status\n\
         for fd in /proc/$$/fd/*; do echo \"${{fd##*/}}\"; done\n\
         env | grep -v ^_= | sort; cut -d' ' -f5 /proc/$$/stat; }} >{told}.part\n\
         mv {told}.part {told}\nexit 7",
        told = told.display()
    );
    (lab.write_hook(name, &body), told)
}

#[test]
fn the_users_script_runs_after_the_first_round_as_keepalived_would_run_it() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.remember(b.ipv4(), b.mac());
    let program = hook(&lab);
    let conf = lab.directory().join("a.conf");
    let settings = file(&lab, "settings", "timeout = 9\n");
    let (beside, told_beside) = own_script(&lab, "beside");
    let (then, told_then) = own_script(&lab, "then");
    let notify = format!(
        "notify_master \"{} x --y INSTANCE VI_1 MASTER 100\"\n \
         notify \"{program} --keepalived-conf {} --config {} notify --then {} x --y\"",
        beside.display(),
        conf.display(),
        settings.display(),
        then.display()
    );
    let text = instance("VI_1", 51, 100, &[VIP], &notify);
    fs::write(&conf, &text).unwrap();
    let capture = a.capture();
    let mut keepalived = a.keepalived(&text);
    // Its first state is BACKUP.
    let told = |what: &str| {
        eventually(what, SOON, || {
            let text = fs::read_to_string(&told_then).ok()?;
            text.contains(what).then_some(text)
        })
    };
    told("x --y INSTANCE VI_1 BACKUP 100");
    keepalived.wait_for_state("VI_1", "MASTER", SOON);
    let then = told("x --y INSTANCE VI_1 MASTER 100");
    let modified = fs::metadata(&told_then).unwrap().modified().unwrap();
    let frame = wait_for_frame(&capture, VIP);
    assert!(frame.time <= modified, "a frame left first");
    // The announcement goes on.
    assert!(modified.elapsed().unwrap() < Duration::from_secs(8));
    let beside = eventually("keepalived runs the other", SOON, || {
        fs::read_to_string(&told_beside).ok()
    });
    // All but the process group, which is a number of its own.
    let inherited = |text: &str| text.trim_end().rsplit_once('\n').unwrap().0.to_owned();
    assert_eq!(inherited(&then), inherited(&beside));
}

#[test]
fn the_users_script_runs_whatever_happens_and_changes_no_exit_status() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let (then, told) = own_script(&lab, "then");
    let then = then.display();
    for (event, status) in [
        ("INSTANCE VI_1 MASTER 100", 5),
        ("INSTANCE VI_1 BACKUP 100", 0),
        ("INSTANCE VI_1 MASTER_PRIORITY 100", 0),
        ("INSTANCE VI_1 MISSPELT 100", 2),
        ("INSTANCE VI_7 MASTER 100", 1),
        ("GROUP VG_7 MASTER 0", 1),
    ] {
        let arguments = with(&conf, &format!("notify --then {then} a {event}"));
        run(&a, &arguments).exits(status);
        eventually(event, SOON, || {
            let text = fs::read_to_string(&told).ok()?;
            text.starts_with(&format!("a {event}\n")).then_some(())
        });
        fs::remove_file(&told).unwrap();
    }
    // In a hook that keepalived appends nothing to, the event may stand first.
    let yielded = format!("notify INSTANCE VI_1 MASTER_RX_LOWER_PRI --then {then}");
    run(&a, &with(&conf, &yielded)).exits(5);
    eventually("the script is run", SOON, || {
        let text = fs::read_to_string(&told).ok()?;
        text.starts_with("INSTANCE VI_1 MASTER_RX_LOWER_PRI\n")
            .then_some(())
    });
    fs::remove_file(&told).unwrap();
    let dry = with(
        &conf,
        &format!("--dry-run notify --then {then} INSTANCE VI_1 BACKUP 100"),
    );
    run(&a, &dry).exits(0).logs("would be run");
    assert!(!told.exists());
    let missing = with(
        &conf,
        "notify --then /nowhere/script INSTANCE VI_1 BACKUP 100",
    );
    run(&a, &missing)
        .exits(0)
        .logs("cannot run /nowhere/script: ");
}

#[test]
fn nobody_waits_for_the_users_script() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let pid = lab.directory().join("pid");
    let slow = lab.write_hook(
        "slow",
        &format!(
            "echo $$ > {}\nexec sleep 600 >/dev/null 2>&1",
            pid.display()
        ),
    );
    let arguments = with(
        &conf,
        &format!("notify --then {} INSTANCE VI_1 BACKUP 100", slow.display()),
    );
    let ended = run(&a, &arguments).exits(0);
    assert!(ended.lasted < Duration::from_secs(60), "{ended:?}");
    let pid = eventually("it runs", SOON, || {
        fs::read_to_string(&pid).ok()?.trim().parse().ok()
    });
    signal(pid, Signal::SIGKILL);
}
