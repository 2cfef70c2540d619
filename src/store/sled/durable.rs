//! The file `durable`: the last Seq that a flush has made durable, written after every flush and not synced.
//!
//! sled takes damage near the end of its log for the end, and opens with what stood there before: every later batch
//! would be lost without a word. This file, though it may be older than the truth after a power cut, never names a
//! batch that is not durable; so a store that ends before it is damaged.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::folder::{self, DURABLE, Folder};
use super::{damaged, frame_error};
use crate::base::Seq;
use crate::store::StoreError;
use crate::store::frame::{self, HEAD_BYTES, Kind};

const ID_BYTES: usize = 16;

/// The last Seq written to the file of this store. None where a power cut left nothing of it: no file, an empty one, or
/// zeros. Anything else that is not its frame is damage.
pub(super) fn read(dir: &Path, uuid: [u8; ID_BYTES]) -> Result<Option<Seq>, StoreError> {
    let path = dir.join(DURABLE);
    let value = match fs::read(&path) {
        Ok(value) => value,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(folder::error("read", &path)(source)),
    };
    if value.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let found =
        frame::open(&value, Kind::Durable).map_err(|error| frame_error("the file `durable`", error))?;
    if found.payload != uuid {
        return Err(damaged(
            "its files are of two stores: `format` and `durable` name different ids",
        ));
    }
    Ok(Some(Seq(found.number)))
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Durable {
    file: File,
    uuid: [u8; ID_BYTES],
}

impl Durable {
    pub(super) fn open(folder: &Folder, uuid: [u8; ID_BYTES]) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let opened = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.dir().join(DURABLE));
        let file = opened.map_err(folder.error("open", DURABLE))?;
        Ok(Self { file, uuid })
    }

    /// Writes it over the old. Nothing is promised by it, so a failure, which leaves the old, is no fault.
    pub(super) fn write(&self, seq: Seq) {
        let mut value = Vec::with_capacity(HEAD_BYTES + ID_BYTES);
        frame::seal(&mut value, Kind::Durable, 0, seq.0, &self.uuid);
        let _ = self.file.write_all_at(&value, 0);
    }
}
