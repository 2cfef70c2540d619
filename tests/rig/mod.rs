//! What the tests of the real program share: the program as a child, a STOMP client of our own that knows nothing of
//! the broker's code, a seeded source of numbers.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod broker;
mod client;
pub mod http;
mod proxy;
mod rng;

pub use broker::{Broker, Settings};
pub use client::{Client, Frame, encode};
pub use proxy::{Fault, Proxy};
pub use rng::Rng;

/// A number from the environment, or its default. A value that is none fails the test.
pub fn env_number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
