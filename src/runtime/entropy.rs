//! The only source of randomness.

use uuid::Uuid;

/// The identity of a store to be made.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub(crate) fn store_uuid() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}

/// The name of an incident: in the log with what happened, and told to the peer without it.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub(crate) fn incident() -> String {
    Uuid::new_v4().to_string()
}
