//! The resident: whatever moves a VIP, the kernel reports it, and `watch` and `fifo` act on that.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vipherald_lab::{Frame, Host, Lab, Mac, NeighbourEvent, State, eventually};

use common::arp::{Arp, contains, is_request_for, is_sent};
use common::vrrp::advert;
use common::{
    Ended, OLD_MAC, Run, SOON, Talker, VIP, VIP6, assert_followed, give, old_mac, peer_in,
    remember_old, run, second_interface, signal, since, take, verdict_in, vipherald,
    wait_for_announcement, wait_until_followed, watch_for,
};
use events::{
    fifo, file, hook, instance, sent_for, wait_for_frame_after, wait_until_forgotten, with,
};

const OTHER_VIP: &str = "10.9.0.101";

/// A resident on a host, with its log and what it prints.
struct Resident {
    run: Run,
    log: PathBuf,
    printed: PathBuf,
}

impl Resident {
    /// Starts it, and waits until it follows the kernel.
    fn start(lab: &Lab, host: &Host, arguments: &str) -> Self {
        Self::of(lab, vipherald(host, arguments))
    }

    fn of(lab: &Lab, mut command: Command) -> Self {
        let number = fs::read_dir(lab.directory()).unwrap().count();
        let [log, printed] =
            ["log", "printed"].map(|what| lab.directory().join(format!("{what}-{number}")));
        command
            .stderr(File::create(&log).unwrap())
            .stdout(File::create(&printed).unwrap());
        let run = Run::start(command);
        run.wait_until_it_waits();
        Self { run, log, printed }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for_log(&self, part: &str) {
        let what = format!("the log says {part:?}");
        eventually(&what, SOON, || self.log().contains(part).then_some(()));
    }

    /// What it has printed: a report in each line.
    fn reports(&self) -> Vec<Value> {
        let printed = fs::read_to_string(&self.printed).unwrap();
        let lines = printed.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn wait_for_reports(&self, count: usize) -> Vec<Value> {
        eventually("it reports", SOON, || {
            let reports = self.reports();
            (reports.len() >= count).then_some(reports)
        })
    }
}

/// Settings by which an announcement takes two seconds.
fn short(lab: &Lab) -> String {
    let settings = file(lab, "settings.toml", "timeout = 2\n");
    format!("--config {}", settings.display())
}

/// The VIPs of a report and its command.
fn about(report: &Value) -> (String, Vec<String>) {
    let vips = report["vips"].as_array().into_iter().flatten();
    let vips = vips.map(|vip| vip["address"].as_str().unwrap().to_owned());
    (
        report["command"].as_str().unwrap().to_owned(),
        vips.collect(),
    )
}

#[test]
fn vips_that_are_added_by_hand_are_announced_and_purged_once_they_are_removed() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    // Of these only questions and oblique requests change the entries.
    b.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    let resident = Resident::start(&lab, &a, &format!("watch {VIP} {VIP6}"));
    for _ in 0..2 {
        for vip in [VIP, VIP6] {
            remember_old([&b], &[vip]);
            give(&a, vip, "eth0");
            wait_until_followed([&b], &[vip], a.mac());
            a.remember(vip, OLD_MAC);
            take(&a, vip, "eth0");
            wait_until_forgotten(&a, vip);
        }
    }
    resident.run.goes_on();
}

#[test]
fn an_address_counts_once_duplicate_address_detection_has_ended() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let resident = Resident::start(&lab, &a, &format!("watch {VIP6}"));
    remember_old([&b], &[VIP6]);
    let capture = a.capture();
    a.sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    a.run(&format!("ip addr add {VIP6}/128 dev eth0"));
    wait_until_followed([&b], &[VIP6], a.mac());
    let tentative = a.run("ip -6 addr show dev eth0 tentative");
    assert!(!tentative.contains(VIP6), "{tentative}");
    wait_for_announcement(&capture, VIP6, 1);
    resident.run.goes_on();
}

#[test]
fn what_is_here_at_a_start_is_announced_and_so_again_after_a_kill() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    for _ in 0..2 {
        remember_old([&b], &[VIP]);
        let resident = Resident::start(&lab, &a, &format!("watch {VIP}"));
        wait_until_followed([&b], &[VIP], a.mac());
        signal(resident.run.pid(), Signal::SIGKILL);
        assert_eq!(resident.run.end().status, 137);
    }
}

#[test]
fn an_interface_that_goes_and_comes_back_is_another_one() {
    let lab = Lab::new();
    let a = lab.host("a");
    let resident = Resident::start(&lab, &a, &format!("watch {VIP} -i v0"));
    // The same address elsewhere is none of its business.
    let capture = a.capture();
    give(&a, VIP, "eth0");
    for _ in 0..2 {
        second_interface(&a);
        let there = a.capture_on("v0");
        give(&a, VIP, "v0");
        wait_for_frame_after(&there, VIP, SystemTime::UNIX_EPOCH);
        a.run("ip link del v0");
    }
    assert_eq!(sent_for(&capture.frames(), VIP), []);
    resident.run.goes_on();
}

