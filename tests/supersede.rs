//! One run per VIP and network namespace: the newer run makes the older yield, and nobody else can.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]
#![allow(unsafe_code)]

mod common;
mod events;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::libc;
use nix::sys::signal::Signal;
use rtnetlink::sys::{Socket, SocketAddr};
use vipherald_lab::{Host, Lab, eventually};

use common::{
    Run, SOON, VIP, give, heard, keeps, second_interface, signal, take, vipherald,
    wait_for_announcement, watch_for,
};
use events::{file, instance, sent_for, storm, wait_for_frame_after, with};

const OTHER_VIP: &str = "10.9.0.101";
const THIRD_VIP: &str = "10.9.0.102";
const SUPERSEDED: i32 = 6;
/// How soon an older run yields. The promise is a time: later it ends by itself.
const AT_ONCE: Duration = Duration::from_millis(50);
/// A user that is not root: Debian's and Fedora's `nobody`.
const NOBODY: u32 = 65534;

/// `NETLINK_USERSOCK`, and the group that runs listen to.
const USERSOCK: u32 = 2;
const GROUP: u32 = 1 << 21;

/// A run that announces a VIP and has claimed it.
fn announcing(host: &Host, vips: &str) -> Run {
    claimed(Run::start(vipherald(
        host,
        &format!("--json announce {vips}"),
    )))
}

fn claimed(run: Run) -> Run {
    eventually("the run claims its VIPs", SOON, || {
        has_claimed(run.pid()).then_some(())
    });
    run
}

/// Whether a process listens to other runs: its first socket of a kind has its process ID.
fn has_claimed(pid: u32) -> bool {
    netlink_sockets(pid).contains(&(USERSOCK, pid))
}

/// Of the network namespace of a process: (protocol, port ID) of all that listen to a group.
fn netlink_sockets(pid: u32) -> Vec<(u32, u32)> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = *fields.get(3)? != "00000000";
        listens.then_some((fields[1].parse().ok()?, fields[2].parse().ok()?))
    });
    sockets.collect()
}

/// Waits for the end of an older run; gives the moment.
fn yields(older: Run) -> Instant {
    let ended = older.end();
    let end = Instant::now();
    assert_eq!(ended.status, SUPERSEDED, "{ended:?}");
    let report = ended.report();
    assert_eq!(report["result"], "superseded", "{report}");
    end
}

#[test]
fn a_newer_run_makes_the_older_yield_within_50_ms() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let mut older = Some(announcing(&a, VIP));
    keeps(AT_ONCE, || {
        let newer = announcing(&a, VIP);
        let claimed = Instant::now();
        let end = yields(older.replace(newer).unwrap());
        end.saturating_duration_since(claimed)
    });
    // A debug build takes its time to start.
    keeps(4 * AT_ONCE, || {
        let began = Instant::now();
        let newer = announcing(&a, VIP);
        yields(older.replace(newer).unwrap()) - began
    });
    // The last one has the VIP to itself, and announces it.
    wait_for_frame_after(&capture, VIP, SystemTime::now());
    older.unwrap().goes_on();
}

#[test]
fn of_many_runs_at_once_one_is_left() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let mut runs: Vec<_> = (0..12)
        .map(|_| Run::start(vipherald(&a, &format!("--json announce {VIP}"))))
        .collect();
    let ended = until_one_is_left(&mut runs);
    watch_for(Duration::from_millis(300));
    for run in ended {
        yields(run);
    }
    runs.pop().unwrap().goes_on();
}

/// Waits until all runs but one have ended; gives those.
fn until_one_is_left(runs: &mut Vec<Run>) -> Vec<Run> {
    let mut ended = Vec::new();
    eventually("all runs but one end", SOON, || {
        ended.extend(runs.extract_if(.., Run::has_ended));
        (runs.len() <= 1).then_some(())
    });
    ended
}

