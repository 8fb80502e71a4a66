//! Floods, and full tables, while the new owner announces.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vipherald_core::address::Mac;
use vipherald_lab::{Host, Lab, State};

use crate::ceilings::{Cost, frames_sent};
use crate::common::{
    OLD_MAC, Over, Run, address_beside, assert_at_once, give, give_all, meet, vipherald,
};
use crate::flood::{Flooder, Forged, Guesses};
use crate::floods::watch;

/// Longer than a run lasts.
const FLOODED_FOR: Duration = Duration::from_secs(60);
/// Peers that a report lists.
const MOST_LISTED: usize = 4_096;
/// VIPs of a host that has many.
const MANY: u8 = 250;

/// What happens while one VIP or many are announced.
#[derive(Clone, Copy)]
pub(crate) enum During {
    /// Claims by random MACs: the conflict is reported, and those who follow are proven all the same.
    Claims,
    /// Questions of forged hosts: the one stale peer is found all the same.
    ForgedHosts,
    /// Guesses at what the peers would answer: none makes a stale one look proven, a proven one stale,
    /// or ends the run.
    Guesses,
}

/// Floods an announcement of one VIP. One peer is named, and follows whatever is claimed; another has a
/// PERMANENT entry for the old owner.
pub(crate) fn one(during: During, vip: &str) -> Cost {
    let (cost, status, report) = flooded(during, &[vip.to_owned()]);
    match during {
        During::Claims => {
            assert_eq!(status, 4, "{cost:?}");
            assert_eq!(verdict(&report, "configured"), "proven", "{cost:?}");
        }
        During::ForgedHosts => {
            assert_eq!(status, 3, "{cost:?}");
            assert_eq!(verdict(&report, "learned"), "stale", "{cost:?}");
            // The forged ones are only counted.
            let listed = report["vips"][0]["peers"].as_array().unwrap().len();
            assert!(listed < 10, "{listed}");
        }
        During::Guesses => {
            assert_eq!(status, 3, "{report}");
            assert_eq!(verdict(&report, "configured"), "proven", "{report}");
            assert_eq!(verdict(&report, "learned"), "stale", "{report}");
        }
    }
    cost
}

/// Floods an announcement of 250 VIPs in the subnet of this one.
pub(crate) fn many(during: During, vip: &str) -> Cost {
    let (cost, status, _) = flooded(during, &beside(vip));
    assert!([3, 4].contains(&status), "{status}: {cost:?}");
    cost
}

/// 250 addresses.
fn beside(vip: &str) -> Vec<String> {
    let name = |n: u8| match vip.contains(':') {
        true => format!("fd09::1:{n:x}"),
        false => format!("10.9.1.{n}"),
    };
    (0..MANY).map(name).collect()
}

/// Ends 250 announcements beside a full neighbour table by SIGTERM after some time: it is obeyed at once.
pub(crate) fn full_table(after: Duration, vip: &str) -> Cost {
    let lab = Lab::new();
    let owner = lab.host("owner");
    let vips = beside(vip);
    give_all(&owner, &vips);
    owner.run("ip addr add 10.9.0.250/16 dev eth0");
    let entries = (0..900_u32).map(|n| {
        let [.., a, b] = (n + 1024).to_be_bytes();
        let ip = match vip.contains(':') {
            true => format!("fd09::2:{a:x}{b:02x}"),
            false => format!("10.9.{a}.{b}"),
        };
        format!(
            "neigh replace {ip} lladdr 02:aa:00:00:{a:02x}:{b:02x} dev eth0 nud stale extern_learn\n"
        )
    });
    owner.ip(&entries.collect::<String>());
    let log = lab.directory().join("log");
    let printed = lab.directory().join("printed");
    // Fast enough to ask more peers than a report lists.
    let arguments = format!("--json announce --rate 8000 {}", vips.join(" "));
    let mut command = vipherald(&owner, &arguments);
    command
        .stdout(File::create(&printed).unwrap())
        .stderr(File::create(&log).unwrap());
    let run = Run::start(command);
    let (ends, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, began, pid) = (frames_sent(&owner), Instant::now(), run.pid());
    let (ended, took) = thread::scope(|scope| {
        scope.spawn(|| watch(pid, &most, &ends));
        let _over = Over(&ends);
        thread::sleep(after);
        run.terminate()
    });
    println!("SIGTERM after {after:?} obeyed within {took:?}");
    assert_at_once(took, &ended);
    let (most, frames) = (most.into_inner(), frames_sent(&owner) - before);
    let mut cost = Cost::of(began.elapsed(), most, frames, &log);
    let text = fs::read_to_string(&printed).unwrap();
    cost.octets += text.len();
    let report: Value = serde_json::from_str(&text).unwrap();
    let vips = report["vips"].as_array().unwrap();
    let listed = vips
        .iter()
        .map(|vip| vip["peers"].as_array().unwrap().len());
    assert!(listed.sum::<usize>() <= MOST_LISTED);
    cost
}