/// The address changes of a busy host fill the queue while the resident can't read it.
#[test]
fn after_lost_reports_no_vip_is_missed() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, OTHER_VIP, "eth0");
    let resident = Resident::start(&lab, &a, &format!("-v watch {VIP} {OTHER_VIP}"));
    remember_old([&b], &[VIP]);
    signal(resident.run.pid(), Signal::SIGSTOP);
    second_interface(&a);
    let addresses = |what: &str| {
        let lines = (0..4000).map(|n| {
            let (high, low) = (n / 250, n % 250);
            format!("addr {what} 10.77.{high}.{low}/32 dev v0\n")
        });
        lines.collect::<String>()
    };
    a.ip(&addresses("add"));
    a.remember(OTHER_VIP, OLD_MAC);
    take(&a, OTHER_VIP, "eth0");
    give(&a, VIP, "eth0");
    a.ip(&addresses("del"));
    signal(resident.run.pid(), Signal::SIGCONT);
    wait_until_followed([&b], &[VIP], a.mac());
    wait_until_forgotten(&a, OTHER_VIP);
    resident.run.goes_on();
}

/// 100,000 changes as fast as `ip` makes them: in about a second.
#[test]
fn under_a_flood_of_address_changes_elsewhere_each_move_is_acted_on() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    second_interface(&a);
    let change = |what: &str, n: u32| format!("addr {what} 10.77.0.{}/32 dev v0\n", n % 200 + 1);
    let changes: String = (0..50_000)
        .map(|n| change("add", n) + &change("del", n))
        .collect();
    let changes = file(&lab, "changes", &changes);
    let resident = Resident::start(&lab, &a, &format!("watch {VIP}"));
    let mut flood = a.command("ip");
    let mut flood = Talker(flood.arg("-batch").arg(changes).spawn().unwrap());
    let mut moves = 0;
    while flood.0.try_wait().unwrap().is_none() {
        remember_old([&b], &[VIP]);
        give(&a, VIP, "eth0");
        wait_until_followed([&b], &[VIP], a.mac());
        a.remember(VIP, OLD_MAC);
        take(&a, VIP, "eth0");
        wait_until_forgotten(&a, VIP);
        moves += 1;
    }
    assert!(flood.0.wait().unwrap().success());
    assert!(moves >= 3, "{moves}");
    resident.run.goes_on();
}

#[test]
fn a_reload_that_adds_a_vip_has_it_announced() {
    for resident in ["watch --all", "fifo"] {
        let lab = Lab::new();
        let (a, b) = (lab.host("a"), lab.host("b"));
        b.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
        remember_old([&b], &[VIP, OTHER_VIP]);
        let conf = lab.directory().join("wired.conf");
        let log = lab.directory().join("fifo.log");
        let arguments = with(&conf, &format!("--log file:{} fifo", log.display()));
        let wired = match resident {
            "fifo" => format!(
                "global_defs {{\n script_user root\n vrrp_notify_fifo {}\n \
                 vrrp_notify_fifo_script \"{} {arguments}\"\n}}\n",
                lab.directory().join("fifo").display(),
                hook(&lab)
            ),
            _ => String::new(),
        };
        let configuration = |vips: &[&str]| {
            let text = wired.clone() + &instance("VI_1", 51, 100, vips, "");
            fs::write(&conf, &text).unwrap();
            text
        };
        let first = configuration(&[VIP]);
        let watching =
            (resident != "fifo").then(|| Resident::start(&lab, &a, &with(&conf, resident)));
        let mut keepalived = a.keepalived(&first);
        keepalived.wait_for_state("VI_1", "MASTER", SOON);
        wait_until_followed([&b], &[VIP], a.mac());
        assert_followed([&b], &[OTHER_VIP], old_mac());
        keepalived.reload(&configuration(&[VIP, OTHER_VIP]));
        wait_until_followed([&b], &[OTHER_VIP], a.mac());
        if let Some(watching) = watching {
            watching.run.goes_on();
        }
        assert!(keepalived.stop().success());
    }
}

