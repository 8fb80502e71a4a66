//! Purging: exactly the VIPs' entries go, and nothing else of the neighbour tables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};
use vipherald_lab::{Host, Lab, State};

use common::{OLD_MAC, VIP, VIP6, give, run, second_interface, take};

/// The whole tables as `ip` prints them: both families, proxies too, with every flag.
fn tables(host: &Host) -> BTreeSet<String> {
    ["neigh show nud all", "neigh show proxy"]
        .iter()
        .flat_map(|what| ["-4", "-6"].map(|family| host.run(&format!("ip {family} {what}"))))
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        // What the kernel itself keeps for groups comes and goes.
        .filter(|line| !line.starts_with("ff02:") && !line.starts_with("224."))
        .collect()
}

fn entries(ended: &common::Ended) -> Vec<Value> {
    ended.report()["entries"].as_array().unwrap().clone()
}

/// Entries that no purge of `VIP` and `VIP6` may touch.
const OTHERS: &str = "neigh add 10.9.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud stale\n\
    neigh add 10.9.0.101 lladdr 02:00:00:00:00:99 dev v0 nud stale\n\
    neigh add 10.9.1.100 lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n\
    neigh add fd09::101 lladdr 02:00:00:00:00:99 dev eth0 nud stale\n\
    neigh add fd09::1:100 lladdr 02:00:00:00:00:99 dev v0 nud stale\n\
    neigh add 10.9.0.0 lladdr 02:00:00:00:00:99 dev eth0 nud noarp\n";

#[test]
fn the_next_packet_finds_the_new_owner() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    for vip in [VIP, VIP6] {
        give(&a, vip, "eth0");
        b.remember(vip, OLD_MAC);
        let lost = b.try_run(&format!("ping -c 1 -W 0.3 {vip}"));
        assert!(!lost.status.success(), "to the old owner");
        run(&b, &format!("purge {vip}")).exits(0);
        b.run(&format!("ping -c 1 -W 5 {vip}"));
        assert_eq!(b.cached(vip), Some(a.mac()));
    }
}

#[test]
fn the_entry_goes_on_every_interface_or_on_the_one_named() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    a.ip(OTHERS);
    let others = tables(&a);
    for (only, left_on) in [("", ""), ("-i v0", "eth0"), ("-i eth0", "v0")] {
        for vip in [VIP, VIP6] {
            for interface in ["eth0", "v0"] {
                let entry = format!("{vip} lladdr {OLD_MAC} dev {interface} nud stale");
                a.ip(&format!("neigh replace {entry}\n"));
            }
        }
        let ended = run(&a, &format!("purge {VIP} {VIP6} {only}")).exits(0);
        let mut expected = others.clone();
        if !left_on.is_empty() {
            for vip in [VIP, VIP6] {
                expected.insert(format!("{vip} dev {left_on} lladdr {OLD_MAC} STALE "));
            }
        }
        assert_eq!(tables(&a), expected, "{only}: {ended:?}");
        let line = |interface| format!("{VIP} purged on {interface}: was {OLD_MAC} STALE\n");
        for interface in ["eth0", "v0"] {
            let purged = ended.stderr.contains(&line(interface));
            assert_eq!(purged, interface != left_on, "{ended:?}");
        }
    }
}

#[test]
fn an_entry_is_purged_in_every_state_of_resolution() {
    let lab = Lab::new();
    let a = lab.host("a");
    let before = tables(&a);
    for vip in [VIP, VIP6] {
        for state in ["reachable", "stale", "delay", "probe"] {
            a.ip(&format!(
                "neigh replace {vip} lladdr {OLD_MAC} dev eth0 nud {state}\n"
            ));
            run(&a, &format!("purge {vip}")).exits(0);
            assert_eq!(tables(&a), before, "{state}");
        }
        for state in ["incomplete", "failed"] {
            a.ip(&format!("neigh replace {vip} dev eth0 nud {state}\n"));
            run(&a, &format!("purge {vip}")).exits(0);
            assert!(
                a.neighbour(vip).is_none(),
                "{state}: {:?}",
                a.neighbour(vip)
            );
        }
    }
}

