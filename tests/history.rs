//! Receipts: what vipherald did on this host can be read afterwards, by people and by Prometheus.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod orders;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use vipherald_lab::{Host, Lab, State, eventually};

use common::{
    Ended, OLD_MAC, Run, SOON, VIP, VIP6, VIPHERALD, assert_at_once, give, old_mac, peer_in, run,
    vipherald,
};
use events::{file, hook, instance, with};
use orders::{Orders, listen, obey, order_to};

/// Settings with a history of the lab's own.
fn settings(lab: &Lab, name: &str, more: &str) -> PathBuf {
    let text = format!(
        "history_dir = \"{}\"\n{more}\n",
        directory(lab, name).display()
    );
    file(lab, &format!("{name}.toml"), &text)
}

fn directory(lab: &Lab, name: &str) -> PathBuf {
    lab.directory().join(format!("{name}-state"))
}

fn history(host: &Host, settings: &Path, more: &str) -> Ended {
    run(
        host,
        &format!("--config {} history {more}", settings.display()),
    )
    .exits(0)
}

fn receipts(host: &Host, settings: &Path, more: &str) -> Vec<Value> {
    let report = history(host, settings, &format!("--json {more}")).report();
    report["receipts"].as_array().unwrap().clone()
}

/// A node with one instance, whose hooks have these settings.
fn node(lab: &Lab, host: &Host, priority: u8, settings: &Path) -> vipherald_lab::Keepalived {
    let conf = lab.directory().join(format!("{}.conf", host.name()));
    let vip = format!("{VIP}/24");
    let notify = format!(
        "notify \"{} --config {} --keepalived-conf {} notify\"",
        hook(lab),
        settings.display(),
        conf.display()
    );
    let text = instance("VI_1", 51, priority, &[&vip], &notify);
    fs::write(&conf, &text).unwrap();
    host.keepalived(&text)
}

#[test]
fn a_failover_is_in_the_history_of_the_new_owner_and_of_who_purged() {
    let lab = Lab::new();
    let (a, b, client) = (lab.host("a"), lab.host("b"), lab.host("client"));
    let of_a = settings(&lab, "a", "timeout = 3");
    let of_b = settings(&lab, "b", "timeout = 3");
    b.remember(client.ipv4(), client.mac());
    // It follows the first owner, and purges that at its first BACKUP.
    b.remember_as(VIP, OLD_MAC, State::Stale);
    let mut first = node(&lab, &a, 150, &of_a);
    first.wait_for_state("VI_1", "MASTER", SOON);
    let mut second = node(&lab, &b, 100, &of_b);
    second.wait_for_state("VI_1", "BACKUP", SOON);
    first.kill9_all();
    a.run(&format!("ip addr del {VIP}/24 dev eth0"));
    second.wait_for_state("VI_1", "MASTER", SOON);

    let receipt = eventually("the announcement is in the history", SOON, || {
        let announced = receipts(&b, &of_b, "--last 1").pop()?;
        (announced["command"] == "announce").then_some(announced)
    });
    for (field, value) in [("event", "MASTER"), ("instance", "VI_1"), ("result", "ok")] {
        assert_eq!(receipt[field], value, "{receipt:#}");
    }
    assert_eq!(peer_in(&receipt, VIP, client.ipv4())["verdict"], "proven");
    let purged = receipts(&b, &of_b, "").remove(0);
    assert_eq!(purged["event"], "BACKUP", "{purged:#}");
    assert_eq!(purged["entries"][0]["mac"], a.mac().to_string());
    assert!(purged["time"].as_str() < receipt["time"].as_str());

    let table = history(&b, &of_b, "--instance VI_1 --peers").stdout;
    let line = |words: &[&str]| {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        table
            .lines()
            .find(has)
            .unwrap_or_else(|| panic!("{words:?}: {table}"))
    };
    line(&[
        "purge (BACKUP)",
        VIP,
        "eth0",
        "deleted",
        &a.mac().to_string(),
    ]);
    line(&["announce (MASTER)", VIP, "eth0", "ok", "1 of 1"]);
    let peer = peer_in(&receipt, VIP, client.ipv4());
    let proven = format!(
        "proven by {} after {:.1} ms",
        peer["proof"].as_str().unwrap(),
        peer["after_ms"].as_f64().unwrap()
    );
    line(&[&client.ipv4().to_string(), &proven]);

    // keepalived's hooks have the umask 0177.
    let metadata = fs::metadata(directory(&lab, "b").join("history")).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o640);
    let groups = fs::read_to_string("/etc/group").unwrap();
    let adm = groups.lines().find_map(|line| line.strip_prefix("adm:x:"));
    let adm: u32 = adm.unwrap().split(':').next().unwrap().parse().unwrap();
    let everyone = fs::read_to_string("/proc/self/uid_map").unwrap();
    if everyone.contains("4294967295") {
        assert_eq!((metadata.uid(), metadata.gid()), (0, adm));
    }
    assert_eq!(
        fs::metadata(directory(&lab, "b")).unwrap().mode() & 0o777,
        0o755
    );
}