#[test]
fn keepalived_s_event_for_a_move_starts_nothing_twice() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(
        &lab,
        "keepalived.conf",
        &instance("VI_1", 51, 100, &[VIP], ""),
    );
    let (path, mut writer) = fifo(&lab, "fifo");
    let arguments = format!("{} --json fifo {}", short(&lab), path.display());
    let resident = Resident::start(&lab, &a, &with(&conf, &arguments));
    let mut tell =
        |state: &str| writer.write_all(format!("INSTANCE \"VI_1\" {state} 100\n").as_bytes());
    tell("BACKUP").unwrap();
    resident.wait_for_reports(1);
    give(&a, VIP, "eth0");
    tell("MASTER").unwrap();
    resident.wait_for_reports(2);
    // It is not the move that this is about.
    tell("MASTER_RX_LOWER_PRI").unwrap();
    resident.wait_for_reports(3);
    take(&a, VIP, "eth0");
    tell("BACKUP").unwrap();
    resident.wait_for_reports(4);
    drop(writer);
    let Resident { run, printed, log } = resident;
    run.end().exits(0);
    let log = fs::read_to_string(log).unwrap();
    let printed = fs::read_to_string(printed).unwrap();
    let commands = printed
        .lines()
        .map(|line| about(&serde_json::from_str(line).unwrap()).0);
    let commands: Vec<_> = commands.collect();
    assert_eq!(
        commands,
        ["purge", "announce", "announce", "purge"],
        "{printed} {log}"
    );
}

/// The kernel reports an IPv6 address that needs no duplicate address detection some time after it was
/// added.
#[test]
fn an_event_that_is_read_before_the_kernel_s_report_starts_nothing_twice() {
    // Nothing was reported before MASTER, or one of two VIPs; and one never comes.
    for (before, after, count, result) in [
        (&[][..], &[VIP, VIP6][..], 1, "ok"),
        (&[VIP], &[VIP6], 1, "ok"),
        (&[VIP], &[], 2, "not-held"),
    ] {
        let lab = Lab::new();
        let (a, b) = (lab.host("a"), lab.host("b"));
        let excluded = format!("virtual_ipaddress_excluded {{\n  {VIP6}\n }}");
        let conf = instance("VI_1", 51, 100, &[VIP], &excluded);
        let conf = file(&lab, "keepalived.conf", &conf);
        let (path, mut writer) = fifo(&lab, "fifo");
        let arguments = format!("{} --json fifo {}", short(&lab), path.display());
        let resident = Resident::start(&lab, &a, &with(&conf, &arguments));
        remember_old([&b], &[VIP, VIP6]);
        before.iter().for_each(|vip| give(&a, vip, "eth0"));
        writer.write_all(b"INSTANCE \"VI_1\" MASTER 100\n").unwrap();
        watch_for(Duration::from_millis(200));
        after.iter().for_each(|vip| give(&a, vip, "eth0"));
        let here: Vec<_> = before.iter().chain(after).copied().collect();
        wait_until_followed([&b], &here, a.mac());
        resident.wait_for_reports(count);
        drop(writer);
        let Resident { run, printed, log } = resident;
        run.end();
        let log = fs::read_to_string(log).unwrap();
        let printed = fs::read_to_string(printed).unwrap();
        assert_eq!(printed.lines().count(), count, "{printed} {log}");
        let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert_eq!(about(&last).1.len(), 2, "{printed} {log}");
        assert_eq!(last["result"], result, "{printed} {log}");
    }
}

#[test]
fn of_two_residents_one_announces() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let arguments = format!("{} --json watch {VIP}", short(&lab));
    let both = [(); 2].map(|()| Resident::start(&lab, &a, &arguments));
    remember_old([&b], &[VIP]);
    give(&a, VIP, "eth0");
    wait_until_followed([&b], &[VIP], a.mac());
    let mut results = both
        .each_ref()
        .map(|one| one.wait_for_reports(1)[0]["result"].clone());
    results.sort_by_key(ToString::to_string);
    assert_eq!(results, ["ok", "superseded"]);
    for one in both {
        one.run.goes_on();
    }
}

#[test]
fn if_the_resident_that_announces_is_killed_the_one_that_yielded_to_it_announces_again() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let arguments = format!("--json watch {VIP}");
    let both = [(); 2].map(|()| Resident::start(&lab, &a, &arguments));
    remember_old([&b], &[VIP]);
    give(&a, VIP, "eth0");
    wait_until_followed([&b], &[VIP], a.mac());
    let yielded = eventually("one yields", SOON, || {
        both.iter().position(|one| !one.reports().is_empty())
    });
    let [one, other] = both;
    let (announces, stays) = match yielded {
        0 => (other, one),
        _ => (one, other),
    };
    assert_eq!(stays.reports()[0]["result"], "superseded");
    assert_eq!(announces.reports(), [Value::Null; 0]);
    signal(announces.run.pid(), Signal::SIGKILL);
    assert_eq!(announces.run.end().status, 137);
    remember_old([&b], &[VIP]);
    wait_until_followed([&b], &[VIP], a.mac());
    let reports = stays.wait_for_reports(2);
    assert_eq!(about(&reports[1]).0, "announce");
    assert_eq!(reports[1]["result"], "ok");
    stays.run.goes_on();
}

