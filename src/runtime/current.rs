//! What holds for sessions that begin, which a reload of the configuration changes.

use std::sync::{Arc, PoisonError, RwLock};

use crate::session::SessionConfig;

/// See the module's text. A session keeps what it began with.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<SessionConfig>>);

impl Current {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    /// That of a listener of which nothing is said.
    pub(crate) fn get(&self) -> Arc<SessionConfig> {
        // Nothing can panic while it is held.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, config: SessionConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}