/// Others that write are waited for, but not after a signal.
#[test]
fn a_signal_ends_a_command_although_another_process_keeps_the_history_locked() {
    let lab = Lab::new();
    let a = lab.host("a");
    let settings = settings(&lab, "a", "");
    let start = |command: &str| {
        let arguments = format!("--config {} {command}", settings.display());
        Run::start(vipherald(&a, &arguments))
    };
    let state = directory(&lab, "a");
    fs::create_dir(&state).unwrap();
    let path = state.join("lock");
    let lock = Flock::lock(File::create(&path).unwrap(), FlockArg::LockExclusive).unwrap();

    // While there is work to do.
    give(&a, VIP, "eth0");
    let announcing = start(&format!("announce {VIP}"));
    announcing.wait_until_it_waits();
    let (ended, took) = announcing.terminate();
    assert_at_once(took, &ended);
    ended.exits(143).logs("no receipt is kept");
    // And when all is done.
    a.remember_as(VIP6, OLD_MAC, State::Stale);
    let purging = start(&format!("purge {VIP6}"));
    let fds = PathBuf::from(format!("/proc/{}/fd", purging.pid()));
    eventually("it waits for the lock", SOON, || {
        let fds = fs::read_dir(&fds).unwrap();
        let mut opened = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        opened.any(|opened| opened == path).then_some(())
    });
    let (ended, took) = purging.terminate();
    assert_at_once(took, &ended);
    ended.exits(0).logs("no receipt is kept");
    drop(lock);
    assert_eq!(receipts(&a, &settings, ""), Vec::<Value>::new());
}

#[test]
fn hooks_at_once_lose_no_receipt() {
    let lab = Lab::new();
    let a = lab.host("a");
    let settings = settings(&lab, "a", "");
    let vips: Vec<_> = (100..130).map(|last| format!("10.9.0.{last}")).collect();
    vips.iter()
        .for_each(|vip| a.remember_as(vip, OLD_MAC, State::Stale));
    let start = |vip: &String| {
        Run::start(vipherald(
            &a,
            &format!("--config {} purge {vip}", settings.display()),
        ))
    };
    let runs: Vec<_> = vips.iter().map(start).collect();
    for run in runs {
        run.end().exits(0);
    }
    for vip in &vips {
        assert_eq!(receipts(&a, &settings, vip).len(), 1, "{vip}");
    }
    assert_eq!(receipts(&a, &settings, "").len(), vips.len());
}

