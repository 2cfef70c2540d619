//! A load that writes down all it knows, and a checker that holds the promise against what was written down.
//!
//! The load (`load`) is many threads with a connection each; every one records in one [`History`] what it is about to
//! send and what it has received. The checker (`check`) reads the history alone: it knows nothing of the broker but the
//! promise of its receipts. One history goes on over any number of kills and power cuts.

mod check;
mod load;
mod record;

pub use check::{Kind, Rules, Tally, Violation, check};
pub use load::{AUTO, Load, ORDERED, drain};
pub use record::History;
