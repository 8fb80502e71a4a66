//! Following keepalived's notify FIFO, without keepalived: the tests write the lines themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write, pipe};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use vipherald_lab::{Direction, Host, Lab, eventually};

use common::{
    Ended, OLD_MAC, Run, SOON, VIP, VIP6, assert_at_once, assert_followed, fill, give, give_all,
    keeps, old_mac, remember_old, run, signal, since, take, vipherald, wait_for_announcement,
    wait_until_followed, watch_for,
};
use events::{
    fifo, file, instance, sent_for, storm, wait_for_frame, wait_for_frame_after,
    wait_until_forgotten, with,
};

const OTHER_VIP: &str = "10.9.0.101";
/// The promise is a time: whatever is to end does so later, too.
const AT_ONCE: Duration = Duration::from_millis(50);

/// `vipherald fifo` on a host, and keepalived's end of the FIFO.
struct Followed {
    run: Run,
    writer: Option<File>,
    log: PathBuf,
}

impl Followed {
    /// Makes the FIFO and opens it as keepalived does, then starts the reader.
    fn start(lab: &Lab, host: &Host, conf: &str, options: &str) -> Self {
        Self::printing_to(Stdio::null(), lab, host, conf, options)
    }

    fn printing_to(stdout: Stdio, lab: &Lab, host: &Host, conf: &str, options: &str) -> Self {
        let name = host.name();
        let conf = file(lab, &format!("{name}.conf"), conf);
        let (path, writer) = fifo(lab, &format!("{name}.fifo"));
        let log = lab.directory().join(format!("{name}.log"));
        let arguments = with(&conf, &format!("{options} fifo {}", path.display()));
        let mut command = vipherald(host, &arguments);
        command.stdout(stdout).stderr(File::create(&log).unwrap());
        Self {
            run: Run::start(command),
            writer: Some(writer),
            log,
        }
    }

    fn write(&self, octets: impl AsRef<[u8]>) {
        let mut writer = self.writer.as_ref().unwrap();
        let octets = octets.as_ref();
        assert_eq!(writer.write(octets).unwrap(), octets.len());
    }

    /// Writes an instance's line.
    fn tell(&self, name: &str, state: &str) {
        self.write(format!("INSTANCE \"{name}\" {state} 100\n"));
    }

