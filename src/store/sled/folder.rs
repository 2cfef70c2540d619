//! The data folder: who has it, and whether the store in it is whole.
//!
//! ```text
//! lock       held (flock) while the store is open
//! format     "steadfast store, format 4, ID": written last when a store is made, "creating" until then, or "restoring"
//! durable    the last Seq that a flush has made durable
//! db  conf  blobs/  snap.*   sled's
//! ```
//!
//! # Invariants
//! - sled's files are removed only while `format` says "creating": until then nothing can have been confirmed.
//! - A folder whose `format` says "restoring" is opened by nobody: an operator believes that there are messages in it.
//! - When `create_or_open` returns, every file and every folder on the way to it survives power loss.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::damaged;
use crate::journal::FORMAT_VERSION;
use crate::store::StoreError;

pub(super) const DB: &str = "db";
pub(super) const DURABLE: &str = "durable";
const CONF: &str = "conf";
const BLOBS: &str = "blobs";
const SNAPSHOT: &str = "snap.";
const SNAPSHOT_UNFINISHED: &str = ".generating";
const LOCK: &str = "lock";
const FORMAT: &str = "format";
const FORMAT_NEXT: &str = "format.next";
const FORMAT_TEXT: &str = "steadfast store, format ";
const CREATING: &str = "creating";
const RESTORING: &str = "restoring";

/// What `format` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Absent,
    /// A creation was interrupted.
    Creating,
    /// A store with this id.
    Complete([u8; 16]),
    /// The same of an older format, which is read as it is.
    Older([u8; 16]),
}

/// The data folder while we have it.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

