//! Simulates clusters: real client and document state machines, hash rings and memberships on several nodes, and a store with the
//! real rules. Faults between them: messages that are lost, duplicated, delayed or partitioned, broken sockets, appends with an
//! unknown outcome, an unavailable store, crashes at every step, nodes that pause or leave, and outdated views of the membership.
//! A seed determines a scenario.
//!
//! `cargo test --test sim` runs [`SEEDS`] scenarios; `SIM_SEEDS=100000` runs more, `SIM_SEED=42` runs one and prints every event,
//! and `SIM_LIST=1` prints the acknowledged ops and the faults of each seed.

mod clients;
mod cluster;
mod freshness;
mod invariants;
mod nodes;
mod probe_client;
mod rng;
mod sim_store;
mod world;

use world::{Creation, Shape, World};

/// The number of scenarios of each shape, unless `SIM_SEEDS` is set. The three shapes together acknowledge more than a million
/// ops.
const SEEDS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Prints how to reproduce a scenario that ends in a panic.
struct ReproductionHint(u64, &'static str);

impl Drop for ReproductionHint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, shape) = self;
            println!("reproduce: SIM_SEED={seed} cargo test --test sim {shape}");
        }
    }
}

/// Runs one scenario. Panics if an invariant is violated.
fn run_scenario(seed: u64, shape: &Shape, trace: bool) -> World {
    let _hint = ReproductionHint(seed, shape.name);
    let mut world = World::new(seed, shape, trace);
    world.run();
    invariants::check(&world).unwrap_or_else(|violation| panic!("{violation}"));
    world
}

/// Runs the scenarios that the environment selects.
fn run_seeds(shape: &Shape) {
    if let Some(seed) = number("SIM_SEED") {
        run_scenario(seed, shape, true);
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let mut acknowledged = 0;
    let mut faults = 0;
    for seed in first..first + count {
        let world = run_scenario(seed, shape, false);
        if number("SIM_LIST").is_some() {
            let acknowledged = world.acknowledged();
            println!("{} {seed}: {acknowledged} {}", shape.name, world.faults);
        }
        acknowledged += world.acknowledged();
        faults += world.faults;
    }
    println!(
        "{}: {count} scenarios, {acknowledged} ops acknowledged, {faults} faults, none lost or duplicated",
        shape.name
    );
    assert!(
        acknowledged > count,
        "more than one op a scenario is acknowledged"
    );
}

#[test]
fn one_node() {
    run_seeds(&Shape {
        name: "one_node",
        nodes: 1,
        creation: Creation::Once,
    });
}

#[test]
fn three_nodes() {
    run_seeds(&Shape {
        name: "three_nodes",
        nodes: 3,
        creation: Creation::Once,
    });
}

/// Documents are deleted and created again. Unacknowledged changes are dropped then, acknowledged ones are not.
#[test]
fn many_lives() {
    run_seeds(&Shape {
        name: "many_lives",
        nodes: 2,
        creation: Creation::Repeated,
    });
}