    /// What it has not read yet, of what was written. Nobody reads it afterwards.
    fn unread(&self) -> String {
        let mut octets = [0; 65_536];
        match self.writer.as_ref().unwrap().read(&mut octets) {
            Ok(read) => String::from_utf8_lossy(&octets[..read]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Closes keepalived's end.
    fn close(&mut self) {
        self.writer = None;
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for_log(&self, part: &str) {
        let what = format!("the log says {part:?}");
        eventually(&what, SOON, || self.log().contains(part).then_some(()));
    }

    /// Sends SIGTERM, waits for the end, and gives the log.
    fn terminate(self) -> String {
        self.run.goes_on();
        fs::read_to_string(&self.log).unwrap()
    }

    fn end(self) -> (Ended, String) {
        let ended = self.run.end();
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        (ended, log)
    }
}

fn two_instances() -> String {
    instance("VI_1", 51, 100, &[VIP], "") + &instance("VI_2", 52, 100, &[OTHER_VIP], "")
}

/// Three times, a host has the VIP and hears MASTER, and has it no more and hears BACKUP: the peer
/// follows, and the host forgets.
fn comes_and_goes(followed: &Followed, host: &Host, peer: &Host) {
    for _ in 0..3 {
        remember_old([peer], &[VIP]);
        give(host, VIP, "eth0");
        followed.tell("VI_1", "MASTER");
        wait_until_followed([peer], &[VIP], host.mac());
        // What is left of the time before.
        host.remember(VIP, OLD_MAC);
        take(host, VIP, "eth0");
        followed.tell("VI_1", "BACKUP");
        wait_until_forgotten(host, VIP);
    }
}

#[test]
fn lines_are_acted_on_and_receivers_follow() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    comes_and_goes(&followed, &a, &b);
}

#[test]
fn the_last_of_many_lines_counts() {
    let lab = Lab::new();
    let a = lab.host("a");
    let capture = a.capture();
    give(&a, VIP, "eth0");
    give(&a, OTHER_VIP, "eth0");
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    // Both at once: whatever is made of the lines between, the last one holds.
    let (to_master, to_backup) = (["BACKUP", "MASTER"], ["MASTER", "BACKUP"]);
    for _ in 0..20 {
        for (one, other) in to_master.into_iter().zip(to_backup) {
            followed.tell("VI_1", one);
            followed.tell("VI_2", other);
        }
    }
    // Once it has read them all, and then purged, MASTER is of the past.
    followed.write("nonsense\n");
    followed.wait_for_log("that is no event");
    let held = format!("{OTHER_VIP} held here");
    let purges = || followed.log().matches(&held).count();
    let before = purges();
    followed.tell("VI_2", "FAULT");
    eventually("VI_2 is purged once more", SOON, || {
        (purges() > before).then_some(())
    });
    let end = SystemTime::now();
    wait_for_frame_after(&capture, VIP, end);
    watch_for(Duration::from_millis(700));
    let late = sent_for(&capture.frames(), OTHER_VIP)
        .into_iter()
        .find(|frame| frame.time > end);
    assert_eq!(late, None, "{}", followed.log());
}

/// VIPs of a host, and an instance for them that takes a while to announce.
fn many_vips(host: &Host) -> (Vec<String>, String) {
    let vips: Vec<_> = (0..250).map(|n| format!("10.9.1.{n}")).collect();
    give_all(host, &vips);
    let named: Vec<_> = vips.iter().map(String::as_str).collect();
    let conf = instance("LONG", 51, 100, &named, "");
    (vips, conf)
}

#[test]
fn a_long_announcement_does_not_delay_another_instance() {
    let lab = Lab::new();
    let a = lab.host("a");
    let _b = lab.host("b");
    let (many, mut conf) = many_vips(&a);
    let few: Vec<_> = (0..40).map(|n| format!("10.9.2.{n}")).collect();
    for (n, vip) in few.iter().enumerate() {
        give(&a, vip, "eth0");
        conf += &instance(&format!("SHORT_{n}"), 60, 100, &[vip], "");
    }
    let capture = a.capture();
    let followed = Followed::start(&lab, &a, &conf, "");
    followed.tell("LONG", "MASTER");
    wait_for_frame(&capture, &many[0]);
    let mut few = few.iter().enumerate();
    // In a debug build the long one's round takes a second.
    keeps(3 * AT_ONCE, || {
        let (n, vip) = few.next().unwrap();
        let told = SystemTime::now();
        followed.tell(&format!("SHORT_{n}"), "MASTER");
        since(told, wait_for_frame(&capture, vip).time)
    });
}

#[test]
fn a_newer_event_ends_a_round_that_is_being_sent() {
    keeps(AT_ONCE, || {
        let lab = Lab::new();
        let a = lab.host("a");
        let (many, conf) = many_vips(&a);
        let capture = a.capture();
        let followed = Followed::start(&lab, &a, &conf, "");
        followed.tell("LONG", "MASTER");
        wait_for_frame(&capture, &many[0]);
        let told = SystemTime::now();
        followed.tell("LONG", "BACKUP");
        followed.wait_for_log("held here");
        // Those whose turn did not come are no failures.
        let log = followed.log();
        assert!(log.contains("left on eth0 to a newer event"), "{log}");
        assert!(!log.contains("error"), "{log}");
        let frames = capture.frames();
        let last = frames
            .iter()
            .rev()
            .find(|frame| frame.direction == Direction::FromHost && frame.ether_type() == 0x0806);
        last.unwrap().time.duration_since(told).unwrap_or_default()
    });
}

#[test]
fn a_newer_event_ends_the_older_announcement_first() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    followed.tell("VI_1", "MASTER");
    wait_for_announcement(&capture, VIP, 3);
    // The VIP is still here, so that nothing but the newer event can end the announcement.
    followed.tell("VI_1", "BACKUP");
    followed.wait_for_log(&format!("{VIP} held here"));
    let end = SystemTime::now();
    watch_for(Duration::from_millis(800));
    let frames = sent_for(&capture.frames(), VIP);
    assert!(frames.iter().all(|frame| frame.time < end), "{frames:?}");
    let log = followed.log();
    // Nobody was there to follow it.
    let left = log.find(&format!("{VIP} left on eth0 to a newer event"));
    let held = log.find(&format!("{VIP} held here"));
    assert!(left.is_some() && left < held, "{log}");
    assert!(!log.contains("announced"), "{log}");
}

#[test]
fn garbage_and_unknown_instances_are_logged_and_end_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    let quoted = r#"say "hi" now"#;
    let conf = two_instances().replace("VI_1", "say\\\"hi");
    let followed = Followed::start(&lab, &a, &conf, "");
    a.remember(OTHER_VIP, OLD_MAC);

    followed.write([0xff, 0, 0xfe, b'\n', b'\n']);
    followed.wait_for_log("that is no event");
    followed.write(vec![b'x'; 20_000]);
    followed.write("\n");
    followed.wait_for_log("more than 4096 octets");
    followed.write(format!("INSTANCE \"{quoted}\" MASTER 100\n"));
    followed.wait_for_log(quoted);
    followed.tell("OTHER", "MASTER");
    followed.wait_for_log("error: OTHER: ");
    followed.tell("VI_2", "NEW_STATE");
    followed.tell("VI_2", "MASTER_PRIORITY");
    assert_eq!(a.cached(OTHER_VIP), Some(old_mac()));
    // A line in pieces, which the reader gets one by one.
    for piece in ["INST", "ANCE \"VI", "_2\" BACK", "UP 100"] {
        followed.write(piece);
        watch_for(Duration::from_millis(20));
        assert_eq!(a.cached(OTHER_VIP), Some(old_mac()), "{piece:?}");
    }
    followed.write("\n");
    wait_until_forgotten(&a, OTHER_VIP);
}

#[test]
fn a_reader_that_could_not_serve_an_event_does_not_end_with_success() {
    for (instance, status) in [("VI_1", 0), ("OTHER", 1)] {
        let lab = Lab::new();
        let a = lab.host("a");
        let mut followed = Followed::start(&lab, &a, &two_instances(), "");
        followed.tell(instance, "BACKUP");
        followed.write("nonsense\n");
        followed.wait_for_log("that is no event");
        followed.close();
        followed.end().0.exits(status);
    }
}

#[test]
fn the_end_of_the_fifo_lets_announcements_finish() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let settings = file(&lab, "settings.toml", "timeout = 4\n");
    let capture = a.capture();
    let options = format!("--config {}", settings.display());
    let mut followed = Followed::start(&lab, &a, &two_instances(), &options);
    followed.tell("VI_1", "MASTER");
    wait_for_frame(&capture, VIP);
    followed.write("INSTANCE \"VI_1\" BACK");
    let closed = SystemTime::now();
    followed.close();
    let (ended, log) = followed.end();
    assert_eq!(ended.status, 0, "{log}");
    assert!(log.contains("in the middle of a line"), "{log}");
    assert!(!log.contains("cut short"), "{log}");
    let frames = sent_for(&capture.frames(), VIP);
    assert!(frames.iter().any(|frame| frame.time > closed), "{frames:?}");
}