#[test]
fn what_deletes_nothing_leaves_no_receipt_nor_does_a_dry_run_or_history_false() {
    let lab = Lab::new();
    let a = lab.host("a");
    let (on, off) = (
        settings(&lab, "on", ""),
        settings(&lab, "off", "history = false"),
    );
    let purge = |settings: &Path, more: &str| {
        run(
            &a,
            &format!("--config {} purge {VIP} {more}", settings.display()),
        )
        .exits(0);
    };
    purge(&on, "");
    a.remember_as(VIP, OLD_MAC, State::Stale);
    purge(&on, "--dry-run");
    purge(&off, "");
    assert_eq!(a.cached(VIP), None);
    for settings in [&on, &off] {
        let none = history(&a, settings, "");
        assert_eq!(none.stdout, "");
        none.logs("no receipt in");
    }
}

#[test]
fn the_time_of_a_receipt_is_that_when_the_run_began() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let own = settings(&lab, "a", "timeout = 2");
    [&a, &b].iter().for_each(|host| give(host, VIP, "eth0"));
    // Whether the other owner is a proxy is found out at the end, and takes its time.
    let log = lab.directory().join("log");
    let mut command = a.command(VIPHERALD);
    command.args(["--config", own.to_str().unwrap(), "announce", VIP]);
    command.args(["--log", &format!("file:{}", log.display())]);
    assert_eq!(command.status().unwrap().code(), Some(4));
    let log = fs::read_to_string(&log).unwrap();
    let (first_line, _) = log.split_once(' ').unwrap();
    let times = |receipts: Vec<Value>| {
        let times = receipts.iter().map(|one| one["time"].as_str().unwrap());
        times.map(str::to_owned).collect::<Vec<_>>()
    };
    let announced = times(receipts(&a, &own, "")).remove(0);
    assert!(announced.as_str() < first_line, "{announced} {log}");

    // So is that of orders which nobody answers.
    let orders = Orders::new(&lab, &a);
    let directory = directory(&lab, "a");
    let general = format!("history_dir = \"{}\"", directory.display());
    let own = orders.settings(&lab, "orders.toml", &general, "");
    let (config, to, mac) = (own.display(), b.ipv4(), b.mac());
    let order = format!("--config {config} order {VIP} --mac {mac} -p {to} --timeout 3");
    let order = Run::start(vipherald(&a, &order));
    common::watch_for(Duration::from_secs(1));
    let while_it_waits = a.run("date -u +%Y-%m-%dT%H:%M:%S.%3NZ");
    order.end().exits(3);
    let ordered = times(receipts(&a, &own, "--last 1")).remove(0);
    assert!(ordered.as_str() < while_it_waits.trim(), "{ordered}");
}

#[test]
fn where_nothing_can_be_written_the_run_goes_on_and_says_so_once_at_debug() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let settings = file(
        &lab,
        "settings",
        "history_dir = \"/proc/nowhere\"\ntimeout = 0.5\n",
    );
    give(&a, VIP, "eth0");
    b.remember(VIP, OLD_MAC);
    let announce = |more: &str| {
        run(
            &a,
            &format!("--config {} announce {VIP} {more}", settings.display()),
        )
    };
    announce("").exits(0).logs_no("receipt");
    assert_eq!(b.cached(VIP), Some(a.mac()));
    let told = announce("-v").exits(0);
    assert_eq!(
        told.stderr
            .matches("no receipt is kept in /proc/nowhere/history: ")
            .count(),
        1,
        "{told:?}"
    );
}

