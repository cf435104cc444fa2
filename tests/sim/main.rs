//! The whole life of documents, simulated: real client machines; real document machines, ring and membership on several
//! nodes; a real store's rules; and between them links that lose, double, delay and part, sockets that break, appends of
//! unknown fate, a store that is away, crashes at every step, nodes that pause or leave, and views of who lives that lag.
//! One seed is one story.
//!
//! `cargo test --test sim` tells [`SEEDS`] stories; `SIM_SEEDS=100000` tells more, `SIM_SEED=42` tells one, with every
//! step printed.

mod clients;
mod cluster;
mod freshness;
mod invariants;
mod nodes;
mod probe_client;
mod rng;
mod sim_store;
mod world;

use world::{Lives, Shape, World};

/// How many stories each shape tells unless `SIM_SEEDS` says otherwise. The three shapes together acknowledge more than a
/// million ops.
const SEEDS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Says how to hear a story again that ended in a panic.
struct Telling(u64, &'static str);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, shape) = self;
            println!("reproduce: SIM_SEED={seed} cargo test --test sim {shape}");
        }
    }
}

/// Tells one story, and panics if it ends badly.
fn tell_one(seed: u64, shape: &Shape, trace: bool) -> World {
    let _telling = Telling(seed, shape.name);
    let mut world = World::new(seed, shape, trace);
    world.tell();
    invariants::judge(&world).unwrap_or_else(|fault| panic!("{fault}"));
    world
}

/// Tells the stories of so many seeds as the environment says.
fn tell(shape: &Shape) {
    if let Some(seed) = number("SIM_SEED") {
        tell_one(seed, shape, true);
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let mut acknowledged = 0;
    let mut faults = 0;
    for seed in first..first + count {
        let world = tell_one(seed, shape, false);
        acknowledged += world.acknowledged();
        faults += world.faults;
    }
    println!(
        "{}: {count} stories, {acknowledged} ops acknowledged, {faults} faults, none lost or doubled",
        shape.name
    );
    assert!(acknowledged > count, "the stories are about something");
}

#[test]
fn one_node() {
    tell(&Shape {
        name: "one_node",
        nodes: 1,
        lives: Lives::One,
    });
}

#[test]
fn three_nodes() {
    tell(&Shape {
        name: "three_nodes",
        nodes: 3,
        lives: Lives::One,
    });
}

/// The document is deleted and created again and again: then work is thrown away, but what was acknowledged is not.
#[test]
fn many_lives() {
    tell(&Shape {
        name: "many_lives",
        nodes: 2,
        lives: Lives::Many,
    });
}