#[test]
fn where_the_service_and_the_fifo_both_follow_one_announces() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let conf = instance("VI_1", 51, 100, &[VIP], "");
    let conf = file(&lab, "keepalived.conf", &conf);
    let (path, mut writer) = fifo(&lab, "fifo");
    let resident = |command: &str| {
        let arguments = format!("{} --json {command}", short(&lab));
        Resident::start(&lab, &a, &with(&conf, &arguments))
    };
    let both = [
        resident("watch --all"),
        resident(&format!("fifo {}", path.display())),
    ];
    let mut tell = |state: &str| {
        let line = format!("INSTANCE \"VI_1\" {state} 100\n");
        writer.write_all(line.as_bytes()).unwrap();
    };
    for move_ in 0..2 {
        remember_old([&b], &[VIP]);
        give(&a, VIP, "eth0");
        tell("MASTER");
        wait_until_followed([&b], &[VIP], a.mac());
        let mut told = both.each_ref().map(|one| {
            let report = one.wait_for_reports(2 * move_ + 1).swap_remove(2 * move_);
            assert_eq!(report["vips"][0]["conflicts"], json!([]), "{report}");
            (report["result"].clone(), report["frames_sent"].as_u64())
        });
        told.sort_by_key(|(result, _)| result.to_string());
        let [(one, all), (other, some)] = &told;
        assert_eq!((one, other), (&json!("ok"), &json!("superseded")));
        assert!(some < all, "{told:?}");
        a.remember(VIP, OLD_MAC);
        take(&a, VIP, "eth0");
        tell("BACKUP");
        wait_until_forgotten(&a, VIP);
        // Nothing was done twice: these are all.
        for one in &both {
            let reports = one.wait_for_reports(2 * move_ + 2);
            let commands = reports.iter().map(|report| about(report).0);
            let expected = ["announce", "purge"].repeat(move_ + 1);
            assert_eq!(commands.collect::<Vec<_>>(), expected);
        }
    }
    for one in both {
        one.run.goes_on();
    }
}

#[test]
fn the_file_counts_as_it_is_and_a_broken_one_as_it_was() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peers = [&b];
    let one = instance("VI_1", 51, 100, &[VIP], "");
    let include = file(&lab, "more.inc", "");
    let conf = file(
        &lab,
        "keepalived.conf",
        &format!("{one}include {}\n", include.display()),
    );
    let resident = Resident::start(&lab, &a, &with(&conf, "watch --all"));
    give(&a, OTHER_VIP, "eth0");
    remember_old(peers, &[OTHER_VIP]);
    // An include that changes.
    file(
        &lab,
        "more.inc",
        &instance("VI_2", 52, 100, &[OTHER_VIP], ""),
    );
    resident.wait_for_log("watching 2 virtual IPs");
    wait_until_followed(peers, &[OTHER_VIP], a.mac());
    // What keepalived would refuse.
    file(
        &lab,
        "keepalived.conf",
        &one.replace("interface eth0", "interface"),
    );
    resident.wait_for_log("what was read before still counts");
    remember_old(peers, &[VIP]);
    give(&a, VIP, "eth0");
    wait_until_followed(peers, &[VIP], a.mac());
    // A file that takes the old one's place.
    let new = file(&lab, "new", &instance("VI_3", 53, 100, &["10.9.0.102"], ""));
    fs::rename(new, &conf).unwrap();
    resident.wait_for_log("watching 1 virtual IP");
    // At SIGHUP it is read though nothing changed.
    signal(resident.run.pid(), Signal::SIGHUP);
    watch_for(Duration::from_millis(300));
    resident.run.goes_on();
}

#[test]
fn the_first_file_that_an_include_matches_counts_wherever_it_appears() {
    let lab = Lab::new();
    let a = lab.host("a");
    let directory = lab.directory().join("conf");
    let [empty, full] = ["empty", "full"].map(|name| directory.join(name));
    fs::create_dir_all(&empty).unwrap();
    fs::create_dir_all(&full).unwrap();
    let with_vips = |path: &Path, vips: &[&str]| {
        let name = path.to_str().unwrap().replace(['/', '.'], "_");
        fs::write(path, instance(&name, 51, 100, vips, "")).unwrap();
    };
    with_vips(&full.join("a.conf"), &["10.9.0.111"]);
    let patterns = [
        "empty/*.conf",
        "missing/at/all/*.conf",
        "missing-*/x.conf",
        "full/*.conf",
    ];
    let includes = patterns.map(|pattern| format!("include conf/{pattern}\n"));
    let own = instance("VI_1", 51, 100, &[VIP], "");
    let conf = file(&lab, "keepalived.conf", &(own + &includes.concat()));
    let resident = Resident::start(&lab, &a, &with(&conf, "watch --all"));
    let mut expected = 2;
    let mut now_are = |more: usize, how: &str| {
        expected += more;
        let says = format!("watching {expected} virtual IPs");
        eventually(how, SOON, || resident.log().contains(&says).then_some(()));
    };
    with_vips(&empty.join("b.conf"), &["10.9.0.112"]);
    now_are(1, "the first file of a directory");
    with_vips(&empty.join("b.conf"), &["10.9.0.112", "10.9.0.113"]);
    now_are(1, "a change of it");
    let missing = directory.join("missing/at/all");
    fs::create_dir_all(&missing).unwrap();
    with_vips(&missing.join("c.conf"), &["10.9.0.114"]);
    now_are(1, "directories and a file at once");
    fs::create_dir(directory.join("missing-too")).unwrap();
    watch_for(Duration::from_millis(500));
    with_vips(&directory.join("missing-too/x.conf"), &["10.9.0.115"]);
    now_are(1, "a file in a directory that a pattern matches");
    with_vips(&directory.join("aside"), &["10.9.0.116"]);
    symlink("../aside", full.join("d.conf")).unwrap();
    now_are(1, "a symbolic link to a file");
    let other = directory.join("other");
    fs::create_dir(&other).unwrap();
    with_vips(
        &other.join("e.conf"),
        &["10.9.0.112", "10.9.0.113", "10.9.0.117"],
    );
    fs::rename(&empty, directory.join("old")).unwrap();
    fs::rename(&other, &empty).unwrap();
    now_are(1, "another directory in the place of one");
    resident.run.goes_on();
}

