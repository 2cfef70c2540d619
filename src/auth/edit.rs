//! Changing the users file: what stands in it beside the change, comments among it, stays as it is.
//!
//! # Invariants
//! - The file is replaced as a whole, by renaming; whoever reads it sees the old one or the new one, and after a crash there
//!   is one of them. Its permissions are 0600.
//! - What is written can be read: it is read again before it takes the old one's place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::{AuthError, Hash, Users};

const USER: &str = "user";
const NAME: &str = "name";
const PASSWORD: &str = "password";
const GROUPS: &str = "groups";
const DISABLED: &str = "disabled";
const UID: &str = "uid";

const HEAD: &str =
    "# Users of Steadfast; `steadfast user` changes this file, and so may you (docs/security.md).\n\n";

/// The users file, while it is changed. Nobody else changes it meanwhile.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    folder: File,
    is_new: bool,
    document: DocumentMut,
}

impl UsersFile {
    /// Reads the file to change it; one that is missing is empty. Waits for whoever changes it now.
    pub fn open(path: &Path) -> Result<Self, AuthError> {
        let failed = |operation| {
            move |source| AuthError::File {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = File::open(folder).map_err(failed("open the folder of"))?;
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .map_err(failed("lock the folder of"))?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed("read")(error)),
        };
        // A file that the broker would refuse is not changed, but mended first.
        Users::parse(path, &text)?;
        let document = text.parse().map_err(|_| AuthError::Users {
            path: path.to_owned(),
            line: 1,
            what: "not valid TOML".to_owned(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            folder,
            is_new: text.is_empty(),
            document,
        })
    }

    /// Says so if there is such a user.
    pub fn check_absent(&self, name: &str) -> Result<(), AuthError> {
        match self.find(name) {
            Some(_) => Err(AuthError::UserExists {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Says so if there is no such user.
    pub fn check_present(&self, name: &str) -> Result<(), AuthError> {
        self.position(name).map(drop)
    }

    /// Adds a user.
    pub fn add(
        &mut self,
        name: &str,
        password: Option<&Hash>,
        groups: &[String],
        uid: Option<u32>,
    ) -> Result<(), AuthError> {
        self.check_absent(name)?;
        let mut user = Table::new();
        user.insert(NAME, value(name));
        if let Some(password) = password {
            user.insert(PASSWORD, value(password.to_string()));
        }
        if !groups.is_empty() {
            user.insert(GROUPS, value(groups.iter().collect::<Array>()));
        }
        if let Some(uid) = uid {
            user.insert(UID, value(i64::from(uid)));
        }
        let users = self
            .document
            .entry(USER)
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        match users {
            Item::ArrayOfTables(users) => users.push(user),
            // Written as a list in one line; what it holds was read when the file was opened.
            other => {
                let mut users = std::mem::take(other).into_array_of_tables().unwrap_or_default();
                users.push(user);
                *other = Item::ArrayOfTables(users);
            }
        }
        Ok(())
    }

    /// Removes a user.
    pub fn remove(&mut self, name: &str) -> Result<(), AuthError> {
        let at = self.position(name)?;
        match self.document.get_mut(USER) {
            Some(Item::ArrayOfTables(users)) => {
                users.remove(at);
            }
            Some(users) => {
                if let Some(users) = users.as_array_mut() {
                    users.remove(at);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Sets a user's password.
    pub fn set_password(&mut self, name: &str, password: &Hash) -> Result<(), AuthError> {
        self.set(name, PASSWORD, value(password.to_string()))
    }

    /// Lets a user in no more, or again.
    pub fn set_disabled(&mut self, name: &str, disabled: bool) -> Result<(), AuthError> {
        self.set(name, DISABLED, value(disabled))
    }

    /// Makes it durable in the place of the old one.
    pub fn save(&self) -> Result<(), AuthError> {
        let mut text = self.document.to_string();
        if self.is_new {
            text.insert_str(0, HEAD);
        }
        Users::parse(&self.path, &text)?;
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        let next = PathBuf::from(next);
        let failed = |operation| {
            let path = next.clone();
            move |source| AuthError::File {
                operation,
                path,
                source,
            }
        };
        // Left over from a change that was killed: we have the lock, so nobody writes it.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove")(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&next);
        let mut file = file.map_err(failed("create"))?;
        keep_owner(&self.path, &self.folder, &file).map_err(failed("set the owner of"))?;
        file.write_all(text.as_bytes()).map_err(failed("write"))?;
        file.sync_all().map_err(failed("write"))?;
        fs::rename(&next, &self.path).map_err(failed("rename"))?;
        self.folder.sync_all().map_err(failed("sync the folder of"))
    }

    fn set(&mut self, name: &str, key: &str, item: Item) -> Result<(), AuthError> {
        let at = self.position(name)?;
        let users = self.document.get_mut(USER);
        let user = users
            .and_then(|users| users.get_mut(at))
            .and_then(Item::as_table_like_mut);
        if let Some(user) = user {
            user.insert(key, item);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        let is_named = |user: &dyn toml_edit::TableLike| user.get(NAME).and_then(Item::as_str) == Some(name);
        match self.document.get(USER)? {
            Item::ArrayOfTables(users) => users.iter().position(|user| is_named(user)),
            users => users
                .as_array()?
                .iter()
                .position(|user| user.as_inline_table().is_some_and(|user| is_named(user))),
        }
    }

    fn position(&self, name: &str) -> Result<usize, AuthError> {
        self.find(name).ok_or_else(|| AuthError::UserUnknown {
            name: name.to_owned(),
            path: self.path.clone(),
        })
    }
}

/// Changed by root, the file stays one that the broker's user can read; made by root, it is that of the folder's owner.
fn keep_owner(old: &Path, folder: &File, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};

    let made = new.metadata()?;
    let owner = match fs::metadata(old) {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => folder.metadata()?,
        Err(error) => return Err(error),
    };
    match made.uid() == 0 && (owner.uid(), owner.gid()) != (0, made.gid()) {
        true => fchown(new, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    }
}
