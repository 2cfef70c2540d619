//! Where a value was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::Key;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// In the environment.
    Variable {
        /// Which.
        name: String,
    },
    /// On the command line.
    Flag {
        /// With its dashes.
        name: &'static str,
    },
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where each value of a configuration was written.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// By section and name.
    keys: BTreeMap<String, Origin>,
    /// Of `Config::listeners`.
    pub listeners: Vec<Origin>,
    /// Of `Config::policies`.
    pub policies: Vec<Origin>,
    /// Listeners, with those that were refused.
    pub(super) listener_count: usize,
}

impl Origins {
    /// That of a key.
    pub fn of(&self, key: &Key) -> &Origin {
        self.named(&key.path())
    }

    pub(super) fn named(&self, path: &str) -> &Origin {
        self.keys.get(path).unwrap_or(&Origin::Default)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    pub(super) fn note(&mut self, key: &Key, origin: Origin) {
        self.keys.insert(key.path(), origin);
    }

    pub(super) fn note_flag(&mut self, path: &str, name: &'static str) {
        self.keys.insert(path.to_owned(), Origin::Flag { name });
    }
}
