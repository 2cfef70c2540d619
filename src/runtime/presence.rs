//! Who is connected: what the runtime knows of each connection and the core does not.
//!
//! The lock is taken when a connection opens and closes, and when somebody looks; never for a message.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::{Identity, SessionNo};
use crate::wire::Version;

use super::stats::Counter;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    connections: Mutex<BTreeMap<u64, Arc<Present>>>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An address of the network.
    Net(SocketAddr),
    /// A process of this machine.
    Local { uid: Option<u32>, pid: Option<i32> },
}

impl Peer {
    /// One that came by a Unix socket.
    pub(crate) fn of(identity: &Identity) -> Self {
        match identity {
            Identity::Local { uid, pid } => Self::Local {
                uid: Some(*uid),
                pid: *pid,
            },
            _ => Self::Local { uid: None, pid: None },
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Net(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => write!(f, "{address}"),
            Self::Local { uid, pid } => {
                f.write_str("unix")?;
                if let Some(uid) = uid {
                    write!(f, ":uid={uid}")?;
                }
                if let Some(pid) = pid {
                    write!(f, ",pid={pid}")?;
                }
                Ok(())
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Present {
    /// Where it comes from.
    pub(crate) peer: Peer,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub(crate) connected_at_ms: u64,
    /// What it speaks, once that is agreed on.
    pub(crate) version: OnceLock<Version>,
    /// The user that it has logged in as, if it has.
    pub(crate) user: OnceLock<Box<str>>,
    /// Bytes read from it.
    pub(crate) in_bytes: Counter,
    /// Bytes written to it.
    pub(crate) out_bytes: Counter,
}

/// A connection's place; it is present until this is dropped.
#[derive(Debug)]
pub(crate) struct Attendance {
    presence: Arc<Presence>,
    session: SessionNo,
    pub(crate) present: Arc<Present>,
}

impl Presence {
    /// A connection is there.
    pub(crate) fn enter(self: &Arc<Self>, session: SessionNo, peer: Peer, at_ms: u64) -> Attendance {
        let present = Arc::new(Present {
            peer,
            connected_at_ms: at_ms,
            version: OnceLock::new(),
            user: OnceLock::new(),
            in_bytes: Counter::default(),
            out_bytes: Counter::default(),
        });
        self.lock().insert(session.0, Arc::clone(&present));
        Attendance {
            presence: Arc::clone(self),
            session,
            present,
        }
    }

    /// The connection of a session.
    pub(crate) fn find(&self, session: SessionNo) -> Option<Arc<Present>> {
        self.lock().get(&session.0).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Present>>> {
        // Nothing in the lock's scope can leave the map half changed.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// Notes the version, if it is known by now and was not before.
    pub(crate) fn note_version(&self, version: impl FnOnce() -> Option<Version>) {
        if self.version.get().is_none()
            && let Some(version) = version()
        {
            // Only the connection itself sets it.
            let _ = self.version.set(version);
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.presence.lock().remove(&self.session.0);
    }
}
