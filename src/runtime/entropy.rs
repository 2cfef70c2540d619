//! The only source of randomness.

use uuid::Uuid;

/// The identity of a store to be made.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub(crate) fn store_uuid() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}

/// A salt for a password: 122 bits of it are random.
pub(super) fn salt() -> [u8; 16] {
    store_uuid()
}

/// A name that nobody can have thought of.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub(crate) fn name() -> String {
    Uuid::new_v4().to_string()
}
