//! What the documentation shows is what the program does: its JSON, its reports, its lines for a shell
//! and its pieces of configuration.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod orders;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use vipherald_lab::{Host, Lab, eventually};

use common::docs::{block, doc, fenced, line};
use common::{OLD_MAC, SOON, VIPHERALD, run};
use events::{file, with};
use orders::{Orders, listen};

const INSTALLED: &str = "/usr/libexec/keepalived/vipherald";
const JSON: &str = "docs/json.md";
const VIP: &str = "192.0.2.10";
/// What differs from run to run.
const MEASURED: [&str; 8] = [
    "after_ms",
    "asked",
    "broadcasts",
    "duration_ms",
    "frames_sent",
    "proven_after_ms",
    "skew_ms",
    "time",
];

/// A host of the documents: with this address, and with that MAC if there is one.
fn host(lab: &Lab, address: &str, mac: &str) -> Host {
    let host = lab.host(&format!("h{}", address.rsplit('.').next().unwrap()));
    host.run("ip -4 address flush dev eth0");
    if !mac.is_empty() {
        host.run(&format!("ip link set eth0 address {mac}"));
    }
    host.run(&format!("ip address add {address}/24 dev eth0"));
    host
}

/// The host 192.0.2.NUMBER, whose MAC ends in that number.
fn numbered(lab: &Lab, number: u8) -> Host {
    host(lab, &format!("192.0.2.{number}"), &mac(number))
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02}")
}

/// Gives a host the VIP as keepalived does.
fn holds(host: &Host) {
    host.run(&format!("ip address add {VIP}/24 dev eth0"));
}

fn instance(more: &str) -> String {
    format!(
        "vrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n \
         virtual_ipaddress {{\n {VIP}/24\n }}\n{more}\n}}\n"
    )
}

/// The object of docs/json.md with this value.
fn shown(key: &str, value: &str) -> Value {
    let objects = fenced(&doc(JSON));
    let mut objects = objects
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap());
    objects.find(|object| object[key] == value).unwrap()
}

/// The same fields with the same values, but for what was measured.
#[track_caller]
fn assert_alike(shown: &Value, printed: &Value) {
    fn masked(value: &Value) -> Value {
        match value {
            Value::Array(all) => all.iter().map(masked).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    let measured = MEASURED.contains(&key.as_str()) && !value.is_null();
                    let value = if measured {
                        Value::from("measured")
                    } else {
                        masked(value)
                    };
                    (key.clone(), value)
                })
                .collect(),
            value => value.clone(),
        }
    }
    assert_eq!(masked(shown), masked(printed), "{shown:#}\n{printed:#}");
}

#[test]
fn the_json_of_announce_is_as_shown() {
    let lab = Lab::new();
    let (one, two) = (numbered(&lab, 1), numbered(&lab, 2));
    let peers = " unicast_peer {\n 192.0.2.2\n 192.0.2.3\n }";
    let conf = file(&lab, "keepalived.conf", &instance(peers));
    let orders = Orders::new(&lab, &one);
    let settings = orders.settings(&lab, "settings", "", "");
    let _listening = listen(&two, &settings, "");
    two.remember(VIP, mac(1));
    holds(&one);
    let announce = format!(
        "--config {} announce --instance VI_1 --timeout 12 --json",
        settings.display()
    );
    let printed = run(&one, &with(&conf, &announce)).exits(3).report();
    assert_alike(&shown("command", "announce"), &printed);
}

#[test]
fn the_json_of_purge_and_of_history_is_as_shown() {
    let lab = Lab::new();
    let two = numbered(&lab, 2);
    let state = lab.directory().join("state");
    let text = format!("history_dir = \"{}\"\n", state.display());
    let settings = file(&lab, "settings", &text);
    two.remember(VIP, mac(9));
    let with_settings = |more: &str| format!("--config {} {more}", settings.display());
    let purge = run(&two, &with_settings(&format!("purge {VIP} --json"))).exits(0);
    assert_alike(&shown("command", "purge"), &purge.report());
    let history = run(&two, &with_settings("history --last 1 --json")).exits(0);
    assert_alike(&shown("command", "history"), &history.report());
}

