//! A simulated network around the announcement's core: thousands of runs, each drawn from a seed,
//! with hosts that behave as measured on Linux, and with every fault that can occur.
//!
//! A failing run prints its seed. `SIMULATION_SEED=N` plays that run alone, and `SIMULATION_RUNS=N`
//! plays `N` runs from seed `SIMULATION_FIRST`:
//!
//! ```sh
//! SIMULATION_SEED=4711 cargo test --test simulation
//! SIMULATION_RUNS=1000000 cargo test --release --test simulation -- --nocapture
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "the simulation has a clock and takes its numbers of runs from the environment"
)]
#![expect(
    clippy::print_stderr,
    reason = "people read the seed of a failed run, and the statistics"
)]

mod network;
mod peer;
mod properties;
mod rng;
mod scenario;
mod statistics;

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use network::Network;
use peer::Entry;
use rng::number;
use scenario::{Happening, Kind, Member, OLD_OWNER, Scenario, When};
use statistics::Statistics;
use vipherald_core::address::Mac;
use vipherald_core::ask::{PeerVerdict, Source};

/// The runs of `cargo test`: a minute on two cores.
const RUNS: u64 = 10_000;
const LARGE_RUNS: u64 = 6;
const LATE_RUNS: u64 = 1000;
/// The frames of an IPv4 VIP's rounds.
const ROUNDS: usize = 27;

fn play(scenario: Scenario, statistics: &Mutex<Statistics>) {
    let seed = scenario.seed;
    let played = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut network = Network::new(scenario);
        network.play();
        let mut statistics = statistics.lock().unwrap_or_else(PoisonError::into_inner);
        properties::hold(&network, &mut statistics);
    }));
    if let Err(panic) = played {
        eprintln!("To repeat it: SIMULATION_SEED={seed} cargo test --test simulation");
        panic::resume_unwind(panic);
    }
}

#[test]
fn every_run_keeps_every_promise() {
    let (first, runs) = match number("SIMULATION_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("SIMULATION_FIRST").unwrap_or(0),
            number("SIMULATION_RUNS").unwrap_or(RUNS),
        ),
    };
    let seen = Mutex::new(Statistics::default());
    let next = AtomicU64::new(first);
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                let take = || Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < first + runs);
                while let Some(seed) = take() {
                    play(Scenario::drawn(seed), &seen);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{seen}");
    if runs >= RUNS {
        seen.are_complete();
    }
}

/// As for hosts that are heard again after silence: one round, no census, and then questions alone.
#[test]
fn every_run_without_repeated_rounds_keeps_every_promise() {
    let seen = Mutex::new(Statistics::default());
    for seed in 0..LATE_RUNS {
        let mut scenario = Scenario::drawn(seed);
        (scenario.pace.repeats, scenario.pace.census) = (false, false);
        play(scenario, &seen);
    }
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{seen}");
    assert!(seen.of(Kind::Honest, PeerVerdict::Proven) > 5000);
}

#[test]
fn every_run_with_five_thousand_peers_keeps_every_promise() {
    let runs = number("SIMULATION_LARGE_RUNS").unwrap_or(LARGE_RUNS);
    let seen = Mutex::new(Statistics::default());
    for seed in 0..runs {
        let mut scenario = Scenario::with_members(seed, 5000);
        if seed % 2 == 0 {
            scenario.settle();
        }
        play(scenario, &seen);
    }
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{seen}");
    if runs >= LARGE_RUNS {
        assert!(seen.cut < seen.runs && seen.honest > 5000 && seen.unproven * 250 < seen.honest);
        assert!(seen.of(Kind::Honest, PeerVerdict::Proven) > 10_000);
        assert!(seen.of(Kind::Permanent, PeerVerdict::Stale) > 1000);
    }
}

/// A link with one host, the gateway, and no faults but those that `change` adds.
fn quiet(change: impl FnOnce(&mut Scenario)) -> Network {
    let mut scenario = Scenario::quiet();
    change(&mut scenario);
    let mut network = Network::new(scenario);
    network.play();
    properties::hold(&network, &mut Statistics::default());
    network
}

/// A copy of the gateway with another address and MAC. `number` is unique.
fn another_host(scenario: &Scenario, number: u8) -> Member {
    let mut member = scenario.members[0].clone();
    member.host.ip = [10, 9, 1, number].into();
    member.host.mac = Mac::new([2, 0, 0, 1, 0, number]);
    member.known_mac = Some(member.host.mac);
    member
}

/// Gives a host a PERMANENT entry with the old owner's MAC.
fn set_permanent_entry(member: &mut Member) {
    let vip = [10, 9, 0, 10].into();
    member.host.set(vip, Entry::Permanent(OLD_OWNER));
    member.kind = Kind::Permanent;
}

