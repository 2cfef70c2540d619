//! Steadfast: a durable message-queue broker that speaks STOMP 1.0, 1.1 and 1.2.
//!
//! The floors, highest first; imports go down only (`tests/architecture.rs` reads them):
//! `cli`, `sim` > `runtime` > `listener` > `session`, `broker`, `store` > `auth`, `config` > `wire`, `port`, `journal`, `api` > `selector` >
//! `base`; `client` stands on its own under `cli`.
//! `docs/ARCHITECTURE.md` is the map.

pub mod api;
pub mod auth;
pub mod base;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod journal;
pub mod listener;
pub mod port;
pub mod runtime;
pub mod selector;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod wire;
