//! A simulated network around the very core that announces: thousands of runs, each drawn from
//! one number, with hosts that behave as Linux was measured to behave, and everything going wrong
//! that can.
//!
//! A run that fails tells its seed. `SIMULATION_SEED=N` plays that one alone;
//! `SIMULATION_RUNS=N` plays so many, from `SIMULATION_FIRST` on:
//!
//! ```sh
//! SIMULATION_SEED=4711 cargo test --test simulation
//! SIMULATION_RUNS=1000000 cargo test --release --test simulation -- --nocapture
//! ```

mod network;
mod peer;
mod properties;
mod rng;
mod scenario;
mod statistics;

use std::panic::{self, AssertUnwindSafe};

use network::Network;
use scenario::Scenario;
use statistics::Statistics;

const RUNS: u64 = 10_000;

fn play(scenario: Scenario, statistics: &mut Statistics) {
    let seed = scenario.seed;
    let played = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut network = Network::new(scenario);
        network.play();
        properties::hold(&network, statistics);
    }));
    if let Err(panic) = played {
        eprintln!("That was seed {seed}: SIMULATION_SEED={seed} cargo test --test simulation");
        panic::resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text}")),
    )
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
    let mut statistics = Statistics::default();
    for seed in first..first + runs {
        play(Scenario::drawn(seed), &mut statistics);
    }
    println!("{statistics}");
}
#[test]
fn debug_scenario() {
    let s = Scenario::drawn(number("SIMULATION_SEED").unwrap_or(0));
    let m = s.members.len();
    let s2 = Scenario {
        members: Vec::new(),
        ..s.clone()
    };
    println!("{m} {s2:#?}");
    let mut network = Network::new(s);
    network.play();
    println!(
        "{:?} {:?} {:?}",
        network.now, network.vips, network.broadcasts
    );
}