/// The gratuitous request of a host.
fn claim(mac: Mac) -> Vec<u8> {
    claim_of(VIP, mac)
}

fn claim_of(vip: &str, mac: Mac) -> Vec<u8> {
    let vip = vip.parse().unwrap();
    let arp = Arp {
        operation: 1,
        sender: (mac, vip),
        target: (Mac([0; 6]), vip),
    };
    arp.frame(mac, Mac([0xff; 6]))
}

/// `b` gets the VIP, and says so once, in a way that `c` ignores.
fn moves_to(b: &Host, c: &Host) {
    c.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    give(b, VIP, "eth0");
    b.send(&claim(b.mac()));
}

#[test]
fn a_host_without_the_vip_follows_a_claim_that_its_kernel_ignores() {
    let lab = Lab::new();
    let (b, c) = (lab.host("b"), lab.host("c"));
    let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
    remember_old([&c], &[VIP]);
    let entries = c.watch_neighbours();
    moves_to(&b, &c);
    let claimed = SystemTime::now();
    let follows = |entry: &NeighbourEvent| entry.neighbour.mac == Some(b.mac());
    let followed = entries.wait_for(SOON, follows).expect("it follows").time;
    println!("it follows {:?} after the claim", since(claimed, followed));
    wait_until_followed([&c], &[VIP], b.mac());
    resident.run.goes_on();
}

#[test]
fn a_flood_of_mended_entries_is_logged_a_few_times_a_minute() {
    let lab = Lab::new();
    let (b, c) = (lab.host("b"), lab.host("c"));
    let vips: Vec<_> = (100..130).map(|last| format!("10.9.0.{last}")).collect();
    let vips: Vec<_> = vips.iter().map(String::as_str).collect();
    let settings = with_history(&lab);
    let arguments = format!("{settings} watch {}", vips.join(" "));
    let resident = Resident::start(&lab, &c, &arguments);
    c.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    // The kernel obeys no answer so soon after the last change.
    c.sysctl("net/ipv4/neigh/eth0/locktime", "60000");
    remember_old([&c], &vips);
    for vip in &vips {
        give(&b, vip, "eth0");
        b.send(&claim_of(vip, b.mac()));
    }
    wait_until_followed([&c], &vips, b.mac());
    resident.wait_for_log("for a minute, no more wrong entries");
    let log = resident.log();
    assert_eq!(log.matches("answers for it").count(), 10, "{log}");
    eventually("ten receipts", SOON, || {
        (receipts(&c, &settings) == 10).then_some(())
    });
    let log = resident.log.clone();
    resident.run.goes_on();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("20 more entries"), "{log}");
}

/// A settings file for brief announcements that are kept in a history, as an option.
fn with_history(lab: &Lab) -> String {
    let text = format!(
        "timeout = 1\nhistory_dir = \"{}\"\n",
        lab.directory().join("history").display()
    );
    format!("--config {}", file(lab, "history.toml", &text).display())
}

/// The number of receipts in the history.
fn receipts(host: &Host, settings: &str) -> usize {
    let ended = run(host, &format!("{settings} history --json")).exits(0);
    ended.report()["receipts"].as_array().unwrap().len()
}