#[test]
fn a_run_that_was_killed_leaves_nothing_in_the_way() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let killed = announcing(&a, VIP);
    signal(killed.pid(), Signal::SIGKILL);
    assert_eq!(killed.end().status, 128 + 9);
    let left = a.run("cat /proc/self/net/netlink");
    assert!(!left.contains(&format!("{GROUP:08x}")), "{left}");
    let older = announcing(&a, VIP);
    let newer = announcing(&a, VIP);
    yields(older);
    newer.goes_on();
}

#[test]
fn neither_the_umask_nor_read_only_mounts_matter() {
    // Every mount read-only, and no process may make any file an octet longer.
    const READ_ONLY: &str = r#"
        while read -r _ at _; do
            mount -o remount,bind,ro "$at" 2>/dev/null
        done < /proc/self/mounts
        for directory in / /tmp /run /var/tmp /var/lib /dev/shm "$HOME" .; do
            if touch "$directory/vipherald-was-here" 2>/dev/null; then
                echo "$directory is writable" >&2
                exit 99
            fi
        done
        ulimit -f 0
        exec "$@""#;
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let announce = vipherald(&a, &format!("--json announce {VIP}"));
    for script in [r#"umask 0177; exec "$@""#, READ_ONLY] {
        let start = || {
            let mut command = a.command("unshare");
            command
                .args(["--mount", "sh", "-c", script, "sh"])
                .arg(announce.get_program())
                .args(announce.get_args());
            claimed(Run::start(heard(command)))
        };
        let older = start();
        let newer = start();
        yields(older);
        newer.goes_on();
    }
}

#[test]
fn different_vips_do_not_disturb_each_other() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    give(&a, OTHER_VIP, "eth0");
    let capture = a.capture();
    let (one, other) = (announcing(&a, VIP), announcing(&a, OTHER_VIP));
    let both_here = SystemTime::now();
    for vip in [VIP, OTHER_VIP] {
        wait_for_frame_after(&capture, vip, both_here);
    }
    one.goes_on();
    other.goes_on();
}

#[test]
fn of_overlapping_vips_only_the_shared_ones_yield() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, OTHER_VIP, THIRD_VIP] {
        give(&a, vip, "eth0");
    }
    let capture = a.capture();
    let older = announcing(&a, &format!("{VIP} {OTHER_VIP}"));
    let newer = announcing(&a, &format!("{OTHER_VIP} {THIRD_VIP} --timeout 1.5"));
    let ended = newer.end().exits(0);
    let report = ended.report();
    assert!(
        report["vips"][0]["frames_sent"].as_u64() > Some(1),
        "{report}"
    );
    let alone = SystemTime::now();
    // The older one's next rounds.
    wait_for_frame_after(&capture, VIP, alone);
    watch_for(Duration::from_millis(1600));
    let frames = capture.frames();
    for vip in [OTHER_VIP, THIRD_VIP] {
        let late: Vec<_> = sent_for(&frames, vip)
            .into_iter()
            .filter(|frame| frame.time > alone)
            .collect();
        assert!(late.is_empty(), "{vip}: {late:?}");
    }
    older.goes_on();
}

#[test]
fn other_network_namespaces_are_not_affected() {
    let (one, other) = (Lab::new(), Lab::new());
    let (a, b) = (one.host("a"), other.host("a"));
    give(&a, VIP, "eth0");
    give(&b, VIP, "eth0");
    let capture = a.capture();
    let older = announcing(&a, VIP);
    let newer = announcing(&b, VIP);
    wait_for_frame_after(&capture, VIP, SystemTime::now());
    older.goes_on();
    newer.goes_on();
}

#[test]
fn an_older_run_that_claims_late_yields_to_the_newer() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    keeps(AT_ONCE, || {
        let older = stopped_before_its_claim(&a);
        let newer = announcing(&a, VIP);
        let woken = Instant::now();
        signal(older.pid(), Signal::SIGCONT);
        let end = yields(older);
        newer.goes_on();
        end - woken
    });
}