#[test]
fn the_json_of_check_is_as_shown() {
    let lab = Lab::new();
    let (one, two) = (numbered(&lab, 1), numbered(&lab, 2));
    holds(&one);
    two.remember("192.0.2.1", mac(1));
    two.remember(VIP, mac(9));
    let printed = run(&two, &format!("check {VIP} --json")).exits(3).report();
    assert_alike(&shown("command", "check"), &printed);
}

/// With the settings and the firewall's rule of docs/orders.md.
#[test]
fn the_json_of_order_is_as_shown_and_orders_md_lets_it_through() {
    const ORDERS: &str = "docs/orders.md";
    let lab = Lab::new();
    let (two, three) = (numbered(&lab, 2), numbered(&lab, 3));
    let orders = Orders::new(&lab, &two);
    let text = block(ORDERS, "[orders]\n");
    let own = orders.key.to_str().unwrap();
    let settings = file(
        &lab,
        "settings",
        &text.replace("/etc/vipherald/orders.key", own),
    );
    holds(&two);
    three.nft(
        "add table inet filter\n\
         add chain inet filter input { type filter hook input priority 0; policy drop; }\n",
    );
    let _listening = listen(&three, &settings, "");
    let order = format!(
        "--config {} order {VIP} -p 192.0.2.3 --json",
        settings.display()
    );
    three.remember(VIP, mac(1));
    let refused = run(&two, &format!("{order} --timeout 1"));
    assert_ne!(refused.status, 0, "{refused:?}");
    assert_eq!(three.cached(VIP).unwrap().to_string(), mac(1));
    three.run(block(ORDERS, "nft add rule").trim());
    let printed = run(&two, &order).exits(0).report();
    assert_alike(&shown("command", "order"), &printed);
}

#[test]
fn the_json_of_release_is_as_shown() {
    let lab = Lab::new();
    let one = numbered(&lab, 1);
    let conf = file(&lab, "keepalived.conf", &instance(""));
    holds(&one);
    let printed = run(&one, &with(&conf, "release --all --json")).exits(0);
    assert_alike(&shown("command", "release"), &printed.report());
}

#[test]
fn the_json_of_show_and_of_a_failure_is_as_shown() {
    let lab = Lab::new();
    let one = numbered(&lab, 1);
    let text = doc("examples/keepalived/dual-stack.conf");
    // The program is elsewhere here, where others may write.
    let text = text
        .replace(INSTALLED, VIPHERALD)
        .replace("enable_script_security", "");
    let conf = file(&lab, "dual-stack.conf", &text);
    let printed = run(&one, &with(&conf, "show --json")).exits(0).report();
    let objects = fenced(&doc(JSON));
    let mut objects = objects.iter();
    let text = objects.find(|text| text.contains("\"groups\":[")).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(text).unwrap());

    let conf = file(&lab, "keepalived.conf", &instance(""));
    let failed = run(&one, &with(&conf, "announce --instance VI_7 --json")).exits(1);
    assert_eq!(failed.report(), shown("result", "failed"));
}

/// The pages on what to do when something is wrong, in both languages.
const TROUBLESHOOTING: [&str; 2] = ["docs/troubleshooting.md", "docs/troubleshooting.zh-CN.md"];
const STORYS_VIP: &str = "10.24.69.222";
const MACS: [&str; 2] = ["b4:05:5d:7d:89:3a", "38:68:dd:4f:e7:e8"];

/// A host of the story, whose interface is a VLAN on a bond.
fn of_the_story(lab: &Lab, number: usize) -> Host {
    let address = format!("10.24.69.{number}");
    let host = host(lab, &address, MACS.get(number - 1).unwrap_or(&""));
    host.run("ip link set eth0 down");
    host.run("ip link set eth0 name bond0.169");
    host.run("ip link set bond0.169 up");
    host
}