/// As at boot: the link is down and has no address when the resident starts.
#[test]
fn a_link_that_comes_up_later_is_heard_too() {
    let lab = Lab::new();
    let (b, c) = (lab.host("b"), lab.host("c"));
    let own = c.ipv4();
    c.ip(&format!("link set eth0 down\naddr del {own}/24 dev eth0\n"));
    let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
    c.ip(&format!("link set eth0 up\naddr add {own}/24 dev eth0\n"));
    remember_old([&c], &[VIP]);
    moves_to(&b, &c);
    eventually("it follows", SOON, || {
        b.send(&claim(b.mac()));
        (c.neighbour(VIP)?.mac? == b.mac()).then_some(())
    });
    resident.run.goes_on();
}

#[test]
fn a_permanent_entry_is_replaced_only_with_the_setting() {
    for setting in [false, true] {
        let lab = Lab::new();
        let (b, c) = (lab.host("b"), lab.host("c"));
        let settings = file(
            &lab,
            "settings.toml",
            &format!("orders.permanent = {setting}\n"),
        );
        let arguments = format!("--config {} watch {VIP}", settings.display());
        let resident = Resident::start(&lab, &c, &arguments);
        c.remember_as(VIP, OLD_MAC, State::Permanent);
        moves_to(&b, &c);
        resident.wait_for_log(&format!("{VIP}: {} answers for it", b.mac()));
        if setting {
            wait_until_followed([&c], &[VIP], b.mac());
        } else {
            resident.wait_for_log("PERMANENT");
            assert_followed([&c], &[VIP], old_mac());
        }
        resident.run.goes_on();
    }
}

#[test]
fn a_claim_that_nobody_confirms_changes_nothing_and_costs_one_question() {
    let advert = |mac| advert(VIP.parse().unwrap(), mac);
    for forged in [claim, advert] {
        let lab = Lab::new();
        let (b, c, forger) = (lab.host("b"), lab.host("c"), lab.host("forger"));
        let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
        c.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
        c.remember(VIP, b.mac());
        give(&b, VIP, "eth0");
        let capture = c.capture();
        let began = Instant::now();
        for _ in 0..50 {
            for mac in [forger.mac(), old_mac()] {
                forger.send(&forged(mac));
            }
        }
        let vip = VIP.parse().unwrap();
        let asks = |frame: &Frame| is_sent(frame) && is_request_for(frame, vip);
        capture.wait_for(SOON, asks).expect("it asks");
        watch_for(Duration::from_millis(300));
        let asked = capture.frames().iter().filter(|frame| asks(frame)).count();
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(asked <= 1 + seconds, "{asked} questions");
        assert_followed([&c], &[VIP], b.mac());
        resident.run.goes_on();
    }
}

/// Drops what keepalived announces its VIPs with.
fn announces_nothing(host: &Host) {
    host.nft(&format!(
        "add table netdev mute\n\
         add chain netdev mute out {{ type filter hook egress device eth0 priority 0; }}\n\
         add rule netdev mute out arp daddr ip {VIP} drop\n\
         add rule netdev mute out ip6 daddr ff02::1 icmpv6 type nd-neighbor-advert drop\n"
    ));
}

#[test]
fn a_host_without_the_vip_follows_a_master_of_which_it_hears_adverts_alone() {
    const VIRTUAL: Mac = Mac([0, 0, 0x5e, 0, 1, 51]);
    for (vip, more, virtual_mac) in [
        (VIP, "", None),
        (VIP6, "native_ipv6", None),
        (VIP, "use_vmac", Some(VIRTUAL)),
        // The source of the adverts is not the VIP's MAC.
        (VIP, "use_vmac\n vmac_xmit_base", Some(VIRTUAL)),
    ] {
        let lab = Lab::new();
        let (b, c) = (lab.host("b"), lab.host("c"));
        let owner = virtual_mac.unwrap_or(b.mac());
        let resident = Resident::start(&lab, &c, &format!("watch {VIP} {VIP6}"));
        let groups = c.run("ip maddr show dev eth0");
        for group in ["224.0.0.18", "ff02::12"] {
            assert!(groups.contains(group), "{groups}");
        }
        remember_old([&c], &[vip]);
        let capture = c.capture();
        announces_nothing(&b);
        let first = if vip == VIP { "" } else { "fe80::99" };
        let configuration = instance("VI_1", 51, 100, &[first, vip], more);
        let mut keepalived = b.keepalived(&configuration);
        keepalived.wait_for_state("VI_1", "MASTER", SOON);
        wait_until_followed([&c], &[vip], owner);
        // No announcement came through.
        let all_nodes = Mac([0x33, 0x33, 0, 0, 0, 1]);
        let announces = |frame: &Frame| {
            let is_to_all = [Mac([0xff; 6]), all_nodes].contains(&frame.destination());
            !is_sent(frame) && is_to_all && contains(frame, vip.parse().unwrap())
        };
        let all = capture.frames();
        let announced = all.iter().filter(|frame| announces(frame));
        assert_eq!(announced.count(), 0, "{all:?}");
        resident.run.goes_on();
        assert!(keepalived.stop().success());
    }
}

