//! The targets, with what they share with the tests of the broker.

#[path = "../../tests/model/state.rs"]
mod state;
#[path = "../../tests/support/mod.rs"]
mod support;
pub mod targets;
#[path = "../../tests/model/world.rs"]
#[allow(dead_code, reason = "the model's own tests look deeper")]
mod world;