#[test]
fn the_end_of_the_fifo_ends_an_idle_run_at_once() {
    keeps(AT_ONCE, || {
        let lab = Lab::new();
        let a = lab.host("a");
        let mut followed = Followed::start(&lab, &a, &two_instances(), "");
        followed.tell("VI_1", "BACKUP");
        followed.write("nonsense\n");
        followed.wait_for_log("that is no event");
        let closed = Instant::now();
        followed.close();
        let (ended, log) = followed.end();
        assert_eq!(ended.status, 0, "{log}");
        closed.elapsed()
    });
}

#[test]
fn sigterm_ends_it_at_once_with_all_its_announcements() {
    keeps(AT_ONCE, || {
        let lab = Lab::new();
        let a = lab.host("a");
        give(&a, VIP, "eth0");
        give(&a, OTHER_VIP, "eth0");
        let capture = a.capture();
        let followed = Followed::start(&lab, &a, &two_instances(), "");
        followed.tell("VI_1", "MASTER");
        followed.tell("VI_2", "MASTER");
        wait_for_announcement(&capture, VIP, 3);
        wait_for_announcement(&capture, OTHER_VIP, 3);
        let (ended, delay) = followed.run.terminate();
        assert_eq!(ended.status, 143);
        let end = SystemTime::now();
        watch_for(Duration::from_millis(200));
        let frames = capture.frames();
        for vip in [VIP, OTHER_VIP] {
            let sent = sent_for(&frames, vip);
            assert!(sent.iter().all(|frame| frame.time < end), "{sent:?}");
        }
        delay
    });
}

