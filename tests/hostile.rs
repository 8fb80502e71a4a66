//! Attacks and faults, as tables: whatever the link, the FIFO or the host itself does, a command costs
//! no more than its ceilings, and does its work or says what to do.
//!
//! A new flood is a row of a table; the ceilings of each command are in `ceilings`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

#[path = "hostile/announcements.rs"]
mod announcements;
#[path = "hostile/ceilings.rs"]
mod ceilings;
#[path = "hostile/faults.rs"]
mod faults;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/interfaces.rs"]
mod interfaces;
#[path = "hostile/own_cards.rs"]
mod own_cards;
#[path = "hostile/seccomp.rs"]
mod seccomp;
#[path = "hostile/takeovers.rs"]
mod takeovers;

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use announcements::During;
use ceilings::{Ceilings, Cost};
use common::{VIP, VIP6};
use faults::{CALLS, Fault, Scene, TASKS};
use flood::{Forge, Forged};
use floods::{At, Written};

/// The floods while a VIP is announced.
const AT_ANNOUNCE: [(&str, During); 2] = [
    ("forged claims of the VIP", During::Claims),
    ("questions of forged hosts", During::ForgedHosts),
];

/// The floods of datagrams and frames.
const AT_LISTEN: [(&str, At); 5] = [
    ("a recorded order sent again", At::RecordedOrder),
    ("unsigned orders", At::UnsignedOrders),
    ("forged claims of the VIP", At::Link(Forged::Claims)),
    ("questions of forged hosts", At::Link(forged_hosts)),
    ("frames of an unknown protocol", At::Link(junk)),
];

/// The floods of frames while a VIP moves.
const AT_TAKEOVER: [(&str, Forge); 5] = [
    ("forged claims of the VIP", Forged::Claims),
    ("forged VRRP adverts of the VIP", Forged::Adverts),
    ("questions of forged hosts", forged_hosts),
    ("questions of forged hosts for the VIP", Forged::Senders),
    ("frames of an unknown protocol", junk),
];

/// The floods of lines.
const AT_FIFO: [(&str, Written); 5] = [
    ("unknown instances", Written::UnknownNames),
    ("events of one instance", Written::OneInstance),
    ("lines of nonsense", Written::Nonsense),
    ("a line without end", Written::EndlessLine),
    ("a writer that is stuck in a line", Written::HalfLine),
];

/// They ask for an address that nobody has.
fn forged_hosts(vip: IpAddr) -> Forged {
    Forged::Senders(match vip {
        IpAddr::V4(_) => [10, 9, 0, 250].into(),
        IpAddr::V6(_) => [0xfd09, 0, 0, 0, 0, 0, 0, 0x250].into(),
    })
}

fn junk(_: IpAddr) -> Forged {
    Forged::Junk
}

/// All neighbour tables of a machine share one limit, and each flood takes a processor of its own: one
/// flood at a time, and nothing beside it that needs entries.
static TABLES: RwLock<()> = RwLock::new(());

/// For tests that need neighbour entries: they run beside each other, but beside no flood.
fn share_tables() -> RwLockReadGuard<'static, ()> {
    TABLES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Runs floods for each of these VIPs.
fn withstands<T: Copy>(
    floods: &[(&str, T)],
    vips: &[&str],
    flood: fn(T, &str) -> Cost,
    most: &Ceilings,
) {
    let _alone = TABLES.write().unwrap_or_else(PoisonError::into_inner);
    let mut over = Vec::new();
    for (attack, by) in floods {
        for vip in vips {
            let cost = flood(*by, vip);
            println!("{attack} × {vip}: {cost:?}");
            let excess = cost.excess(most);
            over.extend(excess.map(|excess| format!("{attack} × {vip}: {excess}")));
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

#[test]
fn no_flood_costs_an_announcement_more_than_its_ceilings() {
    withstands(
        &AT_ANNOUNCE,
        &[VIP, VIP6],
        announcements::one,
        &ceilings::ANNOUNCE,
    );
}

#[test]
fn no_flood_costs_many_announcements_more_than_their_ceilings() {
    withstands(
        &AT_ANNOUNCE,
        &[VIP, VIP6],
        announcements::many,
        &ceilings::ANNOUNCE_MANY,
    );
}

#[test]
fn no_guess_makes_a_stale_peer_look_proven_or_a_proven_one_stale() {
    withstands(
        &[("guessed answers", During::Guesses)],
        &[VIP, VIP6],
        announcements::one,
        &ceilings::ANNOUNCE,
    );
}

#[test]
fn sigterm_is_obeyed_at_once_with_many_vips_and_a_full_table() {
    let times = [50, 300, 2000].map(|millis| ("SIGTERM", Duration::from_millis(millis)));
    withstands(
        &times,
        &[VIP, VIP6],
        announcements::full_table,
        &ceilings::ANNOUNCE_FULL,
    );
}

#[test]
fn no_flood_costs_listen_more_than_its_ceilings() {
    withstands(&AT_LISTEN, &[VIP, VIP6], floods::listen, &ceilings::LISTEN);
}

#[test]
fn no_flood_costs_watch_more_than_its_ceilings() {
    withstands(
        &AT_TAKEOVER,
        &[VIP, VIP6],
        takeovers::watch,
        &ceilings::WATCH,
    );
}

#[test]
fn no_flood_costs_check_more_than_its_ceilings() {
    withstands(
        &AT_TAKEOVER,
        &[VIP, VIP6],
        takeovers::check,
        &ceilings::CHECK,
    );
}

#[test]
fn no_flood_costs_fifo_more_than_its_ceilings() {
    // The lines name no address.
    withstands(&AT_FIFO, &[VIP], floods::events, &ceilings::FIFO);
}

/// Runs each command under each fault.
fn stands(faults: &[Fault], vip: &'static str) {
    let _shared = share_tables();
    let wrong = thread::scope(|scope| {
        let each = TASKS.map(|task| {
            scope.spawn(move || {
                let mut scene = Scene::new(vip);
                let runs = faults.iter().map(|fault| scene.run(task, fault));
                runs.filter_map(Result::err).collect::<Vec<_>>()
            })
        });
        let all = each.into_iter().flat_map(|task| task.join().unwrap());
        all.collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn with_few_descriptors_each_command_does_its_work_or_says_what_to_do() {
    let limits: Vec<_> = (3..=16).map(Fault::Descriptors).collect();
    stands(&limits, VIP);
    stands(&limits, VIP6);
}

#[test]
fn with_little_memory_no_command_claims_what_it_did_not_do() {
    // KiB: a shell starts with the least of them.
    let limits = [3_000, 5_000, 6_000, 7_000, 8_000, 10_000, 20_000];
    stands(&limits.map(Fault::Memory), VIP);
}

#[test]
fn where_a_sandbox_forbids_a_system_call_each_command_does_its_work_or_says_so() {
    stands(&CALLS.map(|(name, call)| Fault::Denied(name, call)), VIP);
}

#[test]
fn what_takes_no_output_or_stops_a_command_keeps_none_from_its_work() {
    let faults = [
        Fault::FullStdout,
        Fault::ClosedStdout,
        Fault::BlockedSyslog,
        Fault::Stopped,
    ];
    stands(&faults, VIP);
}