/// A run that has begun, and was stopped before it could claim the VIP.
fn stopped_before_its_claim(host: &Host) -> Run {
    const ROUTE: u32 = 0;
    for _ in 0..200 {
        let run = Run::start(vipherald(host, &format!("--json announce {VIP}")));
        let pid = run.pid();
        // Its age is taken before it subscribes to changes.
        while !netlink_sockets(pid).contains(&(ROUTE, pid)) {
            thread::yield_now();
        }
        stop(pid);
        if !has_claimed(pid) {
            return run;
        }
        signal(pid, Signal::SIGKILL);
        run.end();
    }
    panic!("200 runs claimed the VIP before they could be stopped");
}

/// Stops a process, and waits until it is.
fn stop(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    eventually("it is stopped", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.starts_with('T').then_some(())
    });
}

/// Runs `f` in a thread in the network namespace of a process, as another user of the system.
fn as_user<T: Send>(uid: u32, pid: u32, f: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let inside = || {
        // SAFETY: neither call takes a pointer; the raw call changes this thread's user alone.
        let (entered, changed) = unsafe {
            (
                libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET),
                libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            )
        };
        assert_eq!(entered, 0, "setns: {}", io::Error::last_os_error());
        assert_eq!(
            changed, 0,
            "there is no other user in this namespace: run this test as the real root"
        );
        f()
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// A claim of `VIP` by a run that begins at the end of time.
fn forged_claim() -> Vec<u8> {
    let vip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 100];
    [&b"vipherld"[..], &[0xff; 12], &vip].concat()
}

fn multicast(message: &[u8]) -> io::Result<usize> {
    Socket::new(USERSOCK.try_into().unwrap())?.send_to(message, &SocketAddr::new(0, GROUP), 0)
}

#[test]
fn another_user_cannot_end_a_run() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let capture = a.capture();
    let run = announcing(&a, VIP);
    for _ in 0..100 {
        let sent = as_user(NOBODY, run.pid(), || multicast(&forged_claim()));
        // The kernel lets everybody send: the run has to decide. It refuses what follows a
        // multicast, the same to a receiver that is no process, whether anybody listens or not.
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    wait_for_frame_after(&capture, VIP, SystemTime::now());
    wait_for_announcement(&capture, VIP, 3);

    // The same octets from root do end it.
    let _ = as_user(0, run.pid(), || multicast(&forged_claim()));
    yields(run);
}

#[test]
fn another_user_cannot_listen_and_squatting_prevents_nothing() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let older = announcing(&a, VIP);
    let (joined, squatters) = as_user(NOBODY, older.pid(), || {
        let mut listener = Socket::new(USERSOCK.try_into().unwrap()).unwrap();
        let joined = listener.bind(&SocketAddr::new(0, GROUP));
        // Every port ID that the next runs would take by themselves.
        let next = older.pid() + 1..older.pid() + 500;
        let squatters = next.filter_map(|port| {
            let mut squatter = Socket::new(USERSOCK.try_into().unwrap()).unwrap();
            squatter.bind(&SocketAddr::new(port, 0)).ok()?;
            Some(squatter)
        });
        (joined, squatters.collect::<Vec<_>>())
    });
    assert_eq!(joined.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert!(squatters.len() > 400, "{}", squatters.len());
    let newer = Run::start(vipherald(&a, &format!("--json announce {VIP}")));
    yields(older);
    newer.goes_on();
}

#[test]
fn a_flood_of_another_user_that_drowns_the_claim_prevents_nothing() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    give(&a, VIP, "eth0");
    let older = announcing(&a, VIP);
    // Its queue is full when the newer one claims the VIP.
    stop(older.pid());
    as_user(NOBODY, older.pid(), || {
        let socket = Socket::new(USERSOCK.try_into().unwrap()).unwrap();
        for _ in 0..5000 {
            let _ = socket.send_to(&forged_claim(), &SocketAddr::new(0, GROUP), 0);
        }
    });
    let newer = announcing(&a, VIP);
    newer.wait_until_it_waits();
    let woken = Instant::now();
    signal(older.pid(), Signal::SIGCONT);
    let end = yields(older);
    println!(
        "drowned, the older one yields {:?} after it woke",
        end - woken
    );
    newer.goes_on();
}