#[test]
fn sigterm_ends_it_before_anybody_opened_the_other_end() {
    let lab = Lab::new();
    let a = lab.host("a");
    let path = lab.directory().join("lonely.fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let conf = file(&lab, "keepalived.conf", &two_instances());
    let arguments = with(&conf, &format!("fifo {}", path.display()));
    keeps(AT_ONCE, || {
        let run = Run::start(vipherald(&a, &arguments));
        // Asleep in open(2).
        let syscall = format!("/proc/{}/syscall", run.pid());
        eventually("it waits for a writer", SOON, || {
            let call = fs::read_to_string(&syscall).ok()?;
            call.starts_with(&libc::SYS_openat.to_string())
                .then_some(())
        });
        let (ended, delay) = run.terminate();
        assert_eq!(ended.status, 143, "{ended:?}");
        delay
    });
}

#[test]
fn a_burst_of_ten_thousand_lines_finds_room_in_the_pipe() {
    const INSTANCES: usize = 100;
    let lab = Lab::new();
    let a = lab.host("a");
    let vips: Vec<_> = (0..INSTANCES).map(|n| format!("10.9.1.{n}")).collect();
    give_all(&a, &vips);
    let conf: String = vips
        .iter()
        .enumerate()
        .map(|(n, vip)| instance(&format!("INSTANCE_{n}"), 51, 100, &[vip], ""))
        .collect();
    let capture = a.capture();
    let followed = Followed::start(&lab, &a, &conf, "--quiet");
    // It reads as soon as it answers.
    followed.write("nonsense\n");
    followed.wait_for_log("that is no event");
    let mut writer = followed.writer.as_ref().unwrap();
    let mut full = 0;
    let began = Instant::now();
    for n in 0..10_000 {
        let state = ["MASTER", "BACKUP"][(n / INSTANCES + 1) % 2];
        let line = format!("INSTANCE \"INSTANCE_{}\" {state} 100\n", n % INSTANCES);
        while let Err(error) = writer.write_all(line.as_bytes()) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            full += 1;
            thread::yield_now();
        }
    }
    let lasted = began.elapsed();
    println!("10,000 lines in {lasted:?}; the pipe was full {full} times");
    assert_eq!(full, 0, "the pipe was full, in {lasted:?}");
    // The last hundred lines say MASTER: none of them was lost.
    let written = SystemTime::now();
    for vip in &vips {
        wait_for_frame_after(&capture, vip, written);
    }
}