/// As on a host that has had the old entry for days.
#[test]
fn an_entry_that_is_wrong_from_the_start_is_mended_at_the_next_advert() {
    let lab = Lab::new();
    let (b, c) = (lab.host("b"), lab.host("c"));
    let mut keepalived = b.keepalived(&instance("VI_1", 51, 100, &[VIP], ""));
    keepalived.wait_for_state("VI_1", "MASTER", SOON);
    announces_nothing(&b);
    remember_old([&c], &[VIP]);
    let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
    wait_until_followed([&c], &[VIP], b.mac());
    resident.run.goes_on();
    assert!(keepalived.stop().success());
}

#[test]
fn two_answers_are_a_conflict_that_is_logged() {
    let lab = Lab::new();
    let (b, c, d) = (lab.host("b"), lab.host("c"), lab.host("d"));
    let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
    remember_old([&c], &[VIP]);
    give(&d, VIP, "eth0");
    moves_to(&b, &c);
    resident.wait_for_log("answer for it: two hosts have it, or one host answers on two");
    resident.run.goes_on();
}

/// With Linux's default settings a host answers on every card for what is on any of them.
#[test]
fn one_host_that_answers_on_two_cards_is_told_once_and_is_no_error() {
    let lab = Lab::new();
    let (b, c) = (lab.host("b"), lab.host("c"));
    b.ip("link add link eth0 name v0 type macvlan mode bridge\n\
          link set v0 up\n");
    b.run("ip addr add 10.9.0.201/24 dev v0");
    let resident = Resident::start(&lab, &c, &format!("watch {VIP}"));
    remember_old([&c], &[VIP]);
    moves_to(&b, &c);
    resident.wait_for_log(&format!("`vipherald check {VIP}` tells which"));
    // Each of these is doubted: the entry has one of the two.
    for _ in 0..8 {
        for mac in [b.mac(), b.interface_mac("v0")] {
            b.send(&claim(mac));
            watch_for(Duration::from_millis(400));
        }
    }
    let log = resident.log();
    assert_eq!(log.matches("answer for it").count(), 1, "{log}");
    assert!(!log.contains("error"), "{log}");
    let told = run(&c, &format!("--json check {VIP}")).exits(0).report();
    assert!(
        told.to_string().contains("interfaces of one host"),
        "{told}"
    );
    resident.run.goes_on();
}

#[test]
fn an_announcement_asks_the_hosts_that_a_resident_beside_it_has_heard() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let client = lab.host("client");
    let resident = Resident::start(&lab, &a, &format!("watch {VIP}"));
    give(&b, VIP, "eth0");
    client.run(&format!("ping -c 1 -W 5 {VIP}"));
    assert_eq!(a.cached(client.ipv4()), None);
    // The resident does not watch this one.
    give(&a, OTHER_VIP, "eth0");
    let arguments = format!("--json announce --timeout 3 {OTHER_VIP}");
    let report = run(&a, &arguments).exits(0).report();
    let peer = peer_in(&report, OTHER_VIP, client.ipv4());
    let told = (&peer["source"], &peer["verdict"]);
    assert_eq!(told, (&"observed".into(), &"proven".into()), "{peer}");
    resident.run.goes_on();
}

#[test]
fn hosts_that_used_a_vip_elsewhere_are_asked_when_it_comes() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let clients = lab.hosts("client", 3);
    let arguments = format!("{} --json watch {VIP} {VIP6}", short(&lab));
    let resident = Resident::start(&lab, &a, &arguments);
    for vip in [VIP, VIP6] {
        give(&b, vip, "eth0");
        for client in &clients {
            client.run(&format!("ping -c 1 -W 5 {vip}"));
        }
        take(&b, vip, "eth0");
    }
    // The standby's kernel knows none of them.
    for client in &clients {
        assert_eq!(
            (a.cached(client.ipv4()), a.cached(client.ipv6())),
            (None, None)
        );
    }
    give(&a, VIP, "eth0");
    give(&a, VIP6, "eth0");
    let reports = eventually("both are announced", SOON, || {
        let reports = resident.reports();
        let reported = |vip: &str| {
            let announced =
                |one: &Value| about(one) == ("announce".to_owned(), vec![vip.to_owned()]);
            reports.iter().find(|one| announced(one)).cloned()
        };
        let both = || Some(vec![reported(VIP)?, reported(VIP6)?]);
        both().or_else(|| {
            let together = reports.iter().find(|one| about(one).1.len() == 2)?;
            Some(vec![together.clone(), together.clone()])
        })
    });
    for client in &clients {
        for (report, vip, ip) in [
            (&reports[0], VIP, IpAddr::from(client.ipv4())),
            (&reports[1], VIP6, client.ipv6().into()),
        ] {
            let peer = peer_in(report, vip, ip);
            let told = (&peer["source"], &peer["verdict"]);
            assert_eq!(told, (&"observed".into(), &"proven".into()), "{peer}");
        }
    }
    wait_until_followed(&clients, &[VIP, VIP6], a.mac());
    resident.run.goes_on();
}

