//! Attacks and faults, as tables: whatever the link, the FIFO or the host itself does, a command costs
//! no more than its ceilings, and does its work or says what to do.
//!
//! A new flood is a row of [`FLOODS`]; its ceilings are in `ceilings::of`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

#[path = "hostile/ceilings.rs"]
mod ceilings;
#[path = "hostile/faults.rs"]
mod faults;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/seccomp.rs"]
mod seccomp;

use std::net::IpAddr;
use std::thread;

use ceilings::Cost;
use common::{VIP, VIP6};
use faults::{CALLS, Fault, Scene, TASKS};
use flood::Forged;
use floods::{At, Written};

/// An attack on a command, for a VIP of either family.
struct Flood {
    attack: &'static str,
    command: &'static str,
    run: fn(&str) -> Cost,
}

const FLOODS: [Flood; 10] = [
    Flood {
        attack: "a recorded order sent again",
        command: "listen",
        run: |vip| floods::listen(At::RecordedOrder, vip),
    },
    Flood {
        attack: "unsigned orders",
        command: "listen",
        run: |vip| floods::listen(At::UnsignedOrders, vip),
    },
    Flood {
        attack: "forged claims of the VIP",
        command: "listen",
        run: |vip| floods::listen(At::Link(Forged::Claims), vip),
    },
    Flood {
        attack: "ARP requests of forged hosts",
        command: "listen",
        run: |vip| floods::listen(At::Link(|_| Forged::Senders([10, 9, 0, 250].into())), vip),
    },
    Flood {
        attack: "frames of an unknown protocol",
        command: "listen",
        run: |vip| floods::listen(At::Link(|_: IpAddr| Forged::Junk), vip),
    },
    Flood {
        attack: "unknown instances",
        command: "fifo",
        run: |vip| floods::events(Written::UnknownNames, vip),
    },
    Flood {
        attack: "events of one instance",
        command: "fifo",
        run: |vip| floods::events(Written::OneInstance, vip),
    },
    Flood {
        attack: "lines of nonsense",
        command: "fifo",
        run: |vip| floods::events(Written::Nonsense, vip),
    },
    Flood {
        attack: "a line without end",
        command: "fifo",
        run: |vip| floods::events(Written::EndlessLine, vip),
    },
    Flood {
        attack: "a writer that is stuck in a line",
        command: "fifo",
        run: |vip| floods::events(Written::HalfLine, vip),
    },
];

/// Runs the floods of a command, one after the other: each takes a processor of its own.
fn withstands(command: &str) {
    let mut over = Vec::new();
    for flood in FLOODS.iter().filter(|flood| flood.command == command) {
        for vip in [VIP, VIP6] {
            let row = format!("{} × {command} × {vip}", flood.attack);
            let cost = (flood.run)(vip);
            println!("{row}: {cost:?}");
            over.extend(
                cost.excess(command)
                    .map(|excess| format!("{row}: {excess}")),
            );
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

#[test]
fn no_flood_costs_listen_more_than_its_ceilings() {
    withstands("listen");
}

#[test]
fn no_flood_costs_fifo_more_than_its_ceilings() {
    withstands("fifo");
}

/// Runs each command under each fault.
fn stands(faults: &[Fault], vip: &'static str) {
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
