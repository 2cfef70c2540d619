//! The runtime: the only floor with IO, a clock, entropy and threads (being built).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Epoch, Limits};
use crate::store::StoreError;

/// What `serve` needs to know.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Addresses to accept STOMP on, at least one; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// The folder of the store; created where it is missing.
    pub data_dir: PathBuf,
    /// Every bound.
    pub limits: Limits,
    /// The shortest heart-beat interval we guarantee and ask for, either way.
    pub heart_beat_ms_min: u64,
    /// A peer is dead after its agreed interval times this, in percent (200 = twice the interval).
    pub heart_beat_margin_percent: u64,
    /// How long a stop waits for connections to take what they are due.
    pub shutdown_ms_max: u64,
    /// Threads that serve connections; at least 1.
    pub worker_count: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 61613))],
            data_dir: PathBuf::from("data"),
            limits: Limits::default(),
            heart_beat_ms_min: 1_000,
            heart_beat_margin_percent: 200,
            shutdown_ms_max: 5_000,
            worker_count: 2,
        }
    }
}

/// What people want to read once the broker accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The addresses bound, with the ports chosen, in the order of [`ServeOptions::listen`].
    pub listen: Vec<SocketAddr>,
    /// The folder of the store.
    pub data_dir: PathBuf,
    /// Queues recovered.
    pub queue_count: u64,
    /// Messages recovered.
    pub message_count: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Opening and reading the store took this long.
    pub recovery: Duration,
    /// The term that began.
    pub epoch: Epoch,
}

/// Why a broker that had started came to its end. A second signal or a failed flush ends the process instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store could not be opened or read.
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    /// An address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system denied threads or signals.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(StoreError::InUse(_)) => 5,
            Self::Store(StoreError::Append { .. } | StoreError::Flush { .. } | StoreError::Poisoned) => 3,
            Self::Store(_) => 4,
            Self::Listen { .. } | Self::System { .. } => 1,
        }
    }
}

/// Runs a broker until a signal stops it. Calls `started` once, when connections are accepted. To be called first
/// thing in the process, before it has other threads.
pub fn run(_options: ServeOptions, _started: impl FnOnce(&Started)) -> Result<ExitReason, RunError> {
    unimplemented!("runtime")
}