#[test]
fn a_host_that_was_cut_off_is_asked_once_it_is_heard_again() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    let arguments = format!("{} --json watch {VIP}", short(&lab));
    let resident = Resident::start(&lab, &a, &arguments);
    remember_old([&b], &[VIP]);
    a.remember(b.ipv4(), b.mac());
    lab.blackout(&b);
    give(&a, VIP, "eth0");
    resident.wait_for_reports(1);
    assert_followed([&b], &[VIP], old_mac());
    lab.restore(&b);
    // What it says is not about the VIP.
    b.run(&format!("ping -c 1 -W 5 {}", c.ipv4()));
    wait_until_followed([&b], &[VIP], a.mac());
    let reports = resident.wait_for_reports(2);
    assert_eq!(verdict_in(&reports[1], VIP, b.ipv4()), "proven");
    resident.run.goes_on();
}

/// It may not exist, so that the announcement asks it about one VIP.
#[test]
fn a_host_that_was_only_heard_and_then_cut_off_is_asked_about_all_vips() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    let vips = [VIP, OTHER_VIP];
    let arguments = format!("{} --json watch {VIP} {OTHER_VIP}", short(&lab));
    let resident = Resident::start(&lab, &a, &arguments);
    remember_old([&b], &vips);
    b.run(&format!("ping -c 1 -W 5 {}", c.ipv4()));
    lab.blackout(&b);
    a.ip("addr add 10.9.0.100/24 dev eth0\naddr add 10.9.0.101/24 dev eth0\n");
    resident.wait_for_reports(1);
    assert_followed([&b], &vips, old_mac());
    lab.restore(&b);
    b.run(&format!("ip neigh del {} dev eth0", c.ipv4()));
    b.run(&format!("ping -c 1 -W 5 {}", c.ipv4()));
    wait_until_followed([&b], &vips, a.mac());
    resident.run.goes_on();
}

/// Anybody can speak in its name.
#[test]
fn a_host_that_stays_silent_although_it_is_heard_leaves_no_more_lines_or_receipts() {
    let lab = Lab::new();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    let settings = with_history(&lab);
    let resident = Resident::start(&lab, &a, &format!("{settings} --json watch {VIP}"));
    a.remember(b.ipv4(), b.mac());
    lab.blackout(&b);
    give(&a, VIP, "eth0");
    resident.wait_for_reports(1);
    eventually("a receipt", SOON, || {
        (receipts(&a, &settings) == 1).then_some(())
    });
    let lines = resident.log().lines().count();
    let question = Arp {
        operation: 1,
        sender: (b.mac(), b.ipv4()),
        target: (Mac([0; 6]), c.ipv4()),
    };
    c.send(&question.frame(b.mac(), Mac([0xff; 6])));
    let reports = resident.wait_for_reports(2);
    assert_eq!(verdict_in(&reports[1], VIP, b.ipv4()), "silent");
    // One that matters comes after it.
    take(&a, VIP, "eth0");
    lab.restore(&b);
    give(&a, VIP, "eth0");
    // The third is that of the purge.
    resident.wait_for_reports(4);
    eventually("the second receipt", SOON, || {
        (receipts(&a, &settings) > 1).then_some(())
    });
    let log = resident.log();
    let told = log.lines().skip(lines);
    let told = told.filter(|line| line.contains("announced on"));
    assert_eq!(told.count(), 1, "{log}");
    resident.run.goes_on();
    assert_eq!(receipts(&a, &settings), 2);
}

#[test]
fn systemd_hears_that_it_is_ready_and_lives_and_stops() {
    let lab = Lab::new();
    let a = lab.host("a");
    let path = lab.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let settings = file(&lab, "settings.toml", &format!("watch = [\"{VIP}\"]\n"));
    let mut command = vipherald(&a, &format!("--config {} watch", settings.display()));
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000");
    let resident = Resident::of(&lab, command);
    let hear = || {
        let mut octets = [0; 256];
        let length = manager.recv(&mut octets).unwrap();
        String::from_utf8_lossy(&octets[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1\nSTATUS=watching 1 virtual IP");
    assert_eq!([hear(), hear()], ["WATCHDOG=1", "WATCHDOG=1"]);
    resident.run.goes_on();
    while hear() != "STOPPING=1" {}
}

#[test]
fn what_can_not_be_watched_is_said() {
    let lab = Lab::new();
    let a = lab.host("a");
    let missing = Path::new("/nowhere/keepalived.conf");
    let run = |arguments: &str| -> Ended { run(&a, arguments) };
    run(&with(missing, "watch"))
        .exits(1)
        .logs("can't read /nowhere");
    run("watch 10.9.0.100 --all").exits(2);
}
