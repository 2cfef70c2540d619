//! The frame codec of STOMP 1.0, 1.1 and 1.2, for both ends of a connection. Sans-io: bytes in, frames out, and back.
//!
//! # Invariants
//! - How the bytes are cut into reads never changes what is decoded, errors included.
//! - No limit is checked after the bytes it bounds were waited for: a peer cannot make us hold more than the limits.
//! - Decoding takes no memory; a frame borrows the bytes it was read from.
//!
//! # Not here
//! What a command or a header means: `session`.

mod decoder;
mod encoder;
mod error;
mod escape;
mod version;

pub use decoder::{Decoded, Decoder, Frame, FrameLimits, Header, Headers};
pub use encoder::{Encoder, FRAME_END};
pub use error::{Class, Code, DecodeError};
pub use escape::{Part, check, escape, store, transcode, unescape};
pub use version::{Escapes, Grammar, Version};

pub(crate) use error::codes;

#[cfg(test)]
mod tests;
