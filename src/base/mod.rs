//! Words that every floor shares: numbers with meaning, time as an argument, limits, policies, destinations.
//!
//! # Not here
//! A clock or a source of entropy. Both are arguments, read in `runtime` only.

mod access;
mod death;
mod destination;
mod dialect;
mod identity;
mod ids;
mod limits;
mod login;
mod policy;
mod schedule;
mod time;
mod window;

pub use access::{Action, Actions, Decision, Destinations, Rule, Rules, Who, written};
pub use death::{Death, DeathReason};
pub use destination::{
    ANY, Destination, DestinationKind, LEVEL_SEPARATOR, REPLY_PREFIX, TEMPORARY_PREFIX,
    TEMPORARY_QUEUE_PREFIX, Wildcards, is_deep,
};
pub use dialect::Dialect;
pub use identity::{Identity, Principal};
pub use ids::{ChunkNo, ChunkRef, Epoch, MessageId, Seq, SessionNo, SlotNo, SubNo, Tag, TxNo};
pub use limits::Limits;
pub use login::{Login, Method, Methods, Secret, TokenAlgorithm, TokenKey};
pub use policy::{
    Overflow, PATTERN_FORM, Policies, Policy, SETTINGS, Setting, SettingForm, SettingKey, Settings,
};
pub use schedule::{Cron, Schedule};
pub use time::Now;
pub use window::Window;