#[test]
fn what_is_no_fifo_is_refused() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "keepalived.conf", &two_instances());
    let plain = file(&lab, "plain", "INSTANCE \"VI_1\" MASTER 100\n");
    for (path, told) in [
        (plain.display().to_string(), "not a FIFO"),
        ("/nowhere/fifo".to_owned(), "No such file"),
    ] {
        let ended = run(&a, &with(&conf, &format!("fifo {path}"))).exits(1);
        ended.logs(told).logs(&path);
    }
}

#[test]
fn two_hundred_moves_through_the_fifo_end_as_the_kernel_has_it() {
    let lab = Lab::new();
    let mut followed: Vec<(String, Followed)> = Vec::new();
    storm(&lab, |host, state| {
        if followed.iter().all(|(name, _)| name != host.name()) {
            let started = Followed::start(&lab, host, &two_instances(), "");
            followed.push((host.name().to_owned(), started));
        }
        let (_, followed) = followed
            .iter()
            .find(|(name, _)| name == host.name())
            .unwrap();
        followed.tell("VI_1", state);
    });
}

#[test]
fn vips_that_are_here_and_that_no_line_is_about_are_announced() {
    const VIPS: [&str; 5] = [VIP, VIP6, OTHER_VIP, "10.9.0.102", "10.9.0.103"];
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let peers = [&b];
    let [_, _, told, of_a_group, elsewhere] = VIPS;
    let conf = "vrrp_sync_group G {\n group {\n GROUPED\n }\n}\n".to_owned()
        // One of its VIPs is here, and so is one of another family.
        + &instance("VI_4", 51, 100, &[VIP, elsewhere], "")
        + &instance("VI_6", 51, 100, &[VIP6], "")
        + &instance("TOLD", 52, 100, &[told], "")
        + &instance("GROUPED", 53, 100, &[of_a_group], "")
        + &instance("ELSEWHERE", 54, 100, &["10.9.0.104"], "")
        + &instance("LOOPBACK", 55, 100, &["10.9.0.105"], "");
    for vip in [VIP, VIP6, told, of_a_group] {
        give(&a, vip, "eth0");
    }
    give(&a, "10.9.0.105", "lo");
    remember_old(peers, &VIPS);
    let capture = a.capture();
    let followed = Followed::start(&lab, &a, &conf, "");
    // What is held is purged as little as announced; MASTER_PRIORITY calls for nothing.
    followed.tell("TOLD", "BACKUP");
    followed.write("GROUP \"G\" BACKUP 0\n");
    followed.tell("VI_4", "MASTER_PRIORITY");
    wait_until_followed(peers, &[VIP, VIP6], a.mac());
    // From its first line on, an instance follows its lines.
    followed.tell("VI_4", "BACKUP");
    let log = format!("VI_4: {VIP} held here");
    followed.wait_for_log(&log);
    watch_for(Duration::from_millis(500));
    let log = followed.terminate();
    assert_followed(peers, &[told, of_a_group, elsewhere], old_mac());
    for vip in [told, of_a_group, elsewhere, "10.9.0.104", "10.9.0.105"] {
        assert_eq!(sent_for(&capture.frames(), vip), [], "{vip}: {log}");
    }
    for name in ["ELSEWHERE", "LOOPBACK", "error"] {
        assert!(!log.contains(name), "{name}: {log}");
    }
    assert!(log.contains("VI_6: its VIPs are here"), "{log}");
    // Only the announcement that was cut is logged.
    assert!(
        log.contains("the announcement of VI_6 is cut short"),
        "{log}"
    );
}

#[test]
fn once_each_instance_has_had_its_line_nothing_more_is_announced() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, OTHER_VIP] {
        give(&a, vip, "eth0");
    }
    let capture = a.capture();
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    for name in ["VI_1", "VI_2"] {
        followed.tell(name, "BACKUP");
    }
    watch_for(Duration::from_secs(2));
    for vip in [VIP, OTHER_VIP] {
        assert_eq!(sent_for(&capture.frames(), vip), [], "{}", followed.log());
    }
    let log = followed.terminate();
    assert!(!log.contains("cut short"), "{log}");
}