fn has_storys_vip(host: &Host) {
    host.run(&format!("ip address add {STORYS_VIP}/24 dev bond0.169"));
}

fn knows(host: &Host, ip: &str, mac: &str, state: &str) {
    host.run(&format!(
        "ip neigh replace {ip} lladdr {mac} nud {state} dev bond0.169"
    ));
}

/// Runs a line of a document as a user does.
fn typed(host: &Host, line: &str) -> Output {
    let path = std::env::var("PATH").unwrap();
    let folder = VIPHERALD.rsplit_once('/').unwrap().0;
    let mut shell = host.command("sh");
    shell
        .args(["-c", line])
        .env("PATH", format!("{folder}:{path}"));
    shell.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn two_owners_are_reported_as_shown() {
    let lab = Lab::new();
    let hosts: Vec<_> = (1..=3).map(|number| of_the_story(&lab, number)).collect();
    for number in [1, 2] {
        has_storys_vip(&hosts[number - 1]);
        let address = format!("10.24.69.{number}");
        knows(&hosts[2], &address, MACS[number - 1], "reachable");
    }
    for name in TROUBLESHOOTING {
        knows(&hosts[2], STORYS_VIP, MACS[0], "stale");
        let told = typed(&hosts[2], &line(name, "vipherald check 10."));
        assert_eq!(told.status.code(), Some(4), "{told:?}");
        assert_eq!(text(&told), block(name, ": CONFLICT"), "{name}");
    }
}

#[test]
fn a_stale_host_is_reported_as_shown() {
    let lab = Lab::new();
    let owner = of_the_story(&lab, 2);
    has_storys_vip(&owner);
    for number in (1..=15).filter(|number| *number != 2) {
        let peer = of_the_story(&lab, number);
        let mac = peer.interface_mac("bond0.169").to_string();
        knows(&owner, &format!("10.24.69.{number}"), &mac, "reachable");
        if number == 3 {
            knows(&peer, STORYS_VIP, MACS[0], "permanent");
        }
    }
    let conf = instance("")
        .replace(VIP, STORYS_VIP)
        .replace("eth0", "bond0.169");
    let conf = file(&lab, "keepalived.conf", &conf);
    let with_conf = |line: &str| {
        let named = format!("vipherald --keepalived-conf {} check", conf.display());
        typed(&owner, &line.replace("vipherald check", &named))
    };
    for name in TROUBLESHOOTING {
        let shown = block(name, ": STALE");
        for line in [
            line(name, "vipherald check 10."),
            line(name, "vipherald check --all  "),
        ] {
            let told = with_conf(&line);
            assert_eq!(told.status.code(), Some(3), "{told:?}");
            assert_eq!(text(&told), shown, "{name}: {line}");
        }
        let stale = with_conf(&line(name, "vipherald check --all --json"));
        assert_eq!(text(&stale), format!("{STORYS_VIP}\n"), "{name}: {stale:?}");
        let told = with_conf(&line(name, "vipherald check --nagios"));
        assert_eq!(told.status.code(), Some(2), "{told:?}");
        assert!(text(&told).contains("CRITICAL"), "{told:?}");
    }
}

/// `make demo`: a node dies, and its clients follow or do not.
#[test]
fn who_follows_in_the_demo_is_as_the_readme_shows() {
    /// The words of a line, but for times and the number of vipherald's frames.
    fn unmeasured(line: &str) -> Vec<&str> {
        let is_time = |word: &str| word.contains('.') && word.parse::<f64>().is_ok();
        let words = line.split_whitespace();
        let mut words: Vec<_> = words.filter(|word| !is_time(word)).collect();
        if line.contains("ARP FRAMES") {
            words.pop();
        }
        words
    }
    let demo = Path::new(VIPHERALD).with_file_name("examples").join("demo");
    let told = Command::new(demo).arg(VIPHERALD).output();
    let told = text(&told.expect("`make test` builds the demo"));
    let shown = block("README.md", "WHO FOLLOWS");
    let shown: Vec<_> = shown.lines().map(unmeasured).collect();
    let printed: Vec<_> = told.lines().map(unmeasured).collect();
    assert!(
        printed.windows(shown.len()).any(|lines| lines == shown),
        "{told}"
    );
}

/// The second `notify` of an instance, on the lines that the README names.
#[test]
fn a_notify_that_keepalived_ignores_is_reported_as_the_readme_shows() {
    const ETC: &str = "/etc/keepalived/keepalived.conf";
    let lab = Lab::new();
    let one = numbered(&lab, 1);
    let own = lab.write_hook("own", "true");
    let notifies = format!(
        " notify \"{}\"\n\n\n\n notify \"{VIPHERALD} notify\"",
        own.display()
    );
    let conf = file(
        &lab,
        "keepalived.conf",
        &format!("\n{}", instance(&notifies)),
    );
    let told = run(&one, &with(&conf, "show")).exits(0);
    let told = (told.stdout + &told.stderr).replace(conf.to_str().unwrap(), ETC);
    for line in block("README.md", "wired not at all").lines() {
        assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    }
}

/// The READMEs' hooks of their own for each state, and those of a sync group.
#[test]
fn the_explicit_hooks_and_the_group_of_the_readmes_are_wired() {
    let lab = Lab::new();
    let one = numbered(&lab, 1);
    let blocks = fenced(&doc("README.md"));
    let with_text = |part: &str| {
        let found = blocks.iter().find(|block| block.contains(part)).unwrap();
        found.replace(INSTALLED, VIPHERALD)
    };
    let explicit = instance(&with_text("notify_backup \""));
    let second = instance("").replace("VI_1", "VI_2").replace(" 51", " 52");
    let second = second.replace(VIP, "192.0.2.11");
    let group = instance("") + &second + &with_text("vrrp_sync_group VG_1");
    for text in [explicit, group] {
        let conf = file(&lab, "keepalived.conf", &text);
        let report = run(&one, &with(&conf, "show --json")).exits(0).report();
        assert_eq!(report["warnings"], Value::Array(Vec::new()), "{report:#}");
        for instance in report["instances"].as_array().unwrap() {
            assert_ne!(instance["wired"], Value::Array(Vec::new()), "{report:#}");
        }
    }
}

/// For a keepalived that passes `notify` no arguments of its own.
#[test]
fn the_wrapper_for_old_keepaliveds_runs_vipherald_and_the_users_script() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (told, conf) = (lab.directory().join("told"), lab.directory().join("conf"));
    let own = lab.write_hook("my-notify", &format!("echo \"$@\" >> {}", told.display()));
    let program = lab.install_hook(VIPHERALD);
    let program = format!("{} --keepalived-conf {}", program.display(), conf.display());
    let page = doc("docs/keepalived-conf.md");
    let (_, script) = page.split_once("    #!/bin/sh\n").unwrap();
    let lines = script.lines().map_while(|line| line.strip_prefix("    "));
    let script: Vec<_> = lines.collect();
    let script = script
        .join("\n")
        .replace(INSTALLED, &program)
        .replace("/etc/keepalived/my-notify", own.to_str().unwrap());
    let wrapper = lab.write_hook("wrapper", &script);
    let notify = format!("notify {}", wrapper.display());
    let text = events::instance("VI_1", 51, 100, &["10.9.0.100/24"], &notify);
    fs::write(&conf, &text).unwrap();
    // keepalived's own announcement does not reach it.
    b.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    b.remember("10.9.0.100", OLD_MAC);
    a.remember(b.ipv4(), b.mac());
    let _keepalived = a.keepalived(&text);
    eventually("the user's script runs", SOON, || {
        let told = fs::read_to_string(&told).ok()?;
        told.contains("INSTANCE VI_1 MASTER 100").then_some(())
    });
    eventually("vipherald has announced the VIP", SOON, || {
        (b.cached("10.9.0.100") == Some(a.mac())).then_some(())
    });
}
