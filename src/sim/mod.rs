//! The simulation: many clients, the broker and its disk in one thread, on a clock that moves when it is told to, with
//! every choice made by one source of chance. A seed tells a run, byte for byte.
//!
//! Real are the session, the core, the connection's driver, the gates, the cache of bodies and recovery: all that stands
//! between the bytes of a socket and the store. Simulated are the network (`network`: bytes split anywhere, delayed, cut,
//! half-closed, not read), the disk (`disk`: failing calls, crashes that keep a batch or not, bodies that come late or
//! not at all), the clients (`client`), an operator and the clock. The oracle (`oracle`) sees both ends of each wire.
//!
//! # Invariants
//! - One thread, no clock but the simulated one, no order of a hash map that differs from run to run.
//! - A planted fault ([`Plant`]) is found by the oracle; that is how the oracle is tested.
//!
//! # Not here
//! The engine of the store, threads, sockets and signals: `tests/crash.rs` cuts the power under the real program.

mod client;
mod disk;
mod history;
mod host;
mod message;
mod network;
mod oracle;
mod plant;
mod rng;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use oracle::{Kind, Violation};
pub use plant::Plant;
pub use world::Tally;

use world::World;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Sends, reads, writes, commits, acts, faults: everything that happened.
    pub event_count: u64,
    /// A sum over all of it: the same for the same seed.
    pub sum: u64,
    /// What was done and seen.
    pub tally: Tally,
    /// What broke the promise; a run ends with the first.
    pub found: Vec<Violation>,
    /// The last events, for people.
    pub trail: Vec<String>,
}

/// Runs one seed, with a fault planted or not.
pub fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    let mut world = World::new(seed, plant);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        world.accuse(Kind::Panicked, text);
    }
    world.into_outcome()
}
