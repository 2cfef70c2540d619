//! Room on the disk: how much is free, and a ballast file that is given up before the store could meet a full disk.
//!
//! The engine does not survive a full disk, and even a settlement needs some room. So new messages are refused while
//! there is little room, and the ballast, half of that little, is released when even settlements have used it up, or
//! at a start on a full disk. It is taken again when there is room.
//!
//! The file `ballast` in the data folder is as large as it looks: `du` of an empty data folder shows it.
//!
//! # Not here
//! When to refuse, to release and to hold: `runtime`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::StoreError;

const FILE: &str = "ballast";

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes free for us.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Room {
    /// The room under which new messages are refused: `bytes_max`, or a quarter of a small file system.
    pub fn reserve_bytes(&self, bytes_max: u64) -> u64 {
        bytes_max.min(self.total_bytes / 4)
    }
}

/// The room on the file system that holds a folder.
pub fn room(dir: &Path) -> Result<Room, StoreError> {
    let found = rustix::fs::statvfs(dir).map_err(file_error("statvfs", dir))?;
    Ok(Room {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// See the module's text.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    len: u64,
}

impl Ballast {
    /// A ballast of `len` bytes in a data folder; half of [`Room::reserve_bytes`] is right, 0 is none. Touches nothing.
    pub fn new(dir: &Path, len: u64) -> Self {
        Self {
            path: dir.join(FILE),
            len,
        }
    }

    /// Whether it is held whole.
    pub fn is_held(&self) -> bool {
        self.held_bytes() == self.len
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |found| found.len())
    }

    /// Takes the room. Where there is too little, nothing is taken and the error says so.
    pub fn hold(&self) -> Result<(), StoreError> {
        if self.is_held() {
            return Ok(());
        }
        let taken = self.release().and_then(|_| {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&self.path)
                .map_err(file_error("create", &self.path))?;
            take_room(&file, self.len).map_err(file_error("allocation", &self.path))
        });
        if taken.is_err() {
            // The first error is the one to tell.
            let _ = self.release();
        }
        taken
    }

    /// Gives the room back and says how many bytes that were.
    pub fn release(&self) -> Result<u64, StoreError> {
        let held = self.held_bytes();
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(held),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(file_error("remove", &self.path)(error)),
        }
    }
}

fn take_room(mut file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // A file system that cannot allocate ahead takes written bytes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let piece = vec![0; 1 << 20];
            let mut rest = len;
            while rest > 0 {
                let now = rest.min(piece.len() as u64);
                let (now_bytes, _) = piece.split_at(usize::try_from(now).expect("a piece is small"));
                file.write_all(now_bytes)?;
                rest -= now;
            }
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}

fn file_error<E: Into<io::Error>>(
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

#[cfg(test)]
mod tests;
