//! What can go wrong between this client and a broker.

use std::io;

use super::DecodeError;

/// A fault of a connection, or the broker's ERROR.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect to {addr}")]
    Connect {
        /// The address as given.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read from the broker")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write to the broker")]
    Write(#[source] io::Error),
    /// The broker sent something that is not STOMP.
    #[error("the broker sent a broken frame")]
    Decode(#[from] DecodeError),
    /// The broker closed the connection although more was due.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker did not answer in time.
    #[error("the broker did not answer in time")]
    TimedOut,
    /// The broker sent an ERROR frame.
    #[error("the broker sent ERROR: {message}")]
    Refused {
        /// The header `message`, and what the body begins with.
        message: String,
    },
    /// The broker sent a frame that has no place here.
    #[error("the broker sent {command} where {expected} was due")]
    Unexpected {
        /// What came.
        command: String,
        /// What was due.
        expected: &'static str,
    },
}