#[test]
fn orders_and_repairs_are_in_the_history_of_both_sides() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let orders = Orders::new(&lab, &a);
    let general = |name: &str| format!("history_dir = \"{}\"", directory(&lab, name).display());
    let of_a = orders.settings(&lab, "a.toml", &general("a"), "");
    let of_b = orders.settings(&lab, "b.toml", &general("b"), "");
    give(&a, VIP, "eth0");
    b.remember(VIP, OLD_MAC);
    let listening = listen(&b, &of_b, "");
    run(
        &a,
        &format!("--config {} order {VIP} -p {}", of_a.display(), b.ipv4()),
    )
    .exits(0);
    // Anybody may send datagrams that are no orders.
    let garbage = format!("head -c 20 /dev/zero > /dev/udp/{}/11120", b.ipv4());
    for _ in 0..3 {
        assert!(
            a.command("bash")
                .args(["-c", &garbage])
                .status()
                .unwrap()
                .success()
        );
    }
    // Nor is there anything to do for a second order.
    let order = order_to(&b, [7; 16], VIP, a.mac());
    obey(&a, &b, &orders, &order);
    listening.terminate().0.exits(143);

    let sent = receipts(&a, &of_a, "");
    assert_eq!(sent.len(), 1, "{sent:#?}");
    assert_eq!(
        (&sent[0]["command"], &sent[0]["orders"][0]["order"]),
        (&json!("order"), &json!("purged"))
    );
    let obeyed = receipts(&b, &of_b, VIP);
    assert_eq!(obeyed.len(), 1, "{obeyed:#?}");
    assert_eq!(obeyed[0]["command"], "listen");
    let done = &obeyed[0]["orders"][0];
    assert_eq!(done["peer"], json!(a.ipv4()));
    assert_eq!(
        (&done["order"], &done["was"]),
        (&json!("purged"), &json!(OLD_MAC))
    );
    let mut refused = receipts(&b, &of_b, "--last 1").remove(0);
    // An order that is still being carried out may have been sent again.
    let reasons = refused["refused"].as_object_mut();
    reasons.unwrap().remove("sent again");
    assert_eq!(
        refused["refused"],
        json!({"of a size that no order has": 3}),
        "{refused:#}"
    );

    // A repair.
    b.remember(VIP, OLD_MAC);
    run(
        &b,
        &format!("--config {} check {VIP} --fix", of_b.display()),
    )
    .exits(0);
    let repaired = receipts(&b, &of_b, "--last 1").remove(0);
    assert_eq!(
        (&repaired["command"], &repaired["vips"][0]["action"]),
        (&json!("check"), &json!("deleted"))
    );
    run(&b, &format!("--config {} check {VIP}", of_b.display())).exits(0);
    assert_eq!(receipts(&b, &of_b, "").len(), 3);
}

#[test]
fn a_silent_path_and_blocked_frames_are_in_the_history_and_the_metrics() {
    for (lab, peers, told, metric) in [
        (Lab::silent(), 0, "no frame of another host", "path_silent"),
        (Lab::new(), 4, "blocked on the way out", "blocked"),
    ] {
        let (a, peers) = (lab.host("a"), lab.hosts("p", peers));
        let metrics = lab.directory().join("v.prom");
        let more = format!("timeout = 4\nmetrics_file = \"{}\"", metrics.display());
        let settings = settings(&lab, "a", &more);
        give(&a, VIP, "eth0");
        common::meet(&a, &peers);
        for peer in &peers {
            common::never_hears(peer, VIP);
        }
        let announce = format!("--config {} announce {VIP}", settings.display());
        run(&a, &announce).exits(3);
        let table = history(&a, &settings, "").stdout;
        assert!(table.contains(told), "{table}");
        let metrics = fs::read_to_string(metrics).unwrap();
        for other in ["path_silent", "blocked"] {
            let value = u8::from(other == metric);
            let sample = format!(
                "vipherald_last_takeover_{other}{{vrrp_instance=\"\",vip=\"{VIP}\",\
                 interface=\"eth0\"}} {value}\n"
            );
            assert!(metrics.contains(&sample), "{sample}: {metrics}");
        }
    }
}