#[test]
fn a_gateway_that_is_down_costs_no_more_than_stated() {
    let network = quiet(|scenario| scenario.members[0].host.habits.dead = true);
    assert_eq!(network.verdicts(), [PeerVerdict::Silent]);
    assert_eq!(network.now, Duration::from_secs(60));
    assert_eq!(network.sent_at.len(), 821);
}

#[test]
fn a_host_that_follows_at_once_costs_one_frame() {
    let network = quiet(|_| ());
    assert_eq!(network.verdicts(), [PeerVerdict::Proven]);
    assert_eq!(network.sent_at.len(), ROUNDS + 1);
}

#[test]
fn a_run_for_late_hosts_is_one_round_and_ends_once_they_follow() {
    for loss in [0, 300] {
        for seed in 0..50 {
            let network = quiet(|scenario| {
                scenario.seed = seed;
                (scenario.pace.repeats, scenario.pace.census) = (false, false);
                (scenario.loss_out, scenario.loss_in) = (loss, loss);
            });
            assert_eq!(network.verdicts(), [PeerVerdict::Proven]);
            let asked = network.sent_at.len() - 3;
            assert!(loss > 0 || asked == 1, "{asked}");
            assert!(network.now < Duration::from_secs(2), "{:?}", network.now);
        }
    }
}

#[test]
fn a_silent_gateway_among_others_costs_no_more_than_stated() {
    let network = quiet(|scenario| {
        scenario.members.push(another_host(scenario, 1));
        scenario.members[0].host.habits.dead = true;
    });
    assert_eq!(
        network.verdicts(),
        [PeerVerdict::Silent, PeerVerdict::Proven]
    );
    assert!(
        network.sent_at.len() <= ROUNDS + 1 + 80,
        "{}",
        network.sent_at.len()
    );
}

#[test]
fn neighbour_entries_of_dead_hosts_do_not_prolong_a_run() {
    let network = quiet(|scenario| {
        for number in 1..100 {
            let mut gone = another_host(scenario, number);
            gone.host.habits.dead = true;
            gone.source = Source::Learned;
            scenario.members.push(gone);
        }
    });
    assert!(network.now < Duration::from_secs(11), "{:?}", network.now);
}

#[test]
fn a_switch_port_that_opens_late_delays_proof_by_one_gap_at_most() {
    let opens = Duration::from_secs(8);
    let network = quiet(|scenario| scenario.port_opens = opens);
    let proven = network.core.claims()[0].confirmations()[0].proven;
    let after = proven.map(|(at, _)| at.duration_since(network.core.started()));
    let limit = opens + Duration::from_millis(300);
    assert!(after.is_some_and(|after| after <= limit), "{after:?}");
    // All rounds were repeated.
    assert!(network.now > opens + Duration::from_secs(10));
}

#[test]
fn losses_before_a_switch_port_opens_do_not_count() {
    let network = quiet(|scenario| {
        scenario.port_opens = Duration::from_secs(8);
        let mut stale = another_host(scenario, 1);
        set_permanent_entry(&mut stale);
        scenario.members.push(stale);
    });
    assert_eq!(
        network.verdicts(),
        [PeerVerdict::Proven, PeerVerdict::Stale]
    );
    assert!(network.now < Duration::from_secs(20), "{:?}", network.now);
}

/// Adds another host that has the VIP.
fn with_another_owner(scenario: &mut Scenario) {
    let mut other = another_host(scenario, 1);
    other.host.holds = Some([10, 9, 0, 10].into());
    other.kind = Kind::OtherOwner;
    other.source = Source::Learned;
    scenario.members.push(other);
}

fn at(seconds: u64, what: Happening) -> (When, Happening) {
    (When::At(Duration::from_secs(seconds)), what)
}

#[test]
fn a_real_server_costs_no_more_than_stated() {
    let network = quiet(|scenario| {
        with_another_owner(scenario);
        scenario.members[1].kind = Kind::RealServer;
        scenario.members[1].host.on_lo = true;
    });
    assert_eq!(
        network.verdicts(),
        [PeerVerdict::Proven, PeerVerdict::Holder]
    );
    assert_eq!(network.core.claims()[0].conflicts().next(), None);
    // An echo and a directed request, two more with an echo and a control echo; then, after its first
    // answer and after the last round, an echo and an echo to the VIP.
    assert_eq!(network.sent_at.len(), ROUNDS + 1 + 6 + 2 + 2);
}