fn flooded(during: During, vips: &[String]) -> (Cost, i32, Value) {
    let lab = Lab::new();
    let (owner, peer, attacker) = (lab.host("owner"), lab.host("peer"), lab.host("attacker"));
    let stale = lab.host("stale");
    let vip = &vips[0];
    for vip in vips {
        give(&owner, vip, "eth0");
    }
    // The forged hosts are in the same subnet.
    owner.run("ip addr add 10.9.0.250/16 dev eth0");
    stale.remember_as(vip, OLD_MAC, State::Permanent);
    // Forged claims would take any other entry away again and again.
    peer.remember_as(vip, owner.mac(), State::Permanent);
    meet(&owner, [&stale]);
    // All tables of a machine share one limit, which forged hosts exhaust: other hosts have theirs.
    for host in [&peer, &stale] {
        host.remember_as(address_beside(vip, &owner), owner.mac(), State::Permanent);
    }
    let log = lab.directory().join("log");
    let printed = lab.directory().join("printed");
    let named = address_beside(vip, &peer);
    let arguments = format!("--json announce --timeout 5 {} -p {named}", vips.join(" "));
    let mut command = vipherald(&owner, &arguments);
    command
        .stdout(File::create(&printed).unwrap())
        .stderr(File::create(&log).unwrap());
    let (ends, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let forged = match during {
        During::Claims => Forged::Claims(vip.parse().unwrap()),
        During::ForgedHosts => Forged::Senders(address_beside(vip, &owner)),
        During::Guesses => {
            lab.learn_nothing_from(&attacker);
            let host = |host: &Host| (address_beside(vip, host), Mac::new(host.mac().0));
            Forged::Guesses(Guesses {
                vip: vip.parse().unwrap(),
                own: host(&owner),
                peers: [host(&peer), host(&stale)],
            })
        }
    };
    let mut flooder = Flooder::on(&attacker, forged);
    let began = Instant::now();
    let (ended, sent) = thread::scope(|scope| {
        let flood = scope.spawn(|| flooder.send_for(FLOODED_FOR, &ends));
        let over = Over(&ends);
        let run = Run::start(command);
        let (pid, most, ends) = (run.pid(), &most, &ends);
        scope.spawn(move || watch(pid, most, ends));
        let ended = run.end();
        drop(over);
        (ended, flood.join().unwrap())
    });
    assert!(sent > 10_000, "{sent} frames are no flood");
    let text = fs::read_to_string(&printed).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    // The kernel's own answers to forged requests are not the program's.
    let frames = report["frames_sent"].as_u64().unwrap_or_default();
    let mut cost = Cost::of(began.elapsed(), most.into_inner(), frames, &log);
    cost.octets += text.len();
    println!("{sent} forged frames; {} octets of JSON", text.len());
    (cost, ended.status, report)
}

/// The worst verdict about peers of a source.
fn verdict<'a>(report: &'a Value, source: &str) -> &'a str {
    let peers = report["vips"][0]["peers"].as_array().unwrap();
    let of = |peer: &&Value| peer["source"] == source;
    let verdicts = peers
        .iter()
        .filter(of)
        .filter_map(|peer| peer["verdict"].as_str());
    verdicts
        .max_by_key(|verdict| *verdict == "stale")
        .unwrap_or("none")
}