#[test]
fn entries_that_others_set_are_kept_with_a_reason() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    for (vip, how, state, reason) in [
        (VIP, "nud permanent", "PERMANENT", "--permanent"),
        (VIP6, "nud permanent", "PERMANENT", "--permanent"),
        (VIP, "nud noarp", "NOARP", "NOARP"),
        (VIP, "nud stale extern_learn", "STALE", "externally learned"),
        (
            VIP6,
            "nud stale extern_learn",
            "STALE",
            "externally learned",
        ),
    ] {
        // The ordinary entry on the other interface goes all the same.
        a.ip(&format!(
            "neigh replace {vip} lladdr {OLD_MAC} dev eth0 {how}\n\
                 neigh replace {vip} lladdr {OLD_MAC} dev v0 nud stale\n"
        ));
        let mut expected = tables(&a);
        assert!(expected.remove(&format!("{vip} dev v0 lladdr {OLD_MAC} STALE ")));
        let ended = run(&a, &format!("purge {vip} --json")).exits(0);
        assert_eq!(tables(&a), expected, "{how}");
        let entries = entries(&ended);
        let kept = entries
            .iter()
            .find(|entry| entry["interface"] == "eth0")
            .unwrap();
        assert_eq!(
            (&kept["action"], &kept["state"]),
            (&json!("kept"), &json!(state))
        );
        assert!(kept["reason"].as_str().unwrap().contains(reason), "{kept}");
        ended.logs("warning: ");
        a.run(&format!("ip neigh del {vip} dev eth0"));
    }
}

#[test]
fn what_the_kernel_noted_of_a_vip_that_the_host_used_itself_is_no_entry() {
    let lab = Lab::new();
    let a = lab.host("a");
    a.run(&format!("ip addr add {VIP6}/128 dev eth0 nodad"));
    a.run(&format!("ping -c 1 -W 1 {VIP6}"));
    a.run(&format!("ip addr del {VIP6}/128 dev eth0"));
    let before = tables(&a);
    let is_there = |one: &String| one.starts_with(&format!("{VIP6} dev lo "));
    assert!(before.iter().any(is_there), "{before:?}");
    for more in ["", "--permanent"] {
        let ended = run(&a, &format!("purge {VIP6} {more} --json")).exits(0);
        assert_eq!(entries(&ended), [Value::Null; 0]);
        ended.logs("no entry was there");
        ended.logs_no("warning: ");
    }
    assert_eq!(tables(&a), before);
}

#[test]
fn a_proxy_entry_is_kept_with_a_reason() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, VIP6] {
        a.run(&format!("ip neigh add proxy {vip} dev eth0"));
        let before = tables(&a);
        let ended = run(&a, &format!("purge {vip} --permanent --json")).exits(0);
        assert_eq!(tables(&a), before);
        let entries = entries(&ended);
        assert_eq!((entries.len(), &entries[0]["state"]), (1, &json!("PROXY")));
        assert_eq!(entries[0]["action"], json!("kept"));
        assert!(entries[0]["reason"].as_str().unwrap().contains("proxy"));
    }
}

#[test]
fn the_option_purges_permanent_entries_and_no_others() {
    let lab = Lab::new();
    let a = lab.host("a");
    let before = tables(&a);
    for vip in [VIP, VIP6] {
        a.remember_as(vip, OLD_MAC, State::Permanent);
        run(&a, &format!("purge {vip} --permanent")).exits(0);
        assert_eq!(tables(&a), before);
    }
    for how in ["nud noarp", "nud stale extern_learn"] {
        a.ip(&format!(
            "neigh replace {VIP} lladdr {OLD_MAC} dev eth0 {how}\n"
        ));
        let before = tables(&a);
        run(&a, &format!("purge {VIP} --permanent")).exits(0);
        assert_eq!(tables(&a), before, "{how}");
    }
}

#[test]
fn a_vip_held_here_is_never_purged_and_exits_5() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    for vip in [VIP, VIP6] {
        give(&a, vip, "eth0");
        a.ip(&format!(
            "neigh replace {vip} lladdr {OLD_MAC} dev v0 nud stale\n"
        ));
    }
    let held = tables(&a);
    let other = "10.9.0.101";
    for (only, result) in [("", "held-here"), ("-i v0", "held-here")] {
        a.remember_as(other, OLD_MAC, State::Stale);
        let ended = run(
            &a,
            &format!("purge {VIP} {other} {VIP6} --permanent --json {only}"),
        )
        .exits(5);
        let report = ended.report();
        assert_eq!(report["result"], result);
        ended.logs(format!("warning: {VIP}, {VIP6} held here, on eth0"));
        if only.is_empty() {
            assert_eq!(tables(&a), held, "the other VIP's entry went");
        } else {
            a.run(&format!("ip neigh del {other} dev eth0"));
            assert_eq!(tables(&a), held);
        }
    }
    // Once it has left, it is as any other.
    for vip in [VIP, VIP6] {
        take(&a, vip, "eth0");
    }
    run(&a, &format!("purge {VIP} {VIP6}")).exits(0);
    assert!(a.neighbour(VIP).is_none() && a.neighbour(VIP6).is_none());
}