#[test]
fn one_failover_is_plotted_and_its_laggards_are_named() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("p", 4));
    let settings = settings(&lab, "a", "timeout = 3");
    common::meet(&a, &peers);
    peers[3].remember_as(VIP, OLD_MAC, State::Permanent);
    give(&a, VIP, "eth0");
    let nothing = run(
        &a,
        &format!("--config {} history --plot", settings.display()),
    )
    .exits(1);
    nothing.logs("there is nothing to plot");
    run(
        &a,
        &format!("--config {} announce {VIP}", settings.display()),
    )
    .exits(3);
    let plot = history(&a, &settings, "--last 1 --plot").stdout;
    assert!(plot.starts_with(&format!("{VIP} on eth0, ")), "{plot}");
    assert!(plot.contains("3 of 4 follow, the last after "), "{plot}");
    let laggard = format!("{} stale", peers[3].ipv4());
    assert!(plot.contains(&format!("never  {laggard}\n")), "{plot}");
    assert!(
        plot.contains(&format!("  {:50}  3\n", "#".repeat(37))),
        "{plot}"
    );

    let picture = lab.directory().join("plot.svg");
    history(&a, &settings, &format!("--svg {} {VIP}", picture.display()));
    let picture = fs::read_to_string(picture).unwrap();
    assert!(
        picture.contains(&laggard) && picture.trim_end().ends_with("</svg>"),
        "{picture}"
    );
    let missing = format!("--config {} history --svg /nowhere/x", settings.display());
    run(&a, &missing).exits(1).logs("cannot write /nowhere/x");
}

#[test]
fn of_a_run_for_many_vips_each_has_its_row_and_who_followed_it() {
    let lab = Lab::new();
    let (a, peers) = (lab.host("a"), lab.hosts("p", 3));
    let metrics = lab.directory().join("v.prom");
    let more = format!("timeout = 6\nmetrics_file = \"{}\"", metrics.display());
    let settings = settings(&lab, "a", &more);
    common::meet(&a, &peers);
    let vips: Vec<_> = (50..250).map(|last| format!("10.9.0.{last}")).collect();
    let batch = vips
        .iter()
        .map(|vip| format!("addr add {vip}/32 dev eth0\n"));
    a.ip(&batch.collect::<String>());
    peers[2].remember_as(&vips[199], OLD_MAC, State::Permanent);
    let announce = format!(
        "--config {} announce {}",
        settings.display(),
        vips.join(" ")
    );
    run(&a, &announce).exits(3);

    let table = history(&a, &settings, &format!("{} --peers", vips[199])).stdout;
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    let stale = format!("{} stale", peers[2].ipv4());
    assert!(
        rows[1].contains("unproven  2 of 3") && rows[1].ends_with(&stale),
        "{table}"
    );
    assert!(rows[3].ends_with("not listed  2 proven"), "{table}");
    let table = history(&a, &settings, &vips[100]).stdout;
    assert!(table.contains("ok      3 of 3"), "{table}");
    let plot = history(&a, &settings, &format!("--plot {}", vips[100])).stdout;
    assert!(plot.contains(": 3 of 3 follow, the last after "), "{plot}");
    let metrics = fs::read_to_string(metrics).unwrap();
    let proven = metrics.matches("verdict=\"proven\"} 3\n").count();
    assert_eq!(proven, 199, "{metrics}");
    for (result, vips) in [("ok", 199), ("unproven", 1)] {
        let counted = format!("result=\"{result}\"}} 1\n");
        assert_eq!(metrics.matches(&counted).count(), vips, "{metrics}");
    }
}

#[test]
fn since_takes_a_moment_or_an_age() {
    let lab = Lab::new();
    let a = lab.host("a");
    let settings = settings(&lab, "a", "");
    a.remember_as(VIP, OLD_MAC, State::Stale);
    run(&a, &format!("--config {} purge {VIP}", settings.display())).exits(0);
    for (since, count) in [
        ("1h", 1),
        ("-15min", 1),
        ("2026-01-01", 1),
        ("2999-01-01", 0),
        ("2026-01-01T00:00", 1),
    ] {
        assert_eq!(
            receipts(&a, &settings, &format!("--since {since}")).len(),
            count,
            "{since}"
        );
    }
    run(&a, "history --since soon")
        .exits(2)
        .logs("90s, 15m, 2h, 7d");
    for wrong in ["--since 2026-02-30", "--since -1x", "--since=", "--last 0"] {
        run(&a, &format!("history {wrong}")).exits(2);
    }
    assert_eq!(receipts(&a, &settings, VIP6).len(), 0);
}