#[test]
fn another_owner_that_answers_costs_one_frame_every_two_seconds() {
    for (seconds, looks) in [(0, 1), (60, 30)] {
        let network = quiet(|scenario| {
            with_another_owner(scenario);
            scenario.pace.conflict_watch = Duration::from_secs(seconds);
        });
        assert_eq!(network.vips[0].looks.len(), looks);
        assert_eq!(network.core.claims()[0].conflicts().count(), 1);
        assert_eq!(
            network.verdicts(),
            [PeerVerdict::Proven, PeerVerdict::Silent]
        );
    }
}

#[test]
fn after_another_owner_leaves_the_rounds_are_repeated_and_everyone_follows() {
    let network = quiet(|scenario| {
        with_another_owner(scenario);
        scenario.pace.conflict_watch = Duration::from_secs(600);
        scenario.happenings = vec![
            // The gateway then follows the other owner.
            at(40, Happening::OtherOwnerClaims(1)),
            at(100, Happening::OtherOwnerLetsGo(1)),
        ];
    });
    assert_eq!(network.verdicts(), [PeerVerdict::Proven; 2]);
    let claim = &network.core.claims()[0];
    assert_eq!(
        (claim.conflicts().count(), claim.past_conflicts().count()),
        (0, 1)
    );
    let vip = &network.vips[0];
    assert_eq!((vip.starts, vip.conflicts_over), (2, 1));
    // One probe every 2 s for 90 s, then 48 in a burst.
    let looks = vip.looks.len();
    assert!((44 + 48..=46 + 48).contains(&looks), "{looks}");
    assert!(network.now < Duration::from_secs(115), "{:?}", network.now);
}

#[test]
fn after_another_owner_executes_a_late_order_the_rounds_are_repeated() {
    let network = quiet(|scenario| {
        with_another_owner(scenario);
        scenario.pace.conflict_watch = Duration::from_secs(600);
        scenario.members[1].listens = true;
        // Before the first order arrives, the gateway follows its announcement.
        scenario.happenings = vec![at(15, Happening::OtherOwnerClaims(1))];
        scenario.orders_from = Duration::from_secs(20);
    });
    assert_eq!(network.verdicts(), [PeerVerdict::Proven; 2]);
    assert_eq!(network.vips[0].starts, 2);
    assert!(network.orders_answered > 0);
}

#[test]
fn a_run_waits_for_a_vip_that_left_and_sends_nothing_meanwhile() {
    for (gone_for, comes_back) in [(900, true), (1100, false)] {
        let left = Duration::from_secs(5);
        let back = left + Duration::from_millis(gone_for);
        let network = quiet(|scenario| {
            scenario.happenings = vec![
                (When::At(left), Happening::Leaves(0)),
                (When::At(back), Happening::Returns(0)),
            ];
        });
        let last = if comes_back { back } else { left };
        let between = |at: &&Duration| left <= **at && **at < back;
        assert_eq!(network.sent_at.iter().filter(between).count(), 0);
        let after = network.sent_at.iter().filter(|at| **at >= last).count();
        assert_eq!(after, if comes_back { ROUNDS + 1 } else { 0 });
        let ends = if comes_back { 16 } else { 6 };
        assert_eq!(network.now.as_secs(), ends);
    }
}

#[test]
fn an_order_makes_a_host_with_a_permanent_entry_follow() {
    // With such losses a peer may seem to answer no echo: it is given up as acknowledged.
    for (loss, at_least) in [(0, 100), (300, 100), (600, 50)] {
        let follows = |seed: &u64| {
            let network = quiet(|scenario| {
                scenario.seed = *seed;
                (scenario.loss_out, scenario.loss_in) = (loss, loss);
                set_permanent_entry(&mut scenario.members[0]);
                scenario.members[0].listens = true;
            });
            let proven = network.verdicts() == [PeerVerdict::Proven];
            assert!(!proven || network.orders_answered > 0);
            proven
        };
        let proven = (0..100).filter(follows).count();
        assert!(proven >= at_least, "{loss}: {proven}");
    }
}

#[test]
fn a_late_order_makes_a_host_follow_too() {
    let network = quiet(|scenario| {
        let member = &mut scenario.members[0];
        set_permanent_entry(member);
        member.source = Source::Learned;
        member.listens = true;
        // The run finds it stale within seconds. The orders of the next half minute are lost, and by
        // then the run has sent all its questions.
        member.dark = Some((Duration::from_secs(4), Duration::from_secs(30)));
        scenario.orders_from = Duration::from_secs(30);
        scenario.delay = Duration::from_millis(300);
    });
    assert_eq!(network.verdicts(), [PeerVerdict::Proven]);
}