#[test]
fn the_json_report_has_the_shape_that_monitors_rely_on() {
    let lab = Lab::new();
    let a = lab.host("a");
    let before = tables(&a);
    a.remember_as(VIP, OLD_MAC, State::Stale);
    let deleted = json!({
        "address": VIP,
        "interface": "eth0",
        "mac": OLD_MAC,
        "state": "STALE",
        "action": "deleted",
        "reason": null,
    });
    // The second time, nothing is left to purge, and that is no failure.
    for entries in [json!([deleted]), json!([])] {
        let ended = run(&a, &format!("purge {VIP} {VIP6} {VIP} --json")).exits(0);
        let expected = json!({
            "command": "purge",
            "version": env!("CARGO_PKG_VERSION"),
            "instance": null,
            "result": "ok",
            "dry_run": false,
            "entries": entries,
        });
        assert_eq!(ended.report(), expected);
        assert_eq!(tables(&a), before);
    }
}

#[test]
fn a_dry_run_deletes_nothing_and_says_what_it_would() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, VIP6] {
        a.remember_as(vip, OLD_MAC, State::Stale);
    }
    let before = tables(&a);
    let ended = run(&a, &format!("purge {VIP} {VIP6} --dry-run")).exits(0);
    assert_eq!(tables(&a), before);
    for vip in [VIP, VIP6] {
        let line = format!("{vip} kept on eth0 as {OLD_MAC} STALE: dry run: it would be deleted\n");
        ended.prints(&line);
    }
}

#[test]
fn among_sixty_thousand_entries_on_three_interfaces_exactly_the_right_ones_go() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    let interfaces = ["eth0", "v0", "v1"];
    let permanent = "10.9.0.102";
    let mut batch = String::new();
    for (number, interface) in interfaces.iter().enumerate() {
        for n in 0..10_000 {
            let (high, low) = (n / 250, n % 250 + 1);
            let mac = format!("02:00:00:{number:02x}:{:02x}:{:02x}", n / 256, n % 256);
            let how = if n % 2 == 0 {
                "nud permanent"
            } else {
                "nud stale extern_learn"
            };
            for ip in [
                format!("10.{}.{high}.{low}", 64 + number),
                format!("fd64::{number}:{n:x}"),
            ] {
                writeln!(batch, "neigh add {ip} lladdr {mac} dev {interface} {how}").unwrap();
            }
        }
        // The VIPs', and ordinary ones beside them.
        for ip in [
            VIP,
            VIP6,
            "10.9.0.99",
            "10.9.0.101",
            "fd09::ff",
            "fd09::101",
        ] {
            writeln!(
                batch,
                "neigh add {ip} lladdr {OLD_MAC} dev {interface} nud stale"
            )
            .unwrap();
        }
        writeln!(
            batch,
            "neigh add {permanent} lladdr {OLD_MAC} dev {interface} nud permanent"
        )
        .unwrap();
    }
    a.ip(&batch);
    let mut expected = tables(&a);
    assert!(expected.len() >= 60_000, "{}", expected.len());

    let ended = run(&a, &format!("purge {VIP} {VIP6} {permanent}")).exits(0);
    for interface in interfaces {
        for vip in [VIP, VIP6] {
            let entry = format!("{vip} dev {interface} lladdr {OLD_MAC} STALE ");
            assert!(expected.remove(&entry), "{entry}");
        }
    }
    let left = tables(&a);
    let differ: Vec<_> = left.symmetric_difference(&expected).take(5).collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(ended.stderr.matches(" purged on ").count(), 6);
    assert_eq!(ended.stderr.matches(" kept on ").count(), 3);

    run(&a, &format!("purge {permanent} --permanent -i v1")).exits(0);
    let line = format!("{permanent} dev v1 lladdr {OLD_MAC} PERMANENT ");
    assert!(expected.remove(&line));
    assert!(tables(&a) == expected, "only {line} went");
}