/// Makes a data folder, for us alone, with those above it as far as they are missing, and syncs what leads to it.
/// Nothing changes where it is there. Says so if another broker has it, before anything in it is touched.
pub fn make_folder(dir: &Path) -> Result<(), StoreError> {
    let dir = std::path::absolute(dir).map_err(error("find", dir))?;
    let above = dir.ancestors().skip(1);
    let missing_count = above.clone().take_while(|folder| !folder.is_dir()).count();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(error("create", &dir))?;
    // The entry of the lowest folder that was there may be as new: whoever made it may have been killed.
    above
        .take(missing_count + 1)
        .try_for_each(|folder| match sync(folder) {
            // One that we may not read is one that we have not changed.
            Err(StoreError::File { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
            result => result,
        })?;
    Folder::take(&dir).map(drop)
}

/// Refuses a folder that holds no store, touching nothing.
pub(super) fn check_exists(dir: &Path) -> Result<(), StoreError> {
    match fs::metadata(dir.join(FORMAT)) {
        Ok(_) => Ok(()),
        // Without it, that is a damaged store.
        Err(source) if source.kind() == ErrorKind::NotFound && dir.join(DB).exists() => Ok(()),
        Err(source) if source.kind() == ErrorKind::NotFound => Err(no_store(dir)),
        Err(source) => Err(error("open", &dir.join(FORMAT))(source)),
    }
}

/// Refuses a folder in which there is anything, touching nothing. One that is missing is empty.
pub(super) fn check_empty(dir: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(error("read", dir))?,
    };
    for entry in entries {
        // The root of a new file system may have this, and nothing else.
        if entry.map_err(error("read", dir))?.file_name() != "lost+found" {
            let full = match fs::read_to_string(dir.join(FORMAT)) {
                Ok(text) if text.ends_with(&format!(", {RESTORING}\n")) => StoreError::RestoreUnfinished,
                _ => StoreError::NotEmpty,
            };
            return Err(full(dir.to_owned()));
        }
    }
    Ok(())
}

/// Removes what a restore that failed has left; nothing in a folder that holds anything else.
pub fn remove_restore(dir: &Path) -> Result<(), StoreError> {
    let folder = Folder::take(dir)?;
    if !matches!(folder.state(), Err(StoreError::RestoreUnfinished(_))) {
        return Err(StoreError::NotEmpty(dir.to_owned()));
    }
    folder.remove_engine()?;
    // Until the last of them is gone, it is told for what it is.
    for name in [FORMAT_NEXT, FORMAT, LOCK] {
        ignore_absent(fs::remove_file(dir.join(name))).map_err(folder.error("remove", name))?;
    }
    folder.sync()
}

/// There is no store in this folder.
pub(super) fn no_store(dir: &Path) -> StoreError {
    error("open", dir)(io::Error::new(ErrorKind::NotFound, "there is no store in it"))
}

impl Folder {
    /// Takes the folder, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let lock = lock.map_err(error("open", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => Err(StoreError::InUse(dir.to_owned())),
            Err(source) => Err(error("lock", &path)(source)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads `format`. sled's files without it are none of ours, or a damaged store: both are left alone.
    pub(super) fn state(&self) -> Result<State, StoreError> {
        let text = match fs::read_to_string(self.dir.join(FORMAT)) {
            Ok(text) => text,
            Err(source) if source.kind() == ErrorKind::NotFound => {
                return match self.dir.join(DB).exists() || self.dir.join(CONF).exists() {
                    true => Err(damaged("the file `format` is missing")),
                    false => Ok(State::Absent),
                };
            }
            Err(source) if source.kind() == ErrorKind::InvalidData => return Err(unreadable()),
            Err(source) => return Err(self.error("read", FORMAT)(source)),
        };
        let rest = text.strip_prefix(FORMAT_TEXT).ok_or_else(unreadable)?;
        let (version, rest) = rest.split_once(", ").ok_or_else(unreadable)?;
        let found = version.parse().map_err(|_| unreadable())?;
        match (found, rest.trim_end()) {
            (found, _) if found > FORMAT_VERSION => Err(StoreError::NewerFormat {
                found,
                known: FORMAT_VERSION,
            }),
            (0, _) => Err(unreadable()),
            (_, CREATING) => Ok(State::Creating),
            (_, RESTORING) => Err(StoreError::RestoreUnfinished(self.dir.clone())),
            (FORMAT_VERSION, id) => parse_id(id).map(State::Complete).ok_or_else(unreadable),
            (_, id) => parse_id(id).map(State::Older).ok_or_else(unreadable),
        }
    }

    /// From here on, and until `end_creation`, the folder holds no store, and nobody opens it.
    pub(super) fn begin_restore(&self) -> Result<(), StoreError> {
        self.write_format(RESTORING)
    }

    /// From here on, and until `end_creation`, the folder holds no store that anyone could rely on.
    pub(super) fn begin_creation(&self) -> Result<(), StoreError> {
        self.write_format(CREATING)?;
        self.remove_engine()
    }

    /// With the witness of its end, which names another store from now on.
    fn remove_engine(&self) -> Result<(), StoreError> {
        for name in [DB, CONF, DURABLE] {
            ignore_absent(fs::remove_file(self.dir.join(name))).map_err(self.error("remove", name))?;
        }
        ignore_absent(fs::remove_dir_all(self.dir.join(BLOBS))).map_err(self.error("remove", BLOBS))?;
        self.remove_snapshots(|_| true)
    }

    /// The store is made and its `db` synced.
    pub(super) fn end_creation(&self, uuid: [u8; 16]) -> Result<(), StoreError> {
        for name in [CONF, BLOBS] {
            sync(&self.dir.join(name))?;
        }
        self.sync()?;
        self.name_format(uuid)
    }

    /// From here on the store is of our format: nothing of it was written before.
    pub(super) fn name_format(&self, uuid: [u8; 16]) -> Result<(), StoreError> {
        self.write_format(&uuid.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// A second descriptor of sled's file.
    pub(super) fn open_db(&self) -> Result<File, StoreError> {
        match OpenOptions::new().read(true).write(true).open(self.dir.join(DB)) {
            Ok(file) => Ok(file),
            Err(source) if source.kind() == ErrorKind::NotFound => Err(db_missing()),
            Err(source) => Err(self.error("open", DB)(source)),
        }
    }

    /// sled would take a snapshot that a crash left unfinished for the newest one, and not open.
    pub(super) fn remove_unfinished_snapshots(&self) -> Result<(), StoreError> {
        self.remove_snapshots(|name| name.ends_with(SNAPSHOT_UNFINISHED))
    }

    /// The LSN up to which sled's newest finished snapshot holds the log, as its name says; 0 without one.
    pub(super) fn snapshot(&self) -> Result<u64, StoreError> {
        let newest = self.snapshots()?.into_iter().filter_map(|name| {
            let lsn = name.strip_prefix(SNAPSHOT)?;
            u64::from_str_radix(lsn, 16).ok()
        });
        Ok(newest.max().unwrap_or(0))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sync(&self.dir)
    }

    /// An error of a file operation, to be given its source.
    pub(super) fn error<E: Into<io::Error>>(
        &self,
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(E) -> StoreError + use<E> {
        error(operation, &self.dir.join(name))
    }

    fn remove_snapshots(&self, which: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for name in self.snapshots()?.iter().filter(|name| which(name)) {
            fs::remove_file(self.dir.join(name)).map_err(self.error("remove", name))?;
        }
        Ok(())
    }

    fn snapshots(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(error("read", &self.dir))? {
            let name = entry.map_err(error("read", &self.dir))?.file_name();
            names.extend(name.into_string().ok().filter(|name| name.starts_with(SNAPSHOT)));
        }
        Ok(names)
    }

    fn write_format(&self, what: &str) -> Result<(), StoreError> {
        let next = self.dir.join(FORMAT_NEXT);
        let written = File::create(&next).and_then(|mut file| {
            file.write_all(format!("{FORMAT_TEXT}{FORMAT_VERSION}, {what}\n").as_bytes())?;
            file.sync_all()
        });
        written.map_err(self.error("write", FORMAT_NEXT))?;
        fs::rename(&next, self.dir.join(FORMAT)).map_err(self.error("rename", FORMAT_NEXT))?;
        self.sync()
    }
}

pub(super) fn db_missing() -> StoreError {
    damaged("the file `db` is missing")
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes))?
}

fn unreadable() -> StoreError {
    damaged("the file `format` does not say which format the store has")
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(error("fsync", path))
}

pub(super) fn error<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> StoreError + use<E> {
    let path = path.to_owned();
    move |source| StoreError::File {
        operation,
        path,
        source: source.into(),
    }
}