#[test]
fn sigterm_leaves_the_next_line_unread() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let mut followed = Followed::start(&lab, &a, &two_instances(), "");
    followed.tell("VI_1", "MASTER");
    wait_for_announcement(&capture, VIP, 3);
    // Whatever of the two it learns of first when it runs again: they are there at once.
    signal(followed.run.pid(), Signal::SIGSTOP);
    signal(followed.run.pid(), Signal::SIGTERM);
    let next = "INSTANCE \"VI_1\" BACKUP 100\n";
    followed.write(next);
    signal(followed.run.pid(), Signal::SIGCONT);
    eventually("it ends", SOON, || followed.run.has_ended().then_some(()));
    assert_eq!(followed.unread(), next);
    let (ended, log) = followed.end();
    assert_eq!(ended.status, 143, "{log}");
    assert!(
        log.contains("the announcement of VI_1 is cut short"),
        "{log}"
    );
}

#[test]
fn a_flood_of_nonsense_logs_a_few_warnings() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    remember_old([&b], &[VIP]);
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    for _ in 0..500 {
        followed.tell("VI_1", "MASTER_RX_LOWER_PRIO");
        followed.write("INSTANCE \"VI_1\" master 100\n");
    }
    followed.tell("VI_1", "MASTER");
    wait_until_followed([&b], &[VIP], a.mac());
    let log = followed.log();
    let warnings = log.lines().filter(|line| line.starts_with("warning: "));
    assert_eq!(warnings.count(), 6, "{log}");
    for part in [
        "VI_1: keepalived knows no state MASTER_RX_LOWER_PRIO",
        "MASTER, MASTER_RX_LOWER_PRI, BACKUP",
        "no event",
        "for a minute",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn lines_about_servers_and_priorities_are_ignored_silently() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    remember_old([&b], &[VIP]);
    let followed = Followed::start(&lab, &a, &two_instances(), "");
    for line in [
        "VS [192.0.2.10]:tcp:80 UP",
        "RS [10.0.0.1]:tcp:80 [192.0.2.10]:tcp:80 DOWN",
        "VS [2001:db8::10]:udp:53 DOWN",
        "INSTANCE \"VI_1\" BACKUP_PRIORITY 90",
    ] {
        followed.write(format!("{line}\n"));
    }
    followed.tell("VI_1", "MASTER");
    wait_until_followed([&b], &[VIP], a.mac());
    assert_eq!(followed.log(), "");
}

#[test]
fn a_stuck_reader_of_reports_delays_nothing() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let conf = two_instances();
    let followed = Followed::printing_to(writer.into(), &lab, &a, &conf, "--json");
    // Each of these leaves a report, which nobody takes.
    comes_and_goes(&followed, &a, &b);
    let (ended, lasted) = followed.run.terminate();
    assert_at_once(lasted, &ended.exits(143));
    drop(reader);
}

#[test]
fn a_late_reader_gets_whole_reports() {
    let lab = Lab::new();
    let a = lab.host("a");
    let (mut reader, writer) = pipe().unwrap();
    let full = fill(&writer);
    let conf = two_instances();
    let mut followed = Followed::printing_to(writer.into(), &lab, &a, &conf, "--json");
    for (name, vip) in [("VI_1", VIP), ("VI_2", OTHER_VIP)] {
        a.remember(vip, OLD_MAC);
        followed.tell(name, "BACKUP");
        wait_until_forgotten(&a, vip);
    }
    followed.close();
    watch_for(Duration::from_millis(300));
    assert!(!followed.run.has_ended());
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    let (ended, log) = followed.end();
    assert_eq!(ended.status, 0, "{log}");
    let lines: Vec<_> = printed[full..].split(|octet| *octet == b'\n').collect();
    for (line, name) in lines.iter().zip(["VI_1", "VI_2"]) {
        let report: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(report["instance"], name, "{report}");
    }
    assert_eq!(lines.len(), 3, "two lines, each with its end: {lines:?}");
}