#[test]
fn who_may_not_read_the_history_learns_why() {
    let lab = Lab::new();
    let a = lab.host("a");
    let state = directory(&lab, "a");
    fs::create_dir(&state).unwrap();
    // A directory is no file that anybody could read, not even root.
    fs::create_dir(state.join("history")).unwrap();
    let settings = settings(&lab, "a", "");
    let told = run(&a, &format!("--config {} history", settings.display())).exits(1);
    told.logs("cannot read the history");
}

// Metrics.

/// A node_exporter on a host, whose textfile collector reads this directory.
struct NodeExporter(Child);

impl NodeExporter {
    fn start(host: &Host, directory: &Path) -> Self {
        let mut command = host.command("prometheus-node-exporter");
        command
            .args(["--collector.disable-defaults", "--collector.textfile"])
            .arg(format!(
                "--collector.textfile.directory={}",
                directory.display()
            ))
            .arg("--web.listen-address=127.0.0.1:9100")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn metrics(host: &Host) -> String {
        eventually("node_exporter answers", SOON, || {
            let got = host.try_run("curl -s http://127.0.0.1:9100/metrics");
            got.status
                .success()
                .then(|| String::from_utf8(got.stdout).unwrap())
        })
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn promtool(host: &Host, arguments: &[&str], stdin: Option<&Path>) {
    let mut command = host.command("promtool");
    command.args(arguments).current_dir("examples/monitoring");
    if let Some(path) = stdin {
        command.stdin(File::open(path).unwrap());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    // It warns of what it accepts, too.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The names of vipherald's metrics in a text.
fn names(text: &str) -> std::collections::BTreeSet<&str> {
    let is_other = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    let words = text.split(is_other);
    words
        .filter(|word| word.starts_with("vipherald_"))
        .collect()
}

#[test]
fn node_exporter_serves_metrics_that_prometheus_and_the_examples_understand() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let collected = lab.directory().join("textfile");
    fs::create_dir(&collected).unwrap();
    let metrics = collected.join("vipherald.prom");
    let orders = Orders::new(&lab, &a);
    let general = format!(
        "history_dir = \"{}\"\nmetrics_file = \"{}\"\ntimeout = 2\n",
        directory(&lab, "a").display(),
        metrics.display()
    );
    let settings = orders.settings(&lab, "a.toml", &general, "release_orphan = true");
    let hook = format!("umask 0177; exec \"$@\" --config {}", settings.display());
    let run_as_hook = |arguments: &str| {
        let command = vipherald(&a, arguments);
        Run::start(common::in_shell(&a, &hook, &command)).end()
    };
    let conf = file(
        &lab,
        "conf",
        &instance("VI_1", 51, 100, &[&format!("{VIP}/24")], ""),
    );
    let master = with(&conf, "notify INSTANCE VI_1 MASTER 100");
    let backup = with(&conf, "notify INSTANCE VI_1 BACKUP 100");

    a.remember(b.ipv4(), b.mac());
    a.remember_as(VIP, OLD_MAC, State::Stale);
    run_as_hook(&backup).exits(0);
    give(&a, VIP, "eth0");
    // One that does not follow, and is asked and ordered in vain.
    b.remember_as(VIP, OLD_MAC, State::Permanent);
    run_as_hook(&master).exits(3);
    b.ip(&format!("neigh del {VIP} dev eth0\n"));
    b.remember(VIP, OLD_MAC);
    run_as_hook(&master).exits(0);
    // The old keepalived is dead, as it never lived.
    run_as_hook(&with(&conf, "release --all")).exits(0);
    let listening = listen(&a, &settings, "");
    let garbage = format!("head -c 20 /dev/zero > /dev/udp/{}/11120", a.ipv4());
    assert!(
        b.command("bash")
            .args(["-c", &garbage])
            .status()
            .unwrap()
            .success()
    );
    a.remember(VIP, OLD_MAC);
    let order = order_to(&a, [7; 16], VIP, b.mac());
    obey(&b, &a, &orders, &order);
    listening.terminate().0.exits(143);

    assert_eq!(
        fs::metadata(&metrics).unwrap().permissions().mode() & 0o777,
        0o644
    );
    promtool(&a, &["check", "metrics"], Some(&metrics));
    let _exporter = NodeExporter::start(&a, &collected);
    let served = NodeExporter::metrics(&a);
    let labels = format!("interface=\"eth0\",vip=\"{VIP}\",vrrp_instance=\"VI_1\"");
    let with_label = |label: &str| {
        let mut all: Vec<_> = labels.split(',').chain([label]).collect();
        all.sort_unstable();
        all.join(",")
    };
    for (name, labels, value) in [
        ("takeovers_total", with_label("result=\"ok\""), "1"),
        ("takeovers_total", with_label("result=\"unproven\""), "1"),
        ("peers", with_label("verdict=\"proven\""), "1"),
        ("peers", with_label("verdict=\"stale\""), "0"),
        ("conflicts_total", labels.clone(), "0"),
        ("purged_entries_total", labels.clone(), "2"),
        (
            "refused_datagrams_total",
            "reason=\"of a size that no order has\"".to_owned(),
            "1",
        ),
        ("orders_obeyed_total", with_label("outcome=\"purged\""), "1"),
    ] {
        let line = format!("vipherald_{name}{{{labels}}} {value}\n");
        assert!(served.contains(&line), "{line}: {served}");
    }
    assert!(
        served.contains("node_textfile_scrape_error 0\n"),
        "{served}"
    );
    let known = names(&served);

    // What the examples ask for is there.
    let rules = fs::read_to_string("examples/monitoring/vipherald.rules.yml").unwrap();
    let dashboard = fs::read_to_string("examples/monitoring/dashboard.json").unwrap();
    for name in names(&rules).union(&names(&dashboard)) {
        assert!(known.contains(name), "{name}: {known:?}");
    }
    // And what is there has a panel.
    let shown = names(&dashboard);
    assert!(known.is_subset(&shown), "{known:?}: {shown:?}");
}

#[test]
fn the_alerts_fire_when_they_should_and_the_dashboard_is_made_of_valid_queries() {
    let lab = Lab::new();
    let a = lab.host("a");
    promtool(&a, &["check", "rules", "vipherald.rules.yml"], None);
    // It seeks the rules beside the test.
    for (name, from) in [
        (
            "vipherald.rules.yml",
            "examples/monitoring/vipherald.rules.yml",
        ),
        ("rules.test.yml", "tests/monitoring/rules.test.yml"),
    ] {
        fs::copy(from, lab.directory().join(name)).unwrap();
    }
    let test = lab.directory().join("rules.test.yml");
    promtool(&a, &["test", "rules", test.to_str().unwrap()], None);

    let dashboard = fs::read_to_string("examples/monitoring/dashboard.json").unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let rule = |target: &Value| json!({"record": "x", "expr": target["expr"]});
    let rules: Vec<_> = targets.map(rule).collect();
    assert!(rules.len() >= 6);
    // YAML includes JSON.
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let queries = file(&lab, "queries.yml", &rules.to_string());
    promtool(
        &a,
        &["check", "rules", "--lint=none", queries.to_str().unwrap()],
        None,
    );
}

#[test]
fn metrics_that_cannot_be_written_are_told() {
    let lab = Lab::new();
    let a = lab.host("a");
    for (more, told) in [
        (
            "metrics_file = \"/nowhere/v.prom\"",
            "cannot write the metrics /nowhere/v.prom: ",
        ),
        (
            "metrics_file = \"/nowhere/v.prom\"\nhistory = false",
            "they come from the history",
        ),
    ] {
        let settings = settings(&lab, "a", more);
        a.remember_as(VIP, OLD_MAC, State::Stale);
        let ended = run(&a, &format!("--config {} purge {VIP}", settings.display()));
        ended.exits(0).logs(told);
        assert_ne!(a.cached(VIP), Some(old_mac()));
    }
}