/// The processor time of a process's first thread.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let nanos = stat.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

#[test]
fn a_flood_of_messages_takes_a_small_share_of_a_resident() {
    let lab = Lab::new();
    let (a, _b) = (lab.host("a"), lab.host("b"));
    let resident = Run::start(vipherald(&a, &format!("watch {VIP}")));
    resident.wait_until_it_waits();
    let (before, began) = (processor_time(resident.pid()), Instant::now());
    a.enter(|| {
        let socket = Socket::new(USERSOCK.try_into().unwrap()).unwrap();
        while began.elapsed() < Duration::from_secs(2) {
            let _ = socket.send_to(&forged_claim(), &SocketAddr::new(0, GROUP), 0);
        }
    });
    let took = processor_time(resident.pid()) - before;
    println!("{took:?} of {:?}", began.elapsed());
    assert!(took < began.elapsed() / 5, "{took:?}");
    let capture = a.capture();
    give(&a, VIP, "eth0");
    wait_for_announcement(&capture, VIP, 1);
    resident.goes_on();
}

#[test]
fn two_hundred_moves_through_concurrent_runs_end_as_the_kernel_has_it() {
    let lab = Lab::new();
    let conf = file(
        &lab,
        "keepalived.conf",
        &instance("VI_1", 51, 100, &[VIP], ""),
    );
    let mut runs = Vec::new();
    storm(&lab, |host, state| {
        let arguments = with(&conf, &format!("notify INSTANCE VI_1 {state} 100"));
        runs.push(Run::start(vipherald(host, &arguments)));
    });
    // The owner's newest run goes on, and every other ends by itself.
    let ended = until_one_is_left(&mut runs);
    for run in runs {
        run.goes_on();
    }
    let mut counts = std::collections::BTreeMap::new();
    for run in ended {
        *counts.entry(run.end().status).or_insert(0) += 1;
    }
    println!("exit statuses: {counts:?}");
    assert!(
        counts.keys().all(|status| [0, 5, 6].contains(status)),
        "{counts:?}"
    );
}

/// One address on two links, as a router's fe80::1 or the same VIP in two VLANs.
#[test]
fn runs_for_one_vip_on_two_interfaces_do_not_disturb_each_other() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    for vip in [VIP, "fe80::1:1"] {
        give(&a, vip, "eth0");
        give(&a, vip, "v0");
        let first = claimed(Run::start(vipherald(
            &a,
            &format!("announce {vip} -i eth0"),
        )));
        let second = claimed(Run::start(vipherald(&a, &format!("announce {vip} -i v0"))));
        watch_for(AT_ONCE);
        first.goes_on();
        second.goes_on();
        // Who announces it everywhere takes over both, and who announces it on one only that.
        let everywhere = announcing(&a, vip);
        let one = claimed(Run::start(vipherald(&a, &format!("announce {vip} -i v0"))));
        watch_for(AT_ONCE);
        let (ended, _) = everywhere.terminate();
        let report = ended.report();
        assert_eq!(report["result"], "superseded", "{report}");
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert!(
            ended.stderr.contains("left on v0 to a newer run"),
            "{lines:?}"
        );
        assert!(!ended.stderr.contains("left on eth0"), "{lines:?}");
        one.goes_on();
        take(&a, vip, "eth0");
        take(&a, vip, "v0");
    }
}

#[test]
fn a_run_that_waits_on_one_interface_leaves_the_others_alone() {
    let lab = Lab::new();
    let a = lab.host("a");
    second_interface(&a);
    give(&a, VIP, "eth0");
    let older = announcing(&a, VIP);
    let waits = claimed(Run::start(vipherald(
        &a,
        &format!("--json announce {VIP} -i v0 --wait 30"),
    )));
    watch_for(AT_ONCE);
    older.goes_on();
    let everywhere = announcing(&a, VIP);
    // It takes over what the other waits for as soon as the VIP is there, too.
    give(&a, VIP, "v0");
    yields(waits);
    everywhere.goes_on();
}
