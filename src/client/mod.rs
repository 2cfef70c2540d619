//! The small STOMP 1.2 client behind `send`, `receive` and `bench`: a decoder and an encoder without IO, and one
//! [`Connection`] over TCP or TLS that works blocking or non-blocking. It works against any broker.
//!
//! # Not here
//! The broker's own codec (`wire`), which knows three versions and refuses by rule. Here a broken frame is only an
//! error, header values stay raw until somebody asks, and every cost per frame is kept small, since a load
//! generator shares the machine with the broker it measures.

mod connection;
mod decode;
mod encode;
mod error;
mod stream;

pub use connection::{Connection, Target, expect_command, refuse_error};
pub use decode::{BODY_BYTES_MAX, DecodeError, Decoder, Frame, parse_number, unescape};
pub use encode::{SendTemplate, encode_ack, encode_ack_staged, encode_frame};
pub use error::ClientError;
pub use stream::{Tls, TlsSetupError};
