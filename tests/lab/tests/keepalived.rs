//! The real keepalived in the lab, and what is left when all is over: nothing.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vipherald_lab::{Lab, eventually};

const VIP: &str = "10.9.0.100";
const SOON: Duration = Duration::from_secs(30);

/// One instance, three advertisements in 0.9 s.
fn instance(priority: u8, vip: &str, more: &str) -> String {
    format!(
        "vrrp_instance VI {{\n interface eth0\n state BACKUP\n virtual_router_id 51\n version 3\n \
         priority {priority}\n advert_int 0.3\n virtual_ipaddress {{\n {vip}/24\n }}\n {more}\n}}\n"
    )
}

#[test]
fn one_of_two_becomes_master_and_the_other_takes_over_with_its_hook() {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let told = lab.directory().join("told");
    let hook = lab.write_hook("notify", &format!("echo \"$@\" >> {}", told.display()));
    let notify = format!("notify \"{}\"", hook.display());
    let mut ka = a.keepalived(&instance(200, VIP, ""));
    ka.wait_for_state("VI", "MASTER", SOON);
    let mut kb = b.keepalived(&instance(100, VIP, &notify));
    kb.wait_for_state("VI", "BACKUP", SOON);
    assert!(a.holds(VIP) && !b.holds(VIP));

    assert!(ka.stop().success());
    assert!(!a.holds(VIP), "a stop takes the VIP away");
    kb.wait_for_state("VI", "MASTER", SOON);
    eventually("the hook ran", SOON, || {
        fs::read_to_string(&told)
            .ok()?
            .contains("INSTANCE VI MASTER 100")
            .then_some(())
    });
    assert!(b.holds(VIP));
}

#[test]
fn a_crash_leaves_the_vip_and_no_process() {
    let lab = Lab::new();
    let a = lab.host("a");
    let mut ka = a.keepalived(&instance(200, VIP, ""));
    ka.wait_for_state("VI", "MASTER", SOON);
    let pids = [ka.pid(), ka.vrrp_pid()];
    ka.kill9_all();
    assert!(a.holds(VIP));
    eventually("both processes are gone", SOON, || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn keepalived_tells_what_it_read_before_and_after_a_reload() {
    let lab = Lab::new();
    let mut keepalived = lab.host("a").keepalived(&instance(100, VIP, ""));
    assert!(keepalived.json().to_string().contains("10.9.0.100/24"));
    keepalived.reload(&instance(100, "10.9.0.101", ""));
    let json = keepalived.json().to_string();
    assert!(
        json.contains("10.9.0.101/24") && !json.contains("10.9.0.100/24"),
        "{json}"
    );
}

#[test]
fn a_refused_configuration_panics_with_the_log() {
    let lab = Lab::new();
    let mut keepalived = lab.host("a").keepalived(
        "include_unknown\nvrrp_instance VI {\n interface absent0\n virtual_router_id 1\n}\n",
    );
    let panic = catch_unwind(AssertUnwindSafe(|| {
        keepalived.wait_for_state("VI", "MASTER", SOON);
    }));
    let message = panic.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("absent0"), "{message}");
}

#[test]
fn an_installed_program_runs_as_a_hook() {
    let lab = Lab::new();
    let marker = lab.directory().join("marker");
    let hook = lab.install_hook("/bin/touch");
    let line = format!("notify_master \"{} {}\"", hook.display(), marker.display());
    let _keepalived = lab.host("a").keepalived(&instance(100, VIP, &line));
    eventually("the hook ran", SOON, || marker.exists().then_some(()));
}

#[test]
fn a_panicking_test_leaves_no_process_and_no_file() {
    let mut left: Option<(PathBuf, Vec<u32>)> = None;
    catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new();
        let a = lab.host("a");
        let pid_file = lab.directory().join("pid");
        let hook = lab.write_hook(
            "hang",
            &format!(
                "trap '' TERM\necho $$ > {}\nwhile :; do sleep 100; done",
                pid_file.display()
            ),
        );
        let mut keepalived = a.keepalived(&instance(
            100,
            VIP,
            &format!("notify_master {}", hook.display()),
        ));
        keepalived.wait_for_state("VI", "MASTER", SOON);
        let hook_pid = eventually("the hook hangs", SOON, || {
            fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        let mut sleeper = a.command("sleep").arg("1000").spawn().unwrap();
        let pids = vec![
            keepalived.pid(),
            keepalived.vrrp_pid(),
            hook_pid,
            sleeper.id(),
        ];
        left = Some((lab.directory().to_owned(), pids));
        let _forgotten = sleeper.try_wait();
        panic!("as a failing test does");
    }))
    .unwrap_err();
    let (directory, pids) = left.unwrap();
    assert!(!directory.exists(), "{directory:?} is still there");
    for pid in pids {
        assert!(is_gone(pid), "process {pid} is still there");
    }
}

/// Whether a process has ended; one that its parent did not ask about yet has ended too.
fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| state.starts_with('Z'))
    })
}
