//! Why a broker did not start.

use std::io;
use std::path::PathBuf;

use crate::config::Address;
use crate::listener::TlsError;
use crate::store::StoreError;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store could not be opened or read.
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    /// The data folder could not be made.
    #[error("cannot make the data folder {}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A listener has no certificate that it could use.
    #[error("no TLS can be spoken on {address}")]
    Tls {
        /// Which.
        address: Address,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// The limit on open files leaves none for connections.
    #[error("the limit on open files is {limit}, and a broker needs {needed} at least")]
    Descriptors {
        /// As far as it could be raised.
        limit: u64,
        /// For one connection.
        needed: u64,
    },
    /// The operating system denied threads or signals.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(StoreError::InUse(_)) => 5,
            Self::Store(StoreError::Append { .. } | StoreError::Flush { .. } | StoreError::Poisoned) => 3,
            Self::Tls { .. } => 2,
            Self::Store(_) | Self::DataDir { .. } => 4,
            Self::Listen { .. } | Self::Descriptors { .. } | Self::System { .. } => 1,
        }
    }
}
