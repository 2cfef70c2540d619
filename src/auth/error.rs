//! Why users or keys cannot be read.

use std::io;
use std::path::PathBuf;

/// Why users or keys cannot be read or changed. No text of a secret is ever in it.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The users file is not as it should be.
    #[error("{}, line {line}: {what}", path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The users file is missing.
    #[error("there is no users file {}; `steadfast user add NAME` makes one", .0.display())]
    NoUsersFile(PathBuf),
    /// A key for tokens cannot be used.
    #[error("the key {} for {algorithm} cannot be used: {what}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What it was to be for.
        algorithm: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// There is such a user.
    #[error("there is a user {name} already; `steadfast user passwd {name}` sets another password")]
    UserExists {
        /// Which.
        name: String,
    },
    /// There is no such user.
    #[error("there is no user {name} in {}; `steadfast user list` shows who there is", path.display())]
    UserUnknown {
        /// Which.
        name: String,
        /// The users file.
        path: PathBuf,
    },
}
