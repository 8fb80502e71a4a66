//! Floods of frames at a host that is about to take a VIP over, and at one that looks who has it.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vipherald_lab::{Host, Lab, eventually};

use crate::ceilings::{Cost, count_frames_of_programs, frames_of_programs};
use crate::common::{Over, Run, SOON, give, take, vip_in, vipherald, wait_until_followed};
use crate::flood::{Flooder, Forge, Forged};

/// Longer than anything takes here.
const FLOODED_FOR: Duration = Duration::from_secs(60);
/// How long a flood lasts before a VIP moves, and after that.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(4);

/// A resident is flooded, and takes the VIP over meanwhile. At the end all follow.
pub(crate) fn watch(forged: Forge, vip: &str) -> Cost {
    let lab = Lab::new();
    let (old, node, peer) = (lab.host("old"), lab.host("node"), lab.host("peer"));
    give(&old, vip, "eth0");
    eventually("the old owner is known", SOON, || {
        let ping = peer.try_run(&format!("ping -c 1 -W 1 {vip}"));
        ping.status.success().then_some(())
    });
    // The forged hosts are in its subnets.
    node.run("ip addr add 10.9.0.251/16 dev eth0");
    let run = |run: Run| {
        thread::sleep(BEFORE);
        take(&old, vip, "eth0");
        give(&node, vip, "eth0");
        thread::sleep(AFTER);
        run
    };
    let command = vipherald(&node, &format!("watch {vip}"));
    let (cost, run) = flooded(&lab, &node, command, forged(vip.parse().unwrap()), run);
    // A claim that came last stands until the next round, or the next question.
    wait_until_followed([&peer], &[vip], node.mac());
    run.goes_on();
    cost
}

/// Another host has the VIP, and a flooded one looks who. Only claims make that doubtful.
pub(crate) fn check(forged: Forge, vip: &str) -> Cost {
    let lab = Lab::new();
    let (owner, looks) = (lab.host("owner"), lab.host("looks"));
    give(&owner, vip, "eth0");
    let forged = forged(vip.parse().unwrap());
    let command = vipherald(&looks, &format!("--json check {vip}"));
    let (mut cost, ended) = flooded(&lab, &looks, command, forged, Run::end);
    cost.octets += ended.stdout.len();
    let is_doubtful = matches!(forged, Forged::Claims(_)) && ended.status == 4;
    if !is_doubtful {
        let report = ended.exits(0).report();
        let owners = &vip_in(&report, vip)["owners"];
        assert_eq!(owners, &json!([owner.mac().to_string()]));
    }
    cost
}

/// Floods a host while a command runs there, as long as `during` takes.
fn flooded<T>(
    lab: &Lab,
    host: &Host,
    mut command: Command,
    forged: Forged,
    during: impl FnOnce(Run) -> T,
) -> (Cost, T) {
    let attacker = lab.host("attacker");
    lab.learn_nothing_from(&attacker);
    count_frames_of_programs(host);
    let log = lab.directory().join("log");
    command.stderr(File::create(&log).unwrap());
    let mut flooder = Flooder::on(&attacker, forged);
    let (ends, most, began) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let (result, sent) = thread::scope(|scope| {
        let flood = scope.spawn(|| flooder.send_for(FLOODED_FOR, &ends));
        let over = Over(&ends);
        let run = Run::start(command);
        let (pid, most, ends) = (run.pid(), &most, &ends);
        scope.spawn(move || crate::floods::watch(pid, most, ends));
        let result = during(run);
        drop(over);
        (result, flood.join().unwrap())
    });
    assert!(sent > 10_000, "{sent} frames are no flood");
    let frames = frames_of_programs(host);
    (
        Cost::of(began.elapsed(), most.into_inner(), frames, &log),
        result,
    )
}
