//! What it costs to purge a VIP, or to check one, on hosts with large neighbour tables or many
//! interfaces.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use vipherald_lab::{Host, Lab};

use crate::comparison::Comparison;
use crate::stopwatch::{self, Ended};
use crate::tools::{batch, quiet};

const VIP: &str = "10.9.0.254";
const TURNS: usize = 50;
/// A check lasts as long as answers may take.
const CHECKS: usize = 3;
/// Hosts with more and more entries in the table.
const ENTRIES: [Condition; 3] = [
    condition("no other entry", 0, 1),
    condition("1,000 entries", 1000, 1),
    condition("60,000 entries", 60_000, 1),
];
/// Hosts with more and more interfaces.
const INTERFACES: [Condition; 3] = [
    condition("1 interface", 0, 1),
    condition("50 interfaces", 0, 50),
    condition("500 interfaces", 0, 500),
];

/// What a host has.
struct Condition {
    what: &'static str,
    entries: u32,
    /// Besides loopback.
    interfaces: usize,
}

const fn condition(what: &'static str, entries: u32, interfaces: usize) -> Condition {
    Condition {
        what,
        entries,
        interfaces,
    }
}

pub(crate) fn run(program: &Path) {
    println!("### Purge and check\n");
    for conditions in [ENTRIES, INTERFACES] {
        measure(program, &conditions);
    }
}

fn measure(program: &Path, conditions: &[Condition]) {
    let (purges, checks): (Vec<_>, Vec<_>) = conditions
        .iter()
        .map(|condition| condition.measure(program))
        .unzip();
    Comparison::print_all("One entry purged: from exec to end", &purges, "tables");
    Comparison::print_all("One VIP checked: processor time", &checks, "tables");
}

impl Condition {
    /// What the purges took, and the checks.
    fn measure(&self, program: &Path) -> (Comparison, Comparison) {
        let lab = Lab::new();
        let (host, owner) = (lab.host("host"), lab.host("owner"));
        owner.run(&format!("ip addr add {VIP}/32 dev eth0"));
        self.set_up(&host);

        let command = |program: &Path, arguments: &str| {
            let mut command = host.command(program);
            quiet(command.args(arguments.replace("VIP", VIP).split(' ')));
            command
        };
        let mut purges = [
            ("purge -i eth0", program, "purge --log stderr -i eth0 VIP"),
            ("purge, every interface", program, "purge --log stderr VIP"),
            (
                "ip neigh del dev eth0",
                "ip".as_ref(),
                "neigh del VIP dev eth0",
            ),
            ("ip neigh flush to", "ip".as_ref(), "neigh flush to VIP"),
            ("arp -i eth0 -d", "arp".as_ref(), "-i eth0 -d VIP"),
        ]
        .map(|(name, program, arguments)| (name, command(program, arguments)));
        let mut purged = Comparison::new(self.what, 1, &purges.each_ref().map(|one| one.0));
        for _ in 0..TURNS {
            for (number, (_, purge)) in purges.iter_mut().enumerate() {
                host.remember(VIP, "02:00:00:00:00:99");
                purged.add(number, successful(purge).took);
                // Asked for alone: to list all of them would leave the next program a cold cache.
                let entry = host.try_run(&format!("ip neigh get {VIP} dev eth0"));
                assert!(!entry.status.success(), "{purge:?}: {entry:?}");
            }
        }

        let mut checks = [
            ("check -i eth0", "check --log stderr -i eth0 VIP"),
            ("check", "check --log stderr VIP"),
        ]
        .map(|(name, arguments)| (name, command(program, arguments)));
        let mut checked = Comparison::new(self.what, 1, &checks.each_ref().map(|one| one.0));
        for _ in 0..CHECKS {
            for (number, (_, check)) in checks.iter_mut().enumerate() {
                host.remember(VIP, owner.mac());
                checked.add(number, successful(check).processor);
            }
        }
        (purged, checked)
    }

    fn set_up(&self, host: &Host) {
        host.run("ip addr add 10.8.0.1/16 dev eth0");
        // Permanent ones do not count against the limit that all hosts share.
        batch(
            host,
            (0..self.entries).map(|n| {
                let ip = Ipv4Addr::from(0x0a08_0002 + n);
                format!("neigh add {ip} lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
            }),
        );
        // Each pair is two of them.
        let pairs = (1..self.interfaces).step_by(2);
        batch(
            host,
            pairs.map(|n| format!("link add v{n} up type veth peer name w{n}")),
        );
    }
}

fn successful(command: &mut Command) -> Ended {
    let ended = stopwatch::run(command);
    assert!(ended.status.success(), "{command:?}: {}", ended.status);
    ended
}
