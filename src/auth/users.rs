//! The users file: who there is, and what they are known by.
//!
//! ```toml
//! [[user]]
//! name = "alice"
//! password = "$argon2id$v=19$m=19456,t=2,p=1$..."
//! groups = ["orders"]
//! disabled = false
//! uid = 1000
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::AuthError;
use super::password::Hash;

/// What a name has at most.
const NAME_BYTES_MAX: usize = 128;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: Box<str>,
    /// Without one, the user comes in by certificate, Unix socket or token only.
    pub password: Option<Hash>,
    /// Groups that the user is in, as rules name them.
    pub groups: Box<[Box<str>]>,
    /// Whether the user may not come in, by any method.
    pub disabled: bool,
    /// What the user's processes run as, for Unix sockets.
    pub uid: Option<u32>,
}

/// Every user.
#[derive(Debug)]
pub struct Users {
    by_name: BTreeMap<Box<str>, Arc<User>>,
    by_uid: BTreeMap<u32, Box<str>>,
    /// Verified for whoever is no user; of the highest cost in the file.
    nobodys_hash: Hash,
    mixed_costs: bool,
}

/// A user as it is written. `password` may be anything here, so that no error of the reader shows it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Spanned<String>,
    password: Option<Spanned<toml::Value>>,
    groups: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    disabled: bool,
    uid: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<Written>,
}

/// Whether a text may be the name of a user or of a group: what a header of CONNECT can carry in every version, and a log
/// line can show.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

impl Users {
    /// Reads a file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, AuthError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            // Where the folder is none, whoever needs it says so.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(AuthError::File {
                operation: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AuthError> {
        let wrong = |byte: usize, what: &str| AuthError::Users {
            path: path.to_owned(),
            line: text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1,
            what: what.to_owned(),
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, &error.message().replace('\n', ", "))
        })?;
        let mut by_name = BTreeMap::new();
        let mut by_uid = BTreeMap::new();
        for written in file.user {
            let name_at = written.name.span().start;
            let name: Box<str> = written.name.into_inner().into();
            if !is_name(&name) {
                let what = "a name has 1 to 128 bytes, no control characters and no spaces around it";
                return Err(wrong(name_at, what));
            }
            let groups_at = written.groups.as_ref().map_or(0, |groups| groups.span().start);
            let groups = written.groups.map(Spanned::into_inner).unwrap_or_default();
            let groups: Box<[Box<str>]> = groups.into_iter().map(Into::into).collect();
            if !groups.iter().all(|group| is_name(group)) {
                let what = "a group's name has 1 to 128 bytes, no control characters and no spaces around it";
                return Err(wrong(groups_at, what));
            }
            let password = match written.password {
                None => None,
                Some(written) => {
                    let at = written.span().start;
                    let hash = Hash::parse(written.get_ref().as_str().unwrap_or_default());
                    Some(hash.map_err(|what| wrong(at, what))?)
                }
            };
            if let Some(uid) = &written.uid
                && by_uid.insert(*uid.get_ref(), name.clone()).is_some()
            {
                return Err(wrong(uid.span().start, "another user has this uid"));
            }
            let user = User {
                name: name.clone(),
                password,
                groups,
                disabled: written.disabled,
                uid: written.uid.map(Spanned::into_inner),
            };
            if by_name.insert(name, Arc::new(user)).is_some() {
                return Err(wrong(name_at, "there is a user of this name above"));
            }
        }
        let hashes = || {
            by_name
                .values()
                .filter_map(|user: &Arc<User>| user.password.as_ref())
        };
        let costliest = hashes().max_by_key(|hash| hash.cost());
        let mixed_costs = hashes().any(|hash| Some(hash.cost()) != costliest.map(Hash::cost));
        let nobodys_hash = costliest.map_or_else(Hash::nobodys_default, Hash::nobodys);
        Ok(Self {
            by_uid,
            nobodys_hash,
            mixed_costs,
            by_name,
        })
    }

    /// Every user, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.by_name.values().map(|user| &**user)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    pub(super) fn with_uid(&self, uid: u32) -> Option<&Arc<User>> {
        self.find(self.by_uid.get(&uid)?)
    }

    /// Whether a user is there, exactly so, and may come in.
    pub(super) fn has(&self, user: &User) -> bool {
        !user.disabled && self.find(&user.name).is_some_and(|now| **now == *user)
    }

    pub(super) fn nobodys_hash(&self) -> &Hash {
        &self.nobodys_hash
    }

    pub(super) fn has_mixed_costs(&self) -> bool {
        self.mixed_costs
    }
}
